/**
 * The command transceiver (P5, P6): takes clients' commands, sends each to the server that should have it,
 * and gives the answers back in the order of the requests.
 *
 *     client bytes ─> parser ─> row (in-flight.ts) ─> place() ─> link to server a or b
 *                                  │   no server now               │
 *                                  └── hold-queue.ts <── refused, link lost, role moved
 *     reply frame  ─> row by id ─> its client's head? ─> client
 *
 * The rules it keeps:
 * - G1: a write goes to the record's primary, a read there or, where readable, to the other; nothing while the
 *   route is closed.
 * - G3: a reply passes only if its id is outstanding at that very link and it was decided in the record's
 *   epoch, or in an earlier one since which this server has been primary without a break. Every passed reply
 *   counts for G5, whichever of those it is.
 * - A connection's open commands are all at one server and were sent in one epoch, so they are run in order.
 * - Every asking has an id of its own, so an answer to the first can never be taken for the second's. A write keeps
 *   its number, which is the id of its first asking: asked again it carries the number in a session prefix, so
 *   that it is not run twice.
 *
 * What waits is bounded (hold-queue.ts), what a client leaves unread is bounded, and neither role changes nor
 * lost links close a client's connection.
 */
import {
  arityFits,
  classOf,
  findCommand,
  findSubcommand,
  isBlocking,
  MARK_ADMIN,
  MARK_BLOCKING,
  MARK_BLOCK_OPTION,
  MARK_CONNECTION,
  MARK_CONTAINER,
  MARK_CROSS_PROTOCOL,
  MARK_MOVABLE_KEYS,
  MARK_PRIMARY_ONLY,
  MARK_PUBSUB,
  MARK_SCRIPT,
  MARK_TRANSACTION,
  marksOf,
  nameOf,
} from "../../protocol/command-class.js";
import { FrameDecoder, HANDSHAKE_PAYLOAD_BYTES_MAX } from "../../protocol/frame-decoder.js";
import {
  CLASS_QUERY,
  CLASS_WRITE,
  FLAG_CLASS_MASK,
  FLAG_MORE,
  FLAG_ORDERED,
  FLAG_SESSION,
  FLAG_TXN,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_CREDIT,
  FRAME_REPLY,
  HEADER_BYTES,
  OUTCOME_ANSWER,
  OUTCOME_MASK,
  OUTCOME_REFUSED,
  OUTCOME_UNKNOWN,
  SESSION_PREFIX_BYTES,
  writeHeader,
  writeU32,
} from "../../protocol/frame.js";
import type { ByteSink, RespLimits } from "../../protocol/resp.js";
import {
  makeSink,
  PARSED_COMMAND,
  PARSED_NOTHING,
  PARSED_REFUSED,
  putText,
  RespParser,
  writeArray,
  writeError,
  writeSimple,
} from "../../protocol/resp.js";
import type { ServerIndex } from "../../protocol/record.js";
import { assert } from "./assert.js";
import type { ClientSession } from "./client-session.js";
import { createClientSession } from "./client-session.js";
import { createCommandBytes } from "./command-bytes.js";
import type { CoreConfig } from "./config.js";
import {
  answerConnectionCommand,
  errorBytes,
  LOCAL_FORWARD,
  LOCAL_QUIT,
} from "./connection-commands.js";
import type { ConnectionHost } from "./connection-commands.js";
import { createHoldQueue } from "./hold-queue.js";
import {
  createInFlight,
  NO_ROW,
  ROW_DONE,
  ROW_OPEN,
  ROW_REPLYING,
  ROW_SENDING,
  ROW_WAITING,
} from "./in-flight.js";
import { createNativeFront } from "./native-front.js";
import type { NativeHost } from "./native-front.js";
import { createNonceSource } from "./nonce.js";
import { createLaterWrites } from "./pipeline-order.js";
import type { ControllerPorts, ForwardEvents, Route } from "./ports.js";
import { createTargetServer } from "./target-server.js";
import { createTransaction, queueCommand } from "./transaction.js";

/** Unanswered commands of one client, beyond which its input is left in the network. */
const CLIENT_ROWS_MAX = 1024;
/** Bytes of one client's waiting commands, beyond which its input is left in the network. */
const CLIENT_WAITING_BYTES_MAX = 256 * 1024;
/** Bytes of replies one client may have on their way, as far as its last ones tell. */
const CLIENT_REPLY_BYTES_MAX = 4 * 1024 * 1024;
/** Commands gathered in one chunk of memory. @unit bytes */
const CHUNK_BYTES = 16 * 1024;
const SPARE_CHUNKS_MAX = 64;
/** A client's backlog is looked at after so many reply bytes. @unit bytes */
const BACKLOG_CHECK_BYTES = 16 * 1024;
/** A reply longer than its first window is given so many more ahead of what has come. */
const LONG_REPLY_WINDOWS = 16;
/** Fragments of large commands go out while a link holds less than this. @unit bytes */
const LINK_LOW_BYTES = 128 * 1024;
/** A server that refused is not asked again sooner. @unit ms */
const REFUSED_PAUSE_MS = 2;
/** Slow readers and held commands are looked at this often. @unit ms */
const LOOK_MS = 20;
/** Replies that came while a record was written to flash. @unit bytes */
const STASH_BYTES_MAX = 4 * 1024 * 1024;
/** A protocol error's text is given this long to reach the client. */
const COMMAND_OVERHEAD_BYTES = 64 * 1024;
const ARGS_MAX = 1024 * 1024;
const INLINE_BYTES_MAX = 64 * 1024;

/** What place() says instead of a server. */
const PLACE_OWN_ORDER = -1;
const PLACE_HELD = -2;

/** A server's reason for a refusal: the header's class is not the command's. */
const REFUSED_CLASS = 3;

const CLIENT_GONE = -1;

/** Marks that change nothing about how a command is forwarded. */
const HARMLESS_MARKS = MARK_SCRIPT | MARK_MOVABLE_KEYS | MARK_CONTAINER;

export interface ForwardCounters {
  /** Commands of clients, by kind. */
  reads: number;
  writes: number;
  local: number;
  /** Replies not passed on (G3). */
  dropped: number;
  askedAgain: number;
  busy: number;
  gaveUp: number;
  outcomeUnknown: number;
  /** Reads sent to each server. */
  readsTo: [number, number];
  clients: number;
  clientsRefused: number;
  clientsClosedSlow: number;
  held: number;
  heldBytes: number;
  memoryBytes: number;
}

