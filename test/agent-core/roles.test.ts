/** Rules 3 to 6 of the role protocol, as a server keeps them. */
import { describe, expect, test } from "vitest";
import { MODE_BOTH, MODE_SOLO, World } from "./world.js";

const epochOf = (world: World, index: 0 | 1): number =>
  world.servers[index].heartbeat().record?.epoch ?? 0;

describe("rule 3: adopting a record", () => {
  test("a lower or equal epoch has no effect at all", () => {
    const world = new World();
    world.begin();
    world.write(5, 0, MODE_BOTH);
    world.settle();
    const flushed = world.a.status()["commits"];
    world.links[0]!.control({
      kind: 7,
      record: world.makeRecord(4, 1, MODE_SOLO),
      fresh: false,
      forced: false,
    });
    world.links[0]!.control({
      kind: 7,
      record: world.makeRecord(5, 0, MODE_BOTH),
      fresh: false,
      forced: false,
    });
    world.settle();
    expect(epochOf(world, 0)).toBe(5);
    expect(world.a.status()["role"]).toBe("primary");
    expect(world.a.status()["commits"]).toBe(flushed);
  });

  test("it is one durable step: before the flush nothing of the new epoch is answered", () => {
    const world = new World();
    world.begin();
    world.a.holdFlush = true;
    world.solo(0, 2);
    const id = world.get(0, "k");
    world.settle();
    // Parked: neither refused nor answered.
    expect(world.reply(0, id)).toBeUndefined();
    expect(epochOf(world, 0)).toBe(1);
    world.a.holdFlush = false;
    world.settle();
    expect(epochOf(world, 0)).toBe(2);
    expect(world.reply(0, id)).toEqual({ outcome: 0, text: "$-1\r\n", epoch: 2 });
  });

  test("a crash before that flush leaves the old record, a crash after it the new one", () => {
    const world = new World();
    world.begin();
    world.a.holdFlush = true;
    world.solo(0, 2);
    world.record = world.makeRecord(1, 0, MODE_BOTH);
    world.a.crash();
    world.a.start();
    expect(world.a.status()["epoch"]).toBe(1);
    world.until(() => world.links[0]!.up);
    world.solo(0, 3);
    world.a.crash();
    world.a.start();
    expect(world.a.status()["epoch"]).toBe(3);
  });

  test("it clears asked, confirmed and joining, and ends the session", () => {
    const world = new World();
    world.begin();
    world.solo(0, 2);
    world.until(() => world.a.heartbeat().asked);
    expect(world.a.heartbeat().askIdentity).toEqual(world.b.identity);
    world.cutPeer(true);
    world.solo(0, 3);
    const heartbeat = world.a.heartbeat();
    expect(heartbeat.asked).toBe(false);
    expect(heartbeat.joining).toBe(false);
    expect(heartbeat.sessionOpen).toBe(false);
    expect(heartbeat.confirmed).toBe(0);
    // On disk as well.
    world.a.restart();
    expect(world.a.status()["asked"]).toBe(false);
  });

  test("a record of another pair is refused", () => {
    const world = new World();
    world.begin();
    const foreign = { ...world.makeRecord(9, 1, MODE_BOTH), pairId: new Uint8Array(8).fill(66) };
    world.links[0]!.control({ kind: 7, record: foreign, fresh: false, forced: false });
    world.settle();
    expect(epochOf(world, 0)).toBe(1);
    expect(world.a.noted("foreign-pair")?.level).toBe("error");
  });
});

