/** The serial line as a second path: what counts as failed with it (docs/ROLE-PROTOCOL.md), and who is told what by it. */
import { describe, expect, test } from "vitest";
import { checkLimits, defaultLimits } from "../../firmware/core/limits.js";
import { defaultTimings } from "../../firmware/core/config.js";
import { FORM_TEXT } from "../../protocol/serial.js";
import { DISK_A, FakePair, filled, record } from "./fake-pair.js";

const noted = (pair: FakePair, event: string): string[] =>
  pair.notes.filter((note) => note.event === event).map((note) => note.text);

describe("both networks silent and serial alive: the controller's own cable", () => {
  test("no role changes, and the console says which path is down", () => {
    const pair = FakePair.wired();
    pair.a.network(false);
    pair.b.network(false);
    pair.run(3000);
    expect(pair.written).toEqual([]);
    expect(pair.a.sealed).toEqual([]);
    expect(noted(pair, "both silent")).toEqual([
      "no role changes: serial answers, so it is this controller's own network",
    ]);
    expect(pair.status.servers.map((server) => server.paths)).toEqual([
      "network silent, serial up",
      "network silent, serial up",
    ]);
    for (const command of ["explain", "status"]) {
      expect(pair.core!.console(command, pair.now).replace(/\n +/g, " ")).toContain(
        "look at this controller's own network cable",
      );
    }
    // The cable is plugged in again, one switch port after the other.
    pair.a.network(true);
    pair.run(80);
    pair.b.network(true);
    pair.run(500);
    expect(pair.written).toEqual([]);
    expect(pair.roles).toBe("both(a) 5 both");
  });

  test("also when one of the lines is dead: nobody can be named without the network", () => {
    const pair = FakePair.wired();
    pair.b.wired = false;
    pair.run(500);
    pair.a.network(false);
    pair.b.network(false);
    pair.run(2000);
    expect(pair.written).toEqual([]);
    expect(pair.status.servers.map((server) => server.paths)).toEqual([
      "network silent, serial up",
      "network silent, serial silent",
    ]);
  });
});

