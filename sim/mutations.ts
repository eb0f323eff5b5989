/**
 * Small breaks of the rules, each of which some checker must catch: a checker that never fails proves nothing.
 *
 * A mutation replaces snippets of the source while the simulator is bundled (bundle.ts); a snippet that is no
 * longer there is an error, so that the list follows the code.
 */
export interface Mutation {
  name: string;
  /** The rule of the role protocol that is broken. */
  rule: string;
  edits: { file: string; find: string; replace: string }[];
  /** It must be caught within this many seeds. */
  seedsMax: number;
}

export const MUTATIONS: readonly Mutation[] = [];
