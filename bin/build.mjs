// Bundles the programs into dist/: the controller on Node and in its other homes here, the agent, and the dyad command.
// `npm ci` runs it through the package's `prepare` script. With `--board NAME` it builds the firmware of that board
// instead, into dist/NAME.js.
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const dist = join(root, "dist");

const boardAt = process.argv.indexOf("--board");
if (boardAt >= 0) {
  const { buildBoard } = await import("./board/build-board.mjs");
  process.exit(await buildBoard(root, process.argv[boardAt + 1]));
}

const programs = {
  controller: "firmware/main.node.ts",
  board: "firmware/main.board.ts",
  chip: "firmware/main.chip.ts",
  agent: "agent/main.ts",
  dyad: "client/cli/main.ts",
};

for (const entry of Object.values(programs)) {
  if (!existsSync(join(root, entry))) {
    console.error(
      `build: ${entry} is missing; the checkout is not complete (git status shows it).`,
    );
    process.exit(1);
  }
}

// The Espruino tool's command has the name of the interpreter, which tests and measurements run from PATH; npm and npx put
// this folder first there. The tool is used as a library.
for (const end of ["", ".cmd", ".ps1"]) {
  rmSync(join(root, "node_modules", ".bin", `espruino${end}`), { force: true });
}

mkdirSync(dist, { recursive: true });
// The stamp goes first and comes back last, so that a build cut short is built again.
const stamp = join(dist, ".built");
rmSync(stamp, { force: true });

await build({
  absWorkingDir: root,
  entryPoints: programs,
  outdir: dist,
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  sourcemap: true,
  sourcesContent: false,
  logLevel: "warning",
  // lmdb loads its native part from its own directory, pino its workers.
  external: ["lmdb", "pino"],
  // CommonJS packages inside an ES module bundle still ask for `require`.
  banner: {
    js: 'import { createRequire as dyadCreateRequire } from "node:module";\nconst require = dyadCreateRequire(import.meta.url);',
  },
});

// The virtual board's firmware takes the longest to build and changes with the controller alone.
const VIRTUAL = "virtual";
const VIRTUAL_SOURCES = ["protocol", "firmware", "hal/espruino", "bin", "board-configs"];

function newestMs(folder) {
  return Math.max(
    ...readdirSync(folder, { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile())
      .map((entry) => statSync(join(entry.parentPath ?? entry.path, entry.name)).mtimeMs),
  );
}

const virtualFile = join(dist, `${VIRTUAL}.board.json`);
const virtualMs = existsSync(virtualFile) ? statSync(virtualFile).mtimeMs : 0;
if (VIRTUAL_SOURCES.some((folder) => newestMs(join(root, folder)) > virtualMs)) {
  const { buildBoard } = await import("./board/build-board.mjs");
  const said = [];
  const status = await buildBoard(root, VIRTUAL, (line) => said.push(line));
  if (status !== 0) {
    console.error(said.join("\n"));
    process.exit(status);
  }
}

const { buildIotjsDesk } = await import("./board/build-iotjs.mjs");
await buildIotjsDesk(root);

writeFileSync(stamp, `${new Date().toISOString()}\n`);
