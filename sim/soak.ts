/**
 * A long run of one virtual board under load and random faults that leave it switched on: does its firmware leak? Its memory is
 * read every virtual hour; the first hour, in which tables grow to their size, is what the last is compared with.
 */
import { BundleController } from "./bundle-controller.js";
import type { Finding } from "./checkers/checker.js";
import { checkLinearizable } from "./checkers/linearizable.js";
import { checkNoLostWrite } from "./checkers/no-lost-write.js";
import type { Operation } from "./history.js";
import { drawPlan } from "./faults.js";
import type { Firmware } from "./firmware.js";
import type { FaultKind } from "./options.js";
import { drawOptions } from "./options.js";
import { PairWorld } from "./pair-world.js";
import { onlyThese } from "./run.js";
import { World } from "./world/world.js";

/** None of them ends the controller's power cycle. */
const KINDS: FaultKind[] = [
  "cutLink",
  "block",
  "clog",
  "udp",
  "latency",
  "diskStall",
  "diskSlow",
  "urgentCrash",
  "switchover",
  "clientCut",
  "slowReader",
  "hush",
];
const HOUR_MS = 3_600_000;
/** A plan has its bound: one for each of these, after which the memory is read. @unit ms */
const PLAN_MS = 600_000;
const MEAN_GAP_MS = 20_000;
/** Mean time between a client's commands where nothing else is asked for. @unit ms */
export const SOAK_PAUSE_MS = 700;

export interface Soak {
  /** Bytes of the board's memory in use, every ten virtual minutes. */
  memory: number[];
  writes: number;
  reads: number;
  faults: number;
  /** Power cycles after the first: each makes the memory's account void. */
  resets: number;
  violation: string;
  /** Whether the clients' histories were judged as well; "" or why not. */
  unjudged: string;
}

/** Reads of the memory in an hour. */
export const READS_AN_HOUR = HOUR_MS / PLAN_MS;

/**
 * @param pauseMs mean time between a client's commands: fewer of them make a virtual hour cheaper
 * @param say hears of every reading
 */
export function soak(
  seed: number,
  hours: number,
  pauseMs: number,
  firmware: Firmware,
  say: (line: string) => void,
): Soak {
  const world = new World(seed, false);
  const options = drawOptions(world.random.fork("options"));
  onlyThese(options, KINDS);
  Object.assign(options, {
    gapMs: MEAN_GAP_MS,
    clients: 4,
    localClients: 1,
    sessionClients: 1,
    meanPauseMs: pauseMs,
    foundedAlone: -1,
    memory: false,
    idMax: 0xfff00000,
    faultsMs: PLAN_MS,
  });
  const pair = new PairWorld(world, options, firmware);
  const first = (): BundleController | undefined => {
    const controller = pair.controller();
    return controller instanceof BundleController ? controller : undefined;
  };
  world.runTo(1000);
  const board = first();
  const result: Soak = {
    memory: [],
    writes: 0,
    reads: 0,
    faults: 0,
    resets: 0,
    violation: "",
    unjudged: "",
  };
  const parts = Math.max(2, Math.round((hours * HOUR_MS) / PLAN_MS));
  for (let part = 1; part <= parts && world.violations.length === 0; part++) {
    const begin = world.now;
    for (const fault of drawPlan(world.random.fork(`plan ${part}`), options)) {
      // The controller's own machine stays as it is.
      if (fault.target === "c") fault.target = "primary";
      world.at(begin + fault.atMs, () => {
        result.faults++;
        pair.strike(fault);
      });
    }
    world.runTo(begin + PLAN_MS);
    if (first() !== board || board === undefined) result.resets++;
    else result.memory.push(board.memoryUsed());
    say(
      `${((part * PLAN_MS) / HOUR_MS).toFixed(2)} virtual hours: ${result.memory[result.memory.length - 1] ?? 0} bytes in use, ` +
        `${pair.history.acknowledgedWrites} writes, ${pair.history.reads} reads, ${result.faults} faults, ${pair.failovers} failovers`,
    );
  }
  result.writes = pair.history.acknowledgedWrites;
  result.reads = pair.history.reads;
  const found = world.violations[0] ?? judged(result, pair);
  if (found !== undefined) result.violation = `${found.promise}: ${found.what}`;
  return result;
}

/** What clients were told, at the end and as a whole; a day of one key is deeper than a checker's search goes. */
function judged(result: Soak, pair: PairWorld): Finding | undefined {
  const history = pair.history.closed(pair.closedAt);
  try {
    return checkLinearizable(history) ?? checkNoLostWrite(history, new Map<string, Operation>());
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    result.unjudged = "too long for the checkers' search: " + error.message;
    return undefined;
  }
}
