/**
 * Exactly once, through a client library people use: ioredis counts up (INCR, pipelines, MULTI) while the primary
 * is killed and hung. Afterwards each counter must be the number of acknowledged increments, neither one
 * less (lost) nor one more (done twice), and the library must not have noticed anything.
 */
import { Redis } from "ioredis";
import type { BenchArgs } from "./args.js";
import { Pair } from "./pair.js";
import { nowMs, sleep } from "./processes.js";
import { printTable, show } from "./table.js";

const CLIENTS = 12;

export async function run(args: BenchArgs): Promise<void> {
  const runs = args.runs ?? 5;
  const durability = args.durability ?? "disk";
  const rows: (string | number)[][] = [];
  const pair = await Pair.start({ durability });
  try {
    for (const fault of ["kill -9 of the primary", "SIGSTOP of the primary"]) {
      const total = { acknowledged: 0, wrong: 0, errors: 0, closed: 0, slowest: 0 };
      for (let i = 0; i < runs; i++) {
        const { primary } = await pair.redundant(60_000);
        const clients = Array.from({ length: CLIENTS }, () => new Redis(pair.redis, "127.0.0.1"));
        const done = new Array<number>(CLIENTS).fill(0);
        let stopping = false;
        for (const client of clients) {
          client.on("error", () => (total.errors += 1));
          client.on("close", () => (total.closed += stopping ? 0 : 1));
        }
        const key = (j: number): string => `count:${fault.slice(0, 4)}:${i}:${j}`;
        const work = clients.map(async (client, j) => {
          while (!stopping) {
            const at = nowMs();
            try {
              if (j % 3 === 0) {
                await client.incr(key(j));
                done[j] += 1;
              } else if (j % 3 === 1) {
                const replies = await client
                  .pipeline()
                  .incr(key(j))
                  .get(key(j))
                  .incr(key(j))
                  .exec();
                const [first, seen, second] = replies!.map(([, reply]) => Number(reply));
                // Each is counted by its own reply: an error among them is no word on the others.
                done[j] += (replies![0][0] === null ? 1 : 0) + (replies![2][0] === null ? 1 : 0);
                for (const [error] of replies!) if (error) throw error;
                if (seen !== first || second !== first + 1) total.wrong += 1;
              } else {
                const replies = await client.multi().incr(key(j)).incr(key(j)).exec();
                for (const [error] of replies ?? []) if (error) throw error;
                done[j] += 2;
              }
            } catch (error) {
              total.errors += 1;
              console.log(`    ${(error as Error).message}`);
            }
            total.slowest = Math.max(total.slowest, nowMs() - at);
            await sleep(2);
          }
        });
        await sleep(800);
        if (fault.startsWith("kill")) await pair.kill(primary!);
        else pair.send(primary!, "SIGSTOP");
        await sleep(1500);
        if (fault.startsWith("kill")) await pair.restart(primary!);
        else pair.send(primary!, "SIGCONT");
        await sleep(1500);
        stopping = true;
        await Promise.all(work);
        for (let j = 0; j < CLIENTS; j++) {
          const value = Number(await clients[j].get(key(j)));
          total.acknowledged += done[j];
          if (value !== done[j]) {
            total.wrong += 1;
            console.log(`    ${key(j)} is ${value}, acknowledged ${done[j]}`);
          }
        }
        clients.forEach((client) => client.disconnect());
      }
      rows.push([
        fault,
        runs,
        total.acknowledged,
        total.wrong,
        total.errors,
        total.closed,
        show(total.slowest),
      ]);
    }
  } finally {
    await pair.stop();
  }
  console.log(
    `\n${CLIENTS} ioredis clients: INCR, pipeline INCR GET INCR, MULTI INCR INCR; durability ${durability}`,
  );
  printTable(
    ["fault", "runs", "increments", "wrong counters", "errors", "closed", "slowest ms"],
    rows,
  );
}
