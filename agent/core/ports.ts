/** What the agent's core asks of the world around it. Calls never call back into the core. */

/** What the load probe says of this machine. */
export interface LoadSample {
  /** @unit permille, 0..1000: max of CPU share and event loop share */
  loadPermille: number;
  cpuPermille: number;
  /** @unit processes ready to run */
  runQueue: number;
  /** @unit us, worst event loop delay of the last second */
  loopDelayUs: number;
}

/** What stands at the other end of a connection. */
export type LinkKind = "controller" | "peer" | "local";

/** The world as the agent's core may use it. */
export interface AgentPorts {
  /** Takes bytes for a connection; the caller may reuse the buffer at once. */
  send(connection: number, bytes: Uint8Array, start: number, end: number): void;
  /** Bytes taken for a connection that the network has not taken yet. */
  backlog(connection: number): number;
  /** Closes it; `onClosed` is still reported for it. What was sent before goes out first. */
  close(connection: number, reason: string): void;
  /** Stops or resumes taking bytes from a connection. */
  setReading(connection: number, on: boolean): void;
  /** Starts one connection attempt; answered by onOpen or onDialFailed. */
  dial(kind: "controller" | "peer"): void;
  /** Answers a poll; `from` is the token that came with it. */
  datagram(from: unknown, bytes: Uint8Array): void;
  hmac(key: Uint8Array, data: Uint8Array): Uint8Array;
  /** Secure random bytes. */
  random(count: number): Uint8Array;
  /** Writes a file a person can read, on disk before it returns. Throws when it cannot. */
  setAside(name: string, bytes: Uint8Array): void;
  load(): LoadSample;
  /** One event for the log. `level` warn and error are for people. */
  note(level: "debug" | "info" | "warn" | "error", event: string, details?: object): void;
  /** Ends the process after a fault that must not be survived (a failed flush, a broken invariant). */
  fatal(reason: string): void;
  /** Wall clock in ms since 1970, used only for the first log time of a new pair. */
  wallClockMs(): number;
}

/**
 * The agent's core as its shell sees it (implemented by agent/core/agent.ts).
 *
 * `nowMs` is a monotonic clock, a float. `endTurn` is called once after all input of a loop turn was
 * handed in: it commits the turn's entries as one group.
 */
export interface AgentCore {
  start(nowMs: number): void;
  onOpen(connection: number, kind: LinkKind, accepted: boolean, nowMs: number): void;
  onDialFailed(kind: "controller" | "peer", nowMs: number): void;
  onBytes(connection: number, bytes: Uint8Array, start: number, end: number, nowMs: number): void;
  /** The connection's output has drained below the shell's mark. */
  onDrained(connection: number, nowMs: number): void;
  onClosed(connection: number, nowMs: number): void;
  onPoll(from: unknown, bytes: Uint8Array, nowMs: number): void;
  /** What a SEALED frame of the controller's serial line carried: seal and message. */
  onSealed(payload: Uint8Array, nowMs: number): void;
  /** A store commit finished; called by the shell's wrapper of the store's `done`. */
  endTurn(nowMs: number): void;
  /** @returns when it wants to be called again, on the same clock. */
  tick(nowMs: number): number;
  /** What `status` shows of this server. */
  status(nowMs: number): object;
}
