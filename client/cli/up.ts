/**
 * `dyad up`: the pair on one machine, as three processes. It starts them, says where to connect, tells
 * what happens to them, and stops them; it restarts nothing.
 *
 * Each node holds the read end of a pipe from this process on its standard input. When this process
 * ends, by whatever way, the pipe closes and the nodes stop, so none is ever left behind. A node
 * started again by its printed command has no such pipe and lives on its own.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, renameSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { askNode, NotReachable } from "./ask-node.js";
import { attachSerial } from "./serial-view.js";
import type { SerialView } from "./serial-view.js";
import { Failure } from "./failure.js";
import { lockHolder } from "./lock-holder.js";
import {
  type Durability,
  type Home,
  homeProgram,
  type NodePlan,
  nodeLocks,
  type PairPlan,
  preparePair,
  shellCommand,
} from "./pair-dir.js";
import {
  EXIT_CANNOT_SERVE,
  EXIT_REDUNDANT,
  type PairStatus,
  parseStatus,
  statusExit,
} from "./status.js";

const NODE_UP_MS = 30000;
const ASK_EVERY_MS = 20;
/** In sync takes a moment after the pair can serve; a standby that needs longer is not waited for. */
const IN_SYNC_MS = 10000;
/** An answer at its console keeps a chip from its other work for a while. */
const ASK_CHIP_EVERY_MS = 1000;
const WHY_EVERY_MS = 5000;
const WATCH_EVERY_MS = 250;
const STOP_MS = 5000;
const LOG_BYTES_KEPT = 16 * 1024 * 1024;
/** A pair whose `up` was just killed needs this long to end. */
const LEFTOVER_MS = 3000;

/** How each home is told of to whoever started it. */
const HOME_WORDS: Record<Home, string> = {
  node: "The controller is a Node process.",
  board:
    "The controller is a virtual board: a chip's firmware in an engine of its own (--controller node: a Node process).",
  espruino:
    "The controller is the real Espruino interpreter with a chip's firmware. Its ports stand on every address of this machine.",
  iotjs:
    "The controller is the real IoT.js with a chip's firmware. Its ports stand on every address of this machine.",
};

export interface UpOptions {
  dir: string;
  port: number | undefined;
  json: boolean;
  durability: Durability | undefined;
  controller: Home;
  console: boolean;
}

interface RunningNode {
  plan: NodePlan;
  process: ChildProcess;
  ended: boolean;
}

function pause(ms: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, ms));
}

/** The last lines of a log, for a node that did not come up. */
function logTail(path: string): string {
  try {
    const lines = readFileSync(path, "utf8").trimEnd().split("\n");
    return lines
      .slice(-5)
      .map((line) => `    ${line}`)
      .join("\n");
  } catch {
    return "";
  }
}

function howEnded(process: ChildProcess): string {
  if (process.signalCode !== null) return `was ended by ${process.signalCode}`;
  return `ended with exit status ${process.exitCode}`;
}

class Up {
  private readonly nodes: RunningNode[] = [];
  private ready = false;
  private stopping = false;
  private serial: SerialView | undefined;

  constructor(
    private readonly plan: PairPlan,
    private readonly options: UpOptions,
  ) {}

  private get isChip(): boolean {
    return this.options.controller === "espruino" || this.options.controller === "iotjs";
  }

  /** Words for a person; with --json stdout belongs to the one line. */
  private say(text: string): void {
    if (this.options.json) process.stderr.write(`${text}\n`);
    else process.stdout.write(`${text}\n`);
  }

  async run(): Promise<number> {
    const asked = this.untilSignal();
    const started = this.start().then(
      () => undefined,
      (error: unknown) => error,
    );
    const first = await Promise.race([asked, started.then((error) => error ?? "started")]);
    if (first instanceof Error) {
      await this.stop();
      throw first;
    }
    if (first === "started") {
      if (!this.options.json) void this.watch();
      await asked;
    }
    if (!this.options.json) this.say("\nStopping ...");
    await this.stop();
    if (!this.options.json) this.say(`Stopped. The data is kept in ${this.plan.dir}.`);
    return 0;
  }

