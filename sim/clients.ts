/**
 * Plain Redis clients, and the tap on their sockets: what they send and are told goes into the history.
 *
 * All live on one machine that never fails. A client knows the controller's Redis port, or the local port
 * of one server; it reconnects when it is cut off, and what had no answer then has an unknown outcome.
 */
import { drawHashCommand, wholeHash } from "./hash-commands.js";
import { isWrite } from "./history.js";
import type { History, Operation, OperationKind } from "./history.js";
import { encodeCommand, ReplyReader } from "./resp-tap.js";
import type { Reply } from "./resp-tap.js";
import type { Machine, Program } from "./world/machine.js";
import type { End, Network } from "./world/network.js";
import type { Random } from "./world/random.js";

/** A reply a client waits for: replies come in the order of commands. */
interface Expected {
  operation: Operation | undefined;
  /** Judges a reply that is no operation of the history. @returns what is wrong with it. */
  judge: ((reply: Reply) => string | undefined) | undefined;
}

/** How a client behaves; drawn from the seed. */
export interface ClientStyle {
  via: "controller" | "a" | "b";
  /** Commands sent together before it waits for their replies. */
  batchMax: number;
  /** Open loop: sends at its pace, whether or not replies come. */
  open: boolean;
  /** Mean time between batches. @unit ms */
  pauseMs: number;
  /** Share of operations that only read. */
  readShare: number;
  /** Mean time after which it closes and connects again; 0: never. @unit ms */
  churnMs: number;
  /** Share of batches that are a MULTI over the pair keys. */
  pairShare: number;
  keys: readonly string[];
  /** It never eases off: whoever probes whether the pair serves. */
  steady?: boolean;
}

/** A reply that takes longer makes the client give up and connect again. */
export const CLIENT_PATIENCE_MS = 6000;
/** Commands an open-loop client leaves unanswered before it holds back. */
const OPEN_MAX = 40;

/** What is being sent; a batch is far smaller. */
const OUT = Buffer.alloc(65536);

/** Errors that promise that nothing was done. */
const SURELY_NOT = /^(CLUSTERDOWN|EXECABORT|BUSY|TRYAGAIN|LOADING|READONLY|NOAUTH)\b/;

/** Whoever has a connection on the clients' machine. */
export interface Connected {
  onOpen(): void;
  onBytes(bytes: Uint8Array, start: number, end: number): void;
  onClosed(): void;
}

/** The program of the clients' machine: hands events to the client whose connection it is. */
export class ClientsProgram implements Program {
  private readonly byHandle = new Map<number, Connected>();

  bind(handle: number, client: Connected): void {
    this.byHandle.set(handle, client);
  }

  unbind(handle: number): void {
    this.byHandle.delete(handle);
  }

  onOpen(handle: number): void {
    this.byHandle.get(handle)?.onOpen();
  }

  onDialFailed(): void {}

  onBytes(handle: number, bytes: Uint8Array, start: number, end: number): void {
    this.byHandle.get(handle)?.onBytes(bytes, start, end);
  }

  onDrained(): void {}

  onClosed(handle: number): void {
    const client = this.byHandle.get(handle);
    this.byHandle.delete(handle);
    client?.onClosed();
  }

  onDatagram(): void {}
  onDatagramRefused(): void {}

  endTurn(): number {
    return Infinity;
  }

  onGone(): void {}
}

export interface ClientWorld {
  machine: Machine;
  network: Network;
  history: History;
  /** Where a client finds its port. */
  target(via: ClientStyle["via"]): Machine;
  /** Session numbers: one for each connection. */
  nextSession(): number;
  /** Unique in the run. */
  nextValue(): string;
  /** The key that is appended to now; it changes when it has grown long. */
  appendKey(): string;
  /** The key that goes by this name now; after a loss that was accepted it is another. */
  current(name: string): string;
  /** How many times slower than their style clients go about it now. */
  pace(): number;
  /** A server's own port has answered a command. */
  localReply(via: "a" | "b", reads: boolean, ok: boolean): void;
  appended(): void;
  /** Values with a time to live have one of up to so long. @unit ms */
  readonly ttlMaxMs: number;
  /** Something that can be judged at once. */
  anomaly(promise: string, what: string): void;
}

