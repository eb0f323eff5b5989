/** Makes a failing plan smaller: leaves faults out as long as the same promise still breaks. */
import type { RunOptions, RunResult } from "./run.js";
import { onlyThese, runSeed } from "./run.js";
import { drawOptions } from "./options.js";
import { describeFault, drawPlan } from "./faults.js";
import { World } from "./world/world.js";

export interface Shrunk {
  kept: number[];
  of: number;
  /** The faults that were kept, for people. */
  faults: string[];
  result: RunResult;
}

/** @param runsMax how many runs it may take */
export function shrink(
  seed: number,
  promise: string,
  runsMax: number,
  options: Pick<RunOptions, "swarm" | "long" | "only" | "safetyOnly" | "counts" | "firmware"> = {},
): Shrunk {
  const world = new World(seed, false);
  const drawn = drawOptions(world.random.fork("options"), options);
  if (options.only !== undefined) onlyThese(drawn, options.only);
  const plan = drawPlan(world.random.fork("plan"), drawn);
  const count = plan.length;
  let kept = Array.from({ length: count }, (_, i) => i);
  let result = runSeed(seed, options);
  let runs = 0;
  for (let size = Math.max(1, kept.length >> 1); runs < runsMax; size = Math.max(1, size >> 1)) {
    let removed = false;
    for (let at = 0; at < kept.length && runs < runsMax;) {
      const trial = kept.filter((_, i) => i < at || i >= at + size);
      const wanted = new Set(trial);
      runs++;
      const outcome = runSeed(seed, { ...options, keep: (_fault, index) => wanted.has(index) });
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
  result = runSeed(seed, {
    ...options,
    readable: true,
    keep: (_fault, index) => wanted.has(index),
  });
  const faults = kept.map((i) => `at ${plan[i]!.atMs.toFixed(0)} ${describeFault(plan[i]!)}`);
  return { kept, of: count, faults, result };
}
