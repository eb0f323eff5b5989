/**
 * Role change (P12): which record follows when a server fails, under rules 15, 16 and G5.
 *
 *     both(X) ── X fails ───────────────────────> solo(Y)
 *     both(X) ── only X's network does, serial ─> both(Y)     X stays standby, and is told by serial
 *     both(X) ── Y fails, or confirms stall ────> solo(X)
 *     both(X) ── operator, drained, in sync ────> both(Y)
 *     solo(X), nothing passed yet ── X fails ───> solo(Y)     the take-back of G5
 *     solo(X) ── anything else ─────────────────> only X's own request (rejoin.ts), or the operator's force
 *
 * These are proposals: pure functions of what is known. The root writes them to flash.
 */
import { confirmStalled, diskHangs, faultText, networkOnly, silentSince } from "./fault-monitor.js";
import type { ServerView } from "./information.js";
import {
  hasOtherDisk,
  idOf,
  isForcedApart,
  isGone,
  mayBeNamed,
  nextRecord,
  otherOf,
} from "./pair.js";
import type { Pair, Proposal } from "./pair.js";
import { outOfSync } from "./sync-state.js";
import {
  MODE_BOTH,
  MODE_SOLO,
  bytesEqual,
  epochOf,
  identityOf,
  recordsEqual,
} from "../../protocol/record.js";
import type { RoleRecord, ServerIndex } from "../../protocol/record.js";

/** Why a server counts as gone, for people; "" when it does not. */
export function goneText(pair: Pair, record: RoleRecord, server: ServerIndex): string {
  const view = pair.servers[server];
  if (view.fault !== 0) return faultText(view, pair.config.timings);
  if (hasOtherDisk(record, view)) return view.id + " came back with another disk";
  return "";
}

/** The primary can do nothing for its clients: it is gone, or its disk hangs. */
export function primaryFailed(pair: Pair, record: RoleRecord): boolean {
  const view = pair.servers[record.primary];
  return isGone(record, view) || diskHangs(view, pair.config.timings);
}

export function primaryFailedText(pair: Pair, record: RoleRecord): string {
  const gone = goneText(pair, record, record.primary);
  if (gone !== "") return gone;
  if (!diskHangs(pair.servers[record.primary], pair.config.timings)) return "";
  return "the disk of " + idOf(pair, record.primary) + " hangs";
}

/**
 * The primary has shown by its serial line, after its network fell silent, that it lives with its disk under this
 * very record and is still connected to the other: it can be standby, so nothing of the pair's strength is given up.
 * An older sign could be a dead server's last.
 */
function canStayStandby(pair: Pair, record: RoleRecord): boolean {
  const view = pair.servers[record.primary];
  const line = view.line;
  const next = pair.servers[otherOf(record.primary)].said;
  if (!networkOnly(view) || line === undefined || line.said === undefined) return false;
  return (
    line.saidAt >= silentSince(view) + 2 * pair.config.timings.pollMs &&
    line.said.peerUp &&
    next !== undefined &&
    next.peerUp &&
    recordsEqual(line.said.record, record) &&
    bytesEqual(line.said.identity, identityOf(record, record.primary)) &&
    line.said.oldestUncommittedMs <= pair.config.timings.diskStallMs
  );
}

/**
 * The standby is lost to the pair. One that answers on its serial line and is connected to the primary is not: it still
 * confirms every write, and only its reads go to the primary.
 */
function standbyIsLost(pair: Pair, record: RoleRecord, standby: ServerView): boolean {
  if (!isGone(record, standby)) return false;
  const primary = pair.servers[record.primary];
  return !networkOnly(standby) || (primary.said !== undefined && !primary.said.peerUp);
}

