/**
 * TCP on Espruino: accepted connections behind the HAL's interface.
 *
 * The engine brings at most 536 bytes at a time as a string and goes on bringing them whether they are wanted or
 * not: it has no backpressure. So what comes while reading is off is kept here up to a bound, and a peer that
 * goes beyond it is closed. What is written joins one string in the engine, without a bound of its own: the
 * firmware asks `pending` before it writes more.
 */
import type {
  Listener,
  ListenerOptions,
  PendingConnection,
  TcpOptions,
  TcpSocket,
} from "../hal.js";
import type { EngineNet, EngineServer, EngineSocket, EngineUtilities } from "./engine.js";

declare const E: EngineUtilities;
declare const engineRequire: (name: string) => unknown;

/** The engine's own size of a read. @unit bytes */
const CHUNK_BYTES = 536;

class Accepted implements PendingConnection {
  readonly from: string;
  readonly socket: EngineSocket;

  constructor(socket: EngineSocket) {
    this.socket = socket;
    // The engine does not tell who called.
    this.from = "net";
  }
}

class EspruinoSocket implements TcpSocket {
  private readonly socket: EngineSocket;
  private readonly options: TcpOptions;
  /** Bytes announced and not read, or kept while reading is off. */
  private chunk: string;
  private reading: boolean;
  /** Whether the engine is asked to tell when all is sent: an event that costs as much as a chunk. */
  private awaited: boolean;
  private ended: boolean;
  private fault: string;

  constructor(options: TcpOptions) {
    this.socket = (options.from as Accepted).socket;
    this.options = options;
    this.chunk = "";
    this.reading = true;
    this.awaited = false;
    this.ended = false;
    this.fault = "";
    const ordinary = (data: string): void => this.onData(data);
    this.socket.on(
      "data",
      options.tap === undefined
        ? ordinary
        : options.tap({
            socket: this.socket,
            ordinary: ordinary,
            isIdle: () => this.reading && this.chunk.length === 0,
          }),
    );
    this.socket.on("error", () => this.onFault());
    this.socket.on("close", () => this.onClose());
  }

  private onData(data: string): void {
    if (this.ended) return;
    if (!this.reading || this.chunk.length > 0) {
      // Three turns' worth are let in, since the peer may not know yet that it is to wait.
      if (this.chunk.length + data.length > this.options.readBytes + 2 * CHUNK_BYTES) {
        this.fault = "it went on sending while it was not read from";
        this.close();
        return;
      }
      this.chunk += data;
      if (!this.reading) return;
    } else {
      this.chunk = data;
    }
    this.announce();
  }

  private announce(): void {
    const count = this.chunk.length;
    if (count === 0 || this.ended) return;
    this.options.onReadable(count);
    this.chunk = "";
  }

  private onDrain(): void {
    this.awaited = false;
    this.socket.removeAllListeners("drain");
    if (!this.ended) this.options.onWritable();
  }

  private onFault(): void {
    this.fault = "network error";
  }

  private onClose(): void {
    if (this.ended) return;
    this.ended = true;
    this.chunk = "";
    this.options.onError(this.fault);
  }

  read(): Uint8Array | undefined {
    if (this.chunk.length === 0) return undefined;
    return new Uint8Array(E.toArrayBuffer(this.chunk));
  }

  write(bytes: Uint8Array): number {
    if (this.ended) return 0;
    if (!this.awaited) {
      this.awaited = true;
      this.socket.on("drain", () => this.onDrain());
    }
    try {
      this.socket.write(E.toString(bytes));
    } catch (error) {
      // The engine has already closed it; the event that says so is still in its queue.
      this.fault = "" + error;
    }
    return this.pending();
  }

  pending(): number {
    const waits = this.socket.dSnd;
    return waits === undefined ? 0 : waits.length;
  }

  setReading(on: boolean): void {
    if (this.reading === on) return;
    this.reading = on;
    if (on && this.chunk.length > 0) {
      setTimeout(() => {
        if (this.reading) this.announce();
      }, 0);
    }
  }

  end(): void {
    if (!this.ended) this.socket.end();
  }

  close(): void {
    if (this.ended) return;
    this.socket.clsNow = true;
    this.socket.end();
  }
}

class EspruinoListener implements Listener {
  readonly port: number;
  private readonly waiting: Accepted[];
  private readonly servers: EngineServer[];

  constructor(options: ListenerOptions) {
    const net = engineRequire("net") as EngineNet;
    this.port = options.port;
    this.waiting = [];
    this.servers = [];
    const accept = (socket: EngineSocket): void => {
      this.waiting.push(new Accepted(socket));
      options.onReadable(this.waiting.length);
    };
    const slots = options.slots === undefined ? 1 : options.slots;
    for (let i = 0; i < slots; i++) {
      const server = net.createServer(accept);
      server.listen(options.port);
      this.servers.push(server);
    }
  }

  read(): PendingConnection | undefined {
    return this.waiting.shift();
  }

  close(): void {
    for (let i = 0; i < this.servers.length; i++) this.servers[i]!.close();
  }
}

export function listenTcp(options: ListenerOptions): Listener {
  return new EspruinoListener(options);
}

export function adoptTcp(options: TcpOptions): TcpSocket {
  return new EspruinoSocket(options);
}
