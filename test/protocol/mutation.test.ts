/**
 * Bytes changed at random: no decoder throws, none holds more than its bound, and none sees a
 * stream differently when it comes in other chunks. DYAD_FUZZ_SEED and DYAD_FUZZ_CASES go further.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { findCommand, resolveCommand } from "../../protocol/command-class.js";
import { FrameDecoder } from "../../protocol/frame-decoder.js";
import { FRAME_CONTROL, HEADER_BYTES, frameOf } from "../../protocol/frame.js";
import { isMalformed } from "../../protocol/malformed.js";
import * as m from "../../protocol/messages.js";
import { decodeRecord } from "../../protocol/record.js";
import {
  REPLY_MALFORMED,
  REPLY_UNFINISHED,
  ReplyScanner,
  decodeReply,
} from "../../protocol/resp-reply.js";
import { controlMessages, heartbeats, polls } from "./arbitrary-messages.js";
import { LIMITS, latin1, outcomesOf, wireOf } from "./resp-outcomes.js";
import { splitAt } from "./split.js";

const SEED = Number(process.env["DYAD_FUZZ_SEED"] ?? 1);
const CASES = Number(process.env["DYAD_FUZZ_CASES"] ?? 100_000);
const told = `seed ${SEED}`;

/** mulberry32: the same numbers from the same seed everywhere. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** One to four changes: a byte set or flipped, bytes doubled, removed, or cut off. */
function mutate(bytes: Uint8Array, random: (below: number) => number): Uint8Array {
  let out = bytes.slice();
  for (let changes = 1 + random(4); changes > 0 && out.length > 0; changes--) {
    const at = random(out.length);
    const kind = random(6);
    if (kind === 0) out[at] = random(256);
    else if (kind === 1) out[at]! ^= 1 << random(8);
    else if (kind === 2) out[at] = [0, 255, 13, 10, 36, 42, 45, 48, 57][random(9)]!;
    else if (kind === 3) out = out.slice(0, at);
    else {
      const end = Math.min(out.length, at + 1 + random(8));
      const twice = kind === 4 ? out.slice(at, end) : new Uint8Array(0);
      const rest = out.slice(kind === 4 ? at : end);
      const joined = new Uint8Array(at + twice.length + rest.length);
      joined.set(out.subarray(0, at));
      joined.set(twice, at);
      joined.set(rest, at + twice.length);
      out = joined;
    }
  }
  return out;
}

const sampled = <T>(arbitrary: fc.Arbitrary<T>, count: number): T[] =>
  fc.sample(arbitrary, { numRuns: count, seed: SEED });

test(`control messages and datagrams (${told})`, () => {
  const random = randomFrom(SEED);
  const payloads = [
    ...sampled(controlMessages, 300).map((message) => m.encodeControl(message)),
    ...sampled(polls, 10).map((poll) => m.encodePoll(poll)),
    ...sampled(heartbeats, 30).map((heartbeat) => m.encodeHeartbeat(heartbeat)),
  ];
  let accepted = 0;
  for (let i = 0; i < CASES; i++) {
    const bytes = mutate(payloads[i % payloads.length]!, random);
    const decoded = m.decodeControl(bytes, 0, bytes.length);
    if (!isMalformed(decoded)) {
      accepted++;
      // What is accepted can be sent again, so nothing in it is out of its range.
      if (i % 16 === 0) m.encodeControl(decoded);
    }
    m.decodePoll(bytes, 0, bytes.length);
    m.decodeHeartbeat(bytes, 0, bytes.length);
    decodeRecord(bytes, 0, bytes.length);
  }
  expect(accepted).toBeGreaterThan(CASES / 20);
  expect(accepted).toBeLessThan(CASES);
});

