/** `dyad up` with a real interpreter as the controller: started, shown, reset, and never left behind. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { RespClient } from "../../bench/resp-client.js";
import { askNode } from "../../client/cli/ask-node.js";
import { isOnPath } from "../../hal/node/interpreter.mjs";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const dyad = join(root, "bin", "dyad.mjs");
const ENGINES = ["espruino", "iotjs"] as const;
/** Folders without an interpreter. */
const BARE_PATH = `${dirname(process.execPath)}:/usr/bin:/bin`;
const nowhere = (engine: string): boolean =>
  spawnSync("sh", ["-c", `PATH=${BARE_PATH}; command -v ${engine}`]).status !== 0;

let child: ChildProcess | undefined;
let dir = "";

afterEach(async () => {
  if (child !== undefined && child.exitCode === null && child.signalCode === null) {
    const gone = new Promise((done) => child!.once("exit", done));
    child.kill("SIGTERM");
    await gone;
  }
  child = undefined;
  rmSync(dir, { recursive: true, force: true });
});

beforeAll(() => {
  const result = spawnSync(process.execPath, [join(root, "bin", "prepare.mjs")], {
    encoding: "utf8",
  });
  if (result.status !== 0) throw new Error(result.stderr);
}, 400_000);

function isAlive(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
}

async function until(what: string, ask: () => boolean | Promise<boolean>): Promise<void> {
  for (let count = 0; count < 900; count++) {
    if (await ask()) return;
    await new Promise((wake) => setTimeout(wake, 100));
  }
  throw new Error(`did not come: ${what}`);
}

interface UpLine {
  controller: { pid: number; redis: number };
  servers: { pid: number }[];
}

describe.each(ENGINES)("dyad up --controller %s", { timeout: 240_000 }, (engine) => {
  const here = isOnPath(engine);
  if (!here) console.log(`test/cli: skipped, no \`${engine}\` on PATH`);
  const socket = (): string => join(dir, "controller", "controller.sock");
  const chip = async (): Promise<{ resets: number; chipPid: number }> =>
    JSON.parse(await askNode(socket(), "metrics")) as { resets: number; chipPid: number };

  test.runIf(here)(
    "serves clients; what ends the interpreter is a reset of the chip; kill -9 of its keeper leaves none",
    async () => {
      dir = mkdtempSync(join(tmpdir(), "dyad-chip-up-"));
      const up = spawn(
        process.execPath,
        [dyad, "up", "--dir", dir, "--port", "0", "--json", "--controller", engine],
        { stdio: ["ignore", "pipe", "pipe"] },
      );
      child = up;
      let out = "";
      let err = "";
      up.stdout.on("data", (bytes) => (out += String(bytes)));
      up.stderr.on("data", (bytes) => (err += String(bytes)));
      await until("the JSON line", () => out.includes("\n") || up.exitCode !== null);
      if (up.exitCode !== null) throw new Error(err);
      const line = JSON.parse(out) as UpLine;

      const client = await RespClient.open(line.controller.redis);
      expect(await client.call(["SET", "x", "1"], 30_000)).toBe("OK");
      client.close();
      const first = await chip();
      expect(first.resets).toBe(0);
      expect(readFileSync(`/proc/${first.chipPid}/comm`, "utf8").trim()).toBe(engine);
      // Its console answers people and programs.
      expect(await askNode(socket(), "status")).toMatch(/both\(a\)/);

      process.kill(first.chipPid, "SIGKILL");
      await until("another power cycle", async () => {
        const now = await chip();
        return now.resets === 1 && now.chipPid !== 0 && now.chipPid !== first.chipPid;
      });
      await until("the pair under its record again", async () => {
        const again = await RespClient.open(line.controller.redis).catch(() => undefined);
        const value = await again?.call(["GET", "x"], 20_000).catch(() => undefined);
        again?.close();
        return value === "1";
      });
      const log = readFileSync(join(dir, "logs", "controller.log"), "utf8");
      expect(log).toMatch(/\[chip: RESET, the interpreter was ended by SIGKILL\]/);
      expect(log).toMatch(/the flash holds both\(a\) epoch/);

      const second = await chip();
      process.kill(line.controller.pid, "SIGKILL");
      await until("the interpreter gone with its keeper", () => !isAlive(second.chipPid));

      up.kill("SIGTERM");
      await until("the end", () => up.exitCode !== null || up.signalCode !== null);
      for (const server of line.servers) expect(isAlive(server.pid)).toBe(false);
    },
  );

  test.runIf(nowhere(engine))("without it on PATH it says what to do, and makes nothing", () => {
    dir = join(tmpdir(), `dyad-chip-none-${process.pid}`);
    const result = spawnSync(
      process.execPath,
      [dyad, "up", "--dir", dir, "--port", "0", "--controller", engine],
      { encoding: "utf8", env: { ...process.env, PATH: BARE_PATH } },
    );
    expect(result.status).toBe(2);
    expect(result.stderr).toMatch(
      new RegExp(`^dyad: ${engine} is not on PATH: .*--controller board`),
    );
    expect(existsSync(dir)).toBe(false);
  });
});
