import fc from "fast-check";
import { expect, test } from "vitest";
import { PARSED_COMMAND, PARSED_FAULT, PARSED_NOTHING, RespParser } from "../../protocol/resp.js";
import { LIMITS, latin1, outcomesOf, shown, step, wireOf } from "./resp-outcomes.js";
import type { Outcome } from "./resp-outcomes.js";
import { splitAt } from "./split.js";

const argument = fc.string({
  unit: fc.integer({ min: 0, max: 255 }).map((c) => String.fromCharCode(c)),
  maxLength: 12,
});
const command = fc.array(argument, { minLength: 1, maxLength: 12 });
const commands = fc.array(command, { maxLength: 8 });
const cuts = fc.array(fc.nat(600), { maxLength: 40 });

const faultOf = (wire: string): unknown => outcomesOf([latin1(wire)]).at(-1);
const ROOMY = { ...LIMITS, commandBytesMax: 10_000, bulkBytesMax: 10_000, keptBytesMax: 100_000 };

test("any split of a stream gives the same commands, each with its own bytes", () => {
  fc.assert(
    fc.property(commands, cuts, (list, at) => {
      const wire = list.map(wireOf).join("");
      expect(outcomesOf(splitAt(latin1(wire), at), ROOMY)).toEqual(
        list.map((args): Outcome => ({ command: args, wire: wireOf(args) })),
      );
    }),
    { numRuns: 500 },
  );
});

/** Pieces that make valid and broken streams alike. */
const piece = fc.oneof(
  fc.constantFrom(
    "*1\r\n$4\r\nPING\r\n",
    "*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
    "*0\r\n",
    "*-1\r\n",
    "*-0\r\n",
    "*3\r\n",
    "$3\r\nabc\r\n",
    "$0\r\n\r\n",
    "$-1\r\n",
    "*1\r\n$101\r\n" + "y".repeat(101) + "\r\n",
    "*2\r\n$101\r\n" + "y".repeat(101) + "\r\n$1\r\nz\r\n",
    "*65\r\n",
    "ping\r\n",
    "echo 'it''s'\n",
    'set k "a\\x41\\n"\r\n',
    "\r\n",
    "\n",
    " \t ",
    '"',
    "'",
    "*",
    "$",
    "\r",
    "x".repeat(81),
    "*1\r\n$536870913\r\n",
    "1234567890123456789012",
  ),
  argument,
);
const streams = fc.array(piece, { maxLength: 14 }).map((pieces) => pieces.join(""));

test("any split of any bytes gives the same outcome, faults included", () => {
  fc.assert(
    fc.property(streams, cuts, (wire, at) => {
      const whole = outcomesOf([latin1(wire)]);
      expect(outcomesOf(splitAt(latin1(wire), at))).toEqual(whole);
      const bytes = latin1(wire);
      expect(outcomesOf(Array.from(bytes, (_, i) => bytes.subarray(i, i + 1)))).toEqual(whole);
    }),
    { numRuns: 1000 },
  );
});

test("a command whole in the chunk is shown where it stands", () => {
  const parser = new RespParser(LIMITS);
  const chunk = latin1(wireOf(["GET", "a"]) + wireOf(["GET", "b"]));
  parser.feed(chunk, 0, chunk.length);
  expect(parser.next()).toBe(PARSED_COMMAND);
  expect([parser.bytes === chunk, parser.rangeStart, parser.rangeEnd]).toEqual([true, 0, 20]);
  expect(parser.next()).toBe(PARSED_COMMAND);
  expect([parser.bytes === chunk, parser.rangeStart, parser.rangeEnd]).toEqual([true, 20, 40]);
  expect(parser.next()).toBe(PARSED_NOTHING);
  expect(parser.heldBytes()).toBe(0);
});

test("stopped anywhere, what is kept and what comes later is parsed in order", () => {
  fc.assert(
    fc.property(commands, cuts, fc.array(fc.nat(3), { maxLength: 60 }), (list, at, budgets) => {
      const parser = new RespParser(ROOMY);
      const seen: Outcome[] = [];
      let turn = 0;
      for (const chunk of splitAt(latin1(list.map(wireOf).join("")), at)) {
        const lent = chunk.slice();
        expect(parser.feed(lent, 0, lent.length)).toBe(true);
        for (let budget = budgets[turn++] ?? 9; budget > 0; budget--) {
          const one = step(parser);
          if (one === undefined) break;
          seen.push(one);
        }
        parser.keep();
        lent.fill(0x24);
      }
      for (let one = step(parser); one !== undefined; one = step(parser)) seen.push(one);
      expect(seen).toEqual(list.map((args) => ({ command: args, wire: wireOf(args) })));
      expect(parser.hasMore()).toBe(false);
    }),
    { numRuns: 500 },
  );
});

