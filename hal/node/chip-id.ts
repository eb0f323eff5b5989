/**
 * What stands for a board's chip id on a machine with files: 16 bytes from the machine's own id and the
 * flash directory's place. A flash file copied to another machine or directory is void there, as one moved to
 * another board is; that is also so for a directory that was moved on purpose.
 */
import { createHash } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { hostname } from "node:os";

const MACHINE_ID_FILES = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

export function machineId(): string {
  for (const path of MACHINE_ID_FILES) {
    try {
      const text = readFileSync(path, "utf8").trim();
      if (text !== "") return text;
    } catch {
      // The next one, then.
    }
  }
  return `host ${hostname()}`;
}

export function chipIdOf(dir: string, machine: string): Uint8Array {
  const hash = createHash("sha256").update(`dyad chip\n${machine}\n${realpathSync(dir)}\n`);
  return new Uint8Array(hash.digest().subarray(0, 16));
}
