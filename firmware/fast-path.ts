/**
 * The fast path of a chip's engine: what is ordinary goes from a client's socket to a server's, and back, in one flat
 * handler each, as it came.
 *
 *     client's chunk ─> known shape, number left? ─> [ head | channel | chunk ] ─> server      a pack (docs/PROTOCOL.md)
 *                          └ no ──> settle: what is outstanding becomes rows ─> forwarder (core/), as without this file
 *     client's socket <─ [ head | channel | answers ] <─ server
 *
 * The engine reads the source of every statement anew whenever it runs it, so a forwarder of many small functions costs
 * millions of instructions a command. Here a chunk is handled by one statement, and nothing is decided by it: a pool of
 * numbers was filled when the forwarder's own rules said that each of the next commands would be sent at once, and every
 * call into the forwarder empties it. The server takes the pack apart, so nothing is rewritten here: it answers under the
 * client's own ids. Whatever is not ordinary (another shape, a refusal, a part of a reply, a command whose name is not
 * known yet, a client that has something in the forwarder's queue) takes the forwarder's way, before which what that
 * client has outstanding here is written into the forwarder's table, row for row as it would stand there. So a lost link,
 * a change of roles, a retry, a client that goes all meet rows, and the forwarder knows nothing of this. The rooms:
 *
 *     fast-path-books.ts     what is known: clients, links, packs that are outstanding, counts
 *     fast-path-gate.ts      when numbers are there
 *     fast-path-native.ts    what clients send in frames
 *     fast-path-redis.ts     what clients send in plain commands
 *     fast-path-replies.ts   what servers answer
 *     fast-path-settle.ts    the way back into the forwarder
 *     fast-path-names.ts     which commands are plain
 *
 * Not kept here: when a command was sent (a read is timed now and then) and the average length of a client's replies. A
 * client that does not read has at most what may be in flight beyond its limit before that is seen.
 */
import { FLAG_CLASS_MASK, FLAG_PLAIN, PACK_COMMANDS_MAX } from "../protocol/frame.js";
import type { ServerIndex } from "../protocol/record.js";
import type { RawTcp } from "../hal/hal.js";
import { forwarderOf } from "./core/forward.js";
import type { Forwarder } from "./core/forward.js";
import { createTraffic } from "./core/traffic.js";
import type { CoreConfig } from "./core/config.js";
import type { ControllerPorts, ForwardEvents } from "./core/ports.js";
import { WITH_FAST_REDIS, WITH_NATIVE_PORT } from "./core/features.js";
import {
  CLIENTS_MAX,
  COUNT_SHIFT,
  PACK_BYTES_MAX,
  PACK_HEAD_BYTES,
  PACK_WORD,
  STEP,
  createBooks,
  headOf,
  swapped,
  writeTo,
} from "./fast-path-books.js";
import type { FastClient, FastEngine, FastLink, Shape, Words } from "./fast-path-books.js";
import { createGate } from "./fast-path-gate.js";
import { createNativeIntake } from "./fast-path-native.js";
import { createPlainIntake } from "./fast-path-redis.js";
import { createAnswers } from "./fast-path-replies.js";
import { settleAll, settleConnection } from "./fast-path-settle.js";

const PLAIN = FLAG_PLAIN << 8;
const LINE_END = "\r\n";
/** Of a frame's words behind the room: its head, the client's own id, its name. */
const HEAD_WORD = PACK_HEAD_BYTES / 4;
const ID_WORD = HEAD_WORD + 1;
const NAME_WORD = HEAD_WORD + 4;

export interface FastPath {
  createForwarder(config: CoreConfig, ports: ControllerPorts, events: ForwardEvents): Forwarder;
  /** @returns the handler of a client's chunks */
  client(connection: number, native: boolean, raw: RawTcp): (text: string) => void;
  /** @returns the handler of a server's chunks */
  server(connection: number, raw: RawTcp): (text: string) => void;
  /** The connection takes nothing more. */
  closed(connection: number): void;
  /** Nothing goes this way now: there is nothing to look at. */
  isQuiet(): boolean;
  /** Once a tick. @returns connections of servers that have answered since */
  look(): number[];
}

