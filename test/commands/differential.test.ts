/**
 * The same seeded random commands to a real Redis 7 and to our executor give the same bytes.
 *
 * Listed exceptions: the order of KEYS, SCAN, HSCAN, HGETALL, HKEYS, HVALS; what RANDOMKEY and HRANDFIELD pick;
 * SCAN cursors that were never given out; times of expiry beyond the year 10889; how long DBSIZE counts a
 * key that was past due when it was set; remaining times within a second of each other (two clocks); a
 * database other than 0; names longer than 1024 bytes and values larger than configured.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createMemoryStore } from "../../agent/store/memory.js";
import { decodeReply } from "../../protocol/resp-reply.js";
import type { ReplyValue } from "../../protocol/resp-reply.js";
import { Subject } from "./harness.js";
import type { Argument } from "./harness.js";
import { REDIS_PATH, RedisProcess, redisIsThere } from "./redis-process.js";

const there = redisIsThere();
if (!there) console.log(`skipped: no ${REDIS_PATH} on this machine to compare with`);

class Random {
  constructor(private state: number) {}
  next(below: number): number {
    this.state = (Math.imul(this.state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.state / 0x100000000) * below);
  }
  of<T>(values: readonly T[]): T {
    return values[this.next(values.length)]!;
  }
  chance(percent: number): boolean {
    return this.next(100) < percent;
  }
}

const NUMBERS = [
  "0",
  "1",
  "-1",
  "2",
  "10",
  "-10",
  "100",
  "007",
  "+5",
  "-0",
  " 3",
  "3 ",
  "1.5",
  "",
  "abc",
  "9223372036854775807",
  "-9223372036854775808",
  "9223372036854775808",
  "-9223372036854775809",
  "9007199254740993",
  "-9007199254740993",
  "9223372036854775806",
  "999999999999999",
  "1000000000000000",
  "12345678901234567890123",
  "4611686018427387904",
  "-4611686018427387904",
  "2147483648",
  "536870913",
] as const;
const FLOATS = [
  "0",
  "1",
  "-1",
  "0.1",
  "0.2",
  "3.0e3",
  "5.0e-3",
  "1e308",
  "1e400",
  "-1e4900",
  "1e4932",
  "1e5000",
  "1e-400",
  "1e-5000",
  "inf",
  "-inf",
  "+Infinity",
  "nan",
  "0x10",
  "0x1.8p3",
  "0x.8",
  "1.",
  ".5",
  ".",
  "1e",
  "abc",
  " 1",
  "1 ",
  "+1.25",
  "-0",
  "-0.0",
  "123456789.123456789",
  "0.1000000000000000055511151231257827",
  "10.5",
  "9007199254740993",
  "1e-17",
  "1e-18",
  "18446744073709551615.5",
  "99999999999999999999999999",
  "3.14159265358979323846",
] as const;
const VALUES = [
  ...NUMBERS,
  ...FLOATS,
  "hello",
  "x".repeat(45),
  "x".repeat(200),
  "\x00\xff\r\n",
  "a b",
] as const;
const KEYS = ["a", "b", "c", "h1", "h2", "key\x00\xff", "", "long" + "k".repeat(100)] as const;
const FIELDS = ["f", "g", "h", "", "\xff\x00", "1", "field" + "f".repeat(80)] as const;
const OFFSETS = [
  "0",
  "1",
  "-1",
  "3",
  "-3",
  "5",
  "100",
  "-100",
  "abc",
  "9223372036854775807",
  "-9223372036854775808",
  "600000000",
  "4294967296",
] as const;
const SPANS = [
  "100",
  "1000",
  "5000",
  "-1",
  "0",
  "abc",
  "9223372036854775807",
  "200000000000",
  "-9223372036854775808",
  "123456",
  "1e3",
] as const;
/** In ms, none so short that a key ends while the test runs. */
const SPANS_MS = [
  "100000",
  "1000000",
  "5000000",
  "-1",
  "0",
  "abc",
  "9223372036854775807",
  "1e5",
] as const;
const WORDS = [
  "nx",
  "XX",
  "GT",
  "lt",
  "GET",
  "KEEPTTL",
  "keepttl",
  "EX",
  "px",
  "EXAT",
  "PXAT",
  "PERSIST",
  "foo",
  "",
  "MATCH",
  "count",
  "100",
] as const;
const PATTERNS = [
  "*",
  "h*",
  "?",
  "[a-c]",
  "[^a]",
  "h[12]",
  "\\*",
  "*k*",
  "a",
  "[c-a]",
  "[",
  "[a",
  "\\",
  "**1",
  "*\xff",
  "h?",
  "[\\a]",
] as const;

