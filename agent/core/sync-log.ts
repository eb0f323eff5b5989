/**
 * The sync log: every change, in the one order both servers have, in the store's log table.
 *
 * Entries are gathered into an open chunk; a group commit seals it and puts it on disk. `end` counts
 * what was appended, `flushed` what is on disk; only flushed entries are sent, confirmed, or told of.
 *
 *     base ........ oldest kept ........ applied ........ flushed ........ end
 *     (in the data only)                (in the tables)   (on disk)        (in memory)
 *
 * (epoch, index) names an entry for ever, since an epoch has one primary; the number called epoch in here holds both
 * (Roles.logEpoch), for the one case where it had two. So two logs are compared by where their epochs begin, and the
 * boundaries are remembered longer than the entries.
 */
import { readU32, readU48, writeU32, writeU48 } from "../../protocol/frame.js";
import { assert } from "../../protocol/malformed.js";
import type { Boundary } from "../../protocol/messages.js";
import { makeSink, reserve } from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";
import {
  CHUNK_HEADER_BYTES,
  chunkCount,
  chunkEpoch,
  chunkFirst,
  chunkHead,
  chunkLast,
  chunkTail,
  chunkTimeMs,
  putEntry,
  writeChunkHeader,
} from "./chunk.js";
import type { EntryParts } from "./chunk.js";
import type { AgentLimits } from "./limits.js";
import type { RangeEntry, Store, StoreWriter } from "./store.js";

const KEY_BYTES = 6;
/** The open chunk's buffer when it is small. @unit bytes */
const CHUNK_BYTES_KEPT = 64 * 1024;
const META_BOUNDARIES = Uint8Array.of(98);
/** Read ahead from the store when an older part of the log is streamed: about so much, and so many chunks at most. */
const READ_BYTES = 256 * 1024;
const READ_CHUNKS_MAX = 16;

/** What a log looks like to a comparison. */
export interface LogShape {
  /** Nothing at or below it can be taken back: it is in the data, or no longer in the log. */
  base: number;
  end: number;
  boundaries: Boundary[];
}

function indexKey(index: number): Uint8Array {
  const key = new Uint8Array(KEY_BYTES);
  writeU48(key, 0, index);
  return key;
}

/** @returns the epoch of entry `index`; 0 for index 0; -1 when the boundaries do not reach back to it */
export function epochAt(boundaries: Boundary[], index: number): number {
  if (index === 0) return 0;
  let low = 0;
  let high = boundaries.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (boundaries[middle]!.firstIndex <= index) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? -1 : boundaries[low - 1]!.epoch;
}

/**
 * The last entry two logs have in common; all before it are then the same too.
 * @returns 0 when they share nothing; -1 when the boundaries do not reach back far enough to tell
 */
export function commonIndex(mine: LogShape, theirs: LogShape): number {
  let index = Math.min(mine.end, theirs.end);
  for (;;) {
    if (index === 0) return 0;
    const my = epochAt(mine.boundaries, index);
    const their = epochAt(theirs.boundaries, index);
    if (my < 0 || their < 0) return -1;
    if (my === their) return index;
    // The later epoch began above the other log's entry here: nothing of it is shared.
    const boundaries = my > their ? mine.boundaries : theirs.boundaries;
    const later = my > their ? my : their;
    let first = index;
    for (const boundary of boundaries) {
      if (boundary.epoch === later) first = boundary.firstIndex;
    }
    index = first - 1;
  }
}

export class SyncLog {
  /** Last entry there is. */
  end = 0;
  /** Last entry on disk. */
  flushed = 0;
  /** Last entry that is no longer in the log table. */
  base = 0;
  /** Log time of the newest entry. */
  timeMs = 0;
  /** Bytes of the chunks in the table, or about to be. */
  bytes = 0;
  /** Bytes put into the table in this run. */
  bytesEver = 0;
  boundaries: Boundary[] = [];
  /** When the oldest entry that is in no commit yet was appended. */
  waitingSinceMs = 0;

  private readonly store: Store;
  private readonly limits: AgentLimits;
  private readonly chunk: ByteSink = makeSink(4096);
  private chunkFirstIndex = 0;
  private chunkEntries = 0;
  private chunkOfEpoch = 0;
  /** Sealed and not yet given to a commit. */
  private sealed: Uint8Array[] = [];
  /** Newest chunks, sealed or flushed, for streaming without the store. */
  private tail: Uint8Array[] = [];
  private tailHead = 0;
  private tailBytes = 0;
  private boundariesChanged = false;
  /** What the commit in flight holds. */
  private fillingEnd = 0;
  private fillingBase = 0;
  private trimming: RangeEntry[] = [];
  private trimsOn = false;
  private stuckPin = -1;
  /** Read-ahead of older chunks. */
  private ahead: RangeEntry[] = [];
  private aheadAt = 0;

