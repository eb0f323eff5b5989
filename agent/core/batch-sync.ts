/**
 * The batch sync modules (P9, P10): all that changed on one server while the other was away is brought to
 * that other one, whichever of the two failed.
 *
 * Where the log reaches back, its chunks are streamed (real-time-sync.ts). Where it does not, or the
 * standby's tables hold entries that had to be set aside, the tables are copied in ranges, in the
 * order of their keys (hash order), while writes go on:
 *
 *     primary  BEGIN ── log … RANGE … log … RANGE ── … ── SESSIONS ── DONE(until)
 *     standby        ── ACK ── … (range, cursor and log position in one commit) ── … ── ACK(whole)
 *
 * The two streams are in one order. A range is read when nothing is being committed, so it holds only what
 * is on the primary's disk; and the log is sent only up to what the primary's tables hold (`applied`), so
 * a range is never older than what the standby has applied before it. Effects are absolute facts, so
 * applying the entries that a range already holds changes nothing in the end. The copy counts as
 * whole when the log has passed `until`, the newest entry any range can have shown. Until then a durable
 * mark bars confirm, reads, both and election, and an interrupted copy goes on from its cursor.
 */
import {
  FRAME_COPY,
  readU16,
  readU32,
  readU48,
  writeU16,
  writeU32,
  writeU48,
} from "../../protocol/frame.js";
import type { Boundary } from "../../protocol/messages.js";
import { bytesEqual } from "../../protocol/record.js";
import type { RoleRecord } from "../../protocol/record.js";
import { makeSink, putByte, putBytes, reserve } from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";
import { DROP_FROM, DROP_TO, isDataRow } from "../commands/rows.js";
import type { AgentConfig } from "./config.js";
import type { Keyspace } from "./execution.js";
import { DATA_ALL, DATA_HELD, DATA_FREE } from "./group-commit.js";
import type { GroupCommit } from "./group-commit.js";
import type { LogClock } from "./log-clock.js";
import type { PeerLink } from "./peer-link.js";
import type { AppendStream } from "./real-time-sync.js";
import { stampOf } from "./roles.js";
import type { Roles } from "./roles.js";
import type { SessionCheckpoint } from "./session-checkpoint.js";
import type { SessionTable } from "./session-table.js";
import type { CopyMark, PeerSession } from "./session.js";
import type { RangeEntry, Store, StoreWriter, Table } from "./store.js";
import type { SyncLog } from "./sync-log.js";

const COPY_BEGIN = 1;
const COPY_RANGE = 2;
const COPY_SESSIONS = 3;
const COPY_DONE = 4;
const COPY_ACK = 5;

/** Rows read in one call: with the longest values this is what a copy may take of memory at a time. */
const ROWS_AT_ONCE = 16;

const META_COPYING = Uint8Array.of(99);
const NO_BYTES = new Uint8Array(0);

interface CopyTable {
  table: Table;
  from: Uint8Array;
  to: Uint8Array | undefined;
}

/** What is copied, in this order; the rows of table expiry follow from those of table data. */
const COPY_TABLES: readonly CopyTable[] = [
  { table: "data", from: NO_BYTES, to: undefined },
  // Without the rows of hashes that are gone and still being removed.
  { table: "field", from: NO_BYTES, to: undefined },
];

/** Two 32-bit sums over the rows; not against malice, which the link's proof keeps out, but against mistakes. */
export function rangeHash(bytes: Uint8Array, start: number, end: number): [number, number] {
  let a = 0x811c9dc5;
  let b = 0x9747b28c;
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    a = Math.imul(a ^ byte, 0x01000193);
    b = (Math.imul(b, 31) + byte) | 0;
  }
  return [a >>> 0, b >>> 0];
}

function putU32(sink: ByteSink, value: number): void {
  reserve(sink, 4);
  writeU32(sink.bytes, sink.length, value);
  sink.length += 4;
}

