/**
 * The fast path decides as the forwarder does: both are given the same traffic, cut into the same chunks, through the
 * same changes of roles and links, and after every event must have sent the same frames to the same connections (the
 * ids at servers apart, which each gives out for itself) and hold the same books.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Packs } from "../../agent/core/packs.js";
import { createFastPath } from "../../firmware/fast-path.js";
import type { FastPath } from "../../firmware/fast-path.js";
import { forwarderOf } from "../../firmware/core/forward.js";
import type { Forwarder } from "../../firmware/core/forward.js";
import type { ControllerPorts, ForwardEvents, Route } from "../../firmware/core/ports.js";
import { createTraffic } from "../../firmware/core/traffic.js";
import { FrameDecoder } from "../../protocol/frame-decoder.js";
import {
  CLASS_MODIFY,
  CLASS_QUERY,
  CLASS_WRITE,
  FLAG_MORE,
  FLAG_ORDERED,
  FLAG_SESSION,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_CONTROL,
  FRAME_EPOCH,
  FRAME_PACK,
  FRAME_REPLY,
  OUTCOME_REFUSED,
  OUTCOME_UNKNOWN,
  frameOf,
} from "../../protocol/frame.js";
import { dialerProof } from "../../protocol/handshake.js";
import { isMalformed } from "../../protocol/malformed.js";
import {
  KIND_CHALLENGE,
  KIND_HELLO,
  KIND_PROOF,
  ROLE_CLIENT,
  decodeControl,
  encodeControl,
} from "../../protocol/messages.js";
import type { ServerIndex } from "../../protocol/record.js";
import { configOf, resp } from "../forward/world.js";

const FRAME_MAX = 536;
const LINK = 1000;
/** Old connections of servers beside the two that are up; the path has bases for eight. */
const UNHEARD_MAX = 3;
const SESSION = "\x07".repeat(8);
const NONCE = new Uint8Array(16).fill(9);
const hmac = (_key: Uint8Array, data: Uint8Array): Uint8Array => data.slice(0, 32);
const latin = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "latin1"));

interface Sent {
  type: number;
  flags: number;
  id: number;
  payload: string;
}

/** What a server says: the bytes for each side, and how many of them have gone. */
interface Said {
  texts: [string, string];
  gone: [number, number];
}

/** A view of words at any byte, as the engine's own is. */
class LooseWords {
  [index: number]: number;
  readonly buffer: ArrayBuffer;

  constructor(buffer: ArrayBuffer, at: number, length: number) {
    this.buffer = buffer;
    const view = new DataView(buffer);
    for (let i = 0; i < length; i++) {
      Object.defineProperty(this, i, {
        get: () =>
          at + 4 * i + 4 > buffer.byteLength ? undefined : view.getInt32(at + 4 * i, true),
        set: (word: number) => view.setInt32(at + 4 * i, word, true),
      });
    }
  }
}

/** One of the two, with its own clock, sockets and links. */
class Side {
  now = 1000;
  forwarder!: Forwarder;
  fast: FastPath | undefined;
  sent = new Map<number, string>();
  closed: string[] = [];
  events: string[] = [];
  reading = new Map<number, boolean>();
  /** Connections that the engine has closed, and has not told of. */
  readonly ended = new Set<number>();
  /** The engine's texts and their bytes are one. */
  private views: { text: string; bytes: ArrayBuffer }[] = [];
  private handlers = new Map<number, (text: string) => void>();
  private decoders = new Map<number, FrameDecoder>();
  traffic!: ReturnType<typeof createTraffic>;
  /** The servers' part of packs, by connection. */
  private packs = new Map<number, Packs>();
  private packed = "";
  packedCommands = 0;
  /** Chunks that needed nobody else. */
  quick = 0;
  private asked = false;

