/**
 * Power-on: who is primary when the controller starts (P13, P14, rules 18 and 19).
 *
 * Flash intact: a primary that acts under the record is kept; otherwise, in record both, the source's two
 * determination units choose. Flash blank or wiped: both servers must report on new connections and say
 * the same once more; then the higher record is adopted under an epoch far above, or, when both are blank,
 * a new pair is founded and the two units choose.
 */
import { goneText } from "./failover.js";
import { EPOCH_GAP, EPOCH_MAX } from "./limits.js";
import {
  hasOtherDisk,
  idOf,
  isGone,
  mayBeNamed,
  nextRecord,
  otherOf,
  recordText,
  whyNotNamed,
  withEpoch,
} from "./pair.js";
import type { ServerView } from "./information.js";
import type { Pair, Proposal } from "./pair.js";
import {
  MODE_BOTH,
  MODE_SOLO,
  areApart,
  bytesEqual,
  epochOf,
  recordsEqual,
} from "../../protocol/record.js";
import type { RoleRecord, ServerIndex } from "../../protocol/record.js";

/** What a power-on rule has decided: a record, to keep the one there is, or to wait. */
export interface Verdict {
  proposal: Proposal | undefined;
  keep: boolean;
  /** Why it waits, or why it keeps. */
  why: string;
  /** When the wait is over, if time alone ends it; Infinity otherwise. */
  until: number;
}

function waits(why: string, until: number): Verdict {
  return { proposal: undefined, keep: false, why: why, until: until };
}

function keeps(why: string): Verdict {
  return { proposal: undefined, keep: true, why: why, until: Infinity };
}

function proposes(proposal: Proposal): Verdict {
  return { proposal: proposal, keep: false, why: proposal.because, until: Infinity };
}

/** Both report an uptime longer than the controller's: they were up before it. */
export function bothWereUp(pair: Pair): boolean {
  return upSince(pair.servers[0]) < pair.startedAt && upSince(pair.servers[1]) < pair.startedAt;
}

/** When a server came online, by its own report. @returns Infinity while it is not heard */
function upSince(view: ServerView): number {
  return view.said === undefined ? Infinity : view.lastSaidAt - view.said.uptimeMs;
}

/** The server that has announced itself as preset, if it is the one meant to (P13). @returns -1 for none */
export function announcedPreset(pair: Pair): number {
  for (let i = 0; i < 2; i++) {
    // Where the controller's own configuration presets the other one, the message packet is refused.
    if (pair.servers[i].announced && !pair.config.servers[1 - i].preset) return i;
  }
  return -1;
}

/** The server that came online first: the one that has been up longer. */
function firstOnline(pair: Pair): ServerIndex {
  return upSince(pair.servers[0]) <= upSince(pair.servers[1]) ? 0 : 1;
}

/** The flash holds a record (rule 18). */
export function whenFlashIntact(pair: Pair, record: RoleRecord, now: number): Verdict {
  const primary = pair.servers[record.primary];
  const named = primary.linked && primary.said !== undefined && !hasOtherDisk(record, primary);
  if (named && recordsEqual(primary.said!.record, record)) {
    return keeps(primary.id + " acts under the record this controller has in flash");
  }
  if (record.mode === MODE_SOLO) return waits(whySoloWaits(pair, record, named), Infinity);
  return whenBothAtPowerOn(pair, record, named, now);
}

function whySoloWaits(pair: Pair, record: RoleRecord, named: boolean): string {
  const id = idOf(pair, record.primary);
  if (named) return id + " is being told the record, which it has not adopted yet";
  const gone = goneText(pair, record, record.primary);
  const only = "only " + id + " is known to hold every acknowledged write";
  return only + ", and " + (gone === "" ? id + " has not connected yet" : gone);
}

function whenBothAtPowerOn(pair: Pair, record: RoleRecord, named: boolean, now: number): Verdict {
  const t = pair.config.timings;
  const other = otherOf(record.primary);
  const id = idOf(pair, record.primary);
  if (named && primaryWorks(pair, record)) {
    // It is up and has the disk, but missed the record: the first determination unit may choose.
    const preset = announcedPreset(pair);
    if (preset === other && bothWereUp(pair) && mayBeNamed(pair, record, other, now)) {
      return proposes({
        event: "announced",
        record: nextRecord(record, other, MODE_BOTH),
        because:
          "both were up before the controller, and the preset server " +
          idOf(pair, other) +
          " announced itself",
      });
    }
    return waits(id + " is being told the record, which it has not adopted yet", Infinity);
  }
  if (!isGone(record, pair.servers[record.primary])) {
    return waits(id + " has not connected yet, and is given time: it may only be late", Infinity);
  }
  if (pair.firstHeardAt < 0) return waits("no server has been heard yet", Infinity);
  const limit = pair.firstHeardAt + t.failureMs;
  const replaced = hasOtherDisk(record, pair.servers[record.primary]);
  if (!replaced && now < limit) {
    return waits("one failure limit for " + id + ", since the first server was heard", limit);
  }
  const notNamed = whyNotNamed(pair, record, other, now);
  if (notNamed !== "")
    return waits(goneText(pair, record, record.primary) + ", and " + notNamed, Infinity);
  const said = pair.servers[other].said!;
  const longer = pair.firstHeardAt + t.peerSeenMs;
  if (!replaced && said.peerUp && epochOf(said.record) === record.epoch && now < longer) {
    return waits(idOf(pair, other) + " says that it is connected to " + id, longer);
  }
  return proposes({
    event: "firstOnline",
    record: nextRecord(record, other, MODE_SOLO),
    because: idOf(pair, other) + " came online first: " + goneText(pair, record, record.primary),
  });
}

