/** Keys whatever they hold: DEL, EXISTS, RENAME, COPY, KEYS, SCAN and their like. */
import {
  makeSink,
  putBytes,
  writeArray,
  writeBulk,
  writeBulkText,
  writeInteger,
  writeNull,
  writeSimple,
} from "../../protocol/resp.js";
import type { ByteSink, Job } from "../core/execution.js";
import type { Snapshot, Store } from "../core/store.js";
import { NO_SUCH_KEY, NOT_INTEGER, SYNTAX_ERROR } from "./context.js";
import type { CommandRun, Context } from "./context.js";
import { globMatch, globSteps, matchesAll } from "./glob.js";
import { getU48, HASH_BYTES, HASH_END, latin1 } from "./key-hash.js";
import { follow } from "./keyspace.js";
import { ELEMENT_BYTES, Gathered, parseCursor, parseScan } from "./listing.js";
import { parseInteger } from "./numbers.js";
import { dataKey, hashPrefix, KIND_HASH, KIND_NONE, KIND_STRING } from "./rows.js";
import { FieldWalk, KeysView } from "./view.js";

/** Fields a COPY may bring over: all of them must be in one entry. */
const COPY_FIELDS_MAX = 10000;
/** A keyspace this small is listed at once. */
const KEYS_AT_ONCE = 500;
const KEYS_A_READ = 500;
/** Steps of matching a pattern that count as much as a key. */
const STEPS_A_WORK = 100;
const FROM_START = new Uint8Array(0);

const del: CommandRun = (c) => {
  c.tracking = true;
  let removed = 0;
  for (let i = 1; i < c.count; i++) {
    const key = c.text(i);
    const state = c.read(key);
    if (state.kind === KIND_NONE) continue;
    c.del(key, state);
    removed++;
  }
  writeInteger(c.reply, removed);
  return undefined;
};

const exists: CommandRun = (c) => {
  let found = 0;
  for (let i = 1; i < c.count; i++) if (c.read(c.text(i)).kind !== KIND_NONE) found++;
  writeInteger(c.reply, found);
  return undefined;
};

const type: CommandRun = (c) => {
  const { kind } = c.read(c.text(1));
  writeSimple(c.reply, kind === KIND_STRING ? "string" : kind === KIND_HASH ? "hash" : "none");
  return undefined;
};

function rename(c: Context, onlyNew: boolean): string | undefined {
  const from = c.text(1);
  const to = c.text(2);
  c.tracking = true;
  const state = c.read(from);
  if (state.kind === KIND_NONE) return NO_SUCH_KEY;
  if (from === to) {
    if (onlyNew) writeInteger(c.reply, 0);
    else writeSimple(c.reply, "OK");
    return undefined;
  }
  const target = c.read(to);
  if (target.kind !== KIND_NONE && onlyNew) {
    writeInteger(c.reply, 0);
    return undefined;
  }
  if (state.kind === KIND_HASH) {
    c.dropOf(target);
    c.hash(to, state.expireAt, state.id!, state.count);
    c.release(from);
  } else {
    c.put(to, target, state.expireAt, state.bytes, state.start, state.end);
    c.del(from, state);
  }
  if (onlyNew) writeInteger(c.reply, 1);
  else writeSimple(c.reply, "OK");
  return undefined;
}

const copy: CommandRun = (c) => {
  let replace = false;
  for (let i = 3; i < c.count; i++) {
    if (c.is(i, "replace")) replace = true;
    else if (c.is(i, "db") && i + 1 < c.count) {
      const db = c.integer(++i);
      if (db === undefined || db < -2147483648 || db > 2147483647) return NOT_INTEGER;
      if (db !== 0) return "ERR DB index is out of range";
    } else return SYNTAX_ERROR;
  }
  const from = c.text(1);
  const to = c.text(2);
  if (from === to) return "ERR source and destination objects are the same";
  c.tracking = true;
  const state = c.read(from);
  const target = c.read(to);
  if (state.kind === KIND_NONE || (target.kind !== KIND_NONE && !replace)) {
    writeInteger(c.reply, 0);
    return undefined;
  }
  if (state.kind === KIND_STRING) {
    c.put(to, target, state.expireAt, state.bytes, state.start, state.end);
    writeInteger(c.reply, 1);
    return undefined;
  }
  if (state.count > COPY_FIELDS_MAX) {
    return `ERR dyad: COPY of a hash with more than ${COPY_FIELDS_MAX} fields is not possible`;
  }
  const id = c.newHashId();
  const walk = new FieldWalk(c, state, true);
  c.dropOf(target);
  c.hash(to, state.expireAt, id, state.count);
  let enough = true;
  while (walk.next()) {
    const { value } = walk;
    c.hashPut(id, walk.field, value.bytes, value.start, value.end);
    if (c.effects.length <= c.limits.entryBytesMax) continue;
    enough = false;
    break;
  }
  walk.close();
  if (!enough) return "ERR dyad: COPY of a hash this large is not possible";
  writeInteger(c.reply, 1);
  return undefined;
};

