import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { DirectoryInUse, lockDirectory } from "../../agent/dir-lock.js";
import { discardLostMemory, markRun, readIdentity } from "../../agent/identity.js";

let dir: string;
let storeDir: string;
let dataFile: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "dyad-identity-"));
  storeDir = join(dir, "store");
  dataFile = join(storeDir, "data.mdb");
  mkdirSync(storeDir);
  writeFileSync(dataFile, "data");
});

function identityOf(folder: string): { text: string; fresh: string } {
  const found = readIdentity(folder, join(folder, "store", "data.mdb"));
  found.save();
  return { text: Buffer.from(found.identity).toString("hex"), fresh: found.fresh };
}

describe("disk identity", () => {
  test("a restart keeps it, also after the data has changed", () => {
    const first = identityOf(dir);
    expect(first.fresh).not.toBe("");
    writeFileSync(dataFile, "more data", { flag: "a" });
    expect(identityOf(dir)).toEqual({ text: first.text, fresh: "" });
  });

  test("a moved directory is the same disk", () => {
    const first = identityOf(dir);
    const moved = `${dir}-moved`;
    renameSync(dir, moved);
    expect(identityOf(moved)).toEqual({ text: first.text, fresh: "" });
  });

  test("a copy is another disk, and the original stays what it was", () => {
    const first = identityOf(dir);
    const copy = `${dir}-copy`;
    cpSync(dir, copy, { recursive: true });
    const second = identityOf(copy);
    expect(second.text).not.toBe(first.text);
    expect(second.fresh).toMatch(/copy/);
    expect(identityOf(copy)).toEqual({ text: second.text, fresh: "" });
    expect(identityOf(dir).text).toBe(first.text);
  });

  test("a restored data file under an old identity file is another disk", () => {
    const first = identityOf(dir);
    const backup = `${dir}-backup.mdb`;
    copyFileSync(dataFile, backup);
    rmSync(dataFile);
    copyFileSync(backup, dataFile);
    expect(identityOf(dir).text).not.toBe(first.text);
  });

  test("an emptied directory is another disk", () => {
    const first = identityOf(dir);
    rmSync(dir, { recursive: true });
    mkdirSync(storeDir, { recursive: true });
    writeFileSync(dataFile, "data");
    expect(identityOf(dir).text).not.toBe(first.text);
  });

  test("a damaged identity file gives a new identity, not a crash", () => {
    const first = identityOf(dir);
    writeFileSync(join(dir, "identity"), '{"identity":"zz"');
    const second = identityOf(dir);
    expect(second.text).not.toBe(first.text);
    expect(second.fresh).toMatch(/damaged/);
  });

  test("an identity that was not saved does not exist", () => {
    const first = readIdentity(dir, dataFile);
    expect(existsSync(join(dir, "identity"))).toBe(false);
    expect(Buffer.from(first.identity).toString("hex")).not.toBe(identityOf(dir).text);
  });
});

describe("durability memory", () => {
  function otherBoot(): void {
    const path = join(dir, "boot.json");
    const mark = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
    writeFileSync(path, JSON.stringify({ ...mark, boot: "another" }));
  }

  test("a crash of the process alone keeps the store and the identity", () => {
    markRun(dir, "memory", false);
    const first = identityOf(dir);
    expect(discardLostMemory(dir, storeDir)).toBe("");
    expect(identityOf(dir)).toEqual({ text: first.text, fresh: "" });
  });

  test("a restart of the machine without a clean stop empties the store and renews the identity", () => {
    markRun(dir, "memory", false);
    identityOf(dir);
    otherBoot();
    expect(discardLostMemory(dir, storeDir)).toMatch(/new, empty disk/);
    expect(existsSync(storeDir)).toBe(false);
    expect(existsSync(join(dir, "identity"))).toBe(false);
  });

  test("a clean stop before the restart keeps both", () => {
    markRun(dir, "memory", true);
    otherBoot();
    expect(discardLostMemory(dir, storeDir)).toBe("");
    expect(existsSync(dataFile)).toBe(true);
  });

  test("durability disk keeps both", () => {
    markRun(dir, "disk", false);
    otherBoot();
    expect(discardLostMemory(dir, storeDir)).toBe("");
    expect(existsSync(dataFile)).toBe(true);
  });
});

describe("the directory's lock", () => {
  test("a second agent is refused and told who holds it", () => {
    const lock = lockDirectory(dir);
    expect(() => lockDirectory(dir)).toThrow(DirectoryInUse);
    expect(() => lockDirectory(dir)).toThrow(String(process.pid));
    lock.release();
    lockDirectory(dir).release();
  });

  test("what a killed agent left behind holds nobody up", () => {
    const path = join(dir, "agent.lock");
    // The right pid with another start time, a pid that is gone, another boot, and rubbish.
    for (const left of [`${process.pid} 1 x\n`, "999999999 5 x\n", "rubbish", ""]) {
      writeFileSync(path, left);
      lockDirectory(dir).release();
      expect(existsSync(path)).toBe(false);
    }
  });
});
