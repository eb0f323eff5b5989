/** Strings and counters. */
import {
  writeArray,
  writeBulk,
  writeBulkText,
  writeInteger,
  writeIntegerText,
  writeNull,
  writeSimple,
} from "../../protocol/resp.js";
import {
  EXPIRE_MAX,
  NOT_FLOAT,
  NOT_INTEGER,
  OVERFLOW,
  REPLY_BYTES_MAX,
  SYNTAX_ERROR,
  WRONG_TYPE,
} from "./context.js";
import type { CommandRun, Context } from "./context.js";
import { fromLatin1, latin1 } from "./key-hash.js";
import { replyTooLong } from "./listing.js";
import {
  addFloats,
  addIntegers,
  formatFloat,
  INT64_MAX,
  INT64_MIN,
  parseFloat80,
  parseInteger,
} from "./numbers.js";
import { KIND_HASH, KIND_NONE, KIND_STRING } from "./rows.js";
import type { KeyState } from "./rows.js";

const NO_BYTES = new Uint8Array(0);
/** What Redis allows a string to grow to (proto-max-bulk-len). @unit bytes */
const REDIS_STRING_MAX = 536870912;

const FLAG_NX = 1;
const FLAG_XX = 2;
const FLAG_GET = 4;
const FLAG_KEEPTTL = 8;
const FLAG_PERSIST = 16;
const FLAG_EX = 32;
const FLAG_PX = 64;
const FLAG_EXAT = 128;
const FLAG_PXAT = 256;
const FLAG_ANY_EXPIRE = FLAG_EX | FLAG_PX | FLAG_EXAT | FLAG_PXAT;

export function tooLarge(c: Context): string {
  return `ERR value too large (limit ${c.limits.valueBytesMax} bytes)`;
}

function writeValue(c: Context, state: KeyState): void {
  writeBulk(c.reply, state.bytes, state.start, state.end);
}

/** Options of SET (getex false) and GETEX. */
const options = { flags: 0, expireIndex: 0 };

function parseOptions(c: Context, from: number, getex: boolean): boolean {
  let flags = 0;
  options.expireIndex = 0;
  for (let i = from; i < c.count; i++) {
    const next = i + 1 < c.count;
    if (!getex && c.is(i, "nx") && (flags & FLAG_XX) === 0) flags |= FLAG_NX;
    else if (!getex && c.is(i, "xx") && (flags & FLAG_NX) === 0) flags |= FLAG_XX;
    else if (!getex && c.is(i, "get")) flags |= FLAG_GET;
    else if (!getex && c.is(i, "keepttl") && (flags & (FLAG_ANY_EXPIRE | FLAG_PERSIST)) === 0) {
      flags |= FLAG_KEEPTTL;
    } else if (getex && c.is(i, "persist") && (flags & (FLAG_ANY_EXPIRE | FLAG_KEEPTTL)) === 0) {
      flags |= FLAG_PERSIST;
    } else {
      let flag = 0;
      if (c.is(i, "ex")) flag = FLAG_EX;
      else if (c.is(i, "px")) flag = FLAG_PX;
      else if (c.is(i, "exat")) flag = FLAG_EXAT;
      else if (c.is(i, "pxat")) flag = FLAG_PXAT;
      const others = (FLAG_ANY_EXPIRE | FLAG_KEEPTTL | FLAG_PERSIST) & ~flag;
      if (flag === 0 || !next || (flags & others) !== 0) return false;
      flags |= flag;
      options.expireIndex = ++i;
    }
  }
  options.flags = flags;
  return true;
}

let parsedExpireAt = 0;

