/**
 * What commands do, as absolute facts: applying effects twice, or from an older state on, ends the same.
 *
 *     op      then
 *     PUT     key, expireAt, value         the key is this string
 *     DEL     key                          the key is gone (its hash, if it was one, is dropped apart)
 *     EXPIRE  key, expireAt                0: it does not expire
 *     HASH    key, expireAt, id, count     the key is this hash; id and count are facts, too
 *     HPUT    field, value                 of the hash named by the HASH before it
 *     HDEL    field
 *     HDROP   id                           nothing refers to this hash any more
 *     FLUSH                                no key is left
 *
 * Numbers are varints of up to 53 bits; key, field and value are length and bytes. A hash's id is the
 * epoch it was made in and a counter: unique in the pair, also over diverged logs.
 */
import { putByte, putBytes, putText } from "../../protocol/resp.js";
import type { ByteSink } from "../core/execution.js";

export const OP_PUT = 1;
export const OP_DEL = 2;
export const OP_EXPIRE = 3;
export const OP_HASH = 4;
export const OP_HPUT = 5;
export const OP_HDEL = 6;
export const OP_HDROP = 7;
export const OP_FLUSH = 8;

export interface HashId {
  readonly epoch: number;
  readonly counter: number;
}

export function putVarint(sink: ByteSink, value: number): void {
  let rest = value;
  while (rest > 0x7fffffff) {
    putByte(sink, (rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  while (rest > 127) {
    putByte(sink, (rest & 127) | 128);
    rest >>>= 7;
  }
  putByte(sink, rest);
}

function putName(sink: ByteSink, name: string): void {
  putVarint(sink, name.length);
  putText(sink, name);
}

export function effectPut(
  sink: ByteSink,
  key: string,
  expireAt: number,
  value: Uint8Array,
  start: number,
  end: number,
): void {
  putByte(sink, OP_PUT);
  putName(sink, key);
  putVarint(sink, expireAt);
  putVarint(sink, end - start);
  putBytes(sink, value, start, end);
}

export function effectDel(sink: ByteSink, key: string): void {
  putByte(sink, OP_DEL);
  putName(sink, key);
}

export function effectExpire(sink: ByteSink, key: string, expireAt: number): void {
  putByte(sink, OP_EXPIRE);
  putName(sink, key);
  putVarint(sink, expireAt);
}

export function effectHash(
  sink: ByteSink,
  key: string,
  expireAt: number,
  id: HashId,
  count: number,
): void {
  putByte(sink, OP_HASH);
  putName(sink, key);
  putVarint(sink, expireAt);
  putVarint(sink, id.epoch);
  putVarint(sink, id.counter);
  putVarint(sink, count);
}

export function effectHashPut(
  sink: ByteSink,
  field: string,
  value: Uint8Array,
  start: number,
  end: number,
): void {
  putByte(sink, OP_HPUT);
  putName(sink, field);
  putVarint(sink, end - start);
  putBytes(sink, value, start, end);
}

export function effectHashDel(sink: ByteSink, field: string): void {
  putByte(sink, OP_HDEL);
  putName(sink, field);
}

export function effectHashDrop(sink: ByteSink, id: HashId): void {
  putByte(sink, OP_HDROP);
  putVarint(sink, id.epoch);
  putVarint(sink, id.counter);
}

export function effectFlush(sink: ByteSink): void {
  putByte(sink, OP_FLUSH);
}

/** What an entry is to do makes no sense: whoever wrote it is at fault, not this server's disk. */
export class MalformedEffects extends Error {
  constructor(what: string) {
    super(`malformed effects: ${what}`);
  }
}

/** Reads one effect after the other; offsets into the bytes, nothing is made per effect. */
export class EffectReader {
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  end = 0;
  op = 0;
  nameStart = 0;
  nameEnd = 0;
  expireAt = 0;
  valueStart = 0;
  valueEnd = 0;
  idEpoch = 0;
  idCounter = 0;
  count = 0;

  open(bytes: Uint8Array, start: number, end: number): void {
    this.bytes = bytes;
    this.at = start;
    this.end = end;
  }

  /** @returns false at the end. Throws on malformed effects. */
  next(): boolean {
    if (this.at >= this.end) return false;
    this.op = this.bytes[this.at++]!;
    switch (this.op) {
      case OP_PUT:
        this.name();
        this.expireAt = this.varint();
        this.value();
        return true;
      case OP_DEL:
      case OP_HDEL:
        this.name();
        return true;
      case OP_EXPIRE:
        this.name();
        this.expireAt = this.varint();
        return true;
      case OP_HASH:
        this.name();
        this.expireAt = this.varint();
        this.idEpoch = this.varint();
        this.idCounter = this.varint();
        this.count = this.varint();
        return true;
      case OP_HPUT:
        this.name();
        this.value();
        return true;
      case OP_HDROP:
        this.idEpoch = this.varint();
        this.idCounter = this.varint();
        return true;
      case OP_FLUSH:
        return true;
      default:
        throw new MalformedEffects(`unknown op ${this.op}`);
    }
  }

  private varint(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 8; i++) {
      if (this.at >= this.end) throw new MalformedEffects("cut off");
      const byte = this.bytes[this.at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) {
        if (value > Number.MAX_SAFE_INTEGER) break;
        return value;
      }
      scale *= 128;
    }
    throw new MalformedEffects("number too long");
  }

  private name(): void {
    const length = this.varint();
    if (length > this.end - this.at) throw new MalformedEffects("cut off");
    this.nameStart = this.at;
    this.at += length;
    this.nameEnd = this.at;
  }

  private value(): void {
    const length = this.varint();
    if (length > this.end - this.at) throw new MalformedEffects("cut off");
    this.valueStart = this.at;
    this.at += length;
    this.valueEnd = this.at;
  }
}
