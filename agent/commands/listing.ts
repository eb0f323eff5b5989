/** What the commands that list keys or fields share: options of SCAN, and replies gathered in steps. */
import { makeSink, putBytes, writeArray } from "../../protocol/resp.js";
import type { ByteSink, Job } from "../core/execution.js";
import { NOT_INTEGER, REPLY_BYTES_MAX, SYNTAX_ERROR } from "./context.js";
import type { Context } from "./context.js";
import { HASH_END } from "./key-hash.js";
import { parseInteger } from "./numbers.js";

/** Keys one SCAN or HSCAN call looks at, whatever COUNT asks for (COUNT is a hint). */
export const SCAN_WORK_MAX = 1000;
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

/** The reply of a job that gathered the elements of an array. */
export function finishArray(job: Job, count: number, body: ByteSink): void {
  if (body.length > REPLY_BYTES_MAX) {
    const text = `-ERR dyad: the reply is too long (limit ${REPLY_BYTES_MAX} bytes)\r\n`;
    job.reply = makeSink(text.length);
    for (let i = 0; i < text.length; i++) job.reply.bytes[i] = text.charCodeAt(i);
    job.reply.length = text.length;
    return;
  }
  job.reply = makeSink(body.length + 16);
  writeArray(job.reply, count);
  putBytes(job.reply, body.bytes, 0, body.length);
}