/** The time an expiry option names, into parsedExpireAt. @returns an error */
function parseExpire(c: Context, index: number, flags: number): string | undefined {
  const given = c.integer(index);
  if (given === undefined) return NOT_INTEGER;
  const invalid = `ERR invalid expire time in '${c.name}' command`;
  let value = BigInt(given);
  if (value <= 0n) return invalid;
  if ((flags & (FLAG_EX | FLAG_EXAT)) !== 0) {
    if (value > INT64_MAX / 1000n) return invalid;
    value *= 1000n;
  }
  if ((flags & (FLAG_EX | FLAG_PX)) !== 0) {
    const base = BigInt(c.now);
    if (value > INT64_MAX - base) return invalid;
    value += base;
  }
  parsedExpireAt = value > BigInt(EXPIRE_MAX) ? EXPIRE_MAX : Number(value);
  return undefined;
}

function setGeneric(
  c: Context,
  valueIndex: number,
  flags: number,
  expireIndex: number,
): string | undefined {
  let expireAt = 0;
  if (expireIndex > 0) {
    const problem = parseExpire(c, expireIndex, flags);
    if (problem !== undefined) return problem;
    expireAt = parsedExpireAt;
  }
  if (c.length(valueIndex) > c.limits.valueBytesMax) return tooLarge(c);
  const key = c.text(1);
  const old = c.read(key);
  if ((flags & FLAG_GET) !== 0) {
    if (old.kind === KIND_HASH) return WRONG_TYPE;
    if (old.kind === KIND_NONE) writeNull(c.reply);
    else writeValue(c, old);
  }
  const found = old.kind !== KIND_NONE;
  if (((flags & FLAG_NX) !== 0 && found) || ((flags & FLAG_XX) !== 0 && !found)) {
    if ((flags & FLAG_GET) === 0) writeNull(c.reply);
    return undefined;
  }
  if ((flags & FLAG_KEEPTTL) !== 0) expireAt = old.expireAt;
  if (expireAt > 0 && expireAt <= c.now && (flags & FLAG_KEEPTTL) === 0) {
    // Due as soon as it is set (EXAT, PXAT): the key is gone.
    if (found) c.del(key, old);
  } else {
    c.put(key, old, expireAt, c.bytes, c.starts[valueIndex]!, c.ends[valueIndex]!);
  }
  if ((flags & FLAG_GET) === 0) writeSimple(c.reply, "OK");
  return undefined;
}

const set: CommandRun = (c) => {
  if (c.count === 3) return setGeneric(c, 2, 0, 0);
  if (!parseOptions(c, 3, false)) return SYNTAX_ERROR;
  return setGeneric(c, 2, options.flags, options.expireIndex);
};

const setnx: CommandRun = (c) => {
  if (c.length(2) > c.limits.valueBytesMax) return tooLarge(c);
  const key = c.text(1);
  const old = c.read(key);
  if (old.kind !== KIND_NONE) {
    writeInteger(c.reply, 0);
    return undefined;
  }
  c.put(key, old, 0, c.bytes, c.starts[2]!, c.ends[2]!);
  writeInteger(c.reply, 1);
  return undefined;
};

const setex: CommandRun = (c) => setGeneric(c, 3, FLAG_EX, 2);
const psetex: CommandRun = (c) => setGeneric(c, 3, FLAG_PX, 2);

const get: CommandRun = (c) => {
  const state = c.read(c.text(1));
  if (state.kind === KIND_NONE) writeNull(c.reply);
  else if (state.kind !== KIND_STRING) return WRONG_TYPE;
  else writeValue(c, state);
  return undefined;
};

const getset: CommandRun = (c) => {
  if (c.length(2) > c.limits.valueBytesMax) return tooLarge(c);
  const key = c.text(1);
  const old = c.read(key);
  if (old.kind === KIND_HASH) return WRONG_TYPE;
  if (old.kind === KIND_NONE) writeNull(c.reply);
  else writeValue(c, old);
  c.put(key, old, 0, c.bytes, c.starts[2]!, c.ends[2]!);
  return undefined;
};

