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

/** What the connections tell the loop. */
export interface ConnectionEvents {
  onOpen(connection: number, kind: ConnectionKind): void;
  onBytes(connection: number, bytes: Uint8Array, start: number, end: number): void;
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
}

/** Traffic since the start. */
export interface Traffic {
  bytesIn: number;
  bytesOut: number;
  reads: number;
  writes: number;
  opened: number;
  open: number;
}

export class Connections {
  readonly traffic: Traffic = { bytesIn: 0, bytesOut: 0, reads: 0, writes: 0, opened: 0, open: 0 };
  private readonly table: (Connection | undefined)[] = [];
  private readonly free: number[] = [];
  private dirty: Connection[] = [];
  private readonly spare: Uint8Array[] = [];
  private stopped = false;

  constructor(
    private readonly hardware: Hardware,
    private readonly events: ConnectionEvents,
  ) {}

  /** Takes an accepted connection in. */
  adopt(kind: ConnectionKind, pending: PendingConnection): void {
    const number = this.free.pop() ?? this.table.length;
    const { traffic } = this;
    const connection: Connection = {
      kind,
      socket: this.hardware.adopt({
        from: pending,
        onReadable: (count) => {
          const bytes = connection.socket.read();
          if (bytes === undefined || connection.closing) return;
          traffic.reads += 1;
          traffic.bytesIn += count;
          this.events.onBytes(number, bytes, 0, count);
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
    };
    this.table[number] = connection;
    traffic.opened += 1;
    traffic.open += 1;
    this.events.onOpen(number, kind);
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
    this.table[number]?.socket.setReading(on);
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
