/**
 * The controller's flash on a machine with files: two journals of fixed slots, as on the boards.
 *
 *     flash.0  [ seq 1 | seq 2 | ... | seq 64 ]   full: stays until the other holds the newest
 *     flash.1  [ seq 65 | seq 66 | torn |  -  ]   <- newest: seq 66
 *
 *     slot = magic u32 · seq u32 · chip id 16 · record length u16 · record · (zero) · CRC32
 *
 * A record is written into the next slot and flushed before `done`. When a file is full, the other one is
 * replaced by a new file that already holds the new record in its first slot, so at every moment one file holds
 * the newest flushed record. A cut in the middle of a slot leaves a torn last slot, which is passed over and
 * written again; any other slot that is not sound is damage, because what it held is not known any more.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync } from "node:fs";
import { fdatasync, fsync, open, write } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { Flash, FlashContent } from "../hal.js";

const MAGIC = 0x44794631;
const SLOT_BYTES = 192;
const HEAD_BYTES = 26;
const CHIP_ID_BYTES = 16;
const CRC_AT = SLOT_BYTES - 4;
export const RECORD_BYTES_MAX = CRC_AT - HEAD_BYTES;
/** Slots in one journal. */
export const SLOTS = 64;
const FILE_BYTES = SLOT_BYTES * SLOTS;

/** The two files, so that a test can cut the power at any byte. `done` gets "" or a failure, later. */
export interface JournalFiles {
  /** The whole file, or undefined when there is none. */
  read(file: number): Uint8Array | undefined;
  /** Writes into an existing file and flushes it. */
  writeAt(file: number, offset: number, bytes: Uint8Array, done: (failure: string) => void): void;
  /** Puts a new file in place of an old one, whole and flushed, or not at all. */
  replace(file: number, bytes: Uint8Array, done: (failure: string) => void): void;
  close(): void;
}

interface Slot {
  /** Greater than 0 when the slot is sound and of this chip. */
  seq: number;
  record: Uint8Array;
  blank: boolean;
  /** Sound, but written by another chip. */
  foreign: boolean;
}

interface Journal {
  present: boolean;
  slots: Slot[];
  /** Slots up to the last that is not blank. */
  used: number;
  /** Highest sequence number of a sound slot, and where. */
  seq: number;
  newest: number;
}

function isBlank(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== 0) return false;
  return true;
}

function readSlot(bytes: Uint8Array, at: number, chipId: Uint8Array): Slot {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset + at, SLOT_BYTES);
  const none = { seq: 0, record: new Uint8Array(0), foreign: false };
  if (isBlank(view)) return { ...none, blank: true };
  const length = view.readUInt16BE(24);
  const sound =
    view.readUInt32BE(0) === MAGIC &&
    length <= RECORD_BYTES_MAX &&
    view.readUInt32BE(CRC_AT) === crc32(view.subarray(0, CRC_AT)) &&
    view.readUInt32BE(4) > 0;
  if (!sound) return { ...none, blank: false };
  if (!view.subarray(8, 8 + CHIP_ID_BYTES).equals(chipId)) {
    return { ...none, blank: false, foreign: true };
  }
  return {
    seq: view.readUInt32BE(4),
    record: new Uint8Array(view.subarray(HEAD_BYTES, HEAD_BYTES + length)),
    blank: false,
    foreign: false,
  };
}

function writeSlot(seq: number, chipId: Uint8Array, record: Uint8Array): Buffer {
  const slot = Buffer.alloc(SLOT_BYTES);
  slot.writeUInt32BE(MAGIC, 0);
  slot.writeUInt32BE(seq, 4);
  slot.set(chipId, 8);
  slot.writeUInt16BE(record.length, 24);
  slot.set(record, HEAD_BYTES);
  slot.writeUInt32BE(crc32(slot.subarray(0, CRC_AT)), CRC_AT);
  return slot;
}

function readJournal(bytes: Uint8Array | undefined, chipId: Uint8Array): Journal {
  const journal: Journal = {
    present: bytes !== undefined,
    slots: [],
    used: 0,
    seq: 0,
    newest: -1,
  };
  if (bytes === undefined) return journal;
  const count = Math.min(SLOTS, Math.floor(bytes.length / SLOT_BYTES));
  for (let i = 0; i < count; i++) {
    const slot = readSlot(bytes, i * SLOT_BYTES, chipId);
    journal.slots.push(slot);
    if (!slot.blank) journal.used = i + 1;
    if (slot.seq > journal.seq) {
      journal.seq = slot.seq;
      journal.newest = i;
    }
  }
  return journal;
}

/** What is wrong with a journal, given that `last` says whether it may end in a torn slot. */
function damageOf(name: string, journal: Journal, mayBeTorn: boolean): string {
  for (let i = 0; i < journal.used; i++) {
    const slot = journal.slots[i]!;
    if (slot.foreign) return `${name} was written by another machine, or in another place`;
    const torn = mayBeTorn && i === journal.used - 1 && slot.seq === 0 && !slot.blank;
    if (slot.seq === 0 && !torn) return `slot ${i} of ${name} is damaged`;
    if (i > 0 && !torn && slot.seq !== journal.slots[i - 1]!.seq + 1) {
      return `slot ${i} of ${name} is out of sequence`;
    }
  }
  return "";
}

export class JournalFlash implements Flash {
  readonly content: FlashContent;
  private file: number;
  private slot: number;
  private seq: number;
  /** The other file cannot be believed either; it is replaced as well. */
  private afresh: boolean;
  private busy = false;

