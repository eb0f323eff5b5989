/**
 * Commands that a controller hands on as their client sent them, and the answers to those.
 *
 * A chip that would have to look at each command of a pipeline, give it another id and find the row of
 * each answer hands on the whole chunk instead. A PACK is exactly as if each of its commands had come
 * as a COMMAND of its own: numbered from the pack's id on, of the pack's class, and ORDERED when a
 * command of the same client connection (the channel) is unanswered on this link.
 *
 *     PACK    id 40  [channel | client's frames or RESP]  ──take──> next, next, … ──> onCommand 40, 41, …
 *     REPLY 40, REPLY 41, …                               ──send──> PACK_REPLY id 41 [channel | frames or RESP]
 *
 * Answers are turned back on their way out of the release queue, whose stream keeps its order. What is
 * no short whole answer leaves as the REPLY it is, with the command's own number.
 */
import {
  CHANNEL_BYTES,
  CLASS_WRITE,
  FLAG_CLASS_MASK,
  FLAG_MORE,
  FLAG_ORDERED,
  FLAG_PLAIN,
  FRAME_COMMAND,
  FRAME_PACK_REPLY,
  FRAME_REPLY,
  HEADER_BYTES,
  ID_MAX,
  OUTCOME_ANSWER,
  PACK_ANSWERS_MAX,
  PACK_COMMANDS_MAX,
  PACK_COUNT_MASK,
  PACK_COUNT_SHIFT,
  WIRE_VERSION,
  WIRE_VERSION_MIN,
  readU16,
  readU32,
  writeHeader,
  writeU32,
} from "../../protocol/frame.js";
import { makeSink, putBytes, reserve } from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";

const BEGIN_BYTES = 4096;
/** A buffer that grew beyond this is given back. @unit bytes */
const SPARE_BYTES_MAX = 4 * 1024 * 1024;
const NO_BYTES = new Uint8Array(0);
const NONE = -1;

const CR = 13;
const STAR = 42;
const DOLLAR = 36;
/** More digits are no length that a frame could hold. */
const DIGITS_MAX = 8;

/** A command of a pack that is not answered yet. */
interface Unanswered {
  readonly channel: number;
  readonly plain: boolean;
  /** Of the client's own frame; 0 in a plain one. */
  readonly clientId: number;
  /** Its reply is not ready: what its channel asks next must not overtake it. */
  waits: boolean;
  /** Its reply has begun to leave in fragments. */
  begun: boolean;
}

export class Packs {
  /** The command that `next` has found: what onCommand takes. */
  flags = 0;
  id = 0;
  bytes: Uint8Array = NO_BYTES;
  start = 0;
  end = 0;
  /** Largest payload of a frame on this link. */
  payloadMax = 0;

  private readonly out: (bytes: Uint8Array, start: number, end: number) => void;
  private readonly unanswered = new Map<number, Unanswered>();
  /** How many commands of a channel wait; no entry: none. */
  private readonly waiting = new Map<number, number>();

  /** The pack under way: where its commands begin, the end of the last, and how far they have been run. */
  private readonly cuts = new Int32Array(PACK_COMMANDS_MAX + 1);
  private count = 0;
  private ranCount = 0;
  private first = 0;
  private packFlags = 0;
  private channel = 0;

  private readonly sink: ByteSink = makeSink(0);
  /** The PACK_REPLY that the next answer may join: where it begins in the sink, or NONE. */
  private openAt = NONE;
  private openChannel = 0;
  private openPlain = false;
  private openCount = 0;

  /** @param out takes the stream; the buffer is used again when it returns */
  constructor(out: (bytes: Uint8Array, start: number, end: number) => void) {
    this.out = out;
  }

