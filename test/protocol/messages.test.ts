import fc from "fast-check";
import { expect, test } from "vitest";
import { CHIP_FRAME_BYTES_MAX, HEADER_BYTES } from "../../protocol/frame.js";
import { isMalformed } from "../../protocol/malformed.js";
import * as m from "../../protocol/messages.js";
import { controlByKind, controlMessages, heartbeats, polls } from "./arbitrary-messages.js";

/** Decodes from the middle of a larger buffer that is spoilt afterwards. */
function decodeLent(payload: Uint8Array): ReturnType<typeof m.decodeControl> {
  const lent = new Uint8Array(payload.length + 9).fill(0xaa);
  lent.set(payload, 4);
  const decoded = m.decodeControl(lent, 4, 4 + payload.length);
  lent.fill(0x55);
  return decoded;
}

test("there is a generator for every kind", () => {
  const kinds = Object.entries(m).filter(([name]) => name.startsWith("KIND_"));
  expect(kinds.map(([, kind]) => String(kind)).sort()).toEqual(Object.keys(controlByKind).sort());
  for (const [name, kind] of kinds) {
    expect(m.kindName(kind as number)).toBe(name.slice(5).toLowerCase().replaceAll("_", " "));
  }
});

for (const [kind, messages] of Object.entries(controlByKind)) {
  test(`${m.kindName(Number(kind))}: what is encoded is what is decoded`, () => {
    fc.assert(
      fc.property(messages, (message) => {
        const payload = m.encodeControl(message);
        expect(payload[0]).toBe(Number(kind));
        expect(decodeLent(payload)).toEqual(message);
      }),
      { numRuns: 60 },
    );
  });

  test(`${m.kindName(Number(kind))}: cut short anywhere it is malformed, with its name`, () => {
    fc.assert(
      fc.property(messages, fc.nat(), (message, at) => {
        const payload = m.encodeControl(message);
        const cut = 1 + (at % (payload.length - 1));
        // A FORWARD's command is whatever is left, so only its head can be too short.
        fc.pre(message.kind !== m.KIND_FORWARD || cut < 17);
        const decoded = decodeLent(payload.subarray(0, cut));
        expect(isMalformed(decoded) && decoded.malformed).toMatch(m.kindName(Number(kind)));
      }),
      { numRuns: 60 },
    );
  });
}

test("a newer build may add fields behind those we know", () => {
  fc.assert(
    fc.property(controlMessages, fc.uint8Array({ maxLength: 30 }), (message, more) => {
      fc.pre(message.kind !== m.KIND_FORWARD);
      const payload = Buffer.concat([m.encodeControl(message), more]);
      expect(decodeLent(payload)).toEqual(message);
    }),
  );
});

test("a kind we do not know is said to be just that", () => {
  for (const kind of [0, 18, 99, 255]) {
    expect(decodeLent(new Uint8Array([kind, 1, 2, 3]))).toEqual({ malformed: m.UNKNOWN_KIND });
  }
  expect(decodeLent(new Uint8Array(0))).toEqual({ malformed: "empty control message" });
});

test("values outside their range are malformed", () => {
  const hello = fc.sample(controlByKind[m.KIND_HELLO]!, 1)[0]!;
  const payload = m.encodeControl(hello);
  payload[3] = 4;
  expect(decodeLent(payload)).toEqual({ malformed: "hello: role 4" });
  const record = m.encodeControl(fc.sample(controlByKind[m.KIND_RECORD]!, 1)[0]!);
  record[5] = 9;
  expect(decodeLent(record)).toEqual({ malformed: "record: record with primary 9" });
  expect(decodeLent(new Uint8Array(50).fill(0, 1).fill(m.KIND_RECORD, 0, 1))).toEqual({
    malformed: "record: blank record",
  });
  const ask = m.encodeControl(fc.sample(controlByKind[m.KIND_ASK]!, 1)[0]!);
  ask[5] = 2;
  expect(decodeLent(ask)).toEqual({ malformed: "ask: mode 2" });
});

