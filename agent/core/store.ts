/**
 * What the agent needs from a disk: five ordered tables and one atomic, ordered, flushed commit.
 *
 * Keys and values are bytes; tables are ordered by unsigned byte comparison of keys. A commit is all
 * or nothing after a crash, and commits survive in order: if a later one is found, so are all earlier.
 */

/** The five ordered tables of a disk. */
export type Table = "data" | "field" | "expiry" | "log" | "meta";

/** Takes copies: what it was given may be changed once the call returns. */
export interface StoreWriter {
  put(table: Table, key: Uint8Array, value: Uint8Array): void;
  del(table: Table, key: Uint8Array): void;
  /** Removes every key of a table. */
  clear(table: Table): void;
}

/** One row of a table. */
export interface RangeEntry {
  key: Uint8Array;
  value: Uint8Array;
}

/** A consistent view of the tables as of the commits that were visible when it was taken. */
export interface Snapshot {
  get(table: Table, key: Uint8Array): Uint8Array | undefined;
  range(table: Table, from: Uint8Array, to: Uint8Array | undefined, limit: number): RangeEntry[];
  /** As range, without reading the values. */
  keys(table: Table, from: Uint8Array, to: Uint8Array | undefined, limit: number): Uint8Array[];
  close(): void;
}

/** The disk as the agent's core may use it. */
export interface Store {
  /**
   * The value of a key, as of the newest visible commit.
   * @returns bytes that stay valid for the caller (a copy, or never written again).
   */
  get(table: Table, key: Uint8Array): Uint8Array | undefined;
  /** Up to `limit` entries with from <= key < to, ascending; `reverse` gives the greatest first. */
  range(
    table: Table,
    from: Uint8Array,
    to: Uint8Array | undefined,
    limit: number,
    reverse?: boolean,
  ): RangeEntry[];
  /** Number of keys in a table. */
  count(table: Table): number;
  /**
   * One atomic transaction. `fill` is called once, inside. `done` is called later, never inside, in the
   * order of commits: without an error once the transaction is flushed (durability `memory`: once it
   * is in the operating system's hands), with an error when it failed; after an error nothing
   * more is accepted. Whether it is visible to `get` before `done` is not promised either way.
   * `urgent` asks for a real flush with any durability (role record and `asked`).
   */
  commit(
    fill: (writer: StoreWriter) => void,
    done: (error: Error | undefined) => void,
    urgent: boolean,
  ): void;
  snapshot(): Snapshot;
  /** @unit bytes on disk in use, and the limit where there is one (0: none). */
  usage(): { usedBytes: number; limitBytes: number };
  /** A consistent copy of the whole store into a directory that does not exist yet. */
  backup(directory: string): Promise<void>;
  close(): Promise<void>;
}
