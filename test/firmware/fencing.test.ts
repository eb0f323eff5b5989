/** Fencing lines: who may be switched off, when, and what counts as off. */
import { describe, expect, test } from "vitest";
import { defaultTimings } from "../../firmware/core/config.js";
import { createDeadlines } from "../../firmware/core/deadlines.js";
import { FAULT_SILENT } from "../../firmware/core/fault-monitor.js";
import { fencingOf } from "../../firmware/core/fencing.js";
import type { Pair } from "../../firmware/core/pair.js";
import type { ControllerPorts } from "../../firmware/core/ports.js";
import { FakePair } from "./fake-pair.js";

const noted = (pair: FakePair, event: string): string[] =>
  pair.notes.filter((note) => note.event === event).map((note) => note.text);
const say = (pair: FakePair, line: string): string =>
  pair.core!.console(line, pair.now).replace(/\n */g, " ");

describe("policy failover", () => {
  test("a primary that hangs is switched off once the new record is in flash, read back, and started again", () => {
    const pair = FakePair.fenced("failover");
    pair.onPersist = () => expect(pair.fenceLog).toEqual([]);
    pair.a.hang();
    pair.until(() => pair.fenceLog.length > 0);
    expect(pair.status.primary).toBe("b");
    expect(pair.fenceLog).toEqual(["a on"]);
    expect(noted(pair, "fenced")).toEqual([]);
    pair.until(() => noted(pair, "fenced").length > 0);
    expect(noted(pair, "fenced")[0]).toMatch(/^a is off, read back after (1[5-9]|2\d) ms$/);
    expect(say(pair, "fence")).toMatch(
      /a: fence: off for 0 s, reads back off \(it was failed over from\) b: fence: safe/,
    );
    pair.run(1900);
    expect(pair.fenceLog).toEqual(["a on"]);
    pair.run(300);
    expect(pair.fenceLog).toEqual(["a on", "a off"]);
    expect(noted(pair, "fence released")).toEqual(["a may start again"]);
    pair.until(() => pair.status.servers[0]!.up);
    pair.run(3000);
    expect(pair.fenceLog).toEqual(["a on", "a off"]);
    expect(pair.resets).toEqual([]);
  });

  test("one that is back before the next turn is left alone", () => {
    const pair = FakePair.fenced("failover");
    pair.persistMs = Infinity;
    pair.a.hang();
    pair.until(() => pair.pendingWrite !== undefined);
    pair.a.wake();
    pair.run(200);
    pair.endWrite();
    pair.run(200);
    expect(pair.status.primary).toBe("b");
    expect(pair.fenceLog).toEqual([]);
  });

  test("a fence that does not read back counts for nothing, and is let go", () => {
    const pair = FakePair.fenced("failover");
    pair.fenceWired[0] = false;
    pair.a.hang();
    pair.until(() => noted(pair, "fence failed").length > 0);
    expect(noted(pair, "fence failed")[0]).toContain("a still reads back on after 100 ms");
    expect(pair.fenceLog).toEqual(["a on", "a off"]);
    expect(noted(pair, "fenced")).toEqual([]);
    expect(say(pair, "fence")).toContain("a: fence: failed for 0 s, reads back on");
    pair.run(5000);
    expect(pair.fenceLog).toEqual(["a on", "a off"]);
  });

  test("a lost standby and a switchover are no reason", () => {
    const lost = FakePair.fenced("failover");
    lost.b.hang();
    lost.run(1000);
    expect(lost.roles).toContain("solo");
    expect(lost.fenceLog).toEqual([]);

    const planned = FakePair.fenced("failover");
    say(planned, "switchover");
    planned.run(1000);
    expect(planned.status.primary).toBe("b");
    expect(planned.fenceLog).toEqual([]);
  });

  test("outputs are off at boot, and after a reset of the chip while one was on", () => {
    const pair = FakePair.fenced("failover");
    pair.a.hang();
    pair.until(() => noted(pair, "fenced").length > 0);
    pair.fenceLog = [];
    pair.bootController();
    expect(pair.fenceLog).toEqual(["a off", "b off"]);
    pair.run(3000);
    expect(pair.fenceLog).toEqual(["a off", "b off"]);
  });
});

