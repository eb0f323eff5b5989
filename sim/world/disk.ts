/**
 * A disk: the memory store with a flush that takes time, stalls, fails, and is cut off by a crash.
 *
 * Commits become durable in order, some time after they were asked for; those asked for while a flush
 * runs share the next one. A crash keeps the flushed ones and some first part of the rest. `done` comes
 * in a later turn of the process, as an event like any other.
 */
import type { Snapshot, Store, StoreWriter, Table } from "../../agent/core/store.js";
import { CHECK_BYTES, openRow, sealRow } from "../../agent/store/checked-row.js";
import type { MemoryStore, MemoryStoreOptions } from "../../agent/store/memory.js";
import { createMemoryStore } from "../../agent/store/memory.js";
import type { Machine } from "./machine.js";
import type { Random } from "./random.js";
import type { World } from "./world.js";

export class Disk {
  /** Names this disk; a replaced, emptied or restored disk has another. @unit 16 bytes */
  identity: Uint8Array;
  /** @unit ms, a flush takes between these */
  flushMinMs = 0.05;
  flushMaxMs = 0.4;
  stalledUntil = 0;
  /** The next flush fails, and with it the store. */
  failNext = false;
  /** No transaction fits any more. */
  full = false;
  flushes = 0;
  /** Durability `memory`: what a process wrote is there for the next one, whatever was flushed. */
  memory = false;
  /** Told when an urgent commit (record, asked) is asked for: faults aim at it. */
  onUrgent: (() => void) | undefined;
  /** Files for people that the agent wrote. */
  readonly setAside: { name: string; bytes: Uint8Array }[] = [];

  private store: MemoryStore;
  private readonly random: Random;
  private readonly options: MemoryStoreOptions;
  /** Rows that come back otherwise than they were written: which bit is another. */
  private readonly rotten = new Map<string, number>();
  private flushing = false;
  /** Counts processes that had the store open, so that a flush of an earlier one is dropped. */
  private mounts = 0;

  constructor(
    private readonly world: World,
    name: string,
  ) {
    this.random = world.random.fork(`disk ${name}`);
    this.identity = this.random.bytes(16);
    // Both are allowed by the seam.
    this.options = { visible: this.random.chance(0.5) ? "at-once" : "at-done" };
    this.store = createMemoryStore(this.options);
  }

  /** What is on the disk, for checkers. */
  get content(): Store {
    return this.store;
  }

  get pendingCommits(): number {
    return this.store.pendingCommits();
  }

  /** The store as the machine's process of now sees it. */
  mount(machine: Machine): Store {
    const mount = ++this.mounts;
    const store = this.store;
    this.flushing = false;
    return {
      ...store,
      get: (table, key) => {
        const value = store.get(table, key);
        return value === undefined ? undefined : this.read(table, key, value);
      },
      range: (table, from, to, limit, reverse) => {
        const rows = store.range(table, from, to, limit, reverse);
        if (this.rotten.size > 0)
          for (const row of rows) row.value = this.read(table, row.key, row.value);
        return rows;
      },
      snapshot: () => this.looked(store.snapshot()),
      commit: (fill, done, urgent) => {
        if (this.mounts !== mount) return;
        store.commit(
          (writer) => {
            if (this.full) throw new Error("no space left on the disk");
            fill(this.rotten.size > 0 ? this.mending(writer) : writer);
          },
          (error) => machine.post(() => done(error)),
          urgent,
        );
        if (!this.flushing) this.flush();
        if (urgent) this.onUrgent?.();
      },
      usage: () => ({ usedBytes: store.usage().usedBytes, limitBytes: 0 }),
    };
  }

  /** The process or the machine went away: some first part of what was not flushed yet is found later. */
  crash(): void {
    this.mounts++;
    if (this.memory) {
      this.store = this.store.crash("kill", this.store.pendingCommits());
      return;
    }
    const kept = this.random.chance(0.3) ? 0 : this.random.below(this.store.pendingCommits() + 1);
    this.store = this.store.crash("kill", kept);
  }

