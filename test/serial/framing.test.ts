/** Frames on a serial line: what arrives whole is handed on, everything else is counted. */
import { createHmac } from "node:crypto";
import { crc32 as zlibCrc32 } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  FRAME_COMMAND,
  FRAME_DATAGRAM,
  HEADER_BYTES,
  ID_MAX,
  frameOf,
} from "../../protocol/frame.js";
import {
  FORM_BINARY,
  FORM_TEXT,
  SERIAL_FRAME_BYTES_MAX,
  SIDE_CONTROLLER,
  SIDE_OTHER,
  SerialDecoder,
  encodeSerial,
} from "../../protocol/serial.js";
import type { Crc32, SerialForm } from "../../protocol/serial.js";
import { sealedFrame, unsealed } from "../../protocol/serial-seal.js";
import { splitAt } from "../protocol/split.js";

const SEED = Number(process.env["DYAD_FUZZ_SEED"] ?? 1);
const CASES = Number(process.env["DYAD_FUZZ_CASES"] ?? 100_000);
const PAYLOAD_MAX = SERIAL_FRAME_BYTES_MAX - HEADER_BYTES;
const HELD_MAX = 2 * (SERIAL_FRAME_BYTES_MAX + 6);

const crc32: Crc32 = (bytes, start, end) => zlibCrc32(bytes.subarray(start, end));

function encode(form: SerialForm, seq: number, frame: Uint8Array): Uint8Array {
  return encodeSerial(form, SIDE_OTHER, seq, frame, 0, frame.length, crc32);
}

