/**
 * No needless failover: a long load with everything that could look like a failure and is none: a CPU hog, a
 * batch copy to a server with an empty disk, KEYS and FLUSHDB on a million keys, a controller whose
 * input is saturated. The primary must never change; then a kill -9 under the same saturation must fail over.
 */
import { execFile } from "node:child_process";
import { cpus } from "node:os";
import type { BenchArgs } from "./args.js";
import { LoadProcess } from "./load-process.js";
import { longestGap, pour } from "./load.js";
import { Pair, otherOf } from "./pair.js";
import { clear } from "./power-on.js";
import { nowMs, sleep, startFlood, startHog } from "./processes.js";
import { RespClient } from "./resp-client.js";
import { printTable, show } from "./table.js";

export async function run(args: BenchArgs): Promise<void> {
  const minutes = args.minutes ?? 60;
  const keys = args.keys ?? 1_000_000;
  const durability = args.durability ?? "disk";
  const pair = await Pair.start({ durability });
  const rows: (string | number)[][] = [];
  const endAt = nowMs() + minutes * 60_000;
  // A phase is as long as the minutes allow; a whole round has five.
  const phaseMs = Math.min(60_000, Math.max(5000, (minutes * 60_000) / 6));
  let serial = 0;
  let roleChanges = 0;
  let extraEpochs = 0;

  /** In processes of their own: what this one starts and asks must not count as the pair's. */
  const loads = new Set<LoadProcess>();
  const startLoad = async (name: string): Promise<LoadProcess> => {
    const load = await LoadProcess.start({ port: pair.redis, name });
    loads.add(load);
    return load;
  };

  const phase = async (
    name: string,
    verify: boolean,
    epochsExpected: number,
    act: () => Promise<string>,
  ): Promise<void> => {
    const before = await pair.redundant(120_000);
    const load = await startLoad(`h${serial++}`);
    const from = Date.now();
    let seen: string;
    try {
      seen = await act();
    } catch (error) {
      seen = `FAILED: ${(error as Error).message.slice(0, 160)}`;
    }
    const to = Date.now();
    const { counts, ackAt, missing } = await load.stop(verify);
    loads.delete(load);
    const after = await pair.redundant(120_000);
    const changed = after.primary === before.primary ? 0 : 1;
    roleChanges += changed;
    extraEpochs += Math.max(0, after.epoch - before.epoch - epochsExpected);
    rows.push([
      name,
      changed,
      after.epoch - before.epoch,
      counts.acknowledged,
      show(longestGap(ackAt, from, to).ms),
      counts.errorCount,
      verify ? missing.length : "-",
      verify ? counts.stale : "-",
      seen,
    ]);
    console.log(`${new Date().toISOString().slice(11, 19)} ${rows.at(-1)!.join(" | ")}`);
    for (const [text, count] of Object.entries(counts.errors))
      console.log(`    ${count} x ${text}`);
  };

  try {
    await pair.redundant();
    do {
      await phase("CPU hogs, two a core", true, 0, async () => {
        const hogs = cpus().flatMap((_, core) => [startHog(core), startHog(core)]);
        await sleep(phaseMs);
        for (const hog of hogs) hog.kill("SIGKILL");
        return "";
      });
      await phase(`load of ${keys} keys`, true, 0, async () => {
        const at = nowMs();
        await pour(pair.redis, keys, (i) => ["SET", `key:${i}`, "v".repeat(100)], 2, 64);
        return `${show((nowMs() - at) / 1000)} s`;
      });
      await phase("batch copy to an emptied standby", true, 2, async () => {
        const standby = otherOf((await pair.status())!.primary!);
        await pair.kill(standby);
        clear(pair.dataDir(standby));
        await pair.waitFor("seen to be gone", (status) => status.exit !== 0);
        const at = nowMs();
        await pair.restart(standby);
        await pair.redundant(180_000);
        return `in sync after ${show((nowMs() - at) / 1000)} s`;
      });
      await phase("KEYS * on a million keys, 5 times", true, 0, async () => {
        const times: number[] = [];
        let count = "";
        for (let i = 0; i < 5; i++) {
          const at = nowMs();
          count = await countKeys(pair.redis);
          times.push((nowMs() - at) / 1000);
        }
        return `${count} keys, ${show(Math.max(...times))} s`;
      });
      await phase("the controller's input saturated", true, 0, async () => {
        const flood = startFlood(pair.redis);
        await sleep(phaseMs);
        flood.forEach((one) => one.kill("SIGKILL"));
        return flood.length === 0 ? "redis-benchmark not installed" : "";
      });
      await phase("FLUSHDB on a million keys", false, 0, async () => {
        const client = await RespClient.open(pair.redis);
        const at = nowMs();
        const reply = await client.call(["FLUSHDB"], 60_000);
        const took = nowMs() - at;
        await sleep(3000);
        client.close();
        return `${String(reply)} after ${show(took)} ms`;
      });
    } while (nowMs() + phaseMs < endAt);

    const flood = startFlood(pair.redis);
    const load = await startLoad("last");
    await sleep(3000);
    const from = Date.now();
    await sleep(2000);
    const { primary } = await pair.redundant(60_000);
    const at = Date.now();
    await pair.kill(primary!);
    await sleep(3000);
    const to = Date.now();
    flood.forEach((one) => one.kill("SIGKILL"));
    const { counts, ackAt, missing } = await load.stop();
    const [calm, gap] = [longestGap(ackAt, from, at), longestGap(ackAt, at, to)];
    console.log(
      `\nkill -9 of the primary under the same saturation: pause ${show(gap.ms - calm.ms)} ms ` +
        `(longest gap before it ${show(calm.ms)}), closed ${counts.closed}, errors ${counts.errorCount}, ` +
        `lost ${missing.length}, stale ${counts.stale}`,
    );
    for (const [text, count] of Object.entries(counts.errors))
      console.log(`    ${count} x ${text}`);
    await pair.restart(primary!);
    await pair.redundant(120_000);
  } finally {
    for (const load of loads) load.kill();
    await pair.stop();
  }
  console.log(
    `\n${minutes} minutes, durability ${durability}: role changes ${roleChanges}, ` +
      `epochs beyond those of the wanted rejoins ${extraEpochs}`,
  );
  printTable(
    [
      "phase",
      "role changes",
      "epochs",
      "acknowledged",
      "longest gap ms",
      "errors",
      "lost",
      "stale",
      "seen",
    ],
    rows,
  );
}

/** KEYS in a process of its own: reading millions of names must not hold up the clock of this one. */
function countKeys(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const command = `redis-cli -p ${port} KEYS '*' | wc -l`;
    execFile("sh", ["-c", command], { timeout: 120_000 }, (error, stdout) =>
      error ? reject(error) : resolve(stdout.trim()),
    );
  });
}
