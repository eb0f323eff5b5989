/**
 * What plain Redis clients send, beyond one command of the last one's shape in a chunk.
 *
 *     chunk ─> several commands of one shape ─> one pack
 *                └ one of another shape, of two or three parts ─> admitted (fast-path-gate.ts)? ─> the next shape, a pack of its own
 *                     └ else ─> the forwarder's way
 *
 *     shape:  *3 $3 SET $1 . \r\n$37\r\n ..... \r\n      what is written out here must stand there, byte for byte,
 *             prefix         middle            ending     so that what is between them is as long as it says
 */
import { PACK_BYTES_MAX } from "./fast-path-books.js";
import type { FastBooks, FastClient } from "./fast-path-books.js";
import { isIdle } from "./fast-path-gate.js";
import type { Gate } from "./fast-path-gate.js";
import { KNOWN, learnName } from "./fast-path-names.js";
import { ordinaryWay } from "./fast-path-native.js";

const LINE_END = "\r\n";
const ASTERISK = 42;
const DOLLAR = 36;
/** A length whose line has not come whole. */
const CUT = -2;

interface PlainShape {
  /** The command's bytes; 0: it is not whole. */
  end: number;
  name: string;
  prefix: string;
  /** Between key and value; "" when there is none. */
  middle: string;
  middleAt: number;
}

const NOT_WHOLE: PlainShape = { end: 0, name: "", prefix: "", middle: "", middleAt: 0 };

/** @returns what takes a chunk of a plain client's that the handler did not take */
export function createPlainIntake(
  books: FastBooks,
  gate: Gate,
): (one: FastClient, chunk: string) => void {
  const shapeAt = shapeOf;
  const forwarders = ordinaryWay;

  function takeCommand(one: FastClient, text: string, shape: PlainShape): boolean {
    const known = books.known[shape.name];
    if (known === undefined) {
      learnName(books, shape.name, shape.name);
      return false;
    }
    const kind = known - KNOWN;
    if (!gate.admit(one, kind)) return false;
    one.shape({
      size: text.length,
      head: 0,
      name: 0,
      prefix: shape.prefix,
      middle: shape.middle,
      middleAt: shape.middleAt,
      kind: kind,
    });
    one.sendOne(text);
    return true;
  }

  return function (one: FastClient, chunk: string): void {
    let text = chunk;
    if (one.rest !== "") {
      text = one.rest!.concat(chunk);
      one.rest = "";
    }
    if (!one.ready && !isIdle(books, one)) {
      forwarders(books, one, text);
      return;
    }
    while (text !== "") {
      let done = one.sendMany(text);
      if (done === 0) {
        const shape = shapeAt(text);
        if (shape === undefined) {
          forwarders(books, one, text);
          return;
        }
        done = shape.end;
        if (done === 0) {
          // What comes next begins within a command: the handler, which looks at a chunk's first bytes, may not have it.
          one.rest = text;
          one.halt();
          return;
        }
        if (!takeCommand(one, text.length === done ? text : text.substr(0, done), shape)) {
          forwarders(books, one, text);
          return;
        }
      }
      text = done === text.length ? "" : text.substr(done);
    }
  };
}

/**
 * A decimal as a client library writes it, between its mark and a line's end.
 * @returns -1 when it is anything else, CUT when it is not whole
 */
function lengthAt(text: string, at: number, mark: number): number {
  if (at >= text.length) return CUT;
  if (text.charCodeAt(at) !== mark) return -1;
  const part = text.substr(at + 1, 5);
  const end = part.indexOf(LINE_END);
  if (end < 0) return part.length < 5 ? CUT : -1;
  const digits = part.substr(0, end);
  const length = parseInt(digits, 10);
  return "" + length === digits ? length : -1;
}

/**
 * The shape of the command at a text's beginning.
 * @returns one that ends at 0 when it is not whole; undefined for all that this way is not for
 */
function shapeOf(text: string): PlainShape | undefined {
  const count = lengthAt(text, 0, ASTERISK);
  if (count !== 2 && count !== 3) return undefined;
  const nameLength = lengthAt(text, 4, DOLLAR);
  if (nameLength === CUT) return NOT_WHOLE;
  if (nameLength < 1 || nameLength > 9) return undefined;
  const nameEnd = 8 + nameLength;
  if (text.length < nameEnd + 2) return NOT_WHOLE;
  if (!text.startsWith(LINE_END, nameEnd)) return undefined;
  const keyLength = lengthAt(text, nameEnd + 2, DOLLAR);
  if (keyLength === CUT) return NOT_WHOLE;
  if (keyLength < 0) return undefined;
  const prefixEnd = nameEnd + 5 + ("" + keyLength).length;
  const keyEnd = prefixEnd + keyLength;
  let middle = "";
  let end = keyEnd + 2;
  if (end <= PACK_BYTES_MAX && count === 3) {
    const valueLength = lengthAt(text, end, DOLLAR);
    if (valueLength === CUT) return NOT_WHOLE;
    if (valueLength < 0) return undefined;
    middle = LINE_END + "$" + valueLength + LINE_END;
    end = keyEnd + middle.length + valueLength + 2;
    if (!text.startsWith(middle, keyEnd)) return undefined;
  }
  if (end > PACK_BYTES_MAX) return undefined;
  if (text.length < end) return NOT_WHOLE;
  if (!text.startsWith(LINE_END, end - 2)) return undefined;
  return {
    end: end,
    name: text.substr(8, nameLength),
    prefix: text.substr(0, prefixEnd),
    middle: middle,
    middleAt: count === 3 ? keyEnd : 0,
  };
}
