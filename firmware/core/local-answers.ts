/**
 * Answers the controller makes itself: to connection commands, to what it refuses, and to what it gives up.
 *
 * They stand in the client's queue like a server's, so they never overtake one. Which error a client hears says what is
 * known: CLUSTERDOWN only for what was surely not done, OUTCOMEUNKNOWN for the rest.
 */
import {
  CLASS_QUERY,
  OUTCOME_ANSWER,
  OUTCOME_REFUSED,
  OUTCOME_UNKNOWN,
} from "../../protocol/frame.js";
import { putText, writeError, writeSimple } from "../../protocol/resp.js";
import { assert } from "./assert.js";
import { deliver, toClient } from "./client-output.js";
import { dropReply, enqueue, setReply } from "./client-queue.js";
import type { ClientSession } from "./client-session.js";
import { errorBytes } from "./connection-commands.js";
import { NO_ROW } from "./in-flight.js";
import type { Traffic } from "./traffic.js";

export function answerLocal(traffic: Traffic, client: ClientSession): void {
  const localSink = traffic.localSink;
  const table = traffic.table;
  if (client.head === NO_ROW) {
    toClient(traffic, client, localSink.bytes, 0, localSink.length);
    return;
  }
  const row = table.take();
  if (row === NO_ROW) {
    // Intake stops long before the table is full, so only a bug comes here.
    assert(false, "a row for a local answer");
    return;
  }
  table.chunk[row] = undefined;
  table.flags[row] = CLASS_QUERY;
  table.clientId[row] = 0;
  table.start[row] = 0;
  table.end[row] = 0;
  setReply(traffic, row, localSink.bytes.slice(0, localSink.length), OUTCOME_ANSWER);
  enqueue(traffic, client, row);
}

export function answerError(traffic: Traffic, client: ClientSession, text: string): void {
  const localSink = traffic.localSink;
  localSink.length = 0;
  writeError(localSink, text);
  answerLocal(traffic, client);
}

export function answerSimple(traffic: Traffic, client: ClientSession, text: string): void {
  const localSink = traffic.localSink;
  localSink.length = 0;
  writeSimple(localSink, text);
  answerLocal(traffic, client);
}

/** Ends a waiting or taken-back row with an answer of the controller's own. It is not at a server. */
export function finishHere(
  traffic: Traffic,
  client: ClientSession,
  row: number,
  outcome: number,
  text: string,
): void {
  dropReply(traffic, row);
  setReply(
    traffic,
    row,
    client.native ? nativeText(traffic, outcome, text) : errorBytes(text),
    outcome,
  );
}

/** A native client gets refused and unknown as outcomes of their own; the reason byte 0 says "by the controller". */
function nativeText(traffic: Traffic, outcome: number, text: string): Uint8Array {
  const localSink = traffic.localSink;
  if (outcome === OUTCOME_ANSWER) return errorBytes(text);
  localSink.length = 0;
  if (outcome === OUTCOME_REFUSED) {
    localSink.bytes[0] = 0;
    localSink.length = 1;
  }
  putText(localSink, text);
  return localSink.bytes.slice(0, localSink.length);
}

/** Ends a waiting row that has been taken out of the count of waiting ones. */
export function giveUp(traffic: Traffic, client: ClientSession, row: number, reason: string): void {
  const table = traffic.table;
  traffic.count.gaveUp++;
  if (table.mayBeDone[row] !== 0) {
    traffic.count.outcomeUnknown++;
    finishHere(traffic, client, row, OUTCOME_UNKNOWN, "OUTCOMEUNKNOWN " + reason);
  } else {
    finishHere(traffic, client, row, OUTCOME_REFUSED, "CLUSTERDOWN no primary: " + reason);
  }
}

export function textOf(bytes: Uint8Array, start: number, end: number): string {
  const to = end - start > 200 ? start + 200 : end;
  let text = "";
  for (let i = start; i < to; i++) text += String.fromCharCode(bytes[i]);
  return text;
}

export function unknownText(bytes: Uint8Array, start: number, end: number): string {
  const text = textOf(bytes, start, end);
  return text.indexOf("OUTCOMEUNKNOWN") === 0 ? text : "OUTCOMEUNKNOWN " + text;
}

export function deliverUnknown(
  traffic: Traffic,
  client: ClientSession,
  row: number,
  bytes: Uint8Array,
  start: number,
  end: number,
): void {
  const table = traffic.table;
  const text = unknownText(bytes, start, end);
  const reply = client.native ? nativeText(traffic, OUTCOME_UNKNOWN, text) : errorBytes(text);
  deliver(traffic, client, table.clientId[row], OUTCOME_UNKNOWN, reply, 0, reply.length, false);
}
