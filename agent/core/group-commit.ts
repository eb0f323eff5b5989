/**
 * Group commit: all that a loop turn wants on disk goes in one transaction, and while that one is
 * being flushed the next gathers.
 *
 *     log commit:  log chunks · steps (role record, asked, cut, copied range …) · state row
 *     slice:       a part of the data that is put behind, all of it in the log on disk already · state row
 *
 * One commit is in flight at a time. Each is consistent in itself: what it changes and the marks that say so change
 * together. Replies wait for log commits, so a slice, which nobody waits for, is short, and the two take turns.
 * The data goes in sweeps: it is left alone until there is much of it, then it is written in the order of its
 * rows, slice by slice, up to the log's end as it was. While a standby is brought up to date its log goes first: its
 * data is left alone until there is too much of it. A failed flush ends the agent; it is never retried.
 */
import { readU48, writeU48 } from "../../protocol/frame.js";
import type { Keyspace } from "./execution.js";
import type { AgentLimits } from "./limits.js";
import type { Store, StoreWriter } from "./store.js";
import type { SyncLog } from "./sync-log.js";

const META_STATE = Uint8Array.of(115);
const STATE_BYTES = 43;
const STATE_VERSION = 2;

/** The step has nothing to do with the data. */
export const DATA_FREE = 0;
/** The step replaces or takes back data: no image may be made of what is in memory. */
export const DATA_HELD = 1;
/** The step goes on top of all data so far: everything is put behind before it. */
export const DATA_ALL = 2;

/** The least slice. */
const SLICE_KEYS_MIN = 64;
/** As long as nothing presses a slice has this share of its bound at most: making one holds the loop, and reads with it. */
const SLICE_EASY_SHARE = 1 / 4;
/** While it is brought up to date a standby may hold this many times more keys, and bytes. */
const CATCH_UP_KEYS = 6;
const CATCH_UP_BYTES = 2;

/** Something that must be on disk in one piece. */
export interface CommitStep {
  /** For people. */
  name: string;
  /** A real flush with any durability. */
  urgent: boolean;
  data: number;
  fill(writer: StoreWriter): void;
  onFlushed(nowMs: number): void;
}

/** The durable numbers, one row. */
export interface StateRow {
  /** The tables hold all effects up to here. */
  applied: number;
  /** Last entry no longer in the log table. */
  base: number;
  /** Bytes of the log table's chunks. */
  logBytes: number;
  /** Highest index ever confirmed or heard confirmed (rule 8). */
  confirmedHigh: number;
  /** The older checkpoint of the session table is as of here. */
  sessionsAt: number;
  /**
   * The tables hold no effect above it. Above `applied`, since what waits longest is not always put behind
   * first; a log cut below it does not take back what the tables have.
   */
  tablesTop: number;
  /** Log time of the newest entry there ever was; the log table alone does not say it after a copy. */
  timeMs: number;
}

export function readStateRow(store: Store): StateRow {
  const row = store.get("meta", META_STATE);
  if (row === undefined) {
    return {
      applied: 0,
      base: 0,
      logBytes: 0,
      confirmedHigh: 0,
      sessionsAt: 0,
      tablesTop: 0,
      timeMs: 0,
    };
  }
  if (row.length !== STATE_BYTES || row[0] !== STATE_VERSION) {
    throw new Error(
      "the store's state row has version " + row[0] + ", this build reads " + STATE_VERSION,
    );
  }
  return {
    applied: readU48(row, 1),
    base: readU48(row, 7),
    logBytes: readU48(row, 13),
    confirmedHigh: readU48(row, 19),
    sessionsAt: readU48(row, 25),
    tablesTop: readU48(row, 31),
    timeMs: readU48(row, 37),
  };
}

/** What a disk confirmed under another identity binds this one to nothing (rule 8). */
export function forgetConfirmed(store: Store, writer: StoreWriter): void {
  const row = store.get("meta", META_STATE);
  if (row === undefined) return;
  const forgotten = new Uint8Array(row);
  writeU48(forgotten, 19, 0);
  writer.put("meta", META_STATE, forgotten);
}

