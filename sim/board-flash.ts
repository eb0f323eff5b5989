/**
 * The flash of a virtual board in a world. The world's own flash decides what a write comes to: when it is done, whether it
 * fails, which record a crash leaves. This keeps the bytes that the firmware reads in step with it.
 *
 *     firmware ──Storage.write──> bytes, and Flash.persist: the board stands still until that is done
 *     crash in between ──> the slot whole, or torn at any byte, as Flash says
 */
import { BLACK_BOX_BYTES } from "../firmware/black-box.js";
import { installFirmware } from "../hal/virtual-board/install.js";
import { Storage } from "../hal/virtual-board/storage.js";
import { RECORD_BYTES } from "../protocol/record.js";
import { crc32 } from "./crc32.js";
import type { Firmware } from "./firmware.js";
import type { Flash } from "./world/flash.js";
import type { Random } from "./world/random.js";

const JOURNAL = "dyad.0";
const HEAD_BYTES = 8;
/** As hal/espruino/flash.ts lays them out: sequence number, chip, record, black box, CRC32, in whole words. */
const SLOT_BYTES = (HEAD_BYTES + RECORD_BYTES + BLACK_BOX_BYTES + 4 + 7) & ~7;
/** A sequence number that leaves room below it. */
const SEQ = 1000;
export const SERIAL_NUMBER = "virtual-world";

interface Pending {
  record: Uint8Array;
  before: Uint8Array;
}

function equal(x: Uint8Array | undefined, y: Uint8Array | undefined): boolean {
  if (x === undefined || y === undefined) return x === y;
  return x.length === y.length && x.every((byte, i) => byte === y[i]);
}

export class BoardFlash {
  private readonly bytes: Uint8Array;
  private pending: Pending | undefined;
  /** The newest record that the bytes hold. */
  private known: Uint8Array | undefined;
  private spoilt = false;
  /** Called when the write under way is done. */
  onDone: (() => void) | undefined;

  constructor(
    private readonly flash: Flash,
    private readonly firmware: Firmware,
    private readonly constants: unknown[],
    private readonly slots: number,
    private readonly random: Random,
  ) {
    this.bytes = new Uint8Array(firmware.storageBytes);
    this.lay(undefined, false);
  }

  /** A power cycle begins. @returns its Storage */
  boot(): Storage {
    const { record, damage } = this.flash.boot();
    const { pending } = this;
    this.pending = undefined;
    this.onDone = undefined;
    if (pending !== undefined) {
      if (equal(record, pending.record)) this.known = pending.record;
      else this.tear(pending.before);
    }
    if (damage !== "" || this.spoilt || !equal(record, this.known)) {
      this.lay(record, damage !== "");
    }
    return this.storage();
  }

  get isBusy(): boolean {
    return this.pending !== undefined;
  }

  /** Storage of one power cycle: what an earlier one left under way is none of its business. */
  private storage(): Storage {
    const storage = new Storage({ bytes: this.bytes, keep: () => undefined });
    const write = storage.write.bind(storage);
    storage.write = (name, data, offset, size) => {
      if (!name.startsWith("dyad.")) {
        write(name, data, offset, size);
        return;
      }
      if (this.flash.failNext) {
        // Nothing goes in; the firmware reads back and sees it.
        this.flash.failNext = false;
        this.flash.failed = true;
        return;
      }
      const before = this.bytes.slice();
      write(name, data, offset, size);
      this.persist({ record: data.slice(HEAD_BYTES, HEAD_BYTES + RECORD_BYTES), before });
    };
    return storage;
  }

  private persist(pending: Pending): void {
    this.pending = pending;
    this.flash.persist(pending.record, (error) => {
      if (this.pending !== pending) return;
      if (error !== undefined) {
        // A failure that was drawn while the write was under way: the firmware has read back already.
        this.flash.failed = false;
        this.persist(pending);
        return;
      }
      this.pending = undefined;
      this.known = pending.record;
      this.onDone?.();
    });
  }

  /** Of what the write changed only so many bytes are there. */
  private tear(before: Uint8Array): void {
    const changed: number[] = [];
    for (let i = 0; i < before.length; i++) if (before[i] !== this.bytes[i]) changed.push(i);
    const kept = this.random.below(changed.length);
    for (const at of changed.slice(kept)) this.bytes[at] = before[at]!;
  }

  /** Lays it out anew: what another board, or nobody, has written. */
  private lay(record: Uint8Array | undefined, isForeign: boolean): void {
    this.bytes.fill(0xff);
    const storage = new Storage({ bytes: this.bytes, keep: () => undefined });
    installFirmware(storage, this.firmware.text, this.constants);
    this.known = record;
    this.spoilt = isForeign;
    if (record === undefined && !isForeign) return;
    const slot = new Uint8Array(SLOT_BYTES);
    const view = new DataView(slot.buffer);
    const chip = crc32(
      Uint8Array.from(SERIAL_NUMBER, (c) => c.charCodeAt(0)),
      0,
      SERIAL_NUMBER.length,
    );
    view.setUint32(0, SEQ);
    view.setUint32(4, isForeign ? ~chip >>> 0 : chip);
    if (record !== undefined) slot.set(record, HEAD_BYTES);
    view.setUint32(SLOT_BYTES - 4, crc32(slot, 0, SLOT_BYTES - 4));
    storage.write(JOURNAL, slot, 0, this.slots * SLOT_BYTES);
  }
}
