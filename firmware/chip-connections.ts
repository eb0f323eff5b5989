/**
 * The connections of a board: numbers for the core, sockets for the hardware.
 *
 * The engine itself gathers what is written into one string a connection, so nothing is gathered here; a write
 * is one crossing into the engine. What the core's `send` may not hold back is bounded by its limits.
 */
import type { Hardware, PendingConnection, TcpSocket } from "../hal/hal.js";
import type { ConnectionKind, ControllerCore } from "./core/core.js";
import { WITH_FAST_REDIS } from "./core/features.js";
import type { FastPath } from "./fast-path.js";

export interface ChipConnections {
  adopt(kind: ConnectionKind, pending: PendingConnection): void;
  send(connection: number, bytes: Uint8Array, start: number, end: number): void;
  backlog(connection: number): number;
  close(connection: number, abort: boolean): void;
  setReading(connection: number, on: boolean): void;
  count(): number;
  /** Told once, before anything comes: whom the bytes are for. */
  serve(core: ControllerCore): void;
  /** The board is about to be reset: nothing reaches the core any more. */
  halt(): void;
}

/** What the connections need of the loop. */
export interface ConnectionsHost {
  now(): number;
  /** A connection has come or gone. */
  onControl(): void;
  /** Bytes have come from a server. */
  onHeard(): void;
}

class ChipConnection {
  readonly number: number;
  readonly kind: ConnectionKind;
  socket: TcpSocket | undefined;
  closing: boolean;
  /** The core has asked how much waits to be sent: it may want to know when that has gone. Each drain costs an event. */
  watched: boolean;

  constructor(number: number, kind: ConnectionKind) {
    this.number = number;
    this.kind = kind;
    this.socket = undefined;
    this.closing = false;
    this.watched = false;
  }
}

/**
 * @param readBytes bytes of one connection kept while the core does not take them
 * @param fast takes what is ordinary first, where the engine brings texts
 */
export function createChipConnections(
  hardware: Hardware,
  host: ConnectionsHost,
  readBytes: number,
  fast: FastPath | undefined,
): ChipConnections {
  const table: (ChipConnection | undefined)[] = [];
  let core: ControllerCore | undefined = undefined;
  let halted = false;
  let open = 0;

  function freeNumber(): number {
    for (let i = 0; i < table.length; i++) if (table[i] === undefined) return i;
    return table.length;
  }

  function onBytes(connection: ChipConnection): void {
    const bytes = connection.socket!.read();
    if (bytes === undefined || connection.closing || halted) return;
    core!.onBytes(connection.number, bytes, 0, bytes.length, host.now());
    if (connection.kind === "server") host.onHeard();
  }

  function onEnded(connection: ChipConnection): void {
    if (table[connection.number] !== connection) return;
    table[connection.number] = undefined;
    open--;
    connection.closing = true;
    if (halted) return;
    core!.onClosed(connection.number, host.now());
    if (fast !== undefined) fast.closed(connection.number);
    host.onControl();
  }

  function adopt(kind: ConnectionKind, pending: PendingConnection): void {
    if (halted) return;
    const number = freeNumber();
    const connection = new ChipConnection(number, kind);
    table[number] = connection;
    open++;
    connection.socket = hardware.adopt({
      from: pending,
      readBytes: readBytes,
      onReadable: () => onBytes(connection),
      onWritable: () => {
        if (!connection.watched || connection.closing || halted) return;
        connection.watched = false;
        core!.onDrained(number, host.now());
      },
      onError: () => onEnded(connection),
      tap:
        fast === undefined
          ? undefined
          : kind === "native" || (WITH_FAST_REDIS && kind === "redis")
            ? (raw) => fast.client(number, kind === "native", raw)
            : kind === "server"
              ? (raw) => fast.server(number, raw)
              : undefined,
    });
    core!.onOpen(number, kind, host.now());
    host.onControl();
  }

  function send(number: number, bytes: Uint8Array, start: number, end: number): void {
    const connection = table[number];
    if (connection === undefined || connection.closing) return;
    connection.socket!.write(
      start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end),
    );
  }

  function backlog(number: number): number {
    const connection = table[number];
    if (connection === undefined) return 0;
    connection.watched = true;
    return connection.socket!.pending();
  }

  function close(number: number, abort: boolean): void {
    const connection = table[number];
    if (connection === undefined || (connection.closing && !abort)) return;
    connection.closing = true;
    if (abort) connection.socket!.close();
    else connection.socket!.end();
  }

  function setReading(number: number, on: boolean): void {
    const connection = table[number];
    if (connection !== undefined) connection.socket!.setReading(on);
  }

  return {
    adopt: adopt,
    send: send,
    backlog: backlog,
    close: close,
    setReading: setReading,
    count: () => open,
    serve: (served) => {
      core = served;
    },
    halt: () => {
      halted = true;
    },
  };
}
