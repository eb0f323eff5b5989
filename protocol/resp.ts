/**
 * RESP2, the language of Redis clients: an incremental, bounded command parser, and reply writers.
 *
 * The parser is pulled: `feed` a chunk, call `next` until it says PARSED_NOTHING. A command that lies
 * whole in the chunk is shown where it stands; one that straddles chunks is gathered in a buffer of
 * the parser's own. Nothing is made per argument. Errors are those of Redis 7 (networking.c), with
 * its texts; like Redis it does not look at the two bytes that end a line or a bulk beyond the "\r".
 *
 *     PARSED_COMMAND   starts, ends, count, bytes, rangeStart, rangeEnd describe it until the next call
 *     PARSED_REFUSED   too large for us, which is no fault: answer `problem`; its bytes are skipped
 *     PARSED_FAULT     the client broke the protocol: answer `problem` and close
 */

/** What RespParser found next. */
export const PARSED_NOTHING = 0;
export const PARSED_COMMAND = 1;
export const PARSED_REFUSED = 2;
export const PARSED_FAULT = 3;

/** Bounds of what a client may send. */
export interface RespLimits {
  /** Most arguments of a command, its name included. */
  argsMax: number;
  /** Longest argument. @unit bytes */
  bulkBytesMax: number;
  /** Longest command as it stands on the wire. @unit bytes */
  commandBytesMax: number;
  /** Longest line of an inline command; Redis: 65536. @unit bytes */
  inlineBytesMax: number;
  /** Most undecoded bytes kept by `keep`. @unit bytes */
  keptBytesMax: number;
}

/** Redis refuses a longer bulk as a protocol error, whatever the limits here (proto-max-bulk-len). @unit bytes */
export const PROTO_BULK_BYTES_MAX = 536870912;
/** Most characters of a number in a "*<count>" or "$<length>" line (64 bits and a sign). */
const NUMBER_CHARS_MAX = 20;
const BAD_NUMBER = -1e21;

const STAGE_START = 0;
const STAGE_BULK_HEADER = 1;
const STAGE_BULK_BODY = 2;

const CR = 13;
const LF = 10;
const STAR = 42;
const DOLLAR = 36;
/** A partial line is taken into the own buffer in pieces of this size. @unit bytes */
const LINE_PIECE_BYTES = 64;
/** A buffer of the parser's own that is larger than this is given back when it is empty. @unit bytes */
const SPARE_BYTES_MAX = 65536;

const NO_BYTES = new Uint8Array(0);

/** Cuts a client's byte stream into commands; bounded, and refuses what is malformed for good. */
export class RespParser {
  /** Where the command stands; argument i is bytes[starts[i]..ends[i]). */
  bytes: Uint8Array;
  count: number;
  starts: Int32Array;
  ends: Int32Array;
  /** The whole command as a RESP array (an inline one rewritten so): bytes[rangeStart..rangeEnd). */
  rangeStart: number;
  rangeEnd: number;
  /** Error text without "-", after PARSED_REFUSED and PARSED_FAULT. */
  problem: string;
  /** False while a password is wanted: Redis allows only small commands then. */
  authenticated: boolean;

  private readonly limits: RespLimits;
  private chunk: Uint8Array;
  private at: number;
  private end: number;
  private faulty: boolean;
  /** The first part of a command that began in an earlier chunk, and how much of it there is. */
  private held: Uint8Array;
  private heldEnd: number;
  /** The kept rest of an earlier chunk is the chunk now. */
  private ownChunk: boolean;
  /** State inside a command; offsets count in the buffer being parsed. */
  private stage: number;
  private begin: number;
  private cursor: number;
  private argsLeft: number;
  private bulkLength: number;
  /** Arguments of a refused command still to be skipped, and bytes of the current one. */
  private skipArgs: number;
  private skipBytes: number;
  /** Of the "$" line being skipped: characters that have come, and the number they make. */
  private skipLine: number;
  private skipNumber: number;
  /** Part of an inline command's line that is known to hold no line break. */
  private scanned: number;
  private shownHeld: boolean;

