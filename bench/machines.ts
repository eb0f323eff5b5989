/**
 * The pair as docs/DEPLOY.md sets it up, on three machines: network namespaces on one bridge, each node
 * with its own address. Needs root and a kernel with namespaces.
 */
import { execFile, execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { PairStatus } from "./pair.js";
import { otherOf } from "./pair.js";
import { childrenOf, commandLine, nowMs, signal, sleep, waitGone } from "./processes.js";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
export const NODES = ["c", "a", "b"] as const;
export type Node = (typeof NODES)[number];
export const ADDRESS: Record<Node | "bench", string> = {
  c: "10.251.77.1",
  a: "10.251.77.2",
  b: "10.251.77.3",
  bench: "10.251.77.254",
};
export const CLIENT_PORT = 6379;
/** Of a server's own door. */
export const LOCAL_PORT = 6380;

export const HOMES = ["node", "espruino", "iotjs"] as const;
export type Home = (typeof HOMES)[number];
/** Whose times and bounds hold where the controller is an interpreter. */
const BOARDS = { espruino: "espruino-linux", iotjs: "iotjs-linux" } as const;
/** How much more time than its board's configuration says an interpreter has, beside two servers and all clients on one machine. */
const PATIENCE = { espruino: 4, iotjs: 1 } as const;
/** Its keeper looks for the ports first, which the one before must have given back. @unit ms */
const CHIP_GONE_MS = 5000;

/** Not stopped yet. */
const live = new Set<ThreeMachines>();

export class ThreeMachines {
  readonly dir = mkdtempSync(join(process.env.DYAD_BENCH_DIR ?? tmpdir(), "dyad-three-"));
  private readonly tag = `dy${process.pid}`;
  private readonly running = new Map<Node, ChildProcess>();

  /** @param controller where it runs: as a Node process, or as a real interpreter kept by `dist/chip.js` */
  constructor(
    durability: "disk" | "memory",
    readonly controller: Home = "node",
  ) {
    if (live.size === 0) process.once("exit", () => live.forEach((one) => one.endNow()));
    live.add(this);
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
    const { controller } = this;
    const home = controller === "node" ? ["controller.js"] : ["chip.js", "--engine", controller];
    const [program, ...more] = node === "c" ? home : ["agent.js"];
    const log = openSync(join(this.dir, `${node}.log`), "a");
    const argv = [
      "netns",
      "exec",
      this.space(node),
      process.execPath,
      join(ROOT, "dist", program!),
    ];
    const child = spawn("ip", [...argv, ...more, "--config", join(this.dir, `${node}.json`)], {
      stdio: ["ignore", log, log],
    });
    this.running.set(node, child);
  }

  /** `ip netns exec` becomes the program itself, so its pid is the node's. */
  pid(node: Node): number {
    return this.running.get(node)!.pid!;
  }

  /** The interpreter that is the controller. @returns undefined while it is off */
  chipPid(): number | undefined {
    return childrenOf(this.pid("c")).find((pid) => commandLine(pid).startsWith(this.controller));
  }

  /** kill -9; of a chip its keeper's, which is a power cut. */
  async kill(node: Node): Promise<void> {
    const pid = this.pid(node);
    const chip = node === "c" && this.controller !== "node" ? this.chipPid() : undefined;
    signal(pid, "SIGKILL");
    await waitGone(pid, 5000);
    if (chip !== undefined) await waitGone(chip, CHIP_GONE_MS);
  }

  cable(node: Node, state: "up" | "down"): void {
    inside(`${this.tag}net`, "ip", "link", "set", `to-${node}`, state);
  }

  /** Cuts what goes from one server to the other, and leaves both their links to the controller. */
  peerWay(from: "a" | "b", state: "up" | "down"): void {
    const verb = state === "down" ? "add" : "del";
    const to = `${ADDRESS[otherOf(from)]}/32`;
    inside(this.space(from), "ip", "route", verb, "blackhole", to);
  }

  /** Whether `dyad` of this machine set could run at all. @returns why not, or "" */
  static missing(): string {
    try {
      ip("netns", "list");
      return process.getuid?.() === 0 ? "" : "not root";
    } catch (error) {
      return `ip (iproute2) with network namespaces: ${(error as Error).message}`;
    }
  }

  /** @returns undefined when there is nothing to be had */
  async status(): Promise<PairStatus | undefined> {
    const { out } = await this.dyad("status", "--json");
    try {
      return JSON.parse(out) as PairStatus;
    } catch {
      return undefined;
    }
  }

  /** What an operator would type. It runs beside whatever else goes on here. @returns what it printed, and its exit status */
  dyad(...words: string[]): Promise<{ out: string; error: string; exit: number }> {
    const argv = [join(ROOT, "bin", "dyad.mjs"), ...words, "--dir", join(this.dir, "c")];
    return new Promise((resolve) => {
      execFile(process.execPath, argv, { timeout: 10_000 }, (failed, out, error) => {
        const code = (failed as { code?: unknown } | null)?.code;
        resolve({ out, error, exit: failed === null ? 0 : typeof code === "number" ? code : 3 });
      });
    });
  }

  /** @throws with the last status when it does not come true in time */
  async redundant(timeoutMs = 40_000): Promise<PairStatus> {
    const until = nowMs() + timeoutMs;
    for (;;) {
      const status = await this.status();
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
    this.endNow();
  }

  /** As stop(), without waiting: for a run that is cut short. */
  private endNow(): void {
    if (!live.delete(this)) return;
    for (const child of this.running.values()) child.kill("SIGKILL");
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
    const bounds = this.controller === "node" ? undefined : boundsOf(this.controller);
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
      ...bounds,
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
        localPort: LOCAL_PORT,
        localHost: ADDRESS[id],
        keyFile: join(this.dir, "pair.key"),
        durability,
        preset: id === "a",
        // A handshake with a chip takes as long as the chip needs.
        ...(bounds === undefined
          ? {}
          : { timings: { handshakeMs: bounds.timings["handshakeMs"], controllerSilentMs: 5000 } }),
      });
    }
  }
}

function boundsOf(home: "espruino" | "iotjs"): {
  timings: Record<string, number>;
  limits: object;
} {
  const text = readFileSync(join(ROOT, "board-configs", `${BOARDS[home]}.json`), "utf8");
  const { timings, limits } = JSON.parse(text) as {
    timings: Record<string, number>;
    limits: object;
  };
  for (const name of Object.keys(timings)) timings[name] = timings[name]! * PATIENCE[home];
  return { timings, limits };
}

function ip(...argv: string[]): void {
  execFileSync("ip", argv, { stdio: ["ignore", "ignore", "pipe"] });
}

function inside(space: string, ...argv: string[]): void {
  execFileSync("ip", ["netns", "exec", space, ...argv], { stdio: ["ignore", "ignore", "pipe"] });
}
