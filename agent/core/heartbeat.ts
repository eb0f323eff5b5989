/**
 * What this server says of itself: the answer to a poll (P1 load, P2 sync state, P11), and the report
 * on every new link. Also the ages the controller judges stalls by.
 */
import { IDENTITY_BYTES } from "../../protocol/record.js";
import type { Heartbeat } from "../../protocol/messages.js";
import { PROBLEM_BYTES_MAX } from "../../protocol/messages.js";
import type { AgentConfig } from "./config.js";
import type { ControllerLink } from "./controller-link.js";
import type { GroupCommit } from "./group-commit.js";
import type { PeerLink } from "./peer-link.js";
import type { AgentPorts, LoadSample } from "./ports.js";
import type { Rejoin } from "./rejoin.js";
import type { Roles } from "./roles.js";
import type { PeerSession } from "./session.js";
import type { Store } from "./store.js";
import type { SyncLog } from "./sync-log.js";

const NO_IDENTITY = new Uint8Array(IDENTITY_BYTES);
/** The load is sampled at most this often: polls come every few milliseconds. */
const SAMPLE_MS = 10;
const USAGE_MS = 500;
/** The loop itself is behind: reads are better sent elsewhere. @unit us */
const BRAKE_LOOP_US = 100000;
const MARKS_MAX = 4096;

/**
 * Since when the standby owes its confirm. An entry counts from when it was on disk here, which is when
 * it is sent; so a slow disk of the primary is never taken for a slow standby, and with the peer link
 * cut the time goes on.
 */
export class Unconfirmed {
  private indexes: number[] = [];
  private timesMs: number[] = [];
  private head = 0;
  private outOfStepMs = -1;

  flushed(index: number, nowMs: number): void {
    const last = this.indexes.length - 1;
    if (last >= this.head && this.indexes[last]! >= index) return;
    if (last - this.head >= MARKS_MAX) this.indexes[last] = index;
    else {
      this.indexes.push(index);
      this.timesMs.push(nowMs);
    }
  }

  confirmed(index: number): void {
    while (this.head < this.indexes.length && this.indexes[this.head]! <= index) this.head++;
    if (this.head > 64 && this.head * 2 > this.indexes.length) {
      this.indexes = this.indexes.slice(this.head);
      this.timesMs = this.timesMs.slice(this.head);
      this.head = 0;
    }
  }

  /** The standby is there but cannot confirm in this epoch: that too must end, before a write waits for it. */
  outOfStep(nowMs: number): void {
    if (this.outOfStepMs < 0) this.outOfStepMs = nowMs;
  }

  /** A session is open. */
  inStep(): void {
    this.outOfStepMs = -1;
  }

  ageMs(nowMs: number): number {
    const oldest = this.head < this.indexes.length ? nowMs - this.timesMs[this.head]! : 0;
    return this.outOfStepMs < 0 ? oldest : Math.max(oldest, nowMs - this.outOfStepMs);
  }

  /** Another epoch: what is unconfirmed counts from now. */
  restart(flushed: number, nowMs: number): void {
    this.indexes = [];
    this.timesMs = [];
    this.head = 0;
    this.outOfStepMs = -1;
    if (flushed > 0) this.flushed(flushed, nowMs);
  }
}

export class HeartbeatSource {
  private sample: LoadSample = { loadPermille: 0, cpuPermille: 0, runQueue: 0, loopDelayUs: 0 };
  private sampleMs = -Infinity;
  private usedPermille = 0;
  private usageMs = -Infinity;
  readonly unconfirmed = new Unconfirmed();

  constructor(
    private readonly config: AgentConfig,
    private readonly ports: AgentPorts,
    private readonly store: Store,
    private readonly roles: Roles,
    private readonly log: SyncLog,
    private readonly commit: GroupCommit,
    private readonly session: PeerSession,
    private readonly peer: PeerLink,
    private readonly controller: ControllerLink,
    private readonly rejoin: Rejoin,
    readonly bootNonce: Uint8Array,
    private readonly start: { value: number },
  ) {}

