/**
 * The bytes of the sync log: entries, and the chunks they travel and are stored in.
 *
 * A chunk is what one group commit adds to the log. Its bytes are the value in the store's log table
 * and the payload of APPEND alike, so nothing is encoded anew on its way to the standby.
 *
 *     chunk:  firstIndex u48 · epoch u32 · logTimeMs u48 · count u16 · bytes u32 · entry …
 *     entry:  length varint · flags u8 · [slot varint · number u32 · replyLength varint · reply]
 *             · [opsLength varint · session ops] · effects up to the entry's end
 *
 * A chunk may be cut at an entry: the standby keeps a head when it sets entries aside, the primary
 * sends a tail when the standby already has the head.
 */
import { readU16, readU32, readU48, writeU16, writeU32, writeU48 } from "../../protocol/frame.js";
import { assert } from "../../protocol/malformed.js";
import { putByte, putBytes, reserve } from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";

export const CHUNK_HEADER_BYTES = 22;

/** The entry is the outcome of a numbered command: slot, number and reply follow. */
export const ENTRY_RESULT = 1;
/** Operations on the session table follow. */
export const ENTRY_OPS = 2;
/** With ENTRY_RESULT: the reply is not there; whoever asks again hears OUTCOMEUNKNOWN. */
export const ENTRY_REPLY_GONE = 4;
/** With ENTRY_RESULT: nothing to be kept for a retry; it only tells the asker that its entry came. */
export const ENTRY_MARK = 8;

/** Longest prefix an entry can have before its effects, the reply and the ops not counted. @unit bytes */
export const ENTRY_PREFIX_BYTES_MAX = 32;

export function varintBytes(value: number): number {
  let count = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) count++;
  return count;
}

