/**
 * The agent's TCP connections: bytes in are handed on at once, bytes out are gathered and leave in one
 * write a connection at the end of a loop turn.
 *
 *     socket data ──> onBytes ──┐
 *     timer, poll, store ───────┼──> core ──> send (copied into the connection's out buffer)
 *                               └──> end of turn: one write each
 */
import { connect, createServer, type Server, Socket, type SocketConstructorOpts } from "node:net";
import type { LinkKind } from "./core/ports.js";

const OUT_BYTES_START = 16 * 1024;
/** A buffer that grew beyond this is given back after it was sent. @unit bytes */
const OUT_BYTES_KEPT = 256 * 1024;
const NO_BYTES = Buffer.alloc(0);
/** Below this a connection that was behind counts as drained. @unit bytes */
const DRAINED_BYTES = 64 * 1024;
const READ_BYTES = 64 * 1024;
/** A connect that gets no answer at all (a dead machine) is given up after this. */
const DIAL_MS = 1000;
/** How long a closing connection may take to send what it still holds. */
const LINGER_MS = 2000;

/** What the sockets tell the shell. None of them is called from inside a call of the shell. */
export interface SocketEvents {
  onOpen(connection: number, kind: LinkKind, accepted: boolean): void;
  onDialFailed(kind: "controller" | "peer", reason: string): void;
  onBytes(connection: number, bytes: Uint8Array, start: number, end: number): void;
  onDrained(connection: number): void;
  onClosed(connection: number): void;
}

class Connection {
  out: Buffer = Buffer.allocUnsafeSlow(OUT_BYTES_START);
  length = 0;
  /** Size of the last buffer that was given away: the next one begins with it, since a stream goes on as it was. */
  lastBytes = OUT_BYTES_START;
  dirty = false;
  /** The network was behind at the last write. */
  behind = false;
  closing = false;

  constructor(
    readonly id: number,
    readonly kind: LinkKind,
    readonly socket: Socket,
  ) {}
}

export class Sockets {
  private readonly open: (Connection | undefined)[] = [];
  private readonly freeIds: number[] = [];
  private dirty: Connection[] = [];
  private readonly servers: Server[] = [];
  // Handed out synchronously and filled again for the next read, so one is enough for all of them. Not a
  // Buffer, whose slice() is a view: what the core keeps with slice() must be a copy.
  private readonly readBuffer = new Uint8Array(READ_BYTES);
  private stopped = false;

  constructor(private readonly events: SocketEvents) {}

