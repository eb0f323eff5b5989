/**
 * The second real-time sync module (P8): a change made on the standby is on the primary at once.
 *
 *     standby's local port ──FORWARD──> primary orders it ──entry──> standby: answered now (rule 10)
 *
 * A command is known by its entry (session and number), never by its index. Reads travel too: their entry
 * does nothing but hold their place, and the standby answers them from its own data when it comes.
 * A read that found a key past due on the standby goes the same way, since only the primary may expire it.
 */
import { CLASS_QUERY } from "../../protocol/frame.js";
import { CONTROL_BYTES_MAX, KIND_FORWARD, KIND_FORWARD_FAILED } from "../../protocol/messages.js";
import type { Forward, ForwardFailed } from "../../protocol/messages.js";
import type { ServerIndex } from "../../protocol/record.js";
import { PARSED_COMMAND, RespParser } from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";
import { ENTRY_MARK, ENTRY_REPLY_GONE } from "./chunk.js";
import type { EntryView } from "./chunk.js";
import type { AgentConfig } from "./config.js";
import { commandLimits } from "./controller-link.js";
import type { CommandView, Executor } from "./execution.js";
import type { PeerLink } from "./peer-link.js";
import type { Roles } from "./roles.js";
import { RAN_DONE, RAN_JOB, RAN_UNKNOWN, isSessionCommand } from "./run-command.js";
import type { CommandRunner } from "./run-command.js";
import { SESSION_LOCAL, sessionKey } from "./session-table.js";
import type { SessionTable } from "./session-table.js";

/** Room for the fields of a FORWARD beside its command. @unit bytes */
const FORWARD_FIELDS_BYTES = 64;

/** How a forwarded command ends, in the words of RESP errors. */
export type ForwardEnd =
  | { kind: "entry"; index: number; reply: Uint8Array }
  | { kind: "refused"; text: string }
  | { kind: "unknown"; text: string };

interface Pending {
  number: number;
  command: Uint8Array;
  isRead: boolean;
  sinceMs: number;
  done(end: ForwardEnd): void;
}

/** The standby's side. */
export class Forwarder {
  private readonly pending = new Map<number, Pending>();
  private readonly session: Uint8Array;
  private readonly sessionText: string;
  private number = 0;
  private parser: RespParser;
  /** The primary takes commands: an open session in mode both. */
  private readonly ready: () => boolean;

  constructor(
    private readonly config: AgentConfig,
    private readonly roles: Roles,
    private readonly table: SessionTable,
    private readonly runner: CommandRunner,
    private readonly link: PeerLink,
    session: Uint8Array,
    ready: () => boolean,
  ) {
    this.session = session;
    this.sessionText = sessionKey(session, 0);
    this.ready = ready;
    this.parser = this.makeParser();
  }

  private makeParser(): RespParser {
    const { commandBytesMax, valueBytesMax } = this.config.limits;
    return new RespParser(commandLimits(commandBytesMax, valueBytesMax));
  }

  count(): number {
    return this.pending.size;
  }

  /** @returns false when no primary can be asked: surely not done */
  forward(
    command: Uint8Array,
    isRead: boolean,
    nowMs: number,
    done: (end: ForwardEnd) => void,
  ): boolean {
    if (!this.ready() || this.pending.size >= this.config.limits.forwardsMax) return false;
    this.number++;
    const one: Pending = { number: this.number, command, isRead, sinceMs: nowMs, done };
    this.pending.set(one.number, one);
    this.send(one);
    return true;
  }

  private send(one: Pending): void {
    const pieceMax = CONTROL_BYTES_MAX - FORWARD_FIELDS_BYTES;
    let at = 0;
    for (;;) {
      const end = Math.min(one.command.length, at + pieceMax);
      const message: Forward = {
        kind: KIND_FORWARD,
        epoch: this.roles.epoch(),
        session: this.session,
        number: one.number,
        command: one.command.subarray(at, end),
      };
      at = end;
      if (at >= one.command.length) {
        this.link.send(message);
        return;
      }
      this.link.sendPart(message);
    }
  }

  /** A session is open again in the same epoch: what has not come back is asked for again, under its number. */
  onSessionOpen(): void {
    for (const one of this.pending.values()) this.send(one);
  }

  /** An entry of ours may have come. */
  onResult(entry: EntryView, index: number, nowMs: number): void {
    if (this.pending.size === 0) return;
    const one = this.pending.get(entry.number);
    if (one === undefined || this.table.at(entry.slot)?.id !== this.sessionText) return;
    this.pending.delete(one.number);
    if ((entry.flags & ENTRY_MARK) !== 0) {
      this.answerRead(one, index, nowMs);
    } else if ((entry.flags & ENTRY_REPLY_GONE) !== 0) {
      one.done({ kind: "unknown", text: "OUTCOMEUNKNOWN it was done, but its reply was too long" });
    } else {
      const reply = entry.bytes.slice(entry.replyStart, entry.replyEnd);
      one.done({ kind: "entry", index, reply });
    }
  }

  /** The read's place in the order has come: it is answered from the data here. */
  private answerRead(one: Pending, index: number, nowMs: number): void {
    const { runner, parser } = this;
    parser.feed(one.command, 0, one.command.length);
    if (parser.next() !== PARSED_COMMAND) {
      this.parser = this.makeParser();
      one.done({ kind: "refused", text: "ERR Protocol error" });
      return;
    }
    runner.begin();
    const ran = runner.runAsOfLog(parser, nowMs);
    parser.next();
    if (ran === RAN_DONE) {
      const need = Math.max(index, runner.need);
      const reply = runner.reply.bytes.slice(0, runner.reply.length);
      one.done({ kind: "entry", index: need, reply });
    } else if (ran === RAN_JOB) {
      // Bounded here: such reads are rare, and the place in the order has come now.
      const job = runner.job!;
      while (!job.step(this.config.limits.jobWorkPerTurn)) continue;
      const reply = job.reply.bytes.slice(0, job.reply.length);
      one.done({ kind: "entry", index, reply });
    } else {
      one.done({ kind: "unknown", text: "OUTCOMEUNKNOWN the read could not be answered" });
    }
  }

