/**
 * The client's core: what to send, what an answer means, and what becomes of commands when the
 * connection is lost. No clock, socket, promise or randomness: events go in, actions come out.
 *
 *     submit, onConnected, onBytes, onClosed, tick  ─>  core  ─>  poll() until it gives undefined
 *
 * A connection's life:
 *
 *     waiting ── tick ──> dialing ── onConnected ──> proving ── challenge is right ──> open
 *        ^                   │                          │                               │
 *        └──── onClosed, silence, malformed bytes ──────┴───────────────────────────────┘
 *                                                       └── refused (key, version): the end
 *
 * When it is lost: reads and numbered writes are asked again on the next one, in their order; a write
 * without a number that was sent is "unknown"; what was never sent just waits.
 */
import { FrameDecoder, HANDSHAKE_PAYLOAD_BYTES_MAX } from "../protocol/frame-decoder.js";
import {
  CLASS_QUERY,
  FLAG_CLASS_MASK,
  FLAG_MORE,
  FLAG_SESSION,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_CONTROL,
  FRAME_CREDIT,
  FRAME_EPOCH,
  FRAME_REPLY,
  HEADER_BYTES,
  ID_MAX,
  OUTCOME_ANSWER,
  OUTCOME_MASK,
  OUTCOME_REFUSED,
  OUTCOME_UNKNOWN,
  SESSION_PREFIX_BYTES,
  WIRE_VERSION,
  WIRE_VERSION_MIN,
  writeHeader,
  writeU32,
} from "../protocol/frame.js";
import {
  acceptorProof,
  agreePayloadMax,
  dialerProof,
  proofsEqual,
  speaksWire,
} from "../protocol/handshake.js";
import type { Hmac } from "../protocol/handshake.js";
import { assert, isMalformed } from "../protocol/malformed.js";
import {
  decodeControl,
  encodeControl,
  KIND_CHALLENGE,
  KIND_GOODBYE,
  KIND_HELLO,
  KIND_PROOF,
  KIND_REFUSE,
  REFUSE_KEY,
  REFUSE_PAIR,
  REFUSE_UNKNOWN_ID,
  REFUSE_VERSION,
  ROLE_CLIENT,
} from "../protocol/messages.js";
import type { ControlMessage } from "../protocol/messages.js";
import { decodeReply, isReplyError, ReplyScanner } from "../protocol/resp-reply.js";
import type { ReplyValue } from "../protocol/resp-reply.js";
import { makeSink, putBytes, reserve } from "../protocol/resp.js";
import type { ClientLimits } from "./limits.js";
import type { SessionNumbers } from "./session.js";

export interface Request {
  /** The command as a RESP array (with FLAG_TXN: several). */
  payload: Uint8Array;
  /** Class, and FLAG_TXN; the core adds the rest. */
  flags: number;
  /** Asking it twice does no harm (reads do not need it). */
  repeatable: boolean;
  /** Exactly once: the write gets a number of this session. */
  session: SessionNumbers | undefined;
}

export type Outcome =
  | { kind: "reply"; value: ReplyValue }
  | { kind: "notDone" | "unknown" | "noAnswer"; reason: string };

export type Action<Token> =
  | { kind: "connect" }
  /** What was sent before goes out first. The core expects no onClosed for this connection. */
  | { kind: "close"; reason: string }
  | { kind: "send"; bytes: Uint8Array }
  | { kind: "settle"; token: Token; outcome: Outcome }
  | { kind: "up" }
  | { kind: "down"; reason: string }
  /** The controller is not the right one, or does not take us: nothing more will be sent. */
  | { kind: "refused"; reason: string };

export interface CoreOptions {
  /** The pair's client key; empty when none is configured. */
  key: Uint8Array;
  hmac: Hmac;
  /** Shown to the controller; may be "". */
  name: string;
  limits: ClientLimits;
  /** Where in the pause between attempts this client dials, 0..1: chosen at random, so that not all dial at once. */
  spread: number;
}

interface Entry<Token> {
  token: Token;
  request: Request;
  number: number;
  deadlineMs: number;
  /** Connections it was sent on. */
  attempts: number;
  sentMs: number;
  /** The caller has been told already; only the place in the stream is kept. */
  abandoned: boolean;
  reply: Uint8Array | undefined;
  replyLength: number;
}

