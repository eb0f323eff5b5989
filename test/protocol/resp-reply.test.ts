import fc from "fast-check";
import { expect, test } from "vitest";
import {
  REPLY_DEPTH_MAX,
  REPLY_MALFORMED,
  REPLY_UNFINISHED,
  ReplyScanner,
  decodeReply,
  isReplyError,
} from "../../protocol/resp-reply.js";
import type { ReplyValue } from "../../protocol/resp-reply.js";
import * as resp from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";
import { latin1 } from "./resp-outcomes.js";
import { splitAt } from "./split.js";

const line = fc
  .uint8Array({ maxLength: 20 })
  .map((bytes) => Buffer.from(bytes.filter((b) => b !== 13 && b !== 10)).toString("latin1"));

const { reply } = fc.letrec<{ reply: ReplyValue; list: ReplyValue[] }>((tie) => ({
  list: fc.array(tie("reply"), { maxLength: 4 }),
  reply: fc.oneof(
    { maxDepth: 4 },
    line,
    line.map((error) => ({ error })),
    fc.maxSafeInteger(),
    fc.integer({ min: -5, max: 15 }),
    fc.bigInt({ min: 2n ** 53n, max: 2n ** 63n - 1n }),
    fc.constant(null),
    fc.uint8Array({ maxLength: 50 }),
    tie("list"),
  ),
}));
const cuts = fc.array(fc.nat(400), { maxLength: 30 });

function write(sink: ByteSink, value: ReplyValue): void {
  if (typeof value === "string") resp.writeSimple(sink, value);
  else if (typeof value === "number") resp.writeInteger(sink, value);
  else if (typeof value === "bigint") resp.writeIntegerText(sink, String(value));
  else if (value === null) resp.writeNull(sink);
  else if (value instanceof Uint8Array) resp.writeBulk(sink, value, 0, value.length);
  else if (Array.isArray(value)) {
    resp.writeArray(sink, value.length);
    for (const item of value) write(sink, item);
  } else resp.writeError(sink, value.error);
}

function written(...values: ReplyValue[]): Uint8Array {
  const sink = resp.makeSink(1);
  for (const value of values) write(sink, value);
  return sink.bytes.slice(0, sink.length);
}

const scanned = (wire: string): number => {
  const bytes = latin1(wire);
  return new ReplyScanner().scan(bytes, 0, bytes.length);
};

test("every reply a writer makes is delimited in any split and decoded again", () => {
  fc.assert(
    fc.property(fc.array(reply, { maxLength: 6 }), cuts, (values, at) => {
      const bytes = written(...values);
      const scanner = new ReplyScanner();
      const found: ReplyValue[] = [];
      let begin = 0;
      let base = 0;
      for (const chunk of splitAt(bytes, at)) {
        for (let from = 0; from < chunk.length;) {
          const end = scanner.scan(chunk, from, chunk.length);
          expect(end).not.toBe(REPLY_MALFORMED);
          if (end === REPLY_UNFINISHED) break;
          found.push(decodeReply(bytes, begin, base + end));
          begin = base + end;
          from = end;
        }
        base += chunk.length;
      }
      expect(found).toEqual(values);
      expect(begin).toBe(bytes.length);
    }),
    { numRuns: 500 },
  );
});

test("replies as they stand on the wire", () => {
  const text = (value: ReplyValue): string => Buffer.from(written(value)).toString("latin1");
  expect(text("OK")).toBe("+OK\r\n");
  expect(text({ error: "ERR no\r\nsuch" })).toBe("-ERR no  such\r\n");
  expect(text(-3)).toBe(":-3\r\n");
  expect(text(0)).toBe(":0\r\n");
  expect(text(2_147_483_647)).toBe(":2147483647\r\n");
  expect(text(9_007_199_254_740_991)).toBe(":9007199254740991\r\n");
  expect(text(null)).toBe("$-1\r\n");
  expect(text(new Uint8Array([65, 13, 10]))).toBe("$3\r\nA\r\n\r\n");
  expect(text([1, ["x"]])).toBe("*2\r\n:1\r\n*1\r\n+x\r\n");
  const sink = resp.makeSink(0);
  resp.writeNullArray(sink);
  resp.writeBulkText(sink, "h\u20ac");
  expect(Buffer.from(sink.bytes.subarray(0, sink.length)).toString()).toBe("*-1\r\n$2\r\nh?\r\n");
});

test("an error is told from other replies", () => {
  const values: ReplyValue[] = ["OK", 1, null, new Uint8Array(2), [{ error: "ERR x" }], 5n];
  expect(values.filter((value) => isReplyError(value))).toEqual([]);
  expect(isReplyError(decodeReply(latin1("-ERR x\r\n"), 0, 8))).toBe(true);
});

test("null arrays and empty ones", () => {
  expect(decodeReply(latin1("*-1\r\n"), 0, 5)).toBeNull();
  expect(decodeReply(latin1("*0\r\n"), 0, 4)).toEqual([]);
  expect(scanned("*2\r\n*0\r\n$-1\r\n+x\r\n")).toBe(13);
});

test("malformed replies are refused, and so is all that follows", () => {
  for (const wire of [
    "!x\r\n",
    "+ok\rx",
    ":\r\n",
    ":-\r\n",
    ":1x\r\n",
    "$\r\n",
    "$-2\r\n",
    "*-3\r\n",
    "$99999999999\r\n",
    "*1\r\n?",
    "*1\r\n".repeat(REPLY_DEPTH_MAX + 1),
    "+" + "x".repeat(70_000),
  ]) {
    const scanner = new ReplyScanner();
    const bytes = latin1(wire);
    expect(scanner.scan(bytes, 0, bytes.length), wire.slice(0, 20)).toBe(REPLY_MALFORMED);
    expect(scanner.problem).not.toBe("");
    expect(scanner.scan(latin1("+OK\r\n"), 0, 5)).toBe(REPLY_MALFORMED);
  }
  expect(scanned("*1\r\n".repeat(REPLY_DEPTH_MAX) + ":1\r\n")).toBe(4 * REPLY_DEPTH_MAX + 4);
});

test("decoding what no scanner delimited is our mistake", () => {
  expect(() => decodeReply(latin1("+OK\r\n+OK\r\n"), 0, 10)).toThrow(/one whole reply/);
});

test("decimal numbers of every length", () => {
  for (const value of [0, 9, 10, 99, 100, 4096, 999_999_999, 1_000_000_000, 2_147_483_648, -1]) {
    const sink = resp.makeSink(0);
    resp.putDecimal(sink, value);
    expect(Buffer.from(sink.bytes.subarray(0, sink.length)).toString()).toBe(String(value));
  }
});
