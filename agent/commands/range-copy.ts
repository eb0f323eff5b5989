/**
 * Copying the keyspace's rows to the other server, a range at a time, while writes go on.
 *
 * Rows are copied as they lie in the store, table by table: the data rows, then the field rows, then the
 * counter of hash ids; expiry rows follow from the data rows. Fields go by hash id and not with their
 * key: a RENAME during the copy would otherwise carry a hash from a range still to come into one already
 * copied. Fields of dropped hashes stay behind.
 *
 *     sender                                         receiver
 *     snapshot = store.snapshot()                    clearKeyspace(writer), once at the start
 *     copyRange(snapshot, from, ..) ── items ──>     installRange(store, writer, from, next, items)
 *     from = next, until it is undefined             next, kept in the same transaction, is where to resume
 *
 * What a range holds is the store's state, so its log position is the applied index the store had, durably, when
 * the snapshot was taken. After the last range the entries behind the least of those positions are applied to
 * the receiver's keyspace (`reset` with that position first); effects are absolute, so it does not matter that
 * some ranges are newer.
 *
 * A cursor is a table's number and the first key that is not copied yet; the empty one is the start.
 */
import { makeSink, putByte, putBytes } from "../../protocol/resp.js";
import type { ByteSink } from "../core/execution.js";
import type { Snapshot, Store, StoreWriter, Table } from "../core/store.js";
import { putVarint } from "./effects.js";
import { compareBytes, latin1 } from "./key-hash.js";
import { follow } from "./keyspace.js";
import { decodeRow, DROP_FROM, DROP_TO, expiryKey, ID_BYTES, NEXT_KEY } from "./rows.js";

const TABLES: readonly Table[] = ["data", "field", "meta"];
/** Of the keyspace's rows in meta only the counter is copied. */
const META_FROM = NEXT_KEY;
const META_TO = follow(NEXT_KEY);
const EMPTY = new Uint8Array(0);
/** Rows read at once: few, because a row may be a megabyte. */
const ROWS_AT_ONCE = 64;

export interface CopiedRange {
  /** Rows of the range, to be given to installRange as they are. */
  items: Uint8Array;
  rows: number;
  /** Where the next range begins; undefined: this was the last. */
  next: Uint8Array | undefined;
}

function tableOf(cursor: Uint8Array): number {
  return cursor.length === 0 ? 0 : cursor[0]!;
}

function keyOf(cursor: Uint8Array): Uint8Array {
  const key = cursor.subarray(1);
  return key.length === 0 && tableOf(cursor) === 2 ? META_FROM : key;
}

function cursorAt(table: number, key: Uint8Array): Uint8Array {
  const cursor = new Uint8Array(1 + key.length);
  cursor[0] = table;
  cursor.set(key, 1);
  return cursor;
}

/** @returns false for bytes that are no cursor of ours */
export function isCursor(bytes: Uint8Array): boolean {
  return bytes.length === 0 || (bytes[0]! < TABLES.length && bytes.length < 1200);
}

/**
 * The rows from a cursor on: at least one where there is one, then until `bytesMax` or `rowsMax` is reached.
 * A range never spans two tables.
 */
export function copyRange(
  snapshot: Snapshot,
  from: Uint8Array,
  bytesMax: number,
  rowsMax: number,
): CopiedRange {
  const table = tableOf(from);
  const end = table === 2 ? META_TO : undefined;
  const sink: ByteSink = makeSink(Math.min(bytesMax, 65536));
  let key = keyOf(from);
  let rows = 0;
  let batch = 4;
  const dropped = droppedIn(snapshot, table);
  for (;;) {
    const limit = Math.min(batch, rowsMax - rows);
    const found = snapshot.range(TABLES[table]!, key, end, limit);
    for (let i = 0; i < found.length; i++) {
      const row = found[i]!;
      if (dropped !== undefined && dropped.has(latin1(row.key, 0, ID_BYTES))) continue;
      putVarint(sink, row.key.length);
      putBytes(sink, row.key, 0, row.key.length);
      putVarint(sink, row.value.length);
      putBytes(sink, row.value, 0, row.value.length);
      rows++;
      if (sink.length >= bytesMax || rows >= rowsMax) {
        return { items: taken(sink), rows, next: cursorAt(table, follow(row.key)) };
      }
    }
    if (found.length < limit) {
      const next = table + 1 < TABLES.length ? cursorAt(table + 1, EMPTY) : undefined;
      return { items: taken(sink), rows, next };
    }
    key = follow(found[found.length - 1]!.key);
    batch = ROWS_AT_ONCE;
  }
}

/** Ids of hashes whose fields are still to be removed; undefined when there are none. */
function droppedIn(snapshot: Snapshot, table: number): Set<string> | undefined {
  if (table !== 1) return undefined;
  const found = snapshot.keys("meta", DROP_FROM, DROP_TO, 1e9);
  if (found.length === 0) return undefined;
  return new Set(found.map((key) => latin1(key, DROP_FROM.length, key.length)));
}

function taken(sink: ByteSink): Uint8Array {
  return sink.bytes.slice(0, sink.length);
}

/** Removes everything the keyspace has in the store. */
export function clearKeyspace(store: Store, writer: StoreWriter): void {
  writer.clear("data");
  writer.clear("field");
  writer.clear("expiry");
  for (const { key } of store.range("meta", DROP_FROM, DROP_TO, 1e9)) writer.del("meta", key);
  writer.del("meta", NEXT_KEY);
}

