/**
 * The home's connections: numbers for the core, sockets for the hardware, and one write a connection a turn.
 *
 *     core.send ─ copied ─> gather buffer of the connection ─ end of turn ─> one socket write
 *
 * A gather buffer belongs to a connection only while there is something in it, so ten thousand quiet
 * clients hold none.
 */
import type { Hardware, PendingConnection, TcpSocket } from "../hal/hal.js";
import type { ConnectionKind } from "./core/core.js";

/** A gather buffer as it begins. @unit bytes */
const GATHER_BYTES = 16 * 1024;
const SPARE_BUFFERS_MAX = 256;
/** Below this a loop copies faster than a typed array does. @unit bytes */
const SHORT_COPY_BYTES = 64;
/** A server's link brings the replies of many clients at once. @unit bytes */
const LINK_READ_BYTES = 64 * 1024;
/** What a client sends beyond this is left in the network for the next turn. @unit bytes */
const CLIENT_READ_BYTES = 16 * 1024;
/**
 * Clients' bytes are handled for so long in one turn; the rest waits for the next, so that polls, their answers
 * and servers' replies are never far behind. @unit ms
 */
const CLIENTS_TURN_MS = 4;

/** What the connections tell the loop. */
export interface ConnectionEvents {
  onOpen(connection: number, kind: ConnectionKind): void;
  onBytes(connection: number, bytes: Uint8Array, start: number, end: number, now: number): void;
  onDrained(connection: number): void;
  onClosed(connection: number): void;
}

interface Connection {
  kind: ConnectionKind;
  socket: TcpSocket;
  from: string;
  gather: Uint8Array | undefined;
  length: number;
  dirty: boolean;
  closing: boolean;
  /** The core takes its bytes. */
  reading: boolean;
  /** Bytes that wait for a turn with time for them; meanwhile nothing is read. */
  deferred: Uint8Array | undefined;
}

/** Traffic since the start. */
export interface Traffic {
  bytesIn: number;
  bytesOut: number;
  reads: number;
  writes: number;
  opened: number;
  open: number;
  deferred: number;
}

export class Connections {
  readonly traffic: Traffic = {
    bytesIn: 0,
    bytesOut: 0,
    reads: 0,
    writes: 0,
    opened: 0,
    open: 0,
    deferred: 0,
  };
  private readonly table: (Connection | undefined)[] = [];
  private readonly free: number[] = [];
  private dirty: Connection[] = [];
  private readonly spare: Uint8Array[] = [];
  private waiting: number[] = [];
  /** When this turn began to handle clients' bytes; negative: it has not. */
  private clientsSince = -1;
  private stopped = false;

  constructor(
    private readonly hardware: Hardware,
    private readonly events: ConnectionEvents,
    private readonly now: () => number,
  ) {}

  /** Takes an accepted connection in. */
  adopt(kind: ConnectionKind, pending: PendingConnection): void {
    const number = this.free.pop() ?? this.table.length;
    const { traffic } = this;
    const connection: Connection = {
      kind,
      socket: this.hardware.adopt({
        from: pending,
        readBytes: kind === "server" ? LINK_READ_BYTES : CLIENT_READ_BYTES,
        onReadable: (count) => {
          const bytes = connection.socket.read();
          if (bytes === undefined || connection.closing) return;
          traffic.reads += 1;
          traffic.bytesIn += count;
          const now = this.now();
          if (kind !== "server" && !this.hasTime(now)) {
            this.defer(number, connection, bytes, count);
            return;
          }
          this.events.onBytes(number, bytes, 0, count, now);
        },
        onWritable: () => {
          if (!connection.closing) this.events.onDrained(number);
        },
        onError: () => this.onEnded(number, connection),
      }),
      from: pending.from,
      gather: undefined,
      length: 0,
      dirty: false,
      closing: false,
      reading: true,
      deferred: undefined,
    };
    this.table[number] = connection;
    traffic.opened += 1;
    traffic.open += 1;
    this.events.onOpen(number, kind);
  }

  private hasTime(now: number): boolean {
    if (this.clientsSince < 0) this.clientsSince = now;
    return now - this.clientsSince < CLIENTS_TURN_MS;
  }

  private defer(number: number, connection: Connection, bytes: Uint8Array, count: number): void {
    // A driver that cannot stop at once may bring more.
    const before = connection.deferred;
    const kept = new Uint8Array((before?.length ?? 0) + count);
    if (before !== undefined) kept.set(before);
    kept.set(bytes.subarray(0, count), before?.length ?? 0);
    connection.deferred = kept;
    this.traffic.deferred += 1;
    if (before !== undefined) return;
    connection.socket.setReading(false);
    this.waiting.push(number);
  }

