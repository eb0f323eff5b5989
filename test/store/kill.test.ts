import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openLmdbStore } from "../../agent/store/lmdb.js";
import type { Durability } from "../../agent/store/lmdb.js";
import { rounds } from "./kill-rows.js";

const root = join(import.meta.dirname, "../..");
const directories: string[] = [];
afterAll(() => {
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

function program(directory: string, durability: Durability): string {
  const call = `commitUntilKilled(${JSON.stringify(directory)}, "${durability}")`;
  return `import("./test/store/kill-rows.ts").then((rows) => rows.${call});`;
}

/** Runs the child until `kill` says so; @returns the last commit it called done, and the one it opened with. */
function run(
  directory: string,
  durability: Durability,
  doneBeforeKill: number,
  lateMs: number,
): Promise<{ opened: number; done: number }> {
  const child = spawn(
    process.execPath,
    ["--import", "./sim/ts-node.mjs", "--eval", program(directory, durability)],
    { cwd: root, stdio: ["ignore", "pipe", "inherit"] },
  );
  return new Promise((resolve, reject) => {
    let text = "";
    let opened = -1;
    let killing = false;
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      opened = Number(/^open (\d+)/.exec(text)?.[1] ?? -1);
      const dones = text.split("\n").length - 2;
      if (dones >= doneBeforeKill && !killing) {
        killing = true;
        setTimeout(() => child.kill("SIGKILL"), lateMs);
      }
    });
    child.once("error", reject);
    child.once("close", () => {
      if (text.includes("failed")) reject(new Error(text));
      const found = [...text.matchAll(/done (\d+)\n/g)];
      resolve({ opened, done: found.length > 0 ? Number(found[found.length - 1]![1]) : opened });
    });
  });
}

describe.each(["disk", "memory"] as const)("kill -9 with durability %s", (durability) => {
  it("leaves a store that has every commit that was done, whole", async () => {
    const directory = mkdtempSync(join(tmpdir(), "dyad-kill-"));
    directories.push(directory);
    let before = 0;
    for (let round = 0; round < 5; round++) {
      const { opened, done } = await run(directory, durability, 1 + round * 60, (round * 7) % 23);
      expect(opened).toBeGreaterThanOrEqual(before);
      expect(done).toBeGreaterThan(opened);
      // In a round of its own the parent looks; in the others the next child does.
      if (round % 3 === 1) {
        const store = openLmdbStore({ directory, durability });
        expect(rounds(store)).toBeGreaterThanOrEqual(done);
        await store.close();
      }
      before = done;
    }
  });
});

describe.each(["disk", "memory"] as const)("a full disk with durability %s", (durability) => {
  it("fails the commit with a clear error, takes nothing more, and what was done is there", () => {
    const directory = mkdtempSync(join(tmpdir(), "dyad-full-"));
    directories.push(directory);
    // The shell's limit on file sizes stands for the disk: writing beyond it fails.
    const command = `ulimit -f 8000; exec "${process.execPath}" --import ./sim/ts-node.mjs --eval '${program(directory, durability)}'`;
    const ended = spawnSync("bash", ["-c", command], {
      cwd: root,
      encoding: "utf8",
      timeout: 50_000,
    });
    expect(ended.status).toBe(1);
    const failed = ended.stdout.split("\n").filter((line) => line.startsWith("failed"));
    expect(failed).toHaveLength(1);
    expect(failed[0]).toContain(`writing to ${directory} failed`);
    const last = Number([...ended.stdout.matchAll(/done (\d+)\n/g)].at(-1)![1]);
    const store = openLmdbStore({ directory, durability });
    expect(rounds(store)).toBeGreaterThanOrEqual(last);
    return store.close();
  });
});
