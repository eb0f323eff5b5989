/** The virtual board's flash as a file: what was never written is erased, also at the next start. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openFlashFile } from "../../hal/virtual-board/node-flash.js";
import { Storage } from "../../hal/virtual-board/storage.js";

const SIZE = 4096;
let dir = "";
beforeEach(() => void (dir = mkdtempSync(join(tmpdir(), "dyad-flash-file-"))));
afterEach(() => rmSync(dir, { recursive: true, force: true }));

test("a file that was written once is followed by erased flash, not by zeros", () => {
  const path = join(dir, "board.flash");
  const first = openFlashFile(path, SIZE);
  new Storage(first).write("one", new Uint8Array([1, 2, 3, 4]), 0, 0);
  first.close();
  const again = openFlashFile(path, SIZE);
  expect([...again.bytes.subarray(36)].every((byte) => byte === 0xff)).toBe(true);
  const storage = new Storage(again);
  expect(storage.free()).toBe(SIZE - 36);
  expect([...storage.read("one")]).toEqual([1, 2, 3, 4]);
  again.close();
});

test("one that is shorter than the board's flash is followed by erased flash", () => {
  const path = join(dir, "board.flash");
  writeFileSync(path, Buffer.alloc(100, 7));
  openFlashFile(path, SIZE).close();
  const again = openFlashFile(path, SIZE);
  expect([...again.bytes.subarray(0, 100)].every((byte) => byte === 7)).toBe(true);
  expect([...again.bytes.subarray(100)].every((byte) => byte === 0xff)).toBe(true);
  again.close();
});
