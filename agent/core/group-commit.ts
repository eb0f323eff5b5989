/**
 * Group commit: all that a loop turn wants on disk goes in one transaction, and while that one is
 * being flushed the next gathers.
 *
 *     fill:  log chunks · steps (role record, asked, cut, copied range …) · data put behind · state row
 *
 * One commit is in flight at a time. Each is consistent in itself: the log, the data as of `applied`
 * and the marks that say so change together. A failed flush ends the agent; it is never retried.
 */
import { readU48, writeU48 } from "../../protocol/frame.js";
import type { Keyspace } from "./execution.js";
import type { AgentLimits } from "./limits.js";
import type { Store, StoreWriter } from "./store.js";
import type { SyncLog } from "./sync-log.js";

const META_STATE = Uint8Array.of(115);
const STATE_BYTES = 43;
const STATE_VERSION = 2;

/** Data is put behind as far as write-behind may go at once (see `upTo`). */
export const DATA_SLICE = 0;
/** The step replaces or takes back data: nothing is put behind in its commit. */
export const DATA_HELD = 1;
/** The step goes on top of all data so far: everything is put behind before it. */
export const DATA_ALL = 2;

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
  private lastDataMs = 0;
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

  /** Begins a commit when something is due and none is in flight. */
  begin(nowMs: number): void {
    if (this.inFlight || !this.due(nowMs)) return;
    this.inFlight = true;
    this.startedMs = nowMs;
    this.entriesSinceMs = this.log.due() ? this.log.waitingSinceMs : 0;
    this.filling = this.steps;
    this.steps = [];
    let urgent = false;
    let data = this.dataHeld ? DATA_HELD : DATA_SLICE;
    for (const step of this.filling) {
      if (step.urgent) urgent = true;
      if (step.data > data) data = step.data;
    }
    if (data !== DATA_HELD) this.lastDataMs = nowMs;
    this.log.planTrim(Math.min(this.durable.applied, this.durable.sessionsAt, this.pin));
    this.store.commit(
      (writer) => this.fill(writer, data),
      (error) => {
        this.finished = true;
        this.error = error;
      },
      urgent,
    );
  }

  private due(nowMs: number): boolean {
    if (this.steps.length > 0 || this.log.due()) return true;
    if (this.confirmedHigh > this.durable.confirmedHigh) return true;
    if (this.dataHeld) return false;
    const size = this.keyspace.overlaySize();
    if (size === 0 || (size === this.stuckSize && this.upTo === this.stuckUpTo)) return false;
    // A log commit takes data along; on its own data waits for a quiet moment or a full slice.
    return size >= this.limits.sliceKeysMax || nowMs - this.lastDataMs >= 100;
  }

  private fill(writer: StoreWriter, data: number): void {
    this.log.fill(writer);
    if (data === DATA_ALL) {
      this.token = this.keyspace.writeBehind(writer, Infinity, Infinity);
      this.tablesTop = Math.max(this.tablesTop, this.log.end);
    }
    for (const step of this.filling) step.fill(writer);
    if (data === DATA_SLICE) this.slice(writer);
    const row = this.fillingRow;
    row.applied = this.keyspace.appliedIndex();
    row.base = this.log.base;
    row.logBytes = this.log.bytes;
    row.confirmedHigh = this.confirmedHigh;
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
    const size = this.keyspace.overlaySize();
    if (size === 0) return;
    const { overlayKeysMax, sliceKeysMax, logBytesMax } = this.limits;
    const max = size > overlayKeysMax ? size - overlayKeysMax + sliceKeysMax : sliceKeysMax;
    let { upTo } = this;
    this.token = this.keyspace.writeBehind(writer, max, upTo);
    // When no confirm comes and that holds up the overlay or the log too long, what is not confirmed is
    // written all the same: taking such an effect back costs a copy.
    if (
      this.token === 0 &&
      upTo !== Infinity &&
      (size > overlayKeysMax || this.log.bytes > logBytesMax + (logBytesMax >>> 2))
    ) {
      upTo = Infinity;
      this.token = this.keyspace.writeBehind(writer, max, upTo);
    }
    if (this.token !== 0) {
      this.tablesTop = Math.max(this.tablesTop, Math.min(upTo, this.log.end));
    }
    this.stuckUpTo = this.token === 0 ? this.upTo : -1;
    this.stuckSize = size;
  }
}
