/**
 * What the fast path knows: clients, links, what of a client's is outstanding, and the words in which it counts.
 *
 *     a client's packs:   sent[0] ... [ answered | outstanding ]        numbers grow; `answered` is the last one answered
 *
 * Numbers are kept as a frame has them, as one word of the engine's own byte order: its lowest byte is the word's highest,
 * so the next number is STEP more, until the lowest byte is used up.
 */
import {
  CHANNEL_BYTES,
  CHIP_FRAME_BYTES_MAX,
  FRAME_COMMAND,
  FRAME_PACK,
  FRAME_PACK_REPLY,
  FRAME_REPLY,
  HEADER_BYTES,
  PACK_COUNT_MASK,
  PACK_COUNT_SHIFT,
  WIRE_VERSION,
} from "../protocol/frame.js";
import type { RawTcp } from "../hal/hal.js";
import type { Traffic } from "./core/traffic.js";

/** From one number to the next, in a frame's word. */
export const STEP = 0x1000000;
/** What stands before a client's bytes in a pack, and before a server's answers. @unit bytes */
export const PACK_HEAD_BYTES = HEADER_BYTES + CHANNEL_BYTES;
/** A client's bytes in one pack. */
export const PACK_BYTES_MAX = CHIP_FRAME_BYTES_MAX - PACK_HEAD_BYTES;
/** Numbers of one opening: the lowest byte of a number goes round after so many. */
export const ROUND = 256;
/** Packs are handed over when numbers so much greater are out: a server keeps the replies to so many numbers and more. */
export const AGE_MAX = 800;
/** Clients that may take this way. */
export const CLIENTS_MAX = 30;
/** Lengths of replies and names of commands that are known at once. */
export const KNOWN_MAX = 24;

export const COMMAND_WORD = (WIRE_VERSION << 4) | FRAME_COMMAND;
export const REPLY_WORD = (WIRE_VERSION << 4) | FRAME_REPLY;
export const PACK_WORD = (WIRE_VERSION << 4) | FRAME_PACK;
export const PACK_REPLY_WORD = (WIRE_VERSION << 4) | FRAME_PACK_REPLY;
/** Where a pack's head says how many commands it has, less one. */
export const COUNT_SHIFT = 8 + PACK_COUNT_SHIFT;

/** A view of a text's words, at any byte. */
export interface Words {
  [index: number]: number;
  readonly buffer: ArrayBufferLike;
}

/** What the engine offers. */
export interface FastEngine {
  /** A view of the text's own bytes: what is written there stands in the text. */
  toBuffer(text: string): ArrayBuffer;
  /** Takes any byte offset, and a length that goes beyond the buffer, as Espruino's does. */
  Words: new (buffer: ArrayBuffer, at: number, length: number) => Words;
  /** A new text of bytes. */
  toText(bytes: Uint8Array): string;
  now(): number;
}

/** What the handlers compare the next chunk with, and what they send. */
export interface Shape {
  /** A command's bytes. */
  size: number;
  /** Native: first word of the frame. */
  head: number;
  /** Native: a word of the name. */
  name: number;
  /** Plain: what must stand before the key. */
  prefix: string;
  /** Plain: what must stand between key and value, and where; 0: there is none. */
  middle: string;
  middleAt: number;
  /** The class, as a head has it. */
  kind: number;
}