/**
 * Makes [from, next) hold exactly these rows. Rows the receiver has there beyond them are removed (after
 * clearKeyspace there are none).
 * @returns false when the items are malformed or lie outside the range; nothing was written then
 */
export function installRange(
  store: Store,
  writer: StoreWriter,
  from: Uint8Array,
  next: Uint8Array | undefined,
  items: Uint8Array,
): boolean {
  const rows = parseItems(items);
  if (rows === undefined) return false;
  const table = tableOf(from);
  const name = TABLES[table];
  if (name === undefined) return false;
  const start = keyOf(from);
  const last = next !== undefined && tableOf(next) === table ? keyOf(next) : undefined;
  const end = last ?? (table === 2 ? META_TO : undefined);
  let before: Uint8Array | undefined;
  for (const { key, value } of rows) {
    if (compareBytes(key, start) < 0 || (end !== undefined && compareBytes(key, end) >= 0))
      return false;
    if (before !== undefined && compareBytes(before, key) >= 0) return false;
    before = key;
    if (table === 0 && !isRow(key, value)) return false;
  }
  removeRange(store, writer, name, start, end);
  for (const { key, value } of rows) {
    writer.put(name, key, value);
    if (table !== 0) continue;
    const { expireAt } = decodeRow(value);
    if (expireAt > 0) writer.put("expiry", expiryKey(expireAt, key), EMPTY);
  }
  return true;
}

function removeRange(
  store: Store,
  writer: StoreWriter,
  table: Table,
  start: Uint8Array,
  end: Uint8Array | undefined,
): void {
  let at = start;
  for (;;) {
    const held = store.range(table, at, end, ROWS_AT_ONCE);
    for (const { key, value } of held) {
      writer.del(table, key);
      if (table !== "data") continue;
      const { expireAt } = decodeRow(value);
      if (expireAt > 0) writer.del("expiry", expiryKey(expireAt, key));
    }
    if (held.length < ROWS_AT_ONCE) return;
    at = follow(held[held.length - 1]!.key);
  }
}

interface Row {
  key: Uint8Array;
  value: Uint8Array;
}

function parseItems(items: Uint8Array): Row[] | undefined {
  const rows: Row[] = [];
  let at = 0;
  let problem = false;
  const part = (): Uint8Array => {
    let length = 0;
    let scale = 1;
    for (;;) {
      if (at >= items.length || scale > 0x10000000) {
        problem = true;
        return EMPTY;
      }
      const byte = items[at++]!;
      length += (byte & 127) * scale;
      if (byte < 128) break;
      scale *= 128;
    }
    if (length > items.length - at) {
      problem = true;
      return EMPTY;
    }
    at += length;
    return items.subarray(at - length, at);
  };
  while (at < items.length) {
    const key = part();
    const value = part();
    if (problem || key.length === 0 || key.length > 1200) return undefined;
    rows.push({ key, value });
  }
  return rows;
}

function isRow(key: Uint8Array, value: Uint8Array): boolean {
  if (key.length < 6 || value.length === 0) return false;
  try {
    decodeRow(value);
    return true;
  } catch {
    return false;
  }
}

/**
 * A hash of the rows in [from, next), as copyRange would give them: equal on both servers when the rows are.
 * @unit 8 bytes
 */
export function hashRange(
  snapshot: Snapshot,
  from: Uint8Array,
  next: Uint8Array | undefined,
): Uint8Array {
  const table = tableOf(from);
  const last = next !== undefined && tableOf(next) === table ? keyOf(next) : undefined;
  const end = last ?? (table === 2 ? META_TO : undefined);
  const hash = { a: 0x811c9dc5, b: 0x9e3779b9 };
  const sink = makeSink(1024);
  const dropped = droppedIn(snapshot, table);
  let key = keyOf(from);
  for (;;) {
    const found = snapshot.range(TABLES[table]!, key, end, ROWS_AT_ONCE);
    for (const row of found) {
      if (dropped !== undefined && dropped.has(latin1(row.key, 0, ID_BYTES))) continue;
      sink.length = 0;
      putVarint(sink, row.key.length);
      putBytes(sink, row.key, 0, row.key.length);
      putVarint(sink, row.value.length);
      mix(hash, sink.bytes, sink.length);
      mix(hash, row.value, row.value.length);
    }
    if (found.length < ROWS_AT_ONCE) return finish(hash);
    key = follow(found[found.length - 1]!.key);
  }
}

/** The same hash, of a range's items. */
export function hashItems(items: Uint8Array): Uint8Array {
  const hash = { a: 0x811c9dc5, b: 0x9e3779b9 };
  mix(hash, items, items.length);
  return finish(hash);
}

function mix(hash: { a: number; b: number }, bytes: Uint8Array, length: number): void {
  let { a, b } = hash;
  for (let i = 0; i < length; i++) {
    const byte = bytes[i]!;
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul((b << 5) ^ (b >>> 27) ^ byte, 0x85ebca6b);
  }
  hash.a = a;
  hash.b = b;
}

function finish(hash: { a: number; b: number }): Uint8Array {
  const sink = makeSink(8);
  for (const part of [hash.a, hash.b]) {
    for (let shift = 24; shift >= 0; shift -= 8) putByte(sink, (part >>> shift) & 255);
  }
  return sink.bytes.slice(0, 8);
}
