/**
 * A store in memory with the semantics of the one on disk, for tests and the simulator.
 *
 * Nothing happens on its own: a commit stays pending until `flush` is called, and `crash` gives what a
 * restarted machine would find. Tables are chunked sorted arrays that are shared between snapshots and
 * copied on write, so remembering the state of every pending commit costs little.
 */
import type { RangeEntry, Snapshot, Store, StoreWriter, Table } from "../core/store.js";

/** Keys in a chunk before it is split. */
const CHUNK_KEYS_MAX = 32;

export interface MemoryStoreOptions {
  durability?: "disk" | "memory";
  /** When a commit is seen by `get`: at once, or only when it is done. Default: at once. */
  visible?: "at-once" | "at-done";
  /** Called after each commit; a test passes `(flush) => setImmediate(flush)`. Default: nobody flushes. */
  schedule?: (flush: () => void) => void;
  /** Commits that would use more fail as on a full disk; 0: no limit. @unit bytes */
  limitBytes?: number;
}

export interface MemoryStore extends Store {
  /** Finishes up to `count` pending commits, oldest first. @returns how many it finished. */
  flush(count?: number): number;
  pendingCommits(): number;
  /** The oldest pending commit ends with this error when flushed, and the store takes nothing more. */
  failNext(error: Error): void;
  /**
   * What is left after a crash; this store is dead from here on.
   * `power`: what was flushed. `kill`: that, and the first `inFlight` pending commits (all by default
   * with durability `memory`, where a commit is in the operating system's hands at once).
   */
  crash(kind: "power" | "kill", inFlight?: number): MemoryStore;
}

interface Chunk {
  keys: string[];
  values: Uint8Array[];
  /** Which table image may change this chunk in place. */
  owner: number;
}

interface Image {
  chunks: Record<Table, Chunk[]>;
  counts: Record<Table, number>;
  bytes: number;
}

interface Commit {
  /** The image this commit leads to. */
  image: Image;
  done: (error: Error | undefined) => void;
  urgent: boolean;
  error: Error | undefined;
}

let owners = 0;

export function createMemoryStore(options: MemoryStoreOptions = {}): MemoryStore {
  return build(emptyImage(), options);
}

function emptyImage(): Image {
  return {
    chunks: { data: [], field: [], expiry: [], log: [], meta: [] },
    counts: { data: 0, field: 0, expiry: 0, log: 0, meta: 0 },
    bytes: 0,
  };
}

function copyImage(image: Image): Image {
  // Written out: this is done for every commit of the simulator.
  const { chunks, counts } = image;
  return {
    chunks: {
      data: chunks.data.slice(),
      field: chunks.field.slice(),
      expiry: chunks.expiry.slice(),
      log: chunks.log.slice(),
      meta: chunks.meta.slice(),
    },
    counts: {
      data: counts.data,
      field: counts.field,
      expiry: counts.expiry,
      log: counts.log,
      meta: counts.meta,
    },
    bytes: image.bytes,
  };
}

