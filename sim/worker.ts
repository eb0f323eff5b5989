/** A worker thread's end of the farm: runs the seeds it is told, one after the other. */
import { parentPort } from "node:worker_threads";
import { runSeed } from "./run.js";

export interface SeedOrder {
  seed: number;
  safetyOnly: boolean;
  swarm: boolean;
}

parentPort?.on("message", (order: SeedOrder) => {
  parentPort!.postMessage(runSeed(order.seed, order));
});
