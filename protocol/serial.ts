/**
 * Frames on a serial line: byte-stuffed, with a sequence number and a CRC, in one of two forms.
 *
 *     packet        head u8 | seq u8 | frame (header and payload) | CRC32 u32 of all before
 *     binary form   7E | packet, with 7D before 7E and 7D and those xor 20 | 7E
 *     7-bit form    7E | packet in base64 without padding                  | 7E
 *
 * A line has no connection and repeats nothing: a packet arrives whole and once, or not at all. What is
 * damaged, doubled, too long or our own echo is counted and never handed on; a gap in the sequence numbers
 * counts what was lost. A receiver takes both forms and tells them apart by the first byte, which has its
 * high bit set in the binary form alone. The 7-bit form is for runtimes that can send only text.
 *
 * Costs on an interpreter are per packet and per escape, not per byte: searching and copying are left to the
 * typed arrays' own methods, and the CRC to a port (it is native on Espruino).
 */
import {
  CHIP_FRAME_BYTES_MAX,
  FRAME_COMMAND,
  FRAME_SEALED,
  HEADER_BYTES,
  WIRE_VERSION,
  WIRE_VERSION_MIN,
  readU32,
  writeU32,
} from "./frame.js";
import { assert } from "./malformed.js";

/** CRC32 (IEEE 802.3, as zlib has it) of bytes[start..end). @returns 0..2^32-1 */
export type Crc32 = (bytes: Uint8Array, start: number, end: number) => number;

/** Who sends on a line; a receiver that hears its own side hears an echo. */
export const SIDE_CONTROLLER = 0;
export const SIDE_OTHER = 8;
/** SIDE_CONTROLLER or SIDE_OTHER (a server, or a client). */
export type SerialSide = typeof SIDE_CONTROLLER | typeof SIDE_OTHER;

/** The two forms. */
export const FORM_BINARY = 0;
export const FORM_TEXT = 1;
/** FORM_BINARY or FORM_TEXT. */
export type SerialForm = typeof FORM_BINARY | typeof FORM_TEXT;

/** Largest frame on a line: what a chip's engine takes at once. @unit bytes, header included */
export const SERIAL_FRAME_BYTES_MAX = CHIP_FRAME_BYTES_MAX;

const FLAG = 0x7e;
const ESCAPE = 0x7d;
const FLIP = 0x20;
const HEAD = 0xd0;
const HEAD_MASK = 0xf0;
const VERSION_MASK = 0x07;
const BEFORE_FRAME = 2;
const CRC_BYTES = 4;
const PACKET_BYTES_MIN = BEFORE_FRAME + HEADER_BYTES + CRC_BYTES;
const PACKET_BYTES_MAX = BEFORE_FRAME + SERIAL_FRAME_BYTES_MAX + CRC_BYTES;
/** Longest packet between two flags: every byte of it escaped. */
const STUFFED_BYTES_MAX = 2 * PACKET_BYTES_MAX;
const CR = 13;
const LF = 10;

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** What a line has brought so far, for people. */
export interface SerialCounts {
  /** Packets handed on. */
  packets: number;
  /** Packets that failed their CRC or made no sense. */
  damaged: number;
  /** Bytes that belonged to no packet handed on. */
  garbageBytes: number;
  /** Packets the other end has sent and that never came, by their numbers. */
  lost: number;
  /** Packets that came a second time. */
  doubled: number;
  /** Our own packets: the line is looped back. */
  echoes: number;
  /** More bytes than any packet has, without an end. */
  tooLong: number;
}

/** One frame off a line: header at bytes[start], payload up to end; valid until it returns. */
export type OnSerialFrame = (bytes: Uint8Array, start: number, end: number) => void;

/** Six bits as a digit of the 7-bit form. */
function digitOf(six: number): number {
  return DIGITS.charCodeAt(six);
}

/** @returns 0..63, or -1 for what is no digit */
function sixOf(digit: number): number {
  if (digit >= 65 && digit <= 90) return digit - 65;
  if (digit >= 97 && digit <= 122) return digit - 71;
  if (digit >= 48 && digit <= 57) return digit + 4;
  if (digit === 43) return 62;
  return digit === 47 ? 63 : -1;
}

/** Puts the flags around, and the escapes in. */
function stuffed(packet: Uint8Array): Uint8Array {
  const length = packet.length;
  let escapes = 0;
  let flag = packet.indexOf(FLAG);
  let escape = packet.indexOf(ESCAPE);
  while (flag >= 0) {
    escapes++;
    flag = packet.indexOf(FLAG, flag + 1);
  }
  while (escape >= 0) {
    escapes++;
    escape = packet.indexOf(ESCAPE, escape + 1);
  }
  const out = new Uint8Array(length + escapes + 2);
  out[0] = FLAG;
  out[out.length - 1] = FLAG;
  let to = 1;
  let at = 0;
  flag = packet.indexOf(FLAG);
  escape = packet.indexOf(ESCAPE);
  while (flag >= 0 || escape >= 0) {
    const next = flag >= 0 && (escape < 0 || flag < escape) ? flag : escape;
    out.set(packet.subarray(at, next), to);
    to += next - at;
    out[to] = ESCAPE;
    out[to + 1] = packet[next]! ^ FLIP;
    to += 2;
    at = next + 1;
    if (next === flag) flag = packet.indexOf(FLAG, at);
    else escape = packet.indexOf(ESCAPE, at);
  }
  out.set(packet.subarray(at), to);
  return out;
}

