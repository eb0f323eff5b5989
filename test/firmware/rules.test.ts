/**
 * Rules of the role protocol that no other test of the control path would miss: each was found by taking the
 * lines away that keep it. The table in docs/ROLE-PROTOCOL.md says where the others are tested.
 */
import { describe, expect, test } from "vitest";
import { EPOCH_GAP } from "../../firmware/core/limits.js";
import { FakePair, filled, record } from "./fake-pair.js";

describe("rule 1: nobody is named who has not just answered", () => {
  test("an answer from before this controller's own loop stood still is too old", () => {
    const pair = FakePair.serving();
    // The primary is killed; the refusal of the poll that asks after it lies unread while the loop stands still, and
    // meanwhile the standby's machine loses power.
    pair.run(10);
    pair.a.kill();
    pair.run(0.15);
    pair.b.powerOff();
    pair.blockController(300);
    pair.run(400);
    expect(pair.written).toEqual([]);
    expect(pair.status.state).toBe("dark");
  });
});

describe("rule 6: one connection a server", () => {
  test("a new one ends the old one before anything is reported on it", () => {
    const pair = FakePair.serving();
    const old = pair.a.connection;
    // Its polls are lost and its old connection carries nothing more, but nobody has closed it.
    pair.a.udp = false;
    pair.run(60);
    pair.a.connection = -1;
    pair.a.dial();
    pair.run(20);
    expect(pair.a.connection).not.toBe(old);
    expect(pair.log.some((line) => line.includes("a newer connection has taken its place"))).toBe(
      true,
    );
    expect(pair.forward.calls.filter((call) => call.endsWith(" 0"))).toEqual([
      "up 0",
      "down 0",
      "up 0",
    ]);
  });
});

describe("rules 16 and 17: a request counts in the answer to the latest poll", () => {
  test("not in what was reported at the opening of the connection", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.udp = false;
    pair.a.says = { asked: true, askIdentity: pair.b.identity, askIndex: 7 };
    pair.a.dropLink();
    pair.run(150);
    expect(pair.written).toEqual([]);
    pair.a.udp = true;
    pair.until(() => pair.status.mode === "both");
  });

  test("not while the disk that joined is silent, though its connection stands", () => {
    const pair = FakePair.serving(0, "solo");
    pair.b.udp = false;
    pair.run(300);
    expect(pair.b.connection).toBeGreaterThan(0);
    pair.a.says = { asked: true, askIdentity: pair.b.identity, askIndex: 7 };
    pair.run(200);
    expect(pair.written).toEqual([]);
  });
});

describe("rule 17: the disk that joined", () => {
  test("must hold a whole copy", () => {
    const pair = FakePair.serving(0, "solo");
    pair.b.says = { copying: true };
    pair.run(50);
    pair.a.says = { asked: true, askIdentity: pair.b.identity, askIndex: 7 };
    pair.run(200);
    expect(pair.written).toEqual([]);
    pair.b.says = {};
    pair.until(() => pair.status.mode === "both");
  });
});

describe("rule 18: power-on with a record", () => {
  test("another disk is not kept as primary, though it brings the very record along", () => {
    const pair = FakePair.intact(record(5, 0, "solo"));
    pair.a.identity = filled(16, 0xcc);
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(500);
    expect(pair.roles).toBe("solo(a) 5 waiting");
    expect(pair.notes.some((one) => one.event === "keptSolo")).toBe(false);
    expect(pair.status.why).toContain("another disk");
  });

  test("an announcement does not decide when one of the two was not up before the controller", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.now = 100_000;
    pair.preset(1);
    pair.a.record = record(4, 1, "both");
    pair.b.record = record(4, 1, "both");
    pair.a.alive = true;
    pair.a.adopts = false;
    pair.bootController();
    pair.run(5);
    pair.b.start();
    pair.run(5);
    pair.a.dial();
    pair.run(100);
    expect(pair.written).toEqual([]);
    pair.a.adopts = true;
    pair.a.dropLink();
    pair.run(100);
    expect(pair.roles).toBe("both(a) 5 both");
  });

  test("a new pair: one was up before the controller and one was not, so the first online is primary", () => {
    const pair = new FakePair();
    pair.now = 100_000;
    pair.preset(1);
    pair.a.alive = true;
    pair.b.alive = false;
    pair.bootController();
    pair.a.dial();
    pair.run(50);
    pair.b.start();
    pair.run(1500);
    expect(pair.written.length).toBe(1);
    expect(pair.roles).toBe("solo(a) 1 solo");
  });
});