  /** Waits for connections of a kind. @throws when the port cannot be had */
  listen(kind: LinkKind, host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const server = createServer({ noDelay: true, pauseOnConnect: true }, (socket) =>
        this.accept(kind, socket),
      );
      server.once("error", reject);
      server.listen({ host, port, backlog: 511 }, () => {
        server.off("error", reject);
        // A failed accept (no more file descriptors) is no reason to end.
        server.on("error", () => undefined);
        this.servers.push(server);
        const address = server.address();
        resolve(typeof address === "object" && address !== null ? address.port : port);
      });
    });
  }

  /** Starts one connection attempt; onOpen or onDialFailed follows. */
  dial(kind: "controller" | "peer", host: string, port: number): void {
    let connection: Connection | undefined;
    let failure = "no answer";
    const socket = connect({
      host,
      port,
      noDelay: true,
      onread: {
        buffer: this.readBuffer,
        callback: (count: number): boolean => {
          if (connection !== undefined && !connection.closing) {
            this.events.onBytes(connection.id, this.readBuffer, 0, count);
          }
          return true;
        },
      },
    });
    const timer = setTimeout(() => socket.destroy(), DIAL_MS);
    socket.once("connect", () => {
      clearTimeout(timer);
      connection = this.adopt(kind, socket, false);
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      failure = error.code ?? error.message;
    });
    socket.once("close", () => {
      clearTimeout(timer);
      if (connection === undefined && !this.stopped) this.events.onDialFailed(kind, failure);
    });
  }

  /** Copies bytes into a connection's out buffer; they leave at the end of the turn. */
  send(id: number, bytes: Uint8Array, start: number, end: number): void {
    const connection = this.open[id];
    if (connection === undefined || connection.closing) return;
    const length = connection.length + end - start;
    if (length > connection.out.length) grow(connection, length);
    connection.out.set(
      start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end),
      connection.length,
    );
    connection.length = length;
    if (!connection.dirty) {
      connection.dirty = true;
      this.dirty.push(connection);
    }
  }

  /** @returns bytes taken for a connection that the network has not taken yet */
  backlog(id: number): number {
    const connection = this.open[id];
    return connection === undefined ? 0 : connection.length + connection.socket.writableLength;
  }

  /** Writes what was gathered. Called once at the end of each turn. */
  flush(): void {
    const dirty = this.dirty;
    if (dirty.length === 0) return;
    this.dirty = [];
    for (let i = 0; i < dirty.length; i++) {
      const connection = dirty[i]!;
      connection.dirty = false;
      if (connection.length > 0) this.write(connection);
    }
  }

  /** Closes after what was sent has gone out. */
  close(id: number): void {
    const connection = this.open[id];
    if (connection === undefined || connection.closing) return;
    if (connection.length > 0) this.write(connection);
    connection.closing = true;
    const { socket } = connection;
    socket.end();
    const timer = setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once("close", () => clearTimeout(timer));
  }

  setReading(id: number, on: boolean): void {
    const connection = this.open[id];
    if (connection === undefined) return;
    if (on) connection.socket.resume();
    else connection.socket.pause();
  }

  /** Stops listening and drops every connection. */
  stop(): void {
    this.stopped = true;
    for (const server of this.servers) server.close();
    for (const connection of this.open) connection?.socket.destroy();
  }

  /**
   * Node allocates 64 KB for each read of an accepted socket. A socket made with `onread` uses one buffer for
   * all reads, but a server cannot be asked for such sockets, so the handle of the accepted one moves into a new
   * one. Where a Node has no such handle the plain socket is used as it is.
   */
  private accept(kind: LinkKind, accepted: Socket): void {
    const holder = accepted as unknown as { _handle?: object | null };
    const handle = holder._handle;
    let connection: Connection | undefined;
    if (handle === undefined || handle === null) {
      accepted.on("data", (bytes: Buffer) => {
        if (connection === undefined || connection.closing) return;
        const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
        this.events.onBytes(connection.id, plain, 0, plain.length);
      });
      accepted.on("error", () => undefined);
      connection = this.adopt(kind, accepted, true);
      accepted.resume();
      return;
    }
    holder._handle = null;
    const options = {
      handle,
      allowHalfOpen: false,
      onread: {
        buffer: this.readBuffer,
        callback: (count: number): boolean => {
          if (connection !== undefined && !connection.closing) {
            this.events.onBytes(connection.id, this.readBuffer, 0, count);
          }
          return true;
        },
      },
    };
    const socket = new Socket(options as unknown as SocketConstructorOpts);
    socket.setNoDelay(true);
    socket.on("error", () => undefined);
    connection = this.adopt(kind, socket, true);
    socket.resume();
    // Starts reading on a socket whose handle came ready-made.
    socket.read(0);
  }

  private adopt(kind: LinkKind, socket: Socket, accepted: boolean): Connection {
    const id = this.freeIds.pop() ?? this.open.length;
    const connection = new Connection(id, kind, socket);
    this.open[id] = connection;
    // Whoever ends its half is done with us: answers to it would reach nobody.
    socket.on("end", () => {
      if (!connection.closing) this.close(id);
    });
    socket.on("drain", () => {
      if (connection.behind && socket.writableLength <= DRAINED_BYTES) {
        connection.behind = false;
        this.events.onDrained(id);
      }
    });
    socket.once("close", () => {
      this.open[id] = undefined;
      connection.closing = true;
      connection.length = 0;
      if (!this.stopped) this.events.onClosed(id);
      this.freeIds.push(id);
    });
    this.events.onOpen(id, kind, accepted);
    return connection;
  }

  private write(connection: Connection): void {
    const { socket, out, length } = connection;
    connection.length = 0;
    if (!socket.writable) return;
    if (!socket.write(length === out.length ? out : out.subarray(0, length))) {
      connection.behind = true;
    }
    // Node has handed all of it to the kernel when nothing is left waiting; else it still reads from the
    // buffer, and the next bytes need another one.
    if (socket.writableLength > 0 || out.length > OUT_BYTES_KEPT) {
      connection.lastBytes = sizeFor(length, OUT_BYTES_START);
      connection.out = NO_BYTES;
    }
  }
}

/** @returns the power of two times `least` that holds it */
function sizeFor(length: number, least: number): number {
  let size = least;
  while (size < length) size *= 2;
  return size;
}

function grow(connection: Connection, length: number): void {
  const { out, lastBytes } = connection;
  const larger = Buffer.allocUnsafeSlow(sizeFor(length, Math.max(out.length, lastBytes)));
  connection.lastBytes = OUT_BYTES_START;
  larger.set(out.subarray(0, connection.length));
  connection.out = larger;
}