function listener(): { seen: string[]; decoder: SerialDecoder } {
  const seen: string[] = [];
  const decoder = new SerialDecoder(SIDE_OTHER, crc32, (bytes, start, end) => {
    seen.push(Buffer.from(bytes.subarray(start, end)).toString("hex"));
  });
  return { seen, decoder };
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

function feed(decoder: SerialDecoder, bytes: Uint8Array): void {
  decoder.feed(bytes, 0, bytes.length);
}

const PLAIN = frameOf(FRAME_DATAGRAM, 0, 7, new Uint8Array([1, 2, 3]));

// Flags and escapes are as common as in a line's worst hour.
const payloads = fc
  .array(fc.oneof(fc.nat(255), fc.constantFrom(0x7e, 0x7d, 0x5e, 0x5d, 0, 255, 10, 13)), {
    maxLength: PAYLOAD_MAX,
  })
  .map((bytes) => new Uint8Array(bytes));
const frames = fc
  .tuple(
    fc.integer({ min: FRAME_COMMAND, max: FRAME_DATAGRAM }),
    fc.nat(255),
    fc.nat(ID_MAX),
    payloads,
  )
  .map(([type, flags, id, payload]) => frameOf(type, flags, id, payload));
const forms = fc.constantFrom<SerialForm>(FORM_BINARY, FORM_TEXT);

describe("frames on a serial line", () => {
  test("whatever is sent is handed on once, in order, in either form and any chunks", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(forms, frames), { maxLength: 6 }),
        fc.array(fc.nat(4000), { maxLength: 12 }),
        fc.nat(255),
        (sent, cuts, first) => {
          const wire = Buffer.concat(sent.map(([form, one], i) => encode(form, first + i, one)));
          const { seen, decoder } = listener();
          for (const chunk of splitAt(wire, cuts)) feed(decoder, chunk);
          expect(seen).toEqual(sent.map(([, one]) => hex(one)));
          expect(decoder.counts).toEqual({
            packets: sent.length,
            damaged: 0,
            garbageBytes: 0,
            lost: 0,
            doubled: 0,
            echoes: 0,
            tooLong: 0,
          });
        },
      ),
      { seed: SEED, numRuns: 300 },
    );
  });

  test("the largest frame of nothing but flags and escapes fits, and a chunk's surroundings are not read", () => {
    const worst = frameOf(FRAME_COMMAND, 0x7e, 0x7e7d7e7d, new Uint8Array(PAYLOAD_MAX).fill(0x7e));
    const { seen, decoder } = listener();
    const wire = encode(FORM_BINARY, 0x7e, worst);
    const wider = new Uint8Array(wire.length + 20).fill(0x7e);
    wider.set(wire, 10);
    decoder.feed(wider, 10, 10 + wire.length);
    expect(seen).toEqual([hex(worst)]);
    expect(decoder.heldBytes()).toBe(0);
    expect(() => encode(FORM_BINARY, 0, new Uint8Array(SERIAL_FRAME_BYTES_MAX + 1))).toThrow();
  });

  test("the 7-bit form is letters, digits, + and / between tildes, and may stand in lines", () => {
    fc.assert(
      fc.property(frames, (one) => {
        const text = Buffer.from(encode(FORM_TEXT, 3, one)).toString("latin1");
        expect(text).toMatch(/^~[A-Za-z0-9+/]+~$/);
        const { seen, decoder } = listener();
        feed(decoder, Buffer.from(`\r\n${text}\r\n${text}\n`));
        expect(seen).toEqual([hex(one)]);
        expect(decoder.counts.doubled).toBe(1);
        expect(decoder.counts.damaged).toBe(0);
      }),
      { seed: SEED, numRuns: 100 },
    );
  });

  test("an answer goes in the form of the last packet", () => {
    const { decoder } = listener();
    expect(decoder.form).toBe(FORM_BINARY);
    feed(decoder, encode(FORM_TEXT, 1, PLAIN));
    expect(decoder.form).toBe(FORM_TEXT);
    feed(decoder, encode(FORM_BINARY, 2, PLAIN));
    expect(decoder.form).toBe(FORM_BINARY);
  });

  test("a gap in the numbers counts what was lost, over the wrap too", () => {
    const { seen, decoder } = listener();
    for (const seq of [250, 251, 255, 0, 3]) feed(decoder, encode(FORM_BINARY, seq, PLAIN));
    expect(seen.length).toBe(5);
    expect(decoder.counts.lost).toBe(3 + 2);
    feed(decoder, encode(FORM_BINARY, 3, PLAIN));
    expect(seen.length).toBe(5);
    expect(decoder.counts.doubled).toBe(1);
  });

  test("a line that is looped back is heard as an echo", () => {
    const { seen, decoder } = listener();
    feed(decoder, encodeSerial(FORM_BINARY, SIDE_CONTROLLER, 9, PLAIN, 0, PLAIN.length, crc32));
    expect(seen).toEqual([]);
    expect(decoder.counts).toMatchObject({ echoes: 1, packets: 0, lost: 0 });
  });

  test("whoever listens in the middle of a packet loses that one only", () => {
    const wire = encode(FORM_BINARY, 1, PLAIN);
    for (let from = 2; from < wire.length; from++) {
      const { seen, decoder } = listener();
      feed(decoder, wire.subarray(from));
      feed(decoder, encode(FORM_BINARY, 2, PLAIN));
      expect(seen).toEqual([hex(PLAIN)]);
      expect(decoder.counts.lost).toBe(0);
    }
  });

  test("a line that never ends a packet is bounded, and is heard again after it", () => {
    const { seen, decoder } = listener();
    for (let i = 0; i < 100; i++) {
      feed(decoder, new Uint8Array(300).fill(0x41));
      expect(decoder.heldBytes()).toBeLessThanOrEqual(HELD_MAX);
    }
    feed(decoder, encode(FORM_BINARY, 1, PLAIN));
    expect(seen).toEqual([hex(PLAIN)]);
    expect(decoder.counts.tooLong).toBe(1);
    expect(decoder.counts.garbageBytes).toBe(30000);
  });

  test("every single changed bit, lost byte and doubled byte is noticed", () => {
    for (const form of [FORM_BINARY, FORM_TEXT] as const) {
      const wire = encode(
        form,
        1,
        frameOf(FRAME_DATAGRAM, 0, 7, new Uint8Array([0x7e, 0x7d, 0, 9])),
      );
      const good = hex(frameOf(FRAME_DATAGRAM, 0, 7, new Uint8Array([0x7e, 0x7d, 0, 9])));
      const check = (bytes: Uint8Array, what: string): void => {
        const { seen, decoder } = listener();
        feed(decoder, bytes);
        // What follows is heard, whatever came before.
        feed(decoder, encode(FORM_BINARY, 2, PLAIN));
        const before = seen.slice(0, -1);
        expect(seen[seen.length - 1], what).toBe(hex(PLAIN));
        for (const one of before) expect(one, what).toBe(good);
        if (before.length === 0) expect(decoder.counts.damaged, what).toBeGreaterThan(0);
      };
      for (let at = 0; at < wire.length; at++) {
        for (let bit = 0; bit < 8; bit++) {
          const bytes = wire.slice();
          bytes[at]! ^= 1 << bit;
          check(bytes, `form ${form}, bit ${bit} of byte ${at}`);
        }
        check(Buffer.concat([wire.subarray(0, at), wire.subarray(at + 1)]), `lost byte ${at}`);
        check(Buffer.concat([wire.subarray(0, at + 1), wire.subarray(at)]), `doubled byte ${at}`);
      }
    }
  });
});

