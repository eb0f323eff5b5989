/** The agent's rows of the patent table: P1, P2 (what is told), P7 to P10, P13 (the announcement). */
import { describe, expect, test } from "vitest";
import { MODE_BOTH, MODE_SOLO, World } from "./world.js";

describe("P1: information acquisition, load unit", () => {
  test("every poll is answered with the running load", () => {
    const world = new World();
    world.begin();
    expect(world.a.heartbeat().loadPermille).toBe(100);
  });
});

describe("P2: information acquisition, sync unit", () => {
  test("every poll is answered with how far the two are in sync", () => {
    const world = new World();
    world.begin();
    world.cutPeer(true);
    for (let i = 0; i < 3; i++) world.set(0, "k" + i, "v");
    world.pass(50);
    expect(world.a.heartbeat().lagEntries).toBe(3);
    world.cutPeer(false);
    world.until(() => world.a.heartbeat().lagEntries === 0);
    expect(world.a.heartbeat().logEnd).toBe(world.b.heartbeat().logEnd);
  });
});

describe("P7: first real-time sync module", () => {
  test("a change on the primary is synced to the standby at once", () => {
    const world = new World();
    world.begin();
    const before = world.nowMs;
    world.set(0, "k", "1");
    world.settle();
    expect(world.nowMs).toBe(before);
    expect(world.b.log()["flushed"]).toBe(1);
    expect(world.ask(1, "GET", "k")).toBe("$1\r\n1\r\n");
  });

  test("commands of one turn are one commit and one chunk", () => {
    const world = new World();
    world.begin();
    const before = world.b.status()["commits"] as number;
    for (let i = 0; i < 100; i++) world.set(0, "k" + i, "v");
    world.settle();
    expect(world.b.log()["flushed"]).toBe(100);
    expect((world.b.status()["commits"] as number) - before).toBeLessThanOrEqual(2);
  });

  test("a chunk larger than a frame travels in fragments", () => {
    const world = new World();
    world.begin();
    const value = "x".repeat(300_000);
    expect(world.ask(0, "SET", "long", value)).toBe("+OK\r\n");
    expect(world.ask(1, "STRLEN", "long")).toBe(":300000\r\n");
  });
});

describe("P8: second real-time sync module", () => {
  test("a change made on the standby is synced to the primary at once, and told when its entry comes back", () => {
    const world = new World();
    world.begin();
    const client = world.local(world.b);
    client.send("SET", "k", "from b");
    world.settle();
    expect(client.take()).toBe("+OK\r\n");
    expect(world.ask(0, "GET", "k")).toBe("$6\r\nfrom b\r\n");
    client.send("INCR", "n");
    client.send("GET", "n");
    world.settle();
    expect(client.take()).toBe(":1\r\n$1\r\n1\r\n");
    expect(world.a.log()["end"]).toBe(world.b.log()["end"]);
  });

  test("it is not told before the primary has it on disk", () => {
    const world = new World();
    world.begin();
    const client = world.local(world.b);
    world.a.holdFlush = true;
    client.send("SET", "k", "1");
    world.pass(50);
    expect(client.take()).toBe("");
    world.a.holdFlush = false;
    world.settle();
    expect(client.take()).toBe("+OK\r\n");
  });
});

/** The server `failed` is away while the other takes `count` writes, then comes back. */
function away(world: World, failed: 0 | 1, count: number): void {
  const other = failed === 0 ? 1 : 0;
  world.begin();
  expect(world.ask(0, "SET", "before", "1")).toBe("+OK\r\n");
  world.servers[failed].crash();
  world.solo(other, 2);
  world.passed(other);
  for (let i = 0; i < count; i++) {
    world.set(other, "k" + (i % 50), "v" + i);
    if (i % 10 === 9) world.settle();
  }
  world.settle();
  world.pass(300);
}

const rows = [
  ["P9", "primary", 0],
  ["P10", "standby", 1],
] as const;

for (const [row, role, failed] of rows) {
  const other = failed === 0 ? 1 : 0;
  describe(`${row}: batch sync module for a failed ${role} that is back`, () => {
    test("all that changed on the other is brought to it in a batch, from the log", () => {
      const world = new World();
      away(world, failed, 500);
      world.servers[failed].start();
      world.until(() => world.servers[other].heartbeat().asked);
      expect(world.servers[other].noted("copy-done")).toBeUndefined();
      world.write(3, other, MODE_BOTH);
      world.until(() => world.servers[failed].heartbeat().sessionOpen);
      expect(world.ask(failed, "GET", "k49")).toBe("$4\r\nv499\r\n");
      expect(world.ask(failed, "DBSIZE")).toBe(":51\r\n");
    });

    test("by a range copy where the log no longer reaches back", () => {
      const world = new World({
        logBytesMax: 4096,
        chunkBytesMax: 1024,
        checkpointBytes: 512,
        copyRowsMax: 8,
      });
      away(world, failed, 500);
      expect(world.servers[other].log()["base"]).toBeGreaterThan(10);
      world.servers[failed].start();
      world.until(() => world.servers[other].heartbeat().asked);
      expect(world.servers[other].noted("copy-done")).toBeDefined();
      world.write(3, other, MODE_BOTH);
      world.until(() => world.servers[failed].heartbeat().sessionOpen);
      expect(world.ask(failed, "GET", "k49")).toBe("$4\r\nv499\r\n");
      expect(world.ask(failed, "GET", "before")).toBe("$1\r\n1\r\n");
      expect(world.ask(failed, "DBSIZE")).toBe(":51\r\n");
      // It can take over.
      world.servers[other].crash();
      world.solo(failed, 4);
      expect(world.ask(failed, "GET", "k49")).toBe("$4\r\nv499\r\n");
      world.servers[failed].restart();
      world.until(() => world.links[failed]!.up);
      world.settle();
      expect(world.ask(failed, "GET", "k49")).toBe("$4\r\nv499\r\n");
      expect(world.ask(failed, "DBSIZE")).toBe(":51\r\n");
    });
  });
}

describe("P13: the preset server's message packet", () => {
  test("the preset server announces itself on its link, the other does not", () => {
    const world = new World();
    world.start();
    world.until(() => world.links.every((link) => link?.report !== undefined));
    expect(world.links[0]!.announced).toBe(true);
    expect(world.links[1]!.announced).toBe(false);
    expect(world.links[0]!.report!.preset).toBe(true);
    expect(world.links[0]!.report!.blank).toBe(true);
  });
});

void MODE_SOLO;
