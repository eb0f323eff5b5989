/**
 * A tiny deterministic world for the control path: two fake servers that speak the real codecs, a flash,
 * and a forward path that only remembers what it was told. Time is virtual; every message takes 0.1 ms.
 */
import { createHmac } from "node:crypto";
import { crc32 as zlibCrc32 } from "node:zlib";
import { defaultLimits } from "../../firmware/core/limits.js";
import { defaultTimings } from "../../firmware/core/config.js";
import type { CoreConfig } from "../../firmware/core/config.js";
import { createController } from "../../firmware/core/controller.js";
import type { ControllerCore } from "../../firmware/core/core.js";
import { createForwarder } from "../../firmware/core/forward.js";
import type { Forwarder } from "../../firmware/core/forward.js";
import { createFastPoll } from "../../firmware/fast-poll.js";
import type { FastPoll } from "../../firmware/fast-poll.js";
import type { ControllerPorts, ForwardEvents, Route } from "../../firmware/core/ports.js";
import { FrameDecoder } from "../../protocol/frame-decoder.js";
import {
  FRAME_CONTROL,
  FRAME_DATAGRAM,
  FRAME_EPOCH,
  FRAME_SEALED,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
  frameOf,
} from "../../protocol/frame.js";
import { acceptorProof, dialerProof, proofsEqual } from "../../protocol/handshake.js";
import { isMalformed } from "../../protocol/malformed.js";
import {
  KIND_ANNOUNCE,
  KIND_CHALLENGE,
  KIND_HELLO,
  KIND_PASSED,
  KIND_PROOF,
  KIND_RECORD,
  KIND_REFUSE,
  KIND_REPORT,
  ROLE_SERVER,
  decodeControl,
  decodePoll,
  encodeControl,
  encodeHeartbeat,
} from "../../protocol/messages.js";
import type { ControlMessage, Heartbeat, Refuse } from "../../protocol/messages.js";
import {
  MODE_BOTH,
  MODE_SOLO,
  decodeRecord,
  formatRecord,
  recordsEqual,
} from "../../protocol/record.js";
import type { RoleRecord, ServerIndex } from "../../protocol/record.js";
import {
  FORM_BINARY,
  SIDE_CONTROLLER,
  SIDE_OTHER,
  SerialDecoder,
  encodeSerial,
} from "../../protocol/serial.js";
import { unsealed } from "../../protocol/serial-seal.js";

const WIRE_MS = 0.1;
/** One byte at 115200 baud. */
const SERIAL_BYTE_MS = 10 / 115.2;
export const PAIR_ID = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]);

export function hmac(key: Uint8Array, data: Uint8Array): Uint8Array {
  return new Uint8Array(createHmac("sha256", key).update(data).digest());
}

export function filled(count: number, value: number): Uint8Array {
  return new Uint8Array(count).fill(value);
}

function crc32(bytes: Uint8Array, start: number, end: number): number {
  return zlibCrc32(bytes.subarray(start, end));
}

export const KEY = filled(16, 7);
/** The disks a pair of the tests begins with. */
export const DISK_A = filled(16, 0xa1);
export const DISK_B = filled(16, 0xb1);

export function record(
  epoch: number,
  primary: ServerIndex,
  mode: "both" | "solo",
  identityA: Uint8Array = DISK_A,
  identityB: Uint8Array = DISK_B,
): RoleRecord {
  return {
    epoch,
    primary,
    mode: mode === "both" ? MODE_BOTH : MODE_SOLO,
    pairId: PAIR_ID,
    identityA,
    identityB,
  };
}

