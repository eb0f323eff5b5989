/**
 * Exactly once: which numbered commands of which session were done, and what was answered.
 *
 * The table is replicated state: it changes only by entries of the log (results and session
 * operations), in the same way on both servers, so the server that takes over answers a retry with
 * the reply its predecessor gave. It is bounded: a session keeps the replies of its last `window`
 * commands; what it no longer keeps is answered "outcome unknown" and never run again.
 *
 * A session is kept in a slot, a small number that entries name instead of the id.
 */
import { readU32, readU48, writeU32, writeU48 } from "../../protocol/frame.js";
import { assert } from "../../protocol/malformed.js";
import { putByte, putBytes, reserve } from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";
import { ENTRY_MARK, ENTRY_REPLY_GONE, afterVarint, putVarint, readVarint } from "./chunk.js";
import type { EntryView } from "./chunk.js";
import type { AgentLimits } from "./limits.js";

/** Opened by a client, closed by it or when idle. */
export const SESSION_CLIENT = 0;
/** The controller's own; there is one, and a new one closes it. */
export const SESSION_CONTROLLER = 1;
/** The local port of server 0 or 1; one each. */
export const SESSION_LOCAL = 2;

const OP_OPEN = 1;
const OP_ACK = 2;
const OP_CLOSE = 3;

const TABLE_VERSION = 1;
const OK_REPLY = Uint8Array.of(43, 79, 75, 13, 10);
const NUMBER_MAX = 0xffffffff;

export class Session {
  readonly slot: number;
  readonly id: string;
  readonly kind: number;
  readonly window: number;
  /** Numbers below it that are not kept were done or given up: never run. */
  floor = 0;
  /** Greatest number that has an entry. */
  highest = 0;
  count = 0;
  bytes = 0;
  /** When it was last heard of, on this server's clock; not replicated. */
  usedMs = 0;
  private head = 0;
  private numbers: Float64Array;
  private indexes: Float64Array;
  private replies: (Uint8Array | undefined)[];

  constructor(slot: number, id: string, kind: number, window: number) {
    this.slot = slot;
    this.id = id;
    this.kind = kind;
    this.window = window;
    const size = 16;
    this.numbers = new Float64Array(size);
    this.indexes = new Float64Array(size);
    this.replies = new Array<Uint8Array | undefined>(size).fill(undefined);
  }

  /** @returns the place of a number's result, for indexAt and replyAt; -1 when it is not kept */
  find(number: number): number {
    if (number > this.highest) return -1;
    const mask = this.numbers.length - 1;
    for (let i = this.count - 1; i >= 0; i--) {
      const at = (this.head + i) & mask;
      if (this.numbers[at] === number) return at;
    }
    return -1;
  }

  indexAt(place: number): number {
    return this.indexes[place]!;
  }

  /** @returns undefined when the reply was too long to be kept */
  replyAt(place: number): Uint8Array | undefined {
    return this.replies[place];
  }

  keep(number: number, index: number, reply: Uint8Array | undefined, bytesMax: number): void {
    if (number < this.floor || (number <= this.highest && this.find(number) >= 0)) return;
    const size = reply === undefined ? 0 : reply.length;
    while (this.count > 0 && (this.count >= this.window || this.bytes + size > bytesMax)) {
      const oldest = this.numbers[this.head]!;
      if (oldest >= this.floor) this.floor = oldest + 1;
      this.drop();
    }
    if (this.count === this.numbers.length) this.grow();
    const at = (this.head + this.count) & (this.numbers.length - 1);
    this.numbers[at] = number;
    this.indexes[at] = index;
    this.replies[at] = reply;
    this.count++;
    this.bytes += size;
    if (number > this.highest) this.highest = number;
  }

  /** The asker has the answers of all numbers below. */
  acknowledge(below: number): void {
    if (below <= this.floor) return;
    this.floor = below;
    // What came out of order behind a greater number waits for its turn.
    while (this.count > 0 && this.numbers[this.head]! < below) this.drop();
  }

  private drop(): void {
    const reply = this.replies[this.head];
    if (reply !== undefined) this.bytes -= reply.length;
    this.replies[this.head] = undefined;
    this.head = (this.head + 1) & (this.numbers.length - 1);
    this.count--;
  }

  private grow(): void {
    const size = this.numbers.length;
    const numbers = new Float64Array(size * 2);
    const indexes = new Float64Array(size * 2);
    const replies = new Array<Uint8Array | undefined>(size * 2).fill(undefined);
    for (let i = 0; i < this.count; i++) {
      const at = (this.head + i) & (size - 1);
      numbers[i] = this.numbers[at]!;
      indexes[i] = this.indexes[at]!;
      replies[i] = this.replies[at];
    }
    this.numbers = numbers;
    this.indexes = indexes;
    this.replies = replies;
    this.head = 0;
  }

