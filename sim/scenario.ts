/**
 * Scenarios as text: what happens, then what came of it.
 *
 *     # what it shows
 *     world seed=3 preset=a
 *     start controller a b
 *     run 300
 *     ----
 *     (the transcript)
 *
 * A block of commands ends with `----`; what follows, up to an empty line, is what was said and done meanwhile. A test
 * compares it with what comes of the commands now, or writes it anew (DYAD_REWRITE=1). HELP lists the commands.
 */
import { show } from "./controller-program.js";
import type { Options } from "./options.js";
import { PairWorld } from "./pair-world.js";
import { encodeCommand, latin1, ReplyReader } from "./resp-tap.js";
import type { Reply } from "./resp-tap.js";
import type { ClientsProgram, Connected } from "./clients.js";
import type { End } from "./world/network.js";
import { MODE_SOLO } from "../protocol/record.js";
import { World } from "./world/world.js";
import type { Violation } from "./world/world.js";

export const HELP = `commands of a scenario:
  world [seed=N] [preset=a|b] [serial=a,b] [small]   first of all: the world it happens in
  start X...            controller, a, b: the process starts, and its machine with it
  kill X...             kill -9
  off X...              power lost
  hang X, resume X      SIGSTOP, SIGCONT
  cut X Y, mend X Y     nothing passes between the two; everything passes again
  serial cut X, serial mend X
  run MS                virtual time passes
  until TEXT            time passes until a line with this text, 10 s at most
  ask [a|b] COMMAND     a client asks through the controller, or at a server's own port, and waits for the answer
  send [a|b] COMMAND    the same without waiting
  operator LINE         a line at the controller's console
  wipe                  the controller's flash is blank, and it restarts
  board old N           the controller's flash holds the record of N records ago, and it restarts
  disk X replace        another, empty disk; the process is killed first
  disk X backup, disk X restore
  disk X slow MS, disk X fail, disk X stall MS
  flash slow MS         writes to flash take so long`;

const SETTLE_MS = 5000;
const UNTIL_MS = 10000;
/** What passed between two lines is told as the nearest of these. */
const PASSED_MS = [50, 100, 200, 500, 1000, 2000, 5000, 10000];
const NEVER = 1e12;

const STILL: Options = {
  kinds: [],
  weights: [],
  gapMs: 1,
  burst: 0,
  faultsMs: 0,
  victim: -1,
  clients: 0,
  localClients: 0,
  sessionClients: 0,
  meanPauseMs: 10,
  easeOff: 1,
  oddChunks: 0,
  latencyMs: 0.1,
  peerLatencyMs: 0.2,
  flushMaxMs: 0.5,
  clockRates: [1, 1, 1],
  preset: -1,
  startMs: [NEVER, NEVER, NEVER],
  smallLimits: false,
  operatorChooses: false,
  idMax: 0xfff00000,
  serial: [false, false],
  serialText: false,
  foundedAlone: -1,
  ttlMaxMs: 400,
  stretchMax: 1,
  sampleMs: 100,
  memory: false,
};

type Via = "controller" | "a" | "b";

/** One client that asks one thing at a time. */
class Asker implements Connected {
  private end: End | undefined;
  private dialing = false;
  private readonly reader = new ReplyReader();
  private readonly waiting: string[] = [];
  private readonly unsent: string[][] = [];

  constructor(
    private readonly pair: PairWorld,
    readonly via: Via,
    private readonly say: (text: string) => void,
  ) {}

  get open(): number {
    return this.waiting.length + this.unsent.length;
  }

  send(words: string[]): void {
    this.unsent.push(words);
    if (this.end === undefined) this.dial();
    else this.flush();
  }

  private dial(): void {
    if (this.dialing) return;
    this.dialing = true;
    const { pair } = this;
    const port = this.via === "controller" ? "redis" : "local";
    pair.network.dial(pair.machine, pair.target(this.via), port, {
      made: (end) => {
        this.dialing = false;
        this.end = end;
        (pair.machine.program as ClientsProgram).bind(end.handle, this);
      },
      failed: () => {
        this.dialing = false;
        this.pair.world.after(20, () => this.dial());
      },
    });
  }