export class FakeServer {
  record: RoleRecord | undefined;
  identity: Uint8Array;
  preset = false;
  key = KEY;
  alive = true;
  hung = false;
  /** Polls and answers get through. */
  udp = true;
  /** Its answers take so much longer. */
  slowMs = 0;
  /** It dials, and its link carries bytes. */
  tcp = true;
  /** Takes a higher record as soon as it hears it. */
  adopts = true;
  wireMin = 1;
  wireMax = 1;
  startedAt = 0;
  /** What it says beyond what it is. */
  says: Partial<Heartbeat> = {};
  connection = -1;
  nonce = filled(16, 0);
  proven = false;
  heard: ControlMessage[] = [];
  epochs: number[] = [];
  refusals: Refuse[] = [];
  dials = 0;
  redialMs = 10;
  polls = 0;
  /** When it last answered a poll, and with which disk. */
  answeredAt = -Infinity;
  answeredDisk = filled(16, 0);
  /** Its serial cable carries bytes. */
  wired = true;
  /** Changes what its line brings to the controller. */
  garble: (bytes: Uint8Array) => Uint8Array = (bytes) => bytes;
  /** Its line brings so much at once. */
  pieceBytes = Infinity;
  /** Records it was told by its line. */
  sealed: RoleRecord[] = [];
  private lineSeq = 0;
  private readonly line = new SerialDecoder(SIDE_CONTROLLER, crc32, (bytes, start, end) =>
    this.onLineFrame(bytes.slice(start, end)),
  );
  private decoder: FrameDecoder | undefined;

  constructor(
    readonly world: FakePair,
    readonly index: ServerIndex,
    readonly id: string,
  ) {
    this.identity = index === 0 ? DISK_A : DISK_B;
  }

  get works(): boolean {
    return this.alive && !this.hung;
  }

  heartbeat(counter: number): Heartbeat {
    const world = this.world;
    const own: Heartbeat = {
      counter,
      linkNonce: this.proven ? this.nonce.slice(0, 8) : filled(8, 0),
      serverId: this.id,
      record: this.record,
      identity: this.identity,
      bootNonce: filled(8, 3),
      asked: false,
      joining: false,
      sessionOpen:
        this.record !== undefined &&
        this.record.mode === MODE_BOTH &&
        world.servers.every((one) => one.works && recordsEqual(one.record, this.record)),
      copying: false,
      preset: this.preset,
      peerUp: world.servers.every((one) => one.works),
      braking: false,
      passedTold: false,
      blank: this.record === undefined,
      uptimeMs: world.now - this.startedAt,
      logEnd: 0,
      confirmed: 0,
      lagEntries: 0,
      oldestUnconfirmedMs: 0,
      oldestUncommittedMs: 0,
      loadPermille: 100,
      cpuPermille: 100,
      runQueue: 0,
      loopDelayUs: 0,
      inFlight: 0,
      serviceUs: 50,
      askIdentity: filled(16, 0),
      askIndex: 0,
      wantsSolo: false,
      problem: "",
    };
    return { ...own, ...this.says };
  }

  dial(): void {
    if (!this.works || !this.tcp || this.connection >= 0) return;
    if (!this.world.running) {
      this.redial();
      return;
    }
    this.dials++;
    this.nonce = filled(16, 0);
    this.nonce[0] = this.index + 1;
    this.nonce[1] = this.dials;
    this.nonce[2] = this.world.seedByte;
    this.proven = false;
    this.connection = this.world.connect(this);
    this.decoder = new FrameDecoder(
      (type, _flags, id, bytes, start, end) => this.onFrame(type, id, bytes, start, end),
      PAYLOAD_BYTES_MAX,
      0,
    );
    this.send({
      kind: KIND_HELLO,
      wireMin: this.wireMin,
      wireMax: this.wireMax,
      role: ROLE_SERVER,
      id: this.id,
      nonce: this.nonce,
      frameMax: HEADER_BYTES + PAYLOAD_BYTES_MAX,
      windowBytes: 1 << 20,
    });
  }

  send(message: ControlMessage): void {
    this.sendFrame(FRAME_CONTROL, 0, 0, encodeControl(message));
  }

  sendFrame(type: number, flags: number, id: number, payload: Uint8Array): void {
    const connection = this.connection;
    const frame = frameOf(type, flags, id, payload);
    this.world.later(WIRE_MS, () => this.world.deliver(connection, frame));
  }

  onBytes(bytes: Uint8Array): void {
    if (this.works) this.decoder!.feed(bytes, 0, bytes.length);
  }

