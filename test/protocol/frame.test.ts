import fc from "fast-check";
import { expect, test } from "vitest";
import { FrameDecoder } from "../../protocol/frame-decoder.js";
import {
  FRAME_APPEND,
  FRAME_COMMAND,
  FRAME_CONFIRM,
  FRAME_COPY,
  FRAME_EPOCH,
  FRAME_PACK,
  FRAME_PACK_REPLY,
  HEADER_BYTES,
  ID_MAX,
  PAYLOAD_BYTES_MAX,
  U48_MAX,
  WIRE_VERSION,
  frameOf,
  patchFlags,
  patchId,
  readU16,
  readU32,
  readU48,
  writeHeader,
  writeU16,
  writeU32,
  writeU48,
} from "../../protocol/frame.js";
import { splitAt } from "./split.js";

interface Frame {
  type: number;
  flags: number;
  id: number;
  payload: Uint8Array;
}

const frames = fc.array(
  fc.record({
    type: fc.constantFrom(FRAME_COMMAND, FRAME_COPY, FRAME_PACK, FRAME_PACK_REPLY, FRAME_CONFIRM),
    flags: fc.nat(255),
    id: fc.nat(ID_MAX),
    payload: fc.uint8Array({ maxLength: 40 }),
  }),
  { maxLength: 12 },
);
const cuts = fc.array(fc.nat(700), { maxLength: 30 });

const join = (list: Frame[]): Uint8Array =>
  Buffer.concat(list.map((f) => frameOf(f.type, f.flags, f.id, f.payload)));

/** A decoder whose frames are copied as they come, and the list of them. */
function recorder(
  payloadMax: number,
  parkedBytesMax = 0,
): { decoder: FrameDecoder; seen: Frame[] } {
  const seen: Frame[] = [];
  const decoder = new FrameDecoder(
    (type, flags, id, bytes, start, end) => {
      // The header must stand right before the payload, so that a frame can be sent on as it is.
      expect(readU16(bytes, start - HEADER_BYTES + 2)).toBe(end - start);
      expect(readU32(bytes, start - 4)).toBe(id);
      seen.push({ type, flags, id, payload: bytes.slice(start, end) });
    },
    payloadMax,
    parkedBytesMax,
  );
  return { decoder, seen };
}

/** Feeds through a buffer that is spoilt afterwards, as a socket's is when it is used again. */
function feed(decoder: FrameDecoder, chunk: Uint8Array): string {
  const lent = new Uint8Array(chunk.length + 6).fill(0xee);
  lent.set(chunk, 3);
  const fault = decoder.feed(lent, 3, 3 + chunk.length);
  lent.fill(0xdd);
  return fault;
}

test("numbers of 16, 32 and 48 bits survive the wire", () => {
  fc.assert(
    fc.property(fc.nat(0xffff), fc.nat(ID_MAX), fc.maxSafeNat(), (a, b, c) => {
      const bytes = new Uint8Array(20);
      const index = c % (U48_MAX + 1);
      writeU16(bytes, 1, a);
      writeU32(bytes, 4, b);
      writeU48(bytes, 9, index);
      expect([readU16(bytes, 1), readU32(bytes, 4), readU48(bytes, 9)]).toEqual([a, b, index]);
      expect([bytes[0], bytes[3], bytes[8], bytes[15]]).toEqual([0, 0, 0, 0]);
    }),
  );
  const bytes = new Uint8Array(6);
  writeU48(bytes, 0, U48_MAX);
  expect(readU48(bytes, 0)).toBe(U48_MAX);
});

test("a header is laid out as the protocol's page draws it", () => {
  const bytes = new Uint8Array(10);
  writeHeader(bytes, 1, FRAME_COMMAND, 0x1a, 0x0203, 0xdeadbeef);
  expect([...bytes]).toEqual([0, 0x11, 0x1a, 2, 3, 0xde, 0xad, 0xbe, 0xef, 0]);
  patchId(bytes, 1, 7);
  patchFlags(bytes, 1, 2);
  expect([...bytes]).toEqual([0, 0x11, 2, 2, 3, 0, 0, 0, 7, 0]);
  expect(() => writeHeader(bytes, 1, FRAME_COMMAND, 0, PAYLOAD_BYTES_MAX + 1, 1)).toThrow();
});

test("any split of a stream decodes to the same frames", () => {
  fc.assert(
    fc.property(frames, cuts, (list, at) => {
      const { decoder, seen } = recorder(40);
      for (const chunk of splitAt(join(list), at)) expect(feed(decoder, chunk)).toBe("");
      expect(seen).toEqual(list);
      expect(decoder.heldBytes()).toBe(0);
    }),
    { numRuns: 500 },
  );
});

test("a whole frame is handed out on the chunk itself, without a copy", () => {
  const chunk = frameOf(FRAME_COMMAND, 0, 5, new Uint8Array([1, 2, 3]));
  let given: Uint8Array | undefined;
  const decoder = new FrameDecoder((_t, _f, _i, bytes) => void (given = bytes), 100, 0);
  decoder.feed(chunk, 0, chunk.length);
  expect(given).toBe(chunk);
});

