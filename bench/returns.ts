/**
 * The old primary comes back while clients open a new connection every 200 ms: restarted with its data,
 * restarted with its data deleted, or woken after it hung. (The usual pair of Redis servers with sentinels
 * loses writes and serves stale reads here.)
 */
import type { BenchArgs } from "./args.js";
import { Load } from "./load.js";
import type { Pair as PairType } from "./pair.js";
import { Pair } from "./pair.js";
import { clear } from "./power-on.js";
import { nowMs, sleep } from "./processes.js";
import { median, printTable, show } from "./table.js";

type Id = "a" | "b";

const CASES: Record<
  string,
  {
    leave: (pair: PairType, id: Id) => Promise<void>;
    back: (pair: PairType, id: Id) => Promise<void>;
  }
> = {
  "restart with its data": {
    leave: (pair, id) => pair.kill(id),
    back: async (pair, id) => void (await pair.restart(id)),
  },
  "restart, data deleted": {
    leave: (pair, id) => pair.kill(id),
    back: async (pair, id) => {
      clear(pair.dataDir(id));
      await pair.restart(id);
    },
  },
  "SIGSTOP, then SIGCONT": {
    leave: async (pair, id) => pair.send(id, "SIGSTOP"),
    back: async (pair, id) => pair.send(id, "SIGCONT"),
  },
};

export async function run(args: BenchArgs): Promise<void> {
  const runs = args.runs ?? 5;
  const durability = args.durability ?? "disk";
  const rows: (string | number)[][] = [];
  for (const [name, one] of Object.entries(CASES)) {
    if (args.only !== undefined && !name.includes(args.only)) continue;
    const pair = await Pair.start({ durability });
    const total = { acknowledged: 0, lost: 0, stale: 0, errors: 0 };
    const gaps: number[] = [];
    let again = 0;
    try {
      for (let i = 0; i < runs; i++) {
        const { primary } = await pair.redundant(60_000);
        const load = new Load({ port: pair.redis, name: `ret${i}`, reconnectEveryMs: 200 });
        await load.start();
        await sleep(1500);
        const at = nowMs();
        await one.leave(pair, primary!);
        await sleep(2000);
        await one.back(pair, primary!);
        await sleep(4500);
        gaps.push(load.longestGap(at, nowMs()).ms);
        await load.stop();
        const missing = await load.lost();
        total.acknowledged += load.counts.acknowledged;
        total.lost += missing.length;
        total.stale += load.counts.stale;
        total.errors += load.counts.errorCount;
        for (const [text, count] of Object.entries(load.counts.errors))
          console.log(`    ${count} x ${text}`);
        for (const text of load.counts.staleExamples) console.log(`    stale: ${text}`);
        await pair.redundant(60_000);
        again += 1;
      }
    } catch (error) {
      console.log(`${name}: ${(error as Error).message}`);
    } finally {
      await pair.stop();
    }
    rows.push([
      name,
      again,
      total.acknowledged,
      total.lost,
      total.stale,
      total.errors,
      show(median(gaps)),
      show(Math.max(...gaps)),
    ]);
  }
  console.log(
    `\n500 writes/s on 10 connections that reconnect every 200 ms, 200 reads/s; durability ${durability}`,
  );
  printTable(
    [
      "the old primary",
      "rejoined",
      "acknowledged",
      "lost",
      "stale",
      "errors",
      "longest gap median ms",
      "max",
    ],
    rows,
  );
}
