/** The operator's console and the status object: the same on every home. */
import { describe, expect, test } from "vitest";
import { wrap } from "../../firmware/core/console.js";
import { FakePair } from "./fake-pair.js";

describe("console", () => {
  test("help names every command, and each of them answers in lines of at most 80 columns", () => {
    const pair = FakePair.serving();
    const help = pair.core!.console("help", pair.now);
    for (const line of help.split("\n")) {
      const word = line.split(/[\s[]+/)[0]!;
      const answer = pair.core!.console(word === "trace" ? "trace on" : word, pair.now);
      expect(answer, word).not.toContain("unknown command");
      for (const row of answer.split("\n")) expect(row.length).toBeLessThanOrEqual(80);
    }
    expect(pair.resets).toEqual([]);
  });

  test("nonsense and nothing", () => {
    const pair = FakePair.serving();
    expect(pair.core!.console("", pair.now)).toBe("");
    expect(pair.core!.console("   ", pair.now)).toBe("");
    expect(pair.core!.console("//7 a remark", pair.now)).toBe("");
    expect(pair.core!.console("dance now", pair.now)).toContain('unknown command "dance"');
    expect(pair.core!.console("x".repeat(10_000), pair.now).length).toBeLessThan(400);
  });

  test("events are the black box, newest last, and bounded", () => {
    const pair = FakePair.serving();
    pair.a.kill();
    pair.run(50);
    const lines = pair.core!.console("events 5", pair.now).split("\n");
    expect(lines.filter((line) => /^\d/.test(line)).length).toBe(5);
    expect(lines.join(" ")).toContain("record: solo(b) epoch 6");
    for (let i = 0; i < 300; i++) {
      pair.b.dropLink();
      pair.run(20);
    }
    const log = pair.core!.console("log 60", pair.now).split("\n");
    expect(log.length).toBeLessThanOrEqual(64);
    expect(log.at(-1)).toContain("connected: b");
    expect(pair.core!.console("memory", pair.now)).toContain("512 kept");
  });

  test("servers shows load, sync and disk of each", () => {
    const pair = FakePair.serving();
    pair.b.says = { loadPermille: 321, lagEntries: 7 };
    pair.run(25);
    const text = pair.core!.console("servers", pair.now);
    expect(text).toContain("load 321 permille");
    expect(text).toContain("disk " + "b1".repeat(16));
  });

  test("status json is one line of JSON", () => {
    const pair = FakePair.serving();
    const text = pair.core!.console("status json", pair.now);
    expect(text.split("\n")).toHaveLength(1);
    expect(JSON.parse(text)).toMatchObject({ epoch: 5, primary: "a", mode: "both" });
  });

  test("long lines are cut at spaces, and words longer than a line anywhere", () => {
    expect(wrap("aa bb cc", 5)).toEqual(["aa bb", "  cc"]);
    expect(wrap("aaaaaaaaaa", 4)).toEqual(["aaaa", "  aa", "  aa", "  aa"]);
    expect(wrap("", 4)).toEqual([""]);
  });
});

describe("status", () => {
  test("has what `dyad status --json` promises", () => {
    const pair = FakePair.serving();
    const status = JSON.parse(JSON.stringify(pair.status)) as Record<string, unknown>;
    expect(Object.keys(status).slice(0, 5)).toEqual(["epoch", "primary", "mode", "servers", "why"]);
    expect(status).toMatchObject({
      epoch: 5,
      primary: "a",
      mode: "both",
      state: "both",
      pairId: "0102030405060708",
      servers: [
        { id: "a", role: "primary", up: true, inSync: true, lagEntries: 0, loadPermille: 100 },
        { id: "b", role: "standby", up: true, inSync: true, lagEntries: 0, inFlight: 0 },
      ],
    });
    expect((status.servers as object[]).every((server) => "serviceUs" in server)).toBe(true);
  });

  test("without a record", () => {
    const pair = new FakePair();
    pair.a.alive = pair.b.alive = false;
    pair.bootController();
    pair.run(100);
    expect(pair.status).toMatchObject({
      epoch: 0,
      primary: null,
      mode: null,
      servers: [
        { id: "a", role: "away", up: false, inSync: false },
        { id: "b", role: "away", up: false, inSync: false },
      ],
    });
  });

  test("an alarm that is over is still told", () => {
    const pair = FakePair.intact({ ...FakePair.serving().a.record!, epoch: 5 });
    pair.a.record = pair.b.record = { ...pair.a.record!, epoch: 9 };
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(200);
    expect(pair.status.alarm).toBe("");
    const own = (pair.status as unknown as { controller: { lastAlarm: string } }).controller;
    expect(own.lastAlarm).toContain("has epoch 9");
  });
});
