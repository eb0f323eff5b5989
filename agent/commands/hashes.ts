/** Hashes: fields under a key. */
import {
  makeSink,
  putBytes,
  writeArray,
  writeBulk,
  writeBulkText,
  writeInteger,
  writeIntegerText,
  writeNull,
  writeSimple,
} from "../../protocol/resp.js";
import type { ByteSink, Job } from "../core/execution.js";
import {
  NAME_BYTES_MAX,
  NAMES_MAX,
  NOT_FLOAT,
  NOT_INTEGER,
  OVERFLOW,
  REPLY_BYTES_MAX,
  SYNTAX_ERROR,
  WRONG_TYPE,
} from "./context.js";
import type { CommandRun, Context } from "./context.js";
import type { HashId } from "./effects.js";
import { fromLatin1, getU48, HASH_END, hashOf, latin1 } from "./key-hash.js";
import { follow } from "./keyspace.js";
import type { FieldValue } from "./keyspace.js";
import { ELEMENT_BYTES, Gathered, parseCursor, parseScan, replyTooLong } from "./listing.js";
import type { ScanOptions } from "./listing.js";
import { globMatch } from "./glob.js";
import { addFloats, addIntegers, formatFloat, parseFloat80, parseInteger } from "./numbers.js";
import { fieldEnd, fieldOfFieldKey, fieldPrefix, ID_BYTES, KIND_HASH, KIND_NONE } from "./rows.js";
import type { KeyState } from "./rows.js";
import { FieldsView, FieldWalk } from "./view.js";
import { tooLarge } from "./strings.js";

/** A hash of up to so many fields is listed at once. */
const FIELDS_AT_ONCE = 500;

/** A hash's state, or an error; MISSING when there is none. */
function hashAt(c: Context, key: string): KeyState | undefined {
  const state = c.read(key);
  return state.kind === KIND_NONE || state.kind === KIND_HASH ? state : undefined;
}

function fieldProblem(c: Context, index: number): string | undefined {
  if (c.length(index) <= NAME_BYTES_MAX) return undefined;
  return `ERR field too long (limit ${NAME_BYTES_MAX} bytes)`;
}

function hset(c: Context, plain: boolean): string | undefined {
  if (c.count % 2 === 1) return `ERR wrong number of arguments for '${c.name}' command`;
  for (let i = 2; i < c.count; i += 2) {
    const problem = fieldProblem(c, i);
    if (problem !== undefined) return problem;
    if (c.length(i + 1) > c.limits.valueBytesMax) return tooLarge(c);
  }
  const key = c.text(1);
  const state = hashAt(c, key);
  if (state === undefined) return WRONG_TYPE;
  const id = state.kind === KIND_HASH ? state.id! : c.newHashId();
  let created = 0;
  const seen = c.count > 4 ? new Set<string>() : undefined;
  for (let i = 2; i < c.count; i += 2) {
    const field = c.text(i);
    if (seen !== undefined) {
      if (seen.has(field)) continue;
      seen.add(field);
    }
    if (state.kind === KIND_NONE || c.field(id, field) === undefined) created++;
  }
  c.hash(key, state.expireAt, id, state.count + created);
  for (let i = 2; i < c.count; i += 2) {
    c.hashPut(id, c.text(i), c.bytes, c.starts[i + 1]!, c.ends[i + 1]!);
  }
  if (plain) writeSimple(c.reply, "OK");
  else writeInteger(c.reply, created);
  return undefined;
}

const hsetnx: CommandRun = (c) => {
  const problem = fieldProblem(c, 2);
  if (problem !== undefined) return problem;
  if (c.length(3) > c.limits.valueBytesMax) return tooLarge(c);
  const key = c.text(1);
  const state = hashAt(c, key);
  if (state === undefined) return WRONG_TYPE;
  const field = c.text(2);
  if (state.kind === KIND_HASH && c.field(state.id!, field) !== undefined) {
    writeInteger(c.reply, 0);
    return undefined;
  }
  putField(c, key, state, field, true, c.bytes, c.starts[3]!, c.ends[3]!);
  writeInteger(c.reply, 1);
  return undefined;
};

function putField(
  c: Context,
  key: string,
  state: KeyState,
  field: string,
  isNew: boolean,
  value: Uint8Array,
  start: number,
  end: number,
): void {
  const id: HashId = state.kind === KIND_HASH ? state.id! : c.newHashId();
  c.hash(key, state.expireAt, id, state.count + (isNew ? 1 : 0));
  c.hashPut(id, field, value, start, end);
}

