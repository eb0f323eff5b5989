/** The checkers themselves: against each other, and against histories a person can judge. */
import { describe, expect, it } from "vitest";
import { checkMixed } from "../../sim/checkers/mixed.js";
import { checkRegister } from "../../sim/checkers/register.js";
import { checkAppends, checkCounter } from "../../sim/checkers/sequence.js";
import type { Operation, OperationKind } from "../../sim/history.js";
import { History, OK, UNKNOWN } from "../../sim/history.js";
import { Random } from "../../sim/world/random.js";

let nextId = 0;

function op(
  kind: OperationKind,
  value: string,
  result: string | undefined,
  invoked: number,
  returned: number,
  session = ++nextId + 1000,
): Operation {
  return {
    id: nextId++,
    session,
    kind,
    key: "k",
    value,
    result,
    invoked,
    returned,
    outcome: returned === Infinity ? UNKNOWN : OK,
    ttlMs: 0,
    via: "controller",
  };
}

/** A history of a register that may or may not be linearizable: replies are drawn from what could be there. */
function drawRegister(random: Random): Operation[] {
  const operations: Operation[] = [];
  const count = 2 + random.below(7);
  const written: string[] = [];
  for (let i = 0; i < count; i++) {
    const invoked = random.below(12);
    const returned = random.chance(0.15) ? Infinity : invoked + 1 + random.below(6);
    if (random.chance(0.5)) {
      const value = `w${i}`;
      written.push(value);
      operations.push(op("set", value, undefined, invoked, returned));
    } else if (returned !== Infinity) {
      operations.push(op("get", "", undefined, invoked, returned));
    }
  }
  for (const operation of operations) {
    if (operation.kind === "get") {
      operation.result =
        random.chance(0.2) || written.length === 0 ? undefined : random.pick(written);
    }
  }
  return operations.sort((x, y) => x.invoked - y.invoked);
}

/** A counter's history, places drawn near the truth. */
function drawCounter(random: Random): Operation[] {
  const operations: Operation[] = [];
  const count = 2 + random.below(6);
  for (let i = 0; i < count; i++) {
    const invoked = random.below(10);
    const returned = random.chance(0.2) ? Infinity : invoked + 1 + random.below(5);
    const kind = random.chance(0.6) ? "incr" : "get";
    if (kind === "get" && returned === Infinity) continue;
    const result = kind === "incr" ? 1 + random.below(4) : random.below(4);
    operations.push(op(kind, kind === "incr" ? "+1" : "", String(result), invoked, returned));
  }
  return operations.sort((x, y) => x.invoked - y.invoked);
}

/** Tries every order: slow, and too simple to be wrong. */
function bruteCounter(operations: Operation[]): boolean {
  const certain = operations.filter((o) => o.outcome === OK).length;
  const used = new Set<Operation>();
  const search = (count: number, found: number): boolean => {
    if (found === certain) return true;
    for (const operation of operations) {
      if (used.has(operation)) continue;
      if (
        operations.some((o) => !used.has(o) && o.outcome === OK && o.returned < operation.invoked)
      )
        continue;
      const after = operation.kind === "incr" ? count + 1 : count;
      if (operation.outcome === OK && Number(operation.result) !== after) continue;
      used.add(operation);
      if (search(after, found + (operation.outcome === OK ? 1 : 0))) return true;
      used.delete(operation);
    }
    return false;
  };
  return search(0, 0);
}

