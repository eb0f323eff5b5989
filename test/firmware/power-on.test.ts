/** Power-on: rules 18 and 19, and the source's two determination units (P13, P14). */
import { describe, expect, test } from "vitest";
import { secondRound } from "../../firmware/core/election.js";
import { createServerView, linkOpened } from "../../firmware/core/information.js";
import type { ServerView } from "../../firmware/core/information.js";
import { EPOCH_GAP } from "../../firmware/core/limits.js";
import type { Pair } from "../../firmware/core/pair.js";
import { recordsEqual } from "../../protocol/record.js";
import { DISK_A, DISK_B, FakePair, filled, record } from "./fake-pair.js";

/** Two blank servers that have been up for a minute, and a controller with a blank flash. */
function blankPair(): FakePair {
  const pair = new FakePair();
  pair.now = 100_000;
  for (const server of pair.servers) server.startedAt = 40_000;
  return pair;
}

describe("P13 power-on, first determination unit", () => {
  for (const preset of [0, 1] as const) {
    test(`both were up before the controller: preset ${"ab"[preset]} announces itself and is primary`, () => {
      const pair = blankPair();
      pair.preset(preset);
      pair.bootController();
      pair.a.dial();
      pair.b.dial();
      pair.run(50);
      expect(pair.roles).toBe(`both(${"ab"[preset]}) 1 both`);
      expect(pair.status.why).toContain("both were up before the controller");
      expect(pair.a.record).toEqual(pair.b.record);
      expect(pair.forward.route).toMatchObject({ open: true, primary: preset });
    });
  }

  test("the announcement may come late, but not for ever", () => {
    const pair = blankPair();
    pair.preset(1);
    pair.b.announce = () => {};
    pair.bootController();
    pair.a.dial();
    pair.b.dial();
    pair.run(100);
    expect(pair.roles).toBe("none asking");
    expect(pair.status.why).toContain("should announce itself");
    pair.run(400);
    expect(pair.roles).toBe("solo(a) 1 solo");
  });

  test("an announcement by the server that is not preset is no announcement", () => {
    const pair = blankPair();
    pair.preset(1);
    pair.b.announce = () => {};
    pair.a.preset = true;
    pair.bootController();
    pair.a.dial();
    pair.b.dial();
    pair.run(600);
    expect(pair.status.mode).toBe("solo");
  });

  test("flash intact, record both(a): b is preset and a missed the record, so the announcement decides", () => {
    const held = record(5, 0, "both");
    const pair = FakePair.intact(held);
    pair.now = 100_000;
    pair.preset(1);
    for (const server of pair.servers) server.alive = true;
    pair.a.record = record(4, 1, "both");
    pair.b.record = record(4, 1, "both");
    pair.a.adopts = false;
    pair.bootController();
    pair.b.dial();
    pair.run(5);
    pair.a.dial();
    pair.run(30);
    expect(pair.roles).toBe("both(b) 6 both");
    expect(pair.status.why).toContain("preset server b announced itself");
  });
});

describe("P14 power-on, second determination unit", () => {
  for (const first of [0, 1] as const) {
    test(`not both were up: ${"ab"[first]} comes online first and is primary, the later one standby`, () => {
      const pair = new FakePair();
      pair.preset(first === 0 ? 1 : 0);
      pair.a.alive = pair.b.alive = false;
      pair.bootController();
      pair.run(500);
      pair.servers[first].start();
      pair.run(700);
      expect(pair.roles).toBe("none blank");
      pair.servers[1 - first]!.start();
      pair.run(50);
      expect(pair.roles).toBe(`solo(${"ab"[first]}) 1 solo`);
      expect(pair.status.why).toContain("came online first");
    });

    test(`record both(a): only ${"ab"[first]} comes online, and is primary after the failure limit`, () => {
      const pair = FakePair.intact(record(5, 0, "both"));
      pair.bootController();
      pair.run(2000);
      expect(pair.roles).toBe("both(a) 5 waiting");
      pair.servers[first].start();
      pair.run(150);
      // a is kept at once; b must wait one failure limit for it.
      expect(pair.roles).toBe(first === 0 ? "both(a) 5 both" : "both(a) 5 waiting");
      pair.run(150);
      expect(pair.roles).toBe(first === 0 ? "solo(a) 6 solo" : "solo(b) 6 solo");
    });
  }
});