/** The bits of a head that say the class. */
const KIND_BITS = FLAG_CLASS_MASK << 8;

function nothing(): void {
  return;
}
function none(): number {
  return 0;
}
function noShape(_shape: Shape): void {
  return;
}

export function createFastPath(engine: FastEngine): FastPath {
  /** The next number and the end of the pool, as words of a frame. */
  let next = 0;
  let end = 0;
  /** The pool's first number, and its word. */
  let poolFrom = 0;
  let poolWord = 0;
  const books = createBooks(engine, {
    left: () => (end - next) / STEP,
    take: () => {
      const number = poolFrom + (next - poolWord) / STEP;
      next = 0;
      end = 0;
      return number;
    },
    fill: (from, count) => {
      poolFrom = from;
      poolWord = swapped(from);
      next = poolWord;
      end = poolWord + count * STEP;
    },
  });
  const gate = createGate(books);
  const refill = gate.refill;
  const headFor = headOf;
  const writeOut = writeTo;
  const takeNative = WITH_NATIVE_PORT ? createNativeIntake(books, gate) : nothing;
  const takePlain = WITH_FAST_REDIS ? createPlainIntake(books, gate) : nothing;
  const takeAnswers = createAnswers(books);

  function newClient(connection: number, native: boolean, raw: RawTcp, slot: number): FastClient {
    const one: FastClient = {
      answered: 0,
      socket: raw.socket,
      sent: [],
      link: books.links[0],
      ready: false,
      counted: 0,
      extra: 0,
      open: 0,
      heard: 0,
      kind: 0,
      reads: false,
      packed: false,
      channel: 0,
      room: "",
      raw: raw,
      connection: connection,
      native: native,
      rest: "",
      shape: noShape,
      aim: nothing,
      forget: nothing,
      halt: nothing,
      sendMany: none,
      sendOne: nothing,
    };
    books.clients[slot] = one;
    return one;
  }

  /** Numbers and sends a pack. @param head its first word */
  function send(one: FastClient, framed: string, commands: number, head: number): void {
    const w = new engine.Words(engine.toBuffer(framed), 0, 2);
    w[0] = head;
    w[1] = next;
    next += commands * STEP;
    one.sent.push(w);
    if (commands > 1) {
      one.extra += commands - 1;
      one.packed = true;
    }
    writeOut(one.link.socket, framed);
  }

  /** Commands of a size that one pack takes now, of those at a text's beginning. */
  function fitting(size: number, length: number): number {
    let most = PACK_COMMANDS_MAX;
    const left = (end - next) / STEP;
    if (left < most) most = left;
    if (PACK_BYTES_MAX < most * size) most = (PACK_BYTES_MAX / size) | 0;
    if (length < most * size) most = (length / size) | 0;
    return most;
  }

  function nativeClient(connection: number, raw: RawTcp, slot: number): (text: string) => void {
    // In the order of use: the engine looks through a list, and the nearest one first.
    let size = 0;
    let w: Words;
    const Words = engine.Words;
    const toBuffer = engine.toBuffer;
    let framed = "";
    let room = "";
    let head = 0;
    let name = 0;
    let packHead = 0;
    let sent: Words[] = [];
    let to: RawTcp["socket"];
    const one = newClient(connection, true, raw, slot);
    one.sent = sent;
    // Of the last pack of several: bytes, numbers, head, words, and words from one frame to the next.
    let manyBytes = 0;
    let manySteps = 0;
    let manyHead = 0;
    let manyWords = 0;
    let step = 0;
    let manyExtra = 0;
    one.shape = function (shape: Shape): void {
      size = shape.size;
      room = one.room;
      head = shape.head;
      name = shape.name;
      packHead = headFor(PACK_WORD, size + PACK_HEAD_BYTES) + shape.kind;
      manyBytes = 0;
      to = one.link.socket;
    };
    one.aim = function (): void {
      to = one.link.socket;
    };
    one.forget = function (): void {
      sent = [];
      one.sent = sent;
    };
    one.halt = function (): void {
      size = 0;
      manyBytes = 0;
    };
    one.sendOne = function (text: string): void {
      send(one, room + text, 1, packHead);
    };
    one.sendMany = function (text: string): number {
      if (size === 0) return 0;
      const most = fitting(size, text.length);
      const buffer = toBuffer(text);
      let commands = 0;
      let at = 0;
      while (
        commands < most &&
        (w = new Words(buffer, at, 5))[0] === head &&
        w[4] === name &&
        w[1]
      ) {
        at += size;
        commands++;
      }
      if (commands === 0) return 0;
      const all =
        headFor(PACK_WORD, at + PACK_HEAD_BYTES) +
        (head & KIND_BITS) +
        ((commands - 1) << COUNT_SHIFT);
      if (commands > 1 && at === text.length && (size & 3) === 0) {
        manyBytes = at;
        manySteps = commands * STEP;
        manyHead = all;
        manyWords = (at + PACK_HEAD_BYTES) >> 2;
        step = size >> 2;
        manyExtra = commands - 1;
      }
      send(one, room + (at === text.length ? text : text.substr(0, at)), commands, all);
      return at;
    };

    /** A chunk like the last one of several frames. @returns whether it was one */
    function sendAlike(text: string): boolean {
      let i = HEAD_WORD;
      const all = room + text;
      const words = manyWords;
      const view = new Words(toBuffer(all), 0, words);
      const first = head;
      const called = name;
      const apart = step;
      if (end - next < manySteps && (!refill(one) || end - next < manySteps)) return false;
      while (i < words && view[i] === first && view[i + 4] === called && view[i + 1]) i += apart;
      if (i < words) return false;
      view[0] = manyHead;
      view[1] = next;
      next += manySteps;
      sent.push(view);
      one.extra += manyExtra;
      one.packed = true;
      writeOut(to, all);
      return true;
    }

    /** What the handler does not take: kept short there, for the engine reads what it skips. */
    function take(text: string): void {
      if (text.length === manyBytes) {
        if (!sendAlike(text)) takeNative(one, text);
      } else if (text.length === size && next === end && refill(one)) handler(text);
      else takeNative(one, text);
    }

    const handler = function (text: string): void {
      if (
        text.length === size &&
        (w = new Words(toBuffer((framed = room + text)), 0, 8))[HEAD_WORD] === head &&
        w[NAME_WORD] === name &&
        next !== end &&
        w[ID_WORD]
      ) {
        w[0] = packHead;
        w[1] = next;
        next += STEP;
        sent.push(w);
        try {
          to.write(framed);
        } catch (_closed) {
          // Its event is still in the engine's queue: what is outstanding there is asked again.
        }
      } else take(text);
    };
    return handler;
  }

  function plainClient(connection: number, raw: RawTcp, slot: number): (text: string) => void {
    // In the order of use.
    let size = 0;
    let prefix = "";
    let middleAt = 0;
    let w: Words;
    const Words = engine.Words;
    const toBuffer = engine.toBuffer;
    let framed = "";
    let room = "";
    let packHead = 0;
    let sent: Words[] = [];
    let to: RawTcp["socket"];
    let middle = "";
    let kind = 0;
    const one = newClient(connection, false, raw, slot);
    one.sent = sent;
    one.shape = function (shape: Shape): void {
      size = shape.size;
      prefix = shape.prefix;
      middle = shape.middle;
      middleAt = shape.middleAt;
      room = one.room;
      kind = shape.kind;
      packHead = headFor(PACK_WORD, size + PACK_HEAD_BYTES) + PLAIN + kind;
      to = one.link.socket;
    };
    one.aim = function (): void {
      to = one.link.socket;
    };
    one.forget = function (): void {
      sent = [];
      one.sent = sent;
    };
    one.halt = function (): void {
      size = 0;
    };
    one.sendOne = function (text: string): void {
      send(one, room + text, 1, packHead);
    };
    one.sendMany = function (text: string): number {
      if (size === 0) return 0;
      const most = fitting(size, text.length);
      let commands = 0;
      let at = 0;
      while (
        commands < most &&
        text.startsWith(prefix, at) &&
        (middleAt === 0 || text.startsWith(middle, at + middleAt)) &&
        text.startsWith(LINE_END, at + size - 2)
      ) {
        at += size;
        commands++;
      }
      if (commands === 0) return 0;
      send(
        one,
        room + (at === text.length ? text : text.substr(0, at)),
        commands,
        headFor(PACK_WORD, at + PACK_HEAD_BYTES) + PLAIN + kind + ((commands - 1) << COUNT_SHIFT),
      );
      return at;
    };
    function take(text: string): void {
      if (text.length === size && next === end && refill(one)) handler(text);
      else takePlain(one, text);
    }

    const handler = function (text: string): void {
      if (
        text.length === size &&
        text.startsWith(prefix) &&
        (middleAt === 0 || text.startsWith(middle, middleAt)) &&
        text.startsWith(LINE_END, size - 2) &&
        next !== end
      ) {
        w = new Words(toBuffer((framed = room + text)), 0, 2);
        w[0] = packHead;
        w[1] = next;
        next += STEP;
        sent.push(w);
        try {
          to.write(framed);
        } catch (_closed) {
          // Its event is still in the engine's queue: what is outstanding there is asked again.
        }
      } else take(text);
    };
    return handler;
  }

  function client(connection: number, native: boolean, raw: RawTcp): (text: string) => void {
    const clients = books.clients;
    let slot = 0;
    if (!(native ? WITH_NATIVE_PORT : WITH_FAST_REDIS)) return raw.ordinary;
    while (slot < CLIENTS_MAX && clients[slot] !== undefined) slot++;
    if (slot === CLIENTS_MAX) return raw.ordinary;
    return WITH_FAST_REDIS && !native
      ? plainClient(connection, raw, slot)
      : nativeClient(connection, raw, slot);
  }

  function server(connection: number, raw: RawTcp): (text: string) => void {
    // In the order of use.
    let w: Words;
    const Words = engine.Words;
    const toBuffer = engine.toBuffer;
    const heads = books.heads;
    let found: FastClient | undefined;
    const channels = books.channels;
    /** Nothing of a frame is kept. */
    let whole = true;
    const one: FastLink = {
      socket: raw.socket,
      server: 0,
      raw: raw,
      connection: connection,
      open: 0,
      strange: false,
      alive: false,
      rest: "",
    };
    books.links.push(one);

    function take(text: string): void {
      takeAnswers(one, text);
      whole = one.rest === "";
    }

    return function (text: string): void {
      if (
        (w = new Words(toBuffer(text), 0, 3))[0] === heads[text.length] &&
        (found = channels[w[2]]) &&
        whole
      ) {
        found.answered = w[1];
        try {
          found.socket.write(text.substr(PACK_HEAD_BYTES));
        } catch (_closed) {
          // Its event is still in the engine's queue.
        }
      } else take(text);
    };
  }

  function closed(connection: number): void {
    for (let i = 0; i < books.links.length; i++) {
      if (books.links[i].connection === connection) {
        books.before();
        for (let k = books.old.length - 1; k >= 0; k--) {
          if (books.old[k].link === books.links[i]) books.old.splice(k, 1);
        }
        books.links.splice(i, 1);
        return;
      }
    }
    for (let i = 0; i < books.clients.length; i++) {
      const one = books.clients[i];
      if (one !== undefined && one.connection === connection) books.clients[i] = undefined;
    }
  }

  function look(): number[] {
    const alive: number[] = [];
    if (books.traffic === undefined) return alive;
    books.isTargetOld = true;
    books.count();
    let stalled = false;
    for (let i = 0; i < books.links.length; i++) {
      const one = books.links[i];
      if (one.alive) alive.push(one.connection);
      // A server that leaves commands unanswered is not given more reads without a second look.
      else if (one.open > 0 && books.other !== undefined) stalled = true;
      one.alive = false;
    }
    if (stalled && books.isOpen) books.shutGate();
    return alive;
  }

  function createForwarder(
    config: CoreConfig,
    ports: ControllerPorts,
    events: ForwardEvents,
  ): Forwarder {
    const traffic = createTraffic(config, ports, events);
    books.traffic = traffic;
    const half = traffic.table.capacity >> 1;
    traffic.rowsLent = half < 128 ? half : 128;
    const inner = forwarderOf(traffic);

    function all(now: number): void {
      books.before();
      traffic.currentTime = now;
      settleAll(books);
    }

    /** Who waits for room or for an end is called by replies, which must then be seen. */
    function after(): void {
      if (traffic.hold.count > 0 || traffic.line.length > 0 || traffic.draining) settleAll(books);
    }

    return {
      setRoute: (route, now) => {
        all(now);
        inner.setRoute(route, now);
      },
      setSession: (session) => {
        all(traffic.currentTime);
        inner.setSession(session);
      },
      linkUp: (which, connection, frameMax, windowBytes, now) => {
        all(now);
        inner.linkUp(which, connection, frameMax, windowBytes, now);
        books.at[which] = undefined;
        for (let i = 0; i < books.links.length; i++) {
          if (books.links[i].connection !== connection) continue;
          books.links[i].server = which;
          books.at[which] = books.links[i];
        }
      },
      linkDown: (which, now) => {
        all(now);
        inner.linkDown(which, now);
        books.at[which] = undefined;
      },
      linkDrained: (which, now) => {
        books.before();
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
        books.before();
        inner.onReply(which, flags, replyId, bytes, start, end, now);
        after();
      },
      onReplyEpoch: (which, epoch, now) => {
        // What is decided in another epoch than the record's may pass or not: that is the forwarder's to say.
        all(now);
        inner.onReplyEpoch(which, epoch, now);
      },
      clientOpen: (connection, kind, now) => {
        books.before();
        inner.clientOpen(connection, kind, now);
        after();
      },
      clientBytes: (connection, bytes, start, end, now) => {
        books.before();
        inner.clientBytes(connection, bytes, start, end, now);
        after();
      },
      clientDrained: (connection, now) => {
        books.before();
        inner.clientDrained(connection, now);
        after();
      },
      clientClosed: (connection, now) => {
        books.before();
        traffic.currentTime = now;
        settleConnection(books, connection);
        inner.clientClosed(connection, now);
        after();
      },
      setReported: (which, load, braking, serviceUs) => {
        // A server that asks to be spared is spared from its next read on.
        if (traffic.target.braking(which) !== braking) books.before();
        inner.setReported(which, load, braking, serviceUs);
      },
      tick: (now) => {
        // With the gate open nothing waits for the time to pass.
        if (books.isOpen && traffic.chokedClients.length === 0) return now + 1000;
        books.before();
        const next = inner.tick(now);
        after();
        return next;
      },
      // With the gate open nothing else waits for the time to pass.
      isIdle: () => (books.isOpen ? traffic.chokedClients.length === 0 : inner.isIdle()),
      inFlight: (which) => {
        books.count();
        return inner.inFlight(which);
      },
      serviceUs: inner.serviceUs,
      openCount: () => {
        books.count();
        return inner.openCount();
      },
      counters: () => {
        books.count();
        return inner.counters();
      },
    };
  }

  return {
    createForwarder: createForwarder,
    client: client,
    server: server,
    closed: closed,
    isQuiet: () => books.live.length === 0,
    look: look,
  };
}
