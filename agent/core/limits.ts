/**
 * Every bound of the agent's core, and how the bounds depend on each other. A home may set some of
 * them (its configuration file says which); the relations are asserted for whatever it sets.
 */
import { HEADER_BYTES, PAYLOAD_BYTES_MAX } from "../../protocol/frame.js";
import { assert } from "../../protocol/malformed.js";
import { BOUNDARIES_MAX as WIRE_BOUNDARIES_MAX } from "../../protocol/messages.js";

export interface AgentLimits {
  /** Largest value of a key or field. @unit bytes */
  valueBytesMax: number;
  /** Largest command, and largest MULTI. @unit bytes */
  commandBytesMax: number;
  /** Unanswered request bytes the controller may have on its link; also most that is parked. @unit bytes */
  windowBytes: number;
  /** Reply bytes a command grants where the controller's challenge names no other number. @unit bytes */
  replyWindowBytes: number;
  /** Replies that wait or are being sent; above it commands are refused before they run. @unit bytes */
  heldReplyBytesMax: number;
  /** Commands that wait for their reply's release. */
  heldRepliesMax: number;
  /** Long commands advanced in steps at one time. */
  jobsMax: number;
  /** Commands of the controller's link that one turn runs, and reply bytes it makes. */
  turnCommandsMax: number;
  turnReplyBytesMax: number;
  /** Work one turn gives to all jobs (what an executor counts as one is its own matter). */
  jobWorkPerTurn: number;

  /** Log kept on disk, also for a peer that is away. @unit bytes */
  logBytesMax: number;
  /** A chunk is closed when it has grown to this. @unit bytes */
  chunkBytesMax: number;
  chunkEntriesMax: number;
  /** Largest entry: effects of one command or MULTI. @unit bytes */
  entryBytesMax: number;
  /** Chunks kept in memory for a standby that keeps up. @unit bytes */
  tailBytesMax: number;
  /** Log and copy bytes sent to the standby and not yet confirmed. @unit bytes */
  streamWindowBytes: number;
  /**
   * Bytes of log or copy that the primary reads and sends at a time, and how far apart those times are at least: clients'
   * commands run in between, and a standby that takes all there is does not take the processor with it.
   */
  streamTurnBytes: number;
  streamTurnMs: number;
  /** Nothing more is read for the standby while the network has not taken this much. @unit bytes */
  streamBacklogBytes: number;
  /** Ends of epochs remembered for comparing logs. */
  boundariesMax: number;
  /**
   * Keys the overlay should hold at most, and bytes of their values; at half of it they are put behind. Above it
   * nothing is left out, at twice the log waits (a standby that is brought up to date may hold six times the keys, twice the bytes).
   */
  overlayKeysMax: number;
  overlayBytesMax: number;
  /** Overlay keys, and bytes of their values, written into one commit. */
  sliceKeysMax: number;
  sliceBytesMax: number;
  /** A slice is made about this much longer than a commit of the log: that one may have to wait for it. */
  sliceMs: number;
  /** Data is put behind at least this often, and when nothing was appended for so long. */
  sweepEveryMs: number;
  sweepQuietMs: number;
  /** And when the log has grown by this, since what lies behind it must be replayed at a start. @unit bytes */
  sweepLogBytes: number;
  /** Chunks trimmed off the log in one commit. */
  trimChunksMax: number;
  /** Log bytes after which the session table is checkpointed. @unit bytes */
  checkpointBytes: number;

  /** Rows and bytes of one copied range. */
  copyRowsMax: number;
  copyBytesMax: number;
  /** A set-aside file is cut at about this. @unit bytes */
  setAsideBytesMax: number;

  sessionsMax: number;
  /**
   * Replies kept for the session of the controller, and for each other. The former is twice what it may have in flight: writes that are
   * asked again after a role change come mixed with new ones, and these must not push out what a late one was answered.
   */
  controllerWindow: number;
  clientWindow: number;
  /** Longest reply kept for a retry. @unit bytes */
  keptReplyBytesMax: number;
  /** All kept replies of one session. @unit bytes */
  sessionBytesMax: number;
  /** A client's session that was silent this long is closed by an entry. */
  sessionIdleMs: number;
  /** Closing entries are made for at most this many sessions a tick. */
  sessionSweepMax: number;

