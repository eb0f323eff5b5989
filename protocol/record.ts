/**
 * The role record K: who is primary, in which epoch, and which disks hold the data.
 *
 * `both(X)` says both servers hold every acknowledged write; `solo(X)` says only X is known to.
 */
import { ID_MAX, readU32, writeU32 } from "./frame.js";
import { assert } from "./malformed.js";
import type { Malformed } from "./malformed.js";
import { sameBytes } from "./same-bytes.js";

/** Modes: both servers hold every acknowledged write, or only the primary is known to. */
export const MODE_BOTH = 0;
export const MODE_SOLO = 1;

/** Sizes of the names in a record. @unit bytes */
export const PAIR_ID_BYTES = 8;
export const IDENTITY_BYTES = 16;

/** Index of a server: its place in the configuration's list of two. */
export type ServerIndex = 0 | 1;
/** MODE_BOTH or MODE_SOLO. */
export type Mode = typeof MODE_BOTH | typeof MODE_SOLO;

/** The record K; see docs/ROLE-PROTOCOL.md. */
export interface RoleRecord {
  /** @unit count, 1..2^32-1; 0 only in the blank record. */
  epoch: number;
  primary: ServerIndex;
  mode: Mode;
  pairId: Uint8Array;
  /** The disk each server must have; all zero where none is named yet. */
  identityA: Uint8Array;
  identityB: Uint8Array;
}

/** A record always takes this many bytes; the blank one is all zero. @unit bytes */
export const RECORD_BYTES = 48;

/**
 * Writes a record, or the blank one for undefined.
 *
 *     epoch u32 · primary u8 · mode u8 · zero u16 · pairId 8 · identityA 16 · identityB 16
 */
export function writeRecord(bytes: Uint8Array, at: number, record: RoleRecord | undefined): void {
  if (record === undefined) {
    bytes.fill(0, at, at + RECORD_BYTES);
    return;
  }
  assert(record.epoch > 0 && record.epoch <= ID_MAX, "epoch of a record");
  assert(record.pairId.length === PAIR_ID_BYTES, "pair id of a record");
  assert(record.identityA.length === IDENTITY_BYTES, "identity a of a record");
  assert(record.identityB.length === IDENTITY_BYTES, "identity b of a record");
  writeU32(bytes, at, record.epoch);
  bytes[at + 4] = record.primary;
  bytes[at + 5] = record.mode;
  bytes[at + 6] = 0;
  bytes[at + 7] = 0;
  bytes.set(record.pairId, at + 8);
  bytes.set(record.identityA, at + 16);
  bytes.set(record.identityB, at + 32);
}

/** The record as RECORD_BYTES bytes of its own. */
export function encodeRecord(record: RoleRecord | undefined): Uint8Array {
  const bytes = new Uint8Array(RECORD_BYTES);
  writeRecord(bytes, 0, record);
  return bytes;
}

/** @returns the record (its bytes are copies), undefined for the blank one, or what is wrong */
export function decodeRecord(
  bytes: Uint8Array,
  start: number,
  end: number,
): RoleRecord | undefined | Malformed {
  if (end - start < RECORD_BYTES) return { malformed: "record too short" };
  const epoch = readU32(bytes, start);
  if (epoch === 0) {
    for (let at = start + 4; at < start + RECORD_BYTES; at++) {
      if (bytes[at] !== 0) return { malformed: "record of epoch 0 that is not blank" };
    }
    return undefined;
  }
  const primary = bytes[start + 4]!;
  const mode = bytes[start + 5]!;
  if (primary > 1) return { malformed: "record with primary " + primary };
  if (mode > 1) return { malformed: "record with mode " + mode };
  return {
    epoch: epoch,
    primary: primary === 0 ? 0 : 1,
    mode: mode === MODE_BOTH ? MODE_BOTH : MODE_SOLO,
    pairId: bytes.slice(start + 8, start + 16),
    identityA: bytes.slice(start + 16, start + 32),
    identityB: bytes.slice(start + 32, start + 48),
  };
}

/** True when both hold the same bytes. */
export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a === b || sameBytes(a, b);
}

/** Same epoch and same content; two blank records are equal. */
export function recordsEqual(a: RoleRecord | undefined, b: RoleRecord | undefined): boolean {
  if (a === b || a === undefined || b === undefined) return a === b;
  return (
    a.epoch === b.epoch &&
    a.primary === b.primary &&
    a.mode === b.mode &&
    bytesEqual(a.pairId, b.pairId) &&
    bytesEqual(a.identityA, b.identityA) &&
    bytesEqual(a.identityB, b.identityB)
  );
}

/** Epoch of a record, 0 of the blank one. */
export function epochOf(record: RoleRecord | undefined): number {
  return record === undefined ? 0 : record.epoch;
}

/** By epoch only: negative when a is lower. Equal epochs with other content are for the caller to notice. */
export function compareRecords(a: RoleRecord | undefined, b: RoleRecord | undefined): number {
  const first = epochOf(a);
  const second = epochOf(b);
  return first < second ? -1 : first > second ? 1 : 0;
}

/** The disk a record names for a server. */
export function identityOf(record: RoleRecord, server: ServerIndex): Uint8Array {
  return server === 0 ? record.identityA : record.identityB;
}

/** The primary's disk, as the record names it. */
export function primaryIdentity(record: RoleRecord): Uint8Array {
  return record.primary === 0 ? record.identityA : record.identityB;
}

/** No disk is named. */
export function isBlankIdentity(identity: Uint8Array): boolean {
  for (let at = 0; at < identity.length; at++) {
    if (identity[at] !== 0) return false;
  }
  return true;
}

/**
 * Two records that do not follow from one another, whatever their epochs: one of them was forced without the other server (it
 * names no disk there), and the other record does not name the disk that was forced. Nobody who made the one can have known
 * what was acknowledged under the other.
 */
export function areApart(one: RoleRecord, other: RoleRecord): boolean {
  return forcedWithout(one, other) || forcedWithout(other, one);
}

function forcedWithout(forced: RoleRecord, other: RoleRecord): boolean {
  const server = forced.primary;
  return (
    forced.mode === MODE_SOLO &&
    isBlankIdentity(identityOf(forced, server === 0 ? 1 : 0)) &&
    !bytesEqual(identityOf(other, server), primaryIdentity(forced))
  );
}

const HEX_DIGITS = "0123456789abcdef";

/** Lower-case hex, for people: identities, nonces, pair and session ids. */
export function formatHex(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at++) {
    text += HEX_DIGITS.charAt(bytes[at]! >>> 4) + HEX_DIGITS.charAt(bytes[at]! & 15);
  }
  return text;
}

/** @returns undefined unless text is exactly `count` bytes in hex, either case */
export function parseHex(text: string, count: number): Uint8Array | undefined {
  if (text.length !== count * 2) return undefined;
  const bytes = new Uint8Array(count);
  for (let at = 0; at < text.length; at++) {
    const digit = HEX_DIGITS.indexOf(text.charAt(at).toLowerCase());
    if (digit < 0) return undefined;
    bytes[at >>> 1] = (bytes[at >>> 1]! << 4) | digit;
  }
  return bytes;
}

/** `both(a) epoch 7`: a record in a log line. */
export function formatRecord(record: RoleRecord | undefined): string {
  if (record === undefined) return "blank";
  const mode = record.mode === MODE_BOTH ? "both" : "solo";
  return mode + "(" + (record.primary === 0 ? "a" : "b") + ") epoch " + record.epoch;
}