  /**
   * Takes a pack; its commands are then shown by `next`. All of it is looked at before any is run.
   * @param bytes kept until the last command has been shown, or `keep` was called
   * @returns "" or what is wrong with it, which is the controller's fault: it has looked at it as well
   */
  take(flags: number, id: number, bytes: Uint8Array, start: number, end: number): string {
    const kind = flags & FLAG_CLASS_MASK;
    const plain = (flags & FLAG_PLAIN) !== 0;
    const said = ((flags >> PACK_COUNT_SHIFT) & PACK_COUNT_MASK) + 1;
    if (flags > 0x7f || kind > CLASS_WRITE) {
      return "a pack with flags " + flags;
    }
    if (end - start <= CHANNEL_BYTES) return "a pack of " + (end - start) + " bytes";
    let at = start + CHANNEL_BYTES;
    let count = 0;
    while (at < end) {
      if (count === PACK_COMMANDS_MAX) return "a pack of more than " + count + " commands";
      if (this.unanswered.has(id + count)) return "number " + (id + count) + " is unanswered";
      this.cuts[count++] = at;
      if (plain) {
        at = arrayEnd(bytes, at, end);
        if (at < 0) return "a pack with what is not one whole command";
        continue;
      }
      if (end - at < HEADER_BYTES) return "a pack that ends inside a frame";
      const first = bytes[at]!;
      const version = first >>> 4;
      if (version < WIRE_VERSION_MIN || version > WIRE_VERSION) {
        return "a pack with a frame of wire version " + version;
      }
      if ((first & 15) !== FRAME_COMMAND) return "a pack with a frame of type " + (first & 15);
      if (bytes[at + 1] !== kind) {
        return "a pack of class " + kind + " with a command of flags " + bytes[at + 1]!;
      }
      if (readU32(bytes, at + 4) === 0) return "a pack with a command under id 0";
      at += HEADER_BYTES + readU16(bytes, at + 2);
      if (at > end) return "a pack that ends inside a frame";
    }
    if (count !== said) return "a pack that says " + said + " commands and has " + count;
    if (id + count - 1 > ID_MAX) return "a pack numbered from " + id;
    this.cuts[count] = end;
    this.count = count;
    this.ranCount = 0;
    this.first = id;
    this.packFlags = flags;
    this.channel = readU32(bytes, start);
    this.bytes = bytes;
    return "";
  }

  /** Shows the next command of the pack that was taken, and notes that it is unanswered. @returns false: none is left */
  next(): boolean {
    if (this.ranCount === this.count) {
      if (this.count > 0) this.endPack();
      return false;
    }
    const at = this.cuts[this.ranCount]!;
    const plain = (this.packFlags & FLAG_PLAIN) !== 0;
    const before = this.waiting.get(this.channel) ?? 0;
    this.id = this.first + this.ranCount;
    this.start = plain ? at : at + HEADER_BYTES;
    this.end = this.cuts[this.ranCount + 1]!;
    this.flags = (this.packFlags & FLAG_CLASS_MASK) | (before > 0 ? FLAG_ORDERED : 0);
    this.ranCount++;
    this.unanswered.set(this.id, {
      channel: this.channel,
      plain,
      clientId: plain ? 0 : readU32(this.bytes, at + 4),
      waits: true,
      begun: false,
    });
    this.waiting.set(this.channel, before + 1);
    return true;
  }

  /** The command that `next` showed has been run. @param gathered its reply leaves at the end of this turn */
  ran(gathered: boolean): void {
    if (!gathered) return;
    const one = this.unanswered.get(this.id);
    if (one !== undefined) this.waitsNoMore(one);
  }

  /** The rest of the pack goes on in another turn: the buffer is the caller's again. */
  keep(): void {
    if (this.ranCount === this.count) {
      this.endPack();
      return;
    }
    const from = this.cuts[this.ranCount]!;
    this.bytes = this.bytes.slice(from, this.cuts[this.count]);
    for (let i = this.ranCount; i <= this.count; i++) this.cuts[i]! -= from;
  }

  private endPack(): void {
    this.count = 0;
    this.ranCount = 0;
    this.bytes = NO_BYTES;
  }

  /** The asker of this number has gone: should a reply come all the same, it leaves as a REPLY. */
  forget(number: number): void {
    const one = this.unanswered.get(number);
    if (one === undefined) return;
    this.waitsNoMore(one);
    this.unanswered.delete(number);
  }

  /** Nobody waits for what was asked up to here; what has not been run yet is still to be run, or refused. */
  forgetAll(): void {
    this.unanswered.clear();
    this.waiting.clear();
  }

  /** The link is gone, and what it brought. */
  clear(): void {
    this.forgetAll();
    this.endPack();
  }

  /** Commands of packs that are not answered yet. */
  outstanding(): number {
    return this.unanswered.size;
  }

  private waitsNoMore(one: Unanswered): void {
    if (!one.waits) return;
    one.waits = false;
    const left = this.waiting.get(one.channel)! - 1;
    if (left > 0) this.waiting.set(one.channel, left);
    else this.waiting.delete(one.channel);
  }

  // --- answers ------------------------------------------------------------------------------------

