/**
 * The link between the two servers: the one with the greater id dials, for ever; the other accepts.
 *
 *     hello, challenge, proof ──> state both ways ──> session (session.ts) ──> append, confirm, copy, forward
 *
 * One connection counts: the newest that has proved it holds the pair's key. All else of the protocol
 * is told to `PeerEvents`; this file knows connections, proofs, silence and heartbeats.
 */
import {
  FLAG_MORE,
  FRAME_APPEND,
  FRAME_CONFIRM,
  FRAME_CONTROL,
  FRAME_COPY,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
  WIRE_VERSION,
  WIRE_VERSION_MIN,
  frameOf,
  readU48,
  writeHeader,
  writeU48,
} from "../../protocol/frame.js";
import { FrameDecoder, HANDSHAKE_PAYLOAD_BYTES_MAX } from "../../protocol/frame-decoder.js";
import {
  acceptorProof,
  agreePayloadMax,
  chooseWire,
  dialerProof,
  proofsEqual,
  speaksWire,
} from "../../protocol/handshake.js";
import { isMalformed } from "../../protocol/malformed.js";
import {
  KIND_CHALLENGE,
  KIND_HELLO,
  KIND_PEER_HEARTBEAT,
  KIND_PROOF,
  KIND_REFUSE,
  NONCE_BYTES,
  REFUSE_KEY,
  REFUSE_MALFORMED,
  REFUSE_STOPPED,
  REFUSE_UNKNOWN_ID,
  REFUSE_VERSION,
  ROLE_PEER,
  SESSION_ID_BYTES,
  UNKNOWN_KIND,
  decodeControl,
  encodeControl,
} from "../../protocol/messages.js";
import type { Challenge, ControlMessage, Hello, PeerHeartbeat } from "../../protocol/messages.js";
import type { AgentConfig } from "./config.js";
import type { AgentPorts } from "./ports.js";
import type { Roles } from "./roles.js";
import { Said } from "./said.js";

/** Connections whose proof is not done. */
const GREETING_MAX = 4;
const FRAME_BYTES_MAX = HEADER_BYTES + PAYLOAD_BYTES_MAX;

export interface PeerEvents {
  /** A new connection counts; everything of the former one is void. */
  onPeerUp(nowMs: number): void;
  onPeerDown(nowMs: number): void;
  onMessage(message: ControlMessage, more: boolean, nowMs: number): void;
  onAppend(
    epoch: number,
    more: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
    nowMs: number,
  ): void;
  onConfirm(epoch: number, index: number, nowMs: number): void;
  onCopy(
    epoch: number,
    more: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
    nowMs: number,
  ): void;
  peerHeartbeat(): PeerHeartbeat;
}

interface PeerConnection {
  connection: number;
  accepted: boolean;
  proved: boolean;
  greeted: boolean;
  nonceD: Uint8Array;
  nonceL: Uint8Array;
  decoder: FrameDecoder;
  openedMs: number;
}

/** A frame on its way into `ports.send`, which takes what it needs of it at once. */
const frame = new Uint8Array(FRAME_BYTES_MAX);

export class PeerLink {
  private current: PeerConnection | undefined;
  private readonly greeting: PeerConnection[] = [];
  private readonly dials: boolean;
  private dialing = false;
  private dialMs = 0;
  private pauseMs: number;
  private heardMs = -Infinity;
  private saidMs = 0;
  private nowMs = 0;
  /** Steps that must be on disk before more input is looked at. */
  private parks = 0;
  private refusedText = "";
  private readonly said = new Said();

  constructor(
    private readonly config: AgentConfig,
    private readonly ports: AgentPorts,
    private readonly roles: Roles,
    private readonly events: PeerEvents,
  ) {
    this.dials = config.id > config.peerId;
    this.pauseMs = config.limits.redialMinMs;
  }

  owns(connection: number): boolean {
    return this.find(connection) !== undefined;
  }

  /** Connected, proved, and heard of lately. */
  isUp(nowMs: number): boolean {
    return this.current !== undefined && nowMs - this.heardMs <= this.config.limits.peerSilentMs;
  }

  connected(): boolean {
    return this.current !== undefined;
  }

  refused(): string {
    return this.refusedText;
  }

