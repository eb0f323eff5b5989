/**
 * A world for the forward path alone: two model servers that answer with the ORDERED rule, a model control path, and
 * clients that speak RESP. Nothing runs by itself; a test says what happens next, and one seed gives one history.
 */
import { createHmac } from "node:crypto";
import { defaultTimings, type CoreConfig } from "../../firmware/core/config.js";
import { createForwarder, type Forwarder } from "../../firmware/core/forward.js";
import { defaultLimits, type Limits } from "../../firmware/core/limits.js";
import type { ControllerPorts, ForwardEvents, Route } from "../../firmware/core/ports.js";
import { FrameDecoder } from "../../protocol/frame-decoder.js";
import {
  CLASS_QUERY,
  FLAG_CLASS_MASK,
  FLAG_MORE,
  FLAG_ORDERED,
  FLAG_SESSION,
  FLAG_TXN,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_CREDIT,
  OUTCOME_ANSWER,
  OUTCOME_REFUSED,
  readU32,
  SESSION_PREFIX_BYTES,
} from "../../protocol/frame.js";
import type { ServerIndex } from "../../protocol/record.js";
import { PARSED_COMMAND, RespParser } from "../../protocol/resp.js";

const LINK_BASE = 100000;

export function bytesOf(words: string): Uint8Array {
  return new Uint8Array(Buffer.from(words, "latin1"));
}

/** Not by TextDecoder("latin1"): that is Windows-1252, though Node 20 takes the word for it. */
function textOf(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("latin1");
}

/** A command as clients send it. */
export function resp(...args: string[]): Uint8Array {
  return bytesOf(
    `*${args.length}\r\n` + args.map((arg) => `$${arg.length}\r\n${arg}\r\n`).join(""),
  );
}

export function configOf(
  changes: Partial<Omit<CoreConfig, "limits">> & { limits?: Partial<Limits> },
): CoreConfig {
  return {
    servers: [
      { id: "a", preset: true },
      { id: "b", preset: false },
    ],
    key: new Uint8Array(16),
    clientKey: undefined,
    clientPassword: undefined,
    balancing: "expected-delay",
    frameMax: 65536,
    idMax: 0xfff00000,
    seed: new Uint8Array(0),
    timings: defaultTimings(),
    ...changes,
    limits: { ...defaultLimits(), ...changes.limits },
  };
}

/** A command as it arrived at a server. */
export interface Arrived {
  id: number;
  /** Its number in the controller's session. */
  number: number;
  flags: number;
  args: string[];
  commands: string[][];
  payload: Uint8Array;
  /** Stream epoch in which it came. */
  epoch: number;
}

export class ModelLink {
  readonly arrived: Arrived[] = [];
  readonly aborted: number[] = [];
  readonly credits: { id: number; bytes: number }[] = [];
  readonly parts = new Map<number, { flags: number; bytes: number[] }>();
  readonly frames: number[] = [];
  private readonly decoder: FrameDecoder;

  constructor(
    readonly world: World,
    readonly server: ServerIndex,
  ) {
    this.decoder = new FrameDecoder(
      (type, flags, id, bytes, start, end) => this.onFrame(type, flags, id, bytes, start, end),
      65528,
      65536,
    );
  }

  feed(bytes: Uint8Array, start: number, end: number): void {
    const fault = this.decoder.feed(bytes.slice(start, end), 0, end - start);
    if (fault !== "") throw new Error(`the controller sent ${fault}`);
  }

