/** A power cut at every byte of every write to the flash, in the real interpreter's own Storage. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { describe, expect, test } from "vitest";
import { ROOT, isThere, until } from "./chip-pair.js";

const here = isThere("espruino");
if (!here) console.log("test/engine: skipped, no `espruino` on PATH");

/** What the interpreter says until it has ended its script. Its input must stay open. */
async function run(dir: string): Promise<string> {
  const child = spawn("espruino", ["cut.js"], { cwd: dir, stdio: ["pipe", "pipe", "ignore"] });
  let said = "";
  child.stdout.on("data", (data: Buffer) => {
    said += data.toString("latin1");
  });
  try {
    await until("the end of the script", () => /problems \d+|Error/.test(said), 200_000);
  } finally {
    child.kill("SIGKILL");
  }
  return said;
}

describe.runIf(here)("the flash of a board", () => {
  test("holds the newest complete record after a power cut at any byte", async () => {
    const result = await build({
      absWorkingDir: ROOT,
      entryPoints: ["test/engine/flash-cut.espruino.ts"],
      bundle: true,
      write: false,
      platform: "node",
      format: "iife",
      target: "es2015",
      charset: "ascii",
      logLevel: "warning",
    });
    const dir = mkdtempSync(join(tmpdir(), "dyad-flash-"));
    try {
      writeFileSync(
        join(dir, "cut.js"),
        result.outputFiles[0]!.text.replace(/\bengineRequire\(/g, "require("),
      );
      writeFileSync(join(dir, "espruino.flash"), Buffer.alloc(256 * 1024, 0xff));
      const said = await run(dir);
      expect(said).not.toContain("PROBLEM");
      const found = /CUTS (\d+) kept the old record (\d+) blank (\d+) problems 0/.exec(said);
      expect(found, said.slice(-800)).not.toBe(null);
      expect(Number(found![1])).toBeGreaterThan(500);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }, 240_000);
});
