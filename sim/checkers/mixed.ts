/**
 * The general checker, for keys on which SET, SETNX, DEL, GETSET and GET are mixed: a search for an order
 * (Wing and Gong 1993, with Lowe's memory of visited states), bounded; what it cannot decide within the bound it lets pass.
 */
import type { Operation } from "../history.js";
import { OK, UNKNOWN } from "../history.js";
import type { Finding } from "./checker.js";
import { finding } from "./checker.js";

const STEPS_MAX = 100_000;
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
  const ordered = operations.concat(expiries(operations)).sort((x, y) => x.invoked - y.invoked);
  const count = ordered.length;
  const done = new Uint8Array(count);
  const visited = new Set<string>();
  let steps = 0;
  let deepest = 0;
  let stuckAt: Operation | undefined;

  /** `first` is the first operation not done. */
  const search = (first: number, state: string | undefined): boolean => {
    while (first < count && done[first] === 1) first++;
    if (first > deepest) {
      deepest = first;
      stuckAt = ordered[first];
    }
    // Only what is certain has to find its place.
    let certain = false;
    let horizon = Infinity;
    for (let i = first; i < count && ordered[i]!.invoked <= horizon; i++) {
      if (done[i] === 1) continue;
      const operation = ordered[i]!;
      if (operation.outcome === OK) certain = true;
      if (operation.returned < horizon) horizon = operation.returned;
    }
    if (!certain) {
      certain = false;
      for (let i = first; i < count; i++) {
        if (done[i] === 0 && ordered[i]!.outcome === OK) certain = true;
      }
      if (!certain) return true;
    }
    if (++steps > STEPS_MAX) return true;
    let signature = `${first}|${state ?? "\u0000"}|`;
    for (let i = first; i < count && ordered[i]!.invoked <= horizon; i++) {
      if (done[i] === 1) signature += `${i},`;
    }
    if (visited.has(signature)) return false;
    visited.add(signature);
    // Certain operations first: those of unknown outcome are tried only where nothing else fits.
    for (let pass = 0; pass < 2; pass++) {
      for (let i = first; i < count; i++) {
        const operation = ordered[i]!;
        if (operation.invoked > horizon) break;
        if (done[i] === 1 || (operation.outcome === OK) !== (pass === 0)) continue;
        if (precededInPipeline(ordered, done, first, i)) continue;
        const after = step(operation, state);
        if (after === null) continue;
        done[i] = 1;
        if (search(first, after)) return true;
        done[i] = 0;
      }
    }
    return false;
  };
  if (search(0, undefined)) return undefined;
  const around = ordered.filter(
    (operation, i) => Math.abs(i - deepest) <= 4 && operation !== stuckAt,
  );
  return finding(promise, "no order explains these replies", ...(stuckAt ? [stuckAt] : []), ...around);
}

/** A value that was set to expire may vanish once, at any time after it is due. */
function expiries(operations: Operation[]): Operation[] {
  const out: Operation[] = [];
  for (const operation of operations) {
    if (operation.ttlMs === 0) continue;
    out.push({
      ...operation,
      id: Infinity,
      session: -1,
      kind: "expire",
      invoked: operation.invoked + operation.ttlMs * EARLIEST,
      returned: Infinity,
      outcome: UNKNOWN,
    });
  }
  return out;
}

/** An earlier command of the same connection that must come first and has no place yet. */
function precededInPipeline(
  ordered: Operation[],
  done: Uint8Array,
  first: number,
  index: number,
): boolean {
  const operation = ordered[index]!;
  if (operation.outcome !== OK) return false;
  for (let i = first; i < ordered.length; i++) {
    const other = ordered[i]!;
    if (other.id >= operation.id && other.invoked >= operation.invoked) break;
    if (done[i] === 0 && other.session === operation.session && other.outcome === OK && other.id < operation.id) {
      return true;
    }
  }
  return false;
}