  private find(connection: number): PeerConnection | undefined {
    if (this.current !== undefined && this.current.connection === connection) return this.current;
    return this.greeting.find((one) => one.connection === connection);
  }

  onOpen(connection: number, accepted: boolean, nowMs: number): void {
    this.nowMs = nowMs;
    if (!accepted) this.dialing = false;
    if (this.greeting.length >= GREETING_MAX) {
      this.ports.close(connection, "too many connections are being opened");
      return;
    }
    const one: PeerConnection = {
      connection,
      accepted,
      proved: false,
      greeted: false,
      nonceD: accepted ? new Uint8Array(NONCE_BYTES) : this.ports.random(NONCE_BYTES),
      nonceL: accepted ? this.ports.random(NONCE_BYTES) : new Uint8Array(NONCE_BYTES),
      decoder: new FrameDecoder(
        (type, flags, id, bytes, start, end) =>
          this.onFrame(one, type, flags, id, bytes, start, end),
        HANDSHAKE_PAYLOAD_BYTES_MAX,
        // While a record is written the primary goes on until its window is full.
        2 * this.config.limits.streamWindowBytes + this.config.limits.entryBytesMax,
      ),
      openedMs: nowMs,
    };
    this.greeting.push(one);
    if (!accepted) {
      this.control(one, {
        kind: KIND_HELLO,
        wireMin: WIRE_VERSION_MIN,
        wireMax: WIRE_VERSION,
        role: ROLE_PEER,
        id: this.config.id,
        nonce: one.nonceD,
        frameMax: FRAME_BYTES_MAX,
        windowBytes: this.config.limits.streamWindowBytes,
      });
    }
  }

  onDialFailed(nowMs: number): void {
    this.dialing = false;
    this.later(nowMs);
  }

  private later(nowMs: number): void {
    this.dialMs = nowMs + this.pauseMs;
    this.pauseMs = Math.min(this.pauseMs * 2, this.config.limits.redialMaxMs);
  }

  onBytes(connection: number, bytes: Uint8Array, start: number, end: number, nowMs: number): void {
    this.nowMs = nowMs;
    const one = this.find(connection);
    if (one === undefined) return;
    if (one === this.current) this.heardMs = nowMs;
    const fault = one.decoder.feed(bytes, start, end);
    if (fault !== "") this.close(one, fault);
  }

  onClosed(connection: number, nowMs: number): void {
    this.nowMs = nowMs;
    const one = this.find(connection);
    if (one !== undefined) this.forget(one);
  }

  private onFrame(
    one: PeerConnection,
    type: number,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    if (!one.proved) {
      this.onGreeting(one, type, bytes, start, end);
      return;
    }
    const more = (flags & FLAG_MORE) !== 0;
    switch (type) {
      case FRAME_APPEND:
        this.events.onAppend(id, more, bytes, start, end, this.nowMs);
        break;
      case FRAME_CONFIRM:
        if (end - start !== 6) this.fault("confirm of " + (end - start) + " bytes");
        else this.events.onConfirm(id, readU48(bytes, start), this.nowMs);
        break;
      case FRAME_COPY:
        this.events.onCopy(id, more, bytes, start, end, this.nowMs);
        break;
      case FRAME_CONTROL: {
        const message = decodeControl(bytes, start, end);
        if (isMalformed(message)) {
          if (message.malformed !== UNKNOWN_KIND) this.fault(message.malformed);
        } else if (message.kind === KIND_REFUSE) {
          this.onRefused(one, message.text);
        } else {
          this.events.onMessage(message, more, this.nowMs);
        }
        break;
      }
      default:
        this.fault("frame of type " + type);
    }
  }

  private onGreeting(
    one: PeerConnection,
    type: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    const message = type === FRAME_CONTROL ? decodeControl(bytes, start, end) : undefined;
    if (message === undefined || isMalformed(message)) {
      this.close(one, "no handshake: frame of type " + type);
      return;
    }
    if (message.kind === KIND_REFUSE) this.onRefused(one, message.text);
    else if (one.accepted && !one.greeted && message.kind === KIND_HELLO)
      this.onHello(one, message);
    else if (one.accepted && one.greeted && message.kind === KIND_PROOF) {
      this.onProof(one, message.proof);
    } else if (!one.accepted && message.kind === KIND_CHALLENGE) this.onChallenge(one, message);
    else this.close(one, "handshake out of order");
  }