function putU48(sink: ByteSink, value: number): void {
  reserve(sink, 6);
  writeU48(sink.bytes, sink.length, value);
  sink.length += 6;
}

function putKey(sink: ByteSink, key: Uint8Array): void {
  reserve(sink, 2);
  writeU16(sink.bytes, sink.length, key.length);
  sink.length += 2;
  putBytes(sink, key, 0, key.length);
}

/** The least key above this one. */
function after(key: Uint8Array): Uint8Array {
  const next = new Uint8Array(key.length + 1);
  next.set(key, 0);
  return next;
}

/** The primary's side: what is read and sent. */
export class BatchSource {
  active = false;
  private table = 0;
  private from: Uint8Array = NO_BYTES;
  private sentRanges = 0;
  private sizes: number[] = [];
  private acked = 0;
  private inFlightBytes = 0;
  /** Newest entry any range can have shown. */
  private until = 0;
  private image: Uint8Array | undefined;
  private doneSent = false;
  private readonly sink: ByteSink = makeSink(256);

  constructor(
    private readonly config: AgentConfig,
    private readonly roles: Roles,
    private readonly store: Store,
    private readonly log: SyncLog,
    private readonly commit: GroupCommit,
    private readonly checkpoint: SessionCheckpoint,
    private readonly stream: AppendStream,
    private readonly keyspace: Keyspace,
    private readonly link: PeerLink,
  ) {}

  /** @param cursor where the standby got to; empty: it begins anew, at `copyFrom` */
  begin(copyFrom: number, cursor: Uint8Array, nowMs: number): void {
    this.end();
    this.active = true;
    this.until = this.log.flushed;
    if (cursor.length > 0) {
      this.table = Math.min(cursor[0]!, COPY_TABLES.length);
      this.from = cursor.slice(1);
      return;
    }
    this.table = 0;
    this.from = COPY_TABLES[0]!.from;
    const sink = this.sink;
    sink.length = 0;
    putByte(sink, COPY_BEGIN);
    putU48(sink, copyFrom);
    putU48(sink, this.log.timeMs);
    const known = this.log.boundaries.filter((boundary) => boundary.firstIndex <= copyFrom);
    putU32(sink, known.length);
    for (const boundary of known) {
      putU32(sink, boundary.epoch);
      putU48(sink, boundary.firstIndex);
    }
    this.send();
    void nowMs;
  }

  end(): void {
    this.active = false;
    this.sizes = [];
    this.acked = 0;
    this.sentRanges = 0;
    this.inFlightBytes = 0;
    this.doneSent = false;
    this.image = undefined;
  }

  private send(): void {
    const { sink } = this;
    this.link.sendBytes(FRAME_COPY, this.roles.epoch(), sink.bytes.subarray(0, sink.length));
    sink.length = 0;
    if (sink.bytes.length > 8 * this.config.limits.copyBytesMax) {
      sink.bytes = new Uint8Array(64 * 1024);
    }
  }

  /** Sends what the window and the turn allow. Called between two commits: what is read then is on disk. */
  pump(): void {
    if (!this.active) return;
    const { streamWindowBytes } = this.config.limits;
    while (!this.commit.inFlight && this.table < COPY_TABLES.length) {
      if (this.inFlightBytes + this.stream.inFlightBytes >= streamWindowBytes) return;
      if (this.stream.spent()) return;
      this.sendRange();
    }
    if (this.table < COPY_TABLES.length || this.doneSent) return;
    // Results of commands that a crash here could still undo must not get there.
    if (this.image === undefined) this.image = this.checkpoint.image();
    const imageAt = readU48(this.image, 0);
    if (this.log.flushed < imageAt) return;
    const { sink } = this;
    putByte(sink, COPY_SESSIONS);
    const [a, b] = rangeHash(this.image, 0, this.image.length);
    putU32(sink, a);
    putU32(sink, b);
    putBytes(sink, this.image, 0, this.image.length);
    this.send();
    putByte(sink, COPY_DONE);
    putU48(sink, Math.max(this.until, imageAt));
    this.send();
    this.doneSent = true;
    this.image = undefined;
  }

