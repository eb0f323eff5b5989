/** What clients do to a whole hash: several fields at once, so that its atomicity shows, and fields that come and go. */
import type { OperationKind } from "./history.js";
import type { Random } from "./world/random.js";

/** Fields that hold values; N holds a number. */
export const FIELDS = ["f0", "f1", "f2"] as const;
const NUMBER = "n0";

export interface HashCommand {
  kind: OperationKind;
  /** As checkers/hash.ts reads it: fields, or fields and values in turn. */
  value: string;
  words: string[];
}

/** @param nextValue unique in the run */
export function drawHashCommand(
  key: string,
  reads: boolean,
  random: Random,
  nextValue: () => string,
): HashCommand {
  const field = random.pick(FIELDS);
  const roll = random.float();
  if (reads) {
    if (roll < 0.5) return { kind: "hgetall", value: "", words: ["HGETALL", key] };
    if (roll < 0.75) return { kind: "hlen", value: "", words: ["HLEN", key] };
    return { kind: "hget", value: field, words: ["HGET", key, field] };
  }
  if (roll < 0.15) {
    return { kind: "hincrby", value: `${NUMBER} 1`, words: ["HINCRBY", key, NUMBER, "1"] };
  }
  const fields: string[] = random.chance(0.5) ? [field] : FIELDS.filter((one) => one !== field);
  if (roll < 0.45) {
    if (random.chance(0.3)) fields.push(NUMBER);
    return { kind: "hdel", value: fields.join(" "), words: ["HDEL", key, ...fields] };
  }
  const changes = fields.flatMap((one) => [one, nextValue()]);
  return { kind: "hset", value: changes.join(" "), words: ["HSET", key, ...changes] };
}

/** What HGETALL answered, fields in order. @returns undefined when a field is there twice */
export function wholeHash(parts: readonly string[]): string | undefined {
  const pairs: string[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < parts.length; i += 2) {
    if (seen.has(parts[i]!)) return undefined;
    seen.add(parts[i]!);
    pairs.push(`${parts[i]!} ${parts[i + 1]!}`);
  }
  return pairs.sort().join(" ");
}
