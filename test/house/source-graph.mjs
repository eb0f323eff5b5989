/**
 * Who imports whom, read from the sources with the TypeScript parser. Plain JavaScript, because the
 * linter's configuration uses it too.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join, posix, relative, sep } from "node:path";
import ts from "typescript";

const SKIPPED = new Set(["node_modules", "dist", "coverage", ".git", ".dyad"]);

/** Every .ts, .mts, .js and .mjs file below a folder, as sorted paths with forward slashes relative to it. */
export function sourceFiles(root) {
  const found = [];
  const walk = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.name.startsWith(".")) continue;
      if (entry.isDirectory()) {
        if (!SKIPPED.has(entry.name)) walk(join(folder, entry.name));
      } else if (/\.(m?ts|m?js)$/.test(entry.name) && !/\.d\.m?ts$/.test(entry.name)) {
        found.push(relative(root, join(folder, entry.name)).split(sep).join("/"));
      }
    }
  };
  walk(root);
  return found.sort();
}

export function parse(path, text) {
  return ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true);
}

/**
 * The imports of one file: static, re-exporting, `import("literal")` in code and in types,
 * `new URL("literal", import.meta.url)` of a worker.
 * `typeOnly` ones vanish when the program runs.
 */
export function importsOf(source) {
  const imports = [];
  const add = (node, typeOnly) => {
    const line = source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;
    imports.push({ specifier: node.text, typeOnly, line });
  };
  const visit = (node) => {
    if (ts.isImportDeclaration(node)) {
      const clause = node.importClause;
      const named = clause?.namedBindings;
      const allNamedAreTypes =
        clause !== undefined &&
        clause.name === undefined &&
        named !== undefined &&
        ts.isNamedImports(named) &&
        named.elements.length > 0 &&
        named.elements.every((element) => element.isTypeOnly);
      add(node.moduleSpecifier, clause?.isTypeOnly === true || allNamedAreTypes);
    } else if (ts.isExportDeclaration(node) && node.moduleSpecifier) {
      add(node.moduleSpecifier, node.isTypeOnly);
    } else if (
      ts.isCallExpression(node) &&
      node.expression.kind === ts.SyntaxKind.ImportKeyword &&
      node.arguments.length > 0 &&
      ts.isStringLiteralLike(node.arguments[0])
    ) {
      add(node.arguments[0], false);
    } else if (
      // new Worker(new URL("./file.js", import.meta.url)): loaded, as an import is.
      ts.isNewExpression(node) &&
      ts.isIdentifier(node.expression) &&
      node.expression.text === "URL" &&
      node.arguments?.length === 2 &&
      ts.isStringLiteralLike(node.arguments[0]) &&
      node.arguments[1].getText(source) === "import.meta.url" &&
      /\.m?[jt]s$/.test(node.arguments[0].text)
    ) {
      add(node.arguments[0], false);
    } else if (
      ts.isImportTypeNode(node) &&
      ts.isLiteralTypeNode(node.argument) &&
      ts.isStringLiteralLike(node.argument.literal)
    ) {
      add(node.argument.literal, true);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return imports;
}

/** @returns the path a relative specifier names, or undefined for packages and for what is not there. */
export function resolveSpecifier(from, specifier, known) {
  if (!specifier.startsWith(".")) return undefined;
  const target = posix.normalize(posix.join(posix.dirname(from), specifier));
  const candidates = [target, target.replace(/\.js$/, ".ts"), target.replace(/\.mjs$/, ".mts")];
  return candidates.find((candidate) => known.has(candidate));
}

/** Reads files into path -> { source, imports }, each import with the file it resolves to. */
export function readGraph(root, files) {
  const known = new Set(files);
  const graph = new Map();
  for (const path of files) {
    const text = readFileSync(join(root, path), "utf8");
    graph.set(path, graphNode(path, text, known));
  }
  return graph;
}

export function graphNode(path, text, known) {
  const source = parse(path, text);
  const imports = importsOf(source).map((one) => ({
    ...one,
    to: resolveSpecifier(path, one.specifier, known),
  }));
  return { path, text, source, imports };
}

/** Everything reached from some files by imports that are still there when the program runs. */
export function reachedFrom(graph, starts) {
  const reached = new Set();
  const left = [...starts];
  while (left.length > 0) {
    const path = left.pop();
    if (reached.has(path) || !graph.has(path)) continue;
    reached.add(path);
    for (const one of graph.get(path).imports) if (!one.typeOnly && one.to) left.push(one.to);
  }
  return reached;
}
