/**
 * One seed, from power-on to verdict.
 *
 *     faults (safety)  ->  healed but for one (it must serve)  ->  all healed (in sync again)
 *                      ->  clients stop, quiet, last reads  ->  checkers
 */
import { checkBounded } from "./checkers/bounded.js";
import { checkConverged } from "./checkers/converges.js";
import { checkExactlyOnce } from "./checkers/exactly-once.js";
import { checkLinearizable } from "./checkers/linearizable.js";
import { checkNoLostWrite } from "./checkers/no-lost-write.js";
import { Client } from "./clients.js";
import type { Fault } from "./faults.js";
import { drawPlan } from "./faults.js";
import type { Firmware } from "./firmware.js";
import type { History, Operation } from "./history.js";
import { OK } from "./history.js";
import type { FaultKind, Options, Shape } from "./options.js";
import { drawOptions } from "./options.js";
import { show } from "./controller-program.js";
import { PairWorld } from "./pair-world.js";
import { MODE_BOTH } from "../protocol/record.js";
import type { Mark } from "./world/picture.js";
import { World } from "./world/world.js";
import type { Violation } from "./world/world.js";

/** With every fault over, a write must be acknowledged within this. @unit ms */
export const SERVE_LIMIT_MS = 9000;
/** Where the rules say that the pair must wait, it is believed after this. @unit ms */
const WAIT_LIMIT_MS = 3000;
/** With everything up, the pair must be in sync again within this. @unit ms */
export const SYNC_LIMIT_MS = 40000;
/** After clients have stopped, both disks must be equal within this. @unit ms */
export const QUIET_LIMIT_MS = 15000;

export interface RunOptions extends Shape {
  /** Keep lines that a person can read. */
  readable?: boolean;
  /** The controller is this bundle on a virtual board; without it, the core itself. */
  firmware?: Firmware | undefined;
  /** Every world has these faults and no others. */
  only?: readonly FaultKind[] | undefined;
  /** Changes what the seed drew. */
  change?: (options: Options) => void;
  /** Goes on after what is no violation of safety, as one must who asks whether safety alone catches a broken rule. */
  safetyOnly?: boolean;
  /** Promises that end the run all the same. */
  counts?: readonly string[] | undefined;
  /** Sees the world at its end, before the histories are judged. */
  onEnd?: (pair: PairWorld) => void;
  /** Leaves faults out of the plan. */
  keep?: (fault: Fault, index: number) => boolean;
}

export interface RunResult {
  seed: number;
  violation: Violation | undefined;
  hash: string;
  virtualMs: number;
  events: number;
  faults: Record<string, number>;
  /** What was reached, by the keys of coverage.ts. */
  covered: Record<string, number>;
  failovers: number;
  records: number;
  acknowledgedWrites: number;
  reads: number;
  standbyReads: number;
  unknown: number;
  failed: number;
  /** The run ended where the pair must wait for an operator (not a failure). */
  waited: string;
  lines: string[];
  /** For a picture; empty unless the run was readable. */
  marks: Mark[];
}