  write(sink: ByteSink): void {
    putVarint(sink, this.slot);
    putByte(sink, this.kind);
    putLatin1(sink, this.id);
    putVarint(sink, this.window);
    putVarint(sink, this.floor);
    putVarint(sink, this.highest);
    putVarint(sink, this.count);
    const mask = this.numbers.length - 1;
    for (let i = 0; i < this.count; i++) {
      const at = (this.head + i) & mask;
      const reply = this.replies[at];
      reserve(sink, 10);
      writeU32(sink.bytes, sink.length, this.numbers[at]!);
      writeU48(sink.bytes, sink.length + 4, this.indexes[at]!);
      sink.length += 10;
      putVarint(sink, reply === undefined ? 0 : reply.length + 1);
      if (reply !== undefined) putBytes(sink, reply, 0, reply.length);
    }
  }
}

function putLatin1(sink: ByteSink, text: string): void {
  for (let i = 0; i < text.length; i++) putByte(sink, text.charCodeAt(i));
}

/** A session id as the key of a map: its eight bytes as latin1. */
export function sessionKey(bytes: Uint8Array, at: number): string {
  return String.fromCharCode(
    bytes[at]!,
    bytes[at + 1]!,
    bytes[at + 2]!,
    bytes[at + 3]!,
    bytes[at + 4]!,
    bytes[at + 5]!,
    bytes[at + 6]!,
    bytes[at + 7]!,
  );
}

export class SessionTable {
  private slots: (Session | undefined)[] = [];
  private readonly byId = new Map<string, Session>();
  private readonly limits: AgentLimits;

  constructor(limits: AgentLimits) {
    this.limits = limits;
  }

  get(id: string): Session | undefined {
    return this.byId.get(id);
  }

  at(slot: number): Session | undefined {
    return this.slots[slot];
  }

  count(): number {
    return this.byId.size;
  }

  /** The one session of a kind that has only one. */
  ofKind(kind: number): Session | undefined {
    for (const session of this.byId.values()) {
      if (session.kind === kind) return session;
    }
    return undefined;
  }

  /**
   * Writes the operations that open a session: a former one of a kind that has only one is closed, and
   * where all slots are taken the client session that was silent longest.
   * @param taken a slot that the same entry has given away already
   * @returns the slot it will have once the entry is applied; -1 when there is no room for it
   */
  writeOpen(ops: ByteSink, id: string, kind: number, taken = -1): number {
    let slot = -1;
    if (kind !== SESSION_CLIENT) {
      const former = this.ofKind(kind);
      if (former !== undefined) {
        this.writeClose(ops, former.slot);
        slot = former.slot;
      }
    }
    if (slot < 0) {
      const limit = this.limits.sessionsMax;
      for (let i = 0; i < limit && slot < 0; i++) {
        if (this.slots[i] === undefined && i !== taken) slot = i;
      }
    }
    if (slot < 0) {
      if (kind === SESSION_CLIENT) return -1;
      let oldest: Session | undefined;
      for (const session of this.byId.values()) {
        if (session.kind !== SESSION_CLIENT) continue;
        if (oldest === undefined || session.usedMs < oldest.usedMs) oldest = session;
      }
      if (oldest === undefined) return -1;
      this.writeClose(ops, oldest.slot);
      slot = oldest.slot;
    }
    const window =
      kind === SESSION_CLIENT ? this.limits.clientWindow : this.limits.controllerWindow;
    putByte(ops, OP_OPEN);
    putVarint(ops, slot);
    putByte(ops, kind);
    putVarint(ops, window);
    putLatin1(ops, id);
    return slot;
  }

  writeAck(ops: ByteSink, slot: number, below: number): void {
    putByte(ops, OP_ACK);
    putVarint(ops, slot);
    putVarint(ops, below);
  }

  writeClose(ops: ByteSink, slot: number): void {
    putByte(ops, OP_CLOSE);
    putVarint(ops, slot);
  }

  /** Client sessions silent since before `beforeMs`, at most `max`. */
  idle(beforeMs: number, max: number): Session[] {
    const found: Session[] = [];
    for (const session of this.byId.values()) {
      if (found.length === max) break;
      if (session.kind === SESSION_CLIENT && session.usedMs < beforeMs) found.push(session);
    }
    return found;
  }

  /** Nobody has been heard yet on this server's clock: idle times count from here. */
  touchAll(nowMs: number): void {
    for (const session of this.byId.values()) session.usedMs = nowMs;
  }

  /** Applies the session operations of an entry. @returns false when it is malformed (nothing changed) */
  apply(entry: EntryView, nowMs: number): boolean {
    if (entry.opsEnd > entry.opsStart) {
      if (!this.walkOps(entry.bytes, entry.opsStart, entry.opsEnd, false, nowMs)) return false;
      this.walkOps(entry.bytes, entry.opsStart, entry.opsEnd, true, nowMs);
    }
    return true;
  }

