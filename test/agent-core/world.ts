/**
 * A small world for two agent cores: virtual time, pipes that can be cut, stores whose flush can be
 * delayed or fail, and a controller played by the test. Nothing happens by itself: `settle` runs
 * everything until it is quiet, `pass` lets time go on.
 */
import { createHmac } from "node:crypto";
import { createAgent } from "../../agent/core/agent.js";
import { agentLimits } from "../../agent/core/limits.js";
import type { AgentLimits } from "../../agent/core/limits.js";
import type { AgentCore, AgentPorts, LinkKind } from "../../agent/core/ports.js";
import { createExecutor } from "../../agent/commands/executor.js";
import { createKeyspace } from "../../agent/commands/keyspace.js";
import { createMemoryStore } from "../../agent/store/memory.js";
import type { MemoryStore } from "../../agent/store/memory.js";
import {
  CLASS_QUERY,
  CLASS_WRITE,
  FLAG_MORE,
  FLAG_ORDERED,
  FLAG_SESSION,
  FLAG_TXN,
  FRAME_COMMAND,
  FRAME_CONTROL,
  FRAME_CREDIT,
  FRAME_EPOCH,
  FRAME_PACK_REPLY,
  FRAME_REPLY,
  HEADER_BYTES,
  OUTCOME_MASK,
  PAYLOAD_BYTES_MAX,
  WIRE_VERSION,
  frameOf,
  writeU32,
} from "../../protocol/frame.js";
import { FrameDecoder } from "../../protocol/frame-decoder.js";
import { acceptorProof } from "../../protocol/handshake.js";
import { isMalformed } from "../../protocol/malformed.js";
import {
  KIND_ANNOUNCE,
  KIND_ASK,
  KIND_CHALLENGE,
  KIND_HELLO,
  KIND_PASSED,
  KIND_PROOF,
  KIND_RECORD,
  KIND_REFUSE,
  KIND_REPORT,
  ROLE_SERVER,
  decodeControl,
  decodeHeartbeat,
  encodeControl,
  encodePoll,
} from "../../protocol/messages.js";
import type { Ask, ControlMessage, Heartbeat } from "../../protocol/messages.js";
import { MODE_BOTH, MODE_SOLO } from "../../protocol/record.js";
import type { Mode, RoleRecord, ServerIndex } from "../../protocol/record.js";

export const KEY = Uint8Array.from(Buffer.from("the pair's key"));
const CONTROLLER_SESSION = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

export function resp(...args: string[]): Uint8Array {
  let out = `*${args.length}\r\n`;
  for (const arg of args) out += `$${Buffer.byteLength(arg, "latin1")}\r\n${arg}\r\n`;
  return Uint8Array.from(Buffer.from(out, "latin1"));
}

/** One end of a pipe. */
interface End {
  deliver(bytes: Uint8Array): void;
  closed(): void;
}

class Pipe {
  open = true;
  /** Bytes go nowhere, and nobody is told. */
  cut = false;
  private queues: [Uint8Array[], Uint8Array[]] = [[], []];
  ends: [End | undefined, End | undefined] = [undefined, undefined];

  send(from: 0 | 1, bytes: Uint8Array): void {
    if (this.open) this.queues[from].push(bytes);
  }

  deliver(): boolean {
    if (this.cut) return false;
    let moved = false;
    for (const from of [0, 1] as const) {
      const queue = this.queues[from];
      this.queues[from] = [];
      for (const bytes of queue) {
        if (!this.open) break;
        moved = true;
        this.ends[1 - from]?.deliver(bytes);
      }
    }
    return moved;
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.ends[0]?.closed();
    this.ends[1]?.closed();
  }
}

export interface Reply {
  outcome: number;
  text: string;
  epoch: number;
}

/** A PACK_REPLY as it came. */
export interface PackReply {
  count: number;
  id: number;
  payload: Uint8Array;
  epoch: number;
}

