/**
 * A clock that only goes forward, where the engine has none but the time of day: that is compared with the kernel's
 * uptime whenever it has moved by more than a loop's turn, or back, and a step of it is taken out.
 */
import type { EngineBuffer, EngineFs } from "./engine.js";
import { newBuffer } from "./bytes.js";

declare const engineRequire: (name: string) => unknown;

const UPTIME_FILE = "/proc/uptime";
const UPTIME_BYTES_MAX = 63;
/** Turns are shorter than this where polls go out. @unit ms */
const TURN_MS = 50;
/** The kernel's uptime is told in hundredths of a second. @unit ms */
const STEP_MS = 25;

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

/**
 * @param wall time of day @param uptime a clock without steps, which may be coarse
 * @returns a clock @unit ms since it was made
 */
export function steadyClock(wall: () => number, uptime: () => number): () => number {
  let anchorWall = wall();
  let anchorUptime = uptime();
  let anchorMs = 0;
  let lastWall = anchorWall;
  let last = 0;

  function check(at: number): void {
    const up = uptime();
    const steady = anchorMs + up - anchorUptime;
    const told = anchorMs + at - anchorWall;
    if (told - steady < STEP_MS && steady - told < STEP_MS) return;
    anchorMs = steady > last ? steady : last;
    anchorWall = at;
    anchorUptime = up;
  }

  return () => {
    const at = wall();
    if (at < lastWall || at - lastWall > TURN_MS) check(at);
    lastWall = at;
    const ms = anchorMs + at - anchorWall;
    if (ms > last) last = ms;
    return last;
  };
}