describe("rule 18: power-on, flash intact", () => {
  test("a primary that acts under the record is kept: a reboot of the chip changes no role", () => {
    for (const primary of [0, 1] as const) {
      const pair = FakePair.serving(primary);
      pair.preset(primary === 0 ? 1 : 0);
      pair.crashController();
      pair.run(300);
      pair.bootController();
      pair.run(1500);
      expect(pair.roles).toBe(`both(${"ab"[primary]}) 5 both`);
      expect(pair.written).toEqual([]);
    }
  });

  test("the standby may come first by most of a failure limit", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.bootController();
    pair.b.start();
    pair.run(190);
    pair.a.start();
    pair.run(500);
    expect(pair.roles).toBe("both(a) 5 both");
  });

  test("the wait counts from the first sign of a server, not from a boot long ago", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.bootController();
    pair.run(60_000);
    pair.b.start();
    pair.run(150);
    pair.a.start();
    pair.run(500);
    expect(pair.roles).toBe("both(a) 5 both");
  });

  test("longer while the standby says that its peer link to the primary is open in this epoch", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.bootController();
    pair.b.start();
    pair.b.says = { peerUp: true };
    pair.run(1000);
    expect(pair.roles).toBe("both(a) 5 waiting");
    expect(pair.status.why).toContain("b says that it is connected to a");
    pair.b.says = { peerUp: false };
    pair.run(50);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("but not for ever: the primary may be cut off from the controller alone", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.bootController();
    pair.b.start();
    pair.b.says = { peerUp: true };
    pair.run(5100);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("a peer link of another epoch does not count", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.b.record = record(4, 0, "both");
    pair.b.adopts = false;
    pair.bootController();
    pair.b.start();
    pair.b.says = { peerUp: true };
    pair.run(300);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("a primary that shows itself and dies at once is waited for all the same", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.a.record = record(4, 0, "solo");
    pair.a.adopts = false;
    pair.bootController();
    pair.b.start();
    pair.a.start();
    pair.run(20);
    pair.a.kill();
    pair.run(150);
    expect(pair.roles).toBe("both(a) 5 waiting");
    pair.run(60);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("a primary that answers polls but has not dialled yet is given time", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.bootController();
    pair.b.start();
    pair.b.says = { peerUp: false };
    pair.a.alive = true;
    pair.run(800);
    expect(pair.roles).toBe("both(a) 5 waiting");
    pair.run(300);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("record solo(a): only a, however long b is there", () => {
    const pair = FakePair.intact(record(5, 0, "solo"));
    pair.bootController();
    pair.b.start();
    pair.run(60_000);
    expect(pair.roles).toBe("solo(a) 5 waiting");
    expect(pair.written).toEqual([]);
    expect(pair.forward.routes.every((route) => !route.open)).toBe(true);
    expect(pair.status.why).toContain("only a is known to hold every acknowledged write");
    pair.a.start();
    pair.run(50);
    expect(pair.roles).toBe("solo(a) 5 solo");
  });

  test("record solo(a), written but not heard: a adopts it first", () => {
    const pair = FakePair.intact(record(5, 0, "solo"));
    pair.a.record = record(4, 1, "both");
    pair.bootController();
    pair.a.start();
    pair.run(50);
    expect(pair.a.record).toEqual(record(5, 0, "solo"));
    expect(pair.roles).toBe("solo(a) 5 solo");
  });

  test("record both(a), a's disk replaced: b goes on alone, without a wait", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.a.identity = filled(16, 0xaa);
    pair.a.record = undefined;
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(30);
    expect(pair.roles).toBe("solo(b) 6 solo");
    expect(pair.status.servers[0]!.role).toBe("joining");
  });

  test("record both(a), b's disk replaced: a goes on alone (identity)", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.b.identity = filled(16, 0xbb);
    pair.b.record = undefined;
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(30);
    expect(pair.roles).toBe("solo(a) 6 solo");
  });
});

describe("rule 19: power-on, flash blank or wiped", () => {
  test("far above is 2^20", () => {
    expect(EPOCH_GAP).toBe(1 << 20);
  });

  test("the second round must be answered after the first, with the same disk and the same record", () => {
    const pair = new FakePair();
    const held = record(5, 0, "both");
    const view = (index: 0 | 1) => {
      const one = createServerView(index, "ab"[index]!, 0);
      linkOpened(one, filled(8, 5), { ...pair.servers[index].heartbeat(0), record: held }, 0);
      return one;
    };
    const servers = [view(0), view(1)];
    const snapshots = servers.map((one) => ({
      at: 10,
      record: held,
      identity: one.said!.identity,
    }));
    const round = (change: (one: ServerView) => void): string => {
      const other = view(1);
      other.answered = true;
      other.polledAt = 12;
      change(other);
      servers[0]!.answered = true;
      servers[0]!.polledAt = 12;
      return secondRound({ servers: [servers[0]!, other], snapshots } as unknown as Pair);
    };
    expect(round(() => {})).toBe("same");
    expect(round((one) => (one.answered = false))).toBe("wait");
    expect(round((one) => (one.polledAt = 9))).toBe("wait");
    expect(round((one) => (one.said!.identity = filled(16, 1)))).toBe("other");
    expect(round((one) => (one.said!.record = record(6, 0, "both")))).toBe("other");
  });

  test("one server alone, with data: nothing is proposed", () => {
    const pair = new FakePair();
    pair.b.alive = false;
    pair.a.record = record(5, 0, "both");
    pair.bootController();
    pair.a.start();
    pair.run(60_000);
    expect(pair.roles).toBe("none blank");
    expect(pair.written).toEqual([]);
    expect(pair.status.why).toContain("b to report");
  });

  test("one blank server alone: nothing is proposed", () => {
    const pair = new FakePair();
    pair.b.alive = false;
    pair.bootController();
    pair.a.start();
    pair.run(60_000);
    expect(pair.written).toEqual([]);
  });

  test("the higher record is adopted, under an epoch far above both", () => {
    const pair = new FakePair();
    pair.a.record = record(5, 0, "both");
    pair.b.record = record(6, 1, "solo");
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(50);
    expect(pair.roles).toBe(`solo(b) ${6 + EPOCH_GAP} solo`);
    expect(recordsEqual(pair.a.record, pair.b.record)).toBe(true);
    expect(pair.status.fresh).toBe(false);
  });

  test("both hold both(a): it stays both(a)", () => {
    const pair = new FakePair();
    pair.a.record = pair.b.record = record(5, 0, "both");
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(50);
    expect(pair.roles).toBe(`both(a) ${5 + EPOCH_GAP} both`);
  });

  test("both are asked a second time, on the same connections, and only then is a record written", () => {
    const pair = new FakePair();
    pair.a.record = pair.b.record = record(5, 0, "both");
    pair.a.udp = pair.b.udp = false;
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.a.udp = pair.b.udp = false;
    pair.run(100);
    expect(pair.roles).toBe("none asking");
    pair.a.udp = true;
    pair.run(100);
    expect(pair.roles).toBe("none asking");
    pair.b.udp = true;
    pair.run(50);
    expect(pair.status.state).toBe("both");
  });

  test("a record that changes between the rounds starts them again", () => {
    const pair = new FakePair();
    pair.a.record = pair.b.record = record(5, 0, "both");
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.b.udp = false;
    pair.run(30);
    // Its peer has told it a record that the former controller had written.
    pair.a.record = record(6, 0, "solo");
    pair.run(30);
    pair.b.udp = true;
    pair.run(50);
    expect(pair.notes.some((note) => note.event === "saidOtherwise")).toBe(true);
    expect(pair.roles).toBe(`solo(a) ${6 + EPOCH_GAP} solo`);
  });

  test("a link lost between the rounds starts from the beginning", () => {
    const pair = new FakePair();
    pair.a.record = pair.b.record = record(5, 0, "both");
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.b.udp = false;
    pair.run(30);
    expect(pair.status.state).toBe("asking");
    pair.b.kill();
    pair.run(30);
    expect(pair.status.state).toBe("blank");
    expect(pair.written).toEqual([]);
  });

  test("adopted solo(a), but a's disk was replaced: it waits and says why", () => {
    const pair = new FakePair();
    pair.a.identity = filled(16, 0xaa);
    pair.b.record = record(5, 0, "solo");
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(1000);
    expect(pair.written).toEqual([]);
    expect(pair.status.why).toContain("another disk");
  });

  test("adopted both(a), but a's disk was replaced: b goes on alone", () => {
    const pair = new FakePair();
    pair.a.identity = filled(16, 0xaa);
    pair.b.record = record(5, 0, "both");
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(100);
    expect(pair.roles).toBe(`solo(b) ${5 + EPOCH_GAP} solo`);
  });

  test("adopted both(a), but b's disk was replaced: a goes on alone", () => {
    const pair = new FakePair();
    pair.b.identity = filled(16, 0xbb);
    pair.a.record = record(5, 0, "both");
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(100);
    expect(pair.roles).toBe(`solo(a) ${5 + EPOCH_GAP} solo`);
  });

  test("two records of one epoch that differ: nobody is named", () => {
    const pair = new FakePair();
    pair.a.record = record(5, 0, "both");
    pair.b.record = record(5, 1, "both");
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(1000);
    expect(pair.written).toEqual([]);
    expect(pair.status.why).toContain("different records of the same epoch");
  });

  test("two servers of different pairs: nobody is named", () => {
    const pair = new FakePair();
    pair.a.record = record(5, 0, "both");
    pair.b.record = { ...record(6, 0, "both"), pairId: filled(8, 9) };
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(1000);
    expect(pair.written).toEqual([]);
    expect(pair.status.why).toContain("different pairs");
  });

  test("a damaged flash, or another chip's, is as good as blank, and an alarm", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.flash = undefined;
    pair.damage = "the record belongs to another board";
    pair.bootController();
    pair.a.start();
    pair.run(500);
    expect(pair.written).toEqual([]);
    expect(pair.status.alarm).toBe("the record belongs to another board");
    pair.b.start();
    pair.run(50);
    expect(pair.roles).toBe(`both(a) ${5 + EPOCH_GAP} both`);
    expect(pair.status.alarm).toBe("");
  });

  test("two new pairs get different names", () => {
    const names = [1, 2].map((seedByte) => {
      const pair = blankPair();
      pair.seedByte = seedByte;
      pair.bootController();
      pair.a.dial();
      pair.b.dial();
      pair.run(100);
      return Buffer.from(pair.a.record!.pairId).toString("hex");
    });
    expect(names[0]).not.toBe(names[1]);
    expect(names[0]).not.toBe("0000000000000000");
  });

  test("a new pair's record names both disks", () => {
    const pair = blankPair();
    pair.bootController();
    pair.a.dial();
    pair.b.dial();
    pair.run(100);
    expect(pair.a.record).toMatchObject({ identityA: DISK_A, identityB: DISK_B });
  });

  test("a server with data but without a record is not a new pair", () => {
    const pair = blankPair();
    pair.b.says = { blank: false };
    pair.bootController();
    pair.a.dial();
    pair.b.dial();
    pair.run(1000);
    expect(pair.written).toEqual([]);
    expect(pair.status.why).toContain("b holds data but no record");
  });
});
