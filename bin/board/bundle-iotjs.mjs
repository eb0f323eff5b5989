/**
 * One minified bundle for IoT.js. Property names stay as they are: there is memory for them, `status json` needs them, and
 * nothing has to know which of them are the engine's.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";
import { boardModule, carriesCommands } from "./board-config.mjs";

const ENTRY = "firmware/main.iotjs.ts";

/** The engine's own `require`, as the HAL's sources write it. */
const ENGINE_REQUIRE = /\bengineRequire\(/g;

/** How sources name the parts a build may leave out (firmware/core/features.ts). */
const FEATURE_IMPORT = /^import \{[^}]*\} from "[./]+(core\/)?features\.js";$/gm;

function featuresOf(config) {
  return {
    WITH_CLIENTS: carriesCommands(config),
    WITH_REDIS_PORT: config.ports.redis > 0,
    WITH_NATIVE_PORT: config.ports.native > 0 || config.clientLine !== undefined,
    WITH_FULL_CONSOLE: config.console === "full",
    WITH_FAST_POLL: false,
    WITH_LIMITS_CHECK: true,
    WITH_STATUS_JSON: true,
    WITH_BYTE_LOOPS: false,
    WITH_FAST_PATH: false,
    WITH_FAST_REDIS: false,
    WITH_CLIENT_LINE: config.clientLine !== undefined,
    WITH_FENCING: false,
    WITH_SERIAL_LINES: config.servers.some((server) => server.serial !== undefined),
  };
}

/** Bundles any entry for the engine. @param constants the source of "dyad:board" @returns the bundle's text */
export async function bundleForIotjs(root, entry, constants, features) {
  const result = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    write: false,
    platform: "node",
    format: "iife",
    // Of a later year `?.` would be the first thing to fail.
    target: "es2019",
    minify: true,
    legalComments: "none",
    charset: "ascii",
    logLevel: "warning",
    define: Object.fromEntries(
      Object.entries(features).map(([name, value]) => [name, String(value)]),
    ),
    plugins: [
      {
        name: "board",
        setup(setup) {
          setup.onResolve({ filter: /^dyad:board$/ }, () => ({ path: "board", namespace: "dyad" }));
          setup.onLoad({ filter: /.*/, namespace: "dyad" }, () => ({
            contents: constants,
            loader: "js",
          }));
          setup.onLoad({ filter: /firmware[/\\](core[/\\])?[^/\\]*\.ts$/ }, async ({ path }) => {
            const text = await readFile(path, "utf8");
            const isNamed = Object.keys(features).length > 0;
            return { contents: isNamed ? text.replace(FEATURE_IMPORT, "") : text, loader: "ts" };
          });
        },
      },
    ],
  });
  const text = result.outputFiles[0].text;
  const unknown = /\bWITH_[A-Z_]+\b/.exec(text);
  if (unknown !== null)
    throw new Error(`features.ts has ${unknown[0]}: say in bundle-iotjs.mjs whether it is built`);
  return text.trim().replace(ENGINE_REQUIRE, "require(");
}

/** The firmware of a board whose engine is IoT.js. */
export function bundleIotjs(root, name, config) {
  return bundleForIotjs(root, join(root, ENTRY), boardModule(name, config), featuresOf(config));
}