const STATE_WAITING = 0;
const STATE_DIALING = 1;
const STATE_PROVING = 2;
const STATE_OPEN = 3;
const STATE_ENDED = 4;

export class ClientCore<Token> {
  private readonly options: CoreOptions;
  private readonly limits: ClientLimits;
  private state = STATE_WAITING;
  private readonly actions: Action<Token>[] = [];
  private nextAction = 0;
  private readonly out = makeSink(4096);
  private decoder: FrameDecoder | undefined;
  private nonceD = new Uint8Array(0);
  private payloadMax = HANDSHAKE_PAYLOAD_BYTES_MAX;
  private windowBytes = 0;
  private failures = 0;
  private dialAtMs = 0;
  private handshakeByMs = 0;
  private heardMs = 0;
  private nowMs = 0;
  private ended = "";
  /** Not sent on this connection, in order; `waitingHead` is where it begins. */
  private waiting: Entry<Token>[] = [];
  private waitingHead = 0;
  private waitingBytes = 0;
  /** Sent on this connection and unanswered, in order, by frame id. */
  private readonly sent = new Map<number, Entry<Token>>();
  private sentBytes = 0;
  private lastId = 0;
  private fault = "";
  private scanner = new ReplyScanner();

  constructor(options: CoreOptions) {
    this.options = options;
    this.limits = options.limits;
  }

  /** Commands neither answered nor given up. */
  pending(): number {
    return this.waiting.length - this.waitingHead + this.sent.size;
  }

  isOpen(): boolean {
    return this.state === STATE_OPEN;
  }

  /** Takes a command; exactly one `settle` will follow for its token. */
  submit(request: Request, token: Token, nowMs: number): void {
    this.nowMs = nowMs;
    if (this.state === STATE_ENDED) {
      this.settle(token, { kind: "notDone", reason: this.ended });
      return;
    }
    const { limits } = this;
    const size = request.payload.length;
    if (
      this.waiting.length - this.waitingHead >= limits.queuedMax ||
      this.waitingBytes + size > limits.queuedBytesMax
    ) {
      this.settle(token, { kind: "notDone", reason: "BUSY client: too many commands are waiting" });
      return;
    }
    let number = 0;
    if (request.session !== undefined && (request.flags & FLAG_CLASS_MASK) !== CLASS_QUERY) {
      number = request.session.take();
      if (number === 0) {
        this.settle(token, { kind: "notDone", reason: "the session's numbers are used up" });
        return;
      }
    }
    this.waiting.push({
      token,
      request,
      number,
      deadlineMs: nowMs + limits.commandMs,
      attempts: 0,
      sentMs: 0,
      abandoned: false,
      reply: undefined,
      replyLength: 0,
    });
    this.waitingBytes += size;
    this.pump();
  }

  /** The connection asked for is there. @param nonce 16 bytes from a secure random source */
  onConnected(nonce: Uint8Array, nowMs: number): void {
    assert(this.state === STATE_DIALING, "connected while dialing");
    this.nowMs = nowMs;
    this.state = STATE_PROVING;
    this.nonceD = nonce.slice();
    this.payloadMax = HANDSHAKE_PAYLOAD_BYTES_MAX;
    this.fault = "";
    this.scanner = new ReplyScanner();
    this.decoder = new FrameDecoder(
      (type, flags, id, bytes, start, end) => this.onFrame(type, flags, id, bytes, start, end),
      HANDSHAKE_PAYLOAD_BYTES_MAX,
      0,
    );
    this.sendControl({
      kind: KIND_HELLO,
      wireMin: WIRE_VERSION_MIN,
      wireMax: WIRE_VERSION,
      role: ROLE_CLIENT,
      id: this.options.name,
      nonce: this.nonceD,
      frameMax: this.limits.frameBytesMax,
      windowBytes: this.limits.replyBytesMax,
    });
  }

  /** Bytes of the connection; the buffer may be used again afterwards. */
  onBytes(bytes: Uint8Array, start: number, end: number, nowMs: number): void {
    const { decoder } = this;
    if (decoder === undefined) return;
    this.nowMs = nowMs;
    this.heardMs = nowMs;
    const fault = decoder.feed(bytes, start, end);
    if (decoder !== this.decoder) return;
    if (fault !== "") this.lose(fault, true);
    else if (this.fault !== "") this.lose(this.fault, true);
    else this.pump();
  }