describe("checkers", () => {
  it("register: the cluster checker and the search agree on 20,000 small histories", () => {
    const random = new Random(1, "register");
    let good = 0;
    let bad = 0;
    for (let i = 0; i < 20000; i++) {
      const operations = drawRegister(random);
      const quick = checkRegister("linearizable", operations) === undefined;
      const thorough = checkMixed("linearizable", operations) === undefined;
      expect(quick, JSON.stringify(operations, null, 1)).toBe(thorough);
      if (quick) good++;
      else bad++;
    }
    expect(good).toBeGreaterThan(500);
    expect(bad).toBeGreaterThan(500);
  });

  it("counter: counting places and trying every order agree on 20,000 small histories", () => {
    const random = new Random(2, "counter");
    let good = 0;
    let bad = 0;
    for (let i = 0; i < 20000; i++) {
      const operations = drawCounter(random);
      const quick = checkCounter("linearizable", operations) === undefined;
      expect(quick, JSON.stringify(operations, null, 1)).toBe(bruteCounter(operations));
      if (quick) good++;
      else bad++;
    }
    expect(good).toBeGreaterThan(500);
    expect(bad).toBeGreaterThan(500);
  });

  it("register: a stale read, a read from the future and a lost overwrite are found", () => {
    expect(
      checkRegister("x", [
        op("set", "1", undefined, 0, 1),
        op("set", "2", undefined, 2, 3),
        op("get", "", "1", 4, 5),
      ]),
    ).toBeDefined();
    expect(
      checkRegister("x", [op("get", "", "1", 0, 1), op("set", "1", undefined, 2, 3)]),
    ).toBeDefined();
    expect(
      checkRegister("x", [op("set", "1", undefined, 0, 1), op("get", "", undefined, 2, 3)]),
    ).toBeDefined();
  });

  it("register: a pipeline's read must see the write sent before it", () => {
    const pipeline = [
      op("set", "1", undefined, 0, 1, 7),
      op("set", "2", undefined, 2, 4, 7),
      op("get", "", "1", 2, 4, 7),
    ];
    expect(checkRegister("x", pipeline)).toBeDefined();
    expect(checkMixed("x", pipeline)).toBeDefined();
    const concurrent = pipeline.map((o, i) => ({ ...o, session: i }));
    expect(checkRegister("x", concurrent)).toBeUndefined();
    expect(checkMixed("x", concurrent)).toBeUndefined();
  });

  it("appends: twice, lost, reordered", () => {
    const first = op("append", "tok001", "6", 0, 1);
    const second = op("append", "tok002", "12", 2, 3);
    expect(
      checkAppends("x", [first, second, op("get", "", "tok001tok002", 4, 5)], 6),
    ).toBeUndefined();
    expect(
      checkAppends("x", [first, second, op("get", "", "tok002tok001", 4, 5)], 6),
    ).toBeDefined();
    expect(checkAppends("x", [first, second, op("get", "", "tok001", 4, 5)], 6)).toBeDefined();
    expect(
      checkAppends("x", [first, second, op("get", "", "tok001tok001tok002", 4, 5)], 6)?.promise,
    ).toBe("exactly-once");
  });
});

describe("books", () => {
  it("what a server that was forced over answered at its own port is not judged, all else is (seed 2007828)", () => {
    const history = new History();
    history.inVain.push({ via: "b", from: 10, to: 20 });
    const counted = (via: Operation["via"], invoked: number, returned: number): Operation => ({
      ...op("incr", "+1", "1", invoked, returned),
      via,
    });
    history.operations.push(counted("b", 11, 12), counted("controller", 13, 14));
    expect(checkCounter("x", history.operations)).toBeDefined();
    expect(checkCounter("x", history.closed([100]).operations)).toBeUndefined();
    history.operations[0] = counted("b", 21, 22);
    expect(checkCounter("x", history.closed([100]).operations)).toBeDefined();
    history.operations[0] = counted("a", 11, 12);
    expect(checkCounter("x", history.closed([100]).operations)).toBeDefined();
  });

  it("a change of such a server may have been done all the same: its force can come to nothing (seed 518)", () => {
    const history = new History();
    history.inVain.push({ via: "b", from: 10, to: 20 });
    history.operations.push({ ...op("incr", "+1", "1", 11, 12), via: "b" });
    history.operations.push({ ...op("get", "", "1", 13, 14), via: "controller" });
    expect(checkCounter("x", history.closed([100]).operations)).toBeUndefined();
  });
});
