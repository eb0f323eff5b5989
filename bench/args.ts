/** What the command line of `npm run bench` may choose; each benchmark has its own defaults. */
export interface BenchArgs {
  runs: number | undefined;
  minutes: number | undefined;
  seconds: number | undefined;
  durability: "disk" | "memory" | undefined;
  fault: string | undefined;
  only: string | undefined;
  keys: number | undefined;
  seed: number | undefined;
  /** Where the controller runs. */
  controller: string | undefined;
  clients: number | undefined;
}
