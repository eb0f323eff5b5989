/**
 * What kind of world a seed gets: a random subset of faults at random rates (swarm testing, Groce et al.
 * 2012), and random shapes of network, disks, clients and limits. Everything on at once would hide as
 * much as it shows.
 */
import type { Random } from "./world/random.js";

export const FAULT_KINDS = [
  "kill",
  "power",
  "hang",
  "slow",
  "block",
  "blockOneWay",
  "isolate",
  "clog",
  "cutLink",
  "udp",
  "latency",
  "diskStall",
  "diskSlow",
  "diskFail",
  "diskReplace",
  "diskRestore",
  "flashSlow",
  "flashTear",
  "flashFail",
  "flashWipe",
  "flashForeign",
  "flashOld",
  "switchover",
  "clockRate",
  "clientCut",
  "urgentCrash",
  "roleCrash",
  "slowReader",
  "diskFull",
  "foreignBoard",
  "force",
  "hush",
  "burst",
  "serialCut",
  "serialNoise",
  "serialGhost",
  "serialForge",
  "wallJump",
  "chipReset",
  "rowRot",
  "logRot",
  // Short scripts, for moments that chance alone seldom finds (nemesis.ts).
  "stumble",
  "soloReboot",
  "askedCrash",
  "lateConfirm",
  "askedForgotten",
  "freshReads",
  "freshLocal",
  "joinCut",
  "sleeper",
  "switchBack",
  "halfTold",
  "twoAtOnce",
  "slowDisk",
  "joinerReplaced",
  "brownOut",
  "blackOut",
  "ownCable",
  "farPrimary",
  "stalledDrain",
  "askedCut",
  "askedSwap",
  "otherDisk",
  "forceLossy",
  "forceAny",
  "splitByOldBoard",
  "lateLine",
] as const;
/** Scripts for one broken rule each (mutations.ts): in worlds of their own alone, so that no other world changes for them. */
export const AIMED_KINDS = ["askedAlone", "freshUnheard", "fastClock"] as const;
/** Those that are scripts: they want a pair that is well when they strike. */
const SCRIPT_KINDS = FAULT_KINDS.slice(FAULT_KINDS.indexOf("stumble"));
export type FaultKind = (typeof FAULT_KINDS)[number] | (typeof AIMED_KINDS)[number];

/** How often a kind is drawn, when it is on. */
const WEIGHT: Partial<Record<FaultKind, number>> = {
  kill: 4,
  hang: 3,
  block: 3,
  cutLink: 2,
  urgentCrash: 3,
  roleCrash: 3,
  flashTear: 2,
  stumble: 2,
  soloReboot: 2,
  askedCrash: 2,
  lateConfirm: 2,
  askedForgotten: 2,
  freshReads: 2,
  freshLocal: 2,
  joinCut: 2,
  sleeper: 2,
  switchBack: 2,
  halfTold: 2,
  splitByOldBoard: 2,
};

/** What disturbs clients only. */
export const CALM_KINDS: readonly FaultKind[] = ["burst", "hush", "slowReader", "clientCut"];

export interface Options {
  kinds: FaultKind[];
  weights: number[];
  /** Mean time between faults. @unit ms */
  gapMs: number;
  /** Share of faults that follow the one before within some 50 ms. */
  burst: number;
  /** @unit ms of virtual time with faults */
  faultsMs: number;
  /** One of the three stays dead in the first liveness phase; -1: none. */
  victim: number;
  clients: number;
  localClients: number;
  /** Clients of the native port with exactly-once sessions. */
  sessionClients: number;
  meanPauseMs: number;
  /** How many times slower clients are once every fault is over. */
  easeOff: number;
  oddChunks: number;
  latencyMs: number;
  peerLatencyMs: number;
  flushMaxMs: number;
  /** Clock rates of controller, a, b. */
  clockRates: [number, number, number];
  preset: -1 | 0 | 1;
  /** When controller, a and b are started first. @unit ms */
  startMs: [number, number, number];
  /** Ids run out early, logs are trimmed early, overlays are tiny. */
  smallLimits: boolean;
  /** An operator of the world's own chooses between two servers that were each forced without the other. */
  operatorChooses: boolean;
  idMax: number;
  /** Which servers have a serial cable, and whether it carries the 7-bit form. */
  serial: [boolean, boolean];
  serialText: boolean;
  /** This server alone is made a pair by the operator, the other comes later; -1: no. */
  foundedAlone: -1 | 0 | 1;
  /** Values with a time to live have one of up to so long. @unit ms */
  ttlMaxMs: number;
  /** Some faults last up to so many times longer. */
  stretchMax: number;
  /** How often bounds are looked at. @unit ms */
  sampleMs: number;
  /** Durability `memory`: data is in the operating system's hands, and gone with the power. */
  memory: boolean;
}

