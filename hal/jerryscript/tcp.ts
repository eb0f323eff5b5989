/**
 * TCP on IoT.js: listeners and accepted connections behind the HAL's interface, over the engine's `tcp` module.
 *
 * What is written in a turn is gathered and leaves in one write at its end, because the engine cannot switch Nagle's
 * delay off. It cannot stop reading either: what comes while reading is off is kept, up to a bound, and a peer that
 * goes beyond it is closed. A write to a peer that has reset the connection raises SIGPIPE, which nothing here can
 * catch: whoever starts the engine must have it ignored.
 */
import type {
  Listener,
  ListenerOptions,
  PendingConnection,
  TcpOptions,
  TcpSocket,
} from "../hal.js";
import { bufferOf, copyBytes } from "./bytes.js";
import type { EngineBuffer, EngineTcp, EngineTcpModule } from "./engine.js";

declare const engineRequire: (name: string) => unknown;
declare const setImmediate: (f: () => void) => unknown;

const Tcp = engineRequire("tcp") as EngineTcpModule;

/** The engine's own largest read. @unit bytes */
const CHUNK_BYTES_MAX = 65535;
/** Most bytes handed over at once: what is brought over costs the same in pieces, and memory is scarce. */
const PIECE_BYTES = 4096;
/** How long a connection that ends may take to send what it holds. */
const LINGER_MS = 2000;
const BACKLOG = 128;
const GATHER_BYTES_MIN = 1024;

/** One for all connections: it is lent within one call. */
const piece = new Uint8Array(PIECE_BYTES);

let toFlush: JerrySocket[] = [];

function flushAll(): void {
  const sockets = toFlush;
  toFlush = [];
  for (let i = 0; i < sockets.length; i++) sockets[i]!.flush();
}

function ignore(): void {}

class Accepted implements PendingConnection {
  readonly from: string;
  readonly handle: EngineTcp;

  constructor(handle: EngineTcp) {
    this.handle = handle;
    // The engine does not tell who called.
    this.from = "net";
  }
}

class JerrySocket implements TcpSocket {
  private readonly handle: EngineTcp;
  private readonly options: TcpOptions;
  /** Bytes of the turn that have not been handed to the engine. */
  private gather: Uint8Array;
  private gathered: number;
  /** Bytes the engine has and the network has not. */
  private sending: number;
  private isListed: boolean;
  /** What has come and was not handed over, oldest first. */
  private readonly kept: EngineBuffer[];
  private keptBytes: number;
  /** Bytes of the oldest that were handed over. */
  private keptAt: number;
  private lent: Uint8Array | undefined;
  private reading: boolean;
  private resuming: boolean;
  /** Nothing more is written. */
  private isEnding: boolean;
  private hasShut: boolean;
  /** The other side has ended its half. */
  private hasHeardEnd: boolean;
  private isClosing: boolean;
  private fault: string;
  private linger: unknown;

  constructor(options: TcpOptions) {
    this.options = options;
    this.handle = (options.from as Accepted).handle;
    this.gather = new Uint8Array(GATHER_BYTES_MIN);
    this.gathered = 0;
    this.sending = 0;
    this.isListed = false;
    this.kept = [];
    this.keptBytes = 0;
    this.keptAt = 0;
    this.lent = undefined;
    this.reading = true;
    this.resuming = false;
    this.isEnding = false;
    this.hasShut = false;
    this.hasHeardEnd = false;
    this.isClosing = false;
    this.fault = "";
    this.linger = undefined;
    this.handle.owner = this;
    this.handle.onread = (_owner, count, isEnd, bytes) => this.onRead(count, isEnd, bytes);
    this.handle.onclose = () => this.onClosed();
    this.handle.readStart();
  }

  private onRead(count: number, isEnd: boolean, bytes: EngineBuffer): void {
    if (this.isClosing) return;
    if (isEnd) {
      this.hasHeardEnd = true;
      // Whoever ends its half is done with us: answers to it would reach nobody.
      if (this.keptBytes === 0) this.finish();
    } else if (count < 0) {
      this.fail(Tcp.errname(count));
    } else if (!this.isEnding) {
      this.kept.push(bytes);
      this.keptBytes += bytes.length;
      this.handOver();
      if (this.keptBytes > this.options.readBytes + 2 * CHUNK_BYTES_MAX) {
        this.fail("it went on sending while it was not read from");
      }
    }
  }

  private handOver(): void {
    while (this.reading && this.keptBytes > 0 && !this.isEnding) {
      const oldest = this.kept[0]!;
      const rest = oldest.length - this.keptAt;
      const count = rest < PIECE_BYTES ? rest : PIECE_BYTES;
      copyBytes(oldest, this.keptAt, this.keptAt + count, piece);
      this.keptAt += count;
      this.keptBytes -= count;
      if (this.keptAt === oldest.length) {
        this.kept.shift();
        this.keptAt = 0;
      }
      this.lent = piece.subarray(0, count);
      this.options.onReadable(count);
      this.lent = undefined;
    }
    if (this.hasHeardEnd && this.keptBytes === 0) this.finish();
  }

