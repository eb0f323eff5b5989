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
  chaos: {
    about:
      "real faults on three machines, all replies judged by the simulator's checkers (--minutes 10 --seed N --controller node|espruino|iotjs --clients N)",
    short: false,
    load: () => import("./chaos.js"),
  },
  chip: {
    about:
      "instructions of a command on the real Espruino interpreter, beside a bare forwarder (needs valgrind)",
    short: false,
    load: () => import("./chip.js"),
  },
  "chip-iotjs": {
    about: "instructions of a command on IoT.js, beside a bare forwarder (needs valgrind)",
    short: false,
    load: () => import("./chip-iotjs.js"),
  },
  "chip-pause": {
    about: "the pause after kill -9 with the real Espruino interpreter as controller (--runs 50)",
    short: false,
    load: () => import("./chip-pause.js"),
  },
  "bad-input": {
    about: "what the pair does with what it should never get",
    short: true,
    load: () => import("./bad-input.js"),
  },
};

const OPTIONS = {
  runs: { type: "string" },
  minutes: { type: "string" },
  seconds: { type: "string" },
  durability: { type: "string" },
  fault: { type: "string" },
  only: { type: "string" },
  keys: { type: "string" },
  seed: { type: "string" },
  controller: { type: "string" },
  clients: { type: "string" },
  list: { type: "boolean" },
  help: { type: "boolean" },
} as const;

const NUMBERS = ["runs", "minutes", "seconds", "keys", "seed", "clients"] as const;

function list(): void {
  for (const [name, bench] of Object.entries(BENCHES)) {
    console.log(`${bench.short ? "*" : " "} ${name.padEnd(14)} ${bench.about}`);
  }
  console.log(
    "(* runs without a name, too, with few repetitions; npm run bench -- NAME runs one in full)",
  );
  console.log(
    `options: ${Object.keys(OPTIONS)
      .map((name) => "--" + name)
      .join(" ")}\n`,
  );
}

function wrong(what: string): never {
  console.error(`bench: ${what}. See npm run bench -- --help`);
  process.exit(2);
}

/** Statuses as a shell has them. What was started is stopped on "exit", which a signal's own way of ending would leave out. */
const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

async function main(): Promise<void> {
  for (const [name, status] of Object.entries(SIGNALS))
    process.once(name, () => process.exit(status));
  let parsed;
  try {
    parsed = parseArgs({ allowPositionals: true, options: OPTIONS });
  } catch (error) {
    return wrong((error as Error).message.split(". ")[0]!);
  }
  const { values, positionals } = parsed;
  if (values.help) {
    list();
    return;
  }
  const numbers: Partial<Record<(typeof NUMBERS)[number], number>> = {};
  for (const name of NUMBERS) {
    const text = values[name];
    if (text === undefined) continue;
    const number = Number(text);
    if (!(number > 0)) return wrong(`--${name} ${text}: a number above 0`);
    numbers[name] = number;
  }
  if (values.durability !== undefined && !["disk", "memory"].includes(values.durability)) {
    return wrong(`--durability ${values.durability}: it is disk or memory`);
  }
  const args: BenchArgs = {
    runs: numbers.runs,
    minutes: numbers.minutes,
    seconds: numbers.seconds,
    durability: values.durability as BenchArgs["durability"],
    fault: values.fault,
    only: values.only,
    keys: numbers.keys,
    seed: numbers.seed,
    controller: values.controller,
    clients: numbers.clients,
  };
  const unknown = positionals.filter((name) => !(name in BENCHES));
  if (unknown.length > 0) return wrong(`no benchmark ${unknown.join(", ")}`);
  const all = positionals.length === 0;
  if (all) {
    list();
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
  process.exit(failed ? 1 : (process.exitCode ?? 0));
}

await main();
