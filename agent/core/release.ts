/**
 * The release rule: a reply waits here until everything it tells of may be told.
 *
 * Each reply names the log index it needs; it goes out when the watermark has reached it (confirmed
 * entries on a joint primary, flushed ones on a solo primary and on the standby). A reply whose
 * index is reached already goes out at once, unless it is ORDERED and an earlier one still waits.
 *
 *     reply ──need reached──────────────> out ──> ports.send, once a turn
 *       ├──waits─────────> queue (frames lie ready, released as one range) ──> out
 *       ├──long, or a job─> open (in steps, by credit) ──> out
 *       └──ORDERED behind an open one ──> behind ──> out
 *
 * The queue is first in, first out and its needs never decrease (a read that needs less than a write
 * before it waits for that write), so releasing is one comparison a reply.
 */
import {
  FLAG_MORE,
  FRAME_EPOCH,
  FRAME_REPLY,
  HEADER_BYTES,
  writeHeader,
} from "../../protocol/frame.js";
import { assert } from "../../protocol/malformed.js";
import { makeSink, putBytes, reserve } from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";
import type { AgentLimits } from "./limits.js";

const OUT_BYTES = 64 * 1024;
/** Buffers begin small and grow: many agents that live for a moment are the simulator's daily bread. */
const BEGIN_BYTES = 4096;
/** A buffer that grew beyond this is given back once it is empty. @unit bytes */
const SPARE_BYTES_MAX = 4 * 1024 * 1024;

/** A reply that is not one range of ready frames: a job's, or a long one. */
export interface OpenReply {
  readonly seq: number;
  readonly id: number;
  readonly ordered: boolean;
  /** False while the job runs or the forwarded command has not come back. */
  ready: boolean;
  need: number;
  flags: number;
  bytes: Uint8Array;
  at: number;
  end: number;
  /** Bytes that may still be sent before the next CREDIT. */
  credit: number;
  started: boolean;
  /** The link or the role was lost: nobody waits for it any more. */
  dropped: boolean;
}

interface BehindReply {
  seq: number;
  id: number;
  need: number;
  flags: number;
  bytes: Uint8Array;
}

const NO_BYTES = new Uint8Array(0);

export class ReleaseQueue {
  /** Replies may tell of the log up to here. */
  watermark = 0;
  /** Bytes held by replies that wait. */
  heldBytes = 0;
  /** Largest payload of a frame on this link. */
  payloadMax = 0;
  /** Reply bytes a command grants. */
  replyWindow: number;
  /** Id of the last reply that was ready on the spot and waits for nothing but the end of the turn; -1: none yet. */
  gatheredId = -1;
  private seq = 0;

  private readonly out: ByteSink = makeSink(BEGIN_BYTES);
  /** Always given a range of whole frames. */
  private readonly send: (bytes: Uint8Array, start: number, end: number) => void;

  /** Ready frames of the queue, first to last; `gone` bytes before buffer[0] were released or moved away. */
  private buffer: Uint8Array = new Uint8Array(BEGIN_BYTES);
  private bufferHead = 0;
  private bufferTail = 0;
  private needs = new Float64Array(64);
  private lengths = new Int32Array(64);
  private first = 0;
  private count = 0;
  private lastNeed = 0;

  private readonly opens: OpenReply[] = [];
  private readonly behind: BehindReply[] = [];

  constructor(limits: AgentLimits, send: (bytes: Uint8Array, start: number, end: number) => void) {
    this.replyWindow = limits.replyWindowBytes;
    this.send = send;
  }

  /** Replies that are not answered yet. */
  waiting(): number {
    return this.count + this.opens.length + this.behind.length;
  }