  constructor(store: Store, limits: AgentLimits) {
    this.store = store;
    this.limits = limits;
    this.chunk.length = CHUNK_HEADER_BYTES;
  }

  /** Reads what the store has. @param base as the state row says, like the others */
  load(base: number, bytes: number, timeMs: number): void {
    this.timeMs = timeMs;
    this.base = base;
    this.bytes = bytes;
    const row = this.store.get("meta", META_BOUNDARIES);
    this.boundaries = row === undefined ? [] : decodeBoundaries(row);
    const newest = this.store.range("log", new Uint8Array(KEY_BYTES), undefined, 1, true)[0];
    if (newest === undefined) {
      this.end = base;
    } else {
      this.end = chunkLast(newest.value);
      this.timeMs = Math.max(timeMs, chunkTimeMs(newest.value));
    }
    this.flushed = this.end;
    this.fillingEnd = this.end;
    this.fillingBase = base;
  }

  epochOfEnd(): number {
    return Math.max(0, epochAt(this.boundaries, this.end));
  }

  shape(base: number): LogShape {
    return { base, end: this.end, boundaries: this.boundaries };
  }

  /** Adds an entry. @returns its index */
  append(epoch: number, logTimeMs: number, nowMs: number, parts: EntryParts): number {
    if (this.chunkEntries > 0 && this.chunkOfEpoch !== epoch) this.seal();
    if (this.chunkEntries === 0) {
      if (this.sealed.length === 0) this.waitingSinceMs = nowMs;
      this.chunkFirstIndex = this.end + 1;
      this.chunkOfEpoch = epoch;
      this.bound(epoch, this.end + 1);
    }
    putEntry(this.chunk, parts);
    assert(logTimeMs >= this.timeMs, "log time never goes backwards");
    this.timeMs = logTimeMs;
    this.chunkEntries++;
    this.end++;
    if (
      this.chunk.length >= this.limits.chunkBytesMax ||
      this.chunkEntries >= this.limits.chunkEntriesMax
    ) {
      this.seal();
    }
    return this.end;
  }

  /** Takes a chunk from the primary; it follows the log's end (asserted). The bytes become the log's own. */
  receive(chunk: Uint8Array, nowMs: number): void {
    assert(chunkFirst(chunk) === this.end + 1, "chunk follows the log");
    assert(this.chunkEntries === 0, "a standby appends nothing of its own");
    if (this.sealed.length === 0) this.waitingSinceMs = nowMs;
    this.bound(chunkEpoch(chunk), this.end + 1);
    this.end = chunkLast(chunk);
    this.timeMs = chunkTimeMs(chunk);
    this.hold(chunk);
  }

  private bound(epoch: number, firstIndex: number): void {
    const count = this.boundaries.length;
    if (count > 0 && this.boundaries[count - 1]!.epoch === epoch) return;
    assert(count === 0 || this.boundaries[count - 1]!.epoch < epoch, "epochs only grow");
    this.boundaries.push({ epoch, firstIndex });
    if (count >= this.limits.boundariesMax) this.boundaries.shift();
    this.boundariesChanged = true;
  }

  private seal(): void {
    if (this.chunkEntries === 0) return;
    const chunk = this.chunk.bytes.slice(0, this.chunk.length);
    writeChunkHeader(
      chunk,
      this.chunkFirstIndex,
      this.chunkOfEpoch,
      this.timeMs,
      this.chunkEntries,
      chunk.length - CHUNK_HEADER_BYTES,
    );
    this.chunk.length = CHUNK_HEADER_BYTES;
    this.chunkEntries = 0;
    if (this.chunk.bytes.length > Math.max(CHUNK_BYTES_KEPT, 4 * this.limits.chunkBytesMax)) {
      this.chunk.bytes = new Uint8Array(CHUNK_BYTES_KEPT);
    }
    this.hold(chunk);
  }

  private hold(chunk: Uint8Array): void {
    this.sealed.push(chunk);
    this.tail.push(chunk);
    this.tailBytes += chunk.length;
    while (this.tailBytes > this.limits.tailBytesMax && this.tail.length - this.tailHead > 1) {
      const oldest = this.tail[this.tailHead]!;
      // What is not on disk can be read nowhere else.
      if (chunkLast(oldest) > this.flushed) break;
      this.tailBytes -= oldest.length;
      this.tailHead++;
    }
    if (this.tailHead > 256 && this.tailHead * 2 > this.tail.length) {
      this.tail = this.tail.slice(this.tailHead);
      this.tailHead = 0;
    }
  }