/** The field an argument names. @returns undefined when there is none; a long name names none */
function fieldAt(c: Context, state: KeyState, index: number): FieldValue | undefined {
  if (state.kind !== KIND_HASH || c.length(index) > NAME_BYTES_MAX) return undefined;
  return c.field(state.id!, c.text(index));
}

function writeField(c: Context, value: FieldValue | undefined): void {
  if (value === undefined) writeNull(c.reply);
  else writeBulk(c.reply, value.bytes, value.start, value.end);
}

const hget: CommandRun = (c) => {
  const state = hashAt(c, c.text(1));
  if (state === undefined) return WRONG_TYPE;
  writeField(c, fieldAt(c, state, 2));
  return undefined;
};

const hmget: CommandRun = (c) => {
  const state = hashAt(c, c.text(1));
  if (state === undefined) return WRONG_TYPE;
  writeArray(c.reply, c.count - 2);
  for (let i = 2; i < c.count; i++) {
    writeField(c, fieldAt(c, state, i));
    if (c.reply.length > REPLY_BYTES_MAX) return replyTooLong();
  }
  return undefined;
};

const hlen: CommandRun = (c) => {
  const state = hashAt(c, c.text(1));
  if (state === undefined) return WRONG_TYPE;
  writeInteger(c.reply, state.count);
  return undefined;
};

const hstrlen: CommandRun = (c) => {
  const state = hashAt(c, c.text(1));
  if (state === undefined) return WRONG_TYPE;
  const value = fieldAt(c, state, 2);
  writeInteger(c.reply, value === undefined ? 0 : value.end - value.start);
  return undefined;
};

const hexists: CommandRun = (c) => {
  const state = hashAt(c, c.text(1));
  if (state === undefined) return WRONG_TYPE;
  writeInteger(c.reply, fieldAt(c, state, 2) === undefined ? 0 : 1);
  return undefined;
};

const hdel: CommandRun = (c) => {
  const key = c.text(1);
  const state = hashAt(c, key);
  if (state === undefined) return WRONG_TYPE;
  const gone = new Set<string>();
  for (let i = 2; i < c.count && state.kind === KIND_HASH; i++) {
    if (fieldAt(c, state, i) !== undefined) gone.add(c.text(i));
  }
  if (gone.size > 0) {
    if (gone.size === state.count) c.del(key, state);
    else {
      c.hash(key, state.expireAt, state.id!, state.count - gone.size);
      for (const field of gone) c.hashDel(state.id!, field);
    }
  }
  writeInteger(c.reply, gone.size);
  return undefined;
};

const hincrby: CommandRun = (c) => {
  const by = c.integer(3);
  if (by === undefined) return NOT_INTEGER;
  const problem = fieldProblem(c, 2);
  if (problem !== undefined) return problem;
  const key = c.text(1);
  const state = hashAt(c, key);
  if (state === undefined) return WRONG_TYPE;
  const old = fieldAt(c, state, 2);
  const value = old === undefined ? 0 : parseInteger(old.bytes, old.start, old.end);
  if (value === undefined) return "ERR hash value is not an integer";
  const sum = addIntegers(value, by);
  if (sum === undefined) return OVERFLOW;
  const text = sum.toString();
  const bytes = fromLatin1(text);
  putField(c, key, state, c.text(2), old === undefined, bytes, 0, bytes.length);
  writeIntegerText(c.reply, text);
  return undefined;
};

const hincrbyfloat: CommandRun = (c) => {
  const by = parseFloat80(c.text(3));
  if (by === undefined) return NOT_FLOAT;
  if (by.infinite) return "ERR value is NaN or Infinity";
  const problem = fieldProblem(c, 2);
  if (problem !== undefined) return problem;
  const key = c.text(1);
  const state = hashAt(c, key);
  if (state === undefined) return WRONG_TYPE;
  const old = fieldAt(c, state, 2);
  const value = parseFloat80(old === undefined ? "0" : latin1(old.bytes, old.start, old.end));
  if (value === undefined) return "ERR hash value is not a float";
  const sum = addFloats(value, by);
  if (sum === undefined) return "ERR increment would produce NaN or Infinity";
  const text = formatFloat(sum);
  const bytes = fromLatin1(text);
  putField(c, key, state, c.text(2), old === undefined, bytes, 0, bytes.length);
  writeBulkText(c.reply, text);
  return undefined;
};

