/** Rule 8: what is compared, set aside and removed, and what never is. */
import { describe, expect, test } from "vitest";
import { commonIndex, epochAt } from "../../agent/core/sync-log.js";
import { MODE_BOTH, MODE_SOLO, World } from "./world.js";

const shape = (end: number, ...boundaries: [number, number][]) => ({
  base: 0,
  end,
  boundaries: boundaries.map(([epoch, firstIndex]) => ({ epoch, firstIndex })),
});

describe("comparing logs", () => {
  test("by where their epochs begin", () => {
    expect(commonIndex(shape(10, [1, 1]), shape(7, [1, 1]))).toBe(7);
    expect(commonIndex(shape(10, [1, 1], [3, 6]), shape(9, [1, 1], [2, 8]))).toBe(5);
    expect(commonIndex(shape(9, [1, 1], [2, 8]), shape(10, [1, 1], [3, 6]))).toBe(5);
    expect(commonIndex(shape(5, [1, 1]), shape(5, [2, 1]))).toBe(0);
    expect(commonIndex(shape(0), shape(5, [2, 1]))).toBe(0);
    expect(commonIndex(shape(20, [1, 1], [4, 11]), shape(30, [1, 1], [4, 11], [5, 21]))).toBe(20);
  });

  test("and says when it cannot tell", () => {
    expect(commonIndex(shape(100, [7, 50]), shape(60, [3, 1], [6, 40]))).toBe(-1);
    expect(epochAt([{ epoch: 7, firstIndex: 50 }], 49)).toBe(-1);
    expect(epochAt([{ epoch: 7, firstIndex: 50 }], 50)).toBe(7);
  });
});

/** a wrote entries that b never got, then b became primary. */
function diverged(changes = {}): World {
  const world = new World(changes);
  world.begin();
  expect(world.ask(0, "SET", "shared", "1")).toBe("+OK\r\n");
  world.cutPeer(true);
  world.set(0, "lost", "only here");
  world.set(0, "shared", "2");
  world.pass(20);
  expect(world.a.log()["flushed"]).toBe(3);
  world.write(2, 1, MODE_SOLO, [1]);
  world.settle();
  expect(world.ask(1, "SET", "new", "3")).toBe("+OK\r\n");
  world.a.crash();
  world.closePeer();
  world.cutPeer(false);
  return world;
}

