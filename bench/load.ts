/**
 * Open-loop load, and the book of what was promised: every acknowledged write, every read with what it
 * had to see. Commands are sent at their time whatever the replies do, so a pause shows in full.
 *
 * Half the writes set a key of their own (a lost one stays lost); the other half count up a register that
 * only one connection writes (a stale read shows as a smaller number).
 */
import { nowMs, sleep } from "./processes.js";
import type { Reply } from "./resp-client.js";
import { ReplyError, RespClient } from "./resp-client.js";

const TICK_MS = 2;
const RECONNECT_WAIT_MS = 20;
const RECENT = 64;
const VERIFY_BATCH = 200;

/** The keys of a data set that is loaded once. */
export const keyAtRest = (i: number): string => `key:${String(i).padStart(8, "0")}`;

export interface LoadOptions {
  port: number;
  host?: string;
  /** Keys of this load begin with it; two loads on one pair need two names. */
  name: string;
  connections?: number;
  writesPerSecond?: number;
  readConnections?: number;
  readsPerSecond?: number;
  valueBytes?: number;
  /** Open a connection again when it closes. Without it a closed connection stays closed and is counted. */
  reconnect?: boolean;
  /** Close and open every connection again after this time. */
  reconnectEveryMs?: number;
  /** Reads go to these keys, `key:00000000` and on, that somebody else wrote once; without it to keys of this load, which are written all the time. */
  keysAtRest?: number;
}

export interface LoadCounts {
  sent: number;
  acknowledged: number;
  reads: number;
  /** Connections that the other end closed. */
  closed: number;
  /** Error replies by their text, to writes and to reads. */
  errors: Record<string, number>;
  errorCount: number;
  /** Reads that returned less than what was acknowledged or read before they began. */
  stale: number;
  staleExamples: string[];
}

interface Register {
  key: string;
  /** Only the connection that owns it writes; a reconnected one goes on counting. */
  sent: number;
  acknowledged: number;
  seen: number;
}

interface Slot {
  client: RespClient | undefined;
  opening: boolean;
  openedAt: number;
  register: Register;
}

export interface Gap {
  ms: number;
  endMs: number;
}

/**
 * The longest time without an acknowledgement that touches this window; an open end counts up to its end.
 * @param times ascending, on the same clock as the window. @unit ms
 */
export function longestGap(times: number[], fromMs: number, toMs: number): Gap {
  const longest = { ms: 0, endMs: fromMs };
  let before = fromMs;
  const note = (end: number): void => {
    if (end - before <= longest.ms) return;
    longest.ms = end - before;
    longest.endMs = end;
  };
  for (const at of times) {
    if (at >= fromMs) note(Math.min(at, toMs));
    if (at >= toMs) return longest;
    before = at;
  }
  note(toMs);
  return longest;
}

export class Load {
  /** Time of each acknowledged write, ascending. @unit ms */
  readonly ackTimes: number[] = [];
  /** From its intended time to its acknowledgement, each write. @unit ms */
  readonly writeMs: number[] = [];
  readonly readMs: number[] = [];
  /** When each of those was answered, wall clock. @unit ms */
  readonly readAt: number[] = [];
  readonly counts: LoadCounts = {
    sent: 0,
    acknowledged: 0,
    reads: 0,
    closed: 0,
    errors: {},
    errorCount: 0,
    stale: 0,
    staleExamples: [],
  };
  /** Acknowledged keys of their own, with the number in their value. */
  private readonly acknowledged = new Map<string, number>();
  private readonly recent: string[] = [];
  private readonly writers: Slot[] = [];
  private readonly readers: Slot[] = [];
  private readonly padding: string;
  private readonly connections: number;
  private readonly writesPerSecond: number;
  private readonly readsPerSecond: number;
  private timer: NodeJS.Timeout | undefined;
  private startedAt = 0;
  private writesDue = 0;
  private readsDue = 0;
  private sequence = 0;
  private readTurn = 0;
  private stopping = false;