  private untilSignal(): Promise<string> {
    return new Promise((resolveSignal) => {
      for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
        process.on(signal, () => resolveSignal(signal));
      }
    });
  }

  private async start(): Promise<void> {
    // Both servers are up before the controller, so that the preset one announces itself (P13).
    for (const server of this.plan.servers) this.spawnNode(server);
    for (const server of this.plan.servers) await this.untilUp(server);
    this.spawnNode(this.plan.controller);
    await this.untilUp(this.plan.controller);
    this.ready = true;
    if (this.options.controller !== "node" && this.options.console && !this.options.json) {
      this.serial = attachSerial(join(this.plan.controller.dir, "serial.sock"));
    }
    const status = await this.untilServing();
    if (status === undefined) return;
    if (this.options.json) process.stdout.write(`${JSON.stringify(this.describe())}\n`);
    else this.sayReady(status);
  }

  private spawnNode(plan: NodePlan): void {
    keepLogSmall(plan.log);
    const log = openSync(plan.log, "a", 0o600);
    const [program, ...args] = plan.argv;
    const child = spawn(program!, [...args, "--with-parent"], {
      stdio: ["pipe", log, log],
      // In a group of its own: Ctrl-C reaches this process, and this process stops the nodes.
      detached: true,
      cwd: this.plan.dir,
    });
    closeSync(log);
    // The write end stays open and silent for as long as this process lives.
    child.stdin!.on("error", () => undefined);
    const node: RunningNode = { plan, process: child, ended: false };
    this.nodes.push(node);
    child.once("error", (error) => {
      node.ended = true;
      this.say(`${plan.name} could not be started: ${error.message}`);
    });
    child.once("exit", () => {
      node.ended = true;
      // One that ends before all are up is the reason why this program ends, and is said as that.
      if (this.stopping || !this.ready) return;
      this.say(
        `${clock()}  ${plan.name} (pid ${child.pid}) ${howEnded(child)}. Log: ${plan.log}\n` +
          `          Start it again with: ${shellCommand(plan.argv)}`,
      );
    });
  }

  private async untilUp(plan: NodePlan): Promise<void> {
    const node = this.nodes.find((candidate) => candidate.plan === plan)!;
    const untilMs = Date.now() + NODE_UP_MS;
    while (!this.stopping) {
      if (await isAnswering(plan.socket)) return;
      if (node.ended) {
        throw new Failure(
          `${plan.name} ${howEnded(node.process)} before it was up. Its last words (${plan.log}):\n` +
            logTail(plan.log),
          node.process.exitCode ?? 1,
        );
      }
      if (Date.now() > untilMs) {
        throw new Failure(
          `${plan.name} is not up after ${NODE_UP_MS / 1000} s. Its last words (${plan.log}):\n` +
            logTail(plan.log),
        );
      }
      await pause(ASK_EVERY_MS);
    }
  }

  /** @returns undefined when told to stop meanwhile */
  private async untilServing(): Promise<PairStatus | undefined> {
    const startedMs = Date.now();
    let saidMs = startedMs;
    while (!this.stopping) {
      const status = await this.ask();
      const exit = status === undefined ? EXIT_CANNOT_SERVE : statusExit(status);
      if (status !== undefined && exit === EXIT_REDUNDANT) return status;
      if (status !== undefined && exit !== EXIT_CANNOT_SERVE) {
        if (Date.now() - startedMs > IN_SYNC_MS) return status;
      }
      if (Date.now() - saidMs > WHY_EVERY_MS) {
        saidMs = Date.now();
        this.say(`Waiting: ${status?.why ?? "the controller does not answer"}`);
      }
      await pause(this.isChip ? ASK_CHIP_EVERY_MS : ASK_EVERY_MS);
    }
    return undefined;
  }

  private async ask(): Promise<PairStatus | undefined> {
    try {
      const answer = await askNode(this.plan.controller.socket, "status json");
      // A board that is restarting says so instead.
      return answer.startsWith("{") ? parseStatus(answer) : undefined;
    } catch (error) {
      if (error instanceof NotReachable) return undefined;
      throw error;
    }
  }

  private describe(): object {
    const { controller, servers, pair } = this.plan;
    const pidOf = (plan: NodePlan): number =>
      this.nodes.find((node) => node.plan === plan)!.process.pid!;
    return {
      controller: {
        pid: pidOf(controller),
        redis: pair.redis,
        native: pair.native,
        dir: controller.dir,
        command: shellCommand(controller.argv),
      },
      servers: servers.map((server) => ({
        id: server.name,
        pid: pidOf(server),
        dir: server.dir,
        command: shellCommand(server.argv),
      })),
    };
  }

  private sayReady(status: PairStatus): void {
    const { pair, dir, servers } = this.plan;
    const standby = status.servers.find((server) => server.id !== status.primary);
    const primaryPlan = servers.find((server) => server.name === status.primary);
    const primaryNode = this.nodes.find((node) => node.plan === primaryPlan);
    const lines = [
      "",
      "Dyad is up: two servers and their controller, three processes on this machine.",
      "",
      `  primary  ${status.primary}   ${status.why}`,
      `  standby  ${standby?.id ?? "none"}   ${standby?.inSync === true ? "in sync, reads go to both" : "not in sync yet, all goes to the primary"}`,
      "",
      "Connect with any Redis client:",
      `  redis-cli -p ${pair.redis} SET a 1`,
      `  redis-cli -p ${pair.redis} GET a`,
      "",
      "Watch a failover:",
      `  kill -9 ${primaryNode?.process.pid ?? "PID"}          (the primary; this program says how to start it again)`,
      `  npx dyad status --dir ${shellCommand([dir])}`,
      "",
      `Durability ${pair.durability}: ${
        pair.durability === "disk"
          ? "a write is on both disks before its client hears OK."
          : "a write is in the memory of both servers before its client hears OK; a machine that loses power starts empty and is filled by the other."
      }`,
      `Data and settings: ${dir}   Logs: ${join(dir, "logs")}`,
      ...(this.serial === undefined
        ? []
        : [
            "",
            HOME_WORDS[this.options.controller],
            'Its serial console is shown here as "chip | ...", and takes what you type; "help" lists its commands.',
          ]),
      "Stop everything: Ctrl-C",
      "",
    ];
    this.say(lines.join("\n"));
  }

  /** Tells what changes, for as long as the pair runs. */
  private async watch(): Promise<void> {
    let before: string | undefined;
    while (!this.stopping) {
      const status = await this.ask().catch(() => undefined);
      const now = status === undefined ? "the controller does not answer" : summary(status);
      if (before !== undefined && now !== before && !this.stopping) {
        this.say(
          `${clock()}  ${now}${status === undefined || status.why === "" ? "" : ` (${status.why})`}`,
        );
      }
      before = now;
      await pause(this.isChip ? ASK_CHIP_EVERY_MS : WATCH_EVERY_MS);
    }
  }

  /** The controller first: a server that stops under it would be a failure, and change the roles. */
  private async stop(): Promise<void> {
    this.stopping = true;
    this.serial?.close();
    await this.stopNodes([this.plan.controller]);
    await this.stopNodes(this.plan.servers);
  }

  private async stopNodes(plans: NodePlan[]): Promise<void> {
    const running = this.nodes.filter(
      (node) => plans.includes(node.plan) && !node.ended && node.process.pid !== undefined,
    );
    const gone = running.map(
      (node) => new Promise<void>((done) => node.process.once("exit", () => done())),
    );
    for (const node of running) {
      node.process.kill("SIGTERM");
      // A stopped process hears SIGTERM only once it goes on.
      node.process.kill("SIGCONT");
    }
    // A node that was started again by its command is not a child, but it is of this pair.
    const own = running.map((node) => node.process.pid);
    const others = plans.filter((plan) => {
      const pid = lockHolder(plan.lock);
      if (pid === undefined || own.includes(pid)) return false;
      signal(pid, "SIGTERM");
      signal(pid, "SIGCONT");
      return true;
    });
    const timer = setTimeout(() => {
      for (const node of running) if (!node.ended) node.process.kill("SIGKILL");
    }, STOP_MS);
    await Promise.all(gone);
    clearTimeout(timer);
    const untilMs = Date.now() + STOP_MS;
    for (const { lock } of others) {
      while (lockHolder(lock) !== undefined && Date.now() < untilMs) await pause(ASK_EVERY_MS);
      const pid = lockHolder(lock);
      if (pid !== undefined) signal(pid, "SIGKILL");
    }
  }
}

