/**
 * What native clients send, beyond one frame of the last one's shape in a chunk.
 *
 *     chunk ─> several frames of one shape ─> one pack
 *                └ one of another shape ─> admitted (fast-path-gate.ts)? ─> the next shape, a pack of its own
 *                     └ else ─> the forwarder's way
 */
import { CHIP_FRAME_BYTES_MAX, HEADER_BYTES } from "../protocol/frame.js";
import { COMMAND_WORD, PACK_BYTES_MAX, headOf } from "./fast-path-books.js";
import type { FastBooks, FastClient } from "./fast-path-books.js";
import type { Gate } from "./fast-path-gate.js";
import { KNOWN, learnName } from "./fast-path-names.js";
import { settle } from "./fast-path-settle.js";

/** Where a frame's payload has a name: behind `*2\r\n$3\r\n`. */
const NAME_AT = 8;
const NAME_BYTES = 12;
/** Words of a frame that are looked at: header, `*2\r\n`, `$3\r\n`, and four bytes of the name. */
const LOOKED_AT = 5;
const NAME = 4;

/** Everything of this client goes by the forwarder until it has nothing there. */
export function ordinaryWay(books: FastBooks, one: FastClient, text: string): void {
  books.count();
  settle(books, one);
  one.raw.ordinary(text);
}

/** @returns what takes a chunk of a native client's that the handler did not take */
export function createNativeIntake(
  books: FastBooks,
  gate: Gate,
): (one: FastClient, chunk: string) => void {
  const Words = books.engine.Words;
  const toBuffer = books.engine.toBuffer;
  const headFor = headOf;
  const forwarders = ordinaryWay;

  function takeFrame(one: FastClient, text: string): void {
    const key = text.substr(NAME_AT, NAME_BYTES);
    const known = books.known[key];
    if (known === undefined) {
      forwarders(books, one, text);
      learn(books, key);
      return;
    }
    const kind = known - KNOWN;
    const size = text.length;
    const head = headFor(COMMAND_WORD, size) + kind;
    const words = new Words(toBuffer(text), 0, LOOKED_AT);
    if (words[0] !== head || words[1] === 0 || size > PACK_BYTES_MAX || !gate.admit(one, kind)) {
      forwarders(books, one, text);
      return;
    }
    one.shape({
      size: size,
      head: head,
      name: words[NAME],
      prefix: "",
      middle: "",
      middleAt: 0,
      kind: kind,
    });
    one.sendOne(text);
  }

  return function (one: FastClient, chunk: string): void {
    let text = chunk;
    if (one.rest === undefined) {
      one.raw.ordinary(chunk);
      return;
    }
    if (one.rest !== "") {
      text = one.rest.concat(chunk);
      one.rest = "";
    }
    while (text.length >= HEADER_BYTES) {
      const size = HEADER_BYTES + (text.charCodeAt(2) << 8) + text.charCodeAt(3);
      if (size > CHIP_FRAME_BYTES_MAX) {
        one.rest = undefined;
        forwarders(books, one, text);
        return;
      }
      if (size > text.length) break;
      let done = size === text.length ? 0 : one.sendMany(text);
      if (done === 0) {
        done = size;
        takeFrame(one, size === text.length ? text : text.substr(0, size));
      }
      text = done === text.length ? "" : text.substr(done);
    }
    if (text === "") return;
    // What comes next begins within a frame: the handler, which looks at a chunk's first bytes, may not have it.
    one.rest = text;
    one.halt();
  };
}

/** Remembers a name of three or four letters in a frame of the usual form. */
function learn(books: FastBooks, key: string): void {
  const digit = key.charCodeAt(5);
  if (
    (digit !== 51 && digit !== 52) ||
    key.charCodeAt(0) !== 42 ||
    key.substr(2, 3) !== "\r\n$" ||
    key.substr(6, 2) !== "\r\n" ||
    (digit === 51 && key.charCodeAt(11) !== 13)
  ) {
    return;
  }
  learnName(books, key, key.substr(8, digit - 48));
}
