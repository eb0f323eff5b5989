/**
 * The fast path of a chip's engine: what is ordinary goes from a client's socket to a server's, and back, in one flat
 * handler each, patched in the very string that came.
 *
 *     client's chunk ─> ordinary? ─> id patched in place ─> server's socket          books: here, a word a command
 *                          └ no ──> settle: the books become rows ─> forwarder (core/), as without this file
 *     server's chunk <─ the same way back
 *
 * The engine reads the source of every statement anew whenever it runs it, so a forwarder of many small functions costs
 * millions of instructions a command. Here a command is handled by two statements, and nothing is decided by them: the
 * gate, which they only look at, is opened by `open` when the forwarder's own rules say that each of the next few
 * commands would be sent at once (route open, nothing held, ids and windows free, nobody in line), and every call into
 * the forwarder shuts it. Whatever is not ordinary (another frame, a refusal, a part of a reply, a command whose name is
 * not known yet, a client that has something in the forwarder's queue) takes the forwarder's way, before which what that
 * client has outstanding here is written into the forwarder's table, row for row as it would stand there. So a lost
 * link, a change of roles, a retry, a client that goes all meet rows, and this file knows nothing of them.
 *
 * Not kept here: when a command was sent (one read in some hundred is timed) and the average length of a client's replies.
 */
import {
  CHIP_FRAME_BYTES_MAX,
  CLASS_QUERY,
  FLAG_CLASS_MASK,
  FLAG_ORDERED,
  FRAME_COMMAND,
  FRAME_REPLY,
  HEADER_BYTES,
  WIRE_VERSION,
} from "../protocol/frame.js";
import { classOf, findCommand, marksOf } from "../protocol/command-class.js";
import type { ServerIndex } from "../protocol/record.js";
import type { RawTcp } from "../hal/hal.js";
import { assert } from "./core/assert.js";
import { lookAtBacklog } from "./core/client-output.js";
import { enqueue } from "./core/client-queue.js";
import { forwarderOf } from "./core/forward.js";
import type { Forwarder } from "./core/forward.js";
import { NO_ROW, ROW_OPEN } from "./core/in-flight.js";
import { createTraffic } from "./core/traffic.js";
import type { Traffic } from "./core/traffic.js";
import type { CoreConfig } from "./core/config.js";
import type { ControllerPorts, ForwardEvents } from "./core/ports.js";

/** Most replies of a server before anybody looks whether clients read theirs; one of 256 bytes and more counts as several. */
const BUDGET_MAX = 64;
/** Budgets of one opening; after that reads may get another target. */
const BUDGETS = 6;
/** Commands that clients with several outstanding may send meanwhile. */
const QUEUE_BUDGET = 32;
/** Clients; what `who` has room for, without the mark of a timed command. */
const CLIENTS_MAX = 30;
const TIMED = 31;
/** Ids of one opening of the gate; their slots in `who` are free. */
const IDS = 2 * BUDGET_MAX + QUEUE_BUDGET + CLIENTS_MAX;
const SLOTS = 256;
/** Shapes of frames and names of commands that are known at once. */
const KNOWN_MAX = 24;

const COMMAND_WORD = (WIRE_VERSION << 4) | FRAME_COMMAND;
const REPLY_WORD = (WIRE_VERSION << 4) | FRAME_REPLY;
/** What is added for a known command is not 0, so that 0 can mean "unknown". */
const KNOWN = 4;
/** Where a frame's payload has a name: behind `*2\r\n$3\r\n`. */
const NAME_AT = 8;
const NAME_BYTES = 12;

/** What the engine offers. */
export interface FastEngine {
  /** A view of the text's own bytes: what is written there stands in the text. */
  toBuffer(text: string): ArrayBuffer;
  now(): number;
}

/** Words of a frame that is outstanding, and the client's own id. */
type Outstanding = [words: Int32Array, clientId: number];

interface FastClient {
  // In the order of use.
  /** The words of its only command; "": none; BUSY: ask elsewhere. Texts, since a number may not be asked for its letters. */
  words: Int32Array | string;
  clientId: number;
  slot: number;
  socket: RawTcp["socket"];
  raw: RawTcp;
  connection: number;
  /** Its commands may take this way. */
  ready: boolean;
  /** Several are outstanding, at `link`. */
  queue: Outstanding[];
  link: FastLink;
  reads: boolean;
  /** A frame came that is longer than any that is agreed with a chip. */
  strange: boolean;
  rest: string;
}

