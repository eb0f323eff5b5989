/**
 * The words of the control plane. CONTROL frames carry one each (payload[0] is its kind); polls and
 * heartbeats also travel as datagrams (and, over a serial line, as serial frames).
 */
import {
  ID_MAX,
  PAYLOAD_BYTES_MAX,
  U48_MAX,
  WIRE_VERSION,
  WIRE_VERSION_MIN,
  readU16,
  readU32,
  readU48,
  writeU16,
  writeU32,
  writeU48,
} from "./frame.js";
import { assert, isMalformed } from "./malformed.js";
import type { Malformed } from "./malformed.js";
import { IDENTITY_BYTES, MODE_SOLO, RECORD_BYTES, decodeRecord, writeRecord } from "./record.js";
import type { RoleRecord } from "./record.js";

/** Kinds of CONTROL messages (payload[0]); the first four open a link. */
export const KIND_HELLO = 1;
export const KIND_CHALLENGE = 2;
export const KIND_PROOF = 3;
export const KIND_REFUSE = 4;
/** Server -> controller, first thing after the proof: the same body as a heartbeat. */
export const KIND_REPORT = 5;
/** Preset server -> controller: the message packet of the first determination unit (P13). */
export const KIND_ANNOUNCE = 6;
/** Controller -> server: adopt this record if its epoch is higher. */
export const KIND_RECORD = 7;
/** Controller -> server: the first reply of this solo epoch has passed, so it can no longer be taken back (G5). */
export const KIND_PASSED = 8;
/** Peer <-> peer: durable K, identity, log ends (rule 4). */
export const KIND_STATE = 9;
export const KIND_SESSION_OPEN = 10;
export const KIND_SESSION_PLAN = 11;
export const KIND_SESSION_READY = 12;
export const KIND_PEER_HEARTBEAT = 13;
/** Standby -> primary: a command of the standby's local port (P8). */
export const KIND_FORWARD = 14;
/** Primary -> standby: that command was refused and surely not done, or could not become an entry. */
export const KIND_FORWARD_FAILED = 15;
/** Server -> controller: rule 17's request; also repeated through the heartbeat. */
export const KIND_ASK = 16;
/** Either way, before a close: why. */
export const KIND_GOODBYE = 17;

/** What the dialing end of a link is. */
export const ROLE_SERVER = 1;
export const ROLE_PEER = 2;
export const ROLE_CLIENT = 3;

/** Why a link was refused. */
export const REFUSE_VERSION = 1;
export const REFUSE_KEY = 2;
export const REFUSE_PAIR = 3;
export const REFUSE_UNKNOWN_ID = 4;
export const REFUSE_DUPLICATE = 5;
export const REFUSE_FULL = 6;
export const REFUSE_MALFORMED = 7;
export const REFUSE_STOPPED = 8;

/** Dialer -> acceptor, first on every link: who I am and what I speak. */
export interface Hello {
  kind: typeof KIND_HELLO;
  wireMin: number;
  wireMax: number;
  role: number;
  /** Server id from the configuration ("" for a client). */
  id: string;
  nonce: Uint8Array; // 16
  frameMax: number;
  windowBytes: number;
}

/** Acceptor -> dialer: the version chosen, and the proof that it holds the key. */
export interface Challenge {
  kind: typeof KIND_CHALLENGE;
  wire: number;
  nonce: Uint8Array; // 16
  proof: Uint8Array; // 32
  frameMax: number;
  windowBytes: number;
  /** The acceptor's session for commands it forwards on its own behalf (zero on a peer link). */
  sessionId: Uint8Array; // 8
}

/** Dialer -> acceptor: the same proof from its side; the link is open now. */
export interface Proof {
  kind: typeof KIND_PROOF;
  proof: Uint8Array; // 32
}

/** Either way, before a close: this link will not be, and why. */
export interface Refuse {
  kind: typeof KIND_REFUSE;
  code: number;
  text: string;
}

/** What a server says of itself: answer to a poll, and first thing on a link. */
export interface Heartbeat {
  counter: number;
  linkNonce: Uint8Array; // 8; zero: no link
  serverId: string;
  record: RoleRecord | undefined;
  identity: Uint8Array; // 16
  bootNonce: Uint8Array; // 8
  asked: boolean;
  joining: boolean;
  sessionOpen: boolean;
  copying: boolean;
  preset: boolean;
  peerUp: boolean;
  /** The server asks to be spared reads: saturated, disk nearly full, backup running. */
  braking: boolean;
  /** PASSED of the current epoch was heard. */
  passedTold: boolean;
  /** Empty log and blank record: may found a new pair. */
  blank: boolean;
  uptimeMs: number;
  logEnd: number;
  confirmed: number;
  /** Standby or absent peer: how many entries behind, as the primary knows it. */
  lagEntries: number;
  oldestUnconfirmedMs: number;
  oldestUncommittedMs: number;
  loadPermille: number;
  cpuPermille: number;
  runQueue: number;
  loopDelayUs: number;
  inFlight: number;
  serviceUs: number;
  /** Rule 17: what `asked` names; zero when not asked. */
  askIdentity: Uint8Array; // 16
  askIndex: number;
  /** "wants solo" after the peer was lost while joint by `asked`. */
  wantsSolo: boolean;
  /** What an operator should know ("" when all is well), at most 200 bytes. */
  problem: string;
}

