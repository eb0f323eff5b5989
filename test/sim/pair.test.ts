/**
 * The pair in its virtual world: the same seed is the same run, thousands of seeds break no promise, and every
 * rule that is broken on purpose is caught.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { buildBundle, checkMutation, ROOT } from "../../sim/bundle.js";
import type { Bundle } from "../../sim/bundle.js";
import { coverageRows, RARE } from "../../sim/coverage.js";
import { replayCommand, runFarm } from "../../sim/farm.js";
import { Totals } from "../../sim/totals.js";
import { tryMutation } from "../../sim/mutation-table.js";
import { MUTATIONS, UNCAUGHT } from "../../sim/mutations.js";
import type { Mutation } from "../../sim/mutations.js";
import { FAULT_KINDS } from "../../sim/options.js";
import type { RunResult } from "../../sim/run.js";
import { runSeed } from "../../sim/run.js";

const SEEDS = Number(process.env["DYAD_SIM_SEEDS"] ?? 2000);
const LONG_SEEDS = 2;
const WORKERS = 2;

let bundle: Bundle;

beforeAll(async () => {
  bundle = await buildBundle();
});

afterAll(() => bundle.remove());

async function farm(path: string, firstSeed: number, count: number): Promise<Totals> {
  const totals = new Totals();
  await runFarm({
    bundlePath: path,
    firstSeed,
    count,
    workers: WORKERS,
    stop: () => false,
    onResult: (result: RunResult) => totals.add(result),
  });
  return totals;
}

function report(failures: RunResult[]): string {
  return failures
    .slice(0, 5)
    .map(
      (f) =>
        `seed ${f.seed}: ${f.violation!.promise}: ${f.violation!.what}\n  ${replayCommand(f.seed)}`,
    )
    .join("\n");
}

describe("the pair in its virtual world", () => {
  it("same seed, same trace: here, again, and in a worker thread", async () => {
    const there = new Map<number, string>();
    await runFarm({
      bundlePath: bundle.path,
      firstSeed: 100,
      count: 6,
      workers: WORKERS,
      stop: () => false,
      onResult: (result) => there.set(result.seed, result.hash),
    });
    for (let seed = 100; seed < 106; seed++) {
      const first = runSeed(seed);
      expect(runSeed(seed).hash).toBe(first.hash);
      expect(runSeed(seed, { readable: true }).hash).toBe(first.hash);
      expect(there.get(seed)).toBe(first.hash);
    }
    expect(new Set(there.values()).size).toBe(6);
  }, 60000);

  it("long worlds: hours with little in them, faults that last for minutes", async () => {
    const totals = new Totals();
    await runFarm({
      bundlePath: bundle.path,
      firstSeed: 2,
      count: LONG_SEEDS,
      workers: WORKERS,
      long: true,
      stop: () => false,
      onResult: (result) => totals.add(result),
    });
    expect(report(totals.failures)).toBe("");
    expect(totals.virtualMs).toBeGreaterThan(LONG_SEEDS * 4 * 60_000);
    expect(totals.failovers).toBeGreaterThan(0);
    expect(totals.acknowledgedWrites).toBeGreaterThan(100);
  }, 240000);

  it(`${SEEDS} seeds break no promise, in a world that is hostile`, async () => {
    const totals = await farm(bundle.path, 1, SEEDS);
    expect(report(totals.failures)).toBe("");
    expect(totals.seeds).toBe(SEEDS);
    // A world in which little happens would prove little.
    for (const kind of FAULT_KINDS)
      expect(totals.faults.get(kind) ?? 0, kind).toBeGreaterThan(SEEDS / 400);
    expect(totals.failovers).toBeGreaterThan(SEEDS / 2);
    expect(totals.acknowledgedWrites).toBeGreaterThan(SEEDS * 20);
    expect(totals.standbyReads).toBeGreaterThan(SEEDS * 5);
    expect(totals.waited).toBeLessThan(SEEDS / 10);
    // Nor would one that never came to a rule, or to a transition of the state table.
    const missed = coverageRows(totals.covered).filter(
      (row) => row.count === 0 && (SEEDS >= 20000 || !RARE.includes(row.what)),
    );
    expect(missed.map((row) => `${row.rule}: ${row.what}`)).toEqual([]);
  }, 240000);
});

describe("every broken rule is caught", () => {
  it("and what no world shows is caught by a test of its own, which is still there", () => {
    for (const mutation of UNCAUGHT) {
      checkMutation(mutation);
      expect(mutation.test, mutation.name).toBeDefined();
      const { file, name } = mutation.test!;
      expect(readFileSync(join(ROOT, file), "utf8")).toContain(`test("${name}"`);
    }
  });

  it.each(MUTATIONS.map((mutation): [string, Mutation] => [mutation.name, mutation]))(
    "%s",
    async (_name, mutation) => {
      checkMutation(mutation);
      const caught = await tryMutation(mutation, WORKERS);
      expect(caught.failure, `not caught by ${mutation.seedsMax} seeds`).toBeDefined();
    },
    120000,
  );
});
