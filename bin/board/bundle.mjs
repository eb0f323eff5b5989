/** One minified bundle for one board: an iife of the language its engine has, with the board's constants baked in. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { build, transform } from "esbuild";
import { minify } from "terser";
import { boardModule, carriesCommands } from "./board-config.mjs";
import { renameLexerWords } from "./engine-lint.mjs";
import { packedStates } from "./packed-states.mjs";
import { RESERVED_NAMES } from "./reserved-names.mjs";
import { hotFirst, shrink } from "./shrink.mjs";
import { tokenise } from "./tokenise.mjs";

const run = promisify(execFile);

const NETWORKS = { host: "host", wifi: "wifi", w5500: "wiznet", w5100: "wiznet" };

const ENTRY = "firmware/main.espruino.ts";

/**
 * The engine's own `require`, as the HAL's sources write it: under its real name the bundler would wrap it in code
 * that no chip runs.
 */
const ENGINE_REQUIRE = /\bengineRequire\(/g;

/**
 * Modules without a state of their own that only events call which are rare: an operator's word, a role change, a
 * handshake. Nothing that a poll or a command needs is here: one call costs more than a whole poll otherwise does. `PATH: names` means only these functions of a module; what
 * nobody else uses goes with them.
 */
const LAZY_MODULES = [
  "firmware/core/console.ts",
  "firmware/core/explain.ts",
  "firmware/core/operator.ts",
  "firmware/core/election.ts",
  "firmware/core/failover.ts: goneText primaryFailedText canStayStandby whyNoSwitchover switchedOver",
  "firmware/core/status.ts",
  "firmware/core/retreat.ts",
  "firmware/core/local-answers.ts",
  "firmware/core/client-output.ts: endClient closeClient closeSlowest forget",
  "protocol/handshake.ts",
  "protocol/messages.ts: encodeControl decodeControl",
];

/**
 * What a command runs through, in the order of use. The engine finds a function by looking through the list of its scope
 * from the start: these are defined first. `FUNCTION: names` are those within another.
 */
const HOT = [
  "submit place send toClient writeHeader takeFrames afterFrame mustPause hasShare isQuery isRead lengthOf linked hasRoom " +
    "mayRead enqueue handleReply epochFits dequeue closeRead answered leaveServer passOn release dropReply afterAnswer " +
    "lookAtIntake countIntake readU32 writeU32 sawLife endProbe",
  "forwarderOf: submitNative onReply clientBytes",
  "createNativeFront: onFrame onCommand partOf command packedName",
  "createServerLinks: bytes find",
  "createController: received settle wantsTick",
  "createChipConnections: onBytes send",
];

/** The same for what a long-lived function defines and only it calls: role changes, handshakes, faults. */
const LAZY_WITHIN = [
  "createController: onReport onLost move propose becamePassed alarm stop renewSession stepBlank " +
    "askAgain stepAsking newPairId follow stepWaiting stepDraining stepFresh ordered " +
    "stepOrder lineStatus tellByLine",
  "createServerLinks: sendControl end refuse onHello onProof onReport onControl makeRoom",
  "openFlash: slotOf isSame look put",
  "createNativeFront: refuse onControl",
];

/**
 * A second minifier after the first: it drops parameters nobody reads, joins statements, and takes another twenty-fifth
 * off. Whatever would move a definition below its use, or a closure into a loop, stays off.
 */
const SQUEEZE = {
  ecma: 2015,
  compress: {
    ecma: 2015,
    passes: 3,
    inline: 1,
    keep_fargs: false,
    reduce_funcs: false,
    hoist_funs: false,
    hoist_vars: false,
    unsafe_arrows: false,
  },
  mangle: true,
  format: { ascii_only: true, ecma: 2015 },
};

/** protocol/text-bytes.ts on Espruino: the bytes are read where the text lies, which for a constant is the flash. */
const TEXT_BYTES =
  "export function textBytes(text) { return new Uint8Array(E.toArrayBuffer(text)); }";

/** protocol/same-bytes.ts there. */
const SAME_BYTES = "export function sameBytes(a, b) { return E.toString(a) === E.toString(b); }";

/** How sources name the parts a build may leave out (firmware/core/features.ts). */
const FEATURE_IMPORT = /^import \{[^}]*\} from "[./]+(core\/)?features\.js";$/gm;

/** What a board's configuration asks for, as the values of features.ts. */
function featuresOf(config) {
  return {
    WITH_CLIENTS: carriesCommands(config),
    WITH_REDIS_PORT: config.ports.redis > 0,
    WITH_NATIVE_PORT: config.ports.native > 0 || config.clientLine !== undefined,
    WITH_CLIENT_LINE: config.clientLine !== undefined,
    WITH_FULL_CONSOLE: config.console === "full",
    WITH_BYTE_LOOPS: false,
    // Some 6 KB of the bundle, which a single sector of 64 KB has not.
    WITH_FAST_PATH:
      config.ports.native + config.ports.redis > 0 && config.hardware.storageBytes > 65536,
    WITH_FAST_REDIS: config.ports.redis > 0 && config.hardware.storageBytes > 65536,
    WITH_FAST_POLL: true,
    WITH_LIMITS_CHECK: false,
    WITH_STATUS_JSON: config.statusJson,
    WITH_FENCING: config.fencing !== undefined,
    WITH_SERIAL_LINES: config.servers.some((server) => server.serial !== undefined),
  };
}

