/** How soon an agent with a million keys is up again, and how much memory of its own it takes. */
import type { BenchArgs } from "./args.js";
import { pour } from "./load.js";
import { Pair, otherOf } from "./pair.js";
import { memoryMb, nowMs, sleep } from "./processes.js";
import { RespClient } from "./resp-client.js";
import { printTable, show } from "./table.js";

const VALUE = "v".repeat(200);

export async function run(args: BenchArgs): Promise<void> {
  const keys = args.keys ?? 1_000_000;
  const durability = args.durability ?? "disk";
  const pair = await Pair.start({ durability });
  const rows: (string | number)[][] = [];
  try {
    const { primary } = await pair.redundant();
    const at = nowMs();
    await pour(pair.redis, keys, (i) => ["SET", `key:${i}`, VALUE]);
    console.log(`${keys} keys of 200 bytes written in ${show((nowMs() - at) / 1000)} s`);
    for (const id of [otherOf(primary!), primary!]) {
      await pair.redundant(60_000);
      const before = memoryMb(pair.pid(id), "RssAnon");
      await pair.kill(id);
      // The controller must have seen it go, or the wait below would find the old state.
      await pair.waitFor("seen to be gone", (status) => status.exit !== 0);
      const startedAt = nowMs();
      await pair.restart(id);
      const answersMs = (await firstAnswer(pair.localPort(id))) - startedAt;
      await pair.waitFor(
        "up",
        (status) => status.servers.some((one) => one.id === id && one.up),
        60_000,
      );
      const upMs = nowMs() - startedAt;
      await pair.redundant(60_000);
      const inSyncMs = nowMs() - startedAt;
      await sleep(3000);
      rows.push([
        id === primary ? "primary (was)" : "standby",
        show(before),
        show(answersMs),
        show(upMs),
        show(inSyncMs),
        show(memoryMb(pair.pid(id), "RssAnon")),
        show(memoryMb(pair.pid(id), "VmRSS")),
      ]);
    }
    const client = await RespClient.open(pair.redis);
    console.log(`DBSIZE ${String(await client.call(["DBSIZE"]))}`);
    client.close();
    console.log(
      `\n${keys} keys, 200-byte values, durability ${durability}; marks: up 2000 ms, RssAnon 250 MB`,
    );
    printTable(
      [
        "agent",
        "RssAnon loaded MB",
        "port answers ms",
        "up ms",
        "in sync ms",
        "RssAnon restarted MB",
        "RSS MB",
      ],
      rows,
    );
  } finally {
    await pair.stop();
  }
}

/** When the port first answers anything at all. */
async function firstAnswer(port: number): Promise<number> {
  const until = nowMs() + 60_000;
  while (nowMs() < until) {
    try {
      const client = await RespClient.open(port, 500);
      await client.call(["PING"], 1000);
      client.close();
      return nowMs();
    } catch {
      await sleep(5);
    }
  }
  throw new Error(`port ${port} never answered`);
}
