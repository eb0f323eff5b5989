/** Files that keep what a server had to give up, so that a person can look into them. */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";

const NAMES_MAX = 10000;

/**
 * Writes a file into the directory's `set-aside` folder, on disk before it returns.
 * @returns where it is; an existing file is never overwritten
 * @throws what the disk says, ENOSPC for one
 */
export function writeSetAside(dir: string, name: string, bytes: Uint8Array): string {
  const folder = join(dir, "set-aside");
  mkdirSync(folder, { recursive: true });
  const safe = name.replace(/[^A-Za-z0-9._-]/g, "_");
  let path = join(folder, safe);
  for (let count = 2; existsSync(path); count++) {
    if (count > NAMES_MAX) throw new Error(`${folder} holds ${NAMES_MAX} files named ${safe}`);
    path = join(folder, `${safe}.${count}`);
  }
  const file = openSync(path, "wx", 0o600);
  try {
    let written = 0;
    while (written < bytes.length) written += writeSync(file, bytes, written);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  const folderFile = openSync(folder, "r");
  try {
    fsyncSync(folderFile);
  } finally {
    closeSync(folderFile);
  }
  return path;
}