/** The controller's end of a server's link. */
export class ServerLink {
  up = false;
  nonce = new Uint8Array(16);
  report: Heartbeat | undefined;
  announced = false;
  epoch = 0;
  sentEpoch = 0;
  replies = new Map<number, Reply>();
  order: number[] = [];
  packs: PackReply[] = [];
  parts = new Map<number, Uint8Array[]>();
  asks: Ask[] = [];
  decoder: FrameDecoder;

  constructor(
    readonly world: World,
    readonly pipe: Pipe,
    readonly server: ServerIndex,
  ) {
    this.decoder = new FrameDecoder(
      (type, flags, id, bytes, start, end) => this.onFrame(type, flags, id, bytes, start, end),
      PAYLOAD_BYTES_MAX,
      0,
    );
  }

  control(message: ControlMessage): void {
    this.pipe.send(1, frameOf(FRAME_CONTROL, 0, 0, encodeControl(message)));
  }

  private onFrame(
    type: number,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    if (type === FRAME_EPOCH) {
      this.epoch = id;
    } else if (type === FRAME_REPLY) {
      const parts = this.parts.get(id) ?? [];
      parts.push(bytes.slice(start, end));
      this.parts.set(id, parts);
      if ((flags & FLAG_MORE) !== 0) {
        if (this.world.creditAtOnce) this.credit(id, end - start);
        return;
      }
      this.parts.delete(id);
      this.order.push(id);
      this.replies.set(id, {
        outcome: flags & OUTCOME_MASK,
        text: parts.map(text).join(""),
        epoch: this.epoch,
      });
    } else if (type === FRAME_PACK_REPLY) {
      this.order.push(id);
      this.packs.push({ count: flags, id, payload: bytes.slice(start, end), epoch: this.epoch });
    } else if (type === FRAME_CONTROL) {
      const message = decodeControl(bytes, start, end);
      if (isMalformed(message)) throw new Error(message.malformed);
      this.onControl(message);
    }
  }

  credit(id: number, count: number): void {
    const bytes = new Uint8Array(4);
    writeU32(bytes, 0, count);
    this.pipe.send(1, frameOf(FRAME_CREDIT, 0, id, bytes));
  }

  private onControl(message: ControlMessage): void {
    switch (message.kind) {
      case KIND_HELLO: {
        this.nonce = Uint8Array.from(message.nonce);
        if (this.world.refuse !== "") {
          this.control({ kind: KIND_REFUSE, code: 4, text: this.world.refuse });
          break;
        }
        const nonceL = new Uint8Array(16).fill(9);
        const key = this.world.wrongKey ? Uint8Array.of(1, 2, 3) : KEY;
        const proof = acceptorProof(hmac, key, ROLE_SERVER, message.id, message.nonce, nonceL);
        this.control({
          kind: KIND_CHALLENGE,
          wire: WIRE_VERSION,
          nonce: nonceL,
          proof,
          frameMax: HEADER_BYTES + this.world.payloadMax,
          windowBytes: 16384,
          sessionId: this.world.sessionId,
        });
        break;
      }
      case KIND_PROOF:
        this.up = true;
        break;
      case KIND_REPORT:
        this.report = message.heartbeat;
        if (this.world.record !== undefined) this.tellRecord();
        break;
      case KIND_ANNOUNCE:
        this.announced = true;
        break;
      case KIND_ASK:
        this.asks.push(message);
        break;
      default:
        throw new Error("controller got message " + message.kind);
    }
  }

  tellRecord(forced = false): void {
    const record = this.world.record!;
    this.control({ kind: KIND_RECORD, record, fresh: false, forced });
    this.pipe.send(1, frameOf(FRAME_EPOCH, 0, record.epoch, new Uint8Array(0)));
    this.sentEpoch = record.epoch;
  }
}

function hmac(key: Uint8Array, data: Uint8Array): Uint8Array {
  return createHmac("sha256", key).update(data).digest();
}

export interface Note {
  level: string;
  event: string;
  details: object | undefined;
}