function asText(packet: Uint8Array): Uint8Array {
  const length = packet.length;
  const rest = length % 3;
  const whole = length - rest;
  const out = new Uint8Array((whole / 3) * 4 + (rest === 0 ? 0 : rest + 1) + 2);
  let to = 1;
  out[0] = FLAG;
  for (let at = 0; at < length; at += 3) {
    const a = packet[at]!;
    const b = at + 1 < length ? packet[at + 1]! : 0;
    const c = at + 2 < length ? packet[at + 2]! : 0;
    out[to++] = digitOf(a >>> 2);
    out[to++] = digitOf(((a & 3) << 4) | (b >>> 4));
    if (at + 1 < length) out[to++] = digitOf(((b & 15) << 2) | (c >>> 6));
    if (at + 2 < length) out[to++] = digitOf(c & 63);
  }
  out[to] = FLAG;
  return out;
}

/**
 * One frame as a packet, before it is put into either form.
 * @param seq number of the packet, counted per direction; its low 8 bits are sent
 * @param start where the frame's header begins; the frame has 8..SERIAL_FRAME_BYTES_MAX bytes (asserted)
 */
export function serialPacket(
  side: SerialSide,
  seq: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  crc32: Crc32,
): Uint8Array {
  const length = end - start;
  assert(length >= HEADER_BYTES && length <= SERIAL_FRAME_BYTES_MAX, "length of a serial frame");
  const packet = new Uint8Array(BEFORE_FRAME + length + CRC_BYTES);
  packet[0] = HEAD | side | WIRE_VERSION;
  packet[1] = seq;
  packet.set(bytes.subarray(start, end), BEFORE_FRAME);
  const crcAt = BEFORE_FRAME + length;
  writeU32(packet, crcAt, crc32(packet, 0, crcAt));
  return packet;
}

/** One frame as the bytes that go on the line, flags included; the parameters are those of `serialPacket`. */
export function encodeSerial(
  form: SerialForm,
  side: SerialSide,
  seq: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  crc32: Crc32,
): Uint8Array {
  const packet = serialPacket(side, seq, bytes, start, end, crc32);
  return form === FORM_TEXT ? asText(packet) : stuffed(packet);
}

/** Takes a line's bytes in whatever pieces they come; holds at most one packet. */
export class SerialDecoder {
  readonly counts: SerialCounts;
  /** The form of the last packet handed on: the one to answer in. */
  form: SerialForm;
  private readonly from: SerialSide;
  private readonly crc32: Crc32;
  private readonly onFrame: OnSerialFrame;
  /** What has come since the last flag, as it came; and one packet with its stuffing taken out. */
  private readonly held: Uint8Array;
  private readonly packet: Uint8Array;
  private used: number;
  private overflowed: boolean;
  /** Number of the last packet handed on, -1 before the first. */
  private seq: number;

  /** @param from the side that is listened to */
  constructor(from: SerialSide, crc32: Crc32, onFrame: OnSerialFrame) {
    this.counts = {
      packets: 0,
      damaged: 0,
      garbageBytes: 0,
      lost: 0,
      doubled: 0,
      echoes: 0,
      tooLong: 0,
    };
    this.form = FORM_BINARY;
    this.from = from;
    this.crc32 = crc32;
    this.onFrame = onFrame;
    this.held = new Uint8Array(STUFFED_BYTES_MAX);
    this.packet = new Uint8Array(PACKET_BYTES_MAX);
    this.used = 0;
    this.overflowed = false;
    this.seq = -1;
  }

  /** @unit bytes held of a packet that has not ended, 0..STUFFED_BYTES_MAX */
  heldBytes(): number {
    return this.used;
  }

  /** Number of the last packet handed on, 0..255; -1 before the first. */
  lastNumber(): number {
    return this.seq;
  }

  /** Packets that followed the last one were taken by somebody else, in the binary form. */
  passed(count: number): void {
    this.seq = (this.seq + count) & 255;
    this.counts.packets += count;
    this.form = FORM_BINARY;
  }

