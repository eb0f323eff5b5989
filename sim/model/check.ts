/**
 * Builds and runs one check of the model with SPIN, and `npm run model`, which runs them all and prints the table.
 *
 * Needs `spin` (6.5 or later) and `gcc`, both Debian packages. Exit 0: each sound run held and each break was seen or is covered; 1: not so;
 * 2: a tool is missing or the arguments are wrong.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { parseArgs, promisify } from "node:util";
import { BROKEN, defines, SOUND } from "./runs.js";
import type { Bounds } from "./runs.js";

const run = promisify(execFile);

export const MODEL = resolve(import.meta.dirname, "../../docs/model/role-protocol.pml");

export interface CheckResult {
  /** The assertion that failed, "" when none did. */
  violated: string;
  /** Every state was visited: without it, "" above says little. */
  complete: boolean;
  states: number;
  seconds: number;
}

/** @returns the programs that are not on PATH */
export function missingTools(): string[] {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return ["spin", "gcc"].filter((tool) => !folders.some((dir) => existsSync(join(dir, tool))));
}

/** @throws Error when the model cannot be built, or the checker ends in another way than it should */
export async function check(
  bounds: Bounds,
  breaks: string[],
  memoryMb: number,
): Promise<CheckResult> {
  const dir = mkdtempSync(join(tmpdir(), "dyad-model-"));
  const startedMs = performance.now();
  try {
    await run("spin", ["-a", ...defines(bounds, breaks), MODEL], { cwd: dir });
    const flags = ["-O2", "-DSAFETY", "-DCOLLAPSE", `-DMEMLIM=${memoryMb}`];
    await run("gcc", [...flags, "-o", "pan", "pan.c"], { cwd: dir, maxBuffer: 1 << 24 });
    const { stdout } = await run(join(dir, "pan"), ["-m200000"], { cwd: dir, maxBuffer: 1 << 26 });
    const states = /([0-9.e+]+) states, stored/.exec(stdout);
    if (states === null)
      throw new Error("the checker says nothing of states:\n" + stdout.slice(-500));
    const violated = /^pan:1: (.*) \(at depth/m.exec(stdout);
    return {
      violated: violated === null ? "" : violated[1]!,
      complete: !/max search depth too small|Search not completed|out of memory|exceeded/.test(
        stdout,
      ),
      states: Number(states[1]),
      seconds: (performance.now() - startedMs) / 1000,
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function row(what: string, result: CheckResult, verdict: string): void {
  console.log(
    `${what.padEnd(74)} ${result.states.toLocaleString("en").padStart(12)} ${result.seconds.toFixed(0).padStart(5)} s  ${verdict}`,
  );
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      all: { type: "boolean" },
      only: { type: "string" },
      memory: { type: "string" },
      help: { type: "boolean" },
    },
  });
  if (values.help === true) {
    console.log("npm run model -- [--all] [--only TEXT] [--memory MB]");
    console.log(
      "--all: the long runs too (minutes, gigabytes); --only: runs whose description has TEXT in it",
    );
    return 0;
  }
  const missing = missingTools();
  if (missing.length > 0) {
    console.error(
      `not on PATH: ${missing.join(", ")}. On Debian: apt-get install spin gcc libc6-dev`,
    );
    return 2;
  }
  const memoryMb = Number(values.memory ?? 4000);
  if (!(memoryMb >= 100)) {
    console.error(`--memory ${values.memory}: megabytes, 100 or more`);
    return 2;
  }
  const wanted = (about: string): boolean =>
    values.only === undefined || about.includes(values.only);
  let failed = 0;
  console.log(`${"".padEnd(74)} ${"states".padStart(12)}`);
  for (const { name, bounds, long } of SOUND) {
    const about = `as built: ${name} (${defines(bounds, [])
      .filter((one) => !one.endsWith("=0"))
      .join(" ")
      .replaceAll("-D", "")})`;
    if (!wanted(about)) continue;
    if (long && values.all !== true) {
      console.log(`${about.padEnd(74)} skipped: long, see --all`);
      continue;
    }
    const result = await check(bounds, [], memoryMb);
    const good = result.violated === "" && result.complete;
    if (!good) failed++;
    row(
      about,
      result,
      result.violated !== ""
        ? "VIOLATED: " + result.violated
        : good
          ? "holds, all states"
          : "NOT FINISHED: needs more memory",
    );
  }
  for (const { breaks, about, bounds, covered } of BROKEN) {
    if (!wanted(about)) continue;
    const result = await check(bounds, breaks, memoryMb);
    const seen = result.violated !== "";
    const good = covered === undefined ? seen : !seen && result.complete;
    if (!good) failed++;
    row(
      about,
      result,
      (seen
        ? "seen: " + result.violated
        : "not seen" + (covered === undefined ? "" : ": " + covered)) +
        (good ? "" : "  <- NOT AS SAID in sim/model/runs.ts"),
    );
  }
  console.log(failed === 0 ? "all as said" : `${failed} not as said`);
  return failed === 0 ? 0 : 1;
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === import.meta.filename) {
  process.exitCode = await main();
}