  /** About `copyBytesMax` of rows, read a few at a time: the store counts rows, and a row may be long. */
  private readRows(place: CopyTable): { rows: RangeEntry[]; last: boolean } {
    const { copyRowsMax, copyBytesMax } = this.config.limits;
    const rows: RangeEntry[] = [];
    let from = this.from;
    let bytes = 0;
    while (rows.length < copyRowsMax && bytes < copyBytesMax) {
      const wanted = Math.min(ROWS_AT_ONCE, copyRowsMax - rows.length);
      const found = this.store.range(place.table, from, place.to, wanted);
      for (const row of found) {
        rows.push(row);
        bytes += row.key.length + row.value.length;
      }
      if (found.length < wanted) return { rows, last: true };
      from = after(found[found.length - 1]!.key);
    }
    return { rows, last: false };
  }

  private sendRange(): void {
    const place = COPY_TABLES[this.table]!;
    const { rows, last } = this.readRows(place);
    const { sink } = this;
    sink.length = 0;
    putByte(sink, COPY_RANGE);
    putByte(sink, this.table);
    putByte(sink, last ? 1 : 0);
    putKey(sink, last ? NO_BYTES : after(rows[rows.length - 1]!.key));
    const hashAt = sink.length;
    putU32(sink, 0);
    putU32(sink, 0);
    const countAt = sink.length;
    putU32(sink, 0);
    const from = sink.length;
    let count = 0;
    for (const row of rows) {
      if (place.table === "field" && this.keyspace.isDropped(row.key)) continue;
      count++;
      putKey(sink, row.key);
      putU32(sink, row.value.length);
      putBytes(sink, row.value, 0, row.value.length);
    }
    writeU32(sink.bytes, countAt, count);
    const [a, b] = rangeHash(sink.bytes, from, sink.length);
    writeU32(sink.bytes, hashAt, a);
    writeU32(sink.bytes, hashAt + 4, b);
    const size = sink.length;
    if (last) {
      this.table++;
      this.from = this.table < COPY_TABLES.length ? COPY_TABLES[this.table]!.from : NO_BYTES;
    } else {
      this.from = after(rows[rows.length - 1]!.key);
    }
    this.until = Math.max(this.until, this.log.flushed);
    this.sentRanges++;
    this.sizes.push(size);
    this.inFlightBytes += size;
    this.stream.turnBytes += size;
    this.send();
  }

  /** @returns whether the standby says it is whole; undefined when the message is malformed */
  onAck(bytes: Uint8Array, start: number, end: number): boolean | undefined {
    if (end - start !== 12 || bytes[start] !== COPY_ACK) return undefined;
    const index = readU48(bytes, start + 1);
    const ranges = readU32(bytes, start + 7);
    if (index > this.stream.sent || ranges > this.sentRanges) return undefined;
    this.stream.onArrived(index);
    while (this.acked < ranges) {
      this.inFlightBytes -= this.sizes.shift()!;
      this.acked++;
    }
    return bytes[start + 11] === 1;
  }
}

/** The standby's side: what is put in place, and how far it got. */
export class BatchTarget {
  private parts: Uint8Array[] = [];
  private partBytes = 0;
  private table = 0;
  private from: Uint8Array = NO_BYTES;
  private copyFrom = 0;
  /** The log must have reached it before the copy is whole; -1: not all ranges are there yet. */
  private until = -1;
  private source: Uint8Array = new Uint8Array(16);
  private ranges = 0;
  private ackedEnd = -1;
  private ackedRanges = -1;
  private finishing = false;
  /** The mark is on disk, or in the commit that is being made. */
  private marked = false;

