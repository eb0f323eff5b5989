/**
 * Chooses the server for a waiting command and sends it there.
 *
 *     waiting row ─> place() ─> server   ─> one frame, or fragments while the link takes them
 *                            ─> own order: after its connection's open commands
 *                            ─> held:      nobody can take it now (hold-queue.ts)
 *
 * The rules kept here: G1 (a write goes to the record's primary, a read there or, where readable, to the other; nothing
 * while the route is closed), and that a connection's open commands are all at one server and were sent in one epoch,
 * so they are run in order.
 */
import {
  FLAG_MORE,
  FLAG_ORDERED,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_CREDIT,
  HEADER_BYTES,
  writeHeader,
  writeU32,
} from "../../protocol/frame.js";
import { commandStart, isQuery, isRead, lengthOf, unwait } from "./client-queue.js";
import type { ClientSession } from "./client-session.js";
import { NO_ROW, ROW_OPEN, ROW_SENDING } from "./in-flight.js";
import { KEY_UNKNOWN } from "./pipeline-order.js";
import type { Traffic } from "./traffic.js";

/** What place() says instead of a server: after the open commands of its own connection, or when somebody can. */
export const PLACE_OWN_ORDER = -1;
export const PLACE_HELD = -2;
/** A server that refused is not asked again sooner. @unit ms */
export const REFUSED_PAUSE_MS = 2;
/** Commands a held client may have sent before it is the next one's turn. */
const TURN_COMMANDS = 16;
/** As many turns as the held clients have commands for. */
export const ALL_TURNS = 0x7fffffff;
/** Rows of its connection before a write that are looked at for reads it may meet. */
const LOOK_BACK_ROWS = 128;

export function linked(traffic: Traffic, server: number): boolean {
  return traffic.linkOf[server] >= 0;
}

/** Ready for reads, as far as the route and the link go. */
function mayRead(traffic: Traffic, server: number): boolean {
  return (
    traffic.routeOpen &&
    traffic.linkOf[server] >= 0 &&
    (traffic.readable[server] || server === traffic.primary)
  );
}

/** There is room on the link for a command of that many bytes. */
function hasRoom(traffic: Traffic, server: number, length: number): boolean {
  return (
    traffic.inFlightAt[server] < traffic.inFlightMax &&
    (traffic.windowUsed[server] + length + HEADER_BYTES <= traffic.windowBytes[server] ||
      traffic.windowUsed[server] === 0)
  );
}

/** A write waits for the reads before it that it meets (pipeline-order.ts), or that are too many to look at. */
function meetsOpenRead(traffic: Traffic, client: ClientSession, row: number): boolean {
  const table = traffic.table;
  const order = traffic.order;
  let taken = false;
  let left = LOOK_BACK_ROWS;
  for (let at = client.head; at !== row; at = table.next[at]) {
    if (left === 0) return true;
    left--;
    if (table.readOpen[at] === 0) continue;
    if (!taken) {
      order.takeWrite(table.chunk[row]!.bytes, commandStart(traffic, row), table.end[row]);
      taken = true;
    }
    let key = table.readKey[at];
    if (key === KEY_UNKNOWN) {
      key = order.keyOf(table.chunk[at]!.bytes, commandStart(traffic, at), table.end[at]);
      table.readKey[at] = key;
    }
    if (order.meets(key)) return true;
  }
  return false;
}

