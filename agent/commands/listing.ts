/** What the commands that list keys or fields share: options of SCAN, and replies gathered in steps. */
import { makeSink, putBytes, writeArray, writeError } from "../../protocol/resp.js";
import type { ByteSink } from "../core/execution.js";
import { NOT_INTEGER, REPLY_BYTES_MAX, SYNTAX_ERROR } from "./context.js";
import type { Context } from "./context.js";
import { HASH_END } from "./key-hash.js";
import { parseInteger } from "./numbers.js";

/** Keys one SCAN or HSCAN call looks at, whatever COUNT asks for (COUNT is a hint). */
export const SCAN_WORK_MAX = 1000;
/** Room of one piece of a gathered reply. @unit bytes */
const PIECE_BYTES = 64 * 1024;
/** Length, line ends and such of one element. @unit bytes */
export const ELEMENT_BYTES = 24;

export interface ScanOptions {
  count: number;
  pattern: string;
  type: string;
}

/** The cursor an argument gives; one that was never given out scans nothing. @returns -1 when it is none */
export function parseCursor(c: Context, at: number): number {
  // As strtoul reads it: up to a zero byte, and nothing at all is 0.
  const given = c.text(at).split("\0", 1)[0]!;
  if (given === "") return 0;
  if (!/^[+-]?\d+$/.test(given)) return -1;
  const exact = BigInt(given);
  if (exact > 18446744073709551615n) return -1;
  return exact < 0n || exact > BigInt(HASH_END) ? HASH_END : Number(exact);
}

/** Options behind the cursor, of SCAN (typed) and HSCAN. @returns an error */
export function parseScan(c: Context, from: number, typed: boolean): ScanOptions | string {
  const found = { count: 10, pattern: "*", type: "" };
  for (let i = from; i < c.count; i += 2) {
    const more = i + 1 < c.count;
    if (c.is(i, "count") && more) {
      const count = parseInteger(c.bytes, c.starts[i + 1]!, c.ends[i + 1]!);
      if (count === undefined) return NOT_INTEGER;
      if (count < 1) return SYNTAX_ERROR;
      found.count = count > SCAN_WORK_MAX ? SCAN_WORK_MAX : Number(count);
    } else if (c.is(i, "match") && more) found.pattern = c.text(i + 1);
    else if (typed && c.is(i, "type") && more) found.type = c.text(i + 1).toLowerCase();
    else return SYNTAX_ERROR;
  }
  return found;
}

/** The elements of an array reply, gathered in pieces so that none of it is copied while it grows. */
export class Gathered {
  count = 0;
  bytes = 0;
  private readonly full: ByteSink[] = [];
  private piece: ByteSink = makeSink(0);

  /** The sink the next element goes into; `length` is about its length. */
  next(length: number): ByteSink | undefined {
    this.count++;
    this.bytes += length;
    // Beyond the bound nothing is gathered; the reply is an error then.
    if (this.bytes > REPLY_BYTES_MAX) return undefined;
    if (this.piece.length + length > this.piece.bytes.length) {
      this.full.push(this.piece);
      const room = this.full.length > 1 ? PIECE_BYTES : PIECE_BYTES / 16;
      this.piece = makeSink(length > room ? length : room);
    }
    return this.piece;
  }

  /** The whole reply. */
  reply(): ByteSink {
    if (this.bytes > REPLY_BYTES_MAX) {
      const sink = makeSink(80);
      writeError(sink, replyTooLong());
      return sink;
    }
    this.full.push(this.piece);
    let length = 16;
    for (const piece of this.full) length += piece.length;
    const sink = makeSink(length);
    writeArray(sink, this.count);
    for (const piece of this.full) putBytes(sink, piece.bytes, 0, piece.length);
    return sink;
  }
}

export function replyTooLong(): string {
  return `ERR dyad: the reply is too long (limit ${REPLY_BYTES_MAX} bytes)`;
}