  constructor(limits: RespLimits) {
    this.limits = limits;
    this.bytes = NO_BYTES;
    this.count = 0;
    this.starts = new Int32Array(limits.argsMax < 16 ? limits.argsMax : 16);
    this.ends = new Int32Array(limits.argsMax < 16 ? limits.argsMax : 16);
    this.rangeStart = 0;
    this.rangeEnd = 0;
    this.problem = "";
    this.authenticated = true;
    this.chunk = NO_BYTES;
    this.at = 0;
    this.end = 0;
    this.faulty = false;
    this.held = NO_BYTES;
    this.heldEnd = 0;
    this.ownChunk = false;
    this.stage = STAGE_START;
    this.begin = 0;
    this.cursor = 0;
    this.argsLeft = 0;
    this.bulkLength = 0;
    this.skipArgs = 0;
    this.skipBytes = 0;
    this.skipLine = 0;
    this.skipNumber = 0;
    this.scanned = 0;
    this.shownHeld = false;
  }

  /**
   * Takes a chunk; the parser reads it where it is until `next` gives PARSED_NOTHING or `keep` is called.
   * @returns false when too much was fed on top of what is kept: the caller drops the connection
   */
  feed(bytes: Uint8Array, start: number, end: number): boolean {
    if (this.at < this.end) {
      if (this.faulty) return true;
      const rest = this.end - this.at;
      if (rest + end - start > this.limits.keptBytesMax) return false;
      const joined = new Uint8Array(rest + end - start);
      joined.set(this.chunk.subarray(this.at, this.end), 0);
      joined.set(bytes.subarray(start, end), rest);
      this.chunk = joined;
      this.at = 0;
      this.end = joined.length;
      this.ownChunk = true;
      return true;
    }
    this.chunk = bytes;
    this.at = start;
    this.end = end;
    this.ownChunk = false;
    return true;
  }

  /** The caller stops before PARSED_NOTHING and its buffer will be used again: keeps a copy of the rest. */
  keep(): void {
    if (this.ownChunk || this.at >= this.end) return;
    this.chunk = this.chunk.slice(this.at, this.end);
    this.end -= this.at;
    this.at = 0;
    this.ownChunk = true;
  }

  /** @unit bytes held of a command that is not whole, and of what is kept */
  heldBytes(): number {
    return this.heldEnd + (this.ownChunk ? this.end - this.at : 0);
  }

  /** @unit bytes the client has announced beyond those held (what is left of the current argument) */
  announcedBytes(): number {
    if (this.heldEnd === 0 || this.stage !== STAGE_BULK_BODY) return 0;
    const wanted = this.cursor + this.bulkLength + 2;
    return wanted > this.heldEnd ? wanted - this.heldEnd : 0;
  }

  /** Bytes are fed that `next` has not looked at yet. */
  hasMore(): boolean {
    return this.at < this.end;
  }

  /** @returns PARSED_*; after PARSED_FAULT always PARSED_FAULT */
  next(): number {
    if (this.faulty) return PARSED_FAULT;
    if (this.skipArgs > 0) {
      const skipped = this.skip();
      if (skipped !== PARSED_COMMAND) return skipped;
    }
    // The command shown last may have stood in the own buffer; it is done with.
    if (this.shownHeld) this.dropHeld();
    if (this.heldEnd > 0) return this.nextHeld();
    while (this.at < this.end) {
      const parsed = this.parse(this.chunk, this.at, this.end);
      if (parsed === PARSED_COMMAND) {
        this.at = this.cursor;
        if (this.count === 0) continue;
        return PARSED_COMMAND;
      }
      if (parsed !== PARSED_NOTHING) {
        this.at = this.cursor;
        return parsed;
      }
      this.holdRest();
      break;
    }
    // The chunk is the caller's again.
    this.chunk = NO_BYTES;
    this.at = 0;
    this.end = 0;
    this.ownChunk = false;
    return PARSED_NOTHING;
  }

