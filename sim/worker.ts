/** A worker thread's end of the farm: runs the seeds it is told, one after the other. */
import { parentPort } from "node:worker_threads";
import { runSeed } from "./run.js";

parentPort?.on("message", (message: { seed: number; safetyOnly: boolean }) => {
  const result = runSeed(message.seed, { safetyOnly: message.safetyOnly });
  parentPort!.postMessage(result);
});