  /** Sends whole frames on, with the answers to packs turned into PACK_REPLY frames. */
  send(bytes: Uint8Array, start: number, end: number): void {
    if (this.unanswered.size === 0) {
      this.out(bytes, start, end);
      return;
    }
    const { sink } = this;
    sink.length = 0;
    this.openAt = NONE;
    // All before it is in the sink, or was left where it is.
    let taken = start;
    for (let at = start; at < end;) {
      const next = at + HEADER_BYTES + readU16(bytes, at + 2);
      if ((bytes[at]! & 15) === FRAME_REPLY) {
        const number = readU32(bytes, at + 4);
        const one = this.unanswered.get(number);
        if (one !== undefined && this.isPacked(one, bytes[at + 1]!, number, next - at)) {
          if (taken < at) {
            putBytes(sink, bytes, taken, at);
            this.openAt = NONE;
          }
          this.put(one, number, bytes, at + HEADER_BYTES, next);
          taken = next;
        }
      }
      at = next;
    }
    if (taken === start) {
      this.out(bytes, start, end);
      return;
    }
    putBytes(sink, bytes, taken, end);
    this.out(sink.bytes, 0, sink.length);
    if (sink.bytes.length > SPARE_BYTES_MAX) sink.bytes = new Uint8Array(BEGIN_BYTES);
  }

  /** A REPLY leaves: the books are brought up to date. @returns whether it goes in a PACK_REPLY */
  private isPacked(one: Unanswered, flags: number, number: number, length: number): boolean {
    if ((flags & FLAG_MORE) !== 0) {
      // Until its last fragment it is unanswered.
      one.begun = true;
      return false;
    }
    this.waitsNoMore(one);
    this.unanswered.delete(number);
    return !one.begun && flags === OUTCOME_ANSWER && this.pieceBytes(one, length) <= this.room();
  }

  private room(): number {
    return this.payloadMax - CHANNEL_BYTES;
  }

  /** @param length of the REPLY frame */
  private pieceBytes(one: Unanswered, length: number): number {
    return one.plain ? length - HEADER_BYTES : length;
  }

  private put(
    one: Unanswered,
    number: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    const { sink } = this;
    const piece = this.pieceBytes(one, HEADER_BYTES + end - start);
    reserve(sink, HEADER_BYTES + CHANNEL_BYTES + piece);
    const joins =
      this.openAt !== NONE &&
      this.openChannel === one.channel &&
      this.openPlain === one.plain &&
      this.openCount < PACK_ANSWERS_MAX &&
      sink.length - this.openAt - HEADER_BYTES + piece <= this.payloadMax;
    if (!joins) {
      this.openAt = sink.length;
      this.openChannel = one.channel;
      this.openPlain = one.plain;
      this.openCount = 0;
      writeU32(sink.bytes, sink.length + HEADER_BYTES, one.channel);
      sink.length += HEADER_BYTES + CHANNEL_BYTES;
    }
    if (!one.plain) {
      writeHeader(sink.bytes, sink.length, FRAME_REPLY, OUTCOME_ANSWER, end - start, one.clientId);
      sink.length += HEADER_BYTES;
    }
    putBytes(sink, bytes, start, end);
    this.openCount++;
    const payload = sink.length - this.openAt - HEADER_BYTES;
    writeHeader(sink.bytes, this.openAt, FRAME_PACK_REPLY, this.openCount, payload, number);
  }
}

/**
 * Where the RESP array that begins at `at` ends. Lines are read as the parser of commands reads them:
 * the byte behind a "\r" is not looked at. What an argument holds is looked at when the command is run.
 * @returns -1 when no array of at least one argument begins there, or it is not whole
 */
function arrayEnd(bytes: Uint8Array, start: number, end: number): number {
  if (bytes[start] !== STAR) return -1;
  let at = lineEnd(bytes, start + 1, end);
  let left = at < 0 ? 0 : numberBefore(bytes, start + 1, at - 2);
  if (left === 0) return -1;
  while (left > 0) {
    if (at >= end || bytes[at] !== DOLLAR) return -1;
    const begin = at + 1;
    at = lineEnd(bytes, begin, end);
    if (at < 0) return -1;
    at += numberBefore(bytes, begin, at - 2) + 2;
    if (at > end) return -1;
    left--;
  }
  return at;
}

/** @returns where the line of digits that begins at `at` ends, or -1 */
function lineEnd(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && at - start <= DIGITS_MAX && bytes[at]! >= 48 && bytes[at]! <= 57) at++;
  if (at === start || at - start > DIGITS_MAX || at + 2 > end || bytes[at] !== CR) return -1;
  return at + 2;
}

function numberBefore(bytes: Uint8Array, start: number, end: number): number {
  let value = 0;
  for (let at = start; at < end; at++) value = value * 10 + bytes[at]! - 48;
  return value;
}