  constructor(readonly isFast: boolean) {
    const config = configOf({
      frameMax: FRAME_MAX,
      clientKey: new Uint8Array(16),
      limits: {
        inFlightMax: 16,
        commandRowsMin: 512,
        clientOutCheckBytes: 4096,
        clientReplyBytesMax: 65536,
        clientsMax: 16,
      },
    });
    const ports = {
      send: (connection: number, bytes: Uint8Array, start: number, end: number) =>
        this.write(connection, latin(bytes.subarray(start, end))),
      backlog: () => 0,
      close: (connection: number, reason: string) => this.closed.push(`${connection} ${reason}`),
      setReading: (connection: number, on: boolean) => this.reading.set(connection, on),
      hmac,
      note: () => undefined,
    } as unknown as ControllerPorts;
    const events: ForwardEvents = {
      onFirstPassed: (epoch) => this.events.push(`passed ${epoch}`),
      onPeerFault: (server, reason) => this.events.push(`fault ${server} ${reason.slice(0, 6)}`),
      onIdsUsedUp: () => this.events.push("ids used up"),
    };
    if (isFast) {
      this.fast = createFastPath({
        toBuffer: (text) => {
          const bytes = bytesOf(text).buffer as ArrayBuffer;
          this.views.push({ text, bytes });
          return bytes;
        },
        Words: LooseWords,
        toText: latin,
        now: () => this.now,
      });
      this.forwarder = this.fast.createForwarder(config, ports, events);
    } else {
      this.traffic = createTraffic(config, ports, events);
      // As many as the other lends.
      this.traffic.rowsLent = 128;
      this.forwarder = forwarderOf(this.traffic);
    }
  }

  private write(connection: number, text: string): void {
    this.sent.set(connection, (this.sent.get(connection) ?? "") + text);
  }

  private raw(connection: number, ordinary: (text: string) => void) {
    return {
      socket: {
        write: (text: string) => {
          const view = this.views.findLast((one) => one.text === text);
          this.write(connection, view === undefined ? text : latin(new Uint8Array(view.bytes)));
          if (this.ended.has(connection)) throw new Error("This socket is closed");
        },
      },
      ordinary: (text: string) => {
        this.asked = true;
        ordinary(text);
      },
      isIdle: () => this.reading.get(connection) !== false,
    };
  }

  open(connection: number, native = true): void {
    const ordinary = (text: string): void => {
      const bytes = bytesOf(text);
      this.forwarder.clientBytes(connection, bytes, 0, bytes.length, this.now);
    };
    this.handlers.set(
      connection,
      this.fast === undefined
        ? ordinary
        : this.fast.client(connection, native, this.raw(connection, ordinary)),
    );
    this.reading.delete(connection);
    this.forwarder.clientOpen(connection, native ? "native" : "redis", this.now);
  }

  close(connection: number): void {
    this.handlers.delete(connection);
    this.forwarder.clientClosed(connection, this.now);
    this.fast?.closed(connection);
    this.sent.delete(connection);
  }

  linkUp(server: ServerIndex, connection: number): void {
    const decoder = new FrameDecoder(
      (type, flags, id, bytes, start, end) => {
        if (type === FRAME_EPOCH) this.forwarder.onReplyEpoch(server, id, this.now);
        else this.forwarder.onReply(server, flags, id, bytes, start, end, this.now);
      },
      FRAME_MAX - 8,
      0,
    );
    const ordinary = (text: string): void => {
      const bytes = bytesOf(text);
      decoder.feed(bytes, 0, bytes.length);
    };
    this.decoders.set(connection, decoder);
    const packs = new Packs((bytes, start, end) => {
      this.packed += latin(bytes.subarray(start, end));
    });
    packs.payloadMax = FRAME_MAX - 8;
    this.packs.set(connection, packs);
    this.handlers.set(
      connection,
      this.fast === undefined
        ? ordinary
        : this.fast.server(connection, this.raw(connection, ordinary)),
    );
    this.forwarder.linkUp(server, connection, FRAME_MAX, 1 << 20, this.now);
  }

  linkDown(server: ServerIndex, connection: number): void {
    this.forwarder.linkDown(server, this.now);
    this.gone(connection);
  }

  gone(connection: number): void {
    this.handlers.delete(connection);
    this.fast?.closed(connection);
    this.sent.delete(connection);
  }

  data(connection: number, text: string): void {
    this.views = [];
    this.asked = false;
    this.handlers.get(connection)?.(text);
    if (!this.asked) this.quick++;
  }

  /** Replies of a server as they come: answers to packs as packs. */
  asPacks(connection: number, replies: string): string {
    const bytes = bytesOf(replies);
    this.packed = "";
    this.packs.get(connection)!.send(bytes, 0, bytes.length);
    return this.packed;
  }

  /** The server has lost its role: it answers nothing of before. */
  forgets(connection: number): void {
    this.packs.get(connection)!.forgetAll();
  }

