/**
 * Rounds of polls in which nothing happens: a home may carry them out by itself (firmware/fast-poll.ts) and tell the core
 * when anybody asks.
 *
 *     ordinary round:  poll n ──> both answer it, in time ──> the same as last time but for their measurements
 *
 * In such a round no rule has anything to look at, so what would be left of it in the views is all that has to be known
 * later: when the last polls went out, which of them was answered, and what the newest answers measured.
 */
import type { Timings } from "./config.js";
import type { Deadlines } from "./deadlines.js";
import { FAULT_CLOSED, FAULT_NONE, FAULT_SILENT } from "./fault-monitor.js";
import { POLLS_KEPT, sawLife } from "./information.js";
import type { LineView, ServerView } from "./information.js";
import { hasOtherDisk, isForcedApart, otherOf } from "./pair.js";
import type { Pair } from "./pair.js";
import { takeGauges } from "../../protocol/messages.js";
import { MODE_BOTH } from "../../protocol/record.js";
import type { ServerIndex } from "../../protocol/record.js";

/** How the home tells of ordinary rounds. The core asks by `catchUp` before anything is read that they change. */
export interface Rounds {
  /**
   * Set by the home: tells of all rounds since the last time, and begins none until a tick has gone by.
   * @param measured what the servers measured is needed too; it may wait otherwise
   */
  catchUp: ((measured: boolean) => void) | undefined;
  /** What is known of each server. The home reads it, and writes when each poll was sent as it sends them (`sentAt`). */
  servers: ServerView[];
  timings: Timings;
  /** The datagram of the latest poll. */
  pollOf(view: ServerView): Uint8Array;
  /**
   * Whether rounds can be ordinary now.
   * @returns until when no tick but for polls is due, if they are; -1 if they are not @unit ms
   */
  calmUntil(): number;
  /** When the next poll and all else is due. */
  deadlines: Deadlines;
  /** Nothing in the forward path waits for the time to pass. */
  isIdle(): boolean;
  /** Undefined in a build without serial lines. */
  lines: LineRounds | undefined;
  /** Of a tick's work, what is to be done now and then: does a link take what it is sent? May end the rounds. */
  look(now: number): void;
  /**
   * After `roundsPassed` for both: when the next poll is due, and a tick with it.
   * @param lateTurns rounds that began late, as a tick counts it @param worstLateMs the latest of them
   */
  passed(pollAt: number, lateTurns: number, worstLateMs: number): void;
  /** What the newest of those answers measured. */
  measured(server: ServerIndex, bytes: Uint8Array): void;
  /** Of that only what the target of reads goes by. @param bytes load and time of a command, as in a heartbeat: u16, u32 */
  loaded(server: ServerIndex, bytes: Uint8Array): void;
}

/** The same for servers' serial lines. The home writes when each poll was sent here too (`line.polls.sentAt`). */
export interface LineRounds {
  /** The packet of a line's latest poll, under the next packet's number; undefined where the line's form is not the binary one. */
  packetOf(view: ServerView): Uint8Array | undefined;
  /** Number of the last packet heard on a line, -1 before the first. */
  lastNumber(server: ServerIndex): number;
  /**
   * Polls of a server's line have gone by, and answers.
   * @param bytes the newest answer's datagram, which may be followed by more; undefined: there was none
   */
  passed(view: ServerView, past: LinePast, bytes: Uint8Array | undefined): void;
}

/** What has gone by on a server's serial line. */
export interface LinePast {
  /** Polls counted, the last one at `sentAt`. */
  count: number;
  sentAt: number;
  /** Of these, polls that the line had no room for. */
  unsent: number;
  /** Answers heard, each to the poll that was then the latest. */
  heard: number;
  /** Polls sent since the one that was answered last: 0 or 1. */
  behind: number;
}

