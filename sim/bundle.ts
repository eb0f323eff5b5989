/**
 * Bundles the simulator with the cores into one file for worker threads, for speed, and with one rule of
 * the code broken on purpose where a mutation asks for it.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import type { Mutation } from "./mutations.js";

/** Of the checkout. */
export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "..");

export interface Bundle {
  path: string;
  remove(): void;
}

/** The file's text with the mutation's snippets replaced. Throws unless each is found exactly once. */
export function mutate(file: string, text: string, mutation: Mutation): string {
  let out = text;
  for (const edit of mutation.edits) {
    if (edit.file !== file) continue;
    const at = out.indexOf(edit.find);
    if (at < 0)
      throw new Error(`mutation "${mutation.name}": ${file} has no ${JSON.stringify(edit.find)}`);
    if (out.indexOf(edit.find, at + 1) >= 0) {
      throw new Error(
        `mutation "${mutation.name}": ${file} has more than one ${JSON.stringify(edit.find)}`,
      );
    }
    out = out.slice(0, at) + edit.replace + out.slice(at + edit.find.length);
  }
  return out;
}

/** Throws when a snippet of the mutation is no longer in the code. */
export function checkMutation(mutation: Mutation): void {
  for (const file of new Set(mutation.edits.map((edit) => edit.file))) {
    mutate(file, readFileSync(join(ROOT, file), "utf8"), mutation);
  }
}

export async function buildBundle(mutation?: Mutation): Promise<Bundle> {
  const directory = mkdtempSync(join(tmpdir(), "dyad-sim-"));
  const path = join(directory, "worker.mjs");
  const changed = new Set<string>();
  try {
    await build({
      entryPoints: [join(ROOT, "sim", "worker.ts")],
      outfile: path,
      bundle: true,
      platform: "node",
      format: "esm",
      target: "node20",
      logLevel: "silent",
      sourcemap: "inline",
      plugins:
        mutation === undefined
          ? []
          : [
              {
                name: "mutation",
                setup(setup) {
                  setup.onLoad({ filter: /\.ts$/ }, (args) => {
                    const file = args.path.slice(ROOT.length + 1);
                    if (!mutation.edits.some((edit) => edit.file === file)) return undefined;
                    changed.add(file);
                    return {
                      contents: mutate(file, readFileSync(args.path, "utf8"), mutation),
                      loader: "ts",
                    };
                  });
                },
              },
            ],
    });
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
  for (const edit of mutation?.edits ?? []) {
    if (!changed.has(edit.file))
      throw new Error(`mutation "${mutation!.name}": ${edit.file} is not part of the simulator`);
  }
  return { path, remove: () => rmSync(directory, { recursive: true, force: true }) };
}
