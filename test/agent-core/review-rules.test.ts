/** What a review of the core against the role rules found: each test is the order of events that broke it. */
import { describe, expect, test } from "vitest";
import { MODE_BOTH, MODE_SOLO, World } from "./world.js";

/** The old primary's connections end, and the two can reach each other again. */
function reconnect(world: World): void {
  world.closePeer();
  world.cutPeer(false);
}

describe("rule 8: what was set aside is gone from the tables too", () => {
  test("a key whose newest effect was put behind early, with older entries still waiting", () => {
    const world = new World({ overlayKeysMax: 18, sliceKeysMax: 1 });
    world.begin();
    // Nine entries that b has, of which a never hears the confirm.
    world.a.holdFlush = true;
    world.set(0, "hot", "kept");
    for (let i = 2; i <= 9; i++) world.set(0, "c" + i, "x");
    for (let i = 0; i < 5; i++) world.round();
    world.a.holdFlush = false;
    for (let i = 0; i < 100 && world.b.log()["end"] !== 9; i++) world.round();
    world.cutPeer(true);
    world.settle();
    expect(world.a.log()["confirmed"]).toBe(0);
    // Now the overlay is too full, and the first of it is written whatever the confirms say.
    world.a.holdFlush = true;
    world.set(0, "hot", "set aside");
    for (let i = 11; i <= 20; i++) world.set(0, "lost" + i, "x");
    for (let i = 0; i < 5; i++) world.round();
    world.a.holdFlush = false;
    world.settle();
    expect(world.a.log()["applied"]).toBeLessThan(9);
    world.write(2, 1, MODE_SOLO, [1]);
    world.settle();
    world.ask(1, "SET", "new", "1");
    world.a.crash();
    reconnect(world);
    world.a.start();
    world.until(() => world.b.heartbeat().asked);
    world.write(3, 1, MODE_BOTH);
    world.until(() => world.a.heartbeat().sessionOpen);
    expect(world.ask(1, "GET", "hot")).toBe("$4\r\nkept\r\n");
    expect(world.ask(0, "GET", "hot")).toBe("$4\r\nkept\r\n");
    expect(world.ask(0, "DBSIZE")).toBe(world.ask(1, "DBSIZE"));
  });

  test("and from the session table: a checkpoint that counts it is not gone back to", () => {
    const world = new World({ checkpointBytes: 300 });
    world.begin();
    // Two checkpoints below what both have.
    for (let i = 0; i < 4; i++) world.ask(0, "SET", "k", "v".repeat(320));
    const shared = world.a.log()["end"]!;
    world.cutPeer(true);
    const lost = world.send(0, ["INCR", "n"]);
    world.set(0, "k", "w".repeat(320));
    world.settle();
    world.write(2, 1, MODE_SOLO, [1]);
    world.settle();
    for (let i = 0; i < 3; i++) world.ask(1, "SET", "s", "" + i);
    reconnect(world);
    world.links[0]!.tellRecord();
    world.until(() => world.b.heartbeat().asked);
    expect(world.a.log()["end"]).toBeGreaterThanOrEqual(shared + 3);
    world.a.restart();
    world.write(3, 1, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    world.write(4, 0, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    // The controller still holds that write and asks it again, under its number.
    expect(world.ask(0, "GET", "n")).toBe("$-1\r\n");
    world.send(0, ["INCR", "n"], { number: lost });
    world.settle();
    expect(world.reply(0, lost)?.text).toBe(":1\r\n");
    expect(world.ask(0, "GET", "n")).toBe("$1\r\n1\r\n");
  });

  test("an operator's force goes through where the log no longer reaches back to what is set aside", () => {
    const world = new World({ logBytesMax: 4096, chunkBytesMax: 512, checkpointBytes: 512 });
    world.begin();
    world.ask(0, "SET", "shared", "1");
    world.b.crash();
    world.solo(0, 2);
    world.passed(0);
    for (let i = 0; i < 200; i++) {
      world.set(0, "solo" + i, "x".repeat(50));
      if (i % 10 === 0) world.pass(10);
    }
    world.pass(500);
    expect(world.a.log()["base"]).toBeGreaterThan(1);
    world.a.crash();
    world.b.start();
    world.until(() => world.links[1]!.up);
    world.record = world.makeRecord(3, 1, MODE_SOLO);
    world.links[1]!.tellRecord(true);
    world.settle();
    expect(world.ask(1, "SET", "new", "1")).toBe("+OK\r\n");
    world.a.start();
    world.until(() => world.b.heartbeat().asked);
    world.write(4, 1, MODE_BOTH);
    world.until(() => world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "DBSIZE")).toBe(":2\r\n");
    const said = [...world.a.files.values()].join("");
    expect(said).toMatch(/solo199/);
    // The file says what it cannot show.
    expect(said).toMatch(/no longer in the log/);
  });

  test("what an operator gave up by force protects no later entry of that index", () => {
    const world = new World();
    world.begin();
    for (let i = 0; i < 5; i++) world.ask(0, "SET", "k" + i, "v");
    world.a.replaceDisk();
    world.a.start();
    world.until(() => world.links[0]!.up);
    world.record = world.makeRecord(2, 0, MODE_SOLO);
    for (const link of world.links) link!.tellRecord(true);
    world.until(() => world.a.heartbeat().asked);
    world.write(3, 0, MODE_BOTH);
    world.until(() => world.b.heartbeat().sessionOpen);
    world.ask(0, "SET", "k", "1");
    world.cutPeer(true);
    // A fresh solo that is taken back (G5): b's entry was acknowledged to nobody.
    world.write(4, 1, MODE_SOLO, [1]);
    world.settle();
    world.set(1, "taken", "back");
    world.settle();
    world.write(5, 0, MODE_SOLO);
    world.settle();
    reconnect(world);
    world.until(() => world.a.heartbeat().asked);
    expect(world.b.noted("set-aside-refused")).toBeUndefined();
    expect(world.b.log()["end"]).toBe(1);
  });
});

describe("rule 1: a disk that lost what it had confirmed", () => {
  test("is not in step in mode both, although its identity is the one the record names", () => {
    const world = new World();
    world.begin();
    world.ask(0, "SET", "k", "old");
    world.b.crash();
    // A backup put back in place: the same file, as far as the system can tell.
    const backup = world.b.store.crash("power");
    world.b.store = world.b.store.crash("power");
    world.b.start();
    world.until(() => world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "SET", "k", "new")).toBe("+OK\r\n");
    world.b.crash();
    // The primary restarts as well: what it has heard confirmed is on its disk.
    world.a.restart();
    world.b.store = backup;
    world.b.start();
    world.pass(500);
    expect(world.b.log()["end"]).toBe(1);
    expect(world.b.heartbeat().sessionOpen).toBe(false);
    expect(world.a.heartbeat().problem).toMatch(/lost entries/);
    expect(world.a.heartbeat().oldestUnconfirmedMs).toBeGreaterThan(400);
    // Joined under solo it is as good as any.
    world.write(2, 0, MODE_SOLO);
    world.until(() => world.a.heartbeat().asked);
    world.write(3, 0, MODE_BOTH);
    world.until(() => world.b.heartbeat().sessionOpen);
    expect(world.ask(1, "GET", "k")).toBe("$3\r\nnew\r\n");
  });
});