/** Controller -> server, every pollMs: are you there, and what are you? */
export interface Poll {
  counter: number;
  linkNonce: Uint8Array; // 8
  /** The controller's boot: its session id (zero before it has one). */
  sessionId: Uint8Array; // 8
  epoch: number;
}

/** Preset server -> controller: I am the preset one (P13). */
export interface Announce {
  kind: typeof KIND_ANNOUNCE;
  id: string;
  uptimeMs: number;
}

/** Controller -> server: the record in its flash (rule 3 says when it counts). */
export interface RecordMessage {
  kind: typeof KIND_RECORD;
  record: RoleRecord;
  /** True while the solo record may still be taken back (G5). */
  fresh: boolean;
  /** Operator's force: this server may set aside confirmed entries in this epoch. */
  forced: boolean;
}

/** Controller -> server: the first reply of this epoch has passed (G5). */
export interface Passed {
  kind: typeof KIND_PASSED;
  epoch: number;
}

/** Server <-> server, first after the proof and on an epoch mismatch (rule 4). */
export interface PeerState {
  kind: typeof KIND_STATE;
  record: RoleRecord | undefined;
  identity: Uint8Array;
  logEnd: number;
}

/** Where an epoch begins in a log; two logs are compared by these. */
export interface Boundary {
  epoch: number;
  firstIndex: number;
}

/** Standby -> primary: what my log holds (rule 8). */
export interface SessionOpen {
  kind: typeof KIND_SESSION_OPEN;
  epoch: number;
  identity: Uint8Array;
  /** Entries at or below base are in the data but no longer in the log; baseEpoch is that of base. */
  base: number;
  baseEpoch: number;
  end: number;
  confirmedHigh: number;
  boundaries: Boundary[];
  /** A copy that can be resumed: where it got to (empty: none), and the log position it needs. */
  copyCursor: Uint8Array;
  copyFrom: number;
  copying: boolean;
}

/** Primary -> standby: what to keep, and how the rest will come. */
export interface SessionPlan {
  kind: typeof KIND_SESSION_PLAN;
  epoch: number;
  identity: Uint8Array;
  /** The standby keeps its log up to here and sets aside the rest. */
  keepTo: number;
  copy: boolean;
  /** With copy: continue from the standby's cursor, or start again. */
  resume: boolean;
  copyFrom: number;
}

/** Standby -> primary: the rest is set aside, durably; my log ends here. */
export interface SessionReady {
  kind: typeof KIND_SESSION_READY;
  epoch: number;
  index: number;
}

/** Server <-> server: I am here, and this far. */
export interface PeerHeartbeat {
  kind: typeof KIND_PEER_HEARTBEAT;
  epoch: number;
  logEnd: number;
  confirmed: number;
}

/** Standby -> primary: a command of the standby's local port (rule 10). */
export interface Forward {
  kind: typeof KIND_FORWARD;
  epoch: number;
  session: Uint8Array; // 8
  number: number;
  /** The RESP command. */
  command: Uint8Array;
}

/** Primary -> standby: that command was refused and surely not done. */
export interface ForwardFailed {
  kind: typeof KIND_FORWARD_FAILED;
  epoch: number;
  session: Uint8Array;
  number: number;
  /** RESP error, without the leading "-". */
  text: string;
}

/** Primary -> controller: rule 17's request. */
export interface Ask {
  kind: typeof KIND_ASK;
  epoch: number;
  /** MODE_BOTH or MODE_SOLO. */
  mode: number;
  identity: Uint8Array;
  index: number;
}

/** Either way, before a close: why. */
export interface Goodbye {
  kind: typeof KIND_GOODBYE;
  text: string;
}

/** Any message a CONTROL frame can carry. */
export type ControlMessage =
  | Hello
  | Challenge
  | Proof
  | Refuse
  | Announce
  | RecordMessage
  | Passed
  | PeerState
  | SessionOpen
  | SessionPlan
  | SessionReady
  | PeerHeartbeat
  | Forward
  | ForwardFailed
  | Ask
  | Goodbye
  | { kind: typeof KIND_REPORT; heartbeat: Heartbeat };