export interface FastClient {
  // In the order of use.
  /** Number of its last command that is answered. */
  answered: number;
  socket: RawTcp["socket"];
  /** Views of the packs it has sent, oldest first. */
  sent: Words[];
  link: FastLink;
  /** Its commands may take this way. */
  ready: boolean;
  /** Of `sent`, how many packs are counted; commands beyond one a pack; commands outstanding, as far as counted. */
  counted: number;
  extra: number;
  open: number;
  /** `answered`, when it was looked at last. */
  heard: number;
  kind: number;
  /** Something outstanding is a read. */
  reads: boolean;
  /** Some pack of `sent` has several commands. */
  packed: boolean;
  /** Names it at the servers, for as long as it is ready; another one each time. */
  channel: number;
  /** What stands before its bytes in a pack. */
  room: string;
  raw: RawTcp;
  connection: number;
  native: boolean;
  /** The beginning of a command; undefined once one came that is longer than any that is agreed with a chip. */
  rest: string | undefined;
  /** Lets the handlers send commands of this shape, to `link`. */
  shape(shape: Shape): void;
  /** Lets the handlers send to `link` what they sent elsewhere. */
  aim(): void;
  /** Makes `sent` another array, without anything in it. */
  forget(): void;
  /** Shuts the handlers, until the next shape. */
  halt(): void;
  /** Sends the commands of the shape at a text's beginning, as many as may be. @returns their bytes */
  sendMany(text: string): number;
  /** Sends one command of the shape. */
  sendOne(text: string): void;
}

/** A client that has become rows while packs of it were outstanding: their replies are taken apart. */
export interface OldChannel {
  channel: number;
  link: FastLink;
  native: boolean;
  /** Numbers that are not answered, oldest first. */
  numbers: number[];
}

export interface FastLink {
  // In the order of use.
  socket: RawTcp["socket"];
  /** The server it leads to, once it is proven. */
  server: number;
  raw: RawTcp;
  connection: number;
  /** Commands outstanding here. */
  open: number;
  /** Something came that cannot be cut into frames here. */
  strange: boolean;
  /** Replies came since somebody looked. */
  alive: boolean;
  rest: string;
}

/** The numbers that may be given out without a look at anything. */
export interface Pool {
  /** @returns how many are left */
  left(): number;
  /** Empties it. @returns the next one, as a number */
  take(): number;
  /** @param from a number @param count 1 and more */
  fill(from: number, count: number): void;
}

export interface FastBooks {
  // In the order of use.
  traffic: Traffic;
  pool: Pool;
  /** The pool has numbers of the forwarder's. */
  pooled: boolean;
  /** All that the forwarder looks at was as usual, and nothing has been told to it since. */
  isOpen: boolean;
  /** Those that are ready. */
  live: FastClient[];
  /** Openings since a read was timed. */
  untimed: number;
  clients: (FastClient | undefined)[];
  /** Those that are ready by their channels, but for one whose next answer is timed. */
  channels: Record<number, FastClient>;
  channelsGiven: number;
  old: OldChannel[];
  links: FastLink[];
  /** The links that are up, by server. */
  at: (FastLink | undefined)[];
  /** Where changes and reads of clients go that have nothing outstanding. */
  writeLink: FastLink | undefined;
  readLink: FastLink | undefined;
  /** A tick has passed since the target of reads was asked for. */
  isTargetOld: boolean;
  /** The standby's link, while it may have reads. */
  other: FastLink | undefined;
  /** It takes commands of this epoch, and its replies may pass. */
  isOtherOrdinary: boolean;
  /** Name of a command -> KNOWN and its class, as a head has it. */
  known: Record<string, number>;
  knownCount: number;
  /** Length of a pack of replies -> its head. */
  heads: Record<number, number>;
  headCount: number;
  /** The client whose next answer is timed: when it was sent, how many were before it. */
  timed: FastClient | undefined;
  timedAt: number;
  timedAhead: number;
  engine: FastEngine;
  /** Adds to the forwarder's counts what a client's handlers have done. */
  countOne(one: FastClient): void;
  /** The same for all that has gone this way. */
  count(): void;
  /** Numbers that were not given out are the forwarder's again. */
  shutGate(): void;
  /** Before the forwarder does anything. */
  before(): void;
}

/** A word's bytes in the other order: a number of a frame as a number. */
export function swapped(word: number): number {
  return (
    (((word & 255) << 24) |
      (((word >> 8) & 255) << 16) |
      (((word >> 16) & 255) << 8) |
      (word >>> 24)) >>>
    0
  );
}

/** The first word of a frame. @param length of the whole frame */
export function headOf(type: number, length: number): number {
  const payload = length - HEADER_BYTES;
  return type | ((payload >> 8) << 16) | (payload << 24);
}

