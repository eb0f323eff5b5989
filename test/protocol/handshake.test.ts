import { createHmac } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { CHIP_FRAME_BYTES_MAX, WIRE_VERSION, WIRE_VERSION_MIN } from "../../protocol/frame.js";
import {
  acceptorProof,
  agreePayloadMax,
  chooseWire,
  commonVersion,
  dialerProof,
  linkNonceOf,
  proofsEqual,
  speaksWire,
} from "../../protocol/handshake.js";
import { ROLE_CLIENT, ROLE_PEER, ROLE_SERVER } from "../../protocol/messages.js";

const hmac = (key: Uint8Array, data: Uint8Array): Uint8Array =>
  createHmac("sha256", key).update(data).digest();
const nonce = fc.uint8Array({ minLength: 16, maxLength: 16 });
const KEY = Buffer.from("a pair's key");

test("the proofs are HMAC-SHA256 over side, role, id and both nonces", () => {
  const d = new Uint8Array(16).fill(1);
  const l = new Uint8Array(16).fill(2);
  const input = (side: string): Buffer =>
    Buffer.concat([
      Buffer.from("dyad-" + side),
      Buffer.from([ROLE_SERVER]),
      Buffer.from("a"),
      d,
      l,
    ]);
  expect(acceptorProof(hmac, KEY, ROLE_SERVER, "a", d, l)).toEqual(hmac(KEY, input("L")));
  expect(dialerProof(hmac, KEY, ROLE_SERVER, "a", d, l)).toEqual(hmac(KEY, input("D")));
});

test("a proof is good for its side, key, role, id and nonces only", () => {
  fc.assert(
    fc.property(nonce, nonce, (d, l) => {
      const good = dialerProof(hmac, KEY, ROLE_SERVER, "a", d, l);
      fc.pre(!Buffer.from(d).equals(l));
      for (const other of [
        acceptorProof(hmac, KEY, ROLE_SERVER, "a", d, l),
        dialerProof(hmac, Buffer.from("another"), ROLE_SERVER, "a", d, l),
        dialerProof(hmac, KEY, ROLE_PEER, "a", d, l),
        dialerProof(hmac, KEY, ROLE_SERVER, "b", d, l),
        dialerProof(hmac, KEY, ROLE_SERVER, "", d, l),
        dialerProof(hmac, KEY, ROLE_SERVER, "a", l, d),
        dialerProof(hmac, KEY, ROLE_CLIENT, "a", d, l),
      ]) {
        expect(proofsEqual(good, other)).toBe(false);
      }
      expect(proofsEqual(good, dialerProof(hmac, KEY, ROLE_SERVER, "a", d, l))).toBe(true);
    }),
  );
});

test("a difference in any bit is seen, and so is another length", () => {
  const proof = hmac(KEY, new Uint8Array(1));
  for (let bit = 0; bit < 256; bit++) {
    const other = Uint8Array.from(proof);
    other[bit >> 3]! ^= 1 << (bit & 7);
    expect(proofsEqual(proof, other)).toBe(false);
  }
  expect(proofsEqual(proof, proof.subarray(0, 31))).toBe(false);
});

test("the newest common version is chosen, this one or the one before", () => {
  expect(commonVersion(4, 5, 5, 6)).toBe(5);
  expect(commonVersion(4, 5, 3, 4)).toBe(4);
  expect(commonVersion(4, 5, 4, 9)).toBe(5);
  expect(commonVersion(4, 5, 6, 7)).toBe(0);
  expect(commonVersion(4, 5, 1, 3)).toBe(0);
  expect(chooseWire(WIRE_VERSION, WIRE_VERSION + 1)).toBe(WIRE_VERSION);
  expect(chooseWire(WIRE_VERSION + 1, WIRE_VERSION + 2)).toBe(0);
  expect(speaksWire(WIRE_VERSION)).toBe(true);
  expect(speaksWire(WIRE_VERSION_MIN - 1)).toBe(false);
  expect(speaksWire(WIRE_VERSION + 1)).toBe(false);
});

test("the payload limit is that of the end with less room", () => {
  expect(agreePayloadMax(65536, CHIP_FRAME_BYTES_MAX)).toBe(528);
  expect(agreePayloadMax(65536, 4_000_000_000)).toBe(65528);
  expect(agreePayloadMax(4_000_000_000, 4_000_000_000)).toBe(65528);
  expect(agreePayloadMax(65536, 100)).toBe(0);
});

test("a connection is named by the first half of its dialer's nonce", () => {
  const bytes = Uint8Array.from({ length: 16 }, (_, i) => i);
  expect([...linkNonceOf(bytes)]).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
});
