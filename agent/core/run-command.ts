/**
 * Runs commands and makes entries of them: the part of the hot path between a parsed command and its
 * reply. Everything here is reused from command to command.
 *
 *     command ──> executor ──> reply, effects ──> entry in the log ──> overlay, dirty keys, session table
 */
import { readU32 } from "../../protocol/frame.js";
import { assert } from "../../protocol/malformed.js";
import { makeSink, writeBulkText, writeError, writeSimple } from "../../protocol/resp.js";
import type { ByteSink } from "../../protocol/resp.js";
import { ENTRY_MARK, ENTRY_REPLY_GONE, ENTRY_RESULT, makeEntryView } from "./chunk.js";
import type { EntryParts, EntryView } from "./chunk.js";
import type { CommandView, Executor, Job, Keyspace, Ran } from "./execution.js";
import type { AgentLimits } from "./limits.js";
import type { LogClock } from "./log-clock.js";
import type { DirtyKeys } from "./release.js";
import type { Roles } from "./roles.js";
import { SESSION_CLIENT, sessionKey } from "./session-table.js";
import type { Session, SessionTable } from "./session-table.js";
import type { SyncLog } from "./sync-log.js";

/** The reply is in `reply` and may be told when the watermark has reached `need`. */
export const RAN_DONE = 0;
/** The reply comes from `job`. */
export const RAN_JOB = 1;
/** A key was past due on a server that may not log: the primary must be asked. */
export const RAN_PAST_DUE = 2;
/** A retry whose reply is no longer known: outcome unknown, why is in `why`. */
export const RAN_UNKNOWN = 3;

const SINK_BYTES_KEPT = 4 * 1024 * 1024;

export class CommandRunner {
  reply: ByteSink = makeSink(1024);
  /** Log index the reply needs. */
  need = 0;
  job: Job | undefined;
  /** The job's reply depends on the log as it is when it ends. */
  why = "";

  private readonly effects: ByteSink = makeSink(1024);
  private readonly ops: ByteSink = makeSink(256);
  private readonly parts: EntryParts;
  private readonly view: EntryView = makeEntryView();
  private readonly touched: string[] = [];

  /** Set by `session`: the command's place in the session table; -1: it has none. */
  private slot = -1;
  private number = 0;
  private mark = false;
  private always = false;

  constructor(
    private readonly log: SyncLog,
    private readonly clock: LogClock,
    private readonly roles: Roles,
    private readonly table: SessionTable,
    private readonly dirty: DirtyKeys,
    private readonly keyspace: Keyspace,
    private readonly executor: Executor,
    private readonly limits: AgentLimits,
    private readonly random: (count: number) => Uint8Array,
  ) {
    this.parts = {
      flags: 0,
      slot: 0,
      number: 0,
      reply: this.reply,
      replyStart: 0,
      replyEnd: 0,
      ops: this.ops,
      effects: this.effects,
    };
  }

  /** Begins a command: no session, empty reply. */
  begin(): void {
    this.slot = -1;
    this.mark = false;
    this.always = false;
    this.ops.length = 0;
    this.reply.length = 0;
    this.need = 0;
    this.job = undefined;
    if (this.reply.bytes.length > SINK_BYTES_KEPT) this.reply.bytes = new Uint8Array(16 * 1024);
    if (this.effects.bytes.length > SINK_BYTES_KEPT) {
      this.effects.bytes = new Uint8Array(16 * 1024);
    }
  }

  /**
   * The command is number `number` of a session.
   * @param kind what to open where the id is not known; SESSION_CLIENT: nothing, such a session is gone
   * @returns true when it is to be run; else the reply is made: RAN_DONE or RAN_UNKNOWN in `refusal`
   */
  session(id: string, kind: number, number: number, answeredBelow: number, nowMs: number): boolean {
    const { table } = this;
    const session = table.get(id);
    if (session === undefined) {
      if (kind === SESSION_CLIENT)
        return this.unknown("the session is not known (expired or closed)");
      this.slot = table.writeOpen(this.ops, id, kind);
      assert(this.slot >= 0, "a slot for the pair's own sessions");
      this.number = number;
      return true;
    }
    session.usedMs = nowMs;
    if (number <= session.highest) {
      const place = session.find(number);
      if (place >= 0) return this.answerAgain(session, place);
    }
    if (number < session.floor) return this.unknown("the number is outside the session's window");
    this.slot = session.slot;
    this.number = number;
    if (answeredBelow - session.floor >= session.window >>> 3) {
      table.writeAck(this.ops, session.slot, answeredBelow);
    }
    return true;
  }

  /** How a command that is not run ends. */
  refusal = RAN_DONE;

  private unknown(why: string): boolean {
    this.why = why;
    this.refusal = RAN_UNKNOWN;
    return false;
  }

