/** What the controller's core is told once, at its making. Plain data; a home fills it from its own file. */
import type { FencingConfig } from "./fencing.js";
import type { Balancing } from "./target-server.js";
import type { Limits } from "./limits.js";
import type { SerialForm } from "../../protocol/serial.js";

export interface ServerConfig {
  /** As the server's hello names it, 1..64 characters. */
  id: string;
  /** This server announces itself when both were up before the controller (P13). At most one of the two. */
  preset: boolean;
  /** A serial cable leads to it, and polls go out in this form; undefined or missing: none does. */
  serial?: SerialForm | undefined;
}

/** All in ms. Relations between them are asserted in limits.ts. */
export interface Timings {
  /** Time between two polls of a server; an answer counts until the next poll goes out. */
  pollMs: number;
  /** A server silent on every path for this long has failed. */
  failureMs: number;
  /** Time a server has to answer the extra poll after its link closed. */
  probeMs: number;
  /** A server without a link for this long has failed though it answers polls. */
  linkDownMs: number;
  /** A write of the primary unconfirmed for this long means that the standby is lost. */
  stallMs: number;
  /** The same, when the primary itself says that its peer link is down. */
  stallPeerDownMs: number;
  /** A write of the primary not on its disk for this long means that its disk hangs. */
  diskStallMs: number;
  /** Longest a command waits for a server to send it to. */
  holdMs: number;
  /** Time between two polls of a server on its serial line; at 115200 baud one exchange takes about 30 ms. */
  serialPollMs: number;
  /** An answer on a serial line proves life for this long. */
  serialFailureMs: number;
  /** Time a server has to answer on its serial line after its link closed. */
  serialProbeMs: number;
  /** From a server's connect to its report. */
  handshakeMs: number;
  /** Longest a planned switchover waits for open commands. */
  drainMs: number;
  /** Power-on: longest wait for the record's primary while the other says it is connected to it (rule 18). */
  peerSeenMs: number;
  /** Power-on: longest wait for the preset server's announcement once both have reported (P13). */
  announceMs: number;
  /** An operator's dangerous command counts as confirmed when it is repeated within this time. */
  repeatMs: number;
  /** One refusal of one kind is put on the console at most this often. */
  refusalQuietMs: number;
}

export interface CoreConfig {
  /** In the order of the record: index 0 is its identity A. */
  servers: [ServerConfig, ServerConfig];
  /** The pair's secret, 16..64 bytes. */
  key: Uint8Array;
  /** Secret of native clients; undefined: the empty key. */
  clientKey: Uint8Array | undefined;
  /** AUTH of Redis clients; undefined: none is asked. */
  clientPassword: string | undefined;
  balancing: Balancing;
  /** Largest frame on a server link. @unit bytes, 536..65536 */
  frameMax: number;
  /** A session is renewed when its ids reach this. */
  idMax: number;
  /**
   * Random bytes from a home that has a secure source; empty on a chip, whose source repeats itself on
   * every start. What must be unique then rests on the servers' nonces alone.
   */
  seed: Uint8Array;
  timings: Timings;
  limits: Limits;
  /** Undefined or missing: no server has a fencing line. */
  fencing?: FencingConfig | undefined;
}

export const DEFAULT_ID_MAX = 0xfff00000;

export function defaultTimings(): Timings {
  return {
    pollMs: 20,
    failureMs: 200,
    probeMs: 15,
    linkDownMs: 1000,
    stallMs: 1000,
    stallPeerDownMs: 200,
    diskStallMs: 1500,
    holdMs: 2000,
    serialPollMs: 100,
    serialFailureMs: 300,
    serialProbeMs: 100,
    handshakeMs: 2000,
    drainMs: 500,
    peerSeenMs: 5000,
    announceMs: 400,
    repeatMs: 30000,
    refusalQuietMs: 5000,
  };
}
