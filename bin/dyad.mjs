#!/usr/bin/env node
// The `dyad` command. Its code is compiled; a checkout that was never built is built first.
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const program = join(root, "dist", "dyad.js");
if (!existsSync(join(root, "dist", ".built")) || !existsSync(join(root, "node_modules"))) {
  const { prepare } = await import("./prepare.mjs");
  prepare();
}
await import(pathToFileURL(program).href);