  /** When the oldest entry that is not on disk yet was appended. @returns its age, 0 when there is none */
  uncommittedMs(nowMs: number): number {
    const { commit, log } = this;
    if (commit.inFlight) {
      if (commit.entriesSinceMs > 0) return nowMs - commit.entriesSinceMs;
      // Entries may wait for a commit that holds none.
      const since = log.due() ? Math.min(commit.startedMs, log.waitingSinceMs) : commit.startedMs;
      return nowMs - since;
    }
    return log.due() ? nowMs - log.waitingSinceMs : 0;
  }

  unconfirmedMs(nowMs: number): number {
    if (!this.roles.leads() || !this.roles.joint()) return 0;
    return this.unconfirmed.ageMs(nowMs);
  }

  problem(nowMs: number): string {
    const { roles, session, log } = this;
    const said: string[] = [];
    if (roles.stopped !== "") said.push("stopped: " + roles.stopped);
    if (this.controller.refused() !== "")
      said.push("controller refuses: " + this.controller.refused());
    if (this.peer.refused() !== "") said.push("peer refuses: " + this.peer.refused());
    if (session.problem !== "") said.push(session.problem);
    if (roles.state() === "stranger" && !roles.copying) {
      said.push("the record names another disk of this server; it waits to join");
    }
    if (roles.copying) said.push("being copied to, entry " + log.end);
    if (this.usedPermille >= this.config.limits.brakePermille) {
      said.push("disk " + Math.floor(this.usedPermille / 10) + " % full");
    }
    void nowMs;
    return said.join("; ").slice(0, PROBLEM_BYTES_MAX);
  }

  private refresh(nowMs: number): void {
    if (nowMs - this.sampleMs >= SAMPLE_MS) {
      this.sampleMs = nowMs;
      this.sample = this.ports.load();
    }
    if (nowMs - this.usageMs >= USAGE_MS) {
      this.usageMs = nowMs;
      const { usedBytes, limitBytes } = this.store.usage();
      this.usedPermille = limitBytes > 0 ? Math.floor((usedBytes * 1000) / limitBytes) : 0;
    }
  }

  build(counter: number, nowMs: number): Heartbeat {
    this.refresh(nowMs);
    const { roles, log, session, sample, controller } = this;
    const leads = roles.leads();
    const { limits } = this.config;
    const { release } = controller;
    const asked = roles.asked;
    return {
      counter,
      linkNonce: controller.linkNonce(),
      serverId: this.config.id,
      record: roles.record,
      identity: roles.identity,
      bootNonce: this.bootNonce,
      asked: asked !== undefined,
      joining: roles.joining,
      sessionOpen: session.open() && !roles.copying,
      copying: roles.copying,
      preset: this.config.preset,
      peerUp: this.peer.isUp(nowMs),
      braking:
        this.usedPermille >= limits.brakePermille ||
        sample.loopDelayUs >= BRAKE_LOOP_US ||
        release.heldBytes >= limits.heldReplyBytesMax / 2,
      passedTold: roles.passedEpoch === roles.epoch() && roles.epoch() > 0,
      blank: roles.record === undefined && log.end === 0,
      uptimeMs: nowMs - this.start.value,
      logEnd: log.end,
      confirmed: leads ? roles.confirmed : Math.min(log.flushed, this.commit.durable.confirmedHigh),
      lagEntries: leads ? Math.max(0, log.end - roles.confirmed) : 0,
      oldestUnconfirmedMs: this.unconfirmedMs(nowMs),
      oldestUncommittedMs: this.uncommittedMs(nowMs),
      loadPermille: sample.loadPermille,
      cpuPermille: sample.cpuPermille,
      runQueue: sample.runQueue,
      loopDelayUs: sample.loopDelayUs,
      inFlight: release.waiting(),
      serviceUs: 0,
      askIdentity: asked === undefined ? NO_IDENTITY : asked.identity,
      askIndex: asked === undefined ? 0 : asked.index,
      wantsSolo: this.rejoin.wantsSolo(nowMs),
      problem: this.problem(nowMs),
    };
  }
}
