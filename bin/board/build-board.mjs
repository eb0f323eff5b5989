/** Builds one board's firmware: configuration checked, bundle linted, size printed against the board's. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BoardError, readBoard } from "./board-config.mjs";
import { bundleBoard } from "./bundle.mjs";
import { lintBundle, lintLengths } from "./engine-lint.mjs";
import { roomOf } from "./storage-image.mjs";

/** Not a board's firmware but a program's configuration; `npm run build` makes that program. */
const PROGRAMS = new Set(["linux-node"]);
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
  const { text, stored, named, parts, assertions } = await bundleBoard(root, name, config);
  const complaints = [...lintBundle(text), ...lintLengths(named)];
  if (complaints.length > 0) {
    return fail(`the engine of ${name} cannot run this:\n  ${complaints.join("\n  ")}`);
  }
  const journals = 2 * roomOf(config.journalSlots * SLOT_BYTES);
  const needed = roomOf(stored.length) + journals;
  const { storageBytes, variables } = config.hardware;
  console.log(`${name}: bundle ${stored.length} bytes, of these parts (before the last squeeze):`);
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
  writeFileSync(join(root, "dist", `${name}.bootcde`), stored);
  writeFileSync(
    join(root, "dist", `${name}.assertions.txt`),
    assertions.map((what, number) => `${number} ${what}\n`).join(""),
  );
  console.log(
    `  written: dist/${name}.js, .bootcde (the same as its Storage holds it), .assertions.txt`,
  );
  return 0;
}
