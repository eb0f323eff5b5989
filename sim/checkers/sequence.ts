/**
 * Is the history of one key that only grows (INCR, or APPEND of tokens of one length) linearizable?
 * Exact: every acknowledged change tells its own place, every read how many went before.
 *
 * - places are told once each;
 * - whatever begins after something of place p has ended is itself at p (a read) or above p;
 * - a place nobody was told belongs to a change of unknown outcome that began before anyone could know of
 *   that place; since each such change fits every place above what was known when it began, counting them
 *   in order is a perfect matching (Hall).
 */
import type { Operation } from "../history.js";
import { OK } from "../history.js";
import type { Finding } from "./checker.js";
import { finding } from "./checker.js";

interface Step {
  operation: Operation;
  /** How many changes there are when it has taken effect; undefined: nobody was told. */
  place: number | undefined;
  changes: boolean;
}

export function checkCounter(promise: string, operations: Operation[]): Finding | undefined {
  const steps: Step[] = [];
  for (const operation of operations) {
    const changes = operation.kind === "incr";
    let place: number | undefined;
    if (operation.outcome === OK) {
      place = operation.result === undefined ? 0 : Number(operation.result);
      if (!Number.isInteger(place)) return finding(promise, "a counter is no number", operation);
    }
    steps.push({ operation, place, changes });
  }
  return checkSteps(promise, steps);
}

export function checkAppends(
  promise: string,
  operations: Operation[],
  tokenBytes: number,
): Finding | undefined {
  const steps: Step[] = [];
  let longest = "";
  let longestRead: Operation | undefined;
  for (const operation of operations) {
    if (operation.kind !== "get" || operation.outcome !== OK) continue;
    const text = operation.result ?? "";
    if (text.length % tokenBytes !== 0)
      return finding(promise, "a value with a torn token", operation);
    if (text.length >= longest.length) {
      if (!text.startsWith(longest)) {
        return finding(
          promise,
          "two reads that disagree on what came first",
          longestRead!,
          operation,
        );
      }
      longest = text;
      longestRead = operation;
    } else if (!longest.startsWith(text)) {
      return finding(
        promise,
        "two reads that disagree on what came first",
        longestRead!,
        operation,
      );
    }
  }
  const placeOf = new Map<string, number>();
  for (let at = 0; at < longest.length; at += tokenBytes) {
    const token = longest.slice(at, at + tokenBytes);
    if (placeOf.has(token)) {
      return finding("exactly-once", `token ${token} was appended twice`, longestRead!);
    }
    placeOf.set(token, at / tokenBytes + 1);
  }
  for (const operation of operations) {
    const changes = operation.kind === "append";
    let place: number | undefined;
    if (operation.outcome === OK) {
      if (changes) place = Number(operation.result) / tokenBytes;
      else if (operation.kind === "strlen") place = Number(operation.result) / tokenBytes;
      else place = (operation.result ?? "").length / tokenBytes;
      if (!Number.isInteger(place)) return finding(promise, "a length between tokens", operation);
    }
    if (changes) {
      const seenAt = placeOf.get(operation.value);
      placeOf.delete(operation.value);
      if (seenAt !== undefined) {
        if (place !== undefined && place !== seenAt) {
          return finding(
            promise,
            `told ${place}, but stands at ${seenAt}`,
            operation,
            longestRead!,
          );
        }
        place = seenAt;
      } else if (place !== undefined && place * tokenBytes <= longest.length) {
        return finding(
          promise,
          `told ${place}, but another token stands there`,
          operation,
          longestRead!,
        );
      }
    }
    steps.push({ operation, place, changes });
  }
  for (const token of placeOf.keys()) {
    return finding(promise, `token ${token} was never sent for this key`, longestRead!);
  }
  return checkSteps(promise, steps);
}

function checkSteps(promise: string, steps: Step[]): Finding | undefined {
  const told = new Map<number, Step>();
  for (const step of steps) {
    if (!step.changes || step.place === undefined) continue;
    const other = told.get(step.place);
    if (other !== undefined) {
      return finding(
        promise,
        "two changes were told the same place",
        other.operation,
        step.operation,
      );
    }
    told.set(step.place, step);
  }

  // Sweep by time: what was known (the highest place of anything ended) when each operation began.
  const ended = steps
    .filter((step) => step.place !== undefined && step.operation.returned !== Infinity)
    .sort((x, y) => x.operation.returned - y.operation.returned);
  const begun = steps.slice().sort((x, y) => x.operation.invoked - y.operation.invoked);
  const floors: number[] = [];
  const lastOf = new Map<number, Step>();
  let next = 0;
  let known: Step | undefined;
  let highest = 0;
  for (const step of begun) {
    while (next < ended.length && ended[next]!.operation.returned < step.operation.invoked) {
      const past = ended[next++]!;
      if (known === undefined || past.place! > known.place!) known = past;
    }
    if (step.place === undefined) {
      if (step.changes) floors.push(known?.place ?? 0);
      continue;
    }
    if (known !== undefined && behind(step, known)) {
      return finding(
        promise,
        "began after this had ended, but does not know of it",
        known.operation,
        step.operation,
      );
    }
    const before = step.operation.outcome === OK ? lastOf.get(step.operation.session) : undefined;
    if (before !== undefined && behind(step, before)) {
      return finding(
        promise,
        "sent later on the same connection, but took effect earlier",
        before.operation,
        step.operation,
      );
    }
    if (step.operation.outcome === OK) lastOf.set(step.operation.session, step);
    if (step.place > highest) highest = step.place;
  }

  // Places nobody was told: each needs a change of unknown outcome.
  floors.sort((x, y) => x - y);
  let gaps = 0;
  let fits = 0;
  for (let place = 1; place <= highest; place++) {
    if (told.has(place)) continue;
    gaps++;
    while (fits < floors.length && floors[fits]! < place) fits++;
    if (fits < gaps) {
      const above = steps.find((step) => step.place !== undefined && step.place >= place)!;
      return finding(
        promise,
        `place ${place} was taken by no change that was sent by then`,
        above.operation,
      );
    }
  }
  // A known place must not be told before enough changes had been sent at all.
  return checkFuture(promise, steps);
}

/** At the end of anything at place p, at least p changes must have been sent. */
function checkFuture(promise: string, steps: Step[]): Finding | undefined {
  const sent = steps
    .filter((step) => step.changes)
    .map((step) => step.operation.invoked)
    .sort((x, y) => x - y);
  for (const step of steps) {
    if (step.place === undefined || step.place === 0) continue;
    const returned = step.operation.returned;
    if (returned === Infinity) continue;
    let low = 0;
    let high = sent.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sent[middle]! <= returned) low = middle + 1;
      else high = middle;
    }
    if (low < step.place) {
      return finding(
        promise,
        `knows of ${step.place} changes when only ${low} had been sent`,
        step.operation,
      );
    }
  }
  return undefined;
}

function behind(step: Step, known: Step): boolean {
  return step.changes ? step.place! <= known.place! && step !== known : step.place! < known.place!;
}
