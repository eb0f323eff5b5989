/**
 * The general checker, for whatever a function from state to state describes: a search for an order (Wing and Gong 1993,
 * with Lowe's memory of visited states), bounded; what it cannot decide within the bound it lets pass.
 *
 * What is certain has to find its place; what has an unknown outcome may, and is tried only where nothing
 * certain fits.
 */
import type { Operation } from "../history.js";
import { OK } from "../history.js";
import type { Finding } from "./checker.js";
import { finding } from "./checker.js";

const STEPS_MAX = 4000;

/** What a key holds, as text, and what each operation makes of it. */
export interface Model {
  readonly initial: string;
  /** @returns the state after the operation, or undefined when what it was told does not fit the state */
  step(operation: Operation, state: string): string | undefined;
  /** Of what has an unknown outcome, that whose place could make a difference. */
  matters(maybe: Operation[], certain: readonly Operation[]): Operation[];
}

/** Histories the search gave up on, and all it was given: for those who watch. */
export interface SearchCount {
  undecided: number;
  all: number;
}

export function checkByModel(
  promise: string,
  operations: readonly Operation[],
  model: Model,
  count: SearchCount,
): Finding | undefined {
  const ordered = operations.slice().sort((x, y) => x.invoked - y.invoked || x.id - y.id);
  const certain = ordered.filter((operation) => operation.outcome === OK);
  const unknown = ordered.filter((operation) => operation.outcome !== OK);
  const maybe = model.matters(unknown, certain).sort((x, y) => x.invoked - y.invoked);
  const { initial } = model;
  const step = (operation: Operation, state: string): string | undefined =>
    model.step(operation, state);
  const before = pipelineOrder(certain);
  const done = new Uint8Array(certain.length);
  const tried = new Uint8Array(maybe.length);
  const visited = new Set<string>();
  let steps = 0;
  let deepest = 0;
  let undecided = false;
  count.all++;

  /**
   * Gives a place to all that fits here and changes nothing: that is never wrong. @returns the first operation
   * without a place
   */
  const settle = (from: number, state: string, placed: number[]): number => {
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
  const search = (from: number, state: string): boolean => {
    const placed: number[] = [];
    if (searchOn(settle(from, state, placed), state)) return true;
    for (const i of placed) done[i] = 0;
    return false;
  };

  const searchOn = (first: number, state: string): boolean => {
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
    signature = `${first}|${signature}|${state}`;
    if (visited.has(signature)) return false;
    visited.add(signature);
    for (let i = first; i < end; i++) {
      if (done[i] === 1 || certain[i]!.invoked > horizon) continue;
      const predecessor = before[i]!;
      if (predecessor >= 0 && done[predecessor] === 0) continue;
      const after = step(certain[i]!, state);
      if (after === undefined) continue;
      done[i] = 1;
      if (search(first, after)) return true;
      done[i] = 0;
    }
    for (let i = 0; i < maybe.length && maybe[i]!.invoked <= horizon; i++) {
      if (tried[i] === 1) continue;
      const after = step(maybe[i]!, state);
      if (after === undefined || after === state) continue;
      tried[i] = 1;
      if (search(first, after)) return true;
      tried[i] = 0;
    }
    return false;
  };
  if (search(0, initial)) {
    if (undecided) count.undecided++;
    return undefined;
  }
  return finding(
    promise,
    "no order explains these replies",
    ...certain.slice(Math.max(0, deepest - 4), deepest + 5),
    ...maybe.filter((operation) => operation.invoked <= certain[deepest]!.returned).slice(-4),
  );
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
