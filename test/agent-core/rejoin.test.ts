/** Rule 17, and the heartbeat's ages by which the controller judges. */
import { describe, expect, test } from "vitest";
import { MODE_BOTH, MODE_SOLO, World } from "./world.js";

describe("rule 17: rejoin", () => {
  test("joining, then confirmed >= j, then asked on disk, and only then the request", () => {
    const world = new World();
    world.begin();
    world.b.crash();
    world.solo(0, 2);
    for (let i = 0; i < 10; i++) world.set(0, "k" + i, "v");
    world.settle();
    world.b.start();
    world.b.holdFlush = true;
    world.until(() => world.links[1]!.up);
    world.b.holdFlush = false;
    world.until(() => world.b.log()["end"] === 10);
    world.until(() => world.links[0]!.asks.length > 0);
    const ask = world.links[0]!.asks[0]!;
    expect(ask.mode).toBe(MODE_BOTH);
    expect(ask.epoch).toBe(2);
    expect(ask.identity).toEqual(world.b.identity);
    expect(ask.index).toBe(10);
    expect(world.a.heartbeat().asked).toBe(true);
    expect(world.a.heartbeat().confirmed).toBeGreaterThanOrEqual(10);
    // It was on disk first.
    world.a.crash();
    world.a.start();
    expect(world.a.status()["asked"]).toBe(true);
  });

  test("the request is not sent while asked is not on disk", () => {
    const world = new World();
    world.begin();
    world.b.crash();
    world.solo(0, 2);
    world.b.start();
    world.until(() => world.a.status()["joining"] === true);
    // The commit that would carry `asked` hangs.
    world.a.holdFlush = true;
    world.pass(300);
    if (!world.a.heartbeat().asked) expect(world.links[0]!.asks).toEqual([]);
    world.a.crash();
    world.a.start();
    world.until(() => world.links[0]!.up && world.a.heartbeat().asked);
  });

  test("while joining, acknowledgements need the other's confirm", () => {
    const world = new World();
    world.begin();
    world.b.crash();
    world.solo(0, 2);
    world.ask(0, "SET", "k", "0");
    world.b.start();
    world.until(() => world.a.heartbeat().asked);
    world.b.holdFlush = true;
    const id = world.set(0, "k", "1");
    const read = world.get(0, "k");
    world.pass(50);
    expect(world.reply(0, id)).toBeUndefined();
    expect(world.reply(0, read)).toBeUndefined();
    world.b.holdFlush = false;
    world.settle();
    expect(world.reply(0, id)?.text).toBe("+OK\r\n");
  });

  test("it is repeated until answered, and ends with both(X)", () => {
    const world = new World();
    world.begin();
    world.solo(0, 2);
    world.until(() => world.links[0]!.asks.length >= 3);
    expect(new Set(world.links[0]!.asks.map((ask) => ask.index)).size).toBe(1);
    world.write(3, 0, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    const { length } = world.links[0]!.asks;
    world.pass(500);
    expect(world.links[0]!.asks.length).toBe(length);
    expect(world.a.heartbeat().asked).toBe(false);
  });

  test("after asked it stays joint, through restarts; lost then, it asks for solo", () => {
    const world = new World();
    world.begin();
    world.solo(0, 2);
    world.until(() => world.a.heartbeat().asked);
    world.cutPeer(true);
    world.pass(300);
    expect(world.a.heartbeat().wantsSolo).toBe(true);
    expect(world.links[0]!.asks.at(-1)!.mode).toBe(MODE_SOLO);
    const id = world.set(0, "k", "1");
    world.pass(50);
    expect(world.reply(0, id)).toBeUndefined();
    world.a.restart();
    world.until(() => world.links[0]!.up);
    const read = world.get(0, "k");
    world.pass(300);
    expect(world.reply(0, read)).toBeUndefined();
    expect(world.a.heartbeat().wantsSolo).toBe(true);
    world.solo(0, 3);
    expect(world.a.heartbeat().wantsSolo).toBe(false);
    expect(world.ask(0, "SET", "k", "2")).toBe("+OK\r\n");
  });

  test("before asked it may give up: without progress clients are answered from its own disk again", () => {
    const world = new World({ joinGiveUpMs: 400, stallMs: 400, joinPatienceMs: 0 });
    world.begin();
    world.b.crash();
    world.solo(0, 2);
    world.ask(0, "SET", "k", "0");
    world.b.start();
    // It gets the entry, but its disk hangs before it can confirm it.
    for (let i = 0; i < 1000 && world.b.log()["end"] === 0; i++) {
      world.round();
      world.nowMs += 1;
      world.b.holdFlush = world.a.heartbeat().sessionOpen;
    }
    expect(world.a.status()["joining"]).toBe(true);
    // Rule 13: written and told before, but not confirmed.
    const before = world.get(0, "k");
    const id = world.set(0, "k", "1");
    world.pass(100);
    expect(world.reply(0, before)).toBeUndefined();
    expect(world.reply(0, id)).toBeUndefined();
    world.pass(600);
    expect(world.a.noted("join-given-up")).toBeDefined();
    expect(world.reply(0, id)?.text).toBe("+OK\r\n");
  });

  test("another disk than the one asked for does not count", () => {
    const world = new World();
    world.begin();
    world.solo(0, 2);
    world.until(() => world.a.heartbeat().asked);
    const asked = world.a.heartbeat().askIdentity;
    world.b.replaceDisk();
    world.b.start();
    world.pass(500);
    expect(world.a.heartbeat().askIdentity).toEqual(asked);
    expect(world.a.heartbeat().sessionOpen).toBe(false);
    expect(world.a.heartbeat().wantsSolo).toBe(true);
    // The new epoch lets the new disk join, and the request names it.
    world.solo(0, 3);
    world.until(() => world.a.heartbeat().asked);
    expect(world.a.heartbeat().askIdentity).toEqual(world.b.identity);
  });

  test("G5: the passed flag is told, volatile, and counts for exactly its epoch", () => {
    const world = new World();
    world.begin();
    world.solo(0, 2);
    world.passed(0);
    expect(world.a.heartbeat().passedTold).toBe(true);
    world.solo(0, 3);
    expect(world.a.heartbeat().passedTold).toBe(false);
    world.passed(0);
    world.a.restart();
    expect(world.a.status()["epoch"]).toBe(3);
    world.until(() => world.links[0]!.up);
    expect(world.a.heartbeat().passedTold).toBe(false);
  });
});

describe("the heartbeat's ages", () => {
  test("oldestUnconfirmedMs grows while the standby owes its confirm, also with the link cut", () => {
    const world = new World();
    world.begin();
    world.cutPeer(true);
    world.set(0, "k", "1");
    world.pass(150);
    expect(world.a.heartbeat().oldestUnconfirmedMs).toBeGreaterThanOrEqual(140);
    expect(world.a.heartbeat().oldestUnconfirmedMs).toBeLessThanOrEqual(150);
    world.pass(200);
    expect(world.a.heartbeat().peerUp).toBe(false);
    world.cutPeer(false);
    world.until(() => world.a.heartbeat().sessionOpen);
    world.settle();
    expect(world.a.heartbeat().oldestUnconfirmedMs).toBe(0);
  });

  test("a slow disk of the primary counts as uncommitted, never as unconfirmed", () => {
    const world = new World();
    world.begin();
    world.a.holdFlush = true;
    world.set(0, "k", "1");
    world.pass(100);
    const heartbeat = world.a.heartbeat();
    expect(heartbeat.oldestUnconfirmedMs).toBe(0);
    expect(heartbeat.oldestUncommittedMs).toBeGreaterThanOrEqual(95);
    world.a.holdFlush = false;
    world.settle();
    expect(world.a.heartbeat().oldestUncommittedMs).toBe(0);
  });
});

describe("a standby that cannot come in step in mode both", () => {
  test("is heard of by the age, before any write waits; in solo it is copied to", () => {
    const world = new World({ overlayKeysMax: 2, sliceKeysMax: 1 });
    world.begin();
    world.ask(0, "SET", "shared", "1");
    // a's tables run ahead of what b confirmed; then b leads, in mode both at once.
    world.cutPeer(true);
    for (let i = 0; i < 20; i++) {
      world.set(0, "lost" + i, "x");
      world.settle();
    }
    world.write(2, 1, MODE_BOTH, [1]);
    world.settle();
    world.closePeer();
    world.cutPeer(false);
    world.until(() => world.b.noted("copy-refused") !== undefined);
    world.pass(300);
    expect(world.b.heartbeat().oldestUnconfirmedMs).toBeGreaterThanOrEqual(300);
    expect(world.b.heartbeat().problem).toMatch(/needs a copy of all data/);
    world.solo(1, 3);
    world.until(() => world.b.heartbeat().asked);
    world.write(4, 1, MODE_BOTH);
    world.until(() => world.a.heartbeat().sessionOpen);
    expect(world.b.heartbeat().oldestUnconfirmedMs).toBe(0);
    expect(world.ask(0, "DBSIZE")).toBe(":1\r\n");
  });
});
