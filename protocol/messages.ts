/**
 * The words of the control plane. CONTROL frames carry one each (payload[0] is its kind); polls and
 * heartbeats also travel as datagrams (and, over a serial line, as serial frames).
 */
import type { RoleRecord, ServerIndex } from "./record.js";

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

export const ROLE_SERVER = 1;
export const ROLE_PEER = 2;
export const ROLE_CLIENT = 3;

export const REFUSE_VERSION = 1;
export const REFUSE_KEY = 2;
export const REFUSE_PAIR = 3;
export const REFUSE_UNKNOWN_ID = 4;
export const REFUSE_DUPLICATE = 5;
export const REFUSE_FULL = 6;
export const REFUSE_MALFORMED = 7;
export const REFUSE_STOPPED = 8;

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

export interface Proof {
  kind: typeof KIND_PROOF;
  proof: Uint8Array; // 32
}

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

export interface Poll {
  counter: number;
  linkNonce: Uint8Array; // 8
  /** The controller's boot: its session id (zero before it has one). */
  sessionId: Uint8Array; // 8
  epoch: number;
}

export interface Announce {
  kind: typeof KIND_ANNOUNCE;
  id: string;
  uptimeMs: number;
}

export interface RecordMessage {
  kind: typeof KIND_RECORD;
  record: RoleRecord;
  /** True while the solo record may still be taken back (G5). */
  fresh: boolean;
  /** Operator's force: this server may set aside confirmed entries in this epoch. */
  forced: boolean;
}

export interface Passed {
  kind: typeof KIND_PASSED;
  epoch: number;
}

export interface PeerState {
  kind: typeof KIND_STATE;
  record: RoleRecord | undefined;
  identity: Uint8Array;
  logEnd: number;
}

export interface Boundary {
  epoch: number;
  firstIndex: number;
}

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

export interface SessionReady {
  kind: typeof KIND_SESSION_READY;
  epoch: number;
  index: number;
}

export interface PeerHeartbeat {
  kind: typeof KIND_PEER_HEARTBEAT;
  epoch: number;
  logEnd: number;
  confirmed: number;
}

export interface Forward {
  kind: typeof KIND_FORWARD;
  epoch: number;
  session: Uint8Array; // 8
  number: number;
  /** The RESP command. */
  command: Uint8Array;
}

export interface ForwardFailed {
  kind: typeof KIND_FORWARD_FAILED;
  epoch: number;
  session: Uint8Array;
  number: number;
  /** RESP error, without the leading "-". */
  text: string;
}

export interface Ask {
  kind: typeof KIND_ASK;
  epoch: number;
  /** MODE_BOTH or MODE_SOLO. */
  mode: number;
  identity: Uint8Array;
  index: number;
}

export interface Goodbye {
  kind: typeof KIND_GOODBYE;
  text: string;
}

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

export type { ServerIndex };
