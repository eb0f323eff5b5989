/**
 * The session between primary and standby (rule 8): in every epoch, after every restart and reconnect,
 * they first compare logs; the standby sets aside and removes what the primary does not hold. Only then
 * may it take appends, confirm and answer reads.
 *
 *     standby   none ──open──> opened ──plan──> cutting ──flushed──> ready
 *     primary   none ──open heard, plan──> planned ──ready heard──> ready
 *     any of them ──link down, adoption──> none
 *
 * Nothing is removed anywhere else. What is set aside is in a readable file before it is removed, and
 * nothing that was ever confirmed is set aside unless an operator forced it.
 */
import { assert } from "../../protocol/malformed.js";
import {
  KIND_SESSION_OPEN,
  KIND_SESSION_PLAN,
  KIND_SESSION_READY,
  KIND_STATE,
} from "../../protocol/messages.js";
import type { PeerState, SessionOpen, SessionPlan, SessionReady } from "../../protocol/messages.js";
import { bytesEqual, identityOf, primaryIdentity } from "../../protocol/record.js";
import type { ServerIndex } from "../../protocol/record.js";
import type { AgentConfig } from "./config.js";
import type { Keyspace } from "./execution.js";
import { DATA_HELD } from "./group-commit.js";
import type { GroupCommit } from "./group-commit.js";
import type { PeerLink } from "./peer-link.js";
import type { AgentPorts } from "./ports.js";
import type { Roles } from "./roles.js";
import { setAsideFiles } from "./set-aside-file.js";
import type { StoreWriter } from "./store.js";
import { commonIndex, epochAt } from "./sync-log.js";
import type { SyncLog } from "./sync-log.js";

export type SessionPhase = "none" | "opened" | "cutting" | "planned" | "ready";

/** Where a range copy stands, as the standby tells it. */
export interface CopyMark {
  cursor: Uint8Array;
  from: number;
}

export interface SessionEvents {
  /** Standby: the tables must be brought back to `applied`, then forward to the log's end. */
  onCut(nowMs: number): void;
  /** Standby: the log equals the primary's up to its end; what comes now is appended, or copied. */
  onFollowing(copy: boolean, nowMs: number): void;
  /** Primary: the standby takes entries from `index + 1` on. */
  onLeading(index: number, plan: SessionPlan, nowMs: number): void;
  /** Primary: the peer is there but cannot confirm in this epoch; the controller must hear of it by an age. */
  onOutOfStep(nowMs: number): void;
  /** Standby: inside the commit that removes all entries above `keepTo`. */
  cutting(writer: StoreWriter, keepTo: number): void;
  copyMark(): CopyMark;
}

/** The logs differ in age by more epochs than their boundaries are remembered for. */
function tooFarApart(epochs: number): string {
  return (
    `the peer's log is more than ${epochs} epochs apart from this one: nobody can tell what ` +
    "both hold, so it must take a copy of all data, in mode solo"
  );
}

export class PeerSession {
  phase: SessionPhase = "none";
  /** The standby is being copied to: no confirm, no reads, no both. */
  copy = false;
  /** The other server's disk; of the session, or as it last told. */
  peerIdentity: Uint8Array | undefined;
  peerEpoch = 0;
  /** Why no session can be opened ("" when nothing stands in the way). */
  problem = "";
  /** Primary: where the standby's copy got to, as its SESSION_OPEN says. */
  theirCursor: Uint8Array = new Uint8Array(0);
  private plan: SessionPlan | undefined;
  private sinceMs = 0;
  private retryMs = 0;
  /** A session with this peer was refused: wait for another epoch or connection. */
  private refused = false;

  constructor(
    private readonly config: AgentConfig,
    private readonly ports: AgentPorts,
    private readonly roles: Roles,
    private readonly log: SyncLog,
    private readonly commit: GroupCommit,
    private readonly keyspace: Keyspace,
    private readonly link: PeerLink,
    private readonly events: SessionEvents,
  ) {}

  ready(): boolean {
    return this.phase === "ready";
  }

  /** In step: entries are appended, confirmed, and nothing is being copied. */
  open(): boolean {
    return this.phase === "ready" && !this.copy;
  }

  private other(): ServerIndex {
    return this.roles.me === 0 ? 1 : 0;
  }

  /** Rule 4: durable K, on every connection and epoch mismatch. */
  tellState(): void {
    this.link.send({
      kind: KIND_STATE,
      record: this.roles.record,
      identity: this.roles.identity,
      logEnd: this.log.flushed,
    });
  }

  /** The link is down, or another epoch holds. */
  reset(): void {
    this.phase = "none";
    this.copy = false;
    this.plan = undefined;
    this.commit.dataHeld = false;
    this.refused = false;
    this.log.endReading();
  }

  onPeerDown(): void {
    this.reset();
    this.peerEpoch = 0;
  }

  onState(state: PeerState): void {
    this.peerIdentity = state.identity;
    this.peerEpoch = state.record === undefined ? 0 : state.record.epoch;
  }

