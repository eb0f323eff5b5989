/**
 * The embedded store: five tables of one LMDB environment.
 *
 * What lmdb 3.5.6 really does (read from its sources and seen with `strace -f`):
 *
 * - Durability `disk` opens with `overlappingSync` and commits through `batch`. The caller's thread
 *   only writes instructions (about 15 us a commit); a worker thread runs them, commits without a
 *   flush (pwrite of the pages and of the newest meta page: visible to readers from here on), then
 *   fdatasync, then a write of a second, "flushed" meta record through an O_DSYNC descriptor. The
 *   promise settles only after that last write, and rejects when any of these steps failed. After a
 *   power cut the flushed record is the one that is opened (another boot id); after kill -9 the newest
 *   one is. Pages freed since the last flushed state are not reused before the next.
 * - `transactionSync` in that mode, with whatever flags, flushes on the calling thread (500 us and more
 *   of stall), so it is not used there. `transaction(callback)` runs the callback on the main thread
 *   while a worker waits for it; it has been seen to hang after `batch` calls. Neither is used.
 * - Durability `memory` opens with `noSync`. A short transaction goes through `transactionSync`: pages and meta
 *   are written to the page cache with pwrite on the calling thread (about 20 us for one log chunk). Every
 *   random key of a store with a million keys costs 13 us, so a longer one goes through `batch` (1 us a key
 *   here, the rest on the worker; at least 60 us until it is done). Either survives kill -9, in order. An
 *   urgent commit is followed by fdatasync on a pool thread. A power cut can leave such a file unreadable as a whole: that
 *   is why an agent with durability `memory` must not open it after another boot without a clean `close`.
 * - A write map would make random puts 5 us instead of 13, but a full disk then kills the process
 *   with SIGBUS instead of failing the commit. It is not used.
 * - A byte changed in the file goes unnoticed, so every row carries a checksum (checked-row.ts).
 * - lmdb grows its map by itself, whatever size is named, so a map size is no limit: `limitBytes` is checked
 *   before every commit. A large sparse map is named, because growing means mapping anew.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { open } from "lmdb";
import type { Database, RootDatabase, RootDatabaseOptionsWithPath } from "lmdb";
import type { RangeEntry, Snapshot, Store, StoreWriter, Table } from "../core/store.js";
import { CHECK_BYTES, openRow, sealRow } from "./checked-row.js";

export type Durability = "disk" | "memory";

export interface LmdbOptions {
  directory: string;
  durability: Durability;
  /** A commit is refused when the file is this large. Default: as much as the disk has. @unit bytes */
  limitBytes?: number;
}

/** Address space set aside for the map; nothing is allocated by it. @unit bytes */
const MAP_BYTES = 2 ** 40;
const PAGE_BYTES = 4096;
/** What lmdb takes with pages of 4 KB. @unit bytes */
const KEY_BYTES_MAX = 1978;
/** With durability `memory` a longer transaction is left to a worker thread. */
const SYNC_STEPS_MAX = 32;
/** Clearing a large table makes some later commits slow, too (30 ms for a million keys): all that is the worker's. */
const COMMITS_AFTER_CLEAR = 10;
/** Less room than this is none. @unit bytes */
const FULL_BYTES = 1024 * 1024;
/**
 * Free pages lmdb keeps at hand. Its own 50000 are written back with every commit: after a FLUSHDB of a
 * million keys each commit took 9 ms, and 1.7 ms after random writes; so it is 70 us.
 */
const FREE_PAGES_LOADED = 1000;
/** Values at most this long are copied into shared slabs. @unit bytes */
const SLAB_VALUE_MAX = 4096;
const SLAB_BYTES = 65536;

/** Rows with a checksum; those of format 1 had none. */
const FORMAT = 2;
const FORMAT_KEY = Uint8Array.of(1);

const TABLES: readonly Table[] = ["data", "field", "expiry", "log", "meta"];

