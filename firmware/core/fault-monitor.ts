/**
 * The fault monitor (P11): watches both servers and decides whether either has failed.
 *
 *     link open   ──── silent on every path for failureMs ─────────────> silent
 *     link closes ─┬── a poll is refused, or none answered in probeMs ──> closed
 *                  └── polls answer, no new link for linkDownMs ────────> no link
 *     primary     ──── a write not on its disk for diskStallMs ─────────> disk hangs
 *
 * A verdict may be wrong: that costs a change of roles, never data (rule 15). When our own loop ran late,
 * answers may lie unread, so a verdict that falls due then waits for one more round of polls, and never
 * for two.
 */
import type { Timings } from "./config.js";
import type { ServerView } from "./information.js";

export const FAULT_NONE = 0;
export const FAULT_SILENT = 1;
export const FAULT_CLOSED = 2;
export const FAULT_NO_LINK = 3;

/** Since when silence counts. */
export function silentSince(view: ServerView): number {
  return view.aliveAt > view.silentFrom ? view.aliveAt : view.silentFrom;
}

/** What the limits say now, whatever the excuse. */
function verdictDue(view: ServerView, t: Timings, now: number): number {
  if (view.probeAt >= 0 && (view.refused || now >= view.probeAt + t.probeMs)) return FAULT_CLOSED;
  if (now >= silentSince(view) + t.failureMs) return FAULT_SILENT;
  if (!view.linked && now >= view.linkDownAt + t.linkDownMs) return FAULT_NO_LINK;
  return FAULT_NONE;
}

/**
 * Brings the verdict on one server up to date.
 * @param late our own loop came late to this turn
 * @returns whether the server should be polled at once, because its verdict was put off for one round
 */
export function judge(view: ServerView, t: Timings, now: number, late: boolean): boolean {
  const due = verdictDue(view, t, now);
  if (due === FAULT_NONE) {
    view.fault = FAULT_NONE;
    view.excusedUntil = -1;
    return false;
  }
  // A refusal is an answer: no lateness of ours explains it away.
  if (view.fault === FAULT_NONE && !view.refused) {
    if (view.excusedUntil < 0 && late) {
      view.excusedUntil = now + t.pollMs;
      return true;
    }
    if (view.excusedUntil >= 0 && now < view.excusedUntil) return false;
  }
  view.fault = due;
  return false;
}

/**
 * The same when something was heard, between two turns: life clears a verdict, and a refused poll makes
 * one. Limits of time are left to `judge`, which knows whether our own loop was late.
 */
export function judgeHeard(view: ServerView, t: Timings, now: number): void {
  const due = verdictDue(view, t, now);
  if (due === FAULT_NONE) {
    view.fault = FAULT_NONE;
    view.excusedUntil = -1;
  } else if (due === FAULT_CLOSED && view.refused) {
    view.fault = FAULT_CLOSED;
  }
}

/** When the verdict can change next by time alone. @returns Infinity when it cannot */
export function nextJudgement(view: ServerView, t: Timings): number {
  if (view.excusedUntil >= 0 && view.fault === FAULT_NONE) return view.excusedUntil;
  if (view.fault === FAULT_SILENT || view.fault === FAULT_CLOSED) return Infinity;
  let at = silentSince(view) + t.failureMs;
  if (view.probeAt >= 0 && view.probeAt + t.probeMs < at) at = view.probeAt + t.probeMs;
  if (!view.linked && view.fault === FAULT_NONE && view.linkDownAt + t.linkDownMs < at) {
    at = view.linkDownAt + t.linkDownMs;
  }
  return at;
}

/** The primary's own disk hangs: it has failed although it answers. */
export function diskHangs(view: ServerView, t: Timings): boolean {
  return view.said !== undefined && view.said.oldestUncommittedMs > t.diskStallMs;
}

/**
 * The primary's writes have waited too long for the standby's confirm: peer link cut, standby hung or full.
 * A write that is not even on the primary's own disk is no sign against the standby.
 */
export function confirmStalled(primary: ServerView, t: Timings): boolean {
  const said = primary.said;
  if (said === undefined || said.oldestUncommittedMs >= said.oldestUnconfirmedMs) return false;
  return said.oldestUnconfirmedMs > (said.peerUp ? t.stallMs : t.stallPeerDownMs);
}

export function faultText(view: ServerView, t: Timings): string {
  switch (view.fault) {
    case FAULT_SILENT:
      return view.aliveAt < 0
        ? view.id + " has never been heard"
        : view.id + " has been silent for more than " + t.failureMs + " ms";
    case FAULT_CLOSED:
      return view.refused
        ? view.id + "'s link closed and nobody listens at its poll port"
        : view.id + "'s link closed and it answers no poll";
    case FAULT_NO_LINK:
      return view.id + " answers polls but has had no link for more than " + t.linkDownMs + " ms";
    default:
      return "";
  }
}
