/** The checkers themselves: against each other, and against histories a person can judge. */
import { describe, expect, it } from "vitest";
import { searchCounter } from "../../sim/checkers/counter.js";
import { checkHash } from "../../sim/checkers/hash.js";
import { checkMixed } from "../../sim/checkers/mixed.js";
import { checkNoLostWrite } from "../../sim/checkers/no-lost-write.js";
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

/** A hash's history over two fields and a number; what it tells is drawn from what could be there. */
function drawHash(random: Random): Operation[] {
  const operations: Operation[] = [];
  const count = 2 + random.below(5);
  for (let i = 0; i < count; i++) {
    const invoked = random.below(10);
    const returned = random.chance(0.15) ? Infinity : invoked + 1 + random.below(5);
    const roll = random.below(6);
    const draw = (kind: OperationKind, value: string, result: string): void => {
      operations.push(op(kind, value, result, invoked, returned));
    };
    if (roll === 0)
      draw("hset", random.chance(0.5) ? `f0 w${i}` : `f0 w${i} f1 x${i}`, String(random.below(3)));
    else if (roll === 1) draw("hset", `f1 w${i}`, String(random.below(2)));
    else if (roll === 2) draw("hdel", random.chance(0.5) ? "f0" : "f0 f1", String(random.below(3)));
    else if (roll === 3) draw("hincrby", "n0 1", String(1 + random.below(2)));
    else if (returned === Infinity) continue;
    else if (roll === 4) draw("hlen", "", String(random.below(4)));
    else draw("hgetall", "", "");
  }
  const texts = operations
    .filter((o) => o.kind === "hset")
    .flatMap((o) => o.value.match(/\S+ \S+/g)!);
  for (const operation of operations) {
    if (operation.kind !== "hgetall") continue;
    const some = new Map(
      texts.filter(() => random.chance(0.5)).map((text) => [text.slice(0, 2), text]),
    );
    if (random.chance(0.3)) some.set("n0", `n0 ${1 + random.below(2)}`);
    operation.result = [...some.values()].sort().join(" ");
  }
  return operations.sort((x, y) => x.invoked - y.invoked);
}

