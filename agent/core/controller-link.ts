/**
 * The one link to the controller: this server dials it, for ever, and proves that it holds the pair's key.
 *
 *     down ──dial──> dialing ──open──> greeting ──challenge──> up ──close, fault, silence──> down
 *
 * Everything on it is in order, so an epoch frame holds for all that follows: commands are run only in
 * exactly this server's own durable epoch (G2). While a record is being put on disk the input waits.
 */
import {
  CLASS_QUERY,
  FLAG_CLASS_MASK,
  FLAG_MORE,
  FLAG_ORDERED,
  FLAG_SESSION,
  FLAG_TXN,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_CONTROL,
  FRAME_CREDIT,
  FRAME_EPOCH,
  FRAME_PACK,
  HEADER_BYTES,
  OUTCOME_ANSWER,
  OUTCOME_REFUSED,
  OUTCOME_UNKNOWN,
  PAYLOAD_BYTES_MAX,
  SESSION_PREFIX_BYTES,
  WIRE_VERSION,
  WIRE_VERSION_MIN,
  frameOf,
  readU32,
} from "../../protocol/frame.js";
import { FrameDecoder, HANDSHAKE_PAYLOAD_BYTES_MAX } from "../../protocol/frame-decoder.js";
import {
  acceptorProof,
  agreePayloadMax,
  dialerProof,
  linkNonceOf,
  proofsEqual,
  speaksWire,
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
  NONCE_BYTES,
  ROLE_SERVER,
  UNKNOWN_KIND,
  decodeControl,
  encodeControl,
} from "../../protocol/messages.js";
import type {
  Challenge,
  ControlMessage,
  Heartbeat,
  RecordMessage,
} from "../../protocol/messages.js";
import { bytesEqual } from "../../protocol/record.js";
import { PARSED_COMMAND, RespParser, makeSink, putText, writeError } from "../../protocol/resp.js";
import type { RespLimits } from "../../protocol/resp.js";
import type { AgentConfig } from "./config.js";
import type { CommandView, Executor } from "./execution.js";
import type { Jobs } from "./jobs.js";
import { Packs } from "./packs.js";
import type { AgentPorts } from "./ports.js";
import { ReleaseQueue } from "./release.js";
import type { OpenReply } from "./release.js";
import type { Roles } from "./roles.js";
import { Said } from "./said.js";
import type { CommandRunner } from "./run-command.js";
import { RAN_DONE, RAN_JOB, RAN_PAST_DUE, prefixBelow, prefixNumber } from "./run-command.js";
import { SESSION_CLIENT, SESSION_CONTROLLER, sessionKey } from "./session-table.js";

/** First byte of a REFUSED reply's payload; text follows. None of these commands was done. */
export const REFUSED_EPOCH = 1;
export const REFUSED_ROLE = 2;
export const REFUSED_CLASS = 3;
export const REFUSED_BUSY = 4;

const NO_CONNECTION = -1;
const NO_NONCE = new Uint8Array(8);

type Phase = "down" | "dialing" | "greeting" | "up";

interface Fragments {
  flags: number;
  parts: Uint8Array[];
  bytes: number;
}

/** What the link asks of the agent. */
export interface ControllerEvents {
  onRecord(message: RecordMessage, nowMs: number): void;
  onPassed(epoch: number, nowMs: number): void;
  heartbeat(nowMs: number): Heartbeat;
  /** Reads may be answered here as the standby. */
  readsInSession(): boolean;
  /** A standby's read met a key past due: the primary is asked, and `open` resolved when its entry came back. */
  forwardRead(command: Uint8Array, open: OpenReply, release: ReleaseQueue, nowMs: number): boolean;
  logEnd(): number;
}

/** Limits of the parser of one command as it comes in a frame. */
export function commandLimits(commandBytesMax: number, valueBytesMax: number): RespLimits {
  return {
    argsMax: 1024 * 1024,
    bulkBytesMax: valueBytesMax,
    commandBytesMax,
    inlineBytesMax: 65536,
    keptBytesMax: commandBytesMax,
  };
}

