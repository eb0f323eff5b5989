/** Builds one board's firmware: configuration checked, bundle linted, what it takes printed against what the board has. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { boardList, BoardError, readBoard } from "./board-config.mjs";
import { buildIotjs } from "./build-iotjs.mjs";
import { bundleBoard } from "./bundle.mjs";
import { lintBundle, lintLengths } from "./engine-lint.mjs";
import { measureBoard } from "./measure.mjs";
import { imagesOf, LOADER, roomOf } from "./storage-image.mjs";

/** Not a board's firmware but a program's configuration; `npm run build` makes that program. */
const PROGRAMS = new Set(["linux-node"]);
/** A slot of the journals: the record, its black box, sequence number, chip and check sum, in whole words. @unit bytes */
const SLOT_BYTES = 256;
const PARTS_SHOWN = 8;

/** Of the variables, the part that must stay free at full load. @unit permille */
const FREE_PERMILLE = 250;

/** The lines of the budget's table, and what is wrong with it ("": nothing). */
export function budgetOf({ stored, journals, hardware, measured }) {
  const { storageBytes, variables, variableBytes } = hardware;
  const flash = roomOf(stored) + journals;
  const row = (what, used, all, how) =>
    `  ${what.padEnd(24)}${String(used).padStart(8)} of ${String(all).padStart(7)}  ${String(Math.round((100 * used) / all)).padStart(3)} %  ${how}`;
  const lines = [
    row("flash, bytes", flash, storageBytes, `computed: bundle ${stored}, journals ${journals}`),
  ];
  lines.push(
    imagesOf(stored, journals, storageBytes) === 2
      ? "  room for two images: flashing keeps the old one"
      : "  no room for two images: flashing erases the old one first",
  );
  const wrong = [];
  if (flash > storageBytes)
    wrong.push(`it has no room: ${flash - storageBytes} bytes of flash are missing`);
  if (hardware.memoryBytes !== undefined) {
    lines.push(
      `  memory, bytes           ${hardware.memoryBytes}: it says itself what it uses (\`memory\`)`,
    );
  } else if (variables === 0) {
    lines.push("  variables: as many as this machine has memory for");
  } else if (measured === undefined) {
    lines.push(
      `  variables: not measured, for there is no espruino-${variables} on PATH (the interpreter built with ${variables} variables)`,
    );
  } else if (measured.failed !== undefined) {
    wrong.push(
      `it does not run in ${variables} variables of ${variableBytes} bytes (measured):\n    ${measured.failed}`,
    );
  } else {
    const how = `measured on ${measured.command}`;
    lines.push(row("variables at boot", measured.boot, variables, how));
    lines.push(row("with both servers", measured.ready, variables, how));
    lines.push(
      row(
        "at full load, the most",
        measured.full,
        variables,
        `${how}, ${measured.clients} clients`,
      ),
    );
    const free = Math.floor((1000 * (variables - measured.full)) / variables);
    if (free < FREE_PERMILLE)
      wrong.push(
        `at full load ${(free / 10).toFixed(1)} % of its variables are free: at least ${FREE_PERMILLE / 10} % must be`,
      );
  }
  return { lines, wrong: wrong.join("; ") };
}

/** What flashing needs to know of a firmware. */
export function flashFacts(name, config, stored, journals) {
  const { board, variables, variableBytes, consoleBaud, storageBytes, watchdogSeconds } =
    config.hardware;
  return {
    name,
    board,
    variables,
    variableBytes,
    consoleBaud,
    watchdogSeconds,
    images: imagesOf(stored, journals, storageBytes),
    journalBytes: journals,
    loader: LOADER,
  };
}

/**
 * @param say hears what is built and what it takes
 * @returns the exit status: 0, or 1 with the reason on standard error
 */
export async function buildBoard(root, name, say = (line) => console.log(line)) {
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
  if (config.engine === "iotjs") return buildIotjs(root, name, config, say, fail);
  const { text, stored, named, parts, assertions } = await bundleBoard(root, name, config);
  const complaints = [...lintBundle(text), ...lintLengths(named)];
  if (complaints.length > 0) {
    return fail(`the engine of ${name} cannot run this:\n  ${complaints.join("\n  ")}`);
  }
  const journals = 2 * roomOf(config.journalSlots * SLOT_BYTES);
  const largest = parts
    .slice(0, PARTS_SHOWN)
    .map(({ path, bytes }) => `${basename(path, ".ts")} ${bytes}`)
    .join(", ");
  say(`${name}: ${config.hardware.name}`);
  say(`  largest parts, in bytes before the last squeeze: ${largest}`);
  let measured;
  try {
    if (config.hardware.variables > 0) measured = await measureBoard(root, name, config);
  } catch (error) {
    measured = { failed: error.message.trim().split("\n").at(-1) };
  }
  const { lines, wrong } = budgetOf({
    stored: stored.length,
    journals,
    hardware: config.hardware,
    measured,
  });
  for (const line of lines) say(line);
  if (wrong !== "") return fail(`${name} is not built: ${wrong}.`);
  mkdirSync(join(root, "dist"), { recursive: true });
  writeFileSync(path, text);
  writeFileSync(join(root, "dist", `${name}.bootcde`), stored);
  writeFileSync(
    join(root, "dist", `${name}.assertions.txt`),
    assertions.map((what, number) => `${number} ${what}\n`).join(""),
  );
  if (config.constants === "storage") {
    writeFileSync(
      join(root, "dist", `${name}.board.json`),
      JSON.stringify({ ...boardList(name, config), hardware: config.hardware }),
    );
  }
  writeFileSync(
    join(root, "dist", `${name}.json`),
    `${JSON.stringify(flashFacts(name, config, stored.length, journals), null, 2)}\n`,
  );
  say(
    `  written: dist/${name}.js, .bootcde (the same as its Storage holds it), .json (for dyad flash), .assertions.txt`,
  );
  return 0;
}