/** Largest control payload; a FORWARD of a longer command goes in several frames, all but the last with FLAG_MORE. */
export const CONTROL_BYTES_MAX = PAYLOAD_BYTES_MAX;
/** Longest text or id in a message; a longer text of ours is cut. @unit bytes */
export const TEXT_BYTES_MAX = 255;
export const PROBLEM_BYTES_MAX = 200;
/** Longest server id; with it a heartbeat always fits a datagram. @unit bytes */
export const SERVER_ID_BYTES_MAX = 64;
/** Most epoch boundaries a SESSION_OPEN can name: the newest ones are kept by the caller. */
export const BOUNDARIES_MAX = 1024;
export const COPY_CURSOR_BYTES_MAX = 2048;
export const SESSION_ID_BYTES = 8;
export const NONCE_BYTES = 16;
export const LINK_NONCE_BYTES = 8;
export const PROOF_BYTES = 32;

/** First two bytes of every datagram, so that a stray one is known at once: "Dy". */
const MAGIC_0 = 0x44;
const MAGIC_1 = 0x79;
const DATAGRAM_POLL = 1;
const DATAGRAM_HEARTBEAT = 2;
const DATAGRAM_HEADER_BYTES = 4;
/** No poll or heartbeat is longer: it fits what a chip's UDP receives. @unit bytes */
export const DATAGRAM_BYTES_MAX = 528;

interface Writer {
  bytes: Uint8Array;
  at: number;
}

interface Reader {
  bytes: Uint8Array;
  at: number;
  end: number;
  /** First thing found wrong, "" while all is well. */
  wrong: string;
}

function room(w: Writer, count: number): void {
  const needed = w.at + count;
  if (needed <= w.bytes.length) return;
  let size = w.bytes.length * 2;
  while (size < needed) size *= 2;
  const grown = new Uint8Array(size);
  grown.set(w.bytes, 0);
  w.bytes = grown;
}

function putU8(w: Writer, value: number): void {
  room(w, 1);
  w.bytes[w.at++] = value;
}

/** A count that must be right: epoch, number. */
function putU32(w: Writer, value: number): void {
  assert(value >= 0 && value <= ID_MAX && Math.floor(value) === value, "u32 in a message");
  room(w, 4);
  writeU32(w.bytes, w.at, value);
  w.at += 4;
}

/** A measurement: rounded down, and held to what fits. */
function putGauge(w: Writer, value: number): void {
  let whole = value > 0 ? Math.floor(value) : 0;
  if (whole > ID_MAX) whole = ID_MAX;
  room(w, 4);
  writeU32(w.bytes, w.at, whole);
  w.at += 4;
}

function putGaugeU16(w: Writer, value: number): void {
  let whole = value > 0 ? Math.floor(value) : 0;
  if (whole > 0xffff) whole = 0xffff;
  room(w, 2);
  writeU16(w.bytes, w.at, whole);
  w.at += 2;
}

/** A log index. */
function putU48(w: Writer, value: number): void {
  assert(value >= 0 && value <= U48_MAX && Math.floor(value) === value, "u48 in a message");
  room(w, 6);
  writeU48(w.bytes, w.at, value);
  w.at += 6;
}

function putFixed(w: Writer, bytes: Uint8Array, count: number, what: string): void {
  assert(bytes.length === count, what);
  room(w, count);
  w.bytes.set(bytes, w.at);
  w.at += count;
}

/** Text as latin1 with a length byte; other characters become "?", and what is too long is cut. */
function putText(w: Writer, text: string, max: number): void {
  const length = text.length > max ? max : text.length;
  room(w, 1 + length);
  w.bytes[w.at++] = length;
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    w.bytes[w.at++] = code < 256 ? code : 63;
  }
}

function putLong(w: Writer, bytes: Uint8Array, max: number, what: string): void {
  assert(bytes.length <= max, what);
  room(w, 2 + bytes.length);
  writeU16(w.bytes, w.at, bytes.length);
  w.bytes.set(bytes, w.at + 2);
  w.at += 2 + bytes.length;
}

function putRecord(w: Writer, record: RoleRecord | undefined): void {
  room(w, RECORD_BYTES);
  writeRecord(w.bytes, w.at, record);
  w.at += RECORD_BYTES;
}

/** @returns whether `count` bytes are there; if not, the message is malformed */
function has(r: Reader, count: number): boolean {
  if (r.wrong !== "") return false;
  if (r.end - r.at >= count) return true;
  r.wrong = "too short";
  return false;
}

function getU8(r: Reader): number {
  return has(r, 1) ? r.bytes[r.at++]! : 0;
}

function getU16(r: Reader): number {
  if (!has(r, 2)) return 0;
  r.at += 2;
  return readU16(r.bytes, r.at - 2);
}

function getU32(r: Reader): number {
  if (!has(r, 4)) return 0;
  r.at += 4;
  return readU32(r.bytes, r.at - 4);
}

