/** Where PATH has an interpreter. */
import { accessSync, closeSync, constants, openSync, readSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";

/** A script begins so; an interpreter is a binary. */
const SCRIPT = "#!";

export interface Found {
  /** "" when no folder of PATH has it. */
  path: string;
  /** The flashing tool's command is called `espruino` as well. */
  isScript: boolean;
}

export function findInterpreter(name: string): Found {
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      if (!statSync(path).isFile()) continue;
      const file = openSync(path, "r");
      const first = Buffer.alloc(SCRIPT.length);
      readSync(file, first, 0, first.length, 0);
      closeSync(file);
      return { path, isScript: first.toString("latin1") === SCRIPT };
    } catch {
      // Not in this folder.
    }
  }
  return { path: "", isScript: false };
}
