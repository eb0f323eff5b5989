/**
 * RESP2 replies as their receiver sees them: where one ends, and what it says. For the client library,
 * the driver of a real Redis, and tests; the controller passes replies on unread.
 */
import { assert } from "./malformed.js";

/** `scan` results other than a position. */
export const REPLY_UNFINISHED = -1;
export const REPLY_MALFORMED = -2;

/** Arrays in arrays deeper than this are refused. */
export const REPLY_DEPTH_MAX = 32;
/** Longest line of a reply (simple string, error, number). @unit bytes */
const LINE_BYTES_MAX = 65536;

/**
 * Finds where replies end in a stream that comes in chunks, without keeping any of it.
 *
 *     at = scanner.scan(chunk, at, end)   // a position: a reply ends before it
 */
export class ReplyScanner {
  /** Why the last scan gave REPLY_MALFORMED. */
  problem: string;
  private depth: number;
  /** Replies still wanted at each depth. */
  private readonly wanted: Int32Array;
  /** Type byte of the line under way, 0 at its first byte. */
  private type: number;
  private lineLength: number;
  private number: number;
  private negative: boolean;
  private sawCr: boolean;
  /** Bytes of a bulk, its line end included, still to come. */
  private bodyLeft: number;

  constructor() {
    this.problem = "";
    this.depth = 0;
    this.wanted = new Int32Array(REPLY_DEPTH_MAX + 1);
    this.type = 0;
    this.lineLength = 0;
    this.number = 0;
    this.negative = false;
    this.sawCr = false;
    this.bodyLeft = 0;
  }

  /** @returns the position behind the first reply that ends in bytes[start..end), or REPLY_* */
  scan(bytes: Uint8Array, start: number, end: number): number {
    if (this.problem !== "") return REPLY_MALFORMED;
    let at = start;
    while (at < end) {
      if (this.bodyLeft > 0) {
        const taken = end - at < this.bodyLeft ? end - at : this.bodyLeft;
        at += taken;
        this.bodyLeft -= taken;
        if (this.bodyLeft === 0 && this.elementDone()) return at;
        continue;
      }
      const byte = bytes[at]!;
      at++;
      if (this.type === 0) {
        if (byte !== 43 && byte !== 45 && byte !== 58 && byte !== 36 && byte !== 42) {
          return this.malformed("reply of unknown type " + byte);
        }
        this.type = byte;
        this.lineLength = 0;
        this.number = 0;
        this.negative = false;
        this.sawCr = false;
        continue;
      }
      if (this.sawCr) {
        if (byte !== 10) return this.malformed("line of a reply without its end");
        const done = this.endLine();
        if (done < 0) return REPLY_MALFORMED;
        if (done > 0) return at;
        continue;
      }
      if (byte === 13) {
        this.sawCr = true;
        continue;
      }
      this.lineLength++;
      if (this.lineLength > LINE_BYTES_MAX) return this.malformed("line of a reply too long");
      if (this.type === 43 || this.type === 45) continue;
      if (byte === 45 && this.lineLength === 1) this.negative = true;
      else if (byte >= 48 && byte <= 57) this.number = this.number * 10 + byte - 48;
      else return this.malformed("number in a reply");
    }
    return REPLY_UNFINISHED;
  }

  /** @returns 1 when a reply is whole, 0 when not, -1 when malformed */
  private endLine(): number {
    const type = this.type;
    this.type = 0;
    if (type === 43 || type === 45) return this.elementDone() ? 1 : 0;
    if (this.lineLength === (this.negative ? 1 : 0)) {
      this.malformed("number in a reply");
      return -1;
    }
    if (type === 58) return this.elementDone() ? 1 : 0;
    if (this.number > 0x7fffffff || (this.negative && this.number !== 1)) {
      this.malformed("length in a reply");
      return -1;
    }
    if (this.negative || (type === 42 && this.number === 0)) return this.elementDone() ? 1 : 0;
    if (type === 36) {
      this.bodyLeft = this.number + 2;
      return 0;
    }
    if (this.depth === REPLY_DEPTH_MAX) {
      this.malformed("reply nested too deeply");
      return -1;
    }
    this.depth++;
    this.wanted[this.depth] = this.number;
    return 0;
  }

  /** @returns true when that was the last element of the whole reply */
  private elementDone(): boolean {
    while (this.depth > 0) {
      const left = this.wanted[this.depth]! - 1;
      this.wanted[this.depth] = left;
      if (left > 0) return false;
      this.depth--;
    }
    return true;
  }

  private malformed(problem: string): number {
    this.problem = problem;
    return REPLY_MALFORMED;
  }
}

/** An error a server answered: code word first, without the "-". */
export interface ReplyError {
  error: string;
}

/** Simple strings are strings, bulks are bytes (copies), integers beyond 2^53 are bigints. */
export type ReplyValue = string | number | bigint | null | Uint8Array | ReplyError | ReplyValue[];

/** True when the reply that begins here is an error. */
export function isReplyError(value: ReplyValue): value is ReplyError {
  return (
    value !== null &&
    typeof value === "object" &&
    !Array.isArray(value) &&
    typeof (value as ReplyError).error === "string"
  );
}

interface Cursor {
  bytes: Uint8Array;
  at: number;
  end: number;
}

/** Decodes one whole reply, as ReplyScanner delimited it (asserted). */
export function decodeReply(bytes: Uint8Array, start: number, end: number): ReplyValue {
  const cursor: Cursor = { bytes: bytes, at: start, end: end };
  const value = readValue(cursor);
  assert(cursor.at === end, "one whole reply");
  return value;
}

function readLine(cursor: Cursor): string {
  const bytes = cursor.bytes;
  let at = cursor.at;
  let text = "";
  while (at < cursor.end && bytes[at] !== 13) text += String.fromCharCode(bytes[at++]!);
  cursor.at = at + 2;
  return text;
}

function readValue(cursor: Cursor): ReplyValue {
  const type = cursor.bytes[cursor.at];
  cursor.at++;
  const line = readLine(cursor);
  if (type === 43) return line;
  if (type === 45) return { error: line };
  if (type === 58) {
    const value = Number(line);
    return Number.isSafeInteger(value) ? value : BigInt(line);
  }
  const count = Number(line);
  if (count < 0) return null;
  if (type === 36) {
    const bulk = cursor.bytes.slice(cursor.at, cursor.at + count);
    cursor.at += count + 2;
    return bulk;
  }
  assert(type === 42, "type of a reply");
  const values: ReplyValue[] = [];
  for (let i = 0; i < count; i++) values.push(readValue(cursor));
  return values;
}
