/** TCP on Node: listeners and accepted connections behind the HAL's interface. */
import { createServer, Socket } from "node:net";
import type { Server } from "node:net";
import type {
  Listener,
  ListenerOptions,
  PendingConnection,
  TcpOptions,
  TcpSocket,
} from "../hal.js";

/** How long a connection that ends may take to send what it holds. */
const LINGER_MS = 2000;
const ACCEPT_BACKLOG = 1024;

/**
 * One buffer for all connections that read as many bytes at once: it is handed out synchronously and filled again
 * for the next read. Not a Buffer, whose slice() is a view: what a core keeps with slice() must be a copy.
 */
const readBuffers = new Map<number, Uint8Array>();

function readBufferOf(bytes: number): Uint8Array {
  let buffer = readBuffers.get(bytes);
  if (buffer === undefined) {
    buffer = new Uint8Array(bytes);
    readBuffers.set(bytes, buffer);
  }
  return buffer;
}

class Accepted implements PendingConnection {
  readonly from: string;

  constructor(readonly socket: Socket) {
    this.from = `${socket.remoteAddress ?? "?"}:${socket.remotePort ?? 0}`;
  }
}

/**
 * Node allocates 64 KB for each read of an accepted socket and shrinks it afterwards, which costs a quarter of the
 * time of a small command. A socket made with `onread` uses one buffer for all reads, but a server cannot be
 * asked for such sockets, so the accepted one's handle moves into a new one. Where a Node has no such handle the
 * plain socket is used as it is.
 */
function withSharedBuffer(
  socket: Socket,
  buffer: Uint8Array,
  onBytes: (count: number) => void,
): Socket | undefined {
  const holder = socket as unknown as { _handle?: object | null };
  const handle = holder._handle;
  if (handle === undefined || handle === null) return undefined;
  holder._handle = null;
  const options = {
    handle,
    allowHalfOpen: false,
    onread: {
      buffer,
      callback: (count: number): boolean => {
        onBytes(count);
        return true;
      },
    },
  };
  return new Socket(options as unknown as ConstructorParameters<typeof Socket>[0]);
}

class NodeTcp implements TcpSocket {
  private readonly socket: Socket;
  private chunk: Uint8Array | undefined;
  private ended = false;
  private failure = "";
  private behind = false;
  private linger: NodeJS.Timeout | undefined;

  constructor(options: TcpOptions) {
    const accepted = (options.from as Accepted).socket;
    const readBuffer = readBufferOf(options.readBytes);
    const shared = withSharedBuffer(accepted, readBuffer, (count) => {
      if (this.ended) return;
      this.chunk = readBuffer;
      options.onReadable(count);
      this.chunk = undefined;
    });
    const socket = shared ?? accepted;
    this.socket = socket;
    socket.setNoDelay(true);
    if (shared === undefined) {
      socket.on("data", (bytes: Buffer) => {
        if (this.ended) return;
        this.chunk = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
        options.onReadable(bytes.length);
        this.chunk = undefined;
      });
    }
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.failure = error.code ?? error.message;
    });
    // Whoever ends its half is done with us: answers to it would reach nobody.
    socket.on("end", () => this.end());
    socket.on("drain", () => {
      if (!this.behind || this.ended) return;
      this.behind = false;
      options.onWritable();
    });
    socket.once("close", () => {
      this.ended = true;
      clearTimeout(this.linger);
      options.onError(this.failure);
    });
    socket.resume();
    // Starts reading on a socket whose handle came ready-made.
    if (shared !== undefined) socket.read(0);
  }

  read(): Uint8Array | undefined {
    return this.chunk;
  }

  write(bytes: Uint8Array): number {
    const { socket } = this;
    if (this.ended || !socket.writable) return 0;
    if (!socket.write(bytes)) this.behind = true;
    return socket.writableLength;
  }

  pending(): number {
    return this.socket.writableLength;
  }

  setReading(on: boolean): void {
    if (this.ended) return;
    if (on) this.socket.resume();
    else this.socket.pause();
  }

  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.socket.end();
    this.linger = setTimeout(() => this.socket.destroy(), LINGER_MS);
    this.linger.unref();
  }

  close(): void {
    this.ended = true;
    this.socket.destroy();
  }
}

export function adoptTcp(options: TcpOptions): TcpSocket {
  return new NodeTcp(options);
}

class NodeListener implements Listener {
  private readonly waiting: PendingConnection[] = [];

  constructor(
    private readonly server: Server,
    readonly port: number,
    options: ListenerOptions,
  ) {
    server.on("connection", (socket) => {
      this.waiting.push(new Accepted(socket));
      options.onReadable(this.waiting.length);
    });
    // A failed accept (no more file descriptors) is no reason to end.
    server.on("error", (error) => options.onError(error.message));
  }

  read(): PendingConnection | undefined {
    return this.waiting.shift();
  }

  close(): void {
    this.server.close();
    for (const one of this.waiting.splice(0)) (one as Accepted).socket.destroy();
  }
}

/** Opens a port. @throws when it cannot be had (the error of the system, with its `code`) */
export function listenTcp(options: ListenerOptions): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const server = createServer({ noDelay: true, pauseOnConnect: true });
    server.once("error", reject);
    server.listen(
      { host: options.host, port: options.port, backlog: ACCEPT_BACKLOG, exclusive: true },
      () => {
        server.off("error", reject);
        const address = server.address();
        const port = typeof address === "object" && address !== null ? address.port : options.port;
        resolve(new NodeListener(server, port, options));
      },
    );
  });
}
