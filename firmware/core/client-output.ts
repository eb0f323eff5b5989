/**
 * What goes to a client: replies in the order of its requests, in its own language, and no more than it reads.
 *
 * A client that leaves its replies unread is choked: nothing more is asked for it until it reads. When memory for replies
 * is used up, the one that leaves most unread is closed. Closing is here too, because to end a connection is to let go
 * all that its queue holds.
 */
import {
  FLAG_MORE,
  FRAME_REPLY,
  HEADER_BYTES,
  OUTCOME_ANSWER,
  writeHeader,
} from "../../protocol/frame.js";
import { assert } from "./assert.js";
import { countIntake, dequeue, release, unwait } from "./client-queue.js";
import type { ClientSession } from "./client-session.js";
import { leaveServer, sendAbort, sendCredit, stopSending } from "./dispatch.js";
import {
  CLIENT_GONE,
  NO_ROW,
  ROW_DONE,
  ROW_OPEN,
  ROW_REPLYING,
  ROW_SENDING,
  ROW_WAITING,
} from "./in-flight.js";
import type { Traffic } from "./traffic.js";

export function setReading(traffic: Traffic, client: ClientSession, on: boolean): void {
  if (client.reading === on || client.closed) return;
  client.reading = on;
  traffic.ports.setReading(client.connection, on);
}

export function toClient(
  traffic: Traffic,
  client: ClientSession,
  bytes: Uint8Array,
  start: number,
  end: number,
): void {
  if (client.closed) return;
  traffic.ports.send(client.connection, bytes, start, end);
  client.outSince += end - start;
  if (client.outSince >= traffic.limits.clientOutCheckBytes) lookAtBacklog(traffic, client);
}

/** A reply, or a part of one, in the client's own language. */
export function deliver(
  traffic: Traffic,
  client: ClientSession,
  clientId: number,
  outcome: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  more: boolean,
): void {
  if (!client.native) {
    toClient(traffic, client, bytes, start, end);
    return;
  }
  // An aborted command's reply is swallowed.
  if (clientId === 0) return;
  const payloadMax = client.front!.payloadMax();
  let from = start;
  do {
    const to = end - from > payloadMax ? from + payloadMax : end;
    const flags = outcome | (more || to < end ? FLAG_MORE : 0);
    writeHeader(traffic.scratch, 32, FRAME_REPLY, flags, to - from, clientId);
    toClient(traffic, client, traffic.scratch, 32, 32 + HEADER_BYTES);
    toClient(traffic, client, bytes, from, to);
    from = to;
  } while (from < end);
}

/** A whole reply as it came from a server: its own header, before `start`, becomes the client's, and it leaves in one piece. */
export function passOn(
  traffic: Traffic,
  client: ClientSession,
  clientId: number,
  bytes: Uint8Array,
  start: number,
  end: number,
): void {
  if (!client.native || start < HEADER_BYTES || end - start > client.front!.payloadMax()) {
    deliver(traffic, client, clientId, OUTCOME_ANSWER, bytes, start, end, false);
    return;
  }
  if (clientId === 0) return;
  writeHeader(bytes, start - HEADER_BYTES, FRAME_REPLY, OUTCOME_ANSWER, end - start, clientId);
  toClient(traffic, client, bytes, start - HEADER_BYTES, end);
}

/** Gives out what is ready at the head of the queue. */
export function drainHead(traffic: Traffic, client: ClientSession): void {
  const table = traffic.table;
  const state = table.state;
  while (client.head !== NO_ROW && state[client.head] === ROW_DONE) {
    const row = client.head;
    const reply = table.reply[row]!;
    dequeue(traffic, client);
    deliver(
      traffic,
      client,
      table.clientId[row],
      table.outcome[row],
      reply,
      0,
      table.replyLength[row],
      false,
    );
    release(traffic, row);
    if (client.closed) return;
  }
  if (client.head === NO_ROW) {
    if (client.ending !== "") closeClient(traffic, client, client.ending, false);
    return;
  }
  // A reply that waited behind this one may now be passed on as it comes.
  if (state[client.head] === ROW_REPLYING) grantOwed(traffic, client, client.head);
}

