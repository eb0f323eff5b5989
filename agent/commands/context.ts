/**
 * What a command's function works with: its arguments, its reply, its effects, and the keyspace as this
 * command (and those before it in a MULTI) has made it.
 *
 * Effects change nothing until the core applies them. A command that looks at a key it has already changed
 * would see the old state, so such commands turn on `tracking`: their changes are kept here as well, over the
 * keyspace.
 */
import { assert } from "../../protocol/malformed.js";
import type { ByteSink, CommandView, Job } from "../core/execution.js";
import {
  effectDel,
  effectExpire,
  effectFlush,
  effectHash,
  effectHashDel,
  effectHashDrop,
  effectHashPut,
  effectPut,
} from "./effects.js";
import type { HashId } from "./effects.js";
import { latin1 } from "./key-hash.js";
import type { FieldValue, KeyspaceState } from "./keyspace.js";
import { parseInteger } from "./numbers.js";
import { hashState, idName, KIND_HASH, KIND_NONE, MISSING, stringState } from "./rows.js";
import type { KeyState } from "./rows.js";

export interface CommandLimits {
  /** @unit bytes */
  valueBytesMax: number;
  /** Effects of one command or MULTI. @unit bytes */
  entryBytesMax: number;
}

/** Longest key, longest field. @unit bytes */
export const NAME_BYTES_MAX = 1024;
/** Most keys or fields one command may name, and most a command may bring in by copying. */
export const NAMES_MAX = 16384;
/** Longest reply. @unit bytes */
export const REPLY_BYTES_MAX = 64 * 1024 * 1024;
/** Greatest expiry time that is stored; later ones are cut to it (year 10889). @unit ms */
export const EXPIRE_MAX = 2 ** 48 - 1;

export const SYNTAX_ERROR = "ERR syntax error";
export const NOT_INTEGER = "ERR value is not an integer or out of range";
export const NOT_FLOAT = "ERR value is not a valid float";
export const WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value";
export const NO_SUCH_KEY = "ERR no such key";
export const OVERFLOW = "ERR increment or decrement would overflow";

const NO_BYTES = new Uint8Array(0);

/** Runs a command. @returns an error (without "-"), after which reply and effects are taken back */
export type CommandRun = (c: Context) => string | undefined;

export class Context {
  readonly keyspace: KeyspaceState;
  readonly limits: CommandLimits;
  bytes: Uint8Array = NO_BYTES;
  starts: Int32Array | number[] = [];
  ends: Int32Array | number[] = [];
  count = 0;
  reply!: ByteSink;
  effects!: ByteSink;
  /** Log time of this command. @unit ms */
  now = 0;
  mayWrite = false;
  /** Name as the client's command table has it, for error texts. */
  name = "";

  /** Results beside reply and effects. */
  keys: string[] = [];
  wholeLog = false;
  pastDue = false;
  job: Job | undefined = undefined;

  tracking = false;
  /** Rows that the commands of one MULTI may still read to count keys. */
  rowsLeft = 0;
  localKeys = new Map<string, KeyState>();
  localFields = new Map<string, Map<string, FieldValue>>();
  localFlushed = false;
  private idsTaken = 0;
  private seed = 0x2545f491;

  constructor(keyspace: KeyspaceState, limits: CommandLimits) {
    this.keyspace = keyspace;
    this.limits = limits;
  }

  /** Begins a command or a MULTI. */
  begin(reply: ByteSink, effects: ByteSink, now: number, mayWrite: boolean): void {
    this.reply = reply;
    this.effects = effects;
    this.now = now;
    this.mayWrite = mayWrite;
    this.wholeLog = false;
    this.pastDue = false;
    this.job = undefined;
    this.tracking = false;
    this.idsTaken = 0;
    if (this.localKeys.size > 0) this.localKeys.clear();
    if (this.localFields.size > 0) this.localFields.clear();
    this.localFlushed = false;
    if (this.keys.length > 0) this.keys = [];
  }

  view(command: CommandView): void {
    this.bytes = command.bytes;
    this.starts = command.starts;
    this.ends = command.ends;
    this.count = command.count;
  }

  /** An argument as latin1 text. */
  text(index: number): string {
    return latin1(this.bytes, this.starts[index]!, this.ends[index]!);
  }

  /** An argument as error texts show it: up to a zero byte, as C prints it. */
  shown(index: number): string {
    return this.text(index).split("\0", 1)[0]!;
  }

  length(index: number): number {
    return this.ends[index]! - this.starts[index]!;
  }

  /** Whether an argument is this word, in any case. @param word in lower case */
  is(index: number, word: string): boolean {
    const start = this.starts[index]!;
    const length = word.length;
    if (this.ends[index]! - start !== length) return false;
    for (let i = 0; i < length; i++) {
      let byte = this.bytes[start + i]!;
      if (byte >= 65 && byte <= 90) byte += 32;
      if (byte !== word.charCodeAt(i)) return false;
    }
    return true;
  }

