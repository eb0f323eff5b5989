/**
 * The local port: RESP for programs on this machine, which do not go through the controller (rule 10).
 *
 *     role      write                                    read
 *     primary   an entry; answered when confirmed        a no-op entry; answered when confirmed
 *     standby   sent to the primary; answered when       the same
 *               its entry comes back
 *     solo      an entry; answered when on disk and the  refused: nobody guards its reply
 *               controller has said PASSED (G5)
 *     others    refused; the error names the controller's address
 *
 * Adoption drops what is pending: its outcome is unknown here.
 */
import { MARK_CONNECTION, findCommand, marksOf } from "../../protocol/command-class.js";
import { CLASS_QUERY } from "../../protocol/frame.js";
import {
  PARSED_COMMAND,
  PARSED_FAULT,
  PARSED_NOTHING,
  RespParser,
  makeSink,
  putBytes,
  writeArray,
  writeBulkText,
  writeError,
  writeInteger,
  writeNull,
  writeNullArray,
  writeSimple,
} from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";
import type { AgentConfig } from "./config.js";
import type { CommandView, Executor } from "./execution.js";
import type { Jobs } from "./jobs.js";
import type { AgentPorts } from "./ports.js";
import type { Roles } from "./roles.js";
import { RAN_DONE, RAN_JOB } from "./run-command.js";
import type { CommandRunner } from "./run-command.js";
import { TRANSACTION_MARK } from "./second-real-time-sync.js";
import type { ForwardEnd, Forwarder } from "./second-real-time-sync.js";
import type { SyncLog } from "./sync-log.js";

/** A reply in its place in a client's order; `bytes` is undefined until it is known. */
interface LocalReply {
  bytes: Uint8Array | undefined;
  need: number;
  /** Acknowledged only under the rules of a local command; false for what tells nothing of the data. */
  guarded: boolean;
}

interface LocalClient {
  connection: number;
  parser: RespParser;
  replies: LocalReply[];
  /** Commands of a MULTI being gathered. */
  multi: Uint8Array[] | undefined;
  multiBytes: number;
  multiFailed: boolean;
  authenticated: boolean;
  paused: boolean;
  closing: boolean;
}

const OUT_BYTES = 64 * 1024;

export class LocalPort {
  private readonly clients = new Map<number, LocalClient>();
  private readonly sink: ByteSink = makeSink(4096);
  private watermark = 0;
  private parked = false;
  private nowMs = 0;

  constructor(
    private readonly config: AgentConfig,
    private readonly ports: AgentPorts,
    private readonly roles: Roles,
    private readonly log: SyncLog,
    private readonly runner: CommandRunner,
    private readonly executor: Executor,
    private readonly jobs: Jobs,
    private readonly forwarder: Forwarder,
  ) {}

  owns(connection: number): boolean {
    return this.clients.has(connection);
  }

  count(): number {
    return this.clients.size;
  }

  onOpen(connection: number): void {
    const { limits, localPassword } = this.config;
    if (this.clients.size >= limits.localClientsMax) {
      const sink = makeSink(64);
      writeError(sink, "ERR max number of clients reached");
      this.ports.send(connection, sink.bytes, 0, sink.length);
      this.ports.close(connection, "too many local clients");
      return;
    }
    const client: LocalClient = {
      connection,
      parser: new RespParser({
        argsMax: 1024 * 1024,
        bulkBytesMax: limits.valueBytesMax,
        commandBytesMax: limits.commandBytesMax,
        inlineBytesMax: 65536,
        keptBytesMax: limits.localInputBytesMax,
      }),
      replies: [],
      multi: undefined,
      multiBytes: 0,
      multiFailed: false,
      authenticated: localPassword === "",
      paused: false,
      closing: false,
    };
    client.parser.authenticated = client.authenticated;
    this.clients.set(connection, client);
  }

  onClosed(connection: number): void {
    this.clients.delete(connection);
  }

