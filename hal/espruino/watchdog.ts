/**
 * Espruino's hardware watchdog: once on it stays on, and only a kick from the firmware's loop holds it off.
 *
 * The engine outlives what its program does not: where memory ends it abandons the event it was in, drops a timer that was
 * in it, and goes on with the next event, on whatever half was done. So a kick first asks what the engine has noticed
 * since the last one. Where nothing at all is free nothing can be asked, the kick is abandoned like the rest, and the
 * hardware bites.
 */
import type { Watchdog } from "../hal.js";
import type { EngineMemory, EngineUtilities } from "./engine.js";

declare const E: EngineUtilities;
declare const process: { memory(collect?: boolean): EngineMemory };

/** Of the variables: below that a leak will soon have them all, and nothing could be said any more. */
const FREE_SHARE = 32;
/** Kicks from one look at the free variables to the next: the engine counts them one by one. */
const KICKS_A_LOOK = 16;

/** What the engine reports of work that it left half done; anything else it reports lost input, which may happen. */
const HALF_DONE = ["MEMORY", "MEMORY_BUSY", "CALLBACK"];

/** @param flags as the engine reports them @returns "", or what makes a reset due */
export function halfDone(flags: string[]): string {
  for (let i = 0; i < flags.length; i++) {
    if (HALF_DONE.indexOf(flags[i]!) >= 0) return "the engine reports " + flags.join(" ");
  }
  return "";
}

/**
 * @param seconds 0: none, for an interpreter on a desktop that has no such hardware
 * @param variables that the board has; 0: as many as the machine has memory for
 */
export function startWatchdog(seconds: number, variables: number): Watchdog {
  const freeMin = variables / FREE_SHARE;
  let kicks = 0;
  if (seconds !== 0) E.enableWatchdog(seconds, false);
  return {
    kick: () => {
      const why = halfDone(E.getErrorFlags());
      if (why !== "") return why;
      kicks++;
      if (freeMin > 0 && kicks % KICKS_A_LOOK === 0) {
        // Garbage is free as well, but finding it takes longer.
        if (process.memory(false).free < freeMin && process.memory().free < freeMin)
          return "hardly a variable is free";
      }
      if (seconds !== 0) E.kickWatchdog();
      return "";
    },
  };
}
