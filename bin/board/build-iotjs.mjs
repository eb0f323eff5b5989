/** Builds the firmware of a board whose engine is IoT.js: bundled, linted, with what it takes of the engine's heap. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { boardList, parseBoard } from "./board-config.mjs";
import { bundleIotjs } from "./bundle-iotjs.mjs";
import { lintIotjs } from "./iotjs-lint.mjs";

/** Of the engine's heap: what it takes before any program, and for each byte of a minified one (measured once). */
const HEAP_BYTES = 12 * 1024;
const HEAP_PER_BYTE = 2.35;

/** The engine's memory is its build's, not the board's; so it is told how much that must be. */
export async function buildIotjs(root, name, config, say, fail) {
  const text = await bundleIotjs(root, name, config);
  const complaints = lintIotjs(text);
  if (complaints.length > 0) {
    return fail(`the engine of ${name} cannot run this:\n  ${complaints.join("\n  ")}`);
  }
  const heap = Math.ceil((HEAP_BYTES + HEAP_PER_BYTE * text.length) / 1024);
  const count = (number) => String(number).padStart(8);
  say(`${name}: ${config.hardware.name}`);
  say(`  bundle, bytes           ${count(text.length)}`);
  say(`  engine's heap for it    ${count(heap)} KB  estimated; clients and queues come on top`);
  mkdirSync(join(root, "dist"), { recursive: true });
  writeFileSync(join(root, "dist", `${name}.js`), text);
  say(`  written: dist/${name}.js`);
  return 0;
}

/** The board whose firmware `dyad up --controller iotjs` runs. */
const DESK_BOARD = "iotjs-linux";
const DESK = "iotjs-desk";

/** The same firmware for a pair on this machine: its constants are read from a file beside it at boot. */
export async function buildIotjsDesk(root) {
  const file = join(root, "board-configs", `${DESK_BOARD}.json`);
  const { keyFile: _, ...raw } = JSON.parse(readFileSync(file, "utf8"));
  const config = parseBoard({ ...raw, constants: "storage", statusJson: true }, file);
  const text = await bundleIotjs(root, DESK, config);
  const complaints = lintIotjs(text);
  if (complaints.length > 0)
    throw new Error(`iotjs cannot run this:\n  ${complaints.join("\n  ")}`);
  const written = { ...boardList(DESK, config), hardware: config.hardware };
  writeFileSync(join(root, "dist", `${DESK}.js`), text);
  writeFileSync(join(root, "dist", `${DESK}.board.json`), JSON.stringify(written));
}
