/**
 * A serial line on Node: the device as a terminal in raw mode, with its speed set by `stty`.
 *
 * Node's own terminal handle does what is needed without native code: it never blocks the loop, works on UARTs, USB
 * adapters and pseudo terminals, and says when the other end is gone. Only the speed it cannot set; `stty` is on every
 * Linux. A device that is not there, or goes away, is tried again.
 */
import { execFile } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { isatty, ReadStream } from "node:tty";
import type { Serial, SerialOptions } from "../hal.js";

/** Bytes that may wait for the line; what does not fit is refused, since an old poll is worth nothing. */
const WAITING_BYTES_MAX = 4096;
const RETRY_MS = 500;
const STTY_MS = 2000;

/** Without O_NONBLOCK the open would wait for a modem's carrier. */
const FLAGS = constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK;

class NodeSerial implements Serial {
  private stream: ReadStream | undefined;
  private chunk: Uint8Array | undefined;
  private closed = false;
  private said = "";
  private retry: NodeJS.Timeout | undefined;

  constructor(private readonly options: SerialOptions) {
    this.open();
  }

  private open(): void {
    const { device, baud } = this.options;
    const settings = [String(baud), "raw", "-echo", "clocal", "-crtscts", "-hupcl"];
    execFile("stty", ["-F", device, ...settings], { timeout: STTY_MS }, (error) => {
      if (this.closed) return;
      if (error !== null) this.failed(`${device}: ${error.message.trim().split("\n").pop()}`);
      else this.adopt();
    });
  }

  private adopt(): void {
    const { device, onReadable } = this.options;
    let fd: number | undefined;
    try {
      fd = openSync(device, FLAGS);
      if (!isatty(fd)) throw new Error("not a serial device");
      const stream = new ReadStream(fd);
      stream.setRawMode(true);
      this.stream = stream;
      stream.on("data", (bytes: Buffer) => {
        if (this.closed || this.stream !== stream) return;
        // Something is heard: what fails next is worth saying again.
        this.said = "";
        this.chunk = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
        onReadable(bytes.length);
        this.chunk = undefined;
      });
      stream.on("error", (error) => this.ended(stream, error.message));
      stream.on("close", () => this.ended(stream, "the device has gone"));
    } catch (error) {
      if (fd !== undefined && this.stream === undefined) closeSync(fd);
      this.failed(`${device}: ${(error as Error).message}`);
    }
  }

  private ended(stream: ReadStream, reason: string): void {
    if (this.stream !== stream) return;
    this.stream = undefined;
    stream.destroy();
    if (!this.closed) this.failed(`${this.options.device}: ${reason}`);
  }

  private failed(reason: string): void {
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.open(), RETRY_MS);
    this.retry.unref();
    // The same trouble every half second is said once.
    if (reason !== this.said) this.options.onError(reason);
    this.said = reason;
  }

  read(): Uint8Array | undefined {
    return this.chunk;
  }

  write(bytes: Uint8Array): boolean {
    const { stream } = this;
    if (stream === undefined || stream.writableLength + bytes.length > WAITING_BYTES_MAX) {
      return false;
    }
    // The bytes leave later than this call returns.
    stream.write(Buffer.from(bytes));
    return true;
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.retry);
    const { stream } = this;
    this.stream = undefined;
    stream?.destroy();
  }
}

/** Opens a serial line, now or as soon as the device is there. */
export function openSerial(options: SerialOptions): Serial {
  return new NodeSerial(options);
}
