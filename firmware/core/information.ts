/**
 * Information acquisition: what the controller knows of one server, and how fresh it is (P1, P2).
 *
 * Facts come two ways: in the report that opens a link, and in the answers to polls. Only the answer to
 * the LATEST poll counts, and only under the nonce of the current link; an answer that comes too late
 * still proves that its server lived when that poll was sent, and for nothing else.
 *
 *     poll n ──────> answer n      counts until poll n+1 goes out
 *     poll n-1 ────────────> late answer: alive at the time of poll n-1, no more
 */
import { bytesEqual, identityOf, isBlankIdentity, recordsEqual } from "../../protocol/record.js";
import type { RoleRecord, ServerIndex } from "../../protocol/record.js";
import { LINK_NONCE_BYTES } from "../../protocol/messages.js";
import type { Heartbeat } from "../../protocol/messages.js";

/** Polls whose sending time is remembered. A late answer to an older one says nothing. */
export const POLLS_KEPT = 16;

/** One path's polls: an answer counts only on the path its poll went by. */
export interface PollSeries {
  /** Counter of the latest poll. */
  counter: number;
  sentAt: Float64Array;
  sent: number;
}

/**
 * What is known by a server's serial line alone. It proves life, and it says what the server is; but who is named
 * primary must answer over the network, because a server that clients cannot reach serves nobody.
 */
export interface LineView {
  polls: PollSeries;
  polledAt: number;
  /** The latest poll has been answered on the line. */
  answered: boolean;
  /** When the server was last known to live, by the line; -1 before its first sign. @unit ms */
  aliveAt: number;
  /** An answer has come within the limit (fault-monitor.ts). */
  up: boolean;
  /** The newest answer to a poll that was then the latest. */
  said: Heartbeat | undefined;
  /** When the poll went out that it answered. @unit ms */
  saidAt: number;
  /** Another server answers on this line: its id, "" when all is well. */
  strangerId: string;
}

export interface ServerView {
  index: ServerIndex;
  id: string;

  /** Counter of the latest poll. */
  counter: number;
  polledAt: number;
  /** The latest poll has been answered under the current link. */
  answered: boolean;
  sentAt: Float64Array;
  sent: number;
  /** Undefined where no serial cable leads to this server. */
  line: LineView | undefined;

  /** When this server was last known to live; -1 before its first sign. @unit ms */
  aliveAt: number;
  /** Silence is not counted from before this: the controller's own start, or the end of its own outage. */
  silentFrom: number;

  /** A proven connection on which the server has reported. */
  linked: boolean;
  /** First 8 bytes of the nonce of that connection; zero without one. */
  linkNonce: Uint8Array;
  linkUpAt: number;
  linkDownAt: number;
  /** When the link closed and an extra poll went out; -1 once it is answered, or a new link is up. */
  probeAt: number;
  /** The line was alive then, so it has its own, longer time to answer. */
  probeByLine: boolean;
  /** A poll was refused since then: nobody listens there. */
  refused: boolean;

  /** The fault monitor's verdict (fault-monitor.ts), 0 while the server counts as working. */
  fault: number;
  /** A verdict due in a late turn of our own loop waits until then; -1: it has no excuse. */
  excusedUntil: number;

  /** The newest report or counted heartbeat of the current link. */
  said: Heartbeat | undefined;
  /** The newest of any link, for people: what is known of a server that is away. */
  lastSaid: Heartbeat | undefined;
  lastSaidAt: number;
  /** It has announced itself as the preset server on the current link (P13). */
  announced: boolean;
}

export const NO_NONCE = new Uint8Array(LINK_NONCE_BYTES);

export function createServerView(index: ServerIndex, id: string, firstCounter: number): ServerView {
  return {
    index: index,
    id: id,
    counter: firstCounter,
    polledAt: 0,
    answered: false,
    sentAt: new Float64Array(POLLS_KEPT),
    sent: 0,
    line: undefined,
    aliveAt: -1,
    silentFrom: 0,
    linked: false,
    linkNonce: NO_NONCE,
    linkUpAt: 0,
    linkDownAt: 0,
    probeAt: -1,
    probeByLine: false,
    refused: false,
    fault: 0,
    excusedUntil: -1,
    said: undefined,
    lastSaid: undefined,
    lastSaidAt: 0,
    announced: false,
  };
}

/** A serial line leads to this server. */
export function addLine(view: ServerView): void {
  view.line = {
    polls: { counter: view.counter, sentAt: new Float64Array(POLLS_KEPT), sent: 0 },
    polledAt: 0,
    answered: false,
    aliveAt: -1,
    up: false,
    said: undefined,
    saidAt: -1,
    strangerId: "",
  };
}

function countPoll(series: PollSeries, now: number): void {
  series.counter = (series.counter + 1) >>> 0;
  series.sentAt[series.counter % POLLS_KEPT] = now;
  if (series.sent < POLLS_KEPT) series.sent++;
}

