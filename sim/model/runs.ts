/**
 * What `npm run model` checks: the model docs/model/role-protocol.pml at several bounds, where no promise may be broken, and with one rule broken on
 * purpose at a time, where one must be. Bounds are chosen so that each break has the room it needs, and as small as that allows.
 */

/** Names of the model's `#ifndef` bounds, with what a run sets them to; what is left out is 0. */
export interface Bounds {
  EPOCHS: number;
  WRITES?: number;
  LOCALS?: number;
  READS?: number;
  CRASHES?: number;
  BOOTS?: number;
  WIPES?: number;
  DISKS?: number;
  COPIES?: number;
}

export interface SoundRun {
  name: string;
  bounds: Bounds;
  /** Left out of `npm run model` unless asked for with --all: it takes minutes and gigabytes. */
  long: boolean;
}

export interface BrokenRun {
  /** The model is built with BREAK_ and each of these. */
  breaks: string[];
  /** What is broken, and the rule that says so. */
  about: string;
  bounds: Bounds;
  /** Why no promise is broken all the same; undefined: one must be. */
  covered?: string;
}

export const SOUND: SoundRun[] = [
  { name: "two reads", bounds: { EPOCHS: 2, READS: 2, CRASHES: 1, BOOTS: 1 }, long: false },
  { name: "replaced and restored disks", bounds: { EPOCHS: 4, DISKS: 1 }, long: false },
  { name: "range copies", bounds: { EPOCHS: 3, CRASHES: 1, COPIES: 1 }, long: false },
  { name: "a wiped flash", bounds: { EPOCHS: 3, CRASHES: 1, WIPES: 1 }, long: false },
  { name: "local ports", bounds: { EPOCHS: 3, LOCALS: 1, CRASHES: 1 }, long: true },
  { name: "two writes", bounds: { EPOCHS: 3, WRITES: 2, CRASHES: 1 }, long: true },
  {
    name: "reads, crashes and boots",
    bounds: { EPOCHS: 3, READS: 1, CRASHES: 1, BOOTS: 1 },
    long: true,
  },
];

export const BROKEN: BrokenRun[] = [
  {
    breaks: ["identity"],
    about: "any disk counts as the one the record names (identities)",
    bounds: { EPOCHS: 2, DISKS: 1 },
  },
  {
    breaks: ["restored_same"],
    about: "a disk restored from a backup keeps its identity (identities)",
    bounds: { EPOCHS: 3, DISKS: 1 },
  },
  {
    breaks: ["append_before_cut"],
    about: "the standby takes entries before its tail is cut (8)",
    bounds: { EPOCHS: 3, WRITES: 2, CRASHES: 1, BOOTS: 1 },
  },
  {
    breaks: ["read_before_session"],
    about: "the standby answers reads without a session (8, 14)",
    bounds: { EPOCHS: 2, READS: 2, CRASHES: 1, BOOTS: 1 },
  },
  {
    breaks: ["confirm_epoch"],
    about: "a confirm counts in any epoch and session (5)",
    bounds: { EPOCHS: 4, DISKS: 1 },
  },
  {
    breaks: ["confirmed_kept"],
    about: "confirmed survives an adoption and another disk (3)",
    bounds: { EPOCHS: 4, DISKS: 1 },
  },
  {
    breaks: ["ack_alone"],
    about: "a joint primary answers writes that are not confirmed (11)",
    bounds: { EPOCHS: 3, CRASHES: 1, BOOTS: 1 },
  },
  {
    breaks: ["dirty_forgotten"],
    about: "the primary answers reads of what is not confirmed (13)",
    bounds: { EPOCHS: 3, READS: 2, CRASHES: 1 },
  },
  {
    breaks: ["promote_over_solo"],
    about: "the other server is promoted from solo (16)",
    bounds: { EPOCHS: 3, READS: 1, CRASHES: 1, BOOTS: 1 },
  },
  {
    breaks: ["ask_without_joining"],
    about: "both is asked for without having joined (17)",
    bounds: { EPOCHS: 3, CRASHES: 1, BOOTS: 1 },
  },
  {
    breaks: ["asked_forgotten"],
    about: "a restart forgets that both was asked for (17)",
    bounds: { EPOCHS: 3, CRASHES: 1, BOOTS: 1 },
  },
  {
    breaks: ["g3"],
    about: "replies of any epoch pass, and the link stays open at a take-back (G3)",
    bounds: { EPOCHS: 3, READS: 1, CRASHES: 1, BOOTS: 1 },
  },
  {
    breaks: ["boot_is_fresh"],
    about: "after a boot of the controller a solo record may be taken back (G5)",
    bounds: { EPOCHS: 3, READS: 1, CRASHES: 1, BOOTS: 1 },
  },
  {
    breaks: ["told_early"],
    about: "the primary is told that a reply has passed before one has (10, G5)",
    bounds: { EPOCHS: 3, LOCALS: 1, CRASHES: 1 },
  },
  {
    breaks: ["told_ignored"],
    about: "local commands are answered without having been told (10, G5)",
    bounds: { EPOCHS: 3, LOCALS: 1, CRASHES: 1 },
  },
  {
    breaks: ["retry_runs_again"],
    about: "a write asked again is done again (exactly once)",
    bounds: { EPOCHS: 3, CRASHES: 1, BOOTS: 1 },
  },
  {
    breaks: ["g2"],
    about: "a server runs commands of any epoch (G2)",
    bounds: { EPOCHS: 3, READS: 1, CRASHES: 1 },
    covered:
      "G3 holds back what it answers in an old epoch, and by the session table a late write is not done twice",
  },
];

/** All bounds of a run as arguments of spin. */
export function defines(bounds: Bounds, breaks: string[]): string[] {
  const all: Required<Bounds> = {
    WRITES: 1,
    LOCALS: 0,
    READS: 0,
    CRASHES: 0,
    BOOTS: 0,
    WIPES: 0,
    DISKS: 0,
    COPIES: 0,
    ...bounds,
  };
  return [
    ...Object.entries(all).map(([name, value]) => `-D${name}=${value}`),
    ...breaks.map((name) => `-DBREAK_${name}`),
  ];
}
