/**
 * What a bundle can save before it is minified, seen as a whole.
 *
 * - Numbers with a name at the bundle's top are put where they are used: each name is a variable for as long as the
 *   firmware runs, and a longer search for every other name.
 * - Control messages that only servers say to each other are not read or written.
 * - What a broken assertion says is a number, with its text in a list beside the bundle.
 * - Modules whose functions are seldom called are made when one of them is called and forgotten afterwards. A function costs
 *   a chip five variables and one for each parameter, whether it is ever called or not; its text lies in flash anyway.
 *
 *       function whyText(pair) {..}             function explain$lazy(n) { function whyText(pair) {..} ..
 *       function linkText(view) {..}     ->                               return n === 0 ? whyText : linkText; }
 *       .. whyText(pair) ..                     .. explain$lazy(0)(pair) ..
 */
import { parse } from "acorn";
import { ancestor, full } from "acorn-walk";

/** Control messages a controller says, and those it listens to. A message of another kind is one it does not know. */
const WRITTEN = new Set(["KIND_CHALLENGE", "KIND_REFUSE", "KIND_RECORD", "KIND_PASSED"]);
const READ = new Set([
  "KIND_HELLO",
  "KIND_PROOF",
  "KIND_REPORT",
  "KIND_ANNOUNCE",
  "KIND_ASK",
  "KIND_REFUSE",
  "KIND_GOODBYE",
]);

function bodyOf(tree) {
  for (const statement of tree.body) {
    if (statement.type !== "ExpressionStatement") continue;
    const { expression } = statement;
    if (expression.type === "CallExpression" && /Function/.test(expression.callee.type))
      return expression.callee.body.body;
  }
  throw new Error("the bundle is not one function called at once");
}

function parsed(text) {
  const comments = [];
  const tree = parse(text, { ecmaVersion: 2020, sourceType: "script", onComment: comments });
  return { tree, comments, body: bodyOf(tree) };
}

/** Replaces places of a text; `edits` are { start, end, text } and do not overlap. */
function edited(text, edits) {
  let out = text;
  for (const edit of edits.sort((a, b) => b.start - a.start))
    out = out.slice(0, edit.start) + edit.text + out.slice(edit.end);
  return out;
}

/** How often each name is bound anywhere, and which names are assigned to after that. */
function bindingsOf(tree) {
  const bound = new Map();
  const assigned = new Set();
  const bind = (pattern) => {
    if (pattern?.type === "Identifier") bound.set(pattern.name, (bound.get(pattern.name) ?? 0) + 1);
  };
  full(tree, (node) => {
    if (node.type === "VariableDeclarator") bind(node.id);
    if (/Function|Class/.test(node.type)) bind(node.id);
    if (/Function/.test(node.type)) node.params.forEach(bind);
    if (node.type === "CatchClause") bind(node.param);
    if (node.type === "AssignmentExpression" && node.left.type === "Identifier")
      assigned.add(node.left.name);
    if (node.type === "UpdateExpression" && node.argument.type === "Identifier")
      assigned.add(node.argument.name);
  });
  return { bound, assigned };
}

/** References to names as values: neither where they are bound nor property names. */
function referencesOf(tree, visit) {
  ancestor(tree, {
    Identifier(node, state, ancestors) {
      visit(node, ancestors.at(-2));
    },
  });
}

/** The number or boolean an expression is, undefined when it is not known here. */
function constantOf(node, known) {
  if (node.type === "Literal")
    return typeof node.value === "number" || typeof node.value === "boolean"
      ? node.value
      : undefined;
  if (node.type === "Identifier") return known.get(node.name);
  if (node.type === "UnaryExpression") {
    const value = constantOf(node.argument, known);
    if (typeof value !== "number") return undefined;
    return { "-": -value, "~": ~value, "+": value }[node.operator];
  }
  if (node.type === "BinaryExpression") {
    const a = constantOf(node.left, known);
    const b = constantOf(node.right, known);
    if (typeof a !== "number" || typeof b !== "number") return undefined;
    switch (node.operator) {
      case "+":
        return a + b;
      case "-":
        return a - b;
      case "*":
        return a * b;
      case "|":
        return a | b;
      case "&":
        return a & b;
      case "<<":
        return a << b;
      default:
        return undefined;
    }
  }
  return undefined;
}

