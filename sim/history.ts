/**
 * What clients saw, recorded at their sockets and nowhere else: the only thing the checkers judge.
 *
 * Times are those of the virtual world, so they are exact: an operation took effect, if it did, between
 * `invoked` and `returned`.
 */
export const OK = 0;
/** An error that promises that nothing was done. */
export const FAILED = 1;
/** It may have been done, may yet be done, or never. */
export const UNKNOWN = 2;
export type Outcome = typeof OK | typeof FAILED | typeof UNKNOWN;

export type OperationKind =
  | "get"
  | "set"
  | "getset"
  | "incr"
  | "append"
  | "setnx"
  | "del"
  | "strlen"
  | "hset"
  | "hdel"
  | "hincrby"
  | "hget"
  | "hgetall"
  | "hlen"
  /** What the pair does by itself when a value's time is over; made by the checker. */
  | "expire";

/** What changes nothing. */
const READS: ReadonlySet<OperationKind> = new Set(["get", "strlen", "hget", "hgetall", "hlen"]);

export interface Operation {
  /** Place in the history, in order of invocation. */
  id: number;
  /** The connection that carried it: its operations were sent in this order. */
  session: number;
  kind: OperationKind;
  key: string;
  /** What it writes, unique in the run; "" for reads. Of a hash: fields, or fields and values in turn. */
  value: string;
  /** What it read or was told; undefined: no value. */
  result: string | undefined;
  invoked: number;
  /** Infinity until it has an answer, and for ever when the outcome is unknown. */
  returned: number;
  outcome: Outcome;
  /** The value it sets may vanish after this long; 0: never. @unit ms */
  ttlMs: number;
  /** Where it was sent: the controller, or a server's local port. */
  via: "controller" | "a" | "b";
  /** It carries a number of an exactly-once session. */
  numbered?: boolean;
}

/** The same change with nobody knowing whether it was done. */
function maybe(operation: Operation): Operation {
  return { ...operation, outcome: UNKNOWN, returned: Infinity, result: undefined };
}

export class History {
  readonly operations: Operation[] = [];
  acknowledgedWrites = 0;
  failed = 0;
  unknown = 0;
  reads = 0;
  /** When the newest acknowledged change that came through the controller was sent. */
  newestServedWrite = -1;
  /** A server was forced over and had not heard of it: what its own port answered then was by right in vain. @unit ms */
  readonly inVain: { via: Operation["via"]; from: number; to: number }[] = [];

  invoke(
    session: number,
    kind: OperationKind,
    key: string,
    value: string,
    via: Operation["via"],
    nowMs: number,
    ttlMs = 0,
  ): Operation {
    const operation: Operation = {
      id: this.operations.length,
      session,
      kind,
      key,
      value,
      result: undefined,
      invoked: nowMs,
      returned: Infinity,
      outcome: UNKNOWN,
      ttlMs,
      via,
    };
    this.operations.push(operation);
    return operation;
  }

  succeed(operation: Operation, result: string | undefined, nowMs: number): void {
    operation.result = result;
    operation.returned = nowMs;
    operation.outcome = OK;
    if (!isWrite(operation)) {
      this.reads++;
      return;
    }
    this.acknowledgedWrites++;
    if (operation.via === "controller" && operation.invoked > this.newestServedWrite) {
      this.newestServedWrite = operation.invoked;
    }
  }

  fail(operation: Operation, nowMs: number): void {
    operation.returned = nowMs;
    operation.outcome = FAILED;
    this.failed++;
  }

  loseTrack(operation: Operation): void {
    operation.outcome = UNKNOWN;
    operation.returned = Infinity;
    this.unknown++;
  }

  /**
   * The history without what a force that loses data has put beyond judgement.
   *
   * @param closedAt when the keys of each generation (the number after "+", none for the first) were given up; the list
   * of appends that was in use then counts with them. What was in vain may have been done or not. @unit ms
   */
  closed(closedAt: readonly number[]): History {
    if (closedAt.length === 0) return this;
    const out = new History();
    for (const operation of this.operations) {
      if (operation.outcome !== UNKNOWN && this.wasInVain(operation)) {
        // The force may have come to nothing (its flash write torn), and then it counts after all (seed 518).
        if (isWrite(operation) && operation.outcome !== FAILED)
          out.operations.push(maybe(operation));
        continue;
      }
      const end = closedAt[generationOf(operation, closedAt)] ?? Infinity;
      if (operation.returned < end || end === Infinity) out.operations.push(operation);
      else if (operation.invoked < end && isWrite(operation) && operation.outcome !== FAILED) {
        // It may have been done before the loss, and been seen.
        out.operations.push(maybe(operation));
      }
    }
    return out;
  }

  /**
   * Of the keys that were given up, what has to be there all the same.
   *
   * @param closedAt as above
   * @param survives what was acknowledged before this outlives the loss of its generation; below 0: nothing has to. @unit ms
   */
  surviving(closedAt: readonly number[], survives: readonly number[]): History {
    const out = new History();
    for (const operation of this.operations) {
      const limit = survives[generationOf(operation, closedAt)] ?? -1;
      if (limit < 0 || !isWrite(operation) || operation.outcome === FAILED) continue;
      const certain = operation.outcome === OK && operation.returned < limit;
      out.operations.push(certain && !this.wasInVain(operation) ? operation : maybe(operation));
    }
    return out;
  }

  private wasInVain(operation: Operation): boolean {
    return this.inVain.some(
      ({ via, from, to }) =>
        operation.via === via && operation.returned >= from && operation.returned <= to,
    );
  }

  /** Operations by key, in order of invocation; those that surely did nothing are left out. */
  byKey(): Map<string, Operation[]> {
    const out = new Map<string, Operation[]>();
    for (const operation of this.operations) {
      if (operation.outcome === FAILED) continue;
      if (operation.outcome === UNKNOWN && !isWrite(operation)) continue;
      let list = out.get(operation.key);
      if (list === undefined) out.set(operation.key, (list = []));
      list.push(operation);
    }
    return out;
  }
}

function generationOf(operation: Operation, closedAt: readonly number[]): number {
  if (operation.key[0] !== "l") return Number(operation.key.split("+")[1] ?? 0);
  let generation = 0;
  while (generation < closedAt.length && operation.invoked >= closedAt[generation]!) generation++;
  return generation;
}

export function isWrite(operation: Operation): boolean {
  return !READS.has(operation.kind);
}

export function describe(operation: Operation): string {
  const returned = operation.returned === Infinity ? "?" : operation.returned.toFixed(3);
  const outcome =
    operation.outcome === OK ? "ok" : operation.outcome === FAILED ? "failed" : "unknown";
  const value = operation.value === "" ? "" : ` ${operation.value}`;
  const result =
    operation.outcome === OK
      ? ` -> ${operation.result === undefined ? "nil" : shorten(operation.result)}`
      : "";
  return (
    `[${operation.invoked.toFixed(3)}..${returned}] s${operation.session} via ${operation.via}: ` +
    `${operation.kind} ${operation.key}${value}${result} (${outcome})`
  );
}

function shorten(text: string): string {
  return text.length <= 60 ? text : `${text.slice(0, 20)}..(${text.length})..${text.slice(-30)}`;
}