function build(start: Image, options: MemoryStoreOptions): MemoryStore {
  const durable = (options.durability ?? "disk") === "disk";
  const atOnce = (options.visible ?? "at-once") === "at-once";
  const limitBytes = options.limitBytes ?? 0;
  /** State with every accepted commit; what the next one builds on. */
  let newest = start;
  /** State of the finished commits. */
  let finished = start;
  let flushed = start;
  let pending: Commit[] = [];
  let failure: Error | undefined;
  let dead = false;
  let failWith: Error | undefined;

  const visible = (): Image => (atOnce ? newest : finished);

  function commit(
    fill: (writer: StoreWriter) => void,
    done: (error: Error | undefined) => void,
    urgent: boolean,
  ): void {
    if (dead) return;
    const entry: Commit = { image: newest, done, urgent, error: failure };
    pending.push(entry);
    if (failure === undefined) {
      const image = copyImage(newest);
      try {
        fill(writerOf(image, ++owners));
        if (limitBytes > 0 && image.bytes > limitBytes) {
          throw new Error(`the store is full: ${image.bytes} of ${limitBytes} bytes used`);
        }
        newest = image;
        entry.image = image;
      } catch (error) {
        entry.error = error instanceof Error ? error : new Error(String(error));
        failure = entry.error;
      }
    }
    if (options.schedule !== undefined) options.schedule(() => void flush(1));
  }

  function flush(count = Infinity): number {
    let finishedNow = 0;
    while (finishedNow < count && pending.length > 0 && !dead) {
      const entry = pending.shift()!;
      finishedNow++;
      if (failWith !== undefined && entry.error === undefined) {
        failure = failWith;
        failWith = undefined;
        entry.error = failure;
        for (const later of pending) later.error = failure;
      }
      if (entry.error === undefined) {
        finished = entry.image;
        if (durable || entry.urgent) flushed = entry.image;
      }
      entry.done(entry.error);
    }
    return finishedNow;
  }

  return {
    get: (table, key) => getIn(visible(), table, latin1(key)),
    range: (table, from, to, limit, reverse) =>
      rangeIn(visible(), table, from, to, limit, reverse === true),
    count: (table) => visible().counts[table],
    commit,
    flush,
    pendingCommits: () => pending.length,
    failNext(error) {
      failWith = error;
    },
    snapshot(): Snapshot {
      const image = visible();
      return {
        get: (table, key) => getIn(image, table, latin1(key)),
        range: (table, from, to, limit) => rangeIn(image, table, from, to, limit, false),
        keys: (table, from, to, limit) =>
          rangeIn(image, table, from, to, limit, false).map((entry) => entry.key),
        close() {},
      };
    },
    crash(kind, inFlight) {
      dead = true;
      let image = flushed;
      if (kind === "kill") {
        image = finished;
        const kept = inFlight ?? (durable ? 0 : pending.length);
        for (let i = 0; i < kept && i < pending.length; i++) {
          if (pending[i]!.error !== undefined) break;
          image = pending[i]!.image;
        }
      }
      pending = [];
      return build(image, options);
    },
    usage: () => ({ usedBytes: visible().bytes, limitBytes }),
    backup: () => Promise.reject(new Error("a store in memory has no directory to back up")),
    close() {
      dead = true;
      return Promise.resolve();
    },
  };
}

function writerOf(image: Image, owner: number): StoreWriter {
  return {
    put(table, key, value) {
      if (key.length === 0) throw new Error("an empty key");
      putIn(image, table, owner, latin1(key), copyOf(value));
    },
    del(table, key) {
      delIn(image, table, owner, latin1(key));
    },
    clear(table) {
      for (const chunk of image.chunks[table]) {
        for (let i = 0; i < chunk.keys.length; i++) {
          image.bytes -= chunk.keys[i]!.length + chunk.values[i]!.length;
        }
      }
      image.chunks[table] = [];
      image.counts[table] = 0;
    },
  };
}