describe("policy operator", () => {
  test("nothing is switched off by itself; on the operator's word, said twice, a failed server is", () => {
    const pair = FakePair.fenced("operator");
    expect(say(pair, "fence a")).toContain("refused: a works");
    pair.a.hang();
    pair.run(1000);
    expect(pair.status.primary).toBe("b");
    expect(pair.fenceLog).toEqual([]);
    expect(say(pair, "fence a")).toBe(
      "This would switch a off for 2 s. Say the same again within 30 s to do it: fence a",
    );
    expect(say(pair, "fence a")).toContain("firing the fence of a");
    pair.run(100);
    expect(pair.fenceLog).toEqual(["a on"]);
    expect(say(pair, "fence a")).toBe("refused: the fence of a is off");
    expect(say(pair, "fence a release")).toBe("a may start again");
    expect(pair.fenceLog).toEqual(["a on", "a off"]);
    expect(say(pair, "fence b release")).toBe("refused: the fence of b is safe");
  });

  test("armed, and heard of again before the turn in which it would fire: disarmed", () => {
    const outputs: string[] = [];
    const view = { id: "a", fault: 0 };
    const pair = {
      servers: [view, { id: "b", fault: 0 }],
      record: undefined,
      config: {
        timings: defaultTimings(),
        fencing: { policy: "failover", lines: [true, false], offMs: 0, readBackMs: 100 },
      },
    } as unknown as Pair;
    const ports = {
      fence: (server: number, on: boolean) => outputs.push(`${server} ${on ? "on" : "off"}`),
      powered: () => true,
    } as unknown as ControllerPorts;
    const deadlines = createDeadlines();
    const notes: string[] = [];
    const fencing = fencingOf(pair, ports, deadlines, (_, event) => notes.push(event));
    view.fault = FAULT_SILENT;
    fencing.failedOver(0, 50);
    fencing.failedOver(1, 50);
    expect(deadlines.next()).toBe(50);
    view.fault = 0;
    fencing.tick(50);
    expect(notes).toEqual(["fence armed", "fence disarmed"]);
    expect(outputs).toEqual(["0 off"]);
    expect(deadlines.next()).toBe(Infinity);
  });

  test("offMs 0: it stays off until the operator releases it", () => {
    const pair = FakePair.fenced("operator");
    pair.config.fencing!.offMs = 0;
    pair.a.hang();
    pair.run(1000);
    expect(say(pair, "fence a")).toContain("switch a off until you say: fence a release");
    say(pair, "fence a");
    pair.run(60_000);
    expect(pair.fenceLog).toEqual(["a on"]);
    expect(say(pair, "fence")).toContain("a: fence: off for 60 s, reads back off");
    say(pair, "fence a release");
    expect(pair.fenceLog).toEqual(["a on", "a off"]);
    pair.until(() => pair.status.servers[0]!.up);
  });

  test("held off and reading back on again: the output is let go, and that is an error", () => {
    const pair = FakePair.fenced("operator");
    pair.a.hang();
    pair.run(1000);
    say(pair, "fence a");
    say(pair, "fence a");
    pair.until(() => noted(pair, "fenced").length > 0);
    pair.powered[0] = true;
    pair.run(20);
    expect(noted(pair, "fence failed")).toEqual(["a reads back on although it is held off"]);
    expect(pair.fenceLog).toEqual(["a on", "a off"]);
    expect(say(pair, "fence")).toContain("a: fence: failed for 0 s, reads back on");
  });

  test("said again too late it is only asked again", () => {
    const pair = FakePair.fenced("operator");
    pair.a.hang();
    pair.run(1000);
    say(pair, "fence a");
    pair.run(30_100);
    expect(say(pair, "fence a")).toContain("This would switch a off");
    pair.run(100);
    expect(pair.fenceLog).toEqual([]);
  });

  test("the only primary there is: what may be lost is said", () => {
    const pair = FakePair.fenced("operator", "solo");
    pair.a.hang();
    pair.run(1000);
    expect(say(pair, "fence a")).toContain(
      "a is primary: what is in its memory alone would be lost",
    );
  });
});

test("no lines: the command says so, and nothing is asked of the home", () => {
  const pair = FakePair.serving();
  expect(say(pair, "fence")).toBe("this controller has no fencing lines");
  expect(say(pair, "fence a")).toBe("refused: this controller has no fencing lines");
  pair.a.hang();
  pair.run(1000);
  expect(pair.fenceLog).toEqual([]);
});
