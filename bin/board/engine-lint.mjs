/**
 * What Espruino lacks or gets wrong, looked for in the bundle itself: a bundler adds syntax of its own, so the
 * source says too little. Each rule has a test. The lint is no proof: the bundle must run on the engine.
 */
import { parse } from "acorn";
import { ancestor, base, full } from "acorn-walk";

/** Missing on the engine by name. */
const GLOBALS = new Set([
  "Map", "Set", "WeakMap", "WeakSet", "Symbol", "Proxy", "Reflect", "BigInt", "TextEncoder", "TextDecoder",
  "setImmediate", "queueMicrotask", "structuredClone", "Buffer", "SharedArrayBuffer",
]); // prettier-ignore
const MEMBERS = new Set([
  "Array.from", "Array.of", "Object.freeze", "Number.isInteger", "Number.isSafeInteger", "Number.isFinite",
  "Math.trunc", "Math.imul", "Math.log2", "Math.hypot",
]); // prettier-ignore
/** Words that the engine's lexer keeps for itself wherever they stand. */
export const LEXER_WORDS = new Set(["of", "let", "static", "get", "set"]);

const RULES = {
  AssignmentPattern: "default parameter or value",
  RestElement: "rest parameter or element",
  SpreadElement: "spread",
  ObjectPattern: "destructuring",
  ArrayPattern: "destructuring",
  AwaitExpression: "await",
  YieldExpression: "generator",
  ChainExpression: "`?.`",
  LabeledStatement: "label",
  StaticBlock: "static block",
  TaggedTemplateExpression: "tagged template",
  ImportExpression: "dynamic import",
  MetaProperty: "meta property",
  WithStatement: "with",
};

const isLoop = (node) => /^(For|ForOf|ForIn|While|DoWhile)Statement$/.test(node.type);
const isFunction = (node) => /Function/.test(node.type);

/** Names bound by a function's own body or a block: `let`, `const`, `class`, function declarations. */
function declarationsOf(body) {
  const found = new Map();
  for (const statement of body) {
    if (statement.type === "FunctionDeclaration" || statement.type === "ClassDeclaration") {
      if (statement.id) found.set(statement.id.name, statement.start);
    } else if (statement.type === "VariableDeclaration") {
      for (const one of statement.declarations) {
        if (one.id.type === "Identifier") found.set(one.id.name, one.end);
      }
    }
  }
  return found;
}

/** Uses of a name while its scope is being evaluated, above where the name is defined. */
function usedBeforeDefined(body, complain) {
  const outer = declarationsOf(body);
  let declared = outer;
  /** A block's own names are judged when that block is looked at. */
  const within = (own, look) => {
    const around = declared;
    declared = new Map([...around].filter(([name]) => !own.has(name)));
    look();
    declared = around;
  };
  const visit = (node) => {
    if (node === null || typeof node !== "object") return;
    if (Array.isArray(node)) {
      for (const one of node) visit(one);
      return;
    }
    if (node.type === "BlockStatement" && declared.size > 0) {
      within(declarationsOf(node.body), () => visit(node.body));
      return;
    }
    if (/^For/.test(node.type) && declared.size > 0) {
      const head = node.init ?? node.left;
      within(declarationsOf(head === undefined || head === null ? [] : [head]), () => {
        for (const key of ["init", "left", "right", "test", "update", "body"]) visit(node[key]);
      });
      return;
    }
    if (typeof node.type !== "string") return;
    // What a function's body uses is looked up when it runs; one that runs at once counts.
    if (isFunction(node)) return;
    if (node.type === "CallExpression" && isFunction(node.callee)) visit(node.callee.body);
    if (node.type === "MemberExpression") {
      visit(node.object);
      if (node.computed) visit(node.property);
      return;
    }
    if (node.type === "Property") {
      visit(node.value);
      return;
    }
    if (node.type === "Identifier") {
      const at = declared.get(node.name);
      if (at !== undefined && node.start < at)
        complain(node, `\`${node.name}\` is used above its definition: nothing is hoisted`);
      return;
    }
    for (const key of Object.keys(node)) {
      if (key === "id" || key === "key" || key === "label") continue;
      if (node[key] !== null && typeof node[key] === "object") visit(node[key]);
    }
  };
  for (const statement of body) {
    if (statement.type === "FunctionDeclaration") continue;
    if (statement.type === "VariableDeclaration") {
      for (const one of statement.declarations) visit(one.init);
    } else visit(statement);
  }
}

/**
 * Looks through a bundle.
 * @returns complaints, each with the place in the bundle and what stands there
 */