/** Index of the last chunk whose first key is <= key; 0 when there is none. */
function chunkOf(chunks: Chunk[], key: string): number {
  let low = 0;
  let high = chunks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (chunks[middle]!.keys[0]! <= key) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Index of the first key >= key. */
function lowerBound(keys: string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keys[middle]! < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

function getIn(image: Image, table: Table, key: string): Uint8Array | undefined {
  const chunks = image.chunks[table];
  if (chunks.length === 0) return undefined;
  const chunk = chunks[chunkOf(chunks, key)]!;
  const at = lowerBound(chunk.keys, key);
  return chunk.keys[at] === key ? chunk.values[at] : undefined;
}

function own(chunks: Chunk[], index: number, owner: number): Chunk {
  let chunk = chunks[index]!;
  if (chunk.owner !== owner) {
    chunk = { keys: chunk.keys.slice(), values: chunk.values.slice(), owner };
    chunks[index] = chunk;
  }
  return chunk;
}

function putIn(image: Image, table: Table, owner: number, key: string, value: Uint8Array): void {
  const chunks = image.chunks[table];
  if (chunks.length === 0) {
    chunks.push({ keys: [key], values: [value], owner });
    image.counts[table]++;
    image.bytes += key.length + value.length;
    return;
  }
  const index = chunkOf(chunks, key);
  const chunk = own(chunks, index, owner);
  const at = lowerBound(chunk.keys, key);
  if (chunk.keys[at] === key) {
    image.bytes += value.length - chunk.values[at]!.length;
    chunk.values[at] = value;
    return;
  }
  chunk.keys.splice(at, 0, key);
  chunk.values.splice(at, 0, value);
  image.counts[table]++;
  image.bytes += key.length + value.length;
  if (chunk.keys.length > CHUNK_KEYS_MAX) {
    // Appends leave full chunks behind rather than half-empty ones.
    const cut = at === chunk.keys.length - 1 ? CHUNK_KEYS_MAX : chunk.keys.length >> 1;
    const tail = { keys: chunk.keys.splice(cut), values: chunk.values.splice(cut), owner };
    chunks.splice(index + 1, 0, tail);
  }
}

function delIn(image: Image, table: Table, owner: number, key: string): void {
  const chunks = image.chunks[table];
  if (chunks.length === 0) return;
  const index = chunkOf(chunks, key);
  const found = lowerBound(chunks[index]!.keys, key);
  if (chunks[index]!.keys[found] !== key) return;
  const chunk = own(chunks, index, owner);
  image.bytes -= key.length + chunk.values[found]!.length;
  image.counts[table]--;
  chunk.keys.splice(found, 1);
  chunk.values.splice(found, 1);
  if (chunk.keys.length === 0) chunks.splice(index, 1);
}

function rangeIn(
  image: Image,
  table: Table,
  from: Uint8Array,
  to: Uint8Array | undefined,
  limit: number,
  reverse: boolean,
): RangeEntry[] {
  const chunks = image.chunks[table];
  const entries: RangeEntry[] = [];
  if (chunks.length === 0 || limit <= 0) return entries;
  const low = latin1(from);
  const high = to === undefined ? undefined : latin1(to);
  if (!reverse) {
    for (let c = chunkOf(chunks, low); c < chunks.length; c++) {
      const { keys, values } = chunks[c]!;
      for (let i = lowerBound(keys, low); i < keys.length; i++) {
        if (high !== undefined && keys[i]! >= high) return entries;
        entries.push({ key: bytesOf(keys[i]!), value: values[i]! });
        if (entries.length >= limit) return entries;
      }
    }
    return entries;
  }
  for (let c = high === undefined ? chunks.length - 1 : chunkOf(chunks, high); c >= 0; c--) {
    const { keys, values } = chunks[c]!;
    let i = (high === undefined ? keys.length : lowerBound(keys, high)) - 1;
    for (; i >= 0; i--) {
      if (keys[i]! < low) return entries;
      entries.push({ key: bytesOf(keys[i]!), value: values[i]! });
      if (entries.length >= limit) return entries;
    }
  }
  return entries;
}

/** Small values lie in common blocks: a buffer for each costs several times the copy. */
const BLOCK_BYTES = 1 << 15;
let block = new Uint8Array(BLOCK_BYTES);
let blockUsed = 0;

function copyOf(value: Uint8Array): Uint8Array {
  const count = value.length;
  if (count > BLOCK_BYTES >> 4) return value.slice();
  if (blockUsed + count > BLOCK_BYTES) {
    block = new Uint8Array(BLOCK_BYTES);
    blockUsed = 0;
  }
  const copy = new Uint8Array(block.buffer, blockUsed, count);
  blockUsed += count;
  if (count > 256) copy.set(value);
  else for (let i = 0; i < count; i++) copy[i] = value[i]!;
  return copy;
}

function latin1(bytes: Uint8Array): string {
  return Buffer.prototype.latin1Slice.call(bytes, 0, bytes.length);
}

function bytesOf(key: string): Uint8Array {
  const bytes = new Uint8Array(key.length);
  for (let i = 0; i < key.length; i++) bytes[i] = key.charCodeAt(i);
  return bytes;
}
