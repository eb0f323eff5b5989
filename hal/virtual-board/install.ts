/** Puts firmware into a board's Storage, as a flashing tool does: what the firmware keeps there itself stays. */
import type { Storage } from "./storage.js";

/** The file that is run at boot, and the one that its constants are read from. */
const BOOT_CODE = ".bootcde";
const CONSTANTS = "board";
/** Run before it. */
const FIRST_CODE = ".boot0";

function bytesOf(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function equal(x: Uint8Array, y: Uint8Array): boolean {
  return x.length === y.length && x.every((byte, i) => byte === y[i]);
}

/**
 * @param constants as the bundle reads them (bin/board/board-config.mjs)
 * @param first code that runs before the firmware; "": none
 * @returns false when all of it is there already
 * @throws when the Storage has no room
 */
export function installFirmware(
  storage: Storage,
  firmware: string,
  constants: unknown[],
  first = "",
): boolean {
  let changed = false;
  for (const [name, text] of [
    [BOOT_CODE, firmware],
    [CONSTANTS, JSON.stringify(constants)],
    [FIRST_CODE, first],
  ] as const) {
    if (text === "") continue;
    const bytes = bytesOf(text);
    if (storage.has(name) && equal(storage.read(name), bytes)) continue;
    // The old one first: two of them need not fit.
    storage.erase(name);
    storage.write(name, bytes, 0, 0);
    changed = true;
  }
  return changed;
}
