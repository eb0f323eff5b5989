/**
 * What IoT.js of 2021 (JerryScript 2.4, profile es.next) lacks or gets wrong, looked for in the bundle itself: a bundler
 * adds syntax of its own. Each rule was seen to fail on the engine and has a test.
 */
import { parse } from "acorn";
import { ancestor, full } from "acorn-walk";

/** Missing on the engine by name. */
const GLOBALS = new Set([
  "TextEncoder", "TextDecoder", "queueMicrotask", "structuredClone", "performance", "WeakRef", "FinalizationRegistry",
  "SharedArrayBuffer", "Atomics", "URL", "Intl", "AbortController", "fetch",
]); // prettier-ignore
const MEMBERS = new Set([
  "Object.hasOwn", "Object.groupBy", "Promise.allSettled", "Promise.any", "Promise.withResolvers", "Array.fromAsync",
  "process.hrtime", "process.stdin", "process.stdout", "process.uptime", "process.memoryUsage", "process.kill",
]); // prettier-ignore
/** Methods that no value has there. */
const METHODS = new Set([
  "findLast", "findLastIndex", "toSorted", "toReversed", "toSpliced", "isWellFormed",
]); // prettier-ignore

const RULES = {
  ChainExpression: "`?.`",
  StaticBlock: "static block",
  ImportExpression: "dynamic import",
  MetaProperty: "meta property",
};

/** Groups that the engine's regular expressions do not have: by name, and looking back; properties of characters. */
const REGEX = /\(\?<|\\p\{|\\P\{/;

/**
 * Looks through a bundle.
 * @returns complaints, each with the place in the bundle and what stands there
 */
export function lintIotjs(text) {
  const complaints = [];
  let tree;
  try {
    tree = parse(text, { ecmaVersion: "latest", sourceType: "script" });
  } catch (error) {
    return [`the bundle does not parse: ${error.message}`];
  }
  const complain = (node, what) => {
    const excerpt = text.slice(Math.max(0, node.start - 20), node.start + 60).replace(/\s+/g, " ");
    complaints.push(`${what} (at ${node.start}: ${excerpt})`);
  };
  full(tree, (node) => {
    if (RULES[node.type] !== undefined) complain(node, RULES[node.type]);
    if ((node.key ?? node.property)?.type === "PrivateIdentifier") complain(node, "#private");
    if (node.type === "AssignmentExpression" && /^(\?\?|&&|\|\|)=$/.test(node.operator))
      complain(node, `\`${node.operator}\``);
    if (node.type === "Literal" && node.regex) {
      if (REGEX.test(node.regex.pattern)) complain(node, "regular expression group");
      if (/[^gimsuy]/.test(node.regex.flags)) complain(node, "regular expression flag");
    }
    if (node.type === "MemberExpression" && !node.computed) {
      if (node.object.type === "Identifier") {
        const member = `${node.object.name}.${node.property.name}`;
        if (MEMBERS.has(member)) complain(node, member);
      }
      if (METHODS.has(node.property.name)) complain(node, `.${node.property.name}()`);
    }
  });
  ancestor(tree, {
    Identifier(node) {
      if (GLOBALS.has(node.name)) complain(node, `global ${node.name}`);
    },
  });
  return [...new Set(complaints)];
}
