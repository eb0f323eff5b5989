/**
 * The general checker, for keys on which SET, SETNX, DEL, GETSET, expiry and GET are mixed: a search for an
 * order (Wing and Gong 1993, with Lowe's memory of visited states), bounded; what it cannot decide within the
 * bound it lets pass.
 *
 * What is certain has to find its place; what has an unknown outcome may, and is tried only where nothing
 * certain fits.
 */
import type { Operation } from "../history.js";
import { OK, UNKNOWN } from "../history.js";
import type { Finding } from "./checker.js";
import { finding } from "./checker.js";

const STEPS_MAX = 4000;

/** Histories the search gave up on, and all it was given: for those who watch. */
export const mixedCount = { undecided: 0, all: 0 };

/** A value with a time to live may be gone a little early on a clock that runs fast. */
const EARLIEST = 0.7;

/** @returns the state after the operation, or null when what it was told does not fit the state. */
function step(operation: Operation, state: string | undefined): string | undefined | null {
  const known = operation.outcome === OK;
  switch (operation.kind) {
    case "get":
      return !known || operation.result === state ? state : null;
    case "set":
      return operation.value;
    case "getset":
      return !known || operation.result === state ? operation.value : null;
    case "setnx": {
      const done = state === undefined;
      if (known && (operation.result === "1") !== done) return null;
      return done ? operation.value : state;
    }
    case "del": {
      if (known && (operation.result === "1") !== (state !== undefined)) return null;
      return undefined;
    }
    case "expire":
      return state === operation.value ? undefined : null;
    default:
      throw new Error(`${operation.kind} is not for mixed keys`);
  }
}

export function checkMixed(promise: string, operations: Operation[]): Finding | undefined {
  const ordered = operations.slice().sort((x, y) => x.invoked - y.invoked || x.id - y.id);
  const certain = ordered.filter((operation) => operation.outcome === OK);
  // A write of unknown outcome whose value nobody saw matters only to
  // those who tell apart something and nothing, or when it leaves nothing behind.
  const seen = new Set(certain.map((operation) => operation.result));
  const probed = certain.some(
    (operation) => operation.kind === "del" || operation.kind === "setnx",
  );
  const maybe = ordered
    .filter(
      (operation) =>
        operation.outcome !== OK &&
        operation.kind !== "get" &&
        (probed || operation.kind === "del" || operation.ttlMs > 0 || seen.has(operation.value)),
    )
    .concat(expiries(operations))
    .sort((x, y) => x.invoked - y.invoked);
  const before = pipelineOrder(certain);
  const done = new Uint8Array(certain.length);
  const tried = new Uint8Array(maybe.length);
  const visited = new Set<string>();
  let steps = 0;
  let deepest = 0;
  let undecided = false;
  mixedCount.all++;

  /**
   * Gives a place to all that fits here and changes nothing: that is never wrong. @returns the first operation
   * without a place
   */
  const settle = (from: number, state: string | undefined, placed: number[]): number => {
    let first = from;
    for (let again = true; again;) {
      again = false;
      while (first < certain.length && done[first] === 1) first++;
      let horizon = Infinity;
      for (let i = first; i < certain.length && certain[i]!.invoked <= horizon; i++) {
        if (done[i] === 1) continue;
        const predecessor = before[i]!;
        if (
          (predecessor < 0 || done[predecessor] === 1) &&
          certain[i]!.kind !== "set" &&
          step(certain[i]!, state) === state
        ) {
          done[i] = 1;
          placed.push(i);
          again = true;
        } else if (certain[i]!.returned < horizon) {
          horizon = certain[i]!.returned;
        }
      }
    }
    return first;
  };

  /** `from` is the first certain operation that may have no place yet. */
  const search = (from: number, state: string | undefined): boolean => {
    const placed: number[] = [];
    if (searchOn(settle(from, state, placed), state)) return true;
    for (const i of placed) done[i] = 0;
    return false;
  };

  const searchOn = (first: number, state: string | undefined): boolean => {
    if (first > deepest) deepest = first;
    if (first === certain.length) return true;
    if (++steps > STEPS_MAX) {
      undecided = true;
      return true;
    }
    // Nothing that began after some operation had ended can come before it.
    let horizon = Infinity;
    let end = first;
    let signature = "";
    for (; end < certain.length && certain[end]!.invoked <= horizon; end++) {
      if (done[end] === 1) signature += `${end},`;
      else if (certain[end]!.returned < horizon) horizon = certain[end]!.returned;
    }
    for (let i = 0; i < maybe.length && maybe[i]!.invoked <= horizon; i++) {
      if (tried[i] === 1) signature += `?${i}`;
    }
    signature = `${first}|${signature}|${state ?? "\u0000"}`;
    if (visited.has(signature)) return false;
    visited.add(signature);
    for (let i = first; i < end; i++) {
      if (done[i] === 1 || certain[i]!.invoked > horizon) continue;
      const predecessor = before[i]!;
      if (predecessor >= 0 && done[predecessor] === 0) continue;
      const after = step(certain[i]!, state);
      if (after === null) continue;
      done[i] = 1;
      if (search(first, after)) return true;
      done[i] = 0;
    }
    for (let i = 0; i < maybe.length && maybe[i]!.invoked <= horizon; i++) {
      if (tried[i] === 1) continue;
      const after = step(maybe[i]!, state);
      if (after === null || after === state) continue;
      tried[i] = 1;
      if (search(first, after)) return true;
      tried[i] = 0;
    }
    return false;
  };
  if (search(0, undefined)) {
    if (undecided) mixedCount.undecided++;
    return undefined;
  }
  return finding(
    promise,
    "no order explains these replies",
    ...certain.slice(Math.max(0, deepest - 4), deepest + 5),
    ...maybe.filter((operation) => operation.invoked <= certain[deepest]!.returned).slice(-4),
  );
}

/** A value that was set to expire may vanish once, at any time after it is due. */
function expiries(operations: Operation[]): Operation[] {
  const out: Operation[] = [];
  for (const operation of operations) {
    if (operation.ttlMs === 0) continue;
    out.push({
      ...operation,
      session: -1,
      kind: "expire",
      invoked: operation.invoked + operation.ttlMs * EARLIEST,
      returned: Infinity,
      outcome: UNKNOWN,
    });
  }
  return out;
}

/** For each operation the place of the one its connection sent before it; -1 for none. */
function pipelineOrder(certain: Operation[]): Int32Array {
  const before = new Int32Array(certain.length).fill(-1);
  const last = new Map<number, number>();
  for (let i = 0; i < certain.length; i++) {
    const session = certain[i]!.session;
    before[i] = last.get(session) ?? -1;
    last.set(session, i);
  }
  return before;
}