  onFailed(failed: ForwardFailed): void {
    if (sessionKey(failed.session, 0) !== this.sessionText) return;
    const one = this.pending.get(failed.number);
    if (one === undefined) return;
    this.pending.delete(one.number);
    if (failed.text.startsWith("OUTCOMEUNKNOWN")) one.done({ kind: "unknown", text: failed.text });
    else one.done({ kind: "refused", text: failed.text });
  }

  /** Adoption (rule 10): whether the pending commands were done is not known here any more. */
  dropAll(why: string): void {
    for (const one of this.pending.values()) {
      one.done({ kind: "unknown", text: "OUTCOMEUNKNOWN " + why });
    }
    this.pending.clear();
  }

  tick(nowMs: number): number {
    const { forwardMs } = this.config.limits;
    let next = Infinity;
    for (const one of this.pending.values()) {
      if (nowMs - one.sinceMs < forwardMs) {
        // The oldest is first.
        next = one.sinceMs + forwardMs;
        break;
      }
      this.pending.delete(one.number);
      one.done({ kind: "unknown", text: "OUTCOMEUNKNOWN the primary has not answered in time" });
    }
    return next;
  }
}

/** First command of a forwarded transaction: "EXEC", so that a MULTI of one command is told from that command. */
export const TRANSACTION_MARK = Uint8Array.from([
  42, 49, 13, 10, 36, 52, 13, 10, 69, 88, 69, 67, 13, 10,
]);

/** An error reply's text, without what frames it. */
function errorText(reply: ByteSink): string {
  let text = "";
  for (let at = 1; at < reply.length - 2; at++) text += String.fromCharCode(reply.bytes[at]!);
  return text;
}

/** The primary's side. */
export class ForwardServer {
  private parts: Uint8Array[] = [];
  private partBytes = 0;

  constructor(
    private readonly config: AgentConfig,
    private readonly roles: Roles,
    private readonly executor: Executor,
    private readonly runner: CommandRunner,
    private readonly link: PeerLink,
    /** The peer's session is open and in step, in mode both. */
    private readonly ready: () => boolean,
  ) {}

  reset(): void {
    this.parts = [];
    this.partBytes = 0;
  }

  onForward(message: Forward, more: boolean, nowMs: number): void {
    const { limits } = this.config;
    let { command } = message;
    if (more || this.parts.length > 0) {
      this.parts.push(command);
      this.partBytes += command.length;
      if (this.partBytes > limits.commandBytesMax + TRANSACTION_MARK.length) {
        this.link.fault("a forwarded command of more than " + this.partBytes + " bytes");
        return;
      }
      if (more) return;
      command = new Uint8Array(this.partBytes);
      let at = 0;
      for (const part of this.parts) {
        command.set(part, at);
        at += part.length;
      }
      this.reset();
    }
    if (message.epoch !== this.roles.epoch() || !this.roles.leads() || !this.ready()) {
      this.fail(message, "CLUSTERDOWN this server is not the primary of that epoch");
      return;
    }
    this.run(message, command, nowMs);
  }

  private fail(message: Forward, text: string): void {
    this.link.send({
      kind: KIND_FORWARD_FAILED,
      epoch: this.roles.epoch(),
      session: message.session,
      number: message.number,
      text,
    });
  }

  private run(message: Forward, command: Uint8Array, nowMs: number): void {
    const { runner, roles } = this;
    const { commandBytesMax, valueBytesMax } = this.config.limits;
    const parser = new RespParser(
      commandLimits(commandBytesMax + TRANSACTION_MARK.length, valueBytesMax),
    );
    const commands: CommandView[] = [];
    let isRead = true;
    parser.feed(command, 0, command.length);
    while (parser.next() === PARSED_COMMAND) {
      if (this.executor.classOf(parser) !== CLASS_QUERY) isRead = false;
      commands.push({
        bytes: parser.bytes,
        count: parser.count,
        starts: parser.starts.slice(0, parser.count),
        ends: parser.ends.slice(0, parser.count),
      });
    }
    const marked =
      command.length >= TRANSACTION_MARK.length &&
      TRANSACTION_MARK.every((byte, at) => command[at] === byte);
    if (commands.length === 0 || (!marked && commands.length !== 1)) {
      this.fail(message, "ERR Protocol error: not one whole command");
      return;
    }
    if (commands.some(isSessionCommand)) {
      this.fail(message, "ERR dyad: DYAD.SESSION is for clients of the controller");
      return;
    }
    runner.begin();
    const other: ServerIndex = roles.me === 0 ? 1 : 0;
    const id = sessionKey(message.session, 0);
    if (!runner.session(id, SESSION_LOCAL + other, message.number, 0, nowMs)) {
      // Done before: its entry is in the log and comes to the standby with it.
      if (runner.refusal === RAN_UNKNOWN) this.fail(message, "OUTCOMEUNKNOWN " + runner.why);
      return;
    }
    if (isRead && !marked) runner.markOnly();
    else runner.alwaysEntry();
    const ran = marked ? runner.runAll(commands.slice(1), nowMs) : runner.run(commands[0]!, nowMs);
    // Too large for an entry: nothing was done and none will come.
    if (ran === RAN_DONE && runner.need === 0) this.fail(message, errorText(runner.reply));
  }
}
