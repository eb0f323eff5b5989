/**
 * P9 and P10 at size: a standby was away while 100,000 of 1,000,000 keys changed once each. How many bytes bring
 * it back, how fast they are applied (against Redis's partial resync in the same run), and what readers of the
 * primary notice meanwhile.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BenchArgs } from "./args.js";
import { Load, pour } from "./load.js";
import { Pair, otherOf } from "./pair.js";
import { hasProgram, nowMs, signal, sleep, socketsOf } from "./processes.js";
import { RespClient } from "./resp-client.js";
import { freePort, waitForPort } from "./rival.js";
import { printTable, quantile, show } from "./table.js";

const VALUE_BYTES = 200;
const SAMPLE_MS = 25;
/** Handshakes and heartbeats stay below this in one sample. @unit bytes */
const NOISE_BYTES = 4096;

const keyOf = (i: number): string => `key:${String(i).padStart(8, "0")}`;
const valueOf = (i: number, version: number): string =>
  `${version}:${i}:`.padEnd(VALUE_BYTES, "abcdefghij");

/** One seventh step through the keys, so that changes lie all over the keyspace. */
const changedKey = (i: number, keys: number): number => (i * 7 + 3) % keys;

interface Transfer {
  bytes: number;
  ms: number;
}

export async function run(args: BenchArgs): Promise<void> {
  if (!hasProgram("ss")) {
    console.log("skipped: ss (iproute2) not installed");
    return;
  }
  const keys = args.keys ?? 1_000_000;
  const changed = Math.floor(keys / 10);
  const payload = changed * (keyOf(0).length + VALUE_BYTES);
  const durability = args.durability ?? "disk";

  const pair = await Pair.start({ durability });
  let ours: Transfer;
  let quietP99: number;
  let busyP99: number;
  let afterP99: number;
  let inSyncMs: number;
  try {
    const { primary } = await pair.redundant();
    const standby = otherOf(primary!);
    const loadedAt = nowMs();
    await pour(pair.redis, keys, (i) => ["SET", keyOf(i), valueOf(i, 1)]);
    console.log(`${keys} keys written in ${show((nowMs() - loadedAt) / 1000)} s`);
    await pair.redundant();
    await pair.kill(standby);
    await pair.waitFor("solo", (status) => status.mode === "solo");
    const changedAt = nowMs();
    await pour(pair.redis, changed, (i) => {
      const key = changedKey(i, keys);
      return ["SET", keyOf(key), valueOf(key, 2)];
    });
    console.log(`${changed} changed in ${show((nowMs() - changedAt) / 1000)} s`);
    await sleep(2000);
    const load = new Load({
      port: pair.redis,
      name: "sync",
      connections: 2,
      writesPerSecond: 20,
      readConnections: 10,
      readsPerSecond: 1000,
    });
    await load.start();
    await sleep(1000);
    const quietFrom = Date.now();
    const peerPorts = new Set([pair.peerPort("a"), pair.peerPort("b")]);
    const received = async (id: "a" | "b"): Promise<number> =>
      (await socketsOf(pair.pid(id)))
        .filter(
          ({ localPort, remotePort }) => peerPorts.has(localPort) || peerPorts.has(remotePort),
        )
        .reduce((sum, socket) => sum + socket.received, 0);
    // With the same sampling as later: it takes of the same two cores.
    const quietUntil = nowMs() + 4000;
    while (nowMs() < quietUntil) {
      await received(primary!);
      await sleep(SAMPLE_MS);
    }
    quietP99 = readsBetween(load, quietFrom, Date.now());
    await pair.restart(standby);
    const startedAt = Date.now();
    let asking = Infinity;
    ours = await watchTransfer(
      () => received(standby),
      async () => {
        // Asking starts a process of its own: that is not what readers are to notice.
        asking = Math.min(asking, Date.now());
        return (await pair.status())?.exit === 0;
      },
    );
    await pair.redundant(120_000);
    const inSyncAt = standbySince(join(pair.dir, "logs", `${standby}.log`));
    inSyncMs = inSyncAt - startedAt;
    busyP99 = readsBetween(load, startedAt, inSyncAt);
    afterP99 = readsBetween(load, inSyncAt, asking);
    await load.stop();
    const missing = await load.lost();
    const wrong = await countWrong(pair.localPort(standby), keys, changed);
    console.log(
      `lost ${missing.length}, errors ${load.counts.errorCount}, stale ${load.counts.stale}, ` +
        `wrong values at the standby's own port ${wrong}`,
    );
  } finally {
    await pair.stop();
  }
  const theirs = hasProgram("redis-server") ? await redisPartialResync(keys, changed) : undefined;
  if (theirs === undefined) console.log("redis-server not installed: no comparison");

  console.log(
    `\n${changed} of ${keys} keys changed, ${VALUE_BYTES}-byte values, their keys and values ${payload} bytes; durability ${durability}`,
  );
  const row = (name: string, one: Transfer): (string | number)[] => [
    name,
    one.bytes,
    show(one.bytes / payload),
    show(one.ms),
    show(changed / (one.ms / 1000)),
  ];
  printTable(
    ["", "bytes", "x payload", "first to last byte ms", "keys/s"],
    theirs ? [row("dyad", ours), row("redis partial resync", theirs)] : [row("dyad", ours)],
  );
  if (theirs)
    console.log(`rate against redis: ${show(theirs.ms / ours.ms)} (mark 0.33); bytes mark 1.3 x`);
  console.log(
    `p99 of the primary's reads: ${show(quietP99)} ms before, ${show(busyP99)} ms meanwhile (mark: less than doubled), ` +
      `${show(afterP99)} ms in the first moments in sync; from start of the standby to in sync ${show(inSyncMs)} ms`,
  );
}