  /** What has gone to a server; what is in a pack as commands of their own, but for ORDERED. */
  takeCommands(connection: number): Sent[] {
    const packs = this.packs.get(connection)!;
    return this.take(connection).flatMap((frame) => {
      if (frame.type === FRAME_ABORT) packs.forget(frame.id);
      if (frame.type !== FRAME_PACK) return [frame];
      const bytes = bytesOf(frame.payload);
      expect(packs.take(frame.flags, frame.id, bytes, 0, bytes.length)).toBe("");
      const commands: Sent[] = [];
      while (packs.next()) {
        this.packedCommands++;
        commands.push({
          type: FRAME_COMMAND,
          flags: packs.flags & ~FLAG_ORDERED,
          id: packs.id,
          payload: latin(packs.bytes.subarray(packs.start, packs.end)),
        });
      }
      return commands;
    });
  }

  takeText(connection: number): string {
    const text = this.sent.get(connection) ?? "";
    this.sent.set(connection, "");
    return text;
  }

  take(connection: number): Sent[] {
    const frames: Sent[] = [];
    const bytes = bytesOf(this.sent.get(connection) ?? "");
    this.sent.set(connection, "");
    const decoder = new FrameDecoder(
      (type, flags, id, from, start, end) =>
        frames.push({ type, flags, id, payload: latin(from.subarray(start, end)) }),
      65528,
      65536,
    );
    expect(decoder.feed(bytes, 0, bytes.length)).toBe("");
    expect(decoder.heldBytes()).toBe(0);
    return frames;
  }
}

interface Waiting {
  ids: [number, number];
  flags: number;
  command: string;
}

/** Both sides, and the servers and clients that they share. */
class Pair {
  readonly sides = [new Side(false), new Side(true)] as const;
  readonly clients: number[] = [];
  /** Plain Redis clients. */
  readonly plain: number[] = [];
  readonly links: (number | undefined)[] = [undefined, undefined];
  private readonly unheard: number[] = [];
  /** Bytes on their way, by connection. */
  readonly toClientSide = new Map<number, string>();
  readonly toServerSide: [Said[], Said[]] = [[], []];
  readonly waiting: Waiting[][] = [[], []];
  readonly replies = new Map<number, number>();
  route: Route = { epoch: 1, open: true, primary: 0, readable: [true, true], why: "" };
  spared = 1;
  private next = 1;
  private nextLink = LINK;
  /** Id at a server -> which command it was, by side. */
  private readonly serials = [new Map<number, number>(), new Map<number, number>()];
  private serial = 0;
  answered = 0;

  both(act: (side: Side) => void): void {
    for (const side of this.sides) act(side);
    this.compare();
  }

  start(): void {
    this.both((side) => side.forwarder.setSession(new Uint8Array(8).fill(7)));
    this.spare(1);
    this.both((side) => side.forwarder.setRoute({ ...this.route }, side.now));
    this.up(0);
    this.up(1);
  }

  spare(server: number): void {
    this.spared = server;
    this.both((side) => {
      side.forwarder.setReported(0, 0, server === 0, 100);
      side.forwarder.setReported(1, 0, server === 1, 100);
    });
  }

  up(server: ServerIndex): void {
    if (this.links[server] !== undefined) return;
    const connection = this.nextLink++;
    this.links[server] = connection;
    this.waiting[server] = [];
    this.toServerSide[server] = [];
    this.both((side) => side.linkUp(server, connection));
    this.say(server, frameOf(FRAME_EPOCH, 0, this.route.epoch, new Uint8Array(0)));
  }

  down(server: ServerIndex): void {
    const connection = this.links[server];
    if (connection === undefined) return;
    this.links[server] = undefined;
    this.waiting[server] = [];
    this.both((side) => side.linkDown(server, connection));
  }

  /** The server dials anew, and nobody has heard yet that its old connection is gone. */
  again(server: ServerIndex): void {
    const old = this.links[server];
    if (old === undefined || this.unheard.length === UNHEARD_MAX) return;
    this.unheard.push(old);
    this.links[server] = undefined;
    this.up(server);
  }

  /** Old connections of servers are heard to have gone. */
  hear(): void {
    const gone = this.unheard.splice(0);
    this.both((side) => {
      for (const connection of gone) side.gone(connection);
    });
  }

  say(server: number, bytes: Uint8Array): void {
    this.toServerSide[server]!.push({ texts: [latin(bytes), latin(bytes)], gone: [0, 0] });
  }

  sayEpoch(server: number): void {
    this.say(server, frameOf(FRAME_EPOCH, 0, this.route.epoch, new Uint8Array(0)));
  }

