/** A power cut at every byte of every write to the flash, in the real interpreter's own Storage. */
import { describe, expect, test } from "vitest";
import { isThere } from "./chip-pair.js";
import { runScript } from "./engine-script.js";

const here = isThere("espruino");
if (!here) console.log("test/engine: skipped, no `espruino` on PATH");

describe.runIf(here)("the flash of a board", () => {
  test("holds the newest complete record after a power cut at any byte", async () => {
    const said = await runScript("test/engine/flash-cut.espruino.ts", /problems \d+/);
    expect(said).not.toContain("PROBLEM");
    const found = /CUTS (\d+) kept the old record (\d+) blank (\d+) problems 0/.exec(said);
    expect(found, said.slice(-800)).not.toBe(null);
    expect(Number(found![1])).toBeGreaterThan(500);
  }, 240_000);
});