  constructor(
    private readonly config: AgentConfig,
    private readonly roles: Roles,
    private readonly store: Store,
    private readonly log: SyncLog,
    private readonly commit: GroupCommit,
    private readonly clock: LogClock,
    private readonly keyspace: Keyspace,
    private readonly tableOfSessions: SessionTable,
    private readonly checkpoint: SessionCheckpoint,
    private readonly link: PeerLink,
    private readonly session: () => PeerSession,
    private readonly onWhole: (nowMs: number) => void,
  ) {}

  /** Reads the durable mark. */
  load(): void {
    const row = this.store.get("meta", META_COPYING);
    if (row === undefined) return;
    this.copyFrom = readU48(row, 0);
    this.until = readU48(row, 6) - 1;
    this.source = row.slice(12, 28);
    this.table = row[28]!;
    this.from = row.slice(29);
    this.marked = true;
    this.roles.setCopying(true);
  }

  private markRow(): Uint8Array {
    const row = new Uint8Array(29 + this.from.length);
    writeU48(row, 0, this.copyFrom);
    writeU48(row, 6, this.until + 1);
    row.set(this.source, 12);
    row[28] = this.table;
    row.set(this.from, 29);
    return row;
  }

  /** For SESSION_OPEN: empty when a copy from this primary's disk cannot go on. */
  mark(primaryDisk: Uint8Array): CopyMark {
    if (!this.roles.copying || !bytesEqual(this.source, primaryDisk)) {
      return { cursor: NO_BYTES, from: 0 };
    }
    const cursor = new Uint8Array(1 + this.from.length);
    cursor[0] = this.table;
    cursor.set(this.from, 1);
    return { cursor, from: this.copyFrom };
  }

  beginSession(): void {
    this.end();
    // What the last session said is of its own stream: here a copy may begin anew, and one that goes on is told its end again.
    // Kept, it would call the old copy whole at the moment in which the primary has begun another.
    this.until = -1;
    this.ranges = 0;
    this.ackedEnd = -1;
    this.ackedRanges = -1;
    this.finishing = false;
  }

  end(): void {
    this.parts = [];
    this.partBytes = 0;
  }

  /**
   * Operator's force makes this server primary in the middle of a copy: what it has is what there is; inside the commit that
   * puts the record on disk, by a step that goes on top of all data so far.
   *
   * The log that came with the copy says it holds all that its source held. Were it kept, that source would find the two logs
   * equal and keep what this server never got (seed 176078). So all there is, is this record's from here on: whoever
   * joins gets a copy. No entry is behind it any more, for a disk without entries is to be no exception.
   */
  take(writer: StoreWriter, record: RoleRecord): void {
    if (!this.marked) return;
    const { log, commit, checkpoint } = this;
    this.marked = false;
    writer.del("meta", META_COPYING);
    const base = Math.max(1, log.end);
    log.restart(writer, base, [{ epoch: stampOf(record), firstIndex: 1 }], log.timeMs);
    checkpoint.replace(writer, checkpoint.image());
    commit.tableAt = base;
    commit.tablesTop = base;
    // What was confirmed was of another log.
    commit.confirmedHigh = 0;
  }

  /** That commit is on disk. @returns whether it took part of a copy */
  taken(): boolean {
    if (!this.roles.copying || this.marked) return false;
    this.until = -1;
    this.keyspace.reset(this.log.flushed);
    this.roles.setCopying(false);
    return true;
  }

  onCopy(more: boolean, bytes: Uint8Array, start: number, end: number, nowMs: number): void {
    const { limits } = this.config;
    let message = bytes;
    let at = start;
    let to = end;
    if (more || this.parts.length > 0) {
      this.partBytes += end - start;
      if (this.partBytes > limits.copyRowsMax * 64 + 16 * limits.entryBytesMax) {
        this.link.fault("a copied range of more than " + this.partBytes + " bytes");
        return;
      }
      this.parts.push(bytes.slice(start, end));
      if (more) return;
      message = new Uint8Array(this.partBytes);
      at = 0;
      for (const part of this.parts) {
        message.set(part, at);
        at += part.length;
      }
      at = 0;
      to = message.length;
      this.end();
    } else {
      message = bytes.slice(start, end);
      at = 0;
      to = message.length;
    }
    const kind = to > at ? message[at]! : 0;
    let fault = "copy message of kind " + kind;
    if (kind === COPY_BEGIN) fault = this.onBegin(message, to);
    else if (!this.roles.copying) fault = "a copied range without its beginning";
    else if (kind === COPY_RANGE) fault = this.onRange(message, to);
    else if (kind === COPY_SESSIONS) fault = this.onSessions(message, to);
    else if (kind === COPY_DONE) fault = this.onDone(message, to);
    if (fault !== "") this.link.fault(fault);
    void nowMs;
  }

