/**
 * What servers answer: which reply may pass, and what it makes possible.
 *
 *     reply frame ─> row by id ─> may it pass (G3)? ─> its client's head? ─> client, or kept until it is
 *                                                 └─> refused ─> asked again (retreat.ts)
 *
 * G3: a reply passes only if its id is outstanding at that very link and it was decided in the record's epoch, or in an
 * earlier one since which this server has been primary without a break. Every passed reply counts for G5, whichever of
 * those it is.
 */
import {
  FLAG_MORE,
  OUTCOME_ANSWER,
  OUTCOME_MASK,
  OUTCOME_REFUSED,
  OUTCOME_UNKNOWN,
} from "../../protocol/frame.js";
import type { ServerIndex } from "../../protocol/record.js";
import { callLine, resumeIntake } from "./client-intake.js";
import {
  closeClient,
  closeSlowest,
  deliver,
  drainHead,
  grantOwed,
  passOn,
} from "./client-output.js";
import { dequeue, dropReply, isQuery, release } from "./client-queue.js";
import type { ClientSession } from "./client-session.js";
import {
  REFUSED_PAUSE_MS,
  dispatch,
  leaveServer,
  lookAtDrain,
  pumpHeld,
  sendAbort,
  stopSending,
} from "./dispatch.js";
import { CLIENT_GONE, NO_ROW, ROW_DONE, ROW_OPEN, ROW_REPLYING, ROW_SENDING } from "./in-flight.js";
import { deliverUnknown, finishHere, textOf, unknownText } from "./local-answers.js";
import { endRetreat, staysInOrder, takeBack, takeOff } from "./retreat.js";
import type { Traffic } from "./traffic.js";

/** A reply longer than its first window is given so many more ahead of what has come. */
const LONG_REPLY_WINDOWS = 16;
/** A server's reason for a refusal: the header's class is not the command's. */
const REFUSED_CLASS = 3;
/** Replies that came while a record was written to flash. @unit bytes */
const STASH_BYTES_MAX = 4 * 1024 * 1024;

/** G3's epoch: the record's own, or an earlier one of the present primary's unbroken reign. */
function epochFits(traffic: Traffic, server: number, decidedIn: number): boolean {
  if (decidedIn === traffic.epoch) return true;
  return server === traffic.primary && decidedIn >= traffic.reign && decidedIn < traffic.epoch;
}

export function handleReply(
  traffic: Traffic,
  server: ServerIndex,
  flags: number,
  id: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  decidedIn: number,
  now: number,
): void {
  const table = traffic.table;
  const state = table.state;
  const row = table.find(id);
  if (
    row === NO_ROW ||
    table.server[row] !== server ||
    state[row] < ROW_SENDING ||
    state[row] > ROW_REPLYING ||
    !epochFits(traffic, server, decidedIn)
  ) {
    traffic.count.dropped++;
    return;
  }
  if (!traffic.routeOpen && traffic.passedEpoch !== traffic.epoch) {
    // A record is being written, perhaps the one that takes this epoch back (G5): nothing of an epoch of which nothing
    // has passed may pass now. A refusal could, but it must not overtake what is kept.
    stashReply(traffic, server, flags, id, bytes, start, end, decidedIn);
    return;
  }
  const connection = table.client[row];
  if (connection === CLIENT_GONE) {
    orphanReply(traffic, server, row, flags);
    if (traffic.hold.count > 0) pumpHeld(traffic, 2, now);
    if (traffic.line.length > 0) callLine(traffic, now);
    return;
  }
  const client = traffic.clients[connection]!;
  if (client.head !== row && !mayOvertake(traffic, client, row)) {
    traffic.events.onPeerFault(
      server,
      "reply " + id + " came before the one to an earlier command",
    );
    return;
  }
  const outcome = flags & OUTCOME_MASK;
  if (outcome === OUTCOME_REFUSED) {
    onRefused(traffic, client, row, server, bytes, start, end, now);
    return;
  }
  if (state[row] === ROW_SENDING) {
    // Answered before it was whole: too large for the server, say. It need not hear the rest.
    stopSending(traffic, row, server);
    sendAbort(traffic, server, id);
    client.sending = false;
    state[row] = ROW_OPEN;
  }
  if (traffic.passedEpoch !== traffic.epoch) {
    traffic.passedEpoch = traffic.epoch;
    traffic.events.onFirstPassed(traffic.epoch);
  }
  if (client.head !== row && client.retreating && !staysInOrder(traffic, client, row)) {
    // A read that was run before an earlier command of its connection is run again after that.
    if ((flags & FLAG_MORE) !== 0) sendAbort(traffic, server, id);
    takeBack(traffic, client, row, now);
    if (client.open === 0) endRetreat(traffic, client);
    return;
  }
  if ((flags & FLAG_MORE) !== 0) {
    partOfReply(traffic, client, row, bytes, start, end, now);
    return;
  }
  if (client.head === row && table.reply[row] === undefined) {
    // The common case: whole, and the head's.
    traffic.count.outcomeUnknown += outcome === OUTCOME_UNKNOWN ? 1 : 0;
    dequeue(traffic, client);
    answered(traffic, client, row, server, end - start, now);
    if (outcome === OUTCOME_ANSWER) {
      passOn(traffic, client, table.clientId[row], bytes, start, end);
    } else {
      deliverUnknown(traffic, client, row, bytes, start, end);
    }
    release(traffic, row);
    if (client.closed) return;
    afterAnswer(traffic, client, now);
    return;
  }
  lastOfReply(traffic, client, row, server, outcome, bytes, start, end, now);
}

