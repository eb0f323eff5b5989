/**
 * Clients for `npm run chaos`: plain sockets that mix every kind of command the checkers of the simulator judge, in pipelines, through the
 * controller and at the servers' own ports. What they saw goes into histories, one for each short stretch of time with keys of its own, so that
 * a history is judged whole and soon.
 */
import { History } from "../sim/history.js";
import type { Operation, OperationKind } from "../sim/history.js";
import type { Random } from "../sim/world/random.js";
import { nowMs, sleep } from "./processes.js";
import { ReplyError, RespClient } from "./resp-client.js";
import type { Reply } from "./resp-client.js";

/** A history is closed after so much time. */
const STRETCH_MS = 2000;
const KEYS_OF_A_KIND = 3;
/** A client that hears nothing for so long opens a new connection, as client libraries do. */
const GIVE_UP_MS = 4000;
const OPEN_MAX = 32;
const BURST_MAX = 4;
/** Errors that promise that nothing was done, and the one that does not know. */
const SURELY_NOT = /^(CLUSTERDOWN|BUSY) /;
const NOT_KNOWN = /^OUTCOMEUNKNOWN /;

export interface Door {
  via: Operation["via"];
  host: string;
  port: number;
}

export interface Stretch {
  history: History;
  keys: string[];
}

/** Everything clients were told since it was last taken. */
export class Book {
  /** Error replies by text. */
  readonly errors = new Map<string, number>();
  /** Replies that no client should ever hear. */
  readonly strange: string[] = [];
  connections = 0;
  private stretches: Stretch[] = [];
  private openedMs = -Infinity;
  private serial = 0;
  private values = 0;

  current(): Stretch {
    const now = nowMs();
    const last = this.stretches[this.stretches.length - 1];
    if (last !== undefined && now - this.openedMs < STRETCH_MS) return last;
    this.openedMs = now;
    this.serial++;
    const keys: string[] = [];
    for (const kind of "rclm") {
      for (let i = 0; i < KEYS_OF_A_KIND; i++) keys.push(`${kind}${this.serial}.${i}`);
    }
    const stretch = { history: new History(), keys };
    this.stretches.push(stretch);
    return stretch;
  }

  /** Six characters, as the checker of appends wants them, unique in the run. */
  value(): string {
    return "v" + (this.values++).toString(36).padStart(5, "0");
  }

  take(): Stretch[] {
    const taken = this.stretches;
    this.stretches = [];
    this.openedMs = -Infinity;
    return taken;
  }

  /** Puts a reply down. */
  answered(history: History, operation: Operation, reply: Reply): void {
    if (!(reply instanceof ReplyError)) {
      history.succeed(operation, resultOf(operation.kind, reply), nowMs());
      return;
    }
    const { text } = reply;
    this.errors.set(text, (this.errors.get(text) ?? 0) + 1);
    if (NOT_KNOWN.test(text)) history.loseTrack(operation);
    else if (SURELY_NOT.test(text)) history.fail(operation, nowMs());
    else {
      history.loseTrack(operation);
      this.strange.push(`${operation.kind} ${operation.key}: -${text}`);
    }
  }
}

function resultOf(kind: OperationKind, reply: Reply): string | undefined {
  if (kind === "set" || reply === null) return undefined;
  return String(reply);
}

interface Choice {
  kind: OperationKind;
  ttlMs: number;
}

function choose(key: string, random: Random): Choice {
  const roll = random.float();
  const reads = roll < 0.5;
  switch (key[0]) {
    case "r":
      return { kind: reads ? "get" : roll < 0.9 ? "set" : "getset", ttlMs: 0 };
    case "c":
      return { kind: reads ? "get" : "incr", ttlMs: 0 };
    case "l":
      return { kind: reads ? (roll < 0.4 ? "get" : "strlen") : "append", ttlMs: 0 };
    default:
      if (reads) return { kind: "get", ttlMs: 0 };
      if (roll < 0.65) return { kind: "setnx", ttlMs: 0 };
      if (roll < 0.75) return { kind: "del", ttlMs: 0 };
      return { kind: "set", ttlMs: roll < 0.85 ? 20 + random.below(300) : 0 };
  }
}