export function runSeed(seed: number, runOptions: RunOptions = {}): RunResult {
  const world = new World(
    seed,
    runOptions.readable === true,
    runOptions.safetyOnly === true,
    runOptions.counts,
  );
  const options = drawOptions(world.random.fork("options"), runOptions);
  if (runOptions.only !== undefined) onlyThese(options, runOptions.only);
  runOptions.change?.(options);
  let plan = drawPlan(world.random.fork("plan"), options);
  if (runOptions.keep !== undefined) plan = plan.filter(runOptions.keep);
  const pair = new PairWorld(world, options, runOptions.firmware);
  for (const fault of plan) world.at(fault.atMs, () => pair.strike(fault));
  const sample = (): void => {
    const found = checkBounded(pair.machines, pair.disks);
    if (found !== undefined) world.violate(found.promise, found.what);
    world.after(options.sampleMs, sample);
  };
  sample();
  let waited = "";
  try {
    waited = phases(world, pair, options);
  } catch (error) {
    world.violate(
      "simulator",
      error instanceof Error ? (error.stack ?? error.message) : String(error),
    );
  }
  const history = pair.history;
  coverTheRest(world, pair);
  runOptions.onEnd?.(pair);
  if (world.violations.length === 0) {
    const found = checkLinearizable(history.closed(pair.closedAt));
    if (found !== undefined) world.violate(found.promise, found.what);
  }
  if (world.trace.readable && world.violations.length > 0) showStates(world, pair);
  return {
    seed,
    violation: world.violations[0],
    hash: world.trace.hash(),
    virtualMs: world.now,
    events: world.trace.eventCount,
    faults: Object.fromEntries(world.faults),
    covered: Object.fromEntries(world.covered),
    failovers: pair.failovers,
    records: pair.flash.writes,
    acknowledgedWrites: history.acknowledgedWrites,
    reads: history.reads,
    standbyReads: pair.tap.standbyReads[0]! + pair.tap.standbyReads[1]!,
    unknown: history.unknown,
    failed: history.failed,
    waited,
    lines: world.trace.lines,
    marks: world.trace.picture.marks,
  };
}

/** Leaves these faults alone of what was drawn. */
export function onlyThese(options: Options, kinds: readonly FaultKind[]): void {
  options.kinds = kinds.slice();
  options.weights = kinds.map(() => 1);
  options.gapMs = Math.max(options.gapMs, 400);
  options.burst = 0;
}

/** What is counted once, at the end of a run. */
function coverTheRest(world: World, pair: PairWorld): void {
  const { tap, history } = pair;
  pair.controller()?.coverCounters();
  world.cover("change answered in both", tap.counts.changesInBoth);
  world.cover("change answered in solo", tap.counts.changesInSolo);
  world.cover("read at primary in both", tap.counts.primaryReadsInBoth);
  world.cover("read at standby", tap.standbyReads[0]! + tap.standbyReads[1]!);
  world.cover("sent to primary", tap.toPrimary);
  world.cover("sent to standby", tap.toStandby);
  world.cover("refused by server", tap.counts.refused);
  world.cover("expired", expiredReads(history));
}

/** Reads of nothing where the last acknowledged change set a value to expire. */
function expiredReads(history: History): number {
  const lastSet = new Map<string, Operation>();
  let found = 0;
  for (const operation of history.operations) {
    if (operation.key[0] !== "m" || operation.outcome !== OK) continue;
    if (operation.kind === "get") {
      const last = lastSet.get(operation.key);
      if (operation.result === undefined && last !== undefined && last.ttlMs > 0) found++;
    } else {
      lastSet.set(operation.key, operation);
    }
  }
  return found;
}

/** What everyone says of itself at the moment of the violation. */
function showStates(world: World, pair: PairWorld): void {
  const say = (who: string, status: object): void => {
    world.trace.detail(world.now, who, () => show(status));
  };
  for (const index of [0, 1] as const) {
    const agent = pair.agent(index);
    if (agent !== undefined)
      say(index === 0 ? "a" : "b", agent.core.status(pair.machines[index]!.localNow()));
  }
  const controller = pair.controller();
  if (controller !== undefined) say("controller", controller.status());
}

