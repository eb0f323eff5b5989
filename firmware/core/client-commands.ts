/**
 * Takes one command of a client: it is sent, queued, gathered in a MULTI, answered here or refused.
 *
 *     RESP command ─> nothing special ─> submit() ─> dispatch.ts
 *                  ─> MULTI ... EXEC  ─> transaction.ts, then submitted as one write
 *                  ─> AUTH, PING ...  ─> connection-commands.ts
 *                  ─> what cannot work through a link that many clients share ─> refused
 */
import {
  MARK_ADMIN,
  MARK_BLOCKING,
  MARK_BLOCK_OPTION,
  MARK_CONNECTION,
  MARK_CONTAINER,
  MARK_MOVABLE_KEYS,
  MARK_SCRIPT,
  MARK_CROSS_PROTOCOL,
  MARK_PRIMARY_ONLY,
  MARK_PUBSUB,
  MARK_TRANSACTION,
  arityFits,
  classOf,
  findCommand,
  findSubcommand,
  isBlocking,
  marksOf,
  nameOf,
} from "../../protocol/command-class.js";
import {
  CLASS_QUERY,
  CLASS_WRITE,
  FLAG_CLASS_MASK,
  FLAG_TXN,
  HEADER_BYTES,
} from "../../protocol/frame.js";
import type { RespParser } from "../../protocol/resp.js";
import { writeArray } from "../../protocol/resp.js";
import { assert } from "./assert.js";
import { endClient } from "./client-output.js";
import { enqueue, wait } from "./client-queue.js";
import type { ClientSession } from "./client-session.js";
import { LOCAL_FORWARD, LOCAL_QUIT, answerConnectionCommand } from "./connection-commands.js";
import { PLACE_HELD, place, send } from "./dispatch.js";
import { WITH_BYTE_LOOPS } from "./features.js";
import { NO_ROW } from "./in-flight.js";
import { answerError, answerLocal, answerSimple } from "./local-answers.js";
import type { Traffic } from "./traffic.js";
import { createTransaction, queueCommand } from "./transaction.js";

/** Marks that change nothing about how a command is forwarded. */
const HARMLESS_MARKS = MARK_SCRIPT | MARK_MOVABLE_KEYS | MARK_CONTAINER;

/** Queues one command of a client, or sends it at once. */
export function submit(
  traffic: Traffic,
  client: ClientSession,
  flags: number,
  primaryOnly: boolean,
  bytes: Uint8Array,
  start: number,
  end: number,
  clientId: number,
  now: number,
): void {
  const table = traffic.table;
  const count = traffic.count;
  const row = table.take();
  assert(row !== NO_ROW, "a client is read from only while a row is free");
  const length = end - start;
  const query = (flags & FLAG_CLASS_MASK) === CLASS_QUERY;
  const memory = query ? traffic.readBytes : traffic.writeBytes;
  const chunk = memory.room(length + HEADER_BYTES);
  const at = chunk.used + HEADER_BYTES;
  const into = chunk.bytes;
  if (WITH_BYTE_LOOPS && length < 96) {
    for (let i = 0; i < length; i++) into[at + i] = bytes[start + i];
  } else {
    into.set(bytes.subarray(start, end), at);
  }
  memory.keep(chunk, length + HEADER_BYTES);
  table.chunk[row] = chunk;
  table.start[row] = at;
  table.end[row] = at + length;
  table.flags[row] = flags;
  table.primaryOnly[row] = primaryOnly ? 1 : 0;
  table.clientId[row] = clientId;
  if (query) count.reads++;
  else count.writes++;
  enqueue(traffic, client, row);
  if (client.firstWaiting === NO_ROW && !client.choked) {
    const server = place(traffic, client, row, now);
    if (server >= 0) {
      send(traffic, client, row, server, now);
      return;
    }
    if (server === PLACE_HELD) traffic.hold.add(client);
  }
  wait(traffic, client, row, now);
}

export function takeRespCommand(
  traffic: Traffic,
  client: ClientSession,
  parser: RespParser,
  now: number,
): void {
  const bytes = parser.bytes;
  const starts = parser.starts;
  const ends = parser.ends;
  let entry = findCommand(bytes, starts[0], ends[0]);
  let marks = marksOf(entry);
  if ((marks & MARK_CONTAINER) !== 0 && parser.count > 1) {
    const sub = findSubcommand(entry, bytes, starts[1], ends[1]);
    if (sub >= 0) {
      entry = sub;
      marks = marksOf(entry);
    }
  }
  if (
    client.authenticated &&
    client.transaction === undefined &&
    (marks & ~(MARK_PRIMARY_ONLY | HARMLESS_MARKS)) === 0
  ) {
    submit(
      traffic,
      client,
      classOf(entry),
      (marks & MARK_PRIMARY_ONLY) !== 0,
      bytes,
      parser.rangeStart,
      parser.rangeEnd,
      0,
      now,
    );
    return;
  }
  takeSpecial(traffic, client, parser, entry, marks, now);
}

