/** What the killed child writes, and how its parent checks it. */
import { writeSync } from "node:fs";
import { openLmdbStore } from "../../agent/store/lmdb.js";
import type { Durability } from "../../agent/store/lmdb.js";
import type { Store } from "../../agent/core/store.js";

export const COUNTER = Uint8Array.of(7);

export function indexKey(index: number): Uint8Array {
  return Uint8Array.of(index >>> 24, index >>> 16, index >>> 8, index);
}

export function dataKey(index: number, i: number): Uint8Array {
  return new Uint8Array(Buffer.from(`key ${(index * 31 + i * 977) % 5000}`));
}

export function dataValue(index: number, length: number): Uint8Array {
  const value = new Uint8Array(length).fill(index & 255);
  value.set(indexKey(index), 0);
  return value;
}

/** The last commit the store has, after a check that it has all of it and of those before. */
export function rounds(store: Store): number {
  const counter = store.get("meta", COUNTER);
  const last = counter === undefined ? 0 : Buffer.from(counter).readUInt32BE(0);
  if (store.count("log") !== last)
    throw new Error(`${store.count("log")} log rows after ${last} commits`);
  const newest = new Map<string, number>();
  for (let index = Math.max(1, last - 5200); index <= last; index++) {
    for (let i = 0; i < 1 + (index % 40); i++)
      newest.set(Buffer.from(dataKey(index, i)).toString(), index);
  }
  for (const [key, index] of newest) {
    const value = store.get("data", new Uint8Array(Buffer.from(key)));
    if (value === undefined || Buffer.from(value).readUInt32BE(0) !== index) {
      throw new Error(`${key} is not of commit ${index} (last ${last})`);
    }
    if (!value.subarray(4).every((byte) => byte === (index & 255)))
      throw new Error(`${key} is torn`);
  }
  const fields = store
    .range("field", new Uint8Array(0), undefined, 1000)
    .map((e) => Buffer.from(e.key).readUInt32BE(0));
  const first = Math.max(1, last - (last % 50));
  if (fields.length !== (last === 0 ? 0 : last - first + 1) || (last > 0 && fields[0] !== first)) {
    throw new Error(`fields from ${fields[0]}, ${fields.length} of them, after ${last}`);
  }
  return last;
}

/** Commits as fast as it can until the process is killed, and says on stdout which commits are done. */
export function commitUntilKilled(directory: string, durability: Durability): void {
  const store = openLmdbStore({ directory, durability });
  let index = rounds(store);
  writeSync(1, `open ${index}\n`);

  function next(): void {
    const mine = ++index;
    store.commit(
      (writer) => {
        writer.put("log", indexKey(mine), dataValue(mine, 300));
        for (let i = 0; i < 1 + (mine % 40); i++) {
          writer.put("data", dataKey(mine, i), dataValue(mine, 50 + ((mine * 7 + i) % 3000)));
        }
        if (mine % 50 === 0) writer.clear("field");
        writer.put("field", indexKey(mine), new Uint8Array(0));
        writer.put("meta", COUNTER, indexKey(mine));
      },
      (error) => {
        if (error !== undefined) {
          writeSync(1, `failed ${error.message}\n`);
          process.exit(1);
        }
        writeSync(1, `done ${mine}\n`);
        next();
      },
      mine % 20 === 0,
    );
  }
  next();
}
