/** The record and the flash: rule 2, the alarm of rule 19, foreign pairs, crashes in between. */
import { describe, expect, test } from "vitest";
import { EPOCH_GAP, EPOCH_MAX } from "../../firmware/core/limits.js";
import { REFUSE_PAIR, REFUSE_STOPPED } from "../../protocol/messages.js";
import { DISK_A, DISK_B, FakePair, encode, filled, record } from "./fake-pair.js";

describe("rule 2: a record is in flash before any message tells of it", () => {
  test("the route is closed, the record persisted, then told to both, then the route opened", () => {
    const pair = FakePair.serving();
    pair.log = [];
    pair.forward.calls = [];
    pair.a.hang();
    pair.until(() => pair.status.primary === "b");
    const lines = pair.log.filter((line) => !line.startsWith("send a control"));
    expect(lines).toEqual([
      "persist solo(b) epoch 6",
      "send a record solo(b) epoch 6",
      "send a epoch 6",
      "send b record solo(b) epoch 6",
      "send b epoch 6",
      "close a silent for too long",
    ]);
    expect(pair.forward.calls.slice(-3)).toEqual(["route closed 5", "down 0", "route open 6"]);
  });

  test("while the flash is slow nothing of the new epoch goes out, and no second record is begun", () => {
    const pair = FakePair.serving();
    pair.persistMs = Infinity;
    pair.log = [];
    pair.a.kill();
    pair.run(50);
    pair.b.kill();
    pair.run(300);
    expect(pair.log.filter((line) => line.includes("epoch"))).toEqual(["persist solo(b) epoch 6"]);
    expect(pair.forward.route).toMatchObject({ open: false, epoch: 5 });
    pair.endWrite();
    pair.run(50);
    expect(pair.roles).toBe("solo(b) 6 stranded");
  });

  test("a crash before the write ends: the old record stands, and the rules begin again", () => {
    const pair = FakePair.serving();
    pair.persistMs = Infinity;
    pair.a.kill();
    pair.run(50);
    expect(pair.pendingWrite).toBeDefined();
    pair.crashController();
    pair.persistMs = 0.2;
    pair.bootController();
    pair.run(100);
    expect(pair.roles).toBe("both(a) 5 waiting");
    pair.run(200);
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("a crash after the write and before the telling: the new record is told after the boot", () => {
    const pair = FakePair.serving();
    pair.persistMs = Infinity;
    pair.a.kill();
    pair.run(50);
    pair.flash = pair.pendingWrite;
    pair.crashController();
    pair.persistMs = 0.2;
    expect(pair.b.record).toEqual(record(5, 0, "both"));
    pair.bootController();
    pair.run(100);
    expect(pair.roles).toBe("solo(b) 6 solo");
    expect(pair.b.record).toEqual(record(6, 1, "solo"));
    // It may have been heard before the crash: a boot counts as passed.
    expect(pair.status.fresh).toBe(false);
  });

  test("a flash that cannot be written resets the chip", () => {
    const pair = FakePair.serving();
    pair.persistMs = Infinity;
    pair.a.kill();
    pair.run(50);
    pair.core!.onPersistFailed("no space", pair.now);
    expect(pair.resets).toEqual(["the flash could not be written: no space"]);
    expect(pair.core!.console("status", pair.now)).toContain("must be reset");
  });

  test("a server that links up meanwhile is told the old record", () => {
    const pair = FakePair.serving();
    pair.persistMs = Infinity;
    pair.a.hang();
    pair.until(() => pair.pendingWrite !== undefined);
    pair.b.dropLink();
    pair.run(50);
    expect(pair.b.record!.epoch).toBe(5);
    pair.endWrite();
    pair.run(5);
    expect(pair.b.record!.epoch).toBe(6);
  });
});

describe("rule 19: a controller whose flash is not the pair's stops, raises an alarm, and acts as wiped", () => {
  test("an epoch above its own, in a report", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.a.record = record(9, 1, "solo");
    pair.b.record = record(9, 1, "solo");
    pair.bootController();
    pair.a.start();
    pair.a.udp = false;
    pair.run(5);
    pair.a.udp = true;
    expect(pair.roles).toBe("none blank");
    expect(pair.status.alarm).toBe("a has epoch 9, above this controller's 5");
    expect(pair.a.refusals[0]).toMatchObject({ code: REFUSE_STOPPED });
    pair.run(5000);
    expect(pair.written).toEqual([]);
    pair.b.start();
    pair.run(100);
    expect(pair.roles).toBe(`solo(b) ${9 + EPOCH_GAP} solo`);
    expect(pair.status.alarm).toBe("");
    expect(pair.resets).toEqual([]);
  });

  test("an epoch above its own, in a heartbeat while serving", () => {
    const pair = FakePair.serving();
    const dials = pair.b.dials;
    pair.b.record = record(6, 1, "both");
    pair.a.adopts = pair.b.adopts = false;
    pair.until(() => pair.status.alarm !== "");
    expect(pair.status.alarm).toContain("b has epoch 6");
    expect(pair.forward.route.open).toBe(false);
    pair.a.adopts = pair.b.adopts = true;
    pair.run(100);
    // Both were heard on new connections, and twice.
    expect(pair.b.dials).toBe(dials + 1);
    expect(pair.roles).toBe(`both(b) ${6 + EPOCH_GAP} both`);
  });

  test("its own epoch with other content", () => {
    const pair = FakePair.serving();
    pair.b.record = record(5, 1, "both");
    pair.run(25);
    expect(pair.status.alarm).toBe("b has another record of epoch 5");
    pair.run(1000);
    // The two servers differ in content of one epoch, so nobody is named.
    expect(pair.written).toEqual([]);
    expect(pair.status.why).toContain("different records of the same epoch");
  });

  test("an epoch above its own without a link is heard too", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.a.record = record(9, 1, "solo");
    pair.a.alive = true;
    pair.a.startedAt = pair.now;
    pair.bootController();
    pair.run(50);
    expect(pair.status.alarm).toContain("a has epoch 9");
  });

  test("an alarm while the flash is being written is acted on when that has ended", () => {
    const pair = FakePair.serving();
    pair.persistMs = Infinity;
    pair.a.hang();
    pair.until(() => pair.pendingWrite !== undefined);
    pair.b.record = record(40, 0, "solo");
    pair.b.adopts = false;
    pair.run(50);
    expect(pair.status.state).toBe("writing");
    expect(pair.status.alarm).toContain("b has epoch 40");
    pair.log = [];
    pair.persistMs = 0.2;
    pair.endWrite();
    pair.run(20);
    expect(pair.status.state).toBe("blank");
    // The record just written is never told to anybody.
    expect(pair.log.filter((line) => line.includes("record"))).toEqual([]);
    pair.a.wake();
    pair.b.adopts = true;
    pair.run(200);
    expect(pair.roles).toBe(`solo(a) ${40 + EPOCH_GAP} solo`);
  });
});