const getdel: CommandRun = (c) => {
  const key = c.text(1);
  const old = c.read(key);
  if (old.kind === KIND_HASH) return WRONG_TYPE;
  if (old.kind === KIND_NONE) {
    writeNull(c.reply);
    return undefined;
  }
  writeValue(c, old);
  c.del(key, old);
  return undefined;
};

const getex: CommandRun = (c) => {
  if (!parseOptions(c, 2, true)) return SYNTAX_ERROR;
  const { flags, expireIndex } = options;
  const key = c.text(1);
  const old = c.read(key);
  if (old.kind === KIND_NONE) {
    writeNull(c.reply);
    return undefined;
  }
  if (old.kind !== KIND_STRING) return WRONG_TYPE;
  if (expireIndex > 0) {
    const problem = parseExpire(c, expireIndex, flags);
    if (problem !== undefined) return problem;
  }
  writeValue(c, old);
  if (expireIndex > 0) {
    if (parsedExpireAt <= c.now) c.del(key, old);
    else c.expire(key, old, parsedExpireAt);
  } else if ((flags & FLAG_PERSIST) !== 0 && old.expireAt > 0) {
    c.expire(key, old, 0);
  }
  return undefined;
};

const mget: CommandRun = (c) => {
  writeArray(c.reply, c.count - 1);
  for (let i = 1; i < c.count; i++) {
    const state = c.read(c.text(i));
    if (state.kind === KIND_STRING) writeValue(c, state);
    else writeNull(c.reply);
    if (c.reply.length > REPLY_BYTES_MAX) return replyTooLong();
  }
  return undefined;
};

function wrongArity(c: Context): string {
  return `ERR wrong number of arguments for '${c.name}' command`;
}

function msetGeneric(c: Context, onlyNew: boolean): string | undefined {
  if (c.count % 2 === 0) return wrongArity(c);
  for (let i = 2; i < c.count; i += 2) {
    if (c.length(i) > c.limits.valueBytesMax) return tooLarge(c);
  }
  c.tracking = true;
  if (onlyNew) {
    for (let i = 1; i < c.count; i += 2) {
      if (c.read(c.text(i)).kind === KIND_NONE) continue;
      writeInteger(c.reply, 0);
      return undefined;
    }
  }
  for (let i = 1; i < c.count; i += 2) {
    const key = c.text(i);
    c.put(key, c.peek(key), 0, c.bytes, c.starts[i + 1]!, c.ends[i + 1]!);
  }
  if (onlyNew) writeInteger(c.reply, 1);
  else writeSimple(c.reply, "OK");
  return undefined;
}

const append: CommandRun = (c) => {
  const key = c.text(1);
  const old = c.read(key);
  if (old.kind === KIND_HASH) return WRONG_TYPE;
  const before = old.end - old.start;
  const total = before + c.length(2);
  if (total > c.limits.valueBytesMax) return tooLarge(c);
  if (before === 0) {
    c.put(key, old, old.expireAt, c.bytes, c.starts[2]!, c.ends[2]!);
  } else {
    const joined = new Uint8Array(total);
    joined.set(old.bytes.subarray(old.start, old.end), 0);
    joined.set(c.bytes.subarray(c.starts[2]!, c.ends[2]!), before);
    c.put(key, old, old.expireAt, joined, 0, total);
  }
  writeInteger(c.reply, total);
  return undefined;
};

const strlen: CommandRun = (c) => {
  const state = c.read(c.text(1));
  if (state.kind === KIND_HASH) return WRONG_TYPE;
  writeInteger(c.reply, state.end - state.start);
  return undefined;
};

