/**
 * Memory for commands that may have to be asked again: chunks shared by many commands, each with a
 * count of those that still need it.
 *
 *     chunk  [ hdr GET a | hdr SET b .. | hdr INCR c |      free      ]   live = 3
 *
 * Commands are answered nearly in the order they came, so a chunk empties as a whole and is used
 * again; there is nothing to free a command at a time. Each command has room for a frame header before it
 * and is sent from here, header and payload in one piece.
 */

export interface CommandChunk {
  bytes: Uint8Array;
  used: number;
  live: number;
}

export interface CommandBytes {
  /**
   * A chunk with room for `length` bytes at chunk.used. The caller writes there and then calls `keep`.
   * A long command gets a chunk of its own.
   */
  room(length: number): CommandChunk;
  keep(chunk: CommandChunk, length: number): void;
  release(chunk: CommandChunk): void;
  /** @unit bytes in all chunks in use, full or not */
  total(): number;
}

export function createCommandBytes(chunkBytes: number, spareMax: number): CommandBytes {
  const spare: CommandChunk[] = [];
  let current: CommandChunk = { bytes: new Uint8Array(chunkBytes), used: 0, live: 0 };
  let held = chunkBytes;

  function room(length: number): CommandChunk {
    if (length > chunkBytes >> 1) {
      held += length;
      return { bytes: new Uint8Array(length), used: 0, live: 0 };
    }
    if (current.used + length > chunkBytes) {
      const next = spare.pop();
      if (next === undefined) {
        current = { bytes: new Uint8Array(chunkBytes), used: 0, live: 0 };
        held += chunkBytes;
      } else {
        current = next;
      }
    }
    return current;
  }

  function keep(chunk: CommandChunk, length: number): void {
    chunk.used += length;
    chunk.live++;
  }

  function release(chunk: CommandChunk): void {
    chunk.live--;
    if (chunk.live > 0) return;
    if (chunk.live < 0) throw new Error("assertion failed: command released twice");
    if (chunk === current) {
      chunk.used = 0;
    } else if (chunk.bytes.length === chunkBytes && spare.length < spareMax) {
      chunk.used = 0;
      spare.push(chunk);
    } else {
      held -= chunk.bytes.length;
    }
  }

  function total(): number {
    return held;
  }

  return { room: room, keep: keep, release: release, total: total };
}