type Db = Database<Uint8Array, Uint8Array>;

/** What lmdb has but does not put in its types. */
interface RootExtras {
  sync(callback: (error?: Error) => void): void;
  useReadTransaction(): { done(): void };
  env: { info(): { lastPageNumber: number } };
}

type Backup = (path: string, compact: boolean) => Promise<void>;

interface TableExtras {
  getBinary(key: Uint8Array, options?: object): Buffer | undefined;
  ensureReadTxn(): void;
  db: { stat(): { entryCount: number } };
}

interface Step {
  table: Table;
  /** Undefined: the whole table is cleared. */
  key: Uint8Array | undefined;
  /** Undefined: the key is removed. */
  value: Uint8Array | undefined;
}

interface Pending {
  settled: boolean;
  error: Error | undefined;
  done: (error: Error | undefined) => void;
}

/**
 * Opens (or makes) a store.
 * @throws when the directory cannot be used or its content is not a store
 */
export function openLmdbStore(options: LmdbOptions): Store {
  const { directory, durability } = options;
  const limitBytes = options.limitBytes ?? 0;
  mkdirSync(directory, { recursive: true });
  const binary = { encoding: "binary", keyEncoding: "binary" } as const;
  const opened: unknown = open({
    path: directory,
    noSubdir: false,
    mapSize: MAP_BYTES,
    maxDbs: 8,
    // Urgent readers of a restarted process must not find stale reader slots in the way.
    maxReaders: 64,
    maxFreeSpaceToLoad: FREE_PAGES_LOADED,
    maxFreeSpaceToRetain: FREE_PAGES_LOADED * 1.5,
    eventTurnBatching: false,
    txnStartThreshold: 1,
    ...(durability === "memory"
      ? { noSync: true, overlappingSync: false }
      : { overlappingSync: true }),
    ...binary,
  } as unknown as RootDatabaseOptionsWithPath);
  const root = opened as RootDatabase<Uint8Array, Uint8Array> & RootExtras;
  const dbs = {} as Record<Table, Db>;
  for (const table of TABLES) {
    dbs[table] = root.openDB<Uint8Array, Uint8Array>({ name: table, ...binary });
  }
  checkFormat();

  const pending: Pending[] = [];
  let failure: Error | undefined;
  let closed = false;
  /** Batches under way; what comes while there is one must queue behind it. */
  let inBatches = 0;
  let commitsAfterClear = 0;
  let slab = new Uint8Array(SLAB_BYTES);
  let slabUsed = 0;

  function checkFormat(): void {
    const formats = root.openDB<Uint8Array, Uint8Array>({ name: "format", ...binary });
    const format = formats.getBinary(FORMAT_KEY);
    if (format?.[0] === FORMAT) return;
    if (format !== undefined || countOf("meta") > 0) {
      const other = format === undefined ? 1 : format[0];
      void root.close();
      throw new Error(
        `${directory} has format ${other}, this build writes format ${FORMAT}: move it away (the server comes back empty and is ` +
          "brought up to date by the other one), or run the build that wrote it",
      );
    }
    root.transactionSync(() => void formats.put(FORMAT_KEY, Buffer.of(FORMAT)));
  }

  function countOf(table: Table): number {
    const db = dbs[table] as Db & TableExtras;
    db.ensureReadTxn();
    return db.db.stat().entryCount;
  }

  /**
   * The worker thread reads keys and values later, so they must not be the caller's reused buffers.
   * @param more bytes of room behind the copy
   */
  function keep(value: Uint8Array, more = 0): Uint8Array {
    const length = value.length + more;
    let copy: Uint8Array;
    if (length > SLAB_VALUE_MAX) {
      copy = new Uint8Array(length);
    } else {
      if (slabUsed + length > SLAB_BYTES) {
        slab = new Uint8Array(SLAB_BYTES);
        slabUsed = 0;
      }
      copy = slab.subarray(slabUsed, slabUsed + length);
      slabUsed += length;
    }
    copy.set(value);
    return copy;
  }

  // A batch cannot be taken back once its instructions are written, so it is written only when `fill`
  // has come to its end and every key is sound.
  const steps: Step[] = [];
  const recorder: StoreWriter = {
    put(table, key, value) {
      checkKey(key);
      const row = keep(value, CHECK_BYTES);
      sealRow(table, key, row);
      steps.push({ table, key: keep(key), value: row });
    },
    del(table, key) {
      checkKey(key);
      steps.push({ table, key: keep(key), value: undefined });
    },
    clear(table) {
      steps.push({ table, key: undefined, value: undefined });
      commitsAfterClear = COMMITS_AFTER_CLEAR;
    },
  };

  function replay(): void {
    for (let i = 0; i < steps.length; i++) {
      const { table, key, value } = steps[i]!;
      if (key === undefined) void dbs[table].clearAsync();
      else if (value === undefined) void dbs[table].remove(key);
      else void dbs[table].put(key, value as Buffer);
    }
    steps.length = 0;
  }

  /** Calls `done` of every commit at the head that has settled, in order. */
  function settle(entry: Pending, error: Error | undefined): void {
    entry.settled = true;
    if (error !== undefined && failure === undefined) failure = explained(error);
    entry.error = error === undefined ? undefined : failure;
    while (pending.length > 0 && pending[0]!.settled) {
      const head = pending.shift()!;
      // A commit behind a failed one is not promised to be on disk, whatever became of it.
      head.done(failure ?? head.error);
    }
  }

  /** A commit that came to nothing on the spot; none after it is taken. */
  function refuse(entry: Pending, error: unknown): void {
    failure = explained(asError(error));
    setImmediate(settle, entry, failure);
  }

  /** lmdb says "Input/output error" for a full disk, too. */
  function explained(error: Error): Error {
    const { usedBytes, limitBytes: limit } = usage();
    const full = limit - usedBytes < FULL_BYTES ? ": the disk is full" : "";
    return new Error(`writing to ${directory} failed${full} (${error.message})`, { cause: error });
  }

  function limitProblem(): Error | undefined {
    const usedBytes = (root.env.info().lastPageNumber + 1) * PAGE_BYTES;
    if (usedBytes < limitBytes) return undefined;
    return new Error(`the store is full: ${usedBytes} of ${limitBytes} bytes used in ${directory}`);
  }

  function usage(): { usedBytes: number; limitBytes: number } {
    const usedBytes = (root.env.info().lastPageNumber + 1) * PAGE_BYTES;
    let limit = limitBytes > 0 ? limitBytes : MAP_BYTES;
    try {
      const fs = statfsSync(directory);
      const free = Number(fs.bavail) * Number(fs.bsize);
      if (usedBytes + free < limit) limit = usedBytes + free;
    } catch {
      // A file system that cannot say how full it is leaves only the configured limit.
    }
    return { usedBytes, limitBytes: limit };
  }

  function commit(
    fill: (writer: StoreWriter) => void,
    done: (error: Error | undefined) => void,
    urgent: boolean,
  ): void {
    const entry: Pending = { settled: false, error: undefined, done };
    pending.push(entry);
    let refusal = failure ?? (closed ? new Error("the store is closed") : undefined);
    if (limitBytes > 0 && refusal === undefined) refusal = limitProblem();
    if (refusal !== undefined) {
      setImmediate(settle, entry, refusal);
      return;
    }
    steps.length = 0;
    try {
      fill(recorder);
      if (commitsAfterClear > 0) commitsAfterClear--;
      else if (durability === "memory" && inBatches === 0 && steps.length <= SYNC_STEPS_MAX) {
        root.transactionSync(replay);
        if (urgent) flushThen(entry);
        else setImmediate(settle, entry, undefined);
        return;
      }
    } catch (error) {
      refuse(entry, error);
      return;
    }
    inBatches++;
    root.batch(replay).then(
      () => {
        inBatches--;
        if (durability === "memory" && urgent) flushThen(entry);
        else settle(entry, undefined);
      },
      (error: unknown) => {
        const inner = (error as { commitError?: Promise<unknown> }).commitError;
        if (inner === undefined) settle(entry, asError(error));
        else
          inner.then(
            () => settle(entry, asError(error)),
            (e: unknown) => settle(entry, asError(e)),
          );
      },
    );
  }

  function flushThen(entry: Pending): void {
    root.sync((error) => settle(entry, error ? asError(error) : undefined));
  }

  function flushAll(): Promise<void> {
    return new Promise((resolve, reject) => {
      root.sync((error) => (error ? reject(asError(error)) : resolve()));
    });
  }

  function rangeOf(
    table: Table,
    from: Uint8Array,
    to: Uint8Array | undefined,
    limit: number,
    reverse: boolean,
    transaction: unknown,
  ): RangeEntry[] {
    const entries: RangeEntry[] = [];
    if (limit <= 0) return entries;
    const options: Record<string, unknown> = reverse
      ? { reverse: true, limit: limit + 1 }
      : { limit };
    if (transaction !== undefined) options["transaction"] = transaction;
    if (reverse) {
      if (to !== undefined) options["start"] = to;
      options["end"] = from.length > 0 ? from : ZERO_KEY;
      options["inclusiveEnd"] = true;
    } else {
      options["start"] = from.length > 0 ? from : ZERO_KEY;
      if (to !== undefined) options["end"] = to;
    }
    for (const { key, value } of dbs[table].getRange(options)) {
      if (reverse && to !== undefined && compareBytes(key, to) >= 0) continue;
      entries.push({ key, value: openRow(table, key, value, directory) });
      if (entries.length === limit) break;
    }
    return entries;
  }

  function get(table: Table, key: Uint8Array, options?: object): Uint8Array | undefined {
    const row = (dbs[table] as Db & TableExtras).getBinary(key, options);
    return row === undefined ? undefined : openRow(table, key, row, directory);
  }

  function snapshot(): Snapshot {
    const transaction = root.useReadTransaction();
    let open = true;
    return {
      get: (table, key) => get(table, key, { transaction }),
      range: (table, from, to, limit) => rangeOf(table, from, to, limit, false, transaction),
      keys(table, from, to, limit) {
        const start = from.length > 0 ? from : ZERO_KEY;
        const options = { start, end: to, limit, transaction } as object;
        return limit > 0 ? [...dbs[table].getKeys(options)] : [];
      },
      close() {
        if (open) transaction.done();
        open = false;
      },
    };
  }

  return {
    get: (table, key) => get(table, key),
    range: (table, from, to, limit, reverse) =>
      rangeOf(table, from, to, limit, reverse === true, undefined),
    count: countOf,
    commit,
    snapshot,
    usage,
    async backup(target) {
      await flushAll();
      mkdirSync(target, { recursive: false });
      await (root.backup as unknown as Backup)(target, false);
      for (const path of [join(target, "data.mdb"), target]) flushFile(path);
    },
    async close() {
      closed = true;
      // What durability `memory` left to the system so far.
      if (failure === undefined) await flushAll();
      const ended = root.close();
      // After a failed commit lmdb waits for it for ever.
      if (failure === undefined) await ended;
      else ended.catch(() => undefined);
    },
  };
}

const ZERO_KEY = Uint8Array.of(0);

function flushFile(path: string): void {
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function checkKey(key: Uint8Array): void {
  if (key.length === 0 || key.length > KEY_BYTES_MAX) {
    throw new Error(`a key of ${key.length} bytes (1 to ${KEY_BYTES_MAX} are possible)`);
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) {
    const d = a[i]! - b[i]!;
    if (d !== 0) return d;
  }
  return a.length - b.length;
}
