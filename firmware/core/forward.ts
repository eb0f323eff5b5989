/**
 * The command transceiver (P5, P6): takes clients' commands, sends each to the server that should have it,
 * and gives the answers back in the order of the requests.
 *
 *     client bytes ─> parser ─> row (in-flight.ts) ─> place() ─> link to server a or b
 *                                  │   no server now               │
 *                                  └── hold-queue.ts <── refused, link lost, role moved
 *     reply frame  ─> row by id ─> its client's head? ─> client
 *
 * This is its surface: the route, the links, the clients' connections and the time come in here, and each part of the
 * work has a file of its own, listed in traffic.ts.
 *
 * What waits is bounded (hold-queue.ts), what a client leaves unread is bounded, and neither role changes nor
 * lost links close a client's connection.
 */
import { FrameDecoder, HANDSHAKE_PAYLOAD_BYTES_MAX } from "../../protocol/frame-decoder.js";
import { HEADER_BYTES, OUTCOME_ANSWER } from "../../protocol/frame.js";
import { RespParser, writeError } from "../../protocol/resp.js";
import type { ServerIndex } from "../../protocol/record.js";
import { assert } from "./assert.js";
import { submit } from "./client-commands.js";
import {
  afterFrame,
  callLine,
  expire,
  lookAtChoked,
  resumeIntake,
  takeFrames,
  takeIntake,
} from "./client-intake.js";
import { closeClient, deliver, forget, toClient } from "./client-output.js";
import type { ClientSession } from "./client-session.js";
import { createClientSession } from "./client-session.js";
import type { CoreConfig } from "./config.js";
import { errorBytes } from "./connection-commands.js";
import { WITH_NATIVE_PORT, WITH_REDIS_PORT } from "./features.js";
import {
  ALL_TURNS,
  linked,
  lookAtDrain,
  lookAtRoute,
  pumpFragments,
  pumpHeld,
  REFUSED_PAUSE_MS,
} from "./dispatch.js";
import { NO_ROW, ROW_DONE } from "./in-flight.js";
import { LINE_PAYLOAD_BYTES_MAX, createNativeFront } from "./native-front.js";
import type { NativeHost } from "./native-front.js";
import { createNonceSource } from "./nonce.js";
import type { ControllerPorts, ForwardEvents, Route } from "./ports.js";
import { forgetNumbers, retreatFrom } from "./retreat.js";
import { handleReply, replayStash } from "./server-replies.js";
import { createTraffic } from "./traffic.js";
import type { ForwardCounters } from "./forward-counters.js";
import type { Traffic } from "./traffic.js";

/** Slow readers and held commands are looked at this often. @unit ms */
const LOOK_MS = 20;

/** What a client's connection speaks; `line`: frames on a serial line. */
export type ClientKind = "redis" | "native" | "line";

export interface Forwarder {
  /**
   * Where commands may go now. On an epoch change it is called after RECORD and EPOCH have been sent on the
   * links that are up, because held commands leave at once.
   */
  setRoute(route: Route, now: number): void;
  /** New ids from 1 on; both links are down. */
  setSession(sessionId: Uint8Array): void;
  /** After the handshake, RECORD and EPOCH. */
  linkUp(
    server: ServerIndex,
    connection: number,
    frameMax: number,
    windowBytes: number,
    now: number,
  ): void;
  linkDown(server: ServerIndex, now: number): void;
  /** The link's backlog has gone to the network; without it fragments go on at the next tick. */
  linkDrained(server: ServerIndex, now: number): void;
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
  clientOpen(connection: number, kind: ClientKind, now: number): void;
  clientBytes(connection: number, bytes: Uint8Array, start: number, end: number, now: number): void;
  clientDrained(connection: number, now: number): void;
  clientClosed(connection: number, now: number): void;
  setReported(server: ServerIndex, loadPermille: number, braking: boolean, serviceUs: number): void;
  /** @returns when it wants to be called again */
  tick(now: number): number;
  /** Nothing here waits for the time to pass: a tick would find nothing to do. */
  isIdle(): boolean;
  /** Commands sent to a server and not answered. */
  inFlight(server: ServerIndex): number;
  /** The controller's own estimate. @unit us */
  serviceUs(server: ServerIndex): number;
  /** Commands sent to either server and not answered. */
  openCount(): number;
  counters(): ForwardCounters;
}