test("what is shown stays as it is through keep, when it stood in the parser's own buffer", () => {
  const parser = new RespParser(LIMITS);
  const wire = latin1(wireOf(["ECHO", "hello"]) + wireOf(["PING"]));
  parser.feed(wire.slice(0, 9), 0, 9);
  expect(parser.next()).toBe(PARSED_NOTHING);
  const rest = wire.slice(9);
  parser.feed(rest, 0, rest.length);
  expect(parser.next()).toBe(PARSED_COMMAND);
  parser.keep();
  rest.fill(0);
  expect(shown(parser)).toEqual({ command: ["ECHO", "hello"], wire: wireOf(["ECHO", "hello"]) });
  expect(step(parser)).toEqual({ command: ["PING"], wire: wireOf(["PING"]) });
});

test("what is kept is bounded", () => {
  const parser = new RespParser({ ...LIMITS, keptBytesMax: 50 });
  const one = latin1(wireOf(["PING"]));
  const parts = [one, one, one, one].map((part) => parser.feed(part, 0, part.length));
  expect(parts).toEqual([true, true, true, false]);
});

test("faults have Redis' own texts", () => {
  const rows: [string, string][] = [
    ["*x\r\n", "invalid multibulk length"],
    ["*\r\n", "invalid multibulk length"],
    ["*+1\r\n", "invalid multibulk length"],
    ["*01\r\n", "invalid multibulk length"],
    ["*-0\r\n", "invalid multibulk length"],
    ["*65\r\n", "invalid multibulk length"],
    ["*2147483648\r\n", "invalid multibulk length"],
    ["*9999999999999999999999", "invalid multibulk length"],
    ["*1\r\n$x\r\n", "invalid bulk length"],
    ["*1\r\n$-1\r\n", "invalid bulk length"],
    ["*1\r\n$536870913\r\n", "invalid bulk length"],
    ["*1\r\n$9999999999999999999999", "invalid bulk length"],
    ["*1\r\nfoo\r\n", "expected '$', got 'f'"],
    ["*2\r\n$1\r\na\r\n:5\r\n", "expected '$', got ':'"],
    ["*1\r\n\x1b", "expected '$', got ' '"],
    ['set k "v\r\n', "unbalanced quotes in request"],
    ["set k 'v' 'w'x\r\n", "unbalanced quotes in request"],
    ["x".repeat(81), "too big inline request"],
  ];
  for (const [wire, text] of rows) {
    expect(faultOf(wire), wire).toEqual({ fault: "ERR Protocol error: " + text });
  }
});

test("after a fault nothing more is parsed", () => {
  const parser = new RespParser(LIMITS);
  const chunk = latin1("*x\r\n" + wireOf(["PING"]));
  parser.feed(chunk, 0, chunk.length);
  expect(parser.next()).toBe(PARSED_FAULT);
  parser.feed(chunk, 4, chunk.length);
  expect(parser.next()).toBe(PARSED_FAULT);
  expect(parser.problem).toBe("ERR Protocol error: invalid multibulk length");
});

test("empty commands are passed over in silence", () => {
  expect(outcomesOf([latin1("*0\r\n*-1\r\n*-7\r\n\r\n\n  \r\n*1\r\n$4\r\nPING\r\n")])).toEqual([
    { command: ["PING"], wire: wireOf(["PING"]) },
  ]);
});

test("inline commands are split as Redis does, and shown as arrays", () => {
  const rows: [string, string[]][] = [
    ["PING\r\n", ["PING"]],
    ["  set\ta  b \n", ["set", "a", "b"]],
    ['set k "a b"\r\n', ["set", "k", "a b"]],
    ['set k "\\x41\\n\\r\\t\\b\\a\\"\\q\\xZZ"\r\n', ["set", "k", 'A\n\r\t\b\x07"qxZZ']],
    ["set k 'a\\'b\\n'\r\n", ["set", "k", "a'b\\n"]],
    ['set foo"bar"\r\n', ["set", "foobar"]],
    ['set ""\r\n', ["set", ""]],
    ["a\0b c\r\n", ["a"]],
  ];
  for (const [line, args] of rows) {
    expect(outcomesOf([latin1(line)]), line).toEqual([{ command: args, wire: wireOf(args) }]);
  }
});