  setRoute(route: Route): void {
    const changed = route.epoch !== this.route.epoch;
    const before = this.route.primary;
    this.route = route;
    if (changed) {
      for (const server of [0, 1] as const) {
        // A server that loses its role answers nothing of before.
        if (!(route.primary === before && server === before)) {
          this.waiting[server] = [];
          const connection = this.links[server];
          if (connection !== undefined) this.sides[1].forgets(connection);
        }
        // What one of them answers until it says so was decided in an epoch before.
        if ((route.epoch + server) % 2 === 0) this.sayEpoch(server);
      }
    }
    this.both((side) => side.forwarder.setRoute({ ...route }, side.now));
  }

  openClient(): void {
    const connection = this.next++;
    this.clients.push(connection);
    this.toClientSide.set(connection, "");
    for (const side of this.sides) {
      side.open(connection);
      const hello = frameOf(
        FRAME_CONTROL,
        0,
        0,
        encodeControl({
          kind: KIND_HELLO,
          wireMin: 1,
          wireMax: 1,
          role: ROLE_CLIENT,
          id: "",
          nonce: NONCE,
          frameMax: FRAME_MAX,
          windowBytes: 1 << 20,
        }),
      );
      side.data(connection, latin(hello));
      const [answer] = side.take(connection);
      const bytes = bytesOf(answer!.payload);
      const challenge = decodeControl(bytes, 0, bytes.length);
      if (isMalformed(challenge) || challenge.kind !== KIND_CHALLENGE) throw new Error("refused");
      const proof = dialerProof(hmac, new Uint8Array(16), ROLE_CLIENT, "", NONCE, challenge.nonce);
      side.data(
        connection,
        latin(frameOf(FRAME_CONTROL, 0, 0, encodeControl({ kind: KIND_PROOF, proof }))),
      );
    }
    this.compare();
  }

  openPlain(): void {
    const connection = this.next++;
    this.plain.push(connection);
    this.toClientSide.set(connection, "");
    this.both((side) => side.open(connection, false));
  }

  closePlain(at: number): void {
    const connection = this.plain.splice(at, 1)[0]!;
    this.both((side) => side.close(connection));
  }

  closeClient(at: number): void {
    const connection = this.clients.splice(at, 1)[0]!;
    this.both((side) => side.close(connection));
  }

  /** The next `count` bytes of what a client has sent, as one chunk. */
  fromClient(connection: number, count: number): void {
    const all = this.toClientSide.get(connection)!;
    const chunk = all.slice(0, count);
    if (chunk === "") return;
    this.toClientSide.set(connection, all.slice(count));
    this.both((side) => side.data(connection, chunk));
  }

  fromServer(server: number, count: number): void {
    const connection = this.links[server];
    if (connection === undefined) return;
    const said = this.toServerSide[server]!;
    const [plain, fast] = this.sides;
    const chunks: [string, string] = ["", ""];
    let whole = "";
    const asPacks = (): void => {
      if (whole !== "") chunks[1] += fast.asPacks(connection, whole);
      whole = "";
    };
    while (said.length > 0) {
      const { texts, gone } = said[0]!;
      const left = count - chunks[0].length;
      if (texts[0].length - gone[0] <= left) {
        said.shift();
        chunks[0] += texts[0].slice(gone[0]);
        // What has begun has been turned into a pack already.
        if (gone[1] === 0 && gone[0] === 0) whole += texts[1];
        else {
          asPacks();
          chunks[1] += texts[1].slice(gone[1]);
        }
        continue;
      }
      // The same part of what each is told, for they are not of one length.
      if (left > 0) {
        asPacks();
        if (gone[0] === 0) texts[1] = fast.asPacks(connection, texts[1]);
        const part = Math.min(left, texts[1].length - gone[1] - 1);
        chunks[0] += texts[0].slice(gone[0], gone[0] + left);
        chunks[1] += texts[1].slice(gone[1], gone[1] + part);
        gone[0] += left;
        gone[1] += part;
      }
      break;
    }
    asPacks();
    if (chunks[0] !== "") plain.data(connection, chunks[0]);
    if (chunks[1] !== "") fast.data(connection, chunks[1]);
    this.compare();
  }

  answer(server: number, at: number, outcome: number, length: number): void {
    const queue = this.waiting[server]!;
    let i = at % Math.max(1, queue.length);
    // What is ordered waits for those before it.
    while (i > 0 && (queue[i]!.flags & FLAG_ORDERED) !== 0) i--;
    const [one] = queue.splice(i, 1);
    if (one === undefined) return;
    const payload =
      outcome === OUTCOME_REFUSED ? new Uint8Array([1]) : bytesOf("+".padEnd(length, "x") + "\r\n");
    const [plain, fast] = one.ids.map((id) => latin(frameOf(FRAME_REPLY, outcome, id, payload)));
    this.toServerSide[server]!.push({ texts: [plain!, fast!], gone: [0, 0] });
    this.answered++;
  }