  constructor(private readonly options: LoadOptions) {
    this.connections = options.connections ?? 10;
    this.writesPerSecond = options.writesPerSecond ?? 500;
    this.readsPerSecond = options.readsPerSecond ?? 200;
    this.padding = ".".repeat(Math.max(0, (options.valueBytes ?? 16) - 8));
    const readConnections = this.readsPerSecond === 0 ? 0 : (options.readConnections ?? 4);
    for (let i = 0; i < this.connections + readConnections; i++) {
      const slot: Slot = {
        client: undefined,
        opening: false,
        openedAt: 0,
        register: { key: `r:${options.name}:${i}`, sent: 0, acknowledged: 0, seen: 0 },
      };
      (i < this.connections ? this.writers : this.readers).push(slot);
    }
  }

  async start(): Promise<void> {
    await Promise.all([...this.writers, ...this.readers].map((slot) => this.open(slot)));
    this.startedAt = nowMs();
    this.timer = setInterval(() => this.turn(), TICK_MS);
  }

  /** Ends the load and waits for what is still unanswered. */
  async stop(waitMs = 5000): Promise<void> {
    this.stopping = true;
    clearInterval(this.timer);
    const until = nowMs() + waitMs;
    const open = (): boolean =>
      [...this.writers, ...this.readers].some((slot) => (slot.client?.unanswered ?? 0) > 0);
    while (open() && nowMs() < until) await sleep(10);
    for (const slot of [...this.writers, ...this.readers]) slot.client?.close();
  }

  /** As the function of the same name, of this load's acknowledgements. */
  longestGap(fromMs: number, toMs: number): Gap {
    return longestGap(this.ackTimes, fromMs, toMs);
  }

  /** Reads everything that was acknowledged. @returns keys that are missing or older than promised */
  async lost(port = this.options.port): Promise<string[]> {
    const client = await RespClient.open(port, 3000, this.options.host);
    const missing: string[] = [];
    const check = async (keys: string[], needed: (key: string) => number): Promise<void> => {
      for (let i = 0; i < keys.length; i += VERIFY_BATCH) {
        const batch = keys.slice(i, i + VERIFY_BATCH);
        const reply = await client.call(["MGET", ...batch], 30_000);
        if (!Array.isArray(reply)) throw new Error(`MGET: ${describe(reply)}`);
        batch.forEach((key, j) => {
          if (numberIn(reply[j]) < needed(key)) missing.push(key);
        });
      }
    };
    await check([...this.acknowledged.keys()], (key) => this.acknowledged.get(key)!);
    const registers = new Map(this.writers.map(({ register }) => [register.key, register]));
    await check([...registers.keys()], (key) => registers.get(key)!.acknowledged);
    client.close();
    return missing;
  }

  private async open(slot: Slot): Promise<void> {
    slot.opening = true;
    for (;;) {
      try {
        const client = await RespClient.open(this.options.port, 3000, this.options.host);
        client.onClose = () => {
          slot.client = undefined;
          if (this.stopping) return;
          this.counts.closed += 1;
          if (this.options.reconnect || this.options.reconnectEveryMs !== undefined)
            void this.open(slot);
        };
        slot.client = client;
        slot.openedAt = nowMs();
        slot.opening = false;
        return;
      } catch (error) {
        if (this.startedAt === 0) throw error;
        if (this.stopping) return;
        await sleep(RECONNECT_WAIT_MS);
      }
    }
  }

  private turn(): void {
    const now = nowMs();
    const elapsed = (now - this.startedAt) / 1000;
    for (; this.writesDue < elapsed * this.writesPerSecond; this.writesDue++) {
      this.write(this.startedAt + (this.writesDue / this.writesPerSecond) * 1000);
    }
    for (; this.readsDue < elapsed * this.readsPerSecond; this.readsDue++) {
      this.read(this.startedAt + (this.readsDue / this.readsPerSecond) * 1000);
    }
    const every = this.options.reconnectEveryMs;
    if (every === undefined) return;
    for (const slot of [...this.writers, ...this.readers]) {
      if (slot.client !== undefined && now - slot.openedAt > every) {
        slot.client.close();
        slot.client = undefined;
        void this.open(slot);
      }
    }
  }

