/** A real pair started as a stranger would start it, and everything that may be done to it from outside. */
import { execFile, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { childrenOf, commandLine, isAlive, nowMs, signal, sleep, waitGone } from "./processes.js";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const DYAD = join(ROOT, "bin", "dyad.mjs");
const READY_MS = 60_000;

export type Durability = "disk" | "memory";
export type NodeName = "controller" | "a" | "b";

export interface ServerStatus {
  id: "a" | "b";
  role: string;
  up: boolean;
  inSync: boolean;
  lagEntries: number;
  loadPermille: number;
  serviceUs: number;
  inFlight: number;
}

export interface PairStatus {
  /** Exit status of `dyad status`: 0 redundant, 1 not redundant, 2 cannot serve. */
  exit: number;
  epoch: number;
  primary: "a" | "b" | undefined;
  mode: string;
  servers: ServerStatus[];
  why: string;
}

interface NodeProcess {
  pid: number;
  command: string;
  dir: string;
}

export interface PairOptions {
  durability: Durability;
  /** A directory to keep; without one a temporary one is made and removed. */
  dir?: string;
}

export class Pair {
  redis = 0;
  native = 0;
  /** Every pid this pair ever had, so that stop() leaves none. */
  private readonly pids = new Set<number>();
  private readonly nodes = new Map<NodeName, NodeProcess>();

  private constructor(
    readonly dir: string,
    readonly durability: Durability,
    private readonly up: ChildProcess,
    private readonly removeDir: boolean,
  ) {}

  static async start(options: PairOptions): Promise<Pair> {
    const dir =
      options.dir ?? mkdtempSync(join(process.env.DYAD_BENCH_DIR ?? tmpdir(), "dyad-bench-"));
    mkdirSync(dir, { recursive: true });
    const argv = ["up", "--dir", dir, "--port", "0", "--json", "--durability", options.durability];
    const up = spawn(process.execPath, [DYAD, ...argv], { stdio: ["ignore", "pipe", "pipe"] });
    const pair = new Pair(dir, options.durability, up, options.dir === undefined);
    live.add(pair);
    const line = await new Promise<string>((resolve, reject) => {
      let out = "";
      let words = "";
      const timer = setTimeout(
        () => reject(new Error(`dyad up was not ready in ${READY_MS} ms: ${words.slice(-2000)}`)),
        READY_MS,
      );
      up.stdout?.on("data", (data: Buffer) => {
        out += data.toString();
        if (!out.includes("\n")) return;
        clearTimeout(timer);
        resolve(out.slice(0, out.indexOf("\n")));
      });
      up.stderr?.on("data", (data: Buffer) => (words += data.toString()));
      up.once("exit", (code) => {
        clearTimeout(timer);
        reject(new Error(`dyad up ended with status ${code}: ${words.slice(-2000)}`));
      });
    });
    const said = JSON.parse(line) as {
      controller: { pid: number; redis: number; native: number; command: string };
      servers: { id: "a" | "b"; pid: number; dir: string; command: string }[];
    };
    pair.redis = said.controller.redis;
    pair.native = said.controller.native;
    pair.adopt("controller", { ...said.controller, dir: join(dir, "controller") });
    for (const server of said.servers) pair.adopt(server.id, server);
    return pair;
  }

  pid(name: NodeName): number {
    return this.nodes.get(name)!.pid;
  }

  dataDir(name: NodeName): string {
    return this.nodes.get(name)!.dir;
  }

  /** The port of a server's own Redis door (rule 10's local port). */
  localPort(id: "a" | "b"): number {
    return this.ports()[id].local;
  }

  /** The port on which a server waits for the other one. */
  peerPort(id: "a" | "b"): number {
    return this.ports()[id].peer;
  }

  /** The port on which the controller waits for its servers. */
  linkPort(): number {
    return this.ports().link;
  }

  private ports(): { link: number } & Record<"a" | "b", { local: number; peer: number }> {
    return JSON.parse(readFileSync(join(this.dir, "pair.json"), "utf8"));
  }

  /** Changes a node's configuration file; it counts from the node's next start. */
  editConfig(name: NodeName, change: (config: Record<string, unknown>) => void): void {
    const path = join(this.dir, `${name}.json`);
    const config = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
    change(config);
    writeFileSync(path, `${JSON.stringify(config, null, 2)}\n`);
  }

  /** What `dyad status --json` prints. @returns undefined when there is nothing to be had */
  status(): Promise<PairStatus | undefined> {
    return new Promise((resolve) => {
      const argv = [DYAD, "status", "--dir", this.dir, "--json"];
      execFile(process.execPath, argv, { timeout: 10_000 }, (error, stdout) => {
        const code = (error as { code?: unknown } | null)?.code;
        const exit = error === null ? 0 : typeof code === "number" ? code : 3;
        try {
          resolve({ ...(JSON.parse(stdout) as PairStatus), exit });
        } catch {
          resolve(undefined);
        }
      });
    });
  }

  /** @throws with the last status when the condition does not come true in time */
  async waitFor(
    what: string,
    condition: (status: PairStatus) => boolean,
    timeoutMs = 30_000,
  ): Promise<PairStatus> {
    const until = nowMs() + timeoutMs;
    let last: PairStatus | undefined;
    for (;;) {
      last = await this.status();
      if (last !== undefined && condition(last)) return last;
      if (nowMs() > until) {
        throw new Error(`not ${what} after ${timeoutMs} ms; last status: ${JSON.stringify(last)}`);
      }
      await sleep(100);
    }
  }

  /** Both servers up and in sync. */
  redundant(timeoutMs = 30_000): Promise<PairStatus> {
    return this.waitFor(
      "redundant",
      (status) =>
        status.exit === 0 &&
        status.mode === "both" &&
        status.servers.every((s) => s.up && s.inSync),
      timeoutMs,
    );
  }

  async kill(name: NodeName, how: NodeJS.Signals = "SIGKILL"): Promise<void> {
    signal(this.pid(name), how);
    if (how === "SIGKILL") await waitGone(this.pid(name), 5000);
  }

  send(name: NodeName, how: NodeJS.Signals): void {
    signal(this.pid(name), how);
  }

  /**
   * Runs the node's own command, as an operator would.
   * @param cores it runs on these from its first instruction, as taskset names them
   */
  async restart(name: NodeName, cores?: string): Promise<number> {
    const node = this.nodes.get(name)!;
    if (isAlive(node.pid)) throw new Error(`${name} still runs as ${node.pid}`);
    mkdirSync(join(this.dir, "logs"), { recursive: true });
    const log = openSync(join(this.dir, "logs", `${name}.log`), "a");
    const bound = cores === undefined ? "" : `taskset -c ${cores} `;
    const shell = spawn("sh", ["-c", `exec ${bound}${node.command}`], {
      stdio: ["ignore", log, log],
      detached: true,
    });
    shell.unref();
    const pid = shell.pid;
    if (pid === undefined) throw new Error(`could not run ${node.command}`);
    this.adopt(name, { ...node, pid });
    return pid;
  }

  async stop(): Promise<void> {
    live.delete(this);
    for (const pid of this.ours()) signal(pid, "SIGCONT");
    if (this.up.exitCode === null) {
      this.up.kill("SIGTERM");
      await waitGone(this.up.pid!, 10_000);
    }
    this.endNow();
    for (const pid of this.ours()) await waitGone(pid, 2000);
    if (this.removeDir && process.env.DYAD_BENCH_KEEP === undefined) {
      rmSync(this.dir, { recursive: true, force: true });
    }
  }

  /** Ends everything at once, without a word. */
  endNow(): void {
    for (const pid of this.ours()) {
      for (const child of childrenOf(pid)) signal(child, "SIGKILL");
      signal(pid, "SIGKILL");
    }
    this.up.kill("SIGKILL");
  }

  /** Pids that are still this pair's: the kernel gives a dead one's number to somebody else. */
  private ours(): number[] {
    return [...this.pids].filter((pid) => commandLine(pid).includes(this.dir));
  }

  private adopt(name: NodeName, node: NodeProcess): void {
    this.nodes.set(name, { pid: node.pid, command: node.command, dir: node.dir });
    this.pids.add(node.pid);
  }
}

const live = new Set<Pair>();
process.once("exit", () => live.forEach((pair) => pair.endNow()));
for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => process.exit(130));

/** The server that is not this one. */
export const otherOf = (id: "a" | "b"): "a" | "b" => (id === "a" ? "b" : "a");
