/**
 * The fault plan: drawn before the run, as data, so that a failing plan can be shrunk by leaving items out.
 *
 * Targets are named by role ("primary") or place ("a") and looked up when the fault strikes. Some
 * faults lie in wait for a moment: a flash write, an urgent commit, a change of roles.
 */
import type { FaultKind, Options } from "./options.js";
import type { Random } from "./world/random.js";

export type TargetName = "a" | "b" | "c" | "primary" | "standby";

export interface Fault {
  atMs: number;
  kind: FaultKind;
  target: TargetName;
  /** The other side, where there is one. */
  other: TargetName;
  /** How long it lasts, or how long its victim stays away. @unit ms */
  forMs: number;
  /** Its strength: a rate, a factor, a delay. 0..1 */
  strength: number;
}

const SERVERS: readonly TargetName[] = ["a", "b", "primary", "primary", "standby", "standby"];
const ANY: readonly TargetName[] = [
  "a",
  "b",
  "c",
  "c",
  "primary",
  "primary",
  "primary",
  "standby",
  "standby",
];
const ON_SERVERS = new Set<FaultKind>([
  "diskStall",
  "diskSlow",
  "diskFail",
  "diskReplace",
  "diskRestore",
  "rowRot",
  "logRot",
  "wallJump",
  "urgentCrash",
  "diskFull",
  "burst",
]);

export function drawPlan(random: Random, options: Options): Fault[] {
  const plan: Fault[] = [];
  const total = options.weights.reduce((sum, weight) => sum + weight, 0);
  let atMs = 150 + random.exponential(options.gapMs);
  while (atMs < options.faultsMs && plan.length < 200) {
    let at = random.float() * total;
    let index = 0;
    while (index < options.kinds.length - 1 && at >= options.weights[index]!) {
      at -= options.weights[index]!;
      index++;
    }
    const kind = options.kinds[index]!;
    const target = random.pick(ON_SERVERS.has(kind) ? SERVERS : ANY);
    let other = random.pick(ANY);
    if (random.chance(0.4)) other = "c";
    plan.push({
      atMs,
      kind,
      target,
      other,
      forMs: duration(kind, random) * stretch(options, random),
      strength: random.float(),
    });
    atMs += random.chance(options.burst)
      ? random.between(0, 50)
      : random.exponential(options.gapMs);
  }
  return plan;
}

/** In most worlds nothing is stretched, and nothing drawn. */
function stretch(options: Options, random: Random): number {
  if (options.stretchMax === 1 || random.chance(0.6)) return 1;
  return random.spread(1, options.stretchMax);
}

function duration(kind: FaultKind, random: Random): number {
  switch (kind) {
    case "clog":
      return random.spread(5, 180);
    case "kill":
    case "power":
    case "urgentCrash":
    case "roleCrash":
    case "flashTear":
    case "diskReplace":
    case "diskRestore":
      // Back before anyone has noticed, or long after.
      return random.chance(0.4) ? random.spread(2, 60) : random.spread(60, 2500);
    default:
      return random.spread(20, 2500);
  }
}

export function describeFault(fault: Fault): string {
  return `${fault.kind} ${fault.target}/${fault.other} for ${fault.forMs.toFixed(1)} ms, strength ${fault.strength.toFixed(2)}`;
}
