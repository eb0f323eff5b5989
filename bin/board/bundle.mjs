/** One minified bundle for one board: an iife of the language its engine has, with the board's constants baked in. */
import { join } from "node:path";
import { build } from "esbuild";
import { boardModule } from "./board-config.mjs";
import { renameLexerWords } from "./engine-lint.mjs";
import { RESERVED_NAMES } from "./reserved-names.mjs";

const ENTRIES = { espruino: "firmware/main.espruino.ts", iotjs: "firmware/main.iotjs.ts" };

/**
 * The engine's own `require`, as the HAL's sources write it: under its real name the bundler would wrap it in code
 * that no chip runs.
 */
const ENGINE_REQUIRE = /\bengineRequire\(/g;

/**
 * Bundles an entry for an engine.
 * @returns the text, and for each source how many bytes of it are in the bundle
 */
export async function bundleFor({ root, entry, constants }) {
  const options = {
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    write: false,
    metafile: true,
    platform: "node",
    format: "iife",
    target: "es2015",
    minify: true,
    legalComments: "none",
    charset: "ascii",
    mangleProps: /^[a-zA-Z_]/,
    reserveProps: new RegExp(`^(${RESERVED_NAMES.join("|")})$`),
    mangleQuoted: false,
    logLevel: "warning",
    plugins: [
      {
        name: "board",
        setup(setup) {
          setup.onResolve({ filter: /^dyad:board$/ }, () => ({ path: "board", namespace: "dyad" }));
          setup.onLoad({ filter: /.*/, namespace: "dyad" }, () => ({
            contents: constants,
            loader: "js",
          }));
        },
      },
    ],
  };
  const result = await build(options);
  const named = await build({
    ...options,
    metafile: false,
    minifyIdentifiers: false,
    minifyWhitespace: false,
    minify: false,
    mangleProps: undefined,
    reserveProps: undefined,
  });
  const text = renameLexerWords(result.outputFiles[0].text).replace(ENGINE_REQUIRE, "require(");
  const inputs = Object.values(result.metafile.outputs)[0].inputs;
  return {
    text,
    /** The same with its names kept, for the lint. */
    named: named.outputFiles[0].text,
    parts: Object.entries(inputs)
      .map(([path, { bytesInOutput }]) => ({ path, bytes: bytesInOutput }))
      .sort((x, y) => y.bytes - x.bytes),
  };
}

/** The firmware of a board. */
export function bundleBoard(root, name, config) {
  return bundleFor({
    root,
    entry: join(root, ENTRIES[config.engine]),
    constants: boardModule(name, config),
  });
}
