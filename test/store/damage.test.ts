/** Bytes that the disk gives back otherwise than they were written. */
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { open } from "lmdb";
import { describe, expect, test } from "vitest";
import { openLmdbStore } from "../../agent/store/lmdb.js";
import { DamagedRow, openRow, sealRow } from "../../agent/store/checked-row.js";
import type { Store, StoreWriter } from "../../agent/core/store.js";

const text = (value: string): Uint8Array => new Uint8Array(Buffer.from(value));
const directory = (): string => mkdtempSync(join(tmpdir(), "dyad-damage-"));

function commit(store: Store, fill: (writer: StoreWriter) => void): Promise<void> {
  return new Promise((done, failed) =>
    store.commit(fill, (error) => (error === undefined ? done() : failed(error)), false),
  );
}

describe("a checked row", () => {
  test("every changed bit of value, checksum, key or table is seen", () => {
    const key = text("key");
    const row = new Uint8Array([...text("value"), 0, 0, 0, 0]);
    sealRow("data", key, row);
    expect(Buffer.from(openRow("data", key, row, "D")).toString()).toBe("value");
    for (let bit = 0; bit < row.length * 8; bit++) {
      row[bit >> 3]! ^= 1 << (bit & 7);
      expect(() => openRow("data", key, row, "D")).toThrow(DamagedRow);
      row[bit >> 3]! ^= 1 << (bit & 7);
    }
    expect(() => openRow("data", text("kez"), row, "D")).toThrow(DamagedRow);
    expect(() => openRow("field", key, row, "D")).toThrow(DamagedRow);
    expect(() => openRow("data", key, row.subarray(0, 3), "D")).toThrow(DamagedRow);
    expect(openRow("data", key, row, "D")).toHaveLength(5);
  });
});

describe("the store's file", () => {
  test("a row with a changed byte is not given out, neither alone nor in a range; the others are", async () => {
    const path = directory();
    let store = openLmdbStore({ directory: path, durability: "disk" });
    await commit(store, (writer) => {
      for (let i = 0; i < 50; i++) writer.put("data", text(`k${i}`), text(`the value of ${i}.`));
    });
    await store.close();
    const file = join(path, "data.mdb");
    const bytes = readFileSync(file);
    const at = bytes.indexOf("the value of 7.");
    expect(at).toBeGreaterThan(0);
    for (let from = at; from >= 0; from = bytes.indexOf("the value of 7.", from + 1)) {
      bytes[from + 4]! ^= 1;
    }
    writeFileSync(file, bytes);
    store = openLmdbStore({ directory: path, durability: "disk" });
    const snapshot = store.snapshot();
    try {
      expect(() => store.get("data", text("k7"))).toThrow(
        /row 6b37 of table data in .*move .* away/,
      );
      expect(() => snapshot.get("data", text("k7"))).toThrow(DamagedRow);
      expect(() => store.range("data", text("k6"), text("k8"), 10)).toThrow(DamagedRow);
      expect(() => snapshot.range("data", text("k6"), text("k8"), 10)).toThrow(DamagedRow);
      expect(Buffer.from(store.get("data", text("k8"))!).toString()).toBe("the value of 8.");
      expect(snapshot.keys("data", text("k7"), undefined, 1)).toHaveLength(1);
    } finally {
      snapshot.close();
      await store.close();
    }
  });

  test("a store without checksums is refused, and says what to do", async () => {
    const path = directory();
    const old = open({ path, noSubdir: false, encoding: "binary", keyEncoding: "binary" });
    await old
      .openDB({ name: "meta", encoding: "binary", keyEncoding: "binary" })
      .put(text("s"), Buffer.of(2));
    await old.close();
    expect(() => openLmdbStore({ directory: path, durability: "disk" })).toThrow(
      /has format 1, this build writes format 2: move it away/,
    );
  });
});
