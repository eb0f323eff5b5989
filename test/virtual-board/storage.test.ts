/** The virtual board's Storage against what the real one is documented and seen to do. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BOOT_FILE, storageImage } from "../../bin/board/storage-image.mjs";
import { Storage } from "../../hal/virtual-board/storage.js";

const SIZE = 2048;

function erased(size = SIZE): { storage: Storage; bytes: Uint8Array } {
  const bytes = new Uint8Array(size).fill(0xff);
  return { storage: new Storage({ bytes, keep: () => undefined }), bytes };
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
const bytesOf = (content: string): Uint8Array => Buffer.from(content, "latin1");

describe("Storage", () => {
  test("reads an image as flashing tools lay it out, and writes one", () => {
    const image = storageImage(
      { [BOOT_FILE]: Buffer.from("code"), other: Buffer.from("12345") },
      SIZE,
    );
    const storage = new Storage({ bytes: image, keep: () => undefined });
    expect(storage.names()).toEqual([BOOT_FILE, "other"]);
    expect(text(storage.read("other"))).toBe("12345");
    const made = erased();
    made.storage.write(BOOT_FILE, bytesOf("code"), 0, 0);
    made.storage.write("other", bytesOf("12345"), 0, 0);
    expect(Buffer.from(made.bytes).equals(image)).toBe(true);
  });

  test("writing into erased bytes of a file changes it in place, anything else makes it anew", () => {
    const { storage } = erased();
    storage.write("j", bytesOf("ab"), 0, 8);
    const free = storage.free();
    storage.write("j", bytesOf("cd"), 4, 8);
    storage.write("j", bytesOf("ab"), 0, 8);
    expect(text(storage.read("j"))).toBe("ab\xff\xffcd\xff\xff");
    expect(storage.free()).toBe(free);
    storage.write("j", bytesOf("zz"), 0, 8);
    expect(text(storage.read("j"))).toBe("zz\xff\xff\xff\xff\xff\xff");
    expect(storage.free()).toBe(free - 40);
  });

  test("bits only go from 1 to 0", () => {
    const { storage } = erased();
    storage.write("j", bytesOf("\xf0"), 0, 4);
    storage.write("j", bytesOf("\x0f"), 0 + 0, 4);
    storage.write("k", bytesOf("\xf0"), 0, 4);
    storage.write("k", bytesOf("\x3f\x3f"), 1, 4);
    storage.write("k", bytesOf("\xf3"), 2, 4);
    expect([...storage.read("k")]).toEqual([0xf0, 0x3f, 0x33, 0xff]);
  });

  test("erased files take room until they are compacted; a full Storage says so", () => {
    const { storage } = erased(256);
    storage.write("a", bytesOf("x".repeat(60)), 0, 0);
    storage.write("b", bytesOf("y".repeat(60)), 0, 0);
    storage.erase("a");
    expect(storage.free()).toBe(256 - 2 * 92);
    expect(storage.has("a")).toBe(false);
    storage.compact();
    expect(storage.free()).toBe(256 - 92);
    expect(text(storage.read("b"))).toBe("y".repeat(60));
    expect(() => storage.write("c", bytesOf("z".repeat(200)), 0, 0)).toThrow(/Unable to find/);
    expect(() => storage.write("none", bytesOf("z"), 4, 0)).toThrow();
    expect(() => storage.write("b", bytesOf("zz"), 59, 0)).toThrow(/Too much data/);
  });

  test("any files written, replaced and erased in any order read back as they were written last", () => {
    const step = fc.record({
      name: fc.constantFrom("a", "b", "c", "dd"),
      content: fc.option(fc.uint8Array({ minLength: 1, maxLength: 60 })),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { storage, bytes } = erased(1024);
        const model = new Map<string, string>();
        for (const { name, content } of steps) {
          if (content === null) {
            storage.erase(name);
            model.delete(name);
          } else {
            storage.write(name, content, 0, 0);
            model.set(name, text(content));
          }
          // Read by a Storage that knows nothing but the bytes.
          const fresh = new Storage({ bytes, keep: () => undefined });
          expect(new Map(fresh.names().map((one) => [one, text(fresh.read(one))]))).toEqual(model);
        }
      }),
    );
  });
});