export class Client {
  running = true;
  /** Replies of any kind since the last reset, for the liveness phase. */
  lastSuccessAt = -1;
  connected = false;
  /** It sends nothing before then. @unit ms */
  silentUntil = 0;
  private end: End | undefined;
  private dialing = false;
  private session = 0;
  private expected: Expected[] = [];
  private reader = new ReplyReader();
  private readonly random: Random;
  private sinceProgress = 0;

  constructor(
    private readonly world: ClientWorld,
    readonly name: string,
    readonly style: ClientStyle,
    random: Random,
  ) {
    this.random = random;
    this.connect();
    this.nextBatch();
    if (style.churnMs > 0) this.nextChurn();
  }

  get waiting(): number {
    return this.expected.length;
  }

  private get now(): number {
    return this.world.machine.world.now;
  }

  private after(delayMs: number, action: () => void): void {
    this.world.machine.world.after(delayMs, action);
  }

  private connect(): void {
    if (this.dialing || this.end !== undefined || !this.running) return;
    this.dialing = true;
    const style = this.style;
    this.world.network.dial(
      this.world.machine,
      this.world.target(style.via),
      style.via === "controller" ? "redis" : "local",
      {
        made: (end) => {
          this.dialing = false;
          this.end = end;
          (this.world.machine.program as ClientsProgram).bind(end.handle, this);
        },
        failed: () => {
          this.dialing = false;
          this.after(this.random.between(20, 120), () => this.connect());
        },
      },
    );
  }

  onOpen(): void {
    this.connected = true;
    this.session = this.world.nextSession();
    this.reader = new ReplyReader();
    this.sinceProgress = this.now;
  }

  onClosed(): void {
    this.end = undefined;
    this.connected = false;
    const lost = this.expected;
    this.expected = [];
    for (const { operation } of lost)
      if (operation !== undefined) this.world.history.loseTrack(operation);
    this.after(this.random.between(1, 60), () => this.connect());
  }

  /** Gives up this connection; what was not answered has an unknown outcome. */
  hangUp(abort: boolean): void {
    if (this.end === undefined || !this.connected) return;
    this.connected = false;
    const lost = this.expected;
    this.expected = [];
    for (const { operation } of lost)
      if (operation !== undefined) this.world.history.loseTrack(operation);
    this.end.close(abort);
  }

  onBytes(bytes: Uint8Array, start: number, end: number): void {
    if (!this.connected) return;
    this.reader.push(bytes, start, end);
    try {
      for (let reply = this.reader.next(); reply !== undefined; reply = this.reader.next()) {
        const expected = this.expected.shift();
        if (expected === undefined) {
          this.world.anomaly(
            "order",
            `${this.name} got a reply to nothing: ${JSON.stringify(reply)}`,
          );
          return;
        }
        this.sinceProgress = this.now;
        this.settle(expected, reply);
      }
    } catch (error) {
      this.world.anomaly("order", `${this.name} got bytes that are no reply: ${String(error)}`);
    }
  }

  private settle(expected: Expected, reply: Reply): void {
    const { operation, judge } = expected;
    if (operation === undefined) {
      const wrong = judge?.(reply);
      if (wrong !== undefined)
        this.world.anomaly("order", `${this.name}: ${wrong}: ${JSON.stringify(reply)}`);
      return;
    }
    const history = this.world.history;
    const error =
      reply.type === "array" ? firstError(reply) : reply.type === "error" ? reply.text : undefined;
    const { via } = this.style;
    if (via !== "controller") this.world.localReply(via, !isWrite(operation), error === undefined);
    if (error !== undefined) {
      if (error.startsWith("OUTCOMEUNKNOWN")) {
        history.loseTrack(operation);
      } else if (SURELY_NOT.test(error) || this.style.via !== "controller") {
        history.fail(operation, this.now);
      } else {
        this.world.anomaly(
          "replies",
          `${this.name}: ${operation.kind} ${operation.key} was answered -${error}`,
        );
      }
      return;
    }
    const result = resultOf(operation.kind, reply);
    if ("wrong" in result) {
      this.world.anomaly(
        "order",
        `${this.name}: ${operation.kind} ${operation.key} was answered ${JSON.stringify(reply)}: ${result.wrong}`,
      );
      return;
    }
    history.succeed(operation, result.value, this.now);
    const { trace } = this.world.machine.world;
    if (trace.readable) {
      const words = `${this.name}: ${operation.kind} ${operation.key} -> ${(result.value ?? "ok").slice(-12)}`;
      trace.picture.message(this.now, this.style.via, "clients", this.now, words);
    }
    this.lastSuccessAt = this.now;
  }