export function inlineConstants(text) {
  const { tree, body } = parsed(text);
  const { bound, assigned } = bindingsOf(tree);
  const known = new Map();
  const edits = [];
  for (const statement of body) {
    if (statement.type !== "VariableDeclaration" || statement.declarations.length !== 1) continue;
    const [{ id, init }] = statement.declarations;
    if (init === null || bound.get(id.name) !== 1 || assigned.has(id.name)) continue;
    const value = constantOf(init, known);
    if (value === undefined) continue;
    known.set(id.name, value);
    edits.push({ start: statement.start, end: statement.end, text: "" });
  }
  const gone = edits.slice();
  referencesOf(tree, (node, parent) => {
    const value = known.get(node.name);
    if (value === undefined) return;
    if (gone.some((edit) => node.start >= edit.start && node.end <= edit.end)) return;
    const literal = value < 0 ? `(${value})` : String(value);
    const shorthand = parent?.type === "Property" && parent.shorthand;
    edits.push({
      start: node.start,
      end: node.end,
      text: shorthand ? `${node.name}: ${literal}` : literal,
    });
  });
  return edited(text, edits);
}

const lazyName = (path) => `${path.replace(/^.*\//, "").replace(/\W/g, "_")}$lazy`;

/** Functions that only one group uses join it. @param owner group by name of function; it grows */
function absorb(tree, body, groups, owner, bound) {
  const functions = body.filter((one) => one.type === "FunctionDeclaration");
  for (let grown = true; grown;) {
    grown = false;
    const users = new Map(functions.map((one) => [one.id.name, new Set()]));
    referencesOf(tree, (node, parent) => {
      if (parent?.id === node || !users.has(node.name)) return;
      const around = functions.find((one) => node.start > one.start && node.end < one.end);
      users.get(node.name).add(around === undefined ? undefined : owner.get(around.id.name));
    });
    for (const one of functions) {
      const { name } = one.id;
      const [user] = users.get(name);
      if (owner.has(name) || users.get(name).size !== 1 || user === undefined) continue;
      if (bound.get(name) !== 1 || makesClosures(one)) continue;
      owner.set(name, user);
      groups.get(user).push(one);
      grown = true;
    }
  }
  for (const group of groups.values()) group.sort((a, b) => a.start - b.start);
}