describe("a foreign pair", () => {
  test("a server with another pairId is refused, loudly, and counts as absent", () => {
    const pair = FakePair.serving();
    pair.b.record = { ...record(50, 1, "both"), pairId: filled(8, 9) };
    pair.b.dropLink();
    pair.run(1500);
    expect(pair.b.refusals.every((one) => one.code === REFUSE_PAIR)).toBe(true);
    expect(pair.b.refusals.length).toBeGreaterThan(0);
    expect(pair.notes.filter((note) => note.event === "refused").length).toBe(1);
    expect(pair.roles).toBe("solo(a) 6 solo");
    expect(pair.status.alarm).toBe("");
  });

  test("the flash of one pair never names another's servers", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    pair.flash = encode({ ...record(70, 0, "both"), pairId: filled(8, 9) });
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(3000);
    expect(pair.written).toEqual([]);
    expect(pair.status.state).toBe("waiting");
  });
});

describe("newPair IDENTITY (operator)", () => {
  test("one blank server alone founds a pair when the operator names its disk", () => {
    const pair = new FakePair();
    pair.b.alive = false;
    pair.bootController();
    pair.a.start();
    pair.run(100);
    const disk = Buffer.from(pair.a.identity).toString("hex");
    expect(pair.core!.console("newPair " + "00".repeat(16), pair.now)).toContain("refused");
    expect(pair.core!.console("newPair 12", pair.now)).toContain("32 hex digits");
    expect(pair.core!.console("newPair " + disk, pair.now)).toBe("founding a new pair");
    pair.run(50);
    expect(pair.roles).toBe("solo(a) 1 solo");
    expect(pair.a.record!.identityB).toEqual(filled(16, 0));
  });

  test("not on a disk that holds data, and not when there is a record", () => {
    const pair = new FakePair();
    pair.b.alive = false;
    pair.a.record = record(5, 0, "both");
    pair.bootController();
    pair.a.start();
    pair.run(100);
    const disk = Buffer.from(pair.a.identity).toString("hex");
    expect(pair.core!.console("newPair " + disk, pair.now)).toContain("not blank");
    const serving = FakePair.serving();
    expect(serving.core!.console("newPair " + disk, serving.now)).toContain("has a pair");
  });

  test("not when both are there: the rules of power-on decide", () => {
    const pair = new FakePair();
    pair.a.udp = pair.b.udp = false;
    pair.bootController();
    pair.a.dial();
    pair.b.dial();
    pair.run(30);
    const disk = Buffer.from(pair.a.identity).toString("hex");
    expect(pair.core!.console("newPair " + disk, pair.now)).toContain("both servers are connected");
  });
});