  /** Entries wait for a commit. */
  due(): boolean {
    return this.chunkEntries > 0 || this.sealed.length > 0 || this.boundariesChanged;
  }

  /** Entries that are in no commit yet, or in one that is not flushed. */
  unflushed(): number {
    return this.end - this.flushed;
  }

  /**
   * Chooses what the next commit trims: nothing above `pin`, and nothing while the log is within its bound.
   * To be called before the commit, since it reads the store.
   */
  planTrim(pin: number): void {
    this.trimming = [];
    const { logBytesMax } = this.limits;
    if (this.bytes <= logBytesMax) this.trimsOn = false;
    // It begins with some slack to be won, so that the chunks read here are trimmed, not only looked at.
    if (this.bytes > logBytesMax + (logBytesMax >>> 6)) this.trimsOn = true;
    if (!this.trimsOn || pin <= this.base || pin === this.stuckPin) return;
    let excess = this.bytes - logBytesMax;
    const oldest = this.store.range(
      "log",
      new Uint8Array(KEY_BYTES),
      undefined,
      this.limits.trimChunksMax,
    );
    for (const entry of oldest) {
      if (excess <= 0 || chunkLast(entry.value) > pin) break;
      this.trimming.push(entry);
      excess -= entry.value.length;
    }
    // Until the pin moves there is nothing to look for.
    this.stuckPin = this.trimming.length === 0 ? pin : -1;
  }

  /** Puts everything there is into a commit. Called inside it, once. */
  fill(writer: StoreWriter): void {
    this.seal();
    for (const chunk of this.sealed) {
      writer.put("log", indexKey(chunkFirst(chunk)), chunk);
      this.bytes += chunk.length;
      this.bytesEver += chunk.length;
    }
    this.sealed.length = 0;
    for (const entry of this.trimming) {
      writer.del("log", entry.key);
      this.bytes -= entry.value.length;
      this.base = chunkLast(entry.value);
    }
    this.trimming = [];
    if (this.boundariesChanged) {
      writer.put("meta", META_BOUNDARIES, encodeBoundaries(this.boundaries));
      this.boundariesChanged = false;
    }
    this.fillingEnd = this.end;
    this.fillingBase = this.base;
  }

  /** That commit is on disk. */
  onFlushed(): void {
    this.flushed = this.fillingEnd;
  }

  /**
   * The chunk that holds entry `index`, beginning with it; the entry is on disk (asserted).
   * @returns undefined when the log does not reach back to it
   */
  read(index: number): Uint8Array | undefined {
    assert(index <= this.flushed, "only flushed entries are read");
    const chunk = this.find(index);
    if (chunk === undefined) return undefined;
    return chunkFirst(chunk) === index ? chunk : chunkTail(chunk, index);
  }

