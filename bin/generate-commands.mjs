/**
 * Writes protocol/command-table.ts from the flags Redis publishes for its commands (@ioredis/commands).
 *
 *     node bin/generate-commands.mjs            writes the file
 *     node bin/generate-commands.mjs --stdout   prints it instead (a test compares the two)
 *     node bin/generate-commands.mjs --native   prints the smaller table of a board without a Redis port
 *
 * What the flags do not say is in the lists below, each with its reason.
 */
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const commands = require("@ioredis/commands/built/commands.json");
const { version } = require("@ioredis/commands/package.json");

const CLASS_QUERY = 0;
const CLASS_MODIFY = 1;
const CLASS_WRITE = 2;

// The same numbers as in protocol/command-class.ts; a test looks each of them up.
const PRIMARY_ONLY = 1;
const CONNECTION = 2;
const TRANSACTION = 4;
const BLOCKING = 8;
const BLOCK_OPTION = 16;
const PUBSUB = 32;
const ADMIN = 64;
const SCRIPT = 128;
const MOVABLE_KEYS = 256;
const CONTAINER = 512;
const CROSS_PROTOCOL = 1024;

/** Concern the client's own connection, of which the servers know nothing: the controller answers. */
const connection = new Set(
  "asking auth client command echo hello ping quit readonly readwrite reset select".split(" "),
);

const transaction = new Set("multi exec discard watch unwatch".split(" "));

/** The reply depends on the time, or on the one server that gives it: always the primary answers. */
const primaryOnly = new Set(
  (
    "ttl pttl expiretime pexpiretime httl hpttl hexpiretime hpexpiretime " +
    "object|freq object|idletime xpending xinfo|consumers xinfo|stream time info lastsave role " +
    // Caches its result in the value it reads.
    "pfcount"
  ).split(" "),
);

/** Carry neither the flag for reading nor the one for writing, and change nothing. */
const query = new Set("time info lastsave role lolwut".split(" "));

/** Containers that are for operators as a whole; those of the flag `admin` come on top. */
const admin = new Set("acl backup cluster config hotkeys latency module slowlog".split(" "));
const adminSubcommands = new Set(
  "memory|doctor memory|malloc-stats memory|purge memory|stats".split(" "),
);

/** Block only when the word BLOCK is among the arguments. */
const blockOption = new Set(["xread", "xreadgroup"]);

/** Run code: what it does is not known before. */
const script = new Set("eval eval_ro evalsha evalsha_ro fcall fcall_ro script function".split(" "));

/** Ours, and two that are no commands but lines of an HTTP request: a browser made to talk to us. */
const extra = {
  "dyad.session": { arity: -2, flags: ["write", "denyoom"], keyStart: 0, keyStop: 0, step: 0 },
  post: { arity: -1, flags: [], keyStart: 0, keyStop: 0, step: 0 },
  "host:": { arity: -1, flags: [], keyStart: 0, keyStop: 0, step: 0 },
};

/**
 * All that a board without a Redis port has to know of a command: what it must refuse, what only the primary may answer,
 * and of everyday commands which key they name. Any other is taken to meet all keys: it waits for its own connection's
 * reads, and nothing worse.
 */
const NATIVE_MARKS = ADMIN | PUBSUB | TRANSACTION | BLOCKING | BLOCK_OPTION | PRIMARY_ONLY;
const everyday = new Set(
  (
    "append decr decrby del exists expire get getdel getex getset hdel hexists hget hgetall hincrby hlen hmget hset " +
    "incr incrby mget mset persist pexpire set setex setnx strlen type unlink"
  ).split(" "),
);

function entryOf(fullName, info, parentMarks) {
  const flags = new Set(info.flags);
  let marks = parentMarks;
  if (primaryOnly.has(fullName)) marks |= PRIMARY_ONLY;
  if (connection.has(fullName)) marks |= CONNECTION;
  if (transaction.has(fullName)) marks |= TRANSACTION;
  if (blockOption.has(fullName)) marks |= BLOCK_OPTION;
  else if (flags.has("blocking")) marks |= BLOCKING;
  if (flags.has("pubsub") || fullName === "pubsub") marks |= PUBSUB;
  if (flags.has("admin") || admin.has(fullName) || adminSubcommands.has(fullName)) marks |= ADMIN;
  if (script.has(fullName)) marks |= SCRIPT;
  if (flags.has("movablekeys")) marks |= MOVABLE_KEYS;
  if (fullName === "post" || fullName === "host:") marks |= CROSS_PROTOCOL;
  let commandClass = CLASS_WRITE;
  if (script.has(fullName)) commandClass = CLASS_WRITE;
  else if (flags.has("readonly") || query.has(fullName) || connection.has(fullName)) {
    commandClass = CLASS_QUERY;
  } else if (flags.has("write") && !flags.has("denyoom")) commandClass = CLASS_MODIFY;
  const name = fullName.slice(fullName.indexOf("|") + 1);
  return { name, commandClass, marks, arity: info.arity, keys: keyIndex(info), subs: [] };
}

