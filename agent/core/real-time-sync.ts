/**
 * The first real-time sync module (P7): a change on the primary is on the standby at once.
 *
 *     primary: commit flushed ──APPEND──> standby: log, overlay, commit flushed ──CONFIRM──> primary
 *
 * An entry is sent only from disk, and confirmed only from disk (rule 7). The stored chunks are sent as
 * they lie; a window bounds what is on its way, and a turn sends a bounded share of it, so that clients are served
 * in between. A standby that was away gets the older chunks the same way first (batch-sync.ts says when a range
 * copy is needed instead).
 */
import { FRAME_APPEND } from "../../protocol/frame.js";
import {
  chunkEpoch,
  chunkFault,
  chunkFirst,
  chunkHead,
  chunkLast,
  chunkTail,
  chunkTimeMs,
} from "./chunk.js";
import type { AgentConfig } from "./config.js";
import type { Keyspace } from "./execution.js";
import type { GroupCommit } from "./group-commit.js";
import type { LogClock } from "./log-clock.js";
import type { PeerLink } from "./peer-link.js";
import { applyChunk } from "./replay.js";
import type { EntryWatcher } from "./replay.js";
import type { Roles } from "./roles.js";
import type { SessionTable } from "./session-table.js";
import type { SyncLog } from "./sync-log.js";

/** So many shares a turn sends that comes late: the loop was held up, and clients wait there as well. */
const SHARES_MAX = 4;

/** The primary's side: what of the log has been sent, and what of that has arrived. */
export class AppendStream {
  active = false;
  /** Last entry sent, and last one the standby has on disk. */
  sent = 0;
  arrived = 0;
  inFlightBytes = 0;
  /** This turn has sent its share, and there is more to send. */
  more = false;
  /** Bytes of log and copy sent since `turnMs`; below zero: what more than one share it may send. */
  turnBytes = 0;
  private turnMs = -Infinity;
  private lasts: number[] = [];
  private sizes: number[] = [];
  private head = 0;

  constructor(
    private readonly config: AgentConfig,
    private readonly roles: Roles,
    private readonly log: SyncLog,
    private readonly link: PeerLink,
  ) {}

  begin(index: number): void {
    this.end();
    this.active = true;
    this.sent = index;
    this.arrived = index;
  }

  end(): void {
    this.active = false;
    this.more = false;
    this.turnBytes = 0;
    this.inFlightBytes = 0;
    this.lasts = [];
    this.sizes = [];
    this.head = 0;
  }

  /** @returns when it wants to go on with what is left over */
  dueMs(): number {
    return this.more ? this.turnMs + this.config.limits.streamTurnMs : Infinity;
  }

  beginTurn(nowMs: number): void {
    const { streamTurnBytes, streamTurnMs } = this.config.limits;
    this.more = false;
    const sinceMs = nowMs - this.turnMs;
    if (sinceMs < streamTurnMs) return;
    this.turnMs = nowMs;
    // A turn that comes late has the share of the time it missed as well.
    const shares = streamTurnMs === 0 ? 1 : Math.min(SHARES_MAX, sinceMs / streamTurnMs);
    this.turnBytes = (1 - shares) * streamTurnBytes;
  }

  /** A turn's share is sent, or the network takes no more; what is left is for a later turn. */
  spent(): boolean {
    const { streamTurnBytes, streamBacklogBytes } = this.config.limits;
    if (this.link.backlog() >= streamBacklogBytes) return true;
    if (this.turnBytes < streamTurnBytes) return false;
    this.more = true;
    return true;
  }

  /**
   * Sends what the window and the turn allow, up to entry `limit`.
   * @returns false when the log no longer reaches back
   */
  pump(limit: number): boolean {
    if (!this.active) return true;
    const { streamWindowBytes } = this.config.limits;
    while (this.sent < limit) {
      if (this.inFlightBytes >= streamWindowBytes || this.spent()) return true;
      let chunk = this.log.read(this.sent + 1);
      if (chunk === undefined) return false;
      if (chunkLast(chunk) > limit) {
        // Only a copy has a limit inside a chunk.
        chunk = chunkHead(chunk, limit);
      }
      this.link.sendBytes(FRAME_APPEND, this.roles.epoch(), chunk);
      this.sent = chunkLast(chunk);
      this.lasts.push(this.sent);
      this.sizes.push(chunk.length);
      this.inFlightBytes += chunk.length;
      this.turnBytes += chunk.length;
    }
    return true;
  }