  private write(dueMs: number): void {
    const slot = this.writers[this.writesDue % this.writers.length];
    const client = slot.client;
    if (client === undefined) return;
    this.counts.sent += 1;
    const counts = Math.floor(this.writesDue / this.writers.length) % 2 === 0;
    const register = slot.register;
    const value = counts ? ++register.sent : ++this.sequence;
    const key = counts ? register.key : `w:${this.options.name}:${value}`;
    client.send(["SET", key, `${value}${this.padding}`], (reply) => {
      const now = nowMs();
      if (reply !== "OK") {
        this.failed("write", reply);
        return;
      }
      this.counts.acknowledged += 1;
      this.ackTimes.push(now);
      this.writeMs.push(now - dueMs);
      if (counts) {
        register.acknowledged = Math.max(register.acknowledged, value);
      } else {
        this.acknowledged.set(key, value);
        this.recent[this.acknowledged.size % RECENT] = key;
      }
    });
  }

  private read(dueMs: number): void {
    const slot = this.readers[this.readsDue % this.readers.length];
    const client = slot.client;
    if (client === undefined) return;
    this.readTurn = (this.readTurn * 1103515245 + 12345) % 2147483648;
    if (this.options.keysAtRest !== undefined) {
      const key = keyAtRest(this.readTurn % this.options.keysAtRest);
      // A key at rest that is missing is as bad as an old value.
      client.send(["GET", key], (reply) => this.onRead(key, 1, reply, dueMs));
      return;
    }
    const ownKey = this.recent[this.readTurn % RECENT];
    if (this.readTurn % 3 === 0 && ownKey !== undefined) {
      const needed = this.acknowledged.get(ownKey)!;
      client.send(["GET", ownKey], (reply) => this.onRead(ownKey, needed, reply, dueMs));
      return;
    }
    const register = this.writers[this.readTurn % this.writers.length].register;
    const needed = Math.max(register.acknowledged, register.seen);
    client.send(["GET", register.key], (reply) => {
      if (this.onRead(register.key, needed, reply, dueMs)) {
        register.seen = Math.max(register.seen, numberIn(reply));
      }
    });
  }

  private onRead(key: string, needed: number, reply: Reply, dueMs: number): boolean {
    if (reply instanceof ReplyError) {
      this.failed("read", reply);
      return false;
    }
    this.counts.reads += 1;
    this.readMs.push(nowMs() - dueMs);
    this.readAt.push(Date.now());
    if (numberIn(reply) >= needed) return true;
    this.counts.stale += 1;
    if (this.counts.staleExamples.length < 5) {
      this.counts.staleExamples.push(`${key}: read ${describe(reply)}, needed ${needed}`);
    }
    return false;
  }

  private failed(what: string, reply: Reply): void {
    const text = `${what}: ${describe(reply)}`;
    this.counts.errors[text] = (this.counts.errors[text] ?? 0) + 1;
    this.counts.errorCount += 1;
  }
}

function describe(reply: Reply): string {
  return reply instanceof ReplyError ? reply.text : JSON.stringify(reply);
}

/** The number at the start of a value; 0 for a missing one. */
function numberIn(reply: Reply | undefined): number {
  return typeof reply === "string" ? Number.parseInt(reply, 10) : 0;
}

/**
 * Sends many commands over a few connections as fast as replies allow.
 * @param window commands open on one connection
 * @throws on the first error reply
 */
export async function pour(
  port: number,
  count: number,
  command: (i: number) => (string | number)[],
  connections = 4,
  window = 256,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    const client = await RespClient.open(port);
    await new Promise<void>((resolve, reject) => {
      let open = 0;
      client.onClose = () => reject(new Error("connection closed while loading data"));
      const more = (): void => {
        while (open < window && next < count) {
          open += 1;
          client.send(command(next++), (reply) => {
            if (reply instanceof ReplyError) reject(new Error(reply.text));
            open -= 1;
            if (next < count) more();
            else if (open === 0) resolve();
          });
        }
        if (open === 0) resolve();
      };
      more();
    });
    client.close();
  };
  await Promise.all(Array.from({ length: connections }, worker));
}
