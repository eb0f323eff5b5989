/**
 * P9 and P10 at size: a standby was away while 100,000 of 1,000,000 keys changed once each. How many bytes bring
 * it back, how fast they are applied (against Redis's partial resync in the same run), and what readers of the
 * primary notice meanwhile.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import type { BenchArgs } from "./args.js";
import { LoadProcess } from "./load-process.js";
import type { LoadBook } from "./load-process.js";
import type { LoadOptions } from "./load.js";
import { keyAtRest, pour } from "./load.js";
import { Pair, otherOf } from "./pair.js";
import {
  bytesRead,
  childrenOf,
  hasProgram,
  isConnected,
  nowMs,
  pin,
  signal,
  sleep,
  socketsOf,
  startHog,
} from "./processes.js";
import { RespClient } from "./resp-client.js";
import { freePort, waitForPort } from "./rival.js";
import { printTable, quantile, show } from "./table.js";

const VALUE_BYTES = 200;
const SAMPLE_MS = 10;
/** Nothing came for so long: it may be over. */
const QUIET_MS = 500;
/** Handshakes and heartbeats stay below this in one sample. @unit bytes */
const NOISE_BYTES = 4096;

const valueOf = (i: number, version: number): string =>
  `${version}:${i}:`.padEnd(VALUE_BYTES, "abcdefghij");

/** One seventh step through the keys, so that changes lie all over the keyspace. */
const changedKey = (i: number, keys: number): number => (i * 7 + 3) % keys;

interface Transfer {
  bytes: number;
  ms: number;
  /** When its first byte came, wall clock. @unit ms */
  beganAt: number;
}