  /** Network and peer link are cut, or are there again; the serial cable is not the network. */
  network(on: boolean): void {
    this.udp = on;
    this.tcp = on;
    if (on) this.dial();
  }

  onLine(bytes: Uint8Array): void {
    if (this.wired && this.works) this.line.feed(bytes, 0, bytes.length);
  }

  private onLineFrame(frame: Uint8Array): void {
    const world = this.world;
    const type = frame[0]! & 15;
    if (type === FRAME_SEALED) {
      const nonce = this.heartbeat(0).bootNonce;
      const message = unsealed(hmac, this.key, nonce, this.id, frame, HEADER_BYTES, frame.length);
      if (message === undefined) return;
      const told = decodeControl(message, 0, message.length);
      if (isMalformed(told) || told.kind !== KIND_RECORD) throw new Error("sealed nonsense");
      this.sealed.push(told.record);
      const own = this.record === undefined ? 0 : this.record.epoch;
      if (this.adopts && told.record.epoch > own) this.record = told.record;
      return;
    }
    if (type !== FRAME_DATAGRAM) throw new Error(`a line brings type ${type}`);
    const poll = decodePoll(frame, HEADER_BYTES, frame.length);
    if (isMalformed(poll)) throw new Error(poll.malformed);
    const answer = frameOf(FRAME_DATAGRAM, 0, 0, encodeHeartbeat(this.heartbeat(poll.counter)));
    const bytes = this.garble(
      encodeSerial(FORM_BINARY, SIDE_OTHER, this.lineSeq++, answer, 0, answer.length, crc32),
    );
    for (let from = 0; from < bytes.length; from += this.pieceBytes) {
      const piece = bytes.slice(from, from + this.pieceBytes);
      world.later((from + piece.length) * SERIAL_BYTE_MS, () => {
        if (this.wired) world.hearLine(this.index, piece);
      });
    }
  }

  private onFrame(type: number, id: number, bytes: Uint8Array, start: number, end: number): void {
    if (type === FRAME_EPOCH) {
      this.epochs.push(id);
      return;
    }
    if (type !== FRAME_CONTROL) return;
    const message = decodeControl(bytes, start, end);
    if (isMalformed(message)) throw new Error("the controller sent " + message.malformed);
    this.heard.push(message);
    if (message.kind === KIND_CHALLENGE) this.onChallenge(message.nonce, message.proof);
    if (message.kind === KIND_REFUSE) this.refusals.push(message);
    if (message.kind === KIND_RECORD && this.adopts) {
      const own = this.record === undefined ? 0 : this.record.epoch;
      if (message.record.epoch > own) this.record = message.record;
    }
  }

  private onChallenge(nonceL: Uint8Array, proof: Uint8Array): void {
    const right = acceptorProof(hmac, this.key, ROLE_SERVER, this.id, this.nonce, nonceL);
    if (this.key === KEY && !proofsEqual(right, proof)) throw new Error("the controller's proof");
    this.send({
      kind: KIND_PROOF,
      proof: dialerProof(hmac, this.key, ROLE_SERVER, this.id, this.nonce, nonceL),
    });
    this.proven = true;
    this.send({ kind: KIND_REPORT, heartbeat: this.heartbeat(0) });
    if (this.preset) this.announce();
  }

  announce(): void {
    this.send({ kind: KIND_ANNOUNCE, id: this.id, uptimeMs: this.world.now - this.startedAt });
  }

  onClosed(): void {
    this.connection = -1;
    this.proven = false;
    this.redial();
  }

  redial(): void {
    this.world.later(this.redialMs, () => this.dial());
  }

  onPoll(bytes: Uint8Array): void {
    const world = this.world;
    if (!this.udp || this.hung) return;
    if (!this.alive) {
      world.later(WIRE_MS, () => world.core?.onPollRefused(this.index, world.now));
      return;
    }
    const poll = decodePoll(bytes, 0, bytes.length);
    if (isMalformed(poll)) throw new Error(poll.malformed);
    this.polls++;
    this.answeredAt = world.now;
    this.answeredDisk = this.identity;
    const answer = encodeHeartbeat(this.heartbeat(poll.counter));
    world.later(WIRE_MS + this.slowMs, () => {
      if (this.udp) world.hear(this.index, answer);
    });
  }