  /** Records the result an entry carries; the ops of the entry are applied before. */
  keep(entry: EntryView, index: number, nowMs: number): void {
    const session = this.slots[entry.slot];
    if (session === undefined) return;
    session.usedMs = nowMs;
    if ((entry.flags & ENTRY_MARK) !== 0) {
      if (entry.number > session.highest) session.highest = entry.number;
      if (entry.number >= session.floor) session.floor = entry.number + 1;
      return;
    }
    const gone =
      (entry.flags & ENTRY_REPLY_GONE) !== 0 ||
      entry.replyEnd - entry.replyStart > this.limits.keptReplyBytesMax;
    const reply = gone ? undefined : copyReply(entry.bytes, entry.replyStart, entry.replyEnd);
    session.keep(entry.number, index, reply, this.limits.sessionBytesMax);
  }

  private walkOps(
    bytes: Uint8Array,
    start: number,
    end: number,
    change: boolean,
    nowMs: number,
  ): boolean {
    let at = start;
    while (at < end) {
      const op = bytes[at]!;
      const slot = readVarint(bytes, at + 1, end);
      at = afterVarint();
      if (at < 0 || slot >= this.limits.sessionsMax) return false;
      if (op === OP_OPEN) {
        const kind = bytes[at]!;
        const window = readVarint(bytes, at + 1, end);
        at = afterVarint();
        if (at < 0 || at + 8 > end || window < 1 || window > NUMBER_MAX) return false;
        if (change) this.open(slot, sessionKey(bytes, at), kind, window, nowMs);
        at += 8;
      } else if (op === OP_ACK) {
        const below = readVarint(bytes, at, end);
        at = afterVarint();
        if (at < 0) return false;
        if (change) this.slots[slot]?.acknowledge(below);
      } else if (op === OP_CLOSE) {
        if (change) this.close(slot);
      } else {
        return false;
      }
    }
    return true;
  }

  private open(slot: number, id: string, kind: number, window: number, nowMs: number): void {
    this.close(slot);
    const same = this.byId.get(id);
    if (same !== undefined) this.close(same.slot);
    const session = new Session(slot, id, kind, window);
    session.usedMs = nowMs;
    while (this.slots.length <= slot) this.slots.push(undefined);
    this.slots[slot] = session;
    this.byId.set(id, session);
  }

  private close(slot: number): void {
    const session = this.slots[slot];
    if (session === undefined) return;
    this.byId.delete(session.id);
    this.slots[slot] = undefined;
  }

  clear(): void {
    this.slots = [];
    this.byId.clear();
  }

  /** The whole table as bytes: the same on both servers at the same index. */
  write(sink: ByteSink): void {
    putByte(sink, TABLE_VERSION);
    putVarint(sink, this.byId.size);
    for (const session of this.slots) {
      if (session !== undefined) session.write(sink);
    }
  }

  /** Replaces the table. @returns false when the bytes are malformed (the table is empty then) */
  read(bytes: Uint8Array, start: number, end: number): boolean {
    this.clear();
    if (this.readAll(bytes, start, end)) return true;
    this.clear();
    return false;
  }

  private readAll(bytes: Uint8Array, start: number, end: number): boolean {
    if (start >= end || bytes[start] !== TABLE_VERSION) return false;
    const count = readVarint(bytes, start + 1, end);
    let at = afterVarint();
    for (let i = 0; i < count; i++) {
      if (at < 0) return false;
      const slot = readVarint(bytes, at, end);
      at = afterVarint();
      if (at < 0 || at + 9 > end || slot >= this.limits.sessionsMax) return false;
      const kind = bytes[at]!;
      const id = sessionKey(bytes, at + 1);
      const window = readVarint(bytes, at + 9, end);
      at = afterVarint();
      if (at < 0) return false;
      const floor = readVarint(bytes, at, end);
      at = afterVarint();
      if (at < 0) return false;
      const highest = readVarint(bytes, at, end);
      at = afterVarint();
      if (at < 0) return false;
      const kept = readVarint(bytes, at, end);
      at = afterVarint();
      if (at < 0 || window < 1) return false;
      this.open(slot, id, kind, window, 0);
      const session = this.slots[slot]!;
      for (let k = 0; k < kept; k++) {
        if (at + 10 > end) return false;
        const number = readU32(bytes, at);
        const index = readU48(bytes, at + 4);
        const length = readVarint(bytes, at + 10, end);
        at = afterVarint();
        if (at < 0 || at + length - 1 > end) return false;
        const reply = length === 0 ? undefined : copyReply(bytes, at, at + length - 1);
        if (length > 0) at += length - 1;
        session.keep(number, index, reply, this.limits.sessionBytesMax);
      }
      session.floor = floor;
      if (highest > session.highest) session.highest = highest;
    }
    assert(this.byId.size <= this.limits.sessionsMax, "sessions");
    return at === end;
  }
}

/** Nearly every reply that is kept is "+OK": one copy serves all. */
function copyReply(bytes: Uint8Array, start: number, end: number): Uint8Array {
  if (
    end - start === 5 &&
    bytes[start] === 43 &&
    bytes[start + 1] === 79 &&
    bytes[start + 2] === 75
  ) {
    return OK_REPLY;
  }
  return bytes.slice(start, end);
}
