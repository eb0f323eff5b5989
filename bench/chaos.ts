/**
 * Real chaos: controller and agents as processes on three machines (network namespaces), plain sockets as clients, SIGKILL, SIGSTOP, pulled
 * cables, cut routes and emptied disks, several at a time; judged by the checkers of the simulator. The faults come from a seed, their effects
 * do not: the same seed gives the same plan and never the same run.
 *
 *     storm (faults come and go)  ->  all mended  ->  redundant again, in a bound  ->  last reads at three doors  ->  checkers  ->  storm ...
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { checkExactlyOnce } from "../sim/checkers/exactly-once.js";
import { checkLinearizable } from "../sim/checkers/linearizable.js";
import { mixedCount } from "../sim/checkers/mixed.js";
import { checkNoLostWrite } from "../sim/checkers/no-lost-write.js";
import type { Operation } from "../sim/history.js";
import { Random } from "../sim/world/random.js";
import type { BenchArgs } from "./args.js";
import { Book, ChaosClient, readAll } from "./chaos-clients.js";
import type { Door, Stretch } from "./chaos-clients.js";
import { ADDRESS, CLIENT_PORT, HOMES, LOCAL_PORT, NODES, ThreeMachines } from "./machines.js";
import type { Home, Node } from "./machines.js";
import { hasProgram, nowMs, signal, sleep } from "./processes.js";
import { printTable, show } from "./table.js";

const STORM_MS = 12_000;
/** All mended, the pair must be redundant again within this. */
const RECOVER_MS = 60_000;
/**
 * What the clients at the controller do where nothing else is asked for: how many there are, and the longest time between two bursts of
 * one. A command of a Redis client costs the Espruino interpreter some 18 million instructions: it gets what it can carry.
 */
const LOADS: Record<Home, { clients: number; pauseMsMax: number }> = {
  node: { clients: 8, pauseMsMax: 20 },
  espruino: { clients: 3, pauseMsMax: 400 },
  iotjs: { clients: 4, pauseMsMax: 100 },
};
const AT_ONCE_MAX = 2;

const DOORS: Door[] = [
  { via: "controller", host: ADDRESS.c, port: CLIENT_PORT },
  { via: "a", host: ADDRESS.a, port: LOCAL_PORT },
  { via: "b", host: ADDRESS.b, port: LOCAL_PORT },
];

interface Fault {
  name: string;
  /** Nodes it holds: no other fault strikes them meanwhile. */
  nodes: Node[];
  strike(world: ThreeMachines): Promise<void> | void;
  mend(world: ThreeMachines): Promise<void> | void;
  holdMs: number;
}

const server = (random: Random): "a" | "b" => (random.chance(0.5) ? "a" : "b");

/** Of a chip the interpreter is stopped: its keeper is the board around it. */
function stop(world: ThreeMachines, node: Node): number {
  const pid = (node === "c" && world.controller !== "node" && world.chipPid()) || world.pid(node);
  signal(pid, "SIGSTOP");
  return pid;
}

