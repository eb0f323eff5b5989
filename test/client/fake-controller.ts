/**
 * A controller for tests of the client: handshake, counters, exactly-once sessions. What it does with a
 * command is up to the test (`decide`), so that connections can be lost at any point.
 */
import { createHmac } from "node:crypto";
import { FrameDecoder } from "../../protocol/frame-decoder.js";
import * as frame from "../../protocol/frame.js";
import { acceptorProof, dialerProof, proofsEqual } from "../../protocol/handshake.js";
import { isMalformed } from "../../protocol/malformed.js";
import * as m from "../../protocol/messages.js";
import { formatHex } from "../../protocol/record.js";
import {
  makeSink,
  PARSED_COMMAND,
  RespParser,
  writeArray,
  writeBulkText,
  writeError,
  writeInteger,
  writeSimple,
} from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";

export const hmac = (key: Uint8Array, data: Uint8Array): Uint8Array =>
  createHmac("sha256", key).update(data).digest();

/** A command as it came in. */
export interface Asked {
  id: number;
  flags: number;
  commands: string[][];
  /** Hex; "" without FLAG_SESSION. */
  session: string;
  number: number;
  below: number;
  /** Which connection of the controller, from 1. */
  connection: number;
}

/** "lost": closed before it is done · "done": closed after · "hold": not answered for now */
export type Decision = "answer" | "hold" | "refuse" | "unknown" | "lost" | "done";

interface Remembered {
  below: number;
  replies: Map<number, Uint8Array>;
}

export class FakeController {
  key: Uint8Array = new Uint8Array(0);
  frameMax = 65_536;
  windowBytes = 1 << 20;
  wire: number = frame.WIRE_VERSION;
  decide: (asked: Asked) => Decision = () => "answer";
  /** Every command that was done, in order. */
  readonly done: string[] = [];
  /** Everything that was asked, done or not. */
  readonly asked: Asked[] = [];
  readonly credits: [number, number][] = [];
  readonly aborts: number[] = [];
  connections = 0;
  private readonly counters = new Map<string, number>();
  private readonly sessions = new Map<string, Remembered>();

  /** A new connection; the test feeds it with the client's bytes. */
  open(send: (bytes: Uint8Array) => void, close: () => void): FakeConnection {
    this.connections++;
    return new FakeConnection(this, this.connections, send, close);
  }

  counter(key: string): number {
    return this.counters.get(key) ?? 0;
  }

  /** Does a command exactly once if it has a number. @returns its RESP reply, undefined: outcome unknown */
  perform(asked: Asked): Uint8Array | undefined {
    const session = asked.session === "" ? undefined : this.sessions.get(asked.session);
    if (asked.session !== "") {
      if (session === undefined || asked.number < session.below) return undefined;
      for (; session.below < asked.below; session.below++) session.replies.delete(session.below);
      const kept = session.replies.get(asked.number);
      if (kept !== undefined) return kept;
    }
    const sink = makeSink(64);
    if ((asked.flags & frame.FLAG_TXN) !== 0) writeArray(sink, asked.commands.length);
    for (const command of asked.commands) this.run(command, sink);
    const reply = sink.bytes.slice(0, sink.length);
    session?.replies.set(asked.number, reply);
    return reply;
  }

  private run(command: string[], sink: ByteSink): void {
    this.done.push(command.join(" "));
    const [name, key = "", value = ""] = command as [string, string?, string?];
    switch (name) {
      case "INCR":
        this.counters.set(key, this.counter(key) + 1);
        writeInteger(sink, this.counter(key));
        break;
      case "GET":
        writeBulkText(sink, String(this.counter(key)));
        break;
      case "ECHO":
        writeBulkText(sink, key);
        break;
      case "DYAD.SESSION":
        if (key === "OPEN" && !this.sessions.has(value)) {
          this.sessions.set(value, { below: 1, replies: new Map() });
        }
        if (key === "CLOSE") this.sessions.delete(value);
        writeBulkText(sink, value);
        break;
      case "SET":
        writeSimple(sink, "OK");
        break;
      default:
        writeError(sink, "ERR unknown command");
        break;
    }
  }
}

export class FakeConnection {
  private readonly controller: FakeController;
  private readonly number: number;
  private readonly send: (bytes: Uint8Array) => void;
  private readonly close: () => void;
  private readonly decoder: FrameDecoder;
  private nonceD = new Uint8Array(16);
  private readonly nonceL: Uint8Array;
  private hello: m.Hello | undefined;
  private proven = false;
  private dead = false;
  private readonly parts = new Map<number, Uint8Array[]>();

  constructor(
    controller: FakeController,
    number: number,
    send: (bytes: Uint8Array) => void,
    close: () => void,
  ) {
    this.controller = controller;
    this.number = number;
    this.nonceL = new Uint8Array(16).fill(number);
    this.send = (bytes) => {
      if (!this.dead) send(bytes);
    };
    this.close = () => {
      this.dead = true;
      this.decoder.close();
      close();
    };
    this.decoder = new FrameDecoder(
      (...given) => this.onFrame(...given),
      frame.PAYLOAD_BYTES_MAX,
      0,
    );
  }

