/**
 * A serial line on IoT.js: the device's file, read and written in the engine's threads.
 *
 * The engine's own `uart` module cannot receive on Linux (it reads from a wrong address) and sends UTF-8 text alone. A
 * file can do both, but neither speed nor raw mode, so the device must be made ready before the engine starts:
 *
 *     stty -F DEVICE 115200 raw -echo clocal -crtscts min 0 time 1
 *
 * `min 0 time 1` ends a read after a tenth of a second without a byte. That keeps threads free for other lines, and lets
 * the engine end: it waits for every read that is under way.
 */
import type { Serial, SerialOptions } from "../hal.js";
import { bufferOf, copyBytes, newBuffer } from "./bytes.js";
import type { EngineFs } from "./engine.js";

declare const engineRequire: (name: string) => unknown;

const READ_BYTES = 1024;
/** Bytes that may wait for the line; what does not fit is refused, since an old poll is worth nothing. */
const WAITING_BYTES_MAX = 4096;
const RETRY_MS = 500;

/** Opens a line, now or as soon as the device is there. The speed is the device's own. */
export function openSerial(options: SerialOptions): Serial {
  const fs = engineRequire("fs") as EngineFs;
  const into = newBuffer(READ_BYTES);
  const chunk = new Uint8Array(READ_BYTES);
  const out = new Uint8Array(WAITING_BYTES_MAX);
  let outCount = 0;
  let sending = false;
  let lent: Uint8Array | undefined = undefined;
  let file = -1;
  let reads = 0;
  let closed = false;
  let said = "";

  /** The same trouble every half second is said once. */
  function failed(reason: string): void {
    drop();
    setTimeout(open, RETRY_MS);
    if (reason !== said) options.onError(options.device + ": " + reason);
    said = reason;
  }

  function drop(): void {
    // A read that is under way keeps its file until it comes back.
    if (file >= 0 && reads === 0) fs.closeSync(file);
    if (reads === 0) file = -1;
    outCount = 0;
  }

  function onRead(error: unknown, count: number): void {
    reads--;
    if (closed) {
      drop();
    } else if (error !== null && error !== undefined) {
      failed("" + error);
    } else {
      if (count > 0) {
        // Something is heard: what fails next is worth saying again.
        said = "";
        copyBytes(into, 0, count, chunk);
        lent = chunk.subarray(0, count);
        options.onReadable(count);
        lent = undefined;
      }
      if (closed) drop();
      else listen();
    }
  }

  function listen(): void {
    reads++;
    fs.read(file, into, 0, READ_BYTES, null, onRead);
  }

  function send(): void {
    if (sending || outCount === 0 || file < 0) return;
    const count = outCount;
    sending = true;
    outCount = 0;
    fs.write(file, bufferOf(out, count), 0, count, null, () => {
      sending = false;
      if (!closed) send();
    });
  }

  function open(): void {
    if (closed) return;
    try {
      file = fs.openSync(options.device, "r+");
    } catch (error) {
      failed("" + error);
      return;
    }
    listen();
  }

  // Not inside this call: what fails is told.
  setTimeout(open, 0);
  return {
    read: () => lent,
    write: (bytes) => {
      if (closed || file < 0 || outCount + bytes.length > WAITING_BYTES_MAX) return false;
      out.set(bytes, outCount);
      outCount += bytes.length;
      send();
      return true;
    },
    close: () => {
      if (closed) return;
      closed = true;
      drop();
    },
  };
}