  private flush(): void {
    for (const words of this.unsent.splice(0)) {
      const bytes = latin1(encodeCommand(words));
      this.end!.write(bytes, 0, bytes.length);
      this.end!.flush();
      this.waiting.push(words.join(" "));
    }
    this.pair.machine.dirtyCount = 0;
  }

  onOpen(): void {
    this.flush();
  }

  onBytes(bytes: Uint8Array, start: number, end: number): void {
    this.reader.push(bytes, start, end);
    for (let reply = this.reader.next(); reply !== undefined; reply = this.reader.next()) {
      this.say(`${this.waiting.shift() ?? "?"} -> ${replyText(reply)}`);
    }
  }

  onClosed(): void {
    this.end = undefined;
    for (const command of this.waiting.splice(0)) this.say(`${command} -> the connection is gone`);
    if (this.unsent.length > 0) this.dial();
  }
}

function replyText(reply: Reply): string {
  switch (reply.type) {
    case "simple":
      return reply.text;
    case "error":
      return `-${reply.text}`;
    case "integer":
      return String(reply.value);
    case "bulk":
      return reply.text === undefined ? "nil" : `"${reply.text}"`;
    case "array":
      return `[${(reply.items ?? []).map(replyText).join(", ")}]`;
  }
}

const INDEX: Record<string, number> = { a: 0, b: 1, controller: 2 };

export class Scenario {
  private world!: World;
  private pair!: PairWorld;
  private readonly askers = new Map<Via, Asker>();
  private shown = 0;
  private lastMs = 0;
  private out: string[] = [];

  get violations(): readonly Violation[] {
    return this.world.violations;
  }

  /** @returns the transcript since the last block */
  block(commands: readonly string[]): string[] {
    this.out = [];
    for (const command of commands) this.command(command.trim().split(/\s+/));
    this.collect();
    return this.out;
  }

  private command(words: string[]): void {
    const [verb, ...rest] = words;
    if (verb === "world") {
      this.begin(rest);
      return;
    }
    switch (verb) {
      case "start":
        for (const name of rest) this.machine(name).start();
        break;
      case "kill":
        for (const name of rest) this.machine(name).kill("kill -9");
        break;
      case "off":
        for (const name of rest) this.machine(name).powerOff("pulled");
        break;
      case "hang":
        for (const name of rest) this.machine(name).hang();
        break;
      case "resume":
        for (const name of rest) this.machine(name).resume();
        break;
      case "cut":
        this.both(rest, (x, y) => this.pair.network.block(x, y));
        break;
      case "mend":
        this.both(rest, (x, y) => this.pair.network.unblock(x, y));
        break;
      case "serial":
        this.pair.lines[INDEX[rest[1]!]!]!.cut = rest[0] === "cut";
        break;
      case "run":
        this.world.runTo(this.world.now + Number(rest[0]));
        break;
      case "until":
        this.until(rest.join(" "));
        break;
      case "ask":
      case "send":
        this.ask(rest, verb === "ask");
        break;
      case "operator":
        this.operator(rest.join(" "));
        break;
      case "wipe":
        this.board(undefined);
        break;
      case "board":
        this.board(this.pair.recordsBefore(Number(rest[1])));
        break;
      case "disk":
        this.disk(rest);
        break;
      case "flash":
        this.pair.flash.writeMinMs = Number(rest[1]);
        this.pair.flash.writeMaxMs = Number(rest[1]);
        break;
      default:
        throw new Error(`no command "${words.join(" ")}"\n${HELP}`);
    }
    this.collect();
  }