/** Accounts for an answered row; it is still in use. */
function answered(
  traffic: Traffic,
  client: ClientSession,
  row: number,
  server: number,
  replyBytes: number,
  now: number,
): void {
  const table = traffic.table;
  const state = table.state;
  leaveServer(traffic, row);
  client.replyBytes += (replyBytes - client.replyBytes) / 4;
  table.unbind(row);
  client.open--;
  if (client.open === 0) client.retreating = false;
  // A reply in parts took as long as its client did, which says nothing of the server.
  if (state[row] === ROW_OPEN && isQuery(traffic, row)) {
    traffic.target.completed(server, now - table.sentAt[row], table.ahead[row], now);
  }
}

/** What an answer makes possible: others' held commands, the next in line, the client's own. */
function afterAnswer(traffic: Traffic, client: ClientSession, now: number): void {
  const state = traffic.table.state;
  // The place it leaves is for those who were held before it.
  if (traffic.hold.count > 0) pumpHeld(traffic, 4, now);
  if (client.closed) return;
  if (client.head === NO_ROW) {
    if (client.ending !== "") {
      closeClient(traffic, client, client.ending, false);
      return;
    }
  } else {
    if (state[client.head] === ROW_DONE || state[client.head] === ROW_REPLYING)
      drainHead(traffic, client);
    if (client.closed) return;
    if (client.firstWaiting !== NO_ROW) dispatch(traffic, client, now);
  }
  if (client.paused) resumeIntake(traffic, client, now);
  if (traffic.line.length > 0) callLine(traffic, now);
  if (traffic.draining) lookAtDrain(traffic);
}

/**
 * A reply may come before those of earlier commands only if each of these is part way through, was refused
 * (it waits again then) or is done.
 */
function mayOvertake(traffic: Traffic, client: ClientSession, row: number): boolean {
  const state = traffic.table.state;
  const next = traffic.table.next;
  let at = client.head;
  while (at !== row) {
    if (state[at] === ROW_OPEN || state[at] === ROW_SENDING) return false;
    at = next[at];
  }
  return true;
}

function partOfReply(
  traffic: Traffic,
  client: ClientSession,
  row: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  now: number,
): void {
  const table = traffic.table;
  const state = table.state;
  let length = end - start;
  if (state[row] !== ROW_REPLYING) {
    state[row] = ROW_REPLYING;
    // One round trip for every window would make a long reply slow.
    if (
      !client.choked &&
      traffic.keptReplyBytes + traffic.outTotal < traffic.limits.clientOutTotalBytes >> 1
    ) {
      length += LONG_REPLY_WINDOWS * traffic.replyWindow;
    }
  }
  if (table.streaming[row] !== 0) {
    deliver(traffic, client, table.clientId[row], OUTCOME_ANSWER, bytes, start, end, true);
  } else {
    keepPart(traffic, row, bytes, start, end);
    if (client.head === row && table.replyLength[row] > traffic.replyKeptMax) {
      table.streaming[row] = 1;
      deliver(
        traffic,
        client,
        table.clientId[row],
        OUTCOME_ANSWER,
        table.reply[row]!,
        0,
        table.replyLength[row],
        true,
      );
      dropReply(traffic, row);
    }
  }
  if (client.closed || state[row] !== ROW_REPLYING) return;
  table.creditOwed[row] += length;
  if (client.head === row) grantOwed(traffic, client, row);
  if (client.paused) resumeIntake(traffic, client, now);
  if (traffic.keptReplyBytes + traffic.outTotal > traffic.limits.clientOutTotalBytes)
    closeSlowest(traffic);
}

