/**
 * How keys, hash fields and expiry times lie in the store's tables.
 *
 *     data    key hash (6) · key                ->  kind and flags (1) [· expireAt (6)] · string
 *                                                   or hash id (10) · field count (4)
 *     field   hash id (10) · field hash (6) · field  ->  value
 *     expiry  expireAt (6) · data key           ->  nothing
 *     meta    "ks:drop:" · hash id (10)         ->  nothing: rows of that hash are still to be removed
 *             "ks:next"                         ->  counter of the next hash id (6)
 *
 * A hash's fields are named by its id, not by its key: RENAME, DEL and overwriting are one row each, and the
 * rows of a dropped hash are removed later, a slice at a time.
 */
import type { HashId } from "./effects.js";
import {
  fromLatin1,
  getU32,
  getU48,
  HASH_BYTES,
  hashOf,
  latin1,
  putLatin1,
  putU32,
  putU48,
} from "./key-hash.js";

export const KIND_NONE = 0;
export const KIND_STRING = 1;
export const KIND_HASH = 2;

const KIND_MASK = 0x0f;
const FLAG_EXPIRES = 0x10;
export const ID_BYTES = 10;

/** A key's state; never changed, only replaced. */
export interface KeyState {
  readonly kind: number;
  /** @unit ms of log time; 0: never */
  readonly expireAt: number;
  /** The string value: bytes[start..end). */
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
  /** Of a hash. */
  readonly id: HashId | undefined;
  readonly count: number;
}

const NO_BYTES = new Uint8Array(0);

export const MISSING: KeyState = {
  kind: KIND_NONE,
  expireAt: 0,
  bytes: NO_BYTES,
  start: 0,
  end: 0,
  id: undefined,
  count: 0,
};

export function stringState(
  expireAt: number,
  bytes: Uint8Array,
  start: number,
  end: number,
): KeyState {
  return { kind: KIND_STRING, expireAt, bytes, start, end, id: undefined, count: 0 };
}

export function hashState(expireAt: number, id: HashId, count: number): KeyState {
  return { kind: KIND_HASH, expireAt, bytes: NO_BYTES, start: 0, end: 0, id, count };
}

export function dataKey(key: string): Uint8Array {
  const bytes = new Uint8Array(HASH_BYTES + key.length);
  putU48(bytes, 0, hashOf(key));
  putLatin1(bytes, HASH_BYTES, key);
  return bytes;
}

export function keyOfDataKey(bytes: Uint8Array): string {
  return latin1(bytes, HASH_BYTES, bytes.length);
}

/** First possible data key with this hash. */
export function hashPrefix(hash: number): Uint8Array {
  const bytes = new Uint8Array(HASH_BYTES);
  putU48(bytes, 0, hash);
  return bytes;
}

export function putId(bytes: Uint8Array, at: number, id: HashId): void {
  putU32(bytes, at, id.epoch);
  putU48(bytes, at + 4, id.counter);
}

export function idAt(bytes: Uint8Array, at: number): HashId {
  return { epoch: getU32(bytes, at), counter: getU48(bytes, at + 4) };
}

export function idName(id: HashId): string {
  return `${id.epoch}:${id.counter}`;
}

export function fieldKey(id: HashId, field: string): Uint8Array {
  const bytes = new Uint8Array(ID_BYTES + HASH_BYTES + field.length);
  putId(bytes, 0, id);
  putU48(bytes, ID_BYTES, hashOf(field));
  putLatin1(bytes, ID_BYTES + HASH_BYTES, field);
  return bytes;
}

export function fieldOfFieldKey(bytes: Uint8Array): string {
  return latin1(bytes, ID_BYTES + HASH_BYTES, bytes.length);
}

/** First possible row of a hash, from a field hash on. */
export function fieldPrefix(id: HashId, fieldHash: number): Uint8Array {
  const bytes = new Uint8Array(ID_BYTES + HASH_BYTES);
  putId(bytes, 0, id);
  putU48(bytes, ID_BYTES, fieldHash);
  return bytes;
}

/** Just behind the last possible row of a hash. */
export function fieldEnd(id: HashId): Uint8Array {
  const bytes = new Uint8Array(ID_BYTES);
  putId(bytes, 0, { epoch: id.epoch, counter: id.counter + 1 });
  return bytes;
}

export function expiryKey(expireAt: number, key: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(6 + key.length);
  putU48(bytes, 0, expireAt);
  bytes.set(key, 6);
  return bytes;
}

const DROP_PREFIX = "ks:drop:";
export const DROP_FROM = fromLatin1(DROP_PREFIX);
export const DROP_TO = fromLatin1("ks:drop;");
export const NEXT_KEY = fromLatin1("ks:next");

export function dropKey(id: HashId): Uint8Array {
  const bytes = new Uint8Array(DROP_PREFIX.length + ID_BYTES);
  putLatin1(bytes, 0, DROP_PREFIX);
  putId(bytes, DROP_PREFIX.length, id);
  return bytes;
}

export function idOfDropKey(bytes: Uint8Array): HashId {
  return idAt(bytes, DROP_PREFIX.length);
}

/** Length of the row of a state. @unit bytes */
export function rowBytes(state: KeyState): number {
  const body = state.kind === KIND_HASH ? ID_BYTES + 4 : state.end - state.start;
  return 1 + (state.expireAt > 0 ? 6 : 0) + body;
}

/** Writes a row at the start of `into`, which is long enough. */
export function encodeRow(state: KeyState, into: Uint8Array): void {
  let at = 1;
  into[0] = state.kind;
  if (state.expireAt > 0) {
    into[0] |= FLAG_EXPIRES;
    putU48(into, 1, state.expireAt);
    at = 7;
  }
  if (state.kind === KIND_HASH) {
    putId(into, at, state.id!);
    putU32(into, at + ID_BYTES, state.count);
  } else {
    into.set(state.bytes.subarray(state.start, state.end), at);
  }
}

/** The state a row holds; a string's value stays in the row's bytes. Throws on a row that is none. */
export function decodeRow(row: Uint8Array): KeyState {
  const kind = row[0]! & KIND_MASK;
  let at = 1;
  let expireAt = 0;
  if ((row[0]! & FLAG_EXPIRES) !== 0) {
    expireAt = getU48(row, 1);
    at = 7;
  }
  if (kind === KIND_STRING) return stringState(expireAt, row, at, row.length);
  if (kind === KIND_HASH && row.length === at + ID_BYTES + 4) {
    return hashState(expireAt, idAt(row, at), getU32(row, at + ID_BYTES));
  }
  throw new Error("a damaged row in table data");
}

/** Whether key and row of table data are what this build writes. */
export function isDataRow(key: Uint8Array, row: Uint8Array): boolean {
  if (key.length < HASH_BYTES || row.length === 0) return false;
  const kind = row[0]! & KIND_MASK;
  const head = (row[0]! & FLAG_EXPIRES) === 0 ? 1 : 7;
  if ((row[0]! & ~(KIND_MASK | FLAG_EXPIRES)) !== 0 || row.length < head) return false;
  if (kind === KIND_HASH) return row.length === head + ID_BYTES + 4;
  return kind === KIND_STRING;
}