export async function run(args: BenchArgs): Promise<void> {
  if (!hasProgram("ss") || !hasProgram("taskset") || cpus().length < 2) {
    console.log("skipped: it needs ss (iproute2), taskset (util-linux) and two cores");
    return;
  }
  const keys = args.keys ?? 1_000_000;
  const changed = Math.floor(keys / 10);
  const payload = changed * (keyAtRest(0).length + VALUE_BYTES);
  const durability = args.durability ?? "disk";

  const pair = await Pair.start({ durability });
  let ours: Transfer;
  const windows: { name: string; from: number; to: number }[] = [];
  const loads: LoadProcess[] = [];
  const load = async (options: LoadOptions): Promise<LoadProcess> => {
    const one = await LoadProcess.start(options);
    loads.push(one);
    return one;
  };
  let resting: LoadBook;
  let moving: LoadBook;
  let inSyncMs: number;
  try {
    const { primary } = await pair.redundant();
    const standby = otherOf(primary!);
    const loadedAt = nowMs();
    await pour(pair.redis, keys, (i) => ["SET", keyAtRest(i), valueOf(i, 1)]);
    console.log(`${keys} keys written in ${show((nowMs() - loadedAt) / 1000)} s`);
    await pair.redundant();
    await pair.kill(standby);
    await pair.waitFor("solo", (status) => status.mode === "solo");
    const changedAt = nowMs();
    await pour(pair.redis, changed, (i) => {
      const key = changedKey(i, keys);
      return ["SET", keyAtRest(key), valueOf(key, 2)];
    });
    console.log(`${changed} changed in ${show((nowMs() - changedAt) / 1000)} s`);
    await sleep(2000);
    await load({
      port: pair.redis,
      name: "sync",
      connections: 2,
      writesPerSecond: 20,
      readConnections: 2,
      readsPerSecond: 200,
    });
    await load({
      port: pair.redis,
      name: "rest",
      connections: 1,
      writesPerSecond: 0,
      readConnections: 10,
      readsPerSecond: 1000,
      keysAtRest: keys,
    });
    // As on two machines: what the standby computes takes nothing from the primary, and from those who read there.
    for (const pid of [pair.pid(primary!), pair.pid("controller"), ...childrenOf(process.pid)]) {
      pin(pid, "0");
    }
    await sleep(1000);
    const quietFrom = Date.now();
    const peerPorts = new Set([pair.peerPort("a"), pair.peerPort("b")]);
    const received = async (id: "a" | "b"): Promise<number> =>
      (await socketsOf(pair.pid(id)))
        .filter(
          ({ localPort, remotePort }) => peerPorts.has(localPort) || peerPorts.has(remotePort),
        )
        .reduce((sum, socket) => sum + socket.received, 0);
    await sleep(4000);
    // Memory and caches they share all the same: how much of what readers will notice is that?
    const besideFrom = Date.now();
    const hog = startHog(1);
    await sleep(2000);
    hog.kill("SIGKILL");
    const besideTo = Date.now();
    await sleep(500);
    await pair.restart(standby, "1");
    const startedAt = Date.now();
    let asking = Infinity;
    ours = await watchTransfer(
      // What its process reads of files at its start is no transfer.
      () => (isConnected(peerPorts) ? bytesRead(pair.pid(standby)) : undefined),
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
    windows.push(
      { name: "before", from: quietFrom, to: besideFrom },
      { name: "a busy process on the standby's core instead", from: besideFrom, to: besideTo },
      { name: "the standby's process starts", from: startedAt, to: ours.beganAt },
      { name: "batch sync, until in sync", from: ours.beganAt, to: inSyncAt },
      { name: "the first moments in sync", from: inSyncAt, to: asking },
    );
    [moving, resting] = await Promise.all(loads.map((one) => one.stop()));
    const wrong = await countWrong(pair.localPort(standby), keys, changed);
    const sum = (of: (book: LoadBook) => number): number => of(moving) + of(resting);
    console.log(
      `lost ${moving.missing.length}, errors ${sum(({ counts }) => counts.errorCount)}, ` +
        `stale or missing ${sum(({ counts }) => counts.stale)}, wrong values at the standby's own port ${wrong}`,
    );
  } finally {
    for (const one of loads) one.kill();
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
    `from start of the standby to in sync ${show(inSyncMs)} ms. Reads of the primary, ms (mark: p99 less than doubled):`,
  );
  printTable(
    ["", "reads", "keys at rest: p50", "p99", "max", "keys being written: p50", "p99", "max"],
    windows.map(({ name, from, to }) => {
      const [rest, moves] = [resting, moving].map((book) => readsBetween(book, from, to));
      const figures = (ms: number[]): string[] =>
        [0.5, 0.99, 1].map((share) => show(quantile(ms, share)));
      return [name, rest.length + moves.length, ...figures(rest), ...figures(moves)];
    }),
  );
}

/** What reads took that were answered in this window, wall clock. @unit ms */
function readsBetween(book: LoadBook, fromMs: number, toMs: number): number[] {
  return book.readMs.filter((_, i) => book.readAt[i] >= fromMs && book.readAt[i] < toMs);
}

/** When a server last became standby, as its log says. @unit ms, wall clock */
function standbySince(path: string): number {
  const lines = readFileSync(path, "utf8").split("\n");
  const line = lines.findLast((one) => one.includes('"role":"standby"'));
  return line === undefined ? NaN : (JSON.parse(line) as { time: number }).time;
}

/**
 * Follows what a process reads until nothing more comes and the end is confirmed.
 * @param read undefined as long as it cannot have begun
 * @param count the bytes of the connection, asked for once at the end
 */
async function watchTransfer(
  read: () => number | undefined,
  count: () => Promise<number>,
  isDone: () => Promise<boolean>,
): Promise<Transfer> {
  let last: number | undefined;
  let first = NaN;
  let beganAt = NaN;
  let lastAt = NaN;
  const until = nowMs() + 180_000;
  while (nowMs() < until) {
    const now = read();
    const at = nowMs();
    if (now !== undefined && last !== undefined && now - last > NOISE_BYTES) {
      if (Number.isNaN(first)) {
        first = at - SAMPLE_MS;
        beganAt = Date.now() - SAMPLE_MS;
      }
      lastAt = at;
    }
    last = now;
    if (at - lastAt > QUIET_MS && (await isDone())) break;
    await sleep(SAMPLE_MS);
  }
  return { bytes: await count(), ms: lastAt - first, beganAt };
}

async function countWrong(port: number, keys: number, changed: number): Promise<number> {
  const client = await RespClient.open(port);
  let wrong = 0;
  for (let i = 0; i < changed; i += Math.max(1, Math.floor(changed / 500))) {
    const key = changedKey(i, keys);
    const reply = await client.call(["GET", keyAtRest(key)]);
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
  await pour(ports[0], keys, (i) => ["SET", keyAtRest(i), valueOf(i, 1)]);
  const replica = start(ports[1], ["--replicaof", "127.0.0.1", String(ports[0])]);
  pin(primary.pid!, "0");
  pin(replica.pid!, "1");
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
      return ["SET", keyAtRest(key), valueOf(key, 2)];
    });
    const count = async (): Promise<number> =>
      (await socketsOf(replica.pid!))
        .filter((socket) => socket.remotePort === ports[0])
        .reduce((sum, socket) => sum + socket.received, 0);
    signal(replica.pid!, "SIGCONT");
    const read = (): number => bytesRead(replica.pid!);
    const moved = await watchTransfer(read, count, async () => {
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