test("a count of boundaries that the bytes cannot hold makes nothing grow", () => {
  const open = fc
    .sample(controlByKind[m.KIND_SESSION_OPEN]!, 20)
    .find((message) => (message as m.SessionOpen).boundaries.length > 0) as m.SessionOpen;
  const payload = m.encodeControl({ ...open, copyCursor: new Uint8Array(0), boundaries: [] });
  const last = payload.length;
  payload[last - 2] = 0xff;
  payload[last - 1] = 0xff;
  expect(decodeLent(payload)).toEqual({ malformed: "session open: 65535 boundaries" });
  payload[last - 2] = 4;
  payload[last - 1] = 0;
  expect(decodeLent(payload)).toEqual({ malformed: "session open: too short" });
});

test("bounds on what we send are our own to keep", () => {
  const open = fc.sample(controlByKind[m.KIND_SESSION_OPEN]!, 1)[0] as m.SessionOpen;
  const boundary = { epoch: 1, firstIndex: 1 };
  const most = { ...open, boundaries: new Array<m.Boundary>(m.BOUNDARIES_MAX).fill(boundary) };
  expect(decodeLent(m.encodeControl(most))).toEqual(most);
  most.boundaries.push(boundary);
  expect(() => m.encodeControl(most)).toThrow(/boundaries/);
  expect(() => m.encodeControl({ kind: m.KIND_PASSED, epoch: -1 })).toThrow(/u32/);
  expect(() => m.encodeControl({ kind: m.KIND_PASSED, epoch: 1.5 })).toThrow(/u32/);
  expect(() => m.encodeControl({ kind: m.KIND_PROOF, proof: new Uint8Array(31) })).toThrow(/proof/);
});

test("text is cut to what fits, and what is not latin1 becomes a question mark", () => {
  const decoded = decodeLent(
    m.encodeControl({ kind: m.KIND_GOODBYE, text: "\u20ac" + "x".repeat(300) }),
  );
  expect(decoded).toEqual({ kind: m.KIND_GOODBYE, text: "?" + "x".repeat(254) });
});

test("polls and heartbeats survive their datagrams and fit a chip's", () => {
  fc.assert(
    fc.property(polls, heartbeats, (poll, heartbeat) => {
      const asked = m.encodePoll(poll);
      expect(m.decodePoll(asked, 0, asked.length)).toEqual(poll);
      const told = m.encodeHeartbeat(heartbeat);
      expect(told.length).toBeLessThanOrEqual(m.DATAGRAM_BYTES_MAX);
      expect(m.decodeHeartbeat(told, 0, told.length)).toEqual(heartbeat);
      const report = m.encodeControl({ kind: m.KIND_REPORT, heartbeat });
      expect(report.length).toBeLessThanOrEqual(CHIP_FRAME_BYTES_MAX - HEADER_BYTES);
    }),
  );
});

test("measurements are rounded down and held to what fits", () => {
  const heartbeat: m.Heartbeat = {
    ...fc.sample(heartbeats, 1)[0]!,
    uptimeMs: 12.9,
    loadPermille: 1e9,
    oldestUnconfirmedMs: -3,
    oldestUncommittedMs: Number.NaN,
    loopDelayUs: Infinity,
  };
  const told = m.encodeHeartbeat(heartbeat);
  expect(m.decodeHeartbeat(told, 0, told.length)).toMatchObject({
    uptimeMs: 12,
    loadPermille: 0xffff,
    oldestUnconfirmedMs: 0,
    oldestUncommittedMs: 0,
    loopDelayUs: 0xffffffff,
  });
});

test("foreign datagrams are told from ours", () => {
  const poll = m.encodePoll(fc.sample(polls, 1)[0]!);
  const heartbeat = m.encodeHeartbeat(fc.sample(heartbeats, 1)[0]!);
  const changed = (at: number, value: number): Uint8Array => {
    const bytes = poll.slice();
    bytes[at] = value;
    return bytes;
  };
  const fault = (bytes: Uint8Array): unknown => m.decodePoll(bytes, 0, bytes.length);
  expect(fault(new Uint8Array(3))).toEqual({ malformed: "datagram too short" });
  expect(fault(changed(0, 1))).toEqual({ malformed: "not one of our datagrams" });
  expect(fault(changed(2, 9))).toEqual({ malformed: "datagram of wire version 9" });
  expect(fault(heartbeat)).toEqual({ malformed: "datagram of kind 2" });
  expect(m.decodeHeartbeat(poll, 0, poll.length)).toEqual({ malformed: "datagram of kind 1" });
  expect(fault(poll.subarray(0, poll.length - 1))).toEqual({ malformed: "poll: too short" });
});