  private answerAgain(session: Session, place: number): boolean {
    const kept = session.replyAt(place);
    if (kept === undefined)
      return this.unknown("it was done before, but its reply was too long to keep");
    this.reply.length = 0;
    if (this.reply.bytes.length < kept.length) this.reply.bytes = new Uint8Array(2 * kept.length);
    this.reply.bytes.set(kept, 0);
    this.reply.length = kept.length;
    this.need = session.indexAt(place);
    this.refusal = RAN_DONE;
    return false;
  }

  /** The asker only waits for its entry: it is made whatever the command does, and holds no reply. */
  markOnly(): void {
    this.mark = true;
  }

  /**
   * A command of the other server's local port: it becomes an entry whatever it does, with the whole
   * reply, since it is answered there when the entry comes.
   */
  alwaysEntry(): void {
    this.always = true;
  }

  /** @returns RAN_*; on a leading server what was written has become an entry */
  run(command: CommandView, nowMs: number): number {
    const leads = this.roles.leads();
    if (leads && isSessionCommand(command)) return this.sessionCommand(command, nowMs);
    this.effects.length = 0;
    const timeMs = this.clock.timeMs(nowMs);
    const ran = this.executor.run(command, this.reply, this.effects, timeMs, leads);
    return this.finish(ran, leads, timeMs, nowMs);
  }

  /** A past-due read on the standby after its entry came back: a key is there until its expiry entry. */
  runAsOfLog(command: CommandView, nowMs: number): number {
    this.effects.length = 0;
    const ran = this.executor.run(command, this.reply, this.effects, 0, false);
    return this.finish(ran, false, 0, nowMs);
  }

  /** The commands of one MULTI, as one entry. */
  runAll(commands: CommandView[], nowMs: number): number {
    this.effects.length = 0;
    const timeMs = this.clock.timeMs(nowMs);
    const ran = this.executor.runAll(commands, this.reply, this.effects, timeMs);
    return this.finish(ran, true, timeMs, nowMs);
  }

  private finish(ran: Ran, leads: boolean, timeMs: number, nowMs: number): number {
    if (ran.pastDue && !leads) return RAN_PAST_DUE;
    if (ran.wrote) {
      assert(leads, "only the primary has effects");
      assert(ran.job === undefined, "a job has no effects");
      if (this.effects.length > this.limits.entryBytesMax) {
        // Nothing was applied yet, so this is surely not done.
        this.reply.length = 0;
        writeError(
          this.reply,
          "ERR dyad: the command changes too much at once (limit " +
            this.limits.entryBytesMax +
            " bytes)",
        );
        return RAN_DONE;
      }
      this.entry(timeMs, nowMs);
      return RAN_DONE;
    }
    if (this.mark || this.always) {
      assert(leads, "only the primary makes entries");
      ran.job?.cancel();
      this.effects.length = 0;
      this.entry(timeMs, nowMs);
      return RAN_DONE;
    }
    if (ran.job !== undefined) {
      this.job = ran.job;
      return RAN_JOB;
    }
    if (this.slot >= 0 && leads) {
      // A numbered change that changed nothing is remembered as well: asked again after a failover it would run
      // behind later commands of its connection that were done, and might change something then.
      this.effects.length = 0;
      this.entry(timeMs, nowMs);
      return RAN_DONE;
    }
    this.need = this.needOf(ran);
    return RAN_DONE;
  }

  /** The last entry a reply that wrote nothing may tell of. */
  private needOf(ran: Ran): number {
    if (ran.wholeLog) return this.log.end;
    let need = 0;
    const { keys } = ran;
    for (let i = 0; i < keys.length; i++) {
      const last = this.dirty.lastOf(keys[i]!);
      if (last > need) need = last;
    }
    return need;
  }

  private entry(timeMs: number, nowMs: number): void {
    const { parts, limits } = this;
    parts.flags = 0;
    if (this.slot >= 0) {
      parts.flags = ENTRY_RESULT;
      parts.slot = this.slot;
      parts.number = this.number;
      parts.replyStart = 0;
      parts.replyEnd = this.reply.length;
      const longest = this.always ? limits.entryBytesMax : limits.keptReplyBytesMax;
      if (this.mark || this.reply.length > longest) {
        parts.replyEnd = 0;
        parts.flags |= this.mark ? ENTRY_MARK : ENTRY_REPLY_GONE;
      }
    }
    this.append(timeMs, nowMs);
  }

  private append(timeMs: number, nowMs: number): void {
    const { parts, touched, effects } = this;
    const stampMs = timeMs > this.log.timeMs ? timeMs : this.log.timeMs;
    const index = this.log.append(this.roles.logEpoch(), stampMs, nowMs, parts);
    // Without effects too: the keyspace counts how far it has come.
    touched.length = 0;
    const all = this.keyspace.apply(effects.bytes, 0, effects.length, index, touched);
    if (all) this.dirty.markAll(index);
    else if (touched.length > 0) this.dirty.mark(touched, index);
    if (this.ops.length > 0) {
      this.view.bytes = this.ops.bytes;
      this.view.opsStart = 0;
      this.view.opsEnd = this.ops.length;
      const sound = this.table.apply(this.view, nowMs);
      assert(sound, "own session operations");
    }
    if ((parts.flags & ENTRY_RESULT) !== 0) {
      this.view.bytes = this.reply.bytes;
      this.view.flags = parts.flags;
      this.view.slot = parts.slot;
      this.view.number = parts.number;
      this.view.replyStart = parts.replyStart;
      this.view.replyEnd = parts.replyEnd;
      this.table.keep(this.view, index, nowMs);
    }
    this.need = index;
  }