  /** The connection is gone, or could not be made, without the core having asked for it. */
  onClosed(reason: string, nowMs: number): void {
    this.nowMs = nowMs;
    if (this.state === STATE_ENDED || this.state === STATE_WAITING) return;
    this.lose(reason, false);
  }

  /** @returns when it wants to be called again, on the same clock; Infinity when nothing is due */
  tick(nowMs: number): number {
    this.nowMs = nowMs;
    if (this.state === STATE_ENDED) return Infinity;
    this.expire();
    if (this.state === STATE_WAITING && nowMs >= this.dialAtMs) {
      this.state = STATE_DIALING;
      this.handshakeByMs = nowMs + this.limits.handshakeMs;
      this.actions.push({ kind: "connect" });
    } else if (
      (this.state === STATE_DIALING || this.state === STATE_PROVING) &&
      nowMs >= this.handshakeByMs
    ) {
      this.lose("no handshake within " + this.limits.handshakeMs + " ms", true);
    } else if (this.state === STATE_OPEN && nowMs >= this.silentAtMs()) {
      this.lose("nothing heard for " + this.limits.silenceMs + " ms", true);
    }
    this.pump();
    return this.nextDeadlineMs();
  }

  /** The next thing to do; undefined when there is nothing more for now. */
  poll(): Action<Token> | undefined {
    if (this.nextAction < this.actions.length) {
      const action = this.actions[this.nextAction]!;
      // Bytes already written go out before the connection is closed.
      if (action.kind === "close" && this.out.length > 0) return this.takeOutput();
      this.nextAction++;
      return action;
    }
    this.actions.length = 0;
    this.nextAction = 0;
    return this.out.length > 0 ? this.takeOutput() : undefined;
  }

  /** Ends the client. Writes that were sent become unknown, all else is surely not done. */
  close(reason: string, nowMs: number): void {
    this.nowMs = nowMs;
    if (this.state === STATE_ENDED) return;
    if (this.state === STATE_OPEN) this.sendControl({ kind: KIND_GOODBYE, text: reason });
    this.end(reason);
  }

  private takeOutput(): Action<Token> {
    const bytes = this.out.bytes.slice(0, this.out.length);
    this.out.length = 0;
    return { kind: "send", bytes };
  }

  private settle(token: Token, outcome: Outcome): void {
    this.actions.push({ kind: "settle", token, outcome });
  }

  private isQuery(entry: Entry<Token>): boolean {
    return (entry.request.flags & FLAG_CLASS_MASK) === CLASS_QUERY;
  }

  private finish(entry: Entry<Token>, outcome: Outcome): void {
    if (entry.abandoned) return;
    if (entry.number !== 0) entry.request.session!.answered(entry.number);
    this.settle(entry.token, outcome);
  }

  /** What a command that is given up must be called. */
  private failure(entry: Entry<Token>, reason: string): Outcome {
    if (entry.attempts === 0) return { kind: "notDone", reason };
    return { kind: this.isQuery(entry) ? "noAnswer" : "unknown", reason };
  }

  private sendControl(message: ControlMessage): void {
    const payload = encodeControl(message);
    this.putHeader(FRAME_CONTROL, 0, payload.length, 0);
    putBytes(this.out, payload, 0, payload.length);
  }

  private putHeader(type: number, flags: number, length: number, id: number): void {
    reserve(this.out, HEADER_BYTES);
    writeHeader(this.out.bytes, this.out.length, type, flags, length, id);
    this.out.length += HEADER_BYTES;
  }

  /** Sends what may be sent: in order, within the controller's window and the sessions' windows. */
  private pump(): void {
    if (this.state !== STATE_OPEN) return;
    while (this.waitingHead < this.waiting.length && this.sent.size < this.limits.inFlightMax) {
      const entry = this.waiting[this.waitingHead]!;
      const { session, payload } = entry.request;
      if (this.sent.size > 0 && this.sentBytes + payload.length > this.windowBytes) break;
      if (entry.number !== 0 && !session!.mayAsk(entry.number)) break;
      this.takeWaiting();
      this.send(entry);
    }
  }

