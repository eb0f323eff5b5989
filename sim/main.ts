/**
 * npm run sim -- [--seed N] [--runs N] [--minutes N] [--workers N] [--timeline] [--shrink] [--mutation NAME]
 * npm run sim -- --mutations
 *
 * With --seed alone: runs that seed and says what happened. With --runs or --minutes: runs seeds from
 * --seed (default 1) on, with a live line, and shows the first failure's trace. --mutations breaks every rule of the list in
 * turn and prints which promise of safety showed it, in which seed.
 */
import { parseArgs } from "node:util";
import { buildBundle } from "./bundle.js";
import { replayCommand, runFarm, Totals } from "./farm.js";
import { TABLE_HEAD, tableRow, tryMutation } from "./mutation-table.js";
import { MUTATIONS, UNCAUGHT } from "./mutations.js";
import type { RunResult } from "./run.js";
import { runSeed } from "./run.js";
import { shrink } from "./shrink.js";

const TRACE_LINES = 120;
/** So many failures are enough to look at. */
const FAILURES_MAX = 20;

function showRun(result: RunResult, all: boolean): void {
  const lines = all ? result.lines : result.lines.slice(-TRACE_LINES);
  for (const line of lines) console.log(line);
  console.log(
    `seed ${result.seed}: ${(result.virtualMs / 1000).toFixed(1)} virtual s, ${result.events} events, ` +
      `${result.acknowledgedWrites} writes acknowledged, ${result.reads} reads (${result.standbyReads} by the standby), ` +
      `${result.unknown} unknown, ${result.failed} refused, ${result.failovers} failovers, hash ${result.hash}` +
      (result.waited === "" ? "" : `, waits for an operator: ${result.waited}`),
  );
  if (result.violation !== undefined) {
    console.log(`VIOLATION of ${result.violation.promise}: ${result.violation.what}`);
    console.log(`replay: ${replayCommand(result.seed)}`);
  }
}

function progressLine(totals: Totals, startedAt: number): string {
  const seconds = (performance.now() - startedAt) / 1000;
  return (
    `${totals.seeds} seeds, ${(totals.virtualMs / 3.6e6).toFixed(2)} virtual hours ` +
    `(${(totals.virtualMs / 1000 / seconds).toFixed(0)} x), ${totals.failovers} failovers, ` +
    `${totals.acknowledgedWrites} acknowledged writes and ${totals.reads} reads checked ` +
    `(${totals.standbyReads} from the standby), ${totals.waited} waiting, ${totals.failures.length} failures`
  );
}

async function many(
  firstSeed: number,
  count: number,
  minutes: number,
  workers: number,
  mutationName: string | undefined,
): Promise<number> {
  const mutation = MUTATIONS.concat(UNCAUGHT).find((m) => m.name === mutationName);
  if (mutationName !== undefined && mutation === undefined) {
    console.error(
      `no mutation "${mutationName}"; there are: ${MUTATIONS.map((m) => m.name).join(", ")}`,
    );
    return 2;
  }
  const bundle = await buildBundle(mutation);
  const totals = new Totals();
  const startedAt = performance.now();
  const live = process.stdout.isTTY;
  let shownAt = 0;
  try {
    await runFarm({
      bundlePath: bundle.path,
      firstSeed,
      count,
      workers,
      stop: () =>
        performance.now() - startedAt > minutes * 60000 ||
        totals.failures.length >= FAILURES_MAX ||
        (mutation !== undefined && totals.failures.length > 0),
      onResult(result) {
        totals.add(result);
        if (result.violation !== undefined) {
          const first = result.violation.what.split("\n")[0]!;
          console.log(
            `${live ? "\r\x1b[K" : ""}seed ${result.seed}: ${result.violation.promise}: ${first}`,
          );
        }
        if (performance.now() - shownAt > (live ? 200 : 10000)) {
          shownAt = performance.now();
          const line = progressLine(totals, startedAt);
          if (live) process.stdout.write(`\r\x1b[K${line}`);
          else console.log(line);
        }
      },
    });
  } finally {
    bundle.remove();
  }
  console.log(`${live ? "\r\x1b[K" : ""}${progressLine(totals, startedAt)}`);
  console.log(`faults: ${totals.faultLine()}`);
  const failure = totals.failures.sort((x, y) => x.seed - y.seed)[0];
  if (failure === undefined) return 0;
  if (mutation === undefined) showRun(runSeed(failure.seed, { readable: true }), false);
  return 1;
}

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    runs: { type: "string" },
    minutes: { type: "string" },
    workers: { type: "string", default: "2" },
    timeline: { type: "boolean", default: false },
    shrink: { type: "boolean", default: false },
    mutation: { type: "string" },
    mutations: { type: "boolean", default: false },
  },
});

const seed = Number(values.seed ?? 1);
if (values.mutations) {
  console.log(TABLE_HEAD);
  for (const mutation of MUTATIONS) {
    const caught = await tryMutation(mutation, Number(values.workers));
    console.log(tableRow(caught));
    if (caught.failure === undefined) process.exitCode = 1;
  }
} else if (values.shrink) {
  const first = runSeed(seed);
  if (first.violation === undefined) {
    showRun(first, false);
  } else {
    const shrunk = shrink(seed, first.violation.promise, 300);
    showRun(shrunk.result, values.timeline);
    console.log(`${shrunk.kept.length} of ${shrunk.of} faults are enough`);
  }
} else if (values.runs !== undefined || values.minutes !== undefined || values.seed === undefined) {
  const count =
    values.runs === undefined
      ? values.minutes === undefined
        ? 200
        : Infinity
      : Number(values.runs);
  const minutes = values.minutes === undefined ? Infinity : Number(values.minutes);
  process.exitCode = await many(seed, count, minutes, Number(values.workers), values.mutation);
} else {
  const result = runSeed(seed, { readable: values.timeline });
  showRun(result, values.timeline);
  process.exitCode = result.violation === undefined ? 0 : 1;
}