/** @returns the server for a waiting row, or PLACE_* */
export function place(traffic: Traffic, client: ClientSession, row: number, now: number): number {
  const table = traffic.table;
  if (client.sending || client.retreating) return PLACE_OWN_ORDER;
  const query = isQuery(traffic, row);
  const length = lengthOf(traffic, row);
  if (client.open > 0) {
    const server = client.server;
    // Replies as long as its last ones: no more of them at a time than a client is worth.
    if (client.open * client.replyBytes > traffic.limits.clientReplyBytesMax)
      return PLACE_OWN_ORDER;
    if (
      client.epoch !== traffic.epoch ||
      (query ? !mayRead(traffic, server) : server !== traffic.primary)
    ) {
      return PLACE_OWN_ORDER;
    }
    if (client.openReads > 0 && !isRead(traffic, row) && meetsOpenRead(traffic, client, row)) {
      return PLACE_OWN_ORDER;
    }
    if (!traffic.routeOpen || !linked(traffic, server) || now < traffic.refusedUntil[server])
      return PLACE_HELD;
    if (traffic.draining && table.asked[row] === 0) return PLACE_HELD;
    return hasRoom(traffic, server, length) ? server : PLACE_HELD;
  }
  if (!traffic.routeOpen || (traffic.draining && table.asked[row] === 0)) return PLACE_HELD;
  if (!query) {
    if (!linked(traffic, traffic.primary) || now < traffic.refusedUntil[traffic.primary])
      return PLACE_HELD;
    return hasRoom(traffic, traffic.primary, length) ? traffic.primary : PLACE_HELD;
  }
  const chosen = traffic.target.choose(
    mayRead(traffic, 0) && now >= traffic.refusedUntil[0] && hasRoom(traffic, 0, length),
    mayRead(traffic, 1) && now >= traffic.refusedUntil[1] && hasRoom(traffic, 1, length),
    traffic.inFlightAt[0],
    traffic.inFlightAt[1],
    now,
  );
  return chosen < 0 ? PLACE_HELD : chosen;
}

export function lookAtRoute(traffic: Traffic, now: number): void {
  const writes = traffic.routeOpen && linked(traffic, traffic.primary);
  if (writes) traffic.writesDownSince = -1;
  else if (traffic.writesDownSince < 0) traffic.writesDownSince = now;
  if (mayRead(traffic, 0) || mayRead(traffic, 1)) traffic.readsDownSince = -1;
  else if (traffic.readsDownSince < 0) traffic.readsDownSince = now;
}

/** Sends what may be sent of a client's waiting commands. */
export function dispatch(traffic: Traffic, client: ClientSession, now: number): void {
  dispatchSome(traffic, client, traffic.table.capacity, now);
}

/** @returns how many were sent: `most`, or all that can be now */
function dispatchSome(traffic: Traffic, client: ClientSession, most: number, now: number): number {
  const hold = traffic.hold;
  let sent = 0;
  while (client.firstWaiting !== NO_ROW && !client.choked) {
    if (sent === most) return sent;
    const row = client.firstWaiting;
    const server = place(traffic, client, row, now);
    if (server < 0) {
      if (server === PLACE_HELD) hold.add(client);
      else hold.remove(client);
      return sent;
    }
    unwait(traffic, client, row);
    send(traffic, client, row, server, now);
    sent++;
  }
  hold.remove(client);
  return sent;
}

/** Lets held clients go on, the longest held first, each a few commands at a time and then from the end again. */
export function pumpHeld(traffic: Traffic, turns: number, now: number): void {
  const hold = traffic.hold;
  let client = hold.first;
  let left = turns;
  while (client !== undefined && client.held && left > 0) {
    let after = client.heldAfter;
    const sent = dispatchSome(traffic, client, TURN_COMMANDS, now);
    if (sent > 0 && client.held) {
      hold.remove(client);
      hold.add(client);
      if (after === undefined) after = client;
    }
    client = after;
    left--;
  }
}

export function send(
  traffic: Traffic,
  client: ClientSession,
  row: number,
  server: number,
  now: number,
): void {
  const table = traffic.table;
  const state = table.state;
  const start = table.start[row];
  const end = table.end[row];
  const length = end - start;
  let flags = table.flags[row];
  if (client.open > 0) flags |= FLAG_ORDERED;
  let id = 0;
  do {
    id = traffic.nextId;
    traffic.nextId++;
  } while (!table.bind(row, id));
  if (table.asked[row] === 0) table.number[row] = id;
  if (traffic.nextId >= traffic.idMax) traffic.draining = true;
  table.asked[row] = 1;
  table.server[row] = server;
  table.ahead[row] = traffic.inFlightAt[server];
  table.sentAt[row] = now;
  traffic.inFlightAt[server]++;
  traffic.windowUsed[server] += length + HEADER_BYTES;
  if (client.open === 0) {
    client.server = server;
    client.epoch = traffic.epoch;
  }
  client.open++;
  if (isRead(traffic, row)) {
    table.readOpen[row] = 1;
    client.openReads++;
    if (table.primaryOnly[row] === 0) traffic.count.readsTo[server]++;
  }
  const bytes = table.chunk[row]!.bytes;
  if (length <= traffic.linkPayloadMax[server]) {
    state[row] = ROW_OPEN;
    writeHeader(bytes, start - HEADER_BYTES, FRAME_COMMAND, flags, length, id);
    traffic.ports.send(traffic.linkOf[server], bytes, start - HEADER_BYTES, end);
    return;
  }
  state[row] = ROW_SENDING;
  table.sentTo[row] = start;
  // The ORDERED flag of the first fragment holds for the command; it is kept where send finds it again.
  table.ordered[row] = flags & FLAG_ORDERED;
  client.sending = true;
  traffic.sendingRows[server].push(row);
  pumpFragments(traffic, server, now);
}