  private onBegin(bytes: Uint8Array, end: number): string {
    const { log, commit } = this;
    if (end < 17) return "copy begin too short";
    const copyFrom = readU48(bytes, 1);
    const timeMs = readU48(bytes, 7);
    const count = readU32(bytes, 13);
    if (count > this.config.limits.boundariesMax || end !== 17 + count * 10) {
      return "copy begin with " + count + " boundaries";
    }
    const boundaries: Boundary[] = [];
    for (let i = 0; i < count; i++) {
      const at = 17 + i * 10;
      boundaries.push({ epoch: readU32(bytes, at), firstIndex: readU48(bytes, at + 4) });
    }
    if (log.due()) return "a copy begins in the middle of appends";
    // Nothing may be applied between what is said here and what the disk then holds.
    this.link.park();
    commit.add({
      name: "copy begins",
      urgent: true,
      data: DATA_HELD,
      fill: (writer) => {
        for (const place of COPY_TABLES) writer.clear(place.table);
        writer.clear("expiry");
        for (const key of this.dropKeys()) writer.del("meta", key);
        log.restart(writer, copyFrom, boundaries, timeMs);
        this.checkpoint.remove(writer);
        this.keyspace.reset(copyFrom);
        this.commit.tablesTop = copyFrom;
        this.copyFrom = copyFrom;
        this.until = -1;
        this.source = this.session().peerIdentity!.slice();
        this.table = 0;
        this.from = COPY_TABLES[0]!.from;
        this.marked = true;
        writer.put("meta", META_COPYING, this.markRow());
      },
      onFlushed: (nowMs) => {
        this.keyspace.reset(copyFrom);
        this.tableOfSessions.clear();
        this.commit.tableAt = 0;
        this.clock.observe(timeMs, nowMs);
        this.roles.setCopying(true);
        commit.dataHeld = false;
        this.link.resume(nowMs);
      },
    });
    return "";
  }

  private dropKeys(): Uint8Array[] {
    const keys: Uint8Array[] = [];
    let from = DROP_FROM;
    for (;;) {
      const rows = this.store.range("meta", from, DROP_TO, 1000);
      for (const row of rows) keys.push(row.key);
      if (rows.length < 1000) return keys;
      from = after(rows[rows.length - 1]!.key);
    }
  }

