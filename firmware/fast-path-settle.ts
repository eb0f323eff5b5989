/**
 * The way back: what a client has outstanding here is written into the forwarder's table, row for row as it would stand
 * there, so that a lost link, a change of roles, a retry, a client that goes all meet rows.
 */
import {
  CHIP_FRAME_BYTES_MAX,
  CLASS_QUERY,
  FLAG_CLASS_MASK,
  HEADER_BYTES,
  readU32,
} from "../protocol/frame.js";
import { assert } from "./core/assert.js";
import { enqueue } from "./core/client-queue.js";
import { NO_ROW, ROW_OPEN } from "./core/in-flight.js";
import type { Traffic } from "./core/traffic.js";
import { PACK_HEAD_BYTES, countOf, swapped } from "./fast-path-books.js";
import type { FastBooks, FastClient } from "./fast-path-books.js";

/** Puts what a client has outstanding here into the forwarder's table. */
export function settle(books: FastBooks, one: FastClient): void {
  if (!one.ready) return;
  books.countOne(one);
  if (one.open > 0) {
    books.old.push({
      channel: one.channel,
      link: one.link,
      native: one.native,
      numbers: toRows(books, one),
    });
  }
  one.halt();
  one.ready = false;
  one.forget();
  one.counted = 0;
  one.open = 0;
  one.packed = false;
  delete books.channels[one.channel];
  books.live.splice(books.live.indexOf(one), 1);
  if (books.timed === one) books.timed = undefined;
}

export function settleAll(books: FastBooks): void {
  while (books.live.length > 0) settle(books, books.live[0]);
}

export function settleConnection(books: FastBooks, connection: number): void {
  for (let i = 0; i < books.live.length; i++) {
    if (books.live[i].connection !== connection) continue;
    settle(books, books.live[i]);
    return;
  }
}

/** @returns the numbers of the rows, oldest first */
function toRows(books: FastBooks, one: FastClient): number[] {
  const traffic = books.traffic;
  const client = traffic.clients[one.connection]!;
  const answered = swapped(one.answered);
  const numbers: number[] = [];
  traffic.currentTime = books.engine.now();
  for (let i = 0; i < one.sent.length; i++) {
    const bytes = new Uint8Array(one.sent[i].buffer as ArrayBuffer);
    const count = countOf(one.sent[i]);
    const first = swapped(one.sent[i][1]);
    // All commands of a pack have one length.
    const size = (bytes.length - PACK_HEAD_BYTES) / count;
    for (let k = 0; k < count; k++) {
      if (first + k <= answered) continue;
      toRow(traffic, one, client, bytes, PACK_HEAD_BYTES + k * size, size, first + k);
      numbers.push(first + k);
    }
  }
  return numbers;
}

function toRow(
  traffic: Traffic,
  one: FastClient,
  client: NonNullable<Traffic["clients"][number]>,
  bytes: Uint8Array,
  at: number,
  size: number,
  number: number,
): void {
  const table = traffic.table;
  const server = one.link.server;
  const flags = bytes[1] & FLAG_CLASS_MASK;
  const from = one.native ? at + HEADER_BYTES : at;
  const length = at + size - from;
  const query = flags === CLASS_QUERY;
  const memory = query ? traffic.readBytes : traffic.writeBytes;
  const row = table.take();
  assert(row !== NO_ROW, "rows are kept for what went the fast way");
  const chunk = memory.room(length + HEADER_BYTES);
  const start = chunk.used + HEADER_BYTES;
  chunk.bytes.set(bytes.subarray(from, from + length), start);
  memory.keep(chunk, length + HEADER_BYTES);
  table.chunk[row] = chunk;
  table.start[row] = start;
  table.end[row] = start + length;
  table.flags[row] = flags;
  table.primaryOnly[row] = 0;
  table.clientId[row] = one.native ? readU32(bytes, at + 4) : 0;
  table.bindAnyhow(row, number);
  table.number[row] = number;
  table.asked[row] = 1;
  table.server[row] = server;
  table.ahead[row] = traffic.inFlightAt[server] - 1;
  table.sentAt[row] = traffic.currentTime;
  table.state[row] = ROW_OPEN;
  if (query) {
    table.readOpen[row] = 1;
    client.openReads++;
  }
  enqueue(traffic, client, row);
  if (client.open === 0) {
    client.server = server;
    client.epoch = traffic.epoch;
  }
  client.open++;
  one.link.open--;
  traffic.windowUsed[server] += length + HEADER_BYTES - CHIP_FRAME_BYTES_MAX;
}
