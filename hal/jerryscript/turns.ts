/** The turns of IoT.js' loop: two timers. One of 0 ms is due after all that the network has brought in this turn. */
import type { TurnOptions, Turns } from "../hal.js";
import { kernelUptime } from "./kernel-uptime.js";
import { steadyClock } from "./steady-clock.js";

declare const setImmediate: (f: () => void) => unknown;

export function createTurns(options: TurnOptions): Turns {
  const now = steadyClock(() => Date.now(), kernelUptime());
  let timer: unknown = undefined;
  let due = 0;
  let requested = false;
  let closed = false;

  // The loop counts a timer from the beginning of the turn that set it, so after a long turn it comes too early.
  function onTimer(): void {
    const left = due - now();
    timer = left >= 1 ? setTimeout(onTimer, left) : undefined;
    if (left < 1 && !closed) options.wake();
  }

  function onEndOfTurn(): void {
    requested = false;
    if (!closed) options.endOfTurn();
  }

  return {
    now: now,
    wakeIn: (delayMs) => {
      if (closed) return;
      if (timer !== undefined) clearTimeout(timer as number);
      due = now() + delayMs;
      timer = setTimeout(onTimer, delayMs);
    },
    requestEndOfTurn: () => {
      if (requested || closed) return;
      requested = true;
      setImmediate(onEndOfTurn);
    },
    close: () => {
      closed = true;
      if (timer !== undefined) clearTimeout(timer as number);
    },
  };
}