/** Bytes of the frame whose first word this is. */
export function sizeOf(head: number): number {
  return HEADER_BYTES + ((head >> 8) & 0xff00) + (head >>> 24);
}

/** Commands of a pack. */
export function countOf(pack: Words): number {
  return ((pack[0] >> COUNT_SHIFT) & PACK_COUNT_MASK) + 1;
}

/** Writes to a connection that may be closed already, though its event has not come: then that event says what becomes of it. */
export function writeTo(socket: RawTcp["socket"], text: string): void {
  try {
    socket.write(text);
  } catch (_closed) {
    // Its event is still in the engine's queue.
  }
}

/** The engine finds a name sooner where it is used than at the file's top: so functions are in here, and some by a second name. */
export function createBooks(engine: FastEngine, pool: Pool): FastBooks {
  const numberOf = swapped;
  const commandsOf = countOf;
  let books: FastBooks;

  /** Forgets the packs that are answered. @returns commands that are not */
  function trim(one: FastClient): number {
    const sent = one.sent;
    const count = sent.length;
    const last = sent[count - 1];
    let first = count;
    if (((last[1] + (commandsOf(last) - 1) * STEP) | 0) !== one.answered) {
      const answered = numberOf(one.answered);
      // The first pack of which something is outstanding.
      let low = 0;
      first = count - 1;
      while (low < first) {
        const middle = (low + first) >> 1;
        if (numberOf(sent[middle][1]) + commandsOf(sent[middle]) - 1 > answered) first = middle;
        else low = middle + 1;
      }
    }
    if (first === count) {
      one.forget();
      one.packed = false;
      return 0;
    }
    if (first > 0) sent.splice(0, first);
    if (!one.packed) return count - first;
    const done = numberOf(one.answered) - numberOf(sent[0][1]) + 1;
    let open = done > 0 ? -done : 0;
    for (let i = 0; i < sent.length; i++) open += commandsOf(sent[i]);
    return open;
  }

  function countOne(one: FastClient): void {
    const length = one.sent.length;
    // What is answered was there when it was counted last, or was sent since.
    if (length === 0) return;
    const traffic = books.traffic;
    const link = one.link;
    const commands = length - one.counted + one.extra;
    let open = 0;
    if (commands > 0) {
      if (one.kind === 0) {
        traffic.count.reads += commands;
        traffic.count.readsTo[link.server] += commands;
      } else traffic.count.writes += commands;
      one.extra = 0;
    }
    if (one.answered !== one.heard) {
      one.heard = one.answered;
      link.alive = true;
    }
    if (!one.packed && one.sent[length - 1][1] === one.answered) one.forget();
    else open = trim(one);
    one.counted = one.sent.length;
    const more = open - one.open;
    if (more === 0) return;
    one.open = open;
    link.open += more;
    traffic.inFlightAt[link.server] += more;
    traffic.windowUsed[link.server] += more * CHIP_FRAME_BYTES_MAX;
  }

  function count(): void {
    const live = books.live;
    for (let i = 0; i < live.length; i++) countOne(live[i]);
  }

  function shutGate(): void {
    books.isOpen = false;
    if (!books.pooled) return;
    books.pooled = false;
    books.traffic.nextId = pool.take();
  }

  books = {
    traffic: undefined as unknown as Traffic,
    pool: pool,
    pooled: false,
    isOpen: false,
    live: [],
    untimed: 0,
    clients: [],
    channels: {},
    channelsGiven: 0,
    old: [],
    links: [],
    at: [undefined, undefined],
    writeLink: undefined,
    readLink: undefined,
    isTargetOld: true,
    other: undefined,
    isOtherOrdinary: false,
    known: {},
    knownCount: 0,
    heads: {},
    headCount: 0,
    timed: undefined,
    timedAt: 0,
    timedAhead: 0,
    engine: engine,
    countOne: countOne,
    count: count,
    shutGate: shutGate,
    before: () => {
      count();
      shutGate();
    },
  };
  return books;
}
