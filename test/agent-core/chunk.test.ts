/** Chunks: what is written is read, cut anywhere, and nothing malformed gets through. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CHUNK_HEADER_BYTES,
  ENTRY_RESULT,
  chunkCount,
  chunkFault,
  chunkFirst,
  chunkHead,
  chunkLast,
  chunkTail,
  makeEntryView,
  putEntry,
  readEntry,
  writeChunkHeader,
} from "../../agent/core/chunk.js";
import { MalformedEffects } from "../../agent/commands/effects.js";
import { agentLimits } from "../../agent/core/limits.js";
import { applyChunk } from "../../agent/core/replay.js";
import type { ReplayTarget } from "../../agent/core/replay.js";
import { makeSink } from "../../protocol/resp.js";

interface Made {
  slot: number | undefined;
  number: number;
  reply: Uint8Array;
  ops: Uint8Array;
  effects: Uint8Array;
}

const bytes = (max: number) => fc.uint8Array({ maxLength: max });
const made = fc.record<Made>({
  slot: fc.option(fc.nat(5000), { nil: undefined }),
  number: fc.nat(0xffffffff),
  reply: bytes(200),
  ops: bytes(20),
  effects: bytes(300),
});

const NONE = new Uint8Array(0);
const sinkOf = (from: Uint8Array) => ({ bytes: from, length: from.length });

function chunkOf(first: number, entries: Made[]): Uint8Array {
  const sink = makeSink(64);
  sink.length = CHUNK_HEADER_BYTES;
  for (const entry of entries) {
    putEntry(sink, {
      flags: entry.slot === undefined ? 0 : ENTRY_RESULT,
      slot: entry.slot ?? 0,
      number: entry.number,
      reply: sinkOf(entry.reply),
      replyStart: 0,
      replyEnd: entry.slot === undefined ? 0 : entry.reply.length,
      ops: sinkOf(entry.ops),
      effects: sinkOf(entry.effects),
    });
  }
  const chunk = sink.bytes.slice(0, sink.length);
  writeChunkHeader(chunk, first, 7, 123456, entries.length, chunk.length - CHUNK_HEADER_BYTES);
  return chunk;
}

test("an entry that makes no sense is told from a store that fails while the entry is applied", () => {
  const entry = { slot: undefined, number: 0, reply: NONE, ops: NONE, effects: Uint8Array.of(1) };
  const chunk = chunkOf(5, [entry, entry]);
  const applied = (error: Error | undefined) => {
    const apply = (): boolean => {
      if (error !== undefined) throw error;
      return false;
    };
    const target = { keyspace: { apply }, table: {}, applied: 5, sessionsAt: 6 };
    return applyChunk(chunk, target as unknown as ReplayTarget, 0, undefined);
  };
  expect(applied(undefined)).toBe(0);
  expect(applied(new MalformedEffects("cut off"))).toBe(6);
  expect(() => applied(new Error("the disk failed"))).toThrow("the disk failed");
});

function effectsOf(chunk: Uint8Array): string[] {
  const view = makeEntryView();
  const found: string[] = [];
  let at = CHUNK_HEADER_BYTES;
  for (let i = 0; i < chunkCount(chunk); i++) {
    at = readEntry(chunk, at, chunk.length, view);
    found.push(Buffer.from(chunk.subarray(view.effectsStart, view.effectsEnd)).toString("hex"));
  }
  return found;
}

describe("chunk", () => {
  test("what is put is read", () => {
    fc.assert(
      fc.property(fc.array(made, { minLength: 1, maxLength: 20 }), (entries) => {
        const chunk = chunkOf(5, entries);
        expect(chunkFault(chunk, 0, chunk.length)).toBe("");
        const view = makeEntryView();
        let at = CHUNK_HEADER_BYTES;
        for (const entry of entries) {
          at = readEntry(chunk, at, chunk.length, view);
          expect(chunk.slice(view.effectsStart, view.effectsEnd)).toEqual(entry.effects);
          expect(chunk.slice(view.opsStart, view.opsEnd)).toEqual(entry.ops);
          if (entry.slot === undefined) continue;
          expect(view.slot).toBe(entry.slot);
          expect(view.number).toBe(entry.number);
          expect(chunk.slice(view.replyStart, view.replyEnd)).toEqual(entry.reply);
        }
        expect(at).toBe(chunk.length);
      }),
    );
  });

  test("a cut gives two sound chunks that hold the same entries", () => {
    fc.assert(
      fc.property(
        fc.array(made, { minLength: 2, maxLength: 20 }),
        fc.nat(1000),
        (entries, where) => {
          const chunk = chunkOf(100, entries);
          const cut = 100 + (where % (entries.length - 1));
          const head = chunkHead(chunk, cut);
          const tail = chunkTail(chunk, cut + 1);
          expect(chunkFault(head, 0, head.length)).toBe("");
          expect(chunkFault(tail, 0, tail.length)).toBe("");
          expect(chunkLast(head)).toBe(cut);
          expect(chunkFirst(tail)).toBe(cut + 1);
          expect(chunkLast(tail)).toBe(chunkLast(chunk));
          expect([...effectsOf(head), ...effectsOf(tail)]).toEqual(effectsOf(chunk));
        },
      ),
    );
  });

  test("malformed bytes are named, never thrown over, and never read beyond their end", () => {
    const good = chunkOf(1, [
      { slot: 3, number: 9, reply: Uint8Array.of(1, 2), ops: new Uint8Array(0), effects: good3() },
    ]);
    for (let length = 0; length < good.length; length++) {
      expect(chunkFault(good, 0, length)).not.toBe("");
    }
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), (at, value) => {
        const bad = good.slice();
        bad[at] = value;
        expect(typeof chunkFault(bad, 0, bad.length)).toBe("string");
      }),
    );
    fc.assert(
      fc.property(bytes(200), (junk) => {
        expect(typeof chunkFault(junk, 0, junk.length)).toBe("string");
      }),
    );
  });
});

function good3(): Uint8Array {
  return Uint8Array.of(7, 8, 9);
}

describe("limits", () => {
  test("the defaults fit together, and what does not is refused", () => {
    expect(() => agentLimits({})).not.toThrow();
    expect(() => agentLimits({ valueBytesMax: 64 * 1024 * 1024 })).not.toThrow();
    expect(() => agentLimits({ peerSilentMs: 60 })).toThrow("peer silence");
    expect(() => agentLimits({ windowBytes: 1000 })).toThrow("window holds a command");
    expect(() => agentLimits({ checkpointBytes: 512 * 1024 * 1024 })).toThrow("checkpoints");
    expect(() => agentLimits({ boundariesMax: 5000 })).toThrow("boundaries fit a message");
  });
});