  /**
   * Ends a turn: what was put off is handled now, as far as this turn's time goes.
   * @returns whether something still waits, for the next turn
   */
  takeDeferred(): boolean {
    this.clientsSince = -1;
    if (this.waiting.length === 0) return false;
    const { waiting } = this;
    this.waiting = [];
    for (const [i, number] of waiting.entries()) {
      const now = this.now();
      if (!this.hasTime(now)) {
        this.waiting = waiting.slice(i);
        break;
      }
      const connection = this.table[number];
      const bytes = connection?.deferred;
      // While the core does not take its bytes they stay where they are.
      if (connection === undefined || bytes === undefined || !connection.reading) continue;
      connection.deferred = undefined;
      if (connection.closing) continue;
      connection.socket.setReading(true);
      this.events.onBytes(number, bytes, 0, bytes.length, now);
    }
    this.clientsSince = -1;
    return this.waiting.length > 0;
  }

  private onEnded(number: number, connection: Connection): void {
    connection.closing = true;
    this.drop(connection);
    this.table[number] = undefined;
    this.traffic.open -= 1;
    if (!this.stopped) this.events.onClosed(number);
    // Only now may the number mean somebody else.
    this.free.push(number);
  }

  private drop(connection: Connection): void {
    if (connection.gather !== undefined) this.giveBack(connection.gather);
    connection.gather = undefined;
    connection.length = 0;
    connection.deferred = undefined;
  }

  private giveBack(buffer: Uint8Array): void {
    if (buffer.length === GATHER_BYTES && this.spare.length < SPARE_BUFFERS_MAX) {
      this.spare.push(buffer);
    }
  }

  send(number: number, bytes: Uint8Array, start: number, end: number): void {
    const connection = this.table[number];
    if (connection === undefined || connection.closing) return;
    const count = end - start;
    const at = connection.length;
    let gather = connection.gather;
    if (gather === undefined || gather.length < at + count) {
      gather = this.grow(connection, at + count);
    }
    if (count < SHORT_COPY_BYTES) {
      for (let i = 0; i < count; i++) gather[at + i] = bytes[start + i]!;
    } else {
      gather.set(start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end), at);
    }
    connection.length = at + count;
    if (!connection.dirty) {
      connection.dirty = true;
      this.dirty.push(connection);
    }
  }

  private grow(connection: Connection, needed: number): Uint8Array {
    const old = connection.gather;
    let gather: Uint8Array;
    if (old === undefined && needed <= GATHER_BYTES) {
      gather = this.spare.pop() ?? new Uint8Array(GATHER_BYTES);
    } else {
      let size = (old?.length ?? GATHER_BYTES) * 2;
      while (size < needed) size *= 2;
      gather = new Uint8Array(size);
      if (old !== undefined) {
        gather.set(old.subarray(0, connection.length));
        this.giveBack(old);
      }
    }
    connection.gather = gather;
    return gather;
  }

  backlog(number: number): number {
    const connection = this.table[number];
    if (connection === undefined) return 0;
    return connection.length + connection.socket.pending();
  }

  /** Writes what was gathered, one write a connection. */
  flush(): void {
    const { dirty } = this;
    if (dirty.length === 0) return;
    this.dirty = [];
    for (const connection of dirty) {
      connection.dirty = false;
      if (connection.length > 0) this.write(connection);
    }
  }

  private write(connection: Connection): void {
    const gather = connection.gather!;
    const { length } = connection;
    connection.gather = undefined;
    connection.length = 0;
    this.traffic.writes += 1;
    this.traffic.bytesOut += length;
    const pending = connection.socket.write(
      length === gather.length ? gather : gather.subarray(0, length),
    );
    // The network still reads from a buffer it has not taken; the next bytes need another.
    if (pending === 0) this.giveBack(gather);
  }

  close(number: number, abort: boolean): void {
    const connection = this.table[number];
    if (connection === undefined || (connection.closing && !abort)) return;
    if (abort) {
      connection.closing = true;
      this.drop(connection);
      connection.socket.close();
      return;
    }
    if (connection.length > 0) this.write(connection);
    connection.closing = true;
    connection.socket.end();
  }

  setReading(number: number, on: boolean): void {
    const connection = this.table[number];
    if (connection === undefined) return;
    connection.reading = on;
    if (connection.deferred === undefined) connection.socket.setReading(on);
    else if (on && !this.waiting.includes(number)) this.waiting.push(number);
  }

  /** Where a connection comes from, for the log. */
  from(number: number): string {
    return this.table[number]?.from ?? "?";
  }

  /** Drops every connection without telling anyone. */
  stop(): void {
    this.stopped = true;
    this.flush();
    for (const connection of this.table) connection?.socket.close();
  }
}
