/** Rows copied in ranges while the log goes on, as the batch sync does it, leave both stores the same. */
import { describe, expect, it } from "vitest";
import { createKeyspace } from "../../agent/commands/keyspace.js";
import { createMemoryStore } from "../../agent/store/memory.js";
import type { MemoryStore } from "../../agent/store/memory.js";
import type { Store, StoreWriter, Table } from "../../agent/core/store.js";
import { Subject } from "./harness.js";

const FIRST = new Uint8Array(0);

function rows(store: Store): string[] {
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
  return (["data", "field", "expiry"] as Table[]).flatMap((table) =>
    store.range(table, FIRST, undefined, 1e6).map((e) => `${table} ${hex(e.key)} ${hex(e.value)}`),
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

function after(key: Uint8Array): Uint8Array {
  return new Uint8Array(Buffer.concat([key, Buffer.alloc(1)]));
}

describe("copied rows", () => {
  it.each(Array.from({ length: 40 }, (_, i) => i + 1))(
    "with writes in between (seed %i)",
    (seed) => {
      let n = seed;
      const next = (below: number): number => {
        n = (Math.imul(n, 1664525) + 1013904223) >>> 0;
        return Math.floor((n / 0x100000000) * below);
      };
      const source = createMemoryStore();
      const subject = new Subject(source);
      const change = (): void => {
        const a = `k${next(25)}`;
        const b = `k${next(25)}`;
        switch (next(9)) {
          case 0:
            subject.do("RENAME", a, b);
            break;
          case 1:
            subject.do("HSET", a, `f${next(30)}`, "new", "extra", `${next(99)}`);
            break;
          case 2:
            subject.do("DEL", a);
            break;
          case 3:
            subject.do("COPY", a, b, "REPLACE");
            break;
          case 4:
          case 5:
            subject.do("PEXPIRE", a, `${10000 + next(5)}`);
            break;
          case 6:
            subject.do("PERSIST", a);
            break;
          case 7:
            subject.do("SET", a, `v${next(99)}`, "PX", `${20000 + next(9)}`);
            break;
          default:
            subject.do("HDEL", a, `f${next(20)}`, "f1");
        }
      };
      for (let i = 0; i < 150; i++) change();
      while (subject.keyspace.overlaySize() > 0) {
        subject.behind(100);
        subject.settle();
      }
      const target = createMemoryStore();
      const keyspace = createKeyspace(target);
      let applied = subject.keyspace.appliedIndex();
      keyspace.reset(applied);
      /** The log comes only as far as the source's tables have it. */
      const stream = (upTo: number): void => {
        for (const { index, effects } of subject.log) {
          if (index <= applied || index > upTo) continue;
          keyspace.apply(effects, 0, effects.length, index, undefined);
          applied = index;
        }
      };
      const behind = (max: number, also: (writer: StoreWriter) => void): void => {
        let token = 0;
        commit(target, (writer) => {
          token = keyspace.writeBehind(writer, max);
          also(writer);
        });
        if (token !== 0) keyspace.writtenBehind(token);
      };
      for (const table of ["data", "field"] as Table[]) {
        for (let from: Uint8Array | undefined = FIRST; from !== undefined;) {
          const range = source.range(table, from, undefined, 1 + next(5));
          behind(Infinity, (writer) => {
            for (const { key, value } of range) {
              if (table === "data") keyspace.putRow(writer, key, value);
              else if (!subject.keyspace.isDropped(key)) writer.put(table, key, value);
            }
          });
          keyspace.reset(applied);
          from = range.length > 0 ? after(range[range.length - 1]!.key) : undefined;
          for (let i = next(40); i > 0; i--) change();
          if (next(2) === 0) subject.behind(1 + next(40));
          subject.settle();
          if (next(2) === 0) stream(Math.min(subject.keyspace.appliedIndex(), applied + next(40)));
          if (next(3) === 0) behind(1 + next(5), () => {});
        }
      }
      while (subject.keyspace.overlaySize() > 0) {
        subject.behind(100);
        subject.settle();
      }
      stream(subject.index);
      while (keyspace.overlaySize() > 0) behind(100, () => {});
      expect(rows(target)).toEqual(rows(source));
      expect(keyspace.sizeAtMost()).toBe(subject.keyspace.sizeAtMost());
    },
  );
});
