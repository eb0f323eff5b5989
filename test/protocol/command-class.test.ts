import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { expect, test } from "vitest";
import {
  MARK_ADMIN,
  MARK_BLOCKING,
  MARK_BLOCK_OPTION,
  MARK_CONNECTION,
  MARK_CONTAINER,
  MARK_CROSS_PROTOCOL,
  MARK_MOVABLE_KEYS,
  MARK_PRIMARY_ONLY,
  MARK_PUBSUB,
  MARK_SCRIPT,
  MARK_TRANSACTION,
  UNKNOWN_COMMAND,
  arityFits,
  arityOf,
  classOf,
  findCommand,
  findSubcommand,
  firstKeyOf,
  isBlocking,
  keyStepOf,
  lastKeyOf,
  marksOf,
  nameOf,
  resolveCommand,
} from "../../protocol/command-class.js";
import { CLASS_MODIFY, CLASS_QUERY, CLASS_WRITE } from "../../protocol/frame.js";
import { viewOf } from "./command-view.js";

interface Published {
  arity: number;
  flags: string[];
  keyStart: number;
  keyStop: number;
  step: number;
  subcommands?: Record<string, Published>;
}
const published = createRequire(import.meta.url)("@ioredis/commands/built/commands.json") as Record<
  string,
  Published
>;

function resolve(line: string): number {
  const view = viewOf(line.split(" "));
  return resolveCommand(view.bytes, view.count, view.starts, view.ends);
}
const classNamed = (line: string): number => classOf(resolve(line));
const marked = (line: string, mark: number): boolean => (marksOf(resolve(line)) & mark) !== 0;

test("the committed table is what the generator makes", () => {
  const made = execFileSync(process.execPath, ["bin/generate-commands.mjs", "--stdout"], {
    encoding: "utf8",
  });
  expect(readFileSync("protocol/command-table.ts", "utf8")).toBe(made);
});

test("every published command is found, in any case, with its arity and keys", () => {
  for (const [name, info] of Object.entries(published)) {
    for (const spelt of [name, name.toUpperCase(), name[0]!.toUpperCase() + name.slice(1)]) {
      const bytes = Buffer.from("xx" + spelt + "yy");
      const entry = findCommand(bytes, 2, bytes.length - 2);
      expect(nameOf(entry)).toBe(name);
      expect(arityOf(entry)).toBe(info.arity);
      expect(firstKeyOf(entry)).toBe(info.keyStart);
      expect(keyStepOf(entry)).toBe(info.step);
      expect(lastKeyOf(entry, 20)).toBe(info.keyStop < 0 ? 20 + info.keyStop : info.keyStop);
    }
  }
});

test("P5 P6: nothing that writes is classed as a query, and every read is, but scripts", () => {
  const check = (line: string, info: Published): void => {
    if (info.flags.includes("write")) expect(classNamed(line), line).not.toBe(CLASS_QUERY);
    const script = info.flags.includes("script_runner");
    if (info.flags.includes("readonly") && !script) {
      expect(classNamed(line), line).toBe(CLASS_QUERY);
    }
    if (script) expect(classNamed(line), line).toBe(CLASS_WRITE);
  };
  for (const [name, info] of Object.entries(published)) {
    check(name, info);
    for (const [sub, subInfo] of Object.entries(info.subcommands ?? {})) {
      check(name + " " + sub, subInfo);
    }
  }
});

test("write brings data in, modify changes or removes what is there", () => {
  for (const line of ["set", "HSET", "lpush", "incr", "append", "mset", "xgroup create"]) {
    expect(classNamed(line), line).toBe(CLASS_WRITE);
  }
  for (const line of ["del", "EXPIRE", "lpop", "hdel", "getdel", "persist", "XGROUP destroy"]) {
    expect(classNamed(line), line).toBe(CLASS_MODIFY);
  }
  for (const line of ["get", "OBJECT encoding", "time", "ping", "scan", "memory usage"]) {
    expect(classNamed(line), line).toBe(CLASS_QUERY);
  }
});