  private nextBatch(): void {
    const pauseMs = this.style.pauseMs * (this.style.steady ? 1 : this.world.pace());
    this.after(this.random.exponential(pauseMs) + 0.05, this.step);
  }

  private readonly step = (): void => {
    if (!this.running) return;
    if (
      this.connected &&
      this.expected.length > 0 &&
      this.now - this.sinceProgress > CLIENT_PATIENCE_MS
    ) {
      this.hangUp(true);
    }
    if (
      this.connected &&
      this.now >= this.silentUntil &&
      (this.expected.length === 0 || (this.style.open && this.expected.length < OPEN_MAX))
    ) {
      this.sendBatch();
    }
    this.nextBatch();
  };

  private nextChurn(): void {
    this.after(this.random.exponential(this.style.churnMs) + 20, () => {
      if (!this.running) return;
      this.hangUp(this.random.chance(0.5));
      this.nextChurn();
    });
  }

  private sendBatch(): void {
    const random = this.random;
    if (this.expected.length === 0) this.sinceProgress = this.now;
    const style = this.style;
    const count = 1 + random.below(style.batchMax);
    let text = "";
    // A pipeline is most telling when its commands are about one key.
    const focus = random.chance(0.6) ? random.pick(style.keys) : undefined;
    for (let i = 0; i < count; i++) {
      if (style.pairShare > 0 && random.chance(style.pairShare)) text += this.pairCommand();
      else text += this.keyCommand(focus ?? random.pick(style.keys));
      if (random.chance(0.04)) text += this.echo();
    }
    this.write(text);
  }

  private write(text: string): void {
    this.end!.write(OUT, 0, OUT.write(text, "latin1"));
    const { trace } = this.world.machine.world;
    if (trace.readable) {
      const to = this.style.via;
      const words = text.replace(/[*$]\d+\r\n/g, "").replace(/\r\n/g, " ");
      trace.picture.message(this.now, "clients", to, this.now, `${this.name}: ${words}`);
    }
    // The client's own turn ends here.
    this.end!.flush();
    this.world.machine.dirtyCount = 0;
  }

  private invoke(kind: OperationKind, key: string, value: string, ttlMs = 0): Operation {
    const operation = this.world.history.invoke(
      this.session,
      kind,
      key,
      value,
      this.style.via,
      this.now,
      ttlMs,
    );
    this.expected.push({ operation, judge: undefined });
    return operation;
  }

  private echo(): string {
    const text = `e${this.random.u32()}`;
    this.expected.push({
      operation: undefined,
      judge: (reply) =>
        (reply.type === "bulk" && reply.text === text) || reply.type === "error"
          ? undefined
          : `ECHO ${text} was answered`,
    });
    return encodeCommand(["ECHO", text]);
  }

  private keyCommand(name: string): string {
    const random = this.random;
    const key = name === "l" ? this.world.appendKey() : this.world.current(name);
    const reads = random.chance(this.style.readShare);
    switch (key[0]) {
      case "c":
        if (reads) break;
        this.invoke("incr", key, "+1");
        return encodeCommand(["INCR", key]);
      case "l": {
        if (reads) {
          if (random.chance(0.5)) break;
          this.invoke("strlen", key, "");
          return encodeCommand(["STRLEN", key]);
        }
        const token = this.world.nextValue();
        this.world.appended();
        this.invoke("append", key, token);
        return encodeCommand(["APPEND", key, token]);
      }
      case "r": {
        if (reads) break;
        const value = this.world.nextValue();
        if (random.chance(0.25)) {
          this.invoke("getset", key, value);
          return random.chance(0.5)
            ? encodeCommand(["GETSET", key, value])
            : encodeCommand(["SET", key, value, "GET"]);
        }
        this.invoke("set", key, value);
        return encodeCommand(["SET", key, value]);
      }
      case "h": {
        const command = drawHashCommand(key, reads, random, () => this.world.nextValue());
        this.invoke(command.kind, key, command.value);
        return encodeCommand(command.words);
      }
      default: {
        if (reads) break;
        const value = this.world.nextValue();
        if (random.chance(0.25)) {
          const ttlMs = Math.floor(random.spread(15, this.world.ttlMaxMs));
          this.invoke("set", key, value, ttlMs);
          return encodeCommand(["SET", key, value, "PX", String(ttlMs)]);
        }
        const kind = random.pick(["set", "set", "setnx", "del", "getset"] as const);
        this.invoke(kind, key, kind === "del" ? "" : value);
        if (kind === "del") return encodeCommand(["DEL", key]);
        if (kind === "setnx") return encodeCommand(["SETNX", key, value]);
        if (kind === "getset") return encodeCommand(["GETSET", key, value]);
        return encodeCommand(["SET", key, value]);
      }
    }
    this.invoke("get", key, "");
    return encodeCommand(["GET", key]);
  }

