/**
 * Runs on the real interpreter (flash-cut.test.ts): writes records through the HAL's flash, and after each write plays it
 * again byte by byte, as flash would hold it had the power been cut there. What a boot then finds is compared.
 */
import { BLACK_BOX_BYTES, createBlackBox } from "../../firmware/black-box.js";
import type { BlackBox } from "../../firmware/black-box.js";
import { openFlash } from "../../hal/espruino/flash.js";
import { mendTypedArraySlice } from "../../hal/espruino/typed-array-slice.js";

declare const engineRequire: (name: string) => unknown;
declare const print: (text: string) => void;
declare const E: { toString(bytes: Uint8Array): string };

interface RawFlash {
  read(length: number, at: number): Uint8Array;
  write(data: Uint8Array | number[], at: number): void;
  erasePage(at: number): void;
  getPage(at: number): { length: number };
}

const FLASH_START = 0x10000000;
const SLOTS = 4;
const RECORD_BYTES = 40;
/** Both journals are made, filled and made anew. */
const WRITES = 3 * SLOTS + 2;

/** All files of this test are in here, but for one that a torn head may push further back. */
const IMAGE_BYTES = 8192;
const ERASED_BYTES = 65536;

const raw = engineRequire("Flash") as RawFlash;

function image(): Uint8Array {
  return raw.read(IMAGE_BYTES, FLASH_START);
}

function restore(bytes: Uint8Array): void {
  const pageBytes = raw.getPage(FLASH_START).length;
  for (let at = 0; at < ERASED_BYTES; at += pageBytes) raw.erasePage(FLASH_START + at);
  raw.write(bytes, FLASH_START);
}

function recordOf(n: number): Uint8Array {
  const bytes = new Uint8Array(RECORD_BYTES);
  for (let i = 0; i < RECORD_BYTES; i++) bytes[i] = (n * 31 + i * 7) & 255;
  return bytes;
}

function nameOf(record: Uint8Array | undefined, newest: number): string {
  if (record === undefined) return "none";
  const text = E.toString(record);
  for (let n = newest; n >= 0 && n > newest - 2; n--)
    if (E.toString(recordOf(n)) === text) return "" + n;
  return "another";
}

function ignore(): void {}

function open(): BlackBox {
  return createBlackBox(openFlash(SLOTS, RECORD_BYTES + BLACK_BOX_BYTES), RECORD_BYTES);
}

/** Writes record n, with what its black box says. */
function write(n: number): void {
  const box = open();
  box.add("event " + n);
  box.flash.write(recordOf(n), ignore);
}

mendTypedArraySlice();
let cuts = 0;
let oldest = 0;
let wiped = 0;
let problems = 0;

function look(n: number, byte: number): void {
  const box = open();
  const content = box.flash.content;
  let found = content.damage === "" ? nameOf(content.record, n) : "damage: " + content.damage;
  // Its last line was written with the record.
  const line = "event " + found + "\n";
  if (found !== "none" && box.before.substring(box.before.length - line.length) !== line)
    found += " with the black box of another";
  cuts++;
  if (found === "" + n) return;
  if (found === "" + (n - 1)) oldest++;
  else if (found === "none" && n === 0) wiped++;
  else {
    problems++;
    print("PROBLEM write " + n + " byte " + byte + ": " + found);
  }
}

function again(n: number, byte: number): void {
  write(n + 100);
  const content = open().flash.content;
  if (content.damage !== "" || E.toString(content.record!) !== E.toString(recordOf(n + 100))) {
    problems++;
    print(
      "PROBLEM after write " +
        n +
        " byte " +
        byte +
        ": the next record is not found: " +
        content.damage,
    );
  }
}

/** Offsets that a write has changed, in the order in which the engine programs them: old file's mark, head, content. */
function changesOf(before: Uint8Array, after: Uint8Array): number[] {
  const marks: number[] = [];
  const rest: number[] = [];
  for (let at = 0; at < IMAGE_BYTES; at++) {
    if (before[at] === after[at]) continue;
    if (before[at] === 255) rest.push(at);
    else marks.push(at);
  }
  for (let i = 0; i < rest.length; i++) marks.push(rest[i]!);
  return marks;
}

function play(n: number): void {
  const before = image();
  write(n);
  const after = image();
  const changes = changesOf(before, after);
  restore(before);
  for (let i = 0; i < changes.length; i++) {
    look(n, i);
    const at = changes[i]!;
    if (i % 9 === 4) {
      const torn = image();
      again(n, i);
      restore(torn);
    }
    raw.write([after[at]!], FLASH_START + at);
  }
  look(n, changes.length);
  if (changesOf(image(), after).length > 0) {
    problems++;
    print("PROBLEM write " + n + " was not played as the engine did it");
  }
}

for (let n = 0; n < WRITES; n++) play(n);
print(
  "CUTS " + cuts + " kept the old record " + oldest + " blank " + wiped + " problems " + problems,
);