export class TestServer implements AgentPorts {
  agent: AgentCore | undefined;
  store: MemoryStore;
  identity: Uint8Array;
  /** Commits stay unflushed. */
  holdFlush = false;
  fatalReason = "";
  notes: Note[] = [];
  files = new Map<string, string>();
  failSetAside = false;
  peerReachable = true;
  controllerReachable = true;
  wantedMs = 0;
  heartbeats: Heartbeat[] = [];
  private connections = new Map<number, { pipe: Pipe; side: 0 | 1; reading: boolean }>();
  private held = new Map<number, Uint8Array[]>();
  private nextConnection = 1;
  private dials: ("controller" | "peer")[] = [];
  private randomState: number;

  constructor(
    readonly world: World,
    readonly index: ServerIndex,
    readonly limits: AgentLimits,
  ) {
    this.store = createMemoryStore({ durability: "disk" });
    this.identity = new Uint8Array(16).fill(index + 1);
    this.randomState = 1000 + index;
  }

  id(): string {
    return this.index === 0 ? "a" : "b";
  }

  start(): void {
    const keyspace = createKeyspace(this.store);
    this.agent = createAgent(
      {
        id: this.id(),
        index: this.index,
        peerId: this.index === 0 ? "b" : "a",
        key: KEY,
        identity: this.identity,
        emptied: false,
        preset: this.index === 0,
        controllerAddress: "10.0.0.1:6379",
        localPassword: "",
        limits: this.limits,
      },
      this.store,
      keyspace,
      createExecutor(keyspace, this.limits),
      this,
    );
    this.agent.start(this.world.nowMs);
    this.wantedMs = this.world.nowMs;
  }

  /** Power is cut: what was not flushed is gone. */
  crash(kind: "power" | "kill" = "power"): void {
    this.agent = undefined;
    this.dials = [];
    for (const { pipe } of [...this.connections.values()]) pipe.close();
    this.connections.clear();
    this.held.clear();
    this.store = this.store.crash(kind);
    this.holdFlush = false;
    this.fatalReason = "";
  }

  restart(): void {
    if (this.agent !== undefined) this.crash();
    this.start();
  }

  /** A new, empty disk. */
  replaceDisk(): void {
    if (this.agent !== undefined) this.crash();
    this.store = createMemoryStore({ durability: "disk" });
    this.identity = new Uint8Array(16).fill(this.identity[0]! + 16);
  }

  attach(pipe: Pipe, side: 0 | 1, kind: LinkKind, accepted: boolean): void {
    const connection = this.nextConnection++;
    this.connections.set(connection, { pipe, side, reading: true });
    pipe.ends[side] = {
      deliver: (bytes) => {
        if (this.connections.get(connection)?.reading === false) {
          const held = this.held.get(connection) ?? [];
          held.push(bytes);
          this.held.set(connection, held);
          return;
        }
        // The shell hands out one buffer again and again.
        const shared = new Uint8Array(bytes.length + 4);
        shared.set(bytes, 2);
        this.agent?.onBytes(connection, shared, 2, 2 + bytes.length, this.world.nowMs);
        shared.fill(0xee);
      },
      closed: () => {
        if (!this.connections.delete(connection)) return;
        this.agent?.onClosed(connection, this.world.nowMs);
      },
    };
    this.agent!.onOpen(connection, kind, accepted, this.world.nowMs);
  }

  turn(): boolean {
    if (this.agent === undefined) return false;
    let moved = false;
    const dials = this.dials;
    this.dials = [];
    for (const kind of dials) {
      moved = true;
      this.world.connect(this, kind);
      if (this.agent === undefined) return true;
    }
    const flushed = this.holdFlush ? 0 : this.store.flush();
    this.wantedMs = this.agent.tick(this.world.nowMs);
    this.agent.endTurn(this.world.nowMs);
    return moved || flushed > 0 || this.dials.length > 0 || this.wantedMs <= this.world.nowMs;
  }

  /** @param nonce of the link that the poll names; default: this server's own */
  heartbeat(
    nonce: Uint8Array = this.world.links[this.index]?.nonce.slice(0, 8) ?? new Uint8Array(8),
  ): Heartbeat {
    this.heartbeats = [];
    this.agent!.onPoll(
      "poll",
      encodePoll({
        counter: 1,
        linkNonce: nonce,
        sessionId: this.world.sessionId,
        epoch: this.world.record?.epoch ?? 0,
      }),
      this.world.nowMs,
    );
    if (this.heartbeats.length === 0) throw new Error("no answer to the poll");
    return this.heartbeats[0]!;
  }