  /** An entry of effects alone (expiry), without a command. @returns its index */
  appendEffects(fill: (effects: ByteSink, timeMs: number) => boolean, nowMs: number): number {
    this.begin();
    this.effects.length = 0;
    const timeMs = this.clock.timeMs(nowMs);
    if (!fill(this.effects, timeMs)) return 0;
    this.parts.flags = 0;
    this.append(timeMs, nowMs);
    return this.need;
  }

  /** An entry that does nothing: a local read's place in the order. @returns its index */
  appendNothing(nowMs: number): number {
    this.begin();
    this.effects.length = 0;
    this.parts.flags = 0;
    this.append(this.clock.timeMs(nowMs), nowMs);
    return this.need;
  }

  /** An entry of session operations alone. */
  appendOps(write: (ops: ByteSink) => void, nowMs: number): number {
    this.begin();
    this.effects.length = 0;
    write(this.ops);
    if (this.ops.length === 0) return 0;
    this.parts.flags = 0;
    this.append(this.clock.timeMs(nowMs), nowMs);
    return this.need;
  }

  /**
   * DYAD.SESSION OPEN [id] · DYAD.SESSION CLOSE id: a client's session for exactly-once writes. The id
   * is 16 hex digits; a client that chooses it may ask again. Answers OPEN with the id.
   */
  private sessionCommand(command: CommandView, nowMs: number): number {
    const { reply, table } = this;
    const verb = command.count > 1 ? argument(command, 1).toUpperCase() : "";
    let id = command.count > 2 ? keyOfHex(argument(command, 2)) : "";
    this.effects.length = 0;
    if (verb === "OPEN" && command.count <= 3) {
      if (command.count === 2) id = sessionKey(this.random(8), 0);
      if (id === undefined || id === "") {
        writeError(reply, "ERR a session id is 16 hex digits");
        return RAN_DONE;
      }
      if (table.get(id) === undefined) {
        if (table.writeOpen(this.ops, id, SESSION_CLIENT, this.slot) < 0) {
          writeError(reply, "BUSY dyad: too many sessions (limit " + this.limits.sessionsMax + ")");
          return RAN_DONE;
        }
        this.entryOfOps(nowMs);
      } else {
        this.need = this.log.end;
      }
      writeBulkText(reply, hexOfKey(id));
      return RAN_DONE;
    }
    if (verb === "CLOSE" && command.count === 3) {
      if (id === undefined || id === "") {
        writeError(reply, "ERR a session id is 16 hex digits");
        return RAN_DONE;
      }
      const session = table.get(id);
      if (session !== undefined && session.kind === SESSION_CLIENT) {
        table.writeClose(this.ops, session.slot);
        this.entryOfOps(nowMs);
      } else {
        this.need = this.log.end;
      }
      writeSimple(reply, "OK");
      return RAN_DONE;
    }
    writeError(reply, "ERR usage: DYAD.SESSION OPEN [id] | DYAD.SESSION CLOSE id");
    return RAN_DONE;
  }

  private entryOfOps(nowMs: number): void {
    this.parts.flags = 0;
    this.append(this.clock.timeMs(nowMs), nowMs);
  }
}

/** The 16-byte prefix of a command with FLAG_SESSION: id, number, answeredBelow. */
export function prefixNumber(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at + 8);
}

export function prefixBelow(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at + 12);
}

const SESSION_COMMAND = "dyad.session";

export function isSessionCommand(command: CommandView): boolean {
  const start = command.starts[0]!;
  if (command.count === 0 || command.ends[0]! - start !== SESSION_COMMAND.length) return false;
  for (let i = 0; i < SESSION_COMMAND.length; i++) {
    if ((command.bytes[start + i]! | 32) !== (SESSION_COMMAND.charCodeAt(i) | 32)) return false;
  }
  return true;
}

function argument(command: CommandView, index: number): string {
  let text = "";
  for (let at = command.starts[index]!; at < command.ends[index]! && text.length < 64; at++) {
    text += String.fromCharCode(command.bytes[at]!);
  }
  return text;
}

function keyOfHex(hex: string): string | undefined {
  if (!/^[0-9a-fA-F]{16}$/.test(hex)) return undefined;
  let key = "";
  for (let i = 0; i < 16; i += 2) key += String.fromCharCode(parseInt(hex.slice(i, i + 2), 16));
  return key;
}

export function hexOfKey(key: string): string {
  let hex = "";
  for (let i = 0; i < key.length; i++) hex += key.charCodeAt(i).toString(16).padStart(2, "0");
  return hex;
}
