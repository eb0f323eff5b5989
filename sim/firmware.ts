/** The controller's bundle as the build left it in dist/, for worlds whose controller is a virtual board. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";

/** One bundle, and what it needs. Shared by all worlds of a process. */
export interface Firmware {
  readonly text: string;
  /** Where each constant stands, in the order in which the bundle reads them, and what the board's configuration says. */
  readonly paths: readonly string[];
  readonly values: readonly unknown[];
  readonly memoryBytes: number;
  readonly storageBytes: number;
  readonly engine: WebAssembly.Module;
  /** What of it has been compiled. */
  readonly compiled: Map<string, Uint8Array>;
}

const loaded = new Map<string, Firmware>();

/** @param root of the checkout @throws when the bundle has not been built */
export function loadFirmware(root: string): Firmware {
  let firmware = loaded.get(root);
  if (firmware !== undefined) return firmware;
  // The engine is worth compiling well at once: a fifth of a run's time.
  setFlagsFromString("--no-wasm-dynamic-tiering");
  const read = (name: string): string => readFileSync(join(root, "dist", name), "utf8");
  const board = JSON.parse(read("virtual.board.json")) as {
    paths: string[];
    values: unknown[];
    hardware: { memoryBytes: number; storageBytes: number };
  };
  const wasm = createRequire(join(root, "package.json")).resolve("quickjs-wasi/quickjs.wasm");
  firmware = {
    text: read("virtual.js"),
    paths: board.paths,
    values: board.values,
    memoryBytes: board.hardware.memoryBytes,
    storageBytes: board.hardware.storageBytes,
    engine: new WebAssembly.Module(readFileSync(wasm)),
    compiled: new Map(),
  };
  loaded.set(root, firmware);
  return firmware;
}

/** Builds what is older than its sources. @throws with the build's own words */
export function buildFirmware(root: string): void {
  const built = spawnSync(process.execPath, [join(root, "bin", "prepare.mjs")], {
    encoding: "utf8",
  });
  if (built.status !== 0) throw new Error(built.stderr);
}