/** HGETALL, HKEYS, HVALS in steps. */
class FieldsJob implements Job {
  reply: ByteSink = makeSink(0);
  private readonly found = new Gathered();

  constructor(
    private readonly walk: FieldWalk,
    private readonly fields: boolean,
    private readonly values: boolean,
  ) {}

  step(workMax: number): boolean {
    for (let work = workMax; work > 0; work--) {
      if (!this.walk.next()) {
        this.walk.close();
        this.reply = this.found.reply();
        return true;
      }
      const { field, value } = this.walk;
      if (this.fields) {
        const sink = this.found.next(field.length + ELEMENT_BYTES);
        if (sink !== undefined) writeBulkText(sink, field);
      }
      if (this.values) {
        const sink = this.found.next(value.end - value.start + ELEMENT_BYTES);
        if (sink !== undefined) writeBulk(sink, value.bytes, value.start, value.end);
      }
    }
    return false;
  }

  cancel(): void {
    this.walk.close();
  }
}

function list(c: Context, fields: boolean, values: boolean): string | undefined {
  const state = hashAt(c, c.text(1));
  if (state === undefined) return WRONG_TYPE;
  if (state.kind === KIND_NONE) {
    writeArray(c.reply, 0);
    return undefined;
  }
  const job = new FieldsJob(new FieldWalk(c, state, values), fields, values);
  if (state.count <= FIELDS_AT_ONCE && job.step(4 * FIELDS_AT_ONCE)) {
    putBytes(c.reply, job.reply.bytes, 0, job.reply.length);
  } else c.job = job;
  return undefined;
}

const NO_OPTIONS: ScanOptions = { count: 0, pattern: "", type: "" };

const hscan: CommandRun = (c) => {
  const cursor = parseCursor(c, 2);
  if (cursor < 0) return "ERR invalid cursor";
  const state = hashAt(c, c.text(1));
  if (state === undefined) return WRONG_TYPE;
  // Redis looks at the options only when there is something to scan.
  const options = state.kind === KIND_NONE ? NO_OPTIONS : parseScan(c, 3, false);
  if (typeof options === "string") return options;
  const found: string[] = [];
  const values: FieldValue[] = [];
  let end = HASH_END;
  if (state.kind === KIND_HASH && cursor < HASH_END) {
    const view = new FieldsView(c, state.id!);
    const rows: { field: string; hash: number; bytes: Uint8Array }[] = [];
    let from = fieldPrefix(state.id!, cursor);
    while (view.snapshot !== undefined) {
      const some = view.snapshot.range("field", from, fieldEnd(state.id!), options.count + 1);
      for (const { key, value } of some) {
        rows.push({ field: fieldOfFieldKey(key), hash: getU48(key, ID_BYTES), bytes: value });
      }
      if (some.length <= options.count) break;
      const last = rows[rows.length - 1]!.hash;
      if (last !== cursor && rows[0]!.hash !== last) {
        end = last;
        break;
      }
      from = follow(some[some.length - 1]!.key);
    }
    for (const { field, hash, bytes } of rows) {
      if (hash >= end || view.over.has(field) || !globMatch(options.pattern, field)) continue;
      found.push(field);
      values.push({ bytes, start: 0, end: bytes.length, gone: false });
    }
    for (const [field, value] of view.over) {
      if (value.gone) continue;
      const hash = hashOf(field);
      if (hash < cursor || hash >= end || !globMatch(options.pattern, field)) continue;
      found.push(field);
      values.push(value);
    }
    view.close();
  }
  writeArray(c.reply, 2);
  writeBulkText(c.reply, end === HASH_END ? "0" : String(end));
  writeArray(c.reply, found.length * 2);
  for (let i = 0; i < found.length; i++) {
    writeBulkText(c.reply, found[i]!);
    const { bytes, start, end: stop } = values[i]!;
    writeBulk(c.reply, bytes, start, stop);
  }
  return undefined;
};