  private dropHeld(): void {
    this.shownHeld = false;
    this.heldEnd = 0;
    if (this.held.length > SPARE_BYTES_MAX) this.held = NO_BYTES;
  }

  /** Moves the beginning of an unfinished command into the own buffer. */
  private holdRest(): void {
    const begin = this.begin;
    const length = this.end - begin;
    this.roomHeld(length);
    this.held.set(this.chunk.subarray(begin, this.end), 0);
    this.heldEnd = length;
    if (begin !== 0) {
      for (let i = 0; i < this.count; i++) {
        this.starts[i]! -= begin;
        this.ends[i]! -= begin;
      }
      this.cursor -= begin;
      this.begin = 0;
    }
  }

  private roomHeld(length: number): void {
    if (length <= this.held.length) return;
    let size = this.held.length < 256 ? 256 : this.held.length;
    while (size < length) size *= 2;
    const most = this.limits.commandBytesMax + LINE_PIECE_BYTES;
    if (size > most && length <= most) size = most;
    const grown = new Uint8Array(size);
    grown.set(this.held.subarray(0, this.heldEnd), 0);
    this.held = grown;
  }

  /** Goes on with a command that began in an earlier chunk, taking from this one no more than it needs. */
  private nextHeld(): number {
    for (;;) {
      let wanted = LINE_PIECE_BYTES;
      if (this.stage === STAGE_BULK_BODY) {
        wanted = this.cursor + this.bulkLength + 2 - this.heldEnd;
      }
      const available = this.end - this.at;
      if (available === 0) {
        this.chunk = NO_BYTES;
        this.at = 0;
        this.end = 0;
        this.ownChunk = false;
        return PARSED_NOTHING;
      }
      if (wanted > available) wanted = available;
      this.roomHeld(this.heldEnd + wanted);
      this.held.set(this.chunk.subarray(this.at, this.at + wanted), this.heldEnd);
      this.heldEnd += wanted;
      this.at += wanted;
      const parsed = this.parse(this.held, 0, this.heldEnd);
      if (parsed === PARSED_NOTHING) continue;
      if (parsed === PARSED_FAULT) return parsed;
      // A line's piece may have taken what belongs to the next command: it is given back.
      this.at -= this.heldEnd - this.cursor;
      if (parsed === PARSED_COMMAND && this.count > 0) {
        this.shownHeld = true;
        return PARSED_COMMAND;
      }
      this.dropHeld();
      if (parsed === PARSED_COMMAND) return this.next();
      return parsed;
    }
  }

