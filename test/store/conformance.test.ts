import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { openLmdbStore } from "../../agent/store/lmdb.js";
import { createMemoryStore } from "../../agent/store/memory.js";
import type { MemoryStore } from "../../agent/store/memory.js";
import type { Store, StoreWriter } from "../../agent/core/store.js";

const directories: string[] = [];
const stores: Store[] = [];

function directory(): string {
  const made = mkdtempSync(join(tmpdir(), "dyad-store-"));
  directories.push(made);
  return made;
}

const kinds: [string, () => Store][] = [
  ["memory", () => createMemoryStore({ schedule: (flush) => setImmediate(flush) })],
  [
    "memory, visible when done",
    () => createMemoryStore({ visible: "at-done", schedule: (flush) => setImmediate(flush) }),
  ],
  [
    "lmdb, durability memory",
    () => openLmdbStore({ directory: directory(), durability: "memory" }),
  ],
  ["lmdb, durability disk", () => openLmdbStore({ directory: directory(), durability: "disk" })],
];

afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  for (const made of directories.splice(0)) rmSync(made, { recursive: true, force: true });
});

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const text = (value: string): Uint8Array => new Uint8Array(Buffer.from(value, "latin1"));
const show = (value: Uint8Array | undefined): string | undefined =>
  value === undefined ? undefined : Buffer.from(value).toString("latin1");

function commit(store: Store, fill: (w: StoreWriter) => void, urgent = false): Promise<void> {
  return new Promise((resolve, reject) => {
    store.commit(fill, (error) => (error ? reject(error) : resolve()), urgent);
  });
}

