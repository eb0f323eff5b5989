import { describe, expect, it } from "vitest";
import { createKeyspace } from "../../agent/commands/keyspace.js";
import type { KeyspaceState } from "../../agent/commands/keyspace.js";
import { createExecutor } from "../../agent/commands/executor.js";
import { createMemoryStore } from "../../agent/store/memory.js";
import type { MemoryStore } from "../../agent/store/memory.js";
import type { Store, StoreWriter, Table } from "../../agent/core/store.js";
import { makeSink, Subject, viewOf } from "./harness.js";
import type { Argument, Entry } from "./harness.js";

class Random {
  constructor(private state: number) {}
  next(below: number): number {
    this.state = (Math.imul(this.state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.state / 0x100000000) * below);
  }
  of<T>(values: readonly T[]): T {
    return values[this.next(values.length)]!;
  }
}

const KEYS = ["a", "b", "c", "d", "e", "h", "i", "j"];

function randomCommand(r: Random): Argument[] {
  const key = (): string => r.of(KEYS);
  const field = (): string => `f${r.next(9)}`;
  switch (r.next(16)) {
    case 0:
    case 1:
      return [
        "SET",
        key(),
        `v${r.next(1000)}`,
        ...(r.next(3) === 0 ? ["PX", `${1 + r.next(3000)}`] : []),
      ];
    case 2:
      return ["DEL", key(), key()];
    case 3:
      return ["INCR", key()];
    case 4:
    case 5:
    case 6:
      return ["HSET", key(), field(), `w${r.next(1000)}`, field(), "x"];
    case 7:
      return ["HDEL", key(), field(), field(), field()];
    case 8:
    case 9:
      return ["RENAME", key(), key()];
    case 10:
      return ["COPY", key(), key(), "REPLACE"];
    case 11:
      return ["PEXPIRE", key(), `${r.next(4000)}`];
    case 12:
      return ["PERSIST", key()];
    case 13:
      return ["APPEND", key(), "y".repeat(r.next(40))];
    case 14:
      return r.next(6) === 0 ? ["FLUSHDB"] : ["HINCRBY", key(), field(), "2"];
    default:
      return ["MSET", key(), "1", key(), "2"];
  }
}

/** Everything the keyspace holds, past-due keys as they are. */
function dump(keyspace: KeyspaceState): string {
  const executor = createExecutor(keyspace, { valueBytesMax: 1 << 20, entryBytesMax: 1 << 24 });
  const ask = (...args: Argument[]): string => {
    const reply = makeSink();
    const ran = executor.run(viewOf(args), reply, makeSink(), 0, false);
    if (ran.job !== undefined) throw new Error("small here");
    return Buffer.from(reply.bytes.subarray(0, reply.length)).toString("latin1");
  };
  const lines = [ask("DBSIZE")];
  for (const key of KEYS) {
    const type = ask("TYPE", key);
    lines.push(`${key} ${type} ${ask("PEXPIRETIME", key)}`);
    if (type.startsWith("+string")) lines.push(ask("GET", key));
    if (!type.startsWith("+hash")) continue;
    lines.push(ask("HLEN", key));
    for (let i = 0; i < 9; i++) lines.push(ask("HGET", key, `f${i}`));
    const all = ask("HKEYS", key);
    lines.push(
      all
        .split("\r\n")
        .filter((l) => l.startsWith("f"))
        .sort()
        .join(),
    );
  }
  const listed = ask("KEYS", "*")
    .split("\r\n")
    .filter((l) => /^[a-z]$/.test(l));
  lines.push(listed.sort().join());
  return lines.join("\n");
}

function rowsOf(store: Store): string[] {
  const lines: string[] = [];
  for (const table of ["data", "field", "expiry"] as Table[]) {
    for (const { key, value } of store.range(table, new Uint8Array(0), undefined, 1e6)) {
      lines.push(
        `${table} ${Buffer.from(key).toString("hex")} ${Buffer.from(value).toString("hex")}`,
      );
    }
  }
  return lines;
}

/** A keyspace that was given these entries and nothing else happened to. */
function plain(log: Entry[], upTo: number): KeyspaceState {
  const keyspace = createKeyspace(createMemoryStore());
  for (const { index, effects } of log) {
    if (index <= upTo) keyspace.apply(effects, 0, effects.length, index, undefined);
  }
  return keyspace;
}

function drain(keyspace: KeyspaceState, store: MemoryStore): void {
  for (let i = 0; keyspace.overlaySize() > 0; i++) {
    if (i > 1000) throw new Error("write-behind does not come to an end");
    let token = 0;
    store.commit(
      (writer) => {
        token = keyspace.writeBehind(writer, 7);
      },
      () => {
        if (token !== 0) keyspace.writtenBehind(token);
      },
      false,
    );
    store.flush();
  }
}

