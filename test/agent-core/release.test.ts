/** Rules 7, 9 and 11 to 14: when a server may tell what it knows. */
import { describe, expect, test } from "vitest";
import { MODE_BOTH, MODE_SOLO, World } from "./world.js";

describe("flush first", () => {
  test("no reply before the flush: the flush is delayed and the reply waits; then it fails and the agent ends", () => {
    const world = new World();
    world.begin();
    world.solo(0, 2);
    world.cutPeer(true);
    world.solo(0, 3);
    world.a.holdFlush = true;
    const first = world.set(0, "k", "1");
    world.pass(50);
    expect(world.reply(0, first)).toBeUndefined();
    world.a.holdFlush = false;
    world.settle();
    expect(world.reply(0, first)?.text).toBe("+OK\r\n");
    const second = world.set(0, "k", "2");
    world.a.store.failNext(new Error("EIO: i/o error"));
    world.settle();
    expect(world.reply(0, second)).toBeUndefined();
    expect(world.a.fatalReason).toMatch(/store failed: EIO/);
    // It did not try again.
    expect(world.a.store.pendingCommits()).toBe(0);
  });

  test("rule 7: the primary sends an entry only from disk", () => {
    const world = new World();
    world.begin();
    world.a.holdFlush = true;
    world.set(0, "k", "1");
    world.pass(20);
    expect(world.b.log()["end"]).toBe(0);
    world.a.holdFlush = false;
    world.settle();
    expect(world.b.log()["end"]).toBe(1);
  });

  test("rule 7: the standby confirms an entry, and answers reads from it, only from disk", () => {
    const world = new World();
    world.begin();
    world.b.holdFlush = true;
    const write = world.set(0, "k", "1");
    world.settle();
    const read = world.get(1, "k");
    const other = world.get(1, "other");
    world.pass(20);
    expect(world.b.log()["end"]).toBe(1);
    expect(world.a.log()["confirmed"]).toBe(0);
    expect(world.reply(0, write)).toBeUndefined();
    expect(world.reply(1, read)).toBeUndefined();
    // Nobody is writing that key.
    expect(world.reply(1, other)?.text).toBe("$-1\r\n");
    world.b.holdFlush = false;
    world.settle();
    expect(world.reply(0, write)?.text).toBe("+OK\r\n");
    expect(world.reply(1, read)?.text).toBe("$1\r\n1\r\n");
  });
});

describe("rule 9: confirmed starts at 0", () => {
  test("dirty at restart: a joint primary's old entries are not told until they are confirmed again", () => {
    const world = new World();
    world.begin();
    expect(world.ask(0, "SET", "k", "1")).toBe("+OK\r\n");
    world.cutPeer(true);
    world.a.restart();
    world.until(() => world.links[0]!.up);
    const read = world.get(0, "k");
    const absent = world.get(0, "never written");
    world.pass(100);
    expect(world.reply(0, read)).toBeUndefined();
    expect(world.reply(0, absent)).toBeUndefined();
    world.cutPeer(false);
    world.until(() => world.reply(0, read) !== undefined);
    expect(world.reply(0, read)?.text).toBe("$1\r\n1\r\n");
    expect(world.reply(0, absent)?.text).toBe("$-1\r\n");
  });

  test("one exchange at the session's start confirms it all", () => {
    const world = new World();
    world.begin();
    for (let i = 0; i < 20; i++) world.set(0, "k" + i, "v");
    world.settle();
    world.a.restart();
    world.until(() => world.a.heartbeat().confirmed === 20);
  });

  test("it starts at 0 in each epoch too", () => {
    const world = new World();
    world.begin();
    expect(world.ask(0, "SET", "k", "1")).toBe("+OK\r\n");
    world.b.holdFlush = true;
    world.write(2, 0, MODE_BOTH);
    const read = world.get(0, "k");
    world.settle();
    expect(world.a.status()["epoch"]).toBe(2);
    expect(world.reply(0, read)).toBeUndefined();
    world.b.holdFlush = false;
    world.until(() => world.reply(0, read) !== undefined);
    expect(world.reply(0, read)?.epoch).toBe(2);
  });
});

