/** Bringing a standby up to date from the log: what bounds it at either end, and whom it may not hold up. */
import { describe, expect, test } from "vitest";
import { createExecutor } from "../../agent/commands/executor.js";
import { createKeyspace } from "../../agent/commands/keyspace.js";
import { DATA_ALL, GroupCommit, readStateRow } from "../../agent/core/group-commit.js";
import { agentLimits } from "../../agent/core/limits.js";
import type { StoreWriter, Table } from "../../agent/core/store.js";
import { SyncLog } from "../../agent/core/sync-log.js";
import { createMemoryStore } from "../../agent/store/memory.js";
import { FRAME_APPEND, HEADER_BYTES } from "../../protocol/frame.js";
import { makeSink } from "../../protocol/resp.js";
import { viewOf } from "../commands/harness.js";
import { MODE_BOTH, World } from "./world.js";
import type { TestServer } from "./world.js";

const LONG = {
  chunkBytesMax: 512,
  tailBytesMax: 1024,
  logBytesMax: 1 << 20,
  checkpointBytes: 1 << 18,
};
const VALUE = "v".repeat(180);

/** b is away, a is solo and has `count` entries b does not have, each in a chunk of its own. */
function behind(count: number, changes = {}): World {
  const world = new World({ ...LONG, ...changes });
  world.begin();
  world.b.crash();
  world.solo(0, 2);
  world.passed(0);
  for (let i = 0; i < count; i++) {
    world.set(0, "k" + i, VALUE);
    world.settle();
  }
  return world;
}

const sent = (world: World): number => world.a.log()["sent"]!;
const end = (server: TestServer): number => server.log()["end"]!;

/** Rounds until b takes entries. */
function untilStreaming(world: World): void {
  for (let i = 0; i < 20000 && sent(world) < 1; i++) {
    world.round();
    if (i % 4 === 0) world.nowMs += 1;
  }
  expect(sent(world)).toBeGreaterThan(0);
}

