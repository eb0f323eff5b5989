/**
 * Whether two runs of bytes are the same. A board's build has the engine compare them (bin/board/bundle.mjs), since there
 * every turn of a loop costs thousands of instructions.
 */

/** @returns true when both hold the same bytes */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) {
    if (a[at] !== b[at]) return false;
  }
  return true;
}
