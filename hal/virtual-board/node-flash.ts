/** The virtual board's flash as a file. */
import { closeSync, fdatasyncSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import type { FlashMedium } from "./storage.js";

const ERASED = 0xff;

/** What a virtual board keeps through loss of power. */
export interface FlashFile extends FlashMedium {
  close(): void;
}

/**
 * Opens a flash file, or makes an erased one.
 * @param size @unit bytes
 * @throws when the file cannot be used
 */
export function openFlashFile(path: string, size: number): FlashFile {
  const fd = openSync(path, "a+", 0o600);
  closeSync(fd);
  const file = openSync(path, "r+");
  const bytes = new Uint8Array(size).fill(ERASED);
  const had = readSync(file, bytes, 0, size, 0);
  ftruncateSync(file, size);
  // What was never written is erased, which is not what a file has where nothing was written.
  if (had < size) writeSync(file, bytes, had, size - had, had);
  const keep = (offset: number, length: number): void => {
    writeSync(file, bytes, offset, length, offset);
    // The firmware tells of a record when its write has come back: by then it has to be there for good.
    fdatasyncSync(file);
  };
  return { bytes, keep, close: () => closeSync(file) };
}
