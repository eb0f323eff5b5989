/**
 * Invariants of the controller. They stay on: on a board a broken one resets the chip into the state
 * without a role, because going on would act on a belief that has just been shown to be wrong.
 */

/** Our own mistake, never a peer's. The root of the core turns the throw into a reset. */
export function assert(ok: boolean, what: string): void {
  if (!ok) throw new Error("invariant broken: " + what);
}