function getU48(r: Reader): number {
  if (!has(r, 6)) return 0;
  r.at += 6;
  return readU48(r.bytes, r.at - 6);
}

function getFixed(r: Reader, count: number): Uint8Array {
  if (!has(r, count)) return new Uint8Array(0);
  r.at += count;
  return r.bytes.slice(r.at - count, r.at);
}

function getText(r: Reader): string {
  const length = getU8(r);
  if (!has(r, length)) return "";
  let text = "";
  for (let i = 0; i < length; i++) text += String.fromCharCode(r.bytes[r.at + i]!);
  r.at += length;
  return text;
}

function getLong(r: Reader, max: number, what: string): Uint8Array {
  const length = getU16(r);
  if (r.wrong === "" && length > max) r.wrong = what + " too long";
  return getFixed(r, length);
}

function getRecord(r: Reader): RoleRecord | undefined {
  if (!has(r, RECORD_BYTES)) return undefined;
  const record = decodeRecord(r.bytes, r.at, r.end);
  r.at += RECORD_BYTES;
  if (isMalformed(record)) {
    r.wrong = record.malformed;
    return undefined;
  }
  return record;
}

const BIT_ASKED = 0x0001;
const BIT_JOINING = 0x0002;
const BIT_SESSION_OPEN = 0x0004;
const BIT_COPYING = 0x0008;
const BIT_PRESET = 0x0010;
const BIT_PEER_UP = 0x0020;
const BIT_BRAKING = 0x0040;
const BIT_PASSED_TOLD = 0x0080;
const BIT_BLANK = 0x0100;
const BIT_WANTS_SOLO = 0x0200;

function putHeartbeat(w: Writer, h: Heartbeat): void {
  putU32(w, h.counter);
  putFixed(w, h.linkNonce, LINK_NONCE_BYTES, "link nonce of a heartbeat");
  putText(w, h.serverId, SERVER_ID_BYTES_MAX);
  putRecord(w, h.record);
  putFixed(w, h.identity, IDENTITY_BYTES, "identity of a heartbeat");
  putFixed(w, h.bootNonce, LINK_NONCE_BYTES, "boot nonce of a heartbeat");
  putGaugeU16(
    w,
    (h.asked ? BIT_ASKED : 0) |
      (h.joining ? BIT_JOINING : 0) |
      (h.sessionOpen ? BIT_SESSION_OPEN : 0) |
      (h.copying ? BIT_COPYING : 0) |
      (h.preset ? BIT_PRESET : 0) |
      (h.peerUp ? BIT_PEER_UP : 0) |
      (h.braking ? BIT_BRAKING : 0) |
      (h.passedTold ? BIT_PASSED_TOLD : 0) |
      (h.blank ? BIT_BLANK : 0) |
      (h.wantsSolo ? BIT_WANTS_SOLO : 0),
  );
  putGauge(w, h.uptimeMs);
  putU48(w, h.logEnd);
  putU48(w, h.confirmed);
  putGauge(w, h.lagEntries);
  putGauge(w, h.oldestUnconfirmedMs);
  putGauge(w, h.oldestUncommittedMs);
  putGaugeU16(w, h.loadPermille);
  putGaugeU16(w, h.cpuPermille);
  putGaugeU16(w, h.runQueue);
  putGauge(w, h.loopDelayUs);
  putGauge(w, h.inFlight);
  putGauge(w, h.serviceUs);
  putFixed(w, h.askIdentity, IDENTITY_BYTES, "ask identity of a heartbeat");
  putU48(w, h.askIndex);
  putText(w, h.problem, PROBLEM_BYTES_MAX);
}

/** A heartbeat's bytes from the identity to the index of what it asks for. */
const HEARTBEAT_FIXED_BYTES = IDENTITY_BYTES + LINK_NONCE_BYTES + 2 + 46 + IDENTITY_BYTES + 6;