  /** Takes bytes[start..end); whole packets are handed on before it returns. */
  feed(bytes: Uint8Array, start: number, end: number): void {
    const chunk = start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end);
    let at = 0;
    while (at < chunk.length) {
      const flag = chunk.indexOf(FLAG, at);
      this.hold(chunk, at, flag < 0 ? chunk.length : flag);
      if (flag < 0) return;
      this.ended();
      at = flag + 1;
    }
  }

  private hold(bytes: Uint8Array, start: number, end: number): void {
    const count = end - start;
    if (count === 0) return;
    if (this.overflowed || this.used + count > STUFFED_BYTES_MAX) {
      this.counts.garbageBytes += this.used + count;
      if (!this.overflowed) this.counts.tooLong++;
      this.overflowed = true;
      this.used = 0;
      return;
    }
    this.held.set(bytes.subarray(start, end), this.used);
    this.used += count;
  }

  /** A flag has come: what is held is a packet, or nothing. */
  private ended(): void {
    const used = this.used;
    this.used = 0;
    if (this.overflowed) {
      this.overflowed = false;
      return;
    }
    if (used === 0 || this.isLineEnd(used)) return;
    const binary = this.held[0]! >= 0x80;
    const length = binary ? this.unstuffed(used) : this.fromText(used);
    if (!this.isSound(length)) {
      this.counts.damaged++;
      this.counts.garbageBytes += used;
      return;
    }
    const packet = this.packet;
    if ((packet[0]! & SIDE_OTHER) !== this.from) {
      this.counts.echoes++;
      return;
    }
    const seq = packet[1]!;
    const ahead = this.seq < 0 ? 1 : (seq - this.seq) & 255;
    if (ahead === 0) {
      this.counts.doubled++;
      return;
    }
    this.seq = seq;
    this.counts.lost += ahead - 1;
    this.counts.packets++;
    this.form = binary ? FORM_BINARY : FORM_TEXT;
    this.onFrame(packet, BEFORE_FRAME, length - CRC_BYTES);
  }

  /** A text runtime may end each of its lines; that is no packet and no fault. */
  private isLineEnd(used: number): boolean {
    if (used > 2) return false;
    for (let i = 0; i < used; i++) {
      if (this.held[i] !== CR && this.held[i] !== LF) return false;
    }
    return true;
  }

  /** Takes the escapes out, into `packet`. @returns its length, 0 when it is none */
  private unstuffed(used: number): number {
    const held = this.held.subarray(0, used);
    let at = 0;
    let to = 0;
    let escape = held.indexOf(ESCAPE);
    for (;;) {
      const until = escape < 0 ? used : escape;
      if (to + until - at > PACKET_BYTES_MAX) return 0;
      this.packet.set(held.subarray(at, until), to);
      to += until - at;
      if (escape < 0) return to;
      if (escape + 1 === used || to === PACKET_BYTES_MAX) return 0;
      this.packet[to] = held[escape + 1]! ^ FLIP;
      to++;
      at = escape + 2;
      escape = at < used ? held.indexOf(ESCAPE, at) : -1;
    }
  }

  /** Takes the base64 away, into `packet`. @returns its length, 0 when it is none */
  private fromText(used: number): number {
    const held = this.held;
    const rest = used % 4;
    const length = Math.floor(used / 4) * 3 + (rest === 0 ? 0 : rest - 1);
    if (rest === 1 || length > PACKET_BYTES_MAX) return 0;
    let to = 0;
    for (let at = 0; at < used; at += 4) {
      const a = sixOf(held[at]!);
      const b = sixOf(held[at + 1]!);
      const c = at + 2 < used ? sixOf(held[at + 2]!) : 0;
      const d = at + 3 < used ? sixOf(held[at + 3]!) : 0;
      if (a < 0 || b < 0 || c < 0 || d < 0) return 0;
      this.packet[to++] = (a << 2) | (b >>> 4);
      if (to < length) this.packet[to++] = ((b & 15) << 4) | (c >>> 2);
      if (to < length) this.packet[to++] = ((c & 3) << 6) | d;
    }
    return length;
  }

  /** CRC first: nothing of what fails it is looked at. */
  private isSound(length: number): boolean {
    if (length < PACKET_BYTES_MIN) return false;
    const packet = this.packet;
    const crcAt = length - CRC_BYTES;
    if (this.crc32(packet, 0, crcAt) !== readU32(packet, crcAt)) return false;
    const version = packet[0]! & VERSION_MASK;
    if ((packet[0]! & HEAD_MASK) !== HEAD) return false;
    if (version < WIRE_VERSION_MIN || version > WIRE_VERSION) return false;
    const type = packet[BEFORE_FRAME]! & 15;
    const payload = (packet[BEFORE_FRAME + 2]! << 8) | packet[BEFORE_FRAME + 3]!;
    return (
      packet[BEFORE_FRAME]! >>> 4 === version &&
      type >= FRAME_COMMAND &&
      type <= FRAME_SEALED &&
      BEFORE_FRAME + HEADER_BYTES + payload === crcAt
    );
  }
}