/** Seven bits a byte, least first. @param value 0..2^53-1 */
export function putVarint(sink: ByteSink, value: number): void {
  let rest = value;
  while (rest >= 128) {
    putByte(sink, (rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  putByte(sink, rest);
}

/** The value read last by readVarint ends here; -1 when the bytes were no varint. */
let varintEnd = 0;

export function readVarint(bytes: Uint8Array, at: number, end: number): number {
  const first = bytes[at]!;
  if (at < end && first < 128) {
    varintEnd = at + 1;
    return first;
  }
  let value = 0;
  let scale = 1;
  for (let i = at; i < end && i < at + 8; i++) {
    const byte = bytes[i]!;
    value += (byte & 127) * scale;
    scale *= 128;
    if (byte < 128) {
      varintEnd = i + 1;
      return value;
    }
  }
  varintEnd = -1;
  return 0;
}

export function afterVarint(): number {
  return varintEnd;
}

export interface EntryView {
  /** Where the entry's bytes are; all offsets count in here. */
  bytes: Uint8Array;
  flags: number;
  slot: number;
  number: number;
  replyStart: number;
  replyEnd: number;
  opsStart: number;
  opsEnd: number;
  effectsStart: number;
  effectsEnd: number;
}

export function makeEntryView(): EntryView {
  return {
    bytes: new Uint8Array(0),
    flags: 0,
    slot: 0,
    number: 0,
    replyStart: 0,
    replyEnd: 0,
    opsStart: 0,
    opsEnd: 0,
    effectsStart: 0,
    effectsEnd: 0,
  };
}

/**
 * Reads the entry at `at`.
 * @returns where the next one begins; -1 when it is malformed
 */
export function readEntry(bytes: Uint8Array, at: number, end: number, view: EntryView): number {
  const length = readVarint(bytes, at, end);
  let cursor = varintEnd;
  if (cursor < 0 || length < 1 || cursor + length > end) return -1;
  const next = cursor + length;
  const flags = bytes[cursor]!;
  cursor++;
  view.bytes = bytes;
  view.flags = flags;
  view.replyStart = view.replyEnd = view.opsStart = view.opsEnd = 0;
  if ((flags & ENTRY_RESULT) !== 0) {
    view.slot = readVarint(bytes, cursor, next);
    cursor = varintEnd;
    if (cursor < 0 || cursor + 4 > next) return -1;
    view.number = readU32(bytes, cursor);
    cursor += 4;
    const replyLength = readVarint(bytes, cursor, next);
    cursor = varintEnd;
    if (cursor < 0 || cursor + replyLength > next) return -1;
    view.replyStart = cursor;
    cursor += replyLength;
    view.replyEnd = cursor;
  }
  if ((flags & ENTRY_OPS) !== 0) {
    const opsLength = readVarint(bytes, cursor, next);
    cursor = varintEnd;
    if (cursor < 0 || cursor + opsLength > next) return -1;
    view.opsStart = cursor;
    cursor += opsLength;
    view.opsEnd = cursor;
  }
  view.effectsStart = cursor;
  view.effectsEnd = next;
  return next;
}

/** What an entry is made of; reused from entry to entry. */
export interface EntryParts {
  flags: number;
  slot: number;
  number: number;
  reply: ByteSink;
  /** The reply's first byte in its sink. */
  replyStart: number;
  replyEnd: number;
  ops: ByteSink;
  effects: ByteSink;
}

/** Adds an entry to a chunk under way. */
export function putEntry(sink: ByteSink, parts: EntryParts): void {
  let flags = parts.flags;
  const replyLength = parts.replyEnd - parts.replyStart;
  const opsLength = parts.ops.length;
  const effectsLength = parts.effects.length;
  let length = 1 + effectsLength;
  if ((flags & ENTRY_RESULT) !== 0) {
    length += varintBytes(parts.slot) + 4 + varintBytes(replyLength) + replyLength;
  }
  if (opsLength > 0) {
    flags |= ENTRY_OPS;
    length += varintBytes(opsLength) + opsLength;
  }
  reserve(sink, length + 8);
  putVarint(sink, length);
  putByte(sink, flags);
  if ((flags & ENTRY_RESULT) !== 0) {
    putVarint(sink, parts.slot);
    writeU32(sink.bytes, sink.length, parts.number);
    sink.length += 4;
    putVarint(sink, replyLength);
    putBytes(sink, parts.reply.bytes, parts.replyStart, parts.replyEnd);
  }
  if (opsLength > 0) {
    putVarint(sink, opsLength);
    putBytes(sink, parts.ops.bytes, 0, opsLength);
  }
  putBytes(sink, parts.effects.bytes, 0, effectsLength);
}

export function chunkFirst(bytes: Uint8Array, at = 0): number {
  return readU48(bytes, at);
}

export function chunkEpoch(bytes: Uint8Array, at = 0): number {
  return readU32(bytes, at + 6);
}

export function chunkTimeMs(bytes: Uint8Array, at = 0): number {
  return readU48(bytes, at + 10);
}

export function chunkCount(bytes: Uint8Array, at = 0): number {
  return readU16(bytes, at + 16);
}

export function chunkLast(bytes: Uint8Array, at = 0): number {
  return readU48(bytes, at) + readU16(bytes, at + 16) - 1;
}

export function writeChunkHeader(
  bytes: Uint8Array,
  firstIndex: number,
  epoch: number,
  logTimeMs: number,
  count: number,
  entryBytes: number,
): void {
  writeU48(bytes, 0, firstIndex);
  writeU32(bytes, 6, epoch);
  writeU48(bytes, 10, logTimeMs);
  writeU16(bytes, 16, count);
  writeU32(bytes, 18, entryBytes);
}

const scratch = makeEntryView();

/** @returns why these bytes are no chunk, or "": length, count and every entry's frame are looked at */
export function chunkFault(bytes: Uint8Array, start: number, end: number): string {
  if (end - start < CHUNK_HEADER_BYTES) return "chunk shorter than its header";
  if (readU32(bytes, start + 18) !== end - start - CHUNK_HEADER_BYTES) return "chunk length";
  const count = readU16(bytes, start + 16);
  if (count === 0) return "empty chunk";
  if (readU48(bytes, start) === 0) return "chunk of index 0";
  if (readU32(bytes, start + 6) === 0) return "chunk of epoch 0";
  let at = start + CHUNK_HEADER_BYTES;
  for (let i = 0; i < count; i++) {
    at = readEntry(bytes, at, end, scratch);
    if (at < 0) return "malformed entry";
  }
  return at === end ? "" : "bytes behind the last entry";
}

/** Where entry `index` begins in a sound chunk that holds it. */
function offsetOf(chunk: Uint8Array, index: number): number {
  let at = CHUNK_HEADER_BYTES;
  for (let i = chunkFirst(chunk); i < index; i++) {
    at = readEntry(chunk, at, chunk.length, scratch);
    assert(at > 0, "stored chunk is sound");
  }
  return at;
}

/** The chunk's entries up to and with `lastIndex`, as a chunk. */
export function chunkHead(chunk: Uint8Array, lastIndex: number): Uint8Array {
  const first = chunkFirst(chunk);
  assert(lastIndex >= first && lastIndex < chunkLast(chunk), "cut within the chunk");
  const end = offsetOf(chunk, lastIndex + 1);
  const head = chunk.slice(0, end);
  const count = lastIndex - first + 1;
  writeChunkHeader(
    head,
    first,
    chunkEpoch(chunk),
    chunkTimeMs(chunk),
    count,
    end - CHUNK_HEADER_BYTES,
  );
  return head;
}

/** The chunk's entries from `firstIndex` on, as a chunk. */
export function chunkTail(chunk: Uint8Array, firstIndex: number): Uint8Array {
  assert(firstIndex > chunkFirst(chunk) && firstIndex <= chunkLast(chunk), "cut within the chunk");
  const from = offsetOf(chunk, firstIndex);
  const tail = new Uint8Array(CHUNK_HEADER_BYTES + chunk.length - from);
  tail.set(chunk.subarray(from), CHUNK_HEADER_BYTES);
  const count = chunkLast(chunk) - firstIndex + 1;
  writeChunkHeader(
    tail,
    firstIndex,
    chunkEpoch(chunk),
    chunkTimeMs(chunk),
    count,
    chunk.length - from,
  );
  return tail;
}