/** Seconds and ms since 1970 well in the future, so that nothing ends while the test runs. */
const FUTURE = ["33000000000", "4102444800", "1", "-5", "0", "abc"] as const;
const FUTURE_MS = ["4102444800000", "4102444800123", "1", "-5", "0", "abc", "99999999999"] as const;

type Maker = (r: Random) => Argument[];

const key = (r: Random): string => r.of(KEYS);
const some = (r: Random, make: (r: Random) => string, most: number): string[] => {
  const made: string[] = [];
  for (let n = r.next(most + 1); n > 0; n--) made.push(make(r));
  return made;
};
const setOptions = (r: Random): string[] => {
  const found: string[] = [];
  for (let n = r.next(4); n > 0; n--) {
    const pick = r.next(8);
    if (pick === 0) found.push(r.of(["NX", "nx", "XX", "xX"]));
    else if (pick === 1) found.push("GET");
    else if (pick === 2) found.push(r.of(["KEEPTTL", "PERSIST"]));
    else if (pick === 3) found.push("EX", r.of(SPANS));
    else if (pick === 4) found.push("px", r.of(SPANS_MS));
    else if (pick === 5) found.push("EXAT", r.of(FUTURE));
    else if (pick === 6) found.push("PXAT", r.of(FUTURE_MS));
    else found.push(r.of(WORDS));
  }
  return found;
};

