/**
 * May a write be sent while earlier reads of its connection are unanswered?
 *
 *     sent:  GET x · SET x 2 · link lost
 *     again: GET x  -> must not see the 2 of its own future
 *
 * A lost server may have run the later write, and a read has no number under which its answer was kept: it could never be
 * asked again in its place. So a write that meets the keys of such a read waits until the read's answer has left for the
 * client. Whatever is open can then always be asked again, in order: reads, because nothing behind them can have
 * changed what they read; writes, because each has its number.
 *
 * It costs a round trip where a pipeline writes what it has just read, and nothing elsewhere. Keys are compared by a
 * hash, which can only err towards waiting. A command over many keys, or whose keys cannot be told, meets everything.
 */
import {
  findCommand,
  firstKeyOf,
  keyStepOf,
  lastKeyOf,
  MARK_MOVABLE_KEYS,
  marksOf,
} from "../../protocol/command-class.js";

/** Arguments of a command that are looked at; one of more meets everything. */
const ARGS_MAX = 64;

/** Hash of a key that was not computed yet. */
export const KEY_UNKNOWN = 0;
/** The command may read anything. */
export const KEY_ANY = 1;

export interface PipelineOrder {
  /** @returns the hash of the one key that the command in bytes[start..end) names, or KEY_ANY */
  keyOf(bytes: Uint8Array, start: number, end: number): number;
  /** Takes the write that `meets` is about. */
  takeWrite(bytes: Uint8Array, start: number, end: number): void;
  /** @returns whether the write may change what a read of this key tells */
  meets(key: number): boolean;
}

export function createPipelineOrder(): PipelineOrder {
  const starts = new Int32Array(ARGS_MAX);
  const ends = new Int32Array(ARGS_MAX);
  const writeKeys = new Int32Array(ARGS_MAX);
  let writeKeyCount = 0;
  let meetsAll = false;
  /** Where `number` ended. */
  let at = 0;

  /** A decimal and its line's end, from `at` on. @returns negative when there is none */
  function number(bytes: Uint8Array, end: number): number {
    let value = 0;
    const from = at;
    while (at < end && at - from < 9 && bytes[at] >= 48 && bytes[at] <= 57) {
      value = value * 10 + bytes[at] - 48;
      at++;
    }
    if (at === from || at + 2 > end || bytes[at] !== 13 || bytes[at + 1] !== 10) return -1;
    at += 2;
    return value;
  }

  /** Finds the arguments of one RESP array. @returns their count; 0 when it is anything else, or has too many */
  function split(bytes: Uint8Array, start: number, end: number): number {
    if (start >= end || bytes[start] !== 42) return 0;
    at = start + 1;
    const count = number(bytes, end);
    if (count < 1 || count > ARGS_MAX) return 0;
    for (let i = 0; i < count; i++) {
      if (at >= end || bytes[at] !== 36) return 0;
      at++;
      const length = number(bytes, end);
      if (length < 0 || at + length + 2 > end) return 0;
      starts[i] = at;
      ends[i] = at + length;
      at += length + 2;
    }
    // More behind it: the commands of a MULTI.
    return at === end ? count : 0;
  }

  /** @returns neither KEY_UNKNOWN nor KEY_ANY */
  function hashOf(bytes: Uint8Array, start: number, end: number): number {
    let hash = 0x811c9dc5;
    for (let i = start; i < end; i++) {
      hash ^= bytes[i];
      // times 16777619, without a product beyond 2^53
      hash = (hash + (hash << 1) + (hash << 4) + (hash << 7) + (hash << 8) + (hash << 24)) | 0;
    }
    return hash | 2;
  }

  function keyOf(bytes: Uint8Array, start: number, end: number): number {
    const count = split(bytes, start, end);
    if (count === 0) return KEY_ANY;
    const entry = findCommand(bytes, starts[0], ends[0]);
    const first = firstKeyOf(entry);
    if (first === 0 || first >= count || lastKeyOf(entry, count) !== first) return KEY_ANY;
    if ((marksOf(entry) & MARK_MOVABLE_KEYS) !== 0) return KEY_ANY;
    return hashOf(bytes, starts[first], ends[first]);
  }

  function takeWrite(bytes: Uint8Array, start: number, end: number): void {
    writeKeyCount = 0;
    meetsAll = true;
    const count = split(bytes, start, end);
    if (count === 0) return;
    const entry = findCommand(bytes, starts[0], ends[0]);
    const first = firstKeyOf(entry);
    const last = lastKeyOf(entry, count);
    const step = keyStepOf(entry);
    if (first === 0 || last < first || last >= count || step < 1) return;
    if ((marksOf(entry) & MARK_MOVABLE_KEYS) !== 0) return;
    meetsAll = false;
    for (let i = first; i <= last; i += step) {
      writeKeys[writeKeyCount] = hashOf(bytes, starts[i], ends[i]);
      writeKeyCount++;
    }
  }

  function meets(key: number): boolean {
    if (meetsAll || key === KEY_ANY) return true;
    for (let i = 0; i < writeKeyCount; i++) {
      if (writeKeys[i] === key) return true;
    }
    return false;
  }

  return { keyOf: keyOf, takeWrite: takeWrite, meets: meets };
}
