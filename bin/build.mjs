// Bundles the three programs into dist/: the controller on Node, the agent, and the dyad command.
// `npm ci` runs it through the package's `prepare` script. With `--board NAME` it builds the firmware of that board
// instead, into dist/NAME.js.
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
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

writeFileSync(stamp, `${new Date().toISOString()}\n`);
