/**
 * A worker thread's end of the farm: runs the seeds it is told, one after the other. Loaded as a module, the bundle gives
 * what the command line needs to look at one seed with a rule broken.
 */
import { parentPort } from "node:worker_threads";
import type { FaultKind } from "./options.js";
import { runSeed } from "./run.js";
import { shrink } from "./shrink.js";

export interface SeedOrder {
  seed: number;
  safetyOnly: boolean;
  swarm: boolean;
  only: readonly FaultKind[] | undefined;
}

export { runSeed, shrink };

parentPort?.on("message", (order: SeedOrder) => {
  parentPort!.postMessage(runSeed(order.seed, order));
});
