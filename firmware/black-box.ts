/**
 * The black box through a restart: with every record that goes into flash goes the newest of what was said, in the same
 * slot under the same check sum, so a power cut leaves either both or the ones before.
 *
 *     slot = seq · chip · record · text of the last events, zeros behind it · CRC32
 *
 * Between records nothing is written: flash wears out by record changes alone.
 */
import type { Flash } from "../hal/hal.js";
import { textBytes } from "../protocol/text-bytes.js";

/** Text kept with each record; with it a slot of hal/espruino/flash.ts is 256 bytes. @unit characters */
export const BLACK_BOX_BYTES = 196;

export interface BlackBox {
  /** As the controller sees it: its record alone. */
  readonly flash: Flash;
  /** What was said before the last record change that the flash holds, oldest first, a line each; "" for nothing. */
  readonly before: string;
  /** One event, in RAM until the next record. */
  add(line: string): void;
}

/** @param inner flash for records of recordBytes + BLACK_BOX_BYTES @param recordBytes of the controller's own record */
export function createBlackBox(inner: Flash, recordBytes: number): BlackBox {
  const found = inner.content.record;
  let before = "";
  if (found !== undefined) {
    for (let i = recordBytes; i < found.length && found[i] !== 0; i++)
      before += String.fromCharCode(found[i]!);
  }
  let recent = before === "" ? "" : before + "(restart)\n";

  function trim(): void {
    if (recent.length <= BLACK_BOX_BYTES) return;
    const cut = recent.substring(recent.length - BLACK_BOX_BYTES);
    // From the start of a line on, where there is one.
    const end = cut.indexOf("\n");
    recent = end >= 0 && end < cut.length - 1 ? cut.substring(end + 1) : cut;
  }

  trim();
  return {
    before: before,
    add: (line) => {
      recent += line + "\n";
      trim();
    },
    flash: {
      content: {
        record: found === undefined ? undefined : found.slice(0, recordBytes),
        damage: inner.content.damage,
      },
      write: (record, done) => {
        const whole = new Uint8Array(recordBytes + BLACK_BOX_BYTES);
        whole.set(record, 0);
        whole.set(textBytes(recent), recordBytes);
        inner.write(whole, done);
      },
      compaction: inner.compaction!,
      close: () => inner.close(),
    },
  };
}
