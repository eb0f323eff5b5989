/**
 * The hardware as the firmware may use it, in the manner of ECMA-419: options come in as one object,
 * callbacks come in with the options and only say "look again", `close` frees and may be called twice.
 *
 * Callbacks are never called from inside a call of the same object. Two habits of the standard are widened for
 * speed: `read` lends the driver's own buffer instead of making a new one, and `write` says by `pending`
 * whether the bytes it was given are still in use.
 */

/** A connection that a listener has accepted and nobody has adopted yet; opaque to the firmware. */
export interface PendingConnection {
  readonly from: string;
}

/** A connection as its engine has it, where bytes are texts: for whoever takes chunks before the ordinary way (firmware/fast-path.ts). */
export interface RawTcp {
  readonly socket: {
    /** Adds to what waits to be sent; what the text's bytes are now is sent. */
    write(text: string): unknown;
    /** What waits to be sent; undefined when nothing does. */
    dSnd?: string;
  };
  /** The way a chunk goes otherwise: kept, announced by onReadable. */
  ordinary(text: string): void;
  /** Nothing is kept unread, and reading is on. */
  isIdle(): boolean;
}

/** What a TCP connection needs to know. */
export interface TcpOptions {
  from: PendingConnection;
  /** Most bytes handed over at once. */
  readBytes: number;
  /** `count` bytes can be read now. They are lost to whoever does not read them before it returns. */
  onReadable(count: number): void;
  /** Everything written has gone to the network, after a write that it could not take at once. */
  onWritable(): void;
  /** The connection has ended, by either side or by an error ("" when it was closed in order). Called once, last. */
  onError(reason: string): void;
  /** Where bytes come as texts: makes the handler that gets them first. Elsewhere it is not asked. */
  tap?: ((raw: RawTcp) => (text: string) => void) | undefined;
}

/** A TCP connection. Nagle is off: what is written leaves at once. */
export interface TcpSocket {
  /** @returns a buffer whose first `count` bytes are those just announced, valid until onReadable returns; undefined when there is nothing */
  read(): Uint8Array | undefined;
  /**
   * Hands bytes to the network; takes all of them.
   * @returns bytes the network has not taken yet; when it is not 0 the buffer is in use until onWritable
   */
  write(bytes: Uint8Array): number;
  /** Bytes taken that the network has not. */
  pending(): number;
  /** Takes no more bytes from the network until `on` again, so that the sender has to wait. */
  setReading(on: boolean): void;
  /** Ends it after what was written has gone out. */
  end(): void;
  /** Ends it at once. */
  close(): void;
}

/** What a listener needs to know. */
export interface ListenerOptions {
  host: string;
  /** 0: any free one. */
  port: number;
  /** Where a listener serves one connection at a time (W5500): how many of them stand on the port. Default 1. */
  slots?: number;
  onReadable(count: number): void;
  onError(reason: string): void;
}

/** A port where others connect. */
export interface Listener {
  /** The port it really has. */
  readonly port: number;
  read(): PendingConnection | undefined;
  close(): void;
}

/** Datagrams as an engine has them, where bytes are texts: for whoever takes them before the ordinary way (firmware/fast-poll.ts). */
export interface RawDatagram {
  readonly socket: {
    /** Sends one datagram, or loses it. */
    send(text: string, port: number, host: string): void;
  };
  readonly host: string;
  readonly port: number;
  /** The way a datagram goes otherwise: announced by onReadable. */
  ordinary(text: string): void;
}

/** What a datagram socket needs to know: it talks to one address alone. */
export interface DatagramOptions {
  host: string;
  port: number;
  onReadable(bytes: Uint8Array): void;
  /** The address said that nobody listens there. */
  onRefused(): void;
  /** Where bytes come as texts: makes the handler that gets them first. Elsewhere it is not asked. */
  tap?: ((raw: RawDatagram) => (text: string) => void) | undefined;
}

/** Datagrams to and from one address. */
export interface DatagramSocket {
  /** Sends one datagram, or loses it. */
  write(bytes: Uint8Array): void;
  close(): void;
}