  /** A command whose reply is ready on the spot. */
  reply(
    id: number,
    ordered: boolean,
    need: number,
    flags: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    this.seq++;
    if (end - start > this.replyWindow) {
      const open = this.addOpen(id, ordered);
      this.resolve(open, need, flags, bytes.slice(start, end));
      return;
    }
    if (ordered && this.opens.length + this.behind.length > 0) {
      this.behind.push({
        seq: this.seq,
        id,
        need: this.needAfterQueue(need),
        flags,
        bytes: bytes.slice(start, end),
      });
      this.heldBytes += end - start;
      return;
    }
    if (need <= this.watermark && (!ordered || this.count === 0)) {
      this.gatheredId = id;
      this.writeFrames(this.out, id, flags, bytes, start, end);
      if (this.out.length >= OUT_BYTES) this.flush();
      return;
    }
    this.enqueue(id, need, flags, bytes, start, end);
  }

  /** A command whose reply comes later: a job, or one that was forwarded. */
  hold(id: number, ordered: boolean): OpenReply {
    this.seq++;
    return this.addOpen(id, ordered);
  }

  /** The reply of a held command. @param bytes become the queue's own */
  resolve(open: OpenReply, need: number, flags: number, bytes: Uint8Array): void {
    if (open.dropped) return;
    assert(!open.ready, "a reply is resolved once");
    open.ready = true;
    if (need > open.need) open.need = need;
    open.flags = flags;
    open.bytes = bytes;
    open.end = bytes.length;
    this.heldBytes += bytes.length;
    this.advanceOpens();
  }

  /** The watermark has moved (down as well: adoption). */
  advance(watermark: number): void {
    this.watermark = watermark;
    if (this.count > 0 && this.needs[this.first]! <= watermark) this.releaseQueue();
    if (this.opens.length + this.behind.length > 0) this.advanceOpens();
  }

  credit(id: number, bytes: number): void {
    for (const open of this.opens) {
      if (open.id !== id) continue;
      open.credit += bytes;
      this.advanceOpens();
      return;
    }
  }

  /** The asker no longer wants it. Short replies go out all the same. */
  abort(id: number): void {
    const at = this.opens.findIndex((open) => open.id === id);
    if (at < 0 || !this.opens[at]!.ready) return;
    const open = this.opens[at]!;
    this.heldBytes -= open.bytes.length;
    open.dropped = true;
    this.opens.splice(at, 1);
    this.advanceOpens();
  }

  /** Everything that follows was decided in this epoch. */
  tellEpoch(epoch: number): void {
    reserve(this.out, HEADER_BYTES);
    writeHeader(this.out.bytes, this.out.length, FRAME_EPOCH, 0, 0, epoch);
    this.out.length += HEADER_BYTES;
  }

  /** Sends what was gathered. */
  flush(): void {
    if (this.out.length === 0) return;
    this.send(this.out.bytes, 0, this.out.length);
    this.out.length = 0;
    if (this.out.bytes.length > SPARE_BYTES_MAX) this.out.bytes = new Uint8Array(OUT_BYTES);
  }

  /** Drops everything that waits: the role is lost, or the link. */
  drop(): void {
    this.first = 0;
    this.count = 0;
    this.lastNeed = 0;
    this.bufferHead = 0;
    this.bufferTail = 0;
    this.heldBytes = 0;
    for (const open of this.opens) open.dropped = true;
    this.opens.length = 0;
    this.behind.length = 0;
    if (this.buffer.length > SPARE_BYTES_MAX) this.buffer = new Uint8Array(OUT_BYTES);
  }

  /** The link is gone: what was gathered for it as well. */
  clear(): void {
    this.drop();
    this.out.length = 0;
    this.seq = 0;
    this.watermark = 0;
    this.gatheredId = -1;
  }

  private needAfterQueue(need: number): number {
    return this.count > 0 && this.lastNeed > need ? this.lastNeed : need;
  }