describe("rule 1: a server acts as primary only if K names its own disk", () => {
  test("named with another disk it answers nothing", () => {
    const world = new World();
    world.begin();
    expect(world.ask(0, "SET", "k", "1")).toBe("+OK\r\n");
    const record = world.makeRecord(2, 0, MODE_SOLO);
    record.identityA = new Uint8Array(16).fill(99);
    world.record = record;
    world.links[0]!.tellRecord();
    world.settle();
    expect(world.a.status()["role"]).toBe("stranger");
    expect(world.ask(0, "GET", "k")).toMatch(/^outcome 1/);
    expect(world.ask(0, "SET", "k", "2")).toMatch(/^outcome 1/);
    expect(world.a.heartbeat().problem).toMatch(/another disk/);
  });

  test("in mode both a primary opens a session only with the disk K names", () => {
    const world = new World();
    world.begin();
    world.b.replaceDisk();
    // The record still names the old disk of b.
    world.b.start();
    world.pass(500);
    expect(world.b.status()["role"]).toBe("stranger");
    expect(world.a.heartbeat().sessionOpen).toBe(false);
    const id = world.set(0, "k", "1");
    world.pass(100);
    expect(world.reply(0, id)).toBeUndefined();
  });
});

describe("rule 4: the servers tell each other their record", () => {
  test("the lower adopts on a new connection", () => {
    const world = new World();
    world.begin();
    world.closePeer();
    world.cutPeer(true);
    world.write(2, 1, MODE_SOLO, [1]);
    world.settle();
    expect(epochOf(world, 0)).toBe(1);
    world.cutPeer(false);
    world.until(() => epochOf(world, 0) === 2);
    expect(world.a.status()["role"]).toBe("joiner");
  });

  test("and on an epoch mismatch of a connection that stands", () => {
    const world = new World();
    world.begin();
    world.write(2, 1, MODE_SOLO, [1]);
    world.until(() => epochOf(world, 0) === 2);
  });
});

describe("rule 5 and G2: every message counts only in exactly its epoch", () => {
  test("a command of another epoch is refused and not done", () => {
    const world = new World();
    world.begin();
    world.record = world.makeRecord(2, 0, MODE_BOTH);
    world.links[0]!.pipe.send(1, Uint8Array.of(0x13, 0, 0, 0, 0, 0, 0, 2));
    const id = world.set(0, "k", "1");
    world.settle();
    expect(world.reply(0, id)?.outcome).toBe(1);
    expect(world.a.log()["end"]).toBe(0);
  });

  test("the first reply of an epoch follows the epoch's own frame", () => {
    const world = new World();
    world.begin();
    world.solo(0, 2);
    const id = world.set(0, "k", "1");
    world.settle();
    expect(world.reply(0, id)?.epoch).toBe(2);
  });
});

describe("rule 6: one connection, its own nonce", () => {
  test("a new connection has a new nonce and discards what was pending on the old one", () => {
    const world = new World();
    world.begin();
    const before = world.links[0]!;
    world.a.holdFlush = true;
    world.set(0, "k", "1");
    world.settle();
    before.pipe.close();
    world.settle();
    world.until(() => world.links[0] !== before && world.links[0]!.up);
    world.links[0]!.tellRecord();
    world.a.holdFlush = false;
    world.pass(50);
    expect(world.links[0]!.nonce).not.toEqual(before.nonce);
    expect(world.links[0]!.replies.size).toBe(0);
    // The write itself was done all the same.
    expect(world.ask(0, "GET", "k")).toBe("$1\r\n1\r\n");
  });

  test("polls of another link or boot: the link is renewed, and strangers are not answered", () => {
    const world = new World();
    world.begin();
    const before = world.links[0]!;
    world.sessionId = Uint8Array.of(9, 9, 9, 9, 9, 9, 9, 9);
    expect(() => world.a.heartbeat()).toThrow("no answer");
    world.pass(150);
    expect(before.pipe.open).toBe(false);
    world.until(() => world.links[0] !== before && world.links[0]!.up);
    expect(world.a.heartbeat().serverId).toBe("a");
  });
});