  /** An argument as a 64-bit integer. @returns undefined when it is none */
  integer(index: number): number | bigint | undefined {
    return parseInteger(this.bytes, this.starts[index]!, this.ends[index]!);
  }

  /** A number in [0, 1); not secure, and never part of an effect. */
  random(): number {
    let x = this.seed;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.seed = x;
    return (x >>> 0) / 0x100000000;
  }

  /** The key's state as this command sees it; a key past due is removed first, or must be by the primary. */
  lookup(key: string): KeyState {
    const state = this.peek(key);
    if (state.expireAt === 0 || state.expireAt >= this.now) return state;
    if (!this.mayWrite) {
      this.pastDue = true;
      return MISSING;
    }
    this.tracking = true;
    this.del(key, state);
    return MISSING;
  }

  /** As lookup, without regard to expiry. */
  peek(key: string): KeyState {
    if (this.localKeys.size > 0) {
      const local = this.localKeys.get(key);
      if (local !== undefined) return local;
    }
    if (this.localFlushed) return MISSING;
    return this.keyspace.lookup(key);
  }

  /** A read of this key: the reply depends on it. */
  read(key: string): KeyState {
    this.keys.push(key);
    return this.lookup(key);
  }

  field(id: HashId, field: string): FieldValue | undefined {
    if (this.localFields.size > 0) {
      const local = this.localFields.get(idName(id))?.get(field);
      if (local !== undefined) return local.gone ? undefined : local;
    }
    return this.keyspace.field(id, field);
  }

  put(
    key: string,
    old: KeyState,
    expireAt: number,
    value: Uint8Array,
    start: number,
    end: number,
  ): void {
    this.dropOf(old);
    effectPut(this.effects, key, expireAt, value, start, end);
    if (this.tracking) this.localKeys.set(key, stringState(expireAt, value, start, end));
  }

  del(key: string, old: KeyState): void {
    this.dropOf(old);
    effectDel(this.effects, key);
    if (this.tracking) this.localKeys.set(key, MISSING);
  }

  /** As del, but a hash lives on under another key. */
  release(key: string): void {
    effectDel(this.effects, key);
    if (this.tracking) this.localKeys.set(key, MISSING);
  }

  expire(key: string, old: KeyState, expireAt: number): void {
    effectExpire(this.effects, key, expireAt);
    if (this.tracking) this.localKeys.set(key, { ...old, expireAt });
  }

  /** The key is this hash; hashPut and hashDel that follow are about it. */
  hash(key: string, expireAt: number, id: HashId, count: number): void {
    effectHash(this.effects, key, expireAt, id, count);
    if (this.tracking) this.localKeys.set(key, hashState(expireAt, id, count));
  }

  hashPut(id: HashId, field: string, value: Uint8Array, start: number, end: number): void {
    effectHashPut(this.effects, field, value, start, end);
    if (this.tracking) this.setField(id, field, { bytes: value, start, end, gone: false });
  }

  hashDel(id: HashId, field: string): void {
    effectHashDel(this.effects, field);
    if (this.tracking) this.setField(id, field, { bytes: NO_BYTES, start: 0, end: 0, gone: true });
  }

  newHashId(): HashId {
    return this.keyspace.nextHashId(this.idsTaken++);
  }

  /** Number of keys, as this command sees it; too many by some of `unseenKeys`. */
  sizeAtMost(): number {
    let size = this.localFlushed ? 0 : this.keyspace.sizeAtMost();
    for (const [key, state] of this.localKeys) {
      const before = this.localFlushed ? MISSING : this.keyspace.lookup(key);
      if (before.kind !== KIND_NONE) size--;
      if (state.kind !== KIND_NONE) size++;
    }
    return size;
  }

  unseenKeys(): string[] {
    return this.localFlushed ? [] : this.keyspace.unseenKeys();
  }

  flush(): void {
    effectFlush(this.effects);
    if (!this.tracking) return;
    this.localFlushed = true;
    this.localKeys.clear();
    this.localFields.clear();
  }

  /** A hash that is overwritten or removed: its fields belong to nobody. */
  dropOf(old: KeyState): void {
    if (old.kind === KIND_HASH) effectHashDrop(this.effects, old.id!);
  }

  private setField(id: HashId, field: string, value: FieldValue): void {
    const name = idName(id);
    let fields = this.localFields.get(name);
    if (fields === undefined) {
      fields = new Map();
      this.localFields.set(name, fields);
    }
    fields.set(field, value);
    assert(fields.size <= this.limits.entryBytesMax, "local fields are bounded by the entry");
  }
}
