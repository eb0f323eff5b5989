import { mkdtempSync, rmSync, cpSync, readFileSync, writeFileSync, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { chipIdOf } from "../../hal/node/chip-id.js";
import { JournalFlash, openFlash, SLOTS, type JournalFiles } from "../../hal/node/flash.js";

const CHIP = new Uint8Array(16).fill(7);
const OTHER_CHIP = new Uint8Array(16).fill(8);

function record(number: number): Uint8Array {
  const bytes = new Uint8Array(48);
  for (let i = 0; i < 48; i++) bytes[i] = (number * 31 + i) & 255;
  bytes[0] = number >>> 8;
  bytes[1] = number;
  return bytes;
}

/** Two files in memory. A cut lets only the first bytes of a write through, and then nothing at all. */
class CutFiles implements JournalFiles {
  files: (Uint8Array | undefined)[] = [undefined, undefined];
  cut = false;
  /** What is left of the bytes that may still be written. */
  budget = Infinity;

  read(file: number): Uint8Array | undefined {
    return this.files[file]?.slice();
  }

  writeAt(file: number, offset: number, bytes: Uint8Array, done: (failure: string) => void): void {
    if (this.cut) return;
    const taken = Math.min(bytes.length, this.budget);
    this.files[file]!.set(bytes.subarray(0, taken), offset);
    this.budget -= taken;
    if (taken < bytes.length) this.cut = true;
    else done("");
  }

  replace(file: number, bytes: Uint8Array, done: (failure: string) => void): void {
    if (this.cut) return;
    // The new file takes the old one's place only when it is whole.
    if (this.budget < bytes.length) {
      this.cut = true;
      return;
    }
    this.budget -= bytes.length;
    this.files[file] = bytes.slice();
    done("");
  }

  close(): void {
    // Nothing is held.
  }

  reboot(): void {
    this.cut = false;
    this.budget = Infinity;
  }
}

/** @returns whether the write was acknowledged */
function put(flash: JournalFlash, bytes: Uint8Array): boolean {
  let told = false;
  flash.write(bytes, (failure) => {
    expect(failure).toBe("");
    told = true;
  });
  return told;
}

describe("the flash journal", () => {
  test("a blank flash is blank, and not damaged", () => {
    expect(new JournalFlash(new CutFiles(), CHIP).content).toEqual({
      record: undefined,
      damage: "",
    });
  });

  test("the newest record is found again, over many rounds of both files", () => {
    const files = new CutFiles();
    let flash = new JournalFlash(files, CHIP);
    for (let n = 1; n <= 5 * SLOTS; n++) {
      expect(put(flash, record(n))).toBe(true);
      if (n % 7 === 0) flash = new JournalFlash(files, CHIP);
      expect(new JournalFlash(files, CHIP).content).toEqual({ record: record(n), damage: "" });
    }
  });

  test("a cut at every byte of every write leaves the old record or the new one, and no damage", () => {
    // Rounds begin before and after each edge: first write, second, full file, other file's first.
    for (const before of [0, 1, 2, SLOTS - 1, SLOTS, SLOTS + 1, 2 * SLOTS - 1, 2 * SLOTS]) {
      const base = new CutFiles();
      const first = new JournalFlash(base, CHIP);
      for (let n = 1; n <= before; n++) put(first, record(n));
      let whole = false;
      for (let bytes = 0; !whole; bytes++) {
        const files = new CutFiles();
        files.files = base.files.map((file) => file?.slice());
        const flash = new JournalFlash(files, CHIP);
        files.budget = bytes;
        const told = put(flash, record(before + 1));
        whole = told;
        files.reboot();
        const again = new JournalFlash(files, CHIP);
        expect(again.content.damage, `${bytes} bytes of write ${before + 1}`).toBe("");
        const found = again.content.record;
        const old = before === 0 ? undefined : record(before);
        if (told) expect(found).toEqual(record(before + 1));
        else expect([old, record(before + 1)]).toContainEqual(found);
        // It goes on from there, over a whole round, and a second cut in the same place does no harm.
        files.budget = bytes % 192;
        put(again, record(900));
        files.reboot();
        const third = new JournalFlash(files, CHIP);
        expect(third.content.damage).toBe("");
        const more = bytes % 24 === 0 ? SLOTS + 2 : 3;
        for (let n = 0; n < more; n++) put(third, record(1000 + n));
        expect(new JournalFlash(files, CHIP).content).toEqual({
          record: record(1000 + more - 1),
          damage: "",
        });
        if (bytes > 40000) throw new Error("the write never ended");
        // Whole files come into place at once, so most bytes of them make no difference.
        if (before % SLOTS === 0 && bytes > 20) bytes += 396;
      }
    }
  });

  test("any damaged slot but the torn last one is damage", () => {
    const base = new CutFiles();
    const flash = new JournalFlash(base, CHIP);
    for (let n = 1; n <= SLOTS + 5; n++) put(flash, record(n));
    const damaged = (file: number, slot: number, byte: number): string => {
      const files = new CutFiles();
      files.files = base.files.map((one) => one?.slice());
      files.files[file]![slot * 192 + byte]! ^= 0x10;
      return new JournalFlash(files, CHIP).content.damage;
    };
    for (const byte of [0, 5, 10, 25, 40, 100, 191]) {
      expect(damaged(0, 0, byte)).not.toBe("");
      expect(damaged(0, SLOTS - 1, byte)).not.toBe("");
      expect(damaged(1, 0, byte)).not.toBe("");
      expect(damaged(1, 3, byte)).not.toBe("");
      // The last one cannot be told from a torn write, which was never acknowledged.
      if (byte !== 10) expect(damaged(1, 4, byte)).toBe("");
    }
  });

  test("a flash of another chip is void, and what is written after damage starts over", () => {
    const files = new CutFiles();
    const flash = new JournalFlash(files, CHIP);
    for (let n = 1; n <= 3; n++) put(flash, record(n));
    const moved = new JournalFlash(files, OTHER_CHIP);
    expect(moved.content.record).toBeUndefined();
    expect(moved.content.damage).toMatch(/another machine/);
    put(moved, record(50));
    expect(new JournalFlash(files, OTHER_CHIP).content).toEqual({
      record: record(50),
      damage: "",
    });
    expect(new JournalFlash(files, CHIP).content.damage).not.toBe("");
  });

  test("an old file put back beside a newer one is damage", () => {
    const files = new CutFiles();
    const flash = new JournalFlash(files, CHIP);
    for (let n = 1; n <= SLOTS + 5; n++) put(flash, record(n));
    const old = files.files[1]!.slice();
    for (let n = 1; n <= SLOTS; n++) put(flash, record(n));
    files.files[1] = old;
    expect(new JournalFlash(files, CHIP).content.damage).not.toBe("");
  });
});

describe("flash files on a disk", () => {
  const dirs: string[] = [];
  afterEach(() => {
    for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
  });
  const fresh = (): string => {
    const dir = mkdtempSync(join(tmpdir(), "dyad-flash-"));
    dirs.push(dir);
    return dir;
  };
  const write = (flash: ReturnType<typeof openFlash>, bytes: Uint8Array): Promise<string> =>
    new Promise((done) => flash.write(bytes, done));

  test("records survive reopening, and leftovers of a cut replacement are removed", async () => {
    const dir = fresh();
    let flash = openFlash(dir, CHIP);
    for (let n = 1; n <= SLOTS + 3; n++) expect(await write(flash, record(n))).toBe("");
    flash.close();
    writeFileSync(join(dir, "flash.1.new"), "half a file");
    flash = openFlash(dir, CHIP);
    expect(flash.content).toEqual({ record: record(SLOTS + 3), damage: "" });
    expect(existsSync(join(dir, "flash.1.new"))).toBe(false);
    flash.close();
  });

  test("a file that ends too early is damage", async () => {
    const dir = fresh();
    const flash = openFlash(dir, CHIP);
    await write(flash, record(1));
    flash.close();
    writeFileSync(join(dir, "flash.0"), readFileSync(join(dir, "flash.0")).subarray(0, 1000));
    const again = openFlash(dir, CHIP);
    expect(again.content.damage).toMatch(/wrong length/);
    again.close();
  });

  test("a copied directory is void at its new place", async () => {
    const dir = fresh();
    const flash = openFlash(dir, chipIdOf(dir, "machine 1"));
    await write(flash, record(1));
    flash.close();
    const copy = fresh();
    cpSync(dir, copy, { recursive: true });
    const there = openFlash(copy, chipIdOf(copy, "machine 1"));
    expect(there.content.damage).toMatch(/another machine, or in another place/);
    there.close();
    const elsewhere = openFlash(dir, chipIdOf(dir, "machine 2"));
    expect(elsewhere.content.damage).not.toBe("");
    elsewhere.close();
    const here = openFlash(dir, chipIdOf(dir, "machine 1"));
    expect(here.content.record).toEqual(record(1));
    here.close();
  });
});