describe("rule 8: setting aside", () => {
  test("the returning server saves what the primary lacks in a readable file, and removes it", () => {
    const world = diverged();
    world.a.start();
    world.until(() => world.b.heartbeat().asked);
    expect(world.a.log()["end"]).toBe(2);
    expect(world.a.noted("set-aside")?.details).toMatchObject({ from: 2, to: 3, epoch: 2 });
    const [name] = [...world.a.files.keys()];
    expect(name).toBe("set-aside-epoch-2-entries-2-3.jsonl");
    const lines = world.a.files.get(name!)!.trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      {
        what: "entries this server held and the primary did not; they were removed here",
        epoch: 2,
        firstIndex: 2,
        lastIndex: 3,
      },
      {
        index: 2,
        epoch: 1,
        timeMs: expect.any(Number) as number,
        changes: [["put", "lost", "only here"]],
        session: 0,
        number: expect.any(Number) as number,
      },
      {
        index: 3,
        epoch: 1,
        timeMs: expect.any(Number) as number,
        changes: [["put", "shared", "2"]],
        session: 0,
        number: expect.any(Number) as number,
      },
    ]);
    world.write(3, 1, MODE_BOTH);
    world.until(() => world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "GET", "lost")).toBe("$-1\r\n");
    expect(world.ask(0, "GET", "shared")).toBe("$1\r\n1\r\n");
    expect(world.ask(0, "GET", "new")).toBe("$1\r\n3\r\n");
    expect(world.ask(0, "DBSIZE")).toBe(":2\r\n");
  });

  test("the log is cut inside a chunk", () => {
    const world = new World();
    world.begin();
    // One chunk of five, of which the standby gets three: as if the primary before had sent less.
    world.a.holdFlush = true;
    for (let i = 0; i < 5; i++) world.set(0, "k" + i, "v" + i);
    world.settle();
    world.a.holdFlush = false;
    world.settle();
    expect(world.a.log()["end"]).toBe(5);
    expect(world.b.log()["end"]).toBe(5);
    // b's log ends inside that chunk; a must send a tail of it.
    world.cutPeer(true);
    world.a.holdFlush = true;
    for (let i = 5; i < 10; i++) world.set(0, "k" + i, "v" + i);
    world.settle();
    world.a.holdFlush = false;
    world.settle();
    world.write(2, 1, MODE_SOLO, [1]);
    world.settle();
    world.ask(1, "SET", "new", "1");
    world.a.crash();
    world.closePeer();
    world.cutPeer(false);
    world.a.start();
    world.until(() => world.b.heartbeat().asked);
    expect(world.a.log()["end"]).toBe(6);
    world.write(3, 1, MODE_BOTH);
    world.until(() => world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "GET", "k4")).toBe("$2\r\nv4\r\n");
    expect(world.ask(0, "GET", "k5")).toBe("$-1\r\n");
    // The cut chunk is read again after a restart.
    world.a.restart();
    world.until(() => world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "GET", "k4")).toBe("$2\r\nv4\r\n");
    expect(world.ask(0, "DBSIZE")).toBe(":6\r\n");
  });

  test("nothing is removed before the file is written", () => {
    const world = diverged();
    world.a.failSetAside = true;
    world.a.start();
    world.pass(300);
    expect(world.a.log()["end"]).toBe(3);
    expect(world.a.heartbeat().problem).toMatch(/cannot be set aside: ENOSPC/);
    world.a.failSetAside = false;
    world.until(() => world.b.heartbeat().asked);
    expect(world.a.log()["end"]).toBe(2);
    expect(world.a.files.size).toBe(1);
  });

  test("an emptied primary cannot wipe a good standby: nothing confirmed is set aside without force", () => {
    const world = new World();
    world.begin();
    for (let i = 0; i < 5; i++) world.set(0, "k" + i, "v");
    world.settle();
    world.a.replaceDisk();
    world.a.start();
    world.until(() => world.links[0]!.up);
    // What no controller would write: the emptied disk as primary.
    world.write(2, 0, MODE_SOLO);
    world.pass(300);
    expect(world.a.status()["role"]).toBe("solo");
    expect(world.b.log()["end"]).toBe(5);
    expect(world.b.noted("set-aside-refused")?.level).toBe("error");
    expect(world.b.heartbeat().problem).toMatch(/lacks confirmed entries 1 to 5/);
    expect(world.b.files.size).toBe(0);
    // An operator may choose so.
    world.record = world.makeRecord(3, 0, MODE_SOLO);
    for (const link of world.links) link!.tellRecord(true);
    world.until(() => world.a.heartbeat().asked);
    expect(world.b.log()["end"]).toBe(0);
    expect(world.b.files.size).toBe(1);
  });

  test("logs too many epochs apart cannot be compared, and that is what is said", () => {
    const world = new World({ boundariesMax: 8 });
    world.begin();
    for (let i = 0; i < 5; i++) world.set(0, "k" + i, "v");
    world.settle();
    world.b.crash();
    for (let epoch = 2; epoch < 14; epoch++) {
      world.write(epoch, 0, MODE_SOLO, [0]);
      world.settle();
      world.set(0, "alone" + epoch, "v");
      world.settle();
    }
    world.b.start();
    world.until(() => world.links[1]!.up);
    for (const link of world.links) link!.tellRecord();
    world.pass(300);
    expect(world.b.noted("set-aside-refused")?.level).toBe("error");
    expect(world.b.heartbeat().problem).toMatch(
      /more than 8 epochs apart, or the primary has none of 1 to 5/,
    );
    expect(world.b.heartbeat().problem).toMatch(/operator must choose \(force\)/);
    expect(world.a.heartbeat().problem).toMatch(/more than 8 epochs apart .* must take a copy/);
    expect(world.b.log()["end"]).toBe(5);
    // The operator has chosen: it is copied to, and the words go with what they were about.
    world.record = world.makeRecord(14, 0, MODE_SOLO);
    for (const link of world.links) link!.tellRecord(true);
    world.until(() => world.a.heartbeat().asked);
    expect(world.a.heartbeat().problem).toBe("");
    expect(world.b.heartbeat().problem).toBe("");
  });

  test("the highest confirmed index is kept on both sides, and never counts solo acknowledgements", () => {
    const world = new World();
    world.begin();
    world.ask(0, "SET", "k", "1");
    world.ask(0, "SET", "k", "2");
    expect(world.a.log()["confirmedHigh"]).toBe(2);
    expect(world.b.log()["confirmedHigh"]).toBe(2);
    world.b.crash();
    world.write(2, 0, MODE_SOLO);
    world.settle();
    expect(world.ask(0, "SET", "k", "3")).toBe("+OK\r\n");
    world.a.restart();
    expect(world.a.log()["confirmedHigh"]).toBe(2);
  });

  test("as primary it is on disk before the write is acknowledged", () => {
    const world = new World();
    world.begin();
    const id = world.set(0, "k", "1");
    for (let i = 0; i < 100 && world.b.log()["flushed"] === 0; i++) world.round();
    // From here on a's disk takes nothing.
    world.a.holdFlush = true;
    world.pass(20);
    expect(world.a.log()["confirmed"]).toBe(1);
    expect(world.a.log()["confirmedHigh"]).toBe(0);
    expect(world.reply(0, id)).toBeUndefined();
    world.a.holdFlush = false;
    world.settle();
    expect(world.reply(0, id)?.text).toBe("+OK\r\n");
    world.a.crash();
    world.a.start();
    expect(world.a.log()["confirmedHigh"]).toBe(1);
  });

  test("a session is opened again after a reconnect, and in every epoch", () => {
    const world = new World();
    world.begin();
    world.ask(0, "SET", "k", "1");
    world.closePeer();
    world.until(() => world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "SET", "k", "2")).toBe("+OK\r\n");
    world.write(2, 1, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    expect(world.ask(1, "SET", "k", "3")).toBe("+OK\r\n");
    expect(world.ask(0, "GET", "k")).toBe("$1\r\n3\r\n");
    expect(world.a.files.size + world.b.files.size).toBe(0);
  });

  test("what the tables already hold of a set-aside entry is replaced by a copy", () => {
    // A tiny overlay: entries reach the tables before they are confirmed.
    const world = new World({ overlayKeysMax: 2, sliceKeysMax: 1 });
    world.begin();
    world.ask(0, "SET", "shared", "1");
    world.cutPeer(true);
    for (let i = 0; i < 20; i++) {
      world.set(0, "lost" + i, "x");
      world.settle();
    }
    expect(world.a.log()["applied"]).toBeGreaterThan(1);
    world.write(2, 1, MODE_SOLO, [1]);
    world.settle();
    world.ask(1, "SET", "new", "3");
    world.a.crash();
    world.closePeer();
    world.cutPeer(false);
    world.a.start();
    world.until(() => world.b.heartbeat().asked);
    expect(world.b.noted("session-planned")).toBeDefined();
    expect(world.b.noted("copy-done")).toBeDefined();
    world.write(3, 1, MODE_BOTH);
    world.until(() => world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "DBSIZE")).toBe(":2\r\n");
    expect(world.ask(0, "GET", "lost3")).toBe("$-1\r\n");
    expect([...world.a.files.values()].join("")).toMatch(/lost3/);
  });
});