describe("force without a record (a wiped flash and a dead server)", () => {
  test("one server alone, forced: far above all that was heard, naming only its own disk", () => {
    const pair = new FakePair();
    pair.b.alive = false;
    pair.a.record = record(5, 0, "both");
    pair.bootController();
    pair.a.start();
    pair.run(100);
    const first = pair.core!.console("force a", pair.now).replace(/\s+/g, " ");
    expect(first).toContain("UNKNOWN: the flash holds no record");
    pair.core!.console("force a", pair.now);
    pair.run(50);
    expect(pair.roles).toBe(`solo(a) ${5 + EPOCH_GAP} solo`);
    expect(pair.a.record!.pairId).toEqual(record(5, 0, "both").pairId);
    expect(pair.a.record!.identityB).toEqual(filled(16, 0));
  });

  test("near the end of the epochs it is refused", () => {
    const pair = new FakePair();
    pair.b.alive = false;
    pair.a.record = record(EPOCH_MAX - 2 * EPOCH_GAP + 1, 0, "both");
    pair.bootController();
    pair.a.start();
    pair.run(100);
    expect(pair.core!.console("force a", pair.now)).toBe("refused: the epochs are used up");
    expect(pair.resets).toEqual([]);
  });

  test("it says what becomes of a server that is away", () => {
    const pair = new FakePair();
    pair.b.alive = false;
    pair.a.record = record(5, 0, "both");
    pair.bootController();
    pair.a.start();
    pair.run(100);
    const text = pair.core!.console("force a", pair.now).replace(/\s+/g, " ");
    expect(text).toContain("b is away: back again it follows a, whatever it was told meanwhile");
    expect(text).toContain("only while this flash holds the record");
  });
});