test("parked anywhere, nothing is lost, doubled or handed out before resume", () => {
  fc.assert(
    fc.property(frames, cuts, fc.array(fc.boolean(), { maxLength: 40 }), (list, at, parks) => {
      const seen: Frame[] = [];
      let step = 0;
      const decoder: FrameDecoder = new FrameDecoder(
        (type, flags, id, bytes, start, end) => {
          expect(decoder.parked).toBe(false);
          seen.push({ type, flags, id, payload: bytes.slice(start, end) });
          if (parks[step++]) decoder.park();
        },
        40,
        100_000,
      );
      for (const chunk of splitAt(join(list), at)) {
        expect(feed(decoder, chunk)).toBe("");
        if (parks[step++]) decoder.resume();
      }
      for (let round = 0; decoder.parked; round++) {
        expect(round).toBeLessThan(list.length + 1);
        expect(decoder.resume()).toBe("");
      }
      expect(seen).toEqual(list);
    }),
    { numRuns: 500 },
  );
});

test("resume from inside the handler goes on with the same chunk", () => {
  const ids: number[] = [];
  const decoder: FrameDecoder = new FrameDecoder(
    (_t, _f, id) => {
      ids.push(id);
      decoder.park();
      decoder.resume();
    },
    10,
    0,
  );
  const one = frameOf(FRAME_EPOCH, 0, 1, new Uint8Array(0));
  decoder.feed(Buffer.concat([one, one, one]), 0, 24);
  expect(ids).toEqual([1, 1, 1]);
});

test("what comes while parked is bounded", () => {
  const { decoder, seen } = recorder(40, 100);
  decoder.park();
  const frame = frameOf(FRAME_COMMAND, 0, 1, new Uint8Array(40));
  expect(feed(decoder, frame)).toBe("");
  expect(feed(decoder, frame)).toBe("");
  expect(feed(decoder, frame)).toMatch(/while parked/);
  expect(decoder.heldBytes()).toBe(0);
  expect(decoder.resume()).toMatch(/while parked/);
  expect(seen).toEqual([]);
});

test("a malformed header is refused with its reason, and the decoder stays dead", () => {
  const good = frameOf(FRAME_COMMAND, 0, 9, new Uint8Array([1]));
  const rows: [RegExp, number, number][] = [
    [/wire version 0/, 0, 0x01],
    [/wire version 2/, 0, ((WIRE_VERSION + 1) << 4) | 1],
    [/unknown type 0/, 0, 0x10],
    [/unknown type 10/, 0, 0x1a],
    [/unknown type 11/, 0, 0x1b],
    [/unknown type 14/, 0, 0x1e],
    [/unknown type 15/, 0, 0x1f],
    [/257 bytes, agreed are 100/, 2, 1],
  ];
  for (const [reason, at, value] of rows) {
    for (let cut = 0; cut <= HEADER_BYTES; cut++) {
      const bad = good.slice();
      bad[at] = value;
      const { decoder, seen } = recorder(100);
      feed(decoder, good);
      feed(decoder, bad.subarray(0, cut));
      expect(feed(decoder, bad.subarray(cut, HEADER_BYTES)), `cut at ${cut}`).toMatch(reason);
      expect(feed(decoder, good)).toMatch(reason);
      expect(seen.length).toBe(1);
      expect(decoder.heldBytes()).toBe(0);
    }
  }
});

test("frames before the bad one in a chunk are still handed out", () => {
  const good = frameOf(FRAME_APPEND, 4, 9, new Uint8Array([1]));
  const { decoder, seen } = recorder(100);
  expect(feed(decoder, Buffer.concat([good, good, new Uint8Array(8)]))).not.toBe("");
  expect(seen.length).toBe(2);
});

test("the limit agreed in the handshake holds from the next frame on", () => {
  const long = frameOf(FRAME_COMMAND, 0, 1, new Uint8Array(50));
  const { decoder, seen } = recorder(10);
  decoder.setPayloadMax(50);
  expect(feed(decoder, long)).toBe("");
  expect(seen.length).toBe(1);
  decoder.setPayloadMax(10 * PAYLOAD_BYTES_MAX);
  expect(feed(decoder, frameOf(FRAME_COMMAND, 0, 1, new Uint8Array(PAYLOAD_BYTES_MAX)))).toBe("");
  expect(seen.length).toBe(2);
});

test("closed from inside the handler, nothing more is handed out", () => {
  const ids: number[] = [];
  const decoder: FrameDecoder = new FrameDecoder(
    (_t, _f, id) => {
      ids.push(id);
      if (id === 2) decoder.close();
    },
    10,
    0,
  );
  const stream = join(
    [1, 2, 3].map((id) => ({ type: 1, flags: 0, id, payload: new Uint8Array(2) })),
  );
  for (const chunk of splitAt(stream, [7, 13, 22])) decoder.feed(chunk, 0, chunk.length);
  expect(ids).toEqual([1, 2]);
  expect(decoder.heldBytes()).toBe(0);
});

test("feeding from inside the handler is our mistake", () => {
  const decoder: FrameDecoder = new FrameDecoder(
    (_t, _f, _i, bytes) => void decoder.feed(bytes, 0, 1),
    10,
    0,
  );
  expect(() => decoder.feed(frameOf(FRAME_EPOCH, 0, 1, new Uint8Array(0)), 0, 8)).toThrow(/inside/);
});
