/**
 * The controller's flash on IoT.js: two journals of fixed slots, as files of the working directory, that are written
 * round and round.
 *
 *     dyad.0  [ seq 9 | seq 10 | torn  | seq 4 ]      newest: seq 10; the next one goes where a cut has torn
 *     dyad.1  [ seq 5 | seq 6  | seq 7 | seq 8 ]      seq 3, which was there, or goes on in dyad.1
 *
 *     slot = magic u32 · seq u32 · board id 16 · length u16 · record · zeros · CRC32, a disk's sector long
 *
 * Both files are made whole and empty at the first boot, and never grow: the engine can flush a file's bytes (the `s`
 * of "rs+") but not a directory. A slot is written over when it is the oldest, so whatever becomes of that write, all
 * younger ones are there; a slot that is not sound anywhere else, or a number that is missing, is damage.
 */
import type { Flash, FlashContent } from "../hal.js";
import { bufferOf, bytesOf } from "./bytes.js";
import { crc32 } from "./crc32.js";
import type { EngineFs } from "./engine.js";
import { sha256 } from "./hmac.js";

declare const engineRequire: (name: string) => unknown;

const NAMES = ["dyad.0", "dyad.1"];
const MAGIC = 0x44794a31;
const SLOT_BYTES = 512;
const HEAD_BYTES = 26;
const ID_AT = 8;
const ID_BYTES = 16;
const LENGTH_AT = 24;
const CRC_AT = SLOT_BYTES - 4;
const MACHINE_ID_FILE = "/etc/machine-id";

/** What a look at one slot found. */
const BLANK = 0;
const TORN = -1;
const FOREIGN = -2;

function putWord(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function wordAt(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
  );
}

/** What stands for a board's chip id: the machine's own, and where the files are. */
function boardId(fs: EngineFs, dir: string): Uint8Array {
  const machine = fs.existsSync(MACHINE_ID_FILE)
    ? fs.readFileSync(MACHINE_ID_FILE).toString().trim()
    : "";
  const text = "dyad board\n" + machine + "\n" + dir + "\n";
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return sha256(bytes).slice(0, ID_BYTES);
}

/**
 * Opens the flash in a directory.
 * @param slots in each journal
 * @throws when the files can be neither read nor made
 */
