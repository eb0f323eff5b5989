/**
 * Very many seeds, in slices that can be stopped and gone on with: each slice leaves one small file, and a slice
 * whose file is there is not run again.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildBundle } from "./bundle.js";
import { coverageTable } from "./coverage.js";
import { runFarm } from "./farm.js";
import type { TotalsRecord } from "./totals.js";
import { Totals } from "./totals.js";

export interface SliceFile extends TotalsRecord {
  /** Of the code that ran: a seed is another world in another version. */
  commit: string;
  swarm: boolean;
  long: boolean;
  first: number;
  last: number;
  seconds: number;
}

export interface SliceOptions {
  directory: string;
  firstSeed: number;
  count: number;
  sliceSeeds: number;
  minutes: number;
  workers: number;
  swarm: boolean;
  long: boolean;
  say: (line: string) => void;
}

function commitNow(): string {
  try {
    const git = (...args: string[]): string =>
      execFileSync("git", args, { encoding: "utf8" }).trim();
    const changed = git(
      "status",
      "--porcelain",
      "--",
      "sim",
      "firmware",
      "agent",
      "client",
      "protocol",
    );
    return git("rev-parse", "--short", "HEAD") + (changed === "" ? "" : "+");
  } catch {
    return "unknown";
  }
}

/** @returns whether no slice had a failure. A slice that the minutes cut off leaves no file. */
export async function runSlices(options: SliceOptions): Promise<boolean> {
  mkdirSync(options.directory, { recursive: true });
  const bundle = await buildBundle();
  const commit = commitNow();
  const endsAt = performance.now() + options.minutes * 60000;
  let sound = true;
  try {
    for (
      let at = options.firstSeed;
      at < options.firstSeed + options.count;
      at += options.sliceSeeds
    ) {
      const count = Math.min(options.sliceSeeds, options.firstSeed + options.count - at);
      const name = `${options.long ? "long" : options.swarm ? "swarm" : "seeds"}-${at}-${at + count - 1}.json`;
      const path = join(options.directory, name);
      if (existsSync(path)) continue;
      if (performance.now() > endsAt) break;
      const totals = new Totals();
      const startedAt = performance.now();
      await runFarm({
        bundlePath: bundle.path,
        firstSeed: at,
        count,
        workers: options.workers,
        swarm: options.swarm,
        long: options.long,
        stop: () => performance.now() > endsAt,
        onResult: (result) => {
          totals.add(result);
          if (result.violation !== undefined) {
            options.say(
              `seed ${result.seed}: ${result.violation.promise}: ${result.violation.what.split("\n")[0]!}`,
            );
          }
        },
      });
      const seconds = (performance.now() - startedAt) / 1000;
      options.say(`${name}: ${totals.progressLine(seconds)}`);
      if (totals.failures.length > 0) sound = false;
      if (totals.seeds < count) break;
      const file: SliceFile = {
        commit,
        swarm: options.swarm,
        long: options.long,
        first: at,
        last: at + count - 1,
        seconds: Math.round(seconds),
        ...totals.toRecord(),
      };
      writeFileSync(path, JSON.stringify(file) + "\n");
    }
  } finally {
    bundle.remove();
  }
  return sound;
}

/** The sum of all slices in a directory, as Markdown. */
export function sumSlices(directory: string): string {
  const totals = new Totals();
  const commits = new Set<string>();
  let seconds = 0;
  for (const name of readdirSync(directory).filter((file) => file.endsWith(".json"))) {
    const slice = JSON.parse(readFileSync(join(directory, name), "utf8")) as SliceFile;
    totals.addRecord(slice);
    commits.add(slice.commit);
    seconds += slice.seconds;
  }
  const years = totals.virtualMs / 1000 / 3600 / 24 / 365;
  const lines = [
    `${totals.seeds} seeds, ${(totals.virtualMs / 3.6e6).toFixed(0)} virtual hours (${years.toFixed(3)} years) in ` +
      `${(seconds / 3600).toFixed(2)} hours of two cores; ${totals.faultsInAll()} faults, ${totals.records} records in flash, ` +
      `${totals.failovers} changes of primary; ${totals.acknowledgedWrites} acknowledged writes and ${totals.reads} reads ` +
      `(${totals.standbyReads} from the standby) judged; ${totals.unknown} unknown outcomes; ${totals.waited} runs ended where the pair ` +
      `must wait for an operator; ${totals.failuresRead.length} failures. Code: ${[...commits].join(", ")}.`,
    "",
    totals.faultTable(),
    "",
    coverageTable(totals.covered),
  ];
  for (const failure of totals.failuresRead) {
    lines.push(`seed ${failure.seed}: ${failure.promise}: ${failure.what}`);
  }
  return lines.join("\n");
}