  /** kill -9: the kernel closes its sockets. */
  kill(): void {
    this.alive = false;
    this.dropLink();
  }

  /** Power loss: nothing is closed, nothing is refused. */
  powerOff(): void {
    this.alive = false;
    this.udp = false;
  }

  start(): void {
    this.alive = true;
    this.hung = false;
    this.udp = true;
    this.startedAt = this.world.now;
    this.connection = -1;
    this.proven = false;
    this.dial();
  }

  hang(): void {
    this.hung = true;
  }

  wake(): void {
    this.hung = false;
    if (this.connection < 0) this.dial();
  }

  dropLink(): void {
    const connection = this.connection;
    if (connection < 0) return;
    this.connection = -1;
    this.proven = false;
    this.world.closeFromOutside(connection);
    if (this.works) this.redial();
  }

  /** The newest record it has been told. */
  get told(): RoleRecord | undefined {
    const records = this.heard.filter((message) => message.kind === KIND_RECORD);
    const last = records[records.length - 1];
    return last !== undefined && last.kind === KIND_RECORD ? last.record : undefined;
  }

  get passed(): number[] {
    return this.heard.flatMap((message) => (message.kind === KIND_PASSED ? [message.epoch] : []));
  }
}

/** A forward path that forwards nothing. */
export class StubForwarder {
  routes: Route[] = [];
  links = [false, false];
  /** The load it was told of each server. */
  reported: [number, number] = [-1, -1];
  open = 0;
  session = "";
  /** What was called, in order. */
  calls: string[] = [];
  constructor(readonly events: ForwardEvents) {}

  get route(): Route {
    return this.routes[this.routes.length - 1]!;
  }

  surface(): Forwarder {
    return {
      setRoute: (route) => {
        this.routes.push(route);
        this.calls.push(`route ${route.open ? "open" : "closed"} ${route.epoch}`);
      },
      setSession: (id) => {
        this.session = Buffer.from(id).toString("hex");
        this.calls.push("session");
      },
      linkUp: (server) => {
        this.links[server] = true;
        this.calls.push(`up ${server}`);
      },
      linkDown: (server) => {
        this.links[server] = false;
        this.calls.push(`down ${server}`);
      },
      linkDrained: () => {},
      onReply: () => {},
      onReplyEpoch: () => {},
      clientOpen: () => {},
      clientBytes: () => {},
      clientDrained: () => {},
      clientClosed: () => {},
      setReported: (server, loadPermille) => {
        this.reported[server] = loadPermille;
      },
      tick: () => Infinity,
      isIdle: () => true,
      inFlight: () => this.open,
      serviceUs: () => 0,
      openCount: () => this.open,
      counters: () => ({}) as ReturnType<Forwarder["counters"]>,
    };
  }
}

interface Event {
  at: number;
  order: number;
  run: () => void;
}

export interface Note {
  level: string;
  event: string;
  text: string;
}

export class FakePair {
  now = 1000;
  core: ControllerCore | undefined;
  forward!: StubForwarder;
  servers: [FakeServer, FakeServer];
  /** What the flash holds, and what has been asked of it. */
  flash: Uint8Array | undefined;
  damage = "";
  /** The real forward path runs beneath the one that remembers; there are no clients all the same. */
  forwards = false;
  /** Ordinary rounds of polls are carried out as a board's loop does it (firmware/fast-poll.ts). */
  fast = false;
  /** Polls as they went out, and what went out on lines. */
  pollLog: string[] = [];
  /** Rounds that were carried out so, heartbeats that were taken so, and bytes of lines. */
  fastRounds = 0;
  fastHeartbeats = 0;
  fastLineBytes = 0;
  /** Time a write to flash takes; Infinity: it never ends by itself. */
  persistMs = 0.2;
  written: RoleRecord[] = [];
  pendingWrite: Uint8Array | undefined;
  /** Told when a write begins. */
  onPersist: (begun: RoleRecord) => void = () => {};
  /** A line that takes no more bytes. */
  lineFull = [false, false];
  /** Fencing lines: what each output was told, whether it is wired to anything, and whether the input says that the server runs. */
  fenceLog: string[] = [];
  fenceWired = [true, true];
  powered = [true, true];
  /** Time the supply takes to fall. */
  fenceMs = 15;
  notes: Note[] = [];
  resets: string[] = [];
  config: CoreConfig;
  seedByte = 0;
  /** Everything that goes out and every write, in order, to see what comes before what. */
  log: string[] = [];
  private queue: Event[] = [];
  private order = 0;
  private nextConnection = 1;
  private wakeAt = Infinity;
  private owners = new Map<number, FakeServer>();
  private polls: FastPoll | undefined;
  private fastHandlers: ((text: string) => void)[] = [];
  private lineHandlers: ((text: string) => void)[] = [];
  private tickWanted = false;
  /** What comes while the controller's loop does not run. */
  private blocked: (() => void)[] | undefined;
  /** Counts boots, so that what was under way for an earlier one is forgotten. */
  private boot = 0;