  private onHello(one: PeerConnection, hello: Hello): void {
    if (this.roles.stopped !== "") {
      this.refuse(one, REFUSE_STOPPED, "this server has stopped: " + this.roles.stopped);
    } else if (hello.role !== ROLE_PEER || hello.id !== this.config.peerId) {
      this.refuse(one, REFUSE_UNKNOWN_ID, "expected the peer " + this.config.peerId);
    } else if (chooseWire(hello.wireMin, hello.wireMax) === 0) {
      this.refuse(one, REFUSE_VERSION, "no common wire version");
    } else if (agreePayloadMax(FRAME_BYTES_MAX, hello.frameMax) !== PAYLOAD_BYTES_MAX) {
      this.refuse(
        one,
        REFUSE_MALFORMED,
        "frames between servers are " + FRAME_BYTES_MAX + " bytes",
      );
    } else {
      one.greeted = true;
      one.nonceD = hello.nonce;
      this.control(one, {
        kind: KIND_CHALLENGE,
        wire: chooseWire(hello.wireMin, hello.wireMax),
        nonce: one.nonceL,
        proof: acceptorProof(
          this.ports.hmac,
          this.config.key,
          ROLE_PEER,
          hello.id,
          hello.nonce,
          one.nonceL,
        ),
        frameMax: FRAME_BYTES_MAX,
        windowBytes: this.config.limits.streamWindowBytes,
        sessionId: new Uint8Array(SESSION_ID_BYTES),
      });
    }
  }

  private onChallenge(one: PeerConnection, challenge: Challenge): void {
    const { hmac } = this.ports;
    const { key, id } = this.config;
    const expected = acceptorProof(hmac, key, ROLE_PEER, id, one.nonceD, challenge.nonce);
    if (!speaksWire(challenge.wire)) {
      this.close(one, "the peer wants wire version " + challenge.wire);
    } else if (!proofsEqual(expected, challenge.proof)) {
      this.close(one, "the peer does not hold the pair's key");
    } else {
      const proof = dialerProof(hmac, key, ROLE_PEER, id, one.nonceD, challenge.nonce);
      this.control(one, { kind: KIND_PROOF, proof });
      this.prove(one);
    }
  }

  private onProof(one: PeerConnection, proof: Uint8Array): void {
    const { hmac } = this.ports;
    const { key, peerId } = this.config;
    const expected = dialerProof(hmac, key, ROLE_PEER, peerId, one.nonceD, one.nonceL);
    if (!proofsEqual(expected, proof)) {
      this.refuse(one, REFUSE_KEY, "that is not the pair's key");
      return;
    }
    this.prove(one);
  }

  /** From here on this connection counts, and no other (rule 6). */
  private prove(one: PeerConnection): void {
    this.greeting.splice(this.greeting.indexOf(one), 1);
    const former = this.current;
    if (former !== undefined) this.close(former, "a newer connection of the peer");
    one.proved = true;
    one.decoder.setPayloadMax(PAYLOAD_BYTES_MAX);
    this.current = one;
    this.heardMs = this.nowMs;
    this.saidMs = this.nowMs;
    this.refusedText = "";
    if (this.parks > 0) one.decoder.park();
    this.ports.note("info", "peer-link-up");
    this.events.onPeerUp(this.nowMs);
  }

  private refuse(one: PeerConnection, code: number, text: string): void {
    if (this.said.now("refused " + text, this.nowMs)) {
      this.ports.note("error", "peer-refused", { text });
    }
    this.control(one, { kind: KIND_REFUSE, code, text });
    this.close(one, text);
  }

  private onRefused(one: PeerConnection, text: string): void {
    if (text !== this.refusedText) {
      this.refusedText = text;
      this.ports.note("error", "refused-by-peer", { text });
    }
    this.pauseMs = this.config.limits.redialMaxMs;
    this.close(one, "refused: " + text);
  }

  // --- output -------------------------------------------------------------------------------------

  private control(one: PeerConnection, message: ControlMessage): void {
    const frame = frameOf(FRAME_CONTROL, 0, 0, encodeControl(message));
    this.ports.send(one.connection, frame, 0, frame.length);
  }