interface FastLink {
  // In the order of use.
  base: number;
  socket: RawTcp["socket"];
  /** The server it leads to, once it is proven. */
  server: number;
  raw: RawTcp;
  connection: number;
  handler(text: string): void;
  /** @returns the replies left; and sets them, unless negative */
  left(next: number): number;
  /** The next chunk begins within a frame. */
  setPartial(on: boolean): void;
  given: number;
  /** Commands outstanding here, and as many of them as the forwarder's counts hold. */
  open: number;
  counted: number;
  /** Something came that cannot be cut into frames here. */
  strange: boolean;
  /** Its replies may pass while the gate is open. */
  replies: boolean;
  /** Replies came since somebody looked. */
  alive: boolean;
  rest: string;
}

export interface FastPath {
  createForwarder(config: CoreConfig, ports: ControllerPorts, events: ForwardEvents): Forwarder;
  /** @returns the handler of a native client's chunks */
  client(connection: number, raw: RawTcp): (text: string) => void;
  /** @returns the handler of a server's chunks */
  server(connection: number, raw: RawTcp): (text: string) => void;
  /** The connection takes nothing more. */
  closed(connection: number): void;
  /** Nothing goes this way now: there is nothing to look at. */
  isQuiet(): boolean;
  /** Once a tick. @returns connections of servers that have answered since */
  look(): number[];
}

