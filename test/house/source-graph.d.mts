import type ts from "typescript";

export interface Import {
  specifier: string;
  typeOnly: boolean;
  /** @unit lines, from 1 */
  line: number;
  /** The file of this project it resolves to. */
  to: string | undefined;
}

export interface SourceNode {
  path: string;
  text: string;
  source: ts.SourceFile;
  imports: Import[];
}

export type SourceGraph = Map<string, SourceNode>;

export function sourceFiles(root: string): string[];
export function parse(path: string, text: string): ts.SourceFile;
export function importsOf(source: ts.SourceFile): Omit<Import, "to">[];
export function resolveSpecifier(
  from: string,
  specifier: string,
  known: Set<string>,
): string | undefined;
export function readGraph(root: string, files: string[]): SourceGraph;
export function graphNode(path: string, text: string, known: Set<string>): SourceNode;
export function reachedFrom(graph: SourceGraph, starts: Iterable<string>): Set<string>;
