/** Keys on which SET, SETNX, DEL, GETSET, expiry and GET are mixed, by the general search. */
import type { Operation } from "../history.js";
import { OK, UNKNOWN } from "../history.js";
import type { Finding } from "./checker.js";
import type { Model } from "./search.js";
import { checkByModel } from "./search.js";

export const mixedCount = { undecided: 0, all: 0 };

/** A value with a time to live may be gone a little early on a clock that runs fast. */
const EARLIEST = 0.7;
/** No value that is written is empty. */
const NOTHING = "";

function step(operation: Operation, state: string): string | undefined {
  const known = operation.outcome === OK;
  const was = operation.result ?? NOTHING;
  switch (operation.kind) {
    case "get":
      return !known || was === state ? state : undefined;
    case "set":
      return operation.value;
    case "getset":
      return !known || was === state ? operation.value : undefined;
    case "setnx": {
      const done = state === NOTHING;
      if (known && (operation.result === "1") !== done) return undefined;
      return done ? operation.value : state;
    }
    case "del":
      if (known && (operation.result === "1") !== (state !== NOTHING)) return undefined;
      return NOTHING;
    case "expire":
      return state === operation.value ? NOTHING : undefined;
    default:
      throw new Error(`${operation.kind} is not for mixed keys`);
  }
}

/**
 * A write of unknown outcome whose value nobody saw matters only to those who tell apart something and nothing, or when it
 * leaves nothing behind.
 */
function matters(maybe: Operation[], certain: readonly Operation[]): Operation[] {
  const seen = new Set(certain.map((operation) => operation.result));
  const probed = certain.some(({ kind }) => kind === "del" || kind === "setnx");
  return maybe
    .filter(
      ({ kind, ttlMs, value }) =>
        kind !== "get" && (probed || kind === "del" || ttlMs > 0 || seen.has(value)),
    )
    .concat(expiries(maybe), expiries(certain));
}

const MIXED: Model = { initial: NOTHING, step, matters };

export function checkMixed(promise: string, operations: Operation[]): Finding | undefined {
  return checkByModel(promise, operations, MIXED, mixedCount);
}

/** A value that was set to expire may vanish once, at any time after it is due. */
function expiries(operations: readonly Operation[]): Operation[] {
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
