/**
 * no-lost-write: what was acknowledged is there at the end, or was overwritten by something that may
 * have come after it. Judged only by the last reads, so that it stands on its own beside `linearizable`.
 */
import type { History, Operation } from "../history.js";
import { isWrite, OK } from "../history.js";
import { FIELDS } from "../hash-commands.js";
import type { Finding } from "./checker.js";
import { finding } from "./checker.js";

const PROMISE = "no-lost-write";

/** @param final the last read of each key, made after everything had come to rest */
export function checkNoLostWrite(
  history: History,
  final: Map<string, Operation>,
): Finding | undefined {
  for (const [key, operations] of history.byKey()) {
    const last = final.get(key);
    if (last === undefined) continue;
    const value = last.result;
    // What was still on its way when the last read was sent is none of its business.
    const acknowledged = operations.filter((o) => o.outcome === OK && o.returned < last.invoked);
    const kind = key[0];
    if (kind === "c") {
      const count = acknowledged.filter((o) => o.kind === "incr").length;
      if (Number(value ?? 0) < count) {
        return finding(
          PROMISE,
          `counter ${key} ends at ${value ?? "nil"} after ${count} acknowledged increments`,
          last,
        );
      }
    } else if (kind === "l") {
      for (const operation of acknowledged) {
        if (operation.kind !== "append") continue;
        if (!(value ?? "").includes(operation.value)) {
          return finding(
            PROMISE,
            `an acknowledged token is missing at the end of ${key}`,
            operation,
            last,
          );
        }
      }
    } else if (kind === "h") {
      const found = lostField(key, operations, acknowledged, last);
      if (found !== undefined) return found;
    } else if (kind === "r" || kind === "p") {
      const write = operations.find((o) => o.value !== "" && o.value === value);
      for (const operation of acknowledged) {
        if (operation.value === "") continue;
        if (value === undefined || (write !== undefined && write.returned < operation.invoked)) {
          return finding(PROMISE, `an acknowledged write of ${key} is gone`, operation, last);
        }
      }
    }
  }
  return undefined;
}

/** A field's value that was acknowledged is there, or something later may have replaced it or taken it out. */
function lostField(
  key: string,
  operations: readonly Operation[],
  acknowledged: readonly Operation[],
  last: Operation,
): Finding | undefined {
  const end = new Map(pairsOf(last.result ?? ""));
  for (const field of FIELDS) {
    const changes = operations.filter((o) => isWrite(o) && o.value.split(" ").includes(field));
    const value = end.get(field);
    // What may have left the field as it is: a write of that value, or any that took it out.
    const causes = changes.filter((o) =>
      value === undefined ? o.kind === "hdel" : o.value.split(" ").includes(value),
    );
    for (const operation of acknowledged) {
      if (operation.kind !== "hset" || !changes.includes(operation)) continue;
      if (causes.every((cause) => cause.returned < operation.invoked)) {
        return finding(PROMISE, `an acknowledged ${field} of ${key} is gone`, operation, last);
      }
    }
  }
  return undefined;
}

function pairsOf(text: string): [string, string][] {
  const parts = text === "" ? [] : text.split(" ");
  return parts.flatMap((part, i): [string, string][] =>
    i % 2 === 0 ? [[part, parts[i + 1]!]] : [],
  );
}