  onBytes(connection: number, bytes: Uint8Array, start: number, end: number, nowMs: number): void {
    this.nowMs = nowMs;
    const client = this.clients.get(connection);
    if (client === undefined || client.closing) return;
    if (!client.parser.feed(bytes, start, end)) {
      this.drop(client, "more input than " + this.config.limits.localInputBytesMax + " bytes");
      return;
    }
    this.parse(client);
    this.release(client);
  }

  private parse(client: LocalClient): void {
    const { parser } = client;
    while (!client.closing) {
      if (this.parked || this.full(client)) {
        parser.keep();
        if (!client.paused) this.ports.setReading(client.connection, false);
        client.paused = true;
        return;
      }
      const parsed = parser.next();
      if (parsed === PARSED_NOTHING) return;
      if (parsed === PARSED_COMMAND) {
        this.onCommand(client);
        continue;
      }
      if (client.multi !== undefined) client.multiFailed = true;
      this.error(client, parser.problem);
      if (parsed === PARSED_FAULT) client.closing = true;
    }
  }

  /** It has enough waiting, or leaves enough unread. */
  private full(client: LocalClient): boolean {
    const { localWaitingMax, localOutputBytesMax } = this.config.limits;
    return (
      client.replies.length >= localWaitingMax ||
      this.ports.backlog(client.connection) >= localOutputBytesMax
    );
  }

  /** Goes on with clients that were stopped, where there is room again. */
  private resumeClients(): void {
    for (const client of this.clients.values()) {
      if (!client.paused || this.parked) continue;
      if (this.full(client)) continue;
      client.paused = false;
      this.parse(client);
      if (!client.paused) this.ports.setReading(client.connection, true);
      this.release(client);
    }
  }

  // --- replies ------------------------------------------------------------------------------------

  private place(client: LocalClient, guarded: boolean): LocalReply {
    const reply: LocalReply = { bytes: undefined, need: 0, guarded };
    client.replies.push(reply);
    return reply;
  }

  private ready(client: LocalClient, write: (sink: ByteSink) => void): void {
    const sink = makeSink(64);
    write(sink);
    this.place(client, false).bytes = sink.bytes.slice(0, sink.length);
  }

  private error(client: LocalClient, text: string): void {
    this.ready(client, (sink) => writeError(sink, text));
  }

  private errorInto(reply: LocalReply, text: string): void {
    const sink = makeSink(128);
    writeError(sink, text);
    reply.bytes = sink.bytes.slice(0, sink.length);
    reply.guarded = false;
    reply.need = 0;
  }

  private release(client: LocalClient): void {
    const { sink } = this;
    const told = this.roles.localAcknowledged() && this.roles.adopting === undefined;
    let done = 0;
    for (const reply of client.replies) {
      if (reply.bytes === undefined) break;
      if (reply.guarded && (!told || reply.need > this.watermark)) break;
      putBytes(sink, reply.bytes, 0, reply.bytes.length);
      done++;
      if (sink.length >= OUT_BYTES) this.flushTo(client);
    }
    if (done > 0) client.replies.splice(0, done);
    this.flushTo(client);
    if (client.closing && client.replies.length === 0) this.drop(client, "closed by command");
  }

  private flushTo(client: LocalClient): void {
    const { sink } = this;
    if (sink.length === 0) return;
    this.ports.send(client.connection, sink.bytes, 0, sink.length);
    sink.length = 0;
    if (sink.bytes.length > 16 * OUT_BYTES) sink.bytes = new Uint8Array(OUT_BYTES);
  }

  private drop(client: LocalClient, reason: string): void {
    this.clients.delete(client.connection);
    this.ports.close(client.connection, reason);
  }

  /** The watermark moved, PASSED was told, or a forwarded command has come back. */
  advance(watermark: number, nowMs: number): void {
    this.watermark = watermark;
    this.nowMs = nowMs;
    if (this.clients.size === 0) return;
    for (const client of this.clients.values()) {
      if (client.replies.length > 0) this.release(client);
    }
    this.resumeClients();
  }

