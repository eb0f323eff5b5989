/**
 * A real interpreter as a chip on this machine: started, watched, started again when it ends, and never left behind.
 *
 *     power on ─> runs ─> ends, is killed, or its watchdog bites ─> reset, said so ─> power on ...
 *
 * The interpreters are processes without this machine's manners: neither ends with its input, so each has a shell beside it that
 * kills it by its pid once this process is gone (interpreter.mjs).
 */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { guarded, releaseGuard } from "./interpreter.mjs";
import { rmSync, statSync } from "node:fs";
import { join } from "node:path";

/** From a reset to the next power on; longer for one that lived no longer than this. @unit ms */
const RESTART_MS = 100;
const RESTART_SOON_MS = 1000;
const LIVED_MS = 3000;
/** The watchdog's hardware looks this often whether it was kicked; so many times in vain, and it bites. @unit ms */
const WATCH_MS = 1000;
const WATCHES = 5;

export interface InterpreterOptions {
  /** Program and arguments. */
  command: string[];
  /** Its working directory: where its flash is. */
  dir: string;
  /** File there that the firmware's kicks touch; "": it has no watchdog. */
  kicks: string;
  onOutput(text: string): void;
  onPowerOn(pid: number): void;
  onReset(reason: string): void;
}

export interface Interpreter {
  /** The power cycles that have ended by themselves. */
  readonly resets: number;
  /** Of the process that runs; 0: none does. */
  readonly pid: number;
  /** Puts characters on its standard input. */
  write(text: string): void;
  /** For good. */
  powerOff(): Promise<void>;
}

export function startInterpreter(options: InterpreterOptions): Interpreter {
  let child: ChildProcess | undefined;
  let resets = 0;
  let stopped = false;
  let kickedAt = 0;
  let unkicked = 0;
  let bitten = false;
  const kicks = join(options.dir, options.kicks);

  function powerOn(): void {
    if (stopped) return;
    if (options.kicks !== "") rmSync(kicks, { force: true });
    unkicked = 0;
    kickedAt = 0;
    bitten = false;
    const startedMs = performance.now();
    const [program, ...args] = guarded(options.command) as [string, ...string[]];
    // The fourth stream is the guard's. Standard input stays open: an interpreter that sees its end misbehaves.
    const one = spawn(program, args, {
      cwd: options.dir,
      stdio: ["pipe", "pipe", "pipe", "pipe"],
      // Ctrl-C at a terminal is for this process, which stops the chip in order.
      detached: true,
    });
    child = one;
    releaseGuard(one);
    for (const stream of [one.stdout!, one.stderr!]) {
      stream.setEncoding("latin1");
      stream.on("data", options.onOutput);
    }
    one.stdin!.on("error", () => undefined);
    one.once("error", () => undefined);
    one.once("exit", (code, signal) => {
      if (child === one) child = undefined;
      if (stopped) return;
      resets++;
      const lived = performance.now() - startedMs;
      options.onReset(
        bitten
          ? `watchdog: no kick for ${(WATCHES * WATCH_MS) / 1000} s`
          : signal !== null
            ? `the interpreter was ended by ${signal}`
            : `the interpreter ended with status ${code}`,
      );
      setTimeout(powerOn, lived < LIVED_MS ? RESTART_SOON_MS : RESTART_MS);
    });
    if (one.pid !== undefined) options.onPowerOn(one.pid);
  }

  function lastKick(): number {
    try {
      return statSync(kicks).mtimeMs;
    } catch {
      return 0;
    }
  }

  /** Counts looks, not time: where all of this machine has stood still the chip has too. */
  const watch = setInterval(() => {
    if (options.kicks === "" || child === undefined) return;
    const at = lastKick();
    // It bites only what has started it.
    unkicked = at === kickedAt && at !== 0 ? unkicked + 1 : 0;
    kickedAt = at;
    if (unkicked < WATCHES) return;
    unkicked = 0;
    bitten = true;
    child.kill("SIGKILL");
  }, WATCH_MS);

  powerOn();
  return {
    get resets() {
      return resets;
    },
    get pid() {
      return child?.pid ?? 0;
    },
    write: (text) => void child?.stdin?.write(text, "latin1"),
    async powerOff() {
      stopped = true;
      clearInterval(watch);
      const one = child;
      if (one === undefined || one.exitCode !== null || one.signalCode !== null) return;
      const gone = new Promise((done) => one.once("exit", done));
      one.kill("SIGKILL");
      // A process that is stopped by a signal is killed all the same.
      await gone;
    },
  };
}
