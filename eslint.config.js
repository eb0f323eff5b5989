import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript-eslint";
import { readGraph, reachedFrom, sourceFiles } from "./test/house/source-graph.mjs";

const root = dirname(fileURLToPath(import.meta.url));

/** What runs on the controller's chip: its core, and every file of protocol/ that the core pulls in. */
function chipFiles() {
  const files = sourceFiles(root).filter((path) => /^(firmware\/core|protocol)\//.test(path));
  const graph = readGraph(root, files);
  const core = files.filter((path) => path.startsWith("firmware/core/"));
  const shared = [...reachedFrom(graph, core)].filter((path) => path.startsWith("protocol/"));
  return ["firmware/core/**/*.ts", ...shared.sort()];
}

const ban = (selector, message) => ({ selector, message });

const everywhere = [
  ban("TSEnumDeclaration", "No enum: use a const object with `as const`, or plain consts."),
  ban("ExportDefaultDeclaration", "No default export: export it by its name."),
  ban("ExportAllDeclaration", "No barrel: import from the file that defines it."),
];

const noIo = [
  "setTimeout",
  "setInterval",
  "setImmediate",
  "queueMicrotask",
  "console",
  "process",
  "performance",
  "crypto",
  "fetch",
  "require",
].map((name) => ({
  name,
  message: "A core does no input or output: ask for it through a port; time is an argument.",
}));
const noClock = [
  { name: "Date", message: "Time is an argument (nowMs); a wall clock is a port." },
  {
    name: "Promise",
    message: "A core has no promises: what ends later comes back in as an event.",
  },
];
const noRandom = [
  { object: "Math", property: "random", message: "Randomness is a port (ports.random)." },
];
const noNode = {
  patterns: [{ group: ["node:*"], message: "A core imports nothing of Node: ask through a port." }],
};
const noAsync = [
  ban(
    ":function[async=true]",
    "A core has no promises: what ends later comes back in as an event.",
  ),
  ban("AwaitExpression", "A core has no promises: what ends later comes back in as an event."),
];

const LOOPS =
  ":matches(ForStatement, ForOfStatement, ForInStatement, WhileStatement, DoWhileStatement)";

/** The language both chip engines run. Each message names what to write instead. */
const chipSyntax = [
  ban("ObjectPattern", "The chip has no destructuring: read the fields one by one."),
  ban("ArrayPattern", "The chip has no destructuring: read the elements by index."),
  ban("AssignmentPattern", "The chip has no default parameters: test for undefined in the body."),
  ban("RestElement", "The chip has no rest parameters: take an array."),
  ban("SpreadElement", "The chip has no spread: copy in a loop, or use concat or set()."),
  ban(
    "ObjectExpression > Property[computed=true]",
    "The chip has no computed keys: assign o[k] = v.",
  ),
  ban(
    ":matches(MethodDefinition, PropertyDefinition)[computed=true]",
    "The chip has no computed keys: give the member a name.",
  ),
  ban(":function[generator=true]", "The chip has no generators: keep the position in a field."),
  ban("YieldExpression", "The chip has no generators: keep the position in a field."),
  ban("ChainExpression", "The chip has no `?.`: test for undefined first."),
  ban(
    "BinaryExpression[operator='**'], AssignmentExpression[operator='**=']",
    "The chip has no `**`: multiply, or use Math.pow.",
  ),
  ban(
    "AssignmentExpression[operator=/^(\\?\\?|&&|\\|\\|)=$/]",
    "The chip has no logical assignment: write the if.",
  ),
  ban("LabeledStatement", "The chip has no labels: return from a function, or use a flag."),
  ban("PrivateIdentifier", "The chip has no #private: use TypeScript's private."),
  ban("StaticBlock", "The chip has no static blocks: assign after the class."),
  ban(
    ":matches(ClassDeclaration, ClassExpression)[superClass]",
    "No inheritance on the chip (super recurses): compose, or switch on a kind.",
  ),
  ban("Super", "No super on the chip: call the function by its name."),
  ban(
    "MethodDefinition[kind=/^(get|set)$/], ObjectExpression > Property[kind=/^(get|set)$/]",
    "No getters on the chip's paths: write a method, or a plain field.",
  ),
  ban(
    "SwitchStatement > SwitchCase[test=null]:not(:last-child)",
    "On the chip `default:` must be the last case.",
  ),
  ban(
    "AssignmentExpression > MemberExpression.left[property.name='length'][computed=false]:not([object.name=/sink$/i])",
    "On the chip assigning an array's length throws: make a new array, or keep the count in a field `used`.",
  ),
  ban(
    `${LOOPS} :function`,
    "On the chip closures made in a loop share one binding: make the function outside.",
  ),
  ban("Literal[bigint]", "The chip has no BigInt: use two u32, or a number below 2^53."),
  ban("VariableDeclaration[kind='var']", "The chip does not hoist: use const or let."),
  ban("ImportExpression", "The chip loads one bundle: import statically."),
  ban(
    "TemplateLiteral > TaggedTemplateExpression, TaggedTemplateExpression",
    "The chip has no tagged templates: call the function.",
  ),
];
const chipGlobals = [
  ["Map", "an object, or parallel arrays"],
  ["Set", "an object, or a typed array of flags"],
  ["WeakMap", "a field on the object"],
  ["WeakSet", "a field on the object"],
  ["Symbol", "a string or a const number"],
  ["Proxy", "a function"],
  ["Reflect", "plain property access"],
  ["BigInt", "two u32, or a number below 2^53"],
  ["BigInt64Array", "a Uint32Array of pairs"],
  ["BigUint64Array", "a Uint32Array of pairs"],
  ["TextEncoder", "a loop over charCodeAt (our texts are latin1)"],
  ["TextDecoder", "a loop over String.fromCharCode"],
  ["Buffer", "Uint8Array"],
  ["structuredClone", "a copy field by field"],
  ["globalThis", "an import or a port"],
  ["arguments", "named parameters"],
].map(([name, instead]) => ({ name, message: `The chip has no ${name}: use ${instead}.` }));
const chipProperties = [
  ["Array", "from", "a loop"],
  ["Array", "of", "an array literal"],
  ["Object", "freeze", "const and discipline"],
  ["Object", "fromEntries", "a loop"],
  ["Number", "isInteger", "x === Math.floor(x)"],
  ["Number", "isSafeInteger", "x === Math.floor(x) and a range test"],
  ["Math", "trunc", "Math.floor for x >= 0, or x | 0"],
  ["Math", "imul", "16-bit halves"],
].map(([object, property, instead]) => ({
  object,
  property,
  message: `The chip has no ${object}.${property}: use ${instead}.`,
}));

/**
 * The chip does not hoist, neither functions nor variables: what runs at once must stand below what it
 * uses. A use inside a function that runs later is fine.
 */
const definedFirst = {
  meta: {
    type: "problem",
    schema: [],
    messages: { early: "The chip does not hoist: `{{name}}` must be defined above its use." },
  },
  create(context) {
    const check = (scope) => {
      for (const reference of scope.references) {
        const variable = reference.resolved;
        if (!variable || variable.defs.length === 0) continue;
        const definition = variable.defs[0];
        if (definition.type === "Parameter" || definition.type === "ImportBinding") continue;
        if (reference.isTypeReference && !reference.isValueReference) continue;
        if (reference.from.variableScope !== variable.scope.variableScope) continue;
        if (reference.identifier.range[0] < definition.name.range[0]) {
          context.report({
            node: reference.identifier,
            messageId: "early",
            data: { name: reference.identifier.name },
          });
        }
      }
      scope.childScopes.forEach(check);
    };
    return { "Program:exit": (node) => check(context.sourceCode.getScope(node)) };
  },
};

// eslint-disable-next-line no-restricted-syntax -- the linter reads the default export
export default ts.config(
  { ignores: ["node_modules/", "dist/", "coverage/", ".dyad/", "**/*.d.mts"] },
  {
    files: ["**/*.{ts,mts,js,mjs}"],
    languageOptions: { parser: ts.parser, sourceType: "module" },
    plugins: {
      "@typescript-eslint": ts.plugin,
      house: { rules: { "defined-first": definedFirst } },
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "array-callback-return": "error",
      "constructor-super": "error",
      eqeqeq: "error",
      "for-direction": "error",
      "getter-return": "error",
      "no-async-promise-executor": "error",
      "no-compare-neg-zero": "error",
      "no-cond-assign": "error",
      "no-constant-binary-expression": "error",
      "no-control-regex": "off",
      "no-debugger": "error",
      "no-dupe-else-if": "error",
      "no-duplicate-case": "error",
      "no-empty": "error",
      "no-empty-pattern": "error",
      "no-eval": "error",
      "no-fallthrough": "error",
      "no-implied-eval": "error",
      "no-irregular-whitespace": "error",
      "no-loss-of-precision": "error",
      "no-new-wrappers": "error",
      "no-self-assign": "error",
      "no-self-compare": "error",
      "no-sparse-arrays": "error",
      "no-throw-literal": "error",
      "no-unreachable": "error",
      "no-unsafe-finally": "error",
      "no-unsafe-negation": "error",
      "no-useless-catch": "error",
      "no-useless-escape": "error",
      "no-var": "error",
      "no-with": "error",
      "prefer-const": ["error", { destructuring: "all", ignoreReadBeforeAssign: true }],
      "require-yield": "error",
      "use-isnan": "error",
      "valid-typeof": "error",
      "no-restricted-syntax": ["error", ...everywhere],
      "@typescript-eslint/consistent-type-imports": ["error", { disallowTypeAnnotations: false }],
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/no-non-null-asserted-optional-chain": "error",
      "@typescript-eslint/no-this-alias": "error",
      "@typescript-eslint/no-unsafe-function-type": "error",
      "@typescript-eslint/no-wrapper-object-types": "error",
      "@typescript-eslint/no-unused-vars": [
        "error",
        { argsIgnorePattern: "^_", varsIgnorePattern: "^_", caughtErrors: "none" },
      ],
    },
  },
  {
    // Generated: its directive is for whoever turns a rule on that long strings break.
    files: ["protocol/command-table.ts"],
    linterOptions: { reportUnusedDisableDirectives: "off" },
  },
  {
    // Cores: no clock, timer, promise, randomness or Node.
    files: [
      "protocol/**/*.ts",
      "firmware/core/**/*.ts",
      "agent/core/**/*.ts",
      "agent/commands/**/*.ts",
    ],
    rules: {
      "no-restricted-globals": ["error", ...noIo, ...noClock],
      "no-restricted-properties": ["error", ...noRandom],
      "no-restricted-imports": ["error", noNode],
      "no-restricted-syntax": ["error", ...everywhere, ...noAsync],
    },
  },
  {
    files: chipFiles(),
    rules: {
      "house/defined-first": "error",
      "no-restricted-globals": ["error", ...noIo, ...noClock, ...chipGlobals],
      "no-restricted-properties": ["error", ...noRandom, ...chipProperties],
      "no-restricted-syntax": ["error", ...everywhere, ...noAsync, ...chipSyntax],
    },
  },
);