  constructor() {
    this.servers = [new FakeServer(this, 0, "a"), new FakeServer(this, 1, "b")];
    this.config = {
      servers: [
        { id: "a", preset: false },
        { id: "b", preset: false },
      ],
      key: KEY,
      clientKey: undefined,
      clientPassword: undefined,
      balancing: "expected-delay",
      frameMax: HEADER_BYTES + PAYLOAD_BYTES_MAX,
      idMax: 1000,
      seed: new Uint8Array(0),
      timings: defaultTimings(),
      limits: defaultLimits(),
    };
  }

  get a(): FakeServer {
    return this.servers[0];
  }
  get b(): FakeServer {
    return this.servers[1];
  }
  get running(): boolean {
    return this.core !== undefined;
  }

  /** Lays serial cables to both servers. */
  withLines(): this {
    for (const server of this.config.servers) server.serial = FORM_BINARY;
    return this;
  }

  /** Lays fencing lines to both servers. */
  withFences(policy: "failover" | "operator", offMs = 2000): this {
    this.config.fencing = { policy, lines: [true, true], offMs, readBackMs: 100 };
    return this;
  }

  private setFence(server: ServerIndex, on: boolean): void {
    this.fenceLog.push(`${this.servers[server].id} ${on ? "on" : "off"}`);
    if (!this.fenceWired[server]) return;
    if (on) {
      this.later(this.fenceMs, () => {
        this.powered[server] = false;
        this.servers[server].powerOff();
      });
    } else if (!this.powered[server]) {
      this.powered[server] = true;
      this.servers[server].start();
    }
  }

  /** Presets one server, at both ends. */
  preset(index: ServerIndex): void {
    this.servers[index].preset = true;
    this.config.servers[index].preset = true;
  }

  later(ms: number, run: () => void): void {
    this.queue.push({ at: this.now + ms, order: this.order++, run });
  }