/** Everything a server commits from here on: rows put into the log, and into the data. */
function watch(server: TestServer): { log: number; data: number }[] {
  const seen: { log: number; data: number }[] = [];
  const { store } = server;
  const commit = store.commit.bind(store);
  store.commit = (fill, done, urgent) => {
    const one = { log: 0, data: 0 };
    seen.push(one);
    commit(
      (writer: StoreWriter) =>
        fill({
          put(table: Table, key: Uint8Array, value: Uint8Array) {
            if (table === "log") one.log++;
            if (table === "data") one.data++;
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

describe("the primary's side", () => {
  test("a turn sends its share, and clients are served between two turns", () => {
    const world = behind(100, { streamTurnBytes: 1000 });
    world.b.start();
    untilStreaming(world);
    const read = world.get(0, "k1");
    let most = 0;
    let answeredAt = 0;
    for (let i = 0; i < 200; i++) {
      const before = sent(world);
      world.round();
      most = Math.max(most, sent(world) - before);
      if (answeredAt === 0 && world.reply(0, read) !== undefined) answeredAt = sent(world);
    }
    // An entry is a little longer than its value.
    expect(most).toBe(5);
    expect(sent(world)).toBe(100);
    expect(answeredAt).toBeGreaterThan(0);
    expect(answeredAt).toBeLessThan(60);
  });

  test("its shares are apart in time, however many turns clients cause", () => {
    const world = behind(100, { streamTurnBytes: 1000, streamTurnMs: 1 });
    world.b.start();
    untilStreaming(world);
    for (let i = 0; i < 5; i++) {
      const before = sent(world);
      for (let j = 0; j < 20; j++) {
        world.get(0, "k1");
        world.round();
      }
      expect(sent(world)).toBe(before);
      expect(world.a.wantedMs).toBe(world.nowMs + 1);
      world.nowMs += 1;
      world.round();
      expect(sent(world)).toBe(before + 5);
    }
    world.pass(50, 1);
    expect(sent(world)).toBe(100);
  });

  test("a turn that comes late sends the missed shares as well, four in all at most", () => {
    const world = behind(100, { streamTurnBytes: 1000, streamTurnMs: 1 });
    world.b.start();
    untilStreaming(world);
    const after = (ms: number): number => {
      const before = sent(world);
      world.nowMs += ms;
      world.round();
      return sent(world) - before;
    };
    expect(after(1)).toBe(5);
    // A share ends with the entry that fills it, so three of them together hold a little less.
    expect(after(3)).toBeGreaterThan(12);
    const most = after(4);
    expect(most).toBeGreaterThan(16);
    expect(after(50)).toBe(most);
  });

  test("with the window full it stops, and goes on with what is confirmed", () => {
    const world = behind(100, { streamWindowBytes: 4000 });
    world.b.start();
    untilStreaming(world);
    world.b.holdFlush = true;
    for (let i = 0; i < 200; i++) world.round();
    const stopped = sent(world);
    expect(stopped - world.a.log()["confirmed"]!).toBeLessThan(25);
    expect(stopped).toBeLessThan(60);
    world.b.holdFlush = false;
    world.until(() => world.a.log()["confirmed"]! >= 100);
  });

  test("nothing is read for a network that takes no more; it goes on when that has drained", () => {
    const world = behind(100, { streamTurnBytes: 1000, streamBacklogBytes: 5000 });
    world.b.start();
    untilStreaming(world);
    world.a.unread = 5000;
    const before = sent(world);
    for (let i = 0; i < 50; i++) world.round();
    expect(sent(world)).toBe(before);
    // It asks for no turn of its own meanwhile.
    expect(world.a.wantedMs).toBeGreaterThan(world.nowMs);
    expect(world.ask(0, "GET", "k1")).toContain(VALUE);
    expect(sent(world)).toBe(before);
    world.a.drained();
    world.settle();
    expect(sent(world)).toBe(100);
  });

  test("cut in the middle, it goes on from what the standby has on disk", () => {
    const world = behind(100, { streamTurnBytes: 1000 });
    world.b.start();
    untilStreaming(world);
    for (let i = 0; i < 10; i++) world.round();
    world.closePeer();
    const had = end(world.b);
    expect(had).toBeGreaterThan(0);
    expect(had).toBeLessThan(100);
    world.set(0, "k1", "while cut");
    world.until(() => world.a.heartbeat().asked);
    const plans = world.a.notes.filter((note) => note.event === "session-planned");
    expect((plans.at(-1)!.details as { copy: boolean; keepTo: number }).copy).toBe(false);
    expect((plans.at(-1)!.details as { keepTo: number }).keepTo).toBeGreaterThanOrEqual(had - 25);
    world.write(3, 0, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    expect(end(world.b)).toBe(101);
    expect(world.ask(1, "GET", "k1")).toContain("while cut");
    expect(world.ask(1, "GET", "k99")).toContain(VALUE);
    expect(world.ask(1, "DBSIZE")).toBe(":100\r\n");
  });
});

describe("the standby's side", () => {
  test.each([
    ["its length", 18],
    ["its count", 17],
    ["the place of its first entry", 5],
    ["an entry's length", 22],
  ])(
    "a chunk that came otherwise than it was sent (%s) drops the link; nothing of it stays",
    (_, at) => {
      const world = behind(60, { streamTurnBytes: 1000 });
      const send = world.a.send.bind(world.a);
      let broken = false;
      world.a.send = (connection, bytes, from, to): void => {
        if (!broken && (bytes[from]! & 15) === FRAME_APPEND && end(world.b) > 10) {
          broken = true;
          bytes[from + HEADER_BYTES + at]! ^= 3;
        }
        send(connection, bytes, from, to);
      };
      world.b.start();
      for (let i = 0; i < 20000 && !broken; i++) {
        world.round();
        if (i % 4 === 0) world.nowMs += 1;
      }
      world.round();
      const kept = end(world.b);
      expect(kept).toBeLessThan(60);
      expect(world.b.noted("peer-link-dropped")).toBeDefined();
      world.until(() => world.a.heartbeat().asked);
      world.write(3, 0, MODE_BOTH);
      world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
      expect(world.ask(1, "DBSIZE")).toBe(":60\r\n");
      expect(world.ask(1, "GET", "k30")).toContain(VALUE);
    },
  );

  test("many entries are one commit, and its data waits until it is in step", () => {
    const world = behind(60, { overlayKeysMax: 40, sliceKeysMax: 10 });
    world.b.start();
    const seen = watch(world.b);
    untilStreaming(world);
    world.until(() => world.a.heartbeat().asked);
    world.pass(2000);
    expect(end(world.b)).toBe(60);
    // 60 of 40 would have been pressing for any other server.
    expect(seen.reduce((sum, one) => sum + one.data, 0)).toBe(0);
    expect(seen.filter((one) => one.log > 0).length).toBeLessThan(10);
    world.write(3, 0, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    world.pass(3000);
    expect(seen.reduce((sum, one) => sum + one.data, 0)).toBe(60);
    expect(world.b.log()["applied"]).toBe(60);
  });

  test("not for ever: beyond nine times its room it is put behind all the same", () => {
    const world = behind(0, { overlayKeysMax: 10, sliceKeysMax: 10, streamWindowBytes: 2000 });
    for (let i = 0; i < 60; i++) {
      const keys = [0, 1, 2, 3].flatMap((j) => [`k${i}-${j}`, "v".repeat(50)]);
      world.ask(0, "MSET", ...keys);
    }
    world.b.start();
    let most = 0;
    for (let i = 0; i < 20000 && !world.a.heartbeat().asked; i++) {
      world.round();
      if (i % 4 === 0) world.nowMs += 1;
      if (world.b.agent !== undefined) {
        most = Math.max(most, Number(world.b.status()["overlayKeys"]));
      }
    }
    expect(end(world.b)).toBe(60);
    expect(most).toBeGreaterThan(80);
    // A window's worth is on its way when it is noticed.
    expect(most).toBeLessThan(12 * 10 + 20);
  });

  test("a hot key does not make the log behind its data grow without end", () => {
    const world = new World({ ...LONG, overlayKeysMax: 100, sliceKeysMax: 3, sweepLogBytes: 4096 });
    world.begin();
    world.b.crash();
    world.solo(0, 2);
    world.passed(0);
    for (let i = 0; i < 300; i++) world.ask(0, "SET", "hot", VALUE);
    world.b.start();
    let most = 0;
    for (let i = 0; i < 20000 && !world.a.heartbeat().asked; i++) {
      world.round();
      if (i % 4 === 0) world.nowMs += 1;
      const log = world.b.log();
      if (log["flushed"]! > 0) most = Math.max(most, log["flushed"]! - log["applied"]!);
    }
    expect(end(world.b)).toBe(300);
    world.pass(100);
    expect(world.b.log()["applied"]).toBeGreaterThan(200);
  });
});

describe("joining begins", () => {
  test("at a moment when all is confirmed: no read waits for the other's disk", () => {
    const world = behind(30);
    world.b.start();
    untilStreaming(world);
    world.until(() => world.a.log()["confirmed"] === 30 && world.a.status()["joining"] === true);
    world.b.holdFlush = true;
    expect(world.ask(0, "GET", "k3")).toContain(VALUE);
  });

  test("under a load that leaves no such moment, soon all the same", () => {
    const world = behind(5, { joinPatienceMs: 50 });
    world.b.start();
    let n = 0;
    let joinedMs = -1;
    let nearMs = -1;
    for (let i = 0; i < 4000 && joinedMs < 0; i++) {
      // There is always one more.
      world.set(0, "n" + n++, "v");
      world.round();
      if (i % 2 === 0) world.nowMs += 1;
      if (nearMs < 0 && world.a.heartbeat().sessionOpen) nearMs = world.nowMs;
      if (world.a.status()["joining"] === true) joinedMs = world.nowMs;
    }
    expect(nearMs).toBeGreaterThan(0);
    expect(joinedMs - nearMs).toBeGreaterThanOrEqual(49);
    expect(joinedMs - nearMs).toBeLessThan(60);
  });

  test("and a burst that puts the other back again does not begin the wait anew", () => {
    const world = behind(5, { joinPatienceMs: 50, joinLagEntries: 6 });
    world.b.start();
    let n = 0;
    let far = 0;
    for (let i = 0; i < 4000 && world.a.status()["joining"] !== true; i++) {
      const count = i % 40 === 0 ? 30 : 1;
      for (let j = 0; j < count; j++) world.set(0, "n" + n++, "v");
      world.round();
      if (i % 2 === 0) world.nowMs += 1;
      const log = world.a.log();
      if (log["confirmed"]! > 0 && log["end"]! - log["confirmed"]! > 6) far++;
    }
    expect(far).toBeGreaterThan(0);
    expect(world.a.status()["joining"]).toBe(true);
  });

  test("where so much is on its way that the other is always behind by many entries, though by little time (seed 174411)", () => {
    const world = behind(5, { joinPatienceMs: 50, joinLagEntries: 6 });
    world.b.start();
    let n = 0;
    let least = Infinity;
    for (let i = 0; i < 2000 && world.a.status()["joining"] !== true; i++) {
      for (let j = 0; j < 20; j++) world.set(0, "n" + (n++ % 50), "v");
      world.round();
      if (i % 2 === 0) world.nowMs += 1;
      const log = world.a.log();
      if (log["confirmed"]! > 0) least = Math.min(least, log["end"]! - log["confirmed"]!);
    }
    expect(least).toBeGreaterThan(6);
    expect(world.a.status()["joining"]).toBe(true);
  });

  test("but not while the other is behind by more time than a client can be let wait", () => {
    const world = behind(5, { joinPatienceMs: 50, joinLagEntries: 6 });
    world.b.start();
    untilStreaming(world);
    for (let i = 0; i < 400; i++) {
      for (let j = 0; j < 20; j++) world.set(0, "n" + j, "v" + i);
      world.b.holdFlush = i % 80 !== 0;
      world.round();
      world.nowMs += 1;
      expect(world.a.status()["joining"]).toBe(false);
    }
  });
});

describe("a step that goes on top of all data", () => {
  test("does not carry all of it in one commit, and comes after all of it", () => {
    const limits = agentLimits({ sliceKeysMax: 10 });
    const store = createMemoryStore({ durability: "disk" });
    const commits: { log: number; data: number; step: boolean }[] = [];
    const { commit: commitTo } = store;
    store.commit = (fill, done, urgent) => {
      const one = { log: 0, data: 0, step: false };
      commits.push(one);
      commitTo.call(
        store,
        (writer: StoreWriter) =>
          fill({
            put(table, key, value) {
              if (table === "log") one.log++;
              if (table === "data") one.data++;
              if (table === "field") one.step = true;
              writer.put(table, key, value);
            },
            del: (table, key) => writer.del(table, key),
            clear: (table) => writer.clear(table),
          }),
        done,
        urgent,
      );
    };
    const keyspace = createKeyspace(store);
    const executor = createExecutor(keyspace, limits);
    const log = new SyncLog(store, limits);
    log.load(0, 0, 0);
    const commit = new GroupCommit(store, log, keyspace, limits, readStateRow(store));
    commit.upTo = Infinity;
    const write = (key: string): void => {
      const parts = {
        flags: 0,
        slot: 0,
        number: 0,
        reply: makeSink(8),
        replyStart: 0,
        replyEnd: 0,
        ops: makeSink(8),
        effects: makeSink(64),
      };
      executor.run(viewOf(["SET", key, "v"]), makeSink(64), parts.effects, 1, true);
      const index = log.append(1, 1, 1, parts);
      keyspace.apply(parts.effects.bytes, 0, parts.effects.length, index, undefined);
    };
    const turn = (): void => {
      commit.begin(1);
      store.flush();
      expect(commit.settle(1)).not.toBe("failed");
    };
    for (let i = 0; i < 95; i++) write("k" + i);
    let flushed = false;
    commit.add({
      name: "range",
      urgent: false,
      data: DATA_ALL,
      fill: (writer) => writer.put("field", Uint8Array.of(1), Uint8Array.of(1)),
      onFlushed: () => (flushed = true),
    });
    for (let i = 0; i < 100 && !flushed; i++) turn();
    expect(flushed).toBe(true);
    // The log first, since only what is on disk there may be put behind; ten at a time; then the step.
    expect(commits[0]).toEqual({ log: 1, data: 0, step: false });
    expect(Math.max(...commits.map((one) => one.data))).toBe(10);
    expect(commits.reduce((sum, one) => sum + one.data, 0)).toBe(95);
    expect(commits.findIndex((one) => one.step)).toBe(commits.length - 1);
  });
});
