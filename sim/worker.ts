/** A worker thread's end of the farm: runs the seeds it is told, one after the other. */
import { parentPort } from "node:worker_threads";
import { runSeed } from "./run.js";

parentPort?.on("message", (message: { seed: number }) => {
  const result = runSeed(message.seed);
  parentPort!.postMessage(result);
});
