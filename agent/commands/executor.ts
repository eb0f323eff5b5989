/**
 * Runs commands: finds the function of a command by name, checks it as Redis does before running it, and
 * turns what it left in its context into a result.
 */
import {
  arityFits,
  classOf,
  findCommand,
  firstKeyOf,
  keyStepOf,
  lastKeyOf,
  MARK_CONTAINER,
  marksOf,
  nameOf,
  resolveCommand,
} from "../../protocol/command-class.js";
import { CLASS_WRITE } from "../../protocol/frame.js";
import { assert } from "../../protocol/malformed.js";
import { putBytes, writeArray, writeError } from "../../protocol/resp.js";
import type { ByteSink, CommandView, Executor, Job, Ran } from "../core/execution.js";
import { Context, NAME_BYTES_MAX, NAMES_MAX, REPLY_BYTES_MAX } from "./context.js";
import type { CommandLimits, CommandRun } from "./context.js";
import { EXPIRY_COMMANDS } from "./expiry.js";
import { HASH_COMMANDS } from "./hashes.js";
import { KEY_COMMANDS } from "./keys.js";
import { fromLatin1, getU48, latin1 } from "./key-hash.js";
import { ELEMENT_BYTES, replyTooLong } from "./listing.js";
import type { KeyspaceState } from "./keyspace.js";
import { follow } from "./keyspace.js";
import { expiryKey, KIND_HASH, KIND_NONE, keyOfDataKey } from "./rows.js";
import type { KeyState } from "./rows.js";
import { effectDel, effectHashDrop } from "./effects.js";
import { SERVER_COMMANDS } from "./server.js";
import { STRING_COMMANDS } from "./strings.js";

/** More keys than this in one reply: it waits for the whole log instead. */
const KEYS_TOLD_MAX = 16;
/** Work the long commands inside one MULTI may do, all together: they cannot be stepped. */
const TRANSACTION_WORK_MAX = 20000;

const HANDLERS = handlers();

function handlers(): Map<number, CommandRun> {
  const families = [STRING_COMMANDS, KEY_COMMANDS, EXPIRY_COMMANDS, HASH_COMMANDS, SERVER_COMMANDS];
  const found = new Map<number, CommandRun>();
  for (const family of families) {
    for (const name of Object.keys(family)) {
      const bytes = fromLatin1(name);
      const entry = findCommand(bytes, 0, bytes.length);
      assert(entry >= 0, `the command table lists ${name}`);
      found.set(entry, family[name]!);
    }
  }
  return found;
}

export function createExecutor(keyspace: KeyspaceState, limits: CommandLimits): Executor {
  return new CommandExecutor(keyspace, limits);
}

/** The result of a run is reused by the next one. */
class CommandExecutor implements Executor {
  private readonly context: Context;
  private readonly ran: Ran = {
    wrote: false,
    wholeLog: false,
    keys: [],
    job: undefined,
    pastDue: false,
  };

  constructor(
    private readonly keyspace: KeyspaceState,
    limits: CommandLimits,
  ) {
    this.context = new Context(keyspace, limits);
  }

  run(
    command: CommandView,
    reply: ByteSink,
    effects: ByteSink,
    logTimeMs: number,
    mayWrite: boolean,
  ): Ran {
    const c = this.context;
    // Whole milliseconds: a time of expiry is a fact, and facts are whole numbers.
    c.begin(reply, effects, Math.floor(logTimeMs), mayWrite);
    const effectsStart = effects.length;
    this.one(command);
    assert(mayWrite || effects.length === effectsStart, "a standby has no effects of its own");
    return this.result(effects.length > effectsStart);
  }

  runAll(commands: CommandView[], reply: ByteSink, effects: ByteSink, logTimeMs: number): Ran {
    const c = this.context;
    c.begin(reply, effects, Math.floor(logTimeMs), true);
    for (const command of commands) {
      if (this.problemOf(command) === undefined) continue;
      writeError(reply, "EXECABORT Transaction discarded because of previous errors.");
      return this.result(false);
    }
    c.tracking = true;
    c.rowsLeft = TRANSACTION_WORK_MAX;
    const effectsStart = effects.length;
    let work = TRANSACTION_WORK_MAX;
    writeArray(reply, commands.length);
    for (const command of commands) {
      const replyStart = reply.length;
      this.one(command);
      // A command may have turned it off for itself.
      c.tracking = true;
      if (c.job !== undefined) {
        const before = work;
        work = this.finishNow(c.job, work, reply);
        assert(work <= before, "work only shrinks");
        c.job = undefined;
      }
      if (reply.length > REPLY_BYTES_MAX && reply.length - replyStart > ELEMENT_BYTES) {
        reply.length = replyStart;
        writeError(reply, replyTooLong());
      }
    }
    return this.result(effects.length > effectsStart);
  }

  classOf(command: CommandView): number {
    if (command.count === 0) return CLASS_WRITE;
    return classOf(resolveCommand(command.bytes, command.count, command.starts, command.ends));
  }

