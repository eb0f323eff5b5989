/**
 * The simulator's command line: `npm run sim -- --help` says what it takes.
 *
 * With --seed alone: runs that seed and says what happened. With --runs or --minutes: runs seeds from --seed (default 1)
 * on, with a live line, and shows the first failure's trace.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildBundle, ROOT } from "./bundle.js";
import { coverageTable } from "./coverage.js";
import { replayCommand, runFarm } from "./farm.js";
import { TABLE_HEAD, tableRow, tryMutation } from "./mutation-table.js";
import { MUTATIONS, UNCAUGHT } from "./mutations.js";
import { buildFirmware, loadFirmware } from "./firmware.js";
import type { Firmware } from "./firmware.js";
import { AIMED_KINDS, FAULT_KINDS } from "./options.js";
import type { FaultKind } from "./options.js";
import type { Mutation } from "./mutations.js";
import type { RunResult } from "./run.js";
import { runSeed } from "./run.js";
import { playScenario } from "./scenario.js";
import { shrink } from "./shrink.js";
import type * as Worker from "./worker.js";
import { READS_AN_HOUR, soak, SOAK_PAUSE_MS } from "./soak.js";
import { runSlices, sumSlices } from "./slices.js";
import { drawTimeline } from "./timeline.js";
import { Totals } from "./totals.js";

const HELP = `npm run sim -- [options]
  --seed N           the first seed; alone: that one, and what happened in it
  --runs N           so many seeds (200 when nothing else is said)
  --minutes N        seeds for so long
  --workers N        threads (2)
  --engine core|bundle  what the controller is: its core, or the very bundle of a board on a virtual board (core)
  --soak HOURS       one board switched on for so many virtual hours, under load and faults: does its firmware leak?
  --pause MS         of --soak: mean time between a client's commands (700); a virtual hour is cheaper with fewer
  --swarm            each run has a random subset of all faults at random rates: no worlds of scripts alone, no calm ones
  --long             worlds of up to an hour: few and slow clients, rare faults that may last for minutes
  --only KIND,...    every world has these faults and no others
  --coverage         prints how often each transition and each rule was reached
  --trace            prints every line of a seed's trace
  --timeline F.svg   draws a seed: one lane a machine, messages as arrows, roles as colours, the violation marked
  --shrink           leaves faults out of a failing seed as long as the same promise still breaks
  --slices DIR       runs in slices; each leaves a file there, and is not run again
  --slice-size N     seeds of a slice (10000)
  --sum DIR          adds up the slices of a directory
  --scenario F       plays a scenario (test/scenarios) and prints it with what comes of it
  --mutations        breaks every rule of the list in turn: which promise of safety shows it, in which seed
  --uncaught         the same for the list of those that nothing has shown yet
  --mutation NAME    runs with this rule broken`;

/** Memory may grow by so much after the first hour. */
const LEAK_PERCENT = 2;
const TRACE_LINES = 120;
/** Runs that looking for a shorter plan may take. */
const SHRINK_RUNS_MAX = 300;
/** So many failures are enough to look at. */
const FAILURES_MAX = 20;

const { values } = parseArgs({
  options: {
    help: { type: "boolean", default: false },
    seed: { type: "string" },
    runs: { type: "string" },
    minutes: { type: "string" },
    workers: { type: "string", default: "2" },
    engine: { type: "string", default: "core" },
    soak: { type: "string" },
    pause: { type: "string", default: String(SOAK_PAUSE_MS) },
    swarm: { type: "boolean", default: false },
    long: { type: "boolean", default: false },
    only: { type: "string" },
    coverage: { type: "boolean", default: false },
    trace: { type: "boolean", default: false },
    timeline: { type: "string" },
    shrink: { type: "boolean", default: false },
    slices: { type: "string" },
    "slice-size": { type: "string", default: "10000" },
    sum: { type: "string" },
    scenario: { type: "string" },
    mutation: { type: "string" },
    mutations: { type: "boolean", default: false },
    uncaught: { type: "boolean", default: false },
  },
});

