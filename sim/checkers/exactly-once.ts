/** exactly-once: no command that was sent once took effect twice, however often it was asked again. */
import type { History, Operation } from "../history.js";
import { OK } from "../history.js";
import type { Finding } from "./checker.js";
import { finding } from "./checker.js";
import { TOKEN_BYTES } from "./linearizable.js";

const PROMISE = "exactly-once";

/** @param final the last read of each key */
export function checkExactlyOnce(
  history: History,
  final: Map<string, Operation>,
): Finding | undefined {
  for (const [key, operations] of history.byKey()) {
    const last = final.get(key);
    if (key[0] === "c") {
      const sent = operations.filter((o) => o.kind === "incr").length;
      const end = last === undefined ? 0 : Number(last.result ?? 0);
      if (end > sent) {
        return finding(
          PROMISE,
          `counter ${key} ends at ${end}, but only ${sent} increments were sent`,
          last!,
        );
      }
    } else if (key[0] === "l") {
      for (const operation of operations) {
        if (operation.kind !== "get" || operation.outcome !== OK || operation.result === undefined)
          continue;
        const twice = repeatedToken(operation.result);
        if (twice !== undefined)
          return finding(PROMISE, `token ${twice} was appended twice`, operation);
      }
    }
  }
  return undefined;
}

function repeatedToken(text: string): string | undefined {
  const seen = new Set<string>();
  for (let at = 0; at < text.length; at += TOKEN_BYTES) {
    const token = text.slice(at, at + TOKEN_BYTES);
    if (seen.has(token)) return token;
    seen.add(token);
  }
  return undefined;
}