const FAULTS: ((random: Random) => Fault)[] = [
  (random) => {
    const node = random.pick(NODES);
    return {
      name: node === "c" ? "kill -9 of the controller" : "kill -9 of a server",
      nodes: [node],
      strike: (world) => world.kill(node),
      mend: (world) => world.start(node),
      holdMs: random.between(10, 1500),
    };
  },
  (random) => {
    const node = random.pick(NODES);
    let stopped = 0;
    return {
      name: node === "c" ? "SIGSTOP of the controller" : "SIGSTOP of a server",
      nodes: [node],
      strike: (world) => {
        stopped = stop(world, node);
      },
      mend: () => signal(stopped, "SIGCONT"),
      holdMs: random.between(20, 3000),
    };
  },
  (random) => {
    const node = random.pick(NODES);
    return {
      name: node === "c" ? "cable of the controller" : "cable of a server",
      nodes: [node],
      strike: (world) => world.cable(node, "down"),
      mend: (world) => world.cable(node, "up"),
      holdMs: random.between(50, 3000),
    };
  },
  (random) => {
    const node = random.pick(NODES);
    return {
      name: node === "c" ? "power of the controller" : "power of a server",
      nodes: [node],
      strike: async (world) => {
        world.cable(node, "down");
        await world.kill(node);
      },
      mend: (world) => {
        world.cable(node, "up");
        world.start(node);
      },
      holdMs: random.between(50, 2500),
    };
  },
  (random) => {
    const ways = random.pick([["a"], ["b"], ["a", "b"]] as const);
    return {
      name: ways.length === 2 ? "no way between the servers" : "one way between the servers",
      nodes: ["a", "b"],
      strike: (world) => ways.forEach((from) => world.peerWay(from, "down")),
      mend: (world) => ways.forEach((from) => world.peerWay(from, "up")),
      holdMs: random.between(50, 2500),
    };
  },
  (random) => ({
    name: "all three killed",
    nodes: ["c", "a", "b"],
    strike: async (world) => {
      await Promise.all(NODES.map((node) => world.kill(node)));
    },
    mend: async (world) => {
      const order = [...NODES].sort(() => random.float() - 0.5);
      for (const node of order) {
        world.start(node);
        await sleep(random.between(0, 400));
      }
    },
    holdMs: random.between(10, 500),
  }),
  () => ({
    name: "switchover",
    nodes: ["c"],
    strike: async (world) => {
      await world.dyad("switchover");
    },
    mend: () => undefined,
    holdMs: 0,
  }),
];

/** What only a chip has: its keeper stays, and powers it on again. */
const CHIP_RESET: Fault = {
  name: "reset of the chip",
  nodes: ["c"],
  strike: (world) => {
    const pid = world.chipPid();
    if (pid !== undefined) signal(pid, "SIGKILL");
  },
  mend: () => undefined,
  holdMs: 0,
};

interface Told {
  struck: Map<string, number>;
  acknowledged: number;
  reads: number;
  unknown: number;
  refused: number;
  longestRecoveryMs: number;
}

/** Faults come and go, as many as the nodes allow, until the time is over; then all are mended. */
async function storm(world: ThreeMachines, random: Random, told: Told): Promise<void> {
  const until = nowMs() + STORM_MS;
  const faults = world.controller === "node" ? FAULTS : [...FAULTS, () => CHIP_RESET];
  const held = new Set<Node>();
  const under = new Set<Promise<void>>();
  while (nowMs() < until) {
    const fault = random.pick(faults)(random);
    const free = fault.nodes.every((node) => !held.has(node));
    if (free && under.size < AT_ONCE_MAX) {
      for (const node of fault.nodes) held.add(node);
      told.struck.set(fault.name, (told.struck.get(fault.name) ?? 0) + 1);
      const one = (async () => {
        await fault.strike(world);
        await sleep(Math.max(0, Math.min(fault.holdMs, until - nowMs())));
        await fault.mend(world);
        for (const node of fault.nodes) held.delete(node);
      })().finally(() => under.delete(one));
      under.add(one);
    }
    await sleep(random.between(20, 1200));
  }
  await Promise.all(under);
}

/** A server's data is gone and its disk another one: only from rest, since the other must hold everything. */
async function emptyDisk(world: ThreeMachines, random: Random, told: Told): Promise<void> {
  const id = server(random);
  await world.kill(id);
  rmSync(join(world.dir, id), { recursive: true, force: true });
  mkdirSync(join(world.dir, id));
  await sleep(random.between(0, 1500));
  world.start(id);
  const name = "directory of a server deleted";
  told.struck.set(name, (told.struck.get(name) ?? 0) + 1);
}

/** A promise that the pair has not kept; anything else that is thrown is chaos's own trouble. */
class Finding extends Error {}

/** @returns what is wrong, or "" */
function judge(stretch: Stretch, final: Map<string, Operation>): string {
  const { history } = stretch;
  const found =
    checkLinearizable(history) ??
    checkNoLostWrite(history, final) ??
    checkExactlyOnce(history, final);
  return found === undefined ? "" : `${found.promise}: ${found.what}`;
}