describe.each(kinds)("store: %s", (_name, make) => {
  const opened = (): Store => {
    const store = make();
    stores.push(store);
    return store;
  };

  it("gives back what was put, by table, and nothing after del", async () => {
    const store = opened();
    await commit(store, (w) => {
      w.put("data", text("k"), text("data value"));
      w.put("meta", text("k"), text("meta value"));
      w.put("log", bytes(0, 0, 0, 0, 0, 1), bytes());
    });
    expect(show(store.get("data", text("k")))).toBe("data value");
    expect(show(store.get("meta", text("k")))).toBe("meta value");
    expect(store.get("log", bytes(0, 0, 0, 0, 0, 1))).toHaveLength(0);
    expect(store.get("field", text("k"))).toBeUndefined();
    await commit(store, (w) => {
      w.del("data", text("k"));
      w.del("data", text("never there"));
    });
    expect(store.get("data", text("k"))).toBeUndefined();
    expect(show(store.get("meta", text("k")))).toBe("meta value");
    expect([store.count("data"), store.count("meta")]).toEqual([0, 1]);
  });

  it("keeps the bytes it returned, and those it was given, from later changes", async () => {
    const store = opened();
    const key = text("key");
    const value = new Uint8Array(3000).fill(7);
    const done = commit(store, (w) => w.put("data", key, value));
    value.fill(9);
    key.fill(0);
    await done;
    const first = store.get("data", text("key"))!;
    const entry = store.range("data", bytes(), undefined, 1)[0]!;
    await commit(store, (w) => w.put("data", text("key"), new Uint8Array(3000).fill(1)));
    store.get("data", text("key"));
    expect(first.every((byte) => byte === 7)).toBe(true);
    expect(entry.value.every((byte) => byte === 7)).toBe(true);
    expect(show(entry.key)).toBe("key");
  });

  it("applies a commit's operations in order, the last one wins", async () => {
    const store = opened();
    await commit(store, (w) => w.put("data", text("old"), text("x")));
    await commit(store, (w) => {
      w.put("data", text("a"), text("before clear"));
      w.clear("data");
      w.put("data", text("b"), text("1"));
      w.put("data", text("b"), text("2"));
      w.put("data", text("c"), text("3"));
      w.del("data", text("c"));
    });
    const found = store.range("data", bytes(), undefined, 10);
    expect(found.map((e) => [show(e.key), show(e.value)])).toEqual([["b", "2"]]);
  });

  it("orders keys by unsigned bytes and ranges them both ways", async () => {
    const store = opened();
    const keys = [
      bytes(0),
      bytes(0, 0),
      bytes(1),
      bytes(127),
      bytes(128),
      bytes(255),
      bytes(255, 0),
    ];
    await commit(store, (w) => {
      for (const key of keys.toReversed()) w.put("field", key, key);
    });
    const all = store.range("field", bytes(), undefined, 100).map((e) => [...e.key]);
    expect(all).toEqual(keys.map((k) => [...k]));
    const middle = (limit: number, reverse: boolean): number[][] =>
      store.range("field", bytes(1), bytes(255), limit, reverse).map((e) => [...e.key]);
    expect(middle(100, false)).toEqual([[1], [127], [128]]);
    expect(middle(2, false)).toEqual([[1], [127]]);
    expect(middle(100, true)).toEqual([[128], [127], [1]]);
    expect(middle(1, true)).toEqual([[128]]);
    expect(middle(0, false)).toEqual([]);
    expect(store.range("field", bytes(), undefined, 1, true).map((e) => [...e.key])).toEqual([
      [255, 0],
    ]);
    expect(store.range("field", bytes(), bytes(1), 9, true).map((e) => [...e.key])).toEqual([
      [0, 0],
      [0],
    ]);
    expect(store.range("field", bytes(200), bytes(100), 9)).toEqual([]);
    expect(store.range("log", bytes(), undefined, 9, true)).toEqual([]);
  });

  it("holds long keys and long values", async () => {
    const store = opened();
    const key = new Uint8Array(1100).map((_, i) => i & 255);
    const value = new Uint8Array(3_000_000).map((_, i) => (i * 7) & 255);
    await commit(store, (w) => w.put("data", key, value));
    expect(Buffer.compare(store.get("data", key)!, value)).toBe(0);
    const entry = store.range("data", bytes(), undefined, 2)[0]!;
    expect(Buffer.compare(entry.value, value) + Buffer.compare(entry.key, key)).toBe(0);
  });

  it("calls done later, in order, never inside commit", async () => {
    const store = opened();
    const order: number[] = [];
    const all: Promise<void>[] = [];
    for (let i = 0; i < 20; i++) {
      const fill = (w: StoreWriter): void => w.put("log", bytes(i), bytes(i));
      all.push(commit(store, fill, i % 5 === 0).then(() => void order.push(i)));
      expect(order).toEqual([]);
    }
    await Promise.all(all);
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(store.count("log")).toBe(20);
  });

  it("shows a snapshot as it was, while later commits go on", async () => {
    const store = opened();
    await commit(store, (w) => {
      for (let i = 0; i < 500; i++) w.put("data", bytes(i >> 8, i & 255), text("old"));
    });
    const snapshot = store.snapshot();
    for (let round = 0; round < 5; round++) {
      await commit(store, (w) => {
        for (let i = round; i < 500; i += 2) w.put("data", bytes(i >> 8, i & 255), text("new"));
        w.put("data", text("added"), text("new"));
        w.del("data", bytes(0, 0));
      });
    }
    const seen = snapshot.range("data", bytes(), undefined, 1000);
    expect(seen).toHaveLength(500);
    expect(seen.every((e) => show(e.value) === "old")).toBe(true);
    expect(show(snapshot.get("data", bytes(0, 0)))).toBe("old");
    expect(snapshot.get("data", text("added"))).toBeUndefined();
    expect(snapshot.keys("data", bytes(0, 5), bytes(0, 9), 3).map((k) => [...k])).toEqual([
      [0, 5],
      [0, 6],
      [0, 7],
    ]);
    expect(snapshot.keys("data", bytes(), undefined, 1000)).toHaveLength(500);
    snapshot.close();
    snapshot.close();
    expect(store.get("data", bytes(0, 0))).toBeUndefined();
    expect(show(store.get("data", text("added")))).toBe("new");
  });

  it("changes nothing when fill throws, and takes nothing afterwards", async () => {
    const store = opened();
    await commit(store, (w) => w.put("data", text("a"), text("1")));
    const failed = commit(store, (w) => {
      w.put("data", text("a"), text("half"));
      w.clear("meta");
      throw new Error("broken fill");
    });
    await expect(failed).rejects.toThrow("broken fill");
    await expect(commit(store, (w) => w.put("data", text("b"), text("2")))).rejects.toThrow();
    expect(store.get("data", text("b"))).toBeUndefined();
    expect(show(store.get("data", text("a")))).toBe("1");
  });

  it("refuses an empty key, and with it the whole commit", async () => {
    const store = opened();
    const failed = commit(store, (w) => {
      w.put("data", text("a"), text("1"));
      w.put("data", bytes(), text("1"));
    });
    await expect(failed).rejects.toThrow("key");
    expect(store.get("data", text("a"))).toBeUndefined();
  });

  it("says how much it uses", async () => {
    const store = opened();
    const before = store.usage().usedBytes;
    await commit(store, (w) => {
      for (let i = 0; i < 200; i++) w.put("data", bytes(i), new Uint8Array(10_000));
    });
    expect(store.usage().usedBytes - before).toBeGreaterThan(1_900_000);
  });

  it("agrees with a plain map over a long random run", async () => {
    const store = opened();
    const model = new Map<string, string>();
    let seed = 12345;
    const next = (n: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % n;
    };
    for (let round = 0; round < 150; round++) {
      await commit(store, (w) => {
        for (let i = 0; i < 40; i++) {
          const key = `${next(700)}`;
          if (next(3) === 0) {
            model.delete(key);
            w.del("data", text(key));
          } else {
            const value = "v".repeat(next(300)) + round;
            model.set(key, value);
            w.put("data", text(key), text(value));
          }
        }
      });
      const from = `${next(700)}`;
      const to = `${next(700)}`;
      const limit = 1 + next(60);
      const expected = [...model.keys()].filter((k) => k >= from && k < to).sort();
      const forward = store.range("data", text(from), text(to), limit);
      expect(forward.map((e) => show(e.key))).toEqual(expected.slice(0, limit));
      for (const e of forward) expect(show(e.value)).toBe(model.get(show(e.key)!));
      const backward = store.range("data", text(from), text(to), limit, true);
      expect(backward.map((e) => show(e.key))).toEqual(expected.reverse().slice(0, limit));
    }
    expect(store.count("data")).toBe(model.size);
  });
});