/** One look at the length and one view for all that has a fixed place: a chip pays for every call. */
function getHeartbeat(r: Reader): Heartbeat {
  const counter = getU32(r);
  const linkNonce = getFixed(r, LINK_NONCE_BYTES);
  const serverId = getText(r);
  const record = getRecord(r);
  const isThere = has(r, HEARTBEAT_FIXED_BYTES);
  const bytes = isThere ? r.bytes : new Uint8Array(HEARTBEAT_FIXED_BYTES);
  const at = isThere ? r.at : 0;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, HEARTBEAT_FIXED_BYTES);
  const bits = view.getUint16(24);
  if (isThere) r.at += HEARTBEAT_FIXED_BYTES;
  return {
    counter: counter,
    linkNonce: linkNonce,
    serverId: serverId,
    record: record,
    identity: bytes.slice(at, at + IDENTITY_BYTES),
    bootNonce: bytes.slice(at + 16, at + 24),
    asked: (bits & BIT_ASKED) !== 0,
    joining: (bits & BIT_JOINING) !== 0,
    sessionOpen: (bits & BIT_SESSION_OPEN) !== 0,
    copying: (bits & BIT_COPYING) !== 0,
    preset: (bits & BIT_PRESET) !== 0,
    peerUp: (bits & BIT_PEER_UP) !== 0,
    braking: (bits & BIT_BRAKING) !== 0,
    passedTold: (bits & BIT_PASSED_TOLD) !== 0,
    blank: (bits & BIT_BLANK) !== 0,
    uptimeMs: view.getUint32(26),
    logEnd: view.getUint16(30) * 0x100000000 + view.getUint32(32),
    confirmed: view.getUint16(36) * 0x100000000 + view.getUint32(38),
    lagEntries: view.getUint32(42),
    oldestUnconfirmedMs: view.getUint32(46),
    oldestUncommittedMs: view.getUint32(50),
    loadPermille: view.getUint16(54),
    cpuPermille: view.getUint16(56),
    runQueue: view.getUint16(58),
    loopDelayUs: view.getUint32(60),
    inFlight: view.getUint32(64),
    serviceUs: view.getUint32(68),
    askIdentity: bytes.slice(at + 72, at + 88),
    askIndex: view.getUint16(88) * 0x100000000 + view.getUint32(90),
    wantsSolo: (bits & BIT_WANTS_SOLO) !== 0,
    problem: getText(r),
  };
}

/** Where a heartbeat's datagram begins to say what its server is; before that are its kind and counter. @unit bytes */
export const SAYS_AT = DATAGRAM_HEADER_BYTES + 4;
/** What a heartbeat measures, from `uptimeMs` to `serviceUs`, lies together; all else changes seldom. @unit bytes */
export const GAUGES_BYTES = 46;
/** Of these, where `oldestUnconfirmedMs` and `oldestUncommittedMs` are. */
export const STALLS_AT = 20;
/** And `loadPermille`, then `serviceUs`. */
export const LOAD_AT = 28;
export const SERVICE_AT = 42;

/** Where a heartbeat's datagram has its measurements. @param idLength of the server's id */
export function gaugesAt(idLength: number): number {
  return SAYS_AT + LINK_NONCE_BYTES + 1 + idLength + RECORD_BYTES + IDENTITY_BYTES + 10;
}