function drawHardware(
  random: Random,
  calm: boolean,
): Pick<Options, "serial" | "serialText" | "foundedAlone" | "memory"> {
  const cables = random.chance(0.3);
  return {
    serial: [cables && random.chance(0.9), cables && random.chance(0.9)],
    serialText: random.chance(0.5),
    foundedAlone: !calm && random.chance(0.08) ? random.pick([0, 1] as const) : -1,
    memory: random.chance(0.1),
  };
}

/** How worlds are drawn. */
export interface Shape {
  /** Every world has a random subset of all faults: no scripts by themselves, no calm ones. */
  swarm?: boolean | undefined;
  /** Worlds of up to an hour, of few and slow clients, and of faults that are rare and may last for minutes. */
  long?: boolean | undefined;
}

export function drawOptions(random: Random, shape: Shape = {}): Options {
  const options = drawDense(random, shape.swarm === true || shape.long === true);
  return shape.long === true ? stretched(options, random) : options;
}

/** What short worlds cannot show: clocks that drift for long, sessions and values that end, logs that grow and are trimmed. */
function stretched(options: Options, random: Random): Options {
  return {
    ...options,
    faultsMs: random.spread(4 * 60_000, 60 * 60_000),
    gapMs: random.spread(8_000, 120_000),
    burst: random.pick([0, 0, 0.2]),
    clients: 1 + random.below(3),
    localClients: random.chance(0.4) ? 1 : 0,
    sessionClients: random.chance(0.5) ? 1 : 0,
    meanPauseMs: random.spread(1_000, 30_000),
    easeOff: 1,
    ttlMaxMs: random.spread(400, 120_000),
    stretchMax: random.pick([1, 20, 200]),
    sampleMs: 2_000,
  };
}

function drawDense(random: Random, swarm: boolean): Options {
  const density = random.pick([0.15, 0.3, 0.5, 0.8]);
  let kinds: FaultKind[] = FAULT_KINDS.filter(() => random.chance(density));
  if (kinds.length === 0) kinds = [random.pick(FAULT_KINDS)];
  // A few worlds in which nothing fails: whatever changes there changes without need.
  const calm = random.chance(0.03) && !swarm;
  const focused = !calm && random.chance(0.5) && !swarm;
  if (focused) kinds = [random.pick(SCRIPT_KINDS), random.pick(SCRIPT_KINDS)];
  if (calm) kinds = CALM_KINDS.filter(() => random.chance(0.5)).concat("burst");
  const skewed = random.chance(0.3);
  return {
    kinds,
    weights: kinds.map((kind) => (WEIGHT[kind] ?? 1) * random.between(0.3, 1)),
    gapMs: focused ? random.spread(350, 900) : random.spread(45, 700),
    burst: focused ? 0 : random.pick([0, 0.2, 0.5]),
    faultsMs: calm ? random.between(6000, 12000) : random.between(1000, 3200),
    victim: random.pick([-1, 0, 1]),
    clients: 2 + random.below(3),
    localClients: random.chance(0.5) ? 1 + random.below(2) : 0,
    sessionClients: random.chance(0.3) ? 1 + random.below(2) : 0,
    // Commands are most of what a seed costs, and many at once show what few do not: so a few worlds have very many.
    meanPauseMs: random.chance(0.1) ? random.spread(5, 12) : random.spread(12, 70),
    easeOff: random.chance(0.75) ? 4 : 1,
    oddChunks: random.pick([0, 0, 0.1, 0.5]),
    latencyMs: random.spread(0.03, 3),
    peerLatencyMs: random.spread(0.03, 15),
    flushMaxMs: random.spread(0.2, 6),
    clockRates: [
      skewed ? random.between(0.9, 1.1) : 1,
      skewed ? random.between(0.9, 1.1) : 1,
      skewed ? random.between(0.9, 1.1) : 1,
    ],
    preset: random.pick([-1, 0, 1] as const),
    startMs: [
      random.chance(0.6) ? random.between(0, 20) : random.between(0, 600),
      random.chance(0.6) ? random.between(0, 20) : random.between(0, 600),
      random.chance(0.6) ? random.between(0, 20) : random.between(0, 600),
    ],
    smallLimits: random.chance(0.4),
    operatorChooses: true,
    idMax: random.chance(0.15) ? 200 + random.below(400) : 0xfff00000,
    ttlMaxMs: 400,
    stretchMax: 1,
    sampleMs: 100,
    ...drawHardware(random, calm),
  };
}
