/**
 * Every bound of the controller, and what must hold between them.
 *
 * A home may lower them for its memory (a chip) and a test may shrink them; `checkLimits` is called once
 * when a controller is made.
 */
import { assert } from "./assert.js";
import type { Timings } from "./config.js";

export interface Limits {
  /** Connections on the servers' port that have not proven who they are yet. */
  pendingLinksMax: number;
  /** Control bytes a server may leave unread before its link is dropped. @unit bytes */
  linkBacklogMax: number;
  /** Events kept in the black box. */
  traceEntries: number;
  /** Commands that wait for a server, all clients together. @unit bytes */
  heldBytesMax: number;
  /** Commands sent to one server and not yet answered. */
  inFlightMax: number;
  /** Reply bytes a server may send for one command without further credit. @unit bytes */
  replyWindowBytes: number;
  /** A client that leaves this much unread is not read from. @unit bytes */
  clientOutHighBytes: number;
  /** Reply bytes waiting for clients, all together. @unit bytes */
  clientOutTotalBytes: number;
  /** Largest value a client may store. @unit bytes */
  valueBytesMax: number;
  /** Commands the controller can hold at least; a power of two. The table has room for four times inFlightMax. */
  commandRowsMin: number;
  /** What a command may have beside its value. @unit bytes */
  commandOverheadBytes: number;
  /** Commands are gathered in chunks of memory of this size. @unit bytes */
  commandChunkBytes: number;
  /** One client's waiting commands, beyond which its input is left in the network. @unit bytes */
  clientWaitingBytesMax: number;
  /** A client's backlog is looked at after so many reply bytes. @unit bytes */
  clientOutCheckBytes: number;
  /** Replies one client may have on their way, as far as its last ones tell. @unit bytes */
  clientReplyBytesMax: number;
  /** Fragments of large commands go out while a link holds less than this. @unit bytes */
  linkLowBytes: number;
  /** Client connections, Redis and native together. */
  clientsMax: number;
}

/** Entries are stamped with their epoch and its primary in 32 bits (agent/core/roles.ts), so an epoch has 31. */
export const EPOCH_END = 0x80000000;

/** A record so near the end of the epochs that not even one wiped controller could follow it. */
export const EPOCH_MAX = EPOCH_END - 0x200000;

/**
 * How far above everything heard a wiped controller writes (rule 19): a record it wrote before the wipe
 * and that only one server heard can then never share an epoch with a new one.
 */
export const EPOCH_GAP = 0x100000;

/** Longest console answer. @unit lines */
export const CONSOLE_LINES_MAX = 64;
/** Longest line of a console answer. @unit columns */
export const CONSOLE_COLUMNS = 80;

export function defaultLimits(): Limits {
  return {
    pendingLinksMax: 8,
    linkBacklogMax: 16 * 1024 * 1024,
    traceEntries: 512,
    heldBytesMax: 16 * 1024 * 1024,
    inFlightMax: 4096,
    replyWindowBytes: 16 * 1024,
    clientOutHighBytes: 64 * 1024,
    clientOutTotalBytes: 64 * 1024 * 1024,
    valueBytesMax: 1024 * 1024,
    commandRowsMin: 64,
    commandOverheadBytes: 64 * 1024,
    commandChunkBytes: 16 * 1024,
    clientWaitingBytesMax: 256 * 1024,
    clientOutCheckBytes: 16 * 1024,
    clientReplyBytesMax: 4 * 1024 * 1024,
    linkLowBytes: 128 * 1024,
    clientsMax: 10000,
  };
}

/** Asserts what the rules take for granted. */
export function checkLimits(t: Timings, l: Limits): void {
  assert(t.pollMs > 0, "polls have a period");
  // Two lost datagrams are no failure.
  assert(t.failureMs >= 3 * t.pollMs, "a failure is at least three silent polls");
  // A closed link is judged by one poll; waiting longer than for silence would be pointless.
  assert(t.probeMs < t.failureMs, "a probe is quicker than silence");
  assert(t.linkDownMs >= t.failureMs, "a link that is down is given at least the failure limit");
  // The disk of the primary must have its own judgement before the standby is blamed for it for long.
  assert(t.diskStallMs > t.stallMs, "a hanging disk is judged after a stalled confirm");
  assert(t.stallPeerDownMs <= t.stallMs, "a peer link known to be down shortens the stall limit");
  // A held command must outlive a failover by silence, or clients would see errors for nothing.
  assert(t.holdMs > t.failureMs + t.pollMs, "commands are held longer than a failover takes");
  // Two lost packets are no silence, and a line that must tell a cut cable from a dead server still speaks then.
  assert(t.serialFailureMs >= 3 * t.serialPollMs, "a serial silence is at least three polls");
  assert(t.serialFailureMs >= t.failureMs, "a serial line outlasts the network's silence");
  assert(t.serialProbeMs < t.serialFailureMs, "a probe by serial is quicker than silence");
  assert(t.drainMs < t.holdMs, "draining ends before held commands do");
  assert(l.pendingLinksMax >= 2, "both servers can dial at once");
  assert(l.traceEntries >= 16, "the black box holds something");
  assert(EPOCH_MAX + 2 * EPOCH_GAP <= EPOCH_END, "epochs never wrap");
}