function primaryWorks(pair: Pair, record: RoleRecord): boolean {
  return pair.servers[record.primary].fault === 0;
}

/** What the servers said is the same as in the first round, and was said again since (rule 19). */
export function secondRound(pair: Pair): "wait" | "same" | "other" {
  for (let i = 0; i < 2; i++) {
    const view = pair.servers[i];
    const snapshot = pair.snapshots[i];
    if (!view.answered || view.polledAt < snapshot.at || view.said === undefined) return "wait";
    if (!bytesEqual(view.said.identity, snapshot.identity)) return "other";
    if (!recordsEqual(view.said.record, snapshot.record)) return "other";
  }
  return "same";
}

/** Both have said the same twice (rule 19). `pairId` is for a new pair. */
export function whenFlashBlank(pair: Pair, pairId: Uint8Array, now: number): Verdict {
  const a = pair.servers[0].said!;
  const b = pair.servers[1].said!;
  if (a.record === undefined && b.record === undefined) {
    if (a.blank && b.blank) return foundPair(pair, pairId, now);
    const full = a.blank ? 1 : 0;
    return waits(idOf(pair, full) + " holds data but no record: only force can use it", Infinity);
  }
  if (a.record !== undefined && b.record !== undefined) {
    if (!bytesEqual(a.record.pairId, b.record.pairId)) {
      return waits("the two servers belong to different pairs", Infinity);
    }
    if (areApart(a.record, b.record)) {
      return waits(
        "each was forced without the other: only force can say whose data counts",
        Infinity,
      );
    }
    if (a.record.epoch === b.record.epoch && !recordsEqual(a.record, b.record)) {
      return waits("the two servers hold different records of the same epoch", Infinity);
    }
  }
  const higher = epochOf(a.record) >= epochOf(b.record) ? a.record! : b.record!;
  return adopts(pair, higher, now);
}

function adopts(pair: Pair, found: RoleRecord, now: number): Verdict {
  const base = pair.epochHeard > found.epoch ? pair.epochHeard : found.epoch;
  if (base > EPOCH_MAX - 2 * EPOCH_GAP) return waits("the epochs are used up", Infinity);
  const other = otherOf(found.primary);
  const whyNotPrimary = whyNotNamed(pair, found, found.primary, now);
  const text = "adopted " + recordText(pair, found) + ", the highest either server has";
  if (found.mode === MODE_SOLO || hasOtherDisk(found, pair.servers[other])) {
    if (whyNotPrimary === "") {
      return proposes({
        event: "adopted",
        record: withEpoch(nextRecord(found, found.primary, MODE_SOLO), base + EPOCH_GAP),
        because: text,
      });
    }
    return waits(recordText(pair, found) + " is the highest, but " + whyNotPrimary, Infinity);
  }
  if (whyNotPrimary === "") {
    return proposes({
      event: "adopted",
      record: withEpoch(found, base + EPOCH_GAP),
      because: text,
    });
  }
  // Both held everything, and the primary's disk is gone: its standby goes on alone (rule 15).
  if (hasOtherDisk(found, pair.servers[found.primary]) && mayBeNamed(pair, found, other, now)) {
    return proposes({
      event: "adopted",
      record: withEpoch(nextRecord(found, other, MODE_SOLO), base + EPOCH_GAP),
      because: text + "; " + idOf(pair, found.primary) + " has another disk",
    });
  }
  return waits(recordText(pair, found) + " is the highest, but " + whyNotPrimary, Infinity);
}

/** Two blank servers: a new pair, and the source's two rules choose (P13, P14). */
function foundPair(pair: Pair, pairId: Uint8Array, now: number): Verdict {
  const a = pair.servers[0].said!;
  const b = pair.servers[1].said!;
  const were = bothWereUp(pair);
  const preset = announcedPreset(pair);
  const until = pair.snapshots[0].at + pair.config.timings.announceMs;
  if (were && preset < 0 && presetExpected(pair) && now < until) {
    return waits("both were up first: the preset server should announce itself", until);
  }
  const byPreset = were && preset >= 0;
  const primary: ServerIndex = byPreset ? (preset === 0 ? 0 : 1) : firstOnline(pair);
  const record: RoleRecord = {
    epoch: pair.epochHeard + 1,
    primary: primary,
    mode: byPreset ? MODE_BOTH : MODE_SOLO,
    pairId: pairId,
    identityA: a.identity,
    identityB: b.identity,
  };
  const notNamed = whyNotNamed(pair, record, primary, now);
  if (notNamed !== "") return waits(notNamed, Infinity);
  const id = idOf(pair, primary);
  return proposes({
    event: "newPair",
    record: record,
    because: byPreset
      ? "a new pair: both were up before the controller, and the preset server " +
        id +
        " announced itself"
      : "a new pair: " + id + " came online first",
  });
}

function presetExpected(pair: Pair): boolean {
  const a = pair.servers[0].said!;
  const b = pair.servers[1].said!;
  return a.preset || b.preset || pair.config.servers[0].preset || pair.config.servers[1].preset;
}