describe("lmdb", () => {
  it.each(["disk", "memory"] as const)("backs up while commits go on (%s)", async (durability) => {
    const store = openLmdbStore({ directory: directory(), durability });
    stores.push(store);
    const put = (n: number): Promise<void> =>
      commit(store, (w) => {
        for (let i = 0; i < 50; i++) w.put("data", bytes(n, i), new Uint8Array(2000).fill(n));
        w.put("meta", text("n"), bytes(n));
      });
    for (let n = 0; n < 20; n++) await put(n);
    const target = join(directory(), "copy");
    const copied = store.backup(target);
    for (let n = 20; n < 60; n++) await put(n);
    await copied;
    const copy = openLmdbStore({ directory: target, durability });
    stores.push(copy);
    const n = copy.get("meta", text("n"))![0]!;
    expect(n).toBeGreaterThanOrEqual(19);
    expect(copy.count("data")).toBe((n + 1) * 50);
    await expect(store.backup(target)).rejects.toThrow("EEXIST");
  });

  it("refuses commits beyond its limit, saying so", async () => {
    const store = openLmdbStore({
      directory: directory(),
      durability: "memory",
      limitBytes: 1_000_000,
    });
    stores.push(store);
    const put = (n: number): Promise<void> =>
      commit(store, (w) => w.put("data", bytes(n), new Uint8Array(100_000)));
    let done = 0;
    await expect(
      (async () => {
        for (; done < 50; done++) await put(done);
      })(),
    ).rejects.toThrow("full");
    expect(done).toBeGreaterThan(5);
    expect(done).toBeLessThan(15);
    expect(store.usage().limitBytes).toBe(1_000_000);
    await expect(put(99)).rejects.toThrow("full");
  });
});

describe("store in memory", () => {
  it("gives back what was flushed after a power cut, and what the system had after a kill", () => {
    const start = (durability: "disk" | "memory"): MemoryStore => {
      const store = createMemoryStore({ durability });
      for (let i = 0; i < 5; i++) {
        store.commit(
          (w) => w.put("data", bytes(i), bytes(i)),
          () => {},
          i === 1,
        );
      }
      store.flush(3);
      return store;
    };
    const left = (store: Store): number => store.count("data");
    expect(left(start("disk").crash("power"))).toBe(3);
    expect(left(start("disk").crash("kill"))).toBe(3);
    expect(left(start("disk").crash("kill", 1))).toBe(4);
    expect(left(start("memory").crash("power"))).toBe(2);
    expect(left(start("memory").crash("kill"))).toBe(5);
  });

  it("fails as told: that commit and all after it, with nothing of them left", () => {
    const store = createMemoryStore();
    const ends: string[] = [];
    const put = (i: number): void =>
      store.commit(
        (w) => w.put("data", bytes(i), bytes(i)),
        (error) => ends.push(error === undefined ? "ok" : error.message),
        false,
      );
    put(1);
    store.flush();
    put(2);
    put(3);
    store.failNext(new Error("EIO"));
    store.flush();
    put(4);
    store.flush();
    expect(ends).toEqual(["ok", "EIO", "EIO", "EIO"]);
    expect(store.crash("power").count("data")).toBe(1);
  });
});