/** Counts the keys there were when it began: looks up those of which that is not known yet, in the store as it was. */
class CountJob implements Job {
  readonly reply = makeSink(24);
  private readonly rows: Snapshot;
  private at = 0;

  constructor(
    store: Store,
    private readonly unseen: string[],
    private size: number,
  ) {
    this.rows = store.snapshot();
  }

  step(workMax: number): boolean {
    const { rows, unseen } = this;
    const end = Math.min(unseen.length, this.at + Math.max(1, workMax));
    for (; this.at < end; this.at++) {
      if (rows.get("data", dataKey(unseen[this.at]!)) !== undefined) this.size--;
    }
    if (this.at < unseen.length) return false;
    rows.close();
    writeInteger(this.reply, this.size);
    return true;
  }

  cancel(): void {
    this.rows.close();
  }
}

const dbsize: CommandRun = (c) => {
  c.wholeLog = true;
  const unseen = c.unseenKeys();
  if (unseen.length === 0) {
    writeInteger(c.reply, c.sizeAtMost());
    return undefined;
  }
  if (c.tracking) {
    // A count in steps over what stands now could not be stepped here. Keys that came with a catch-up are looked at instead.
    c.rowsLeft = c.keyspace.seeUnseen(c.rowsLeft);
    if (c.unseenKeys().length > 0)
      return "ERR dyad: keys that came in a batch are being counted, try again";
    writeInteger(c.reply, c.sizeAtMost());
    return undefined;
  }
  const job = new CountJob(c.keyspace.store, unseen, c.sizeAtMost());
  if (unseen.length <= KEYS_AT_ONCE && job.step(KEYS_AT_ONCE)) {
    putBytes(c.reply, job.reply.bytes, 0, job.reply.length);
  } else c.job = job;
  return undefined;
};

const randomkey: CommandRun = (c) => {
  c.wholeLog = true;
  const view = new KeysView(c);
  const wanted = Math.floor(c.random() * HASH_END);
  let best: string | undefined;
  let least: string | undefined;
  let bestHash = HASH_END;
  let leastHash = HASH_END;
  for (const { name, hash } of view.live()) {
    if (hash >= wanted && hash < bestHash) {
      bestHash = hash;
      best = name;
    }
    if (hash < leastHash) {
      leastHash = hash;
      least = name;
    }
  }
  const above = firstUnchanged(view, wanted);
  if (above !== undefined && getU48(above, 0) < bestHash) {
    best = latin1(above, HASH_BYTES, above.length);
  }
  if (best === undefined) {
    const first = firstUnchanged(view, 0);
    best =
      first !== undefined && getU48(first, 0) < leastHash
        ? latin1(first, HASH_BYTES, first.length)
        : least;
  }
  view.close();
  if (best === undefined) writeNull(c.reply);
  else writeBulkText(c.reply, best);
  return undefined;
};

/** The store's first key from a hash on that is not changed above. */
function firstUnchanged(view: KeysView, hash: number): Uint8Array | undefined {
  let from = hashPrefix(hash);
  for (let size = 4; ; size = Math.min(size * 4, 1000)) {
    const keys = view.storeKeys(from, size);
    for (const key of keys) if (!view.isOver(key)) return key;
    if (keys.length < size) return undefined;
    from = follow(keys[keys.length - 1]!);
  }
}

/** KEYS: the store's keys in steps, then those over it. */
class KeysJob implements Job {
  reply: ByteSink = makeSink(0);
  private readonly found = new Gathered();
  private from: Uint8Array = FROM_START;
  private over: string[] | undefined = undefined;
  private overAt = 0;
  private readonly all: boolean;

  constructor(
    private readonly view: KeysView,
    private readonly pattern: string,
  ) {
    this.all = matchesAll(pattern);
  }

  step(workMax: number): boolean {
    let work = workMax;
    while (this.over === undefined && work > 0) {
      const limit = work < KEYS_A_READ ? Math.ceil(work) : KEYS_A_READ;
      const keys = this.view.storeKeys(this.from, limit);
      for (const key of keys) work -= this.takeRow(key);
      if (keys.length < limit) this.over = this.view.live().map((key) => key.name);
      else this.from = follow(keys[keys.length - 1]!);
    }
    while (this.over !== undefined && this.overAt < this.over.length && work > 0) {
      const name = this.over[this.overAt++]!;
      if (this.all || globMatch(this.pattern, name)) {
        const sink = this.found.next(name.length + ELEMENT_BYTES);
        if (sink !== undefined) writeBulkText(sink, name);
      }
      work -= this.all ? 1 : 1 + globSteps() / STEPS_A_WORK;
    }
    if (this.over === undefined || this.overAt < this.over.length) return false;
    this.view.close();
    this.reply = this.found.reply();
    return true;
  }