export function lintBundle(text) {
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
  const classes = new Map();
  full(tree, (node) => {
    if (RULES[node.type] !== undefined) complain(node, RULES[node.type]);
    if ((node.key ?? node.property)?.type === "PrivateIdentifier") complain(node, "#private");
    if (isFunction(node) && node.generator) complain(node, "generator");
    if (isFunction(node) && node.async) complain(node, "async");
    if (node.type === "BinaryExpression" && node.operator === "**") complain(node, "`**`");
    if (node.type === "AssignmentExpression") {
      if (/^(\?\?|&&|\|\||\*\*)=$/.test(node.operator)) complain(node, `\`${node.operator}\``);
    }
    if (node.type === "Property" && node.computed) complain(node, "computed key");
    if ((node.type === "MethodDefinition" || node.type === "PropertyDefinition") && node.computed) {
      complain(node, "computed key");
    }
    if (node.type === "Property" && node.kind !== "init") complain(node, "getter or setter");
    if (node.type === "Literal" && node.bigint !== undefined) complain(node, "BigInt");
    if (node.type === "Literal" && node.regex && /[^gimy]/.test(node.regex.flags))
      complain(node, "regular expression flag");
    if (node.type === "SwitchStatement") {
      const at = node.cases.findIndex((one) => one.test === null);
      if (at >= 0 && at !== node.cases.length - 1)
        complain(node, "`default:` is not the last case");
    }
    if ((node.type === "ClassDeclaration" || node.type === "ClassExpression") && node.superClass) {
      if (node.superClass.name === "Error") complain(node, "`extends Error`");
      if (classes.has(node.superClass.name))
        complain(node, "a subclass of a subclass: `super` recurses for ever");
      if (node.id) classes.set(node.id.name, node);
    }
    if (node.type === "MemberExpression" && !node.computed && node.object.type === "Identifier") {
      const member = `${node.object.name}.${node.property.name}`;
      if (MEMBERS.has(member)) complain(node, member);
    }
    if (node.type === "Program" || node.type === "BlockStatement")
      usedBeforeDefined(node.body, complain);
  });
  ancestor(
    tree,
    {
      Identifier(node, state, ancestors) {
        if (LEXER_WORDS.has(node.name)) complain(node, `an identifier named \`${node.name}\``);
        if (GLOBALS.has(node.name)) complain(node, `global ${node.name}`);
        if (node.name === "arguments" && ancestors.length > 1) complain(node, "`arguments`");
      },
      Pattern(node) {
        if (node.type === "Identifier" && LEXER_WORDS.has(node.name)) {
          complain(node, `an identifier named \`${node.name}\``);
        }
      },
      Function(node, state, ancestors) {
        if (node.id && LEXER_WORDS.has(node.id.name))
          complain(node, `a function named \`${node.id.name}\``);
        const around = ancestors.slice(0, -1).reverse();
        const outer = around.findIndex(isFunction);
        if (around.slice(0, outer < 0 ? around.length : outer).some(isLoop)) {
          complain(node, "a closure made in a loop shares the loop's binding");
        }
      },
    },
    base,
  );
  return [...new Set(complaints)];
}

/**
 * Assignments to an array's length, which throw on the engine. After minifying nothing tells an array from a sink
 * (an object of ours with a field of that name), so this rule reads the same bundle with its names kept.
 */
export function lintLengths(named) {
  const complaints = [];
  full(parse(named, { ecmaVersion: "latest", sourceType: "script" }), (node) => {
    if (node.type !== "AssignmentExpression" || node.left.type !== "MemberExpression") return;
    const { object, property, computed } = node.left;
    if (computed || property.name !== "length") return;
    if (/sink\d*$/i.test(object.name ?? object.property?.name ?? "")) return;
    complaints.push(`assignment to \`.length\` (${named.slice(node.start, node.end)})`);
  });
  return complaints;
}

/** Identifiers that the engine's lexer takes for keywords, with new names. A minifier invents `of`. */
export function renameLexerWords(text) {
  const tree = parse(text, { ecmaVersion: "latest", sourceType: "script" });
  const places = [];
  const seen = new Set();
  const names = new Set();
  const note = (node) => {
    names.add(node.name);
    if (LEXER_WORDS.has(node.name) && !seen.has(node.start)) {
      seen.add(node.start);
      places.push(node);
    }
  };
  const skip = new Set();
  full(tree, (node) => {
    if (node.type === "MemberExpression" && !node.computed) skip.add(node.property.start);
    if (node.type === "Property" && !node.shorthand) skip.add(node.key.start);
    if (
      (node.type === "MethodDefinition" || node.type === "PropertyDefinition") &&
      !node.computed
    ) {
      skip.add(node.key.start);
    }
  });
  full(tree, (node) => {
    if (node.type === "Identifier" && !skip.has(node.start)) note(node);
    if (/Function|Class/.test(node.type) && node.id) note(node.id);
    if (/Function/.test(node.type))
      for (const one of node.params) if (one.type === "Identifier") note(one);
    if (node.type === "VariableDeclarator" && node.id.type === "Identifier") note(node.id);
    if (node.type === "CatchClause" && node.param?.type === "Identifier") note(node.param);
  });
  const fresh = new Map();
  for (const word of new Set(places.map((node) => node.name))) {
    let n = 0;
    while (names.has(`$${n}`)) n++;
    names.add(`$${n}`);
    fresh.set(word, `$${n}`);
  }
  let out = text;
  for (const node of places.sort((a, b) => b.start - a.start)) {
    out = out.slice(0, node.start) + fresh.get(node.name) + out.slice(node.end);
  }
  return out;
}
