import { describe, expect, test } from "vitest";
import { lintBundle, lintLengths, renameLexerWords } from "../../bin/board/engine-lint.mjs";

/** What the engine lacks or gets wrong, and a bundle with it. */
const WRONG: [string, string][] = [
  ["default parameter", "function f(a=1){}"],
  ["rest parameter", "function f(...a){}"],
  ["spread", "f(...a)"],
  ["destructuring", "var {a}=b"],
  ["destructuring", "var [a]=b"],
  ["generator", "function* f(){}"],
  ["async", "async function f(){}"],
  ["`?.`", "a?.b"],
  ["`**`", "a**b"],
  ["`??=`", "a??=b"],
  ["label", "x:for(;;)break x"],
  ["#private", "class A{#a=1}"],
  ["static block", "class A{static{}}"],
  ["tagged template", "f`a`"],
  ["computed key", "a={[b]:1}"],
  ["getter or setter", "a={get b(){return 1}}"],
  ["BigInt", "a=1n"],
  ["`default:` is not the last case", "switch(a){default:b();case 1:c()}"],
  ["extends Error", "class A extends Error{}"],
  ["a subclass of a subclass", "class A extends X{}class B extends A{}class C extends B{}"],
  ["Array.from", "Array.from(a)"],
  ["Math.trunc", "Math.trunc(a)"],
  ["Object.freeze", "Object.freeze(a)"],
  ["global Map", "new Map"],
  ["global Symbol", "Symbol()"],
  ["global TextEncoder", "new TextEncoder"],
  ["`arguments`", "function f(){return arguments}"],
  ["named `of`", "var of=1"],
  ["used above its definition", "f();function f(){}"],
  ["used above its definition", "(()=>{var a=b;const b=1})()"],
  ["used above its definition", "function f(){if(a){g(n)}const n=1}"],
  ["used above its definition", "function f(){for(const a of b)g(n);const n=1}"],
  ["a closure made in a loop", "for(let i=0;i<2;i++)f(()=>i)"],
];

describe("the lint of a bundle", () => {
  test.each(WRONG)("%s: %s", (what, text) => {
    expect(lintBundle(text).join("\n")).toContain(what);
  });

  test("what the engine runs is let through", () => {
    expect(
      lintBundle(
        "(()=>{class A{constructor(x){this.x=x}f(){return this.x??0}}var a=new A(1);" +
          "for(const b of[1,2])a.f(b);switch(a){case 1:break;default:a.f()}" +
          "function g(){return h()}function h(){return`${a}`}g()})()",
      ),
    ).toEqual([]);
  });

  test("a block may have a name of its own that its function has later", () => {
    const text = "function f(a){if(a){const n=2;g(n)}for(let n=0;n<2;n++)g(n);const n=1;return n}";
    expect(lintBundle(text)).toEqual([]);
  });

  test("an array's length, but not a sink's", () => {
    expect(lintLengths("rows.length=0")).toHaveLength(1);
    expect(lintLengths("localSink.length=0;sink.length=1")).toEqual([]);
  });

  test("a name the minifier took from the engine's lexer is replaced everywhere", () => {
    const text = "var of=1,$0=2;function f(a){return of+a.of+$0}";
    const renamed = renameLexerWords(text);
    expect(renamed).toBe("var $1=1,$0=2;function f(a){return $1+a.of+$0}");
    expect(lintBundle(renamed)).toEqual([]);
  });
});
