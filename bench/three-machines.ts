/**
 * The pair as docs/DEPLOY.md sets it up, on three machines: network namespaces on one bridge, each node
 * with its own address. A pulled cable says nothing, neither FIN nor reset; a power cut is a kill behind
 * a pulled cable. Needs root and a kernel with namespaces.
 */
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { BenchArgs } from "./args.js";
import { Load } from "./load.js";
import type { PairStatus } from "./pair.js";
import { otherOf } from "./pair.js";
import { nowMs, signal, sleep, waitGone } from "./processes.js";
import { median, printTable, quantile, show } from "./table.js";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const NODES = ["c", "a", "b"] as const;
type Node = (typeof NODES)[number];
const ADDRESS: Record<Node | "bench", string> = {
  c: "10.251.77.1",
  a: "10.251.77.2",
  b: "10.251.77.3",
  bench: "10.251.77.254",
};
const CLIENT_PORT = 6379;
const WINDOW_MS = 2500;

class ThreeMachines {
  readonly dir = mkdtempSync(join(process.env.DYAD_BENCH_DIR ?? tmpdir(), "dyad-three-"));
  private readonly tag = `dy${process.pid}`;
  private readonly running = new Map<Node, ChildProcess>();

  constructor(durability: "disk" | "memory") {
    const net = `${this.tag}net`;
    ip("netns", "add", net);
    inside(net, "ip", "link", "add", "br0", "type", "bridge");
    inside(net, "ip", "link", "set", "br0", "up");
    for (const node of NODES) {
      const space = this.space(node);
      ip("netns", "add", space);
      ip(
        "link",
        "add",
        "eth0",
        "netns",
        space,
        "type",
        "veth",
        "peer",
        "name",
        `to-${node}`,
        "netns",
        net,
      );
      inside(space, "ip", "addr", "add", `${ADDRESS[node]}/24`, "dev", "eth0");
      inside(space, "ip", "link", "set", "eth0", "up");
      inside(space, "ip", "link", "set", "lo", "up");
      inside(net, "ip", "link", "set", `to-${node}`, "master", "br0", "up");
    }
    ip("link", "add", this.tag, "type", "veth", "peer", "name", "to-bench", "netns", net);
    ip("addr", "add", `${ADDRESS.bench}/24`, "dev", this.tag);
    ip("link", "set", this.tag, "up");
    inside(net, "ip", "link", "set", "to-bench", "master", "br0", "up");
    this.configure(durability);
    for (const node of NODES) this.start(node);
  }

  start(node: Node): void {
    const program = node === "c" ? "controller.js" : "agent.js";
    const log = openSync(join(this.dir, `${node}.log`), "a");
    const argv = ["netns", "exec", this.space(node), process.execPath, join(ROOT, "dist", program)];
    const child = spawn("ip", [...argv, "--config", join(this.dir, `${node}.json`)], {
      stdio: ["ignore", log, log],
    });
    this.running.set(node, child);
  }

  /** `ip netns exec` becomes the program itself, so its pid is the node's. */
  pid(node: Node): number {
    return this.running.get(node)!.pid!;
  }

  cable(node: Node, state: "up" | "down"): void {
    inside(`${this.tag}net`, "ip", "link", "set", `to-${node}`, state);
  }

  status(): PairStatus | undefined {
    try {
      const argv = [
        join(ROOT, "bin", "dyad.mjs"),
        "status",
        "--dir",
        join(this.dir, "c"),
        "--json",
      ];
      return JSON.parse(
        execFileSync(process.execPath, argv, {
          encoding: "utf8",
          stdio: ["ignore", "pipe", "ignore"],
        }),
      ) as PairStatus;
    } catch (error) {
      try {
        return JSON.parse((error as { stdout: string }).stdout) as PairStatus;
      } catch {
        return undefined;
      }
    }
  }

  async redundant(timeoutMs = 40_000): Promise<PairStatus> {
    const until = nowMs() + timeoutMs;
    for (;;) {
      const status = this.status();
      if (status?.mode === "both" && status.servers.every((one) => one.up && one.inSync))
        return status;
      if (nowMs() > until) throw new Error(`not redundant: ${JSON.stringify(status)}`);
      await sleep(200);
    }
  }

  async stop(): Promise<void> {
    for (const node of NODES) {
      const pid = this.running.get(node)?.pid;
      if (pid === undefined) continue;
      signal(pid, "SIGKILL");
      await waitGone(pid, 2000);
    }
    for (const name of [...NODES.map((node) => this.space(node)), `${this.tag}net`]) {
      try {
        ip("netns", "del", name);
      } catch {
        // It was never made.
      }
    }
    if (process.env.DYAD_BENCH_KEEP === undefined)
      rmSync(this.dir, { recursive: true, force: true });
  }

  private space(node: Node): string {
    return `${this.tag}${node}`;
  }

  private configure(durability: "disk" | "memory"): void {
    const write = (name: string, value: unknown): void =>
      writeFileSync(
        join(this.dir, name),
        typeof value === "string" ? value : JSON.stringify(value),
      );
    write("pair.key", randomBytes(32).toString("hex"));
    for (const node of NODES) mkdirSync(join(this.dir, node));
    write("c.json", {
      dir: join(this.dir, "c"),
      host: ADDRESS.c,
      redisPort: CLIENT_PORT,
      nativePort: 6381,
      linkPort: 6382,
      servers: [
        { id: "a", host: ADDRESS.a, udpPort: 6383, preset: true },
        { id: "b", host: ADDRESS.b, udpPort: 6383 },
      ],
      keyFile: join(this.dir, "pair.key"),
    });
    for (const id of ["a", "b"] as const) {
      write(`${id}.json`, {
        id,
        servers: ["a", "b"],
        dir: join(this.dir, id),
        host: ADDRESS[id],
        controller: { host: ADDRESS.c, linkPort: 6382, clientPort: CLIENT_PORT },
        peer: { host: ADDRESS[otherOf(id)], port: 6384 },
        peerPort: 6384,
        udpPort: 6383,
        localPort: 6380,
        keyFile: join(this.dir, "pair.key"),
        durability,
        preset: id === "a",
      });
    }
  }
}

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
  try {
    ip("netns", "list");
    if (process.getuid?.() !== 0) throw new Error("not root");
  } catch (error) {
    console.log(
      `skipped: needs root, ip (iproute2) and network namespaces (${(error as Error).message})`,
    );
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

function ip(...argv: string[]): void {
  execFileSync("ip", argv, { stdio: ["ignore", "ignore", "pipe"] });
}

function inside(space: string, ...argv: string[]): void {
  execFileSync("ip", ["netns", "exec", space, ...argv], { stdio: ["ignore", "ignore", "pipe"] });
}