  /**
   * Parses one command, or goes on with the one under way (its state is kept in fields).
   * @returns PARSED_COMMAND with `cursor` behind it (count 0: an empty one), else why not
   */
  private parse(bytes: Uint8Array, from: number, end: number): number {
    let at: number;
    let stage = this.stage;
    if (stage === STAGE_START) {
      this.begin = from;
      this.count = 0;
      if (bytes[from] !== STAR) return this.parseInline(bytes, from, end);
      at = from + 1;
      // Most commands have less than ten arguments.
      let arity = 0;
      if (at + 2 < end && bytes[at + 1] === CR && bytes[at]! >= 49 && bytes[at]! <= 57) {
        arity = bytes[at]! - 48;
        at += 3;
      } else {
        const lineEnd = findCr(bytes, at, end);
        if (lineEnd < 0 || lineEnd + 2 > end) {
          // Redis waits for up to 64 KB; a line this long cannot become a number any more.
          if (lineEnd < 0 && end - at > NUMBER_CHARS_MAX) {
            return this.fault("invalid multibulk length", end);
          }
          return PARSED_NOTHING;
        }
        arity = parseNumber(bytes, at, lineEnd);
        at = lineEnd + 2;
        if (arity === BAD_NUMBER || arity > this.limits.argsMax) {
          return this.fault("invalid multibulk length", at);
        }
        if (arity > 10 && !this.authenticated) {
          return this.fault("unauthenticated multibulk length", at);
        }
        if (arity <= 0) {
          this.cursor = at;
          return PARSED_COMMAND;
        }
      }
      if (arity > this.limits.argsMax) return this.fault("invalid multibulk length", at);
      this.argsLeft = arity;
      stage = STAGE_BULK_HEADER;
    } else {
      at = this.cursor;
    }
    let argsLeft = this.argsLeft;
    let count = this.count;
    let length = this.bulkLength;
    for (;;) {
      if (stage === STAGE_BULK_HEADER) {
        if (at >= end) break;
        if (bytes[at] !== DOLLAR) {
          const found = bytes[at]!;
          // Control characters would break the error line.
          const shown = found < 32 ? " " : String.fromCharCode(found);
          return this.fault("expected '$', got '" + shown + "'", at);
        }
        // The usual line, up to 8 digits without a leading zero; all else takes the slow way below.
        let digitAt = at + 1;
        let digit = bytes[digitAt]! - 48;
        length = digit;
        if (digit > 0 && digit <= 9) {
          const last = at + 9 < end ? at + 9 : end - 1;
          while (digitAt < last) {
            digitAt++;
            digit = bytes[digitAt]! - 48;
            if (digit < 0 || digit > 9) break;
            length = length * 10 + digit;
          }
        } else if (digit === 0) digitAt++;
        if (digitAt > at + 1 && digitAt + 1 < end && bytes[digitAt] === CR) {
          at = digitAt + 2;
          if (length > 16384 && !this.authenticated) {
            return this.fault("unauthenticated bulk length", at);
          }
        } else {
          const lineEnd = findCr(bytes, at + 1, end);
          if (lineEnd < 0 || lineEnd + 2 > end) {
            if (lineEnd < 0 && end - at - 1 > NUMBER_CHARS_MAX) {
              return this.fault("invalid bulk length", end);
            }
            break;
          }
          length = parseNumber(bytes, at + 1, lineEnd);
          // -0 cannot come out of parseNumber, so this also refuses BAD_NUMBER.
          if (length < 0 || length > PROTO_BULK_BYTES_MAX) {
            return this.fault("invalid bulk length", lineEnd + 2);
          }
          if (length > 16384 && !this.authenticated) {
            return this.fault("unauthenticated bulk length", lineEnd + 2);
          }
          at = lineEnd + 2;
        }
        if (
          length > this.limits.bulkBytesMax ||
          at + length + 2 - this.begin > this.limits.commandBytesMax
        ) {
          return this.refuse(at, length, argsLeft);
        }
        stage = STAGE_BULK_BODY;
      }
      if (end - at < length + 2) break;
      if (count === this.starts.length) this.growArgs(count);
      this.starts[count] = at;
      at += length;
      this.ends[count] = at;
      at += 2;
      count++;
      argsLeft--;
      if (argsLeft === 0) {
        this.bytes = bytes;
        this.count = count;
        this.rangeStart = this.begin;
        this.rangeEnd = at;
        this.cursor = at;
        this.stage = STAGE_START;
        return PARSED_COMMAND;
      }
      stage = STAGE_BULK_HEADER;
    }
    this.stage = stage;
    this.cursor = at;
    this.argsLeft = argsLeft;
    this.count = count;
    this.bulkLength = length;
    return PARSED_NOTHING;
  }

  private growArgs(count: number): void {
    let size = count * 2;
    if (size > this.limits.argsMax) size = this.limits.argsMax;
    const starts = new Int32Array(size);
    const ends = new Int32Array(size);
    starts.set(this.starts, 0);
    ends.set(this.ends, 0);
    this.starts = starts;
    this.ends = ends;
  }

  private fault(text: string, at: number): number {
    this.problem = "ERR Protocol error: " + text;
    this.faulty = true;
    this.cursor = at;
    this.count = 0;
    this.heldEnd = 0;
    this.held = NO_BYTES;
    return PARSED_FAULT;
  }

