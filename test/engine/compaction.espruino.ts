/**
 * Runs on the real interpreter (compaction.test.ts): a Storage that other files have nearly filled, as it becomes full, is
 * put in order ahead of time, and late. The engine itself says "Compacting" whenever it does that.
 */
import { openFlash } from "../../hal/espruino/flash.js";
import { mendTypedArraySlice } from "../../hal/espruino/typed-array-slice.js";
import type { Flash } from "../../hal/hal.js";

declare const engineRequire: (name: string) => unknown;
declare const print: (text: string) => void;
declare const E: { toString(bytes: Uint8Array): string };

interface Storage {
  read(name: string): string | undefined;
  write(name: string, data: string, offset: number, size: number): boolean;
  getFree(): number;
}

const SLOTS = 4;
const RECORD_BYTES = 40;
/** Head of a file, and one journal of this test's slots. */
const JOURNAL_BYTES = 32 + SLOTS * 56;
/** Room for both journals and one more, not for the fourth. */
const ROOM_BYTES = 3 * JOURNAL_BYTES + 100;

const storage = engineRequire("Storage") as Storage;

function recordOf(n: number): Uint8Array {
  const bytes = new Uint8Array(RECORD_BYTES);
  for (let i = 0; i < RECORD_BYTES; i++) bytes[i] = (n * 31 + i * 7) & 255;
  return bytes;
}

function holds(n: number): boolean {
  const content = openFlash(SLOTS, RECORD_BYTES).content;
  return content.record !== undefined && E.toString(content.record) === E.toString(recordOf(n));
}

function check(what: string, good: boolean): void {
  print((good ? "good: " : "WRONG: ") + what);
}

mendTypedArraySlice();
let flash: Flash | undefined = undefined;
let n = 0;
let ended = 0;
const steps: (() => void)[] = [];

/** Calls the steps one after the other, each when the write before it has had its time. */
function next(): void {
  const step = steps.shift();
  if (step === undefined) {
    print("END");
    return;
  }
  step();
  setTimeout(next, 10);
}

function put(): void {
  n++;
  flash!.write(recordOf(n), (failure) => {
    if (failure === "") ended++;
    else print("WRONG: " + failure);
  });
}

steps.push(() => {
  storage.write("other", "kept", 0, 8);
  storage.write("filler", "x", 0, storage.getFree() - 32 - ROOM_BYTES);
  flash = openFlash(SLOTS, RECORD_BYTES);
  check("there is room at first", !flash.compaction!.wanted());
});
for (let i = 0; i < 3 * SLOTS - 1; i++) steps.push(put);
steps.push(() => {
  check("all were written", ended === n && holds(n));
  check("it is asked for while slots are left", flash!.compaction!.wanted());
  check("no write waits", !flash!.compaction!.writeWaits());
  check("a boot asks too", openFlash(SLOTS, RECORD_BYTES).compaction!.wanted());
  print("AHEAD");
  flash!.compaction!.carryOut();
  check("there is room again", !flash!.compaction!.wanted());
  check("the newest record is there", holds(n));
});
for (let i = 0; i < 2 * SLOTS + 1; i++) steps.push(put);
steps.push(() => {
  check("all were written, into the last journal there is room for", ended === n && holds(n));
  print("UNTIL FULL");
});
for (let i = 0; i < SLOTS; i++) {
  steps.push(() => {
    if (!flash!.compaction!.writeWaits()) put();
  });
}
steps.push(() => {
  check("a write waits", flash!.compaction!.writeWaits() && ended === n - 1);
  check("the flash holds the record before it", holds(n - 1));
  print("LATE");
  flash!.compaction!.carryOut();
});
steps.push(() => {
  check("it was written", ended === n && holds(n));
  check("another file is what it was", storage.read("other")!.substr(0, 4) === "kept");
});
next();