describe("rule 19: epochs", () => {
  test("the gap begins above every epoch heard in this boot, also one that nobody holds any more", () => {
    const pair = new FakePair();
    const high = 5 + 3 * EPOCH_GAP;
    pair.a.record = record(high, 0, "both");
    pair.b.record = record(5, 0, "both");
    pair.b.alive = false;
    pair.bootController();
    pair.a.start();
    pair.run(100);
    pair.a.kill();
    pair.run(100);
    pair.a.record = record(5, 0, "both");
    pair.a.start();
    pair.b.start();
    pair.run(500);
    expect(pair.resets).toEqual([]);
    expect(pair.roles).toBe(`both(a) ${high + EPOCH_GAP} both`);
  });
});

describe("G5: what is fresh", () => {
  function freshSolo(): FakePair {
    const pair = FakePair.serving();
    pair.b.kill();
    pair.run(10);
    pair.b.start();
    pair.run(30);
    return pair;
  }

  test("the right to take back does not end while the primary has not adopted the record", () => {
    const pair = FakePair.serving();
    pair.a.adopts = false;
    pair.b.kill();
    pair.run(10);
    pair.b.start();
    pair.run(1500);
    expect(pair.status.fresh).toBe(true);
    pair.a.kill();
    pair.run(30);
    expect(pair.roles).toBe("solo(b) 7 solo");
  });

  test("nor by time alone: the primary must just have answered when it ends", () => {
    const pair = freshSolo();
    pair.run(330);
    expect(pair.status.fresh).toBe(true);
    pair.a.hang();
    pair.run(100);
    expect(pair.status.fresh).toBe(true);
    pair.run(200);
    expect(pair.roles).toBe("solo(b) 7 solo");
  });

  test("a forced record is not, also when it follows a record both: it is not taken back", () => {
    const pair = FakePair.serving();
    pair.b.says = { copying: true };
    pair.run(50);
    pair.a.kill();
    pair.run(100);
    expect(pair.roles).toBe("both(a) 5 dark");
    pair.core!.console("force b", pair.now);
    pair.core!.console("force b", pair.now);
    pair.until(() => pair.roles === "solo(b) 6 solo");
    expect(pair.status.fresh).toBe(false);
    pair.b.kill();
    pair.a.start();
    pair.run(500);
    expect(pair.roles).toBe("solo(b) 6 stranded");
  });
});

describe("force", () => {
  test("is refused for the primary too while both serve, and while a switchover drains", () => {
    const pair = FakePair.serving();
    for (const id of ["a", "b"]) {
      expect(pair.core!.console(`force ${id}`, pair.now)).toContain("refused");
      expect(pair.core!.console(`force ${id}`, pair.now)).toContain("refused");
    }
    pair.forward.open = 1;
    pair.core!.console("switchover", pair.now);
    expect(pair.status.state).toBe("draining");
    expect(pair.core!.console("force a", pair.now)).toContain("refused");
    pair.run(100);
    expect(pair.resets).toEqual([]);
  });
});

describe("rule 20: while the controller is down no record changes", () => {
  test("servers keep record and roles, and it takes up the same epoch again", () => {
    for (const mode of ["both", "solo"] as const) {
      const pair = FakePair.serving(0, mode);
      pair.crashController();
      pair.run(5000);
      expect(pair.a.record).toEqual(record(5, 0, mode));
      expect(pair.b.record).toEqual(record(5, 0, mode));
      pair.bootController();
      pair.run(500);
      expect(pair.written).toEqual([]);
      expect(pair.roles).toBe(`${mode}(a) 5 ${mode}`);
      // Nothing is sent to a server before it has connected and reported again.
      expect(pair.forward.calls.indexOf("up 0")).toBeGreaterThan(0);
    }
  });
});
