/** Runs commands on a keyspace of their own, as the agent's core does: run, apply, step jobs, write behind. */
import { createExecutor } from "../../agent/commands/executor.js";
import { createKeyspace } from "../../agent/commands/keyspace.js";
import type { KeyspaceState } from "../../agent/commands/keyspace.js";
import type { ByteSink, CommandView, Executor, Ran } from "../../agent/core/execution.js";
import { createMemoryStore } from "../../agent/store/memory.js";
import type { MemoryStore } from "../../agent/store/memory.js";
import type { Store } from "../../agent/core/store.js";

export type Argument = string | Uint8Array;

export function makeSink(): ByteSink {
  return { bytes: new Uint8Array(64), length: 0 };
}

export function viewOf(args: Argument[]): CommandView {
  const parts = args.map((a) =>
    typeof a === "string" ? Buffer.from(a, "latin1") : Buffer.from(a),
  );
  const starts: number[] = [];
  const ends: number[] = [];
  let at = 0;
  for (const part of parts) {
    starts.push(at);
    at += part.length;
    ends.push(at);
  }
  return { bytes: new Uint8Array(Buffer.concat(parts)), count: args.length, starts, ends };
}

export interface Entry {
  index: number;
  effects: Uint8Array;
}

export class Subject {
  keyspace: KeyspaceState;
  executor: Executor;
  index = 0;
  now = 1_000_000;
  /** Entries so far, as the log would keep them. */
  readonly log: Entry[] = [];
  last: Ran | undefined;

  constructor(
    readonly store: Store = createMemoryStore(),
    limits = { valueBytesMax: 1 << 20, entryBytesMax: 16 << 20 },
  ) {
    this.keyspace = createKeyspace(store);
    this.executor = createExecutor(this.keyspace, limits);
  }

  /** The reply, as latin1 text. */
  do(...args: Argument[]): string {
    const reply = makeSink();
    const effects = makeSink();
    const ran = this.executor.run(viewOf(args), reply, effects, this.now, true);
    return this.finish(ran, reply, effects);
  }

  /** A MULTI's commands; the reply of EXEC. */
  all(...commands: Argument[][]): string {
    const reply = makeSink();
    const effects = makeSink();
    const ran = this.executor.runAll(commands.map(viewOf), reply, effects, this.now);
    return this.finish(ran, reply, effects);
  }

  private finish(ran: Ran, reply: ByteSink, effects: ByteSink): string {
    this.last = { ...ran };
    if (ran.wrote !== effects.length > 0) throw new Error("wrote does not fit the effects");
    if (ran.wrote) {
      const bytes = effects.bytes.slice(0, effects.length);
      this.index++;
      this.log.push({ index: this.index, effects: bytes });
      this.keyspace.apply(bytes, 0, bytes.length, this.index, undefined);
    }
    if (ran.job === undefined) return text(reply);
    if (ran.wrote) throw new Error("a job with effects");
    let steps = 0;
    while (!ran.job.step(37)) if (++steps > 1e6) throw new Error("a job without end");
    return text(ran.job.reply);
  }

  expire(max: number): boolean {
    const effects = makeSink();
    const due = this.executor.expireDue(this.now, effects, max);
    if (!due) return false;
    this.index++;
    const bytes = effects.bytes.slice(0, effects.length);
    this.log.push({ index: this.index, effects: bytes });
    this.keyspace.apply(bytes, 0, bytes.length, this.index, undefined);
    return true;
  }

  /** Writes behind; with a store in memory it stays pending until `settle`. */
  behind(max: number, upTo = Infinity): void {
    let token = 0;
    (this.store as MemoryStore).commit(
      (writer) => {
        token = this.keyspace.writeBehind(writer, max, upTo);
      },
      (error) => {
        if (error !== undefined) throw error;
        if (token !== 0) this.keyspace.writtenBehind(token);
      },
      false,
    );
  }

  settle(): void {
    (this.store as MemoryStore).flush();
  }
}

function text(sink: ByteSink): string {
  return Buffer.from(sink.bytes.subarray(0, sink.length)).toString("latin1");
}