  send(message: ControlMessage): void {
    if (this.current !== undefined) this.control(this.current, message);
  }

  /** A control message of which more follows in the next one. */
  sendPart(message: ControlMessage): void {
    if (this.current === undefined) return;
    const frame = frameOf(FRAME_CONTROL, FLAG_MORE, 0, encodeControl(message));
    this.ports.send(this.current.connection, frame, 0, frame.length);
  }

  /** Sends bytes in as many frames as they need. */
  sendBytes(type: number, epoch: number, bytes: Uint8Array): void {
    const { current } = this;
    if (current === undefined) return;
    let at = 0;
    do {
      const left = bytes.length - at;
      const count = left < PAYLOAD_BYTES_MAX ? left : PAYLOAD_BYTES_MAX;
      const flags = count < left ? FLAG_MORE : 0;
      writeHeader(frame, 0, type, flags, count, epoch);
      frame.set(bytes.subarray(at, at + count), HEADER_BYTES);
      this.ports.send(current.connection, frame, 0, HEADER_BYTES + count);
      at += count;
    } while (at < bytes.length);
  }

  /** Bytes taken for the peer that the network has not taken yet. */
  backlog(): number {
    return this.current === undefined ? 0 : this.ports.backlog(this.current.connection);
  }

  sendConfirm(epoch: number, index: number): void {
    const { current } = this;
    if (current === undefined) return;
    writeHeader(frame, 0, FRAME_CONFIRM, 0, 6, epoch);
    writeU48(frame, HEADER_BYTES, index);
    this.ports.send(current.connection, frame, 0, HEADER_BYTES + 6);
  }

  // --- closing, parking, time ---------------------------------------------------------------------

  /** The peer broke the protocol, or a session must be begun anew: the connection goes. */
  fault(reason: string): void {
    if (this.current !== undefined) this.close(this.current, reason);
  }

  private close(one: PeerConnection, reason: string): void {
    if (this.said.now(reason, this.nowMs)) {
      this.ports.note("warn", "peer-link-dropped", { reason });
    }
    this.forget(one);
    this.ports.close(one.connection, reason);
  }

  private forget(one: PeerConnection): void {
    one.decoder.close();
    if (one === this.current) {
      this.current = undefined;
      this.heardMs = -Infinity;
      this.later(this.nowMs);
      this.events.onPeerDown(this.nowMs);
      return;
    }
    const at = this.greeting.indexOf(one);
    if (at >= 0) this.greeting.splice(at, 1);
    if (!one.accepted) this.later(this.nowMs);
  }

  park(): void {
    this.parks++;
    this.current?.decoder.park();
  }

  resume(nowMs: number): void {
    this.nowMs = nowMs;
    this.parks--;
    const { current } = this;
    if (current === undefined || this.parks > 0) return;
    const fault = current.decoder.resume();
    if (fault !== "" && this.current === current) this.close(current, fault);
  }

  tick(nowMs: number): number {
    this.nowMs = nowMs;
    const { limits } = this.config;
    for (const one of this.greeting.slice()) {
      if (nowMs - one.openedMs >= limits.handshakeMs)
        this.close(one, "the handshake takes too long");
    }
    if (this.current !== undefined && nowMs - this.heardMs >= limits.peerDeadMs) {
      this.close(this.current, "the peer is silent");
    }
    if (this.current !== undefined) {
      // One that is opened and dropped again and again is not dialled at once each time.
      if (nowMs - this.current.openedMs >= limits.handshakeMs) this.pauseMs = limits.redialMinMs;
      if (nowMs - this.saidMs >= limits.peerHeartbeatMs) {
        this.saidMs = nowMs;
        this.send({ ...this.events.peerHeartbeat(), kind: KIND_PEER_HEARTBEAT });
      }
      return this.saidMs + limits.peerHeartbeatMs;
    }
    if (!this.dials || this.dialing || this.greeting.some((one) => !one.accepted)) {
      return nowMs + limits.handshakeMs;
    }
    if (this.roles.stopped !== "") return nowMs + limits.redialMaxMs;
    if (nowMs < this.dialMs) return this.dialMs;
    this.dialing = true;
    this.ports.dial("peer");
    return nowMs + limits.handshakeMs;
  }
}