  /** Too large: from `at` on, `length` bytes of this argument and all that follow are passed over. */
  private refuse(at: number, length: number, argsLeft: number): number {
    const limit =
      length > this.limits.bulkBytesMax ? this.limits.bulkBytesMax : this.limits.commandBytesMax;
    this.problem = "ERR value too large (limit " + limit + " bytes)";
    this.stage = STAGE_START;
    this.cursor = at;
    this.count = 0;
    this.skipArgs = argsLeft;
    this.skipBytes = length + 2;
    this.skipLine = 0;
    return PARSED_REFUSED;
  }

  /** Passes over a refused command without holding it. @returns PARSED_COMMAND when it is passed */
  private skip(): number {
    while (this.at < this.end) {
      if (this.skipBytes > 0) {
        const available = this.end - this.at;
        const taken = available < this.skipBytes ? available : this.skipBytes;
        this.at += taken;
        this.skipBytes -= taken;
        if (this.skipBytes > 0) continue;
        this.skipArgs--;
        this.skipLine = 0;
        this.skipNumber = 0;
        if (this.skipArgs === 0) return PARSED_COMMAND;
        continue;
      }
      const byte = this.chunk[this.at]!;
      this.at++;
      if (this.skipLine === 0) {
        if (byte !== DOLLAR) {
          const shown = byte < 32 ? " " : String.fromCharCode(byte);
          return this.fault("expected '$', got '" + shown + "'", this.at);
        }
        this.skipLine = 1;
      } else if (byte === CR) {
        if (this.skipLine === 1) return this.fault("invalid bulk length", this.at);
        // One more byte of the line, the body, and the two bytes that end it.
        this.skipBytes = 1 + this.skipNumber + 2;
      } else if (byte < 48 || byte > 57 || (this.skipLine > 1 && this.skipNumber === 0)) {
        return this.fault("invalid bulk length", this.at);
      } else {
        this.skipLine++;
        this.skipNumber = this.skipNumber * 10 + byte - 48;
        if (this.skipNumber > PROTO_BULK_BYTES_MAX) {
          return this.fault("invalid bulk length", this.at);
        }
      }
    }
    this.chunk = NO_BYTES;
    this.at = 0;
    this.end = 0;
    this.ownChunk = false;
    return PARSED_NOTHING;
  }

  /** A line typed by a person: split at spaces, with quotes as Redis takes them, and rewritten as an array. */
  private parseInline(bytes: Uint8Array, from: number, end: number): number {
    const max = this.limits.inlineBytesMax;
    let lineEnd = from + this.scanned;
    const last = end - from > max + 1 ? from + max + 1 : end;
    while (lineEnd < last && bytes[lineEnd] !== LF) lineEnd++;
    if (lineEnd === last) {
      if (last - from > max) return this.fault("too big inline request", end);
      this.cursor = from;
      this.scanned = last - from;
      return PARSED_NOTHING;
    }
    this.scanned = 0;
    this.cursor = lineEnd + 1;
    if (lineEnd > from && bytes[lineEnd - 1] === CR) lineEnd--;
    const split = splitInline(bytes, from, lineEnd);
    if (split === undefined) return this.fault("unbalanced quotes in request", this.cursor);
    this.count = 0;
    if (split.length === 0) return PARSED_COMMAND;
    if (split.length > this.limits.argsMax) {
      return this.fault("invalid multibulk length", this.cursor);
    }
    const sink: ByteSink = { bytes: new Uint8Array(64 + 2 * (lineEnd - from)), length: 0 };
    writeArray(sink, split.length);
    while (this.starts.length < split.length) this.growArgs(this.starts.length);
    for (let i = 0; i < split.length; i++) {
      const argument = split[i]!;
      writeBulk(sink, argument, 0, argument.length);
      this.ends[i] = sink.length - 2;
      this.starts[i] = sink.length - 2 - argument.length;
    }
    this.bytes = sink.bytes;
    this.count = split.length;
    this.rangeStart = 0;
    this.rangeEnd = sink.length;
    return PARSED_COMMAND;
  }
}

