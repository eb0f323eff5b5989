/**
 * Taking back what was sent: a link is lost, the roles have changed, or a server refused. It is asked again, in its order.
 *
 * Every asking has an id of its own, so an answer to the first can never be taken for the second's. A write keeps
 * its number, which is the id of its first asking: asked again it carries the number in a session prefix, so
 * that it is not run twice. A read can always be asked again in its place, because no write that it meets was sent
 * behind it (pipeline-order.ts); a refused write too, because a server that has refused one runs none behind it.
 */
import {
  CLASS_QUERY,
  FLAG_CLASS_MASK,
  FLAG_SESSION,
  HEADER_BYTES,
  OUTCOME_ANSWER,
  SESSION_PREFIX_BYTES,
  writeU32,
} from "../../protocol/frame.js";
import { assert } from "./assert.js";
import { closeClient, drainHead } from "./client-output.js";
import {
  closeRead,
  dropReply,
  isRead,
  lengthOf,
  release,
  unwait,
  wait,
  waitingFrom,
} from "./client-queue.js";
import type { ClientSession } from "./client-session.js";
import { leaveServer } from "./dispatch.js";
import {
  CLIENT_GONE,
  NO_ROW,
  ROW_DONE,
  ROW_REPLYING,
  ROW_SENDING,
  ROW_WAITING,
} from "./in-flight.js";
import { giveUp } from "./local-answers.js";
import type { Traffic } from "./traffic.js";

/**
 * A command was run while earlier ones of its connection had been refused. If it is a write, the writes before it are
 * given up, because they can no longer be asked in order; the reads before it cannot see it (pipeline-order.ts).
 * @returns false when it is a read: it can be asked again in its place
 */
export function staysInOrder(traffic: Traffic, client: ClientSession, row: number): boolean {
  const table = traffic.table;
  const state = table.state;
  const next = table.next;
  let at = client.head;
  let waits = false;
  while (at !== row) {
    if (state[at] === ROW_WAITING) waits = true;
    at = next[at];
  }
  if (!waits) return true;
  if (isRead(traffic, row)) return false;
  at = client.head;
  while (at !== row) {
    if (state[at] === ROW_WAITING && !isRead(traffic, at)) {
      unwait(traffic, client, at);
      giveUp(
        traffic,
        client,
        at,
        "the server refused it and has run a later command of this connection",
      );
    }
    at = next[at];
  }
  drainHead(traffic, client);
  return true;
}

/** All that was open when one was refused is known: from here on it is asked again. */
export function endRetreat(traffic: Traffic, client: ClientSession): void {
  client.retreating = false;
  if (!client.choked) traffic.hold.add(client);
}

/** An open row waits again, in its old place. */
export function takeBack(traffic: Traffic, client: ClientSession, row: number, now: number): void {
  takeOff(traffic, client, row);
  traffic.count.askedAgain++;
  wait(traffic, client, row, now);
  // Where it stands in the queue decides, not when it came back.
  client.firstWaiting = waitingFrom(traffic, client.head);
}

/** An open row is not at its server any more. */
export function takeOff(traffic: Traffic, client: ClientSession, row: number): void {
  const table = traffic.table;
  leaveServer(traffic, row);
  client.open--;
  closeRead(traffic, client, row);
  dropReply(traffic, row);
  table.creditOwed[row] = 0;
  table.unbind(row);
  if ((table.flags[row] & (FLAG_CLASS_MASK | FLAG_SESSION)) !== CLASS_QUERY)
    nameNumber(traffic, row);
}

/** From now on a write is asked under the number of its first asking. */
function nameNumber(traffic: Traffic, row: number): void {
  const table = traffic.table;
  if ((table.flags[row] & FLAG_SESSION) !== 0) return;
  const old = table.chunk[row]!;
  const length = lengthOf(traffic, row) + SESSION_PREFIX_BYTES;
  const chunk = traffic.writeBytes.room(length + HEADER_BYTES);
  const at = chunk.used + HEADER_BYTES;
  chunk.bytes.set(traffic.sessionId, at);
  writeU32(chunk.bytes, at + 8, table.number[row]);
  // Nothing is told here of what has been answered: the session's window forgets by itself.
  writeU32(chunk.bytes, at + 12, 0);
  chunk.bytes.set(old.bytes.subarray(table.start[row], table.end[row]), at + SESSION_PREFIX_BYTES);
  traffic.writeBytes.keep(chunk, length + HEADER_BYTES);
  traffic.writeBytes.release(old);
  table.chunk[row] = chunk;
  table.start[row] = at;
  table.end[row] = at + length;
  table.flags[row] |= FLAG_SESSION;
  table.named[row] = 1;
}