const MAKERS: [number, Maker][] = [
  [6, (r) => ["SET", key(r), r.of(VALUES)]],
  [8, (r) => ["SET", key(r), r.of(VALUES), ...setOptions(r)]],
  [2, (r) => ["SETNX", key(r), r.of(VALUES)]],
  [2, (r) => ["SETEX", key(r), r.of(SPANS), r.of(VALUES)]],
  [2, (r) => ["PSETEX", key(r), r.of(SPANS_MS), r.of(VALUES)]],
  [6, (r) => ["GET", key(r)]],
  [2, (r) => ["GETSET", key(r), r.of(VALUES)]],
  [2, (r) => ["GETDEL", key(r)]],
  [4, (r) => ["GETEX", key(r), ...setOptions(r)]],
  [3, (r) => ["MGET", ...some(r, key, 5)]],
  [3, (r) => ["MSET", ...some(r, (x) => (x.chance(60) ? key(x) : x.of(VALUES)), 6)]],
  [2, (r) => ["MSETNX", key(r), r.of(VALUES), ...(r.chance(50) ? [key(r), r.of(VALUES)] : [])]],
  [3, (r) => ["APPEND", key(r), r.of(VALUES)]],
  [2, (r) => ["STRLEN", key(r)]],
  [4, (r) => [r.of(["GETRANGE", "SUBSTR"]), key(r), r.of(OFFSETS), r.of(OFFSETS)]],
  [
    4,
    (r) => [
      "SETRANGE",
      key(r),
      r.chance(70) ? r.of(["0", "1", "5", "40"]) : r.of(OFFSETS),
      r.of(VALUES),
    ],
  ],
  [4, (r) => [r.of(["INCR", "DECR"]), key(r)]],
  [5, (r) => [r.of(["INCRBY", "DECRBY"]), key(r), r.of(NUMBERS)]],
  [6, (r) => ["INCRBYFLOAT", key(r), r.of(FLOATS)]],
  [5, (r) => [r.of(["DEL", "UNLINK"]), ...some(r, key, 3)]],
  [3, (r) => [r.of(["EXISTS", "TOUCH"]), ...some(r, key, 4)]],
  [2, (r) => ["TYPE", key(r)]],
  [4, (r) => [r.of(["RENAME", "RENAMENX"]), key(r), key(r)]],
  [
    3,
    (r) => [
      "COPY",
      key(r),
      key(r),
      ...(r.chance(50) ? ["REPLACE"] : []),
      ...(r.chance(20) ? ["DB", r.of(["0", "abc", "-1", "99"])] : []),
    ],
  ],
  [2, (r) => ["DBSIZE", ...(r.chance(10) ? ["x"] : [])]],
  [1, (r) => ["OBJECT", "ENCODING", "none" + key(r)]],
  [2, (r) => ["KEYS", r.of(PATTERNS)]],
  [
    8,
    (r) => [
      ...(r.chance(50) ? ["EXPIRE", key(r), r.of(SPANS)] : ["PEXPIRE", key(r), r.of(SPANS_MS)]),
      ...some(r, (x) => x.of(["NX", "xx", "GT", "lt", "foo", "nx"]), 2),
    ],
  ],
  [
    4,
    (r) => ["EXPIREAT", key(r), r.of(FUTURE), ...some(r, (x) => x.of(["NX", "xx", "GT", "lt"]), 1)],
  ],
  [
    4,
    (r) => [
      "PEXPIREAT",
      key(r),
      r.of(FUTURE_MS),
      ...some(r, (x) => x.of(["NX", "xx", "GT", "lt"]), 1),
    ],
  ],
  [3, (r) => [r.of(["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]), key(r)]],
  [2, (r) => ["PERSIST", key(r)]],
  [
    8,
    (r) => [
      r.of(["HSET", "HMSET"]),
      key(r),
      r.of(FIELDS),
      r.of(VALUES),
      ...some(r, (x) => (x.chance(50) ? x.of(FIELDS) : x.of(VALUES)), 4),
    ],
  ],
  [2, (r) => ["HSETNX", key(r), r.of(FIELDS), r.of(VALUES)]],
  [3, (r) => ["HGET", key(r), r.of(FIELDS)]],
  [2, (r) => ["HMGET", key(r), ...some(r, (x) => x.of(FIELDS), 4)]],
  [3, (r) => [r.of(["HGETALL", "HKEYS", "HVALS"]), key(r)]],
  [2, (r) => ["HLEN", key(r)]],
  [2, (r) => [r.of(["HSTRLEN", "HEXISTS"]), key(r), r.of(FIELDS)]],
  [4, (r) => ["HDEL", key(r), ...some(r, (x) => x.of(FIELDS), 3)]],
  [4, (r) => ["HINCRBY", key(r), r.of(FIELDS), r.of(NUMBERS)]],
  [5, (r) => ["HINCRBYFLOAT", key(r), r.of(FIELDS), r.of(FLOATS)]],
  [
    2,
    (r) => [
      "SCAN",
      r.of(["0", "0", "abc", " 0", "99999999999999999999999", "+0"]),
      ...(r.chance(40) ? ["MATCH", r.of(PATTERNS)] : []),
      ...(r.chance(80) ? ["COUNT", r.of(["1000", "1000", "0", "-1", "abc"])] : ["COUNT", "500"]),
      ...(r.chance(20) ? ["TYPE", r.of(["string", "HASH", "list", "zz"])] : []),
    ],
  ],
  [
    2,
    (r) => [
      "HSCAN",
      key(r),
      "0",
      ...(r.chance(40) ? ["MATCH", r.of(PATTERNS)] : []),
      ...(r.chance(50) ? ["COUNT", r.of(["1000", "0", "x"])] : []),
      ...(r.chance(10) ? ["TYPE", "string"] : []),
    ],
  ],
  [
    2,
    (r) => [
      "HRANDFIELD",
      key(r),
      r.of(["0", "100", "1000", "abc", "-9223372036854775808", "9223372036854775807"]),
      ...(r.chance(40) ? [r.of(["WITHVALUES", "withvalues", "x"])] : []),
      ...(r.chance(5) ? ["x"] : []),
    ],
  ],
  [
    1,
    (r) => [
      r.of(["FLUSHDB", "FLUSHALL"]),
      ...(r.chance(60) ? [r.of(["x", "ASYNC", "SYNC", "x"])] : []),
    ],
  ],
  [1, (r) => ["PING", ...some(r, (x) => x.of(VALUES), 2)]],
  [1, (r) => ["ECHO", ...some(r, (x) => x.of(VALUES), 2)]],
  [
    2,
    (r) => [
      r.of(["foo", "GETT", "", "x".repeat(200), "a\r\nb", "q\x00r"]),
      ...some(r, (x) => x.of(VALUES), 5),
    ],
  ],
  [
    2,
    (r) => [
      r.of([
        "GET",
        "SET",
        "hset",
        "INCRBY",
        "Expire",
        "ttl",
        "getrange",
        "SETRANGE",
        "COPY",
        "hincrbyfloat",
      ]),
      ...some(r, (x) => x.of(VALUES), 3),
    ],
  ],
];

const UNORDERED = new Set(["KEYS", "SCAN", "HSCAN", "HGETALL", "HKEYS", "HVALS", "HRANDFIELD"]);
const TIMES = new Set(["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]);
const total = MAKERS.reduce((sum, [weight]) => sum + weight, 0);

function make(r: Random): Argument[] {
  let at = r.next(total);
  for (const [weight, maker] of MAKERS) {
    if (at < weight) return maker(r);
    at -= weight;
  }
  throw new Error("weights");
}

function shown(value: ReplyValue): string {
  if (value instanceof Uint8Array) return JSON.stringify(Buffer.from(value).toString("latin1"));
  if (Array.isArray(value)) return `[${value.map(shown).join(" ")}]`;
  return JSON.stringify(value);
}

/** The reply in a form that is the same for replies that count as the same. */
function canonical(args: Argument[], reply: string): string {
  const name = String(args[0]).toUpperCase();
  if (!UNORDERED.has(name) || reply[0] === "-") return reply;
  const bytes = Buffer.from(reply, "latin1");
  const value = decodeReply(bytes, 0, bytes.length);
  if (!Array.isArray(value)) return reply;
  const scans = name === "SCAN" || name === "HSCAN";
  const list = (scans ? value[1] : value) as ReplyValue[];
  const paired =
    name === "HGETALL" || name === "HSCAN" || (name === "HRANDFIELD" && args.length === 4);
  const items: string[] = [];
  for (let i = 0; i < list.length; i += paired ? 2 : 1) {
    items.push(shown(list[i]!) + (paired ? shown(list[i + 1]!) : ""));
  }
  return (scans ? shown(value[0]!) : "") + items.sort().join(",");
}

function same(args: Argument[], theirs: string, ours: string): boolean {
  if (theirs === ours) return true;
  if (TIMES.has(String(args[0]).toUpperCase()) && theirs[0] === ":" && ours[0] === ":") {
    const a = Number(theirs.slice(1));
    const b = Number(ours.slice(1));
    return (
      a > 0 &&
      b > 0 &&
      Math.abs(a - b) <= (a > 1e6 || String(args[0]).toUpperCase().startsWith("P") ? 1000 : 1)
    );
  }
  return canonical(args, theirs) === canonical(args, ours);
}

describe.skipIf(!there)("differential: the same replies as Redis 7", () => {
  let redis: RedisProcess;
  beforeAll(async () => {
    redis = await RedisProcess.start();
  });
  afterAll(async () => redis.stop());

  const seeds = Number(process.env["DYAD_SEEDS"] ?? 12);
  const commands = Number(process.env["DYAD_COMMANDS"] ?? 1500);
  const first = Number(process.env["DYAD_SEED"] ?? 1);

  it.each(Array.from({ length: seeds }, (_, i) => first + i))("seed %i", async (seed) => {
    const r = new Random(seed);
    const subject = new Subject(
      createMemoryStore({ visible: r.chance(50) ? "at-once" : "at-done" }),
    );
    await redis.do("FLUSHALL");
    const done: Argument[][] = [];
    for (let i = 0; i < commands; i++) {
      const args = make(r);
      done.push(args);
      subject.now = Date.now();
      // A key set past due is gone here; Redis counts it until it is looked at.
      if (args[0] === "DBSIZE") await redis.do("EXISTS", ...KEYS);
      const ours = subject.do(...args);
      const theirs = await redis.do(...args);
      if (!same(args, theirs, ours)) {
        const before = done
          .slice(-6)
          .map((a) => JSON.stringify(a))
          .join("\n");
        expect.fail(
          `seed ${seed}, command ${i}:\n${before}\nRedis: ${JSON.stringify(theirs)}\n ours: ${JSON.stringify(ours)}`,
        );
      }
      // What lies where must not show: parts of the overlay go to the store in between.
      if (r.chance(10))
        subject.behind(1 + r.next(8), r.chance(30) ? subject.index - r.next(5) : Infinity);
      if (r.chance(10)) subject.settle();
    }
  });

  it.each([101, 102, 103, 104])("MULTI, seed %i", async (seed) => {
    const r = new Random(seed);
    const subject = new Subject();
    await redis.do("FLUSHALL");
    for (let i = 0; i < 150; i++) {
      const group: Argument[][] = [];
      for (let n = 1 + r.next(8); n > 0; n--) {
        const args = make(r);
        // Most groups should run, not be thrown out for one bad command.
        if (r.chance(97) && /^-ERR (unknown|wrong number)/.test(new Subject().do(...args)))
          continue;
        if (
          !UNORDERED.has(String(args[0]).toUpperCase()) &&
          !TIMES.has(String(args[0]).toUpperCase())
        )
          group.push(args);
      }
      await redis.do("EXISTS", ...KEYS);
      await redis.do("MULTI");
      for (const args of group) await redis.do(...args);
      subject.now = Date.now();
      const ours = subject.all(...group);
      const theirs = await redis.do("EXEC");
      const what = group.map((a) => JSON.stringify(a)).join("\n");
      expect(ours, `seed ${seed}, group ${i}:\n${what}`).toBe(theirs);
      if (r.chance(20)) subject.behind(5);
      if (r.chance(20)) subject.settle();
    }
  });
});