export function createForwarder(
  config: CoreConfig,
  ports: ControllerPorts,
  events: ForwardEvents,
): Forwarder {
  return forwarderOf(createTraffic(config, ports, events));
}

/** The forwarder over books that somebody else keeps as well (firmware/fast-path.ts). */
export function forwarderOf(traffic: Traffic): Forwarder {
  const config = traffic.config;
  const ports = traffic.ports;
  // Its own pool, so that it never says what the servers' links say.
  const nonceSeed = new Uint8Array(config.seed.length + 1);
  nonceSeed.set(config.seed, 1);
  nonceSeed[0] = 1;
  const nonces = createNonceSource(ports.hmac, config.key, nonceSeed);
  let serials = 0;

  // ---------------------------------------------------------------- the route and the links

  function setRoute(route: Route, now: number): void {
    traffic.currentTime = now;
    const before = traffic.primary;
    const changed = !traffic.hasRoute || route.epoch !== traffic.epoch;
    const lostReads = [
      traffic.readable[0] && !route.readable[0] && route.primary !== 0,
      traffic.readable[1] && !route.readable[1] && route.primary !== 1,
    ];
    const stays = traffic.hasRoute && route.primary === before;
    assert(!traffic.hasRoute || route.epoch >= traffic.epoch, "epochs only grow");
    traffic.hasRoute = true;
    traffic.epoch = route.epoch;
    traffic.primary = route.primary;
    traffic.readable[0] = route.readable[0];
    traffic.readable[1] = route.readable[1];
    traffic.routeOpen = route.open;
    traffic.why = route.why;
    if (!stays) traffic.reign = traffic.epoch;
    if (changed) {
      for (let server = 0; server < 2; server++) {
        traffic.refusedUntil[server] = 0;
        // A primary that stays answers what it holds in the new epoch; all else is asked again.
        if (!(stays && server === traffic.primary)) retreatFrom(traffic, server, now);
        if (!stays) traffic.target.first(server, traffic.reportedUs[server], now);
      }
    } else {
      for (let server = 0; server < 2; server++) {
        if (lostReads[server]) retreatFrom(traffic, server, now);
      }
    }
    lookAtRoute(traffic, now);
    if (!traffic.routeOpen) return;
    if (traffic.stash.length > 0) replayStash(traffic, now);
    pumpHeld(traffic, ALL_TURNS, now);
  }

  function setSession(id: Uint8Array): void {
    traffic.sessionId = id.slice(0);
    assert(
      traffic.inFlightAt[0] === 0 && traffic.inFlightAt[1] === 0,
      "a session is renewed with nothing open",
    );
    for (let i = 0; i < traffic.clients.length; i++) {
      const client = traffic.clients[i];
      if (client !== undefined && !client.closed) forgetNumbers(traffic, client);
    }
    traffic.nextId = 1;
    traffic.draining = false;
    traffic.idsToldUsedUp = false;
    for (let i = 0; i < traffic.clients.length; i++) {
      const client = traffic.clients[i];
      if (client !== undefined && client.paused) resumeIntake(traffic, client, traffic.currentTime);
    }
  }

  function linkDown(server: ServerIndex, now: number): void {
    if (!linked(traffic, server)) return;
    traffic.linkOf[server] = -1;
    retreatFrom(traffic, server, now);
    traffic.replyEpoch[server] = 0;
    lookAtRoute(traffic, now);
    if (traffic.routeOpen) pumpHeld(traffic, ALL_TURNS, now);
    if (traffic.draining) lookAtDrain(traffic);
  }

  function linkUp(
    server: ServerIndex,
    connection: number,
    frameMax: number,
    linkWindowBytes: number,
    now: number,
  ): void {
    if (linked(traffic, server)) linkDown(server, now);
    traffic.linkOf[server] = connection;
    traffic.linkPayloadMax[server] = frameMax - HEADER_BYTES;
    traffic.windowBytes[server] = linkWindowBytes;
    traffic.windowUsed[server] = 0;
    traffic.replyEpoch[server] = 0;
    traffic.refusedUntil[server] = 0;
    traffic.target.first(server, traffic.reportedUs[server], now);
    lookAtRoute(traffic, now);
    if (traffic.routeOpen) pumpHeld(traffic, ALL_TURNS, now);
  }

  function linkDrained(server: ServerIndex, now: number): void {
    if (traffic.sendingRows[server].length > 0) pumpFragments(traffic, server, now);
  }

  function onReply(
    server: ServerIndex,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void {
    handleReply(traffic, server, flags, id, bytes, start, end, traffic.replyEpoch[server], now);
  }

  function onReplyEpoch(server: ServerIndex, decidedIn: number, _now: number): void {
    traffic.replyEpoch[server] = decidedIn;
  }

  // ---------------------------------------------------------------- native clients

  function currentSessionId(): Uint8Array {
    return traffic.sessionId;
  }

  function freshNonce(nonceD: Uint8Array): Uint8Array {
    return nonces.answerTo(nonceD, traffic.currentTime);
  }

  function sendToClient(client: ClientSession, frame: Uint8Array): void {
    toClient(traffic, client, frame, 0, frame.length);
  }

  function setClientPayloadMax(client: ClientSession, payloadMax: number): void {
    client.decoder!.setPayloadMax(payloadMax);
  }

  function nativeFault(client: ClientSession, reason: string): void {
    closeClient(traffic, client, reason, false);
  }

  function submitNative(
    client: ClientSession,
    flags: number,
    primaryOnly: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
    clientId: number,
  ): void {
    submit(traffic, client, flags, primaryOnly, bytes, start, end, clientId, traffic.currentTime);
    afterFrame(traffic, client);
  }

  function nativeError(client: ClientSession, clientId: number, text: string): void {
    const bytes = errorBytes(text);
    deliver(traffic, client, clientId, OUTCOME_ANSWER, bytes, 0, bytes.length, false);
  }

  function abortNative(client: ClientSession, clientId: number): void {
    const table = traffic.table;
    const state = table.state;
    const next = table.next;
    let row = client.head;
    while (row !== NO_ROW) {
      if (table.clientId[row] === clientId && state[row] !== ROW_DONE) {
        table.clientId[row] = 0;
        return;
      }
      row = next[row];
    }
  }

  const nativeHost: NativeHost = {
    key: config.clientKey === undefined ? new Uint8Array(0) : config.clientKey,
    hmac: ports.hmac,
    frameMax: config.frameMax,
    windowBytes: traffic.commandBytesMax * 4,
    commandBytesMax: traffic.commandBytesMax,
    valueBytesMax: config.limits.valueBytesMax,
    sessionId: currentSessionId,
    nonce: freshNonce,
    send: sendToClient,
    setPayloadMax: setClientPayloadMax,
    fault: nativeFault,
    submit: submitNative,
    error: nativeError,
    abort: abortNative,
  };

  // ---------------------------------------------------------------- clients' connections

  function clientOpen(connection: number, kind: ClientKind, now: number): void {
    const localSink = traffic.localSink;
    const count = traffic.count;
    serials++;
    const client = createClientSession(connection, serials, kind !== "redis", now);
    traffic.clients[connection] = client;
    if (count.clients >= config.limits.clientsMax) {
      count.clientsRefused++;
      client.closed = true;
      if (WITH_REDIS_PORT && kind === "redis") {
        localSink.length = 0;
        writeError(localSink, "ERR max number of clients reached");
        ports.send(connection, localSink.bytes, 0, localSink.length);
      }
      ports.close(connection, "more than " + config.limits.clientsMax + " clients", false);
      return;
    }
    count.clients++;
    if (WITH_REDIS_PORT && kind === "redis") {
      client.authenticated = config.clientPassword === undefined;
      client.parser = new RespParser(traffic.respLimits);
      client.parser.authenticated = client.authenticated;
    } else if (WITH_NATIVE_PORT) {
      client.authenticated = true;
      const onLine = kind === "line";
      const front = createNativeFront(nativeHost, client, onLine);
      client.front = front;
      client.decoder = new FrameDecoder(
        front.onFrame,
        onLine ? LINE_PAYLOAD_BYTES_MAX : HANDSHAKE_PAYLOAD_BYTES_MAX,
        64 * 1024,
      );
    }
  }

  function clientBytes(
    connection: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void {
    const client = traffic.clients[connection];
    if (client === undefined || client.closed || client.ending !== "") return;
    traffic.currentTime = now;
    client.intakeAt = now;
    if (WITH_NATIVE_PORT && client.native) {
      takeFrames(traffic, client, bytes, start, end, now);
      return;
    }
    if (WITH_REDIS_PORT) {
      if (!client.parser!.feed(bytes, start, end)) {
        closeClient(traffic, client, "it went on sending while it was not read from", true);
        return;
      }
      takeIntake(traffic, client, now);
    }
  }

  function clientDrained(connection: number, now: number): void {
    const client = traffic.clients[connection];
    if (client !== undefined) lookAtChoked(traffic, client, now);
  }

  function clientClosed(connection: number, now: number): void {
    const client = traffic.clients[connection];
    if (client === undefined) return;
    forget(traffic, client);
    traffic.clients[connection] = undefined;
    if (traffic.hold.count > 0) pumpHeld(traffic, 4, now);
    if (traffic.line.length > 0) callLine(traffic, now);
    if (traffic.draining) lookAtDrain(traffic);
  }

  // ---------------------------------------------------------------- time and numbers

  function setReported(
    server: ServerIndex,
    loadPermille: number,
    braking: boolean,
    serviceUsReported: number,
  ): void {
    traffic.reportedUs[server] = serviceUsReported;
    traffic.target.setReported(server, loadPermille, braking);
  }

  function tick(now: number): number {
    const hold = traffic.hold;
    traffic.currentTime = now;
    for (let server = 0; server < 2; server++) {
      if (traffic.sendingRows[server].length > 0) pumpFragments(traffic, server, now);
    }
    for (let i = traffic.chokedClients.length - 1; i >= 0; i--) {
      if (i < traffic.chokedClients.length) lookAtChoked(traffic, traffic.chokedClients[i], now);
    }
    if (hold.count > 0) {
      let client = hold.first;
      while (client !== undefined) {
        const after: ClientSession | undefined = client.heldAfter;
        expire(traffic, client, now);
        client = after !== undefined && after.held ? after : undefined;
      }
      pumpHeld(traffic, ALL_TURNS, now);
    }
    if (traffic.draining) lookAtDrain(traffic);
    if (traffic.line.length > 0) callLine(traffic, now);
    if (traffic.sendingRows[0].length > 0 || traffic.sendingRows[1].length > 0) return now + 1;
    if (hold.count > 0 && (traffic.refusedUntil[0] > now || traffic.refusedUntil[1] > now)) {
      return now + REFUSED_PAUSE_MS;
    }
    if (hold.count > 0 || traffic.chokedClients.length > 0 || traffic.line.length > 0) {
      return now + LOOK_MS;
    }
    return now + 1000;
  }

  function isIdle(): boolean {
    return (
      traffic.hold.count +
        traffic.chokedClients.length +
        traffic.line.length +
        traffic.sendingRows[0].length +
        traffic.sendingRows[1].length ===
        0 && !traffic.draining
    );
  }

  function inFlight(server: ServerIndex): number {
    return traffic.inFlightAt[server];
  }

  function openCount(): number {
    return traffic.inFlightAt[0] + traffic.inFlightAt[1];
  }

  function serviceUs(server: ServerIndex): number {
    return traffic.target.serviceUs(server);
  }

  function counters(): ForwardCounters {
    const count = traffic.count;
    count.held = traffic.hold.commands;
    count.heldBytes = traffic.hold.bytes;
    count.memoryBytes =
      traffic.readBytes.total() +
      traffic.writeBytes.total() +
      traffic.intakeTotal +
      traffic.keptReplyBytes +
      traffic.stashBytes;
    return count;
  }

  return {
    setRoute: setRoute,
    setSession: setSession,
    linkUp: linkUp,
    linkDown: linkDown,
    linkDrained: linkDrained,
    onReply: onReply,
    onReplyEpoch: onReplyEpoch,
    clientOpen: clientOpen,
    clientBytes: clientBytes,
    clientDrained: clientDrained,
    clientClosed: clientClosed,
    setReported: setReported,
    tick: tick,
    isIdle: isIdle,
    inFlight: inFlight,
    serviceUs: serviceUs,
    openCount: openCount,
    counters: counters,
  };
}
