import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { parseBoard } from "../../bin/board/board-config.mjs";
import { bundleIotjs } from "../../bin/board/bundle-iotjs.mjs";
import { lintIotjs } from "../../bin/board/iotjs-lint.mjs";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

const here = spawnSync("sh", ["-c", "command -v iotjs"]).status === 0;
if (!here) console.log("test/board: rules not tried on the engine, no `iotjs` on PATH");

/** What the engine lacks, and a program with it that another engine runs without an error. */
const WRONG: [string, string][] = [
  ["`?.`", "var a;a?.b"],
  ["`??=`", "var a;a??=1"],
  ["`&&=`", "var a;a&&=1"],
  ["#private", "class A{#a=1}"],
  ["static block", "class A{static{}}"],
  ["dynamic import", "()=>import('a')"],
  ["regular expression group", "/(?<a>b)/"],
  ["regular expression group", "/(?<=a)b/"],
  ["regular expression group", "/\\p{L}/u"],
  ["global TextEncoder", "new TextEncoder"],
  ["global queueMicrotask", "queueMicrotask(()=>1)"],
  ["global structuredClone", "structuredClone(1)"],
  ["global performance", "performance.now()"],
  ["global WeakRef", "new WeakRef({})"],
  ["global SharedArrayBuffer", "new SharedArrayBuffer(1)"],
  ["Promise.allSettled", "Promise.allSettled([])"],
  ["process.hrtime", "process.hrtime()"],
  ["process.stdin", "process.stdin.fd"],
  [".findLast()", "[1].findLast(()=>1)"],
  [".toSorted()", "[1].toSorted()"],
];

describe("the lint of a bundle for IoT.js", () => {
  test.each(WRONG)("%s: %s", (what, text) => {
    expect(lintIotjs(text).join("\n")).toContain(what);
  });

  test.runIf(here)("each of them fails on the engine", () => {
    const dir = mkdtempSync(join(tmpdir(), "dyad-lint-"));
    try {
      const programs = WRONG.map(([, text]) => text);
      const script =
        `var all=${JSON.stringify(programs)};for(var i=0;i<all.length;i++)` +
        `try{(0,eval)(all[i]);console.log('runs: '+all[i])}catch(e){}console.log('END')`;
      writeFileSync(join(dir, "script.js"), script);
      const { stdout } = spawnSync("iotjs", ["script.js"], { cwd: dir, encoding: "utf8" });
      expect(stdout).toBe("END\n");
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  test("what the engine runs is let through", () => {
    const text =
      "(()=>{class A{x=1;static y=2;get z(){return 3}}const{a=1,...b}={c:[...'d']};" +
      "async function f(){for await(const g of [])await g}new Map;Symbol();2**3;null??1;1n;f(b,a)})()";
    expect(lintIotjs(text)).toEqual([]);
  });

  test("the firmware's bundle has nothing the engine lacks", async () => {
    const file = join(ROOT, "board-configs", "iotjs-linux.json");
    const raw = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
    delete raw.keyFile;
    raw.key = "00".repeat(32);
    expect(lintIotjs(await bundleIotjs(ROOT, "iotjs-linux", parseBoard(raw, file)))).toEqual([]);
  });
});
