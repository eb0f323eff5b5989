/**
 * `npm run bench` lists the benchmarks and runs the short ones; `npm run bench -- NAME [options]` runs one.
 * Everything is seen from outside: real processes, started by the `dyad` command, and real clients.
 */
import { parseArgs } from "node:util";
import type { BenchArgs } from "./args.js";
import { machineLine } from "./processes.js";

type Run = (args: BenchArgs) => Promise<void>;

interface Bench {
  about: string;
  /** Runs with a bare `npm run bench`. */
  short: boolean;
  load: () => Promise<{ run: Run }>;
}

const BENCHES: Record<string, Bench> = {
  pause: {
    about:
      "how long writes stand still after each kind of fault (--fault, --runs 50, --durability)",
    short: true,
    load: () => import("./pause.js"),
  },
  throughput: {
    about:
      "GET, SET and pipelined GET against HAProxy in front of one Redis; controller CPU a million",
    short: true,
    load: () => import("./throughput.js"),
  },
  "reads-spread": {
    about: "which server gets the reads: with a CPU hog beside one, and after a 300 ms stall (P3)",
    short: true,
    load: () => import("./reads-spread.js"),
  },
  "batch-sync": {
    about:
      "a returned standby catches up 100,000 of 1,000,000 keys: bytes, rate against Redis, p99 of reads",
    short: false,
    load: () => import("./batch-sync.js"),
  },
  "million-keys": {
    about: "start time and memory of an agent with a million keys",
    short: false,
    load: () => import("./million-keys.js"),
  },
  "power-on": {
    about:
      "everything killed at once and started in every order; a deleted directory; a wiped flash",
    short: true,
    load: () => import("./power-on.js"),
  },
  returns: {
    about: "the old primary returns while clients reconnect every 200 ms (--runs 5)",
    short: true,
    load: () => import("./returns.js"),
  },
  counters: {
    about: "exactly once: ioredis counts up while the primary is killed and hung (--runs 5)",
    short: true,
    load: () => import("./counters.js"),
  },
  "three-machines": {
    about:
      "the pair in three network namespaces: the primary's cable pulled, its power cut (--runs 10)",
    short: true,
    load: () => import("./three-machines.js"),
  },
  hour: {
    about:
      "a long load with everything that could look like a failure, then a real one (--minutes 60)",
    short: false,
    load: () => import("./hour.js"),
  },
  "bad-input": {
    about: "what the pair does with what it should never get",
    short: true,
    load: () => import("./bad-input.js"),
  },
};

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      runs: { type: "string" },
      minutes: { type: "string" },
      seconds: { type: "string" },
      durability: { type: "string" },
      fault: { type: "string" },
      only: { type: "string" },
      keys: { type: "string" },
      list: { type: "boolean" },
    },
  });
  const number = (text: string | undefined): number | undefined =>
    text === undefined ? undefined : Number(text);
  if (values.durability !== undefined && !["disk", "memory"].includes(values.durability)) {
    throw new Error(`--durability ${values.durability}: it is disk or memory`);
  }
  const args: BenchArgs = {
    runs: number(values.runs),
    minutes: number(values.minutes),
    seconds: number(values.seconds),
    durability: values.durability as BenchArgs["durability"],
    fault: values.fault,
    only: values.only,
    keys: number(values.keys),
  };
  const unknown = positionals.filter((name) => !(name in BENCHES));
  if (unknown.length > 0) throw new Error(`no benchmark ${unknown.join(", ")}; see npm run bench`);
  const all = positionals.length === 0;
  if (all) {
    for (const [name, bench] of Object.entries(BENCHES)) {
      console.log(`${bench.short ? "*" : " "} ${name.padEnd(13)} ${bench.about}`);
    }
    console.log("(* runs now, with few repetitions; npm run bench -- NAME runs one in full)\n");
    if (values.list) return;
    args.runs ??= 3;
    args.seconds ??= 3;
  }
  const names = all ? Object.keys(BENCHES).filter((name) => BENCHES[name].short) : positionals;
  let failed = false;
  for (const name of names) {
    console.log(`\n## ${name}`);
    console.log(`machine: ${machineLine()}`);
    console.log(`command: npm run bench -- ${all ? name : process.argv.slice(2).join(" ")}\n`);
    try {
      await (await BENCHES[name].load()).run(args);
    } catch (error) {
      failed = true;
      console.log(`${name} could not be finished: ${(error as Error).stack}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

await main();