const ALL_KINDS: readonly FaultKind[] = [...FAULT_KINDS, ...AIMED_KINDS];
const only = (values.only?.split(",") ?? namedMutation()?.only)?.map((kind) => {
  const found = ALL_KINDS.find((name) => name === kind);
  if (found === undefined)
    throw new Error(`no fault "${kind}"; there are: ${ALL_KINDS.join(", ")}`);
  return found;
});
if (values.engine !== "core" && values.engine !== "bundle")
  throw new Error(`--engine is core or bundle, not ${values.engine}`);
const isBundle = values.engine === "bundle" || values.soak !== undefined;
if (isBundle && values.mutation !== undefined)
  throw new Error(
    "rules are broken in the cores' sources, not in a bundle: leave --engine bundle out",
  );
const seed = Number(values.seed ?? 1);
const workers = Number(values.workers);
const { swarm, long } = values;
const minutes = values.minutes === undefined ? Infinity : Number(values.minutes);
const runs =
  values.runs === undefined ? (values.minutes === undefined ? 200 : Infinity) : Number(values.runs);

/** What the controller runs, where that is not the core. */
function firmware(): Firmware | undefined {
  return isBundle ? loadFirmware(ROOT) : undefined;
}

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
    const broken = values.mutation === undefined ? "" : ` --mutation "${values.mutation}"`;
    const kinds = values.only === undefined ? "" : ` --only ${values.only}`;
    console.log(
      `replay: ${replayCommand(result.seed, { swarm, long }, isBundle)}${kinds}${broken}`,
    );
  }
}

function namedMutation(): Mutation | undefined {
  const mutation = MUTATIONS.concat(UNCAUGHT).find((m) => m.name === values.mutation);
  if (values.mutation !== undefined && mutation === undefined) {
    const names = MUTATIONS.concat(UNCAUGHT).map((m) => m.name);
    console.error(`no mutation "${values.mutation}"; there are: ${names.join(", ")}`);
    process.exit(2);
  }
  return mutation;
}

async function many(): Promise<number> {
  const mutation = namedMutation();
  const bundle = await buildBundle(mutation);
  const totals = new Totals();
  const startedAt = performance.now();
  const live = process.stdout.isTTY;
  const clear = live ? "\r\x1b[K" : "";
  const seconds = (): number => (performance.now() - startedAt) / 1000;
  let shownAt = 0;
  try {
    await runFarm({
      bundlePath: bundle.path,
      firstSeed: seed,
      count: runs,
      workers,
      swarm,
      long,
      only,
      bundleOf: isBundle ? ROOT : undefined,
      safetyOnly: mutation !== undefined,
      counts: mutation?.counts,
      stop: () =>
        seconds() > minutes * 60 ||
        totals.failures.length >= FAILURES_MAX ||
        (mutation !== undefined && totals.failures.length > 0),
      onResult(result) {
        totals.add(result);
        if (result.violation !== undefined) {
          const first = result.violation.what.split("\n")[0]!;
          console.log(`${clear}seed ${result.seed}: ${result.violation.promise}: ${first}`);
        }
        if (performance.now() - shownAt > (live ? 200 : 10000)) {
          shownAt = performance.now();
          const line = totals.progressLine(seconds());
          if (live) process.stdout.write(clear + line);
          else console.log(line);
        }
      },
    });
  } finally {
    bundle.remove();
  }
  console.log(clear + totals.progressLine(seconds()));
  console.log(totals.faultTable());
  if (values.coverage) console.log(coverageTable(totals.covered));
  const failure = totals.failures.sort((x, y) => x.seed - y.seed)[0];
  if (failure === undefined) return 0;
  if (mutation === undefined) showFailure(failure);
  return 1;
}

/** The end of a failing seed's trace, its picture, and how few of its faults are enough. */
function showFailure(failure: RunResult): void {
  const options = { swarm, long, only, firmware: firmware() };
  const shown = runSeed(failure.seed, { ...options, readable: true });
  showRun(shown, false);
  const path = join(tmpdir(), `dyad-seed-${failure.seed}.svg`);
  writeFileSync(path, drawTimeline(shown));
  console.log(`timeline: ${path}`);
  const shrunk = shrink(failure.seed, failure.violation!.promise, SHRINK_RUNS_MAX, options);
  console.log(
    `${shrunk.kept.length} of ${shrunk.of} faults are enough: ${shrunk.faults.join("; ")}`,
  );
}

