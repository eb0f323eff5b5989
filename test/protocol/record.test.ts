import fc from "fast-check";
import { expect, test } from "vitest";
import { isMalformed } from "../../protocol/malformed.js";
import {
  MODE_BOTH,
  MODE_SOLO,
  RECORD_BYTES,
  compareRecords,
  decodeRecord,
  encodeRecord,
  epochOf,
  formatHex,
  formatRecord,
  identityOf,
  isBlankIdentity,
  parseHex,
  primaryIdentity,
  recordsEqual,
} from "../../protocol/record.js";
import { records } from "./arbitrary-messages.js";

test("a record survives encoding in its fixed size", () => {
  fc.assert(
    fc.property(records, (record) => {
      const bytes = encodeRecord(record);
      expect(bytes.length).toBe(RECORD_BYTES);
      const decoded = decodeRecord(bytes, 0, bytes.length);
      expect(decoded).toEqual(record);
      bytes.fill(0xff);
      expect(decoded, "must not point into the buffer").toEqual(record);
    }),
  );
});

test("the blank record is all zero and comes back as undefined", () => {
  const bytes = encodeRecord(undefined);
  expect(isBlankIdentity(bytes)).toBe(true);
  expect(decodeRecord(bytes, 0, bytes.length)).toBeUndefined();
});

test("what is no record is refused with the reason", () => {
  const good = encodeRecord({
    epoch: 7,
    primary: 1,
    mode: MODE_SOLO,
    pairId: new Uint8Array(8),
    identityA: new Uint8Array(16),
    identityB: new Uint8Array(16),
  });
  const broken = (at: number, value: number): string => {
    const bytes = good.slice();
    bytes[at] = value;
    const decoded = decodeRecord(bytes, 0, bytes.length);
    return decoded !== undefined && isMalformed(decoded) ? decoded.malformed : "accepted";
  };
  expect(broken(4, 2)).toBe("record with primary 2");
  expect(broken(5, 2)).toBe("record with mode 2");
  expect(broken(3, 0)).toBe("record of epoch 0 that is not blank");
  expect(broken(6, 1)).toBe("accepted");
  expect(decodeRecord(good, 0, RECORD_BYTES - 1)).toEqual({ malformed: "record too short" });
});

test("records are compared by epoch, and equal only with the same content", () => {
  fc.assert(
    fc.property(records, records, (a, b) => {
      expect(compareRecords(a, b)).toBe(Math.sign(epochOf(a) - epochOf(b)));
      expect(recordsEqual(a, { ...a })).toBe(true);
      const bytes = Buffer.from(encodeRecord(a)).equals(encodeRecord(b));
      expect(recordsEqual(a, b)).toBe(bytes);
    }),
  );
  expect(compareRecords(undefined, undefined)).toBe(0);
  expect(recordsEqual(undefined, undefined)).toBe(true);
  fc.assert(
    fc.property(records, (a) => !recordsEqual(a, undefined) && compareRecords(undefined, a) < 0),
  );
});

test("each part of a record counts in equality", () => {
  fc.assert(
    fc.property(records, fc.integer({ min: 0, max: RECORD_BYTES - 1 }), (record, at) => {
      fc.pre(at !== 6 && at !== 7);
      const bytes = encodeRecord(record);
      bytes[at]! ^= 1;
      const other = decodeRecord(bytes, 0, bytes.length);
      fc.pre(other !== undefined && !isMalformed(other));
      expect(recordsEqual(record, other as typeof record)).toBe(false);
    }),
  );
});

test("names the primary's disk", () => {
  fc.assert(
    fc.property(records, (record) => {
      expect(identityOf(record, 0)).toBe(record.identityA);
      expect(identityOf(record, 1)).toBe(record.identityB);
      expect(primaryIdentity(record)).toBe(identityOf(record, record.primary));
      const mode = record.mode === MODE_BOTH ? "both" : "solo";
      expect(formatRecord(record)).toBe(`${mode}(${"ab"[record.primary]}) epoch ${record.epoch}`);
    }),
  );
  expect(formatRecord(undefined)).toBe("blank");
});

test("hex of identities for people, and back", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (identity) => {
      expect(formatHex(identity)).toBe(Buffer.from(identity).toString("hex"));
      expect(parseHex(formatHex(identity).toUpperCase(), 16)).toEqual(identity);
      expect(isBlankIdentity(identity)).toBe(identity.every((byte) => byte === 0));
    }),
  );
  expect(parseHex("0g", 1)).toBeUndefined();
  expect(parseHex("00", 2)).toBeUndefined();
});