  private takeWaiting(): void {
    this.waitingBytes -= this.waiting[this.waitingHead]!.request.payload.length;
    this.waitingHead++;
    if (this.waitingHead === this.waiting.length) {
      this.waiting.length = 0;
      this.waitingHead = 0;
    } else if (this.waitingHead >= 1024 && this.waitingHead * 2 > this.waiting.length) {
      this.waiting.splice(0, this.waitingHead);
      this.waitingHead = 0;
    }
  }

  private send(entry: Entry<Token>): void {
    const { out, payloadMax } = this;
    const { payload, session } = entry.request;
    const id = this.nextId();
    let flags = entry.request.flags;
    let prefix = 0;
    if (entry.number !== 0) {
      flags |= FLAG_SESSION;
      prefix = SESSION_PREFIX_BYTES;
    }
    let at = 0;
    do {
      const room = payloadMax - prefix;
      const taken = payload.length - at > room ? room : payload.length - at;
      const more = at + taken < payload.length;
      this.putHeader(FRAME_COMMAND, more ? flags | FLAG_MORE : flags, prefix + taken, id);
      if (prefix > 0) {
        reserve(out, prefix);
        session!.writePrefix(out.bytes, out.length, entry.number);
        out.length += prefix;
        prefix = 0;
      }
      putBytes(out, payload, at, at + taken);
      at += taken;
    } while (at < payload.length);
    entry.attempts++;
    entry.sentMs = this.nowMs;
    this.sent.set(id, entry);
    this.sentBytes += payload.length;
  }

  private nextId(): number {
    do this.lastId = this.lastId >= ID_MAX ? 1 : this.lastId + 1;
    while (this.sent.has(this.lastId));
    return this.lastId;
  }

  private onFrame(
    type: number,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    if (type === FRAME_CONTROL) this.onControl(bytes, start, end);
    else if (this.state !== STATE_OPEN) this.drop("a frame before the handshake");
    else if (type === FRAME_REPLY) this.onReply(flags, id, bytes, start, end);
    else if (type !== FRAME_EPOCH && type !== FRAME_CREDIT) this.drop("a frame of type " + type);
    // Epochs and credit concern those who forward.
  }

  /** The rest of the stream is not believed; the connection is given up once the decoder has returned. */
  private drop(reason: string): void {
    if (this.fault === "") this.fault = reason;
    this.decoder!.close();
  }

  private onControl(bytes: Uint8Array, start: number, end: number): void {
    const message = decodeControl(bytes, start, end);
    if (isMalformed(message)) {
      if (this.state !== STATE_OPEN) this.drop(message.malformed);
      return;
    }
    if (message.kind === KIND_REFUSE) {
      const lasting =
        message.code === REFUSE_KEY ||
        message.code === REFUSE_VERSION ||
        message.code === REFUSE_PAIR ||
        message.code === REFUSE_UNKNOWN_ID;
      if (lasting) this.refused("the controller refused this client: " + message.text);
      else this.drop("refused: " + message.text);
    } else if (message.kind === KIND_GOODBYE) {
      this.drop("the controller said goodbye: " + message.text);
    } else if (this.state === STATE_PROVING) {
      if (message.kind === KIND_CHALLENGE) this.onChallenge(message);
      else this.drop("no challenge");
    }
  }

  private onChallenge(challenge: ControlMessage & { kind: typeof KIND_CHALLENGE }): void {
    const { hmac, key, name } = this.options;
    const { nonce } = challenge;
    if (!speaksWire(challenge.wire)) {
      this.refused("the controller speaks wire version " + challenge.wire);
      return;
    }
    const expected = acceptorProof(hmac, key, ROLE_CLIENT, name, this.nonceD, nonce);
    if (!proofsEqual(expected, challenge.proof)) {
      this.refused("the controller does not hold this client's key");
      return;
    }
    const payloadMax = agreePayloadMax(this.limits.frameBytesMax, challenge.frameMax);
    if (payloadMax === 0) {
      this.drop("frames of " + challenge.frameMax + " bytes are too small");
      return;
    }
    const proof = dialerProof(hmac, key, ROLE_CLIENT, name, this.nonceD, nonce);
    this.sendControl({ kind: KIND_PROOF, proof });
    this.payloadMax = payloadMax;
    this.windowBytes = challenge.windowBytes;
    this.decoder!.setPayloadMax(payloadMax);
    this.state = STATE_OPEN;
    this.failures = 0;
    this.heardMs = this.nowMs;
    this.actions.push({ kind: "up" });
    // Commands go out when onBytes is done with this chunk.
  }