export interface Forwarder {
  /**
   * Where commands may go now. On an epoch change it is called after RECORD and EPOCH have been sent on the
   * links that are up, because held commands leave at once.
   */
  setRoute(route: Route, now: number): void;
  /** New ids from 1 on; both links are down. */
  setSession(sessionId: Uint8Array): void;
  /** After the handshake, RECORD and EPOCH. */
  linkUp(
    server: ServerIndex,
    connection: number,
    frameMax: number,
    windowBytes: number,
    now: number,
  ): void;
  linkDown(server: ServerIndex, now: number): void;
  /** The link's backlog has gone to the network; without it fragments go on at the next tick. */
  linkDrained(server: ServerIndex, now: number): void;
  onReply(
    server: ServerIndex,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void;
  onReplyEpoch(server: ServerIndex, epoch: number, now: number): void;
  clientOpen(connection: number, kind: "redis" | "native", now: number): void;
  clientBytes(connection: number, bytes: Uint8Array, start: number, end: number, now: number): void;
  clientDrained(connection: number, now: number): void;
  clientClosed(connection: number, now: number): void;
  setReported(server: ServerIndex, loadPermille: number, braking: boolean, serviceUs: number): void;
  /** @returns when it wants to be called again */
  tick(now: number): number;
  /** Commands sent to a server and not answered. */
  inFlight(server: ServerIndex): number;
  /** The controller's own estimate. @unit us */
  serviceUs(server: ServerIndex): number;
  /** Commands sent to either server and not answered. */
  openCount(): number;
  counters(): ForwardCounters;
}

interface Stashed {
  server: ServerIndex;
  flags: number;
  id: number;
  bytes: Uint8Array;
  epoch: number;
}

function rowsFor(inFlightMax: number): number {
  let rows = 64;
  while (rows < inFlightMax * 4) rows *= 2;
  return rows;
}

export function createForwarder(
  config: CoreConfig,
  ports: ControllerPorts,
  events: ForwardEvents,
): Forwarder {
  const limits = config.limits;
  const holdMs = config.timings.holdMs;
  const idMax = config.idMax;
  const inFlightMax = limits.inFlightMax;
  const replyWindow = limits.replyWindowBytes;
  const commandBytesMax = limits.valueBytesMax + COMMAND_OVERHEAD_BYTES;
  /** A reply up to this is made whole here, so that a lost link does not cut it; a longer one is streamed. */
  const replyKeptMax = limits.valueBytesMax + COMMAND_OVERHEAD_BYTES;
  /** Half-sent commands, of all clients together. */
  const intakeMax = limits.clientOutTotalBytes;
  const table = createInFlight(rowsFor(inFlightMax));
  /** Rows kept free: below this nobody's input is taken, above twice as many it is taken again. */
  const rowsReserved = (table.capacity >> 7) + 1;
  const state = table.state;
  const next = table.next;
  const hold = createHoldQueue(table.capacity - 2 * inFlightMax, limits.heldBytesMax);
  const readBytes = createCommandBytes(CHUNK_BYTES, SPARE_CHUNKS_MAX);
  const writeBytes = createCommandBytes(CHUNK_BYTES, SPARE_CHUNKS_MAX);
  const target = createTargetServer(config.balancing);
  const clients: (ClientSession | undefined)[] = [];
  const respLimits: RespLimits = {
    argsMax: ARGS_MAX,
    bulkBytesMax: limits.valueBytesMax,
    commandBytesMax: commandBytesMax,
    inlineBytesMax: INLINE_BYTES_MAX,
    keptBytesMax: 256 * 1024,
  };
  const laterWrites = createLaterWrites(respLimits);
  const scratch = new Uint8Array(64);
  // Its own pool, so that it never says what the servers' links say.
  const nonceSeed = new Uint8Array(config.seed.length + 1);
  nonceSeed.set(config.seed, 1);
  nonceSeed[0] = 1;
  const nonces = createNonceSource(ports.hmac, config.key, nonceSeed);
  const localSink: ByteSink = makeSink(1024);
  let currentTime = 0;
  let serials = 0;

  // Route, copied: the control path may change its own object.
  let routeOpen = false;
  let epoch = 0;
  let primary = 0;
  const readable = [false, false];
  let why = "the controller has just started";
  let hasRoute = false;
  /** Epoch since which the primary has been primary without a break. */
  let reign = 0;
  let passedEpoch = 0;
  let writesDownSince = 0;
  let readsDownSince = 0;

  // Links.
  const linkOf = new Int32Array(2);
  const linkPayloadMax = new Int32Array(2);
  const windowBytes = new Float64Array(2);
  const windowUsed = new Float64Array(2);
  const inFlightAt = new Int32Array(2);
  const replyEpoch = new Float64Array(2);
  const refusedUntil = new Float64Array(2);
  const reportedUs = new Float64Array(2);
  const sendingRows: number[][] = [[], []];
  linkOf[0] = -1;
  linkOf[1] = -1;

  let sessionId = new Uint8Array(8);
  let nextId = 1;
  let draining = false;
  let idsToldUsedUp = false;
  let stash: Stashed[] = [];
  let stashBytes = 0;
  const chokedClients: ClientSession[] = [];
  /** Clients whose input waits for room in the table, in turn. */
  let thirstyClients: ClientSession[] = [];
  let outTotal = 0;
  let keptReplyBytes = 0;
  let intakeTotal = 0;
  let closedSlow = 0;
  const count: ForwardCounters = {
    reads: 0,
    writes: 0,
    local: 0,
    dropped: 0,
    askedAgain: 0,
    busy: 0,
    gaveUp: 0,
    outcomeUnknown: 0,
    readsTo: [0, 0],
    clients: 0,
    clientsRefused: 0,
    clientsClosedSlow: 0,
    held: 0,
    heldBytes: 0,
    memoryBytes: 0,
  };

  function allClients(): ClientSession[] {
    const all: ClientSession[] = [];
    for (let i = 0; i < clients.length; i++) {
      const client = clients[i];
      if (client !== undefined && !client.closed) all.push(client);
    }
    return all;
  }

  // ---------------------------------------------------------------- where a command may go

  function linked(server: number): boolean {
    return linkOf[server] >= 0;
  }

  /** Ready for reads, as far as the route and the link go. */
  function mayRead(server: number): boolean {
    return routeOpen && linkOf[server] >= 0 && (readable[server] || server === primary);
  }

  /** There is room on the link for a command of that many bytes. */
  function hasRoom(server: number, length: number): boolean {
    return (
      inFlightAt[server] < inFlightMax &&
      (windowUsed[server] + length + HEADER_BYTES <= windowBytes[server] ||
        windowUsed[server] === 0)
    );
  }

  function isQuery(row: number): boolean {
    return (table.flags[row] & FLAG_CLASS_MASK) === CLASS_QUERY && table.primaryOnly[row] === 0;
  }

  function lengthOf(row: number): number {
    return table.end[row] - table.start[row];
  }

  /** @returns the server for a waiting row, or PLACE_* */
  function place(client: ClientSession, row: number, now: number): number {
    if (client.sending || client.retreating) return PLACE_OWN_ORDER;
    const query = isQuery(row);
    const length = lengthOf(row);
    if (client.open > 0) {
      const server = client.server;
      // Replies as long as its last ones: no more of them at a time than a client is worth.
      if (client.open * client.replyBytes > CLIENT_REPLY_BYTES_MAX) return PLACE_OWN_ORDER;
      if (client.epoch !== epoch || (query ? !mayRead(server) : server !== primary)) {
        return PLACE_OWN_ORDER;
      }
      if (!routeOpen || !linked(server) || now < refusedUntil[server]) return PLACE_HELD;
      if (draining && table.asked[row] === 0) return PLACE_HELD;
      return hasRoom(server, length) ? server : PLACE_HELD;
    }
    if (!routeOpen || (draining && table.asked[row] === 0)) return PLACE_HELD;
    if (!query) {
      if (!linked(primary) || now < refusedUntil[primary]) return PLACE_HELD;
      return hasRoom(primary, length) ? primary : PLACE_HELD;
    }
    const chosen = target.choose(
      mayRead(0) && now >= refusedUntil[0] && hasRoom(0, length),
      mayRead(1) && now >= refusedUntil[1] && hasRoom(1, length),
      inFlightAt[0],
      inFlightAt[1],
      now,
    );
    return chosen < 0 ? PLACE_HELD : chosen;
  }

  function lookAtRoute(now: number): void {
    const writes = routeOpen && linked(primary);
    if (writes) writesDownSince = -1;
    else if (writesDownSince < 0) writesDownSince = now;
    if (mayRead(0) || mayRead(1)) readsDownSince = -1;
    else if (readsDownSince < 0) readsDownSince = now;
  }

  // ---------------------------------------------------------------- a client's queue

  function enqueue(client: ClientSession, row: number): void {
    table.client[row] = client.connection;
    if (client.tail === NO_ROW) client.head = row;
    else next[client.tail] = row;
    client.tail = row;
    client.rows++;
  }

  function dequeue(client: ClientSession): void {
    const row = client.head;
    client.head = next[row];
    if (client.head === NO_ROW) client.tail = NO_ROW;
    client.rows--;
  }

  function release(row: number): void {
    const chunk = table.chunk[row];
    if (chunk !== undefined) {
      if ((table.flags[row] & FLAG_CLASS_MASK) === CLASS_QUERY) readBytes.release(chunk);
      else writeBytes.release(chunk);
    }
    dropReply(row);
    table.give(row);
  }

  function dropReply(row: number): void {
    const reply = table.reply[row];
    if (reply === undefined) return;
    keptReplyBytes -= reply.length;
    table.reply[row] = undefined;
    table.replyLength[row] = 0;
  }

  function wait(client: ClientSession, row: number, now: number): void {
    state[row] = ROW_WAITING;
    table.sentAt[row] = now;
    const length = lengthOf(row);
    hold.commands++;
    hold.bytes += length;
    client.waitingBytes += length;
    if (client.firstWaiting === NO_ROW) client.firstWaiting = row;
  }

  function unwait(client: ClientSession, row: number): void {
    const length = lengthOf(row);
    hold.commands--;
    hold.bytes -= length;
    client.waitingBytes -= length;
    if (client.firstWaiting === row) client.firstWaiting = waitingFrom(next[row]);
  }

  function waitingFrom(from: number): number {
    let row = from;
    while (row !== NO_ROW && state[row] !== ROW_WAITING) row = next[row];
    return row;
  }

  /** Sends what may be sent of a client's waiting commands. */
  function dispatch(client: ClientSession, now: number): void {
    while (client.firstWaiting !== NO_ROW && !client.choked) {
      const row = client.firstWaiting;
      const server = place(client, row, now);
      if (server < 0) {
        if (server === PLACE_HELD) hold.add(client);
        else hold.remove(client);
        return;
      }
      unwait(client, row);
      send(client, row, server, now);
    }
    hold.remove(client);
  }

  /** Lets held clients go on, the longest held first. */
  function pumpHeld(clientsMax: number, now: number): void {
    let client = hold.first;
    let left = clientsMax;
    while (client !== undefined && left > 0) {
      const after = client.heldAfter;
      dispatch(client, now);
      client = after;
      left--;
    }
  }

  // ---------------------------------------------------------------- sending

  function send(client: ClientSession, row: number, server: number, now: number): void {
    const start = table.start[row];
    const end = table.end[row];
    const length = end - start;
    let flags = table.flags[row];
    if (client.open > 0) flags |= FLAG_ORDERED;
    let id = 0;
    do {
      id = nextId;
      nextId++;
    } while (!table.bind(row, id));
    if (table.asked[row] === 0) table.number[row] = id;
    if (nextId >= idMax) draining = true;
    table.asked[row] = 1;
    table.server[row] = server;
    table.ahead[row] = inFlightAt[server];
    table.sentAt[row] = now;
    inFlightAt[server]++;
    windowUsed[server] += length + HEADER_BYTES;
    if (client.open === 0) {
      client.server = server;
      client.epoch = epoch;
    }
    client.open++;
    if (isQuery(row)) count.readsTo[server]++;
    const bytes = table.chunk[row]!.bytes;
    if (length <= linkPayloadMax[server]) {
      state[row] = ROW_OPEN;
      writeHeader(bytes, start - HEADER_BYTES, FRAME_COMMAND, flags, length, id);
      ports.send(linkOf[server], bytes, start - HEADER_BYTES, end);
      return;
    }
    state[row] = ROW_SENDING;
    table.sentTo[row] = start;
    // The ORDERED flag of the first fragment holds for the command; it is kept where send finds it again.
    table.ordered[row] = flags & FLAG_ORDERED;
    client.sending = true;
    sendingRows[server].push(row);
    pumpFragments(server, now);
  }

  /** One fragment of each large command in turn, while the link takes them. */
  function pumpFragments(server: number, now: number): void {
    const rows = sendingRows[server];
    while (rows.length > 0 && ports.backlog(linkOf[server]) < LINK_LOW_BYTES) {
      const row = rows.shift()!;
      if (sendFragment(row, server)) {
        const client = clients[table.client[row]]!;
        client.sending = false;
        state[row] = ROW_OPEN;
        if (client.firstWaiting !== NO_ROW) dispatch(client, now);
      } else {
        rows.push(row);
      }
    }
  }

  /** @returns true when it was the last */
  function sendFragment(row: number, server: number): boolean {
    const bytes = table.chunk[row]!.bytes;
    const from = table.sentTo[row];
    const last = table.end[row] - from <= linkPayloadMax[server];
    const to = last ? table.end[row] : from + linkPayloadMax[server];
    const flags = table.flags[row] | table.ordered[row] | (last ? 0 : FLAG_MORE);
    const at = from - HEADER_BYTES;
    // The header stands on the end of the fragment before, which may be needed again: it is put back.
    for (let i = 0; i < HEADER_BYTES; i++) scratch[i] = bytes[at + i];
    writeHeader(bytes, at, FRAME_COMMAND, flags, to - from, table.id[row]);
    ports.send(linkOf[server], bytes, at, to);
    for (let i = 0; i < HEADER_BYTES; i++) bytes[at + i] = scratch[i];
    table.sentTo[row] = to;
    return last;
  }

  function stopSending(row: number, server: number): void {
    const rows = sendingRows[server];
    for (let i = 0; i < rows.length; i++) {
      if (rows[i] === row) {
        rows.splice(i, 1);
        return;
      }
    }
  }

  function sendAbort(server: number, id: number): void {
    if (!linked(server)) return;
    writeHeader(scratch, 16, FRAME_ABORT, 0, 0, id);
    ports.send(linkOf[server], scratch, 16, 16 + HEADER_BYTES);
  }

  function sendCredit(server: number, id: number, bytes: number): void {
    writeHeader(scratch, 16, FRAME_CREDIT, 0, 4, id);
    writeU32(scratch, 24, bytes);
    ports.send(linkOf[server], scratch, 16, 28);
  }

  /** The row is not at its server any more. */
  function leaveServer(row: number): void {
    const server = table.server[row];
    inFlightAt[server]--;
    windowUsed[server] -= lengthOf(row) + HEADER_BYTES;
  }

  // ---------------------------------------------------------------- taking commands

  /** Queues one command of a client, or sends it at once. */
  function submit(
    client: ClientSession,
    flags: number,
    primaryOnly: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
    clientId: number,
    now: number,
  ): void {
    const row = table.take();
    if (row === NO_ROW) {
      count.busy++;
      refuseNow(client, clientId, busyText());
      return;
    }
    const length = end - start;
    const query = (flags & FLAG_CLASS_MASK) === CLASS_QUERY;
    const memory = query ? readBytes : writeBytes;
    const chunk = memory.room(length + HEADER_BYTES);
    const at = chunk.used + HEADER_BYTES;
    const into = chunk.bytes;
    if (length < 96) {
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
    enqueue(client, row);
    if (client.firstWaiting === NO_ROW && !client.choked) {
      const server = place(client, row, now);
      if (server >= 0) {
        send(client, row, server, now);
        return;
      }
      if (server === PLACE_HELD) {
        if (!hold.fits(length) && isDown(row)) {
          busy(client, row);
          return;
        }
        hold.add(client);
      }
    } else if (client.held && !hold.fits(length) && isDown(row)) {
      busy(client, row);
      return;
    }
    wait(client, row, now);
  }

  /** No server can take this row now, as opposed to a full window. */
  function isDown(row: number): boolean {
    return (isQuery(row) ? readsDownSince : writesDownSince) >= 0;
  }

  function busyText(): string {
    return (
      "BUSY dyad: too many commands are waiting (limit " +
      (table.capacity - 2 * inFlightMax) +
      " commands or " +
      limits.heldBytesMax +
      " bytes)"
    );
  }

  function busy(client: ClientSession, row: number): void {
    count.busy++;
    finishHere(client, row, OUTCOME_REFUSED, busyText());
    drainHead(client);
  }

  function takeRespCommand(client: ClientSession, parser: RespParser, now: number): void {
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
    takeSpecial(client, parser, entry, marks, now);
  }

  /** Everything that is not simply forwarded. */
  function takeSpecial(
    client: ClientSession,
    parser: RespParser,
    entry: number,
    marks: number,
    now: number,
  ): void {
    const name = nameOf(entry);
    if ((marks & MARK_CROSS_PROTOCOL) !== 0) {
      endClient(client, "an HTTP request came instead of a Redis command");
      return;
    }
    if (
      !client.authenticated &&
      name !== "auth" &&
      name !== "hello" &&
      name !== "quit" &&
      name !== "reset"
    ) {
      answerError(client, "NOAUTH Authentication required.");
      return;
    }
    if ((marks & MARK_TRANSACTION) !== 0) {
      takeTransactionCommand(client, name, now);
      return;
    }
    if (client.transaction !== undefined && name !== "quit" && name !== "reset") {
      queueInTransaction(client, parser, entry, marks, name);
      return;
    }
    const refusal = refusalOf(parser, entry, marks, name);
    if (refusal !== "") {
      answerError(client, refusal);
      return;
    }
    if ((marks & (MARK_CONNECTION | MARK_ADMIN)) !== 0 || name === "role") {
      localSink.length = 0;
      count.local++;
      const done = answerConnectionCommand(
        connectionHost,
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
        answerLocal(client);
        client.parser!.authenticated = client.authenticated;
        if (done === LOCAL_QUIT) endClient(client, "the client said QUIT");
        return;
      }
    }
    submit(
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
        "ERR " +
        name.toUpperCase() +
        " is not supported: the controller has no publish and subscribe"
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

  function takeTransactionCommand(client: ClientSession, name: string, now: number): void {
    const transaction = client.transaction;
    const parser = client.parser!;
    if (!arityFits(findCommand(parser.bytes, parser.starts[0], parser.ends[0]), parser.count)) {
      if (transaction !== undefined) transaction.dirty = true;
      answerError(client, "ERR wrong number of arguments for '" + name + "' command");
      return;
    }
    if (name === "multi") {
      if (transaction !== undefined) {
        answerError(client, "ERR MULTI calls can not be nested");
        return;
      }
      client.transaction = createTransaction();
      answerSimple(client, "OK");
    } else if (name === "watch") {
      answerError(
        client,
        transaction !== undefined
          ? "ERR WATCH inside MULTI is not allowed"
          : "ERR WATCH is not supported: the controller's clients share a connection to each server",
      );
    } else if (name === "unwatch") {
      if (transaction !== undefined) {
        // Redis queues it; there is nothing it could undo here.
        queueInTransaction(client, parser, -1, 0, "ping");
      } else {
        answerSimple(client, "OK");
      }
    } else if (transaction === undefined) {
      answerError(client, "ERR " + name.toUpperCase() + " without MULTI");
    } else if (name === "discard") {
      endTransaction(client);
      answerSimple(client, "OK");
    } else {
      const sink = transaction.sink;
      const dirty = transaction.dirty;
      const commands = transaction.commands;
      endTransaction(client);
      if (dirty) {
        answerError(client, "EXECABORT Transaction discarded because of previous errors.");
      } else if (commands === 0) {
        localSink.length = 0;
        writeArray(localSink, 0);
        answerLocal(client);
      } else {
        submit(client, CLASS_WRITE | FLAG_TXN, true, sink.bytes, 0, sink.length, 0, now);
      }
    }
  }

  function queueInTransaction(
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
      const before = transaction.sink.bytes.length;
      refusal = queueCommand(
        transaction,
        parser.bytes,
        parser.rangeStart,
        parser.rangeEnd,
        commandBytesMax,
      );
      intakeTotal += transaction.sink.bytes.length - before;
      client.intakeBytes += transaction.sink.bytes.length - before;
    }
    if (refusal !== "") {
      transaction.dirty = true;
      answerError(client, refusal);
      return;
    }
    answerSimple(client, "QUEUED");
  }

  function endTransaction(client: ClientSession): void {
    client.transaction = undefined;
  }

  // ---------------------------------------------------------------- answers made here

  function answerLocal(client: ClientSession): void {
    if (client.head === NO_ROW) {
      toClient(client, localSink.bytes, 0, localSink.length);
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
    setReply(row, localSink.bytes.slice(0, localSink.length), OUTCOME_ANSWER);
    enqueue(client, row);
  }

  function setReply(row: number, bytes: Uint8Array, outcome: number): void {
    state[row] = ROW_DONE;
    table.reply[row] = bytes;
    table.replyLength[row] = bytes.length;
    table.outcome[row] = outcome;
    keptReplyBytes += bytes.length;
  }

  function answerError(client: ClientSession, text: string): void {
    localSink.length = 0;
    writeError(localSink, text);
    answerLocal(client);
  }

  function answerSimple(client: ClientSession, text: string): void {
    localSink.length = 0;
    writeSimple(localSink, text);
    answerLocal(client);
  }

  /** Ends a waiting or taken-back row with an answer of the controller's own. It is not at a server. */
  function finishHere(client: ClientSession, row: number, outcome: number, text: string): void {
    dropReply(row);
    setReply(row, client.native ? nativeText(outcome, text) : errorBytes(text), outcome);
  }

  /** A native client gets refused and unknown as outcomes of their own; the reason byte 0 says "by the controller". */
  function nativeText(outcome: number, text: string): Uint8Array {
    if (outcome === OUTCOME_ANSWER) return errorBytes(text);
    localSink.length = 0;
    if (outcome === OUTCOME_REFUSED) {
      localSink.bytes[0] = 0;
      localSink.length = 1;
    }
    putText(localSink, text);
    return localSink.bytes.slice(0, localSink.length);
  }

  /** Refuses a command that has no row. */
  function refuseNow(client: ClientSession, clientId: number, text: string): void {
    if (client.native) {
      const bytes = nativeText(OUTCOME_REFUSED, text);
      deliver(client, clientId, OUTCOME_REFUSED, bytes, 0, bytes.length, false);
      return;
    }
    assert(client.head === NO_ROW, "a refusal keeps the order of replies");
    localSink.length = 0;
    writeError(localSink, text);
    toClient(client, localSink.bytes, 0, localSink.length);
  }

  // ---------------------------------------------------------------- to the client

  function toClient(client: ClientSession, bytes: Uint8Array, start: number, end: number): void {
    if (client.closed) return;
    ports.send(client.connection, bytes, start, end);
    client.outSince += end - start;
    if (client.outSince >= BACKLOG_CHECK_BYTES) lookAtBacklog(client);
  }

  /** A reply, or a part of one, in the client's own language. */
  function deliver(
    client: ClientSession,
    clientId: number,
    outcome: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    more: boolean,
  ): void {
    if (!client.native) {
      toClient(client, bytes, start, end);
      return;
    }
    // An aborted command's reply is swallowed.
    if (clientId === 0) return;
    const payloadMax = client.front!.payloadMax();
    let from = start;
    do {
      const to = end - from > payloadMax ? from + payloadMax : end;
      const flags = outcome | (more || to < end ? FLAG_MORE : 0);
      writeHeader(scratch, 32, FRAME_REPLY, flags, to - from, clientId);
      toClient(client, scratch, 32, 32 + HEADER_BYTES);
      toClient(client, bytes, from, to);
      from = to;
    } while (from < end);
  }

  /** Gives out what is ready at the head of the queue. */
  function drainHead(client: ClientSession): void {
    while (client.head !== NO_ROW && state[client.head] === ROW_DONE) {
      const row = client.head;
      const reply = table.reply[row]!;
      dequeue(client);
      deliver(
        client,
        table.clientId[row],
        table.outcome[row],
        reply,
        0,
        table.replyLength[row],
        false,
      );
      release(row);
      if (client.closed) return;
    }
    if (client.head === NO_ROW) {
      if (client.ending !== "") closeClient(client, client.ending, false);
      return;
    }
    // A reply that waited behind this one may now be passed on as it comes.
    if (state[client.head] === ROW_REPLYING) grantOwed(client, client.head);
  }

  function lookAtBacklog(client: ClientSession): void {
    const backlog = ports.backlog(client.connection);
    outTotal += backlog - client.outKnown;
    client.outKnown = backlog;
    client.outSince = 0;
    if (backlog > limits.clientOutHighBytes && !client.choked) {
      client.choked = true;
      chokedClients.push(client);
      hold.remove(client);
      setReading(client, false);
    }
    if (outTotal + keptReplyBytes > limits.clientOutTotalBytes) closeSlowest();
  }

  /** Memory for replies is used up: the client that leaves most unread is the one to go. */
  function closeSlowest(): void {
    let worst: ClientSession | undefined = undefined;
    for (let i = 0; i < chokedClients.length; i++) {
      const client = chokedClients[i];
      if (client.closed) continue;
      if (worst === undefined || client.outKnown > (worst as ClientSession).outKnown)
        worst = client;
    }
    if (worst === undefined) return;
    closedSlow++;
    closeClient(
      worst,
      "it left " + (worst as ClientSession).outKnown + " bytes of replies unread",
      true,
    );
  }

  function lookAtChoked(client: ClientSession, now: number): void {
    if (client.closed || !client.choked) return;
    const backlog = ports.backlog(client.connection);
    outTotal += backlog - client.outKnown;
    client.outKnown = backlog;
    client.outSince = 0;
    if (backlog > limits.clientOutHighBytes >> 2) return;
    client.choked = false;
    for (let i = 0; i < chokedClients.length; i++) {
      if (chokedClients[i] === client) {
        chokedClients.splice(i, 1);
        break;
      }
    }
    if (client.head !== NO_ROW && state[client.head] === ROW_REPLYING) {
      grantOwed(client, client.head);
    }
    dispatch(client, now);
    resumeIntake(client, now);
  }

  function setReading(client: ClientSession, on: boolean): void {
    if (client.reading === on || client.closed) return;
    client.reading = on;
    ports.setReading(client.connection, on);
  }

  // ---------------------------------------------------------------- replies

  /** G3's epoch: the record's own, or an earlier one of the present primary's unbroken reign. */
  function epochFits(server: number, decidedIn: number): boolean {
    if (decidedIn === epoch) return true;
    return server === primary && decidedIn >= reign && decidedIn < epoch;
  }

  function onReply(
    server: ServerIndex,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void {
    handleReply(server, flags, id, bytes, start, end, replyEpoch[server], now);
  }

  function handleReply(
    server: ServerIndex,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    decidedIn: number,
    now: number,
  ): void {
    const row = table.find(id);
    if (
      row === NO_ROW ||
      table.server[row] !== server ||
      state[row] < ROW_SENDING ||
      state[row] > ROW_REPLYING ||
      !epochFits(server, decidedIn)
    ) {
      count.dropped++;
      return;
    }
    if (!routeOpen && passedEpoch !== epoch && (flags & OUTCOME_MASK) !== OUTCOME_REFUSED) {
      // A record is being written, perhaps the one that takes this epoch back (G5): nothing of an epoch
      // of which nothing has passed may pass now.
      stashReply(server, flags, id, bytes, start, end, decidedIn);
      return;
    }
    const connection = table.client[row];
    if (connection === CLIENT_GONE) {
      orphanReply(server, row, flags);
      if (hold.count > 0) pumpHeld(2, now);
      if (thirstyClients.length > 0) quench(now);
      return;
    }
    const client = clients[connection]!;
    if (client.head !== row && !mayOvertake(client, row)) {
      events.onPeerFault(server, "reply " + id + " came before the one to an earlier command");
      return;
    }
    const outcome = flags & OUTCOME_MASK;
    if (outcome === OUTCOME_REFUSED) {
      onRefused(client, row, server, bytes, start, end, now);
      return;
    }
    if (state[row] === ROW_SENDING) {
      // Answered before it was whole: too large for the server, say. It need not hear the rest.
      stopSending(row, server);
      sendAbort(server, id);
      client.sending = false;
      state[row] = ROW_OPEN;
    }
    if (passedEpoch !== epoch) {
      passedEpoch = epoch;
      events.onFirstPassed(epoch);
    }
    if (client.head !== row && client.retreating && !staysInOrder(client, row)) {
      // A read that was run before an earlier command of its connection is run again after that.
      if ((flags & FLAG_MORE) !== 0) sendAbort(server, id);
      takeBack(client, row, now);
      if (client.open === 0) endRetreat(client);
      return;
    }
    if ((flags & FLAG_MORE) !== 0) {
      partOfReply(client, row, bytes, start, end, now);
      return;
    }
    if (client.head === row && table.reply[row] === undefined) {
      // The common case: whole, and the head's.
      count.outcomeUnknown += outcome === OUTCOME_UNKNOWN ? 1 : 0;
      dequeue(client);
      answered(client, row, server, end - start, now);
      if (outcome === OUTCOME_ANSWER) {
        deliver(client, table.clientId[row], outcome, bytes, start, end, false);
      } else {
        deliverUnknown(client, row, bytes, start, end);
      }
      release(row);
      if (client.closed) return;
      afterAnswer(client, now);
      return;
    }
    lastOfReply(client, row, server, outcome, bytes, start, end, now);
  }

  /** Accounts for an answered row; it is still in use. */
  function answered(
    client: ClientSession,
    row: number,
    server: number,
    replyBytes: number,
    now: number,
  ): void {
    leaveServer(row);
    client.replyBytes += (replyBytes - client.replyBytes) / 4;
    table.unbind(row);
    client.open--;
    if (client.open === 0) client.retreating = false;
    // A reply in parts took as long as its client did, which says nothing of the server.
    if (state[row] === ROW_OPEN && isQuery(row)) {
      target.completed(server, now - table.sentAt[row], table.ahead[row], now);
    }
  }

  /** What an answer makes possible: the next in line, the client's waiting commands, other clients'. */
  function afterAnswer(client: ClientSession, now: number): void {
    if (client.head === NO_ROW) {
      if (client.ending !== "") {
        closeClient(client, client.ending, false);
        return;
      }
    } else {
      if (state[client.head] === ROW_DONE || state[client.head] === ROW_REPLYING) drainHead(client);
      if (client.closed) return;
      if (client.firstWaiting !== NO_ROW) dispatch(client, now);
    }
    if (client.paused) resumeIntake(client, now);
    if (hold.count > 0) pumpHeld(4, now);
    if (thirstyClients.length > 0) quench(now);
    if (draining) lookAtDrain();
  }

  /** The table has room again: those who waited for it go on, in turn. */
  function quench(now: number): void {
    let tries = thirstyClients.length;
    while (tries > 0 && hasRows(2 * rowsReserved)) {
      const client = thirstyClients.shift()!;
      client.thirsty = false;
      resumeIntake(client, now);
      tries--;
    }
  }

  function hasRows(spare: number): boolean {
    return table.capacity - table.used > spare;
  }

  /**
   * A reply may come before those of earlier commands only if each of these is part way through, was refused
   * (it waits again then) or is done.
   */
  function mayOvertake(client: ClientSession, row: number): boolean {
    let at = client.head;
    while (at !== row) {
      if (state[at] === ROW_OPEN || state[at] === ROW_SENDING) return false;
      at = next[at];
    }
    return true;
  }

  /**
   * A command was run while earlier ones of its connection had been refused. If it is a write, those it
   * must not precede are given up, because they can no longer be asked in order.
   * @returns false when it is a read: it can be asked again in its place
   */
  function staysInOrder(client: ClientSession, row: number): boolean {
    let at = client.head;
    let waits = false;
    while (at !== row) {
      if (state[at] === ROW_WAITING) waits = true;
      at = next[at];
    }
    if (!waits) return true;
    if ((table.flags[row] & FLAG_CLASS_MASK) === CLASS_QUERY) return false;
    laterWrites.clear();
    laterWrites.add(table.chunk[row]!.bytes, commandStart(row), table.end[row]);
    at = client.head;
    while (at !== row) {
      if (state[at] === ROW_WAITING && mustPrecede(at)) {
        unwait(client, at);
        giveUp(client, at, "the server refused it and has run a later command of this connection");
      }
      at = next[at];
    }
    drainHead(client);
    return true;
  }

  /** Whether a waiting row is of no use behind the writes in the filter. */
  function mustPrecede(row: number): boolean {
    return (
      (table.flags[row] & FLAG_CLASS_MASK) !== CLASS_QUERY ||
      laterWrites.mayMeet(table.chunk[row]!.bytes, commandStart(row), table.end[row])
    );
  }

  /** Where the RESP command begins, behind a session prefix. */
  function commandStart(row: number): number {
    const named = (table.flags[row] & FLAG_SESSION) !== 0;
    return named ? table.start[row] + SESSION_PREFIX_BYTES : table.start[row];
  }

  function deliverUnknown(
    client: ClientSession,
    row: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    const text = unknownText(bytes, start, end);
    const reply = client.native ? nativeText(OUTCOME_UNKNOWN, text) : errorBytes(text);
    deliver(client, table.clientId[row], OUTCOME_UNKNOWN, reply, 0, reply.length, false);
  }

  function unknownText(bytes: Uint8Array, start: number, end: number): string {
    const text = textOf(bytes, start, end);
    return text.indexOf("OUTCOMEUNKNOWN") === 0 ? text : "OUTCOMEUNKNOWN " + text;
  }

  function partOfReply(
    client: ClientSession,
    row: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void {
    let length = end - start;
    if (state[row] !== ROW_REPLYING) {
      state[row] = ROW_REPLYING;
      // One round trip for every window would make a long reply slow.
      if (!client.choked && keptReplyBytes + outTotal < limits.clientOutTotalBytes >> 1) {
        length += LONG_REPLY_WINDOWS * replyWindow;
      }
    }
    if (table.streaming[row] !== 0) {
      deliver(client, table.clientId[row], OUTCOME_ANSWER, bytes, start, end, true);
    } else {
      keepPart(row, bytes, start, end);
      if (client.head === row && table.replyLength[row] > replyKeptMax) {
        table.streaming[row] = 1;
        deliver(
          client,
          table.clientId[row],
          OUTCOME_ANSWER,
          table.reply[row]!,
          0,
          table.replyLength[row],
          true,
        );
        dropReply(row);
      }
    }
    if (client.closed || state[row] !== ROW_REPLYING) return;
    table.creditOwed[row] += length;
    if (client.head === row) grantOwed(client, row);
    if (client.paused) resumeIntake(client, now);
    if (keptReplyBytes + outTotal > limits.clientOutTotalBytes) closeSlowest();
  }

  function keepPart(row: number, bytes: Uint8Array, start: number, end: number): void {
    const length = table.replyLength[row];
    const total = length + end - start;
    let kept = table.reply[row];
    if (kept === undefined || kept.length < total) {
      let size = kept === undefined ? 4 * replyWindow : kept.length * 2;
      while (size < total) size *= 2;
      const grown = new Uint8Array(size);
      if (kept !== undefined) {
        grown.set(kept.subarray(0, length), 0);
        keptReplyBytes -= kept.length;
      }
      keptReplyBytes += size;
      kept = grown;
      table.reply[row] = grown;
    }
    kept.set(bytes.subarray(start, end), length);
    table.replyLength[row] = total;
  }

  /** Lets the server go on with a reply: there is memory for it, or the client takes it. */
  function grantOwed(client: ClientSession, row: number): void {
    const owed = table.creditOwed[row];
    if (owed === 0) return;
    if (table.streaming[row] !== 0 && client.choked) return;
    table.creditOwed[row] = 0;
    sendCredit(table.server[row], table.id[row], owed);
  }

  function lastOfReply(
    client: ClientSession,
    row: number,
    server: number,
    outcome: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void {
    answered(client, row, server, table.replyLength[row] + end - start, now);
    if (table.streaming[row] !== 0) {
      dequeue(client);
      deliver(client, table.clientId[row], outcome, bytes, start, end, false);
      release(row);
    } else if (outcome === OUTCOME_UNKNOWN) {
      count.outcomeUnknown++;
      finishHere(client, row, OUTCOME_UNKNOWN, unknownText(bytes, start, end));
      drainHead(client);
    } else {
      keepPart(row, bytes, start, end);
      state[row] = ROW_DONE;
      table.outcome[row] = outcome;
      drainHead(client);
    }
    if (client.closed) return;
    afterAnswer(client, now);
  }

  /** Surely not done: it is asked again, in its place. */
  function onRefused(
    client: ClientSession,
    row: number,
    server: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void {
    if (state[row] === ROW_SENDING) {
      stopSending(row, server);
      sendAbort(server, table.id[row]);
      client.sending = false;
    }
    if (end > start && bytes[start] === REFUSED_CLASS) {
      // It will never be taken: asking again is of no use.
      takeOff(client, row);
      if (client.open === 0) client.retreating = false;
      finishHere(client, row, OUTCOME_ANSWER, "ERR " + textOf(bytes, start + 1, end));
      afterAnswer(client, now);
      return;
    }
    if (end > start + 1) why = "server refuses: " + textOf(bytes, start + 1, end);
    if (table.heldSince[row] < 0) table.heldSince[row] = now;
    refusedUntil[server] = now + REFUSED_PAUSE_MS;
    if (table.streaming[row] !== 0) {
      closeClient(client, "the rest of a long reply is lost", true);
      return;
    }
    takeBack(client, row, now);
    client.retreating = true;
    if (client.open === 0) endRetreat(client);
    if (draining) lookAtDrain();
  }

  /** All that was open when one was refused is known: from here on it is asked again. */
  function endRetreat(client: ClientSession): void {
    client.retreating = false;
    if (!client.choked) hold.add(client);
  }

  /** An open row waits again, in its old place. */
  function takeBack(client: ClientSession, row: number, now: number): void {
    takeOff(client, row);
    count.askedAgain++;
    wait(client, row, now);
    // Where it stands in the queue decides, not when it came back.
    client.firstWaiting = waitingFrom(client.head);
  }

  function orphanReply(server: number, row: number, flags: number): void {
    if ((flags & FLAG_MORE) !== 0) sendAbort(server, table.id[row]);
    leaveServer(row);
    release(row);
    if (draining) lookAtDrain();
  }

  function textOf(bytes: Uint8Array, start: number, end: number): string {
    const to = end - start > 200 ? start + 200 : end;
    let text = "";
    for (let i = start; i < to; i++) text += String.fromCharCode(bytes[i]);
    return text;
  }

  function onReplyEpoch(server: ServerIndex, decidedIn: number, _now: number): void {
    replyEpoch[server] = decidedIn;
  }

  function stashReply(
    server: ServerIndex,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    decidedIn: number,
  ): void {
    stashBytes += end - start;
    if (stashBytes > STASH_BYTES_MAX) {
      // On a new link everything is asked again, so nothing is lost but time.
      events.onPeerFault(server, "too many replies while a record is written");
      return;
    }
    stash.push({
      server: server,
      flags: flags,
      id: id,
      bytes: bytes.slice(start, end),
      epoch: decidedIn,
    });
  }

  function replayStash(now: number): void {
    const kept = stash;
    stash = [];
    stashBytes = 0;
    for (let i = 0; i < kept.length; i++) {
      const one = kept[i];
      handleReply(one.server, one.flags, one.id, one.bytes, 0, one.bytes.length, one.epoch, now);
    }
  }

  // ---------------------------------------------------------------- route and links

  function setRoute(route: Route, now: number): void {
    currentTime = now;
    const before = primary;
    const changed = !hasRoute || route.epoch !== epoch;
    const lostReads = [
      readable[0] && !route.readable[0] && route.primary !== 0,
      readable[1] && !route.readable[1] && route.primary !== 1,
    ];
    const stays = hasRoute && route.primary === before;
    assert(!hasRoute || route.epoch >= epoch, "epochs only grow");
    hasRoute = true;
    epoch = route.epoch;
    primary = route.primary;
    readable[0] = route.readable[0];
    readable[1] = route.readable[1];
    routeOpen = route.open;
    why = route.why;
    if (!stays) reign = epoch;
    if (changed) {
      for (let server = 0; server < 2; server++) {
        refusedUntil[server] = 0;
        // A primary that stays answers what it holds in the new epoch; all else is asked again.
        if (!(stays && server === primary)) retreatFrom(server, now);
        if (!stays) target.first(server, reportedUs[server], now);
      }
    } else {
      for (let server = 0; server < 2; server++) {
        if (lostReads[server]) retreatFrom(server, now);
      }
    }
    lookAtRoute(now);
    if (!routeOpen) return;
    if (stash.length > 0) replayStash(now);
    pumpHeld(hold.count, now);
  }

  /** Everything open at a server is to be asked again, wherever the route says. */
  function retreatFrom(server: number, now: number): void {
    if (inFlightAt[server] === 0) return;
    sendingRows[server] = [];
    const moved: ClientSession[] = [];
    for (let i = 0; i < clients.length; i++) {
      const client = clients[i];
      if (client !== undefined && !client.closed && client.open > 0 && client.server === server) {
        moved.push(client);
      }
    }
    // The oldest first: the order in which their numbers were given.
    moved.sort(olderFirst);
    for (let i = 0; i < moved.length; i++) retreatClient(moved[i], now);
    for (let row = 0; row < table.capacity; row++) {
      if (
        state[row] >= ROW_SENDING &&
        state[row] <= ROW_REPLYING &&
        table.client[row] === CLIENT_GONE &&
        table.server[row] === server
      ) {
        leaveServer(row);
        release(row);
      }
    }
    assert(inFlightAt[server] === 0, "nothing is left at a server that was left");
    windowUsed[server] = 0;
    let kept = 0;
    for (let i = 0; i < stash.length; i++) {
      if (stash[i].server === server) continue;
      const one = stash[i];
      stash[i] = stash[kept];
      stash[kept++] = one;
    }
    while (stash.length > kept) stashBytes -= stash.pop()!.bytes.length;
  }

  function olderFirst(a: ClientSession, b: ClientSession): number {
    return openId(a) - openId(b);
  }

  function openId(client: ClientSession): number {
    let row = client.head;
    while (row !== NO_ROW && table.id[row] === 0) row = next[row];
    return row === NO_ROW ? 0 : table.id[row];
  }

  /**
   * Ends what can no longer be asked in its order: a read before a later write of this connection that may have
   * been run and may touch its key, and a refused write before any such write.
   */
  function endOutOfOrder(client: ClientSession): void {
    const rows: number[] = [];
    for (let row = client.head; row !== NO_ROW; row = next[row]) rows.push(row);
    let anyLater = false;
    for (let i = rows.length - 1; i >= 0; i--) {
      const row = rows[i];
      const isRead = (table.flags[row] & FLAG_CLASS_MASK) === CLASS_QUERY;
      const chunk = table.chunk[row];
      if (chunk === undefined || table.asked[row] === 0) continue;
      const from = commandStart(row);
      const waits = state[row] === ROW_WAITING;
      if (isRead || waits) {
        if (!anyLater || state[row] === ROW_DONE) continue;
        if (isRead && !laterWrites.mayMeet(chunk.bytes, from, table.end[row])) continue;
        if (waits) unwait(client, row);
        else takeOff(client, row);
        giveUp(client, row, "a later command of this connection may have been done before it");
      } else if (state[row] !== ROW_SENDING) {
        if (!anyLater) laterWrites.clear();
        anyLater = true;
        laterWrites.add(chunk.bytes, from, table.end[row]);
      }
    }
  }

  /** An open row is not at its server any more. */
  function takeOff(client: ClientSession, row: number): void {
    leaveServer(row);
    client.open--;
    dropReply(row);
    table.creditOwed[row] = 0;
    table.unbind(row);
    if ((table.flags[row] & (FLAG_CLASS_MASK | FLAG_SESSION)) !== CLASS_QUERY) nameNumber(row);
  }

  /** From now on a write is asked under the number of its first asking. */
  function nameNumber(row: number): void {
    if ((table.flags[row] & FLAG_SESSION) !== 0) return;
    const old = table.chunk[row]!;
    const length = lengthOf(row) + SESSION_PREFIX_BYTES;
    const chunk = writeBytes.room(length + HEADER_BYTES);
    const at = chunk.used + HEADER_BYTES;
    chunk.bytes.set(sessionId, at);
    writeU32(chunk.bytes, at + 8, table.number[row]);
    // Nothing is told here of what has been answered: the session's window forgets by itself.
    writeU32(chunk.bytes, at + 12, 0);
    chunk.bytes.set(
      old.bytes.subarray(table.start[row], table.end[row]),
      at + SESSION_PREFIX_BYTES,
    );
    writeBytes.keep(chunk, length + HEADER_BYTES);
    writeBytes.release(old);
    table.chunk[row] = chunk;
    table.start[row] = at;
    table.end[row] = at + length;
    table.flags[row] |= FLAG_SESSION;
    table.named[row] = 1;
  }

  function isAnsweredRead(row: number): boolean {
    return (
      table.asked[row] !== 0 &&
      table.outcome[row] === OUTCOME_ANSWER &&
      (table.flags[row] & FLAG_CLASS_MASK) === CLASS_QUERY
    );
  }

  function retreatClient(client: ClientSession, now: number): void {
    if (table.streaming[client.head] !== 0) {
      closeClient(client, "the rest of a long reply is lost with its server", true);
      return;
    }
    if (client.rows > 1) endOutOfOrder(client);
    let row = client.head;
    let askedAgain = false;
    while (row !== NO_ROW) {
      const after = next[row];
      if (state[row] >= ROW_SENDING && state[row] <= ROW_REPLYING) {
        askedAgain = true;
        if (state[row] !== ROW_SENDING && (table.flags[row] & FLAG_CLASS_MASK) !== CLASS_QUERY) {
          table.mayBeDone[row] = 1;
        }
        takeBack(client, row, now);
      } else if (askedAgain && state[row] === ROW_DONE && isAnsweredRead(row)) {
        // It was answered behind one that was not: asked after that one it cannot be older.
        dropReply(row);
        wait(client, row, now);
      }
      row = after;
    }
    client.firstWaiting = waitingFrom(client.head);
    client.sending = false;
    client.retreating = false;
    assert(client.open === 0, "a client that was taken back has nothing open");
    drainHead(client);
    if (!client.closed && !client.choked && client.firstWaiting !== NO_ROW) hold.add(client);
  }

  function setSession(id: Uint8Array): void {
    sessionId = id.slice(0);
    assert(inFlightAt[0] === 0 && inFlightAt[1] === 0, "a session is renewed with nothing open");
    for (let i = 0; i < clients.length; i++) {
      const client = clients[i];
      if (client !== undefined && !client.closed) forgetNumbers(client);
    }
    nextId = 1;
    draining = false;
    idsToldUsedUp = false;
  }

  /** Under a new session an old number means nothing: what may be done must not be asked again. */
  function forgetNumbers(client: ClientSession): void {
    let row = client.head;
    while (row !== NO_ROW) {
      if (state[row] === ROW_WAITING && table.asked[row] !== 0) {
        unwait(client, row);
        if (table.mayBeDone[row] !== 0 && table.named[row] !== 0) {
          giveUp(client, row, "the controller's session has ended");
        } else {
          if (table.named[row] !== 0) {
            table.start[row] += SESSION_PREFIX_BYTES;
            table.flags[row] &= ~FLAG_SESSION;
            table.named[row] = 0;
          }
          table.asked[row] = 0;
          wait(client, row, table.sentAt[row]);
        }
      }
      row = next[row];
    }
    client.firstWaiting = waitingFrom(client.head);
    drainHead(client);
  }

  function lookAtDrain(): void {
    if (!draining || idsToldUsedUp || inFlightAt[0] !== 0 || inFlightAt[1] !== 0) return;
    // What has been asked before is settled under its own number first; it stands before all else.
    let client = hold.first;
    while (client !== undefined) {
      if (client.firstWaiting !== NO_ROW && table.asked[client.firstWaiting] !== 0) return;
      client = client.heldAfter;
    }
    idsToldUsedUp = true;
    events.onIdsUsedUp();
  }

  function linkUp(
    server: ServerIndex,
    connection: number,
    frameMax: number,
    linkWindowBytes: number,
    now: number,
  ): void {
    if (linked(server)) linkDown(server, now);
    linkOf[server] = connection;
    linkPayloadMax[server] = frameMax - HEADER_BYTES;
    windowBytes[server] = linkWindowBytes;
    windowUsed[server] = 0;
    replyEpoch[server] = 0;
    refusedUntil[server] = 0;
    target.first(server, reportedUs[server], now);
    lookAtRoute(now);
    if (routeOpen) pumpHeld(hold.count, now);
  }

  function linkDown(server: ServerIndex, now: number): void {
    if (!linked(server)) return;
    linkOf[server] = -1;
    retreatFrom(server, now);
    replyEpoch[server] = 0;
    lookAtRoute(now);
    if (routeOpen) pumpHeld(hold.count, now);
    if (draining) lookAtDrain();
  }

  function linkDrained(server: ServerIndex, now: number): void {
    if (sendingRows[server].length > 0) pumpFragments(server, now);
  }

  // ---------------------------------------------------------------- giving up

  /** Ends a waiting row that has been taken out of the count of waiting ones. */
  function giveUp(client: ClientSession, row: number, reason: string): void {
    count.gaveUp++;
    if (table.mayBeDone[row] !== 0) {
      count.outcomeUnknown++;
      finishHere(client, row, OUTCOME_UNKNOWN, "OUTCOMEUNKNOWN " + reason);
    } else {
      finishHere(client, row, OUTCOME_REFUSED, "CLUSTERDOWN no primary: " + reason);
    }
  }

  function heldTooLong(row: number, now: number): boolean {
    const refusedFor = table.heldSince[row] < 0 ? 0 : now - table.heldSince[row];
    if (refusedFor >= holdMs) return true;
    const down = isQuery(row) ? readsDownSince : writesDownSince;
    if (down < 0) return false;
    const since = table.sentAt[row] > down ? table.sentAt[row] : down;
    return now - since >= holdMs;
  }

  function expire(client: ClientSession, now: number): void {
    let ended = false;
    while (client.firstWaiting !== NO_ROW && heldTooLong(client.firstWaiting, now)) {
      const row = client.firstWaiting;
      unwait(client, row);
      giveUp(client, row, why === "" ? "its link is down" : why);
      ended = true;
    }
    if (!ended) return;
    drainHead(client);
    if (client.closed) return;
    dispatch(client, now);
    if (client.paused) resumeIntake(client, now);
  }

  // ---------------------------------------------------------------- clients

  function clientOpen(connection: number, kind: "redis" | "native", now: number): void {
    serials++;
    const client = createClientSession(connection, serials, kind === "native", now);
    clients[connection] = client;
    if (count.clients >= limits.clientsMax) {
      count.clientsRefused++;
      client.closed = true;
      if (kind === "redis") {
        localSink.length = 0;
        writeError(localSink, "ERR max number of clients reached");
        ports.send(connection, localSink.bytes, 0, localSink.length);
      }
      ports.close(connection, "more than " + limits.clientsMax + " clients", false);
      return;
    }
    count.clients++;
    if (kind === "redis") {
      client.authenticated = config.clientPassword === undefined;
      client.parser = new RespParser(respLimits);
      client.parser.authenticated = client.authenticated;
    } else {
      client.authenticated = true;
      const front = createNativeFront(nativeHost, client);
      client.front = front;
      client.decoder = new FrameDecoder(front.onFrame, HANDSHAKE_PAYLOAD_BYTES_MAX, 64 * 1024);
    }
  }

  function clientBytes(
    connection: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void {
    const client = clients[connection];
    if (client === undefined || client.closed || client.ending !== "") return;
    currentTime = now;
    client.intakeAt = now;
    if (client.native) {
      const fault = client.decoder!.feed(bytes, start, end);
      if (fault !== "") {
        closeClient(client, fault, false);
        return;
      }
      if (client.closed) return;
      lookAtIntake(client, client.decoder!.heldBytes() + client.front!.heldBytes());
      if (mustPause(client)) pause(client);
      return;
    }
    if (!client.parser!.feed(bytes, start, end)) {
      closeClient(client, "it went on sending while it was not read from", true);
      return;
    }
    takeIntake(client, now);
  }

  function mustPause(client: ClientSession): boolean {
    return (
      client.choked ||
      client.rows >= CLIENT_ROWS_MAX ||
      client.waitingBytes > CLIENT_WAITING_BYTES_MAX ||
      isThirsty(client)
    );
  }

  /** While nobody can serve there is no point in waiting for room: whoever has nothing open hears BUSY. */
  function isThirsty(client: ClientSession): boolean {
    return !hasRows(rowsReserved) && (client.rows > 0 || writesDownSince < 0);
  }

  function pause(client: ClientSession): void {
    client.paused = true;
    setReading(client, false);
    if (!client.thirsty && isThirsty(client)) {
      client.thirsty = true;
      thirstyClients.push(client);
    }
  }

  /** Takes commands from what a RESP client has sent, as long as its queue allows. */
  function takeIntake(client: ClientSession, now: number): void {
    const parser = client.parser!;
    while (!client.closed && client.ending === "") {
      if (mustPause(client)) {
        parser.keep();
        pause(client);
        break;
      }
      const parsed = parser.next();
      if (parsed === PARSED_COMMAND) {
        takeRespCommand(client, parser, now);
      } else if (parsed === PARSED_NOTHING) {
        if (client.paused) client.paused = false;
        setReading(client, true);
        break;
      } else {
        answerError(client, parser.problem);
        if (client.transaction !== undefined) client.transaction.dirty = true;
        if (parsed !== PARSED_REFUSED) endClient(client, parser.problem);
      }
    }
    if (client.closed) return;
    const transaction = client.transaction;
    const held =
      parser.heldBytes() + (transaction === undefined ? 0 : transaction.sink.bytes.length);
    if (held !== client.intakeBytes) lookAtIntake(client, held);
  }

  function resumeIntake(client: ClientSession, now: number): void {
    if (client.closed || client.ending !== "") return;
    if (
      client.choked ||
      client.rows > CLIENT_ROWS_MAX >> 1 ||
      client.waitingBytes > CLIENT_WAITING_BYTES_MAX >> 1
    ) {
      return;
    }
    if (isThirsty(client)) {
      pause(client);
      return;
    }
    client.paused = false;
    if (client.native) setReading(client, true);
    else takeIntake(client, now);
  }

  /** Keeps count of memory for commands that are not whole; the one half sent for longest goes first. */
  function lookAtIntake(client: ClientSession, held: number): void {
    intakeTotal += held - client.intakeBytes;
    client.intakeBytes = held;
    while (intakeTotal > intakeMax) {
      let oldest: ClientSession | undefined = undefined;
      for (let i = 0; i < clients.length; i++) {
        const one = clients[i];
        // Whoever was paused here has done nothing wrong.
        if (one === undefined || one.closed || one.paused || one.intakeBytes === 0) continue;
        if (oldest === undefined || one.intakeAt < (oldest as ClientSession).intakeAt) oldest = one;
      }
      if (oldest === undefined) return;
      closeClient(
        oldest,
        "its half-sent command has waited longest, and memory for them is used up",
        true,
      );
    }
  }

  function clientDrained(connection: number, now: number): void {
    const client = clients[connection];
    if (client !== undefined) lookAtChoked(client, now);
  }

  function clientClosed(connection: number, now: number): void {
    const client = clients[connection];
    if (client === undefined) return;
    forget(client);
    clients[connection] = undefined;
    if (hold.count > 0) pumpHeld(4, now);
    if (thirstyClients.length > 0) quench(now);
    if (draining) lookAtDrain();
  }

  /** Closes when the queue is empty. */
  function endClient(client: ClientSession, reason: string): void {
    client.ending = reason;
    setReading(client, false);
    if (client.head === NO_ROW) closeClient(client, reason, false);
  }

  function closeClient(client: ClientSession, reason: string, abort: boolean): void {
    if (client.closed) return;
    forget(client);
    ports.close(client.connection, reason, abort);
  }

  /** The client is gone; what it has sent stays outstanding until it is answered. */
  function forget(client: ClientSession): void {
    if (client.closed) return;
    client.closed = true;
    count.clients--;
    hold.remove(client);
    let row = client.head;
    while (row !== NO_ROW) {
      const after = next[row];
      switch (state[row]) {
        case ROW_WAITING:
          unwait(client, row);
          release(row);
          break;
        case ROW_DONE:
          release(row);
          break;
        case ROW_OPEN:
          table.client[row] = CLIENT_GONE;
          break;
        case ROW_SENDING:
          stopSending(row, table.server[row]);
          sendAbort(table.server[row], table.id[row]);
          leaveServer(row);
          release(row);
          break;
        default:
          assert(state[row] === ROW_REPLYING, "a row in a queue is in use");
          sendAbort(table.server[row], table.id[row]);
          leaveServer(row);
          release(row);
          break;
      }
      row = after;
    }
    client.head = NO_ROW;
    client.tail = NO_ROW;
    client.rows = 0;
    client.open = 0;
    client.firstWaiting = NO_ROW;
    intakeTotal -= client.intakeBytes;
    client.intakeBytes = 0;
    outTotal -= client.outKnown;
    client.outKnown = 0;
    if (client.decoder !== undefined) client.decoder.close();
    if (client.thirsty) {
      const others: ClientSession[] = [];
      for (let i = 0; i < thirstyClients.length; i++) {
        if (thirstyClients[i] !== client) others.push(thirstyClients[i]);
      }
      thirstyClients = others;
    }
    for (let i = 0; i < chokedClients.length; i++) {
      if (chokedClients[i] === client) {
        chokedClients.splice(i, 1);
        break;
      }
    }
  }

  // ---------------------------------------------------------------- native clients

  function currentSessionId(): Uint8Array {
    return sessionId;
  }

  function freshNonce(nonceD: Uint8Array): Uint8Array {
    return nonces.answerTo(nonceD, currentTime);
  }

  function sendToClient(client: ClientSession, frame: Uint8Array): void {
    toClient(client, frame, 0, frame.length);
  }

  function setClientPayloadMax(client: ClientSession, payloadMax: number): void {
    client.decoder!.setPayloadMax(payloadMax);
  }

  function nativeFault(client: ClientSession, reason: string): void {
    closeClient(client, reason, false);
  }

  function submitNative(
    client: ClientSession,
    flags: number,
    primaryOnly: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
    clientId: number,
  ): void {
    submit(client, flags, primaryOnly, bytes, start, end, clientId, currentTime);
  }

  function nativeError(client: ClientSession, clientId: number, text: string): void {
    const bytes = errorBytes(text);
    deliver(client, clientId, OUTCOME_ANSWER, bytes, 0, bytes.length, false);
  }

  function abortNative(client: ClientSession, clientId: number): void {
    let row = client.head;
    while (row !== NO_ROW) {
      if (table.clientId[row] === clientId && state[row] !== ROW_DONE) {
        table.clientId[row] = 0;
        return;
      }
      row = next[row];
    }
  }

  // ---------------------------------------------------------------- time and numbers

  function tick(now: number): number {
    currentTime = now;
    for (let server = 0; server < 2; server++) {
      if (sendingRows[server].length > 0) pumpFragments(server, now);
    }
    for (let i = chokedClients.length - 1; i >= 0; i--) {
      if (i < chokedClients.length) lookAtChoked(chokedClients[i], now);
    }
    if (hold.count > 0) {
      let client = hold.first;
      while (client !== undefined) {
        const after: ClientSession | undefined = client.heldAfter;
        expire(client, now);
        client = after !== undefined && after.held ? after : undefined;
      }
      pumpHeld(hold.count, now);
    }
    if (draining) lookAtDrain();
    if (thirstyClients.length > 0) quench(now);
    if (sendingRows[0].length > 0 || sendingRows[1].length > 0) return now + 1;
    if (hold.count > 0 && (refusedUntil[0] > now || refusedUntil[1] > now)) {
      return now + REFUSED_PAUSE_MS;
    }
    if (hold.count > 0 || chokedClients.length > 0 || thirstyClients.length > 0) {
      return now + LOOK_MS;
    }
    return now + 1000;
  }

  function inFlight(server: ServerIndex): number {
    return inFlightAt[server];
  }

  function openCount(): number {
    return inFlightAt[0] + inFlightAt[1];
  }

  function serviceUs(server: ServerIndex): number {
    return target.serviceUs(server);
  }

  function setReported(
    server: ServerIndex,
    loadPermille: number,
    braking: boolean,
    serviceUsReported: number,
  ): void {
    reportedUs[server] = serviceUsReported;
    target.setReported(server, loadPermille, braking);
  }

  function counters(): ForwardCounters {
    count.held = hold.commands;
    count.heldBytes = hold.bytes;
    count.clientsClosedSlow = closedSlow;
    count.memoryBytes =
      readBytes.total() + writeBytes.total() + intakeTotal + keptReplyBytes + stashBytes;
    return count;
  }

  const connectionHost: ConnectionHost = {
    password: config.clientPassword,
    valueBytesMax: limits.valueBytesMax,
    clients: allClients,
  };
  const nativeHost: NativeHost = {
    key: config.clientKey === undefined ? new Uint8Array(0) : config.clientKey,
    hmac: ports.hmac,
    frameMax: config.frameMax,
    windowBytes: commandBytesMax * 4,
    commandBytesMax: commandBytesMax,
    valueBytesMax: limits.valueBytesMax,
    sessionId: currentSessionId,
    nonce: freshNonce,
    send: sendToClient,
    setPayloadMax: setClientPayloadMax,
    fault: nativeFault,
    submit: submitNative,
    error: nativeError,
    abort: abortNative,
  };

  return {
    setRoute: setRoute,
    setSession: setSession,
    linkUp: linkUp,
    linkDown: linkDown,
    linkDrained: linkDrained,
    onReply: onReply,
    onReplyEpoch: onReplyEpoch,
    clientOpen: clientOpen,
    clientBytes: clientBytes,
    clientDrained: clientDrained,
    clientClosed: clientClosed,
    setReported: setReported,
    tick: tick,
    inFlight: inFlight,
    serviceUs: serviceUs,
    openCount: openCount,
    counters: counters,
  };
}
