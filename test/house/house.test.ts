/** Reads the code: what the layout promises must hold in every file. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
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
import { readGraph, sourceFiles } from "./source-graph.mjs";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const graph = readGraph(root, sourceFiles(root));

function trackedTexts(): Map<string, string> {
  const texts = new Map<string, string>();
  const listed = existsSync(join(root, ".git"))
    ? execFileSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8" }).split("\0")
    : sourceFiles(root);
  for (const path of listed) {
    if (path === "" || path === "package-lock.json") continue;
    const file = join(root, path);
    if (!existsSync(file) || !statSync(file).isFile()) continue;
    const text = readFileSync(file, "latin1");
    if (!text.includes("\0")) texts.set(path, text);
  }
  return texts;
}

describe("the house", () => {
  it("has sources to read", () => {
    expect(graph.size).toBeGreaterThan(10);
  });
  it("imports go downwards, and the products meet only in protocol/", () => {
    expect(layering(graph)).toEqual([]);
  });
  it("has no circle of imports", () => {
    expect(cycles(graph)).toEqual([]);
  });
  it("has no empty names and no index files", () => {
    expect(names(graph)).toEqual([]);
  });
  it("has no barrels and no default exports", () => {
    expect(exportStyle(graph)).toEqual([]);
  });
  it("has no file that nothing uses", () => {
    expect(neverImported(graph)).toEqual([]);
  });
  it("keeps clock, timers, promises, randomness and Node out of the cores", () => {
    expect(sansIo(graph)).toEqual([]);
  });
  it("keeps Node out of the virtual board, but for its files that say so", () => {
    expect(virtualBoard(graph)).toEqual([]);
  });
  it("documents every export of the wire and of the seams", () => {
    expect(docstrings(graph)).toEqual([]);
  });
  it("names no path of one machine in any tracked file", () => {
    expect(machinePaths(trackedTexts(), root)).toEqual([]);
  });
});