  status(): Record<string, unknown> {
    return this.agent!.status(this.world.nowMs) as Record<string, unknown>;
  }

  log(): Record<string, number> {
    return this.status()["log"] as Record<string, number>;
  }

  noted(event: string): Note | undefined {
    return this.notes.find((note) => note.event === event);
  }

  // --- ports
  send(connection: number, bytes: Uint8Array, start: number, end: number): void {
    const known = this.connections.get(connection);
    known?.pipe.send(known.side, bytes.slice(start, end));
  }
  /** What a test says the network has not taken. */
  unread = 0;
  backlog(): number {
    return this.unread;
  }
  drained(): void {
    this.unread = 0;
    for (const connection of this.connections.keys()) {
      this.agent!.onDrained(connection, this.world.nowMs);
    }
  }
  close(connection: number): void {
    const known = this.connections.get(connection);
    if (known === undefined) return;
    this.world.later(() => {
      // What was sent before goes out first.
      known.pipe.deliver();
      known.pipe.close();
    });
  }
  setReading(connection: number, on: boolean): void {
    const known = this.connections.get(connection);
    if (known === undefined || known.reading === on) return;
    known.reading = on;
    if (!on) return;
    const held = this.held.get(connection) ?? [];
    this.held.delete(connection);
    this.world.later(() => {
      for (const bytes of held) known.pipe.ends[known.side]?.deliver(bytes);
    });
  }
  dialed = 0;
  dial(kind: "controller" | "peer"): void {
    if (kind === "controller") this.dialed++;
    this.dials.push(kind);
  }
  datagram(_from: unknown, bytes: Uint8Array): void {
    const heartbeat = decodeHeartbeat(bytes, 0, bytes.length);
    if (isMalformed(heartbeat)) throw new Error(heartbeat.malformed);
    this.heartbeats.push(heartbeat);
  }
  hmac = hmac;
  random(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let i = 0; i < count; i++) {
      this.randomState = (Math.imul(this.randomState, 1103515245) + 12345) >>> 0;
      bytes[i] = this.randomState >>> 16;
    }
    return bytes;
  }
  setAside(name: string, bytes: Uint8Array): void {
    if (this.failSetAside) throw new Error("ENOSPC: no space left on device");
    this.files.set(name, text(bytes));
  }
  load() {
    return { loadPermille: 100, cpuPermille: 100, runQueue: 1, loopDelayUs: 100 };
  }
  note(level: "debug" | "info" | "warn" | "error", event: string, details?: object): void {
    this.notes.push({ level, event, details });
    if (this.world.trace) {
      console.log(this.world.nowMs, this.id(), level, event, JSON.stringify(details ?? {}));
    }
  }
  fatal(reason: string): void {
    this.fatalReason = reason;
    this.agent = undefined;
  }
  wallClockMs(): number {
    return 1_700_000_000_000;
  }
}

export class LocalClient {
  received = "";
  closed = false;

  constructor(readonly pipe: Pipe) {
    pipe.ends[1] = {
      deliver: (bytes) => {
        this.received += text(bytes);
      },
      closed: () => {
        this.closed = true;
      },
    };
  }

  send(...args: string[]): void {
    this.pipe.send(1, resp(...args));
  }

  /** What came since the last time. */
  take(): string {
    const { received } = this;
    this.received = "";
    return received;
  }
}

export class World {
  nowMs = 1000;
  trace = false;
  creditAtOnce = true;
  payloadMax = PAYLOAD_BYTES_MAX;
  /** The controller proves itself with another key; refuses everybody with this text. */
  wrongKey = false;
  refuse = "";
  sessionId: Uint8Array = CONTROLLER_SESSION;
  servers: [TestServer, TestServer];
  links: [ServerLink | undefined, ServerLink | undefined] = [undefined, undefined];
  record: RoleRecord | undefined;
  private pipes: Pipe[] = [];
  private todo: (() => void)[] = [];
  private nextId = 1;
  private controllerPipes = new Map<Pipe, ServerIndex>();
  private peerPipes = new Set<Pipe>();

