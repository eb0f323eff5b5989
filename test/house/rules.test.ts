/** Each house rule is seen to fail on a small source that breaks it, and to pass on one that does not. */
import { ESLint } from "eslint";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import {
  cycles,
  docstrings,
  exportStyle,
  layering,
  machinePaths,
  names,
  neverImported,
  sansIo,
  virtualBoard,
} from "./rules.js";
import type { SourceGraph } from "./source-graph.mjs";
import { graphNode } from "./source-graph.mjs";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

function house(files: Record<string, string>): SourceGraph {
  const known = new Set(Object.keys(files));
  return new Map(Object.entries(files).map(([path, text]) => [path, graphNode(path, text, known)]));
}

describe("layering", () => {
  const one = (from: string, to: string): string[] => {
    const up = "../".repeat(from.split("/").length - 1);
    const text = `import { a } from "${up}${to.replace(/\.ts$/, ".js")}"; export const b = a;`;
    return layering(house({ [from]: text, [to]: "export const a = 1;" }));
  };
  it.each([
    ["protocol/resp.ts", "firmware/core/load.ts"],
    ["firmware/core/load.ts", "firmware/link.ts"],
    ["firmware/core/load.ts", "agent/core/log.ts"],
    ["agent/log-file.ts", "firmware/link.ts"],
    ["agent/core/log.ts", "agent/store/store.ts"],
    ["client/client.ts", "agent/core/log.ts"],
    ["firmware/link.ts", "hal/node/tcp.ts"],
    ["firmware/link.ts", "hal/virtual-board/board.ts"],
    ["hal/virtual-board/board.ts", "firmware/main.node.ts"],
    ["agent/links.ts", "sim/world.ts"],
    ["bench/pause.ts", "agent/core/log.ts"],
  ])("refuses %s importing %s", (from, to) => {
    expect(one(from, to)).toHaveLength(1);
  });
  it.each([
    ["firmware/core/load.ts", "protocol/frame.ts"],
    ["agent/commands/strings.ts", "agent/core/execution.ts"],
    ["firmware/main.node.ts", "hal/node/tcp.ts"],
    ["firmware/link.ts", "hal/hal.ts"],
    ["firmware/main.board.ts", "hal/virtual-board/board.ts"],
    ["sim/world.ts", "hal/virtual-board/board.ts"],
    ["sim/world.ts", "agent/core/log.ts"],
    ["client/client.ts", "protocol/frame.ts"],
    ["bench/forward.ts", "firmware/core/load.ts"],
  ])("allows %s importing %s", (from, to) => {
    expect(one(from, to)).toEqual([]);
  });
  it("counts imports of types, and import() in types", () => {
    const graph = house({
      "protocol/a.ts": `export type A = import("../agent/core/b.js").B;`,
      "agent/core/b.ts": `import type { A } from "../../protocol/a.js"; export interface B { a: A }`,
    });
    expect(layering(graph)).toHaveLength(1);
  });
  it("refuses a folder it does not know, and an import of nothing", () => {
    expect(layering(house({ "stuff/a.ts": "export const a = 1;" }))).toHaveLength(1);
    expect(layering(house({ "protocol/a.ts": `import "./gone.js";` }))).toHaveLength(1);
  });
});

describe("cycles", () => {
  it("finds a circle of three, once", () => {
    const graph = house({
      "protocol/a.ts": `import { b } from "./b.js"; export const a = () => b;`,
      "protocol/b.ts": `import { c } from "./c.js"; export const b = () => c;`,
      "protocol/c.ts": `import { a } from "./a.js"; export const c = () => a;`,
    });
    expect(cycles(graph)).toHaveLength(1);
  });
  it("lets types go round", () => {
    const graph = house({
      "protocol/a.ts": `import type { B } from "./b.js"; export interface A { b: B }`,
      "protocol/b.ts": `import type { A } from "./a.js"; export interface B { a: A }`,
    });
    expect(cycles(graph)).toEqual([]);
  });
});

describe("names", () => {
  it.each([
    ["agent/utils.ts", "export const a = 1;"],
    ["agent/byte-helpers.ts", "export const a = 1;"],
    ["agent/helpers/bytes.ts", "export const a = 1;"],
    ["agent/session-manager.ts", "export const a = 1;"],
    ["agent/index.ts", "export const a = 1;"],
    ["agent/session.ts", "export class SessionManager {}"],
  ])("refuses %s with %s", (path, text) => {
    expect(names(house({ [path]: text }))).not.toEqual([]);
  });
  it("allows names that contain the letters", () => {
    expect(names(house({ "agent/utility-room.ts": "export const utilization = 1;" }))).toEqual([]);
  });
});

