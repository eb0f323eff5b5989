/**
 * Instructions of a running program, counted by callgrind: switched on and off from outside, split by who called what.
 *
 * Counts do not depend on how busy the machine is.
 */
import { execFile, spawnSync } from "node:child_process";
import { readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const OUT = "counted";

export function hasCallgrind(): boolean {
  return spawnSync("sh", ["-c", "command -v valgrind callgrind_control"]).status === 0;
}

/** What runs a program so that its instructions can be counted. @param dir where the counts are put */
export function underCallgrind(dir: string): string[] {
  return [
    "valgrind",
    "--quiet",
    "--tool=callgrind",
    "--instr-atstart=no",
    // What is started may be a program that only gives it one processor.
    "--trace-children=yes",
    `--callgrind-out-file=${join(dir, OUT)}`,
  ];
}

/** From now on instructions are counted, from zero. */
export async function startCounting(pid: number): Promise<void> {
  await run("callgrind_control", ["-i", "on", String(pid)]);
  await run("callgrind_control", ["-z", String(pid)]);
}

/** Instructions of a function with all that it called, by `caller>function`. */
export type Costs = Map<string, { calls: number; cost: number }>;

/**
 * What was counted since the last time.
 * @returns all instructions, and those of some functions by their callers
 */
export async function takeCounts(
  pid: number,
  dir: string,
  functions: string[],
): Promise<{ total: number; costs: Costs }> {
  await run("callgrind_control", ["-d", String(pid)]);
  let file: string | undefined;
  // A program that sleeps writes when it wakes.
  for (let waitedMs = 0; file === undefined; waitedMs += 50) {
    if (waitedMs > 10_000) throw new Error("callgrind wrote nothing");
    await new Promise((wake) => setTimeout(wake, 50));
    file = readdirSync(dir).find((name) => name.startsWith(`${OUT}.`));
  }
  const text = readFileSync(join(dir, file), "latin1");
  rmSync(join(dir, file));
  return countsOf(text, functions);
}

/** Reads callgrind's own format, in which a name is written once and is a number after that. */
export function countsOf(text: string, functions: string[]): { total: number; costs: Costs } {
  const names = new Map<string, string>();
  const nameOf = (field: string): string => {
    const [, number, name] = /^\((\d+)\)(?: (.*))?$/.exec(field)!;
    if (name !== undefined) names.set(number!, name.replace(/'\d+$/, ""));
    return names.get(number!)!;
  };
  const costs: Costs = new Map();
  let total = 0;
  let caller = "";
  let called = "";
  let calls = 0;
  for (const line of text.split("\n")) {
    if (line.startsWith("fn=")) caller = nameOf(line.slice(3));
    else if (line.startsWith("cfn=")) called = nameOf(line.slice(4));
    else if (line.startsWith("calls=")) calls = Number(line.slice(6).split(" ")[0]);
    else if (line.startsWith("summary:") || line.startsWith("totals:"))
      total = Number(line.split(" ")[1]);
    else if (calls > 0 && /^[+*\-\d]/.test(line)) {
      if (functions.includes(called) && caller !== called) {
        const edge = `${caller}>${called}`;
        const known = costs.get(edge) ?? { calls: 0, cost: 0 };
        known.calls += calls;
        known.cost += Number(line.split(" ")[1]);
        costs.set(edge, known);
      }
      calls = 0;
    }
  }
  return { total, costs };
}
