/**
 * May a command be asked again behind writes of the same connection that came after it?
 *
 *     sent:  GET x · SET x 2 · link lost
 *     again: GET x  -> must not see the 2 of its own future
 *
 * A server that was lost may have run the later write, so a read before it is asked again only if the
 * two have no key in common. Keys are compared by a hash of every argument, which can only err towards "in
 * common"; commands over the whole keyspace have a key in common with all.
 */
import {
  findCommand,
  firstKeyOf,
  MARK_CONTAINER,
  MARK_MOVABLE_KEYS,
  MARK_SCRIPT,
  marksOf,
  UNKNOWN_COMMAND,
} from "../../protocol/command-class.js";
import { PARSED_COMMAND, RespParser } from "../../protocol/resp.js";
import type { RespLimits } from "../../protocol/resp.js";

/** Bits of the filter: a pipeline of a thousand writes leaves it mostly empty. */
const FILTER_BITS = 16384;

export interface LaterWrites {
  clear(): void;
  /** Remembers a write (or the writes of a MULTI) that may have been run. */
  add(bytes: Uint8Array, start: number, end: number): void;
  /** @returns whether a read may see one of them */
  mayMeet(bytes: Uint8Array, start: number, end: number): boolean;
}

export function createLaterWrites(limits: RespLimits): LaterWrites {
  const bits = new Uint8Array(FILTER_BITS >> 3);
  let empty = true;
  let all = false;

  function clear(): void {
    bits.fill(0);
    empty = true;
    all = false;
  }

  function hashOf(bytes: Uint8Array, start: number, end: number): number {
    let hash = 0x811c9dc5;
    for (let i = start; i < end; i++) {
      hash ^= bytes[i];
      // times 16777619, without a product beyond 2^53
      hash = (hash + (hash << 1) + (hash << 4) + (hash << 7) + (hash << 8) + (hash << 24)) | 0;
    }
    return (hash ^ (hash >>> 15)) & (FILTER_BITS - 1);
  }

  /** The command names its keys among its arguments. */
  function isKeyed(parser: RespParser): boolean {
    const entry = findCommand(parser.bytes, parser.starts[0], parser.ends[0]);
    if (parser.count < 2 || entry === UNKNOWN_COMMAND) return false;
    const marks = marksOf(entry);
    if ((marks & MARK_SCRIPT) !== 0) return false;
    return firstKeyOf(entry) > 0 || (marks & (MARK_MOVABLE_KEYS | MARK_CONTAINER)) !== 0;
  }

  function add(bytes: Uint8Array, start: number, end: number): void {
    empty = false;
    const parser = new RespParser(limits);
    parser.feed(bytes, start, end);
    while (parser.next() === PARSED_COMMAND) {
      if (!isKeyed(parser)) {
        all = true;
        return;
      }
      for (let i = 1; i < parser.count; i++) {
        const bit = hashOf(parser.bytes, parser.starts[i], parser.ends[i]);
        bits[bit >> 3] |= 1 << (bit & 7);
      }
    }
  }

  function mayMeet(bytes: Uint8Array, start: number, end: number): boolean {
    if (empty) return false;
    if (all) return true;
    const parser = new RespParser(limits);
    parser.feed(bytes, start, end);
    while (parser.next() === PARSED_COMMAND) {
      if (!isKeyed(parser)) return true;
      for (let i = 1; i < parser.count; i++) {
        const bit = hashOf(parser.bytes, parser.starts[i], parser.ends[i]);
        if ((bits[bit >> 3] & (1 << (bit & 7))) !== 0) return true;
      }
    }
    return false;
  }

  return { clear: clear, add: add, mayMeet: mayMeet };
}
