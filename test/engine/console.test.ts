/** `dyad console --port` on the firmware's own console, in the real interpreter behind a TCP bridge. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { ChipPair, isThere, ROOT, until } from "./chip-pair.js";
import { DeskBoard } from "./desk-board.js";

const here = isThere("espruino");
if (!here) console.log("test/engine: skipped, no `espruino` on PATH");

const undo: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one();
});

function dyadConsole(
  place: string,
  typed: string[],
): Promise<{ code: number; out: string; err: string }> {
  const child = spawn(process.execPath, [
    join(ROOT, "bin", "dyad.mjs"),
    "console",
    "--port",
    place,
  ]);
  undo.push(() => void child.kill("SIGKILL"));
  let out = "";
  let err = "";
  child.stdout.on("data", (data) => (out += String(data)));
  child.stderr.on("data", (data) => (err += String(data)));
  child.stdin.end(`${typed.join("\n")}\n`);
  return new Promise((ended) =>
    child.once("exit", (code) => ended({ code: code ?? -1, out, err })),
  );
}

describe.runIf(here)("the console of the real interpreter", () => {
  test("every command of the firmware is answered, in lines of at most 80 columns", async () => {
    const pair = await ChipPair.make("espruino");
    undo.push(() => pair.end());
    const board = await DeskBoard.open("espruino", join(pair.dir, "chip"));
    undo.push(() => board.close());
    await until("the firmware", () => board.said.includes("listening"), 120_000);

    const words = "status explain servers log config memory help".split(" ");
    const { code, out, err } = await dyadConsole(board.place, [
      ...words,
      "events 3",
      "trace on",
      "force a",
      "compact",
      "dance",
    ]);
    expect(err).toBe("");
    expect(code).toBe(0);
    for (const row of out.split("\n")) expect(row.length, row).toBeLessThanOrEqual(80);
    for (const part of [
      /no record/,
      /^Server a: /m,
      /poll every \d+ ms/,
      /of \d+ variables of \d+ bytes used/,
      /switchover +drain/,
      /trace is on/,
      /refused: no record waits/,
      /unknown command "dance"/,
    ]) {
      expect(out).toMatch(part);
    }
    expect(out).not.toContain("//");

    // Without the firmware the interpreter's own prompt is there, and told from it.
    const { boots } = board;
    const stopped = await dyadConsole(board.place, ["status", "\x03", "1"]);
    expect(stopped.out).toContain("interpreter's own prompt");
    expect(stopped.code).toBe(1);
    expect(board.boots).toBe(boots);
  }, 300_000);
});