  /** A frame to a server without its id, and with the command it is asked again for in the place of that one's number. */
  private unnumbered(frame: Sent, side: number, masked: number): unknown {
    const { id: _, ...rest } = { ...frame, flags: frame.flags & ~masked };
    if ((frame.flags & FLAG_SESSION) === 0 || !frame.payload.startsWith(SESSION)) return rest;
    const number = Buffer.from(frame.payload, "latin1").readUInt32BE(8);
    return {
      ...rest,
      again: this.serials[side]!.get(number),
      payload: frame.payload.slice(0, 8) + frame.payload.slice(12),
    };
  }

  compare(): void {
    const [plain, fast] = this.sides;
    for (const server of [0, 1]) {
      const connection = this.links[server];
      if (connection === undefined) continue;
      const a = plain.take(connection);
      const before = fast.packedCommands;
      const b = fast.takeCommands(connection);
      const packed = fast.packedCommands > before ? FLAG_ORDERED : 0;
      expect(b.map((frame) => this.unnumbered(frame, 1, packed))).toEqual(
        a.map((frame) => this.unnumbered(frame, 0, packed)),
      );
      for (const [i, frame] of a.entries()) {
        if (frame.type !== FRAME_COMMAND) continue;
        for (const [side, { id }] of [frame, b[i]!].entries())
          this.serials[side]!.set(id, this.serial);
        this.serial++;
        this.waiting[server]!.push({
          ids: [frame.id, b[i]!.id],
          flags: frame.flags,
          command: frame.payload,
        });
      }
    }
    for (const connection of this.clients)
      expect(fast.take(connection)).toEqual(plain.take(connection));
    for (const connection of this.plain)
      expect(fast.takeText(connection)).toEqual(plain.takeText(connection));
    expect(fast.closed).toEqual(plain.closed);
    expect(fast.events).toEqual(plain.events);
    expect([...fast.reading].sort()).toEqual([...plain.reading].sort());
  }

  books(): void {
    const [plain, fast] = this.sides.map(({ forwarder }) => ({
      counters: { ...forwarder.counters(), memoryBytes: 0 },
      open: [forwarder.inFlight(0), forwarder.inFlight(1)],
    }));
    expect(fast).toEqual(plain);
  }
}

const COMMANDS: [number, string[]][] = [
  [CLASS_QUERY, ["GET", "k"]],
  [CLASS_QUERY, ["GET", "a longer key"]],
  [CLASS_QUERY, ["MGET", "k", "l"]],
  [CLASS_QUERY, ["STRLEN", "k"]],
  [CLASS_QUERY, ["TTL", "k"]],
  [CLASS_WRITE, ["SET", "k", "value"]],
  [CLASS_WRITE, ["SET", "other", "v".repeat(60)]],
  [CLASS_MODIFY, ["INCR", "k"]],
  [CLASS_WRITE, ["INCR", "k"]],
  [CLASS_WRITE, ["GET", "k"]],
  [CLASS_QUERY, ["SUBSCRIBE", "k"]],
];

/** What plain clients send: mostly the first three. */
const PLAIN_COMMANDS: string[] = [
  ...[
    ["GET", "k"],
    ["SET", "k", "value"],
    ["GET", "a longer key"],
    ["SET", "k", "v".repeat(99)],
    ["INCR", "k"],
    ["STRLEN", "k"],
    ["MGET", "k", "l"],
    ["SET", "k", "v".repeat(520)],
    ["SET", "k", "v", "EX", "9"],
    ["PING"],
    ["MULTI"],
    ["EXEC"],
    ["get", "k"],
    ["GET", ""],
  ].map((words) => latin(resp(...words))),
  "PING\r\n",
  "*2\r\n$3\r\nGET\r\n$01\r\nk\r\n",
  "*2\r\n$3\r\nGET\r\n$1\r\nkk\r\n",
];

