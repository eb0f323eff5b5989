/** Runs many seeds on worker threads. */
import { Worker } from "node:worker_threads";
import type { RunResult } from "./run.js";

export interface FarmOptions {
  bundlePath: string;
  firstSeed: number;
  /** Infinity: until `stop` says so. */
  count: number;
  workers: number;
  /** See RunOptions. */
  safetyOnly?: boolean;
  onResult: (result: RunResult) => void;
  /** Asked before each seed is handed out. */
  stop: () => boolean;
}

/** Resolves when every seed that was handed out has its result. */
export function runFarm(options: FarmOptions): Promise<void> {
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
      worker.postMessage({ seed: next++, safetyOnly: options.safetyOnly === true });
    };
    for (let i = 0; i < Math.min(options.workers, options.count); i++) {
      const worker = new Worker(options.bundlePath, { execArgv: ["--enable-source-maps"] });
      workers.push(worker);
      worker.on("message", (result: RunResult) => {
        open--;
        options.onResult(result);
        feed(worker);
      });
      worker.on("error", (error: Error) => finish(error));
      feed(worker);
    }
  });
}

/** Adds up what many runs did. */
export class Totals {
  seeds = 0;
  virtualMs = 0;
  failovers = 0;
  records = 0;
  acknowledgedWrites = 0;
  reads = 0;
  standbyReads = 0;
  unknown = 0;
  failed = 0;
  events = 0;
  waited = 0;
  readonly faults = new Map<string, number>();
  readonly failures: RunResult[] = [];

  add(result: RunResult): void {
    this.seeds++;
    this.virtualMs += result.virtualMs;
    this.failovers += result.failovers;
    this.records += result.records;
    this.acknowledgedWrites += result.acknowledgedWrites;
    this.reads += result.reads;
    this.standbyReads += result.standbyReads;
    this.unknown += result.unknown;
    this.failed += result.failed;
    this.events += result.events;
    if (result.waited !== "") this.waited++;
    for (const [kind, count] of Object.entries(result.faults)) {
      this.faults.set(kind, (this.faults.get(kind) ?? 0) + count);
    }
    if (result.violation !== undefined) this.failures.push(result);
  }

  faultLine(): string {
    return [...this.faults].map(([kind, count]) => `${kind} ${count}`).join(", ");
  }
}

/** The command that shows a failing seed again. */
export function replayCommand(seed: number): string {
  return `npm run sim -- --seed ${seed} --timeline`;
}
