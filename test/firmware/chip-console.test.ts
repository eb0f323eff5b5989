/** People and programs share one serial line (firmware/node-chip-console.ts). */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createChipConsole } from "../../firmware/node-chip-console.js";

let sent = "";
let shown: string[] = [];
const make = () =>
  createChipConsole(
    (text) => (sent += text),
    (line) => shown.push(line),
  );

beforeEach(() => {
  vi.useFakeTimers();
  sent = "";
  shown = [];
});
afterEach(() => void vi.useRealTimers());

test("a program's answer lies between its echo and its mark; what is said meanwhile is shown", async () => {
  const chip = make();
  const answer = chip.ask("status json");
  expect(sent).toBe("status json\n//1\n");
  chip.hear("connected: a\r\nstatus js");
  chip.hear('on\r\n{"epoch":1}\r\nfailed: b\r\n//1\r\n');
  expect(await answer).toBe('{"epoch":1}');
  expect(shown).toEqual(["connected: a", "failed: b"]);
});

test("questions wait for each other, and a person's answers are shown", async () => {
  const chip = make();
  const [one, two] = [chip.ask("status"), chip.ask("servers")];
  chip.hear("status\r\nfine\r\n");
  expect(sent).toBe("status\n//1\n");
  chip.hear("//1\r\nhelp\r\nthis text\r\n");
  expect(sent).toBe("status\n//1\nservers\n//2\n");
  chip.hear("servers\r\na\r\nb\r\n//2\r\n");
  expect([await one, await two]).toEqual(["fine", "a\nb"]);
  expect(shown).toEqual(["help", "this text"]);
});

test("a lost question is asked again, and two late answers are one; a word that changes something is not repeated", async () => {
  const chip = make();
  const late = chip.ask("status json");
  await vi.advanceTimersByTimeAsync(2000);
  expect(sent).toBe("status json\n//1\nstatus json\n//2\n");
  chip.hear('status json\r\n{"epoch":1}\r\n//1\r\nstatus json\r\n{"epoch":2}\r\n//2\r\n');
  expect(await late).toBe('{"epoch":2}');
  sent = "";
  const refused = expect(chip.ask("force b")).rejects.toThrow("does not answer");
  await vi.advanceTimersByTimeAsync(2000);
  await refused;
  expect(sent).toBe("force b\n//3\n");
});

test("a restart ends what was asked; at the interpreter's own prompt nothing is asked", async () => {
  const chip = make();
  const lost = expect(chip.ask("status")).rejects.toThrow("restarting");
  chip.restart();
  await lost;
  chip.type("\x03");
  await expect(chip.ask("status")).rejects.toThrow("prompt");
  chip.restart();
  sent = "";
  void chip.ask("status");
  expect(sent).toBe("status\n//2\n");
});

test("the prompt's movements are taken out, also in two pieces", () => {
  const chip = make();
  chip.hear("\x1b");
  chip.hear("[J-> LoopbackA\r\n");
  expect(shown).toEqual(["-> LoopbackA"]);
});