function keepPart(
  traffic: Traffic,
  row: number,
  bytes: Uint8Array,
  start: number,
  end: number,
): void {
  const table = traffic.table;
  const length = table.replyLength[row];
  const total = length + end - start;
  let kept = table.reply[row];
  if (kept === undefined || kept.length < total) {
    let size = kept === undefined ? 4 * traffic.replyWindow : kept.length * 2;
    while (size < total) size *= 2;
    const grown = new Uint8Array(size);
    if (kept !== undefined) {
      grown.set(kept.subarray(0, length), 0);
      traffic.keptReplyBytes -= kept.length;
    }
    traffic.keptReplyBytes += size;
    kept = grown;
    table.reply[row] = grown;
  }
  kept.set(bytes.subarray(start, end), length);
  table.replyLength[row] = total;
}

function lastOfReply(
  traffic: Traffic,
  client: ClientSession,
  row: number,
  server: number,
  outcome: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  now: number,
): void {
  const table = traffic.table;
  const state = table.state;
  answered(traffic, client, row, server, table.replyLength[row] + end - start, now);
  if (table.streaming[row] !== 0) {
    dequeue(traffic, client);
    deliver(traffic, client, table.clientId[row], outcome, bytes, start, end, false);
    release(traffic, row);
  } else if (outcome === OUTCOME_UNKNOWN) {
    traffic.count.outcomeUnknown++;
    finishHere(traffic, client, row, OUTCOME_UNKNOWN, unknownText(bytes, start, end));
    drainHead(traffic, client);
  } else {
    keepPart(traffic, row, bytes, start, end);
    state[row] = ROW_DONE;
    table.outcome[row] = outcome;
    drainHead(traffic, client);
  }
  if (client.closed) return;
  afterAnswer(traffic, client, now);
}

/** Surely not done: it is asked again, in its place. */
function onRefused(
  traffic: Traffic,
  client: ClientSession,
  row: number,
  server: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  now: number,
): void {
  const table = traffic.table;
  const state = table.state;
  if (state[row] === ROW_SENDING) {
    stopSending(traffic, row, server);
    sendAbort(traffic, server, table.id[row]);
    client.sending = false;
  }
  if (end > start && bytes[start] === REFUSED_CLASS) {
    // It will never be taken: asking again is of no use.
    takeOff(traffic, client, row);
    if (client.open === 0) client.retreating = false;
    finishHere(traffic, client, row, OUTCOME_ANSWER, "ERR " + textOf(bytes, start + 1, end));
    afterAnswer(traffic, client, now);
    return;
  }
  if (end > start + 1) traffic.why = "server refuses: " + textOf(bytes, start + 1, end);
  if (table.heldSince[row] < 0) table.heldSince[row] = now;
  traffic.refusedUntil[server] = now + REFUSED_PAUSE_MS;
  if (table.streaming[row] !== 0) {
    closeClient(traffic, client, "the rest of a long reply is lost", true);
    return;
  }
  takeBack(traffic, client, row, now);
  client.retreating = true;
  if (client.open === 0) endRetreat(traffic, client);
  if (traffic.draining) lookAtDrain(traffic);
}

function orphanReply(traffic: Traffic, server: number, row: number, flags: number): void {
  const table = traffic.table;
  if ((flags & FLAG_MORE) !== 0) sendAbort(traffic, server, table.id[row]);
  leaveServer(traffic, row);
  release(traffic, row);
  if (traffic.draining) lookAtDrain(traffic);
}

function stashReply(
  traffic: Traffic,
  server: ServerIndex,
  flags: number,
  id: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  decidedIn: number,
): void {
  if (traffic.stashBytes + end - start > STASH_BYTES_MAX) {
    // On a new link everything is asked again, so nothing is lost but time.
    traffic.events.onPeerFault(server, "too many replies while a record is written");
    return;
  }
  traffic.stashBytes += end - start;
  traffic.stash.push({
    server: server,
    flags: flags,
    id: id,
    bytes: bytes.slice(start, end),
    epoch: decidedIn,
  });
}

export function replayStash(traffic: Traffic, now: number): void {
  const kept = traffic.stash;
  traffic.stash = [];
  traffic.stashBytes = 0;
  for (let i = 0; i < kept.length; i++) {
    const one = kept[i];
    handleReply(
      traffic,
      one.server,
      one.flags,
      one.id,
      one.bytes,
      0,
      one.bytes.length,
      one.epoch,
      now,
    );
  }
}