/** Takes over the counter and the measurements of a heartbeat's datagram that says the same otherwise. */
export function takeGauges(into: Heartbeat, bytes: Uint8Array): void {
  const at = gaugesAt(into.serverId.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  into.counter = view.getUint32(DATAGRAM_HEADER_BYTES);
  into.uptimeMs = view.getUint32(at);
  into.logEnd = view.getUint16(at + 4) * 0x100000000 + view.getUint32(at + 6);
  into.confirmed = view.getUint16(at + 10) * 0x100000000 + view.getUint32(at + 12);
  into.lagEntries = view.getUint32(at + 16);
  into.oldestUnconfirmedMs = view.getUint32(at + STALLS_AT);
  into.oldestUncommittedMs = view.getUint32(at + STALLS_AT + 4);
  into.loadPermille = view.getUint16(at + LOAD_AT);
  into.cpuPermille = view.getUint16(at + 30);
  into.runQueue = view.getUint16(at + 32);
  into.loopDelayUs = view.getUint32(at + 34);
  into.inFlight = view.getUint32(at + 38);
  into.serviceUs = view.getUint32(at + SERVICE_AT);
}

/** @returns the payload of a CONTROL frame: kind, then the fields in the order of the interface */
export function encodeControl(message: ControlMessage): Uint8Array {
  // What is sent all the time fits, and Node keeps so few bytes in its own heap: more are fetched from the system, at ten times the price.
  const w: Writer = { bytes: new Uint8Array(64), at: 0 };
  putU8(w, message.kind);
  switch (message.kind) {
    case KIND_HELLO:
      putU8(w, message.wireMin);
      putU8(w, message.wireMax);
      putU8(w, message.role);
      putText(w, message.id, TEXT_BYTES_MAX);
      putFixed(w, message.nonce, NONCE_BYTES, "nonce of a hello");
      putU32(w, message.frameMax);
      putU32(w, message.windowBytes);
      break;
    case KIND_CHALLENGE:
      putU8(w, message.wire);
      putFixed(w, message.nonce, NONCE_BYTES, "nonce of a challenge");
      putFixed(w, message.proof, PROOF_BYTES, "proof of a challenge");
      putU32(w, message.frameMax);
      putU32(w, message.windowBytes);
      putFixed(w, message.sessionId, SESSION_ID_BYTES, "session id of a challenge");
      break;
    case KIND_PROOF:
      putFixed(w, message.proof, PROOF_BYTES, "proof");
      break;
    case KIND_REFUSE:
      putU8(w, message.code);
      putText(w, message.text, TEXT_BYTES_MAX);
      break;
    case KIND_REPORT:
      putHeartbeat(w, message.heartbeat);
      break;
    case KIND_ANNOUNCE:
      putText(w, message.id, TEXT_BYTES_MAX);
      putGauge(w, message.uptimeMs);
      break;
    case KIND_RECORD:
      putRecord(w, message.record);
      putU8(w, (message.fresh ? 1 : 0) | (message.forced ? 2 : 0));
      break;
    case KIND_PASSED:
      putU32(w, message.epoch);
      break;
    case KIND_STATE:
      putRecord(w, message.record);
      putFixed(w, message.identity, IDENTITY_BYTES, "identity of a state");
      putU48(w, message.logEnd);
      break;
    case KIND_SESSION_OPEN: {
      assert(message.boundaries.length <= BOUNDARIES_MAX, "boundaries of a session");
      putU32(w, message.epoch);
      putFixed(w, message.identity, IDENTITY_BYTES, "identity of a session");
      putU48(w, message.base);
      putU32(w, message.baseEpoch);
      putU48(w, message.end);
      putU48(w, message.confirmedHigh);
      putU8(w, message.copying ? 1 : 0);
      putU48(w, message.copyFrom);
      putLong(w, message.copyCursor, COPY_CURSOR_BYTES_MAX, "copy cursor of a session");
      putGaugeU16(w, message.boundaries.length);
      for (let i = 0; i < message.boundaries.length; i++) {
        putU32(w, message.boundaries[i]!.epoch);
        putU48(w, message.boundaries[i]!.firstIndex);
      }
      break;
    }
    case KIND_SESSION_PLAN:
      putU32(w, message.epoch);
      putFixed(w, message.identity, IDENTITY_BYTES, "identity of a plan");
      putU48(w, message.keepTo);
      putU8(w, (message.copy ? 1 : 0) | (message.resume ? 2 : 0));
      putU48(w, message.copyFrom);
      break;
    case KIND_SESSION_READY:
      putU32(w, message.epoch);
      putU48(w, message.index);
      break;
    case KIND_PEER_HEARTBEAT:
      putU32(w, message.epoch);
      putU48(w, message.logEnd);
      putU48(w, message.confirmed);
      break;
    case KIND_FORWARD:
      putU32(w, message.epoch);
      putFixed(w, message.session, SESSION_ID_BYTES, "session of a forward");
      putU32(w, message.number);
      room(w, message.command.length);
      w.bytes.set(message.command, w.at);
      w.at += message.command.length;
      break;
    case KIND_FORWARD_FAILED:
      putU32(w, message.epoch);
      putFixed(w, message.session, SESSION_ID_BYTES, "session of a forward");
      putU32(w, message.number);
      putText(w, message.text, TEXT_BYTES_MAX);
      break;
    case KIND_ASK:
      putU32(w, message.epoch);
      putU8(w, message.mode);
      putFixed(w, message.identity, IDENTITY_BYTES, "identity of an ask");
      putU48(w, message.index);
      break;
    case KIND_GOODBYE:
      putText(w, message.text, TEXT_BYTES_MAX);
      break;
  }
  assert(w.at <= CONTROL_BYTES_MAX, "length of a control message");
  return w.bytes.subarray(0, w.at);
}

/** `Malformed.malformed` of a kind this build does not know; the caller may ignore such a message. */
export const UNKNOWN_KIND = "unknown kind";

/**
 * Reads the payload of a CONTROL frame. Nothing in the result points into `bytes`.
 * Bytes after the fields of a known kind are ignored: a newer build may have added some.
 */
export function decodeControl(
  bytes: Uint8Array,
  start: number,
  end: number,
): ControlMessage | Malformed {
  if (end <= start) return { malformed: "empty control message" };
  const r: Reader = { bytes: bytes, at: start + 1, end: end, wrong: "" };
  const kind = bytes[start]!;
  const message = decodeKind(kind, r);
  if (message === undefined) return { malformed: UNKNOWN_KIND };
  if (r.wrong !== "") return { malformed: kindName(kind) + ": " + r.wrong };
  return message;
}

function decodeKind(kind: number, r: Reader): ControlMessage | undefined {
  switch (kind) {
    case KIND_HELLO: {
      const message: Hello = {
        kind: KIND_HELLO,
        wireMin: getU8(r),
        wireMax: getU8(r),
        role: getU8(r),
        id: getText(r),
        nonce: getFixed(r, NONCE_BYTES),
        frameMax: getU32(r),
        windowBytes: getU32(r),
      };
      if (r.wrong === "" && (message.role < ROLE_SERVER || message.role > ROLE_CLIENT)) {
        r.wrong = "role " + message.role;
      }
      return message;
    }
    case KIND_CHALLENGE:
      return {
        kind: KIND_CHALLENGE,
        wire: getU8(r),
        nonce: getFixed(r, NONCE_BYTES),
        proof: getFixed(r, PROOF_BYTES),
        frameMax: getU32(r),
        windowBytes: getU32(r),
        sessionId: getFixed(r, SESSION_ID_BYTES),
      };
    case KIND_PROOF:
      return { kind: KIND_PROOF, proof: getFixed(r, PROOF_BYTES) };
    case KIND_REFUSE:
      return { kind: KIND_REFUSE, code: getU8(r), text: getText(r) };
    case KIND_REPORT:
      return { kind: KIND_REPORT, heartbeat: getHeartbeat(r) };
    case KIND_ANNOUNCE:
      return { kind: KIND_ANNOUNCE, id: getText(r), uptimeMs: getU32(r) };
    case KIND_RECORD: {
      const record = getRecord(r);
      const bits = getU8(r);
      if (record === undefined) {
        if (r.wrong === "") r.wrong = "blank record";
        return { kind: KIND_GOODBYE, text: "" };
      }
      return {
        kind: KIND_RECORD,
        record: record,
        fresh: (bits & 1) !== 0,
        forced: (bits & 2) !== 0,
      };
    }
    case KIND_PASSED:
      return { kind: KIND_PASSED, epoch: getU32(r) };
    case KIND_STATE:
      return {
        kind: KIND_STATE,
        record: getRecord(r),
        identity: getFixed(r, IDENTITY_BYTES),
        logEnd: getU48(r),
      };
    case KIND_SESSION_OPEN:
      return decodeSessionOpen(r);
    case KIND_SESSION_PLAN: {
      const epoch = getU32(r);
      const identity = getFixed(r, IDENTITY_BYTES);
      const keepTo = getU48(r);
      const bits = getU8(r);
      return {
        kind: KIND_SESSION_PLAN,
        epoch: epoch,
        identity: identity,
        keepTo: keepTo,
        copy: (bits & 1) !== 0,
        resume: (bits & 2) !== 0,
        copyFrom: getU48(r),
      };
    }
    case KIND_SESSION_READY:
      return { kind: KIND_SESSION_READY, epoch: getU32(r), index: getU48(r) };
    case KIND_PEER_HEARTBEAT:
      return {
        kind: KIND_PEER_HEARTBEAT,
        epoch: getU32(r),
        logEnd: getU48(r),
        confirmed: getU48(r),
      };
    case KIND_FORWARD:
      return {
        kind: KIND_FORWARD,
        epoch: getU32(r),
        session: getFixed(r, SESSION_ID_BYTES),
        number: getU32(r),
        command: getFixed(r, r.end - r.at),
      };
    case KIND_FORWARD_FAILED:
      return {
        kind: KIND_FORWARD_FAILED,
        epoch: getU32(r),
        session: getFixed(r, SESSION_ID_BYTES),
        number: getU32(r),
        text: getText(r),
      };
    case KIND_ASK: {
      const message: Ask = {
        kind: KIND_ASK,
        epoch: getU32(r),
        mode: getU8(r),
        identity: getFixed(r, IDENTITY_BYTES),
        index: getU48(r),
      };
      if (r.wrong === "" && message.mode > MODE_SOLO) r.wrong = "mode " + message.mode;
      return message;
    }
    case KIND_GOODBYE:
      return { kind: KIND_GOODBYE, text: getText(r) };
    default:
      return undefined;
  }
}

function decodeSessionOpen(r: Reader): SessionOpen {
  const message: SessionOpen = {
    kind: KIND_SESSION_OPEN,
    epoch: getU32(r),
    identity: getFixed(r, IDENTITY_BYTES),
    base: getU48(r),
    baseEpoch: getU32(r),
    end: getU48(r),
    confirmedHigh: getU48(r),
    copying: (getU8(r) & 1) !== 0,
    copyFrom: getU48(r),
    copyCursor: getLong(r, COPY_CURSOR_BYTES_MAX, "copy cursor"),
    boundaries: [],
  };
  const count = getU16(r);
  if (r.wrong === "" && count > BOUNDARIES_MAX) r.wrong = count + " boundaries";
  if (!has(r, count * 10)) return message;
  for (let i = 0; i < count; i++) {
    const boundary: Boundary = { epoch: getU32(r), firstIndex: getU48(r) };
    message.boundaries.push(boundary);
  }
  return message;
}

const KIND_NAMES = [
  "",
  "hello",
  "challenge",
  "proof",
  "refuse",
  "report",
  "announce",
  "record",
  "passed",
  "state",
  "session open",
  "session plan",
  "session ready",
  "peer heartbeat",
  "forward",
  "forward failed",
  "ask",
  "goodbye",
];

/** A kind for people. */
export function kindName(kind: number): string {
  return kind > 0 && kind < KIND_NAMES.length ? KIND_NAMES[kind]! : "kind " + kind;
}

/**
 * Heartbeats are written one behind the other into a block, and a new one is begun when it is full: a buffer for each costs
 * more than all that is put into it. What was given out is never written again.
 */
const HEARTBEATS_BLOCK_BYTES = 16384;
let heartbeats: Writer | undefined;

/** A writer in which a datagram can begin where it stands. */
function startHeartbeat(): Writer {
  let w = heartbeats;
  if (w === undefined || w.at + DATAGRAM_BYTES_MAX > w.bytes.length) {
    w = { bytes: new Uint8Array(HEARTBEATS_BLOCK_BYTES), at: 0 };
    heartbeats = w;
  }
  putU8(w, MAGIC_0);
  putU8(w, MAGIC_1);
  putU8(w, WIRE_VERSION);
  putU8(w, DATAGRAM_HEARTBEAT);
  return w;
}

/** @returns why this is no datagram of the kind, or "" */
function datagramFault(bytes: Uint8Array, start: number, end: number, kind: number): string {
  if (end - start < DATAGRAM_HEADER_BYTES) return "datagram too short";
  if (bytes[start] !== MAGIC_0 || bytes[start + 1] !== MAGIC_1) return "not one of our datagrams";
  const wire = bytes[start + 2]!;
  if (wire < WIRE_VERSION_MIN || wire > WIRE_VERSION) return "datagram of wire version " + wire;
  if (bytes[start + 3] !== kind) return "datagram of kind " + bytes[start + 3]!;
  return "";
}

const POLL_BYTES = DATAGRAM_HEADER_BYTES + 4 + LINK_NONCE_BYTES + SESSION_ID_BYTES + 4;
const POLL_HEAD = new Uint8Array([MAGIC_0, MAGIC_1, WIRE_VERSION, DATAGRAM_POLL]);

/** A poll as a datagram. In few statements: a chip sends forty a second. */
export function encodePoll(poll: Poll): Uint8Array {
  const bytes = new Uint8Array(POLL_BYTES);
  assert(poll.linkNonce.length === LINK_NONCE_BYTES, "link nonce of a poll");
  assert(poll.sessionId.length === SESSION_ID_BYTES, "session id of a poll");
  bytes.set(POLL_HEAD, 0);
  writeU32(bytes, DATAGRAM_HEADER_BYTES, poll.counter);
  bytes.set(poll.linkNonce, DATAGRAM_HEADER_BYTES + 4);
  bytes.set(poll.sessionId, DATAGRAM_HEADER_BYTES + 4 + LINK_NONCE_BYTES);
  writeU32(bytes, POLL_BYTES - 4, poll.epoch);
  return bytes;
}

/** A poll from a datagram, or why it is none. */
export function decodePoll(bytes: Uint8Array, start: number, end: number): Poll | Malformed {
  const fault = datagramFault(bytes, start, end, DATAGRAM_POLL);
  if (fault !== "") return { malformed: fault };
  const r: Reader = { bytes: bytes, at: start + DATAGRAM_HEADER_BYTES, end: end, wrong: "" };
  const poll: Poll = {
    counter: getU32(r),
    linkNonce: getFixed(r, LINK_NONCE_BYTES),
    sessionId: getFixed(r, SESSION_ID_BYTES),
    epoch: getU32(r),
  };
  return r.wrong === "" ? poll : { malformed: "poll: " + r.wrong };
}

/** A heartbeat as a datagram. */
export function encodeHeartbeat(heartbeat: Heartbeat): Uint8Array {
  const w = startHeartbeat();
  const start = w.at - DATAGRAM_HEADER_BYTES;
  putHeartbeat(w, heartbeat);
  assert(w.at - start <= DATAGRAM_BYTES_MAX, "length of a heartbeat");
  return new Uint8Array(w.bytes.buffer, start, w.at - start);
}

/** A heartbeat from a datagram, or why it is none. */
export function decodeHeartbeat(
  bytes: Uint8Array,
  start: number,
  end: number,
): Heartbeat | Malformed {
  const fault = datagramFault(bytes, start, end, DATAGRAM_HEARTBEAT);
  if (fault !== "") return { malformed: fault };
  const r: Reader = { bytes: bytes, at: start + DATAGRAM_HEADER_BYTES, end: end, wrong: "" };
  const heartbeat = getHeartbeat(r);
  return r.wrong === "" ? heartbeat : { malformed: "heartbeat: " + r.wrong };
}