  /** Two keys that are only ever set together: one register, and torn when they differ. */
  private pairCommand(): string {
    const p = this.world.current("p");
    const [p1, p2] = [`p1${p.slice(1)}`, `p2${p.slice(1)}`];
    if (this.random.chance(this.style.readShare)) {
      this.invoke("get", p, "");
      return encodeCommand(["MGET", p1, p2]);
    }
    const value = this.world.nextValue();
    if (this.random.chance(0.5)) {
      this.invoke("set", p, value);
      return encodeCommand(["MSET", p1, value, p2, value]);
    }
    // OK, QUEUED and QUEUED are answered at once or with an error; EXEC decides.
    const judge = (reply: Reply): string | undefined =>
      reply.type === "simple" || reply.type === "error" ? undefined : "MULTI was answered";
    for (let i = 0; i < 3; i++) this.expected.push({ operation: undefined, judge });
    this.invoke("set", p, value);
    return (
      encodeCommand(["MULTI"]) +
      encodeCommand(["SET", p1, value]) +
      encodeCommand(["SET", p2, value]) +
      encodeCommand(["EXEC"])
    );
  }

  /** One read, for the verifier. */
  readKey(key: string): Operation | undefined {
    if (!this.connected || this.end === undefined) return undefined;
    const operation = this.invoke(key[0] === "h" ? "hgetall" : "get", key, "");
    const words =
      key[0] === "p"
        ? ["MGET", `p1${key.slice(1)}`, `p2${key.slice(1)}`]
        : key[0] === "h"
          ? ["HGETALL", key]
          : ["GET", key];
    this.write(encodeCommand(words));
    return operation;
  }
}

function firstError(reply: { items: Reply[] | undefined }): string | undefined {
  for (const item of reply.items ?? []) if (item.type === "error") return item.text;
  return undefined;
}

type Result = { value: string | undefined } | { wrong: string };

function resultOf(kind: OperationKind, reply: Reply): Result {
  switch (kind) {
    case "get":
      if (reply.type === "bulk") return { value: reply.text };
      if (reply.type === "array" && reply.items?.length === 2) {
        const [x, y] = reply.items;
        if (x!.type !== "bulk" || y!.type !== "bulk") return { wrong: "MGET gives bulk strings" };
        if (x!.text !== y!.text) return { wrong: "two keys that are only set together differ" };
        return { value: x!.text };
      }
      return { wrong: "a read gives a bulk string" };
    case "getset":
    case "hget":
      return reply.type === "bulk" ? { value: reply.text } : { wrong: "a bulk string is due" };
    case "hgetall": {
      const parts: string[] = [];
      for (const item of (reply.type === "array" ? reply.items : undefined) ?? [])
        if (item.type === "bulk" && item.text !== undefined) parts.push(item.text);
      const value = wholeHash(parts);
      if (reply.type !== "array" || parts.length !== reply.items?.length)
        return { wrong: "HGETALL gives bulk strings" };
      return value === undefined ? { wrong: "a field is there twice" } : { value };
    }
    case "set":
      if (reply.type === "simple" && reply.text === "OK") return { value: undefined };
      if (reply.type === "integer") return { value: undefined };
      // EXEC of the pair
      if (reply.type === "array" && reply.items?.length === 2) return { value: undefined };
      return { wrong: "SET gives OK" };
    case "incr":
    case "append":
    case "setnx":
    case "del":
    case "strlen":
    case "hset":
    case "hdel":
    case "hincrby":
    case "hlen":
    case "expire":
      return reply.type === "integer"
        ? { value: String(reply.value) }
        : { wrong: "an integer is due" };
  }
}