  constructor(changes: Partial<AgentLimits> = {}) {
    // Time stands still while this world settles.
    const limits = agentLimits({ streamTurnMs: 0, ...changes });
    this.servers = [new TestServer(this, 0, limits), new TestServer(this, 1, limits)];
  }

  get a(): TestServer {
    return this.servers[0];
  }
  get b(): TestServer {
    return this.servers[1];
  }

  later(what: () => void): void {
    this.todo.push(what);
  }

  connect(server: TestServer, kind: "controller" | "peer"): void {
    if (kind === "controller") {
      if (!server.controllerReachable) {
        server.agent!.onDialFailed(kind, this.nowMs);
        return;
      }
      const pipe = new Pipe();
      this.pipes.push(pipe);
      this.controllerPipes.set(pipe, server.index);
      const link = new ServerLink(this, pipe, server.index);
      pipe.ends[1] = {
        deliver: (bytes) => {
          const fault = link.decoder.feed(bytes, 0, bytes.length);
          if (fault !== "") throw new Error("server sent: " + fault);
        },
        closed: () => {
          link.up = false;
        },
      };
      this.links[server.index] = link;
      server.attach(pipe, 0, "controller", false);
      return;
    }
    const other = this.servers[1 - server.index]!;
    if (other.agent === undefined || !server.peerReachable || !other.peerReachable) {
      server.agent!.onDialFailed(kind, this.nowMs);
      return;
    }
    const pipe = new Pipe();
    this.pipes.push(pipe);
    this.peerPipes.add(pipe);
    server.attach(pipe, 0, "peer", false);
    other.attach(pipe, 1, "peer", true);
  }

  /** Peer packets are lost from now on, without anybody being told; or flow again. */
  cutPeer(cut: boolean): void {
    for (const pipe of this.peerPipes) if (pipe.open) pipe.cut = cut;
    for (const server of this.servers) server.peerReachable = !cut;
  }

  closePeer(): void {
    for (const pipe of this.peerPipes) pipe.close();
  }

  local(server: TestServer): LocalClient {
    const pipe = new Pipe();
    this.pipes.push(pipe);
    const client = new LocalClient(pipe);
    server.attach(pipe, 0, "local", true);
    return client;
  }

  /** Somebody at a server's peer port. */
  peerStranger(server: TestServer): LocalClient {
    const pipe = new Pipe();
    this.pipes.push(pipe);
    const client = new LocalClient(pipe);
    server.attach(pipe, 0, "peer", true);
    return client;
  }

  start(): void {
    this.a.start();
    this.b.start();
    this.settle();
  }

  /** One round: every pipe delivers, every server has a turn. */
  round(): boolean {
    let moved = false;
    const todo = this.todo;
    this.todo = [];
    for (const what of todo) {
      what();
      moved = true;
    }
    this.pipes = this.pipes.filter((pipe) => pipe.open);
    for (const pipe of this.pipes) if (pipe.deliver()) moved = true;
    for (const server of this.servers) if (server.turn()) moved = true;
    return moved || this.todo.length > 0;
  }

  settle(): void {
    let quiet = 0;
    for (let i = 0; i < 5000; i++) {
      if (this.round()) quiet = 0;
      else if (++quiet === 3) return;
    }
    throw new Error("the world does not come to rest");
  }

  pass(ms: number, stepMs = 5): void {
    const end = this.nowMs + ms;
    while (this.nowMs < end) {
      this.nowMs = Math.min(end, this.nowMs + stepMs);
      this.settle();
    }
  }

  /** Lets time go on until it holds. */
  until(what: () => boolean, boundMs = 20000): void {
    const end = this.nowMs + boundMs;
    this.settle();
    while (!what()) {
      if (this.nowMs >= end) throw new Error("it did not come true: " + what.toString());
      this.pass(5);
    }
  }

