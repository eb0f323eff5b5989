import { describe, expect, it } from "vitest";
import { createExecutor } from "../../agent/commands/executor.js";
import { CLASS_MODIFY, CLASS_QUERY, CLASS_WRITE } from "../../protocol/frame.js";
import { makeSink, Subject, viewOf } from "./harness.js";
import type { Argument } from "./harness.js";

const LIMITS = { valueBytesMax: 1 << 20, entryBytesMax: 16 << 20 };

/** As the standby runs it: it may not write. */
function onStandby(subject: Subject, ...args: Argument[]): { reply: string; pastDue: boolean } {
  const reply = makeSink();
  const effects = makeSink();
  const ran = subject.executor.run(viewOf(args), reply, effects, subject.now, false);
  expect(effects.length).toBe(0);
  return {
    reply: Buffer.from(reply.bytes.subarray(0, reply.length)).toString("latin1"),
    pastDue: ran.pastDue,
  };
}

describe("what a run tells the core", () => {
  it("names the keys a reply depends on, and the whole log for many or for all", () => {
    const subject = new Subject();
    subject.do("SET", "a", "1");
    expect(subject.last).toMatchObject({ wrote: true, wholeLog: false });
    subject.do("GET", "a");
    expect(subject.last).toMatchObject({ wrote: false, wholeLog: false, keys: ["a"] });
    subject.do("SETNX", "a", "2");
    expect(subject.last).toMatchObject({ wrote: false, keys: ["a"] });
    subject.do("MGET", "a", "b");
    expect(subject.last).toMatchObject({ keys: ["a", "b"], wholeLog: false });
    subject.do("MGET", ...Array.from({ length: 40 }, (_, i) => `k${i}`));
    expect(subject.last).toMatchObject({ wholeLog: true });
    for (const args of [["DBSIZE"], ["KEYS", "*"], ["SCAN", "0"], ["RANDOMKEY"], ["INFO"]]) {
      subject.do(...args);
      expect(subject.last, args[0]).toMatchObject({ wholeLog: true, wrote: false });
    }
    subject.do("GET", "h", "wrong arity");
    expect(subject.last).toMatchObject({ wrote: false, keys: [] });
  });

  it("gives each command the class of Redis' table", () => {
    const executor = createExecutor(new Subject().keyspace, LIMITS);
    expect(executor.classOf(viewOf(["get", "a"]))).toBe(CLASS_QUERY);
    expect(executor.classOf(viewOf(["DEL", "a"]))).toBe(CLASS_MODIFY);
    expect(executor.classOf(viewOf(["Set", "a"]))).toBe(CLASS_WRITE);
    expect(executor.classOf(viewOf(["nonsense"]))).toBe(CLASS_WRITE);
    expect(executor.classOf(viewOf([]))).toBe(CLASS_WRITE);
  });

  it("an error leaves neither effects nor half a reply", () => {
    const subject = new Subject();
    subject.do("HSET", "h", "f", "1");
    const before = subject.index;
    expect(subject.do("SET", "h", "1", "GET")).toMatch(/^-WRONGTYPE/);
    expect(subject.do("GETSET", "h", "1")).toMatch(/^-WRONGTYPE/);
    expect(subject.do("GETEX", "h", "EX", "1")).toMatch(/^-WRONGTYPE/);
    subject.do("SET", "s", "1");
    expect(subject.do("GETEX", "s", "EX", "0")).toMatch(/^-ERR invalid expire/);
    expect(subject.index).toBe(before + 1);
  });
});