/** @returns where the number that begins at `start` ends, -1 when no "\r" is near enough */
function findCr(bytes: Uint8Array, start: number, end: number): number {
  const last = end - start > NUMBER_CHARS_MAX + 1 ? start + NUMBER_CHARS_MAX + 1 : end;
  for (let at = start; at < last; at++) {
    if (bytes[at] === CR) return at;
  }
  return -1;
}

/**
 * A decimal number as Redis' string2ll takes it: no sign but "-", no leading zeros, not empty.
 * @returns BAD_NUMBER for anything else; beyond 2^53 the value is only near
 */
function parseNumber(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  if (length <= 0 || length > NUMBER_CHARS_MAX) return BAD_NUMBER;
  if (length === 1 && bytes[start] === 48) return 0;
  const negative = bytes[start] === 45;
  let at = negative ? start + 1 : start;
  if (at === end || bytes[at]! < 49 || bytes[at]! > 57) return BAD_NUMBER;
  let value = 0;
  for (; at < end; at++) {
    const digit = bytes[at]! - 48;
    if (digit < 0 || digit > 9) return BAD_NUMBER;
    value = value * 10 + digit;
  }
  if (value > 9223372036854775808) return BAD_NUMBER;
  return negative ? -value : value;
}

function isSpace(byte: number): boolean {
  return byte === 32 || (byte >= 9 && byte <= 13);
}