export async function run(args: BenchArgs): Promise<void> {
  const missing = ThreeMachines.missing();
  if (missing !== "") {
    console.log(`skipped: needs root and network namespaces (${missing})`);
    return;
  }
  const seed = args.seed ?? Math.floor(Math.random() * 1e9);
  const minutes = args.minutes ?? 10;
  const durability = args.durability ?? "disk";
  const home = HOMES.find((one) => one === (args.controller ?? "node"));
  if (home === undefined) throw new Error(`--controller is one of ${HOMES.join(", ")}`);
  if (home !== "node" && !hasProgram(home)) {
    console.log(`needs \`${home}\` on PATH: skipped`);
    return;
  }
  const load = { ...LOADS[home], ...(args.clients === undefined ? {} : { clients: args.clients }) };
  console.log(
    `seed ${seed}, ${minutes} minutes, durability ${durability}, controller ${home}; ` +
      `${load.clients} clients there with up to ${load.pauseMsMax} ms between two bursts, one at each server`,
  );
  const random = new Random(seed, "chaos");
  const told: Told = {
    struck: new Map(),
    acknowledged: 0,
    reads: 0,
    unknown: 0,
    refused: 0,
    longestRecoveryMs: 0,
  };
  const book = new Book();
  const world = new ThreeMachines(durability, home);
  const clients: ChaosClient[] = [];
  try {
    await world.redundant();
    for (let i = 0; i < load.clients + 2; i++) {
      const door = DOORS[i < load.clients ? 0 : i - load.clients + 1]!;
      clients.push(new ChaosClient(door, book, random.fork(`client ${i}`), load.pauseMsMax));
    }
    const running = clients.map((client) => client.run());
    const until = nowMs() + minutes * 60_000;
    for (let round = 1; nowMs() < until; round++) {
      if (round % 4 === 0) await emptyDisk(world, random, told);
      else await storm(world, random, told);
      const mendedAt = nowMs();
      await world.redundant(RECOVER_MS);
      told.longestRecoveryMs = Math.max(told.longestRecoveryMs, nowMs() - mendedAt);
      await Promise.all(clients.map((client) => client.pause()));
      for (const stretch of book.take()) {
        const final = await readAll(DOORS[0]!, stretch, book);
        for (const door of DOORS.slice(1)) await readAll(door, stretch, book);
        const wrong = judge(stretch, final);
        if (wrong !== "") throw new Finding(`round ${round}, seed ${seed}: ${wrong}`);
        told.acknowledged += stretch.history.acknowledgedWrites;
        told.reads += stretch.history.reads;
        told.unknown += stretch.history.unknown;
        told.refused += stretch.history.failed;
      }
      if (book.strange.length > 0)
        throw new Finding(`replies nobody should hear: ${book.strange.slice(0, 5).join("; ")}`);
      const faults = [...told.struck.values()].reduce((sum, count) => sum + count, 0);
      console.log(
        `round ${round}: ${faults} faults, ${told.acknowledged} writes and ${told.reads} reads judged, ` +
          `${told.unknown} of unknown outcome, ${told.refused} refused, 0 findings`,
      );
      for (const client of clients) client.resume();
    }
    for (const client of clients) client.stop();
    await Promise.all(running);
  } catch (error) {
    if (!(error instanceof Finding)) throw error;
    console.log(`\nA PROMISE WAS BROKEN: ${error.message}`);
    process.exitCode = 1;
    return;
  } finally {
    for (const client of clients) client.stop();
    await world.stop();
  }
  console.log(
    `\nthree network namespaces, controller ${home}, durability ${durability}, seed ${seed}; no promise seen broken`,
  );
  printTable(["fault", "times"], [...told.struck.entries()].sort());
  console.log(
    `${told.acknowledged} acknowledged writes and ${told.reads} reads judged, over ${book.connections} connections; ` +
      `longest way back to redundancy ${show(told.longestRecoveryMs)} ms; ` +
      `histories the search gave up on: ${mixedCount.undecided} of ${mixedCount.all}`,
  );
  for (const [text, count] of [...book.errors].sort((x, y) => y[1] - x[1]).slice(0, 12))
    console.log(`  ${count} x -${text}`);
}