/** @param modules paths, as the bundler's comments name them, each with the names of its functions or for all of them */
export function makeLazy(text, modules) {
  const { tree, comments, body } = parsed(text);
  const { bound } = bindingsOf(tree);
  const marks = comments
    .filter((comment) => comment.type === "Line" && /^ \S+\.ts$/.test(comment.value))
    .map((comment) => ({ at: comment.start, path: comment.value.slice(1) }));
  const moduleAt = (at) => marks.filter((mark) => mark.at < at).at(-1)?.path;
  const chosen = new Map(
    modules.map((entry) => {
      const [path, names] = entry.split(": ");
      return [path, names?.split(" ")];
    }),
  );
  const groups = new Map([...chosen.keys()].map((path) => [path, []]));
  for (const statement of body) {
    if (statement.type !== "FunctionDeclaration") continue;
    const path = moduleAt(statement.start);
    if (chosen.get(path)?.includes(statement.id.name) ?? true) groups.get(path)?.push(statement);
  }
  const owner = new Map();
  for (const [path, functions] of groups) {
    for (const one of functions) {
      if (bound.get(one.id.name) !== 1)
        throw new Error(`${one.id.name} of ${path} is bound twice: it cannot be made lazily`);
      owner.set(one.id.name, path);
    }
  }
  // Who is asked for from outside its module gets a number there.
  absorb(tree, body, groups, owner, bound);
  [...groups.values()].flat().forEach(refuseClosures);
  const numbers = new Map([...groups.keys()].map((path) => [path, new Map()]));
  const outside = [];
  referencesOf(tree, (node, parent) => {
    const path = owner.get(node.name);
    if (path === undefined || parent?.id === node) return;
    if (groups.get(path).some((one) => node.start > one.start && node.end < one.end)) return;
    const known = numbers.get(path);
    if (!known.has(node.name)) known.set(node.name, known.size);
    const call = `${lazyName(path)}(${known.get(node.name)})`;
    const shorthand = parent?.type === "Property" && parent.shorthand;
    outside.push({
      start: node.start,
      end: node.end,
      text: shorthand ? `${node.name}: ${call}` : call,
    });
  });
  const edits = [];
  for (const [path, functions] of groups) {
    if (functions.length === 0) continue;
    const choice = [...numbers.get(path)].sort((a, b) => a[1] - b[1]).map(([name]) => name);
    const inner = functions.map((one) =>
      edited(
        text.slice(one.start, one.end),
        outside
          .filter((edit) => edit.start > one.start && edit.end < one.end)
          .map((edit) => ({
            ...edit,
            start: edit.start - one.start,
            end: edit.end - one.start,
          })),
      ),
    );
    const last = choice.pop();
    const picked = choice.map((name, n) => `n$ === ${n} ? ${name} : `).join("") + last;
    functions.forEach((one, i) => {
      edits.push({
        start: one.start,
        end: one.end,
        text:
          i > 0
            ? ""
            : `function ${lazyName(path)}(n$) {\n${inner.join("\n")}\nreturn ${picked};\n}`,
      });
    });
  }
  const lazily = [...groups.values()].flat();
  for (const edit of outside) {
    if (!lazily.some((one) => edit.start > one.start && edit.end < one.end)) edits.push(edit);
  }
  return edited(text, edits);
}

function makesClosures(maker) {
  let found = 0;
  full(maker.body, (node) => {
    if (/Function/.test(node.type)) found++;
    // The order of a sort is not kept.
    if (node.type === "CallExpression" && node.callee.property?.name === "sort") found--;
  });
  return found > 0;
}

/** A closure that outlives its maker would keep the whole group in memory. */
function refuseClosures(maker) {
  if (makesClosures(maker))
    throw new Error(`${maker.id.name} makes a closure: it is not to be made lazily`);
}

/**
 * The same inside one function, for what it defines and only calls itself.
 * @param entry `function: names`
 */
export function makeLazyWithin(text, entry) {
  const [outerName, list] = entry.split(": ");
  const { tree } = parsed(text);
  let outer = undefined;
  full(tree, (node) => {
    if (node.type === "FunctionDeclaration" && node.id.name === outerName) outer = node;
  });
  if (outer === undefined) throw new Error(`no function ${outerName} in the bundle`);
  const functions = list.split(" ").flatMap((name) => {
    const found = outer.body.body.filter(
      (one) => one.type === "FunctionDeclaration" && one.id.name.replace(/\d+$/, "") === name,
    );
    // What a board does not offer is not there.
    return found.slice(0, 1);
  });
  if (functions.length === 0) return text;
  for (const one of functions) refuseClosures(one);
  const numbers = new Map(functions.map((one, n) => [one.id.name, n]));
  const lazy = `${outerName}$lazy`;
  const edits = [];
  ancestor(outer, {
    Identifier(node, state, ancestors) {
      if (!numbers.has(node.name)) return;
      const parent = ancestors.at(-2);
      if (parent?.id === node) return;
      if (parent?.type !== "CallExpression" || parent.callee !== node)
        throw new Error(`${node.name} of ${outerName} is handed out: it cannot be made lazily`);
      if (functions.some((one) => node.start > one.start && node.end < one.end)) return;
      edits.push({ start: node.start, end: node.end, text: `${lazy}(${numbers.get(node.name)})` });
    },
  });
  const bodies = functions.map((one) => text.slice(one.start, one.end)).join("\n");
  const names = [...numbers.keys()];
  const last = names.pop();
  const picked = names.map((name, n) => `n$ === ${n} ? ${name} : `).join("") + last;
  functions.forEach((one, i) => {
    edits.push({
      start: one.start,
      end: one.end,
      text: i > 0 ? "" : `function ${lazy}(n$) {\n${bodies}\nreturn ${picked};\n}`,
    });
  });
  return edited(text, edits);
}