function clock(): string {
  return new Date().toTimeString().slice(0, 8);
}

function summary(status: PairStatus): string {
  const exit = statusExit(status);
  if (exit === EXIT_CANNOT_SERVE) return `epoch ${status.epoch}: no primary can serve`;
  const standby = status.servers.find((server) => server.id !== status.primary);
  const rest = exit === EXIT_REDUNDANT ? `${standby!.id} is standby, in sync` : "no redundancy";
  return `epoch ${status.epoch}: ${status.primary} is primary, ${rest}`;
}

async function isAnswering(socket: string): Promise<boolean> {
  try {
    await askNode(socket, "pid", 1000);
    return true;
  } catch (error) {
    if (error instanceof NotReachable) return false;
    throw error;
  }
}

function keepLogSmall(path: string): void {
  try {
    if (statSync(path).size > LOG_BYTES_KEPT) renameSync(path, `${path}.1`);
  } catch {
    // There is no log yet.
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}

/** Two pairs on one directory would be two disks with one name. */
async function refuseSecond(dir: string): Promise<void> {
  const untilMs = Date.now() + LEFTOVER_MS;
  for (const { name, lock } of nodeLocks(dir)) {
    for (let pid = lockHolder(lock); pid !== undefined; pid = lockHolder(lock)) {
      if (Date.now() > untilMs) {
        throw new Failure(
          `A pair already runs in ${dir} (${name} is pid ${pid}). Look at it with ` +
            `"dyad status --dir ${dir}", stop it first, or use another --dir.`,
          3,
        );
      }
      await pause(ASK_EVERY_MS);
    }
  }
}

/** Runs the pair in the foreground until a signal. @returns the exit status */
export async function up(options: UpOptions): Promise<number> {
  const dir = resolve(options.dir);
  // Before anything is made or started.
  homeProgram(options.controller);
  await refuseSecond(dir);
  const plan = await preparePair(dir, options.port, options.durability, options.controller);
  return new Up(plan, options).run();
}
