/** The turns of Espruino's loop: two timers, since the engine has no other end of a turn. */
import type { TurnOptions, Turns } from "../hal.js";

declare const getTime: () => number;

export function createTurns(options: TurnOptions): Turns {
  let timer: unknown = undefined;
  let requested = false;
  let closed = false;

  function onTimer(): void {
    timer = undefined;
    if (!closed) options.wake();
  }

  function onEndOfTurn(): void {
    requested = false;
    if (!closed) options.endOfTurn();
  }

  return {
    now: () => getTime() * 1000,
    wakeIn: (delayMs) => {
      if (closed) return;
      if (timer !== undefined) clearTimeout(timer as number);
      timer = setTimeout(onTimer, delayMs);
    },
    requestEndOfTurn: () => {
      if (requested || closed) return;
      requested = true;
      setTimeout(onEndOfTurn, 0);
    },
    close: () => {
      closed = true;
    },
  };
}