  private onReply(flags: number, id: number, bytes: Uint8Array, start: number, end: number): void {
    const entry = this.sent.get(id);
    if (entry === undefined) {
      this.drop("a reply to a command that was not asked");
      return;
    }
    const more = (flags & FLAG_MORE) !== 0;
    if (more) {
      this.keepPart(entry, id, bytes, start, end);
      return;
    }
    this.sent.delete(id);
    this.sentBytes -= entry.request.payload.length;
    if (entry.abandoned) return;
    const outcome = flags & OUTCOME_MASK;
    if (outcome === OUTCOME_ANSWER) {
      if (entry.reply === undefined) this.answer(entry, bytes, start, end);
      else if (this.appendPart(entry, id, bytes, start, end)) {
        this.answer(entry, entry.reply, 0, entry.replyLength);
      }
    } else if (outcome === OUTCOME_REFUSED) {
      this.notDone(entry, latin1(bytes, start + 1, end));
    } else if (outcome === OUTCOME_UNKNOWN) {
      const kind = this.isQuery(entry) ? "noAnswer" : "unknown";
      this.finish(entry, { kind, reason: latin1(bytes, start, end) });
    } else {
      this.finish(entry, this.failure(entry, "reply with outcome " + outcome));
      this.drop("reply with outcome " + outcome);
    }
  }

  private keepPart(
    entry: Entry<Token>,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    if (entry.abandoned || !this.appendPart(entry, id, bytes, start, end)) return;
    // What was taken makes room for as much again.
    this.putHeader(FRAME_CREDIT, 0, 4, id);
    reserve(this.out, 4);
    writeU32(this.out.bytes, this.out.length, end - start);
    this.out.length += 4;
  }

  private appendPart(
    entry: Entry<Token>,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): boolean {
    const total = entry.replyLength + end - start;
    if (total > this.limits.replyBytesMax) {
      const reason = "reply longer than " + this.limits.replyBytesMax + " bytes";
      this.finish(entry, this.failure(entry, reason));
      entry.abandoned = true;
      entry.reply = undefined;
      this.putHeader(FRAME_ABORT, 0, 0, id);
      return false;
    }
    if (entry.reply === undefined || entry.reply.length < total) {
      let size = entry.reply === undefined ? 16_384 : entry.reply.length;
      while (size < total) size *= 2;
      const grown = new Uint8Array(size);
      if (entry.reply !== undefined) grown.set(entry.reply.subarray(0, entry.replyLength));
      entry.reply = grown;
    }
    entry.reply.set(bytes.subarray(start, end), entry.replyLength);
    entry.replyLength = total;
    return true;
  }

  private answer(entry: Entry<Token>, bytes: Uint8Array, start: number, end: number): void {
    const { scanner } = this;
    if (scanner.scan(bytes, start, end) !== end) {
      const reason = scanner.problem === "" ? "not one whole reply" : scanner.problem;
      this.finish(entry, this.failure(entry, reason));
      this.drop(reason);
      return;
    }
    const value = decodeReply(bytes, start, end);
    if (isReplyError(value)) {
      if (value.error.startsWith("OUTCOMEUNKNOWN")) {
        this.finish(entry, { kind: "unknown", reason: value.error });
        return;
      }
      if (value.error.startsWith("CLUSTERDOWN") || value.error.startsWith("BUSY dyad")) {
        this.notDone(entry, value.error);
        return;
      }
    }
    this.finish(entry, { kind: "reply", value });
  }

  /** Refused this time. A write that was sent on an earlier connection too may have been done from there. */
  private notDone(entry: Entry<Token>, reason: string): void {
    const unsure = entry.attempts > 1 && !this.isQuery(entry) && !entry.request.repeatable;
    if (unsure) {
      this.finish(entry, {
        kind: "unknown",
        reason: "asked again after the connection was lost, and refused: " + reason,
      });
    } else {
      this.finish(entry, { kind: "notDone", reason });
    }
  }

