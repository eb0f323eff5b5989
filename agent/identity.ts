/**
 * Which disk this is. An identity is 16 random bytes kept beside what a copy of the directory lacks:
 * the data file's inode and time of birth, and the machine's id. A directory that was copied,
 * restored or emptied is therefore another disk, although its files say otherwise, and the pair lets
 * it in only through a join.
 *
 * With durability `memory` the data is only as good as the machine's memory, so another boot than at
 * the last clean mark also makes another disk, and an empty one.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { randomBytes } from "node:crypto";

const IDENTITY_BYTES = 16;

/** Changes with every start of the machine, not of the process; "" where the system has none. */
export function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
  } catch {
    return "";
  }
}

function machineId(): string {
  for (const file of ["/etc/machine-id", "/var/lib/dbus/machine-id"]) {
    try {
      return readFileSync(file, "latin1").trim();
    } catch {
      // The next place.
    }
  }
  return "";
}

/** Writes a small file so that after a power cut it is the old one or the new one. */
export function writeDurably(path: string, text: string): void {
  const fresh = `${path}.new`;
  const file = openSync(fresh, "w", 0o600);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(fresh, path);
  const folder = openSync(dirname(path), "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function readJson(path: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, "utf8"));
    return typeof value === "object" && value !== null
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/** What this file is that no copy of it is. */
function fileMark(path: string): string {
  const stat = statSync(path, { bigint: true });
  return `${stat.ino}:${stat.birthtimeNs}`;
}

/**
 * Before the store is opened: a store that only lived in the memory of a machine that has since been
 * restarted is moved away.
 * @returns why it was, or "" when the store may be used
 */
export function discardLostMemory(dir: string, storeDir: string): string {
  const mark = readJson(join(dir, "boot.json"));
  if (mark === undefined || mark["durability"] !== "memory" || mark["clean"] === true) return "";
  if (mark["boot"] === bootId()) return "";
  // One older store is kept for a person to look into; more would fill the disk.
  const aside = `${storeDir}.before-restart`;
  if (existsSync(storeDir)) {
    rmSync(aside, { recursive: true, force: true });
    renameSync(storeDir, aside);
  }
  rmSync(join(dir, "identity"), { force: true });
  return (
    `durability is memory and the machine restarted without a clean stop: ` +
    `this is a new, empty disk (what was there is in ${aside})`
  );
}

/** Says on disk how far the data of this run is to be trusted after a restart of the machine. */
export function markRun(dir: string, durability: "disk" | "memory", clean: boolean): void {
  writeDurably(
    join(dir, "boot.json"),
    `${JSON.stringify({ durability, boot: bootId(), clean })}\n`,
  );
}

export interface DiskIdentity {
  identity: Uint8Array;
  /** Why the identity is new, or "" when it is the one of the last run. */
  fresh: string;
  /** Puts a new identity on disk. What the old one's records say must be gone from the store before. */
  save(): void;
}

/** The identity of the disk that holds `dataFile` (the store is open, so the file exists). */
export function readIdentity(dir: string, dataFile: string): DiskIdentity {
  const path = join(dir, "identity");
  const mark = fileMark(dataFile);
  const machine = machineId();
  const known = readJson(path);
  let fresh = "";
  if (known === undefined) {
    fresh = existsSync(path) ? "its identity file is damaged" : "it has no identity yet";
  } else if (typeof known["identity"] !== "string" || !/^[0-9a-f]{32}$/.test(known["identity"])) {
    fresh = "its identity file is damaged";
  } else if (known["data"] !== mark) {
    fresh =
      "the data is a copy or was restored (the file is not the one this identity was given to)";
  } else if (known["machine"] !== machine) {
    fresh = "the data came from another machine";
  }
  if (known !== undefined && fresh === "") {
    return {
      identity: new Uint8Array(Buffer.from(known["identity"] as string, "hex")),
      fresh,
      save: () => undefined,
    };
  }
  const identity = new Uint8Array(randomBytes(IDENTITY_BYTES));
  const text = `${JSON.stringify({ identity: Buffer.from(identity).toString("hex"), data: mark, machine })}\n`;
  return { identity, fresh, save: () => writeDurably(path, text) };
}