  park(): void {
    this.parked = true;
  }

  /** Rule 10: what is pending is dropped, its outcome is unknown. */
  adopted(nowMs: number): void {
    this.nowMs = nowMs;
    for (const client of this.clients.values()) {
      for (const reply of client.replies) {
        if (reply.guarded) this.errorInto(reply, "OUTCOMEUNKNOWN the servers' roles have changed");
      }
    }
    this.parked = false;
    this.advance(0, nowMs);
  }

  // --- commands -----------------------------------------------------------------------------------

  private elsewhere(): string {
    return (
      "CLUSTERDOWN no primary: this server is " +
      this.roles.state() +
      "; use the controller at " +
      this.config.controllerAddress
    );
  }

  private onCommand(client: LocalClient): void {
    const { parser } = client;
    const name = nameOf(parser);
    if (!client.authenticated && name !== "AUTH" && name !== "HELLO" && name !== "QUIT") {
      this.error(client, "NOAUTH Authentication required.");
      return;
    }
    if (this.connectionCommand(client, name)) return;
    if (client.multi !== undefined) {
      this.gather(client);
      return;
    }
    const command = parser.bytes.slice(parser.rangeStart, parser.rangeEnd);
    this.dispatch(client, command, parser, undefined);
  }

  private gather(client: LocalClient): void {
    const { parser } = client;
    const command = parser.bytes.slice(parser.rangeStart, parser.rangeEnd);
    client.multiBytes += command.length;
    if (client.multiBytes > this.config.limits.commandBytesMax) {
      client.multiFailed = true;
      this.error(
        client,
        "ERR value too large (limit " + this.config.limits.commandBytesMax + " bytes)",
      );
      return;
    }
    client.multi!.push(command);
    this.ready(client, (sink) => writeSimple(sink, "QUEUED"));
  }

  /** @param transaction the MULTI's commands, one after the other in `command`; undefined: one command, in `view` */
  private dispatch(
    client: LocalClient,
    command: Uint8Array,
    view: CommandView | undefined,
    transaction: CommandView[] | undefined,
  ): void {
    const { duties } = this.roles;
    const isQuery = (one: CommandView): boolean => this.executor.classOf(one) === CLASS_QUERY;
    const onlyReads = view !== undefined ? isQuery(view) : transaction!.every(isQuery);
    if (duties.local === "refuses" || (onlyReads && !duties.localReads)) {
      this.error(client, this.elsewhere());
      return;
    }
    const reply = this.place(client, true);
    if (duties.local === "forwards") {
      const bytes = transaction === undefined ? command : marked(command);
      // A MULTI is answered with what the primary's entry says, also one of reads.
      const isRead = view !== undefined && onlyReads;
      const sent = this.forwarder.forward(bytes, isRead, this.nowMs, (end) =>
        this.onForwardEnd(reply, end),
      );
      if (!sent) this.errorInto(reply, this.elsewhere());
      return;
    }
    this.runHere(reply, view, transaction);
  }

  private onForwardEnd(reply: LocalReply, end: ForwardEnd): void {
    // Told at the end of the turn, when the watermark is known.
    if (end.kind !== "entry") {
      this.errorInto(reply, end.text);
      return;
    }
    reply.bytes = end.reply;
    reply.need = end.index;
  }

