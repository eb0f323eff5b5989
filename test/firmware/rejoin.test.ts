/** Batch sync from the controller's side: rule 17 (P9, P10), and what follows a join. */
import { describe, expect, test } from "vitest";
import { FakePair, filled, record } from "./fake-pair.js";

describe("P9, P10: a failed server is back, is brought up to date in a batch, and joins", () => {
  for (const primary of [0, 1] as const) {
    const x = "ab"[primary];
    const y = "ab"[1 - primary];
    test(`${x} asks for both(${x}), naming the disk that confirmed: ${y} joins`, () => {
      const pair = FakePair.serving(primary, "solo");
      const disk = filled(16, 0xcc);
      pair.servers[1 - primary]!.kill();
      pair.run(50);
      pair.servers[1 - primary]!.identity = disk;
      pair.servers[1 - primary]!.record = undefined;
      pair.servers[1 - primary]!.start();
      pair.run(50);
      expect(pair.status.servers[1 - primary]!.role).toBe("joining");
      pair.servers[primary].says = { asked: true, askIdentity: disk, askIndex: 100 };
      pair.until(() => pair.status.mode === "both");
      pair.servers[primary].says = {};
      pair.run(50);
      expect(pair.roles).toBe(`both(${x}) 6 both`);
      const next = pair.servers[primary].record!;
      expect(primary === 0 ? next.identityB : next.identityA).toEqual(disk);
      expect(pair.status.servers[1 - primary]).toMatchObject({ role: "standby", inSync: true });
      expect(pair.forward.route.readable).toEqual([true, true]);
    });
  }
});

describe("rule 17: what is asked, and by whom", () => {
  const asking = { asked: true, askIndex: 7 };

  test("the epoch must be exactly the record's", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.adopts = false;
    pair.a.record = record(4, 0, "solo");
    pair.a.says = { ...asking, askIdentity: pair.b.identity };
    pair.run(200);
    expect(pair.written).toEqual([]);
  });

  test("only the primary is heard", () => {
    const pair = FakePair.serving(0, "solo");
    pair.b.says = { ...asking, askIdentity: pair.a.identity };
    pair.run(200);
    expect(pair.written).toEqual([]);
  });

  test("a request that names no disk is none", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.says = { ...asking };
    pair.run(200);
    expect(pair.written).toEqual([]);
  });

  test("a request naming a disk that is not there is not granted: it would turn back at once", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.says = { ...asking, askIdentity: filled(16, 0xcc) };
    pair.run(200);
    expect(pair.written).toEqual([]);
    pair.b.kill();
    pair.a.says = { ...asking, askIdentity: pair.b.identity };
    pair.run(200);
    expect(pair.written).toEqual([]);
    pair.b.start();
    pair.until(() => pair.status.mode === "both");
    expect(pair.written.length).toBe(1);
  });

  test("after `asked`, the standby lost again: the answer is a NEW epoch of solo", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.says = { asked: true, wantsSolo: true, askIdentity: pair.b.identity };
    pair.until(() => pair.status.epoch === 6);
    pair.a.says = {};
    pair.run(50);
    expect(pair.roles).toBe("solo(a) 6 solo");
    expect(pair.a.record).toEqual(record(6, 0, "solo"));
    // It is not fresh, so its local ports may go on at once.
    expect(pair.a.passed).toContain(6);
  });

  test("a request from before the answer's poll period does not count: the latest poll must be answered", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.udp = false;
    pair.a.says = { ...asking, askIdentity: pair.b.identity };
    pair.a.send({ kind: 16, epoch: 5, mode: 0, identity: pair.b.identity, index: 7 });
    pair.run(150);
    expect(pair.written).toEqual([]);
  });

  test("the request on the link is followed at once by a poll that repeats it", () => {
    const pair = FakePair.serving(0, "solo");
    pair.until(() => pair.now % 20 === 5);
    pair.a.says = { ...asking, askIdentity: pair.b.identity };
    pair.a.send({ kind: 16, epoch: 5, mode: 0, identity: pair.b.identity, index: 7 });
    const ms = pair.until(() => pair.status.mode === "both");
    expect(ms).toBeLessThan(3);
  });

  test("a request in record both moves nothing", () => {
    const pair = FakePair.serving();
    pair.a.says = { ...asking, wantsSolo: true, askIdentity: pair.b.identity };
    pair.run(200);
    expect(pair.written).toEqual([]);
  });
});

describe("disk identity", () => {
  test("a standby that comes back with another disk counts as absent: both(a) becomes solo(a)", () => {
    const pair = FakePair.serving();
    pair.b.identity = filled(16, 0xcc);
    pair.b.dropLink();
    pair.run(60);
    expect(pair.roles).toBe("solo(a) 6 solo");
    expect(pair.status.why).toContain("b came back with another disk");
    expect(pair.forward.route.readable).toEqual([true, false]);
  });

  test("a primary that comes back with another disk is replaced by its standby", () => {
    const pair = FakePair.serving();
    pair.a.identity = filled(16, 0xcc);
    pair.a.dropLink();
    pair.run(60);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("a disk the record does not name gets no commands, even while it is the primary's place", () => {
    const pair = FakePair.intact(record(5, 0, "solo"));
    pair.a.identity = filled(16, 0xcc);
    pair.a.record = undefined;
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(1000);
    expect(pair.forward.links[0]).toBe(false);
    expect(pair.written).toEqual([]);
    expect(pair.status.why).toContain("another disk");
  });

  test("another disk on the same connection is the server's mistake", () => {
    const pair = FakePair.serving();
    pair.b.identity = filled(16, 0xcc);
    pair.run(30);
    expect(pair.b.refusals.map((one) => one.text)).toContain("another disk on the same connection");
  });
});

describe("P9, P10 after a failover: the whole way round", () => {
  test("a dies, b takes over, a comes back, joins, and b hands back by a switchover", () => {
    const pair = FakePair.serving();
    pair.a.kill();
    pair.run(100);
    expect(pair.roles).toBe("solo(b) 6 solo");
    pair.a.start();
    pair.run(100);
    expect(pair.a.record).toEqual(record(6, 1, "solo"));
    pair.b.says = { asked: true, askIdentity: pair.a.identity };
    pair.until(() => pair.status.mode === "both");
    pair.b.says = {};
    pair.run(50);
    expect(pair.roles).toBe("both(b) 7 both");
    pair.core!.console("switchover", pair.now);
    pair.run(50);
    expect(pair.roles).toBe("both(a) 8 both");
    expect(pair.written.map((one) => one.epoch)).toEqual([6, 7, 8]);
    expect(pair.resets).toEqual([]);
  });
});