/** Lets the server go on with a reply: there is memory for it, or the client takes it. */
export function grantOwed(traffic: Traffic, client: ClientSession, row: number): void {
  const table = traffic.table;
  const owed = table.creditOwed[row];
  if (owed === 0) return;
  if (table.streaming[row] !== 0 && client.choked) return;
  table.creditOwed[row] = 0;
  sendCredit(traffic, table.server[row], table.id[row], owed);
}

/** Whether the client reads what it is sent. */
export function lookAtBacklog(traffic: Traffic, client: ClientSession): void {
  const backlog = traffic.ports.backlog(client.connection);
  traffic.outTotal += backlog - client.outKnown;
  client.outKnown = backlog;
  client.outSince = 0;
  if (backlog > traffic.limits.clientOutHighBytes && !client.choked) {
    client.choked = true;
    traffic.chokedClients.push(client);
    traffic.hold.remove(client);
    setReading(traffic, client, false);
  }
  if (traffic.outTotal + traffic.keptReplyBytes > traffic.limits.clientOutTotalBytes)
    closeSlowest(traffic);
}

/** Memory for replies is used up: the client that leaves most unread is the one to go. */
export function closeSlowest(traffic: Traffic): void {
  let worst: ClientSession | undefined = undefined;
  for (let i = 0; i < traffic.chokedClients.length; i++) {
    const client = traffic.chokedClients[i];
    if (client.closed) continue;
    if (worst === undefined || client.outKnown > (worst as ClientSession).outKnown) worst = client;
  }
  if (worst === undefined) return;
  traffic.count.clientsClosedSlow++;
  closeClient(
    traffic,
    worst,
    "it left " + (worst as ClientSession).outKnown + " bytes of replies unread",
    true,
  );
}

/** Closes when the queue is empty. */
export function endClient(traffic: Traffic, client: ClientSession, reason: string): void {
  client.ending = reason;
  setReading(traffic, client, false);
  if (client.head === NO_ROW) closeClient(traffic, client, reason, false);
}

export function closeClient(
  traffic: Traffic,
  client: ClientSession,
  reason: string,
  abort: boolean,
): void {
  if (client.closed) return;
  forget(traffic, client);
  traffic.ports.close(client.connection, reason, abort);
}

/** The client is gone; what it has sent stays outstanding until it is answered. */
export function forget(traffic: Traffic, client: ClientSession): void {
  const table = traffic.table;
  const state = table.state;
  const next = table.next;
  if (client.closed) return;
  client.closed = true;
  traffic.count.clients--;
  traffic.hold.remove(client);
  let row = client.head;
  while (row !== NO_ROW) {
    const after = next[row];
    switch (state[row]) {
      case ROW_WAITING:
        unwait(traffic, client, row);
        release(traffic, row);
        break;
      case ROW_DONE:
        release(traffic, row);
        break;
      case ROW_OPEN:
        table.client[row] = CLIENT_GONE;
        break;
      case ROW_SENDING:
        stopSending(traffic, row, table.server[row]);
        sendAbort(traffic, table.server[row], table.id[row]);
        leaveServer(traffic, row);
        release(traffic, row);
        break;
      default:
        assert(state[row] === ROW_REPLYING, "a row in a queue is in use");
        sendAbort(traffic, table.server[row], table.id[row]);
        leaveServer(traffic, row);
        release(traffic, row);
        break;
    }
    row = after;
  }
  client.head = NO_ROW;
  client.tail = NO_ROW;
  client.rows = 0;
  client.open = 0;
  client.openReads = 0;
  client.firstWaiting = NO_ROW;
  countIntake(traffic, client, 0);
  traffic.outTotal -= client.outKnown;
  client.outKnown = 0;
  if (client.decoder !== undefined) client.decoder.close();
  if (client.inLine) {
    const others: ClientSession[] = [];
    for (let i = 0; i < traffic.line.length; i++) {
      if (traffic.line[i] !== client) others.push(traffic.line[i]);
    }
    traffic.line = others;
  }
  for (let i = 0; i < traffic.chokedClients.length; i++) {
    if (traffic.chokedClients[i] === client) {
      traffic.chokedClients.splice(i, 1);
      break;
    }
  }
}