  private runHere(
    reply: LocalReply,
    view: CommandView | undefined,
    transaction: CommandView[] | undefined,
  ): void {
    const { runner, log } = this;
    const before = log.end;
    runner.begin();
    const ran =
      view !== undefined ? runner.run(view, this.nowMs) : runner.runAll(transaction!, this.nowMs);
    if (ran === RAN_JOB) {
      if (this.jobs.full()) {
        runner.job!.cancel();
        this.errorInto(reply, "BUSY dyad: too many long commands run");
        return;
      }
      this.jobs.add(runner.job!, (bytes) => {
        // Dropped by an adoption meanwhile.
        if (reply.bytes !== undefined) return;
        reply.bytes = bytes;
        reply.need = this.roles.leads() ? runner.appendNothing(this.nowMs) : log.end;
      });
      return;
    }
    if (ran !== RAN_DONE) {
      this.errorInto(reply, this.elsewhere());
      return;
    }
    reply.bytes = runner.reply.bytes.slice(0, runner.reply.length);
    // What wrote nothing still tells of the data: it takes a place in the order.
    reply.need = log.end > before ? runner.need : runner.appendNothing(this.nowMs);
  }

  /** @returns true when the command concerns the connection and has been answered */
  private connectionCommand(client: LocalClient, name: string): boolean {
    const { parser } = client;
    switch (name) {
      case "QUIT":
        this.ready(client, (sink) => writeSimple(sink, "OK"));
        client.closing = true;
        return true;
      case "AUTH":
        this.auth(client, parser.count === 3 ? 2 : 1, (sink) => writeSimple(sink, "OK"));
        return true;
      case "HELLO":
        this.hello(client);
        return true;
      case "SELECT":
        if (parser.count === 2 && text(parser, 1) === "0") {
          this.ready(client, (sink) => writeSimple(sink, "OK"));
        } else {
          this.error(client, "ERR DB index is out of range");
        }
        return true;
      case "CLIENT":
        this.client(client);
        return true;
      case "MULTI":
        if (client.multi !== undefined) {
          this.error(client, "ERR MULTI calls can not be nested");
          return true;
        }
        client.multi = [];
        client.multiBytes = 0;
        client.multiFailed = false;
        this.ready(client, (sink) => writeSimple(sink, "OK"));
        return true;
      case "DISCARD":
        if (client.multi === undefined) this.error(client, "ERR DISCARD without MULTI");
        else this.ready(client, (sink) => writeSimple(sink, "OK"));
        client.multi = undefined;
        return true;
      case "EXEC":
        this.exec(client);
        return true;
      case "WATCH":
      case "UNWATCH":
        this.error(client, "ERR dyad: " + name + " is not supported");
        return true;
      default:
        return client.multi === undefined && this.plainConnectionCommand(client);
    }
  }

  /** PING, ECHO, COMMAND: they tell nothing of the data, so they are answered at once, in any role. */
  private plainConnectionCommand(client: LocalClient): boolean {
    const { parser, executor } = { parser: client.parser, executor: this.executor };
    const entry = findCommand(parser.bytes, parser.starts[0]!, parser.ends[0]!);
    if (entry < 0 || (marksOf(entry) & MARK_CONNECTION) === 0) return false;
    const reply = makeSink(256);
    const effects = makeSink(64);
    executor.run(parser, reply, effects, 0, false);
    this.place(client, false).bytes = reply.bytes.slice(0, reply.length);
    return true;
  }

  private auth(client: LocalClient, at: number, write: (sink: ByteSink) => void): void {
    const { parser } = client;
    const { localPassword } = this.config;
    if (parser.count <= at) {
      this.error(client, "ERR wrong number of arguments for 'auth' command");
    } else if (localPassword === "") {
      this.error(
        client,
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
      );
    } else if (text(parser, at) === localPassword) {
      client.authenticated = true;
      parser.authenticated = true;
      this.ready(client, write);
    } else {
      this.error(client, "WRONGPASS invalid username-password pair or user is disabled.");
    }
  }