describe("a key past due", () => {
  it("is removed by an entry before the primary's reply", () => {
    const subject = new Subject();
    subject.do("SET", "a", "1", "PX", "100");
    subject.do("HSET", "h", "f", "1");
    subject.do("PEXPIRE", "h", "100");
    subject.now += 100;
    expect(subject.do("GET", "a")).toBe("$1\r\n1\r\n");
    subject.now += 1;
    expect(subject.do("DBSIZE")).toBe(":2\r\n");
    expect(subject.do("GET", "a")).toBe("$-1\r\n");
    expect(subject.last!.wrote).toBe(true);
    expect(subject.do("GET", "a")).toBe("$-1\r\n");
    expect(subject.last!.wrote).toBe(false);
    expect(subject.do("HSET", "h", "g", "2")).toBe(":1\r\n");
    expect(subject.do("HGETALL", "h")).toBe("*2\r\n$1\r\ng\r\n$1\r\n2\r\n");
    expect(subject.do("PTTL", "h")).toBe(":-1\r\n");
  });

  it("is asked of the primary by the standby, and is there as of the log", () => {
    const subject = new Subject();
    subject.do("SET", "a", "1", "PX", "100");
    subject.do("SET", "b", "2");
    subject.now += 101;
    expect(onStandby(subject, "GET", "a").pastDue).toBe(true);
    expect(onStandby(subject, "MGET", "b", "a").pastDue).toBe(true);
    expect(onStandby(subject, "GET", "b")).toEqual({ reply: "$1\r\n2\r\n", pastDue: false });
    subject.now = 0;
    expect(onStandby(subject, "GET", "a")).toEqual({ reply: "$1\r\n1\r\n", pastDue: false });
  });

  it("is found by the sweep wherever it lies, a bounded number at a time", () => {
    const subject = new Subject();
    for (let i = 0; i < 30; i++) subject.do("SET", `old${i}`, "1", "PX", `${100 + i}`);
    subject.do("HSET", "oldhash", "f", "1");
    subject.do("PEXPIRE", "oldhash", "50");
    subject.behind(20);
    subject.settle();
    subject.do("SET", "later", "1", "PX", "5000");
    // Stored with one time, changed to another since.
    subject.do("PEXPIRE", "old3", "9000");
    subject.do("PERSIST", "old4");
    subject.do("SET", "old5", "again");
    expect(subject.expire(10)).toBe(false);
    subject.now += 1000;
    let entries = 0;
    while (subject.expire(10)) entries++;
    expect(entries).toBe(3);
    expect(subject.do("DBSIZE")).toBe(":4\r\n");
    expect(subject.do("EXISTS", "later", "old3", "old4", "old5")).toBe(":4\r\n");
    while (subject.keyspace.overlaySize() > 0) {
      subject.behind(10);
      subject.settle();
    }
    expect(subject.store.count("expiry")).toBe(2);
    expect(subject.store.count("field")).toBe(0);
  });
});

describe("MULTI", () => {
  it("sees its own changes, and errors at run time stop nothing", () => {
    const subject = new Subject();
    const reply = subject.all(
      ["SET", "a", "5"],
      ["INCR", "a"],
      ["HSET", "a", "f", "1"],
      ["DEL", "a"],
      ["HSET", "a", "f", "1", "g", "2"],
      ["HDEL", "a", "f"],
      ["RENAME", "a", "b"],
      ["HGETALL", "b"],
      ["EXISTS", "a", "b"],
      ["KEYS", "*"],
      ["DBSIZE"],
      ["FLUSHDB"],
      ["DBSIZE"],
      ["SET", "c", "1"],
      ["DBSIZE"],
      ["SCAN", "0"],
    );
    expect(reply.split("\r\n").join(" ")).toBe(
      "*16 +OK :6 -WRONGTYPE Operation against a key holding the wrong kind of value :1 :2 :1 +OK " +
        "*2 $1 g $1 2 :1 *1 $1 b :1 +OK :0 +OK :1 *2 $1 0 *1 $1 c ",
    );
    expect(subject.log).toHaveLength(1);
    expect(subject.do("GET", "c")).toBe("$1\r\n1\r\n");
    expect(subject.do("DBSIZE")).toBe(":1\r\n");
  });

  it("is refused whole for an unknown command or a wrong number of arguments", () => {
    const subject = new Subject();
    const abort = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    expect(subject.all(["SET", "a", "1"], ["NOSUCH"])).toBe(abort);
    expect(subject.all(["SET", "a", "1"], ["GET"])).toBe(abort);
    expect(subject.log).toHaveLength(0);
    expect(subject.do("EXISTS", "a")).toBe(":0\r\n");
    expect(subject.all()).toBe("*0\r\n");
  });

  it("changes nothing when the core does not apply it", () => {
    const subject = new Subject();
    subject.do("HSET", "h", "f", "1");
    const group = [
      ["SET", "a", "1"],
      ["HSET", "h", "f", "2"],
      ["HSET", "n", "f", "3"],
    ];
    subject.executor.runAll(group.map(viewOf), makeSink(), makeSink(), subject.now);
    expect(subject.do("EXISTS", "a", "n")).toBe(":0\r\n");
    expect(subject.do("HGET", "h", "f")).toBe("$1\r\n1\r\n");
  });

  it("refuses a command in it that would take too long, the rest is done", () => {
    const subject = new Subject();
    for (let i = 0; i < 30000; i += 3000) {
      subject.do("MSET", ...Array.from({ length: 3000 }, (_, j) => [`k${i + j}`, "v"]).flat());
    }
    expect(subject.all(["KEYS", "*"], ["SET", "x", "1"])).toMatch(
      /^\*2\r\n-ERR dyad: .*MULTI\r\n\+OK/,
    );
  });
});