  expireDue(logTimeMs: number, effects: ByteSink, max: number): boolean {
    const now = Math.floor(logTimeMs);
    const { keyspace } = this;
    const due = new Map<string, KeyState>();
    for (const item of keyspace.expiring) {
      if (due.size >= max) break;
      const { state } = item;
      if (state.kind !== KIND_NONE && state.expireAt > 0 && state.expireAt < now) {
        due.set(item.name, state);
      }
    }
    if (keyspace.masks === 0 && due.size < max) {
      let from = expiryKey(0, new Uint8Array(0));
      const to = expiryKey(now, new Uint8Array(0));
      // Rows of keys that have changed since are passed over; they are few, and so are the rounds.
      for (let round = 0; round < 8 && due.size < max; round++) {
        const rows = keyspace.store.range("expiry", from, to, max);
        for (const { key } of rows) {
          if (due.size >= max) break;
          const name = keyOfDataKey(key.subarray(6));
          const state = keyspace.lookup(name);
          if (state.kind !== KIND_NONE && state.expireAt === getU48(key, 0)) due.set(name, state);
        }
        if (rows.length < max) break;
        from = follow(rows[rows.length - 1]!.key);
      }
    }
    for (const [name, state] of due) {
      if (state.kind === KIND_HASH) effectHashDrop(effects, state.id!);
      effectDel(effects, name);
    }
    return due.size > 0;
  }

  private result(wrote: boolean): Ran {
    const { ran, context: c } = this;
    ran.wrote = wrote;
    ran.job = c.job;
    ran.pastDue = c.pastDue;
    ran.keys = c.keys;
    ran.wholeLog = c.wholeLog || c.keys.length > KEYS_TOLD_MAX;
    return ran;
  }

  /** Runs one command; an error takes back what it wrote. */
  private one(command: CommandView): void {
    const c = this.context;
    const { reply, effects } = c;
    c.view(command);
    const entry = command.count > 0 ? entryOf(command) : -1;
    const handler = HANDLERS.get(entry);
    let problem: string | undefined;
    if (handler === undefined) problem = unknownCommand(command);
    else if (!arityFits(entry, command.count)) problem = wrongArity(entry);
    else {
      problem = nameProblem(command, entry);
      if (problem === undefined) {
        const replyStart = reply.length;
        const effectsStart = effects.length;
        c.name = nameOf(entry);
        problem = handler(c);
        if (problem !== undefined) {
          reply.length = replyStart;
          effects.length = effectsStart;
          c.job = undefined;
        }
      }
    }
    if (problem !== undefined) writeError(reply, problem);
  }

  /** What makes EXEC refuse the whole transaction. */
  private problemOf(command: CommandView): string | undefined {
    const entry = command.count > 0 ? entryOf(command) : -1;
    if (!HANDLERS.has(entry)) return unknownCommand(command);
    if (!arityFits(entry, command.count)) return wrongArity(entry);
    return undefined;
  }

  /** @returns the work that is left */
  private finishNow(job: Job, work: number, reply: ByteSink): number {
    let left = work;
    while (left > 0) {
      const share = left < 1000 ? left : 1000;
      left -= share;
      if (!job.step(share)) continue;
      putBytes(reply, job.reply.bytes, 0, job.reply.length);
      return left;
    }
    job.cancel();
    writeError(reply, "ERR dyad: a command this long cannot run inside MULTI");
    return 0;
  }
}

function entryOf(command: CommandView): number {
  return findCommand(command.bytes, command.starts[0]!, command.ends[0]!);
}

/** Bounds that Redis does not have: on keys and fields, and on how many one command may name. */
function nameProblem(command: CommandView, entry: number): string | undefined {
  const { count, starts, ends } = command;
  const first = firstKeyOf(entry);
  if (first > 0) {
    const last = count === 2 ? 1 : lastKeyOf(entry, count);
    const step = keyStepOf(entry);
    for (let i = first; i <= last && i < count; i += step) {
      if (ends[i]! - starts[i]! > NAME_BYTES_MAX) {
        return `ERR key too long (limit ${NAME_BYTES_MAX} bytes)`;
      }
    }
  }
  if (count > NAMES_MAX) {
    return `ERR dyad: too many arguments in one command (limit ${NAMES_MAX})`;
  }
  return undefined;
}

function wrongArity(entry: number): string {
  return `ERR wrong number of arguments for '${nameOf(entry)}' command`;
}

/** The text of Redis 7, cut where it cuts. */
function unknownCommand(command: CommandView): string {
  const { bytes, starts, ends, count } = command;
  const shown = (index: number, most: number): string => {
    let end = starts[index]!;
    while (end < ends[index]! && end - starts[index]! < most && bytes[end] !== 0) end++;
    return latin1(bytes, starts[index]!, end);
  };
  if (count === 0) return "ERR unknown command";
  const entry = entryOf(command);
  if (entry >= 0 && HANDLERS.has(entry) && (marksOf(entry) & MARK_CONTAINER) !== 0) {
    return `ERR unknown subcommand '${shown(1, 128)}'. Try ${nameOf(entry).toUpperCase()} HELP.`;
  }
  let args = "";
  for (let i = 1; i < count && args.length < 128; i++) args += `'${shown(i, 128 - args.length)}' `;
  return `ERR unknown command '${shown(0, 128)}', with args beginning with: ${args}`;
}