test("too large a value is refused when it is announced, and the connection goes on", () => {
  const parser = new RespParser(LIMITS);
  const head = latin1("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$400000\r\n");
  parser.feed(head, 0, head.length);
  expect(step(parser)).toEqual({ refused: "ERR value too large (limit 100 bytes)" });
  expect(parser.next()).toBe(PARSED_NOTHING);
  const body = new Uint8Array(1000).fill(0x2a);
  for (let i = 0; i < 400; i++) {
    parser.feed(body, 0, body.length);
    expect(parser.next()).toBe(PARSED_NOTHING);
    expect(parser.heldBytes()).toBe(0);
  }
  const tail = latin1("\r\n" + wireOf(["PING"]));
  parser.feed(tail, 0, tail.length);
  expect(step(parser)).toEqual({ command: ["PING"], wire: wireOf(["PING"]) });
});

test("many values that are too large together are refused too", () => {
  const args = ["MSET", "a", "x".repeat(90), "b", "y".repeat(90), "c", "z".repeat(90)];
  const wire = wireOf(args) + wireOf(["PING"]);
  expect(outcomesOf([latin1(wire)])).toEqual([
    { refused: "ERR value too large (limit 200 bytes)" },
    { command: ["PING"], wire: wireOf(["PING"]) },
  ]);
  const exact = wireOf(["SET", "k", "v".repeat(100), "w".repeat(200 - 135)]);
  expect(exact.length).toBe(200);
  expect(outcomesOf([latin1(exact)])).toHaveLength(1);
  expect(outcomesOf([latin1(exact)])[0]).toHaveProperty("command");
});

test("what is broken in a refused command is still a fault", () => {
  for (const tail of [":1\r\n", "$x\r\n", "$\r\n", "$-1\r\n", "$01\r\n", "$999999999\r\n"]) {
    const wire = "*2\r\n$101\r\n" + "x".repeat(101) + "\r\n" + tail;
    expect(faultOf(wire), tail).toHaveProperty("fault");
  }
});

test("before the password only small commands are taken", () => {
  const asked = (wire: string): Outcome[] =>
    outcomesOf(
      [latin1(wire)],
      { ...ROOMY, bulkBytesMax: 100_000, commandBytesMax: 100_000 },
      (parser) => void (parser.authenticated = false),
    );
  expect(asked("*11\r\n")).toEqual([
    { fault: "ERR Protocol error: unauthenticated multibulk length" },
  ]);
  expect(asked("*1\r\n$16385\r\n")).toEqual([
    { fault: "ERR Protocol error: unauthenticated bulk length" },
  ]);
  expect(asked(wireOf(["AUTH", "secret"]))[0]).toHaveProperty("command");
});

test("a half-received command says what is held and what is announced", () => {
  const parser = new RespParser(LIMITS);
  const feed = (text: string): number => {
    const bytes = latin1(text);
    parser.feed(bytes, 0, bytes.length);
    return parser.next();
  };
  expect(feed("*2\r\n$3\r\nSET\r\n$50\r\nabcd")).toBe(PARSED_NOTHING);
  expect([parser.heldBytes(), parser.announcedBytes()]).toEqual([22, 48]);
  expect(feed("x".repeat(46))).toBe(PARSED_NOTHING);
  expect([parser.heldBytes(), parser.announcedBytes()]).toEqual([68, 2]);
  expect(feed("\r\n")).toBe(PARSED_COMMAND);
  expect(parser.next()).toBe(PARSED_NOTHING);
  expect([parser.heldBytes(), parser.announcedBytes()]).toEqual([0, 0]);
});

test("held bytes never pass the longest command allowed", () => {
  fc.assert(
    fc.property(streams, cuts, (wire, at) => {
      const parser = new RespParser(LIMITS);
      for (const chunk of splitAt(latin1(wire), at)) {
        parser.feed(chunk, 0, chunk.length);
        for (;;) {
          const parsed = parser.next();
          expect(parser.heldBytes()).toBeLessThanOrEqual(LIMITS.commandBytesMax + 64);
          if (parsed === PARSED_NOTHING || parsed === PARSED_FAULT) break;
        }
      }
    }),
    { numRuns: 300 },
  );
});