export function openFlash(dir: string, slots: number): Flash {
  const fs = engineRequire("fs") as EngineFs;
  const id = boardId(fs, dir);
  const fileBytes = slots * SLOT_BYTES;
  const all = 2 * slots;
  let busy = false;

  function pathOf(file: number): string {
    return dir + "/" + NAMES[file]!;
  }

  /** A file of blank slots, whole before anything is in it. */
  function makeBlank(file: number): void {
    fs.closeSync(fs.openSync(pathOf(file), "w"));
    const handle = fs.openSync(pathOf(file), "rs+");
    const count = fs.writeSync(
      handle,
      bufferOf(new Uint8Array(fileBytes), fileBytes),
      0,
      fileBytes,
      0,
    );
    fs.closeSync(handle);
    if (count !== fileBytes) throw new Error("no room for " + pathOf(file));
  }

  function load(file: number): Uint8Array {
    return fs.existsSync(pathOf(file)) ? bytesOf(fs.readFileSync(pathOf(file))) : new Uint8Array(0);
  }

  const files = [load(0), load(1)];

  function slotAt(index: number): Uint8Array {
    const at = (index % slots) * SLOT_BYTES;
    return files[index < slots ? 0 : 1]!.subarray(at, at + SLOT_BYTES);
  }

  /** @returns the sequence number of a sound slot, or what else it is */
  function look(slot: Uint8Array): number {
    let blank = true;
    for (let i = 0; i < slot.length && blank; i++) if (slot[i] !== 0) blank = false;
    if (blank) return BLANK;
    if (slot.length < SLOT_BYTES || wordAt(slot, 0) !== MAGIC) return TORN;
    if (wordAt(slot, CRC_AT) !== crc32(slot, 0, CRC_AT)) return TORN;
    for (let i = 0; i < ID_BYTES; i++) if (slot[ID_AT + i] !== id[i]) return FOREIGN;
    return wordAt(slot, 4);
  }

  /** Of each slot, in the order in which they are written. */
  const found: number[] = [];
  let newest = -1;
  for (let i = 0; i < all; i++) {
    found.push(look(slotAt(i)));
    if (found[i]! > 0 && (newest < 0 || found[i]! > found[newest]!)) newest = i;
  }

  function damageOf(): string {
    for (let i = 0; i < all; i++) {
      const name = "slot " + (i % slots) + " of " + NAMES[i < slots ? 0 : 1]!;
      if (found[i] === FOREIGN)
        return name + " was written by another machine, or in another place";
      // The one after the newest is where a write can have been cut short; with no record at all, the first.
      if (found[i] === TORN && i !== (newest + 1) % all) return name + " is damaged";
    }
    if (newest < 0) return "";
    for (let file = 0; file < 2; file++) {
      if (files[file]!.length !== fileBytes) return NAMES[file]! + " has a wrong length";
    }
    // Back from the newest: no number may be missing until the slots are blank, but for the one that was torn.
    let hasEnded = false;
    for (let back = 1; back < all - 1; back++) {
      const i = (newest - back + all) % all;
      if (found[i] === BLANK) hasEnded = true;
      else if (hasEnded || found[i] !== found[newest]! - back) {
        return "slot " + (i % slots) + " of " + NAMES[i < slots ? 0 : 1]! + " is out of sequence";
      }
    }
    return "";
  }

  let damage = damageOf();
  let record: Uint8Array | undefined = undefined;
  if (damage === "" && newest >= 0) {
    const slot = slotAt(newest);
    const length = (slot[LENGTH_AT]! << 8) | slot[LENGTH_AT + 1]!;
    record = slot.slice(HEAD_BYTES, HEAD_BYTES + length);
  }
  let seq = newest < 0 ? 0 : found[newest]!;
  let next = newest < 0 ? 0 : (newest + 1) % all;
  const content: FlashContent = { record: record, damage: damage };
  const handles: number[] = [];

  function openFiles(): void {
    for (let file = 0; file < 2; file++) handles.push(fs.openSync(pathOf(file), "rs+"));
  }

  function closeFiles(): void {
    while (handles.length > 0) fs.closeSync(handles.pop()!);
  }

  if (damage === "") {
    // Before the first record a cut can have left them short, or not there.
    if (files[0]!.length !== fileBytes) makeBlank(0);
    if (files[1]!.length !== fileBytes) makeBlank(1);
    openFiles();
  }
  files[0] = new Uint8Array(0);
  files[1] = new Uint8Array(0);

  function put(bytes: Uint8Array, done: (failure: string) => void): void {
    try {
      if (damage !== "") {
        // Nothing here is believed: both journals begin anew.
        closeFiles();
        makeBlank(0);
        makeBlank(1);
        openFiles();
        damage = "";
        next = 0;
      }
      const handle = handles[next < slots ? 0 : 1]!;
      const at = (next % slots) * SLOT_BYTES;
      fs.write(handle, bufferOf(bytes, SLOT_BYTES), 0, SLOT_BYTES, at, (error, count) => {
        if (error !== null && error !== undefined) done("" + error);
        else if (count !== SLOT_BYTES) done("only " + count + " bytes were written");
        else done("");
      });
    } catch (error) {
      const failure = "" + error;
      setTimeout(() => done(failure), 0);
    }
  }

  return {
    content: content,
    write: (bytes, done) => {
      if (busy) throw new Error("assertion failed: one flash write at a time");
      if (bytes.length > CRC_AT - HEAD_BYTES) {
        throw new Error("assertion failed: a record fits its slot");
      }
      busy = true;
      const whole = new Uint8Array(SLOT_BYTES);
      putWord(whole, 0, MAGIC);
      putWord(whole, 4, seq + 1);
      whole.set(id, ID_AT);
      whole[LENGTH_AT] = bytes.length >> 8;
      whole[LENGTH_AT + 1] = bytes.length;
      whole.set(bytes, HEAD_BYTES);
      putWord(whole, CRC_AT, crc32(whole, 0, CRC_AT));
      put(whole, (failure) => {
        busy = false;
        // A slot that failed may be torn: it is the one to be written again.
        if (failure === "") {
          seq++;
          next = (next + 1) % all;
        }
        done(failure);
      });
    },
    close: closeFiles,
  };
}