test(`a line's bytes changed at random: nothing is believed that was not sent (seed ${SEED})`, () => {
  let state = SEED >>> 0;
  const random = (below: number): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
  let handedOn = 0;
  let damaged = 0;
  for (let i = 0; i < CASES / 5; i++) {
    const sent: Uint8Array[] = [];
    for (let n = 1 + random(4); n > 0; n--) {
      const payload = new Uint8Array(random(4) === 0 ? random(PAYLOAD_MAX) : random(30));
      for (let at = 0; at < payload.length; at++)
        payload[at] = random(3) === 0 ? 0x7e : random(256);
      sent.push(frameOf(1 + random(10), random(256), random(1000), payload));
    }
    let wire = Buffer.concat(sent.map((one, n) => encode(random(2) as SerialForm, n, one)));
    for (let changes = 1 + random(5); changes > 0; changes--) {
      const at = random(wire.length);
      switch (random(5)) {
        case 0:
          wire[at]! ^= 1 << random(8);
          break;
        case 1:
          wire[at] = [0x7e, 0x7d, 0x5e, 0, 255][random(5)]!;
          break;
        case 2:
          wire = Buffer.concat([wire.subarray(0, at), wire.subarray(at + 1 + random(6))]);
          break;
        case 3:
          wire = Buffer.concat([wire.subarray(0, at + 1 + random(6)), wire.subarray(at)]);
          break;
        default:
          wire = Buffer.concat([
            wire.subarray(0, at),
            Uint8Array.from({ length: random(1500) }, () => random(256)),
            wire.subarray(at),
          ]);
      }
      if (wire.length === 0) wire = Buffer.from([0]);
    }
    const real = new Set(sent.map(hex));
    const { seen, decoder } = listener();
    for (const chunk of splitAt(wire, [random(50), random(400), random(2000)])) {
      feed(decoder, chunk);
      expect(decoder.heldBytes()).toBeLessThanOrEqual(HELD_MAX);
    }
    for (const one of seen) {
      if (!real.has(one)) throw new Error(`case ${i} believed ${one}`);
    }
    handedOn += seen.length;
    damaged += decoder.counts.damaged;
    // The line works again after the next two flags.
    feed(decoder, Uint8Array.of(0x7e));
    const before = seen.length;
    feed(decoder, encode(FORM_BINARY, 77, PLAIN));
    expect(seen.length).toBe(before + 1);
  }
  expect(handedOn).toBeGreaterThan(CASES / 20);
  expect(damaged).toBeGreaterThan(CASES / 20);
}, 60_000);

test("a sealed message is opened by its server, in its boot, with the pair's key, and by nobody else", () => {
  const hmac = (key: Uint8Array, data: Uint8Array): Uint8Array =>
    new Uint8Array(createHmac("sha256", key).update(data).digest());
  const key = new Uint8Array(16).fill(7);
  const nonce = new Uint8Array(8).fill(3);
  const message = new Uint8Array([7, 1, 2, 3]);
  const frame = sealedFrame(hmac, key, nonce, "a", message);
  const open = (withKey: Uint8Array, withNonce: Uint8Array, id: string, bytes: Uint8Array) =>
    unsealed(hmac, withKey, withNonce, id, bytes, HEADER_BYTES, bytes.length);
  expect(open(key, nonce, "a", frame)).toEqual(message);
  expect(open(new Uint8Array(16), nonce, "a", frame)).toBe(undefined);
  expect(open(key, new Uint8Array(8), "a", frame)).toBe(undefined);
  expect(open(key, nonce, "b", frame)).toBe(undefined);
  for (let at = HEADER_BYTES; at < frame.length; at++) {
    const bent = frame.slice();
    bent[at]! ^= 0x10;
    expect(open(key, nonce, "a", bent)).toBe(undefined);
  }
  expect(open(key, nonce, "a", frame.slice(0, HEADER_BYTES + 16))).toBe(undefined);
});
