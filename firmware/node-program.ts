/**
 * What the controllers that are programs on this machine have in common (main.node.ts, main.board.ts, main.chip.ts): their
 * command line, their exit status, and how they end with the process that started them.
 */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ConfigError, readConfig } from "./node-config.js";
import type { ControllerSettings } from "./node-config.js";

export const EXIT_STOPPED = 0;
/** A broken invariant, or what nobody expected. */
export const EXIT_FAULT = 1;
export const EXIT_CONFIG = 2;
/** Another controller has the directory. */
export const EXIT_IN_USE = 3;
/** A port cannot be had. */
export const EXIT_PORT = 4;
/** The flash cannot be read. */
export const EXIT_FLASH = 5;

/** Where tools find the ports of a controller that chose some itself. */
const PORTS_FILE = "controller.ports.json";

/** Files of each home's flash in a controller's directory. */
const FLASH_FILES = {
  node: ["flash.0", "flash.1"],
  board: ["board.flash"],
  espruino: ["espruino.flash"],
  iotjs: ["dyad.0", "dyad.1"],
} as const;

/** A controller's home that is a program of this machine. */
export type ProgramHome = keyof typeof FLASH_FILES;

/** The flash of another home in the same directory is another chip's: void as soon as this one serves. */
export function voidOtherFlash(dir: string, own: ProgramHome): void {
  for (const [home, names] of Object.entries(FLASH_FILES)) {
    if (home !== own) for (const name of names) rmSync(join(dir, name), { force: true });
  }
}

export interface Manners {
  /** Started by `dyad up`: end with it, and say nothing on the terminal but what it shows. */
  withParent: boolean;
  console: boolean;
  /** Of a chip: the interpreter. */
  engine: string;
}

export interface Ports {
  link: number;
  redis: number;
  native: number;
}

export interface Program {
  /** As error messages have it. */
  name: string;
  /** What --engine may be, where there is such a choice. */
  engines?: readonly string[];
  run(settings: ControllerSettings, manners: Manners): Promise<void>;
  /** Another controller has the directory; the error says which. */
  isInUse(error: unknown): boolean;
}

export type Fail = (exitCode: number, message: string) => never;

/** @returns what says what is wrong, and ends the program */
export function failAs(name: string): Fail {
  return (exitCode, message) => {
    process.stderr.write(`dyad ${name}: ${message}\n`);
    process.exit(exitCode);
  };
}

/** What a failed listen means and what to do. @param field of the configuration */
export function portProblem(field: string, host: string, port: number, error: unknown): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case "EADDRINUSE":
      return `port ${port} on ${host} is in use by another program: stop it, or change "${field}"`;
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return `this machine has no address ${host}: change "host"`;
    case "EACCES":
      return `port ${port} needs more rights than this user has: change "${field}" to one above 1023`;
    default:
      return `cannot listen on ${host}, port ${port} ("${field}"): ${(error as Error).message}`;
  }
}

/** What tools read to find this controller. */
export function describePorts(host: string, ports: Ports): string {
  return JSON.stringify({ pid: process.pid, host, ...ports });
}

/** @returns the file's path, to be removed at the end */
export function writePortsFile(dir: string, host: string, ports: Ports): string {
  const path = join(dir, PORTS_FILE);
  writeFileSync(`${path}.new`, `${describePorts(host, ports)}\n`);
  renameSync(`${path}.new`, path);
  return path;
}

/** A terminal that has gone away is no reason to end. */
export function outliveTerminal(): void {
  process.stdout.on("error", () => undefined);
  process.stderr.on("error", () => undefined);
}

/** @param stop may be called more than once; the reason is for people */
export function stopInOrder(manners: Manners, stop: (why: string) => void): void {
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    process.on(signal, () => stop(signal));
  }
  if (!manners.withParent) return;
  // The other end belongs to `dyad up`; it closes when that process ends, in whatever way.
  const gone = (): void => stop("the process that started it has ended");
  process.stdin.on("end", gone).on("close", gone).on("error", gone).resume();
}

/** Reads the command line and the configuration it names, and runs the program; whatever is wrong ends it with a word. */
export async function runProgram(program: Program): Promise<void> {
  const fail: Fail = failAs(program.name);
  let values: { config?: string; "with-parent"?: boolean; console?: boolean; engine?: string };
  try {
    values = parseArgs({
      options: {
        config: { type: "string" },
        "with-parent": { type: "boolean" },
        console: { type: "boolean" },
        engine: { type: "string" },
      },
    }).values;
  } catch (error) {
    const usage = `Usage: ${program.name} --config FILE [--console]`;
    fail(EXIT_CONFIG, `${(error as Error).message} ${usage}`);
  }
  const { engines } = program;
  if (engines === undefined && values.engine !== undefined) {
    fail(EXIT_CONFIG, "--engine is for a chip, and this is none.");
  }
  if (engines !== undefined && !engines.includes(values.engine ?? "")) {
    fail(EXIT_CONFIG, `which engine? Give --engine ${engines.join(" or --engine ")}.`);
  }
  if (values.config === undefined) fail(EXIT_CONFIG, "which controller? Give --config FILE.");
  let settings: ControllerSettings;
  try {
    settings = readConfig(values.config);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    fail(EXIT_CONFIG, error.message);
  }
  try {
    await program.run(settings, {
      withParent: values["with-parent"] === true,
      console: values.console === true,
      engine: values.engine ?? "",
    });
  } catch (error) {
    const { message } = error as Error;
    if (program.isInUse(error)) fail(EXIT_IN_USE, message);
    fail(EXIT_FAULT, `cannot start: ${message}`);
  }
}
