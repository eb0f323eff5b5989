/**
 * P3: which server gets the reads. Each agent is bound to a core; a hog is bound beside one of them and taken
 * away again; then that server stands still for 300 ms. Reads are counted from outside: bytes each agent
 * has received on its link from the controller.
 */
import type { BenchArgs } from "./args.js";
import { Load } from "./load.js";
import { Pair } from "./pair.js";
import type { SocketBytes } from "./processes.js";
import { hasProgram, nowMs, pin, sleep, socketsOf, startHog } from "./processes.js";
import { printTable, quantile, show } from "./table.js";

const READS_PER_SECOND = 3000;
const STALL_MS = 300;

export async function run(args: BenchArgs): Promise<void> {
  const missing = ["taskset", "ss"].filter((name) => !hasProgram(name));
  if (missing.length > 0) {
    console.log(`skipped: ${missing.join(", ")} not installed`);
    return;
  }
  const seconds = args.seconds ?? 8;
  const pair = await Pair.start({ durability: args.durability ?? "memory" });
  const load = new Load({
    port: pair.redis,
    name: "spread",
    connections: 2,
    writesPerSecond: 20,
    readConnections: 20,
    readsPerSecond: READS_PER_SECOND,
  });
  const rows: (string | number)[][] = [];
  try {
    const status = await pair.redundant();
    const standby = status.primary === "a" ? "b" : "a";
    pin(pair.pid("a"), "0");
    pin(pair.pid("b"), "1");
    const core = standby === "a" ? 0 : 1;
    const link = pair.linkPort();
    const sockets = async (id: "a" | "b"): Promise<SocketBytes[]> =>
      (await socketsOf(pair.pid(id))).filter((socket) => socket.remotePort === link);
    /** What came in since then, on the same connection or on a new one. */
    const since = async (id: "a" | "b", before: SocketBytes[]): Promise<number> => {
      let sum = 0;
      for (const now of await sockets(id)) {
        const then = before.find((socket) => socket.localPort === now.localPort);
        sum += now.received - (then?.received ?? 0);
      }
      return sum;
    };
    const phase = async (name: string, forMs: number): Promise<void> => {
      const before = { a: await sockets("a"), b: await sockets("b") };
      const readsBefore = load.readMs.length;
      await sleep(forMs);
      const got = { a: await since("a", before.a), b: await since("b", before.b) };
      const times = load.readMs.slice(readsBefore);
      const share = got[standby] / Math.max(1, got.a + got.b);
      rows.push([
        name,
        `${show(share * 100)} %`,
        show(times.length / (forMs / 1000)),
        show(quantile(times, 0.5)),
        show(quantile(times, 0.99)),
      ]);
    };
    await load.start();
    await sleep(2000);
    await phase("nothing beside either", seconds * 1000);
    const hog = startHog(core);
    await sleep(500);
    await phase(`hog beside the standby (${standby})`, seconds * 1000);
    hog.kill("SIGKILL");
    await sleep(1000);
    await phase("hog gone, from 1 s after", seconds * 1000);
    const epoch = (await pair.status())?.epoch;
    pair.send(standby, "SIGSTOP");
    const stoppedAt = nowMs();
    await phase(`standby stalled ${STALL_MS} ms`, STALL_MS);
    pair.send(standby, "SIGCONT");
    const stalled = nowMs() - stoppedAt;
    for (const at of [0, 1, 2, 3]) await phase(`${at}-${at + 1} s after the stall`, 1000);
    await phase("later", seconds * 1000);
    const after = await pair.redundant();
    // With the standby gone every read must go to the primary.
    await pair.kill(standby);
    await sleep(1000);
    const alone = load.readMs.length;
    await sleep(2000);
    console.log(
      `reads/s with the standby dead, all at the primary: ${show((load.readMs.length - alone) / 2)}`,
    );
    await load.stop();
    console.log(
      `open loop ${READS_PER_SECOND} GET/s, agent a on core 0, b on core 1, hog on core ${core}; ` +
        `stall lasted ${show(stalled)} ms; epoch ${epoch} -> ${after.epoch}; ` +
        `errors ${load.counts.errorCount}, stale ${load.counts.stale}`,
    );
    printTable(["phase", `share of ${standby}`, "reads/s", "median ms", "p99 ms"], rows);
  } finally {
    await load.stop(100);
    await pair.stop();
  }
}