type Step =
  | { do: "plain"; client: number; command: number; count: number; at: number }
  | { do: "send"; client: number; command: number; count: number; odd: number; at: number }
  | { do: "answer"; server: number; at: number; outcome: number; length: number; cut: number }
  | { do: "other"; what: number; server: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({
      do: fc.constant("plain" as const),
      client: fc.nat(1),
      command: fc.oneof(
        { weight: 9, arbitrary: fc.nat(2) },
        { weight: 1, arbitrary: fc.nat(PLAIN_COMMANDS.length - 1) },
      ),
      count: fc.oneof(
        { weight: 9, arbitrary: fc.constant(1) },
        { weight: 1, arbitrary: fc.integer({ min: 2, max: 9 }) },
      ),
      at: fc.oneof(
        { weight: 20, arbitrary: fc.constant(536) },
        { weight: 1, arbitrary: fc.integer({ min: 1, max: 80 }) },
      ),
    }),
  },
  {
    weight: 30,
    arbitrary: fc.record({
      do: fc.constant("send" as const),
      client: fc.nat(3),
      command: fc.oneof(
        { weight: 4, arbitrary: fc.constantFrom(0, 1, 5, 7) },
        { weight: 1, arbitrary: fc.nat(COMMANDS.length - 1) },
      ),
      count: fc.oneof(
        { weight: 12, arbitrary: fc.constant(1) },
        { weight: 1, arbitrary: fc.integer({ min: 2, max: 9 }) },
      ),
      odd: fc.nat(400),
      at: fc.oneof(
        { weight: 30, arbitrary: fc.constant(536) },
        { weight: 1, arbitrary: fc.integer({ min: 1, max: 80 }) },
      ),
    }),
  },
  {
    weight: 40,
    arbitrary: fc.record({
      do: fc.constant("answer" as const),
      server: fc.nat(1),
      at: fc.nat(5),
      outcome: fc.nat(300),
      length: fc.integer({ min: 1, max: 90 }),
      cut: fc.oneof(
        { weight: 30, arbitrary: fc.constant(536) },
        { weight: 1, arbitrary: fc.integer({ min: 1, max: 30 }) },
      ),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("other" as const),
      what: fc.nat(14),
      server: fc.nat(1),
    }),
  },
);

let nextId = 100;

function run(pair: Pair, one: Step): void {
  if (one.do === "plain") {
    if (pair.plain.length === 0) pair.openPlain();
    const connection = pair.plain[one.client % pair.plain.length]!;
    const bytes = PLAIN_COMMANDS[one.command]!.repeat(one.count);
    pair.toClientSide.set(connection, pair.toClientSide.get(connection)! + bytes);
    pair.fromClient(connection, one.at);
    return;
  }
  if (one.do === "send") {
    if (pair.clients.length === 0) pair.openClient();
    const connection = pair.clients[one.client % pair.clients.length]!;
    const [kind, args] = COMMANDS[one.command]!;
    let bytes = pair.toClientSide.get(connection)!;
    for (let i = 0; i < one.count; i++) {
      let flags = kind;
      let payload = resp(...args);
      let id = nextId++;
      if (one.odd === 1) flags |= FLAG_MORE;
      if (one.odd === 2) flags |= FLAG_ORDERED;
      if (one.odd === 3) {
        flags |= FLAG_SESSION;
        payload = new Uint8Array([...new Uint8Array(16).fill(3), ...payload]);
      }
      if (one.odd === 4) bytes += latin(frameOf(FRAME_ABORT, 0, id - 1, new Uint8Array(0)));
      if (one.odd === 5 && i === 1) id = 0;
      bytes += latin(frameOf(FRAME_COMMAND, flags, id, payload));
    }
    pair.toClientSide.set(connection, bytes);
    pair.fromClient(connection, one.at);
    return;
  }
  if (one.do === "answer") {
    const server = pair.waiting[one.server]!.length > 0 ? one.server : 1 - one.server;
    const outcome = one.outcome === 1 ? OUTCOME_REFUSED : one.outcome === 2 ? OUTCOME_UNKNOWN : 0;
    pair.answer(server, one.at, outcome, one.length);
    if (one.outcome === 3) pair.answer(server, 0, 0, one.length);
    if (one.outcome === 4) pair.say(server, frameOf(FRAME_REPLY, 0, 4_000_000_000, resp("x")));
    pair.fromServer(server, one.cut);
    return;
  }
  const { route } = pair;
  const server: ServerIndex = one.server === 0 ? 0 : 1;
  switch (one.what) {
    case 0:
    case 1:
      pair.spare(server);
      break;
    case 2:
      pair.openClient();
      break;
    case 3:
      if (one.server === 1 && pair.plain.length > 0) pair.closePlain(0);
      else if (pair.clients.length > 0) pair.closeClient(one.server % pair.clients.length);
      break;
    case 4:
      pair.down(server);
      break;
    case 5:
    case 6:
      pair.up(server);
      break;
    case 7:
      pair.setRoute({ ...route, open: false });
      break;
    case 8:
      pair.setRoute({ ...route, open: true });
      break;
    case 9:
      pair.setRoute({
        epoch: route.epoch + 1,
        open: true,
        primary: server,
        readable: [server === 0 || one.server === 1, true],
        why: "",
      });
      break;
    case 10:
      pair.sayEpoch(server);
      break;
    case 11:
    case 12:
      pair.again(server);
      break;
    case 13:
      pair.hear();
      break;
    default:
      for (const side of pair.sides) side.now += 30;
      pair.both((side) => {
        side.fast?.look();
        side.forwarder.tick(side.now);
      });
  }
}