  constructor(
    private readonly files: JournalFiles,
    private readonly chipId: Uint8Array,
  ) {
    if (chipId.length !== CHIP_ID_BYTES) throw new Error("assertion failed: chip id of 16 bytes");
    const bytes = [files.read(0), files.read(1)];
    const journals = bytes.map((content) => readJournal(content, chipId));
    const [first, second] = journals as [Journal, Journal];
    const active = second.seq > first.seq ? 1 : 0;
    const journal = journals[active]!;
    const other = journals[1 - active]!;
    let damage = "";
    for (const [i, one] of bytes.entries()) {
      if (one !== undefined && one.length !== FILE_BYTES) damage = `flash.${i} has a wrong length`;
    }
    if (damage === "") damage = damageOf(`flash.${active}`, journal, true);
    if (damage === "") damage = damageOf(`flash.${1 - active}`, other, false);
    if (damage === "" && other.seq > 0 && journal.slots[0]!.seq !== other.seq + 1) {
      damage = `flash.${active} does not go on where flash.${1 - active} ends`;
    }
    if (damage === "" && journal.seq === 0 && journal.used > 0) {
      // Only a first slot can be torn in a file without a sound one, and files come into place whole.
      damage = `slot 0 of flash.${active} is damaged`;
    }
    this.seq = Math.max(first.seq, second.seq);
    this.afresh = damage !== "" || !journal.present;
    this.file = active;
    this.slot = journal.newest + 1;
    this.content =
      damage !== ""
        ? { record: undefined, damage }
        : {
            record: journal.seq > 0 ? journal.slots[journal.newest]!.record : undefined,
            damage: "",
          };
  }

  write(record: Uint8Array, done: (failure: string) => void): void {
    if (this.busy) throw new Error("assertion failed: one flash write at a time");
    if (record.length > RECORD_BYTES_MAX) throw new Error("assertion failed: record fits its slot");
    this.busy = true;
    const seq = this.seq + 1;
    const slot = writeSlot(seq, this.chipId, record);
    const finish = (failure: string): void => {
      this.busy = false;
      // A slot that failed may be torn: it is the one to be written again.
      if (failure === "") this.seq = seq;
      done(failure);
    };
    if (this.afresh) {
      // Nothing here is believed: start over in one file, then empty the other.
      this.files.replace(0, newFile(slot), (failure) => {
        if (failure !== "") {
          finish(failure);
          return;
        }
        this.files.replace(1, new Uint8Array(FILE_BYTES), (failed) => {
          if (failed === "") {
            this.afresh = false;
            this.file = 0;
            this.slot = 1;
          }
          finish(failed);
        });
      });
      return;
    }
    if (this.slot === SLOTS) {
      const into = 1 - this.file;
      this.files.replace(into, newFile(slot), (failure) => {
        if (failure === "") {
          this.file = into;
          this.slot = 1;
        }
        finish(failure);
      });
      return;
    }
    this.files.writeAt(this.file, this.slot * SLOT_BYTES, slot, (failure) => {
      if (failure === "") this.slot += 1;
      finish(failure);
    });
  }

  close(): void {
    this.files.close();
  }
}

function newFile(slot: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(FILE_BYTES);
  bytes.set(slot, 0);
  return bytes;
}

/** The journals as files `flash.0` and `flash.1` of a directory. */
class DirectoryFiles implements JournalFiles {
  private readonly handles: (number | undefined)[] = [undefined, undefined];

  constructor(private readonly dir: string) {}

  private path(file: number): string {
    return join(this.dir, `flash.${file}`);
  }

  read(file: number): Uint8Array | undefined {
    try {
      return readFileSync(this.path(file));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  }

  writeAt(file: number, offset: number, bytes: Uint8Array, done: (failure: string) => void): void {
    let handle = this.handles[file];
    if (handle === undefined) {
      handle = openSync(this.path(file), "r+");
      this.handles[file] = handle;
    }
    const flush = handle;
    write(flush, bytes, 0, bytes.length, offset, (error, written) => {
      if (error !== null) done(error.message);
      else if (written !== bytes.length) done(`only ${written} of ${bytes.length} bytes written`);
      else fdatasync(flush, (failed) => done(failed === null ? "" : failed.message));
    });
  }

  replace(file: number, bytes: Uint8Array, done: (failure: string) => void): void {
    const fresh = `${this.path(file)}.new`;
    const old = this.handles[file];
    open(fresh, "w", 0o600, (error, handle) => {
      if (error !== null) {
        done(error.message);
        return;
      }
      write(handle, bytes, 0, bytes.length, 0, (failed, written) => {
        const short = failed === null && written !== bytes.length;
        if (failed !== null || short) {
          closeSync(handle);
          done(
            failed === null ? `only ${written} of ${bytes.length} bytes written` : failed.message,
          );
          return;
        }
        fsync(handle, (unflushed) => {
          if (unflushed !== null) {
            closeSync(handle);
            done(unflushed.message);
            return;
          }
          try {
            renameSync(fresh, this.path(file));
            // The new name is durable only once the directory is flushed.
            const folder = openSync(this.dir, "r");
            fsyncSync(folder);
            closeSync(folder);
          } catch (renameError) {
            closeSync(handle);
            done((renameError as Error).message);
            return;
          }
          if (old !== undefined) closeSync(old);
          this.handles[file] = handle;
          done("");
        });
      });
    });
  }

  close(): void {
    for (const handle of this.handles) if (handle !== undefined) closeSync(handle);
    this.handles[0] = undefined;
    this.handles[1] = undefined;
  }
}

/** Opens the flash of a directory; leftovers of a replacement that was cut are removed. */
export function openFlash(dir: string, chipId: Uint8Array): Flash {
  for (const file of [0, 1]) rmSync(join(dir, `flash.${file}.new`), { force: true });
  return new JournalFlash(new DirectoryFiles(dir), chipId);
}