  private begin(words: string[]): void {
    const settings = new Map(words.map((word) => word.split("=") as [string, string]));
    const preset = settings.get("preset");
    const cables = (settings.get("serial") ?? "").split(",");
    this.world = new World(Number(settings.get("seed") ?? 1), true);
    this.pair = new PairWorld(this.world, {
      ...STILL,
      preset: preset === undefined ? -1 : (INDEX[preset] as 0 | 1),
      serial: [cables.includes("a"), cables.includes("b")],
      smallLimits: settings.has("small"),
    });
    this.shown = this.world.trace.lines.length;
  }

  private machine(name: string): PairWorld["machine"] {
    const index = INDEX[name];
    if (index === undefined) throw new Error(`no machine "${name}"`);
    return this.pair.machines[index]!;
  }

  private both(
    names: string[],
    action: (x: PairWorld["machine"], y: PairWorld["machine"]) => void,
  ): void {
    const [x, y] = [this.machine(names[0]!), this.machine(names[1]!)];
    action(x, y);
    action(y, x);
  }

  private until(text: string): void {
    const limit = this.world.now + UNTIL_MS;
    const from = this.out.length;
    for (;;) {
      this.collect();
      if (this.out.slice(from).some((line) => line.includes(text))) return;
      if (this.world.now >= limit || this.world.violations.length > 0) {
        this.out.push(`NEVER CAME: ${text}`);
        return;
      }
      this.world.runTo(this.world.now + 1);
    }
  }

  private ask(words: string[], wait: boolean): void {
    const local = words[0] === "a" || words[0] === "b";
    const via: Via = local ? (words[0] as Via) : "controller";
    let asker = this.askers.get(via);
    if (asker === undefined) {
      const who = via === "controller" ? "client" : `client at ${via}`;
      asker = new Asker(this.pair, via, (text) => this.world.trace.line(this.world.now, who, text));
      this.askers.set(via, asker);
    }
    const { tap } = this.pair;
    const before = [tap.answersBy[0]!, tap.answersBy[1]!];
    asker.send(local ? words.slice(1) : words);
    if (!wait) return;
    const limit = this.world.now + SETTLE_MS;
    while (asker.open > 0 && this.world.now < limit && this.world.violations.length === 0) {
      this.world.runTo(this.world.now + 0.5);
    }
    this.collect();
    if (asker.open > 0) this.out.push(`NO ANSWER: ${words.join(" ")}`);
    if (local) return;
    const by = [0, 1].filter((server) => tap.answersBy[server]! > before[server]!);
    if (by.length === 1 && this.out.length > 0)
      this.out.push(`            (by ${by[0] === 0 ? "a" : "b"})`);
  }

  private operator(line: string): void {
    const controller = this.pair.controller();
    if (controller === undefined) {
      this.out.push("no controller to type at");
      return;
    }
    const text = line.replace(/IDENTITY\((a|b)\)/, (_all, name: string) =>
      Buffer.from(this.pair.disks[INDEX[name] as 0 | 1].identity).toString("hex"),
    );
    const machine = this.pair.machines[2]!;
    let answer = "";
    machine.post(() => {
      answer = controller.console(text);
    });
    this.world.runTo(this.world.now + 1);
    this.collect();
    this.out.push(`> ${line}`);
    for (const one of answer.split("\n"))
      if (one.trim() !== "") this.out.push(`| ${anonymous(one)}`);
  }

  private board(record: Uint8Array | undefined): void {
    this.pair.machines[2]!.kill(
      record === undefined ? "its flash is wiped" : "an old board is put in",
    );
    this.pair.flash.record = record;
    // After an old board the same epochs may come again.
    this.pair.tap.closeBooks();
    this.pair.readFlash();
    this.pair.machines[2]!.start();
  }

