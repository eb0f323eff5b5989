/** Runs one script, bundled as firmware is, in the real interpreter, with a flash of its own. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { ROOT, until } from "./chip-pair.js";

/** The interpreter reads no shorter flash. */
const FLASH_BYTES = 256 * 1024;

/** @param ends what the script says last @returns all that it said */
export async function runScript(entry: string, ends: RegExp): Promise<string> {
  const result = await build({
    absWorkingDir: ROOT,
    entryPoints: [entry],
    bundle: true,
    write: false,
    platform: "node",
    format: "iife",
    target: "es2015",
    charset: "ascii",
    logLevel: "warning",
  });
  const dir = mkdtempSync(join(tmpdir(), "dyad-flash-"));
  const text = result.outputFiles[0]!.text.replace(/\bengineRequire\(/g, "require(");
  writeFileSync(join(dir, "script.js"), text);
  writeFileSync(join(dir, "espruino.flash"), Buffer.alloc(FLASH_BYTES, 0xff));
  // Its input must stay open.
  const child = spawn("espruino", ["script.js"], { cwd: dir, stdio: ["pipe", "pipe", "ignore"] });
  let said = "";
  child.stdout.on("data", (data: Buffer) => {
    said += data.toString("latin1");
  });
  try {
    await until("the end of the script", () => ends.test(said) || /Error/.test(said), 200_000);
    return said;
  } finally {
    child.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  }
}
