/**
 * The controller's flash on Espruino: two journals of fixed slots in Storage.
 *
 *     dyad.0  [ seq 1 | seq 2 | torn | seq 3 | blank ... ]
 *     slot = seq u32 · chip u32 · record · CRC32, rounded up to whole words; all of it written at once
 *
 * Flash bits only go from 1 to 0, so a slot that was torn by a power cut stays as it is and the next one is used.
 * The sequence numbers tell a torn slot (none is missing) from a damaged one (one is missing). A full journal is
 * replaced only after the other one, made anew, holds the newest record.
 *
 * The engine would compact a full Storage by itself when a journal is made anew, at the worst of moments. So no file is
 * made without room for it: compaction is asked for as soon as there is none for the next journal, a whole journal
 * ahead, and a write that needs it earlier waits.
 */
import type { Flash, FlashContent } from "../hal.js";
import type { EngineStorage, EngineUtilities } from "./engine.js";

declare const E: EngineUtilities;
declare const getSerial: () => string;
declare const engineRequire: (name: string) => unknown;

const NAMES = ["dyad.0", "dyad.1"];
const HEAD_BYTES = 8;
const CRC_BYTES = 4;
/** What the engine puts before a file's content. */
const FILE_HEAD_BYTES = 32;

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

/** What a look through one journal found. */
interface Journal {
  present: boolean;
  /** Slots up to the last that is not blank. */
  used: number;
  firstSeq: number;
  seq: number;
  newest: number;
  damage: string;
}

/** Opens the board's flash. @param slots in each journal @param recordBytes length of every record, its black box too */
export function openFlash(slots: number, recordBytes: number): Flash {
  const storage = engineRequire("Storage") as EngineStorage;
  const slotBytes = (HEAD_BYTES + recordBytes + CRC_BYTES + 7) & ~7;
  const size = slots * slotBytes;
  const crcAt = slotBytes - CRC_BYTES;
  const serial = getSerial();
  const chip = E.CRC32(new Uint8Array(E.toArrayBuffer(serial))) >>> 0;
  let busy = false;

  function slotOf(file: number, slot: number): Uint8Array {
    const whole = new Uint8Array(E.toArrayBuffer(storage.read(NAMES[file]!)!));
    return whole.slice(slot * slotBytes, (slot + 1) * slotBytes);
  }

  /** By one native comparison: byte by byte a boot would take seconds on a slow board. */
  function isSame(bytes: Uint8Array, others: Uint8Array): boolean {
    return E.toString(bytes) === E.toString(others);
  }

  function look(file: number): Journal {
    const text = storage.read(NAMES[file]!);
    const journal: Journal = {
      present: text !== undefined,
      used: 0,
      firstSeq: 0,
      seq: 0,
      newest: -1,
      damage: "",
    };
    if (text === undefined) return journal;
    if (text.length !== size) {
      journal.damage = NAMES[file]! + " has a wrong length";
      return journal;
    }
    const blank = new Uint8Array(slotBytes);
    blank.fill(255);
    for (let slot = 0; slot < slots; slot++) {
      const bytes = slotOf(file, slot);
      if (isSame(bytes, blank)) continue;
      journal.used = slot + 1;
      if (E.CRC32(bytes.subarray(0, crcAt)) >>> 0 !== wordAt(bytes, crcAt)) continue;
      if (wordAt(bytes, 4) !== chip) {
        journal.damage = NAMES[file]! + " was written by another board";
        return journal;
      }
      const seq = wordAt(bytes, 0);
      if (journal.firstSeq === 0) journal.firstSeq = seq;
      else if (seq !== journal.seq + 1) journal.damage = NAMES[file]! + " has lost a record";
      journal.seq = seq;
      journal.newest = slot;
    }
    return journal;
  }

  const journals = [look(0), look(1)];
  const active = journals[1]!.seq > journals[0]!.seq ? 1 : 0;
  const newer = journals[active]!;
  const older = journals[1 - active]!;
  let damage = newer.damage !== "" ? newer.damage : older.damage;
  if (damage === "" && older.seq > 0 && newer.firstSeq !== older.seq + 1) {
    damage = NAMES[active]! + " does not go on where " + NAMES[1 - active]! + " ends";
  }
  let record: Uint8Array | undefined = undefined;
  if (damage === "" && newer.seq > 0) {
    record = slotOf(active, newer.newest).slice(HEAD_BYTES, HEAD_BYTES + recordBytes);
  }
  let seq = newer.seq > older.seq ? newer.seq : older.seq;
  let file = active;
  let slot = damage === "" && newer.present ? newer.used : slots;
  const content: FlashContent = { record: record, damage: damage };

  function isFull(): boolean {
    return storage.getFree() < size + FILE_HEAD_BYTES;
  }

  /** There is no room for the next journal. */
  let full = isFull();
  /** A write has failed: where the newest record is found is not known. */
  let failed = false;
  let waiting: (() => void) | undefined = undefined;

  function put(bytes: Uint8Array): string {
    try {
      if (damage !== "") {
        // Nothing here is believed: both journals begin anew.
        storage.erase(NAMES[0]!);
        storage.erase(NAMES[1]!);
        damage = "";
        file = 1;
        slot = slots;
      }
      const anew = slot >= slots;
      const into = anew ? 1 - file : file;
      const at = anew ? 0 : slot;
      if (anew && storage.read(NAMES[into]!) !== undefined) storage.erase(NAMES[into]!);
      storage.write(NAMES[into]!, E.toString(bytes), at * slotBytes, size);
      // From here on this slot is used, whatever became of the write.
      file = into;
      slot = at + 1;
      return isSame(slotOf(into, at), bytes) ? "" : "it reads back otherwise";
    } catch (error) {
      return "" + error;
    }
  }

  return {
    content: content,
    write: (bytes, done) => {
      if (busy) throw new Error("assertion failed: one flash write at a time");
      if (bytes.length !== recordBytes) throw new Error("assertion failed: length of a record");
      busy = true;
      const whole = new Uint8Array(slotBytes);
      putWord(whole, 0, seq + 1);
      putWord(whole, 4, chip);
      whole.set(bytes, HEAD_BYTES);
      putWord(whole, crcAt, E.CRC32(whole.subarray(0, crcAt)));
      const now = (): void => {
        const failure = put(whole);
        if (failure === "") seq++;
        else failed = true;
        full = isFull();
        setTimeout(() => {
          busy = false;
          done(failure);
        }, 0);
      };
      if (full && slot >= slots) waiting = now;
      else now();
    },
    compaction: {
      // What cannot be believed is left as it is until a record replaces it.
      wanted: () => full && !failed && (damage === "" || waiting !== undefined),
      writeWaits: () => waiting !== undefined,
      carryOut: () => {
        // The journal in use holds the newest record: the other one would only be in the way.
        if (storage.read(NAMES[1 - file]!) !== undefined) storage.erase(NAMES[1 - file]!);
        if (damage !== "" && storage.read(NAMES[file]!) !== undefined) storage.erase(NAMES[file]!);
        storage.compact();
        // Where even that made no room the write says so.
        full = false;
        const next = waiting;
        waiting = undefined;
        if (next !== undefined) next();
      },
    },
    close: () => undefined,
  };
}
