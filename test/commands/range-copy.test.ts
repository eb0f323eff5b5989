import { describe, expect, it } from "vitest";
import { createKeyspace } from "../../agent/commands/keyspace.js";
import {
  clearKeyspace,
  copyRange,
  hashItems,
  hashRange,
  installRange,
} from "../../agent/commands/range-copy.js";
import type { CopiedRange } from "../../agent/commands/range-copy.js";
import { createMemoryStore } from "../../agent/store/memory.js";
import type { MemoryStore } from "../../agent/store/memory.js";
import type { Store, StoreWriter, Table } from "../../agent/core/store.js";
import { Subject } from "./harness.js";

function rows(store: Store, tables: Table[] = ["data", "field", "expiry"]): string[] {
  return tables.flatMap((table) =>
    store
      .range(table, new Uint8Array(0), undefined, 1e6)
      .map(
        (e) =>
          `${table} ${Buffer.from(e.key).toString("hex")} ${Buffer.from(e.value).toString("hex")}`,
      ),
  );
}

function commit(store: MemoryStore, fill: (writer: StoreWriter) => void): void {
  store.commit(
    fill,
    (error) => {
      if (error !== undefined) throw error;
    },
    false,
  );
  store.flush();
}

function drain(subject: Subject): void {
  while (subject.keyspace.overlaySize() > 0) {
    subject.behind(100);
    subject.settle();
  }
}

function fill(subject: Subject, from: number, to: number): void {
  for (let i = from; i < to; i++) {
    subject.do("SET", `key${i}`, `value${i}`.repeat(1 + (i % 5)), "PX", `${100000 + i}`);
    if (i % 7 === 0) subject.do("PERSIST", `key${i}`);
    if (i % 10 === 0)
      subject.do(
        "HSET",
        `hash${i}`,
        ...Array.from({ length: 20 }, (_, j) => [`f${j}`, `${i}`]).flat(),
      );
  }
}

const START = new Uint8Array(0);

describe("range copy", () => {
  it("gives the other store the same rows, in ranges of bounded size", () => {
    const subject = new Subject();
    fill(subject, 0, 300);
    drain(subject);
    const target = createMemoryStore();
    const other = new Subject(target);
    fill(other, 200, 400);
    other.do("DEL", "hash210");
    drain(other);
    const snapshot = subject.store.snapshot();
    let from: Uint8Array | undefined = START;
    let ranges = 0;
    while (from !== undefined) {
      const range: CopiedRange = copyRange(snapshot, from, 2000, 1000);
      expect(range.items.length).toBeLessThan(4000);
      expect(hashRange(snapshot, from, range.next)).toEqual(hashItems(range.items));
      const at = from;
      commit(target, (writer) => {
        expect(installRange(target, writer, at, range.next, range.items)).toBe(true);
      });
      const mine = target.snapshot();
      expect(hashRange(mine, from, range.next)).toEqual(hashItems(range.items));
      from = range.next;
      ranges++;
    }
    expect(ranges).toBeGreaterThan(10);
    expect(rows(target)).toEqual(rows(subject.store));
  });

  it.each([1, 2, 3, 4, 5, 6, 7, 8])(
    "while writes go on, the log behind makes up for it (%i)",
    (seed) => {
      const source = createMemoryStore();
      const subject = new Subject(source);
      fill(subject, 0, 60);
      drain(subject);
      const target = createMemoryStore();
      const other = new Subject(target);
      fill(other, 30, 90);
      drain(other);
      commit(target, (writer) => clearKeyspace(target, writer));
      expect(rows(target)).toEqual([]);
      let position = Infinity;
      let from: Uint8Array | undefined = START;
      let n = seed;
      const next = (below: number): number => {
        n = (Math.imul(n, 1664525) + 1013904223) >>> 0;
        return Math.floor((n / 0x100000000) * below);
      };
      while (from !== undefined) {
        position = Math.min(position, subject.keyspace.appliedIndex());
        const snapshot = source.snapshot();
        const range: CopiedRange = copyRange(snapshot, from, 1000, 50);
        const at = from;
        commit(target, (writer) => installRange(target, writer, at, range.next, range.items));
        from = range.next;
        for (let i = 0; i < 6; i++) {
          const a = `hash${next(7) * 10}`;
          const b = `hash${next(7) * 10}`;
          switch (next(6)) {
            case 0:
              subject.do("RENAME", a, b);
              break;
            case 1:
              subject.do("HSET", a, `f${next(30)}`, "new", "extra", `${i}`);
              break;
            case 2:
              subject.do("DEL", a, `key${next(60)}`);
              break;
            case 3:
              subject.do("COPY", a, b, "REPLACE");
              break;
            case 4:
              subject.do("PEXPIRE", `key${next(60)}`, "5000");
              break;
            default:
              subject.do("HDEL", a, `f${next(20)}`, "f1");
          }
        }
        if (next(3) > 0) {
          subject.behind(1 + next(20));
          subject.settle();
        }
      }
      const keyspace = createKeyspace(target);
      keyspace.reset(position);
      for (const { index, effects } of subject.log) {
        if (index > position) keyspace.apply(effects, 0, effects.length, index, undefined);
      }
      drain(subject);
      for (let i = 0; keyspace.overlaySize() > 0 && i < 1000; i++) {
        let token = 0;
        commit(target, (writer) => {
          token = keyspace.writeBehind(writer, 50);
        });
        if (token !== 0) keyspace.writtenBehind(token);
      }
      expect(rows(target)).toEqual(rows(source));
    },
  );

  it("refuses items that are malformed or outside their range, and writes nothing", () => {
    const subject = new Subject();
    fill(subject, 0, 50);
    drain(subject);
    const snapshot = subject.store.snapshot();
    const first = copyRange(snapshot, START, 500, 100);
    const second = copyRange(snapshot, first.next!, 500, 100);
    const target = createMemoryStore();
    const tried = (from: Uint8Array, next: Uint8Array | undefined, items: Uint8Array): boolean => {
      let ok = true;
      commit(target, (writer) => {
        ok = installRange(target, writer, from, next, items);
      });
      return ok;
    };
    expect(tried(START, first.next, second.items)).toBe(false);
    expect(tried(first.next!, second.next, first.items)).toBe(false);
    expect(tried(Uint8Array.of(7), undefined, first.items)).toBe(false);
    let refused = 0;
    for (let cut = 1; cut < first.items.length; cut++) {
      if (!tried(START, first.next, first.items.subarray(0, cut))) refused++;
      else commit(target, (writer) => clearKeyspace(target, writer));
    }
    expect(refused).toBeGreaterThan(first.items.length - first.rows - 2);
    expect(rows(target)).toEqual([]);
  });
});
