/** What the build does to a bundle to make it small keeps what the bundle does. */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { packedStates } from "../../bin/board/packed-states.mjs";
import { inlineConstants, makeLazy, numberAssertions } from "../../bin/board/shrink.mjs";
import { BOOT_FILE, roomOf, storageImage } from "../../bin/board/storage-image.mjs";
import { tokenise } from "../../bin/board/tokenise.mjs";
import {
  STATES,
  TRANSITIONS,
  isOpen,
  meaningOf,
  nextState,
} from "../../firmware/core/role-table.js";
import type { PairState, RoleEvent } from "../../firmware/core/role-table.js";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

const run = (text: string): unknown => runInNewContext(`var out;${text};out`) as unknown;

describe("constants", () => {
  test("are put where they are used, unless they are assigned to or shadowed", () => {
    const text = `(() => {
      var A = 2;
      var B = -A * 3;
      var C = 5;
      var D = 7;
      var E = "text";
      function f(D) { C++; return D - B; }
      out = [f(1), C, D, { A }.A, E];
    })();`;
    const made = inlineConstants(text);
    expect(made).not.toMatch(/var [AB]\b/);
    expect(made).toMatch(/var C = 5[^]*var D = 7[^]*var E/);
    expect(run(made)).toEqual(run(text));
  });
});

describe("functions made when they are called", () => {
  const text = `(() => {
    // firmware/core/rare.ts
    var count = 0;
    function helper(x) { return x + 1; }
    function rare(x) { count++; return helper(x) * other(x); }
    function second() { return "second"; }
    // firmware/core/often.ts
    function onlyForRare(x) { return x; }
    function other(x) { return onlyForRare(x) + 10; }
    function often(x) { return rare(x) + count; }
    out = [often(1), often(2), [1, 2].map(rare), { second }.second(), other(1)];
  })();`;

  test("do what they did", () => {
    const made = makeLazy(text, ["firmware/core/rare.ts"]);
    expect(run(made)).toEqual(run(text));
    expect(made).toMatch(/function rare_ts\$lazy\(n\$\) \{\s*function helper/);
  });

  test("take with them what nobody else uses, and only the ones named where names are given", () => {
    const made = makeLazy(text, ["firmware/core/rare.ts: rare"]);
    expect(run(made)).toEqual(run(text));
    const lazy = /function rare_ts\$lazy[^]*?\n}/.exec(made)![0];
    expect(lazy).toContain("function helper");
    expect(lazy).not.toContain("function second");
    expect(lazy).not.toContain("function other");
  });

  test("a name bound twice is refused, since it could mean the other", () => {
    expect(() =>
      makeLazy(text.replace("often(x) {", "often(rare) {"), ["firmware/core/rare.ts"]),
    ).toThrow(/rare of firmware\/core\/rare.ts is bound twice/);
  });
});

test("an assertion's text becomes a number of the list", () => {
  const list: string[] = [];
  const made = numberAssertions(
    '(() => { assert(a, "first"); throw new Error("assertion failed: second"); assert(b, "first"); throw new Error("x"); })();',
    list,
  );
  expect(list).toEqual(["first", "second"]);
  expect(made).toBe(
    '(() => { assert(a, "0"); throw new Error("1"); assert(b, "0"); throw new Error("x"); })();',
  );
});

describe("tokens", () => {
  const bytes = (text: string): number[] => [...tokenise(text)];

  test("are the engine's own numbers", () => {
    expect(bytes("==")).toEqual([138]);
    expect(bytes("of")).toEqual([198]);
    expect(bytes("a??b")).toEqual([97, 208, 98]);
    expect(bytes('"ab"')).toEqual([209, 2, 97, 98]);
    expect(bytes(`"${"x".repeat(300)}"`).slice(0, 3)).toEqual([210, 44, 1]);
    expect(bytes("100;1000")).toEqual([212, 100, 59, 213, 232, 3]);
  });

  test("need a space only between words, and between signs and slashes that would join", () => {
    expect(bytes("a in b")).toEqual([97, bytes("in")[0], 98]);
    expect(bytes("a- -b")).toEqual([97, 45, 32, 45, 98]);
    expect(bytes("a+ ++b")).toEqual([97, 43, 152, 98]);
    expect(bytes("case 5:")).toEqual([bytes("case")[0], 53, 58]);
    expect(bytes("return a")).toEqual([bytes("return")[0], 97]);
    expect(bytes('""+x')).toEqual([34, 34, 43, 120]);
  });

  test("what a minifier spells out is one word again", () => {
    expect(bytes("void 0")).toEqual(bytes("undefined"));
    expect(bytes("!0")).toEqual(bytes("true"));
    expect(bytes("!1")).toEqual(bytes("false"));
    expect(bytes("!1e3")).not.toEqual(bytes("false"));
  });

  test("a template literal and a text beyond latin1 are refused", () => {
    expect(() => tokenise("`a`")).toThrow(/template literal/);
    expect(() => tokenise('"\\u20ac"')).toThrow(/beyond latin1/);
  });
});

test("the state table of a chip says what the state table says", async () => {
  const code = await packedStates(ROOT);
  const packed = (await import(
    `data:text/javascript;base64,${Buffer.from(code).toString("base64")}`
  )) as { nextState: typeof nextState; isOpen: typeof isOpen; meaningOf: typeof meaningOf };
  const states = STATES.map(({ state }) => state);
  const events = [...new Set(TRANSITIONS.map(({ event }) => event))];
  for (const state of [...states, "nowhere" as PairState]) {
    for (const event of [...events, "Both" as RoleEvent, "" as RoleEvent]) {
      expect(packed.nextState(state, event), `${state} ${event}`).toBe(nextState(state, event));
    }
    expect(packed.meaningOf(state)).toBe(meaningOf(state));
  }
  for (const state of states) expect(packed.isOpen(state), state).toBe(isOpen(state));
});

test("an image of a Storage holds each file behind its head, and no more than fits", () => {
  const image = storageImage({ [BOOT_FILE]: Buffer.from("abcde"), b: Buffer.from("f") }, 128);
  expect(image.readUInt32LE(0)).toBe(5);
  expect(image.toString("latin1", 4, 12)).toBe(".bootcde");
  expect(image.toString("latin1", 32, 37)).toBe("abcde");
  expect(image.readUInt32LE(roomOf(5))).toBe(1);
  expect(image[127]).toBe(255);
  expect(() => storageImage({ a: Buffer.alloc(128) }, 128)).toThrow(/full/);
});