/** Everything that is not simply forwarded. */
function takeSpecial(
  traffic: Traffic,
  client: ClientSession,
  parser: RespParser,
  entry: number,
  marks: number,
  now: number,
): void {
  const localSink = traffic.localSink;
  const name = nameOf(entry);
  if ((marks & MARK_CROSS_PROTOCOL) !== 0) {
    endClient(traffic, client, "an HTTP request came instead of a Redis command");
    return;
  }
  if (
    !client.authenticated &&
    name !== "auth" &&
    name !== "hello" &&
    name !== "quit" &&
    name !== "reset"
  ) {
    answerError(traffic, client, "NOAUTH Authentication required.");
    return;
  }
  if ((marks & MARK_TRANSACTION) !== 0) {
    takeTransactionCommand(traffic, client, name, now);
    return;
  }
  if (client.transaction !== undefined && name !== "quit" && name !== "reset") {
    queueInTransaction(traffic, client, parser, entry, marks, name);
    return;
  }
  const refusal = refusalOf(parser, entry, marks, name);
  if (refusal !== "") {
    answerError(traffic, client, refusal);
    return;
  }
  if ((marks & (MARK_CONNECTION | MARK_ADMIN)) !== 0 || name === "role") {
    localSink.length = 0;
    traffic.count.local++;
    const done = answerConnectionCommand(
      traffic.connectionHost,
      client,
      localSink,
      name,
      parser.bytes,
      parser.count,
      parser.starts,
      parser.ends,
      now,
    );
    if (done !== LOCAL_FORWARD) {
      answerLocal(traffic, client);
      client.parser!.authenticated = client.authenticated;
      if (done === LOCAL_QUIT) endClient(traffic, client, "the client said QUIT");
      return;
    }
  }
  submit(
    traffic,
    client,
    classOf(entry),
    (marks & MARK_PRIMARY_ONLY) !== 0,
    parser.bytes,
    parser.rangeStart,
    parser.rangeEnd,
    0,
    now,
  );
}

/** Why this command cannot work through a link that many clients share; "" when it can. */
function refusalOf(parser: RespParser, entry: number, marks: number, name: string): string {
  if ((marks & MARK_PUBSUB) !== 0) {
    return (
      "ERR " + name.toUpperCase() + " is not supported: the controller has no publish and subscribe"
    );
  }
  if (
    (marks & (MARK_BLOCKING | MARK_BLOCK_OPTION)) !== 0 &&
    isBlocking(entry, parser.bytes, parser.count, parser.starts, parser.ends)
  ) {
    return (
      "ERR " +
      name.toUpperCase() +
      " is not supported: a command that waits would hold up other clients"
    );
  }
  if ((marks & MARK_ADMIN) !== 0 && name !== "config" && name !== "cluster" && name !== "role") {
    return "ERR " + name.toUpperCase() + " is not supported through the controller";
  }
  return "";
}

function takeTransactionCommand(
  traffic: Traffic,
  client: ClientSession,
  name: string,
  now: number,
): void {
  const localSink = traffic.localSink;
  const transaction = client.transaction;
  const parser = client.parser!;
  if (!arityFits(findCommand(parser.bytes, parser.starts[0], parser.ends[0]), parser.count)) {
    if (transaction !== undefined) transaction.dirty = true;
    answerError(traffic, client, "ERR wrong number of arguments for '" + name + "' command");
    return;
  }
  if (name === "multi") {
    if (transaction !== undefined) {
      answerError(traffic, client, "ERR MULTI calls can not be nested");
      return;
    }
    client.transaction = createTransaction();
    answerSimple(traffic, client, "OK");
  } else if (name === "watch") {
    answerError(
      traffic,
      client,
      transaction !== undefined
        ? "ERR WATCH inside MULTI is not allowed"
        : "ERR WATCH is not supported: the controller's clients share a connection to each server",
    );
  } else if (name === "unwatch") {
    if (transaction !== undefined) {
      // Redis queues it; there is nothing it could undo here.
      queueInTransaction(traffic, client, parser, -1, 0, "ping");
    } else {
      answerSimple(traffic, client, "OK");
    }
  } else if (transaction === undefined) {
    answerError(traffic, client, "ERR " + name.toUpperCase() + " without MULTI");
  } else if (name === "discard") {
    endTransaction(client);
    answerSimple(traffic, client, "OK");
  } else {
    const sink = transaction.sink;
    const dirty = transaction.dirty;
    const commands = transaction.commands;
    endTransaction(client);
    if (dirty) {
      answerError(traffic, client, "EXECABORT Transaction discarded because of previous errors.");
    } else if (commands === 0) {
      localSink.length = 0;
      writeArray(localSink, 0);
      answerLocal(traffic, client);
    } else {
      submit(traffic, client, CLASS_WRITE | FLAG_TXN, true, sink.bytes, 0, sink.length, 0, now);
    }
  }
}

function queueInTransaction(
  traffic: Traffic,
  client: ClientSession,
  parser: RespParser,
  entry: number,
  marks: number,
  name: string,
): void {
  const transaction = client.transaction!;
  let refusal = "";
  if (entry >= 0 && !arityFits(entry, parser.count)) {
    refusal = "ERR wrong number of arguments for '" + name + "' command";
  } else if (
    entry >= 0 &&
    (marks & MARK_CONNECTION) !== 0 &&
    name !== "ping" &&
    name !== "echo" &&
    name !== "select"
  ) {
    refusal = "ERR " + name.toUpperCase() + " is not supported inside MULTI";
  } else if (entry >= 0 && (marks & MARK_BLOCKING) === 0) {
    // A command that would wait does not wait inside MULTI, in Redis as here.
    refusal = refusalOf(parser, entry, marks & ~MARK_BLOCK_OPTION, name);
  }
  if (refusal === "") {
    refusal = queueCommand(
      transaction,
      parser.bytes,
      parser.rangeStart,
      parser.rangeEnd,
      traffic.commandBytesMax,
    );
  }
  if (refusal !== "") {
    transaction.dirty = true;
    answerError(traffic, client, refusal);
    return;
  }
  answerSimple(traffic, client, "QUEUED");
}

function endTransaction(client: ClientSession): void {
  client.transaction = undefined;
}