  read(): Uint8Array | undefined {
    return this.lent;
  }

  write(bytes: Uint8Array): number {
    if (this.isEnding) return 0;
    const needed = this.gathered + bytes.length;
    if (needed > this.gather.length) {
      const larger = new Uint8Array(needed > 2 * this.gather.length ? needed : 2 * needed);
      larger.set(this.gather.subarray(0, this.gathered), 0);
      this.gather = larger;
    }
    this.gather.set(bytes, this.gathered);
    this.gathered = needed;
    if (!this.isListed && needed > 0) {
      this.isListed = true;
      if (toFlush.length === 0) setImmediate(flushAll);
      toFlush.push(this);
    }
    return this.gathered + this.sending;
  }

  /** Hands what was gathered to the engine. */
  flush(): void {
    this.isListed = false;
    if (this.isClosing || this.gathered === 0) return;
    const count = this.gathered;
    const buffer = bufferOf(this.gather, count);
    this.gathered = 0;
    if (this.gather.length > 4 * GATHER_BYTES_MIN) this.gather = new Uint8Array(GATHER_BYTES_MIN);
    this.sending += count;
    // The engine does not keep the buffer alive: this does.
    const status = this.handle.write(buffer, (failed) => this.onSent(buffer.length, failed));
    if (status !== 0) this.fail(Tcp.errname(status));
  }

  private onSent(count: number, status: number): void {
    this.sending -= count;
    if (this.isClosing) return;
    if (status !== 0) {
      this.fail(Tcp.errname(status));
    } else if (this.sending === 0 && this.gathered === 0) {
      if (this.isEnding) this.shut();
      else this.options.onWritable();
    }
  }

  pending(): number {
    return this.gathered + this.sending;
  }

  setReading(on: boolean): void {
    if (this.reading === on) return;
    this.reading = on;
    if (!on || this.resuming || this.keptBytes === 0) return;
    this.resuming = true;
    setImmediate(() => {
      this.resuming = false;
      if (!this.isClosing) this.handOver();
    });
  }

  end(): void {
    if (this.isEnding || this.isClosing) return;
    this.flush();
    if (this.isClosing) return;
    this.isEnding = true;
    this.dropKept();
    this.linger = setTimeout(() => this.close(), LINGER_MS);
    if (this.sending === 0) this.shut();
  }

  private shut(): void {
    if (this.hasShut || this.isClosing) return;
    this.hasShut = true;
    const status = this.handle.shutdown(() => {
      if (this.hasHeardEnd) this.close();
    });
    if (status !== 0) this.close();
  }

  /** The other side has ended, and all it had sent was handed over. */
  private finish(): void {
    if (this.hasShut) this.close();
    else this.end();
  }

  private fail(reason: string): void {
    if (this.fault === "") this.fault = reason;
    this.close();
  }

  private dropKept(): void {
    while (this.kept.length > 0) this.kept.pop();
    this.keptBytes = 0;
    this.keptAt = 0;
  }

  close(): void {
    if (this.isClosing) return;
    this.isClosing = true;
    this.isEnding = true;
    this.dropKept();
    if (this.linger !== undefined) clearTimeout(this.linger as number);
    this.linger = undefined;
    this.handle.close();
  }

  private onClosed(): void {
    // The engine's handle and this hold each other.
    this.handle.owner = undefined;
    this.handle.onread = ignore;
    this.handle.onclose = ignore;
    this.options.onError(this.fault);
  }
}

class JerryListener implements Listener {
  readonly port: number;
  private readonly handle: EngineTcp;
  private readonly waiting: Accepted[];
  private open: boolean;

  constructor(options: ListenerOptions) {
    this.waiting = [];
    this.open = true;
    this.handle = new Tcp();
    this.handle.createTCP = () => new Tcp();
    this.handle.onconnection = (status, client) => {
      if (status !== 0) {
        options.onError(Tcp.errname(status));
        return;
      }
      this.waiting.push(new Accepted(client));
      options.onReadable(this.waiting.length);
    };
    let status = this.handle.bind(options.host, options.port);
    if (status === 0) status = this.handle.listen(BACKLOG);
    if (status !== 0) {
      this.handle.close();
      throw new Error(Tcp.errname(status));
    }
    const name = { port: options.port };
    this.handle.getsockname(name);
    this.port = name.port;
  }

  read(): PendingConnection | undefined {
    return this.waiting.shift();
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.handle.close();
    while (this.waiting.length > 0) this.waiting.pop()!.handle.close();
  }
}

/** Opens a port. @throws when it cannot be had, with the error's name (EADDRINUSE) */
export function listenTcp(options: ListenerOptions): Listener {
  return new JerryListener(options);
}

export function adoptTcp(options: TcpOptions): TcpSocket {
  return new JerrySocket(options);
}