  cancel(): void {
    this.view.close();
  }

  /** @returns the work it was */
  private takeRow(row: Uint8Array): number {
    let work = 1;
    if (!this.all || this.view.over.size > 0) {
      const name = latin1(row, HASH_BYTES, row.length);
      if (this.view.over.has(name)) return work;
      if (!this.all) {
        const matches = globMatch(this.pattern, name);
        work += globSteps() / STEPS_A_WORK;
        if (!matches) return work;
      }
    }
    const sink = this.found.next(row.length + ELEMENT_BYTES);
    if (sink !== undefined) writeBulk(sink, row, HASH_BYTES, row.length);
    return work;
  }
}

const keys: CommandRun = (c) => {
  c.wholeLog = true;
  const job = new KeysJob(new KeysView(c), c.text(1));
  if (c.sizeAtMost() <= KEYS_AT_ONCE && job.step(4 * KEYS_AT_ONCE)) {
    putBytes(c.reply, job.reply.bytes, 0, job.reply.length);
  } else c.job = job;
  return undefined;
};

const scan: CommandRun = (c) => {
  const cursor = parseCursor(c, 1);
  if (cursor < 0) return "ERR invalid cursor";
  const options = parseScan(c, 2, true);
  if (typeof options === "string") return options;
  c.wholeLog = true;
  const view = new KeysView(c);
  const rows: Uint8Array[] = [];
  let end = HASH_END;
  if (cursor < HASH_END) {
    let from = hashPrefix(cursor);
    for (;;) {
      const some = view.storeKeys(from, options.count + 1);
      rows.push(...some);
      if (some.length <= options.count) break;
      // All keys of one hash come in one call: a cursor is a hash.
      const last = getU48(some[some.length - 1]!, 0);
      if (last !== cursor && getU48(some[0]!, 0) !== last) {
        end = last;
        break;
      }
      from = follow(some[some.length - 1]!);
    }
  }
  const found: string[] = [];
  const wants = (kind: number): boolean =>
    options.type === "" || options.type === (kind === KIND_STRING ? "string" : "hash");
  for (const row of rows) {
    if (getU48(row, 0) >= end) break;
    const name = latin1(row, HASH_BYTES, row.length);
    if (view.over.has(name) || !globMatch(options.pattern, name)) continue;
    if (options.type !== "" && !wants(view.stateOfRow(row)!.kind)) continue;
    found.push(name);
  }
  for (const { name, hash, state } of view.live()) {
    if (hash < cursor || hash >= end) continue;
    if (wants(state.kind) && globMatch(options.pattern, name)) found.push(name);
  }
  view.close();
  writeArray(c.reply, 2);
  writeBulkText(c.reply, end === HASH_END ? "0" : String(end));
  writeArray(c.reply, found.length);
  for (const name of found) writeBulkText(c.reply, name);
  return undefined;
};

const object: CommandRun = (c) => {
  if (c.is(1, "encoding") && c.count === 3) {
    const state = c.read(c.text(2));
    if (state.kind === KIND_NONE) writeNull(c.reply);
    else
      writeBulkText(
        c.reply,
        encodingOf(state.kind, state.bytes, state.start, state.end, state.count),
      );
    return undefined;
  }
  return `ERR unknown subcommand '${c.shown(1).slice(0, 128)}'. Try OBJECT HELP.`;
};

/** The name Redis would likely give; nothing here is stored in that way. */
function encodingOf(
  kind: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  count: number,
): string {
  if (kind === KIND_HASH) return count <= 128 ? "listpack" : "hashtable";
  if (parseInteger(bytes, start, end) !== undefined) return "int";
  return end - start <= 44 ? "embstr" : "raw";
}

const flush: CommandRun = (c) => {
  if (c.count > 2 || (c.count === 2 && !c.is(1, "sync") && !c.is(1, "async"))) return SYNTAX_ERROR;
  c.flush();
  writeSimple(c.reply, "OK");
  return undefined;
};

export const KEY_COMMANDS: Record<string, CommandRun> = {
  del,
  unlink: del,
  exists,
  touch: exists,
  type,
  rename: (c) => rename(c, false),
  renamenx: (c) => rename(c, true),
  copy,
  dbsize,
  randomkey,
  keys,
  scan,
  object,
  flushdb: flush,
  flushall: flush,
};
