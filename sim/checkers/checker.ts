/** What a checker is given and what it answers. It sees the history, never the code it judges. */
import type { Operation } from "../history.js";
import { describe } from "../history.js";

export interface Finding {
  promise: string;
  what: string;
}

export function finding(promise: string, what: string, ...operations: Operation[]): Finding {
  const lines = operations.map((operation) => `\n    ${describe(operation)}`);
  return { promise, what: what + lines.join("") };
}
