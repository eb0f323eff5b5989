/**
 * The servers' links: the controller accepts, proves itself, has the server prove itself, hears its
 * report, and from then on takes replies and words from it and sends records and epochs to it.
 *
 *     connect ─> hello ─> (challenge) ─> proof ─> report ─> up ─────> dropped
 *                  └────────┴──────────────┴────────┴── refused, loudly, or too slow
 *
 * Each opening is a new connection: when it takes the place of an older one, all that was left of that is
 * gone before the server's report counts (rule 6). A second server with the id of one that is alive is
 * refused instead.
 */
import { assert } from "./assert.js";
import type { CoreConfig } from "./config.js";
import type { NonceSource } from "./nonce.js";
import type { ControllerPorts } from "./ports.js";
import { LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN } from "./trace.js";
import { FrameDecoder, HANDSHAKE_PAYLOAD_BYTES_MAX } from "../../protocol/frame-decoder.js";
import {
  FRAME_CONTROL,
  FRAME_EPOCH,
  FRAME_REPLY,
  HEADER_BYTES,
  WIRE_VERSION,
  WIRE_VERSION_MIN,
  frameOf,
} from "../../protocol/frame.js";
import {
  acceptorProof,
  agreePayloadMax,
  chooseWire,
  dialerProof,
  linkNonceOf,
  proofsEqual,
} from "../../protocol/handshake.js";
import { isMalformed } from "../../protocol/malformed.js";
import {
  KIND_ANNOUNCE,
  KIND_ASK,
  KIND_CHALLENGE,
  KIND_GOODBYE,
  KIND_HELLO,
  KIND_PASSED,
  KIND_PROOF,
  KIND_RECORD,
  KIND_REFUSE,
  KIND_REPORT,
  REFUSE_DUPLICATE,
  REFUSE_FULL,
  REFUSE_KEY,
  REFUSE_MALFORMED,
  REFUSE_PAIR,
  REFUSE_UNKNOWN_ID,
  REFUSE_VERSION,
  ROLE_SERVER,
  UNKNOWN_KIND,
  decodeControl,
  encodeControl,
} from "../../protocol/messages.js";
import type { ControlMessage, Heartbeat, Hello } from "../../protocol/messages.js";
import { bytesEqual } from "../../protocol/record.js";
import type { RoleRecord, ServerIndex } from "../../protocol/record.js";

const STAGE_HELLO = 0;
const STAGE_PROOF = 1;
const STAGE_REPORT = 2;
const STAGE_UP = 3;
const STAGE_DROPPED = 4;

interface Link {
  connection: number;
  stage: number;
  openedAt: number;
  server: ServerIndex;
  hello: Hello | undefined;
  nonce: Uint8Array;
  /** The session its challenge named. */
  offered: Uint8Array;
  /** @unit bytes */
  payloadMax: number;
  decoder: FrameDecoder | undefined;
}

/** What the root is told. It may drop links from inside any of these. */
export interface LinkEvents {
  /** @returns the session to offer to a server that dials with this nonce */
  sessionFor(nonce: Uint8Array): Uint8Array;
  /** A server has proven itself with this nonce; its session is taken. */
  onProven(nonce: Uint8Array, now: number): void;
  /** The server of this id answers polls under its present link. */
  isAlive(server: ServerIndex, now: number): boolean;
  /** First word on a proven link. @returns "" to go on, or why the server belongs to another pair */
  onReport(
    server: ServerIndex,
    linkNonce: Uint8Array,
    report: Heartbeat,
    frameMax: number,
    windowBytes: number,
    now: number,
  ): string;
  onAnnounce(server: ServerIndex, now: number): void;
  onAsk(server: ServerIndex, now: number): void;
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
  /** Bytes have come from a proven server. */
  onLife(server: ServerIndex, now: number): void;
  /** A link that had reported is gone. @param ours this end dropped it, so its closing says nothing of the server */
  onLost(server: ServerIndex, why: string, ours: boolean, now: number): void;
  note(level: number, event: string, text: string, now: number): void;
}

