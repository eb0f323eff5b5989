/** Role change and its reasons: rules 15 and 16, G5, the fault monitor (P11), role change (P12). */
import { describe, expect, test } from "vitest";
import { confirmedOf, whyChanged } from "../../firmware/core/operator.js";
import type { Order } from "../../firmware/core/operator.js";
import type { Pair } from "../../firmware/core/pair.js";
import { FakePair, filled, record } from "./fake-pair.js";

describe("P12 role change: primary failed, standby has not: the standby becomes the new primary", () => {
  test("kill -9: within one answer to a poll", () => {
    const pair = FakePair.serving();
    pair.a.kill();
    const ms = pair.until(() => pair.status.primary === "b");
    expect(ms).toBeLessThan(5);
    expect(pair.roles).toBe("solo(b) 6 solo");
    expect(pair.b.record).toEqual(record(6, 1, "solo"));
  });

  test("a hang: after the failure limit", () => {
    const pair = FakePair.serving();
    pair.a.hang();
    const ms = pair.until(() => pair.status.primary === "b");
    expect(ms).toBeGreaterThan(170);
    expect(ms).toBeLessThan(225);
  });

  test("the old primary wakes on a new connection and is told that it is none any more", () => {
    const pair = FakePair.serving();
    pair.a.hang();
    pair.run(1000);
    pair.a.wake();
    pair.run(100);
    expect(pair.a.record).toEqual(record(6, 1, "solo"));
    expect(pair.a.dials).toBe(2);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });
});