describe("rule 10: in solo", () => {
  test("a MULTI of reads alone is refused as a read is, one with a write is not", () => {
    const world = new World();
    world.begin();
    world.ask(0, "SET", "k", "1");
    world.b.crash();
    world.solo(0, 2);
    world.passed(0);
    const client = world.local(world.a);
    for (const command of [["MULTI"], ["GET", "k"], ["EXEC"]]) client.send(...command);
    world.settle();
    expect(client.take()).toMatch(/^\+OK\r\n\+QUEUED\r\n-CLUSTERDOWN .*10\.0\.0\.1:6379\r\n$/);
    for (const command of [["MULTI"], ["GET", "k"], ["SET", "k", "2"], ["EXEC"]]) {
      client.send(...command);
    }
    world.settle();
    expect(client.take()).toMatch(/\*2\r\n\$1\r\n1\r\n\+OK\r\n$/);
  });
});

describe("rule 10: a command of the standby that makes no entry", () => {
  test("is refused at once, not left to its time limit", () => {
    const world = new World();
    world.begin();
    const client = world.local(world.b);
    client.send("DYAD.SESSION", "OPEN");
    world.settle();
    expect(client.take()).toMatch(/^-ERR/);
    client.send("SET", "k", "1");
    world.settle();
    expect(client.take()).toBe("+OK\r\n");
  });
});