/** A field of the hash near a random place; undefined only when it has none. */
function randomField(c: Context, view: FieldsView): string | undefined {
  const wanted = Math.floor(c.random() * HASH_END);
  let best: string | undefined;
  let least: string | undefined;
  let bestHash = HASH_END;
  let leastHash = HASH_END;
  for (const [field, value] of view.over) {
    if (value.gone) continue;
    const hash = hashOf(field);
    if (hash >= wanted && hash < bestHash) {
      bestHash = hash;
      best = field;
    }
    if (hash < leastHash) {
      leastHash = hash;
      least = field;
    }
  }
  const above = firstUnchanged(view, wanted);
  if (above !== undefined && getU48(above, ID_BYTES) < bestHash) return fieldOfFieldKey(above);
  if (best !== undefined) return best;
  const first = firstUnchanged(view, 0);
  if (first !== undefined && getU48(first, ID_BYTES) < leastHash) return fieldOfFieldKey(first);
  return least;
}

function firstUnchanged(view: FieldsView, hash: number): Uint8Array | undefined {
  if (view.snapshot === undefined) return undefined;
  let from = fieldPrefix(view.id, hash);
  for (let size = 4; ; size = Math.min(size * 4, 1000)) {
    const keys = view.snapshot.keys("field", from, fieldEnd(view.id), size);
    for (const key of keys) if (!view.over.has(fieldOfFieldKey(key))) return key;
    if (keys.length < size) return undefined;
    from = follow(keys[keys.length - 1]!);
  }
}

const hrandfield: CommandRun = (c) => {
  let count = 1;
  let withValues = false;
  if (c.count > 2) {
    const given = c.integer(2);
    if (given === undefined) return NOT_INTEGER;
    // The least 64-bit integer has no positive counterpart.
    if (given < -9223372036854775807n)
      return "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807";
    if (c.count > 4 || (c.count === 4 && !c.is(3, "withvalues"))) return SYNTAX_ERROR;
    withValues = c.count === 4;
    if (withValues && (given < -4611686018427387903n || given > 4611686018427387903n)) {
      return "ERR value is out of range";
    }
    if (given < -NAMES_MAX) return `ERR dyad: too many fields asked for (limit ${NAMES_MAX})`;
    count = Number(given);
  }
  const state = hashAt(c, c.text(1));
  if (state === undefined) return WRONG_TYPE;
  if (state.kind === KIND_NONE) {
    if (c.count === 2) writeNull(c.reply);
    else writeArray(c.reply, 0);
    return undefined;
  }
  if (c.count > 2 && count >= state.count) return list(c, true, withValues);
  const view = new FieldsView(c, state.id!);
  const chosen = choose(c, view, state, count);
  if (chosen === undefined) {
    view.close();
    return `ERR dyad: too many fields asked for (limit ${NAMES_MAX})`;
  }
  if (c.count > 2) writeArray(c.reply, chosen.length * (withValues ? 2 : 1));
  for (const field of chosen) {
    writeBulkText(c.reply, field);
    if (withValues) writeField(c, view.get(field));
    if (c.reply.length > REPLY_BYTES_MAX) break;
  }
  view.close();
  return c.reply.length > REPLY_BYTES_MAX ? replyTooLong() : undefined;
};

/** `count` distinct fields, or -count fields that may repeat. */
function choose(
  c: Context,
  view: FieldsView,
  state: KeyState,
  count: number,
): string[] | undefined {
  const chosen: string[] = [];
  if (state.count <= 3 * NAMES_MAX) {
    const all: string[] = [];
    const walk = new FieldWalk(c, state, false);
    while (walk.next()) all.push(walk.field);
    walk.close();
    for (let i = 0; i < Math.abs(count); i++) {
      const at = Math.floor(c.random() * all.length);
      chosen.push(all[at]!);
      // Distinct: what was taken is not there for the next.
      if (count > 0) all[at] = all[all.length - 1]!;
      if (count > 0) all.pop();
    }
    return chosen;
  }
  if (count > NAMES_MAX) return undefined;
  const seen = new Set<string>();
  while (chosen.length < Math.abs(count)) {
    const field = randomField(c, view);
    if (field === undefined) break;
    if (count > 0) {
      if (seen.has(field)) continue;
      seen.add(field);
    }
    chosen.push(field);
  }
  return chosen;
}

export const HASH_COMMANDS: Record<string, CommandRun> = {
  hset: (c) => hset(c, false),
  hmset: (c) => hset(c, true),
  hsetnx,
  hget,
  hmget,
  hgetall: (c) => list(c, true, true),
  hkeys: (c) => list(c, true, false),
  hvals: (c) => list(c, false, true),
  hlen,
  hstrlen,
  hexists,
  hdel,
  hincrby,
  hincrbyfloat,
  hscan,
  hrandfield,
};