  private addOpen(id: number, ordered: boolean): OpenReply {
    const open: OpenReply = {
      seq: this.seq,
      id,
      ordered,
      ready: false,
      need: ordered ? this.needAfterQueue(0) : 0,
      flags: 0,
      bytes: NO_BYTES,
      at: 0,
      end: 0,
      credit: this.replyWindow,
      started: false,
      dropped: false,
    };
    this.opens.push(open);
    return open;
  }

  private enqueue(
    id: number,
    need: number,
    flags: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    if (this.count === this.needs.length) this.growQueue();
    if (this.count === 0 || need > this.lastNeed) this.lastNeed = need;
    const at = (this.first + this.count) & (this.needs.length - 1);
    const length = this.frameBytes(end - start);
    if (this.bufferTail + length > this.buffer.length) this.roomBuffer(length);
    const sink = bufferSink;
    sink.bytes = this.buffer;
    sink.length = this.bufferTail;
    this.writeFrames(sink, id, flags, bytes, start, end);
    assert(sink.bytes === this.buffer, "room was made for the frames");
    this.bufferTail = sink.length;
    sink.bytes = NO_BYTES;
    this.needs[at] = this.lastNeed;
    this.lengths[at] = length;
    this.count++;
    this.heldBytes += length;
  }

  private frameBytes(payload: number): number {
    if (payload <= this.payloadMax) return HEADER_BYTES + payload;
    return Math.ceil(payload / this.payloadMax) * HEADER_BYTES + payload;
  }

  private roomBuffer(length: number): void {
    const used = this.bufferTail - this.bufferHead;
    if (used + length <= this.buffer.length >>> 1) {
      this.buffer.copyWithin(0, this.bufferHead, this.bufferTail);
    } else {
      let size = this.buffer.length * 2;
      while (size < used + length) size *= 2;
      const grown = new Uint8Array(size);
      grown.set(this.buffer.subarray(this.bufferHead, this.bufferTail), 0);
      this.buffer = grown;
    }
    this.bufferHead = 0;
    this.bufferTail = used;
  }

  private growQueue(): void {
    const size = this.needs.length;
    const needs = new Float64Array(size * 2);
    const lengths = new Int32Array(size * 2);
    for (let i = 0; i < this.count; i++) {
      const at = (this.first + i) & (size - 1);
      needs[i] = this.needs[at]!;
      lengths[i] = this.lengths[at]!;
    }
    this.needs = needs;
    this.lengths = lengths;
    this.first = 0;
  }

  private releaseQueue(): void {
    const mask = this.needs.length - 1;
    let bytes = 0;
    while (this.count > 0 && this.needs[this.first]! <= this.watermark) {
      bytes += this.lengths[this.first]!;
      this.first = (this.first + 1) & mask;
      this.count--;
    }
    // What was gathered before goes first; the range needs no second copy here.
    this.flush();
    this.send(this.buffer, this.bufferHead, this.bufferHead + bytes);
    this.heldBytes -= bytes;
    this.bufferHead += bytes;
    if (this.count === 0) {
      this.bufferHead = 0;
      this.bufferTail = 0;
      this.lastNeed = 0;
      if (this.buffer.length > SPARE_BYTES_MAX) this.buffer = new Uint8Array(OUT_BYTES);
    }
  }

  /** Goes through what is open, and what waits behind it, in order of arrival. */
  private advanceOpens(): void {
    for (let i = 0; i < this.opens.length;) {
      const open = this.opens[i]!;
      this.releaseBehind(open.seq);
      if (!open.ready || (!open.started && open.need > this.watermark)) {
        i++;
        continue;
      }
      if (open.ordered && (i > 0 || (this.behind.length > 0 && this.behind[0]!.seq < open.seq))) {
        i++;
        continue;
      }
      if (this.sendOpen(open)) this.opens.splice(i, 1);
      else i++;
    }
    this.releaseBehind(this.opens.length > 0 ? this.opens[0]!.seq : Infinity);
  }