/** Tries every order on a Map: slow, and too simple to be wrong. */
function bruteHash(operations: Operation[]): boolean {
  const certain = operations.filter((o) => o.outcome === OK).length;
  const used = new Set<Operation>();
  const run = (o: Operation, was: Map<string, string>): [Map<string, string>, string] => {
    const now = new Map(was);
    const words = o.value === "" ? [] : o.value.split(" ");
    switch (o.kind) {
      case "hset":
        for (let i = 0; i < words.length; i += 2) now.set(words[i]!, words[i + 1]!);
        return [now, String(now.size - was.size)];
      case "hdel":
        for (const word of words) now.delete(word);
        return [now, String(was.size - now.size)];
      case "hincrby":
        now.set("n0", String(Number(was.get("n0") ?? 0) + 1));
        return [now, now.get("n0")!];
      case "hlen":
        return [now, String(was.size)];
      default:
        return [
          now,
          [...was]
            .sort()
            .map((pair) => pair.join(" "))
            .join(" "),
        ];
    }
  };
  const search = (state: Map<string, string>, found: number): boolean => {
    if (found === certain) return true;
    for (const operation of operations) {
      if (used.has(operation)) continue;
      if (
        operations.some((o) => !used.has(o) && o.outcome === OK && o.returned < operation.invoked)
      )
        continue;
      const [after, told] = run(operation, state);
      if (operation.outcome === OK && operation.result !== told) continue;
      used.add(operation);
      if (search(after, found + (operation.outcome === OK ? 1 : 0))) return true;
      used.delete(operation);
    }
    return false;
  };
  return search(new Map(), 0);
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
      expect(searchCounter("linearizable", operations) === undefined).toBe(quick);
      if (quick) good++;
      else bad++;
    }
    expect(good).toBeGreaterThan(500);
    expect(bad).toBeGreaterThan(500);
  });

  it("hash: the search and trying every order agree on 20,000 small histories", () => {
    const random = new Random(3, "hash");
    let good = 0;
    let bad = 0;
    for (let i = 0; i < 20000; i++) {
      const operations = drawHash(random);
      const quick = checkHash("linearizable", operations) === undefined;
      expect(quick, JSON.stringify(operations, null, 1)).toBe(bruteHash(operations));
      if (quick) good++;
      else bad++;
    }
    expect(good).toBeGreaterThan(500);
    expect(bad).toBeGreaterThan(500);
  });

  it("hash: fields that are set together are seen together, a field that was taken out is gone", () => {
    const both = op("hset", "f0 v1 f1 v2", "2", 0, 9);
    const read = (result: string) => op("hgetall", "", result, 3, 4);
    expect(checkHash("x", [both, read("f0 v1 f1 v2")])).toBeUndefined();
    expect(checkHash("x", [both, read("")])).toBeUndefined();
    expect(checkHash("x", [both, read("f0 v1")])).toBeDefined();
    const gone = op("hdel", "f0", "1", 10, 11);
    expect(checkHash("x", [both, gone, op("hlen", "", "1", 12, 13)])).toBeUndefined();
    expect(checkHash("x", [both, gone, op("hlen", "", "2", 12, 13)])).toBeDefined();
    // Twice: the second finds nothing, whatever the first was told.
    expect(checkHash("x", [both, gone, op("hdel", "f0", "1", 12, 13)])).toBeDefined();
    // A value that ends like a field's name is no field.
    expect(
      checkHash("x", [op("hset", "f0 vf1 f2 v3", "2", 0, 1), op("hset", "f1 v4", "1", 2, 3)]),
    ).toBeUndefined();
  });

  it("hash: an acknowledged field is there at the end, unless something later may have taken it", () => {
    const history = new History();
    const set = { ...op("hset", "f0 v1 f1 v2", "2", 0, 1), key: "h0" };
    const take = { ...op("hdel", "f0", "1", 2, Infinity), key: "h0" };
    const end = (result: string) => new Map([["h0", op("hgetall", "", result, 10, 11)]]);
    history.operations.push(set);
    expect(checkNoLostWrite(history, end("f0 v1 f1 v2"))).toBeUndefined();
    expect(checkNoLostWrite(history, end("f1 v2"))).toBeDefined();
    history.operations.push(take);
    expect(checkNoLostWrite(history, end("f1 v2"))).toBeUndefined();
    expect(checkNoLostWrite(history, end("f0 v1"))).toBeDefined();
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

  it("of what was given up, all that was acknowledged before the two were apart has to be there", () => {
    const history = new History();
    const append = (value: string, invoked: number, returned: number): void => {
      history.operations.push({ ...op("append", value, "6", invoked, returned), key: "l0" });
    };
    append("tok001", 0, 1);
    append("tok002", 4, 5);
    const end = (result: string) => new Map([["l0", op("get", "", result, 30, 31)]]);
    // The one that was forced has nothing that the other acknowledged alone, from 3 on.
    const left = history.surviving([10], [3]);
    expect(checkNoLostWrite(left, end("tok001"))).toBeUndefined();
    expect(checkNoLostWrite(left, end("tok001tok002"))).toBeUndefined();
    expect(checkNoLostWrite(left, end("tok002"))).toBeDefined();
    expect(checkNoLostWrite(history.surviving([10], [9]), end("tok001"))).toBeDefined();
    expect(checkNoLostWrite(history.surviving([10], [-1]), end(""))).toBeUndefined();
  });

  it("a change of such a server may have been done all the same: its force can come to nothing (seed 518)", () => {
    const history = new History();
    history.inVain.push({ via: "b", from: 10, to: 20 });
    history.operations.push({ ...op("incr", "+1", "1", 11, 12), via: "b" });
    history.operations.push({ ...op("get", "", "1", 13, 14), via: "controller" });
    expect(checkCounter("x", history.closed([100]).operations)).toBeUndefined();
  });
});