  onArrived(index: number): void {
    if (index <= this.arrived) return;
    this.arrived = index;
    while (this.head < this.lasts.length && this.lasts[this.head]! <= index) {
      this.inFlightBytes -= this.sizes[this.head]!;
      this.head++;
    }
    if (this.head > 64 && this.head * 2 > this.lasts.length) {
      this.lasts = this.lasts.slice(this.head);
      this.sizes = this.sizes.slice(this.head);
      this.head = 0;
    }
  }
}

/** The standby's side. */
export class AppendReceiver {
  /** Highest confirm sent in this session. */
  confirmSent = 0;
  private parts: Uint8Array[] = [];
  private partBytes = 0;

  constructor(
    private readonly config: AgentConfig,
    private readonly roles: Roles,
    private readonly log: SyncLog,
    private readonly commit: GroupCommit,
    private readonly clock: LogClock,
    private readonly keyspace: Keyspace,
    private readonly table: SessionTable,
    private readonly link: PeerLink,
    private readonly watcher: EntryWatcher,
  ) {}

  begin(): void {
    this.confirmSent = 0;
    this.end();
  }

  end(): void {
    this.parts = [];
    this.partBytes = 0;
  }

  /** Bytes of an APPEND of this epoch, in an open session. @param inStep confirms may follow (nothing is being copied) */
  onAppend(
    more: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
    inStep: boolean,
    nowMs: number,
  ): void {
    const { limits } = this.config;
    let chunk: Uint8Array;
    if (more || this.parts.length > 0) {
      this.partBytes += end - start;
      if (this.partBytes > limits.entryBytesMax + 2 * limits.chunkBytesMax) {
        this.link.fault("a chunk of more than " + this.partBytes + " bytes");
        return;
      }
      this.parts.push(bytes.slice(start, end));
      if (more) return;
      chunk = new Uint8Array(this.partBytes);
      let at = 0;
      for (const part of this.parts) {
        chunk.set(part, at);
        at += part.length;
      }
      this.end();
    } else {
      chunk = bytes.slice(start, end);
    }
    const fault = chunkFault(chunk, 0, chunk.length);
    if (fault !== "") this.link.fault(fault);
    else this.take(chunk, inStep, nowMs);
  }

  private take(received: Uint8Array, inStep: boolean, nowMs: number): void {
    const { log } = this;
    let chunk = received;
    // What the log holds already removes nothing and adds nothing.
    if (chunkLast(chunk) <= log.end) return;
    if (chunkFirst(chunk) > log.end + 1) {
      this.link.fault(
        "entries " + (log.end + 1) + " to " + (chunkFirst(chunk) - 1) + " are missing",
      );
      return;
    }
    if (chunkEpoch(chunk) < log.epochOfEnd() || chunkEpoch(chunk) > this.roles.logEpoch()) {
      this.link.fault("an entry of epoch " + chunkEpoch(chunk));
      return;
    }
    if (chunkFirst(chunk) <= log.end) chunk = chunkTail(chunk, log.end + 1);
    const bad = applyChunk(
      chunk,
      {
        keyspace: this.keyspace,
        table: this.table,
        applied: 0,
        sessionsAt: this.commit.tableAt,
      },
      nowMs,
      this.watcher,
    );
    if (bad > 0) {
      // What was applied before it must be in the log as well.
      if (bad > chunkFirst(chunk)) log.receive(chunkHead(chunk, bad - 1), nowMs);
      this.link.fault("entry " + bad + " cannot be applied");
      return;
    }
    log.receive(chunk, nowMs);
    this.clock.observe(chunkTimeMs(chunk), nowMs);
    // In the commit that flushes the entries; the confirm goes out after it.
    if (inStep) this.commit.confirmedHigh = Math.max(this.commit.confirmedHigh, log.end);
  }

  /** After a flush: tells the primary what is on disk here (rule 9). */
  confirm(): void {
    const index = Math.min(this.log.flushed, this.commit.durable.confirmedHigh);
    if (index <= this.confirmSent) return;
    this.confirmSent = index;
    this.link.sendConfirm(this.roles.epoch(), index);
  }
}
