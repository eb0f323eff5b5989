/**
 * A row as it lies in the store's file: the value, then a checksum of table, key and value. LMDB does not notice
 * a byte that the disk gives back otherwise than it was written; such a row must neither be served nor sent.
 *
 *     value … · CRC-32 (4 bytes, least first) over table number · key · value
 */
import { crc32 } from "node:zlib";
import type { Table } from "../core/store.js";

export const CHECK_BYTES = 4;

/** What the checksum of each table's rows begins with: a row that got into another table is damaged, too. */
const BEGINS: Record<Table, number> = { data: 1, field: 2, expiry: 3, log: 4, meta: 5 };

/** The disk gave back what was never written. */
export class DamagedRow extends Error {}

function checkOf(table: Table, key: Uint8Array, value: Uint8Array): number {
  return crc32(value, crc32(key, BEGINS[table]));
}

/** Writes the checksum behind the value. @param row room for the value, which is there already, and CHECK_BYTES */
export function sealRow(table: Table, key: Uint8Array, row: Uint8Array): void {
  const end = row.length - CHECK_BYTES;
  const check = checkOf(table, key, row.subarray(0, end));
  for (let i = 0; i < CHECK_BYTES; i++) row[end + i] = check >>> (8 * i);
}

/**
 * The value of a row as it was read.
 * @param where the store's directory, for the message
 * @returns a part of `row`
 * @throws DamagedRow
 */
export function openRow(table: Table, key: Uint8Array, row: Uint8Array, where: string): Uint8Array {
  const end = row.length - CHECK_BYTES;
  if (end >= 0) {
    const value = row.subarray(0, end);
    const check = checkOf(table, key, value);
    let told = 0;
    for (let i = CHECK_BYTES - 1; i >= 0; i--) told = told * 256 + row[end + i]!;
    if (check === told) return value;
  }
  throw new DamagedRow(
    `the disk failed: row ${Buffer.from(key).toString("hex")} of table ${table} in ${where} is not what was written there. ` +
      `Look at the disk, move ${where} away and start this server again: it comes back empty and is brought up to date by the other one`,
  );
}