function begin(): Pair {
  nextId = 100;
  const pair = new Pair();
  pair.start();
  pair.fromServer(0, 536);
  pair.fromServer(1, 536);
  pair.openClient();
  pair.openClient();
  pair.openPlain();
  pair.openPlain();
  return pair;
}

test("the fast path sends what the forwarder sends, and keeps the same books", () => {
  let quick = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 150 }), (steps) => {
      const pair = begin();
      for (const one of steps) {
        run(pair, one);
        pair.books();
      }
      quick += pair.sides[1].quick;
    }),
    { numRuns: Number(process.env["FAST_PATH_RUNS"] ?? 150) },
  );
  // It was tried, and not only what stands behind it.
  expect(quick).toBeGreaterThan(200);
});

test("a client that asks and waits is served without the forwarder, hundreds of times", () => {
  const pair = begin();
  const [connection] = pair.clients;
  let quick = 0;
  for (let i = 0; i < 800; i++) {
    const [kind, args] = i % 3 === 0 ? COMMANDS[5]! : COMMANDS[0]!;
    pair.toClientSide.set(
      connection!,
      latin(frameOf(FRAME_COMMAND, kind, nextId++, resp(...args))),
    );
    pair.fromClient(connection!, 536);
    pair.answer(0, 0, 0, 20);
    pair.fromServer(0, 536);
    if (i === 10) quick = pair.sides[1].quick;
  }
  pair.books();
  expect(pair.sides[1].quick - quick).toBe(2 * 789);
});

test("six at a time on one connection keep their order without the forwarder", () => {
  const pair = begin();
  const [connection] = pair.clients;
  for (let i = 0; i < 200; i++) {
    const chunk = Array.from({ length: 6 }, () =>
      latin(frameOf(FRAME_COMMAND, CLASS_QUERY, nextId++, resp("GET", "k"))),
    ).join("");
    pair.toClientSide.set(connection!, chunk);
    pair.fromClient(connection!, 536);
    for (let n = 0; n < 6; n++) pair.answer(0, 0, 0, 30);
    pair.fromServer(0, 536);
  }
  pair.books();
  expect(pair.sides[1].quick).toBeGreaterThan(390);
});

test("a plain client is served without the forwarder, one command at a time or six", () => {
  const pair = begin();
  const [connection] = pair.plain;
  for (let i = 0; i < 300; i++) {
    const count = i % 3 === 0 ? 6 : 1;
    pair.toClientSide.set(connection!, PLAIN_COMMANDS[i % 2]!.repeat(count));
    pair.fromClient(connection!, 536);
    for (let n = 0; n < count; n++) pair.answer(0, 0, 0, 30);
    pair.fromServer(0, 536);
  }
  pair.books();
  expect(pair.sides[1].quick).toBeGreaterThan(590);
});

/** A client whose chunks of four GETs, each of whole words, go in one pack each. */
function fourAlike(pair: Pair): { get: Uint8Array; send: (frames: Uint8Array[]) => void } {
  const connection = pair.clients[0]!;
  const get = resp("GET", "nine more");
  const send = (frames: Uint8Array[]): void => {
    pair.toClientSide.set(connection, latin(Buffer.concat(frames)));
    pair.fromClient(connection, 536);
    while (pair.waiting[0]!.length > 0) pair.answer(0, 0, 0, 9);
    pair.fromServer(0, 536);
    pair.books();
  };
  const { quick } = pair.sides[1];
  for (let i = 0; i < 6; i++)
    send([0, 1, 2, 3].map(() => frameOf(FRAME_COMMAND, CLASS_QUERY, nextId++, get)));
  expect(pair.sides[1].quick - quick).toBeGreaterThan(8);
  return { get, send };
}

test("a chunk as long as the last one is looked at command by command", () => {
  const pair = begin();
  const { get, send } = fourAlike(pair);
  const set = resp("SET", "k", "vv");
  expect(set.length).toBe(get.length);
  for (let at = 0; at < 4; at++) {
    send(
      [0, 1, 2, 3].map((i) =>
        i === at
          ? frameOf(FRAME_COMMAND, CLASS_WRITE, nextId++, set)
          : frameOf(FRAME_COMMAND, CLASS_QUERY, nextId++, get),
      ),
    );
  }
});

