/**
 * A client on a serial line to the controller: one command at a time, asked again until it is answered.
 *
 *     packet: COMMAND, new id ──>     <── packet: REPLY, that id
 *        └── nothing sound within retryMs: the same command, another id, the same number
 *
 * The line may lose, damage and double packets. What is damaged is not believed, and the id tells an answer from a late
 * one. A write has a number in this client's session, so that it is done once however often it is asked.
 */
import { randomBytes } from "node:crypto";
import { crc32 as zlibCrc32 } from "node:zlib";
import { CLASS_QUERY } from "../protocol/frame.js";
import {
  FLAG_MORE,
  FLAG_SESSION,
  FRAME_COMMAND,
  FRAME_REPLY,
  HEADER_BYTES,
  OUTCOME_MASK,
  OUTCOME_REFUSED,
  OUTCOME_UNKNOWN,
  SESSION_PREFIX_BYTES,
  frameOf,
  readU32,
} from "../protocol/frame.js";
import { formatHex } from "../protocol/record.js";
import { decodeReply, isReplyError, ReplyScanner } from "../protocol/resp-reply.js";
import type { ReplyValue } from "../protocol/resp-reply.js";
import {
  FORM_BINARY,
  FORM_TEXT,
  SERIAL_FRAME_BYTES_MAX,
  SIDE_CONTROLLER,
  SIDE_OTHER,
  SerialDecoder,
  encodeSerial,
} from "../protocol/serial.js";
import type { SerialCounts } from "../protocol/serial.js";
import { encodeCommands } from "./command-bytes.js";
import type { Argument } from "./command-bytes.js";
import { CommandError, NoAnswerError, NotDoneError, OutcomeUnknownError } from "./errors.js";
import { SessionNumbers } from "./session.js";

const SESSION_ID_BYTES = 8;
/** One write is open at a time. */
const WINDOW = 1;
const REPLY_BYTES_MAX = 1 << 20;
/** Pause before a refused command is asked again. @unit ms */
const REFUSED_MS = 100;

/** Bytes out; the other direction is `LineClient.feed`. */
export interface LinePort {
  write(bytes: Uint8Array): void;
}

export interface LineOptions {
  /** 7-bit packets, for an end that can only handle text. Default false. */
  text?: boolean;
  /** Without a sound packet for so long the command is asked again. Default 500. @unit ms */
  retryMs?: number;
  /** A command that has no answer by then is given up. Default 10,000. @unit ms */
  commandMs?: number;
}

interface Asked {
  id: number;
  parts: Uint8Array[];
  bytes: number;
  /** What the line had lost when this was asked: if it has lost more, parts may be missing. */
  lost: number;
  done: (outcome: { flags: number; payload: Uint8Array } | undefined) => void;
  timer: NodeJS.Timeout;
}

function crc32(bytes: Uint8Array, start: number, end: number): number {
  return zlibCrc32(bytes.subarray(start, end));
}

function freshSession(): SessionNumbers {
  return new SessionNumbers(new Uint8Array(randomBytes(SESSION_ID_BYTES)), WINDOW);
}

/** One line's client. */
export class LineClient {
  private readonly decoder: SerialDecoder;
  private session: SessionNumbers;
  private sessionOpen = false;
  private readonly form: typeof FORM_BINARY | typeof FORM_TEXT;
  private readonly retryMs: number;
  private readonly commandMs: number;
  private seq = 0;
  /** Ids begin anywhere: an answer to what was asked before this program started is not taken for a new one. */
  private id = readU32(randomBytes(4), 0);
  private asked: Asked | undefined;
  private last: Promise<unknown> = Promise.resolve();
  /** Commands asked more than once, for people. */
  repeats = 0;

  constructor(
    private readonly port: LinePort,
    options: LineOptions = {},
  ) {
    this.form = options.text === true ? FORM_TEXT : FORM_BINARY;
    this.retryMs = options.retryMs ?? 500;
    this.commandMs = options.commandMs ?? 10_000;
    this.session = freshSession();
    this.decoder = new SerialDecoder(SIDE_CONTROLLER, crc32, (bytes, start, end) =>
      this.onFrame(bytes, start, end),
    );
  }

  /** What the line has brought. */
  counts(): SerialCounts {
    return this.decoder.counts;
  }

  /** Takes bytes that have come on the line, in whatever pieces. */
  feed(bytes: Uint8Array): void {
    this.decoder.feed(bytes, 0, bytes.length);
  }

  /**
   * Asks one Redis command; those asked meanwhile wait for it.
   * @throws CommandError its answer is an error
   * @throws NotDoneError it is longer than a packet, or surely had no effect
   * @throws NoAnswerError a read without an answer
   * @throws OutcomeUnknownError a write that may have been done
   */
  command(...args: Argument[]): Promise<ReplyValue> {
    const result = this.last.then(() => this.ask(args));
    this.last = result.catch(() => undefined);
    return result;
  }

  /** Lets the servers forget this client's session, if they can be told. */
  async close(): Promise<void> {
    await this.last;
    if (!this.sessionOpen) return;
    this.sessionOpen = false;
    await this.ofSession("CLOSE").catch(() => undefined);
  }

