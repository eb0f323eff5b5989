/**
 * A worker thread's end of the farm: runs the seeds it is told, one after the other. Loaded as a module, the bundle gives
 * what the command line needs to look at one seed with a rule broken.
 */
import { parentPort } from "node:worker_threads";
import { loadFirmware } from "./firmware.js";
import type { FaultKind } from "./options.js";
import { runSeed } from "./run.js";
import { hashCount } from "./checkers/hash.js";
import { mixedCount } from "./checkers/mixed.js";
import { shrink } from "./shrink.js";

export interface SeedOrder {
  seed: number;
  safetyOnly: boolean;
  counts: readonly string[] | undefined;
  swarm: boolean;
  long: boolean;
  only: readonly FaultKind[] | undefined;
  /** Root of the checkout whose bundle is the controller; undefined: the core itself. */
  bundleOf: string | undefined;
}

export { loadFirmware, runSeed, shrink };
export const counts = { hash: hashCount, mixed: mixedCount };

parentPort?.on("message", (order: SeedOrder) => {
  const { bundleOf } = order;
  const firmware = bundleOf === undefined ? undefined : loadFirmware(bundleOf);
  parentPort!.postMessage(runSeed(order.seed, { ...order, firmware }));
});
