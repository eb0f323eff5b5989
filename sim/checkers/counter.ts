/** A counter by the general search: what the exact checker (sequence.ts) is compared with. */
import type { Operation } from "../history.js";
import { OK } from "../history.js";
import type { Finding } from "./checker.js";
import type { Model } from "./search.js";
import { checkByModel } from "./search.js";

export const counterCount = { undecided: 0, all: 0 };

function step(operation: Operation, state: string): string | undefined {
  const after = operation.kind === "incr" ? String(Number(state) + 1) : state;
  return operation.outcome !== OK || (operation.result ?? "0") === after ? after : undefined;
}

const COUNTER: Model = { initial: "0", step, matters: (maybe) => maybe };

export function searchCounter(promise: string, operations: Operation[]): Finding | undefined {
  return checkByModel(promise, operations, COUNTER, counterCount);
}