/** The fields of `status json`, which keep their names where it is asked for. */
async function statusNames(root) {
  const names = [];
  for (const file of ["status.ts", "forward-counters.ts"]) {
    const text = await readFile(join(root, "firmware", "core", file), "utf8");
    for (const [, name] of text.matchAll(/^ +(\w+):/gm)) names.push(name);
  }
  return names;
}

/**
 * Bundles an entry for an engine.
 * @param network which of hal/espruino/network-*.ts
 * @param features values for features.ts; a part that is false is not in the bundle
 * @returns the text, and for each source how many bytes of it are in the bundle
 */
export async function bundleFor({ root, entry, constants, features, network }) {
  const kept = features.WITH_STATUS_JSON
    ? [...RESERVED_NAMES, ...(await statusNames(root))]
    : RESERVED_NAMES;
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
    supported: { "template-literal": false },
    mangleProps: /^[a-zA-Z_]/,
    reserveProps: new RegExp(`^(${kept.join("|")})$`),
    mangleQuoted: false,
    logLevel: "warning",
    define: Object.fromEntries(
      Object.entries(features).map(([name, value]) => [name, String(value)]),
    ),
    plugins: [
      {
        // What the engine or the build has in a better form.
        name: "replaced",
        setup(setup) {
          setup.onLoad({ filter: /firmware[/\\]core[/\\]role-table\.ts$/ }, async () => ({
            contents: await packedStates(root),
            loader: "js",
          }));
          if (!features.WITH_REDIS_PORT) {
            setup.onLoad({ filter: /protocol[/\\]command-table\.ts$/ }, async () => ({
              contents: (
                await run(process.execPath, ["bin/generate-commands.mjs", "--native"], {
                  cwd: root,
                })
              ).stdout,
              loader: "ts",
            }));
          }
          setup.onLoad({ filter: /protocol[/\\]text-bytes\.ts$/ }, () => ({
            contents: TEXT_BYTES,
            loader: "js",
          }));
          setup.onLoad({ filter: /protocol[/\\]same-bytes\.ts$/ }, () => ({
            contents: SAME_BYTES,
            loader: "js",
          }));
        },
      },
      {
        // A constant from another module would be known too late for what it rules out to be left out.
        name: "features",
        setup(setup) {
          setup.onLoad({ filter: /firmware[/\\](core[/\\])?[^/\\]*\.ts$/ }, async ({ path }) => ({
            contents: (await readFile(path, "utf8")).replace(FEATURE_IMPORT, ""),
            loader: "ts",
          }));
        },
      },
      {
        name: "board",
        setup(setup) {
          setup.onResolve({ filter: /^dyad:board$/ }, () => ({ path: "board", namespace: "dyad" }));
          setup.onResolve({ filter: /^dyad:network$/ }, () => ({
            path: join(root, "hal", "espruino", `network-${network}.ts`),
          }));
          setup.onLoad({ filter: /.*/, namespace: "dyad" }, () => ({
            contents: constants,
            loader: "js",
          }));
        },
      },
    ],
  };
  const measured = await build(options);
  const named = await build({
    ...options,
    metafile: false,
    minify: false,
    mangleProps: undefined,
    reserveProps: undefined,
  });
  const withNative = features.WITH_CLIENTS && features.WITH_NATIVE_PORT;
  const { text: shrunk, assertions } = shrink(
    named.outputFiles[0].text,
    LAZY_MODULES,
    LAZY_WITHIN.filter((entry) => withNative || !entry.startsWith("createNativeFront")),
  );
  const result = await transform(hotFirst(shrunk, HOT), {
    target: options.target,
    minify: true,
    legalComments: "none",
    charset: "ascii",
    supported: options.supported,
    mangleProps: options.mangleProps,
    reserveProps: options.reserveProps,
    mangleQuoted: false,
    logLevel: "warning",
  });
  const squeezed = await minify(result.code, SQUEEZE);
  const text = renameLexerWords(squeezed.code).trim().replace(ENGINE_REQUIRE, "require(");
  const inputs = Object.values(measured.metafile.outputs)[0].inputs;
  return {
    text,
    /** As it stands in the engine's Storage. */
    stored: tokenise(text),
    assertions,
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
    entry: join(root, ENTRY),
    constants: boardModule(name, config),
    features: featuresOf(config),
    network: NETWORKS[config.network.chip],
  });
}
