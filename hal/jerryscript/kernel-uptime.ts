/** How long the kernel has been up: the only clock without steps that IoT.js can read. */
import type { EngineBuffer, EngineFs } from "./engine.js";
import { newBuffer } from "./bytes.js";

declare const engineRequire: (name: string) => unknown;

const UPTIME_FILE = "/proc/uptime";
const UPTIME_BYTES_MAX = 63;

/** @returns reads the kernel's uptime. @unit ms, in steps of 10 */
export function kernelUptime(): () => number {
  const fs = engineRequire("fs") as EngineFs;
  const file = fs.openSync(UPTIME_FILE, "r");
  const text: EngineBuffer = newBuffer(UPTIME_BYTES_MAX + 1);
  return () => {
    fs.readSync(file, text, 0, UPTIME_BYTES_MAX, 0);
    return parseFloat(text.toString()) * 1000;
  };
}