  /** Local clients, their commands that wait, and bytes of each. */
  localClientsMax: number;
  localWaitingMax: number;
  localInputBytesMax: number;
  /** A local client that leaves this much unread is read no further. @unit bytes */
  localOutputBytesMax: number;
  /** Commands forwarded to the primary that have not come back. */
  forwardsMax: number;
  /** A forwarded command that has not come back is given up (outcome unknown). */
  forwardMs: number;

  /** Keys expired by one entry, and entries a tick. */
  expireKeysMax: number;
  expireEntriesMax: number;
  expireEveryMs: number;

  peerHeartbeatMs: number;
  peerSilentMs: number;
  /** A peer silent this long has lost the connection, whatever the network says. */
  peerDeadMs: number;
  /** The controller's link is renewed when neither it nor a poll was heard for this long. */
  controllerSilentMs: number;
  /**
   * Polls that name another link or another boot than ours for this long mean ours is dead. Before the first one that
   * names ours the controller has `handshakeMs`: it may be a slow board.
   */
  controllerStrangeMs: number;
  /** First and greatest pause between two dial attempts. */
  redialMinMs: number;
  redialMaxMs: number;
  handshakeMs: number;
  /** Unconfirmed or uncommitted entries this old are a stall. */
  stallMs: number;
  /** A session exchange that has not come to its end is begun anew. */
  sessionMs: number;
  /** A join without progress is given up after this, and tried again no sooner. */
  joinGiveUpMs: number;
  /** Joining begins when the standby is at most this far behind, or by no more time than `joinPatienceMs`. */
  joinLagEntries: number;
  /** And when it is not behind at all: such a moment is waited for so long, since then no read has to wait. */
  joinPatienceMs: number;
  /** An unanswered request to the controller is repeated. */
  askEveryMs: number;
  /** The store's usage from which reads are better sent elsewhere. @unit permille of its limit */
  brakePermille: number;
}

const MB = 1024 * 1024;

export const DEFAULT_LIMITS: AgentLimits = {
  valueBytesMax: MB,
  commandBytesMax: MB + 64 * 1024,
  windowBytes: 8 * MB,
  replyWindowBytes: 16 * 1024,
  heldReplyBytesMax: 64 * MB,
  heldRepliesMax: 65536,
  jobsMax: 64,
  turnCommandsMax: 1024,
  turnReplyBytesMax: 4 * MB,
  jobWorkPerTurn: 2000,

  logBytesMax: 256 * MB,
  chunkBytesMax: 256 * 1024,
  chunkEntriesMax: 65535,
  entryBytesMax: 16 * MB,
  tailBytesMax: 8 * MB,
  streamWindowBytes: 8 * MB,
  streamTurnBytes: 48 * 1024,
  streamTurnMs: 1,
  streamBacklogBytes: MB,
  boundariesMax: 1024,
  overlayKeysMax: 16384,
  overlayBytesMax: 32 * MB,
  sliceKeysMax: 1000,
  sliceBytesMax: 4 * MB,
  sliceMs: 2,
  sweepEveryMs: 1000,
  sweepQuietMs: 100,
  sweepLogBytes: 32 * MB,
  trimChunksMax: 64,
  checkpointBytes: 8 * MB,

  copyRowsMax: 1024,
  copyBytesMax: 128 * 1024,
  setAsideBytesMax: 16 * MB,

  sessionsMax: 1024,
  controllerWindow: 8192,
  clientWindow: 64,
  keptReplyBytesMax: 1024,
  sessionBytesMax: MB,
  sessionIdleMs: 10 * 60 * 1000,
  sessionSweepMax: 16,

  localClientsMax: 64,
  localWaitingMax: 1024,
  localInputBytesMax: 4 * MB,
  localOutputBytesMax: 4 * MB,
  forwardsMax: 4096,
  forwardMs: 5000,

  expireKeysMax: 200,
  expireEntriesMax: 4,
  expireEveryMs: 50,

  peerHeartbeatMs: 50,
  peerSilentMs: 200,
  peerDeadMs: 1000,
  controllerSilentMs: 2000,
  controllerStrangeMs: 100,
  redialMinMs: 10,
  redialMaxMs: 500,
  handshakeMs: 1000,
  stallMs: 1000,
  sessionMs: 5000,
  joinGiveUpMs: 10000,
  joinLagEntries: 1000,
  joinPatienceMs: 250,
  askEveryMs: 100,
  brakePermille: 950,
};

