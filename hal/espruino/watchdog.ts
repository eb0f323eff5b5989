/** Espruino's hardware watchdog: once on it stays on, and only a kick from the firmware's loop holds it off. */
import type { Watchdog } from "../hal.js";
import type { EngineUtilities } from "./engine.js";

declare const E: EngineUtilities;

/** @param seconds 0: none, for an interpreter on a desktop that has no such hardware */
export function startWatchdog(seconds: number): Watchdog {
  if (seconds === 0) return { kick: () => undefined };
  E.enableWatchdog(seconds, false);
  return { kick: () => E.kickWatchdog() };
}