  // --- the standby --------------------------------------------------------------------------------

  /** Opens a session as soon as both are in one epoch and nothing of ours is under way. */
  tick(nowMs: number): number {
    const { roles, link, commit, log } = this;
    const { sessionMs } = this.config.limits;
    if (!link.connected() || roles.adopting !== undefined) return Infinity;
    if (this.phase !== "none") {
      if (this.phase === "ready" || this.phase === "cutting") return Infinity;
      if (nowMs - this.sinceMs < sessionMs) return this.sinceMs + sessionMs;
      link.fault("the session was not opened within " + sessionMs + " ms");
      return Infinity;
    }
    if (roles.duties.session !== "follows" || this.refused) return Infinity;
    if (this.peerEpoch !== roles.epoch()) return Infinity;
    if (nowMs < this.retryMs) return this.retryMs;
    const record = roles.record!;
    if (!bytesEqual(this.peerIdentity!, primaryIdentity(record))) {
      this.problem = "the peer has another disk than the record names as primary";
      return Infinity;
    }
    // Asked for again at the end of the turn in which the commit under way has ended.
    if (!commit.idle()) return Infinity;
    assert(log.flushed === log.end, "a quiet log is flushed");
    this.problem = "";
    commit.dataHeld = true;
    this.phase = "opened";
    this.sinceMs = nowMs;
    const base = Math.max(
      log.base,
      this.keyspace.appliedIndex(),
      commit.durable.tablesTop,
      commit.durable.sessionsAt,
    );
    const mark = this.events.copyMark();
    link.send({
      kind: KIND_SESSION_OPEN,
      epoch: roles.epoch(),
      identity: roles.identity,
      base,
      baseEpoch: Math.max(0, epochAt(log.boundaries, base)),
      end: log.end,
      confirmedHigh: commit.durable.confirmedHigh,
      boundaries: log.boundaries,
      copyCursor: mark.cursor,
      copyFrom: mark.from,
      copying: roles.copying,
    });
    return nowMs + sessionMs;
  }

  onPlan(plan: SessionPlan, nowMs: number): void {
    const { roles, log, commit } = this;
    if (plan.epoch !== roles.epoch() || this.phase !== "opened") return;
    if (!bytesEqual(plan.identity, primaryIdentity(roles.record!))) return;
    if (plan.keepTo > log.end || (!plan.copy && plan.keepTo < log.base)) {
      this.link.fault("a session plan that does not fit the log");
      return;
    }
    if (plan.copy ? roles.modeBoth() : roles.copying) {
      this.link.fault("a session plan that does not fit the mode");
      return;
    }
    const floor = Math.min(commit.durable.confirmedHigh, log.end);
    if (plan.keepTo < floor && roles.forcedEpoch !== roles.epoch()) {
      this.refused = true;
      this.phase = "none";
      commit.dataHeld = false;
      this.problem =
        (plan.copy && plan.keepTo === 0
          ? `the logs are more than ${this.config.limits.boundariesMax} epochs apart, or the primary ` +
            `has none of 1 to ${floor}: `
          : `the primary lacks confirmed entries ${plan.keepTo + 1} to ${floor}: `) +
        "nothing was removed here; an operator must choose (force)";
      this.ports.note("error", "set-aside-refused", { keepTo: plan.keepTo, confirmed: floor });
      return;
    }
    if (!this.saveTail(plan.keepTo, nowMs)) return;
    // What an operator gave up by force is no longer owed to anybody.
    if (plan.keepTo < floor) commit.confirmedHigh = plan.keepTo;
    this.problem = "";
    this.plan = plan;
    this.copy = plan.copy;
    if (plan.copy || plan.keepTo === log.end) {
      this.becomeReady(nowMs);
      return;
    }
    this.phase = "cutting";
    commit.add({
      name: "cut",
      urgent: true,
      data: DATA_HELD,
      fill: (writer) => {
        log.cut(writer, plan.keepTo);
        this.events.cutting(writer, plan.keepTo);
      },
      onFlushed: (flushedMs) => {
        this.events.onCut(flushedMs);
        if (this.phase === "cutting" && this.plan === plan) this.becomeReady(flushedMs);
      },
    });
  }

  /** @returns false when the files could not be written: nothing is removed then, and it is tried again */
  private saveTail(keepTo: number, nowMs: number): boolean {
    const { log, roles } = this;
    if (keepTo >= log.end) return true;
    // A log that cannot be read ends the agent; files that cannot be written may be written later.
    const files = setAsideFiles(log, keepTo, roles.epoch(), this.config.limits);
    try {
      for (const file of files) this.ports.setAside(file.name, file.bytes);
    } catch (error) {
      this.phase = "none";
      this.commit.dataHeld = false;
      this.retryMs = nowMs + this.config.limits.sessionMs;
      this.problem = "entries cannot be set aside: " + (error as Error).message;
      this.ports.note("error", "set-aside-failed", { why: this.problem });
      return false;
    }
    this.ports.note("warn", "set-aside", { from: keepTo + 1, to: log.end, epoch: roles.epoch() });
    return true;
  }

