/** When data is put behind, how much at a time, and what that must never run ahead of. */
import { describe, expect, test } from "vitest";
import type { StoreWriter, Table } from "../../agent/core/store.js";
import { MODE_SOLO, World } from "./world.js";
import type { TestServer } from "./world.js";

interface Seen {
  /** Keys put into table data, in this order. */
  data: string[];
  dataBytes: number;
  log: number;
  /** Newest entry known to be on disk when the commit was made. */
  flushed: number;
}

/** Everything a server commits from here on. */
function watch(server: TestServer): Seen[] {
  const seen: Seen[] = [];
  const { store } = server;
  const commit = store.commit.bind(store);
  store.commit = (fill, done, urgent) => {
    const one: Seen = { data: [], dataBytes: 0, log: 0, flushed: server.log()["flushed"]! };
    seen.push(one);
    commit(
      (writer: StoreWriter) =>
        fill({
          put(table: Table, key: Uint8Array, value: Uint8Array) {
            if (table === "data") {
              one.data.push(Buffer.from(key.subarray(6)).toString("latin1"));
              one.dataBytes += value.length;
            } else if (table === "log") one.log++;
            writer.put(table, key, value);
          },
          del: (table, key) => writer.del(table, key),
          clear: (table) => writer.clear(table),
        }),
      done,
      urgent,
    );
  };
  return seen;
}

describe("write-behind", () => {
  test("a commit that replies wait for carries no data", () => {
    const world = new World({ overlayKeysMax: 20, sliceKeysMax: 5 });
    world.begin();
    const seen = watch(world.a);
    for (let i = 0; i < 200; i++) {
      world.set(0, "k" + i, "v");
      if (i % 3 === 0) world.round();
    }
    world.pass(300);
    expect(seen.filter((one) => one.log > 0 && one.data.length > 0)).toEqual([]);
    expect(seen.reduce((sum, one) => sum + one.data.length, 0)).toBe(200);
    expect(world.a.status()["overlayKeys"]).toBe(0);
  });

  test("data waits for its neighbours while there is room, not for ever", () => {
    const world = new World({ overlayKeysMax: 100, sliceKeysMax: 50 });
    world.begin();
    const seen = watch(world.a);
    const stored = (): number => seen.reduce((sum, one) => sum + one.data.length, 0);
    for (let i = 0; i < 49; i++) world.ask(0, "SET", "k" + i, "v");
    expect(stored()).toBe(0);
    world.ask(0, "SET", "one more", "v");
    world.settle();
    expect(stored()).toBeGreaterThanOrEqual(49);
    // Rarely written, too: when it has been quiet, or after a second whatever is going on.
    world.ask(0, "SET", "alone", "v");
    world.pass(150);
    expect(stored()).toBe(51);
    for (let i = 0; i < 30; i++) {
      world.ask(0, "SET", "busy" + i, "v");
      world.pass(50);
    }
    expect(stored()).toBeGreaterThan(51);
    // A key written all the time does not fill the overlay, but the log behind it.
    const hot = new World({
      overlayKeysMax: 100,
      sliceKeysMax: 50,
      logBytesMax: 4096,
      chunkBytesMax: 512,
      checkpointBytes: 512,
    });
    hot.begin();
    for (let i = 0; i < 400; i++) hot.ask(0, "SET", "hot", "x".repeat(50));
    expect(hot.a.log()["bytes"]).toBeLessThan(8192);
  });

  test("a slice that nothing presses for has a quarter of its bound at most", () => {
    const longest = (keys: number): number => {
      const world = new World({ overlayKeysMax: 2000, sliceKeysMax: 400 });
      world.begin();
      const seen = watch(world.a);
      for (let i = 0; i < keys; i++) world.set(0, "k" + i, "v");
      world.pass(1500);
      expect(seen.reduce((sum, one) => sum + one.data.length, 0)).toBe(keys);
      return Math.max(...seen.map((one) => one.data.length));
    };
    expect(longest(1500)).toBe(100);
    expect(longest(3000)).toBe(400);
  });

  test("a slice has its bounds, whatever one command wrote: by keys, and by bytes", () => {
    const world = new World({
      overlayKeysMax: 2000,
      overlayBytesMax: 100_000,
      sliceKeysMax: 20,
      sliceBytesMax: 5000,
    });
    world.begin();
    const seen = watch(world.a);
    const mset = ["MSET"];
    for (let i = 0; i < 3000; i++) mset.push("k" + i, "v");
    world.send(0, mset);
    for (let i = 0; i < 30; i++) world.set(0, "long" + i, "v".repeat(2000));
    for (let i = 0; i < 2000; i++) {
      world.round();
      if (i % 7 === 0) world.set(0, "more" + i, "v");
    }
    world.pass(500);
    const slices = seen.filter((one) => one.data.length > 0);
    expect(Math.max(...slices.map((one) => one.data.length))).toBe(20);
    expect(Math.max(...slices.map((one) => one.dataBytes))).toBeLessThan(5000 + 2020);
    expect(world.a.status()["overlayKeys"]).toBe(0);
    // What was asked meanwhile did not wait until all of it was there.
    const last = seen.findLastIndex((one) => one.data.some((key) => key.startsWith("k")));
    expect(seen.slice(0, last).filter((one) => one.log > 0).length).toBeGreaterThan(10);
  });

  test("nothing is in the tables that is not in the log on disk", () => {
    const world = new World({ overlayKeysMax: 8, sliceKeysMax: 3 });
    world.begin();
    // Alone, so that the disk is all that data waits for.
    world.b.crash();
    world.solo(0, 2);
    world.passed(0);
    const base = world.a.log()["end"]!;
    const seen = watch(world.a);
    for (let i = 1; i <= 300; i++) {
      world.set(0, "i" + (base + i), "v");
      if (i % 5 === 0) world.round();
      if (i % 11 === 0) world.a.holdFlush = !world.a.holdFlush;
    }
    world.a.holdFlush = false;
    world.pass(300);
    expect(world.a.log()["end"]).toBe(base + 300);
    let stored = 0;
    for (const one of seen) {
      for (const key of one.data) {
        stored++;
        expect(Number(key.slice(1))).toBeLessThanOrEqual(one.flushed);
      }
    }
    expect(stored).toBe(300);
    expect(world.a.log()["applied"]).toBe(base + 300);
  });

  test("entries without effects do not move `applied` past the log on disk", () => {
    const world = new World({ overlayKeysMax: 4, sliceKeysMax: 1 });
    world.begin();
    world.solo(0, 2);
    // Every distance between a change and the entry without effects that comes before its slice.
    for (let i = 0; i < 40; i++) {
      for (let k = 0; k < 3; k++) world.set(0, "k" + k, "v" + i);
      for (let turn = 0; turn < 12; turn++) {
        // A numbered change that changes nothing is an entry, too.
        if (turn >= i % 10) world.send(0, ["DEL", "never there"]);
        world.round();
        const { applied, flushed } = world.a.log();
        expect(applied).toBeLessThanOrEqual(flushed!);
      }
      if (i % 4 !== 3) continue;
      world.a.crash();
      world.a.start();
      world.until(() => world.links[0]!.up);
      world.write(2, 0, MODE_SOLO);
      world.settle();
    }
  });
});