function hexDigit(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const lower = byte | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

/** Redis' sdssplitargs. @returns undefined for unbalanced quotes */
function splitInline(bytes: Uint8Array, start: number, end: number): Uint8Array[] | undefined {
  const found: Uint8Array[] = [];
  let at = start;
  const word = new Uint8Array(end - start);
  for (;;) {
    while (at < end && isSpace(bytes[at]!)) at++;
    if (at >= end || bytes[at] === 0) return found;
    let length = 0;
    let quote = 0;
    for (;;) {
      const byte = at < end ? bytes[at]! : 0;
      if (quote !== 0) {
        if (byte === 0) return undefined;
        if (byte === quote) {
          const after = at + 1 < end ? bytes[at + 1]! : 0;
          if (after !== 0 && !isSpace(after)) return undefined;
          at++;
          break;
        }
        if (byte === 92 && quote === 34 && at + 1 < end && bytes[at + 1] !== 0) {
          const high = at + 3 < end && bytes[at + 1] === 120 ? hexDigit(bytes[at + 2]!) : -1;
          const low = high < 0 ? -1 : hexDigit(bytes[at + 3]!);
          if (low >= 0) {
            word[length++] = high * 16 + low;
            at += 4;
          } else {
            word[length++] = unescaped(bytes[at + 1]!);
            at += 2;
          }
        } else if (byte === 92 && quote === 39 && at + 1 < end && bytes[at + 1] === 39) {
          word[length++] = 39;
          at += 2;
        } else {
          word[length++] = byte;
          at++;
        }
      } else {
        if (byte === 0 || isSpace(byte)) break;
        if (byte === 34 || byte === 39) quote = byte;
        else word[length++] = byte;
        at++;
      }
    }
    found.push(word.slice(0, length));
  }
}

function unescaped(byte: number): number {
  if (byte === 110) return 10;
  if (byte === 114) return 13;
  if (byte === 116) return 9;
  if (byte === 98) return 8;
  if (byte === 97) return 7;
  return byte;
}

/** Growable byte buffer with a write position; used again and again. */
export interface ByteSink {
  bytes: Uint8Array;
  length: number;
}

/** A reusable sink. @param size its first capacity in bytes; it grows */
export function makeSink(bytes: number): ByteSink {
  return { bytes: new Uint8Array(bytes), length: 0 };
}

/** Makes room for `count` more bytes. The old buffer may be replaced. */
export function reserve(sink: ByteSink, count: number): void {
  const needed = sink.length + count;
  if (needed <= sink.bytes.length) return;
  let size = sink.bytes.length < 64 ? 64 : sink.bytes.length * 2;
  while (size < needed) size *= 2;
  const grown = new Uint8Array(size);
  grown.set(sink.bytes.subarray(0, sink.length), 0);
  sink.bytes = grown;
}

/** Appends one byte. @param byte 0..255 */
export function putByte(sink: ByteSink, byte: number): void {
  if (sink.length === sink.bytes.length) reserve(sink, 1);
  sink.bytes[sink.length++] = byte;
}

/** Appends bytes[start..end). */
export function putBytes(sink: ByteSink, from: Uint8Array, start: number, end: number): void {
  const count = end - start;
  reserve(sink, count);
  const to = sink.bytes;
  const base = sink.length;
  // A short copy is cheaper by hand than through a view.
  if (count < 32) {
    for (let i = 0; i < count; i++) to[base + i] = from[start + i]!;
  } else {
    to.set(from.subarray(start, end), base);
  }
  sink.length = base + count;
}

/** Text as latin1; other characters become "?". */
export function putText(sink: ByteSink, text: string): void {
  const count = text.length;
  reserve(sink, count);
  const to = sink.bytes;
  let at = sink.length;
  for (let i = 0; i < count; i++) {
    const code = text.charCodeAt(i);
    to[at++] = code < 256 ? code : 63;
  }
  sink.length = at;
}

/** A whole number in decimal, safe integers only (asserted by its length below 17 digits). */
export function putDecimal(sink: ByteSink, value: number): void {
  if (value < 0 || value > 0x7fffffff) {
    putText(sink, "" + value);
    return;
  }
  reserve(sink, 10);
  const to = sink.bytes;
  let digits = 1;
  for (let rest = value; rest >= 10; rest = (rest / 10) | 0) digits++;
  let at = sink.length + digits;
  sink.length = at;
  let rest = value;
  do {
    const tenth = (rest / 10) | 0;
    to[--at] = 48 + rest - tenth * 10;
    rest = tenth;
  } while (rest > 0);
}

function putCrLf(sink: ByteSink): void {
  reserve(sink, 2);
  sink.bytes[sink.length++] = CR;
  sink.bytes[sink.length++] = LF;
}

/** `+text`; it must hold no line break. */
export function writeSimple(sink: ByteSink, text: string): void {
  putByte(sink, 43);
  putText(sink, text);
  putCrLf(sink);
}

/** `-text`: code word first, as in "ERR no such key". Line breaks in it become spaces. */
export function writeError(sink: ByteSink, text: string): void {
  putByte(sink, 45);
  const from = sink.length;
  putText(sink, text);
  for (let at = from; at < sink.length; at++) {
    if (sink.bytes[at] === CR || sink.bytes[at] === LF) sink.bytes[at] = 32;
  }
  putCrLf(sink);
}

/** `:value` for a safe integer. */
export function writeInteger(sink: ByteSink, value: number): void {
  putByte(sink, 58);
  putDecimal(sink, value);
  putCrLf(sink);
}

/** `:digits` for an integer of up to 64 bits that is already decimal text. */
export function writeIntegerText(sink: ByteSink, digits: string): void {
  putByte(sink, 58);
  putText(sink, digits);
  putCrLf(sink);
}

/** A bulk of bytes[start..end). */
export function writeBulk(sink: ByteSink, from: Uint8Array, start: number, end: number): void {
  putByte(sink, DOLLAR);
  putDecimal(sink, end - start);
  putCrLf(sink);
  putBytes(sink, from, start, end);
  putCrLf(sink);
}

/** A bulk of latin1 text. */
export function writeBulkText(sink: ByteSink, text: string): void {
  putByte(sink, DOLLAR);
  putDecimal(sink, text.length);
  putCrLf(sink);
  putText(sink, text);
  putCrLf(sink);
}

/** `$-1`: no such value. */
export function writeNull(sink: ByteSink): void {
  putText(sink, "$-1\r\n");
}

/** `*-1`: no such list, an EXEC that did not run. */
export function writeNullArray(sink: ByteSink): void {
  putText(sink, "*-1\r\n");
}

/** `*count`: that many replies follow. */
export function writeArray(sink: ByteSink, count: number): void {
  putByte(sink, STAR);
  putDecimal(sink, count);
  putCrLf(sink);
}
