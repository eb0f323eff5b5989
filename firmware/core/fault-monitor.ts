/**
 * The fault monitor (P11): watches both servers and decides whether either has failed.
 *
 *     link open   ──── silent on every path for failureMs ─────────────> silent
 *                  └── the same, but its serial line answers ───────────> network
 *     link closes ─┬── a poll is refused, or none answered in probeMs ──> closed
 *                  └── polls answer, no new link for linkDownMs ────────> no link
 *     primary     ──── a write not on its disk for diskStallMs ─────────> disk hangs
 *
 * A serial line is slower than the network, so it has limits of its own: an answer on it proves life for
 * serialFailureMs, and one asked for when the link closed may take serialProbeMs.
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
/** It lives, and the network does not reach it: no command can be sent there. */
export const FAULT_NETWORK = 4;

/** Since when silence counts. */
export function silentSince(view: ServerView): number {
  return view.aliveAt > view.silentFrom ? view.aliveAt : view.silentFrom;
}

/** The server's serial line has brought an answer within its limit. */
export function lineAlive(view: ServerView, t: Timings, now: number): boolean {
  const line = view.line;
  return line !== undefined && line.aliveAt >= 0 && now < line.aliveAt + t.serialFailureMs;
}

/**
 * Brings `up` of a server's serial line up to date.
 * @returns whether it has changed
 */
export function judgeLine(view: ServerView, t: Timings, now: number): boolean {
  const line = view.line;
  if (line === undefined) return false;
  const was = line.up;
  line.up = lineAlive(view, t, now);
  return line.up !== was;
}

/** When an unanswered probe means a failure. */
function probeEnds(view: ServerView, t: Timings): number {
  return view.probeAt + (view.probeByLine ? t.serialProbeMs : t.probeMs);
}

/** What the limits say now, whatever the excuse. */
function verdictDue(view: ServerView, t: Timings, now: number): number {
  if (view.probeAt >= 0 && (view.refused || now >= probeEnds(view, t))) return FAULT_CLOSED;
  if (now >= silentSince(view) + t.failureMs) {
    return lineAlive(view, t, now) ? FAULT_NETWORK : FAULT_SILENT;
  }
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
  } else if (due === FAULT_NETWORK && view.fault !== FAULT_NONE) {
    // Its line answers: what was taken for the server's failure is its network's.
    view.fault = FAULT_NETWORK;
  }
}

/** When the verdict can change next by time alone. @returns Infinity when it cannot */
export function nextJudgement(view: ServerView, t: Timings): number {
  if (view.excusedUntil >= 0 && view.fault === FAULT_NONE) return view.excusedUntil;
  // When the line falls silent too, that is a line in the log at least.
  const lineEnds =
    view.line !== undefined && view.line.up ? view.line.aliveAt + t.serialFailureMs : Infinity;
  if (view.fault === FAULT_CLOSED) return lineEnds;
  const isSilent = view.fault === FAULT_SILENT || view.fault === FAULT_NETWORK;
  // Of a silent server a probe that ends shows that its link is closed.
  let at = isSilent ? Infinity : silentSince(view) + t.failureMs;
  if (lineEnds < at) at = lineEnds;
  if (view.probeAt >= 0 && probeEnds(view, t) < at) at = probeEnds(view, t);
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

/** The server has failed only as far as the network goes. */
export function networkOnly(view: ServerView): boolean {
  return view.fault === FAULT_NETWORK;
}

/** Both paths to a server in a few words, for people; "" where there is only the network. */
export function pathsText(view: ServerView): string {
  const line = view.line;
  if (line === undefined) return "";
  const network =
    view.fault === FAULT_SILENT || view.fault === FAULT_NETWORK
      ? "silent"
      : view.linked
        ? "up"
        : "no link";
  const serial =
    line.strangerId !== ""
      ? "leads to " + line.strangerId
      : line.up
        ? "up"
        : line.aliveAt < 0
          ? "never heard"
          : "silent";
  return "network " + network + ", serial " + serial;
}

export function faultText(view: ServerView, t: Timings): string {
  switch (view.fault) {
    case FAULT_NETWORK:
      return (
        view.id +
        " answers on its serial line alone: its network has been silent for more than " +
        t.failureMs +
        " ms"
      );
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