  /** The session's id is ours, so that asking twice does what asking once does. */
  private ofSession(word: "OPEN" | "CLOSE"): Promise<ReplyValue> {
    const { payload, commandClass } = encodeCommands([
      ["DYAD.SESSION", word, formatHex(this.session.id)],
    ]);
    return this.untilAnswered(commandClass, payload, true);
  }

  private async ask(args: Argument[]): Promise<ReplyValue> {
    const { payload, commandClass } = encodeCommands([args]);
    const isQuery = commandClass === CLASS_QUERY;
    if (!isQuery && !this.sessionOpen) {
      this.session = freshSession();
      await this.ofSession("OPEN");
      this.sessionOpen = true;
    }
    const number = isQuery ? 0 : this.session.take();
    const prefix = isQuery ? 0 : SESSION_PREFIX_BYTES;
    const whole = new Uint8Array(prefix + payload.length);
    if (HEADER_BYTES + whole.length > SERIAL_FRAME_BYTES_MAX) {
      if (!isQuery) this.session.answered(number);
      throw new NotDoneError(
        `a command on a line has at most ${SERIAL_FRAME_BYTES_MAX - HEADER_BYTES - prefix} bytes; this one has ${payload.length}`,
      );
    }
    whole.set(payload, prefix);
    if (!isQuery) this.session.writePrefix(whole, 0, number);
    const flags = commandClass | (isQuery ? 0 : FLAG_SESSION);
    try {
      return await this.untilAnswered(flags, whole, isQuery);
    } catch (error) {
      // The servers may have forgotten the session: the next write begins another.
      if (error instanceof OutcomeUnknownError) this.sessionOpen = false;
      throw error;
    } finally {
      if (!isQuery) this.session.answered(number);
    }
  }

  private async untilAnswered(
    flags: number,
    whole: Uint8Array,
    mayRepeat: boolean,
  ): Promise<ReplyValue> {
    const end = performance.now() + this.commandMs;
    let refused = "";
    for (let attempt = 1; ; attempt++) {
      const outcome = await this.once(flags, whole);
      const kind = outcome === undefined ? 0 : outcome.flags & OUTCOME_MASK;
      if (outcome !== undefined && kind === OUTCOME_UNKNOWN) {
        throw new OutcomeUnknownError(Buffer.from(outcome.payload).toString("utf8"));
      }
      if (outcome !== undefined && kind !== OUTCOME_REFUSED) {
        const scanner = new ReplyScanner();
        const { payload } = outcome;
        if (scanner.scan(payload, 0, payload.length) === payload.length) {
          const value = decodeReply(payload, 0, payload.length);
          if (!isReplyError(value)) return value;
          if (value.error.startsWith("OUTCOMEUNKNOWN")) throw new OutcomeUnknownError(value.error);
          throw new CommandError(value.error);
        }
      }
      if (outcome !== undefined && kind === OUTCOME_REFUSED) {
        // One byte says who refused it.
        refused = Buffer.from(outcome.payload.subarray(1)).toString("utf8");
        // What was asked before may have been done since: only a first refusal is the last word.
        if (attempt === 1 && !mayRepeat) throw new NotDoneError(refused);
        await new Promise((wake) => setTimeout(wake, REFUSED_MS));
      }
      if (performance.now() >= end) {
        if (!mayRepeat) throw new OutcomeUnknownError(refused || "no answer on the line");
        if (refused !== "") throw new NotDoneError(refused);
        throw new NoAnswerError("no answer on the line");
      }
      this.repeats++;
    }
  }

  /** Asks once. @returns undefined when no whole answer came in time */
  private once(
    flags: number,
    whole: Uint8Array,
  ): Promise<{ flags: number; payload: Uint8Array } | undefined> {
    this.id = this.id >= 0xffffffff ? 1 : this.id + 1;
    const { id, form } = this;
    const frame = frameOf(FRAME_COMMAND, flags, id, whole);
    return new Promise((resolve) => {
      const done: Asked["done"] = (outcome) => {
        clearTimeout(this.asked!.timer);
        this.asked = undefined;
        resolve(outcome);
      };
      const timer = setTimeout(() => done(undefined), this.retryMs);
      this.asked = { id, parts: [], bytes: 0, lost: this.missing(), done, timer };
      const packet = encodeSerial(form, SIDE_OTHER, this.seq, frame, 0, frame.length, crc32);
      this.seq = (this.seq + 1) & 255;
      this.port.write(packet);
    });
  }

  private missing(): number {
    const { lost, damaged, tooLong } = this.decoder.counts;
    return lost + damaged + tooLong;
  }

  private onFrame(bytes: Uint8Array, start: number, end: number): void {
    const { asked } = this;
    if (asked === undefined || (bytes[start]! & 15) !== FRAME_REPLY) return;
    if (readU32(bytes, start + 4) !== asked.id) return;
    const flags = bytes[start + 1]!;
    const part = bytes.slice(start + HEADER_BYTES, end);
    const more = (flags & FLAG_MORE) !== 0;
    // A long reply comes in parts. One of them may be missing: then it is asked for again.
    if ((more || asked.parts.length > 0) && asked.lost !== this.missing()) {
      asked.done(undefined);
      return;
    }
    asked.parts.push(part);
    asked.bytes += part.length;
    if (asked.bytes > REPLY_BYTES_MAX) asked.done(undefined);
    else if (more) asked.timer.refresh();
    else asked.done({ flags, payload: new Uint8Array(Buffer.concat(asked.parts)) });
  }
}