  /** This controller and this client will not come together: there is nothing to wait for. */
  private refused(reason: string): void {
    // It believed no command of this connection, so none of them was done on it.
    for (const entry of this.sent.values()) entry.attempts--;
    this.actions.push({ kind: "refused", reason });
    this.decoder!.close();
    this.end(reason);
  }

  private end(reason: string): void {
    const connected = this.state !== STATE_WAITING;
    this.state = STATE_ENDED;
    this.ended = reason;
    this.decoder = undefined;
    for (const entry of this.sent.values()) this.finish(entry, this.failure(entry, reason));
    this.sent.clear();
    this.sentBytes = 0;
    for (let i = this.waitingHead; i < this.waiting.length; i++) {
      this.finish(this.waiting[i]!, this.failure(this.waiting[i]!, reason));
    }
    this.waiting = [];
    this.waitingHead = 0;
    this.waitingBytes = 0;
    if (connected) this.actions.push({ kind: "close", reason });
  }

  private lose(reason: string, ours: boolean): void {
    const wasOpen = this.state === STATE_OPEN;
    this.decoder = undefined;
    this.fault = "";
    this.out.length = 0;
    const again: Entry<Token>[] = [];
    for (const entry of this.sent.values()) {
      entry.reply = undefined;
      entry.replyLength = 0;
      if (entry.abandoned) continue;
      if (this.isQuery(entry) || entry.number !== 0 || entry.request.repeatable) again.push(entry);
      else this.finish(entry, this.failure(entry, reason));
    }
    this.sent.clear();
    this.sentBytes = 0;
    if (again.length > 0) {
      for (const entry of again) this.waitingBytes += entry.request.payload.length;
      for (let i = this.waitingHead; i < this.waiting.length; i++) again.push(this.waiting[i]!);
      this.waiting = again;
      this.waitingHead = 0;
    }
    if (ours) this.actions.push({ kind: "close", reason });
    if (wasOpen) this.actions.push({ kind: "down", reason });
    const { backoffFirstMs, backoffMaxMs } = this.limits;
    const pauseMs = Math.min(backoffMaxMs, backoffFirstMs * 2 ** Math.min(this.failures, 20));
    this.failures++;
    this.dialAtMs = this.nowMs + pauseMs * (0.5 + this.options.spread / 2);
    this.state = STATE_WAITING;
  }

  /** Gives up what has waited too long; commands are in order of their deadlines. */
  private expire(): void {
    const { nowMs } = this;
    const reason = "no answer within " + this.limits.commandMs + " ms";
    for (const [id, entry] of this.sent) {
      if (entry.abandoned) continue;
      if (entry.deadlineMs > nowMs) break;
      this.finish(entry, this.failure(entry, reason));
      entry.abandoned = true;
      entry.reply = undefined;
      if (this.isQuery(entry)) this.putHeader(FRAME_ABORT, 0, 0, id);
    }
    while (this.waitingHead < this.waiting.length) {
      const entry = this.waiting[this.waitingHead]!;
      if (entry.deadlineMs > nowMs) break;
      this.takeWaiting();
      this.finish(entry, this.failure(entry, reason));
    }
  }

  private silentAtMs(): number {
    for (const entry of this.sent.values()) {
      const since = entry.sentMs > this.heardMs ? entry.sentMs : this.heardMs;
      return since + this.limits.silenceMs;
    }
    return Infinity;
  }

  private nextDeadlineMs(): number {
    let next = Infinity;
    if (this.state === STATE_WAITING) next = this.dialAtMs;
    else if (this.state === STATE_OPEN) next = this.silentAtMs();
    else next = this.handshakeByMs;
    for (const entry of this.sent.values()) {
      if (entry.abandoned) continue;
      if (entry.deadlineMs < next) next = entry.deadlineMs;
      break;
    }
    const first = this.waiting[this.waitingHead];
    return first !== undefined && first.deadlineMs < next ? first.deadlineMs : next;
  }
}

function latin1(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let at = start; at < end; at++) text += String.fromCharCode(bytes[at]!);
  return text;
}