export class GroupCommit {
  /** A commit is on its way. */
  inFlight = false;
  /** When it was given to the store. */
  startedMs = 0;
  /** The oldest entry it holds was appended then; 0 when it holds none. */
  entriesSinceMs = 0;
  /** What the disk is known to hold. */
  readonly durable: StateRow;
  /** What the next commit writes. */
  confirmedHigh: number;
  sessionsAt: number;
  tablesTop: number;
  /** The session table in memory came from a checkpoint as of here: no entry up to it is applied to it again. */
  tableAt = 0;
  /** Entries above it may still be taken back, so their effects stay out of the tables while there is room. */
  upTo = 0;
  /** A copy still needs the log above it, however long that is. */
  pin = Infinity;
  /** A session is being agreed on: the tables must not run ahead of what was said. */
  dataHeld = false;
  /** Somebody waits for the tables to come up to the log: they are swept all the time. */
  eager = false;
  /** This standby is not in step: every commit is one its primary, and its primary's clients, wait for. */
  catchingUp = false;
  /** Total of finished commits, for people. */
  commits = 0;

  private readonly store: Store;
  private readonly log: SyncLog;
  private readonly keyspace: Keyspace;
  private readonly limits: AgentLimits;
  private steps: CommitStep[] = [];
  private filling: CommitStep[] = [];
  private fillingRow: StateRow;
  private readonly row = new Uint8Array(STATE_BYTES);
  private token = 0;
  private finished = false;
  private error: Error | undefined;
  /** The commit in flight, or the last one, is a slice; a log commit has its turn then. */
  private slicing = false;
  /** Data is put behind until the tables have all up to `sweepTo`. */
  private sweeping = false;
  private whole = false;
  private sweepTo = 0;
  private sweptMs = 0;
  private sweepBytes = 0;
  private loggedMs = 0;
  /** Keys of the next slice, and how long a commit of the log takes, as seen lately. */
  private sliceKeys = SLICE_KEYS_MIN;
  /** How full catching up has left the overlay, less what was put behind since; 0: that is all gone. */
  private left = 0;
  private logMs = 0;
  /** Nothing could be put behind at this `upTo` and overlay size. */
  private stuckUpTo = -1;
  private stuckSize = -1;

  constructor(
    store: Store,
    log: SyncLog,
    keyspace: Keyspace,
    limits: AgentLimits,
    durable: StateRow,
  ) {
    this.store = store;
    this.log = log;
    this.keyspace = keyspace;
    this.limits = limits;
    this.durable = durable;
    this.confirmedHigh = durable.confirmedHigh;
    this.sessionsAt = durable.sessionsAt;
    this.tablesTop = durable.tablesTop;
    this.fillingRow = { ...durable };
  }

  /** Puts a step into the next commit that begins. */
  add(step: CommitStep): void {
    this.steps.push(step);
  }

  /** What is in memory is about to be taken back or replaced: no image of it may be made. */
  holding(): boolean {
    return (
      this.dataHeld ||
      this.steps.some((step) => step.data === DATA_HELD) ||
      this.filling.some((step) => step.data === DATA_HELD)
    );
  }

  /** Nothing is under way or waits: the tables are what was last flushed. */
  idle(): boolean {
    return !this.inFlight && this.steps.length === 0 && !this.log.due();
  }

  /** The commit that was in flight has ended. @returns the failure, "" for none, undefined when it is still under way */
  settle(nowMs: number): string | undefined {
    if (!this.finished) return undefined;
    this.finished = false;
    if (this.error !== undefined) return "the store failed: " + this.error.message;
    this.inFlight = false;
    this.commits++;
    this.learn(nowMs - this.startedMs);
    Object.assign(this.durable, this.fillingRow);
    this.log.onFlushed();
    if (this.token !== 0) {
      this.keyspace.writtenBehind(this.token);
      this.token = 0;
    }
    const steps = this.filling;
    this.filling = [];
    for (const step of steps) step.onFlushed(nowMs);
    return "";
  }

  /** How large a slice may be is learnt from how long the last ones took. @param tookMs the commit that has ended */
  private learn(tookMs: number): void {
    const { sliceMs } = this.limits;
    const easyKeys = this.limits.sliceKeysMax * SLICE_EASY_SHARE;
    if (!this.slicing) {
      this.logMs += (tookMs - this.logMs) / 8;
      return;
    }
    const moreMs = tookMs - this.logMs;
    if (moreMs < sliceMs) this.sliceKeys = Math.min(this.sliceKeys * 2, easyKeys);
    else if (moreMs > 2 * sliceMs) this.sliceKeys = Math.max(this.sliceKeys / 2, SLICE_KEYS_MIN);
  }

  /** Begins a commit when something is due and none is in flight. */
  begin(nowMs: number): void {
    if (this.inFlight) return;
    const logDue = this.logDue();
    const sliceDue = this.sliceDue(nowMs);
    if (!logDue && !sliceDue) return;
    this.inFlight = true;
    this.startedMs = nowMs;
    const slice = sliceDue && this.sliceFirst(logDue);
    this.slicing = slice;
    if (slice) {
      this.entriesSinceMs = 0;
      this.commitSlice();
    } else {
      this.commitLog(nowMs);
    }
  }

