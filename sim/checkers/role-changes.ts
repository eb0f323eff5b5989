/**
 * no-needless-failover: every record that reaches the flash has a cause, in the world or in what the operator asked.
 *
 * The checker knows what was done to machines, disks and network, never what the code thought of it. A cause is a
 * disturbance within the longest time any limit of the controller may take to notice it.
 */
import type { Finding } from "./checker.js";

/** Longest from a disturbance to the record it may cause: linkDownMs, stallMs, diskStallMs, join bounds. @unit ms */
const NOTICED_WITHIN_MS = 6000;

export class RoleChanges {
  /** Power-on is one. */
  private disturbedAt = 0;
  private changes = 0;

  /** Something was done to the pair, or has just ended. */
  disturbed(nowMs: number): void {
    this.disturbedAt = nowMs;
  }

  /** A record reached the flash. @param joined it is mode both again, for which no cause is needed */
  changed(nowMs: number, text: string, joined: boolean): Finding | undefined {
    this.changes++;
    if (joined || nowMs - this.disturbedAt <= NOTICED_WITHIN_MS) return undefined;
    return {
      promise: "no-needless-failover",
      what: `${text}, though nothing has disturbed the pair for ${(nowMs - this.disturbedAt).toFixed(0)} ms`,
    };
  }
}