/** Rule 15 in record both(X). @returns undefined when nothing is to be changed, or nobody may be named */
export function whenBoth(pair: Pair, record: RoleRecord, now: number): Proposal | undefined {
  const primary = record.primary;
  const standby = otherOf(primary);
  if (primaryFailed(pair, record)) {
    if (isGone(record, pair.servers[standby])) return undefined;
    if (!mayBeNamed(pair, record, standby, now)) return undefined;
    if (canStayStandby(pair, record)) {
      return {
        event: "rerouted",
        record: nextRecord(record, standby, MODE_BOTH),
        because:
          primaryFailedText(pair, record) + "; " + idOf(pair, standby) + " took over, both in sync",
      };
    }
    return {
      event: "failover",
      record: nextRecord(record, standby, MODE_SOLO),
      because: primaryFailedText(pair, record) + "; " + idOf(pair, standby) + " took over",
    };
  }
  const standbyGone = standbyIsLost(pair, record, pair.servers[standby]);
  if (!standbyGone && !confirmStalled(pair.servers[primary], pair.config.timings)) return undefined;
  if (!mayBeNamed(pair, record, primary, now)) return undefined;
  const id = idOf(pair, primary);
  return {
    event: standbyGone ? "standbyLost" : "standbyStalled",
    record: nextRecord(record, primary, MODE_SOLO),
    because:
      (standbyGone
        ? goneText(pair, record, standby)
        : id + "'s writes wait too long for " + idOf(pair, standby)) +
      "; " +
      id +
      " goes on alone",
  };
}

/**
 * force: the other server comes back with a record that was forced without this one, or this one without it. The flash holds the
 * order that was given last, so the record is written again, above all that was heard: what the other holds beyond it was
 * given up by that order. Only while the primary itself says that this very record is the one it acts under: an old board has
 * no such witness.
 */
export function overrule(pair: Pair, record: RoleRecord, now: number): Proposal | undefined {
  const other = pair.servers[otherOf(record.primary)];
  const said = pair.servers[record.primary].said;
  if (said === undefined || !recordsEqual(said.record, record)) return undefined;
  if (!isForcedApart(record, other)) return undefined;
  // It has been told, and is about to adopt it.
  if (pair.forced && epochOf(other.said!.record) < record.epoch) return undefined;
  if (!mayBeNamed(pair, record, record.primary, now)) return undefined;
  return {
    event: "overruled",
    record: nextRecord(record, record.primary, MODE_SOLO),
    because:
      other.id + " was forced without " + idOf(pair, record.primary) + " before: it follows now",
  };
}

/** G5 in a fresh record solo(X): nothing of this epoch has reached a client, so the other still has all. */
export function takeBack(pair: Pair, record: RoleRecord, now: number): Proposal | undefined {
  const other = otherOf(record.primary);
  if (!pair.fresh || !primaryFailed(pair, record)) return undefined;
  if (isGone(record, pair.servers[other]) || !mayBeNamed(pair, record, other, now))
    return undefined;
  return {
    event: "takenBack",
    record: nextRecord(record, other, MODE_SOLO),
    because:
      primaryFailedText(pair, record) +
      " before it answered anything; " +
      idOf(pair, other) +
      " still has everything and took over",
  };
}

/** Why a planned switchover cannot be done now, for people; "" when it can. */
export function whyNoSwitchover(pair: Pair): string {
  const record = pair.record;
  if (record === undefined || (pair.state !== "both" && pair.state !== "draining")) {
    return "the pair is not serving from both servers (state " + pair.state + ")";
  }
  const standby = otherOf(record.primary);
  const apart = outOfSync(record, pair.servers[standby]);
  if (apart !== "") return apart;
  return isGone(record, pair.servers[standby]) ? goneText(pair, record, standby) : "";
}

/** The end of a planned switchover: both(other). The caller has drained, and asked whether it may be named. */
export function switchedOver(record: RoleRecord, because: string): Proposal {
  return {
    event: "switchover",
    record: nextRecord(record, otherOf(record.primary), MODE_BOTH),
    because: because,
  };
}