interface Postponed {
  readonly open: OpenReply;
  readonly flags: number;
  readonly command: Uint8Array;
}

export class ControllerLink {
  readonly release: ReleaseQueue;
  /** Commands answered so far, for people. */
  commands = 0;
  private phase: Phase = "down";
  private connection = NO_CONNECTION;
  private decoder: FrameDecoder | undefined;
  private nonce: Uint8Array = NO_NONCE;
  /** Commands and reply bytes of this turn; `paused` when they were enough, until the next turn. */
  private turnCommands = 0;
  private turnReplyBytes = 0;
  private paused = false;
  private turnEnded = false;
  private sessionId: Uint8Array = NO_NONCE;
  private sessionText = "";
  /** Epoch of the commands that come, by position; 0: none told yet. */
  private streamEpoch = 0;
  private readonly fragments = new Map<number, Fragments>();
  private fragmentBytes = 0;
  private pauseMs: number;
  private dialMs = 0;
  private openedMs = 0;
  private heardMs = 0;
  private strangeSinceMs = -1;
  /** A poll has named this link. */
  private known = false;
  /** Polls have come while this link was up: when they end, so has the controller. */
  private polled = false;
  private nowMs = 0;
  private parser: RespParser;
  private readonly reasonSink = makeSink(256);
  private refusedBefore = "";
  private readonly said = new Said();
  /** Reads that found a key past due: the primary is asked for their place in the log. Oldest first. */
  private readonly asked: OpenReply[] = [];
  /** ORDERED reads behind one of those, oldest first, and the bytes of their commands. */
  private readonly postponed: Postponed[] = [];
  private postponedBytes = 0;
  /** The held reply of the postponed read that is being run. */
  private resuming: OpenReply | undefined = undefined;
  /** Commands that come as a client sent them, and the answers to those. */
  private readonly packs: Packs;

  constructor(
    private readonly config: AgentConfig,
    private readonly ports: AgentPorts,
    private readonly roles: Roles,
    private readonly runner: CommandRunner,
    private readonly executor: Executor,
    private readonly jobs: Jobs,
    private readonly events: ControllerEvents,
  ) {
    this.pauseMs = config.limits.redialMinMs;
    this.packs = new Packs((bytes, start, end) => {
      if (this.phase === "up") this.ports.send(this.connection, bytes, start, end);
    });
    this.release = new ReleaseQueue(config.limits, (bytes, start, end) => {
      this.packs.send(bytes, start, end);
    });
    this.parser = this.makeParser();
  }

  private makeParser(): RespParser {
    const { commandBytesMax, valueBytesMax } = this.config.limits;
    return new RespParser(commandLimits(commandBytesMax, valueBytesMax));
  }

  isUp(): boolean {
    return this.phase === "up";
  }

  owns(connection: number): boolean {
    return connection === this.connection && this.phase !== "down" && this.phase !== "dialing";
  }

  /** Names the link in heartbeats; zero when there is none. */
  linkNonce(): Uint8Array {
    return this.phase === "up" ? linkNonceOf(this.nonce) : NO_NONCE;
  }

  // --- opening ------------------------------------------------------------------------------------

  onOpen(connection: number, nowMs: number): void {
    // Rule 6: a new connection discards everything of the old one.
    if (this.connection !== NO_CONNECTION) this.drop("a newer connection", nowMs);
    this.connection = connection;
    this.phase = "greeting";
    this.openedMs = nowMs;
    this.heardMs = nowMs;
    this.strangeSinceMs = -1;
    this.known = false;
    this.polled = false;
    this.nonce = this.ports.random(NONCE_BYTES);
    this.streamEpoch = 0;
    this.decoder = new FrameDecoder(
      this.onFrame,
      HANDSHAKE_PAYLOAD_BYTES_MAX,
      this.config.limits.windowBytes + HEADER_BYTES + PAYLOAD_BYTES_MAX,
    );
    this.sendControl({
      kind: KIND_HELLO,
      wireMin: WIRE_VERSION_MIN,
      wireMax: WIRE_VERSION,
      role: ROLE_SERVER,
      id: this.config.id,
      nonce: this.nonce,
      frameMax: HEADER_BYTES + PAYLOAD_BYTES_MAX,
      windowBytes: this.config.limits.windowBytes,
    });
  }