const APPLIED = Uint8Array.of(1);

/** As the core does it: applied index and data in one transaction, one in flight. */
function behind(subject: Subject, store: MemoryStore, max: number, upTo: number): void {
  if (store.pendingCommits() > 0) return;
  let token = 0;
  store.commit(
    (writer) => {
      token = subject.keyspace.writeBehind(writer, max, upTo);
      writer.put(
        "meta",
        APPLIED,
        new Uint8Array(Buffer.from(String(subject.keyspace.appliedIndex()))),
      );
    },
    () => {
      if (token !== 0) subject.keyspace.writtenBehind(token);
    },
    false,
  );
}

describe("keyspace", () => {
  it.each(Array.from({ length: 60 }, (_, i) => i + 1))(
    "store and log give the state back after a crash anywhere (seed %i)",
    (seed) => {
      const r = new Random(seed);
      const visible = r.next(2) === 0 ? "at-once" : "at-done";
      let store = createMemoryStore({ visible });
      let subject = new Subject(store);
      let log: Entry[] = subject.log;
      let confirmed = 0;
      for (let round = 0; round < 250; round++) {
        subject.now += r.next(40);
        if (r.next(12) === 0) subject.all(randomCommand(r), randomCommand(r), randomCommand(r));
        else if (r.next(15) === 0) subject.expire(3);
        else subject.do(...randomCommand(r));
        confirmed = Math.max(confirmed, subject.index - r.next(12));
        if (r.next(3) === 0) behind(subject, store, 1 + r.next(12), confirmed);
        if (r.next(3) === 0) store.flush();
        if (r.next(30) !== 0) continue;
        // A crash; then the log may lose what was not confirmed.
        const kept =
          r.next(2) === 0 ? subject.index : confirmed + r.next(subject.index - confirmed + 1);
        store = store.crash(r.next(2) === 0 ? "power" : "kill", r.next(2));
        const row = store.get("meta", APPLIED);
        const applied = row === undefined ? 0 : Number(Buffer.from(row).toString());
        expect(applied).toBeLessThanOrEqual(kept);
        log = log.filter((entry) => entry.index <= kept);
        const now = subject.now;
        subject = new Subject(store);
        subject.now = now;
        subject.index = kept;
        subject.log.push(...log);
        log = subject.log;
        subject.keyspace.reset(applied);
        for (const { index, effects } of log) {
          if (index > applied) subject.keyspace.apply(effects, 0, effects.length, index, undefined);
        }
        expect(dump(subject.keyspace)).toBe(dump(plain(log, kept)));
      }
      expect(dump(subject.keyspace)).toBe(dump(plain(log, subject.index)));
      store.flush();
      drain(subject.keyspace, store);
      expect(subject.keyspace.appliedIndex()).toBe(subject.index);
      expect(dump(subject.keyspace)).toBe(dump(plain(log, subject.index)));
      // However the state came about, the rows are the same on both servers.
      const otherStore = createMemoryStore();
      const other = createKeyspace(otherStore);
      for (const { index, effects } of log)
        other.apply(effects, 0, effects.length, index, undefined);
      drain(other, otherStore);
      expect(rowsOf(store)).toEqual(rowsOf(otherStore));
      expect(
        store.range(
          "meta",
          new Uint8Array(Buffer.from("ks:drop:")),
          new Uint8Array(Buffer.from("ks:drop;")),
          9,
        ),
      ).toEqual([]);
    },
  );

  it("a key that is written all the time is stored all the same, and the log can be trimmed", () => {
    const store = createMemoryStore();
    const subject = new Subject(store);
    for (let i = 0; i < 100; i++) {
      subject.do("INCR", "hot");
      subject.do("HSET", "warm", "f", `${i}`);
      behind(subject, store, 10, subject.index - 5);
      store.flush();
    }
    expect(subject.keyspace.appliedIndex()).toBeGreaterThan(180);
    expect(subject.keyspace.appliedIndex()).toBeLessThanOrEqual(195);
  });

  it("is stored in the order of its rows, each key once, over as many slices as that takes", () => {
    const store = createMemoryStore();
    const subject = new Subject(store);
    const rows: string[][] = [[], []];
    const slice = (max: number, maxBytes?: number): void => {
      let token = 0;
      store.commit(
        (writer) => {
          const watched: StoreWriter = {
            put(table, key, value) {
              if (table === "data") rows[0]!.push(Buffer.from(key).toString("hex"));
              if (table === "field") rows[1]!.push(Buffer.from(key).toString("hex"));
              writer.put(table, key, value);
            },
            del: (table, key) => writer.del(table, key),
            clear: (table) => writer.clear(table),
          };
          token = subject.keyspace.writeBehind(watched, max, Infinity, maxBytes);
        },
        () => {
          if (token !== 0) subject.keyspace.writtenBehind(token);
        },
        false,
      );
      store.flush();
    };
    for (let i = 0; i < 5000; i++) {
      subject.do("SET", `k${i % 3000}`, `${i}`);
      if (i % 10 === 0) subject.do("HSET", `h${i % 30}`, `f${i}`, "v");
    }
    // What is written meanwhile waits for the next lap.
    for (let i = 0; subject.keyspace.appliedIndex() < 5500; i++) {
      if (i > 200) throw new Error("the lap does not come to an end");
      slice(50);
      subject.do("SET", `later${i}`, "v");
    }
    const lap = rows[0]!.slice(0, 3003);
    expect(lap).toEqual([...new Set(lap)].sort());
    expect(rows[1]).toEqual([...new Set(rows[1])].sort());
    expect(rows[1]).toHaveLength(500);
    // By bytes of values as well.
    rows[0] = [];
    for (let i = 0; i < 20; i++) subject.do("SET", `long${i}`, "x".repeat(1000));
    slice(1000);
    rows[0] = [];
    for (let i = 0; i < 20; i++) subject.do("SET", `long${i}`, "y".repeat(1000));
    expect(subject.keyspace.overlayBytes()).toBe(20_000);
    slice(1000, 4500);
    expect(rows[0]).toHaveLength(5);
    expect(subject.keyspace.overlayBytes()).toBe(15_000);
    drain(subject.keyspace, store);
    expect(subject.keyspace.overlayBytes()).toBe(0);
  });

  it("never stores what is not confirmed", () => {
    const store = createMemoryStore();
    const subject = new Subject(store);
    subject.do("SET", "a", "1");
    subject.do("SET", "b", "1");
    subject.do("SET", "a", "2");
    behind(subject, store, 10, 2);
    store.flush();
    expect(subject.keyspace.appliedIndex()).toBe(0);
    expect(rowsOf(store)).toHaveLength(1);
    behind(subject, store, 10, 3);
    store.flush();
    expect(rowsOf(store)).toHaveLength(2);
    expect(subject.keyspace.appliedIndex()).toBe(3);
    expect(subject.keyspace.overlaySize()).toBe(0);
  });

  it("changes nothing when effects are malformed, wherever they are cut", () => {
    const subject = new Subject();
    subject.do("HSET", "h", "f", "1");
    const reply = makeSink();
    const effects = makeSink();
    const group = [
      ["SET", "a", "1"],
      ["HSET", "h", "g", "2"],
      ["PEXPIRE", "a", "99"],
      ["DEL", "h"],
    ];
    subject.executor.runAll(group.map(viewOf), reply, effects, subject.now);
    const before = dump(subject.keyspace);
    const whole = effects.bytes.slice(0, effects.length);
    const ends = new Set<number>();
    for (let cut = 1; cut < whole.length; cut++) {
      const copy = createKeyspace(createMemoryStore());
      try {
        copy.apply(whole, 0, cut, 1, undefined);
        ends.add(cut);
      } catch {
        expect(() => subject.keyspace.apply(whole, 0, cut, 2, undefined)).toThrow("malformed");
        expect(dump(subject.keyspace)).toBe(before);
      }
    }
    // Only between two effects can they be cut without being malformed.
    expect(ends.size).toBeLessThan(10);
    const wrong = Uint8Array.of(99, 1, 2);
    expect(() => subject.keyspace.apply(wrong, 0, 3, 2, undefined)).toThrow("malformed");
  });

  it("counts keys that were set without a look at their rows, in steps when they are many", () => {
    const store = createMemoryStore();
    const before = new Subject(store);
    for (let i = 0; i < 1000; i++) before.do("SET", `k${i}`, "old");
    drain(before.keyspace, store);
    // As a standby gets them: entries of commands that another server ran.
    const primary = new Subject();
    for (let i = 500; i < 2500; i++) primary.do("SET", `k${i}`, "new");
    primary.do("DEL", "k600", "k2400");
    const reads: string[] = [];
    const counting: Store = {
      ...store,
      get(table, key) {
        reads.push(table);
        return store.get(table, key);
      },
    };
    const standby = new Subject(counting);
    standby.keyspace.reset(0);
    reads.length = 0;
    for (const { index, effects } of primary.log) {
      standby.keyspace.apply(effects, 0, effects.length, index, undefined);
    }
    expect(reads).toEqual([]);
    expect(standby.do("DBSIZE")).toBe(":2498\r\n");
    expect(standby.last!.job).toBeDefined();
    // What is set, removed and flushed while it counts makes no difference to what it counts.
    const reply = makeSink();
    const job = standby.executor.run(viewOf(["DBSIZE"]), reply, makeSink(), 0, false).job!;
    expect(job.step(100)).toBe(false);
    standby.index = 10_000;
    standby.do("FLUSHDB");
    standby.do("SET", "k1", "after");
    drain(standby.keyspace, store);
    while (!job.step(100));
    const { reply: counted } = job;
    expect(Buffer.from(counted.bytes.subarray(0, counted.length)).toString()).toBe(":2498\r\n");
    expect(standby.do("DBSIZE")).toBe(":1\r\n");
    expect(rowsOf(store)).toHaveLength(1);
  });

  it("counts such keys inside MULTI too: when they are too many for one turn, in the next ones", () => {
    const COUNT = 45_000;
    const store = createMemoryStore();
    const before = new Subject(store);
    for (let i = 0; i < 10; i++) before.do("SET", `k${i}`, "old");
    drain(before.keyspace, store);
    const primary = new Subject();
    for (let i = 0; i < COUNT; i++) primary.do("SET", `k${i}`, "new");
    const subject = new Subject(store);
    subject.keyspace.reset(0);
    for (const { index, effects } of primary.log) {
      subject.keyspace.apply(effects, 0, effects.length, index, undefined);
    }
    subject.index = COUNT;
    const count = (): string => subject.all(["SET", "more", "1"], ["DBSIZE"], ["DBSIZE"]);
    expect(count()).toMatch(
      /^\*3\r\n\+OK\r\n-ERR dyad: keys that came in a batch are being counted/,
    );
    expect(count()).toMatch(/-ERR dyad: .*\r\n-ERR dyad/);
    const size = `:${COUNT + 1}\r\n`;
    expect(count()).toBe(`*3\r\n+OK\r\n${size}${size}`);
    expect(subject.all(["DEL", "k1", "k20"], ["DBSIZE"])).toBe(`*2\r\n:2\r\n:${COUNT - 1}\r\n`);
    expect(subject.do("DBSIZE")).toBe(`:${COUNT - 1}\r\n`);
  });

  it("takes the expiry row away that a key had which was set without a look at its row", () => {
    const store = createMemoryStore();
    const before = new Subject(store);
    before.do("SET", "k", "old", "PX", "5000");
    drain(before.keyspace, store);
    const primary = new Subject();
    primary.do("SET", "k", "new");
    const standby = new Subject(store);
    standby.keyspace.reset(0);
    const { effects } = primary.log[0]!;
    standby.keyspace.apply(effects, 0, effects.length, 2, undefined);
    drain(standby.keyspace, store);
    expect(rowsOf(store).filter((line) => line.startsWith("expiry"))).toEqual([]);
    expect(standby.do("DBSIZE")).toBe(":1\r\n");
  });

  it("tells the keys an entry touched, and a flush", () => {
    const subject = new Subject();
    const touched: string[] = [];
    const reply = makeSink();
    const effects = makeSink();
    const group = [
      ["SET", "a", "1"],
      ["HSET", "h", "g", "2"],
      ["DEL", "zz"],
      ["RENAME", "a", "b"],
    ];
    subject.executor.runAll(group.map(viewOf), reply, effects, 5);
    expect(subject.keyspace.apply(effects.bytes, 0, effects.length, 1, touched)).toBe(false);
    expect([...new Set(touched)].sort()).toEqual(["a", "b", "h"]);
    effects.length = 0;
    subject.executor.run(viewOf(["FLUSHALL"]), reply, effects, 5, true);
    expect(subject.keyspace.apply(effects.bytes, 0, effects.length, 2, touched)).toBe(true);
    expect(subject.do("DBSIZE")).toBe(":0\r\n");
  });

  it("removes the fields of a dropped hash a few at a time", () => {
    const store = createMemoryStore();
    const subject = new Subject(store);
    for (let i = 0; i < 30; i++) {
      const fields = Array.from({ length: 100 }, (_, j) => [`f${i}-${j}`, "v"]).flat();
      subject.do("HSET", "big", ...fields);
    }
    drain(subject.keyspace, store);
    expect(store.count("field")).toBe(3000);
    subject.do("DEL", "big");
    expect(subject.do("HLEN", "big")).toBe(":0\r\n");
    subject.do("HSET", "big", "f0-0", "new");
    behind(subject, store, 10, Infinity);
    store.flush();
    expect(store.count("field")).toBe(3001);
    behind(subject, store, 10, Infinity);
    store.flush();
    expect(store.count("field")).toBe(2991);
    // A restart in between goes on where it stopped.
    const after = store.crash("power");
    const again = createKeyspace(after);
    again.reset(subject.index);
    drain(again, after);
    expect(after.count("field")).toBe(1);
  });
});
