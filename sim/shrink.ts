/** Makes a failing plan smaller: leaves faults out as long as the same promise still breaks. */
import type { RunResult } from "./run.js";
import { runSeed } from "./run.js";
import { drawOptions } from "./options.js";
import { drawPlan } from "./faults.js";
import { World } from "./world/world.js";

export interface Shrunk {
  kept: number[];
  of: number;
  result: RunResult;
}

/** @param runsMax how many runs it may take */
export function shrink(seed: number, promise: string, runsMax: number): Shrunk {
  const world = new World(seed, false);
  const options = drawOptions(world.random.fork("options"));
  const count = drawPlan(world.random.fork("plan"), options).length;
  let kept = Array.from({ length: count }, (_, i) => i);
  let result = runSeed(seed);
  let runs = 0;
  for (let size = Math.max(1, kept.length >> 1); runs < runsMax; size = Math.max(1, size >> 1)) {
    let removed = false;
    for (let at = 0; at < kept.length && runs < runsMax;) {
      const trial = kept.filter((_, i) => i < at || i >= at + size);
      const wanted = new Set(trial);
      runs++;
      const outcome = runSeed(seed, { keep: (_fault, index) => wanted.has(index) });
      if (outcome.violation?.promise === promise) {
        kept = trial;
        result = outcome;
        removed = true;
      } else {
        at += size;
      }
    }
    if (size === 1 && !removed) break;
  }
  const wanted = new Set(kept);
  result = runSeed(seed, { readable: true, keep: (_fault, index) => wanted.has(index) });
  return { kept, of: count, result };
}
