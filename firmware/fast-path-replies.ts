/**
 * What servers answer, beyond one pack of answers in a chunk.
 *
 *     chunk ─> packs of clients that are ready ─> their bytes as they came ─> the client's socket
 *                └ of a client that has become rows ─> taken apart, reply by reply ─> forwarder
 *                     └ else (a refusal, a long reply, another epoch): its client becomes rows, and the forwarder has it
 */
import {
  CHIP_FRAME_BYTES_MAX,
  FLAG_MORE,
  FRAME_REPLY,
  HEADER_BYTES,
  OUTCOME_ANSWER,
  frameOf,
} from "../protocol/frame.js";
import { assert } from "./core/assert.js";
import {
  KNOWN_MAX,
  PACK_HEAD_BYTES,
  PACK_REPLY_WORD,
  REPLY_WORD,
  countOf,
  sizeOf,
  swapped,
  writeTo,
} from "./fast-path-books.js";
import type { FastBooks, FastClient, FastLink, OldChannel, Words } from "./fast-path-books.js";
import { settle, settleAll } from "./fast-path-settle.js";

/** @returns what takes a chunk of a server's that the handler did not take */
export function createAnswers(books: FastBooks): (from: FastLink, chunk: string) => void {
  const Words = books.engine.Words;
  const toBuffer = books.engine.toBuffer;
  const bytesOf = sizeOf;
  const write = writeTo;

  return function (from: FastLink, chunk: string): void {
    let text = chunk;
    let at = 0;
    if (from.strange) {
      from.raw.ordinary(chunk);
      return;
    }
    if (from.rest !== "") {
      text = from.rest.concat(chunk);
      from.rest = "";
    }
    const length = text.length;
    const buffer = toBuffer(text);
    while (length - at >= HEADER_BYTES) {
      const words = new Words(buffer, at, 3);
      const head = words[0];
      const size = bytesOf(head);
      if (size > CHIP_FRAME_BYTES_MAX) {
        from.strange = true;
        books.count();
        settleAll(books);
        from.raw.ordinary(text.substr(at));
        return;
      }
      if (at + size > length) break;
      if ((head & 255) === PACK_REPLY_WORD) {
        const one = books.channels[words[2]] || timedAt(books, from, words[2]);
        if (one === undefined) takeApart(books, from, words, text.substr(at, size));
        else {
          if (size === length) learn(books, length, head);
          one.answered = words[1];
          write(one.socket, text.substr(at + PACK_HEAD_BYTES, size - PACK_HEAD_BYTES));
        }
      } else {
        if ((head & 255) === REPLY_WORD) beforeReply(books, from, words);
        from.raw.ordinary(size === length ? text : text.substr(at, size));
      }
      at += size;
    }
    if (at < length) from.rest = text.substr(at);
  };
}

/** The client whose next answer is timed, if this is it. */
function timedAt(books: FastBooks, from: FastLink, channel: number): FastClient | undefined {
  const one = books.timed;
  if (one === undefined || one.channel !== channel) return undefined;
  const now = books.engine.now();
  books.timed = undefined;
  books.channels[channel] = one;
  books.traffic.target.completed(from.server, now - books.timedAt, books.timedAhead, now);
  return one;
}

/** Lets the handler take packs of this form. */
function learn(books: FastBooks, length: number, head: number): void {
  if (books.heads[length] === undefined) {
    if (books.headCount === KNOWN_MAX) {
      books.headCount = 0;
      for (const key in books.heads) delete books.heads[key];
    }
    books.headCount++;
  }
  books.heads[length] = head;
}

/** Before a reply to one command: what its client has outstanding becomes rows, one of which it answers. */
function beforeReply(books: FastBooks, from: FastLink, words: Words): void {
  const number = swapped(words[1]);
  books.count();
  for (let i = 0; i < books.live.length; i++) {
    const one = books.live[i];
    if (one.link === from && isOutstanding(one, number)) {
      settle(books, one);
      break;
    }
  }
  if (((words[0] >> 8) & FLAG_MORE) !== 0) return;
  for (let i = 0; i < books.old.length; i++) {
    const numbers = books.old[i].numbers;
    const at = numbers.indexOf(number);
    if (at < 0) continue;
    numbers.splice(at, 1);
    if (numbers.length === 0) books.old.splice(i, 1);
    return;
  }
}

function isOutstanding(one: FastClient, number: number): boolean {
  for (let i = 0; i < one.sent.length; i++) {
    const first = swapped(one.sent[i][1]);
    if (number >= first && number < first + countOf(one.sent[i])) return true;
  }
  return false;
}

/** Gives the forwarder the answers of a pack one by one, each under its own number. */
function takeApart(books: FastBooks, from: FastLink, words: Words, text: string): void {
  const last = swapped(words[1]);
  let old: OldChannel | undefined;
  for (let i = 0; i < books.old.length; i++) {
    if (books.old[i].channel === words[2] && books.old[i].link === from) old = books.old[i];
  }
  // A server that answers for a channel that has nothing outstanding has answered before: nobody waits for it.
  if (old === undefined) return;
  const bytes = new Uint8Array(books.engine.toBuffer(text));
  let at = PACK_HEAD_BYTES;
  while (at < bytes.length && old.numbers.length > 0 && old.numbers[0] <= last) {
    const end = old.native
      ? at + HEADER_BYTES + (bytes[at + 2] << 8) + bytes[at + 3]
      : replyEnd(bytes, at);
    assert(end <= bytes.length, "a pack has whole answers");
    const payload = bytes.slice(old.native ? at + HEADER_BYTES : at, end);
    const frame = frameOf(FRAME_REPLY, OUTCOME_ANSWER, old.numbers.shift()!, payload);
    from.raw.ordinary(books.engine.toText(frame));
    at = end;
  }
  if (old.numbers.length === 0 && books.old.indexOf(old) >= 0) {
    books.old.splice(books.old.indexOf(old), 1);
  }
}

/** Where the RESP value ends that begins here; beyond the bytes when it is not whole. */
export function replyEnd(bytes: Uint8Array, start: number): number {
  let at = start;
  let values = 1;
  while (values > 0) {
    const type = bytes[at];
    let number = 0;
    let sign = 1;
    at++;
    while (at < bytes.length && bytes[at] !== 13) {
      if (bytes[at] === 45) sign = -1;
      else number = number * 10 + bytes[at] - 48;
      at++;
    }
    at += 2;
    if (at > bytes.length) return bytes.length + 1;
    values--;
    number *= sign;
    // $ = ! : so many bytes; * ~ > : so many values; % : pairs; | : pairs, and then the value they tell of.
    if ((type === 36 || type === 61 || type === 33) && number >= 0) at += number + 2;
    else if ((type === 42 || type === 126 || type === 62) && number > 0) values += number;
    else if (type === 37) values += 2 * number;
    else if (type === 124) values += 2 * number + 1;
  }
  return at;
}
