/**
 * A disk: the memory store with a flush that takes time, stalls, fails, and is cut off by a crash.
 *
 * Commits become durable in order, some time after they were asked for; those asked for while a flush
 * runs share the next one. A crash keeps the flushed ones and some first part of the rest. `done` comes
 * in a later turn of the process, as an event like any other.
 */
import type { Store } from "../../agent/core/store.js";
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
      commit: (fill, done, urgent) => {
        if (this.mounts !== mount) return;
        store.commit(
          (writer) => {
            if (this.full) throw new Error("no space left on the disk");
            fill(writer);
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