function words(
  kind: OperationKind,
  key: string,
  value: string,
  ttlMs: number,
): (string | number)[] {
  const name = kind.toUpperCase();
  if (value === "") return [name, key];
  return ttlMs > 0 ? [name, key, value, "PX", ttlMs] : [name, key, value];
}

/** One connection after the other to one door, until it is told to stop. */
export class ChaosClient {
  private client: RespClient | undefined;
  private readonly pending = new Map<Operation, History>();
  private session = 0;
  private heardMs = 0;
  private paused = false;
  private stopped = false;

  constructor(
    private readonly door: Door,
    private readonly book: Book,
    private readonly random: Random,
    /** Longest time between two bursts. */
    private readonly pauseMsMax: number,
  ) {}

  async run(): Promise<void> {
    while (!this.stopped) {
      if (this.client === undefined) await this.connect();
      else if (this.pending.size > 0 && nowMs() - this.heardMs > GIVE_UP_MS) this.drop();
      else if (!this.paused && this.pending.size <= OPEN_MAX - BURST_MAX) this.burst();
      await sleep(1 + this.random.below(this.pauseMsMax));
    }
    this.drop();
  }

  /** Sends nothing more. @returns once everything is answered or given up */
  async pause(): Promise<void> {
    this.paused = true;
    while (this.pending.size > 0 && !this.stopped) await sleep(5);
  }

  resume(): void {
    this.paused = false;
  }

  stop(): void {
    this.stopped = true;
  }

  private async connect(): Promise<void> {
    try {
      this.client = await RespClient.open(this.door.port, 1000, this.door.host);
    } catch {
      await sleep(50);
      return;
    }
    this.session = ++this.book.connections;
    this.client.onClose = () => this.drop();
  }

  private drop(): void {
    this.client?.close();
    this.client = undefined;
    // Whether these were done nobody will say any more.
    for (const [operation, history] of this.pending) history.loseTrack(operation);
    this.pending.clear();
  }

  private burst(): void {
    const { history, keys } = this.book.current();
    const count = 1 + this.random.below(BURST_MAX);
    for (let i = 0; i < count; i++) {
      const key = keys[this.random.below(keys.length)]!;
      const { kind, ttlMs } = choose(key, this.random);
      const carries = kind === "set" || kind === "getset" || kind === "setnx" || kind === "append";
      const value = carries ? this.book.value() : "";
      const operation = history.invoke(
        this.session,
        kind,
        key,
        value,
        this.door.via,
        nowMs(),
        ttlMs,
      );
      if (this.pending.size === 0) this.heardMs = nowMs();
      this.pending.set(operation, history);
      this.client!.send(words(kind, key, value, ttlMs), (reply) => {
        // After a drop it is lost track of already.
        if (!this.pending.delete(operation)) return;
        this.heardMs = nowMs();
        this.book.answered(history, operation, reply);
      });
    }
  }
}

/** Reads each key once more at a door. @throws when the door does not answer */
export async function readAll(
  door: Door,
  stretch: Stretch,
  book: Book,
): Promise<Map<string, Operation>> {
  const client = await RespClient.open(door.port, 3000, door.host);
  const session = ++book.connections;
  const out = new Map<string, Operation>();
  for (const key of stretch.keys) {
    const operation = stretch.history.invoke(session, "get", key, "", door.via, nowMs());
    const reply = await client.call(["GET", key]);
    book.answered(stretch.history, operation, reply);
    if (reply instanceof ReplyError) throw new Error(`GET ${key} at ${door.via}: ${reply.text}`);
    out.set(key, operation);
  }
  client.close();
  return out;
}
