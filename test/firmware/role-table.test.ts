/** The state table, its picture, and the bounds. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { defaultTimings } from "../../firmware/core/config.js";
import { createDeadlines, DEADLINE_NAMES, DRAIN, POLL } from "../../firmware/core/deadlines.js";
import { checkLimits, defaultLimits } from "../../firmware/core/limits.js";
import { STATES, TRANSITIONS, isOpen, nextState } from "../../firmware/core/role-table.js";
import { createTrace, LEVEL_ERROR, LEVEL_INFO } from "../../firmware/core/trace.js";

describe("state table", () => {
  test("docs/states.md is drawn from it and current", () => {
    const script = fileURLToPath(new URL("../../bin/draw-states.mjs", import.meta.url));
    execFileSync(process.execPath, [script, "--check"], { stdio: "pipe" });
  });

  test("each event leads to one state, of the table, and every state is reached", () => {
    const names = STATES.map((row) => row.state);
    const seen = new Set<string>();
    for (const { from, event, to } of TRANSITIONS) {
      expect(names).toContain(from);
      expect(names).toContain(to);
      expect(seen.has(from + event), `${from} ${event}`).toBe(false);
      seen.add(from + event);
      expect(nextState(from, event)).toBe(to);
    }
    const reached = new Set(TRANSITIONS.map((row) => row.to));
    for (const name of names) if (name !== "off") expect(reached.has(name), name).toBe(true);
  });

  test("an event without a row has no meaning", () => {
    expect(nextState("solo", "failover")).toBe(undefined);
    expect(nextState("both", "forced")).toBe(undefined);
    expect(nextState("blank", "askedBoth")).toBe(undefined);
  });

  test("commands are sent in both and solo only", () => {
    expect(STATES.filter((row) => isOpen(row.state)).map((row) => row.state)).toEqual([
      "both",
      "solo",
    ]);
  });

  test("a record is written in one state, and left only when the flash has it", () => {
    const outOf = TRANSITIONS.filter((row) => row.from === "writing" && row.to !== "writing");
    expect(outOf.every((row) => row.event.startsWith("persisted"))).toBe(true);
  });
});

describe("limits", () => {
  test("the defaults hold together", () => {
    expect(() => checkLimits(defaultTimings(), defaultLimits())).not.toThrow();
  });

  test.each([
    ["two lost polls would be a failure", { failureMs: 50 }],
    ["a probe slower than silence", { probeMs: 200 }],
    ["commands given up before a failover", { holdMs: 210 }],
    ["draining for longer than commands are held", { drainMs: 2000 }],
    ["a disk judged before a confirm", { diskStallMs: 900 }],
  ])("refused: %s", (_name, change) => {
    expect(() => checkLimits({ ...defaultTimings(), ...change }, defaultLimits())).toThrow();
  });
});

describe("deadlines", () => {
  test("the nearest is next; one that is cleared is never due", () => {
    const deadlines = createDeadlines();
    expect(deadlines.next()).toBe(Infinity);
    deadlines.set(DRAIN, 30);
    deadlines.set(POLL, 20);
    expect(deadlines.next()).toBe(20);
    expect(deadlines.due(POLL, 19.9)).toBe(false);
    expect(deadlines.due(POLL, 20)).toBe(true);
    deadlines.clear(POLL);
    expect(deadlines.due(POLL, 1e9)).toBe(false);
    expect(deadlines.next()).toBe(30);
    expect(new Set(DEADLINE_NAMES).size).toBe(DEADLINE_NAMES.length);
  });
});

describe("black box", () => {
  test("keeps the newest, cuts long texts, marks what is bad", () => {
    const trace = createTrace(16);
    for (let i = 0; i < 100; i++) trace.add(i * 1000 + 5, LEVEL_INFO, "event", "" + i);
    trace.add(123_456, LEVEL_ERROR, "bad", "x".repeat(1000));
    expect(trace.count()).toBe(101);
    expect(trace.line(0, LEVEL_INFO)).toBe("123.456 !! bad: " + "x".repeat(160));
    expect(trace.line(1, LEVEL_INFO)).toBe("99.005 event: 99");
    expect(trace.line(1, LEVEL_ERROR)).toBe("");
    expect(trace.line(15, LEVEL_INFO)).toBe("85.005 event: 85");
    expect(trace.line(16, LEVEL_INFO)).toBe("");
  });
});