/** @returns how many polls ago this one was sent, -1 when it is not known */
function ageOf(series: PollSeries, counter: number): number {
  const age = (series.counter - counter) >>> 0;
  return age >= series.sent ? -1 : age;
}

/** Counts a poll that is about to be sent. The answers to earlier ones stop counting. */
export function pollSent(view: ServerView, now: number): void {
  countPoll(view, now);
  view.polledAt = now;
  view.answered = false;
}

/** The same on the serial line. */
export function linePollSent(line: LineView, now: number): void {
  countPoll(line.polls, now);
  line.polledAt = now;
  line.answered = false;
}

/** Something a peer can say wrongly in a heartbeat; the text is for the console. */
export const HEARD_NOTHING = 0;
/** The server lives; nothing it said counts. */
export const HEARD_ALIVE = 1;
/** It answered the latest poll, on a link: everything it said counts. */
export const HEARD_ALL = 2;
/** It answered the latest poll and has no link, and neither have we. */
export const HEARD_UNLINKED = 3;
/** It answered the latest poll and no longer holds the link we believe in. */
export const HEARD_OTHER_LINK = 4;

/**
 * Takes one answer to a poll.
 * @param graceMs time after a link's opening in which the two ends may disagree about it
 */
export function heartbeatHeard(
  view: ServerView,
  heartbeat: Heartbeat,
  now: number,
  graceMs: number,
): number {
  if (heartbeat.serverId !== view.id) return HEARD_NOTHING;
  const age = ageOf(view, heartbeat.counter);
  if (age < 0) return HEARD_NOTHING;
  sawLife(view, view.sentAt[heartbeat.counter % POLLS_KEPT]);
  if (age !== 0) return HEARD_ALIVE;
  if (!view.linked) {
    return isBlankIdentity(heartbeat.linkNonce) ? HEARD_UNLINKED : HEARD_ALIVE;
  }
  if (!bytesEqual(heartbeat.linkNonce, view.linkNonce)) {
    return view.polledAt >= view.linkUpAt + graceMs ? HEARD_OTHER_LINK : HEARD_ALIVE;
  }
  view.answered = true;
  heardSay(view, heartbeat, now);
  return HEARD_ALL;
}

/**
 * Takes one answer to a poll that went by the serial line.
 * @returns HEARD_NOTHING, HEARD_ALIVE for a late one, or HEARD_ALL: it answered the latest
 */
export function lineHeard(view: ServerView, line: LineView, heartbeat: Heartbeat): number {
  line.strangerId = heartbeat.serverId === view.id ? "" : heartbeat.serverId;
  if (line.strangerId !== "") return HEARD_NOTHING;
  const age = ageOf(line.polls, heartbeat.counter);
  if (age < 0) return HEARD_NOTHING;
  const at = line.polls.sentAt[heartbeat.counter % POLLS_KEPT];
  if (at > line.aliveAt) line.aliveAt = at;
  endProbe(view, at);
  if (age !== 0) return HEARD_ALIVE;
  line.answered = true;
  line.said = heartbeat;
  line.saidAt = at;
  return HEARD_ALL;
}

/** The server lived after its link had closed: so it was not that which closed it. */
function endProbe(view: ServerView, at: number): void {
  if (view.probeAt < 0 || at < view.probeAt) return;
  view.probeAt = -1;
  view.refused = false;
}

/** The server lived at this time, as the network shows. */
export function sawLife(view: ServerView, at: number): void {
  if (at > view.aliveAt) view.aliveAt = at;
  endProbe(view, at);
}

/** What a heartbeat has in common with our record becomes the same objects, so that later comparisons see it at once. */
export function shareNames(heartbeat: Heartbeat, record: RoleRecord, server: ServerIndex): void {
  if (recordsEqual(heartbeat.record, record)) heartbeat.record = record;
  const disk = identityOf(record, server);
  if (bytesEqual(heartbeat.identity, disk)) heartbeat.identity = disk;
}

export function heardSay(view: ServerView, heartbeat: Heartbeat, now: number): void {
  view.said = heartbeat;
  view.lastSaid = heartbeat;
  view.lastSaidAt = now;
}

/** A link has been proven and its server has reported on it. */
export function linkOpened(
  view: ServerView,
  nonce: Uint8Array,
  report: Heartbeat,
  now: number,
): void {
  view.linked = true;
  view.linkNonce = nonce;
  view.linkUpAt = now;
  view.probeAt = -1;
  view.refused = false;
  // What was answered under another link does not count under this one (rule 6).
  view.answered = false;
  view.announced = false;
  sawLife(view, now);
  heardSay(view, report, now);
}

/**
 * The link is gone, and all that was said on it with it.
 * @param probed the server's end closed it, so an extra poll must be answered at once
 */
export function linkClosed(view: ServerView, probed: boolean, now: number): void {
  view.linked = false;
  view.linkNonce = NO_NONCE;
  view.linkDownAt = now;
  view.probeAt = probed ? now : -1;
  view.refused = false;
  view.answered = false;
  view.announced = false;
  view.said = undefined;
}
