import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openLog } from "../../agent/log.js";

function linesOf(path: string): Record<string, unknown>[] {
  const text = readFileSync(path, "utf8").trim();
  return text.split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);
}

test("a line that repeats is written once in a while, with how often it was left out", () => {
  const path = join(mkdtempSync(join(tmpdir(), "dyad-log-")), "a.log");
  let nowMs = 0;
  const log = openLog("a", path, () => nowMs, false);
  for (let count = 0; count < 50; count++) log.note("error", "refused", { text: "wrong key" });
  log.note("error", "refused", { text: "unknown id" });
  nowMs = 20000;
  log.note("error", "refused", { text: "wrong key" });
  const lines = linesOf(path);
  expect(lines.filter((line) => line["text"] === "wrong key").length).toBe(2);
  expect(lines.filter((line) => line["text"] === "unknown id").length).toBe(1);
  expect(lines).toContainEqual(
    expect.objectContaining({ event: "repeated", text: "refused: wrong key", count: 49 }),
  );
});

test("a flood of different lines is bounded", () => {
  const path = join(mkdtempSync(join(tmpdir(), "dyad-log-")), "a.log");
  let nowMs = 0;
  const log = openLog("a", path, () => nowMs, false);
  for (let count = 0; count < 5000; count++) log.note("info", "event", { count });
  nowMs = 20000;
  log.note("info", "later");
  const lines = linesOf(path);
  expect(lines.length).toBeLessThan(300);
  expect(lines.some((line) => line["event"] === "log-skipped")).toBe(true);
});
