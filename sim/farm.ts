/** Runs many seeds on worker threads. */
import { setFlagsFromString } from "node:v8";
import { Worker } from "node:worker_threads";
import type { FaultKind, Shape } from "./options.js";
import type { SeedOrder } from "./worker.js";
import type { RunResult } from "./run.js";

export interface FarmOptions {
  bundlePath: string;
  firstSeed: number;
  /** Infinity: until `stop` says so. */
  count: number;
  workers: number;
  /** See RunOptions. */
  safetyOnly?: boolean;
  counts?: readonly string[] | undefined;
  swarm?: boolean;
  long?: boolean;
  /** See SeedOrder. */
  bundleOf?: string | undefined;
  only?: readonly FaultKind[] | undefined;
  onResult: (result: RunResult) => void;
  /** Asked before each seed is handed out. */
  stop: () => boolean;
}

/** Seeds a worker has been given: one under way, one that waits, so that it need not wait for the next. */
const ORDERS_MAX = 2;
/** One half of the nursery. Most of what a seed makes is garbage at its end; a small nursery would have it copied about. @unit MB */
const NURSERY_MB = 128;
/**
 * What is left over goes to the old generation, which is collected as late as it may be: each such collection throws away the
 * machine code of closures that no world of now has, and a tenth of the time went into making it again. @unit MB
 */
const OLD_GENERATION_MB = 512;

/** Bytes of bytecode that a function runs before it may be optimised: four times the engine's own. */
const OPTIMISE_AFTER = 270_000;

/** Resolves when every seed that was handed out has its result. */
export function runFarm(options: FarmOptions): Promise<void> {
  // Much of the code runs a few times a seed: it is worth compiling at once.
  setFlagsFromString("--always-sparkplug");
  setFlagsFromString("--no-lazy-feedback-allocation");
  setFlagsFromString(`--min-semi-space-size=${NURSERY_MB}`);
  setFlagsFromString(`--initial-old-space-size=${OLD_GENERATION_MB}`);
  setFlagsFromString("--heap-growing-percent=2000");
  // Every core has a world of its own to run: threads that collect together wait for each other and take a core from a world.
  setFlagsFromString("--no-parallel-scavenge");
  // Code that is optimised as eagerly as usual is optimised again and again, on threads that take their time from the worlds.
  setFlagsFromString(`--interrupt-budget=${OPTIMISE_AFTER}`);
  return new Promise((resolve, reject) => {
    let next = options.firstSeed;
    const last = options.firstSeed + options.count;
    let open = 0;
    const workers: Worker[] = [];
    const finish = (error?: Error): void => {
      for (const worker of workers) void worker.terminate();
      if (error) reject(error);
      else resolve();
    };
    const feed = (worker: Worker): void => {
      if (next >= last || options.stop()) {
        if (open === 0) finish();
        return;
      }
      open++;
      const order: SeedOrder = {
        seed: next++,
        safetyOnly: options.safetyOnly === true,
        counts: options.counts,
        swarm: options.swarm === true,
        long: options.long === true,
        only: options.only,
        bundleOf: options.bundleOf,
      };
      worker.postMessage(order);
    };
    for (let i = 0; i < Math.min(options.workers, options.count); i++) {
      const worker = new Worker(options.bundlePath, {
        execArgv: ["--enable-source-maps"],
        resourceLimits: {
          // Two halves, and as much again for what is large.
          maxYoungGenerationSizeMb: 3 * NURSERY_MB,
          maxOldGenerationSizeMb: 4 * OLD_GENERATION_MB,
        },
      });
      workers.push(worker);
      worker.on("message", (result: RunResult) => {
        open--;
        options.onResult(result);
        feed(worker);
      });
      worker.on("error", (error: Error) => finish(error));
      for (let orders = 0; orders < ORDERS_MAX; orders++) feed(worker);
    }
  });
}

/** The command that shows a failing seed again. */
export function replayCommand(seed: number, shape: Shape = {}, bundle = false): string {
  const flags = (shape.swarm ? " --swarm" : "") + (shape.long ? " --long" : "");
  return (
    `npm run sim -- --seed ${seed}${flags}${bundle ? " --engine bundle" : ""} ` +
    "--trace --timeline out.svg"
  );
}
