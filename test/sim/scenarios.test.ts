/**
 * Golden transcripts: what happens, then what controller, servers and clients say, to the word. DYAD_REWRITE=1 writes
 * them anew; then they are read, as any other change.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { playScenario } from "../../sim/scenario.js";

const DIRECTORY = join(import.meta.dirname, "..", "scenarios");
const FILES = readdirSync(DIRECTORY).filter((name) => name.endsWith(".txt"));
const REWRITE = process.env["DYAD_REWRITE"] === "1";

describe("scenarios", () => {
  it("are at least thirty, and every row of the source's modules that the cores carry has one", () => {
    expect(FILES.length).toBeGreaterThanOrEqual(30);
    for (let row = 1; row <= 14; row++) {
      const name = `p${String(row).padStart(2, "0")}-`;
      expect(
        FILES.some((file) => file.startsWith(name)),
        name,
      ).toBe(true);
    }
  });

  it.each(FILES)("%s", (file) => {
    const path = join(DIRECTORY, file);
    const before = readFileSync(path, "utf8");
    const { text, violations } = playScenario(before);
    if (REWRITE) writeFileSync(path, text);
    else expect(text).toBe(before);
    expect(violations).toEqual([]);
    // What was waited for and never came is no transcript to keep.
    expect(text).not.toMatch(/^(NEVER CAME|NO ANSWER)/m);
  });
});