  makeRecord(epoch: number, primary: ServerIndex, mode: Mode): RoleRecord {
    return {
      epoch,
      primary,
      mode,
      pairId: new Uint8Array(8).fill(7),
      identityA: this.a.identity,
      identityB: this.b.identity,
    };
  }

  /** The controller writes a record and tells it to whoever is linked. */
  write(epoch: number, primary: ServerIndex, mode: Mode, to: ServerIndex[] = [0, 1]): void {
    this.record = this.makeRecord(epoch, primary, mode);
    for (const index of to) if (this.links[index]?.up) this.links[index]!.tellRecord();
  }

  /** Both(a), session open and confirmed. */
  begin(primary: ServerIndex = 0): void {
    this.start();
    this.until(() => this.links[0]?.report !== undefined && this.links[1]?.report !== undefined);
    this.write(1, primary, MODE_BOTH);
    this.until(() => this.servers.every((server) => server.heartbeat().sessionOpen));
  }

  solo(primary: ServerIndex, epoch: number): void {
    this.write(epoch, primary, MODE_SOLO);
    this.settle();
  }

  passed(server: ServerIndex): void {
    this.links[server]!.control({ kind: KIND_PASSED, epoch: this.record!.epoch });
    this.settle();
  }

  /** Sends a command; the class is given, since the world does not look it up. */
  send(
    server: ServerIndex,
    args: string[] | string[][],
    options: {
      query?: boolean;
      ordered?: boolean;
      number?: number;
      below?: number;
      sessionId?: Uint8Array;
      noSession?: boolean;
      txn?: boolean;
      raw?: Uint8Array;
    } = {},
  ): number {
    const link = this.links[server]!;
    const id = options.number ?? this.nextId++;
    if (options.number !== undefined) this.nextId = Math.max(this.nextId, id + 1);
    const commands = (Array.isArray(args[0]) ? args : [args]) as string[][];
    const body = options.raw ?? Buffer.concat(commands.map((command) => resp(...command)));
    const query = options.query === true;
    const withSession = !query && options.noSession !== true;
    const payload = new Uint8Array(body.length + (withSession ? 16 : 0));
    if (withSession) {
      payload.set(options.sessionId ?? this.sessionId, 0);
      writeU32(payload, 8, id);
      writeU32(payload, 12, options.below ?? 0);
    }
    payload.set(body, withSession ? 16 : 0);
    const flags =
      (query ? CLASS_QUERY : CLASS_WRITE) |
      (options.ordered === true ? FLAG_ORDERED : 0) |
      (options.txn === true ? FLAG_TXN : 0) |
      (withSession ? FLAG_SESSION : 0);
    for (let at = 0; ;) {
      const end = Math.min(payload.length, at + this.payloadMax);
      const more = end < payload.length ? FLAG_MORE : 0;
      link.pipe.send(1, frameOf(FRAME_COMMAND, flags | more, id, payload.subarray(at, end)));
      at = end;
      if (more === 0) break;
    }
    return id;
  }

  set(server: ServerIndex, key: string, value: string): number {
    return this.send(server, ["SET", key, value]);
  }

  get(server: ServerIndex, key: string): number {
    return this.send(server, ["GET", key], { query: true });
  }

  reply(server: ServerIndex, id: number): Reply | undefined {
    return this.links[server]!.replies.get(id);
  }

  /** The reply's text, after everything has settled. */
  ask(server: ServerIndex, ...args: string[]): string {
    const query = ["GET", "DBSIZE", "EXISTS", "STRLEN", "HGET", "HLEN", "TTL", "KEYS"].includes(
      args[0]!,
    );
    const id = this.send(server, args, { query });
    this.settle();
    const reply = this.reply(server, id);
    if (reply === undefined) throw new Error(`no reply to ${args.join(" ")}`);
    return reply.outcome === 0 ? reply.text : `outcome ${reply.outcome}: ${reply.text.slice(1)}`;
  }
}

export { MODE_BOTH, MODE_SOLO };
