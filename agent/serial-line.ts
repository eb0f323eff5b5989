/**
 * The serial line to the controller: a second path for its polls, and for the record when the network is gone.
 *
 * The device is a terminal in raw mode, its speed set by `stty`; one that is not there, or goes away, is tried
 * again. The line only carries: what comes is the core's business.
 */
import { execFile } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { isatty, ReadStream } from "node:tty";
import { crc32 as zlibCrc32 } from "node:zlib";
import { FRAME_DATAGRAM, FRAME_SEALED, HEADER_BYTES, frameOf } from "../protocol/frame.js";
import { SIDE_CONTROLLER, SIDE_OTHER, SerialDecoder, encodeSerial } from "../protocol/serial.js";
import type { SerialCounts } from "../protocol/serial.js";

/** Bytes that may wait for the line; what does not fit is left out, since an old answer is worth nothing. */
const WAITING_BYTES_MAX = 4096;
const RETRY_MS = 500;
const STTY_MS = 2000;
/** Without O_NONBLOCK the open would wait for a modem's carrier. */
const FLAGS = constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK;

function crc32(bytes: Uint8Array, start: number, end: number): number {
  return zlibCrc32(bytes.subarray(start, end));
}

/** What the line brings. */
export interface SerialLineEvents {
  onPoll(line: SerialLine, bytes: Uint8Array): void;
  onSealed(payload: Uint8Array): void;
  onError(reason: string): void;
}

export class SerialLine {
  private stream: ReadStream | undefined;
  private closed = false;
  private said = "";
  private seq = 0;
  private retry: NodeJS.Timeout | undefined;
  private readonly decoder: SerialDecoder;

  constructor(
    private readonly device: string,
    private readonly baud: number,
    private readonly events: SerialLineEvents,
  ) {
    this.decoder = new SerialDecoder(SIDE_CONTROLLER, crc32, (bytes, start, end) => {
      const payload = bytes.slice(start + HEADER_BYTES, end);
      const type = bytes[start]! & 15;
      if (type === FRAME_DATAGRAM) events.onPoll(this, payload);
      else if (type === FRAME_SEALED) events.onSealed(payload);
    });
    this.open();
  }

  /** What the line has brought so far. */
  counts(): SerialCounts {
    return this.decoder.counts;
  }

  private open(): void {
    const settings = [String(this.baud), "raw", "-echo", "clocal", "-crtscts", "-hupcl"];
    execFile("stty", ["-F", this.device, ...settings], { timeout: STTY_MS }, (error) => {
      if (this.closed) return;
      if (error !== null) this.failed(error.message.trim().split("\n").pop()!);
      else this.adopt();
    });
  }

  private adopt(): void {
    let fd: number | undefined;
    try {
      fd = openSync(this.device, FLAGS);
      if (!isatty(fd)) throw new Error("not a serial device");
      const stream = new ReadStream(fd);
      stream.setRawMode(true);
      this.stream = stream;
      stream.on("data", (bytes: Buffer) => {
        if (this.closed || this.stream !== stream) return;
        // Something is heard: what fails next is worth saying again.
        this.said = "";
        this.decoder.feed(
          new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length),
          0,
          bytes.length,
        );
      });
      stream.on("error", (error) => this.ended(stream, error.message));
      stream.on("close", () => this.ended(stream, "the device has gone"));
    } catch (error) {
      if (fd !== undefined && this.stream === undefined) closeSync(fd);
      this.failed((error as Error).message);
    }
  }

  private ended(stream: ReadStream, reason: string): void {
    if (this.stream !== stream) return;
    this.stream = undefined;
    stream.destroy();
    if (!this.closed) this.failed(reason);
  }

  private failed(reason: string): void {
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.open(), RETRY_MS);
    this.retry.unref();
    // The same trouble every half second is said once.
    if (reason !== this.said) this.events.onError(`${this.device}: ${reason}`);
    this.said = reason;
  }

  /** Sends one datagram, or loses it. */
  send(datagram: Uint8Array): void {
    const { stream } = this;
    if (stream === undefined) return;
    const frame = frameOf(FRAME_DATAGRAM, 0, 0, datagram);
    // In the form the controller speaks.
    const { form } = this.decoder;
    const bytes = encodeSerial(form, SIDE_OTHER, this.seq, frame, 0, frame.length, crc32);
    if (stream.writableLength + bytes.length > WAITING_BYTES_MAX) return;
    this.seq = (this.seq + 1) & 255;
    stream.write(bytes);
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.retry);
    const { stream } = this;
    this.stream = undefined;
    stream?.destroy();
  }
}