describe("only the primary's network dead, its serial line alive", () => {
  test("an in-sync standby takes over, the old primary is told by serial and stays standby", () => {
    const pair = FakePair.wired();
    pair.a.network(false);
    const ms = pair.until(() => pair.status.primary === "b");
    expect(ms).toBeGreaterThan(170);
    expect(ms).toBeLessThan(225);
    expect(pair.roles).toBe("both(b) 6 both");
    pair.run(200);
    expect(pair.a.record).toEqual(record(6, 1, "both"));
    expect(pair.a.sealed[0]).toEqual(record(6, 1, "both"));
    // In sync by its own word, and reads stay away from where no command can be sent.
    expect(pair.forward.route.readable).toEqual([false, true]);
    pair.run(3000);
    expect(pair.roles).toBe("both(b) 6 both");
    expect(pair.status.servers[0]!.paths).toBe("network silent, serial up");
    // What it was told it has adopted, so it is told no more.
    const told = pair.a.sealed.length;
    pair.run(1000);
    expect(pair.a.sealed.length).toBe(told);
    expect(told).toBeLessThan(4);
    // And with its network it serves reads again.
    pair.a.network(true);
    pair.run(500);
    expect(pair.forward.route.readable).toEqual([true, true]);
  });

  test("it is told until it says that it has adopted the record", () => {
    const pair = FakePair.wired();
    pair.a.adopts = false;
    pair.a.network(false);
    pair.run(1500);
    expect(pair.a.sealed.length).toBeGreaterThan(5);
    pair.a.adopts = true;
    pair.run(300);
    expect(pair.a.record).toEqual(record(6, 1, "both"));
  });

  test("the record is in flash before a word of it is on the line", () => {
    const pair = FakePair.wired();
    pair.persistMs = Infinity;
    pair.a.network(false);
    pair.run(1000);
    expect(pair.pendingWrite).not.toBe(undefined);
    expect(pair.a.sealed).toEqual([]);
    pair.endWrite();
    pair.run(200);
    expect(pair.a.sealed.length).toBeGreaterThan(0);
  });

  test.each([
    ["its peer link is down", { peerUp: false }],
    ["it has not adopted the record", { record: record(4, 0, "both") }],
    ["it has another disk", { identity: filled(16, 9) }],
    ["its disk hangs", { oldestUncommittedMs: 9000 }],
  ])("it cannot stay standby when %s: solo", (_why, says) => {
    const pair = FakePair.wired();
    pair.a.network(false);
    pair.a.says = says;
    pair.until(() => pair.status.primary === "b");
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("nobody takes over from a primary whose standby is not in reach", () => {
    const pair = FakePair.wired();
    pair.b.powerOff();
    pair.until(() => pair.status.mode === "solo");
    pair.forward.events.onFirstPassed(6);
    pair.a.network(false);
    pair.run(2000);
    expect(pair.roles).toBe("solo(a) 6 stranded");
  });
});

describe("only the standby's network dead, its serial line alive", () => {
  test("it stays standby while the primary is connected to it, and gets no reads", () => {
    const pair = FakePair.wired();
    pair.b.network(false);
    pair.run(5000);
    expect(pair.written).toEqual([]);
    expect(pair.forward.route.readable).toEqual([true, false]);
    expect(pair.core!.console("servers", pair.now)).toContain("network silent, serial up");
  });

  test("it is lost as soon as the primary has no link to it, or writes stall", () => {
    const cut = FakePair.wired();
    cut.b.network(false);
    cut.a.says = { peerUp: false };
    cut.until(() => cut.status.mode === "solo", 400);
    expect(cut.roles).toBe("solo(a) 6 solo");
    const stalled = FakePair.wired();
    stalled.b.network(false);
    stalled.run(1000);
    stalled.a.says = { oldestUnconfirmedMs: 1500 };
    stalled.until(() => stalled.status.mode === "solo", 400);
    expect(stalled.roles).toBe("solo(a) 6 solo");
  });
});

describe("all paths silent: failover", () => {
  test("as soon as without a line, and the old primary is not told to stay standby", () => {
    const pair = FakePair.wired();
    pair.a.wired = false;
    pair.a.powerOff();
    const ms = pair.until(() => pair.status.primary === "b");
    expect(ms).toBeLessThan(225);
    expect(pair.roles).toBe("solo(b) 6 solo");
    expect(pair.a.sealed).toEqual([]);
  });

  test("a line's last sign, from before the network fell silent, keeps nobody standby", () => {
    // At every phase of the serial polls.
    for (let phase = 0; phase < 100; phase += 7) {
      const pair = FakePair.wired();
      pair.run(phase);
      pair.a.wired = false;
      pair.a.powerOff();
      pair.until(() => pair.status.primary === "b");
      expect(pair.roles, `phase ${phase}`).toBe("solo(b) 6 solo");
    }
  });

  test("kill -9: a refused poll needs no line", () => {
    const pair = FakePair.wired();
    pair.a.kill();
    expect(pair.until(() => pair.status.primary === "b")).toBeLessThan(5);
  });

  test("a closed link, no answer by UDP, and one by serial: the probe is passed", () => {
    const pair = FakePair.wired();
    pair.a.udp = false;
    pair.a.redialMs = 30;
    pair.a.dropLink();
    pair.run(60);
    expect(pair.written).toEqual([]);
    pair.a.udp = true;
    pair.run(1000);
    expect(pair.written).toEqual([]);
  });

  test("the same without an answer by serial is a failure", () => {
    const pair = FakePair.wired();
    pair.a.udp = false;
    pair.a.wired = false;
    pair.a.redialMs = 30_000;
    pair.a.dropLink();
    const ms = pair.until(() => pair.status.primary === "b");
    expect(ms).toBeLessThan(defaultTimings().serialProbeMs + 10);
  });
});

describe("a line on its own", () => {
  test("its silence is said and changes nothing", () => {
    const pair = FakePair.wired();
    expect(noted(pair, "serial line").length).toBe(2);
    pair.a.wired = false;
    pair.run(1000);
    expect(pair.written).toEqual([]);
    expect(noted(pair, "serial line").slice(2)).toEqual(["a: network up, serial silent"]);
    expect(pair.core!.console("servers", pair.now)).toContain("serial silent");
    pair.a.wired = true;
    pair.run(300);
    expect(noted(pair, "serial line").slice(3)).toEqual(["a: network up, serial up"]);
  });

  test("rule 6: an answer by serial proves life when its poll was sent, and names nobody", () => {
    const pair = FakePair.wired();
    // The standby answers by serial alone, and the primary dies: nobody can be named.
    pair.b.network(false);
    pair.run(1000);
    pair.a.kill();
    pair.run(2000);
    expect(pair.written).toEqual([]);
    expect(pair.roles).toBe("both(a) 5 dark");
    pair.b.network(true);
    pair.until(() => pair.status.primary === "b");
  });

  test("late answers on the line count for life alone", () => {
    const pair = FakePair.wired();
    let late: Uint8Array[] = [];
    pair.a.garble = (bytes) => {
      late.push(bytes);
      return new Uint8Array(0);
    };
    // The next polls go out well after the network has fallen silent, and before that is judged.
    pair.until(() => late.length === 1);
    pair.run(40);
    late = [];
    pair.a.network(false);
    pair.run(190);
    // All but the newest come when a later poll is out: what they say (a peer link) was said to an older one.
    expect(late.length).toBeGreaterThan(1);
    for (const bytes of late.slice(0, -1)) pair.core!.onSerial(0, bytes, 0, bytes.length, pair.now);
    pair.until(() => pair.status.primary === "b");
    expect(pair.roles).toBe("solo(b) 6 solo");
  });

  test("garbage, lost and doubled bytes are counted and believed by nobody", () => {
    const pair = FakePair.wired();
    let n = 0;
    pair.a.garble = (bytes) => {
      n++;
      const bent = bytes.slice();
      if (n % 4 === 0) bent[bent.length >> 1]! ^= 0x10;
      if (n % 4 === 1) return bytes.slice(0, bytes.length - 20);
      if (n % 4 === 2) return new Uint8Array([...filled(70, 0x55), 0x7e, ...bytes, ...bytes]);
      return bent;
    };
    pair.run(4000);
    expect(pair.written).toEqual([]);
    const line = pair.status.controller.serial[0]!;
    expect(pair.core!.console("servers", pair.now)).toContain(
      `  serial: ${line["packets"]} packets, damaged ${line["damaged"]}, lost ${line["lost"]}`,
    );
    expect(line).toMatchObject({ up: true });
    expect(line["damaged"]).toBeGreaterThan(10);
    expect(line["doubled"]).toBeGreaterThan(5);
    expect(line["garbageBytes"]).toBeGreaterThan(500);
    expect(line["lost"]).toBeGreaterThan(5);
    expect(pair.status.controller.serial[1]).toMatchObject({
      damaged: 0,
      lost: 0,
      garbageBytes: 0,
    });
  });

  test("cables plugged the wrong way round are named and prove nothing", () => {
    const pair = FakePair.intact(record(5, 0, "both")).withLines();
    pair.bootController();
    pair.a.start();
    pair.b.start();
    const core = pair.core!;
    const straight = core.onSerial;
    core.onSerial = (server, bytes, start, end, now) =>
      straight(server === 0 ? 1 : 0, bytes, start, end, now);
    pair.run(1000);
    expect(noted(pair, "wrong line")).toEqual([
      "the serial line of b leads to a",
      "the serial line of a leads to b",
    ]);
    expect(pair.status.servers.map((server) => server.paths)).toEqual([
      "network up, serial leads to b",
      "network up, serial leads to a",
    ]);
    expect(pair.status.controller.serial[0]).toMatchObject({ up: false });
  });

  test("a line that takes no bytes holds nothing up, and loses no number", () => {
    const pair = FakePair.wired();
    pair.lineFull[0] = true;
    pair.run(1000);
    expect(pair.status.controller.serial[0]).toMatchObject({ up: false });
    expect(pair.status.controller.serial[0]!["unsent"]).toBeGreaterThan(5);
    pair.lineFull[0] = false;
    pair.run(300);
    expect(pair.status.controller.serial[0]).toMatchObject({ up: true, lost: 0 });
  });

  test("the 7-bit form works the same", () => {
    const pair = FakePair.intact(record(5, 0, "both"));
    for (const server of pair.config.servers) server.serial = FORM_TEXT;
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(200);
    expect(pair.status.controller.serial[0]).toMatchObject({ up: true, damaged: 0 });
  });

  test("an epoch above the controller's is an alarm on this path too", () => {
    const pair = FakePair.wired();
    pair.b.network(false);
    pair.b.record = record(9, 1, "solo", DISK_A);
    pair.until(() => pair.status.alarm !== "", 500);
    expect(pair.status.alarm).toContain("b has epoch 9");
  });
});

test.each([
  ["two lost packets", { serialPollMs: 120 }],
  ["shorter than the network", { serialFailureMs: 300, failureMs: 400, linkDownMs: 1000 }],
  ["a probe longer than silence", { serialProbeMs: 300 }],
])("the limits of a line must fit: %s", (_what, change) => {
  expect(() => checkLimits({ ...defaultTimings(), ...change }, defaultLimits())).toThrow();
});