  bootController(): void {
    const boot = ++this.boot;
    const ports: ControllerPorts = {
      send: (connection, bytes, start, end) => {
        const copy = bytes.slice(start, end);
        const owner = this.owners.get(connection);
        this.log.push(`send ${owner?.id ?? "?"} ${wordOf(copy)}`);
        this.later(WIRE_MS, () => {
          if (owner !== undefined && owner.tcp && owner.connection === connection) {
            owner.onBytes(copy);
          }
        });
      },
      backlog: () => 0,
      close: (connection, reason) => {
        this.log.push(`close ${this.owners.get(connection)?.id ?? "?"} ${reason}`);
        this.later(WIRE_MS, () => {
          const owner = this.owners.get(connection);
          if (this.boot !== boot || owner === undefined) return;
          this.owners.delete(connection);
          this.core?.onClosed(connection, this.now);
          if (owner.connection === connection) owner.onClosed();
        });
      },
      setReading: () => {},
      poll: (server, bytes) => {
        this.sendPoll(server, bytes.slice());
      },
      serial: (server, bytes) => this.writeLine(server, bytes.slice()),
      crc32,
      fence: (server, on) => this.setFence(server, on),
      powered: (server) => this.powered[server]!,
      persist: (bytes) => {
        const copy = bytes.slice();
        if (this.pendingWrite !== undefined) throw new Error("two writes at once");
        this.pendingWrite = copy;
        this.onPersist(decode(copy)!);
        this.log.push(`persist ${formatRecord(decode(copy))}`);
        if (this.persistMs !== Infinity) this.later(this.persistMs, () => this.endWrite(boot));
      },
      hmac,
      note: (level, event, details) => {
        const text = (details as { text?: string } | undefined)?.text ?? "";
        this.notes.push({ level, event, text });
      },
      reset: (reason) => {
        this.resets.push(reason);
      },
    };
    this.core = createController(this.config, ports, (config, itsPorts, events) => {
      this.forward = new StubForwarder(events);
      const stub = this.forward.surface();
      if (!this.forwards) return stub;
      const real = createForwarder(config, itsPorts, events);
      return {
        ...real,
        setRoute: (route, now) => {
          stub.setRoute(route, now);
          real.setRoute(route, now);
        },
        linkUp: (server, connection, frameMax, windowBytes, now) => {
          stub.linkUp(server, connection, frameMax, windowBytes, now);
          real.linkUp(server, connection, frameMax, windowBytes, now);
        },
        linkDown: (server, now) => {
          stub.linkDown(server, now);
          real.linkDown(server, now);
        },
      };
    });
    this.pendingWrite = undefined;
    if (this.fast) this.openFast(this.core);
    this.core.start({ record: this.flash, damage: this.damage }, this.now);
    this.wakeAt = this.now;
    this.tick();
  }

  private sendPoll(server: ServerIndex, bytes: Uint8Array): void {
    this.pollLog.push(
      `${this.now.toFixed(3)} ${this.servers[server].id} ${Buffer.from(bytes).toString("hex")}`,
    );
    this.later(WIRE_MS, () => this.servers[server].onPoll(bytes));
  }

  private writeLine(server: ServerIndex, bytes: Uint8Array): boolean {
    this.pollLog.push(
      `${this.now.toFixed(3)} line of ${this.servers[server].id} ${Buffer.from(bytes).toString("hex")}`,
    );
    if (this.lineFull[server]) return false;
    this.later(bytes.length * SERIAL_BYTE_MS, () => this.servers[server].onLine(bytes));
    return true;
  }

  /** As a board's loop does it: a tick follows whatever reaches the core, and nothing else does. */
  private openFast(core: ControllerCore): void {
    const polls = createFastPoll({
      toText: (bytes) => Buffer.from(bytes).toString("latin1"),
      toBuffer: (text) => new Uint8Array(Buffer.from(text, "latin1")).buffer,
      crc32: (data) => zlibCrc32(typeof data === "string" ? Buffer.from(data, "latin1") : data),
      now: () => this.now,
    });
    this.polls = polls;
    polls.serve(core.rounds, (delayMs) => {
      this.wakeAt = this.now + delayMs;
    });
    this.fastHandlers = this.servers.map(({ index }) =>
      polls.server(index, {
        socket: {
          send: (text) => this.sendPoll(index, new Uint8Array(Buffer.from(text, "latin1"))),
        },
        host: "",
        port: 0,
        ordinary: (text) => {
          this.fastHeartbeats--;
          this.core?.onHeartbeat(index, new Uint8Array(Buffer.from(text, "latin1")), this.now);
        },
      }),
    );
    this.lineHandlers = this.servers.map(({ index }) =>
      polls.line(index, {
        write: (text) => this.writeLine(index, new Uint8Array(Buffer.from(text, "latin1"))),
        ordinary: (text) => {
          const bytes = new Uint8Array(Buffer.from(text, "latin1"));
          this.fastLineBytes -= bytes.length;
          this.core?.onSerial(index, bytes, 0, bytes.length, this.now);
        },
      }),
    );
    this.core = new Proxy(core, {
      get: (target, name: keyof ControllerCore) => {
        const value = target[name];
        if (typeof value !== "function" || name === "tick" || name === "status") return value;
        return (...args: unknown[]) => {
          const result = (value as (...all: unknown[]) => unknown)(...args);
          const mayMeanNothing = name === "onBytes" || name === "onSerial";
          if (!mayMeanNothing || core.wantsTick()) this.tickWanted = true;
          return result;
        };
      },
    });
  }

