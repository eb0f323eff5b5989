/** Runs the mutations and says by which promise, in which seed, each was caught. */
import { buildBundle } from "./bundle.js";
import { runFarm } from "./farm.js";
import { Totals } from "./totals.js";
import type { Mutation } from "./mutations.js";
import type { RunResult } from "./run.js";

export interface Caught {
  mutation: Mutation;
  /** The first seed that showed it; undefined: none did. */
  failure: RunResult | undefined;
  seeds: number;
}

/** Runs seeds from 1 on with the rule broken, until a promise of SAFETY is seen broken. */
export async function tryMutation(mutation: Mutation, workers: number): Promise<Caught> {
  const bundle = await buildBundle(mutation);
  const totals = new Totals();
  try {
    await runFarm({
      bundlePath: bundle.path,
      firstSeed: 1,
      count: mutation.seedsMax,
      workers,
      safetyOnly: true,
      counts: mutation.counts,
      only: mutation.only,
      stop: () => totals.failures.length > 0,
      onResult: (result) => totals.add(result),
    });
  } finally {
    bundle.remove();
  }
  const failure = totals.failures.sort((x, y) => x.seed - y.seed)[0];
  return { mutation, failure, seeds: totals.seeds };
}

export function tableRow(caught: Caught): string {
  const { mutation, failure } = caught;
  const how = failure === undefined ? "NOT CAUGHT" : failure.violation!.promise;
  const seed = failure === undefined ? `> ${caught.seeds}` : String(failure.seed);
  return `| ${mutation.name} | ${mutation.rule} | ${how} | ${seed} | ${mutation.seedsMax} |`;
}

export const TABLE_HEAD =
  "| broken on purpose | rule | caught by | first seed | allowed |\n| --- | --- | --- | ---: | ---: |";
