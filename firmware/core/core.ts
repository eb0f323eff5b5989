/** The controller's core as a home sees it. Time is an argument: a monotonic clock in ms, a float. */
import type { Rounds } from "./rounds.js";
import type { ServerIndex } from "../../protocol/record.js";

/** Which way a connection came in by: a listener, or a serial line of its own (`line`: frames without a handshake). */
export type ConnectionKind = "server" | "redis" | "native" | "line";

/** What the home found in flash at boot. */
export interface FlashState {
  /** The newest valid record, as given to persist; undefined when blank. */
  record: Uint8Array | undefined;
  /** Why what was found cannot be believed ("" when it can): damaged slot, another chip's id. */
  damage: string;
}

/** The controller's core: events in, port calls out. */
export interface ControllerCore {
  start(flash: FlashState, nowMs: number): void;
  onOpen(connection: number, kind: ConnectionKind, nowMs: number): void;
  onBytes(connection: number, bytes: Uint8Array, start: number, end: number, nowMs: number): void;
  /** The connection's backlog has gone to the network. */
  onDrained(connection: number, nowMs: number): void;
  onClosed(connection: number, nowMs: number): void;
  /** A datagram from a server's address. */
  onHeartbeat(server: ServerIndex, bytes: Uint8Array, nowMs: number): void;
  /** The server's address refused a poll (no one listens there). */
  onPollRefused(server: ServerIndex, nowMs: number): void;
  /** Bytes from a server's serial line, in whatever pieces they come. */
  onSerial(server: ServerIndex, bytes: Uint8Array, start: number, end: number, nowMs: number): void;
  onPersisted(nowMs: number): void;
  onPersistFailed(reason: string, nowMs: number): void;
  /**
   * The home's flash has no room for its next journal, and a power cut while it is put in order can lose the record.
   * @param writeWaits a record given to persist waits for it
   * @returns whether it may be done now: both servers hold the record, so that a blank flash would lose nothing
   */
  mayCompact(writeWaits: boolean, nowMs: number): boolean;
  /** Whether bytes of a server since the last answer may have brought a deadline nearer; replies to commands have not. */
  wantsTick(): boolean;
  /** @returns when it wants to be called again, on the same clock. */
  tick(nowMs: number): number;
  /** One line typed at the console. @returns the answer, lines of at most 80 columns. */
  console(line: string, nowMs: number): string;
  /** What `dyad status --json` prints (plain data). */
  status(nowMs: number): object;
  /** Ordinary rounds of polls, for a home that carries them out by itself. */
  readonly rounds: Rounds;
}