export function createFastPath(engine: FastEngine): FastPath {
  // In the order of use: the engine looks through a list.
  let k = 0;
  let words: Int32Array;
  let link: FastLink;
  /** Name of a command -> KNOWN and its class, as a frame's first word has it. */
  let known: Record<string, number> = {};
  const Words = Int32Array;
  const toBuffer = engine.toBuffer;
  /** Length of a frame -> its first word less KNOWN; `shut` while the gate is shut. */
  let heads: Record<number, number> = {};
  /** The next id; its upper bytes as they stand in a frame. */
  let id = 1;
  let high = 0;
  let readLink: FastLink;
  let writeLink: FastLink;
  let writes = 0;
  const who = new Uint8Array(SLOTS);
  const clients: (FastClient | undefined)[] = [];
  let replies: Record<number, number> = {};
  const shut: Record<number, number> = {};
  let lengths: Record<number, number> = {};
  let lengthCount = 0;
  let replyCount = 0;
  let knownCount = 0;

  let traffic: Traffic;
  let isOpen = false;
  /** No row of the forwarder's table is outstanding under an older id. */
  let rowsFrom = 1;
  /** Ids given up to here are counted. */
  let countedId = 1;
  let queueSent = 0;
  let queueIds = 0;
  let queueMax = 0;
  let queued = 0;
  let shareMax = 0;
  const links: FastLink[] = [];
  /** The links that are up, by server. */
  const at: (FastLink | undefined)[] = [undefined, undefined];
  let budget = 0;
  /** Budgets left in this opening. */
  let budgets = 0;
  /** The standby's link, while it may have reads. */
  let other: FastLink | undefined;
  /** The target of reads has not answered since the last tick. */
  let stalled = false;
  /** Of a client whose commands are not simply passed on; here, because the engine finds it sooner than at the file's top. */
  const BUSY = "x";
  const now = engine.now;
  /** The command that is timed: its id as it stands in a frame, 0: none. */
  let timedWord = 0;
  let timedSlot = 0;
  let timedAt = 0;
  let timedAhead = 0;

  function swapped(word: number): number {
    return (
      (((word & 255) << 24) |
        (((word >> 8) & 255) << 16) |
        (((word >> 16) & 255) << 8) |
        (word >>> 24)) >>>
      0
    );
  }

  function headOf(type: number, length: number): number {
    const payload = length - HEADER_BYTES;
    return type | ((payload >> 8) << 16) | (payload << 24);
  }

  /** Brings the forwarder's counts up to date with what has gone this way. */
  function count(): void {
    const counts = traffic.count;
    const reads = id - countedId - writes - queueIds;
    countedId = id;
    queueIds = 0;
    if (reads > 0) {
      readLink.open += reads;
      counts.reads += reads;
      counts.readsTo[readLink.server] += reads;
    }
    if (writes > 0) {
      writeLink.open += writes;
      counts.writes += writes;
      writes = 0;
    }
    for (let i = 0; i < links.length; i++) {
      const one = links[i];
      const left = one.left(-1);
      if (one.given !== left) {
        one.open -= one.given - left;
        one.given = left;
        one.alive = true;
      }
      if (one.open !== one.counted) {
        const server = one.server;
        const more = one.open - one.counted;
        traffic.inFlightAt[server] += more;
        traffic.windowUsed[server] += more * CHIP_FRAME_BYTES_MAX;
        one.counted = one.open;
      }
    }
  }

  function shutGate(): void {
    isOpen = false;
    heads = shut;
    for (let i = 0; i < links.length; i++) {
      links[i].left(0);
      links[i].given = 0;
    }
  }

  /** Before the forwarder does anything. */
  function before(): void {
    count();
    shutGate();
    if (traffic.table.used === 0) rowsFrom = id;
    traffic.nextId = id;
  }

  function after(): void {
    id = traffic.nextId;
    countedId = id;
  }

  /** Puts what a client has outstanding here into the forwarder's table; counts are up to date. */
  function settle(one: FastClient): void {
    one.ready = false;
    if (one.queue.length === 0 && typeof one.words === "string") {
      one.words = BUSY;
      return;
    }
    const all = one.queue;
    if (typeof one.words !== "string") {
      all.push([one.words, one.clientId]);
      one.link = linkWith(one, one.words[1] >>> 24);
    } else queued -= all.length;
    one.words = BUSY;
    one.queue = [];
    if (traffic.table.used === 0 || id - SLOTS < rowsFrom) rowsFrom = id - SLOTS;
    traffic.currentTime = now();
    const client = traffic.clients[one.connection]!;
    const server = one.link.server;
    for (let i = 0; i < all.length; i++) toRow(one, all[i], client, server);
    if (timedWord !== 0 && timedSlot === one.slot) timedWord = 0;
  }

  function toRow(
    one: FastClient,
    sent: Outstanding,
    client: NonNullable<Traffic["clients"][number]>,
    server: number,
  ): void {
    const table = traffic.table;
    const head = sent[0][0];
    const number = swapped(sent[0][1]);
    const length = (head >>> 24) | ((head >> 8) & 65280);
    const flags = (head >> 8) & FLAG_CLASS_MASK;
    const query = flags === CLASS_QUERY;
    const memory = query ? traffic.readBytes : traffic.writeBytes;
    const row = table.take();
    assert(row !== NO_ROW, "rows are kept for what went the fast way");
    const chunk = memory.room(length + HEADER_BYTES);
    const at = chunk.used + HEADER_BYTES;
    chunk.bytes.set(new Uint8Array(sent[0].buffer as ArrayBuffer, HEADER_BYTES, length), at);
    memory.keep(chunk, length + HEADER_BYTES);
    table.chunk[row] = chunk;
    table.start[row] = at;
    table.end[row] = at + length;
    table.flags[row] = flags;
    table.primaryOnly[row] = 0;
    table.clientId[row] = swapped(sent[1]);
    assert(table.bind(row, number), "the ids of the fast way are free");
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
    one.link.counted--;
    traffic.windowUsed[server] += length + HEADER_BYTES - CHIP_FRAME_BYTES_MAX;
  }

  function settleAll(): void {
    for (let i = 0; i < clients.length; i++) {
      const one = clients[i];
      if (one !== undefined) settle(one);
    }
  }

  function settleConnection(connection: number): void {
    for (let i = 0; i < clients.length; i++) {
      const one = clients[i];
      if (one !== undefined && one.connection === connection) settle(one);
    }
  }

  /** The link at which the command of this slot is outstanding. */
  function linkWith(one: FastClient, slot: number): FastLink {
    for (let i = 0; i < links.length; i++) {
      const found = who[slot] - links[i].base;
      if (found === one.slot || found === TIMED) return links[i];
    }
    assert(false, "what is outstanding is at a link");
    return links[0];
  }

  /** May `more` commands be sent to this server at once, whatever their length? */
  function hasRoom(server: number, more: number): boolean {
    return (
      traffic.inFlightAt[server] + more <= traffic.inFlightMax &&
      traffic.windowUsed[server] + more * CHIP_FRAME_BYTES_MAX <= traffic.windowBytes[server]
    );
  }

  /** Opens the gate for the next few commands and replies, if all that the forwarder looks at is as usual. */
  function open(now: number): boolean {
    count();
    shutGate();
    if (
      !traffic.routeOpen ||
      traffic.draining ||
      traffic.hold.count > 0 ||
      traffic.line.length > 0 ||
      traffic.stash.length > 0 ||
      traffic.sendingRows[0].length > 0 ||
      traffic.sendingRows[1].length > 0 ||
      traffic.passedEpoch !== traffic.epoch
    ) {
      return false;
    }
    const primary = at[traffic.primary];
    if (primary === undefined || primary.strange || now < traffic.refusedUntil[traffic.primary]) {
      return false;
    }
    let known = 0;
    for (let i = 0; i < clients.length; i++) {
      const one = clients[i];
      if (one === undefined) continue;
      known++;
      if (one.ready) lookAtClient(one);
    }
    const standby = 1 - traffic.primary;
    other = traffic.readable[standby] ? at[standby] : undefined;
    if (other !== undefined && (other.strange || now < traffic.refusedUntil[standby])) {
      other = undefined;
    }
    const busier =
      other !== undefined && traffic.inFlightAt[standby] > traffic.inFlightAt[traffic.primary]
        ? standby
        : traffic.primary;
    const room = traffic.inFlightMax - traffic.inFlightAt[busier] - known;
    queueMax = traffic.rowsLent - known;
    if (queued + room < queueMax) queueMax = queued + room;
    if (queueMax < 0 || !hasRoom(traffic.primary, known)) return false;
    if (other !== undefined && !hasRoom(standby, known)) other = undefined;
    const free = traffic.table.capacity - traffic.rowsLent - traffic.table.used - traffic.rowsKept;
    const replyRoom = traffic.limits.clientReplyBytesMax / CHIP_FRAME_BYTES_MAX;
    shareMax = free < replyRoom ? free : replyRoom;
    writeLink = primary;
    for (let i = 0; i < links.length; i++) {
      const one = links[i];
      one.replies =
        !one.strange &&
        (one === primary || one === at[standby]) &&
        traffic.replyEpoch[one.server] === traffic.epoch;
    }
    return widen(now);
  }

  /** Nothing but what went this way has happened since the gate was opened: what was looked at then still holds. */
  function renew(): boolean {
    count();
    lookAtClients();
    return widen(now());
  }

  /** The same for one server's replies, without another look at the target of reads. */
  function goOn(from: FastLink): boolean {
    if (budgets === 0 || !from.replies) return false;
    budgets--;
    lookAtClients();
    if (!takeIds()) return false;
    queueSent = 0;
    from.given += budget;
    from.left(budget);
    return true;
  }

  function lookAtClients(): void {
    for (let i = 0; i < clients.length; i++) {
      const one = clients[i];
      if (one === undefined) continue;
      const sent = one.words;
      if (one.socket.dSnd || sent === BUSY) lookAtClient(one);
      else if (sent !== "" && ((((sent as Int32Array)[1] >>> 24) - id) & 255) < IDS) {
        lookAtClient(one);
      }
    }
  }

  /** Makes sure of the next ids. @returns false, and the gate is shut, when they are not all free */
  function takeIds(): boolean {
    // All that are given out before the next look have the same upper bytes.
    if ((id & 255) + IDS > 256) {
      const next = (id | 255) + 1;
      countedId += next - id;
      id = next;
      high = (((id >>> 8) & 255) << 16) | (((id >>> 16) & 255) << 8) | (id >>> 24);
    }
    const table = traffic.table;
    if (id + IDS < traffic.idMax) {
      if (table.used === 0 || id + IDS - rowsFrom < 2 * table.capacity) return true;
      if (table.freeFrom(id, IDS)) return true;
    }
    count();
    shutGate();
    return false;
  }

  /** Ids, replies and the target of reads for one opening. @returns whether there are such */
  function widen(now: number): boolean {
    if (!takeIds()) return false;
    high = (((id >>> 8) & 255) << 16) | (((id >>> 16) & 255) << 8) | (id >>> 24);
    budgets = BUDGETS;
    queueSent = 0;
    stalled = false;
    readLink = writeLink;
    if (
      other !== undefined &&
      traffic.target.choose(true, true, traffic.inFlightAt[0], traffic.inFlightAt[1], now) !==
        traffic.primary
    ) {
      readLink = other;
    }
    for (let i = 0; i < links.length; i++) {
      const one = links[i];
      if (!one.replies) continue;
      one.left(budget);
      one.given = budget;
    }
    heads = lengths;
    isOpen = true;
    return true;
  }

  /** A client that does not read must be choked, and an id must not come round while it is outstanding. */
  function lookAtClient(one: FastClient): void {
    const unread = one.socket.dSnd;
    let oldest = id;
    if (one.queue.length > 0) oldest = swapped(one.queue[0][0][1]);
    else if (typeof one.words !== "string") oldest = swapped(one.words[1]);
    const isOld = id - oldest > SLOTS - IDS - 1;
    const choked = unread !== undefined && unread.length > traffic.limits.clientOutHighBytes;
    if (!isOld && !choked) return;
    settle(one);
    if (choked) lookAtBacklog(traffic, traffic.clients[one.connection]!);
  }

  /** Whether this client has nothing in the forwarder's hands, so that its next command may take this way. */
  function wake(one: FastClient): boolean {
    const client = traffic.clients[one.connection];
    if (
      client === undefined ||
      client.closed ||
      client.ending !== "" ||
      client.head !== NO_ROW ||
      client.open !== 0 ||
      client.choked ||
      client.paused ||
      client.inLine ||
      client.held ||
      !client.reading ||
      one.strange ||
      one.rest !== "" ||
      !one.raw.isIdle()
    ) {
      return false;
    }
    const decoder = client.decoder!;
    const front = client.front!;
    if (!front.isIdle() || decoder.parked || decoder.fault !== "" || decoder.heldBytes() > 0) {
      return false;
    }
    if (front.payloadMax() < CHIP_FRAME_BYTES_MAX - HEADER_BYTES) return false;
    one.ready = true;
    one.words = "";
    return true;
  }

  // ---------------------------------------------------------------- what clients send

  /** A chunk that the handler did not take. */
  function take(one: FastClient, chunk: string): void {
    if (one.strange) {
      one.raw.ordinary(chunk);
      return;
    }
    let text = chunk;
    if (one.rest !== "") {
      text = one.rest.concat(chunk);
      one.rest = "";
    }
    const length = text.length;
    let at = 0;
    while (length - at >= HEADER_BYTES) {
      const size = HEADER_BYTES + (text.charCodeAt(at + 2) << 8) + text.charCodeAt(at + 3);
      if (size > CHIP_FRAME_BYTES_MAX) {
        one.strange = true;
        ordinaryWay(one, text.substr(at));
        return;
      }
      if (at + size > length) break;
      takeFrame(one, size === length ? text : text.substr(at, size));
      at += size;
    }
    if (at === length) return;
    // What comes next begins within a frame: the handler, which looks at a chunk's first bytes, may not have it.
    one.rest = text.substr(at);
    if (one.words === "") {
      one.ready = false;
      one.words = BUSY;
    } else if (typeof one.words !== "string") toQueue(one);
  }

  /** The only command of a client becomes the first of several. */
  function toQueue(one: FastClient): void {
    const first = one.words as Int32Array;
    one.link = linkWith(one, first[1] >>> 24);
    one.reads = ((first[0] >> 8) & FLAG_CLASS_MASK) === CLASS_QUERY;
    one.queue.push([first, one.clientId]);
    one.words = BUSY;
    queued++;
  }

  function ordinaryWay(one: FastClient, text: string): void {
    one.ready = false;
    if (one.queue.length > 0 || one.words !== BUSY) {
      count();
      settle(one);
    }
    one.raw.ordinary(text);
  }

  function takeFrame(one: FastClient, text: string): void {
    const kind = known[text.substr(NAME_AT, NAME_BYTES)];
    if (kind === undefined) {
      ordinaryWay(one, text);
      learn(text);
      return;
    }
    if (!isOpen || stalled || queueSent >= QUEUE_BUDGET) {
      if (!(isOpen ? renew() : open(now()))) {
        ordinaryWay(one, text);
        return;
      }
      heads = shut;
    }
    const length = text.length;
    const head = headOf(COMMAND_WORD, length) + kind - KNOWN;
    if (!one.ready && (one.queue.length > 0 || !wake(one))) {
      ordinaryWay(one, text);
      return;
    }
    if (heads === shut) {
      heads = lengths;
      timeNext(one, kind);
    }
    words = new Words(toBuffer(text), 0, 2);
    if (words[0] !== head || words[1] === 0) {
      ordinaryWay(one, text);
      return;
    }
    if (lengths[length] === undefined) {
      if (lengthCount === KNOWN_MAX) {
        lengthCount = 0;
        lengths = {};
      }
      lengthCount++;
      lengths[length] = headOf(COMMAND_WORD, length) - KNOWN;
      heads = lengths;
    }
    const isRead = kind === KNOWN;
    if (one.words === "") {
      link = isRead ? readLink : writeLink;
      one.words = words;
      one.clientId = words[1];
      words[1] = (id << 24) | high;
      if (!isRead) writes++;
      who[id & 255] = (timedWord === words[1] ? TIMED : one.slot) + link.base;
      id++;
      try {
        link.socket.write(text);
      } catch (_closed) {
        // Its end is in the engine's queue, and then what is outstanding is settled.
      }
      return;
    }
    if (!queue(one, text, isRead)) ordinaryWay(one, text);
  }

  /** Sends a command behind others of its client. @returns false when it is not surely to be sent at once */
  function queue(one: FastClient, text: string, isRead: boolean): boolean {
    if (typeof one.words !== "string") toQueue(one);
    const all = one.queue;
    const to = one.link;
    // Behind a read no write goes here: it may have to wait for the read's answer (core/pipeline-order.ts).
    if (isRead ? to !== writeLink && to !== other : to !== writeLink || one.reads) return false;
    if (queued >= queueMax || all.length + 2 > shareMax) return false;
    if (isRead) one.reads = true;
    all.push([words, words[1]]);
    queued++;
    words[0] |= FLAG_ORDERED << 8;
    words[1] = (id << 24) | high;
    who[id & 255] = one.slot + to.base;
    id++;
    queueIds++;
    queueSent++;
    to.open++;
    if (isRead) {
      traffic.count.reads++;
      traffic.count.readsTo[to.server]++;
    } else traffic.count.writes++;
    try {
      to.socket.write(text);
    } catch (_closed) {
      // Its end is in the engine's queue, and then what is outstanding is settled.
    }
    return true;
  }

  /** A name that the forwarder lets pass without a second look. */
  function learn(text: string): void {
    const name = text.substr(NAME_AT, NAME_BYTES);
    const digit = name.charCodeAt(5);
    if (
      (digit !== 51 && digit !== 52) ||
      name.charCodeAt(0) !== 42 ||
      name.substr(2, 3) !== "\r\n$" ||
      name.substr(6, 2) !== "\r\n" ||
      (digit === 51 && name.charCodeAt(11) !== 13)
    ) {
      return;
    }
    const bytes = new Uint8Array(4);
    for (let i = 0; i < 4; i++) bytes[i] = name.charCodeAt(8 + i);
    const entry = findCommand(bytes, 0, digit - 48);
    if (entry < 0 || marksOf(entry) !== 0) return;
    if (knownCount === KNOWN_MAX) {
      knownCount = 0;
      known = {};
    }
    knownCount++;
    known[name] = KNOWN + (classOf(entry) << 8);
  }

  /** Times the next command of this client, if it is a read that waits for no other. */
  function timeNext(one: FastClient, kind: number): void {
    const slot = timedWord >>> 24;
    // The one before has no answer yet, and is known by its client again.
    if (timedWord !== 0 && (who[slot] & 31) === TIMED) who[slot] += timedSlot - TIMED;
    timedWord = 0;
    if (kind !== KNOWN || one.words !== "") return;
    timedWord = (id << 24) | high;
    timedSlot = one.slot;
    timedAt = now();
    timedAhead = traffic.inFlightAt[readLink.server];
  }

  // ---------------------------------------------------------------- what servers answer

  /** A chunk that the handler did not take. */
  function answer(from: FastLink, chunk: string): void {
    if (from.strange) {
      from.raw.ordinary(chunk);
      return;
    }
    if (isOpen && from.rest === "" && from.left(-1) === 0 && goOn(from)) {
      from.handler(chunk);
      return;
    }
    let text = chunk;
    if (from.rest !== "") {
      text = from.rest.concat(chunk);
      from.rest = "";
      from.setPartial(false);
    }
    const length = text.length;
    let at = 0;
    while (length - at >= HEADER_BYTES) {
      const size = HEADER_BYTES + (text.charCodeAt(at + 2) << 8) + text.charCodeAt(at + 3);
      if (size > CHIP_FRAME_BYTES_MAX) {
        from.strange = true;
        before();
        settleAll();
        from.raw.ordinary(text.substr(at));
        return;
      }
      if (at + size > length) break;
      answerFrame(from, size === length ? text : text.substr(at, size));
      at += size;
    }
    if (at === length) return;
    from.rest = text.substr(at);
    from.setPartial(true);
  }

  function answerFrame(from: FastLink, text: string): void {
    const length = text.length;
    const head = headOf(REPLY_WORD, length);
    words = new Words(toBuffer(text), 0, 2);
    const word = words[1];
    let slot = who[word >>> 24] - from.base;
    const timed = slot === TIMED && word === timedWord;
    if (timed) slot = timedSlot;
    const one = clients[slot];
    const known = one !== undefined && one.ready;
    const alone = known && typeof one.words !== "string" && one.words[1] === word;
    const first = known && one.queue.length > 0 && one.queue[0][0][1] === word;
    if (
      words[0] === head &&
      (alone || first) &&
      (from.left(-1) > 0 || reopen(from)) &&
      one!.ready
    ) {
      if (timed) {
        timedWord = 0;
        const ended = now();
        traffic.target.completed(from.server, ended - timedAt, timedAhead, ended);
      }
      const more = length >> 8;
      if (more === 0 && replies[length] === undefined) {
        if (replyCount === KNOWN_MAX) {
          replyCount = 0;
          replies = {};
        }
        replyCount++;
        replies[length] = head;
      }
      words = new Words(toBuffer(text), 0, 2);
      if (alone) {
        words[1] = one!.clientId;
        one!.words = "";
      } else {
        words[1] = one!.queue.shift()![1];
        queued--;
        if (one!.queue.length === 0) {
          if (one!.rest === "") one!.words = "";
          else one!.ready = false;
        }
      }
      from.left(from.left(-1) - 1);
      if (from.left(-1) < more) {
        from.given -= from.left(-1);
        from.left(0);
      } else {
        from.given -= more;
        from.left(from.left(-1) - more);
      }
      try {
        one!.socket.write(text);
      } catch (_closed) {
        // Its end is in the engine's queue, and then what is outstanding is settled.
      }
      return;
    }
    if (isOutstanding(one, word)) {
      count();
      settle(one!);
    }
    from.raw.ordinary(text);
  }

  /** The gate opens for more replies; the next command is looked at, to be timed. */
  function reopen(from: FastLink): boolean {
    const opened = isOpen ? renew() : open(now());
    heads = shut;
    return opened && from.left(-1) > 0;
  }

  function isOutstanding(one: FastClient | undefined, word: number): boolean {
    if (one === undefined) return false;
    if (typeof one.words !== "string" && one.words[1] === word) return true;
    for (let i = 0; i < one.queue.length; i++) if (one.queue[i][0][1] === word) return true;
    return false;
  }

  // ---------------------------------------------------------------- connections

  function client(connection: number, raw: RawTcp): (text: string) => void {
    let slot = 0;
    while (slot < CLIENTS_MAX && clients[slot] !== undefined) slot++;
    // Each may have one outstanding for which a row is kept.
    if (slot === CLIENTS_MAX || slot >= traffic.rowsLent >> 1) return raw.ordinary;
    const one: FastClient = {
      words: BUSY,
      clientId: 0,
      slot: slot,
      socket: raw.socket,
      raw: raw,
      connection: connection,
      ready: false,
      queue: [],
      link: links[0],
      reads: false,
      strange: false,
      rest: "",
    };
    clients[slot] = one;
    return function (text: string): void {
      if (
        (k = known[text.substr(8, 12)]) &&
        (words = new Words(toBuffer(text), 0, 2))[0] === heads[text.length] + k &&
        !one.words &&
        (one.clientId = words[1])
      ) {
        one.words = words;
        words[1] = (id << 24) | high;
        link = k < 256 ? readLink : (writes++, writeLink);
        who[id++ & 255] = slot + link.base;
        try {
          link.socket.write(text);
        } catch (_closed) {
          // Its end is in the engine's queue, and then what is outstanding is settled.
        }
      } else take(one, text);
    };
  }

  function server(connection: number, raw: RawTcp): (text: string) => void {
    let budget = 0;
    /** The budget, while the handler may not have it. */
    let kept = -1;
    // Two links may take replies at once; one that is still going has the base of neither.
    let base = 0;
    for (let i = 0; i < links.length; i++) {
      if (links[i].base !== base) continue;
      base += 32;
      // Links stand in the order in which they came, not in that of their bases: from the first again.
      i = -1;
    }
    const one: FastLink = {
      base: base,
      socket: raw.socket,
      server: 0,
      raw: raw,
      connection: connection,
      handler: raw.ordinary,
      left: (next) => {
        const was = kept < 0 ? budget : kept;
        if (next >= 0) {
          if (kept < 0) budget = next;
          else kept = next;
        }
        return was;
      },
      setPartial: (on) => {
        if (on) {
          kept = budget;
          budget = 0;
        } else {
          budget = kept;
          kept = -1;
        }
      },
      given: 0,
      open: 0,
      counted: 0,
      strange: base > 224,
      replies: false,
      alive: false,
      rest: "",
    };
    links.push(one);
    let found: FastClient | undefined;
    one.handler = function (text: string): void {
      if (
        budget &&
        (k = replies[text.length]) &&
        (words = new Words(toBuffer(text), 0, 2))[0] === k &&
        (found = clients[who[words[1] >>> 24] - base]) &&
        (found.words as Int32Array)[1] === words[1]
      ) {
        budget--;
        words[1] = found.clientId;
        found.words = "";
        try {
          found.socket.write(text);
        } catch (_closed) {
          // Its end is in the engine's queue, and then what is outstanding is settled.
        }
      } else answer(one, text);
    };
    return one.handler;
  }

  function closed(connection: number): void {
    for (let i = 0; i < links.length; i++) {
      if (links[i].connection === connection) {
        before();
        links.splice(i, 1);
        return;
      }
    }
    for (let i = 0; i < clients.length; i++) {
      const one = clients[i];
      if (one !== undefined && one.connection === connection) clients[i] = undefined;
    }
  }

  function look(): number[] {
    const alive: number[] = [];
    if (traffic === undefined) return alive;
    if (isOpen) count();
    for (let i = 0; i < links.length; i++) {
      const one = links[i];
      if (one.alive) alive.push(one.connection);
      // A server that leaves reads unanswered is not given more of them without a second look.
      else if (isOpen && one.open > 0 && one === readLink && other !== undefined) {
        stalled = true;
        heads = shut;
      }
      one.alive = false;
    }
    return alive;
  }

  function createForwarder(
    config: CoreConfig,
    ports: ControllerPorts,
    events: ForwardEvents,
  ): Forwarder {
    traffic = createTraffic(config, ports, events);
    // What comes for one client before anybody looks whether it reads: about twice what it may leave unread.
    budget = config.limits.clientOutHighBytes >> 7;
    if (budget > BUDGET_MAX) budget = BUDGET_MAX;
    const quarter = traffic.table.capacity >> 2;
    traffic.rowsLent = quarter < 64 ? quarter : 64;
    const inner = forwarderOf(traffic);

    function all(now: number): void {
      before();
      traffic.currentTime = now;
      settleAll();
    }

    return {
      setRoute: (route, now) => {
        all(now);
        inner.setRoute(route, now);
        after();
      },
      setSession: (session) => {
        before();
        settleAll();
        inner.setSession(session);
        after();
      },
      linkUp: (which, connection, frameMax, windowBytes, now) => {
        all(now);
        inner.linkUp(which, connection, frameMax, windowBytes, now);
        at[which] = undefined;
        for (let i = 0; i < links.length; i++) {
          if (links[i].connection !== connection) continue;
          links[i].server = which;
          at[which] = links[i];
        }
        after();
      },
      linkDown: (which, now) => {
        all(now);
        inner.linkDown(which, now);
        at[which] = undefined;
        after();
      },
      linkDrained: (which, now) => {
        before();
        inner.linkDrained(which, now);
        after();
      },
      onReply: (
        which: ServerIndex,
        flags: number,
        replyId: number,
        bytes: Uint8Array,
        start: number,
        end: number,
        now: number,
      ) => {
        before();
        inner.onReply(which, flags, replyId, bytes, start, end, now);
        after();
      },
      onReplyEpoch: (which, epoch, now) => {
        before();
        inner.onReplyEpoch(which, epoch, now);
      },
      clientOpen: (connection, kind, now) => {
        before();
        inner.clientOpen(connection, kind, now);
        after();
      },
      clientBytes: (connection, bytes, start, end, now) => {
        before();
        inner.clientBytes(connection, bytes, start, end, now);
        after();
      },
      clientDrained: (connection, now) => {
        before();
        inner.clientDrained(connection, now);
        after();
      },
      clientClosed: (connection, now) => {
        before();
        traffic.currentTime = now;
        settleConnection(connection);
        inner.clientClosed(connection, now);
        after();
      },
      setReported: (which, load, braking, serviceUs) => {
        // A server that asks to be spared is spared from its next read on.
        if (traffic.target.braking(which) !== braking) before();
        inner.setReported(which, load, braking, serviceUs);
      },
      tick: (now) => {
        // With the gate open nothing waits for the time to pass.
        if (isOpen && traffic.chokedClients.length === 0) return now + 1000;
        before();
        const next = inner.tick(now);
        after();
        return next;
      },
      // With the gate open nothing else waits for the time to pass.
      isIdle: () => (isOpen ? traffic.chokedClients.length === 0 : inner.isIdle()),
      inFlight: (which) => {
        count();
        return inner.inFlight(which);
      },
      serviceUs: inner.serviceUs,
      openCount: () => {
        count();
        return inner.openCount();
      },
      counters: () => {
        count();
        return inner.counters();
      },
    };
  }

  return {
    createForwarder: createForwarder,
    client: client,
    server: server,
    closed: closed,
    isQuiet: () => !isOpen,
    look: look,
  };
}