  private becomeReady(nowMs: number): void {
    const { roles, log, commit } = this;
    this.phase = "ready";
    // A copy's beginning is a step of its own; until then the tables stay as they were said to be.
    commit.dataHeld = this.copy && !this.plan!.resume;
    this.link.send({ kind: KIND_SESSION_READY, epoch: roles.epoch(), index: log.end });
    this.events.onFollowing(this.copy, nowMs);
  }

  // --- the primary --------------------------------------------------------------------------------

  onOpen(open: SessionOpen, nowMs: number): void {
    const { roles, log, commit } = this;
    if (open.epoch !== roles.epoch() || roles.adopting !== undefined) {
      this.tellState();
      return;
    }
    if (roles.duties.session !== "leads") return;
    const record = roles.record!;
    if (roles.modeBoth() && !bytesEqual(open.identity, identityOf(record, this.other()))) {
      this.problem = "the peer has another disk than the record names";
      return;
    }
    if (roles.asked !== undefined && !bytesEqual(open.identity, roles.asked.identity)) {
      this.problem = "the peer has another disk than the one that both was asked for with";
      return;
    }
    this.problem = "";
    this.reset();
    if (this.peerIdentity === undefined || !bytesEqual(this.peerIdentity, open.identity)) {
      roles.confirmed = 0;
      roles.joining = false;
    }
    this.peerIdentity = open.identity;
    this.theirCursor = open.copyCursor;
    const common = commonIndex(
      { base: log.base, end: log.flushed, boundaries: log.boundaries },
      { base: open.base, end: open.end, boundaries: open.boundaries },
    );
    const owed = Math.min(commit.durable.confirmedHigh, log.flushed);
    if (common < roles.confirmed || common < owed) {
      // Its disk lost what the two had confirmed: a backup put back in place has the same identity.
      // Nothing can be built on those confirms any more.
      if (bytesEqual(open.identity, identityOf(record, this.other()))) {
        this.ports.note("error", "confirmed-entries-lost-by-peer", { confirmed: owed, common });
      } else this.ports.note("info", "peer-has-another-disk", { confirmed: owed, common });
      roles.confirmed = 0;
      if (roles.modeBoth() || roles.asked !== undefined) {
        this.problem =
          common < 0
            ? tooFarApart(this.config.limits.boundariesMax)
            : "the peer has lost entries that were confirmed; it must join anew, in mode solo";
        this.events.onOutOfStep(nowMs);
        return;
      }
    }
    const reaches = common >= 0 && common >= log.base;
    const fromLog = reaches && common >= open.base && !open.copying;
    if (!fromLog && roles.joint()) {
      // A copy begins with clearing the tables of a disk that the record names as one that holds all. The
      // controller hears of it by the age of what is not confirmed, and writes solo first.
      this.problem = "the peer needs a copy of all data, which is made in mode solo only";
      this.ports.note("warn", "copy-refused", { common, base: open.base, joint: true });
      this.events.onOutOfStep(nowMs);
      return;
    }
    // What it confirmed is about to be cleared.
    if (!fromLog) roles.confirmed = 0;
    const resume = open.copying && reaches && common === open.end && open.copyCursor.length > 0;
    const plan: SessionPlan = {
      kind: KIND_SESSION_PLAN,
      epoch: roles.epoch(),
      identity: roles.identity,
      keepTo: common < 0 ? 0 : common,
      copy: !fromLog,
      resume,
      copyFrom: resume ? open.end : commit.durable.applied,
    };
    if (common < 0) {
      this.problem = tooFarApart(this.config.limits.boundariesMax);
      this.ports.note("warn", "logs-not-comparable", { theirEnd: open.end, ourEnd: log.end });
    }
    this.phase = "planned";
    this.sinceMs = nowMs;
    this.plan = plan;
    this.copy = plan.copy;
    this.ports.note("info", "session-planned", {
      keepTo: plan.keepTo,
      copy: plan.copy,
      resume: plan.resume,
      theirEnd: open.end,
      ourEnd: log.end,
    });
    this.link.send(plan);
  }

  onReady(ready: SessionReady, nowMs: number): void {
    const { roles, plan } = this;
    if (ready.epoch !== roles.epoch() || this.phase !== "planned" || plan === undefined) return;
    if (!plan.copy && ready.index !== plan.keepTo) {
      this.link.fault("session ready at " + ready.index + ", planned was " + plan.keepTo);
      return;
    }
    this.phase = "ready";
    this.problem = "";
    this.events.onLeading(plan.copy ? plan.copyFrom : plan.keepTo, plan, nowMs);
  }

  /** The copy is whole and the log has reached what it depends on: an ordinary session from here on. */
  copyDone(): void {
    this.copy = false;
    this.commit.dataHeld = false;
  }
}
