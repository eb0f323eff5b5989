/**
 * One turn of the agent's loop: whatever input the poll phase brought, then one end of turn (a group
 * commit, and one write a connection), then sleep until the core wants to be called.
 */
import { performance } from "node:perf_hooks";
import type { AgentCore } from "./core/ports.js";

/** A timer this little too early is left alone: setting another costs more than a look at the clock. */
const EARLY_MS = 1;
/** The core is looked at this often at least, whatever it said. */
const SLEEP_MS_MAX = 1000;

export class Turn {
  private core: AgentCore | undefined;
  private planned = false;
  private timer: NodeJS.Timeout | undefined;
  private dueMs = Infinity;
  private stopped = false;

  /** @param flush sends what the turn gathered */
  constructor(private readonly flush: () => void) {}

  begin(core: AgentCore): void {
    this.core = core;
    this.input();
  }

  /** Something was handed to the core, or will be in this turn: the turn needs an end. */
  input(): void {
    if (this.planned || this.stopped) return;
    this.planned = true;
    setImmediate(this.end);
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  private readonly end = (): void => {
    this.planned = false;
    const { core } = this;
    if (core === undefined || this.stopped) return;
    const nowMs = performance.now();
    const wantedMs = core.tick(nowMs);
    core.endTurn(nowMs);
    this.flush();
    // What the core has left over goes on after the polls, datagrams and bytes that came meanwhile.
    if (wantedMs <= nowMs) this.input();
    else this.sleepUntil(Math.min(wantedMs, nowMs + SLEEP_MS_MAX), nowMs);
  };

  private sleepUntil(wantedMs: number, nowMs: number): void {
    // A timer that fires early only costs a turn; one that fires late costs a deadline.
    if (this.dueMs <= wantedMs + EARLY_MS && this.dueMs > nowMs) return;
    clearTimeout(this.timer);
    this.dueMs = wantedMs;
    this.timer = setTimeout(this.wake, Math.max(0, wantedMs - nowMs));
  }

  private readonly wake = (): void => {
    this.dueMs = Infinity;
    this.input();
  };
}
