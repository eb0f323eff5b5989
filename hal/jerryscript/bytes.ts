/** Bytes between the firmware's typed arrays and the engine's buffers, which share no memory. */
import type { EngineBuffer, EngineBuffers } from "./engine.js";

declare const engineRequire: (name: string) => unknown;

const Buffers = engineRequire("buffer") as EngineBuffers;

/** A buffer of `size` bytes, whatever is in them. @param size at least 1 */
export function newBuffer(size: number): EngineBuffer {
  return new Buffers(size);
}

/** A copy of the first `count` bytes, at least one, for the engine. */
export function bufferOf(bytes: Uint8Array, count: number): EngineBuffer {
  return Buffers.from(bytes.buffer, bytes.byteOffset, count);
}

/** Copies buffer[start..end) into the beginning of `into`. */
export function copyBytes(
  buffer: EngineBuffer,
  start: number,
  end: number,
  into: Uint8Array,
): void {
  // What costs is the call, and a buffer gives a byte at a time, or all of them as text: four bytes are eight digits of that.
  const rest = (end - start) & 3;
  const view = new DataView(into.buffer, into.byteOffset);
  const digits = rest === end - start ? "" : buffer.toString("hex", start, end - rest);
  let at = 0;
  for (let i = 0; i < digits.length; i += 8) {
    view.setUint32(at, parseInt(digits.substr(i, 8), 16));
    at += 4;
  }
  for (let i = end - rest; i < end; i++) {
    into[at] = buffer.readUInt8(i, true);
    at++;
  }
}

/** The bytes of a buffer. */
export function bytesOf(buffer: EngineBuffer): Uint8Array {
  const bytes = new Uint8Array(buffer.length);
  copyBytes(buffer, 0, buffer.length, bytes);
  return bytes;
}