const getrange: CommandRun = (c) => {
  const first = c.integer(2);
  const last = c.integer(3);
  if (first === undefined || last === undefined) return NOT_INTEGER;
  const state = c.read(c.text(1));
  if (state.kind === KIND_HASH) return WRONG_TYPE;
  const length = state.end - state.start;
  let from = Number(first);
  let to = Number(last);
  if (length === 0 || (from < 0 && to < 0 && first > last)) {
    writeBulk(c.reply, NO_BYTES, 0, 0);
    return undefined;
  }
  if (from < 0) from = Math.max(0, length + from);
  if (to < 0) to = Math.max(0, length + to);
  if (to >= length) to = length - 1;
  if (from > to) writeBulk(c.reply, NO_BYTES, 0, 0);
  else writeBulk(c.reply, state.bytes, state.start + from, state.start + to + 1);
  return undefined;
};

const setrange: CommandRun = (c) => {
  const given = c.integer(2);
  if (given === undefined) return NOT_INTEGER;
  if (given < 0) return "ERR offset is out of range";
  const key = c.text(1);
  const old = c.read(key);
  if (old.kind === KIND_HASH) return WRONG_TYPE;
  const before = old.end - old.start;
  const added = c.length(3);
  if (added === 0) {
    writeInteger(c.reply, before);
    return undefined;
  }
  const offset = Number(given);
  if (offset + added > REDIS_STRING_MAX) {
    return "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
  }
  if (offset + added > c.limits.valueBytesMax) return tooLarge(c);
  const total = Math.max(before, offset + added);
  const value = new Uint8Array(total);
  value.set(old.bytes.subarray(old.start, old.end), 0);
  value.set(c.bytes.subarray(c.starts[3]!, c.ends[3]!), offset);
  c.put(key, old, old.expireAt, value, 0, total);
  writeInteger(c.reply, total);
  return undefined;
};

function increase(c: Context, by: number | bigint): string | undefined {
  const key = c.text(1);
  const old = c.read(key);
  if (old.kind === KIND_HASH) return WRONG_TYPE;
  let value: number | bigint | undefined = 0;
  if (old.kind === KIND_STRING) {
    value = parseInteger(old.bytes, old.start, old.end);
    if (value === undefined) return NOT_INTEGER;
  }
  const sum = addIntegers(value, by);
  if (sum === undefined) return OVERFLOW;
  const text = sum.toString();
  const bytes = fromLatin1(text);
  c.put(key, old, old.expireAt, bytes, 0, bytes.length);
  writeIntegerText(c.reply, text);
  return undefined;
}

const incr: CommandRun = (c) => increase(c, 1);
const decr: CommandRun = (c) => increase(c, -1);

const incrby: CommandRun = (c) => {
  const by = c.integer(2);
  return by === undefined ? NOT_INTEGER : increase(c, by);
};

const decrby: CommandRun = (c) => {
  const by = c.integer(2);
  if (by === undefined) return NOT_INTEGER;
  if (by === INT64_MIN) return "ERR decrement would overflow";
  return increase(c, -by);
};

const incrbyfloat: CommandRun = (c) => {
  const key = c.text(1);
  const old = c.read(key);
  if (old.kind === KIND_HASH) return WRONG_TYPE;
  const text = old.kind === KIND_NONE ? "0" : latin1(old.bytes, old.start, old.end);
  const value = parseFloat80(text);
  const by = parseFloat80(c.text(2));
  if (value === undefined || by === undefined) return NOT_FLOAT;
  const sum = addFloats(value, by);
  if (sum === undefined) return "ERR increment would produce NaN or Infinity";
  const result = formatFloat(sum);
  const bytes = fromLatin1(result);
  c.put(key, old, old.expireAt, bytes, 0, bytes.length);
  writeBulkText(c.reply, result);
  return undefined;
};

export const STRING_COMMANDS: Record<string, CommandRun> = {
  set,
  setnx,
  setex,
  psetex,
  get,
  getset,
  getdel,
  getex,
  mget,
  mset: (c) => msetGeneric(c, false),
  msetnx: (c) => msetGeneric(c, true),
  append,
  strlen,
  getrange,
  substr: getrange,
  setrange,
  incr,
  decr,
  incrby,
  decrby,
  incrbyfloat,
};