  /** Another, empty disk is put in. Only while no process has it open. */
  replace(): void {
    this.store = createMemoryStore(this.options);
    this.identity = this.random.bytes(16);
    this.setAside.length = 0;
    this.rotten.clear();
  }

  /** One row of such a table, if there is one, is another by a bit from now on, until it is written again. */
  rot(table: Table, random: Random): boolean {
    const rows = this.store.range(table, FIRST, undefined, ROWS_LOOKED_AT_MAX, random.chance(0.5));
    if (rows.length === 0) return false;
    const { key, value } = random.pick(rows);
    this.rotten.set(rowName(table, key), random.below(8 * (value.length + CHECK_BYTES)));
    return true;
  }

  /** Every row reads as it was written. */
  mend(): void {
    this.rotten.clear();
  }

  /**
   * A row as it comes from the disk: by the product's own checksum, so that a broken one is seen.
   * @throws DamagedRow
   */
  private read(table: Table, key: Uint8Array, value: Uint8Array): Uint8Array {
    const bit = this.rotten.size === 0 ? undefined : this.rotten.get(rowName(table, key));
    if (bit === undefined) return value;
    const row = new Uint8Array(value.length + CHECK_BYTES);
    row.set(value);
    sealRow(table, key, row);
    row[(bit >> 3) % row.length]! ^= 1 << (bit & 7);
    return openRow(table, key, row, "the world");
  }

  private looked(snapshot: Snapshot): Snapshot {
    return {
      ...snapshot,
      get: (table, key) => {
        const value = snapshot.get(table, key);
        return value === undefined ? undefined : this.read(table, key, value);
      },
      range: (table, from, to, limit) => {
        const rows = snapshot.range(table, from, to, limit);
        for (const row of rows) row.value = this.read(table, row.key, row.value);
        return rows;
      },
    };
  }

  private mending(writer: StoreWriter): StoreWriter {
    return {
      put: (table, key, value) => {
        this.rotten.delete(rowName(table, key));
        writer.put(table, key, value);
      },
      del: (table, key) => {
        this.rotten.delete(rowName(table, key));
        writer.del(table, key);
      },
      clear: (table) => writer.clear(table),
    };
  }

  /** The content is what it was at a backup; a disk restored is another disk. */
  restore(backup: Store): void {
    this.store = copyStore(backup, this.options);
    this.identity = this.random.bytes(16);
  }

  backup(): Store {
    return copyStore(this.store, this.options);
  }

  private flush(): void {
    const store = this.store;
    const count = store.pendingCommits();
    this.flushing = count > 0;
    if (count === 0) return;
    const mount = this.mounts;
    const finish = (): void => {
      if (mount !== this.mounts) return;
      if (this.world.now < this.stalledUntil) {
        this.world.at(this.stalledUntil + 0.01, finish);
        return;
      }
      this.flushes++;
      if (this.failNext) {
        this.failNext = false;
        store.failNext(new Error("flush failed"));
      }
      store.flush(count);
      this.flush();
    };
    this.world.after(this.random.between(this.flushMinMs, this.flushMaxMs), finish);
  }
}

const TABLES = ["data", "field", "expiry", "log", "meta"] as const;
const FIRST = new Uint8Array(0);
/** The first or last so many rows of a table are candidates. */
const ROWS_LOOKED_AT_MAX = 200;

function rowName(table: Table, key: Uint8Array): string {
  return `${table} ${Buffer.from(key.buffer, key.byteOffset, key.length).toString("latin1")}`;
}

/** A store that holds what another one holds. */
function copyStore(from: Store, options: MemoryStoreOptions): MemoryStore {
  const into = createMemoryStore(options);
  into.commit(
    (writer) => {
      for (const table of TABLES) {
        for (const { key, value } of from.range(table, FIRST, undefined, 1e9)) {
          writer.put(table, key, value);
        }
      }
    },
    () => {},
    true,
  );
  into.flush();
  return into;
}