describe("force: two servers that were forced, each without the other", () => {
  const none = filled(16, 0);
  const forcedA = (epoch: number) => record(epoch, 0, "solo", DISK_A, none);
  const forcedB = (epoch: number) => record(epoch, 1, "solo", none, DISK_B);

  /** The flash holds solo(b), forced without a; a has its own, forced without b. */
  function apart(epochA: number, adopts = true): FakePair {
    const pair = FakePair.intact(forcedB(10));
    pair.b.record = forcedB(10);
    pair.a.record = forcedA(epochA);
    pair.a.adopts = pair.b.adopts = adopts;
    pair.bootController();
    return pair;
  }

  test.each([[12], [10], [7]])("the one that comes back with epoch %i follows", (epoch) => {
    const pair = apart(epoch);
    pair.b.start();
    pair.run(100);
    expect(pair.roles).toBe("solo(b) 10 solo");
    pair.a.start();
    pair.run(100);
    const above = epoch > 10 ? epoch + 1 : 11;
    expect(pair.roles).toBe(`solo(b) ${above} solo`);
    expect(pair.status.alarm).toBe("");
    expect(pair.a.record).toEqual(forcedB(above));
    // As a forced one, or it would not be followed; and once only.
    expect(pair.a.heard.filter((one) => one.kind === 7).at(-1)).toMatchObject({ forced: true });
    expect(pair.written.length).toBe(1);
    expect(pair.resets).toEqual([]);
  });

  test("it is not told again and again while it has not adopted", () => {
    const pair = apart(12, false);
    pair.b.start();
    pair.run(50);
    pair.b.adopts = true;
    pair.a.start();
    pair.run(2000);
    expect(pair.roles).toBe("solo(b) 13 solo");
    expect(pair.written.length).toBe(1);
  });

  test("an old board has no witness: it waits for its own primary, and takes nothing from the other", () => {
    const pair = apart(12);
    pair.a.start();
    pair.run(5000);
    expect(pair.written).toEqual([]);
    expect(pair.roles).toBe("solo(b) 10 waiting");
    // The pair has gone on under another board.
    pair.b.record = forcedB(11);
    pair.b.start();
    pair.run(10);
    expect(pair.status.alarm).toContain("b has epoch 11");
  });

  test("an epoch that was heard so does not stop the primary's own requests", () => {
    const pair = apart(12);
    pair.b.start();
    pair.a.start();
    pair.a.adopts = false;
    pair.run(100);
    expect(pair.roles).toBe("solo(b) 13 solo");
    pair.a.kill();
    pair.b.says = { asked: true, wantsSolo: true };
    pair.until(() => pair.written.length === 2);
    expect(pair.roles).toBe("solo(b) 14 solo");
    expect(pair.resets).toEqual([]);
  });

  test("the operator may force the one that came back instead, above its epoch", () => {
    const pair = apart(12);
    pair.a.start();
    pair.run(500);
    expect(pair.core!.console("force a", pair.now)).toContain("solo(a) epoch 13");
    expect(pair.core!.console("force a", pair.now)).toBe("forced: solo(a) epoch 13");
    pair.run(50);
    expect(pair.roles).toBe("solo(a) 13 solo");
  });

  test("a wiped flash: nobody is named, whatever the epochs, until the operator says who", () => {
    const pair = new FakePair();
    pair.a.record = forcedA(12);
    pair.b.record = forcedB(10);
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(5000);
    expect(pair.written).toEqual([]);
    expect(pair.status.why).toContain("each was forced without the other: only force can say");
    pair.core!.console("force b", pair.now);
    expect(pair.core!.console("force b", pair.now)).toContain("forced: solo(b)");
    pair.run(100);
    expect(pair.roles).toBe(`solo(b) ${12 + EPOCH_GAP} solo`);
    expect(pair.a.record).toEqual(forcedB(12 + EPOCH_GAP));
  });

  test("one forced without the other, which was never forced: the higher epoch, as ever", () => {
    const pair = new FakePair();
    pair.a.record = forcedA(12);
    pair.b.record = record(5, 1, "solo");
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(100);
    expect(pair.roles).toBe(`solo(a) ${12 + EPOCH_GAP} solo`);
  });
});

describe("a flash that has to be put in order first", () => {
  test("while both servers hold the record it may be", () => {
    const pair = FakePair.serving();
    expect(pair.core!.mayCompact(false, pair.now)).toBe(true);
  });

  test("with a blank flash there is nothing to lose", () => {
    const pair = new FakePair();
    pair.bootController();
    expect(pair.core!.mayCompact(false, pair.now)).toBe(true);
  });

  test("a failover waits until both hold the old record again, and the console says why", () => {
    const pair = FakePair.serving();
    pair.persistMs = Infinity;
    pair.a.kill();
    pair.run(50);
    expect(pair.pendingWrite).toBeDefined();
    expect(pair.core!.mayCompact(true, pair.now)).toBe(false);
    const text = pair.core!.console("status", pair.now).replace(/\s+/g, " ");
    expect(text).toContain(
      "waits: the flash is full, and put in order only while both servers hold epoch 5, since a power cut then can lose the record (a is not connected)",
    );
    expect(pair.core!.console("explain", pair.now)).toContain("compact now: a power cut");
    expect(pair.notes.filter((note) => note.event === "flash full")).toHaveLength(1);
    pair.a.start();
    pair.run(500);
    expect(pair.core!.mayCompact(true, pair.now)).toBe(true);
    expect(pair.core!.console("status", pair.now)).not.toContain("flash is full");
    pair.endWrite();
    pair.run(50);
    expect(pair.roles).toContain("solo(b) 6");
  });

  test("a new record is not held by both before both have adopted it", () => {
    const pair = FakePair.serving();
    pair.b.hang();
    pair.until(() => pair.status.epoch === 6);
    expect(pair.core!.mayCompact(false, pair.now)).toBe(false);
    pair.b.wake();
    pair.until(() => pair.core!.mayCompact(false, pair.now));
    expect(pair.b.record!.epoch).toBe(pair.status.epoch);
  });

  test("after an alarm the record that waits is written at once: the flash counts for nothing", () => {
    const pair = FakePair.serving();
    pair.persistMs = Infinity;
    pair.a.kill();
    pair.run(50);
    expect(pair.core!.mayCompact(true, pair.now)).toBe(false);
    pair.b.record = record(9, 1, "both");
    pair.run(200);
    expect(pair.core!.mayCompact(true, pair.now)).toBe(true);
  });
});