/** The simulator itself, or a bundle of it in which a rule is broken. */
async function simulator(): Promise<Pick<typeof Worker, "runSeed" | "shrink">> {
  const mutation = namedMutation();
  if (mutation === undefined) return { runSeed, shrink };
  const bundle = await buildBundle(mutation);
  try {
    return (await import(bundle.path)) as typeof Worker;
  } finally {
    bundle.remove();
  }
}

async function one(): Promise<number> {
  const { runSeed, shrink } = await simulator();
  const safetyOnly = values.mutation !== undefined;
  const counts = namedMutation()?.counts;
  const drawing = values.timeline !== undefined;
  let result: RunResult;
  if (values.shrink) {
    const first = runSeed(seed, { swarm, long, only, safetyOnly, counts, firmware: firmware() });
    if (first.violation === undefined) {
      showRun(first, false);
      return 0;
    }
    const shrunk = shrink(seed, first.violation.promise, SHRINK_RUNS_MAX, {
      swarm,
      long,
      only,
      safetyOnly,
      counts,
      firmware: firmware(),
    });
    result = shrunk.result;
    showRun(result, values.trace);
    console.log(
      `${shrunk.kept.length} of ${shrunk.of} faults are enough: ${shrunk.faults.join("; ")}`,
    );
  } else {
    result = runSeed(seed, {
      readable: values.trace || drawing,
      swarm,
      long,
      only,
      safetyOnly,
      counts,
      firmware: firmware(),
    });
    showRun(result, values.trace);
  }
  if (drawing) writeFileSync(values.timeline!, drawTimeline(result));
  return result.violation === undefined ? 0 : 1;
}

async function table(): Promise<number> {
  let missed = 0;
  console.log(TABLE_HEAD);
  for (const mutation of values.uncaught ? UNCAUGHT : MUTATIONS) {
    const caught = await tryMutation(mutation, workers);
    console.log(tableRow(caught));
    if (caught.failure === undefined) missed++;
  }
  return missed === 0 ? 0 : 1;
}

async function slices(directory: string): Promise<number> {
  const sound = await runSlices({
    directory,
    firstSeed: seed,
    count: runs,
    sliceSeeds: Number(values["slice-size"]),
    minutes,
    workers,
    swarm,
    long,
    say: (line) => console.log(line),
  });
  return sound ? 0 : 1;
}

function soakFor(hours: number): number {
  const pauseMs = Number(values.pause);
  if (!(pauseMs > 0)) throw new Error(`--pause ${values.pause}: milliseconds, above 0`);
  const result = soak(seed, hours, pauseMs, loadFirmware(ROOT), (line) => console.log(line));
  const { memory } = result;
  const first = memory[Math.min(READS_AN_HOUR, memory.length >> 1) - 1];
  const last = memory[memory.length - 1];
  if (first === undefined || last === undefined || result.resets > 0 || result.violation !== "") {
    console.log(`no answer: ${result.resets} resets; ${result.violation}`);
    return 1;
  }
  const more = (100 * (last - first)) / first;
  console.log(
    `memory in use: ${first} bytes after the first hour (or half of less), ${last} at the end (${more.toFixed(2)} %); ` +
      `${result.writes} writes, ${result.reads} reads, ${result.faults} faults; ` +
      (result.unjudged === ""
        ? "what clients were told: sound"
        : `clients' histories: ${result.unjudged}`),
  );
  return more <= LEAK_PERCENT ? 0 : 1;
}

if (isBundle) buildFirmware(ROOT);
if (values.help) console.log(HELP);
else if (values.scenario !== undefined) {
  process.stdout.write(playScenario(readFileSync(values.scenario, "utf8")).text);
} else if (values.soak !== undefined) process.exitCode = soakFor(Number(values.soak));
else if (values.sum !== undefined) console.log(sumSlices(values.sum));
else if (values.slices !== undefined) process.exitCode = await slices(values.slices);
else if (values.mutations || values.uncaught) process.exitCode = await table();
else if (values.seed !== undefined && values.runs === undefined && values.minutes === undefined) {
  process.exitCode = await one();
} else process.exitCode = await many();