test(`frames (${told})`, () => {
  const random = randomFrom(SEED + 1);
  const PAYLOAD_MAX = 300;
  for (let i = 0; i < CASES / 5; i++) {
    const parts: Uint8Array[] = [];
    for (let n = 1 + random(4); n > 0; n--) {
      const payload = new Uint8Array(random(3) === 0 ? random(PAYLOAD_MAX) : random(20));
      parts.push(frameOf(1 + random(9), random(256), random(1000), payload));
    }
    const stream = mutate(
      Buffer.concat([...parts, frameOf(FRAME_CONTROL, 0, 0, parts[0]!)]),
      random,
    );
    const decode = (chunks: Uint8Array[]): string[] => {
      const seen: string[] = [];
      const decoder = new FrameDecoder(
        (type, flags, id, _bytes, start, end) => seen.push([type, flags, id, end - start].join()),
        PAYLOAD_MAX,
        0,
      );
      for (const chunk of chunks) {
        const fault = decoder.feed(chunk, 0, chunk.length);
        expect(decoder.heldBytes()).toBeLessThanOrEqual(HEADER_BYTES + PAYLOAD_MAX);
        if (fault !== "") {
          seen.push(fault);
          break;
        }
      }
      return seen;
    };
    const cuts = [random(40), random(200), random(600)];
    expect(decode(splitAt(stream, cuts)), `case ${i}`).toEqual(decode([stream]));
  }
});

test(`RESP commands (${told})`, () => {
  const random = randomFrom(SEED + 2);
  const streams = [
    wireOf(["SET", "key", "value"]) + wireOf(["GET", "key"]),
    wireOf(["MSET", ..."abcdefghijkl"]) + wireOf(["PING"]),
    "set a 'b c'\r\nget \"a\\x41\"\r\n" + wireOf(["DEL", "a"]),
    wireOf(["SET", "k", "v".repeat(99)]) + wireOf(["SET", "k", "v".repeat(101)]) + "PING\r\n",
  ].map(latin1);
  for (let i = 0; i < CASES / 5; i++) {
    const stream = mutate(streams[i % streams.length]!, random);
    const whole = outcomesOf([stream], LIMITS);
    const cuts = [random(30), random(60), random(120), random(200)];
    expect(outcomesOf(splitAt(stream, cuts), LIMITS), `case ${i}`).toEqual(whole);
  }
});

test(`RESP replies (${told})`, () => {
  const random = randomFrom(SEED + 3);
  const streams = [
    "+OK\r\n:12\r\n-ERR x\r\n",
    "*3\r\n$1\r\na\r\n:-1\r\n*2\r\n$-1\r\n+x\r\n$5\r\nhello\r\n",
    "*2\r\n$1\r\n0\r\n*3\r\n$1\r\na\r\n$1\r\nb\r\n$2\r\ncc\r\n",
  ].map(latin1);
  for (let i = 0; i < CASES / 5; i++) {
    const bytes = mutate(streams[i % streams.length]!, random);
    const ends = (chunks: Uint8Array[]): number[] => {
      const scanner = new ReplyScanner();
      const found: number[] = [];
      let base = 0;
      for (const chunk of chunks) {
        for (let from = 0; from < chunk.length;) {
          const end = scanner.scan(chunk, from, chunk.length);
          if (end === REPLY_UNFINISHED) break;
          found.push(end < 0 ? end : base + end);
          if (end === REPLY_MALFORMED) return found;
          from = end;
        }
        base += chunk.length;
      }
      return found;
    };
    const whole = ends([bytes]);
    expect(ends(splitAt(bytes, [random(10), random(40)])), `case ${i}`).toEqual(whole);
    let begin = 0;
    for (const end of whole) {
      if (end < 0) break;
      decodeReply(bytes, begin, end);
      begin = end;
    }
  }
});

test(`command names (${told})`, () => {
  const random = randomFrom(SEED + 4);
  const names = ["get", "object|freq", "eval_ro", "dyad.session", "zremrangebyscore"].map(latin1);
  for (let i = 0; i < CASES / 5; i++) {
    const bytes = mutate(names[i % names.length]!, random);
    const entry = findCommand(bytes, 0, bytes.length);
    expect(resolveCommand(bytes, 1, [0], [bytes.length])).toBe(entry);
  }
});