  private find(index: number): Uint8Array | undefined {
    const { tail } = this;
    if (this.tailHead < tail.length && chunkFirst(tail[this.tailHead]!) <= index) {
      let low = this.tailHead;
      let high = tail.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >>> 1;
        if (chunkFirst(tail[middle]!) <= index) low = middle;
        else high = middle - 1;
      }
      return tail[low];
    }
    if (index <= this.base) return undefined;
    for (; this.aheadAt < this.ahead.length; this.aheadAt++) {
      const chunk = this.ahead[this.aheadAt]!.value;
      if (chunkFirst(chunk) > index) break;
      if (chunkLast(chunk) >= index) return chunk;
    }
    const last = this.ahead[this.ahead.length - 1]?.value;
    if (last !== undefined && chunkLast(last) === index - 1) {
      // The next ones, about as long as those were; no need to look for them.
      const length = Math.max(1, last.length);
      const count = Math.max(1, Math.min(READ_CHUNKS_MAX, Math.floor(READ_BYTES / length)));
      const next = this.store.range("log", indexKey(index), undefined, count);
      if (next.length > 0 && chunkFirst(next[0]!.value) === index) {
        this.ahead = next;
        this.aheadAt = 0;
        return next[0]!.value;
      }
    }
    const holding = this.store.range(
      "log",
      new Uint8Array(KEY_BYTES),
      indexKey(index + 1),
      1,
      true,
    );
    if (holding.length === 0) return undefined;
    this.ahead = holding;
    this.aheadAt = 0;
    const chunk = this.ahead[0]!.value;
    assert(chunkFirst(chunk) <= index && chunkLast(chunk) >= index, "the log has no gap");
    return chunk;
  }

  /** Nothing is streamed any more: what was read ahead is let go. */
  endReading(): void {
    this.ahead = [];
    this.aheadAt = 0;
  }

  /** Chunks above `index` in order, read from the store; `visit` gets each, cut to begin above it. */
  visit(index: number, visit: (chunk: Uint8Array) => void): void {
    let from = index + 1;
    while (from <= this.flushed) {
      const chunk = this.read(from);
      assert(chunk !== undefined, "the log reaches back");
      visit(chunk!);
      from = chunkLast(chunk!) + 1;
    }
    this.endReading();
  }

  /**
   * Removes everything above `keepTo`, inside a commit of its own (rule 8: nothing else ever removes
   * entries). All of it is on disk and nothing waits (asserted).
   */
  cut(writer: StoreWriter, keepTo: number): void {
    assert(!this.due() && this.flushed === this.end, "nothing waits when the log is cut");
    assert(keepTo >= this.base && keepTo <= this.end, "cut within the log");
    let from = keepTo + 1;
    while (from <= this.end) {
      const held = this.store.range("log", new Uint8Array(KEY_BYTES), indexKey(from + 1), 1, true);
      const chunk = held[0]!.value;
      const last = chunkLast(chunk);
      this.bytes -= chunk.length;
      if (chunkFirst(chunk) < from) {
        const head = chunkHead(chunk, from - 1);
        writer.put("log", held[0]!.key, head);
        this.bytes += head.length;
      } else {
        writer.del("log", held[0]!.key);
      }
      from = last + 1;
    }
    this.end = keepTo;
    this.timeMs = this.stampAt(keepTo);
    this.forgetTail();
    while (
      this.boundaries.length > 0 &&
      this.boundaries[this.boundaries.length - 1]!.firstIndex > keepTo
    ) {
      this.boundaries.pop();
    }
    writer.put("meta", META_BOUNDARIES, encodeBoundaries(this.boundaries));
    this.fillingEnd = keepTo;
    this.fillingBase = this.base;
  }

  /**
   * What is cut off may have been stamped by a clock that was far ahead. Were that still the newest stamp, the next start
   * would go on from it, and keys would end long before their time.
   * @returns the stamp of the chunk that holds an entry; 0 where there has never been one
   */
  private stampAt(index: number): number {
    if (index === 0) return 0;
    // Of what is no longer in the table the stamp is not known; the next chunk that comes will tell.
    if (index === this.base) return this.timeMs;
    const held = this.store.range("log", new Uint8Array(KEY_BYTES), indexKey(index + 1), 1, true);
    return Math.min(this.timeMs, chunkTimeMs(held[0]!.value));
  }

  /** Begins an empty log above `base`, as a range copy leaves it; inside a commit. */
  restart(writer: StoreWriter, base: number, boundaries: Boundary[], timeMs: number): void {
    assert(!this.due(), "nothing waits when the log is replaced");
    writer.clear("log");
    this.boundaries = boundaries.filter((boundary) => boundary.firstIndex <= base);
    writer.put("meta", META_BOUNDARIES, encodeBoundaries(this.boundaries));
    this.base = base;
    this.end = base;
    this.bytes = 0;
    this.timeMs = timeMs;
    this.forgetTail();
    this.fillingEnd = base;
    this.fillingBase = base;
  }

  private forgetTail(): void {
    this.tail = [];
    this.tailHead = 0;
    this.tailBytes = 0;
    this.endReading();
  }

  /** The newest chunk's first index, for people and tests. */
  newestChunkEntries(): number {
    const newest = this.tail[this.tail.length - 1];
    return newest === undefined ? 0 : chunkCount(newest);
  }

  committedBase(): number {
    return this.fillingBase;
  }
}

function encodeBoundaries(boundaries: Boundary[]): Uint8Array {
  const sink = makeSink(16 + boundaries.length * 10);
  for (const boundary of boundaries) {
    reserve(sink, 10);
    writeU32(sink.bytes, sink.length, boundary.epoch);
    writeU48(sink.bytes, sink.length + 4, boundary.firstIndex);
    sink.length += 10;
  }
  return sink.bytes.slice(0, sink.length);
}

function decodeBoundaries(row: Uint8Array): Boundary[] {
  const boundaries: Boundary[] = [];
  for (let at = 0; at + 10 <= row.length; at += 10) {
    boundaries.push({ epoch: readU32(row, at), firstIndex: readU48(row, at + 4) });
  }
  return boundaries;
}