describe("long commands", () => {
  function filled(keys: number): Subject {
    const subject = new Subject();
    for (let i = 0; i < keys; i += 1000) {
      subject.do("MSET", ...Array.from({ length: 1000 }, (_, j) => [`k${i + j}`, "v"]).flat());
    }
    return subject;
  }

  it("KEYS goes in steps, and shows one moment whatever happens meanwhile", () => {
    const subject = filled(5000);
    subject.behind(3000);
    subject.settle();
    const reply = makeSink();
    const ran = subject.executor.run(viewOf(["KEYS", "k*"]), reply, makeSink(), subject.now, true);
    expect(reply.length).toBe(0);
    const job = ran.job!;
    let steps = 0;
    for (; !job.step(100); steps++) {
      subject.do("DEL", `k${steps * 7}`);
      subject.do("SET", `knew${steps}`, "1");
      if (steps === 10) subject.do("FLUSHDB");
      if (steps % 5 === 0) {
        subject.behind(500);
        subject.settle();
      }
    }
    expect(steps).toBeGreaterThan(40);
    const text = Buffer.from(job.reply.bytes.subarray(0, job.reply.length)).toString("latin1");
    const names = text.split("\r\n").filter((line) => line.startsWith("k"));
    expect(text.startsWith("*5000\r\n")).toBe(true);
    expect(new Set(names).size).toBe(5000);
    expect(names.some((name) => name.startsWith("knew"))).toBe(false);
  });

  it.each(["HGETALL", "HKEYS", "HVALS"])("%s of a big hash goes in steps", (name) => {
    const subject = new Subject();
    for (let i = 0; i < 3000; i += 500) {
      subject.do(
        "HSET",
        "h",
        ...Array.from({ length: 500 }, (_, j) => [`f${i + j}`, `v${i + j}`]).flat(),
      );
    }
    subject.behind(1500);
    subject.settle();
    subject.do("HDEL", "h", "f1", "f2999");
    subject.do("HSET", "h", "f7", "changed", "extra", "1");
    const ran = subject.executor.run(
      viewOf([name, "h"]),
      makeSink(),
      makeSink(),
      subject.now,
      true,
    );
    const job = ran.job!;
    let steps = 0;
    while (!job.step(50)) if (++steps === 3) subject.do("DEL", "h");
    expect(steps).toBeGreaterThan(30);
    const text = Buffer.from(job.reply.bytes.subarray(0, job.reply.length)).toString("latin1");
    const items = text.split("\r\n").filter((line) => /^(f|v|e|c)/.test(line));
    expect(text.startsWith(`*${2999 * (name === "HGETALL" ? 2 : 1)}\r\n`)).toBe(true);
    expect(items.includes("f1") || items.includes("v1")).toBe(false);
    if (name !== "HKEYS") expect(items).toContain("changed");
  });

  it("SCAN and HSCAN look at a bounded number a call, and find each key that stays", () => {
    const subject = filled(4000);
    subject.behind(2000);
    subject.settle();
    const seen = new Set<string>();
    let cursor = "0";
    let calls = 0;
    do {
      const lines = subject.do("SCAN", cursor, "COUNT", "1000000").split("\r\n");
      cursor = lines[2]!;
      const names = lines.filter((line) => line.startsWith("k"));
      expect(names.length).toBeLessThan(3100);
      for (const name of names) seen.add(name);
      subject.do("SET", `new${calls}`, "1");
      subject.do("DEL", `new${calls - 1}`);
      if (++calls === 2) {
        subject.behind(1000);
        subject.settle();
      }
    } while (cursor !== "0");
    expect(seen.size).toBe(4000);
    expect(calls).toBeGreaterThan(1);
  });

  it("RENAME, DEL and SET over a hash are one small entry however many fields it has", () => {
    const subject = new Subject();
    for (let i = 0; i < 5000; i += 500) {
      subject.do("HSET", "h", ...Array.from({ length: 500 }, (_, j) => [`f${i + j}`, "v"]).flat());
    }
    for (const args of [
      ["RENAME", "h", "i"],
      ["EXPIRE", "i", "100"],
      ["SET", "i", "1"],
    ]) {
      subject.do(...args);
      expect(subject.log.at(-1)!.effects.length).toBeLessThan(40);
    }
  });
});