/** A serial line as its engine has it, where bytes are texts: for whoever takes them before the ordinary way (firmware/fast-serial.ts). */
export interface RawSerial {
  /** As Serial's. */
  write(text: string): boolean;
  /** The way bytes go otherwise: announced by onReadable. */
  ordinary(text: string): void;
}

/** What a serial line needs to know. */
export interface SerialOptions {
  /** The port, as the home names it: a device's path on Linux. */
  device: string;
  /** @unit bits a second */
  baud: number;
  /** Pins, on a board whose port can be on several. */
  tx?: string | undefined;
  rx?: string | undefined;
  /** The device behind the port, for a board's engine that runs on Linux. */
  path?: string | undefined;
  /** `count` bytes can be read now. They are lost to whoever does not read them before it returns. */
  onReadable(count: number): void;
  /** The port cannot be had, or has gone; the home tries again by itself. */
  onError(reason: string): void;
  /** Where bytes come as texts: makes the handler that gets them first. Elsewhere it is not asked. */
  tap?: ((raw: RawSerial) => (text: string) => void) | undefined;
}

/** A serial line: 8 data bits, no parity, no flow control. */
export interface Serial {
  /** @returns the bytes just announced, valid until onReadable returns; undefined when there are none */
  read(): Uint8Array | undefined;
  /** Takes all of the bytes or none. @returns false when there is no room for them now */
  write(bytes: Uint8Array): boolean;
  close(): void;
}

/** What a pin needs to know. */
export interface DigitalOptions {
  /** The pin, as the home names it. */
  pin: string;
  mode: "input" | "output";
  /** Level of an output from its first moment on. Default 0. */
  initialValue?: 0 | 1;
}

/** A pin. */
export interface Digital {
  /** @returns its level, 0 or 1 */
  read(): number;
  /** @param value 0 or 1 */
  write(value: number): void;
}

/** What a flash held when it was opened. */
export interface FlashContent {
  /** The newest record, as it was given to `write`; undefined when there is none. */
  record: Uint8Array | undefined;
  /** Why what was found cannot be believed; "" when it can. */
  damage: string;
}

/** Putting a flash in order that has no room for its next journal; a power cut meanwhile can lose all it holds. */
export interface Compaction {
  /** It has to be done before long. */
  wanted(): boolean;
  /** A record that was given to `write` waits for it. */
  writeWaits(): boolean;
  /** Does it now, which takes a while, and goes on with the write that waited. */
  carryOut(): void;
}

/** Memory that keeps one record through loss of power, bound to this very board. */
export interface Flash {
  readonly content: FlashContent;
  /** Keeps a record. One at a time; `done` gets "" or why it failed, and is never called inside. */
  write(record: Uint8Array, done: (failure: string) => void): void;
  /** Missing where it is never needed. The flash never does it by itself. */
  readonly compaction?: Compaction;
  close(): void;
}

/** Resets the board when it is not kicked in time. */
export interface Watchdog {
  /** @returns "", or why the board is not well: then it was not kicked, and a reset is due at once */
  kick(): string;
}

/** What a console needs to know. */
export interface ConsoleOptions {
  /** One line as typed, without its end. */
  onLine(line: string): void;
}

/** The line on which a person talks to the board. */
export interface Console {
  /** Prints text; its line ends are "\n". Never waits: what the line cannot take is dropped, and said so. */
  write(text: string): void;
  close(): void;
}

/** Time, and the turns of the home's loop. */
export interface Turns {
  /** @unit ms of a clock that only goes forward, with a fraction */
  now(): number;
  /** Calls `wake` once after `delayMs`, at most a millisecond too early; a second call replaces the first. */
  wakeIn(delayMs: number): void;
  /** Calls `endOfTurn` once, after everything the network has brought in this turn. */
  requestEndOfTurn(): void;
  close(): void;
}

/** What the turns call. */
export interface TurnOptions {
  wake(): void;
  endOfTurn(): void;
}

/** One home's hardware. Constructors throw when the hardware cannot be had. */
export interface Hardware {
  createTurns(options: TurnOptions): Turns;
  adopt(options: TcpOptions): TcpSocket;
  createDatagram(options: DatagramOptions): DatagramSocket;
  /** HMAC-SHA256. */
  hmac(key: Uint8Array, data: Uint8Array): Uint8Array;
}
