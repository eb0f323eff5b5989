/**
 * What the control path asks of the forward path (forward.ts): clients' commands, their queues and replies.
 *
 * The root tells it where commands may go (`setRoute`) and which links there are; it never decides a role.
 */
import type { CoreConfig } from "./config.js";
import type { ConnectionKind } from "./core.js";
import type { ControllerPorts, ForwardEvents, Route } from "./ports.js";
import type { ServerIndex } from "../../protocol/record.js";

export interface Forwarder {
  setRoute(route: Route, now: number): void;
  /** The session under which plain clients' writes are numbered in this boot. */
  setSession(sessionId: Uint8Array): void;
  linkUp(
    server: ServerIndex,
    connection: number,
    frameMax: number,
    windowBytes: number,
    now: number,
  ): void;
  linkDown(server: ServerIndex, now: number): void;
  onReply(
    server: ServerIndex,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void;
  onReplyEpoch(server: ServerIndex, epoch: number, now: number): void;
  clientOpen(connection: number, kind: ConnectionKind, now: number): void;
  clientBytes(connection: number, bytes: Uint8Array, start: number, end: number, now: number): void;
  clientDrained(connection: number, now: number): void;
  clientClosed(connection: number, now: number): void;
  setReported(server: ServerIndex, loadPermille: number, braking: boolean, serviceUs: number): void;
  /** @returns when it wants to be called again */
  tick(now: number): number;
  /** Commands sent to a server and not yet answered. */
  inFlight(server: ServerIndex): number;
  serviceUs(server: ServerIndex): number;
  /** Client connections. */
  openCount(): number;
  counters(): object;
}

export type CreateForwarder = (
  config: CoreConfig,
  ports: ControllerPorts,
  events: ForwardEvents,
) => Forwarder;