  onDialFailed(nowMs: number): void {
    this.phase = "down";
    this.later(nowMs);
  }

  private later(nowMs: number): void {
    this.dialMs = nowMs + this.pauseMs;
    this.pauseMs = Math.min(this.pauseMs * 2, this.config.limits.redialMaxMs);
  }

  private onChallenge(challenge: Challenge): void {
    const { key, id } = this.config;
    const { hmac } = this.ports;
    if (!speaksWire(challenge.wire)) {
      this.fault("the controller wants wire version " + challenge.wire);
      return;
    }
    const expected = acceptorProof(hmac, key, ROLE_SERVER, id, this.nonce, challenge.nonce);
    if (!proofsEqual(expected, challenge.proof)) {
      this.fault("the controller does not hold the pair's key");
      return;
    }
    if (this.roles.adopting !== undefined) {
      // Rule 6: what came over the old connection is over before this server reports on a new one.
      this.drop("a record of the former connection is being put on disk", this.nowMs);
      return;
    }
    const payloadMax = agreePayloadMax(HEADER_BYTES + PAYLOAD_BYTES_MAX, challenge.frameMax);
    if (payloadMax === 0) {
      this.fault("the controller's frames are too small: " + challenge.frameMax);
      return;
    }
    this.sendControl({
      kind: KIND_PROOF,
      proof: dialerProof(hmac, key, ROLE_SERVER, id, this.nonce, challenge.nonce),
    });
    this.decoder!.setPayloadMax(payloadMax);
    this.sessionId = challenge.sessionId;
    this.sessionText = sessionKey(challenge.sessionId, 0);
    this.release.clear();
    this.forgetPostponed();
    this.packs.clear();
    this.packs.payloadMax = payloadMax;
    this.release.payloadMax = payloadMax;
    this.release.replyWindow =
      challenge.windowBytes > 0 ? challenge.windowBytes : this.config.limits.replyWindowBytes;
    this.phase = "up";
    this.refusedBefore = "";
    const heartbeat = this.events.heartbeat(this.nowMs);
    this.sendControl({ kind: KIND_REPORT, heartbeat });
    if (this.config.preset) {
      this.sendControl({ kind: KIND_ANNOUNCE, id: this.config.id, uptimeMs: heartbeat.uptimeMs });
    }
    if (this.roles.epoch() > 0) this.release.tellEpoch(this.roles.epoch());
    this.ports.note("info", "controller-link-up");
  }

  // --- input --------------------------------------------------------------------------------------

  onBytes(bytes: Uint8Array, start: number, end: number, nowMs: number): void {
    this.nowMs = nowMs;
    this.heardMs = nowMs;
    const fault = this.decoder!.feed(bytes, start, end);
    if (fault !== "") this.drop(fault, nowMs);
  }

  onClosed(nowMs: number): void {
    this.forget(nowMs);
    this.ports.note("info", "controller-link-down");
  }