/** Takes cases out of the one switch of a function. @param kept names of the constants whose cases stay */
function keepCases(text, functionName, kept) {
  const { tree } = parsed(text);
  const edits = [];
  full(tree, (node) => {
    if (node.type !== "FunctionDeclaration" || node.id.name !== functionName) return;
    full(node.body, (inner) => {
      if (inner.type !== "SwitchCase" || inner.test?.type !== "Identifier") return;
      if (/^KIND_/.test(inner.test.name) && !kept.has(inner.test.name))
        edits.push({ start: inner.start, end: inner.end, text: "" });
    });
  });
  if (edits.length === 0) throw new Error(`no cases of ${functionName} in the bundle`);
  return edited(text, edits);
}

const FAILED = "assertion failed: ";

/** @param list gets the texts, each at the place of its number */
export function numberAssertions(text, list) {
  const { tree } = parsed(text);
  const edits = [];
  const numbered = (literal, what) => {
    if (!list.includes(what)) list.push(what);
    edits.push({
      start: literal.start,
      end: literal.end,
      text: JSON.stringify(String(list.indexOf(what))),
    });
  };
  full(tree, (node) => {
    if (node.type === "CallExpression" && /^assert\d*$/.test(node.callee.name ?? "")) {
      const what = node.arguments[1];
      if (what?.type === "Literal") numbered(what, what.value);
    } else if (node.type === "NewExpression" && node.callee.name === "Error") {
      const what = node.arguments[0];
      if (what?.type === "Literal" && String(what.value).startsWith(FAILED))
        numbered(what, what.value.slice(FAILED.length));
    }
  });
  return edited(text, edits);
}

/**
 * Moves functions to the start of the scope that defines them. Only what is called later may use them, so nothing changes
 * but how soon the engine finds them.
 * @param lists names, or `function: names` for what another function defines; what a board does not offer is not there
 */
export function hotFirst(text, lists) {
  let out = text;
  for (const list of lists) {
    const [names, outerName] = list.split(": ").reverse();
    const { tree, body } = parsed(out);
    let scope = body;
    if (outerName !== undefined) {
      full(tree, (node) => {
        if (node.type === "FunctionDeclaration" && node.id.name === outerName)
          scope = node.body.body;
      });
      if (scope === body) continue;
    }
    const wanted = names.split(" ");
    const rank = (one) => wanted.indexOf(one.id.name.replace(/\d+$/, ""));
    const moved = scope
      .filter((one) => one.type === "FunctionDeclaration" && rank(one) >= 0)
      .sort((a, b) => rank(a) - rank(b));
    const edits = moved.map(({ start, end }) => ({ start, end, text: "" }));
    const first = scope[0].start;
    // Behind the others: what stands first of all may be one of those that move.
    edits.push({
      start: first,
      end: first,
      text: moved.map(({ start, end }) => out.slice(start, end)).join("\n") + "\n",
    });
    out = edited(out, edits);
  }
  return out;
}

/**
 * @param named a bundle with its names kept
 * @param lazyModules paths, as the bundler's comments name them
 * @param lazyWithin functions, each with names of what it defines
 */
export function shrink(named, lazyModules, lazyWithin) {
  const assertions = [];
  let text = keepCases(named, "encodeControl", WRITTEN);
  text = keepCases(text, "decodeKind", READ);
  text = numberAssertions(text, assertions);
  for (const entry of lazyWithin) text = makeLazyWithin(text, entry);
  return { text: makeLazy(inlineConstants(text), lazyModules), assertions };
}