describe("bounds", () => {
  it("on values, names, arguments and replies, each with an error that says so", () => {
    const subject = new Subject(undefined, { valueBytesMax: 1000, entryBytesMax: 100_000 });
    const large = "x".repeat(1001);
    for (const args of [
      ["SET", "a", large],
      ["SETNX", "a", large],
      ["GETSET", "a", large],
      ["MSET", "b", "1", "a", large],
      ["HSET", "h", "f", large],
      ["HSETNX", "h", "f", large],
      ["SETRANGE", "a", "995", "123456"],
      ["APPEND", "a", large],
    ]) {
      expect(subject.do(...args), args[0]).toBe("-ERR value too large (limit 1000 bytes)\r\n");
    }
    subject.do("SET", "a", "y".repeat(999));
    expect(subject.do("APPEND", "a", "zz")).toBe("-ERR value too large (limit 1000 bytes)\r\n");
    const name = "n".repeat(1025);
    expect(subject.do("GET", name)).toBe("-ERR key too long (limit 1024 bytes)\r\n");
    expect(subject.do("MSET", "a", "1", name, "1")).toMatch(/^-ERR key too long/);
    expect(subject.do("HSET", "h", name, "1")).toBe("-ERR field too long (limit 1024 bytes)\r\n");
    expect(subject.do("HGET", "h", name)).toBe("$-1\r\n");
    const many = Array.from({ length: 16384 }, (_, i) => `${i}`);
    expect(subject.do("DEL", ...many)).toMatch(/^-ERR dyad: too many arguments/);
    expect(subject.do("DEL", ...many.slice(1))).toBe(":0\r\n");
    expect(subject.index).toBe(1);
  });

  it("on a COPY that would not fit one entry", () => {
    const subject = new Subject(undefined, { valueBytesMax: 1000, entryBytesMax: 50_000 });
    for (let i = 0; i < 100; i++) subject.do("HSET", "h", `f${i}`, "x".repeat(900));
    const before = subject.index;
    expect(subject.do("COPY", "h", "i")).toMatch(/^-ERR dyad: COPY/);
    expect(subject.index).toBe(before);
    expect(subject.do("EXISTS", "i")).toBe(":0\r\n");
  });

  it("on the length of a reply, also inside MULTI", () => {
    const subject = new Subject();
    subject.do("SET", "a", "x".repeat(1 << 20));
    const keys = Array.from({ length: 100 }, () => "a");
    expect(subject.do("MGET", ...keys)).toMatch(/^-ERR dyad: the reply is too long/);
    const group = keys.map((key) => ["GET", key]);
    const reply = subject.all(...group, ["SET", "b", "1"]);
    expect(reply.length).toBeLessThan(70 << 20);
    expect(
      reply.endsWith("-ERR dyad: the reply is too long (limit 67108864 bytes)\r\n+OK\r\n"),
    ).toBe(true);
    expect(subject.do("GET", "b")).toBe("$1\r\n1\r\n");
  });

  it("on the work of a pattern made to be slow", () => {
    const subject = new Subject();
    subject.do("SET", "a".repeat(1000), "1");
    expect(subject.do("KEYS", `${"*a".repeat(200)}b`)).toBe("*0\r\n");
  });
});

describe("random picks", () => {
  it("RANDOMKEY and HRANDFIELD find what is there, in store and overlay alike", () => {
    const subject = new Subject();
    expect(subject.do("RANDOMKEY")).toBe("$-1\r\n");
    for (let i = 0; i < 60; i++) subject.do("SET", `k${i}`, "1");
    for (let i = 0; i < 60; i++) subject.do("HSET", "h", `f${i}`, `${i}`);
    subject.behind(60);
    subject.settle();
    for (let i = 0; i < 30; i++) subject.do("DEL", `k${i}`);
    for (let i = 0; i < 30; i++) subject.do("HDEL", "h", `f${i}`);
    const keys = new Set<string>();
    const fields = new Set<string>();
    for (let i = 0; i < 600; i++) {
      keys.add(subject.do("RANDOMKEY").split("\r\n")[1]!);
      fields.add(subject.do("HRANDFIELD", "h").split("\r\n")[1]!);
    }
    expect(keys.size).toBeGreaterThan(20);
    expect([...keys].every((key) => key === "h" || Number(key.slice(1)) >= 30)).toBe(true);
    expect(fields.size).toBeGreaterThan(20);
    expect([...fields].every((field) => Number(field.slice(1)) >= 30)).toBe(true);
    const three = subject
      .do("HRANDFIELD", "h", "3")
      .split("\r\n")
      .filter((l) => l.startsWith("f"));
    expect(new Set(three).size).toBe(3);
    expect(subject.do("HRANDFIELD", "h", "-50", "WITHVALUES")).toMatch(/^\*100\r\n/);
    expect(subject.do("HRANDFIELD", "none")).toBe("$-1\r\n");
    expect(subject.do("HRANDFIELD", "none", "2")).toBe("*0\r\n");
  });
});