  private onFrame(
    type: number,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    if (type === FRAME_ABORT) {
      this.aborted.push(id);
      this.parts.delete(id);
      return;
    }
    if (type === FRAME_CREDIT) {
      this.credits.push({ id, bytes: readU32(bytes, start) });
      return;
    }
    if (type !== FRAME_COMMAND) throw new Error(`the controller sent a frame of type ${type}`);
    this.frames.push(id);
    const part = this.parts.get(id) ?? { flags: 0, bytes: [] };
    part.flags |= flags & ~FLAG_MORE;
    for (let i = start; i < end; i++) part.bytes.push(bytes[i]!);
    if ((flags & FLAG_MORE) !== 0) {
      this.parts.set(id, part);
      return;
    }
    this.parts.delete(id);
    const payload = Uint8Array.from(part.bytes);
    const named = (part.flags & FLAG_SESSION) !== 0;
    const commands = commandsOf(named ? payload.subarray(SESSION_PREFIX_BYTES) : payload);
    const arrived: Arrived = {
      id,
      number: named ? readU32(payload, 8) : id,
      flags: part.flags,
      args: commands[0] ?? [],
      commands,
      payload,
      epoch: this.world.epoch,
    };
    this.arrived.push(arrived);
    this.world.onArrival(this, arrived);
  }
}

export function commandsOf(payload: Uint8Array): string[][] {
  const parser = new RespParser({
    argsMax: 1000,
    bulkBytesMax: 1 << 24,
    commandBytesMax: 1 << 25,
    inlineBytesMax: 1024,
    keptBytesMax: 1 << 25,
  });
  const commands: string[][] = [];
  parser.feed(payload, 0, payload.length);
  while (parser.next() === PARSED_COMMAND) {
    const args: string[] = [];
    for (let i = 0; i < parser.count; i++) {
      args.push(textOf(parser.bytes, parser.starts[i]!, parser.ends[i]!));
    }
    commands.push(args);
  }
  return commands;
}

export interface ModelClient {
  connection: number;
  received: string;
  /** Left unread by the client. */
  unread: number;
  reads: boolean;
  reading: boolean;
  closed: string | undefined;
  aborted: boolean;
}

export class World {
  now = 1000;
  epoch = 1;
  readonly forwarder: Forwarder;
  readonly clients = new Map<number, ModelClient>();
  readonly links: (ModelLink | undefined)[] = [undefined, undefined];
  readonly linkOf = [-1, -1];
  /** Bytes a link has not taken. */
  readonly linkBacklog = [0, 0];
  readonly passed: number[] = [];
  readonly faults: string[] = [];
  idsUsedUp = 0;
  route: Route = { epoch: 1, open: true, primary: 0, readable: [true, true], why: "" };
  onArrival: (link: ModelLink, arrived: Arrived) => void = () => undefined;
  private nextConnection = 1;
  private nextLink = LINK_BASE;

  constructor(readonly config: CoreConfig = configOf({})) {
    const ports: ControllerPorts = {
      send: (connection, bytes, start, end) => this.onSend(connection, bytes, start, end),
      backlog: (connection) => {
        if (connection >= LINK_BASE) return this.linkBacklog[this.linkOf.indexOf(connection)] ?? 0;
        return this.clients.get(connection)?.unread ?? 0;
      },
      close: (connection, reason, abort) => {
        const client = this.clients.get(connection);
        if (client === undefined) throw new Error("a connection was closed that is not there");
        client.closed = reason;
        client.aborted = abort;
      },
      setReading: (connection, on) => {
        this.clients.get(connection)!.reading = on;
      },
      poll: () => undefined,
      persist: () => undefined,
      hmac: (key, data) => new Uint8Array(createHmac("sha256", key).update(data).digest()),
      note: () => undefined,
      reset: (reason) => {
        throw new Error(reason);
      },
    };
    const events: ForwardEvents = {
      onFirstPassed: (epoch) => this.passed.push(epoch),
      onPeerFault: (server, reason) => this.faults.push(`${server}: ${reason}`),
      onIdsUsedUp: () => {
        this.idsUsedUp += 1;
      },
    };
    this.forwarder = createForwarder(config, ports, events);
  }

