/**
 * What the controller's core asks of its home. Calls never call back into the core; what they cause
 * comes in later as an event.
 *
 * Connections are small integers that the home hands out and may use again after onClosed.
 */
import type { ServerIndex } from "../../protocol/record.js";
import type { Crc32 } from "../../protocol/serial.js";

/** The world as the controller's core may use it. */
export interface ControllerPorts {
  /** Takes bytes for a connection; the caller may reuse the buffer at once. The home gathers writes per loop turn. */
  send(connection: number, bytes: Uint8Array, start: number, end: number): void;
  /** @returns bytes taken for this connection that the network has not taken yet. */
  backlog(connection: number): number;
  /** Closes after what was sent has gone out (or at once with `abort`); onClosed still follows. */
  close(connection: number, reason: string, abort: boolean): void;
  /** Stops or resumes taking bytes from a client connection. */
  setReading(connection: number, on: boolean): void;
  /** Sends a poll datagram to a server. */
  poll(server: ServerIndex, bytes: Uint8Array): void;
  /**
   * Puts bytes on a server's serial line, all or none; missing where no server has one.
   * @returns false when the line has no room for them now
   */
  serial?: (server: ServerIndex, bytes: Uint8Array) => boolean;
  /** Needed where there are serial lines; native on Espruino. */
  crc32?: Crc32;
  /** Switches a server's fencing line on (the server goes off) or off; missing where no server has one. */
  fence?: (server: ServerIndex, on: boolean) => void;
  /** Whether the input beside that line says that the server runs. */
  powered?: (server: ServerIndex) => boolean;
  /** Puts the record in flash; onPersisted or onPersistFailed follows. One at a time. */
  persist(record: Uint8Array): void;
  hmac(key: Uint8Array, data: Uint8Array): Uint8Array;
  /** One event for the console and the black box. */
  note(
    level: "debug" | "info" | "warn" | "error",
    event: string,
    details: object | undefined,
  ): void;
  /** A broken invariant: the chip resets. Never returns to the caller in a useful state. */
  reset(reason: string): void;
}

/**
 * Where commands may go now. The control path sets it, the forward path obeys it.
 * While a record change is being written to flash `epoch` stays the old one and `open` is false.
 */
export interface Route {
  epoch: number;
  /** Commands may be sent at all (flash not blank, no record change under way). */
  open: boolean;
  primary: ServerIndex;
  /** Each server may get reads: the primary always; the standby in mode both while in sync and reachable. */
  readable: [boolean, boolean];
  /** The standby is not merely out of sync but gone, or the primary is: why, for error texts. */
  why: string;
}

/** What the forward path tells the control path. */
export interface ForwardEvents {
  /** The first reply of this epoch has been passed to a client (G5). */
  onFirstPassed(epoch: number): void;
  /** A server broke the protocol: drop its link. */
  onPeerFault(server: ServerIndex, reason: string): void;
  /** Ids are used up: links must be renewed once nothing is open. */
  onIdsUsedUp(): void;
}