describe("rule 17: a copy", () => {
  test("keeps the log it still needs, however much is written meanwhile", () => {
    const world = new World({
      logBytesMax: 4096,
      chunkBytesMax: 512,
      checkpointBytes: 512,
      copyRowsMax: 4,
      copyBytesMax: 256,
      streamWindowBytes: 1024,
    });
    world.begin();
    world.b.replaceDisk();
    world.solo(0, 2);
    world.passed(0);
    for (let i = 0; i < 200; i++) {
      world.set(0, "k" + i, "x".repeat(50));
      if (i % 10 === 0) world.pass(10);
    }
    world.pass(500);
    world.b.start();
    for (let i = 0; i < 10000 && world.b.status()["copying"] !== true; i++) {
      world.round();
      world.nowMs += 0.2;
    }
    // The copied disk is slow for a while.
    world.b.holdFlush = true;
    for (let i = 0; i < 100; i++) {
      world.set(0, "k" + i, "y".repeat(50));
      if (i % 10 === 0) for (let k = 0; k < 10; k++) world.round();
    }
    world.settle();
    world.b.holdFlush = false;
    world.until(() => world.a.heartbeat().asked);
    const planned = world.a.notes.filter((note) => note.event === "session-planned");
    expect(planned.filter((note) => (note.details as { copy: boolean }).copy)).toHaveLength(1);
  });

  test("never begins in mode both: the standby's disk is the one that may be promoted", () => {
    const world = new World({ overlayKeysMax: 2, sliceKeysMax: 1 });
    world.begin();
    world.ask(0, "SET", "shared", "1");
    world.cutPeer(true);
    for (let i = 0; i < 20; i++) {
      world.set(0, "lost" + i, "x");
      world.settle();
    }
    // A planned switchover; the former primary's tables hold what the new one lacks.
    world.write(2, 1, MODE_BOTH, [1]);
    world.settle();
    world.a.crash();
    reconnect(world);
    world.a.start();
    world.until(() => world.a.status()["epoch"] === 2);
    world.pass(500);
    expect(world.a.status()["copying"]).toBe(false);
    expect(world.a.heartbeat().sessionOpen).toBe(false);
    expect(world.a.store.count("data")).toBeGreaterThan(1);
    // The primary says so, and its age lets the controller write solo(b), as for any lost standby.
    expect(world.b.heartbeat().problem).toMatch(/copy/);
    expect(world.b.heartbeat().oldestUnconfirmedMs).toBeGreaterThan(400);
    // With b lost now, a still has all that was ever acknowledged.
    world.write(3, 0, MODE_SOLO, [0]);
    world.settle();
    expect(world.ask(0, "GET", "shared")).toBe("$1\r\n1\r\n");
  });

  test("and is made once the record is solo", () => {
    const world = new World({ overlayKeysMax: 2, sliceKeysMax: 1 });
    world.begin();
    world.ask(0, "SET", "shared", "1");
    world.cutPeer(true);
    for (let i = 0; i < 20; i++) {
      world.set(0, "lost" + i, "x");
      world.settle();
    }
    world.write(2, 1, MODE_BOTH, [1]);
    world.settle();
    reconnect(world);
    world.links[0]!.tellRecord();
    world.pass(200);
    world.write(3, 1, MODE_SOLO);
    world.until(() => world.b.heartbeat().asked);
    expect(world.b.noted("copy-done")).toBeDefined();
    world.write(4, 1, MODE_BOTH);
    world.until(() => world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "DBSIZE")).toBe(":1\r\n");
  });

  test("log time goes on after a restart of the copied disk, whatever its wall clock says", () => {
    const world = new World({ logBytesMax: 4096, chunkBytesMax: 512, checkpointBytes: 512 });
    world.begin();
    world.b.replaceDisk();
    world.solo(0, 2);
    world.passed(0);
    for (let i = 0; i < 200; i++) {
      world.set(0, "k" + i, "x".repeat(50));
      if (i % 10 === 0) world.pass(10);
    }
    world.pass(500_000, 50_000);
    world.ask(0, "SET", "mortal", "x", "EX", "1000");
    world.pass(500);
    world.b.start();
    world.until(() => world.a.heartbeat().asked);
    expect(world.a.noted("copy-done")).toBeDefined();
    world.write(3, 0, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    world.b.restart();
    world.until(() => world.links[1]!.up);
    world.a.crash();
    world.write(4, 1, MODE_SOLO, [1]);
    world.settle();
    const left = Number(/\d+/.exec(world.ask(1, "TTL", "mortal"))![0]);
    expect(left).toBeLessThanOrEqual(1000);
  });
});
