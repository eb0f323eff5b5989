/** Placeholder. */
import type { RunResult } from "./run.js";
export function drawTimeline(result: RunResult): string {
  return result.lines.join("\n");
}
