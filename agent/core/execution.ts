/**
 * The seam between the replication core and the commands: what a command may read and write, and
 * what comes back from running one.
 *
 * A command runs at once, against the newest state (overlay, then store). It writes its reply into a
 * reply writer and its effects into an effect writer; effects are absolute, so applying them twice is the
 * same as once. The core turns the effects into a log entry; nothing is visible to a client before
 * the release rule says so.
 */

/** Growable byte buffer with a write position; reused from command to command. */
export interface ByteSink {
  bytes: Uint8Array;
  length: number;
}

/** A command as it stands in a buffer: argument i is bytes[starts[i]..ends[i]). Reused between commands. */
export interface CommandView {
  bytes: Uint8Array;
  count: number;
  starts: Int32Array | number[];
  ends: Int32Array | number[];
}

/** A command too long for one turn (KEYS, big HGETALL, a copy): advanced in steps. */
export interface Job {
  /** Works until about `budgetMs` is spent (the core passes a work count, not a clock). @returns true when the reply is whole in `reply`. */
  step(workMax: number): boolean;
  reply: ByteSink;
  cancel(): void;
}

/** What became of one command. */
export interface Ran {
  /** Effects were written: this command becomes an entry. */
  wrote: boolean;
  /** The reply depends on more than the keys listed: release at log end. */
  wholeLog: boolean;
  /** Keys the reply depends on (latin1 strings); at most a few, else wholeLog. */
  keys: string[];
  /** Set when the reply is not whole yet. */
  job: Job | undefined;
  /** A key found past due on a server that may not log: ask the primary. */
  pastDue: boolean;
}

/** Runs commands against the newest state. */
export interface Executor {
  /**
   * Runs one command. Bad input is answered in the reply as Redis 7 does, with no effects.
   * @param logTimeMs the log time this command would carry
   * @param mayWrite false on a standby (effects would be a bug: asserted)
   */
  run(
    command: CommandView,
    reply: ByteSink,
    effects: ByteSink,
    logTimeMs: number,
    mayWrite: boolean,
  ): Ran;
  /** Runs a MULTI's commands as one; the reply is the array EXEC gives (or -EXECABORT). */
  runAll(commands: CommandView[], reply: ByteSink, effects: ByteSink, logTimeMs: number): Ran;
  /** Class the server itself gives a command (protocol/frame.ts CLASS_*), to refuse a lie. */
  classOf(command: CommandView): number;
  /** Effects that expire up to `max` keys due at logTimeMs; false when none was due. */
  expireDue(logTimeMs: number, effects: ByteSink, max: number): boolean;
}

/** The keyspace: current state = store + overlay of effects not yet written behind. */
export interface Keyspace {
  /** Applies an entry's effects to the overlay. `index` is the entry's log index. Throws on malformed effects (nothing applied). @param touched gets the latin1 key names it touched; undefined where not wanted. @returns true when it touched the whole keyspace (FLUSHDB). */
  apply(
    effects: Uint8Array,
    start: number,
    end: number,
    index: number,
    touched: string[] | undefined,
  ): boolean;
  /**
   * Writes up to `max` overlay keys into a transaction; with `appliedIndex()` it says what the store then holds.
   * The order is its own (that of the rows, in laps); `appliedIndex` moves on when a lap has come to its end.
   * @param upTo leaves out keys whose newest effect has a greater log index (what no confirm covers yet may have
   *   to be taken back, and the store cannot take back); the greatest index by default
   * @param maxBytes ends it when values of this many bytes are in it; no bound by default
   * @returns a token for writtenBehind; 0 when nothing was written
   */
  writeBehind(
    writer: import("./store.js").StoreWriter,
    max: number,
    upTo?: number,
    maxBytes?: number,
  ): number;
  /** Told when that transaction is flushed, so the overlay may forget. */
  writtenBehind(token: number): void;
  /** Log index up to which the store's tables hold all effects once the pending transactions are done. */
  appliedIndex(): number;
  /** Keys, fields and dropped hashes that wait for the store. */
  overlaySize(): number;
  /** Bytes of their values. */
  overlayBytes(): number;
  /** Dropped hashes of which rows are still to be removed. */
  dropping(): number;
  /**
   * Forgets the overlay: from here on the state is what the store's tables hold, which have all effects up to
   * `appliedIndex`. Called at start, before the log behind it is replayed; after entries were set aside; and
   * when a copy replaces the tables (no writeBehind token is outstanding then).
   */
  reset(appliedIndex: number): void;
  /**
   * Puts a data row copied from the other server, and its expiry row in place of the one the key had here.
   * Called after writeBehind in the same transaction, if both are; `reset` must follow before anything is read.
   */
  putRow(writer: import("./store.js").StoreWriter, key: Uint8Array, row: Uint8Array): void;
  /** Whether a row of table field belongs to a hash that is gone, and only waits for its removal: not to be copied. */
  isDropped(fieldKey: Uint8Array): boolean;
  /** Tells the epoch in which commands run from now on; called before the first of them (a hash's id carries it). */
  setEpoch(epoch: number): void;
}