  /** Both links up, epoch 1, a is primary, both readable. */
  begin(): this {
    this.forwarder.setSession(Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8]));
    this.forwarder.setRoute(this.route, this.now);
    this.linkUp(0);
    this.linkUp(1);
    return this;
  }

  linkUp(server: ServerIndex, frameMax = 65536, windowBytes = 8 << 20): ModelLink {
    const link = new ModelLink(this, server);
    this.links[server] = link;
    this.linkOf[server] = this.nextLink++;
    this.linkBacklog[server] = 0;
    this.forwarder.linkUp(server, this.linkOf[server]!, frameMax, windowBytes, this.now);
    this.forwarder.onReplyEpoch(server, this.epoch, this.now);
    return link;
  }

  linkDown(server: ServerIndex): void {
    if (this.links[server] === undefined) return;
    this.links[server] = undefined;
    this.linkOf[server] = -1;
    this.forwarder.linkDown(server, this.now);
  }

  link(server: ServerIndex): ModelLink {
    const link = this.links[server];
    if (link === undefined) throw new Error(`the link to server ${server} is down`);
    return link;
  }

  /** A new route; with `tell` both servers' reply streams are in its epoch at once. */
  setRoute(changes: Partial<Route>, tell = true): void {
    this.route = { ...this.route, ...changes };
    this.epoch = this.route.epoch;
    if (tell) {
      for (const server of [0, 1] as const) {
        if (this.links[server] !== undefined) {
          this.forwarder.onReplyEpoch(server, this.epoch, this.now);
        }
      }
    }
    this.forwarder.setRoute(this.route, this.now);
  }

  open(kind: "redis" | "native" = "redis"): ModelClient {
    const client: ModelClient = {
      connection: this.nextConnection++,
      received: "",
      unread: 0,
      reads: true,
      reading: true,
      closed: undefined,
      aborted: false,
    };
    this.clients.set(client.connection, client);
    this.forwarder.clientOpen(client.connection, kind, this.now);
    return client;
  }

  send(client: ModelClient, ...chunks: Uint8Array[]): void {
    for (const chunk of chunks) {
      // The buffer is used again at once, as a home may do.
      const lent = new Uint8Array(chunk);
      this.forwarder.clientBytes(client.connection, lent, 0, lent.length, this.now);
      lent.fill(0x5a);
    }
  }

  close(client: ModelClient): void {
    this.clients.delete(client.connection);
    this.forwarder.clientClosed(client.connection, this.now);
  }

  /** The client takes what was left unread. */
  drain(client: ModelClient): void {
    client.unread = 0;
    this.forwarder.clientDrained(client.connection, this.now);
  }

  reply(server: ServerIndex, id: number, words: string, flags: number = OUTCOME_ANSWER): void {
    const bytes = bytesOf(`........${words}`);
    this.forwarder.onReply(server, flags, id, bytes, 8, bytes.length, this.now);
    bytes.fill(0x5a);
  }

  refuse(server: ServerIndex, id: number, words = "wrong epoch"): void {
    this.reply(server, id, `\u0001${words}`, OUTCOME_REFUSED);
  }

  tick(ms = 0): number {
    this.now += ms;
    return this.forwarder.tick(this.now);
  }

  private onSend(connection: number, bytes: Uint8Array, start: number, end: number): void {
    if (connection >= LINK_BASE) {
      const server = this.linkOf.indexOf(connection);
      if (server < 0) throw new Error("bytes were sent on a link that is down");
      this.links[server]!.feed(bytes, start, end);
      return;
    }
    const client = this.clients.get(connection);
    if (client === undefined || client.closed !== undefined) {
      throw new Error("bytes were sent to a client that is gone");
    }
    if (!client.reads) client.unread += end - start;
    client.received += textOf(bytes, start, end);
  }
}

export function isOrdered(arrived: Arrived): boolean {
  return (arrived.flags & FLAG_ORDERED) !== 0;
}

export function isTransaction(arrived: Arrived): boolean {
  return (arrived.flags & FLAG_TXN) !== 0;
}

export function isQueryFrame(arrived: Arrived): boolean {
  return (arrived.flags & FLAG_CLASS_MASK) === CLASS_QUERY;
}