export interface ServerLinks {
  open(connection: number, now: number): void;
  bytes(connection: number, bytes: Uint8Array, start: number, end: number, now: number): void;
  closed(connection: number, now: number): void;
  /** Refuses connections that have not reported in time. @returns the next such deadline */
  tick(now: number): number;
  /** The connection of a server that has reported, or -1. */
  connectionOf(server: ServerIndex): number;
  sendRecord(server: ServerIndex, record: RoleRecord, fresh: boolean, forced: boolean): void;
  sendEpoch(server: ServerIndex, epoch: number): void;
  sendPassed(server: ServerIndex, epoch: number): void;
  /** Drops a server's link. @param code REFUSE_*, or 0 for no word of refusal */
  drop(server: ServerIndex, code: number, why: string, abort: boolean, now: number): void;
  /** Frames that were no replies, and links ended, since the start. */
  stirred(): number;
  /** Nothing more is taken from this server's link; it is about to be dropped. */
  mute(server: ServerIndex): void;
}

export function createServerLinks(
  config: CoreConfig,
  ports: ControllerPorts,
  nonces: NonceSource,
  events: LinkEvents,
): ServerLinks {
  const links: Link[] = [];
  /** The link each server has proven, reported or not. */
  const proven: (Link | undefined)[] = [undefined, undefined];
  const quietUntil: number[] = [];
  let clock = 0;
  let stirs = 0;

  function find(connection: number): Link | undefined {
    for (let i = 0; i < links.length; i++) {
      if (links[i].connection === connection) return links[i];
    }
    return undefined;
  }

  function sendControl(link: Link, message: ControlMessage): void {
    const frame = frameOf(FRAME_CONTROL, 0, 0, encodeControl(message));
    ports.send(link.connection, frame, 0, frame.length);
  }

  /** Ends a link: with a word of refusal if there is a code, and with the root told if it was up. */
  function end(link: Link, code: number, why: string, abort: boolean, now: number): void {
    if (link.stage === STAGE_DROPPED) return;
    const was = link.stage;
    link.stage = STAGE_DROPPED;
    stirs++;
    if (link.decoder !== undefined) link.decoder.close();
    if (proven[link.server] === link) proven[link.server] = undefined;
    if (code !== 0 && !abort) sendControl(link, { kind: KIND_REFUSE, code: code, text: why });
    ports.close(link.connection, why, abort);
    if (was === STAGE_UP) events.onLost(link.server, why, true, now);
  }

  /** The peer's mistake, or a stranger: said on the console, but one kind only every so often. */
  function refuse(link: Link, code: number, why: string, now: number): void {
    const who = link.hello === undefined ? "a connection" : '"' + link.hello.id + '"';
    const quiet = quietUntil[code];
    if (quiet === undefined || now >= quiet) {
      quietUntil[code] = now + config.timings.refusalQuietMs;
      events.note(LEVEL_WARN, "refused", who + ": " + why, now);
    }
    end(link, code, why, false, now);
  }

  function onHello(link: Link, hello: Hello, now: number): void {
    link.hello = hello;
    const wire = chooseWire(hello.wireMin, hello.wireMax);
    if (wire === 0) {
      refuse(
        link,
        REFUSE_VERSION,
        "speaks wire versions " +
          hello.wireMin +
          "-" +
          hello.wireMax +
          ", this controller speaks " +
          WIRE_VERSION_MIN +
          "-" +
          WIRE_VERSION,
        now,
      );
      return;
    }
    if (hello.role !== ROLE_SERVER) {
      refuse(link, REFUSE_MALFORMED, "this port is for the pair's servers", now);
      return;
    }
    if (hello.id !== config.servers[0].id && hello.id !== config.servers[1].id) {
      refuse(link, REFUSE_UNKNOWN_ID, "no server of that id is configured", now);
      return;
    }
    link.server = hello.id === config.servers[0].id ? 0 : 1;
    link.payloadMax = agreePayloadMax(config.frameMax, hello.frameMax);
    if (link.payloadMax === 0) {
      refuse(link, REFUSE_MALFORMED, "frames of " + hello.frameMax + " bytes are too small", now);
      return;
    }
    link.nonce = nonces.answerTo(hello.nonce, now);
    link.offered = events.sessionFor(hello.nonce);
    link.stage = STAGE_PROOF;
    sendControl(link, {
      kind: KIND_CHALLENGE,
      wire: wire,
      nonce: link.nonce,
      proof: acceptorProof(ports.hmac, config.key, hello.role, hello.id, hello.nonce, link.nonce),
      frameMax: config.frameMax,
      windowBytes: config.limits.replyWindowBytes,
      sessionId: link.offered,
    });
  }

  function onProof(link: Link, proof: Uint8Array, now: number): void {
    const hello = link.hello!;
    const right = dialerProof(
      ports.hmac,
      config.key,
      hello.role,
      hello.id,
      hello.nonce,
      link.nonce,
    );
    if (!proofsEqual(right, proof)) {
      refuse(link, REFUSE_KEY, "does not hold this pair's key", now);
      return;
    }
    if (!bytesEqual(link.offered, events.sessionFor(hello.nonce))) {
      // Another server was the first of this boot meanwhile, and its nonce names the session.
      events.note(LEVEL_DEBUG, "dial again", hello.id + ": the session has changed", now);
      end(link, 0, "the session has changed, dial again", false, now);
      return;
    }
    const older = proven[link.server];
    if (older !== undefined) {
      if (older.stage === STAGE_UP && events.isAlive(link.server, now)) {
        refuse(link, REFUSE_DUPLICATE, "a server of that id is connected and alive", now);
        return;
      }
      end(older, 0, "a newer connection has taken its place", true, now);
    }
    events.onProven(hello.nonce, now);
    proven[link.server] = link;
    link.stage = STAGE_REPORT;
    link.decoder!.setPayloadMax(link.payloadMax);
  }

  function onReport(link: Link, report: Heartbeat, now: number): void {
    const hello = link.hello!;
    if (report.serverId !== hello.id) {
      refuse(link, REFUSE_MALFORMED, "reports as " + report.serverId, now);
      return;
    }
    link.stage = STAGE_UP;
    const foreign = events.onReport(
      link.server,
      linkNonceOf(hello.nonce),
      report,
      link.payloadMax + HEADER_BYTES,
      hello.windowBytes,
      now,
    );
    if (foreign !== "") {
      link.stage = STAGE_REPORT;
      refuse(link, REFUSE_PAIR, foreign, now);
    }
  }

  function onControl(link: Link, message: ControlMessage, now: number): void {
    if (message.kind === KIND_REFUSE || message.kind === KIND_GOODBYE) {
      // Its own closing follows, and is judged as one.
      events.note(LEVEL_INFO, "server said goodbye", message.text, now);
    } else if (link.stage === STAGE_HELLO && message.kind === KIND_HELLO) {
      onHello(link, message, now);
    } else if (link.stage === STAGE_PROOF && message.kind === KIND_PROOF) {
      onProof(link, message.proof, now);
    } else if (link.stage === STAGE_REPORT && message.kind === KIND_REPORT) {
      onReport(link, message.heartbeat, now);
    } else if (link.stage === STAGE_UP && message.kind === KIND_ANNOUNCE) {
      if (message.id === link.hello!.id) events.onAnnounce(link.server, now);
      else refuse(link, REFUSE_MALFORMED, "announces " + message.id, now);
    } else if (link.stage === STAGE_UP && message.kind === KIND_ASK) {
      events.onAsk(link.server, now);
    } else {
      refuse(link, REFUSE_MALFORMED, "sent a message out of turn", now);
    }
  }

  function decoderOf(link: Link): FrameDecoder {
    return new FrameDecoder(
      function onFrame(type, flags, id, bytes, start, end): void {
        if (link.stage === STAGE_UP && type === FRAME_REPLY) {
          events.onReply(link.server, flags, id, bytes, start, end, clock);
          return;
        }
        stirs++;
        if (type === FRAME_CONTROL) {
          const message = decodeControl(bytes, start, end);
          if (!isMalformed(message)) onControl(link, message, clock);
          else if (message.malformed !== UNKNOWN_KIND || link.stage !== STAGE_UP) {
            refuse(link, REFUSE_MALFORMED, message.malformed, clock);
          }
          return;
        }
        if (link.stage === STAGE_UP && type === FRAME_EPOCH) {
          events.onReplyEpoch(link.server, id, clock);
          return;
        }
        refuse(link, REFUSE_MALFORMED, "sent a frame of type " + type + " out of turn", clock);
      },
      HANDSHAKE_PAYLOAD_BYTES_MAX,
      0,
    );
  }

  /** Makes room by refusing the oldest connection that has not proven itself. */
  function makeRoom(now: number): void {
    let waiting = 0;
    let oldest: Link | undefined = undefined;
    for (let i = 0; i < links.length; i++) {
      if (links[i].stage > STAGE_PROOF) continue;
      waiting++;
      if (oldest === undefined) oldest = links[i];
    }
    if (waiting >= config.limits.pendingLinksMax && oldest !== undefined) {
      refuse(oldest, REFUSE_FULL, "too many connections wait for their handshake", now);
    }
  }

  function open(connection: number, now: number): void {
    assert(find(connection) === undefined, "a connection opens once");
    makeRoom(now);
    const link: Link = {
      connection: connection,
      stage: STAGE_HELLO,
      openedAt: now,
      server: 0,
      hello: undefined,
      nonce: config.key,
      offered: config.key,
      payloadMax: 0,
      decoder: undefined,
    };
    link.decoder = decoderOf(link);
    links.push(link);
  }

  function bytes(
    connection: number,
    chunk: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void {
    const link = find(connection);
    if (link === undefined || link.stage === STAGE_DROPPED) return;
    clock = now;
    if (link.stage >= STAGE_REPORT) events.onLife(link.server, now);
    const fault = link.decoder!.feed(chunk, start, end);
    if (fault !== "") {
      const version = link.stage === STAGE_HELLO && fault.indexOf("wire version") >= 0;
      refuse(link, version ? REFUSE_VERSION : REFUSE_MALFORMED, fault, now);
    }
  }

  function closed(connection: number, now: number): void {
    for (let i = 0; i < links.length; i++) {
      const link = links[i];
      if (link.connection !== connection) continue;
      const was = link.stage;
      links.splice(i, 1);
      if (was === STAGE_DROPPED) return;
      link.stage = STAGE_DROPPED;
      link.decoder!.close();
      if (proven[link.server] === link) proven[link.server] = undefined;
      if (was === STAGE_UP) events.onLost(link.server, "the server's link closed", false, now);
      return;
    }
  }

  function tick(now: number): number {
    let next = Infinity;
    for (let i = 0; i < links.length; i++) {
      const link = links[i];
      if (
        link.stage === STAGE_UP &&
        ports.backlog(link.connection) > config.limits.linkBacklogMax
      ) {
        end(link, 0, "it does not read what it is sent", true, now);
      }
      if (link.stage >= STAGE_UP) continue;
      const at = link.openedAt + config.timings.handshakeMs;
      if (now >= at) refuse(link, REFUSE_MALFORMED, "its handshake took too long", now);
      else if (at < next) next = at;
    }
    return next;
  }

  function upOf(server: ServerIndex): Link | undefined {
    const link = proven[server];
    return link !== undefined && link.stage === STAGE_UP ? link : undefined;
  }

  function connectionOf(server: ServerIndex): number {
    const link = upOf(server);
    return link === undefined ? -1 : link.connection;
  }

  function sendRecord(
    server: ServerIndex,
    record: RoleRecord,
    fresh: boolean,
    forced: boolean,
  ): void {
    const link = upOf(server);
    if (link === undefined) return;
    sendControl(link, { kind: KIND_RECORD, record: record, fresh: fresh, forced: forced });
  }

  function sendEpoch(server: ServerIndex, epoch: number): void {
    const link = upOf(server);
    if (link === undefined) return;
    const frame = frameOf(FRAME_EPOCH, 0, epoch, new Uint8Array(0));
    ports.send(link.connection, frame, 0, frame.length);
  }

  function sendPassed(server: ServerIndex, epoch: number): void {
    const link = upOf(server);
    if (link !== undefined) sendControl(link, { kind: KIND_PASSED, epoch: epoch });
  }

  function drop(server: ServerIndex, code: number, why: string, abort: boolean, now: number): void {
    const link = proven[server];
    if (link !== undefined) end(link, code, why, abort, now);
  }

  function mute(server: ServerIndex): void {
    const link = proven[server];
    if (link !== undefined) link.decoder!.close();
  }

  function stirred(): number {
    return stirs;
  }

  return {
    open: open,
    bytes: bytes,
    closed: closed,
    tick: tick,
    connectionOf: connectionOf,
    sendRecord: sendRecord,
    sendEpoch: sendEpoch,
    sendPassed: sendPassed,
    drop: drop,
    mute: mute,
    stirred: stirred,
  };
}