  /** A server's answer to a poll has come. */
  hear(server: ServerIndex, answer: Uint8Array): void {
    if (this.core === undefined) return;
    if (this.blocked !== undefined) {
      this.blocked.push(() => this.hear(server, answer));
    } else if (this.polls !== undefined) {
      this.fastHeartbeats++;
      this.fastHandlers[server]!(Buffer.from(answer).toString("latin1"));
    } else this.core.onHeartbeat(server, answer, this.now);
  }

  /** A server's line has brought this. */
  hearLine(server: ServerIndex, bytes: Uint8Array): void {
    if (this.core === undefined) return;
    if (this.blocked !== undefined) {
      this.blocked.push(() => this.hearLine(server, bytes));
    } else if (this.polls !== undefined && this.config.servers[server].serial !== undefined) {
      this.fastLineBytes += bytes.length;
      this.lineHandlers[server]!(Buffer.from(bytes).toString("latin1"));
    } else this.core.onSerial(server, bytes, 0, bytes.length, this.now);
  }

  /** Ends the write under way; the record is in flash, and the controller hears of it. */
  endWrite(boot = this.boot): void {
    if (boot !== this.boot || this.pendingWrite === undefined) return;
    this.flash = this.pendingWrite;
    this.pendingWrite = undefined;
    this.written.push(decode(this.flash)!);
    this.core?.onPersisted(this.now);
    this.tick();
  }

  /** The controller stops in mid-air; its links break. */
  crashController(): void {
    this.boot++;
    this.core = undefined;
    this.polls = undefined;
    this.pendingWrite = undefined;
    this.wakeAt = Infinity;
    const lost = [...this.owners.values()];
    this.owners.clear();
    for (const server of lost) {
      if (server.works) server.onClosed();
      else server.connection = -1;
    }
  }

  connect(server: FakeServer): number {
    const connection = this.nextConnection++;
    this.owners.set(connection, server);
    this.core?.onOpen(connection, "server", this.now);
    return connection;
  }

  deliver(connection: number, bytes: Uint8Array): void {
    const owner = this.owners.get(connection);
    if (owner === undefined || !owner.tcp) return;
    this.core?.onBytes(connection, bytes, 0, bytes.length, this.now);
  }

  closeFromOutside(connection: number): void {
    this.later(WIRE_MS, () => {
      if (!this.owners.delete(connection)) return;
      this.core?.onClosed(connection, this.now);
    });
  }

  private tick(): void {
    if (this.core === undefined) return;
    this.tickWanted = false;
    this.wakeAt = this.core.tick(this.now);
    this.polls?.ticked();
  }

  /** A turn of the loop: the timer has come, or an event was one. */
  private turn(isTimer: boolean): void {
    if (this.polls === undefined || this.tickWanted) this.tick();
    else if (isTimer) {
      if (this.polls.round()) this.fastRounds++;
      else this.tick();
    }
  }

