/**
 * A client's queue of unanswered commands, as rows of the table (in-flight.ts) chained in the order of the requests.
 *
 *     head ─> OPEN ─> DONE ─> OPEN ─> WAITING ─> tail
 *                                      └ firstWaiting
 *
 * Only the chain and what its rows hold in memory are kept here; who may be sent where is dispatch.ts.
 */
import {
  CLASS_QUERY,
  FLAG_CLASS_MASK,
  FLAG_SESSION,
  SESSION_PREFIX_BYTES,
} from "../../protocol/frame.js";
import type { ClientSession } from "./client-session.js";
import { NO_ROW, ROW_DONE, ROW_WAITING } from "./in-flight.js";
import type { Traffic } from "./traffic.js";

export function enqueue(traffic: Traffic, client: ClientSession, row: number): void {
  const table = traffic.table;
  const next = table.next;
  table.client[row] = client.connection;
  if (client.tail === NO_ROW) client.head = row;
  else next[client.tail] = row;
  client.tail = row;
  client.rows++;
}

export function dequeue(traffic: Traffic, client: ClientSession): void {
  const next = traffic.table.next;
  const row = client.head;
  closeRead(traffic, client, row);
  client.head = next[row];
  if (client.head === NO_ROW) client.tail = NO_ROW;
  client.rows--;
}

/** Writes behind this row need no longer wait for it, if it is a read. */
export function closeRead(traffic: Traffic, client: ClientSession, row: number): void {
  const readOpen = traffic.table.readOpen;
  if (readOpen[row] === 0) return;
  readOpen[row] = 0;
  client.openReads--;
}

/** Bytes held of what a client has sent and is not a command in its queue. */
export function countIntake(traffic: Traffic, client: ClientSession, held: number): void {
  const own = traffic.intakeOwn;
  const before = client.intakeBytes;
  traffic.intakeTotal += held - before;
  traffic.intakeShared += (held > own ? held - own : 0) - (before > own ? before - own : 0);
  client.intakeBytes = held;
}

export function release(traffic: Traffic, row: number): void {
  const table = traffic.table;
  const chunk = table.chunk[row];
  if (chunk !== undefined) {
    if ((table.flags[row] & FLAG_CLASS_MASK) === CLASS_QUERY) traffic.readBytes.release(chunk);
    else traffic.writeBytes.release(chunk);
  }
  dropReply(traffic, row);
  table.give(row);
}

export function dropReply(traffic: Traffic, row: number): void {
  const table = traffic.table;
  const reply = table.reply[row];
  if (reply === undefined) return;
  traffic.keptReplyBytes -= reply.length;
  table.reply[row] = undefined;
  table.replyLength[row] = 0;
}

export function setReply(traffic: Traffic, row: number, bytes: Uint8Array, outcome: number): void {
  const table = traffic.table;
  const state = table.state;
  state[row] = ROW_DONE;
  table.reply[row] = bytes;
  table.replyLength[row] = bytes.length;
  table.outcome[row] = outcome;
  traffic.keptReplyBytes += bytes.length;
}

export function wait(traffic: Traffic, client: ClientSession, row: number, now: number): void {
  const table = traffic.table;
  const state = table.state;
  state[row] = ROW_WAITING;
  table.sentAt[row] = now;
  const length = lengthOf(traffic, row);
  traffic.hold.commands++;
  traffic.hold.bytes += length;
  client.waitingBytes += length;
  if (client.firstWaiting === NO_ROW) client.firstWaiting = row;
}

export function unwait(traffic: Traffic, client: ClientSession, row: number): void {
  const next = traffic.table.next;
  const length = lengthOf(traffic, row);
  traffic.hold.commands--;
  traffic.hold.bytes -= length;
  client.waitingBytes -= length;
  if (client.firstWaiting === row) client.firstWaiting = waitingFrom(traffic, next[row]);
}

export function waitingFrom(traffic: Traffic, from: number): number {
  const state = traffic.table.state;
  const next = traffic.table.next;
  let row = from;
  while (row !== NO_ROW && state[row] !== ROW_WAITING) row = next[row];
  return row;
}

export function lengthOf(traffic: Traffic, row: number): number {
  const table = traffic.table;
  return table.end[row] - table.start[row];
}

/** Changes nothing, wherever it must be read. */
export function isRead(traffic: Traffic, row: number): boolean {
  return (traffic.table.flags[row] & FLAG_CLASS_MASK) === CLASS_QUERY;
}

/** A read that either server may answer. */
export function isQuery(traffic: Traffic, row: number): boolean {
  const table = traffic.table;
  return (table.flags[row] & FLAG_CLASS_MASK) === CLASS_QUERY && table.primaryOnly[row] === 0;
}

/** Where the RESP command begins, behind a session prefix. */
export function commandStart(traffic: Traffic, row: number): number {
  const table = traffic.table;
  const named = (table.flags[row] & FLAG_SESSION) !== 0;
  return named ? table.start[row] + SESSION_PREFIX_BYTES : table.start[row];
}
