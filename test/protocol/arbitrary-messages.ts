/** Arbitrary records, heartbeats and control messages, as fast-check makes them. */
import fc from "fast-check";
import { ID_MAX, U48_MAX } from "../../protocol/frame.js";
import * as m from "../../protocol/messages.js";
import type { RoleRecord } from "../../protocol/record.js";

const fixed = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length });
const u8 = fc.nat(255);
const u16 = fc.nat(0xffff);
const u32 = fc.nat(ID_MAX);
const u48 = fc.oneof(
  fc.nat(),
  fc.maxSafeNat().map((n) => n % (U48_MAX + 1)),
  fc.constant(U48_MAX),
);
const text = (max: number): fc.Arbitrary<string> =>
  fc.uint8Array({ maxLength: max }).map((bytes) => Buffer.from(bytes).toString("latin1"));
const epoch = fc.integer({ min: 1, max: ID_MAX });
const identity = fixed(16);

export const records: fc.Arbitrary<RoleRecord> = fc.record({
  epoch,
  primary: fc.constantFrom(0 as const, 1 as const),
  mode: fc.constantFrom(0 as const, 1 as const),
  pairId: fixed(8),
  identityA: identity,
  identityB: identity,
});
const recordOrBlank = fc.option(records, { nil: undefined });

export const heartbeats: fc.Arbitrary<m.Heartbeat> = fc.record({
  counter: u32,
  linkNonce: fixed(8),
  serverId: text(m.SERVER_ID_BYTES_MAX),
  record: recordOrBlank,
  identity,
  bootNonce: fixed(8),
  asked: fc.boolean(),
  joining: fc.boolean(),
  sessionOpen: fc.boolean(),
  copying: fc.boolean(),
  preset: fc.boolean(),
  peerUp: fc.boolean(),
  braking: fc.boolean(),
  passedTold: fc.boolean(),
  blank: fc.boolean(),
  wantsSolo: fc.boolean(),
  uptimeMs: u32,
  logEnd: u48,
  confirmed: u48,
  lagEntries: u32,
  oldestUnconfirmedMs: u32,
  oldestUncommittedMs: u32,
  loadPermille: u16,
  cpuPermille: u16,
  runQueue: u16,
  loopDelayUs: u32,
  inFlight: u32,
  serviceUs: u32,
  askIdentity: identity,
  askIndex: u48,
  problem: text(m.PROBLEM_BYTES_MAX),
});

export const polls: fc.Arbitrary<m.Poll> = fc.record({
  counter: u32,
  linkNonce: fixed(8),
  sessionId: fixed(8),
  epoch: u32,
});

/** One generator a kind; the test checks that no kind is forgotten. */
export const controlByKind: Record<number, fc.Arbitrary<m.ControlMessage>> = {
  [m.KIND_HELLO]: fc.record({
    kind: fc.constant(m.KIND_HELLO),
    wireMin: u8,
    wireMax: u8,
    role: fc.integer({ min: 1, max: 3 }),
    id: text(255),
    nonce: fixed(16),
    frameMax: u32,
    windowBytes: u32,
  }),
  [m.KIND_CHALLENGE]: fc.record({
    kind: fc.constant(m.KIND_CHALLENGE),
    wire: u8,
    nonce: fixed(16),
    proof: fixed(32),
    frameMax: u32,
    windowBytes: u32,
    sessionId: fixed(8),
  }),
  [m.KIND_PROOF]: fc.record({ kind: fc.constant(m.KIND_PROOF), proof: fixed(32) }),
  [m.KIND_REFUSE]: fc.record({ kind: fc.constant(m.KIND_REFUSE), code: u8, text: text(255) }),
  [m.KIND_REPORT]: fc.record({ kind: fc.constant(m.KIND_REPORT), heartbeat: heartbeats }),
  [m.KIND_ANNOUNCE]: fc.record({
    kind: fc.constant(m.KIND_ANNOUNCE),
    id: text(255),
    uptimeMs: u32,
  }),
  [m.KIND_RECORD]: fc.record({
    kind: fc.constant(m.KIND_RECORD),
    record: records,
    fresh: fc.boolean(),
    forced: fc.boolean(),
  }),
  [m.KIND_PASSED]: fc.record({ kind: fc.constant(m.KIND_PASSED), epoch: u32 }),
  [m.KIND_STATE]: fc.record({
    kind: fc.constant(m.KIND_STATE),
    record: recordOrBlank,
    identity,
    logEnd: u48,
  }),
  [m.KIND_SESSION_OPEN]: fc.record({
    kind: fc.constant(m.KIND_SESSION_OPEN),
    epoch: u32,
    identity,
    base: u48,
    baseEpoch: u32,
    end: u48,
    confirmedHigh: u48,
    boundaries: fc.array(fc.record({ epoch: u32, firstIndex: u48 }), { maxLength: 20 }),
    copyCursor: fc.uint8Array({ maxLength: 100 }),
    copyFrom: u48,
    copying: fc.boolean(),
  }),
  [m.KIND_SESSION_PLAN]: fc.record({
    kind: fc.constant(m.KIND_SESSION_PLAN),
    epoch: u32,
    identity,
    keepTo: u48,
    copy: fc.boolean(),
    resume: fc.boolean(),
    copyFrom: u48,
  }),
  [m.KIND_SESSION_READY]: fc.record({
    kind: fc.constant(m.KIND_SESSION_READY),
    epoch: u32,
    index: u48,
  }),
  [m.KIND_PEER_HEARTBEAT]: fc.record({
    kind: fc.constant(m.KIND_PEER_HEARTBEAT),
    epoch: u32,
    logEnd: u48,
    confirmed: u48,
  }),
  [m.KIND_FORWARD]: fc.record({
    kind: fc.constant(m.KIND_FORWARD),
    epoch: u32,
    session: fixed(8),
    number: u32,
    command: fc.uint8Array({ maxLength: 300 }),
  }),
  [m.KIND_FORWARD_FAILED]: fc.record({
    kind: fc.constant(m.KIND_FORWARD_FAILED),
    epoch: u32,
    session: fixed(8),
    number: u32,
    text: text(255),
  }),
  [m.KIND_ASK]: fc.record({
    kind: fc.constant(m.KIND_ASK),
    epoch: u32,
    mode: fc.constantFrom(0, 1),
    identity,
    index: u48,
  }),
  [m.KIND_GOODBYE]: fc.record({ kind: fc.constant(m.KIND_GOODBYE), text: text(255) }),
};

export const controlMessages: fc.Arbitrary<m.ControlMessage> = fc.oneof(
  ...Object.values(controlByKind),
);