/** @returns why the pair rightly waits for ever, or "". */
function phases(world: World, pair: PairWorld, options: Options): string {
  world.runTo(options.faultsMs);
  if (world.violations.length > 0) return "";

  if (options.victim >= 0) {
    pair.dead.add(options.victim);
    pair.heal();
    const waits = serve(world, pair, "with one dead");
    if (world.violations.length > 0) return "";
    void waits;
    pair.revive();
  } else {
    pair.heal();
  }
  const waits = serve(world, pair, "with all up");
  if (world.violations.length > 0) return "";
  if (waits !== "") return waits;

  // In sync again, clients still at it.
  const limit = world.now + SYNC_LIMIT_MS;
  const inSync = (): boolean => {
    pair.readFlash();
    return pair.flashRecord !== undefined && pair.flashRecord.mode === MODE_BOTH;
  };
  for (; !inSync(); world.runTo(world.now + 20)) {
    if (world.violations.length > 0) return "";
    if (world.now > limit) {
      world.violate(
        "progress",
        `not in sync again ${SYNC_LIMIT_MS} ms after everything was healed`,
      );
      return "";
    }
  }

  for (const client of pair.clients) client.running = false;
  for (const client of pair.sessionClients) client.running = false;
  world.runTo(world.now + 200);
  const final = lastReads(world, pair, [...pair.usedKeys(), pair.current("p")]);
  if (world.violations.length > 0) return "";
  const given = pair.survivingKeys();
  if (given.length > 0) {
    world.cover("force judged by what it said");
    const history = pair.history.surviving(pair.closedAt, pair.survives);
    const before = pair.history.operations.length;
    const lost = checkNoLostWrite(history, lastReads(world, pair, given));
    // For the other checkers those keys were given up.
    pair.history.operations.length = before;
    if (lost !== undefined)
      world.violate(lost.promise, `a force lost more than it said: ${lost.what}`);
    if (world.violations.length > 0) return "";
  }
  const history = pair.history.closed(pair.closedAt);
  for (const check of [checkNoLostWrite, checkExactlyOnce]) {
    const found = check(history, final);
    if (found !== undefined) {
      world.violate(found.promise, found.what);
      return "";
    }
  }
  const quietLimit = world.now + QUIET_LIMIT_MS;
  for (;;) {
    const found = checkConverged(pair.disks[0].content, pair.disks[1].content);
    if (found === undefined) break;
    if (world.now > quietLimit) {
      world.violate(found.promise, found.what);
      break;
    }
    world.runTo(world.now + 50);
    if (world.violations.length > 0) break;
  }
  return "";
}

/** Waits until a write that was sent from now on is acknowledged. @returns why the pair may wait, "" when it serves. */
function serve(world: World, pair: PairWorld, when: string): string {
  const from = world.now;
  const client = new Client(
    pair,
    "prober",
    {
      via: "controller",
      batchMax: 1,
      open: false,
      pauseMs: 10,
      readShare: 0.1,
      churnMs: 0,
      pairShare: 0,
      keys: ["c0"],
      steady: true,
    },
    world.random.fork(`prober ${when}`),
  );
  const served = (): boolean => pair.history.newestServedWrite > from;
  while (!served()) {
    world.runTo(world.now + 20);
    if (world.violations.length > 0) break;
    const waitedMs = world.now - from;
    const may = waitedMs > WAIT_LIMIT_MS ? pair.mayWait() : "";
    if (may !== "") {
      client.running = false;
      world.trace.line(world.now, "WAITS", may);
      return may;
    }
    if (waitedMs > SERVE_LIMIT_MS) {
      client.running = false;
      world.violate(
        "progress",
        `no write was acknowledged for ${SERVE_LIMIT_MS} ms ${when}, though nothing is broken`,
      );
      break;
    }
  }
  client.running = false;
  return "";
}

/** Reads keys through the controller, once all is calm. */
function lastReads(world: World, pair: PairWorld, keys: readonly string[]): Map<string, Operation> {
  const client = new Client(
    pair,
    "verifier",
    {
      via: "controller",
      batchMax: 1,
      open: false,
      pauseMs: 1e9,
      readShare: 1,
      churnMs: 0,
      pairShare: 0,
      keys: pair.keys,
    },
    world.random.fork("verifier"),
  );
  const final = new Map<string, Operation>();
  for (const key of keys) {
    const limit = world.now + SERVE_LIMIT_MS;
    let operation: Operation | undefined;
    while (operation === undefined || operation.outcome !== OK) {
      if (operation === undefined || client.waiting === 0) operation = client.readKey(key);
      world.runTo(world.now + 5);
      if (world.violations.length > 0) return final;
      if (world.now > limit) {
        world.violate("progress", `${key} could not be read in peace`);
        return final;
      }
    }
    final.set(key, operation);
  }
  client.running = false;
  return final;
}
export { mixedCount } from "./checkers/mixed.js";