  receive(bytes: Uint8Array): void {
    if (this.dead) return;
    const fault = this.decoder.feed(bytes, 0, bytes.length);
    if (fault !== "") throw new Error("the client sent " + fault);
  }

  control(message: m.ControlMessage): void {
    this.send(frame.frameOf(frame.FRAME_CONTROL, 0, 0, m.encodeControl(message)));
  }

  reply(id: number, flags: number, payload: Uint8Array | string): void {
    const bytes = typeof payload === "string" ? Buffer.from(payload, "latin1") : payload;
    this.send(frame.frameOf(frame.FRAME_REPLY, flags, id, bytes));
  }

  private onFrame(
    type: number,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    if (end - start + frame.HEADER_BYTES > this.controller.frameMax) throw new Error("long frame");
    if (type === frame.FRAME_CONTROL) this.onControl(bytes, start, end);
    else if (!this.proven) throw new Error("a command before the proof");
    else if (type === frame.FRAME_CREDIT) {
      this.controller.credits.push([id, frame.readU32(bytes, start)]);
    } else if (type === frame.FRAME_ABORT) this.controller.aborts.push(id);
    else if (type === frame.FRAME_COMMAND) {
      const parts = this.parts.get(id) ?? [];
      parts.push(bytes.slice(start, end));
      this.parts.set(id, parts);
      if ((flags & frame.FLAG_MORE) !== 0) return;
      this.parts.delete(id);
      this.onCommand(flags, id, new Uint8Array(Buffer.concat(parts)));
    } else throw new Error(`the client sent a frame of type ${type}`);
  }

  private onControl(bytes: Uint8Array, start: number, end: number): void {
    const { controller } = this;
    const message = m.decodeControl(bytes, start, end);
    if (isMalformed(message)) throw new Error(message.malformed);
    if (message.kind === m.KIND_GOODBYE) return;
    if (message.kind === m.KIND_HELLO) {
      this.hello = message;
      this.nonceD = new Uint8Array(message.nonce);
      const { role, id } = message;
      this.control({
        kind: m.KIND_CHALLENGE,
        wire: controller.wire,
        nonce: this.nonceL,
        proof: acceptorProof(hmac, controller.key, role, id, this.nonceD, this.nonceL),
        frameMax: controller.frameMax,
        windowBytes: controller.windowBytes,
        sessionId: new Uint8Array(8),
      });
      return;
    }
    if (message.kind !== m.KIND_PROOF || this.hello === undefined) throw new Error("not a proof");
    const { role, id } = this.hello;
    const expected = dialerProof(hmac, controller.key, role, id, this.nonceD, this.nonceL);
    if (!proofsEqual(expected, message.proof)) throw new Error("wrong proof");
    this.proven = true;
  }

  private onCommand(flags: number, id: number, payload: Uint8Array): void {
    const withSession = (flags & frame.FLAG_SESSION) !== 0;
    const from = withSession ? frame.SESSION_PREFIX_BYTES : 0;
    const asked: Asked = {
      id,
      flags,
      commands: parseAll(payload.subarray(from)),
      session: withSession ? formatHex(payload.subarray(0, 8)) : "",
      number: withSession ? frame.readU32(payload, 8) : 0,
      below: withSession ? frame.readU32(payload, 12) : 0,
      connection: this.number,
    };
    this.controller.asked.push(asked);
    const decision = this.controller.decide(asked);
    if (decision === "refuse")
      this.reply(id, frame.OUTCOME_REFUSED, "\0CLUSTERDOWN no primary: test");
    else if (decision === "unknown") {
      this.reply(id, frame.OUTCOME_UNKNOWN, "OUTCOMEUNKNOWN test");
    } else if (decision === "answer" || decision === "done") {
      const reply = this.controller.perform(asked);
      if (decision === "answer") {
        if (reply === undefined) this.reply(id, frame.OUTCOME_UNKNOWN, "OUTCOMEUNKNOWN window");
        else this.reply(id, frame.OUTCOME_ANSWER, reply);
      }
    }
    if (decision === "done" || decision === "lost") this.close();
  }
}

function parseAll(bytes: Uint8Array): string[][] {
  const parser = new RespParser({
    argsMax: 1000,
    bulkBytesMax: 1 << 24,
    commandBytesMax: 1 << 25,
    inlineBytesMax: 0,
    keptBytesMax: 0,
  });
  parser.feed(bytes, 0, bytes.length);
  const commands: string[][] = [];
  while (parser.next() === PARSED_COMMAND) {
    const args: string[] = [];
    for (let i = 0; i < parser.count; i++) {
      args.push(
        Buffer.from(parser.bytes.subarray(parser.starts[i], parser.ends[i])).toString("latin1"),
      );
    }
    commands.push(args);
  }
  return commands;
}