describe("exports", () => {
  it.each([
    `export * from "./b.js"; export const a = 1;`,
    `export { b } from "./b.js";`,
    `export default 1;`,
    `export default function a() {}`,
  ])("refuses %s", (text) => {
    const graph = house({ "agent/a.ts": text, "agent/b.ts": "export const b = 1;" });
    expect(exportStyle(graph)).not.toEqual([]);
  });
  it("allows a name passed on beside its own", () => {
    const text = `export type { B } from "./b.js"; export const a = 1;`;
    expect(exportStyle(house({ "agent/a.ts": text }))).toEqual([]);
  });
});

describe("files that nothing uses", () => {
  const main = { "agent/main.ts": `import { a } from "./a.js"; a();` };
  it("finds one, and one that only a test uses", () => {
    const graph = house({
      ...main,
      "agent/a.ts": "export const a = () => 1;",
      "agent/b.ts": "export const b = 1;",
      "agent/c.ts": "export const c = 1;",
      "test/agent/c.test.ts": `import { c } from "../../agent/c.js"; c;`,
    });
    expect(neverImported(graph)).toEqual([
      "agent/b.ts: nothing imports it: use it or remove it",
      "agent/c.ts: only tests import it: use it or remove it",
    ]);
  });
  it("lets a seam of types be named by types", () => {
    const graph = house({
      ...main,
      "agent/a.ts": `import type { P } from "./ports.js"; export const a = (p?: P) => p;`,
      "agent/ports.ts": "export interface P { x: number }",
    });
    expect(neverImported(graph)).toEqual([]);
  });
});

describe("sans-IO", () => {
  it.each([
    `import { readFileSync } from "node:fs"; readFileSync("a");`,
    `import pino from "pino"; pino();`,
    "export const now = () => Date.now();",
    "export const at = new Date();",
    "export const r = () => Math.random();",
    "setTimeout(() => 1, 5);",
    "console.log(1);",
    "export const p = Promise.resolve(1);",
    "export async function f(): Promise<void> {}",
    "export const n = performance.now();",
  ])("refuses in a core: %s", (text) => {
    expect(sansIo(house({ "agent/core/a.ts": text }))).not.toEqual([]);
  });
  it.each([`import pino from "pino"; pino(Date.now());`, "export const r = () => Math.random();"])(
    "allows in a shell: %s",
    (text) => {
      expect(sansIo(house({ "agent/a.ts": text }))).toEqual([]);
    },
  );
  it("allows names that only look like it", () => {
    const text = `
      export interface P { random(): number; process: number; end(): Promise<void> }
      export const f = (p: P) => p.random() + p.process; // Date
      export const q = { console: 1 };
      export class R { console(line: string): string { return line; } }`;
    expect(sansIo(house({ "agent/core/a.ts": text }))).toEqual([]);
  });
});

describe("docstrings", () => {
  it("finds what has none", () => {
    const text = `/** File. */\nimport "./b.js";\n\nexport const A = 1;\n\nexport interface B {}\n\nexport function c() {}\n`;
    expect(docstrings(house({ "protocol/a.ts": text }))).toHaveLength(3);
  });
  it("lets one docstring head a block of consts, and ends it at a blank line", () => {
    const block = `import "./b.js";\n/** Kinds. */\nexport const A = 1;\nexport const B = 2;\n`;
    expect(docstrings(house({ "protocol/a.ts": block }))).toEqual([]);
    expect(docstrings(house({ "protocol/a.ts": `${block}\nexport const C = 3;\n` }))).toHaveLength(
      1,
    );
  });
  it("asks nothing of other rooms", () => {
    expect(docstrings(house({ "agent/a.ts": "export const a = 1;" }))).toEqual([]);
  });
});

describe("machine paths", () => {
  const check = (text: string): string[] => machinePaths(new Map([["docs/a.md", text]]), "/r/p");
  it("refuses this checkout, somebody's home, and the folder beside the project", () => {
    expect(check("see /r/p/agent")).toHaveLength(1);
    expect(check(`cd /${"home"}/ann/dyad`)).toHaveLength(1);
    expect(check(`as ..${"/shared"}/X.md says`)).toHaveLength(1);
  });
  it("allows system paths and relative ones", () => {
    expect(check("/etc/systemd/system and ./agent and /var/lib/dyad")).toEqual([]);
  });
});