const keySpecs = [[0, 0, 0]];

function keyIndex({ keyStart, keyStop, step }) {
  const spec = [keyStart, keyStop, step];
  let index = keySpecs.findIndex((known) => known.join() === spec.join());
  if (index < 0) index = keySpecs.push(spec) - 1;
  return index;
}

const native = process.argv.includes("--native");
const entries = [];
for (const [name, info] of Object.entries({ ...commands, ...extra }).sort()) {
  const entry = entryOf(name, info, 0);
  if (native && (entry.marks & NATIVE_MARKS) === 0 && !everyday.has(name)) continue;
  for (const [sub, subInfo] of Object.entries(info.subcommands ?? {}).sort()) {
    if (native || connection.has(name) || entry.marks & (ADMIN | SCRIPT | PUBSUB)) continue;
    const subEntry = entryOf(`${name}|${sub}`, subInfo, 0);
    // One that differs in nothing from its container need not be listed.
    const differs =
      subEntry.commandClass !== entry.commandClass ||
      subEntry.marks !== entry.marks ||
      subEntry.keys !== entry.keys;
    if (differs) entry.subs.push(subEntry);
  }
  if (entry.subs.length > 0) entry.marks |= CONTAINER;
  entries.push(entry);
}

// Characters stand for numbers: '#' for 0 up to '|' for 89.
const digit = (value) => {
  if (value < 0 || value > 89) throw new Error(`no digit for ${value}`);
  return String.fromCharCode(35 + value);
};
const twoDigits = (value) => digit(Math.floor(value / 90)) + digit(value % 90);

const pack = (entry) => {
  let packed =
    digit(entry.name.length) +
    entry.name +
    digit(entry.arity + 45) +
    twoDigits(entry.marks * 3 + entry.commandClass) +
    digit(entry.keys);
  if (entry.subs.length > 0) packed += digit(entry.subs.length) + entry.subs.map(pack).join("");
  return packed;
};

const BUCKETS = native ? 32 : 128;
const bucketOf = (name, first, middle, last) =>
  (name.charCodeAt(0) * first +
    name.charCodeAt(name.length >> 1) * middle +
    name.charCodeAt(name.length - 1) * last +
    name.length) &
  (BUCKETS - 1);

/** The multipliers that spread the names best: fewest names looked at for each name looked up. */
function bestMultipliers() {
  let best;
  for (let first = 1; first < 64; first += 2) {
    for (let middle = 1; middle < 64; middle += 2) {
      for (let last = 1; last < 64; last += 2) {
        const sizes = new Array(BUCKETS).fill(0);
        let cost = 0;
        for (const entry of entries) cost += ++sizes[bucketOf(entry.name, first, middle, last)];
        if (best === undefined || cost < best.cost) best = { cost, first, middle, last };
      }
    }
  }
  return best;
}

const best = bestMultipliers();
const buckets = Array.from({ length: BUCKETS }, () => []);
for (const entry of entries) {
  buckets[bucketOf(entry.name, best.first, best.middle, best.last)].push(entry);
}
let offsets = "";
let body = "";
for (const bucket of buckets) {
  offsets += twoDigits((BUCKETS + 1) * 2 + body.length);
  body += bucket.map(pack).join("");
}
offsets += twoDigits((BUCKETS + 1) * 2 + body.length);
const table = offsets + body;

const lines = [];
for (let at = 0; at < table.length; at += 80) {
  lines.push(`  ${JSON.stringify(table.slice(at, at + 80))}`);
}

const text = `/**
 * Generated by \`node bin/generate-commands.mjs\` from @ioredis/commands ${version}: do not edit.
 *
 * ${entries.length} commands in one packed string; command-class.ts says how it is read.
 */
/* eslint-disable */
/** A function, so that a chip need not keep the string once it has read it. */
// prettier-ignore
export function packedCommands(): string {
  return (
${lines.map((line) => "  " + line).join(" +\n")}
  );
}

/** Buckets of the table; its first characters say where each begins. */
export const BUCKETS = ${BUCKETS};
/** What the first, the middle and the last character of a name count for in its bucket. */
export const FIRST_WEIGHT = ${best.first};
export const MIDDLE_WEIGHT = ${best.middle};
export const LAST_WEIGHT = ${best.last};

/** Key positions: first, last (negative: from the end), step; three numbers for each kind of command. */
// prettier-ignore
export const KEY_SPECS = [
${keySpecs.map((spec) => `  ${spec.join(", ")},`).join("\n")}
];
`;

if (native || process.argv.includes("--stdout")) process.stdout.write(text);
else {
  writeFileSync(fileURLToPath(new URL("../protocol/command-table.ts", import.meta.url)), text);
}