  private readonly onFrame = (
    type: number,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void => {
    if (this.phase !== "up") {
      this.onGreeting(type, bytes, start, end);
      return;
    }
    switch (type) {
      case FRAME_COMMAND:
        if ((flags & FLAG_MORE) !== 0 || (this.fragments.size > 0 && this.fragments.has(id))) {
          this.onFragment(flags, id, bytes, start, end);
        } else {
          this.onCommand(flags, id, bytes, start, end);
        }
        break;
      case FRAME_PACK:
        this.onPack(flags, id, bytes, start, end);
        break;
      case FRAME_EPOCH:
        this.streamEpoch = id;
        break;
      case FRAME_CREDIT:
        if (end - start !== 4) this.fault("credit of " + (end - start) + " bytes");
        else this.release.credit(id, readU32(bytes, start));
        break;
      case FRAME_ABORT:
        this.forgetFragments(id);
        this.packs.forget(id);
        this.release.abort(id);
        break;
      case FRAME_CONTROL:
        this.onControl(bytes, start, end);
        break;
      default:
        this.fault("frame of type " + type);
    }
  };

  private onGreeting(type: number, bytes: Uint8Array, start: number, end: number): void {
    const message = type === FRAME_CONTROL ? decodeControl(bytes, start, end) : undefined;
    if (message === undefined || isMalformed(message)) {
      this.fault("no challenge: " + (message === undefined ? "frame " + type : message.malformed));
      return;
    }
    if ((message as ControlMessage).kind === KIND_CHALLENGE) {
      this.onChallenge(message as Challenge);
      return;
    }
    if ((message as ControlMessage).kind === KIND_REFUSE) {
      this.onRefused((message as { text: string }).text);
      return;
    }
    this.fault("no challenge");
  }

  private onRefused(text: string): void {
    // Said once: it is repeated with every attempt.
    if (text !== this.refusedBefore) {
      this.refusedBefore = text;
      this.ports.note("error", "refused-by-controller", { text });
    }
    this.pauseMs = this.config.limits.redialMaxMs;
    this.drop("refused: " + text, this.nowMs);
  }

  /** Why the controller does not let this server in; "" when it does. */
  refused(): string {
    return this.refusedBefore;
  }

  private onControl(bytes: Uint8Array, start: number, end: number): void {
    const message = decodeControl(bytes, start, end);
    if (isMalformed(message)) {
      if (message.malformed !== UNKNOWN_KIND) this.fault(message.malformed);
      return;
    }
    switch (message.kind) {
      case KIND_RECORD:
        this.events.onRecord(message, this.nowMs);
        break;
      case KIND_PASSED:
        this.events.onPassed(message.epoch, this.nowMs);
        break;
      case KIND_REFUSE:
        this.onRefused(message.text);
        break;
      case KIND_GOODBYE:
        this.ports.note("info", "controller-goodbye", { text: message.text });
        break;
      default:
        this.fault("unexpected message on the controller link");
    }
  }

  /** A record is being put on disk: what comes next waits for it. */
  park(): void {
    this.decoder?.park();
  }

  /**
   * A turn has done what one turn may: what was left goes on in the next, after polls and the peer have had
   * theirs. Without this a read of 100 values of 1 MB keeps the heartbeat waiting for longer than a failure.
   */
  endTurn(): void {
    this.turnCommands = 0;
    this.turnReplyBytes = 0;
    this.turnEnded = true;
  }

  /** @returns true when input waits that may go on */
  private goOn(nowMs: number): boolean {
    if (!this.paused || this.roles.adopting !== undefined) return false;
    if (!this.turnEnded) return true;
    this.resume(nowMs);
    return this.paused;
  }

  private countTurn(replyBytes: number): void {
    const { limits } = this.config;
    this.turnCommands += 1;
    this.turnReplyBytes += replyBytes;
    if (
      this.turnCommands < limits.turnCommandsMax &&
      this.turnReplyBytes < limits.turnReplyBytesMax
    ) {
      return;
    }
    this.paused = true;
    this.turnEnded = false;
    this.decoder?.park();
  }

  /** Nobody waits for what was asked up to here: the role is lost, or this server has stopped. */
  dropReplies(): void {
    this.release.drop();
    this.forgetPostponed();
    this.packs.forgetAll();
  }

  /** The record holds. Pending replies of a server that still leads are answered in the new epoch. */
  adopted(stillLeads: boolean, nowMs: number): void {
    if (!stillLeads) this.dropReplies();
    if (this.phase === "up") this.release.tellEpoch(this.roles.epoch());
    this.resume(nowMs);
  }

  resume(nowMs: number): void {
    this.paused = false;
    const { decoder } = this;
    if (decoder === undefined) return;
    this.nowMs = nowMs;
    // The rest of a pack came before all that the decoder holds, which is nothing when the link is dropped meanwhile.
    if (!this.runPack()) return;
    const fault = decoder.resume();
    if (fault !== "") this.drop(fault, nowMs);
  }

  // --- commands -----------------------------------------------------------------------------------

  private onFragment(
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    let held = this.fragments.get(id);
    if (held === undefined) {
      held = { flags, parts: [], bytes: 0 };
      this.fragments.set(id, held);
    }
    held.parts.push(bytes.slice(start, end));
    held.bytes += end - start;
    this.fragmentBytes += end - start;
    if (this.fragmentBytes > this.config.limits.windowBytes) {
      this.fault("more than the window of " + this.config.limits.windowBytes + " bytes");
      return;
    }
    if ((flags & FLAG_MORE) !== 0) return;
    this.forgetFragments(id);
    const whole = new Uint8Array(held.bytes);
    let at = 0;
    for (const part of held.parts) {
      whole.set(part, at);
      at += part.length;
    }
    // ORDERED may be set on the last fragment only: that is when the command takes its place.
    this.onCommand(held.flags | (flags & FLAG_ORDERED), id, whole, 0, whole.length);
  }

  private forgetFragments(id: number): void {
    const held = this.fragments.get(id);
    if (held === undefined) return;
    this.fragmentBytes -= held.bytes;
    this.fragments.delete(id);
  }

  private onPack(flags: number, id: number, bytes: Uint8Array, start: number, end: number): void {
    const wrong = this.packs.take(flags, id, bytes, start, end);
    if (wrong !== "") this.fault(wrong);
    else this.runPack();
  }

  /** Runs the pack's commands. @returns false when a rest waits for the next turn; a link that is lost leaves none */
  private runPack(): boolean {
    const { packs, release } = this;
    while (packs.next()) {
      this.onCommand(packs.flags, packs.id, packs.bytes, packs.start, packs.end);
      packs.ran(release.gatheredId === packs.id);
      if (this.paused) {
        packs.keep();
        return false;
      }
    }
    return true;
  }

  private onCommand(
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    const { roles, release } = this;
    const ordered = (flags & FLAG_ORDERED) !== 0;
    const isQuery = (flags & FLAG_CLASS_MASK) === CLASS_QUERY;
    this.commands++;
    if (this.streamEpoch !== roles.epoch() || this.streamEpoch === 0) {
      this.refuse(id, ordered, REFUSED_EPOCH, "this server is in epoch " + roles.epoch());
      return;
    }
    const { duties } = roles;
    if (
      isQuery && (flags & FLAG_TXN) === 0
        ? duties.reads === "never" ||
          (duties.reads === "in session" && !this.events.readsInSession())
        : !duties.writes
    ) {
      this.refuse(id, ordered, REFUSED_ROLE, "this server is " + roles.state());
      return;
    }
    const { limits } = this.config;
    // A write is never refused for a moment: a later one of its connection, on its way already, would be run before it.
    // The link is dropped instead, and everything is asked again in order.
    const reads = isQuery && (flags & FLAG_TXN) === 0;
    const factor = reads ? 1 : 2;
    if (
      release.heldBytes + this.postponedBytes > factor * limits.heldReplyBytesMax ||
      release.waiting() >= factor * limits.heldRepliesMax
    ) {
      if (reads) this.refuse(id, ordered, REFUSED_BUSY, "too many replies wait");
      else this.fault("too many replies of writes wait");
      return;
    }
    if (ordered && reads && !roles.leads() && (this.postponed.length > 0 || this.asksPrimary())) {
      // It would be answered from older data than an earlier read of its connection, whose place in the log is yet to come.
      const command = bytes.slice(start, end);
      this.postponedBytes += command.length;
      this.postponed.push({ open: release.hold(id, true), flags, command });
      return;
    }
    this.execute(flags, id, ordered, bytes, start, end);
  }

  /** Reads of this link whose place in the log the primary has been asked for, and not told yet. */
  private asksPrimary(): boolean {
    const { asked } = this;
    while (asked.length > 0 && (asked[0]!.ready || asked[0]!.dropped)) asked.shift();
    return asked.length > 0;
  }

  /** Runs the reads that waited for the place in the log of one before them. */
  runPostponed(nowMs: number): void {
    const { postponed } = this;
    if (postponed.length === 0) return;
    this.nowMs = nowMs;
    let ran = 0;
    while (ran < postponed.length) {
      const { open, flags, command } = postponed[ran]!;
      if (!open.dropped) {
        if (this.asksPrimary() && this.asked[0]!.seq < open.seq) break;
        this.resuming = open;
        if (this.events.readsInSession()) {
          this.execute(flags, open.id, true, command, 0, command.length);
        } else this.refuse(open.id, true, REFUSED_ROLE, "this server is " + this.roles.state());
        this.resuming = undefined;
        // The link may have been dropped for what the command was.
        if (postponed.length === 0) return;
      }
      this.postponedBytes -= command.length;
      ran++;
    }
    postponed.splice(0, ran);
  }

  private forgetPostponed(): void {
    this.postponed.length = 0;
    this.postponedBytes = 0;
    this.asked.length = 0;
  }

  private execute(
    flags: number,
    id: number,
    ordered: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    const { runner, release } = this;
    let at = start;
    runner.begin();
    if ((flags & FLAG_SESSION) !== 0) {
      if (end - start < SESSION_PREFIX_BYTES) {
        this.fault("command without its session prefix");
        return;
      }
      at += SESSION_PREFIX_BYTES;
    }
    const ran =
      (flags & FLAG_TXN) !== 0
        ? this.runTransaction(flags, id, ordered, bytes, start, at, end)
        : this.runCommand(flags, id, ordered, bytes, start, at, end);
    if (ran === RAN_DONE) {
      const { reply } = runner;
      this.answer(id, ordered, runner.need, OUTCOME_ANSWER, reply.bytes, reply.length);
      this.countTurn(reply.length);
    } else if (ran === RAN_JOB) {
      const open = this.resuming ?? release.hold(id, ordered);
      // It tells of the data as it was when the command came.
      const need = this.events.logEnd();
      this.jobs.add(runner.job!, (reply) => release.resolve(open, need, OUTCOME_ANSWER, reply));
    } else if (ran === RAN_PAST_DUE) {
      const open = this.resuming ?? release.hold(id, ordered);
      const command = bytes.slice(at, end);
      this.asksPrimary();
      // Oldest first: one that was postponed is older than all that are asked for since.
      if (this.resuming === undefined) this.asked.push(open);
      else this.asked.unshift(open);
      if (!this.events.forwardRead(command, open, release, this.nowMs)) {
        release.resolve(open, 0, OUTCOME_REFUSED, this.reason(REFUSED_ROLE, "no primary to ask"));
      }
    } else if (ran > 0) {
      this.answerText(id, ordered, OUTCOME_UNKNOWN, runner.why);
    }
  }

  /** @returns RAN_*, or -1 when it has been answered or the link is gone */
  private runCommand(
    flags: number,
    id: number,
    ordered: boolean,
    bytes: Uint8Array,
    prefix: number,
    start: number,
    end: number,
  ): number {
    const { parser, runner } = this;
    parser.feed(bytes, start, end);
    if (parser.next() !== PARSED_COMMAND || parser.rangeEnd - parser.rangeStart !== end - start) {
      return this.notOneCommand();
    }
    if (this.lies(flags, parser)) return this.refuseLie(id, ordered);
    if (this.jobs.full() && (flags & FLAG_CLASS_MASK) === CLASS_QUERY) {
      this.refuse(id, ordered, REFUSED_BUSY, "too many long commands run");
      this.endParse();
      return -1;
    }
    const ran = this.inSession(flags, id, bytes, prefix)
      ? runner.run(parser, this.nowMs)
      : runner.refusal;
    // The payload is the caller's buffer; the parser lets go of it.
    parser.next();
    return ran;
  }

  private runTransaction(
    flags: number,
    id: number,
    ordered: boolean,
    bytes: Uint8Array,
    prefix: number,
    start: number,
    end: number,
  ): number {
    const { parser, runner } = this;
    const commands: CommandView[] = [];
    let lies = false;
    let parsed = 0;
    parser.feed(bytes, start, end);
    while (parser.next() === PARSED_COMMAND) {
      parsed += parser.rangeEnd - parser.rangeStart;
      if (this.lies(flags, parser)) lies = true;
      commands.push({
        bytes: parser.bytes,
        count: parser.count,
        starts: parser.starts.slice(0, parser.count),
        ends: parser.ends.slice(0, parser.count),
      });
    }
    if (parsed !== end - start || parser.heldBytes() > 0) return this.notOneCommand();
    if (lies) return this.refuseLie(id, ordered);
    return this.inSession(flags, id, bytes, prefix)
      ? runner.runAll(commands, this.nowMs)
      : runner.refusal;
  }

  /** @returns whether the command is to be run; else its reply is made */
  private inSession(flags: number, id: number, bytes: Uint8Array, prefix: number): boolean {
    if ((flags & FLAG_CLASS_MASK) === CLASS_QUERY) return true;
    if ((flags & FLAG_SESSION) === 0) return this.inControllersSession(id);
    return this.inNamedSession(bytes, prefix);
  }

  /** A plain client's change: the controller is its session, and the id it keeps when asked again its number. */
  private inControllersSession(id: number): boolean {
    return this.runner.session(this.sessionText, SESSION_CONTROLLER, id, 0, this.nowMs);
  }

  private inNamedSession(bytes: Uint8Array, prefix: number): boolean {
    const id = sessionKey(bytes, prefix);
    const kind = id === this.sessionText ? SESSION_CONTROLLER : SESSION_CLIENT;
    const number = prefixNumber(bytes, prefix);
    return this.runner.session(id, kind, number, prefixBelow(bytes, prefix), this.nowMs);
  }

  /** The header says query, the command is not: it might run on a standby, or beside the order of writes. */
  private lies(flags: number, command: CommandView): boolean {
    return (
      (flags & FLAG_CLASS_MASK) === CLASS_QUERY && this.executor.classOf(command) !== CLASS_QUERY
    );
  }

  private refuseLie(id: number, ordered: boolean): number {
    this.refuse(id, ordered, REFUSED_CLASS, "the command is no query, as its header says");
    this.endParse();
    return -1;
  }

  private endParse(): void {
    if (this.parser.hasMore() || this.parser.heldBytes() > 0) this.parser = this.makeParser();
    else this.parser.next();
  }

  /** Clients' bytes: what is wrong with them is the client's affair, not the controller's. */
  private notOneCommand(): number {
    const { runner, parser } = this;
    runner.begin();
    writeError(
      runner.reply,
      parser.problem !== "" ? parser.problem : "ERR Protocol error: not one whole command",
    );
    this.parser = this.makeParser();
    return RAN_DONE;
  }

  private reason(code: number, text: string): Uint8Array {
    const sink = this.reasonSink;
    sink.length = 0;
    sink.bytes[0] = code;
    sink.length = 1;
    putText(sink, text);
    return sink.bytes.slice(0, sink.length);
  }

  private refuse(id: number, ordered: boolean, code: number, text: string): void {
    const payload = this.reason(code, text);
    this.answer(id, ordered, 0, OUTCOME_REFUSED, payload, payload.length);
  }

  private answerText(id: number, ordered: boolean, outcome: number, text: string): void {
    const sink = makeSink(128);
    putText(sink, text);
    this.answer(id, ordered, 0, outcome, sink.bytes, sink.length);
  }

  /** @param bytes copied as far as they are kept */
  private answer(
    id: number,
    ordered: boolean,
    need: number,
    outcome: number,
    bytes: Uint8Array,
    length: number,
  ): void {
    if (this.resuming === undefined) {
      this.release.reply(id, ordered, need, outcome, bytes, 0, length);
    } else this.release.resolve(this.resuming, need, outcome, bytes.slice(0, length));
  }

  // --- output -------------------------------------------------------------------------------------

  sendControl(message: ControlMessage): void {
    const frame = frameOf(FRAME_CONTROL, 0, 0, encodeControl(message));
    // What was gathered was said before this.
    this.release.flush();
    this.ports.send(this.connection, frame, 0, frame.length);
  }

  /** Has the controller tell everything anew. */
  renew(reason: string, nowMs: number): void {
    if (this.phase === "up") this.drop(reason, nowMs);
  }

  /** Rule 17's request. */
  ask(mode: number, epoch: number, identity: Uint8Array, index: number): void {
    if (this.phase !== "up") return;
    this.sendControl({ kind: KIND_ASK, epoch, mode, identity, index });
  }

  // --- closing ------------------------------------------------------------------------------------

  private fault(reason: string): void {
    this.drop(reason, this.nowMs);
  }

  private drop(reason: string, nowMs: number): void {
    const { connection } = this;
    if (connection === NO_CONNECTION) return;
    this.release.flush();
    if (this.said.now(reason, nowMs)) {
      this.ports.note("warn", "controller-link-dropped", { reason });
    }
    this.forget(nowMs);
    this.ports.close(connection, reason);
  }

  private forget(nowMs: number): void {
    this.decoder?.close();
    this.decoder = undefined;
    this.paused = false;
    this.connection = NO_CONNECTION;
    this.phase = "down";
    this.release.clear();
    this.forgetPostponed();
    this.packs.clear();
    this.fragments.clear();
    this.fragmentBytes = 0;
    this.parser = this.makeParser();
    this.later(nowMs);
  }

  // --- polls and time -----------------------------------------------------------------------------

  /**
   * A poll came. @returns false when it is not from the boot this server is linked with, so that it is
   * not answered
   */
  onPoll(sessionId: Uint8Array, linkNonce: Uint8Array, nowMs: number): boolean {
    if (this.phase !== "up") return true;
    if (bytesEqual(sessionId, this.sessionId)) {
      this.heardMs = nowMs;
      this.polled = true;
      if (bytesEqual(linkNonce, this.linkNonce())) {
        this.strangeSinceMs = -1;
        this.known = true;
      } else if (this.strangeSinceMs < 0) this.strangeSinceMs = nowMs;
      return true;
    }
    if (this.strangeSinceMs < 0) this.strangeSinceMs = nowMs;
    return false;
  }

  tick(nowMs: number): number {
    this.nowMs = nowMs;
    const { limits } = this.config;
    if (this.phase === "up") {
      // One that is opened and dropped again and again is not dialled at once each time.
      if (nowMs - this.openedMs >= limits.handshakeMs) this.pauseMs = limits.redialMinMs;
      // A slow board has polls under way that it sent before it took the link: it has as long as for a handshake.
      const strangeMs = this.known
        ? limits.controllerStrangeMs
        : Math.max(limits.controllerStrangeMs, limits.handshakeMs);
      if (this.strangeSinceMs >= 0 && nowMs - this.strangeSinceMs >= strangeMs) {
        this.drop("the controller no longer knows this link", nowMs);
      } else if (this.polled && nowMs - this.heardMs >= limits.controllerSilentMs) {
        this.drop("the controller is silent", nowMs);
      } else {
        if (this.goOn(nowMs)) return nowMs;
        return nowMs + limits.controllerStrangeMs;
      }
    }
    if (this.phase === "greeting") {
      if (nowMs - this.openedMs < limits.handshakeMs) return this.openedMs + limits.handshakeMs;
      this.drop("the handshake takes too long", nowMs);
    }
    if (this.phase === "down") {
      if (this.roles.stopped !== "") return nowMs + limits.redialMaxMs;
      // It would have to report what it held before.
      if (this.roles.adopting !== undefined) return nowMs + limits.redialMinMs;
      if (nowMs < this.dialMs) return this.dialMs;
      this.phase = "dialing";
      this.ports.dial("controller");
    }
    return nowMs + limits.redialMaxMs;
  }
}
