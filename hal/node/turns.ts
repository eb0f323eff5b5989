/** The turns of Node's loop: one timer, and the end of the phase in which the network brings data. */
import { performance } from "node:perf_hooks";
import type { TurnOptions, Turns } from "../hal.js";

class NodeTurns implements Turns {
  private timer: NodeJS.Timeout | undefined;
  private wakeAt = Infinity;
  private requested = false;
  private closed = false;
  private readonly onTimer: () => void;
  private readonly onImmediate: () => void;

  constructor(options: TurnOptions) {
    this.onTimer = () => {
      this.timer = undefined;
      this.wakeAt = Infinity;
      if (!this.closed) options.wake();
    };
    this.onImmediate = () => {
      this.requested = false;
      if (!this.closed) options.endOfTurn();
    };
  }

  now(): number {
    return performance.now();
  }

  wakeIn(delayMs: number): void {
    if (this.closed) return;
    const at = performance.now() + delayMs;
    // A timer that is due nearly then, and not later, is as good; making one costs more than waking twice.
    if (this.timer !== undefined && this.wakeAt <= at + 0.5 && this.wakeAt >= at - 1) return;
    clearTimeout(this.timer);
    this.wakeAt = at;
    this.timer = setTimeout(this.onTimer, delayMs < 0 ? 0 : delayMs);
  }

  requestEndOfTurn(): void {
    if (this.requested || this.closed) return;
    this.requested = true;
    setImmediate(this.onImmediate);
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
  }
}

export function createTurns(options: TurnOptions): Turns {
  return new NodeTurns(options);
}