  private onRange(bytes: Uint8Array, end: number): string {
    if (end < 5) return "range too short";
    const table = bytes[1]!;
    const last = bytes[2] === 1;
    const keyLength = readU16(bytes, 3);
    const head = 5 + keyLength + 12;
    if (end < head) return "range too short";
    if (table !== this.table || table >= COPY_TABLES.length) return "range of table " + table;
    const next = bytes.slice(5, 5 + keyLength);
    const [a, b] = rangeHash(bytes, head, end);
    if (a !== readU32(bytes, 5 + keyLength) || b !== readU32(bytes, 9 + keyLength)) {
      return "a copied range is not what was sent (its hash differs)";
    }
    const count = readU32(bytes, 13 + keyLength);
    const place = COPY_TABLES[table]!;
    let at = head;
    for (let i = 0; i < count; i++) {
      if (at + 2 > end) return "row cut off";
      const key = at + 2;
      at = key + readU16(bytes, at);
      if (at + 4 > end) return "row cut off";
      const keyEnd = at;
      at += 4 + readU32(bytes, at);
      if (at > end) return "row cut off";
      if (
        place.table === "data" &&
        !isDataRow(bytes.subarray(key, keyEnd), bytes.subarray(keyEnd + 4, at))
      ) {
        return "a damaged row in a copied range";
      }
    }
    if (at !== end) return "bytes behind the last row";
    // Entries that come after the range must not be applied before it lies in its place.
    this.link.park();
    this.commit.add({
      name: "copied range",
      urgent: false,
      data: DATA_ALL,
      fill: (writer) => {
        let row = head;
        for (let i = 0; i < count; i++) {
          const keyEnd = row + 2 + readU16(bytes, row);
          const valueEnd = keyEnd + 4 + readU32(bytes, keyEnd);
          const key = bytes.subarray(row + 2, keyEnd);
          const value = bytes.subarray(keyEnd + 4, valueEnd);
          if (place.table === "data") this.keyspace.putRow(writer, key, value);
          else writer.put(place.table, key, value);
          row = valueEnd;
        }
        this.table = last ? table + 1 : table;
        if (!last) this.from = next;
        else this.from = this.table < COPY_TABLES.length ? COPY_TABLES[this.table]!.from : NO_BYTES;
        writer.put("meta", META_COPYING, this.markRow());
      },
      onFlushed: (nowMs) => {
        // What the overlay knew of the tables is old; it holds nothing else now.
        this.keyspace.reset(this.log.flushed);
        this.ranges++;
        this.link.resume(nowMs);
      },
    });
    return "";
  }

  private onSessions(bytes: Uint8Array, end: number): string {
    const image = bytes.slice(9, end);
    const [a, b] = rangeHash(image, 0, image.length);
    if (end < 15 || a !== readU32(bytes, 1) || b !== readU32(bytes, 5)) {
      return "the copied session table is not what was sent (its hash differs)";
    }
    if (!this.tableOfSessions.read(image, 6, image.length)) return "malformed session table";
    this.commit.tableAt = readU48(image, 0);
    this.commit.add({
      name: "copied sessions",
      urgent: false,
      data: DATA_FREE,
      fill: (writer) => this.checkpoint.replace(writer, image),
      onFlushed: () => undefined,
    });
    return "";
  }

  private onDone(bytes: Uint8Array, end: number): string {
    if (end !== 7) return "copy done of " + end + " bytes";
    if (this.table < COPY_TABLES.length) return "copy done before the last range";
    this.until = readU48(bytes, 1);
    return "";
  }

  /** After each turn's flush: acknowledges, and takes the mark off when all is there. */
  advance(): void {
    const { log, commit, roles } = this;
    if (!roles.copying) return;
    if (log.flushed !== this.ackedEnd || this.ranges !== this.ackedRanges) this.ack(false);
    if (this.until < 0 || log.flushed < this.until || this.finishing) return;
    this.finishing = true;
    commit.add({
      name: "copy is whole",
      urgent: true,
      data: DATA_FREE,
      fill: (writer) => {
        this.marked = false;
        writer.del("meta", META_COPYING);
        // The ranges may have shown any of it.
        commit.tablesTop = Math.max(commit.tablesTop, log.end);
      },
      onFlushed: (nowMs) => {
        this.until = -1;
        this.finishing = false;
        this.roles.setCopying(false);
        this.ack(true);
        this.onWhole(nowMs);
      },
    });
  }

  private ack(whole: boolean): void {
    this.ackedEnd = this.log.flushed;
    this.ackedRanges = this.ranges;
    const bytes = new Uint8Array(12);
    bytes[0] = COPY_ACK;
    writeU48(bytes, 1, this.log.flushed);
    writeU32(bytes, 7, this.ranges);
    bytes[11] = whole ? 1 : 0;
    this.link.sendBytes(FRAME_COPY, this.roles.epoch(), bytes);
  }
}
