/**
 * A client on a serial line, made to look like a connection: what a programmable controller or a small board speaks.
 *
 *     UART ── packets ──> COMMAND frames ──> core        core ──> REPLY frames ── packets ──> UART
 *
 * A line has no connection and repeats nothing, so there is no handshake, and what the line loses is asked again by the
 * client, under the same number of its session if it is a write. What it has no room for is left out, and counted.
 */
import type {
  Hardware,
  PendingConnection,
  Serial,
  SerialOptions,
  TcpOptions,
  TcpSocket,
} from "../hal/hal.js";
import { HEADER_BYTES } from "../protocol/frame.js";
import {
  SERIAL_FRAME_BYTES_MAX,
  SIDE_CONTROLLER,
  SIDE_OTHER,
  SerialDecoder,
  encodeSerial,
} from "../protocol/serial.js";
import type { Crc32, SerialCounts } from "../protocol/serial.js";

export interface LineClientOptions {
  /** The line; its callbacks are this module's. */
  line: { device: string; baud: number; tx?: string; rx?: string; path?: string };
  openSerial(options: SerialOptions): Serial;
  crc32: Crc32;
  /** The client is here: to be adopted, again after each end of the connection. */
  onClient(pending: PendingConnection): void;
  onError(reason: string): void;
  /** Calls back soon, not from inside. */
  later(call: () => void): void;
}

export interface LineClient {
  /** Opens the line and brings the client. */
  start(): void;
  /** What the line has brought. */
  counts(): SerialCounts;
  /** Reply packets the line had no room for. */
  unsent(): number;
  /** The connection, where `pending` is this line's; undefined when it is another's. */
  adopt(options: TcpOptions): TcpSocket | undefined;
}

/** Opens nothing yet. */
export function createLineClient(options: LineClientOptions): LineClient {
  const pending: PendingConnection = { from: options.line.device };
  let line: Serial | undefined = undefined;
  let user: TcpOptions | undefined = undefined;
  let chunk: Uint8Array | undefined = undefined;
  let reading = true;
  let seq = 0;
  let unsentCount = 0;
  /** A frame of which the beginning has been written. */
  let begun = new Uint8Array(0);

  const decoder = new SerialDecoder(SIDE_OTHER, options.crc32, (bytes, start, end) => {
    if (user === undefined || !reading) return;
    chunk = bytes.slice(start, end);
    user.onReadable(chunk.length);
    chunk = undefined;
  });

  function sendFrame(bytes: Uint8Array, start: number, end: number): void {
    const packet = encodeSerial(
      decoder.form,
      SIDE_CONTROLLER,
      seq,
      bytes,
      start,
      end,
      options.crc32,
    );
    if (line!.write(packet)) seq = (seq + 1) & 255;
    else unsentCount++;
  }

  /** Cuts what is written into frames: writes may hold several, or a part of one. */
  function write(bytes: Uint8Array): void {
    let all = bytes;
    if (begun.length > 0) {
      all = new Uint8Array(begun.length + bytes.length);
      all.set(begun, 0);
      all.set(bytes, begun.length);
    }
    let at = 0;
    while (all.length - at >= HEADER_BYTES) {
      const length = HEADER_BYTES + ((all[at + 2]! << 8) | all[at + 3]!);
      if (length > SERIAL_FRAME_BYTES_MAX) throw new Error("assertion failed: frame of a line");
      if (all.length - at < length) break;
      sendFrame(all, at, at + length);
      at += length;
    }
    begun = all.slice(at, all.length);
  }

  function end(): void {
    const ended = user;
    if (ended === undefined) return;
    user = undefined;
    begun = new Uint8Array(0);
    options.later(() => {
      ended.onError("");
      options.onClient(pending);
    });
  }

  return {
    start: () => {
      line = options.openSerial({
        device: options.line.device,
        baud: options.line.baud,
        tx: options.line.tx,
        rx: options.line.rx,
        path: options.line.path,
        onReadable: (count) => {
          const bytes = line!.read();
          if (bytes !== undefined) decoder.feed(bytes, 0, count);
        },
        onError: options.onError,
      });
      options.onClient(pending);
    },
    counts: () => decoder.counts,
    unsent: () => unsentCount,
    adopt: (with_) => {
      if (with_.from !== pending) return undefined;
      user = with_;
      reading = true;
      return {
        read: () => chunk,
        write: (bytes) => {
          if (user === with_) write(bytes);
          return 0;
        },
        pending: () => 0,
        setReading: (on) => {
          reading = on;
        },
        end: end,
        close: end,
      };
    },
  };
}

/** Hardware that adopts this line's client too. */
export function withLineClient(hardware: Hardware, client: LineClient): Hardware {
  return {
    createTurns: (options) => hardware.createTurns(options),
    adopt: (options) => {
      const own = client.adopt(options);
      return own === undefined ? hardware.adopt(options) : own;
    },
    createDatagram: (options) => hardware.createDatagram(options),
    hmac: (key, data) => hardware.hmac(key, data),
  };
}
