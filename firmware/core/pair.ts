/**
 * What the controller believes of the pair, as plain data. The root (controller.ts) writes it; the leaves
 * (election, failover, rejoin, explain) read it and propose.
 */
import { assert } from "./assert.js";
import type { CoreConfig } from "./config.js";
import type { ServerView } from "./information.js";
import { EPOCH_MAX } from "./limits.js";
import type { PairState, RoleEvent } from "./role-table.js";
import {
  MODE_BOTH,
  areApart,
  bytesEqual,
  identityOf,
  recordsEqual,
} from "../../protocol/record.js";
import type { Mode, RoleRecord, ServerIndex } from "../../protocol/record.js";

/** What one server had said when both had reported, to be said again unchanged (rule 19). */
export interface Snapshot {
  at: number;
  record: RoleRecord | undefined;
  identity: Uint8Array;
}

export interface Pair {
  config: CoreConfig;
  state: PairState;
  /** Why it came to this state, for people. */
  because: string;
  startedAt: number;
  /** When any server was first heard in this boot; -1 before. */
  firstHeardAt: number;
  /** The record in flash; undefined while blank, wiped or stopped. */
  record: RoleRecord | undefined;
  /** G5: the solo record may still be taken back. Volatile; a boot counts as passed. */
  fresh: boolean;
  /** The operator's force holds in this epoch: servers may set aside confirmed entries. Volatile. */
  forced: boolean;
  /** The record on its way into flash, and the event that proposed it. */
  writing: RoleRecord | undefined;
  /** The record waits for room in the flash, which is not put in order now (whyNotCompacted). */
  flashFull: boolean;
  /** Why the flash is not believed or this controller has stopped; "" when all is well. Stays until a record is written. */
  alarm: string;
  /** Highest epoch ever heard of in this boot, our own included. */
  epochHeard: number;
  /** What a power-on rule waits for, for people; "" when it waits for nothing. */
  waits: string;
  servers: ServerView[];
  /** Rule 19's first round; empty outside it. */
  snapshots: Snapshot[];
}

/** A change of the record that a rule has proposed. */
export interface Proposal {
  event: RoleEvent;
  record: RoleRecord;
  because: string;
}

export function otherOf(server: ServerIndex): ServerIndex {
  return server === 0 ? 1 : 0;
}

export function idOf(pair: Pair, server: ServerIndex): string {
  return pair.servers[server].id;
}

/** `solo(b)` for people, with the configured ids. */
export function recordText(pair: Pair, record: RoleRecord): string {
  return (
    (record.mode === MODE_BOTH ? "both(" : "solo(") +
    idOf(pair, record.primary) +
    ") epoch " +
    record.epoch
  );
}

/** The record that follows: next epoch, another primary or mode, the same pair and disks. */
export function nextRecord(record: RoleRecord, primary: ServerIndex, mode: Mode): RoleRecord {
  assert(record.epoch < EPOCH_MAX, "epochs are left");
  return {
    epoch: record.epoch + 1,
    primary: primary,
    mode: mode,
    pairId: record.pairId,
    identityA: record.identityA,
    identityB: record.identityB,
  };
}

/** The same record with another disk for one server. */
export function withIdentity(
  record: RoleRecord,
  server: ServerIndex,
  identity: Uint8Array,
): RoleRecord {
  return {
    epoch: record.epoch,
    primary: record.primary,
    mode: record.mode,
    pairId: record.pairId,
    identityA: server === 0 ? identity : record.identityA,
    identityB: server === 1 ? identity : record.identityB,
  };
}

/** The same record under another epoch. */
export function withEpoch(record: RoleRecord, epoch: number): RoleRecord {
  assert(epoch > 0 && epoch <= EPOCH_MAX, "epochs are left");
  return {
    epoch: epoch,
    primary: record.primary,
    mode: record.mode,
    pairId: record.pairId,
    identityA: record.identityA,
    identityB: record.identityB,
  };
}

/** The same record, under an epoch above all that was heard: one that was forced apart may have a higher one. */
export function aboveHeard(pair: Pair, record: RoleRecord): RoleRecord {
  return record.epoch > pair.epochHeard ? record : withEpoch(record, pair.epochHeard + 1);
}

/**
 * The server was forced without the record's primary, or the primary without it, so that neither record follows from the
 * other. Its epoch, even a higher one, is then no sign that this controller's flash is not the pair's.
 */
export function isForcedApart(record: RoleRecord, view: ServerView): boolean {
  return (
    view.linked &&
    view.index !== record.primary &&
    view.said !== undefined &&
    view.said.record !== undefined &&
    areApart(record, view.said.record)
  );
}

/** The server is connected with a disk the record does not name: it counts as absent until it has joined. */
export function hasOtherDisk(record: RoleRecord, view: ServerView): boolean {
  return (
    view.linked &&
    view.said !== undefined &&
    !bytesEqual(view.said.identity, identityOf(record, view.index))
  );
}

/** For any rule of failure: the server has failed, or another disk has taken its place. */
export function isGone(record: RoleRecord, view: ServerView): boolean {
  return view.fault !== 0 || hasOtherDisk(record, view);
}

/**
 * The guard of every rule that names a primary: it must just have answered a poll, under its present link,
 * with the disk the record names. While our own loop is late no new poll has gone out, so the answer to the
 * latest one is bounded by the failure limit too.
 * @returns why the server may not be named, for people; "" when it may
 */
export function whyNotNamed(
  pair: Pair,
  record: RoleRecord,
  server: ServerIndex,
  now: number,
): string {
  const view = pair.servers[server];
  const said = view.said;
  if (!view.linked || said === undefined) return view.id + " is not connected";
  if (!bytesEqual(said.identity, identityOf(record, server))) {
    return view.id + " has another disk than the record names";
  }
  if (said.copying) return view.id + " holds only part of a copy";
  if (!view.answered || now - view.polledAt > pair.config.timings.failureMs) {
    return view.id + " has not answered the latest poll";
  }
  return "";
}

export function mayBeNamed(
  pair: Pair,
  record: RoleRecord,
  server: ServerIndex,
  now: number,
): boolean {
  return whyNotNamed(pair, record, server, now) === "";
}

/**
 * A power cut while the flash is put in order can lose the record. A blank flash loses nothing while both servers hold
 * that very record on their disks and can say so (rule 19), whatever disks they are.
 * @returns why that is not so, for people; "" when it is, or when the flash holds nothing that counts
 */
export function whyNotCompacted(pair: Pair): string {
  const record = pair.record;
  if (record === undefined) return "";
  for (let i = 0; i < 2; i++) {
    const view = pair.servers[i];
    if (!view.linked || view.said === undefined) return view.id + " is not connected";
    if (view.fault !== 0) return view.id + " does not answer";
    if (!recordsEqual(view.said.record, record)) {
      return view.id + " has not adopted epoch " + record.epoch + " yet";
    }
  }
  return "";
}