  private disk(words: string[]): void {
    const index = INDEX[words[0]!] as 0 | 1;
    const disk = this.pair.disks[index];
    switch (words[1]) {
      case "replace":
        this.pair.machines[index]!.kill("its disk is exchanged");
        disk.replace();
        break;
      case "backup":
        this.pair.backUp(index);
        break;
      case "restore":
        this.pair.machines[index]!.kill("its disk is restored from a backup");
        this.pair.restore(index);
        break;
      case "slow":
        disk.flushMinMs = Number(words[2]);
        disk.flushMaxMs = Number(words[2]);
        break;
      case "stall":
        disk.stalledUntil = this.world.now + Number(words[2]);
        break;
      case "fail":
        this.pair.allowDiskFailure(index);
        disk.failNext = true;
        break;
      default:
        throw new Error(`no disk command "${words.join(" ")}"`);
    }
  }

  /** Takes over what the trace has said since. */
  private collect(): void {
    const { lines } = this.world.trace;
    for (; this.shown < lines.length; this.shown++) {
      const found = readable(lines[this.shown]!);
      if (found === undefined) continue;
      const { atMs, text } = found;
      const passed = passedText(atMs - this.lastMs);
      if (passed !== "") this.out.push(passed);
      this.lastMs = atMs;
      const details = lines[this.shown + 1];
      const more = details === undefined ? "" : detailOf(details);
      this.out.push(anonymous(more === "" ? text : `${text}: ${more}`));
    }
  }
}

/** A line of the trace without what is for machines; undefined: not for people at all. */
function readable(line: string): { atMs: number; text: string } | undefined {
  const found = /^ *(\d+\.\d{3}) {2}(\S+(?: at [ab])?|client at [ab]) +(.*)$/.exec(line);
  if (found === null) return undefined;
  const [, time, who, rest] = found as unknown as [string, string, string, string];
  if (/^[A-Z]+ #\d+ flags|^\{/.test(rest) || rest.startsWith("debug ")) return undefined;
  const text = rest.replace(/^(info|warn|error) /, "");
  return { atMs: Number(time), text: `${who.padEnd(11)} ${text}` };
}

/** Time that passed, in steps so coarse that a change elsewhere in the code seldom shows. */
function passedText(ms: number): string {
  if (ms < PASSED_MS[0]! * 0.7) return "";
  let nearest = PASSED_MS[0]!;
  for (const step of PASSED_MS) {
    if (Math.abs(Math.log(ms / step)) < Math.abs(Math.log(ms / nearest))) nearest = step;
  }
  return `            ... some ${nearest} ms`;
}

function detailOf(line: string): string {
  const found = /^ *\d+\.\d{3} {2}\S+ +(\{.*\})$/.exec(line);
  if (found === null) return "";
  const details = JSON.parse(found[1]!) as Record<string, unknown>;
  if (typeof details["text"] === "string") return details["text"];
  return Object.entries(details)
    .map(([key, value]) => `${key}=${wordFor(key, value)}`)
    .join(" ");
}

function wordFor(key: string, value: unknown): string {
  if (key === "primary") return value === 0 ? "a" : "b";
  if (key === "mode") return value === MODE_SOLO ? "solo" : "both";
  return typeof value === "string" ? value : show(value as object);
}

/** Long hexadecimal names say nothing to a reader. */
function anonymous(text: string): string {
  return text.replace(/\b[0-9a-f]{16,}\b/g, (hex) => `${hex.slice(0, 4)}…`);
}

/** Plays a whole file. @returns it with the transcripts as they are now, and what was violated */
export function playScenario(text: string): { text: string; violations: readonly Violation[] } {
  const scenario = new Scenario();
  const out: string[] = [];
  const lines = text.replace(/\s+$/, "").split("\n");
  let commands: string[] = [];
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!;
    out.push(line);
    if (line === "----") {
      out.push(...scenario.block(commands));
      commands = [];
      while (i + 1 < lines.length && lines[i + 1] !== "") i++;
    } else if (line !== "" && !line.startsWith("#")) {
      commands.push(line);
    }
  }
  if (commands.length > 0) throw new Error("commands at the end without ----");
  return { text: out.join("\n") + "\n", violations: scenario.violations };
}
