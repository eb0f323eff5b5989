/** linearizable: every key's whole history, by the exact checker for what is done to that key. */
import type { History } from "../history.js";
import type { Finding } from "./checker.js";
import { checkHash } from "./hash.js";
import { checkMixed } from "./mixed.js";
import { checkRegister } from "./register.js";
import { checkAppends, checkCounter } from "./sequence.js";

const PROMISE = "linearizable";

/** @unit bytes, of every appended token */
export const TOKEN_BYTES = 6;

export function checkLinearizable(history: History): Finding | undefined {
  for (const [key, operations] of history.byKey()) {
    let found: Finding | undefined;
    // The first letter of a key says what is done to it (workload.ts).
    if (key[0] === "r" || key[0] === "p") found = checkRegister(PROMISE, operations);
    else if (key[0] === "c") found = checkCounter(PROMISE, operations);
    else if (key[0] === "l") found = checkAppends(PROMISE, operations, TOKEN_BYTES);
    else if (key[0] === "h") found = checkHash(PROMISE, operations);
    else found = checkMixed(PROMISE, operations);
    if (found !== undefined) return { promise: found.promise, what: `key ${key}: ${found.what}` };
  }
  return undefined;
}