  private hello(client: LocalClient): void {
    const { parser } = client;
    if (parser.count > 1 && text(parser, 1) !== "2") {
      this.error(client, "NOPROTO unsupported protocol version");
      return;
    }
    const answer = (sink: ByteSink): void => {
      writeArray(sink, 14);
      const pairs: [string, string | number | undefined][] = [
        ["server", "redis"],
        ["version", "7.0.0"],
        ["proto", 2],
        ["id", client.connection],
        ["mode", "standalone"],
        ["role", this.roles.leads() ? "master" : "replica"],
        ["modules", undefined],
      ];
      for (const [key, value] of pairs) {
        writeBulkText(sink, key);
        if (value === undefined) writeArray(sink, 0);
        else if (typeof value === "number") writeInteger(sink, value);
        else writeBulkText(sink, value);
      }
    };
    for (let i = 2; i < parser.count; i++) {
      if (text(parser, i).toUpperCase() === "AUTH" && i + 2 < parser.count) {
        this.auth(client, i + 2, answer);
        return;
      }
    }
    if (!client.authenticated) {
      this.error(client, "NOAUTH HELLO must be called with the client already authenticated.");
      return;
    }
    this.ready(client, answer);
  }

  private client(client: LocalClient): void {
    const { parser } = client;
    const verb = parser.count > 1 ? text(parser, 1).toUpperCase() : "";
    if (verb === "ID") this.ready(client, (sink) => writeInteger(sink, client.connection));
    else if (verb === "GETNAME") this.ready(client, (sink) => writeNull(sink));
    else if (
      verb === "SETNAME" ||
      verb === "SETINFO" ||
      verb === "NO-EVICT" ||
      verb === "NO-TOUCH"
    ) {
      this.ready(client, (sink) => writeSimple(sink, "OK"));
    } else this.error(client, "ERR dyad: CLIENT " + verb + " is not supported");
  }

  private exec(client: LocalClient): void {
    const { multi, multiFailed } = client;
    client.multi = undefined;
    if (multi === undefined) {
      this.error(client, "ERR EXEC without MULTI");
      return;
    }
    if (multiFailed) {
      this.error(client, "EXECABORT Transaction discarded because of previous errors.");
      return;
    }
    if (multi.length === 0) {
      this.ready(client, (sink) => writeArray(sink, 0));
      return;
    }
    const sink = makeSink(client.multiBytes);
    for (const command of multi) putBytes(sink, command, 0, command.length);
    const bytes = sink.bytes.slice(0, sink.length);
    const views = viewsOf(bytes, this.config);
    if (views === undefined) {
      this.ready(client, (into) => writeNullArray(into));
      return;
    }
    this.dispatch(client, bytes, undefined, views);
  }
}

function viewsOf(bytes: Uint8Array, config: AgentConfig): CommandView[] | undefined {
  const { limits } = config;
  const parser = new RespParser({
    argsMax: 1024 * 1024,
    bulkBytesMax: limits.valueBytesMax,
    commandBytesMax: limits.commandBytesMax,
    inlineBytesMax: 65536,
    keptBytesMax: limits.commandBytesMax,
  });
  const views: CommandView[] = [];
  parser.feed(bytes, 0, bytes.length);
  for (;;) {
    const parsed = parser.next();
    if (parsed === PARSED_NOTHING) return views;
    if (parsed !== PARSED_COMMAND) return undefined;
    views.push({
      bytes: parser.bytes,
      count: parser.count,
      starts: parser.starts.slice(0, parser.count),
      ends: parser.ends.slice(0, parser.count),
    });
  }
}

function marked(commands: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(TRANSACTION_MARK.length + commands.length);
  bytes.set(TRANSACTION_MARK, 0);
  bytes.set(commands, TRANSACTION_MARK.length);
  return bytes;
}

function text(parser: RespParser, index: number): string {
  let out = "";
  for (let at = parser.starts[index]!; at < parser.ends[index]! && out.length < 512; at++) {
    out += String.fromCharCode(parser.bytes[at]!);
  }
  return out;
}

function nameOf(parser: RespParser): string {
  return parser.ends[0]! - parser.starts[0]! > 16 ? "" : text(parser, 0).toUpperCase();
}
