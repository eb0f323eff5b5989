/**
 * The house rules as functions from a graph of sources to complaints. Each complaint says where and what
 * to do instead. The rules' own test feeds them tiny sources, so that each is seen to fail.
 */
import ts from "typescript";
import type { SourceGraph, SourceNode } from "./source-graph.mjs";
import { reachedFrom } from "./source-graph.mjs";

interface Room {
  /** Paths of the room; the first room that matches a file is its room. */
  paths: RegExp;
  name: string;
  floor: number;
  /** Rooms are open to each other only within one product; "" is open to all above. */
  product: "" | "controller" | "agent" | "client" | "world";
}

/** The floors of the house. Imports go down, or sideways within one product. */
const ROOMS: Room[] = [
  { name: "protocol", paths: /^protocol\//, floor: 0, product: "" },
  { name: "hal types", paths: /^hal\/hal\.ts$/, floor: 0, product: "" },
  { name: "firmware core", paths: /^firmware\/core\//, floor: 1, product: "controller" },
  { name: "agent core", paths: /^agent\/core\//, floor: 1, product: "agent" },
  { name: "agent commands", paths: /^agent\/commands\//, floor: 1, product: "agent" },
  // Beneath the firmware, not beside it: what its bundle runs in.
  { name: "virtual board", paths: /^hal\/virtual-board\//, floor: 2, product: "controller" },
  { name: "hal homes", paths: /^hal\//, floor: 2, product: "controller" },
  { name: "firmware main", paths: /^firmware\/main\.[^/]+$/, floor: 3, product: "controller" },
  { name: "agent main", paths: /^agent\/main\.ts$/, floor: 3, product: "agent" },
  { name: "firmware shell", paths: /^firmware\//, floor: 2, product: "controller" },
  { name: "agent shell", paths: /^agent\//, floor: 2, product: "agent" },
  { name: "client", paths: /^client\//, floor: 2, product: "client" },
  { name: "sim", paths: /^sim\//, floor: 4, product: "world" },
  { name: "bin", paths: /^bin\//, floor: 5, product: "world" },
  { name: "bench", paths: /^bench\//, floor: 5, product: "world" },
  { name: "test", paths: /^test\//, floor: 5, product: "world" },
  { name: "settings", paths: /^[^/]+\.(ts|js|mjs)$/, floor: 5, product: "world" },
];

const SANS_IO = /^(protocol|firmware\/core|agent\/core|agent\/commands)\//;

/** Where a program, or a tool that reads one of our files, starts. */
const STARTS = [
  /^firmware\/main\.[^/]+$/,
  // Of these a board's build takes one, as its configuration says (bin/board/bundle.mjs).
  /^hal\/espruino\/network-[a-z]+\.ts$/,
  /^agent\/main\.ts$/,
  /^client\/(client|main|cli|cli\/main)\.ts$/,
  /^sim\/(main|worker|mock-server)\.ts$/,
  /^sim\/[^/]+\.mjs$/,
  /^bin\/[^/]+\.mjs$/,
  /^bench\/(main|forward)\.ts$/,
  /^[^/]+\.(ts|js|mjs)$/,
  /^test\/.+\.test\.ts$/,
  // Programs that a test runs on an engine.
  /^test\/.+\.(espruino|iotjs)\.ts$/,
];

/** Names that say nothing, and what to write instead. */
const EMPTY_NAMES: [RegExp, string][] = [
  [/^utils?$/i, "the noun of what it holds (bytes, timer, table)"],
  [/^helpers?$/i, "the noun of what it holds"],
  [/^manager$/i, "what it decides or keeps (table, session, monitor)"],
];
/** As part of a name these are honest adjectives; alone they say nothing. */
const EMPTY_ALONE: [RegExp, string] = [
  /^(misc|common|shared|stuff|types)$/i,
  "one file for each noun in it",
];

const words = (name: string): string[] =>
  name.replace(/([a-z0-9])([A-Z])/g, "$1 $2").split(/[^A-Za-z0-9]+/);

export function roomOf(path: string): Room | undefined {
  return ROOMS.find((room) => room.paths.test(path));
}

export function layering(graph: SourceGraph): string[] {
  const complaints: string[] = [];
  for (const node of graph.values()) {
    const here = roomOf(node.path);
    if (here === undefined) {
      complaints.push(`${node.path}: stands in no room; put it in a folder of the layout`);
      continue;
    }
    for (const one of node.imports) {
      const at = `${node.path}:${one.line}`;
      if (one.specifier.startsWith(".") && one.to === undefined) {
        if (!/\.json$/.test(one.specifier) && !/\/dist\//.test(one.specifier)) {
          complaints.push(`${at}: imports ${one.specifier}, which is not there`);
        }
        continue;
      }
      if (one.to === undefined) continue;
      const there = roomOf(one.to);
      if (there === undefined) continue;
      if (there.floor > here.floor) {
        complaints.push(`${at}: ${here.name} imports upwards, from ${there.name} (${one.to})`);
      } else if (
        here.product !== "world" &&
        there.product !== "" &&
        there.product !== here.product
      ) {
        complaints.push(
          `${at}: ${here.name} imports from ${there.name} (${one.to}); the products meet only in protocol/`,
        );
      } else if (
        (there.name === "hal homes" || there.name === "virtual board") &&
        here.name !== "hal homes" &&
        here.name !== "virtual board" &&
        here.name !== "firmware main" &&
        here.product !== "world"
      ) {
        complaints.push(
          `${at}: only firmware/main.<target>.ts names an implementation (${one.to})`,
        );
      } else if (
        here.name === "bench" &&
        there.product !== "world" &&
        there.product !== "" &&
        !/^bench\/forward\./.test(node.path)
      ) {
        complaints.push(`${at}: the bench sees the product from outside only (${one.to})`);
      }
    }
  }
  return complaints;
}

/** The virtual board runs in a virtual world as well: only its files named node-* may know that there is a Node. */
export function virtualBoard(graph: SourceGraph): string[] {
  const complaints: string[] = [];
  for (const node of graph.values()) {
    if (!/^hal\/virtual-board\/(?!node-)/.test(node.path)) continue;
    for (const one of node.imports) {
      const ofNode = one.to === undefined || /(^|\/)node(-|\/)/.test(one.to);
      if (ofNode && !one.typeOnly) {
        complaints.push(
          `${node.path}:${one.line}: imports ${one.specifier}; only node-* files of the virtual board may`,
        );
      }
    }
  }
  return complaints;
}

/** Circles of imports that are still there at run time: their order of evaluation is a matter of luck. */
export function cycles(graph: SourceGraph): string[] {
  const complaints: string[] = [];
  const state = new Map<string, "open" | "done">();
  const trail: string[] = [];
  const visit = (path: string): void => {
    state.set(path, "open");
    trail.push(path);
    for (const one of graph.get(path)!.imports) {
      if (one.typeOnly || one.to === undefined || !graph.has(one.to)) continue;
      const seen = state.get(one.to);
      if (seen === "open") {
        const circle = [...trail.slice(trail.indexOf(one.to)), one.to];
        complaints.push(
          `${circle.join(" -> ")}: a circle; move what both need into a file of its own`,
        );
      } else if (seen === undefined) {
        visit(one.to);
      }
    }
    trail.pop();
    state.set(path, "done");
  };
  for (const path of graph.keys()) if (!state.has(path)) visit(path);
  return complaints;
}

export function names(graph: SourceGraph): string[] {
  const complaints: string[] = [];
  const check = (name: string, at: string): void => {
    for (const word of words(name)) {
      for (const [empty, instead] of EMPTY_NAMES) {
        if (empty.test(word)) complaints.push(`${at}: "${name}" says nothing: use ${instead}`);
      }
    }
    if (EMPTY_ALONE[0].test(name)) {
      complaints.push(`${at}: "${name}" says nothing: use ${EMPTY_ALONE[1]}`);
    }
  };
  for (const node of graph.values()) {
    const parts = node.path.split("/");
    const file = parts[parts.length - 1].replace(/\.(test\.)?[a-z]+$/, "");
    for (const folder of parts.slice(0, -1)) check(folder, node.path);
    check(file, node.path);
    if (file === "index") {
      complaints.push(`${node.path}: no index files: name it after what it holds`);
    }
    for (const { name, line } of exportsOf(node)) check(name, `${node.path}:${line}`);
  }
  return complaints;
}

/** No barrels, no default exports. What tools demand of their settings files is exempt. */
export function exportStyle(graph: SourceGraph): string[] {
  const complaints: string[] = [];
  for (const node of graph.values()) {
    if (/^[^/]+\.(config\.)?(ts|js|mjs)$/.test(node.path)) continue;
    for (const statement of node.source.statements) {
      const line = lineOf(node, statement);
      if (
        ts.isExportAssignment(statement) ||
        hasModifier(statement, ts.SyntaxKind.DefaultKeyword)
      ) {
        complaints.push(`${node.path}:${line}: no default export: export it by its name`);
      }
      if (ts.isExportDeclaration(statement) && statement.exportClause === undefined) {
        complaints.push(`${node.path}:${line}: no barrel: import from the file that defines it`);
      }
    }
    const own = node.source.statements.filter(
      (statement) =>
        !(ts.isExportDeclaration(statement) && statement.moduleSpecifier !== undefined),
    );
    if (own.length === 0 && node.source.statements.length > 0) {
      complaints.push(`${node.path}: only passes on other files' exports: import from those`);
    }
  }
  return complaints;
}

/** Files that no program, test or tool reaches. Product files must be reached by a program, not only by tests. */
export function neverImported(graph: SourceGraph): string[] {
  const isStart = (path: string): boolean => STARTS.some((start) => start.test(path));
  const starts = [...graph.keys()].filter(isStart);
  const programs = reachedFrom(
    graph,
    starts.filter((path) => !path.startsWith("test/")),
  );
  const all = reachedFrom(graph, starts);
  // A file of types alone is reached through imports that vanish.
  const named = new Set<string>();
  for (const node of graph.values()) for (const one of node.imports) if (one.to) named.add(one.to);
  const complaints: string[] = [];
  for (const node of graph.values()) {
    const product = ["controller", "agent", "client", ""].includes(
      roomOf(node.path)?.product ?? "",
    );
    const reached = product ? programs.has(node.path) : all.has(node.path);
    if (!reached && !(isOnlyTypes(node) && named.has(node.path))) {
      complaints.push(
        `${node.path}: ${all.has(node.path) ? "only tests import it" : "nothing imports it"}: use it or remove it`,
      );
    }
  }
  return complaints;
}

const IO_GLOBALS = new Set([
  "Date",
  "Promise",
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
]);

/** The cores see no clock, timer, promise, randomness, console or Node: those are ports or arguments. */
export function sansIo(graph: SourceGraph): string[] {
  const complaints: string[] = [];
  for (const node of graph.values()) {
    if (!SANS_IO.test(node.path)) continue;
    for (const one of node.imports) {
      if (!one.specifier.startsWith(".")) {
        if (/^@ioredis\/commands/.test(one.specifier)) continue;
        complaints.push(
          `${node.path}:${one.line}: a core imports ${one.specifier}: ask through a port`,
        );
      }
    }
    const visit = (child: ts.Node): void => {
      if (ts.isTypeNode(child)) return;
      const at = `${node.path}:${lineOf(node, child)}`;
      if (ts.isIdentifier(child) && IO_GLOBALS.has(child.text) && isFreeUse(child)) {
        complaints.push(
          `${at}: a core uses ${child.text}: time is an argument, the rest are ports`,
        );
      }
      if (
        ts.isPropertyAccessExpression(child) &&
        child.name.text === "random" &&
        child.expression.getText(node.source) === "Math"
      ) {
        complaints.push(`${at}: a core uses Math.random: randomness is a port`);
      }
      if (ts.isAwaitExpression(child) || child.kind === ts.SyntaxKind.AsyncKeyword) {
        complaints.push(`${at}: a core waits: what ends later comes back in as an event`);
      }
      ts.forEachChild(child, visit);
    };
    visit(node.source);
  }
  return complaints;
}

/** Seams and wire words: each public export carries a docstring, itself or as one of a block of consts. */
export function docstrings(graph: SourceGraph): string[] {
  const complaints: string[] = [];
  for (const node of graph.values()) {
    if (
      !/^protocol\/|^hal\/hal\.ts$|^agent\/core\/(store|ports|execution)\.ts$|^firmware\/core\/(ports|core)\.ts$/.test(
        node.path,
      )
    ) {
      continue;
    }
    let blockDocumented = false;
    let blockEnd = -2;
    const header = /^\s*\/\*\*[\s\S]*?\*\//.exec(node.text);
    const headerEnd = header ? header[0].length : 0;
    let firstExport = true;
    for (const statement of node.source.statements) {
      const start = statement.getStart(node.source);
      const first = node.source.getLineAndCharacterOfPosition(start).line;
      const last = node.source.getLineAndCharacterOfPosition(statement.end).line;
      const own = (ts.getLeadingCommentRanges(node.text, statement.pos) ?? []).some(
        (range) =>
          // The file's header documents its first export when nothing stands between them.
          (range.end > headerEnd || firstExport) &&
          node.source.getLineAndCharacterOfPosition(range.end).line === first - 1,
      );
      const exported = hasModifier(statement, ts.SyntaxKind.ExportKeyword);
      const isConst = ts.isVariableStatement(statement);
      const inBlock: boolean = isConst && first === blockEnd + 1 && blockDocumented;
      if (exported) {
        firstExport = false;
        if (!own && !inBlock) {
          for (const name of declaredNames(statement)) {
            complaints.push(
              `${node.path}:${first + 1}: ${name} has no docstring: say what it promises`,
            );
          }
        }
      }
      if (isConst) {
        blockDocumented = own || inBlock;
        blockEnd = last;
      } else {
        blockEnd = -2;
      }
    }
  }
  return complaints;
}

/** Texts that hold only on one machine. `texts` is every tracked text file, not sources alone. */
export function machinePaths(texts: Map<string, string>, root: string): string[] {
  const complaints: string[] = [];
  const banned: [string, string][] = [
    [`${root}/`, "use a path relative to the file"],
    [`..${"/shared"}`, "the project stands alone: say it here in its own words"],
  ];
  for (const [path, text] of texts) {
    text.split("\n").forEach((line, i) => {
      for (const [bad, instead] of banned) {
        if (line.includes(bad)) complaints.push(`${path}:${i + 1}: names ${bad}: ${instead}`);
      }
      if (/(^|[\s"'`(=:])\/(home|Users)\/[A-Za-z0-9._-]+\//.test(line)) {
        complaints.push(`${path}:${i + 1}: names somebody's home: use a path relative to the file`);
      }
    });
  }
  return complaints;
}

function lineOf(node: SourceNode, child: ts.Node): number {
  return node.source.getLineAndCharacterOfPosition(child.getStart(node.source)).line + 1;
}

function hasModifier(statement: ts.Statement, kind: ts.SyntaxKind): boolean {
  return (
    ts.canHaveModifiers(statement) &&
    (ts.getModifiers(statement) ?? []).some((modifier) => modifier.kind === kind)
  );
}

function declaredNames(statement: ts.Statement): string[] {
  if (ts.isVariableStatement(statement)) {
    return statement.declarationList.declarations.map((one) => one.name.getText());
  }
  if (
    ts.isFunctionDeclaration(statement) ||
    ts.isClassDeclaration(statement) ||
    ts.isInterfaceDeclaration(statement) ||
    ts.isTypeAliasDeclaration(statement)
  ) {
    return statement.name ? [statement.name.text] : [];
  }
  return [];
}

function exportsOf(node: SourceNode): { name: string; line: number }[] {
  return node.source.statements
    .filter((statement) => hasModifier(statement, ts.SyntaxKind.ExportKeyword))
    .flatMap((statement) =>
      declaredNames(statement).map((name) => ({ name, line: lineOf(node, statement) })),
    );
}

function isOnlyTypes(node: SourceNode): boolean {
  return node.source.statements.every(
    (statement) =>
      ts.isInterfaceDeclaration(statement) ||
      ts.isTypeAliasDeclaration(statement) ||
      ts.isImportDeclaration(statement) ||
      (ts.isExportDeclaration(statement) && statement.isTypeOnly),
  );
}

/** A name that stands for the global, not a property, a field's name or something declared here. */
function isFreeUse(name: ts.Identifier): boolean {
  const parent = name.parent;
  if (ts.isPropertyAccessExpression(parent) && parent.name === name) return false;
  if (
    (ts.isPropertyAssignment(parent) ||
      ts.isPropertyDeclaration(parent) ||
      ts.isPropertySignature(parent) ||
      ts.isMethodDeclaration(parent) ||
      ts.isMethodSignature(parent) ||
      ts.isParameter(parent) ||
      ts.isVariableDeclaration(parent) ||
      ts.isFunctionDeclaration(parent)) &&
    parent.name === name
  ) {
    return false;
  }
  return !ts.isImportSpecifier(parent) && !ts.isExportSpecifier(parent);
}