describe("rule 19: equal epoch with other content", () => {
  test("the server stops, loudly, and answers nothing any more", () => {
    const world = new World();
    world.begin();
    expect(world.ask(0, "SET", "k", "1")).toBe("+OK\r\n");
    const other = world.makeRecord(1, 1, MODE_BOTH);
    world.links[0]!.control({ kind: 7, record: other, fresh: false, forced: false });
    world.settle();
    expect(world.a.status()["role"]).toBe("stopped");
    expect(world.a.noted("stopped")?.level).toBe("error");
    expect(world.ask(0, "GET", "k")).toMatch(/^outcome 1/);
    expect(world.a.heartbeat().problem).toMatch(/^stopped: /);
    expect(world.a.heartbeat().peerUp).toBe(false);
  });

  test("a later record is adopted, but not served under before the process is started anew", () => {
    const world = new World();
    world.begin();
    const other = world.makeRecord(1, 1, MODE_BOTH);
    world.links[0]!.control({ kind: 7, record: other, fresh: false, forced: false });
    world.settle();
    world.write(2, 0, MODE_SOLO, [0]);
    world.settle();
    expect(epochOf(world, 0)).toBe(2);
    expect(world.a.status()["role"]).toBe("stopped");
    expect(world.ask(0, "GET", "k")).toMatch(/^outcome 1/);
    world.a.restart();
    expect(world.a.status()["epoch"]).toBe(2);
    expect(world.a.status()["role"]).toBe("solo");
  });
});

describe("force: two servers that were forced, each without the other", () => {
  const none = new Uint8Array(16);

  /** a acts under solo(a) of epoch 5, which was forced without b. */
  function forcedWorld(): World {
    const world = new World();
    world.begin();
    world.record = { ...world.makeRecord(5, 0, MODE_SOLO), identityB: none };
    world.links[0]!.tellRecord();
    world.settle();
    world.passed(0);
    expect(world.a.heartbeat().passedTold).toBe(true);
    return world;
  }

  const tell = (world: World, epoch: number, forced: boolean): void => {
    const record = { ...world.makeRecord(epoch, 1, MODE_SOLO), identityA: none };
    world.links[0]!.control({ kind: 7, record, fresh: false, forced });
    world.settle();
  };

  test.each([[4], [5], [9]])(
    "it keeps its own, and stops nothing, at epoch %i of the other",
    (epoch) => {
      const world = forcedWorld();
      tell(world, epoch, false);
      expect(epochOf(world, 0)).toBe(5);
      expect(world.a.status()["role"]).toBe("solo");
      expect(world.a.noted("forced-apart")?.level).toBe("error");
      expect(world.a.heartbeat().problem).toContain("each forced without the other");
      // Its own port answers nothing until it hears that it is the one.
      expect(world.a.heartbeat().passedTold).toBe(false);
    },
  );

  test("a forced record of the controller's counts, if its epoch is higher", () => {
    const world = forcedWorld();
    tell(world, 5, true);
    expect(epochOf(world, 0)).toBe(5);
    tell(world, 6, true);
    expect(epochOf(world, 0)).toBe(6);
    expect(world.a.status()["role"]).toBe("joiner");
    expect(world.a.heartbeat().problem).not.toContain("each forced without the other");
  });

  test("a higher record that names its disk follows from its own", () => {
    const world = forcedWorld();
    world.write(6, 1, MODE_SOLO, [0]);
    world.settle();
    expect(epochOf(world, 0)).toBe(6);
  });

  test("what the peer says is not followed, and the controller is asked anew", () => {
    const world = forcedWorld();
    const dials = world.links[0]!;
    world.cutPeer(true);
    world.record = { ...world.makeRecord(9, 1, MODE_SOLO), identityA: none };
    world.links[1]!.tellRecord();
    world.settle();
    expect(epochOf(world, 1)).toBe(9);
    world.cutPeer(false);
    world.until(() => world.a.noted("forced-apart") !== undefined);
    world.settle();
    expect(epochOf(world, 0)).toBe(5);
    expect(epochOf(world, 1)).toBe(9);
    expect(world.a.status()["session"]).toBe("none");
    world.until(() => world.links[0] !== dials && world.links[0]?.up === true);
  });
});
