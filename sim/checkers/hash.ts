/**
 * A whole hash as one object, by the general search: HSET (of several fields at once), HDEL, HINCRBY, HGET, HLEN and
 * HGETALL. The state is what HGETALL tells: "f0 v1 f2 v7", fields in order.
 */
import type { Operation } from "../history.js";
import { OK } from "../history.js";
import type { Finding } from "./checker.js";
import type { Model } from "./search.js";
import { checkByModel } from "./search.js";

export const hashCount = { undecided: 0, all: 0 };

/** Places of fields and values in a state, in turn. */
function partsOf(state: string): string[] {
  return state === "" ? [] : state.split(" ");
}

function fieldIn(state: string, field: string): string | undefined {
  const parts = partsOf(state);
  for (let at = 0; at < parts.length; at += 2) if (parts[at] === field) return parts[at + 1];
  return undefined;
}

/** The state with some of its fields another; "" takes one out. @param changes field, value, field, value */
function changed(state: string, changes: readonly string[]): string {
  const parts = partsOf(state);
  for (let i = 0; i < changes.length; i += 2) {
    const field = changes[i]!;
    const value = changes[i + 1]!;
    let at = 0;
    while (at < parts.length && parts[at]! < field) at += 2;
    const there = parts[at] === field;
    if (value === "") {
      if (there) parts.splice(at, 2);
    } else parts.splice(at, there ? 2 : 0, field, value);
  }
  return parts.join(" ");
}

function step(operation: Operation, state: string): string | undefined {
  const told = operation.outcome === OK ? operation.result : undefined;
  const known = operation.outcome === OK;
  switch (operation.kind) {
    case "hgetall":
      return !known || told === state ? state : undefined;
    case "hget":
      return !known || told === fieldIn(state, operation.value) ? state : undefined;
    case "hlen":
      return !known || Number(told) === partsOf(state).length / 2 ? state : undefined;
    case "hset": {
      const changes = partsOf(operation.value);
      if (known && Number(told) !== missing(state, changes)) return undefined;
      return changed(state, changes);
    }
    case "hdel": {
      const changes = partsOf(operation.value).flatMap((field) => [field, ""]);
      const there = changes.length / 2 - missing(state, changes);
      if (known && Number(told) !== there) return undefined;
      return there === 0 ? state : changed(state, changes);
    }
    case "hincrby": {
      const [field, by] = partsOf(operation.value) as [string, string];
      const sum = String(Number(fieldIn(state, field) ?? 0) + Number(by));
      return !known || told === sum ? changed(state, [field, sum]) : undefined;
    }
    default:
      throw new Error(`${operation.kind} is not for hashes`);
  }
}

/** How many of the fields are not there. */
function missing(state: string, changes: readonly string[]): number {
  let count = 0;
  for (let i = 0; i < changes.length; i += 2) {
    if (fieldIn(state, changes[i]!) === undefined) count++;
  }
  return count;
}

/** Any change can: HLEN, and what HSET and HDEL are told, tell how many fields there are. */
const HASH: Model = { initial: "", step, matters: (maybe) => maybe };

export function checkHash(promise: string, operations: readonly Operation[]): Finding | undefined {
  return checkByModel(promise, operations, HASH, hashCount);
}