  /** Releases ORDERED replies that arrived before `seq`, when nothing open is before them. */
  private releaseBehind(seq: number): void {
    let released = 0;
    while (released < this.behind.length) {
      const reply = this.behind[released]!;
      if (reply.seq > seq || reply.need > this.watermark) break;
      if (this.opens.length > 0 && this.opens[0]!.seq < reply.seq) break;
      this.writeFrames(this.out, reply.id, reply.flags, reply.bytes, 0, reply.bytes.length);
      this.heldBytes -= reply.bytes.length;
      released++;
    }
    if (released > 0) this.behind.splice(0, released);
    if (this.out.length >= OUT_BYTES) this.flush();
  }

  /** Sends as much of a long reply as its credit allows. @returns true when it is whole */
  private sendOpen(open: OpenReply): boolean {
    const left = open.end - open.at;
    const count = left < open.credit ? left : open.credit;
    const last = count === left;
    if (count === 0 && !last) return false;
    open.started = true;
    open.credit -= count;
    this.writeFrames(
      this.out,
      open.id,
      last ? open.flags : open.flags | FLAG_MORE,
      open.bytes,
      open.at,
      open.at + count,
    );
    open.at += count;
    if (this.out.length >= OUT_BYTES) this.flush();
    if (!last) return false;
    this.heldBytes -= open.bytes.length;
    return true;
  }

  private writeFrames(
    sink: ByteSink,
    id: number,
    flags: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    const max = this.payloadMax;
    let at = start;
    while (end - at > max) {
      reserve(sink, HEADER_BYTES + max);
      writeHeader(sink.bytes, sink.length, FRAME_REPLY, flags | FLAG_MORE, max, id);
      sink.length += HEADER_BYTES;
      putBytes(sink, bytes, at, at + max);
      at += max;
    }
    reserve(sink, HEADER_BYTES + end - at);
    writeHeader(sink.bytes, sink.length, FRAME_REPLY, flags, end - at, id);
    sink.length += HEADER_BYTES;
    putBytes(sink, bytes, at, end);
  }
}

const bufferSink: ByteSink = { bytes: NO_BYTES, length: 0 };

/**
 * Which keys have entries that the watermark may not have reached: rule 13. Two generations, so that
 * forgetting costs one clear for many entries.
 */
export class DirtyKeys {
  private recent = new Map<string, number>();
  private older = new Map<string, number>();
  private recentLast = 0;
  private olderLast = 0;
  /** Every key is dirty up to here: an epoch or a restart began with this log, or all keys were touched. */
  floor = 0;

  /** The entry `index` touched these keys. */
  mark(keys: string[], index: number): void {
    for (let i = 0; i < keys.length; i++) this.recent.set(keys[i]!, index);
    this.recentLast = index;
  }

  markAll(index: number): void {
    if (index > this.floor) this.floor = index;
  }

  /** @returns the last entry that touched the key, 0 when that is known to be reached long ago */
  lastOf(key: string): number {
    let last = this.recent.get(key);
    if (last === undefined) {
      last = this.older.size > 0 ? this.older.get(key) : 0;
      if (last === undefined) last = 0;
    }
    return last > this.floor ? last : this.floor;
  }

  /** The watermark has reached `watermark`: what is not above it may be forgotten. */
  reached(watermark: number): void {
    if (this.olderLast > watermark || this.recent.size === 0) {
      if (this.olderLast <= watermark && this.older.size > 0) this.older.clear();
      return;
    }
    const spare = this.older;
    spare.clear();
    this.older = this.recent;
    this.olderLast = this.recentLast;
    this.recent = spare;
    if (this.olderLast <= watermark) this.older.clear();
  }

  /** The log ends here now: what lay above is gone, and everything that is left may have been touched. */
  cutTo(end: number): void {
    this.clear();
    this.floor = end;
  }

  size(): number {
    return this.recent.size + this.older.size;
  }

  clear(): void {
    this.recent.clear();
    this.older.clear();
    this.recentLast = 0;
    this.olderLast = 0;
  }
}