describe("rules 11 and 12: acknowledging", () => {
  test("rule 11: a joint primary acknowledges what is confirmed", () => {
    const world = new World();
    world.begin();
    world.cutPeer(true);
    const id = world.set(0, "k", "1");
    world.pass(100);
    expect(world.a.log()["flushed"]).toBe(1);
    expect(world.reply(0, id)).toBeUndefined();
  });

  test("rule 12: a solo primary after its own disk write", () => {
    const world = new World();
    world.begin();
    world.b.crash();
    world.solo(0, 2);
    expect(world.ask(0, "SET", "k", "1")).toBe("+OK\r\n");
  });

  test("a primary that stays primary keeps its pending commands and answers them in the new epoch", () => {
    const world = new World();
    world.begin();
    world.b.crash();
    const id = world.set(0, "k", "1");
    world.pass(20);
    expect(world.reply(0, id)).toBeUndefined();
    world.solo(0, 2);
    expect(world.reply(0, id)).toEqual({ outcome: 0, text: "+OK\r\n", epoch: 2 });
  });

  test("a server that loses the primary role drops them silently", () => {
    const world = new World();
    world.begin();
    world.b.holdFlush = true;
    const id = world.set(0, "k", "1");
    world.pass(20);
    world.b.holdFlush = false;
    world.write(2, 1, MODE_SOLO, [0]);
    world.settle();
    expect(world.reply(0, id)).toBeUndefined();
  });
});

describe("rule 13: reads at a joint primary", () => {
  test("the value is taken on arrival and told when its entry is confirmed; a quiet key at once", () => {
    const world = new World();
    world.begin();
    expect(world.ask(0, "SET", "quiet", "q")).toBe("+OK\r\n");
    expect(world.ask(0, "SET", "k", "old")).toBe("+OK\r\n");
    world.b.holdFlush = true;
    world.set(0, "k", "new");
    const read = world.get(0, "k");
    const quiet = world.get(0, "quiet");
    const many = world.send(0, ["DBSIZE"], { query: true });
    world.pass(20);
    expect(world.reply(0, quiet)?.text).toBe("$1\r\nq\r\n");
    expect(world.reply(0, read)).toBeUndefined();
    // Over all keys: the whole log counts.
    expect(world.reply(0, many)).toBeUndefined();
    world.b.holdFlush = false;
    world.settle();
    expect(world.reply(0, read)?.text).toBe("$3\r\nnew\r\n");
    expect(world.reply(0, many)?.text).toBe(":2\r\n");
  });
});

describe("rule 14: reads at the standby", () => {
  test("from its whole log, the unconfirmed tail included", () => {
    const world = new World();
    world.begin();
    expect(world.ask(0, "SET", "k", "1")).toBe("+OK\r\n");
    expect(world.ask(1, "GET", "k")).toBe("$1\r\n1\r\n");
  });

  test("not without a session, not in mode solo", () => {
    const world = new World();
    world.begin();
    world.closePeer();
    world.cutPeer(true);
    world.settle();
    expect(world.ask(1, "GET", "k")).toMatch(/^outcome 1/);
    world.cutPeer(false);
    world.until(() => world.b.heartbeat().sessionOpen);
    expect(world.ask(1, "GET", "k")).toBe("$-1\r\n");
    world.write(2, 0, MODE_SOLO);
    world.settle();
    expect(world.ask(1, "GET", "k")).toMatch(/^outcome 1/);
  });
});