  private sliceFirst(logDue: boolean): boolean {
    if (this.steps.length > 0) return this.deferring() && !this.log.due();
    // With an overlay as full as this, taking turns was not enough: the log waits.
    return !logDue || !this.slicing || this.overfull();
  }

  private commitLog(nowMs: number): void {
    const entries = this.log.due();
    this.entriesSinceMs = entries ? this.log.waitingSinceMs : 0;
    if (entries) this.loggedMs = nowMs;
    // In the order in which they came: what follows a deferred step waits with it. One that no slice brings on
    // is not deferred.
    const until =
      this.deferring() && (entries || this.steps[0]!.data !== DATA_ALL) && !this.stuck()
        ? this.steps.findIndex((step) => step.data === DATA_ALL)
        : this.steps.length;
    this.filling = this.steps.splice(0, until);
    // A step may replace what the overlay holds: of as many keys and up to the same entry, and yet others.
    if (this.filling.length > 0) this.stuckUpTo = -1;
    let urgent = false;
    let all = false;
    for (const step of this.filling) {
      if (step.urgent) urgent = true;
      if (step.data === DATA_ALL) all = true;
    }
    this.log.planTrim(Math.min(this.durable.applied, this.durable.sessionsAt, this.pin));
    this.store.commit(
      (writer) => {
        this.log.fill(writer);
        if (all) {
          this.token = this.keyspace.writeBehind(writer, Infinity, Infinity);
          this.tablesTop = Math.max(this.tablesTop, this.log.end);
        }
        for (const step of this.filling) step.fill(writer);
        this.writeRow(writer, this.keyspace.appliedIndex(), this.confirmedHigh);
      },
      this.onDone,
      urgent,
    );
  }

  private commitSlice(): void {
    this.store.commit(
      (writer) => {
        this.slice(writer);
        // Nothing here tells of entries that are not in the log on disk: neither that their effects (of which there
        // may be none) are in the tables, nor that they are confirmed.
        const { confirmedHigh } = this;
        const { flushed } = this.log;
        const known = confirmedHigh <= flushed;
        this.writeRow(
          writer,
          Math.min(this.keyspace.appliedIndex(), flushed),
          known ? confirmedHigh : this.durable.confirmedHigh,
        );
      },
      this.onDone,
      false,
    );
  }

  private readonly onDone = (error: Error | undefined): void => {
    this.finished = true;
    this.error = error;
  };

  private logDue(): boolean {
    return (
      this.steps.length > 0 || this.log.due() || this.confirmedHigh > this.durable.confirmedHigh
    );
  }

  /** How full the overlay is; 1: as full as it should be. */
  private fullness(): number {
    const { overlayKeysMax, overlayBytesMax } = this.limits;
    return Math.max(
      this.keyspace.overlaySize() / overlayKeysMax,
      this.keyspace.overlayBytes() / overlayBytesMax,
    );
  }

  private overfull(): boolean {
    if (this.catchingUp) return this.crowding() >= 2;
    return this.fullness() >= Math.max(2, this.left + 1);
  }

  /** As fullness, of a standby that is brought up to date. */
  private crowding(): number {
    const { overlayKeysMax, overlayBytesMax } = this.limits;
    return Math.max(
      this.keyspace.overlaySize() / (CATCH_UP_KEYS * overlayKeysMax),
      this.keyspace.overlayBytes() / (CATCH_UP_BYTES * overlayBytesMax),
    );
  }

  /** What of the data may be put behind: it is not taken back, and the log on disk has it. */
  private reach(): number {
    return Math.min(this.upTo, this.log.flushed);
  }

  private sliceDue(nowMs: number): boolean {
    const { keyspace, log } = this;
    const size = keyspace.overlaySize();
    const full = this.fullness();
    if (this.catchingUp) this.left = full;
    else if (this.left > 0) this.left = full > 1 ? Math.min(this.left, full) : 0;
    if (size === 0) {
      this.endSweep(nowMs);
      return false;
    }
    if (this.dataHeld || this.stuck()) return false;
    if (this.steps.some((step) => step.data === DATA_HELD)) return false;
    if (this.deferring()) return !log.due();
    if (this.steps.some((step) => step.data === DATA_ALL)) return false;
    if (this.sweeping && keyspace.appliedIndex() >= this.sweepTo && keyspace.dropping() === 0) {
      this.endSweep(nowMs);
    }
    if (!this.sweeping && this.wantsSweep(nowMs)) {
      this.sweeping = true;
      // For the sake of the log behind the data, which only a whole sweep makes shorter.
      this.whole = this.catchingUp && !this.crowded();
      this.sweepTo = log.flushed;
      this.sweepBytes = log.bytesEver;
    }
    return this.sweeping && (!this.catchingUp || this.whole || this.pressed());
  }