describe("the chip's language (eslint)", () => {
  const eslint = new ESLint({ cwd: root });
  const complaints = async (text: string, filePath: string): Promise<string[]> => {
    const [result] = await eslint.lintText(text, { filePath });
    return result.messages.map((message) => message.message);
  };
  it.each([
    ["destructuring", "export function f(o: { a: number }) { const { a } = o; return a; }"],
    ["array destructuring", "export function f(o: number[]) { const [a] = o; return a; }"],
    ["default parameter", "export function f(a = 1) { return a; }"],
    ["rest parameter", "export function f(...a: number[]) { return a; }"],
    ["spread", "export function f(a: number[]) { return [...a]; }"],
    ["computed key", "export function f(a: string) { return { [a]: 1 }; }"],
    ["async", "export async function f() { return 1; }"],
    ["generator", "export function* f() { yield 1; }"],
    ["optional chain", "export function f(a: { b: number } | undefined) { return a?.b; }"],
    ["power", "export function f(a: number) { return a ** 2; }"],
    ["label", "export function f() { a: for (;;) break a; }"],
    ["#private", "export class A { #b = 1; c() { return this.#b; } }"],
    ["static block", "export class A { static b = 0; static { A.b = 1; } }"],
    ["inheritance", "class A {} export class B extends A {}"],
    ["getter", "export class A { get b() { return 1; } }"],
    [
      "default first",
      "export function f(a: number) { switch (a) { default: return 0; case 1: return 1; } }",
    ],
    ["length", "export function f(a: number[]) { a.length = 0; }"],
    [
      "closure in a loop",
      "export function f(g: (h: () => number) => void) { for (let i = 0; i < 3; i++) g(() => i); }",
    ],
    ["function before its definition", "export const a = f(); function f() { return 1; }"],
    ["const before its definition", "export const a = () => 1; export const c = [b]; const b = 2;"],
    [
      "inner function before its definition",
      "export function f() { return g(); function g() { return 1; } }",
    ],
    ["Map", "export const a = new Map();"],
    ["Symbol", "export const a = Symbol('a');"],
    ["Array.from", "export const a = Array.from('abc');"],
    ["Object.freeze", "export const a = Object.freeze({});"],
    ["Number.isInteger", "export const a = Number.isInteger(1);"],
    ["Math.trunc", "export const a = Math.trunc(1);"],
    ["Math.imul", "export const a = Math.imul(1, 2);"],
    ["BigInt", "export const a = 1n;"],
    ["TextEncoder", "export const a = new TextEncoder();"],
    ["Buffer", "export const a = Buffer.alloc(1);"],
    ["timer", "setTimeout(() => 1, 1);"],
    ["clock", "export const a = Date.now();"],
    ["random", "export const a = Math.random();"],
    ["node", "import { readFileSync } from 'node:fs'; export const a = readFileSync;"],
    ["enum", "export enum A { B }"],
  ])("refuses %s", async (_, text) => {
    expect(await complaints(text, "firmware/core/fixture.ts")).not.toEqual([]);
  });
  it("allows the plain language", async () => {
    const text = `
      const TABLE = new Uint8Array(4);
      export class A {
        private b = 1;
        c(d: number | undefined): number {
          for (let i = 0; i < TABLE.length; i++) TABLE[i] = later(d ?? this.b);
          return \`\${TABLE[0]}\`.length;
        }
      }
      function later(a: number): number { return a | 0; }`;
    expect(await complaints(text, "firmware/core/fixture.ts")).toEqual([]);
  });
  it("does not ask it of the agent", async () => {
    const text = "export const f = (a: number[]) => [...a, 2 ** 3];";
    expect(await complaints(text, "agent/core/fixture.ts")).toEqual([]);
  });
});

describe("the virtual board", () => {
  const files = (from: string): SourceGraph =>
    house({
      [`hal/virtual-board/${from}`]: `import { a } from "./node-host.js"; import { b } from "node:fs"; export const c = [a, b];`,
      "hal/virtual-board/node-host.ts": "export const a = 1;",
    });
  it("knows Node only in files named after it", () => {
    expect(virtualBoard(files("board.ts"))).toHaveLength(2);
    expect(virtualBoard(files("node-flash.ts"))).toEqual([]);
  });
});