  /** Lets time pass. Each event is a turn of the controller's loop. */
  run(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      this.queue.sort((x, y) => x.at - y.at || x.order - y.order);
      const next = this.queue[0];
      const at = Math.min(next?.at ?? Infinity, this.wakeAt);
      if (at > end) break;
      if (at > this.now) this.now = at;
      const isEvent = next !== undefined && next.at <= this.wakeAt;
      if (isEvent) {
        this.queue.shift();
        next.run();
      }
      this.turn(!isEvent);
    }
    this.now = end;
  }

  /** The controller's loop does not run: everything waits, then comes in one late turn. */
  blockController(ms: number): void {
    const end = this.now + ms;
    const core = this.core!;
    const waiting: (() => void)[] = [];
    this.blocked = waiting;
    this.core = new Proxy(core, {
      get: (target, name: keyof ControllerCore) => {
        return (...args: unknown[]) => {
          const last = args.length - 1;
          waiting.push(() => {
            args[last] = this.now;
            (target[name] as (...all: unknown[]) => unknown)(...args);
          });
          return end;
        };
      },
    });
    this.wakeAt = Infinity;
    for (;;) {
      this.queue.sort((x, y) => x.at - y.at || x.order - y.order);
      const next = this.queue[0];
      if (next === undefined || next.at > end) break;
      this.queue.shift();
      if (next.at > this.now) this.now = next.at;
      next.run();
    }
    this.now = end;
    this.core = core;
    this.blocked = undefined;
    // Timers come first in a turn of the loop, then what lies in the sockets.
    this.turn(true);
    for (const one of waiting) one();
    this.turn(true);
  }

  until(what: () => boolean, ms = 5000): number {
    const from = this.now;
    while (!what()) {
      if (this.now - from > ms) throw new Error("it never came: " + what.toString());
      this.run(1);
    }
    return this.now - from;
  }

  get status(): {
    epoch: number;
    primary: string | null;
    mode: string | null;
    state: string;
    why: string;
    waitsFor: string;
    alarm: string;
    fresh: boolean;
    servers: {
      id: string;
      role: string;
      up: boolean;
      inSync: boolean;
      loadPermille: number;
      paths: string;
    }[];
    controller: { serial: ({ up: boolean } & Record<string, number | string>)[] };
  } {
    return this.core!.status(this.now) as never;
  }

  /** `both(a) 5 both`: record and state. */
  get roles(): string {
    const s = this.status;
    return s.primary === null ? `none ${s.state}` : `${s.mode}(${s.primary}) ${s.epoch} ${s.state}`;
  }

  /** A pair that has been running under both(a), epoch 5, with the controller up. */
  static serving(
    primary: ServerIndex = 0,
    mode: "both" | "solo" = "both",
    forwards = false,
  ): FakePair {
    return FakePair.started(FakePair.intact(record(5, primary, mode)), forwards);
  }

  /** The same with a serial cable to each server. */
  static wired(primary: ServerIndex = 0, mode: "both" | "solo" = "both"): FakePair {
    return FakePair.started(FakePair.intact(record(5, primary, mode)).withLines(), false);
  }

  /** The same with a fencing line to each server. */
  static fenced(policy: "failover" | "operator", mode: "both" | "solo" = "both"): FakePair {
    const pair = FakePair.intact(record(5, 0, mode)).withFences(policy);
    const started = FakePair.started(pair, false);
    started.fenceLog = [];
    return started;
  }

  private static started(pair: FakePair, forwards: boolean): FakePair {
    pair.forwards = forwards;
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(100);
    return pair;
  }

  /** All three hold this record; nothing is running yet. */
  static intact(held: RoleRecord): FakePair {
    const pair = new FakePair();
    pair.flash = encode(held);
    for (const server of pair.servers) {
      server.record = held;
      server.alive = false;
    }
    return pair;
  }
}

function decode(bytes: Uint8Array): RoleRecord | undefined {
  const found = decodeRecord(bytes, 0, bytes.length);
  if (isMalformed(found)) throw new Error(found.malformed);
  return found;
}

export function encode(held: RoleRecord): Uint8Array {
  const payload = encodeControl({ kind: KIND_RECORD, record: held, fresh: false, forced: false });
  return payload.slice(1, 49);
}

/** A frame of the controller in one word. */
function wordOf(bytes: Uint8Array): string {
  const type = bytes[0]! & 15;
  if (type === FRAME_EPOCH) return `epoch ${(bytes[6]! << 8) | bytes[7]!}`;
  if (type !== FRAME_CONTROL) return `frame ${type}`;
  const message = decodeControl(bytes, HEADER_BYTES, bytes.length);
  if (isMalformed(message)) return "malformed";
  if (message.kind === KIND_RECORD) return `record ${formatRecord(message.record)}`;
  if (message.kind === KIND_PASSED) return `passed ${message.epoch}`;
  if (message.kind === KIND_REFUSE) return `refuse ${message.code}`;
  return `control ${message.kind}`;
}