function isAnsweredRead(traffic: Traffic, row: number): boolean {
  const table = traffic.table;
  return table.asked[row] !== 0 && table.outcome[row] === OUTCOME_ANSWER && isRead(traffic, row);
}

function retreatClient(traffic: Traffic, client: ClientSession, now: number): void {
  const table = traffic.table;
  const state = table.state;
  const next = table.next;
  if (table.streaming[client.head] !== 0) {
    closeClient(traffic, client, "the rest of a long reply is lost with its server", true);
    return;
  }
  let row = client.head;
  let askedAgain = false;
  while (row !== NO_ROW) {
    const after = next[row];
    if (state[row] >= ROW_SENDING && state[row] <= ROW_REPLYING) {
      askedAgain = true;
      if (state[row] !== ROW_SENDING && !isRead(traffic, row)) {
        table.mayBeDone[row] = 1;
      }
      takeBack(traffic, client, row, now);
    } else if (askedAgain && state[row] === ROW_DONE && isAnsweredRead(traffic, row)) {
      // It was answered behind one that was not: asked after that one it cannot be older.
      dropReply(traffic, row);
      closeRead(traffic, client, row);
      wait(traffic, client, row, now);
    }
    row = after;
  }
  client.firstWaiting = waitingFrom(traffic, client.head);
  client.sending = false;
  client.retreating = false;
  assert(client.open === 0, "a client that was taken back has nothing open");
  drainHead(traffic, client);
  if (!client.closed && !client.choked && client.firstWaiting !== NO_ROW) traffic.hold.add(client);
}

/** Everything open at a server is to be asked again, wherever the route says. */
export function retreatFrom(traffic: Traffic, server: number, now: number): void {
  const table = traffic.table;
  const state = table.state;
  if (traffic.inFlightAt[server] === 0) return;
  traffic.sendingRows[server] = [];
  const moved: ClientSession[] = [];
  for (let i = 0; i < traffic.clients.length; i++) {
    const client = traffic.clients[i];
    if (client !== undefined && !client.closed && client.open > 0 && client.server === server) {
      moved.push(client);
    }
  }
  // The oldest first: the order in which their numbers were given.
  moved.sort((a, b) => openId(traffic, a) - openId(traffic, b));
  for (let i = 0; i < moved.length; i++) retreatClient(traffic, moved[i], now);
  for (let row = 0; row < table.capacity; row++) {
    if (
      state[row] >= ROW_SENDING &&
      state[row] <= ROW_REPLYING &&
      table.client[row] === CLIENT_GONE &&
      table.server[row] === server
    ) {
      leaveServer(traffic, row);
      release(traffic, row);
    }
  }
  assert(traffic.inFlightAt[server] === 0, "nothing is left at a server that was left");
  traffic.windowUsed[server] = 0;
  let kept = 0;
  for (let i = 0; i < traffic.stash.length; i++) {
    if (traffic.stash[i].server === server) continue;
    const one = traffic.stash[i];
    traffic.stash[i] = traffic.stash[kept];
    traffic.stash[kept++] = one;
  }
  while (traffic.stash.length > kept) traffic.stashBytes -= traffic.stash.pop()!.bytes.length;
}

function openId(traffic: Traffic, client: ClientSession): number {
  const table = traffic.table;
  const next = table.next;
  let row = client.head;
  while (row !== NO_ROW && table.id[row] === 0) row = next[row];
  return row === NO_ROW ? 0 : table.id[row];
}

/** Under a new session an old number means nothing: what may be done must not be asked again. */
export function forgetNumbers(traffic: Traffic, client: ClientSession): void {
  const table = traffic.table;
  const state = table.state;
  const next = table.next;
  let row = client.head;
  while (row !== NO_ROW) {
    if (state[row] === ROW_WAITING && table.asked[row] !== 0) {
      unwait(traffic, client, row);
      if (table.mayBeDone[row] !== 0 && table.named[row] !== 0) {
        giveUp(traffic, client, row, "the controller's session has ended");
      } else {
        if (table.named[row] !== 0) {
          table.start[row] += SESSION_PREFIX_BYTES;
          table.flags[row] &= ~FLAG_SESSION;
          table.named[row] = 0;
        }
        table.asked[row] = 0;
        wait(traffic, client, row, table.sentAt[row]);
      }
    }
    row = next[row];
  }
  client.firstWaiting = waitingFrom(traffic, client.head);
  drainHead(traffic, client);
}
