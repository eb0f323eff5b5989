/** Where the engine comes from on Node: the WebAssembly module of the npm package quickjs-wasi. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

/** Reads and compiles the engine, once for all boards of a process. @throws when the package is not installed */
export function loadEngine(): WebAssembly.Module {
  const path = createRequire(import.meta.url).resolve("quickjs-wasi/quickjs.wasm");
  return new WebAssembly.Module(readFileSync(path));
}
