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
  // Two at a time: what costs is the call.
  const pairsEnd = start + ((end - start) & ~1);
  let at = 0;
  for (let i = start; i < pairsEnd; i += 2) {
    const pair = buffer.readUInt16LE(i, true);
    into[at] = pair;
    into[at + 1] = pair >> 8;
    at += 2;
  }
  if (pairsEnd < end) into[at] = buffer.readUInt8(pairsEnd, true);
}

/** The bytes of a buffer. */
export function bytesOf(buffer: EngineBuffer): Uint8Array {
  const bytes = new Uint8Array(buffer.length);
  copyBytes(buffer, 0, buffer.length, bytes);
  return bytes;
}