/** The 99th percentile of what reads took that were answered in this window, wall clock. @unit ms */
function readsBetween(load: Load, fromMs: number, toMs: number): number {
  return quantile(
    load.readMs.filter((_, i) => load.readAt[i] >= fromMs && load.readAt[i] < toMs),
    0.99,
  );
}

/** When a server last became standby, as its log says. @unit ms, wall clock */
function standbySince(path: string): number {
  const lines = readFileSync(path, "utf8").split("\n");
  const line = lines.findLast((one) => one.includes('"role":"standby"'));
  return line === undefined ? NaN : (JSON.parse(line) as { time: number }).time;
}

/** Follows a byte count until nothing more comes and the end is confirmed. */
async function watchTransfer(
  count: () => Promise<number>,
  isDone: () => Promise<boolean>,
): Promise<Transfer> {
  let last = 0;
  let first = NaN;
  let lastAt = NaN;
  let base = 0;
  let bytes = 0;
  let quiet = 0;
  const until = nowMs() + 180_000;
  while (nowMs() < until) {
    const now = await count();
    const at = nowMs();
    if (now < last) {
      // A new connection: what the old one carried counts too.
      base += last;
      last = 0;
    }
    if (now - last > NOISE_BYTES) {
      if (Number.isNaN(first)) first = at - SAMPLE_MS;
      lastAt = at;
      quiet = 0;
    } else if (!Number.isNaN(first)) {
      quiet += 1;
    }
    last = now;
    bytes = base + now;
    if (quiet > 20 && (await isDone())) break;
    await sleep(SAMPLE_MS);
  }
  return { bytes, ms: lastAt - first };
}

async function countWrong(port: number, keys: number, changed: number): Promise<number> {
  const client = await RespClient.open(port);
  let wrong = 0;
  for (let i = 0; i < changed; i += Math.max(1, Math.floor(changed / 500))) {
    const key = changedKey(i, keys);
    const reply = await client.call(["GET", keyOf(key)]);
    if (reply !== valueOf(key, 2)) wrong += 1;
  }
  client.close();
  return wrong;
}

async function redisPartialResync(keys: number, changed: number): Promise<Transfer> {
  const dir = mkdtempSync(join(tmpdir(), "dyad-redis-"));
  const ports = [await freePort(), await freePort()];
  const start = (port: number, more: string[]): ReturnType<typeof spawn> =>
    spawn(
      "redis-server",
      [
        "--port",
        String(port),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        dir,
        "--dbfilename",
        `${port}.rdb`,
        ...more,
      ],
      { stdio: "ignore" },
    );
  const primary = start(ports[0], ["--repl-backlog-size", "256mb"]);
  await waitForPort(ports[0]);
  await pour(ports[0], keys, (i) => ["SET", keyOf(i), valueOf(i, 1)]);
  const replica = start(ports[1], ["--replicaof", "127.0.0.1", String(ports[0])]);
  const client = await RespClient.open(ports[0]);
  const info = async (): Promise<string> => String(await client.call(["INFO", "all"]));
  try {
    const until = nowMs() + 120_000;
    while (!/slave0:.*state=online/.test(await info())) {
      if (nowMs() > until) throw new Error("the replica did not come online");
      await sleep(100);
    }
    const replicaClient = await RespClient.open(ports[1]);
    await sleep(1000);
    signal(replica.pid!, "SIGSTOP");
    await client.call(["CLIENT", "KILL", "TYPE", "replica"]);
    await pour(ports[0], changed, (i) => {
      const key = changedKey(i, keys);
      return ["SET", keyOf(key), valueOf(key, 2)];
    });
    const count = async (): Promise<number> =>
      (await socketsOf(replica.pid!))
        .filter((socket) => socket.remotePort === ports[0])
        .reduce((sum, socket) => sum + socket.received, 0);
    signal(replica.pid!, "SIGCONT");
    const moved = await watchTransfer(count, async () => {
      const target = /master_repl_offset:(\d+)/.exec(await info())?.[1];
      const there = String(await replicaClient.call(["INFO", "replication"]));
      return Number(/slave_repl_offset:(\d+)/.exec(there)?.[1]) >= Number(target) - 1000;
    });
    if (!/sync_partial_ok:[1-9]/.test(await info())) {
      console.log("note: Redis did a full resync, not a partial one");
    }
    replicaClient.close();
    return moved;
  } finally {
    client.close();
    signal(replica.pid!, "SIGCONT");
    primary.kill("SIGKILL");
    replica.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  }
}
