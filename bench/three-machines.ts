/**
 * The pair as docs/DEPLOY.md sets it up, on three machines: network namespaces on one bridge, each node
 * with its own address. A pulled cable says nothing, neither FIN nor reset; a power cut is a kill behind
 * a pulled cable. Needs root and a kernel with namespaces.
 */
import type { BenchArgs } from "./args.js";
import { Load } from "./load.js";
import { ADDRESS, CLIENT_PORT, ThreeMachines } from "./machines.js";
import { otherOf } from "./pair.js";
import { nowMs, signal, sleep } from "./processes.js";
import { median, printTable, quantile, show } from "./table.js";

const WINDOW_MS = 2500;

const FAULTS: Record<
  string,
  {
    strike: (world: ThreeMachines, id: "a" | "b") => void;
    mend: (world: ThreeMachines, id: "a" | "b") => void;
  }
> = {
  "cable of the primary": {
    strike: (world, id) => world.cable(id, "down"),
    mend: (world, id) => world.cable(id, "up"),
  },
  "power of the primary": {
    strike: (world, id) => {
      world.cable(id, "down");
      signal(world.pid(id), "SIGKILL");
    },
    mend: (world, id) => {
      world.cable(id, "up");
      world.start(id);
    },
  },
  "cable of the standby": {
    strike: (world, id) => world.cable(otherOf(id), "down"),
    mend: (world, id) => world.cable(otherOf(id), "up"),
  },
};

export async function run(args: BenchArgs): Promise<void> {
  const missing = ThreeMachines.missing();
  if (missing !== "") {
    console.log(`skipped: needs root and network namespaces (${missing})`);
    return;
  }
  const runs = args.runs ?? 10;
  const durability = args.durability ?? "disk";
  const rows: (string | number)[][] = [];
  const world = new ThreeMachines(durability);
  try {
    for (const [name, fault] of Object.entries(FAULTS)) {
      if (args.only !== undefined && !name.includes(args.only)) continue;
      const pauses: number[] = [];
      const total = { closed: 0, errors: 0, lost: 0, stale: 0 };
      for (let i = 0; i < runs; i++) {
        const { primary } = await world.redundant();
        const load = new Load({ port: CLIENT_PORT, host: ADDRESS.c, name: `${name}${i}` });
        await load.start();
        await sleep(500);
        const from = nowMs();
        await sleep(WINDOW_MS);
        const quiet = load.longestGap(from, nowMs()).ms;
        await sleep(Math.random() * 50);
        const at = nowMs();
        fault.strike(world, primary!);
        await sleep(WINDOW_MS);
        pauses.push(Math.max(0, load.longestGap(at, nowMs()).ms - quiet));
        fault.mend(world, primary!);
        await sleep(1000);
        await load.stop();
        total.lost += (await load.lost()).length;
        total.closed += load.counts.closed;
        total.errors += load.counts.errorCount;
        total.stale += load.counts.stale;
        for (const [text, count] of Object.entries(load.counts.errors))
          console.log(`    ${count} x ${text}`);
      }
      await world.redundant();
      rows.push([
        name,
        runs,
        show(median(pauses)),
        show(quantile(pauses, 0.95)),
        show(Math.max(...pauses)),
        total.closed,
        total.errors,
        total.lost,
        total.stale,
      ]);
    }
  } finally {
    await world.stop();
  }
  console.log(
    `\nthree network namespaces on one bridge, 500 writes/s on 10 connections, 200 reads/s; durability ${durability}`,
  );
  printTable(
    ["fault", "runs", "median ms", "p95", "max", "closed", "errors", "lost", "stale"],
    rows,
  );
}