describe("order of replies", () => {
  test("an ORDERED reply never overtakes one that is not answered yet; others may", () => {
    const world = new World();
    world.begin();
    world.ask(0, "SET", "quiet", "q");
    world.b.holdFlush = true;
    const write = world.set(0, "k", "1");
    const free = world.get(0, "quiet");
    const ordered = world.send(0, ["GET", "quiet"], { query: true, ordered: true });
    world.pass(20);
    expect(world.reply(0, free)).toBeDefined();
    expect(world.reply(0, ordered)).toBeUndefined();
    world.b.holdFlush = false;
    world.settle();
    const { order } = world.links[0]!;
    expect(order.indexOf(ordered)).toBeGreaterThan(order.indexOf(write));
  });

  test("a reply longer than the window comes in fragments and waits for credit, and holds back ORDERED ones", () => {
    const world = new World();
    world.begin();
    const value = "v".repeat(100_000);
    expect(world.ask(0, "SET", "long", value)).toBe("+OK\r\n");
    world.creditAtOnce = false;
    const long = world.get(0, "long");
    const ordered = world.send(0, ["GET", "nothing"], { query: true, ordered: true });
    const free = world.get(0, "nothing");
    world.settle();
    expect(world.reply(0, long)).toBeUndefined();
    expect(world.reply(0, ordered)).toBeUndefined();
    expect(world.reply(0, free)).toBeDefined();
    const partial = world.links[0]!.parts.get(long)!.reduce((sum, part) => sum + part.length, 0);
    expect(partial).toBe(16384);
    world.creditAtOnce = true;
    world.links[0]!.credit(long, 16384);
    world.settle();
    expect(world.reply(0, long)?.text).toBe(`$100000\r\n${value}\r\n`);
    expect(world.reply(0, ordered)?.text).toBe("$-1\r\n");
    const { order } = world.links[0]!;
    expect(order.indexOf(ordered)).toBeGreaterThan(order.indexOf(long));
  });

  test("a chip's small frames: commands and replies in fragments", () => {
    const world = new World();
    world.payloadMax = 528;
    world.begin();
    const value = "x".repeat(20_000);
    expect(world.ask(0, "SET", "k", value)).toBe("+OK\r\n");
    expect(world.ask(0, "GET", "k")).toBe(`$20000\r\n${value}\r\n`);
  });
});

describe("refusals", () => {
  test("the server checks the class again and refuses a lie", () => {
    const world = new World();
    world.begin();
    const id = world.send(0, ["SET", "k", "1"], { query: true });
    world.settle();
    expect(world.reply(0, id)?.outcome).toBe(1);
    expect(world.ask(0, "GET", "k")).toBe("$-1\r\n");
    const onStandby = world.send(1, ["DEL", "k"], { query: true });
    world.settle();
    expect(world.reply(1, onStandby)?.outcome).toBe(1);
  });

  test("a payload that is no command is the client's mistake: answered, the link stays", () => {
    const world = new World();
    world.begin();
    const bad = Buffer.from("*1\r\n$4\r\nPI", "latin1");
    const id = world.send(0, [], { query: true, raw: bad });
    world.settle();
    expect(world.reply(0, id)?.text).toMatch(/^-ERR Protocol error/);
    expect(world.ask(0, "GET", "k")).toBe("$-1\r\n");
  });

  test("a command before any record is refused", () => {
    const world = new World();
    world.start();
    world.until(() => world.links[0]?.report !== undefined);
    const id = world.get(0, "k");
    world.settle();
    expect(world.reply(0, id)?.outcome).toBe(1);
  });
});

describe("MULTI", () => {
  test("is one entry, and its reply is the array EXEC gives", () => {
    const world = new World();
    world.begin();
    const id = world.send(
      0,
      [
        ["SET", "a", "1"],
        ["INCR", "a"],
        ["GET", "a"],
      ],
      { txn: true },
    );
    world.settle();
    expect(world.reply(0, id)?.text).toBe("*3\r\n+OK\r\n:2\r\n$1\r\n2\r\n");
    expect(world.a.log()["end"]).toBe(1);
    expect(world.ask(1, "GET", "a")).toBe("$1\r\n2\r\n");
  });
});

describe("long commands", () => {
  test("run in steps, and their reply keeps its place", () => {
    const world = new World({ jobWorkPerTurn: 50 });
    world.begin();
    for (let i = 0; i < 3000; i++) world.set(0, "key:" + i, "v");
    world.settle();
    const keys = world.send(0, ["KEYS", "*"], { query: true });
    const ordered = world.send(0, ["GET", "key:1"], { query: true, ordered: true });
    const free = world.get(0, "key:1");
    world.round();
    world.round();
    expect(world.reply(0, keys)).toBeUndefined();
    world.settle();
    expect(world.reply(0, keys)!.text.startsWith("*3000\r\n")).toBe(true);
    const { order } = world.links[0]!;
    expect(order.indexOf(ordered)).toBeGreaterThan(order.indexOf(keys));
    expect(order.indexOf(free)).toBeLessThan(order.indexOf(keys));
  });
});