  /** The last slice could put nothing behind, and nothing has changed since. */
  private stuck(): boolean {
    return this.keyspace.overlaySize() === this.stuckSize && this.reach() === this.stuckUpTo;
  }

  /** A step wants all data put behind before it, and that is more than one commit should take: slices go first. */
  private deferring(): boolean {
    const { keyspace, limits } = this;
    return (
      (keyspace.overlaySize() > limits.sliceKeysMax ||
        keyspace.overlayBytes() > limits.sliceBytesMax) &&
      this.steps.some((step) => step.data === DATA_ALL)
    );
  }

  private endSweep(nowMs: number): void {
    this.sweeping = false;
    this.sweptMs = nowMs;
  }

  private wantsSweep(nowMs: number): boolean {
    const { limits } = this;
    if (!this.catchingUp) {
      if (this.eager || this.fullness() >= 0.5) return true;
      if (nowMs - this.sweptMs >= limits.sweepEveryMs) return true;
      if (nowMs - Math.max(this.loggedMs, this.sweptMs) >= limits.sweepQuietMs) return true;
    }
    return this.pressed();
  }

  /** Nearly so much that the log would have to wait. */
  private crowded(): boolean {
    return this.catchingUp && this.crowding() >= 1.5;
  }

  /** There is too much to be left alone even by a standby that is brought up to date. */
  private pressed(): boolean {
    const { limits, log, keyspace } = this;
    if (this.crowded()) return true;
    // Both bound what must be replayed at a start; the log that is replayed cannot be trimmed, too.
    const entries = 2 * limits.overlayKeysMax * (this.catchingUp ? CATCH_UP_KEYS : 1);
    if (log.end - keyspace.appliedIndex() >= entries) return true;
    const sweepLogBytes = limits.sweepLogBytes * (this.catchingUp ? CATCH_UP_BYTES : 1);
    const bytes = Math.min(sweepLogBytes, limits.logBytesMax / 4);
    return log.bytesEver - this.sweepBytes >= bytes;
  }

  private writeRow(writer: StoreWriter, applied: number, confirmedHigh: number): void {
    const row = this.fillingRow;
    row.applied = applied;
    row.base = this.log.base;
    row.logBytes = this.log.bytes;
    row.confirmedHigh = confirmedHigh;
    row.sessionsAt = this.sessionsAt;
    row.tablesTop = this.tablesTop;
    row.timeMs = this.log.timeMs;
    const bytes = this.row;
    bytes[0] = STATE_VERSION;
    writeU48(bytes, 1, row.applied);
    writeU48(bytes, 7, row.base);
    writeU48(bytes, 13, row.logBytes);
    writeU48(bytes, 19, row.confirmedHigh);
    writeU48(bytes, 25, row.sessionsAt);
    writeU48(bytes, 31, row.tablesTop);
    writeU48(bytes, 37, row.timeMs);
    writer.put("meta", META_STATE, bytes);
  }

  private slice(writer: StoreWriter): void {
    const { keyspace, limits } = this;
    const { sliceKeysMax, sliceBytesMax, logBytesMax } = limits;
    const size = keyspace.overlaySize();
    const full = this.fullness();
    // What catching up has left is no reason for long slices, unless it grows.
    const most = this.catchingUp ? this.crowded() : full >= Math.max(1, this.left + 0.5);
    const keys = most ? sliceKeysMax : Math.min(Math.ceil(this.sliceKeys), sliceKeysMax);
    const reach = this.reach();
    let upTo = reach;
    this.token = keyspace.writeBehind(writer, keys, upTo, sliceBytesMax);
    // When no confirm comes and that holds up the overlay or the log too long, what is not confirmed is
    // written all the same: taking such an effect back costs a copy.
    if (
      this.token === 0 &&
      upTo < this.log.flushed &&
      (full > 1 || this.log.bytes > logBytesMax + (logBytesMax >>> 2))
    ) {
      upTo = this.log.flushed;
      this.token = keyspace.writeBehind(writer, keys, upTo, sliceBytesMax);
    }
    if (this.token !== 0) this.tablesTop = Math.max(this.tablesTop, upTo);
    this.stuckUpTo = this.token === 0 ? reach : -1;
    this.stuckSize = size;
  }
}