/** Age of a write below which neither rule of stalls has anything to say. @unit ms */
export function quietStallMs(t: Timings): number {
  const stallMs = t.stallMs < t.stallPeerDownMs ? t.stallMs : t.stallPeerDownMs;
  return stallMs < t.diskStallMs ? stallMs : t.diskStallMs;
}

/** The server works, and nothing is awaited of it but answers. */
function isSteady(view: ServerView, stallMs: number): boolean {
  return (
    view.linked &&
    view.said !== undefined &&
    view.fault === FAULT_NONE &&
    view.excusedUntil < 0 &&
    view.probeAt < 0 &&
    view.said.oldestUnconfirmedMs < stallMs &&
    view.said.oldestUncommittedMs < stallMs
  );
}

/** The server has failed, and time alone does not change that. */
export function isOut(view: ServerView): boolean {
  return (
    !view.linked &&
    // A probe that ends turns silence into a closed link.
    (view.fault === FAULT_CLOSED || (view.fault === FAULT_SILENT && view.probeAt < 0)) &&
    view.excusedUntil < 0
  );
}

/** No rule waits for anything: it would take another word of a server than its last, or its silence. */
export function isCalm(pair: Pair): boolean {
  const record = pair.record;
  if (record === undefined || pair.fresh || pair.writing !== undefined) return false;
  const stallMs = quietStallMs(pair.config.timings);
  const primary = pair.servers[record.primary];
  const standby = pair.servers[otherOf(record.primary)];
  if (!isSteady(primary, stallMs) || hasOtherDisk(record, primary)) return false;
  if (pair.state === "both") {
    return (
      record.mode === MODE_BOTH && isSteady(standby, stallMs) && !hasOtherDisk(record, standby)
    );
  }
  return (
    pair.state === "solo" &&
    !primary.said!.asked &&
    !primary.said!.wantsSolo &&
    !isForcedApart(record, standby) &&
    (isSteady(standby, stallMs) || isOut(standby))
  );
}

/** When a tick is due for anything but a poll and the verdicts, which polls put off. */
export function nextButPolls(pair: Pair, deadlines: Deadlines): number {
  let next = deadlines.nextButPolls();
  for (let i = 0; i < 2; i++) {
    const line = pair.servers[i].line;
    if (line === undefined || !line.up) continue;
    const ends = line.aliveAt + pair.config.timings.serialFailureMs;
    if (ends < next) next = ends;
  }
  return next;
}

/** The same for a server's line; `bytes` as for LineRounds.passed. */
export function linePassed(line: LineView, past: LinePast, bytes: Uint8Array | undefined): void {
  const polls = line.polls;
  polls.counter = (polls.counter + past.count) >>> 0;
  if (past.count > 0) {
    line.polledAt = past.sentAt;
    line.answered = false;
    polls.sent = polls.sent + past.count < POLLS_KEPT ? polls.sent + past.count : POLLS_KEPT;
  }
  if (bytes === undefined) return;
  line.answered = past.behind === 0;
  line.saidAt = polls.sentAt[((polls.counter - past.behind) >>> 0) % POLLS_KEPT];
  if (line.saidAt > line.aliveAt) line.aliveAt = line.saidAt;
  takeGauges(line.said!, bytes);
}

/**
 * Rounds have gone by for one server.
 * @param count of polls sent @param sentAt when the last one was
 * @param behind polls sent since the one that was answered last: 0 or 1; -1: none was
 * @param heardAt when that answer came
 */
export function roundsPassed(
  view: ServerView,
  count: number,
  sentAt: number,
  behind: number,
  heardAt: number,
): void {
  view.counter = (view.counter + count) >>> 0;
  if (count > 0) {
    view.polledAt = sentAt;
    view.answered = false;
    view.sent = view.sent + count < POLLS_KEPT ? view.sent + count : POLLS_KEPT;
  }
  if (behind < 0) return;
  view.answered = behind === 0;
  view.lastSaidAt = heardAt;
  sawLife(view, view.sentAt[((view.counter - behind) >>> 0) % POLLS_KEPT]);
}