/** The limits with some of them set otherwise. Throws when they do not fit together. */
export function agentLimits(changes: Partial<AgentLimits>): AgentLimits {
  const limits: AgentLimits = { ...DEFAULT_LIMITS };
  for (const name of Object.keys(changes) as (keyof AgentLimits)[]) {
    const value = changes[name];
    if (value !== undefined) limits[name] = value;
  }
  if (changes.valueBytesMax !== undefined && changes.commandBytesMax === undefined) {
    limits.commandBytesMax = limits.valueBytesMax + 64 * 1024;
  }
  if (changes.windowBytes === undefined) {
    limits.windowBytes = Math.max(limits.windowBytes, 2 * limits.commandBytesMax);
  }
  if (changes.entryBytesMax === undefined) {
    limits.entryBytesMax = Math.max(limits.entryBytesMax, 2 * limits.commandBytesMax);
  }
  if (changes.localInputBytesMax === undefined) {
    limits.localInputBytesMax = Math.max(limits.localInputBytesMax, 2 * limits.commandBytesMax);
  }
  checkLimits(limits);
  return limits;
}

function checkLimits(limits: AgentLimits): void {
  // A command that was accepted whole must fit where it is gathered and where it is parked.
  assert(limits.commandBytesMax > limits.valueBytesMax, "a command is longer than its value");
  assert(limits.windowBytes >= limits.commandBytesMax, "window holds a command");
  assert(limits.windowBytes >= HEADER_BYTES + PAYLOAD_BYTES_MAX, "window holds a frame");
  assert(limits.localInputBytesMax >= limits.commandBytesMax, "a local client can send a command");
  // A chunk counts its entries in 16 bits.
  assert(limits.chunkEntriesMax >= 1 && limits.chunkEntriesMax <= 65535, "entries of a chunk");
  assert(limits.entryBytesMax >= limits.commandBytesMax, "entry holds a command's effects");
  assert(limits.chunkBytesMax + limits.entryBytesMax < 0x7fffffff, "chunk length");
  assert(limits.logBytesMax >= 2 * limits.chunkBytesMax, "log holds chunks");
  // The table's state before the oldest kept entry must be on disk, or the log could not be trimmed.
  assert(limits.checkpointBytes <= limits.logBytesMax / 2, "checkpoints come before trimming");
  assert(limits.boundariesMax <= WIRE_BOUNDARIES_MAX, "boundaries fit a message");
  assert(limits.sliceKeysMax <= limits.overlayKeysMax, "slice within the overlay");
  // Two lost heartbeats are no silence.
  assert(limits.peerSilentMs >= 3 * limits.peerHeartbeatMs, "peer silence");
  assert(limits.peerDeadMs > limits.peerSilentMs, "a dead peer was silent first");
  assert(limits.redialMinMs <= limits.redialMaxMs, "redial pauses");
  assert(limits.stallMs > limits.peerSilentMs, "a stall is longer than a silence");
  assert(limits.keptReplyBytesMax <= limits.sessionBytesMax, "a kept reply fits its session");
  assert(limits.controllerWindow >= limits.clientWindow, "windows");
  assert(limits.joinLagEntries > 0, "joining can begin");
  assert(limits.joinPatienceMs < limits.joinGiveUpMs, "joining begins before it is given up");
  assert(
    limits.streamTurnBytes > 0 && limits.streamTurnMs >= 0 && limits.streamBacklogBytes > 0,
    "a turn sends something",
  );
}
