/** Builds one board's firmware: configuration checked, bundle linted, size printed against the board's. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BoardError, readBoard } from "./board-config.mjs";
import { bundleBoard } from "./bundle.mjs";
import { lintBundle, lintLengths } from "./engine-lint.mjs";

/** Not a board's firmware but a program's configuration; `npm run build` makes that program. */
const PROGRAMS = new Set(["linux-node"]);
/** Header of a file in Storage. @unit bytes */
const FILE_HEAD_BYTES = 32;
/** A slot of the journals: the record, its sequence number, chip and check sum, in whole words. @unit bytes */
const SLOT_BYTES = 64;
const PARTS_SHOWN = 8;

/** @returns the exit status: 0, or 1 with the reason on standard error */
export async function buildBoard(root, name) {
  const boards = readdirSync(join(root, "board-configs"))
    .filter((file) => file.endsWith(".json"))
    .map((file) => file.slice(0, -".json".length))
    .filter((board) => !PROGRAMS.has(board));
  const fail = (text) => {
    console.error(`build: ${text}`);
    return 1;
  };
  if (PROGRAMS.has(name)) {
    return fail(`${name} runs the program dist/controller.js: plain \`npm run build\` makes it.`);
  }
  let config;
  try {
    config = readBoard(root, name, boards);
  } catch (error) {
    if (!(error instanceof BoardError)) throw error;
    return fail(error.message);
  }
  const path = join(root, "dist", `${name}.js`);
  rmSync(path, { force: true });
  const { text, named, parts } = await bundleBoard(root, name, config);
  const complaints = [...lintBundle(text), ...lintLengths(named)];
  if (complaints.length > 0) {
    return fail(`the engine of ${name} cannot run this:\n  ${complaints.join("\n  ")}`);
  }
  const journals = 2 * (config.journalSlots * SLOT_BYTES + FILE_HEAD_BYTES);
  const needed = text.length + FILE_HEAD_BYTES + journals;
  const { storageBytes, variables } = config.hardware;
  console.log(`${name}: bundle ${text.length} bytes, the largest parts:`);
  for (const part of parts.slice(0, PARTS_SHOWN)) {
    console.log(`  ${String(part.bytes).padStart(6)}  ${part.path}`);
  }
  console.log(`  flash ${needed} of ${storageBytes} bytes (bundle, two journals; computed)`);
  console.log(
    variables === 0
      ? "  variables: as many as this machine has memory for"
      : `  variables: not measured here; the board has ${variables}`,
  );
  if (needed > storageBytes) {
    return fail(`${name} has no room: ${needed - storageBytes} bytes of flash are missing.`);
  }
  mkdirSync(join(root, "dist"), { recursive: true });
  writeFileSync(path, text);
  console.log(`  written: dist/${name}.js`);
  return 0;
}