test.each([0, 2])("a command under id 0 is refused as ever, at place %i of a chunk", (at) => {
  const pair = begin();
  const { get, send } = fourAlike(pair);
  const { closed } = pair.sides[1];
  const before = closed.length;
  // Alone it would be like the one before it, and so would the chunk.
  if (at === 0) send([frameOf(FRAME_COMMAND, CLASS_QUERY, nextId++, get)]);
  const frames = at === 0 ? [0] : [0, 1, 2, 3];
  send(frames.map((i) => frameOf(FRAME_COMMAND, CLASS_QUERY, i === at ? 0 : nextId++, get)));
  expect(closed.length).toBe(before + 1);
});

test("what looks like answers of another client inside an answer stays in it", () => {
  const pair = begin();
  const fast = pair.sides[1];
  const [first, second] = pair.clients;
  const server = pair.links[0]!;
  const ask = (connection: number): number => {
    fast.data(connection, latin(frameOf(FRAME_COMMAND, CLASS_QUERY, nextId++, resp("GET", "k"))));
    const frame = fast.takeCommands(server).find(({ type }) => type === FRAME_COMMAND)!;
    return frame.id;
  };
  const reply = (id: number, text: string): string =>
    fast.asPacks(server, latin(frameOf(FRAME_REPLY, 0, id, bytesOf(text))));
  let like = "";
  for (let i = 0; i < 4; i++) {
    for (const connection of [second!, first!]) {
      like = reply(ask(connection), "$5\r\nhello\r\n");
      fast.data(server, like);
    }
  }
  fast.take(first!);
  fast.take(second!);
  // The last answer's own bytes, within an answer to the other, where a chunk begins.
  const text = reply(ask(second!), "$" + like.length + "\r\n" + like + "\r\n");
  const at = text.indexOf(like);
  fast.data(server, text.slice(0, at));
  fast.data(server, like);
  fast.data(server, text.slice(at + like.length));
  expect(fast.take(first!)).toEqual([]);
  expect(fast.take(second!).map(({ payload }) => payload)).toEqual([
    "$" + like.length + "\r\n" + like + "\r\n",
  ]);
});

test("a reply decided in an epoch before is dropped, though its id is outstanding (G3)", () => {
  const pair = begin();
  const send = (command: number): void =>
    run(pair, { do: "send", client: 0, command, count: 1, odd: 0, at: 536 });
  const answer = (server: number): void =>
    run(pair, { do: "answer", server, at: 0, outcome: 0, length: 9, cut: 536 });
  pair.spare(0);
  for (const command of [0, 5, 0, 5, 0]) {
    send(command);
    answer(command === 5 ? 0 : 1);
  }
  // Only the primary tells of the new epoch.
  pair.setRoute({ ...pair.route, epoch: 2 });
  for (let i = 0; i < 3; i++) {
    send(5);
    answer(0);
  }
  const { dropped } = pair.sides[1].forwarder.counters();
  send(0);
  answer(1);
  pair.books();
  expect(pair.sides[1].forwarder.counters().dropped).toBe(dropped + 1);
});

test("a server that dials again before its old connection is gone is not taken for the other", () => {
  const pair = begin();
  pair.down(0);
  pair.up(0);
  pair.again(0);
  pair.fromServer(0, 536);
  pair.spare(1);
  for (let i = 0; i < 4; i++) {
    run(pair, { do: "send", client: 0, command: 0, count: 1, odd: 0, at: 536 });
    run(pair, { do: "answer", server: 0, at: 0, outcome: 0, length: 9, cut: 536 });
  }
  run(pair, { do: "send", client: 0, command: 0, count: 1, odd: 0, at: 536 });
  pair.down(0);
  pair.books();
});

test("what is written to a connection that has ended, and is not told of yet, ends nothing else", () => {
  const pair = begin();
  const send = (command: number): void =>
    run(pair, { do: "send", client: 0, command, count: 1, odd: 0, at: 536 });
  for (let i = 0; i < 6; i++) {
    send(5);
    run(pair, { do: "answer", server: 0, at: 0, outcome: 0, length: 9, cut: 536 });
  }
  for (const side of pair.sides) side.ended.add(pair.links[0]!);
  for (let i = 0; i < 3; i++) send(5);
  pair.down(0);
  pair.up(0);
  pair.books();
});