test("what is not in the table is a write without marks", () => {
  const long = "x".repeat(4000);
  for (const line of ["gett", "ge", "nosuch", long, "get\0", "", "eval_r\x7f"]) {
    expect(resolve(line), line).toBe(UNKNOWN_COMMAND);
    expect(classNamed(line)).toBe(CLASS_WRITE);
    expect(marksOf(resolve(line))).toBe(0);
    expect(arityFits(resolve(line), 1)).toBe(true);
  }
  expect(classNamed("object nosuch")).toBe(CLASS_WRITE);
  expect(classNamed("object")).toBe(CLASS_WRITE);
  expect(findSubcommand(findCommand(Buffer.from("get"), 0, 3), Buffer.from("x"), 0, 1)).toBe(
    UNKNOWN_COMMAND,
  );
});

test("reads whose reply depends on the time go to the primary", () => {
  const timed =
    "ttl pttl expiretime pexpiretime httl hpttl hexpiretime hpexpiretime object|freq " +
    "object|idletime time info xpending xinfo|stream xinfo|consumers";
  for (const line of timed.split(" ")) {
    expect(marked(line.replace("|", " "), MARK_PRIMARY_ONLY), line).toBe(true);
    expect(classNamed(line.replace("|", " ")), line).toBe(CLASS_QUERY);
  }
  for (const line of ["get", "object encoding", "mget", "exists"]) {
    expect(marked(line, MARK_PRIMARY_ONLY), line).toBe(false);
  }
});

test("marks of what never reaches a server as it stands", () => {
  const rows: [number, string][] = [
    [MARK_CONNECTION, "hello auth client select quit ping echo reset command readonly"],
    [MARK_TRANSACTION, "multi exec discard watch unwatch"],
    [MARK_BLOCKING, "blpop brpop blmove bzpopmin wait waitaof blmpop"],
    [MARK_BLOCK_OPTION, "xread xreadgroup"],
    [MARK_PUBSUB, "subscribe psubscribe publish unsubscribe ssubscribe pubsub"],
    [MARK_ADMIN, "config debug shutdown replicaof monitor acl cluster save bgsave sync psync"],
    [MARK_SCRIPT, "eval evalsha fcall eval_ro script function"],
    [MARK_MOVABLE_KEYS, "eval zunion sort xread lmpop"],
    [MARK_CONTAINER, "object xgroup xinfo memory"],
    [MARK_CROSS_PROTOCOL, "POST Host:"],
  ];
  for (const [mark, names] of rows) {
    for (const name of names.split(" ")) expect(marked(name, mark), name).toBe(true);
    for (const name of ["get", "set", "del", "hgetall"]) expect(marked(name, mark)).toBe(false);
  }
  expect(marked("client list", MARK_CONNECTION)).toBe(true);
  expect(marked("config get", MARK_ADMIN)).toBe(true);
  expect(marked("memory purge", MARK_ADMIN)).toBe(true);
  expect(marked("memory usage", MARK_ADMIN)).toBe(false);
});

test("XREAD blocks only with BLOCK before STREAMS", () => {
  const blocks = (line: string): boolean => {
    const view = viewOf(line.split(" "));
    return isBlocking(resolve(line), view.bytes, view.count, view.starts, view.ends);
  };
  expect(blocks("xread count 1 streams block 0")).toBe(false);
  expect(blocks("XREAD BLOCK 0 STREAMS s 0")).toBe(true);
  expect(blocks("xread count 1 streams s 0")).toBe(false);
  expect(blocks("blpop l 0")).toBe(true);
  expect(blocks("get block")).toBe(false);
});

test("arity as Redis counts it", () => {
  expect(arityFits(resolve("get"), 2)).toBe(true);
  expect(arityFits(resolve("get"), 3)).toBe(false);
  expect(arityFits(resolve("mget"), 2)).toBe(true);
  expect(arityFits(resolve("mget"), 7)).toBe(true);
  expect(arityFits(resolve("mget"), 1)).toBe(false);
});

test("our own command is a write", () => {
  expect(classNamed("DYAD.SESSION OPEN")).toBe(CLASS_WRITE);
  expect(resolve("dyad.session")).not.toBe(UNKNOWN_COMMAND);
});