describe("P11 fault monitor", () => {
  test("a closed link and no answer to a poll is a failure at once", () => {
    const pair = FakePair.serving();
    pair.a.udp = false;
    pair.a.redialMs = 10_000;
    pair.a.dropLink();
    const ms = pair.until(() => pair.status.primary === "b");
    expect(ms).toBeGreaterThanOrEqual(14);
    expect(ms).toBeLessThan(20);
  });

  test("a closed link and an answered poll is none, if the link comes back", () => {
    const pair = FakePair.serving();
    pair.a.redialMs = 700;
    pair.a.dropLink();
    pair.run(2000);
    expect(pair.roles).toBe("both(a) 5 both");
    expect(pair.written).toEqual([]);
  });

  test("no link for linkDownMs is a failure though polls answer", () => {
    const pair = FakePair.serving();
    pair.a.redialMs = 60_000;
    pair.a.dropLink();
    const ms = pair.until(() => pair.status.primary === "b");
    expect(ms).toBeGreaterThan(990);
    expect(ms).toBeLessThan(1030);
  });

  test("a refused poll is no failure while the link is open", () => {
    const pair = FakePair.serving();
    pair.core!.onPollRefused(0, pair.now);
    pair.run(500);
    expect(pair.written).toEqual([]);
  });

  test("replies on the link are a sign of life though polls are lost", () => {
    const pair = FakePair.serving();
    pair.a.udp = false;
    for (let i = 0; i < 50; i++) {
      pair.a.sendFrame(2, 0, 1, filled(4, 65));
      pair.run(20);
    }
    expect(pair.written).toEqual([]);
  });

  test("a hanging disk of the primary is its failure", () => {
    const pair = FakePair.serving();
    pair.a.says = { oldestUncommittedMs: 1400, oldestUnconfirmedMs: 1400 };
    pair.run(100);
    expect(pair.written).toEqual([]);
    pair.a.says = { oldestUncommittedMs: 1600, oldestUnconfirmedMs: 1600 };
    pair.run(50);
    expect(pair.roles).toBe("solo(b) 6 solo");
    expect(pair.status.why).toContain("disk of a hangs");
  });

  test("both silent at once: our own cable, and no change", () => {
    const pair = FakePair.serving();
    pair.a.udp = pair.b.udp = false;
    pair.run(10_000);
    expect(pair.written).toEqual([]);
    expect(pair.roles).toBe("both(a) 5 dark");
    // b is heard first; a gets its whole limit from then on.
    pair.b.udp = true;
    pair.run(150);
    pair.a.udp = true;
    pair.run(1000);
    expect(pair.written).toEqual([]);
    expect(pair.roles).toBe("both(a) 5 both");
  });

  test("both silent, and only the standby comes back: it takes over after one limit", () => {
    const pair = FakePair.serving();
    pair.a.powerOff();
    pair.b.udp = false;
    pair.run(10_000);
    pair.b.udp = true;
    pair.run(150);
    expect(pair.written).toEqual([]);
    pair.run(100);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("the controller's own lateness changes no role", () => {
    const pair = FakePair.serving();
    for (const ms of [50, 150, 199, 250, 400, 3000]) {
      pair.blockController(ms);
      pair.run(100);
    }
    expect(pair.written).toEqual([]);
    expect(pair.roles).toBe("both(a) 5 both");
    expect(
      (pair.status as unknown as { controller: { lateTurns: number } }).controller.lateTurns,
    ).toBe(6);
  });

  test("not even when an answer was lost just before it came late", () => {
    for (const ms of [150, 175, 185]) {
      const pair = FakePair.serving();
      // a was last heard 40 ms ago, b just now: at the end of the block a is past its limit, b is not.
      pair.a.udp = false;
      pair.run(45);
      pair.a.udp = true;
      pair.blockController(ms);
      pair.run(300);
      expect(pair.written, `${ms} ms`).toEqual([]);
    }
  });

  test("and postpones a judgement by one round of polls at most", () => {
    const pair = FakePair.serving();
    pair.a.hang();
    let ms = 0;
    while (pair.status.primary !== "b" && ms < 2000) {
      pair.blockController(60);
      ms += 60;
    }
    expect(pair.status.primary).toBe("b");
    // Silent past 200 ms, found in the next turn, put off for a round that ends in the turn after it, and
    // another turn until the flash has answered.
    expect(ms).toBeLessThanOrEqual(420);
  });

  test("a kill while the controller is late in every turn fails over in a few turns", () => {
    const pair = FakePair.serving();
    pair.blockController(50);
    pair.a.kill();
    let turns = 0;
    while (pair.status.primary !== "b" && turns < 20) {
      pair.blockController(50);
      pair.run(0.5);
      turns++;
    }
    expect(turns).toBeLessThanOrEqual(3);
  });

  test("the server has lost a link that we believe in: it is dropped and dialled anew", () => {
    const pair = FakePair.serving();
    // A middlebox forgets the connection: the server knows, we do not.
    pair.a.connection = -1;
    pair.a.proven = false;
    pair.run(15);
    pair.a.dial();
    pair.run(200);
    expect(pair.status.servers[0]!.up).toBe(true);
    expect(pair.written).toEqual([]);
  });
});

describe("rule 15: record both(X)", () => {
  test("standby lost: the primary goes on alone", () => {
    const pair = FakePair.serving();
    pair.b.kill();
    const ms = pair.until(() => pair.status.mode === "solo");
    expect(ms).toBeLessThan(5);
    expect(pair.roles).toBe("solo(a) 6 solo");
  });

  test("standby silent: after the failure limit", () => {
    const pair = FakePair.serving();
    pair.b.hang();
    const ms = pair.until(() => pair.status.mode === "solo");
    expect(ms).toBeLessThan(225);
    expect(pair.roles).toBe("solo(a) 6 solo");
  });

  test("confirms stall: the primary goes on alone, sooner when it knows its peer link to be down", () => {
    const pair = FakePair.serving();
    pair.a.says = { oldestUnconfirmedMs: 900, peerUp: true };
    pair.run(100);
    expect(pair.written).toEqual([]);
    pair.a.says = { oldestUnconfirmedMs: 1001, peerUp: true };
    pair.run(30);
    expect(pair.roles).toBe("solo(a) 6 solo");

    const cut = FakePair.serving();
    cut.a.says = { oldestUnconfirmedMs: 201, peerUp: false };
    cut.run(30);
    expect(cut.roles).toBe("solo(a) 6 solo");
    expect(cut.status.why).toContain("wait too long for b");
  });

  test("a write that is not on the primary's own disk is no sign against the standby", () => {
    const pair = FakePair.serving();
    pair.a.says = { oldestUnconfirmedMs: 1200, oldestUncommittedMs: 1200, peerUp: true };
    pair.run(200);
    expect(pair.written).toEqual([]);
  });

  test("nobody is named who has not just answered a poll", () => {
    const pair = FakePair.serving();
    // b's link is open and carries bytes, but its polls are lost.
    pair.b.udp = false;
    pair.run(30);
    pair.a.kill();
    for (let i = 0; i < 20; i++) {
      pair.b.sendFrame(3, 0, 5, new Uint8Array(0));
      pair.run(20);
    }
    expect(pair.written).toEqual([]);
    expect(pair.roles).toBe("both(a) 5 dark");
    pair.b.udp = true;
    pair.run(30);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("nobody is named with another disk than the record's", () => {
    const pair = FakePair.serving();
    pair.b.kill();
    pair.b.identity = filled(16, 0xbb);
    pair.b.record = undefined;
    pair.persistMs = Infinity;
    pair.run(50);
    // Before solo(a) is in flash, a dies too and b is back with an empty disk.
    pair.b.start();
    pair.a.kill();
    pair.run(50);
    pair.endWrite();
    pair.run(500);
    expect(pair.roles).toBe("solo(a) 6 stranded");
  });

  test("nobody is named who holds only part of a copy", () => {
    const pair = FakePair.serving();
    pair.b.says = { copying: true };
    pair.run(50);
    pair.a.kill();
    pair.run(500);
    expect(pair.roles).toBe("both(a) 5 dark");
  });

  test("a late answer to an earlier poll lets nobody be named", () => {
    const pair = FakePair.serving();
    pair.config.timings.pollMs = 20;
    pair.b.udp = false;
    // Answers come 30 ms late: each belongs to a poll that is not the latest any more.
    const answer = pair.b.onPoll.bind(pair.b);
    pair.b.onPoll = (bytes) => {
      pair.later(30, () => {
        pair.b.udp = true;
        answer(bytes);
        pair.later(0.2, () => {
          pair.b.udp = false;
        });
      });
    };
    pair.run(200);
    pair.a.kill();
    pair.run(150);
    expect(pair.written).toEqual([]);
    expect(pair.roles).toBe("both(a) 5 dark");
  });

  test("planned switchover: drains, then names the standby, in one epoch", () => {
    const pair = FakePair.serving();
    pair.forward.open = 3;
    expect(pair.core!.console("switchover", pair.now)).toBe("switching over");
    pair.run(50);
    expect(pair.roles).toBe("both(a) 5 draining");
    expect(pair.forward.route.open).toBe(false);
    pair.forward.open = 0;
    pair.run(30);
    expect(pair.roles).toBe("both(b) 6 both");
    expect(pair.forward.route).toMatchObject({ open: true, primary: 1, epoch: 6 });
  });

  test("planned switchover: draining is bounded", () => {
    const pair = FakePair.serving();
    pair.forward.open = 3;
    pair.core!.console("switchover", pair.now);
    pair.run(520);
    expect(pair.roles).toBe("both(b) 6 both");
  });

  test("planned switchover: refused while the two are not in sync", () => {
    const pair = FakePair.serving();
    pair.b.says = { sessionOpen: false };
    pair.run(30);
    expect(pair.core!.console("switchover", pair.now)).toContain(
      "refused: b has not compared logs",
    );
    const solo = FakePair.serving(0, "solo");
    expect(solo.core!.console("switchover", solo.now)).toContain("refused");
  });

  test("planned switchover: given up when the standby falls out of sync while it drains", () => {
    const pair = FakePair.serving();
    pair.forward.open = 1;
    pair.core!.console("switchover", pair.now);
    pair.run(30);
    pair.b.says = { sessionOpen: false };
    pair.run(600);
    expect(pair.roles).toBe("both(a) 5 both");
    expect(pair.status.why).toContain("the switchover was given up");
  });

  test("planned switchover: a failure while it drains is a failover", () => {
    const pair = FakePair.serving();
    pair.forward.open = 1;
    pair.core!.console("switchover", pair.now);
    pair.run(30);
    pair.a.kill();
    pair.run(10);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });
});

describe("rule 16: record solo(X)", () => {
  test("X dies: never the other, however long", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.kill();
    pair.run(60_000);
    expect(pair.written).toEqual([]);
    expect(pair.roles).toBe("solo(a) 5 stranded");
    expect(pair.forward.route.open).toBe(false);
    expect(pair.forward.route.why).toContain("a");
    pair.a.start();
    pair.run(50);
    expect(pair.roles).toBe("solo(a) 5 solo");
    expect(pair.forward.route.open).toBe(true);
  });

  test("the other's requests move nothing", () => {
    const pair = FakePair.serving(0, "solo");
    pair.b.says = { asked: true, askIdentity: pair.a.identity, wantsSolo: true };
    pair.run(200);
    expect(pair.written).toEqual([]);
  });
});

describe("G5: a fresh solo(X) may be taken back", () => {
  /** solo(a) has just been written because b went; a then dies before anything has passed, and b is back. */
  function freshSolo(): FakePair {
    const pair = FakePair.serving();
    pair.b.kill();
    pair.run(10);
    expect(pair.roles).toBe("solo(a) 6 solo");
    pair.b.start();
    pair.run(30);
    return pair;
  }

  test("until its first reply has passed", () => {
    const pair = freshSolo();
    expect(pair.status.fresh).toBe(true);
    pair.a.kill();
    pair.run(30);
    expect(pair.roles).toBe("solo(b) 7 solo");
    expect(pair.status.why).toContain("before it answered anything");
  });

  test("but not after it", () => {
    const pair = freshSolo();
    pair.forward.events.onFirstPassed(6);
    pair.a.kill();
    pair.run(500);
    expect(pair.roles).toBe("solo(a) 6 stranded");
  });

  test("a reply of an earlier epoch is not the first of this one", () => {
    const pair = freshSolo();
    pair.forward.events.onFirstPassed(5);
    expect(pair.status.fresh).toBe(true);
  });

  test("the server is told only after the flag is set", () => {
    const pair = freshSolo();
    expect(pair.a.passed).toEqual([]);
    pair.forward.events.onFirstPassed(6);
    expect(pair.status.fresh).toBe(false);
    pair.run(1);
    expect(pair.a.passed).toEqual([6]);
  });

  test("a boot counts as passed", () => {
    const pair = freshSolo();
    pair.crashController();
    pair.bootController();
    pair.run(50);
    expect(pair.roles).toBe("solo(a) 6 solo");
    expect(pair.a.passed).toEqual([6]);
    pair.a.kill();
    pair.run(500);
    expect(pair.roles).toBe("solo(a) 6 stranded");
  });

  test("not with another disk in the other's place", () => {
    const pair = FakePair.serving();
    pair.b.kill();
    pair.run(10);
    pair.b.identity = filled(16, 0xbb);
    pair.b.record = undefined;
    pair.b.start();
    pair.run(30);
    pair.a.kill();
    pair.run(500);
    expect(pair.roles).toBe("solo(a) 6 stranded");
  });

  test("a solo that X itself asked for again is not fresh", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.says = { wantsSolo: true };
    pair.until(() => pair.status.epoch === 6);
    pair.a.says = {};
    expect(pair.roles).toBe("solo(a) 6 solo");
    expect(pair.status.fresh).toBe(false);
    pair.a.kill();
    pair.run(500);
    expect(pair.roles).toBe("solo(a) 6 stranded");
  });

  test("nothing of the old primary passes while it is being taken back: its link is closed first", () => {
    const pair = freshSolo();
    pair.persistMs = Infinity;
    pair.a.hang();
    pair.until(() => pair.pendingWrite !== undefined);
    expect(pair.forward.links[0]).toBe(false);
    expect(pair.forward.calls.slice(-2)).toEqual(["down 0", "route closed 6"]);
  });

  test("without clients the flag is set once the primary has lived a while, so that local ports are served", () => {
    const pair = freshSolo();
    pair.run(300);
    expect(pair.status.fresh).toBe(true);
    pair.run(200);
    expect(pair.status.fresh).toBe(false);
    expect(pair.a.passed).toEqual([6]);
  });
});

describe("force (operator)", () => {
  test("says what would be lost, asks twice, then writes solo(other) over solo(X)", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.says = { logEnd: 120 };
    pair.b.says = { logEnd: 100 };
    pair.run(30);
    pair.a.kill();
    pair.run(100);
    const first = pair.core!.console("force b", pair.now).replace(/\s+/g, " ");
    expect(first).toContain("LOST: every write that a acknowledged alone under solo(a) epoch 5");
    expect(first).toContain("20 entries would be gone");
    expect(pair.written).toEqual([]);
    expect(pair.core!.console("force b", pair.now)).toBe("forced: solo(b) epoch 6");
    pair.run(30);
    expect(pair.roles).toBe("solo(b) 6 solo");
    expect(pair.b.heard.filter((one) => one.kind === 7).at(-1)).toMatchObject({ forced: true });
    expect(pair.status.fresh).toBe(false);
  });

  test("the second asking must come in time", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.kill();
    pair.run(100);
    pair.core!.console("force b", pair.now);
    pair.run(31_000);
    expect(pair.core!.console("force b", pair.now)).toContain("Say the same again");
    expect(pair.written).toEqual([]);
  });

  test("what was not announced is not done: it is given up when more would be lost by then", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.says = { logEnd: 120 };
    pair.b.says = { logEnd: 100 };
    pair.run(30);
    pair.a.kill();
    pair.run(100);
    // The order waits for b's answer, which then says something else.
    pair.b.udp = false;
    pair.run(30);
    pair.core!.console("force b", pair.now);
    expect(pair.core!.console("force b", pair.now)).toBe("forced: solo(b) epoch 6");
    pair.b.says = { logEnd: 100, copying: true };
    pair.b.udp = true;
    pair.run(100);
    expect(pair.written).toEqual([]);
    const note = pair.notes.find((one) => one.event === "order given up")!;
    expect(note.text).toContain("what would be lost has changed since it was confirmed");
    expect(pair.core!.console("force b", pair.now)).toContain("PART OF A COPY");
  });

  test("between the two askings too", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.says = { logEnd: 120 };
    pair.b.says = { logEnd: 100 };
    pair.run(30);
    pair.a.kill();
    pair.run(100);
    expect(pair.core!.console("force b", pair.now)).toContain("20 entries");
    pair.b.says = { logEnd: 90 };
    pair.run(50);
    expect(pair.core!.console("force b", pair.now)).toContain("30 entries");
    expect(pair.written).toEqual([]);
    expect(pair.core!.console("force b", pair.now)).toBe("forced: solo(b) epoch 6");
  });

  test("it is for one epoch: under another record it is refused, with the record that is there now", () => {
    const pair = {
      record: record(5, 0, "both"),
      servers: [{ id: "a" }, { id: "b" }],
    } as unknown as Pair;
    const announced: Order = {
      refused: "",
      proposal: { event: "forced", record: record(6, 1, "solo"), because: "" },
      losses: ["one"],
    };
    const confirmed = confirmedOf(announced);
    expect(whyChanged(pair, announced, confirmed)).toBe("");
    pair.record = record(6, 0, "solo");
    const later = {
      ...announced,
      proposal: { ...announced.proposal!, record: record(7, 1, "solo") },
    };
    expect(whyChanged(pair, later, confirmed)).toContain("changed to solo(a) epoch 6 since");
    pair.record = undefined;
    expect(whyChanged(pair, later, confirmed)).toContain("what the servers report has changed");
    expect(whyChanged(pair, { ...announced, losses: [] }, confirmed)).toContain("would be lost");
  });

  test("that it was forced is volatile (rule 1): after a reboot nothing is set aside until it is given again", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.kill();
    pair.run(100);
    pair.core!.console("force b", pair.now);
    pair.core!.console("force b", pair.now);
    pair.run(50);
    expect(pair.roles).toBe("solo(b) 6 solo");
    pair.crashController();
    pair.run(20);
    pair.b.heard = [];
    pair.bootController();
    pair.a.start();
    pair.run(300);
    expect(pair.roles).toBe("solo(b) 6 solo");
    const told = (): object[] => pair.b.heard.filter((one) => one.kind === 7);
    expect(told().at(-1)).toMatchObject({ forced: false });
    const first = pair.core!.console("force b", pair.now).replace(/\s+/g, " ");
    expect(first).toContain("b stays primary; a may then discard entries");
    expect(pair.core!.console("force b", pair.now)).toBe("forced: solo(b) epoch 7");
    pair.run(50);
    expect(pair.roles).toBe("solo(b) 7 solo");
    expect(told().at(-1)).toMatchObject({ forced: true });
    expect(pair.a.heard.filter((one) => one.kind === 7).at(-1)).toMatchObject({ forced: true });
  });

  test("refused while the primary is up", () => {
    const pair = FakePair.serving(0, "solo");
    expect(pair.core!.console("force b", pair.now)).toContain("refused: a is up");
    const both = FakePair.serving();
    expect(both.core!.console("force b", both.now)).toContain("refused");
  });

  test("refused for a server that is not there", () => {
    const pair = FakePair.serving(0, "solo");
    pair.a.kill();
    pair.b.kill();
    pair.run(50);
    expect(pair.core!.console("force b", pair.now)).toContain("refused: b is not connected");
  });

  test("names a server that holds only part of a copy, and says so", () => {
    const pair = FakePair.serving(0, "solo");
    pair.b.says = { copying: true };
    pair.run(30);
    pair.a.kill();
    pair.run(100);
    expect(pair.core!.console("force b", pair.now)).toContain("PART OF A COPY");
  });

  test("says that a copy may begin before the order is there, where the other is linked", () => {
    const pair = FakePair.serving(0, "solo");
    pair.run(30);
    // It answers no poll any more, and its links stay as they are.
    pair.a.udp = false;
    pair.run(500);
    const told = (): string => pair.core!.console("force b", pair.now).replace(/\s+/g, " ");
    expect(told()).toContain("Should a begin to copy its data to b before the order is there");
    pair.a.kill();
    pair.run(100);
    expect(told()).toContain("LOST");
    expect(told()).not.toContain("Should a begin");
  });
});