/** One fragment of each large command in turn, while the link takes them. */
export function pumpFragments(traffic: Traffic, server: number, now: number): void {
  const table = traffic.table;
  const state = table.state;
  const rows = traffic.sendingRows[server];
  while (
    rows.length > 0 &&
    traffic.ports.backlog(traffic.linkOf[server]) < traffic.limits.linkLowBytes
  ) {
    const row = rows.shift()!;
    if (sendFragment(traffic, row, server)) {
      const client = traffic.clients[table.client[row]]!;
      client.sending = false;
      state[row] = ROW_OPEN;
      if (client.firstWaiting !== NO_ROW) dispatch(traffic, client, now);
    } else {
      rows.push(row);
    }
  }
}

/** @returns true when it was the last */
function sendFragment(traffic: Traffic, row: number, server: number): boolean {
  const table = traffic.table;
  const bytes = table.chunk[row]!.bytes;
  const from = table.sentTo[row];
  const last = table.end[row] - from <= traffic.linkPayloadMax[server];
  const to = last ? table.end[row] : from + traffic.linkPayloadMax[server];
  const flags = table.flags[row] | table.ordered[row] | (last ? 0 : FLAG_MORE);
  const at = from - HEADER_BYTES;
  // The header stands on the end of the fragment before, which may be needed again: it is put back.
  for (let i = 0; i < HEADER_BYTES; i++) traffic.scratch[i] = bytes[at + i];
  writeHeader(bytes, at, FRAME_COMMAND, flags, to - from, table.id[row]);
  traffic.ports.send(traffic.linkOf[server], bytes, at, to);
  for (let i = 0; i < HEADER_BYTES; i++) bytes[at + i] = traffic.scratch[i];
  table.sentTo[row] = to;
  return last;
}

export function stopSending(traffic: Traffic, row: number, server: number): void {
  const rows = traffic.sendingRows[server];
  for (let i = 0; i < rows.length; i++) {
    if (rows[i] === row) {
      rows.splice(i, 1);
      return;
    }
  }
}

export function sendAbort(traffic: Traffic, server: number, id: number): void {
  if (!linked(traffic, server)) return;
  writeHeader(traffic.scratch, 16, FRAME_ABORT, 0, 0, id);
  traffic.ports.send(traffic.linkOf[server], traffic.scratch, 16, 16 + HEADER_BYTES);
}

export function sendCredit(traffic: Traffic, server: number, id: number, bytes: number): void {
  writeHeader(traffic.scratch, 16, FRAME_CREDIT, 0, 4, id);
  writeU32(traffic.scratch, 24, bytes);
  traffic.ports.send(traffic.linkOf[server], traffic.scratch, 16, 28);
}

/** The row is not at its server any more. */
export function leaveServer(traffic: Traffic, row: number): void {
  const table = traffic.table;
  const server = table.server[row];
  traffic.inFlightAt[server]--;
  traffic.windowUsed[server] -= lengthOf(traffic, row) + HEADER_BYTES;
}

export function lookAtDrain(traffic: Traffic): void {
  const table = traffic.table;
  if (
    !traffic.draining ||
    traffic.idsToldUsedUp ||
    traffic.inFlightAt[0] !== 0 ||
    traffic.inFlightAt[1] !== 0
  )
    return;
  // What has been asked before is settled under its own number first; it stands before all else.
  let client = traffic.hold.first;
  while (client !== undefined) {
    if (client.firstWaiting !== NO_ROW && table.asked[client.firstWaiting] !== 0) return;
    client = client.heldAfter;
  }
  traffic.idsToldUsedUp = true;
  traffic.events.onIdsUsedUp();
}
