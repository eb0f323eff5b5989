/**
 * The agent's core: one parent that decides, leaves that compute. It has no clock, socket or promise; its
 * shell hands in bytes, time and finished commits, and ends each turn of its loop with `endTurn`.
 *
 *     input ──> controller link ─┐                      ┌─> release queue ──> replies
 *               local port ──────┼─> command runner ──> │
 *               peer link ───────┘   (log, overlay)     └─> group commit ──> flushed ──> append, confirm
 *
 * What may be told when is decided in one place: `watermark`.
 */
import { isMalformed } from "../../protocol/malformed.js";
import {
  KIND_FORWARD,
  KIND_FORWARD_FAILED,
  KIND_GOODBYE,
  KIND_PEER_HEARTBEAT,
  KIND_RECORD,
  KIND_SESSION_OPEN,
  KIND_SESSION_PLAN,
  KIND_SESSION_READY,
  KIND_STATE,
  SESSION_ID_BYTES,
  decodeControl,
  decodePoll,
  encodeHeartbeat,
} from "../../protocol/messages.js";
import type { ControlMessage, PeerState, RecordMessage } from "../../protocol/messages.js";
import { bytesEqual, formatHex, primaryIdentity } from "../../protocol/record.js";
import type { RoleRecord } from "../../protocol/record.js";
import { unsealed } from "../../protocol/serial-seal.js";
import { BatchSource, BatchTarget } from "./batch-sync.js";
import type { AgentConfig } from "./config.js";
import { ControllerLink } from "./controller-link.js";
import type { Executor, Keyspace } from "./execution.js";
import { Expiry } from "./expiry.js";
import { DATA_ALL, DATA_FREE, GroupCommit, readStateRow } from "./group-commit.js";
import { HeartbeatSource } from "./heartbeat.js";
import { Jobs } from "./jobs.js";
import { LocalPort } from "./local-port.js";
import { LogClock } from "./log-clock.js";
import { PeerLink } from "./peer-link.js";
import type { AgentCore, AgentPorts, LinkKind } from "./ports.js";
import { AppendReceiver, AppendStream } from "./real-time-sync.js";
import { Rejoin } from "./rejoin.js";
import { DirtyKeys } from "./release.js";
import { replayLog } from "./replay.js";
import { Roles } from "./roles.js";
import { CommandRunner } from "./run-command.js";
import { ForwardServer, Forwarder } from "./second-real-time-sync.js";
import { SessionCheckpoint } from "./session-checkpoint.js";
import { SessionTable } from "./session-table.js";
import { PeerSession } from "./session.js";
import type { Store } from "./store.js";
import { SyncLog } from "./sync-log.js";

export type { AgentConfig } from "./config.js";

/**
 * @param store opened, of this disk
 * @param keyspace made over the same store; the core resets it
 * @throws when the store's content is damaged or of another version
 */
export function createAgent(
  config: AgentConfig,
  store: Store,
  keyspace: Keyspace,
  executor: Executor,
  ports: AgentPorts,
): AgentCore {
  return new Agent(config, store, keyspace, executor, ports);
}

class Agent implements AgentCore {
  private readonly roles: Roles;
  private readonly log: SyncLog;
  private readonly clock = new LogClock();
  private readonly table: SessionTable;
  private readonly dirty = new DirtyKeys();
  private readonly commit: GroupCommit;
  private readonly checkpoint: SessionCheckpoint;
  private readonly runner: CommandRunner;
  private readonly jobs: Jobs;
  private readonly controller: ControllerLink;
  private readonly peer: PeerLink;
  private readonly session: PeerSession;
  private readonly stream: AppendStream;
  private readonly receiver: AppendReceiver;
  private readonly source: BatchSource;
  private readonly target: BatchTarget;
  private readonly forwarder: Forwarder;
  private readonly forwards: ForwardServer;
  private readonly local: LocalPort;
  private readonly rejoin: Rejoin;
  private readonly expiry: Expiry;
  private readonly heartbeat: HeartbeatSource;
  private readonly bootNonce: Uint8Array;
  private nextRecord: RecordMessage | undefined;
  private forcedRecord = 0;
  /** The newest record heard of that is apart from this server's own (force). */
  private apartEpoch = 0;
  private started = false;
  private dead = false;
  private nowMs = 0;
  private readonly startMs: { value: number } = { value: 0 };

  constructor(
    private readonly config: AgentConfig,
    private readonly store: Store,
    private readonly keyspace: Keyspace,
    executor: Executor,
    private readonly ports: AgentPorts,
  ) {
    const { limits } = config;
    this.roles = new Roles(config.index, config.identity);
    this.log = new SyncLog(store, limits);
    this.table = new SessionTable(limits);
    this.commit = new GroupCommit(store, this.log, keyspace, limits, readStateRow(store));
    this.checkpoint = new SessionCheckpoint(
      store,
      this.table,
      this.log,
      this.commit,
      limits.checkpointBytes,
    );
    this.runner = new CommandRunner(
      this.log,
      this.clock,
      this.roles,
      this.table,
      this.dirty,
      keyspace,
      executor,
      limits,
      (count) => ports.random(count),
    );
    this.jobs = new Jobs(limits.jobsMax, limits.jobWorkPerTurn);
    this.bootNonce = ports.random(8);
    this.controller = new ControllerLink(
      config,
      ports,
      this.roles,
      this.runner,
      executor,
      this.jobs,
      {
        onRecord: (message, nowMs) => this.onRecord(message, nowMs),
        onPassed: (epoch, nowMs) => this.onPassed(epoch, nowMs),
        heartbeat: (nowMs) => this.heartbeat.build(0, nowMs),
        readsInSession: () => this.inStep(),
        forwardRead: (command, open, release, nowMs) =>
          this.forwarder.forward(command, true, nowMs, (end) => {
            if (end.kind === "entry") release.resolve(open, end.index, 0, end.reply);
            // Surely not done: the controller asks again.
            else release.resolve(open, 0, 1, Uint8Array.of(2));
          }),
        logEnd: () => this.log.end,
      },
    );
    this.peer = new PeerLink(config, ports, this.roles, {
      onPeerUp: (nowMs) => this.onPeerUp(nowMs),
      onPeerDown: (nowMs) => this.onPeerDown(nowMs),
      onMessage: (message, more, nowMs) => this.onPeerMessage(message, more, nowMs),
      onAppend: (epoch, more, bytes, start, end, nowMs) => {
        if (epoch !== this.roles.epoch() || this.roles.duties.session !== "follows") return;
        if (!this.session.ready()) return;
        this.receiver.onAppend(more, bytes, start, end, this.session.open(), nowMs);
      },
      onConfirm: (epoch, index, nowMs) => this.onConfirm(epoch, index, nowMs),
      onCopy: (epoch, more, bytes, start, end, nowMs) => {
        if (epoch !== this.roles.epoch() || !this.session.ready() || !this.session.copy) return;
        if (this.roles.duties.session === "follows") {
          this.target.onCopy(more, bytes, start, end, nowMs);
        } else {
          this.onCopyAck(bytes, start, end);
        }
      },
      peerHeartbeat: () => ({
        kind: KIND_PEER_HEARTBEAT,
        epoch: this.roles.epoch(),
        logEnd: this.log.flushed,
        confirmed: this.roles.confirmed,
      }),
    });
    this.stream = new AppendStream(config, this.roles, this.log, this.peer);
    this.session = new PeerSession(
      config,
      ports,
      this.roles,
      this.log,
      this.commit,
      keyspace,
      this.peer,
      {
        onCut: (nowMs) => this.onCut(nowMs),
        onFollowing: (copy, nowMs) => this.onFollowing(copy, nowMs),
        onLeading: (index, plan, nowMs) => {
          this.stream.begin(index);
          this.heartbeat.unconfirmed.inStep();
          this.forwards.reset();
          if (plan.copy) {
            this.source.begin(
              plan.copyFrom,
              plan.resume ? this.session.theirCursor : new Uint8Array(0),
              nowMs,
            );
          }
        },
        onOutOfStep: (nowMs) => this.heartbeat.unconfirmed.outOfStep(nowMs),
        cutting: (writer, keepTo) => this.checkpoint.cut(writer, keepTo),
        copyMark: () => this.target.mark(primaryIdentity(this.roles.record!)),
      },
    );
    this.forwarder = new Forwarder(
      config,
      this.roles,
      this.table,
      this.runner,
      this.peer,
      ports.random(SESSION_ID_BYTES),
      () => this.inStep(),
    );
    this.receiver = new AppendReceiver(
      config,
      this.roles,
      this.log,
      this.commit,
      this.clock,
      keyspace,
      this.table,
      this.peer,
      {
        onTouched: (keys, all, index) => {
          if (all) this.dirty.markAll(index);
          else this.dirty.mark(keys, index);
        },
        onResult: (entry, index) => this.forwarder.onResult(entry, index, this.nowMs),
      },
    );
    this.source = new BatchSource(
      config,
      this.roles,
      store,
      this.log,
      this.commit,
      this.checkpoint,
      this.stream,
      keyspace,
      this.peer,
    );
    this.target = new BatchTarget(
      config,
      this.roles,
      store,
      this.log,
      this.commit,
      this.clock,
      keyspace,
      this.table,
      this.checkpoint,
      this.peer,
      () => this.session,
      () => this.onCopyWhole(),
    );
    this.forwards = new ForwardServer(
      config,
      this.roles,
      executor,
      this.runner,
      this.peer,
      () => this.session.open() && this.roles.modeBoth(),
    );
    this.local = new LocalPort(
      config,
      ports,
      this.roles,
      this.log,
      this.runner,
      executor,
      this.jobs,
      this.forwarder,
    );
    this.rejoin = new Rejoin(
      config,
      ports,
      this.roles,
      this.log,
      this.commit,
      this.session,
      this.peer,
      this.controller,
      (nowMs) => this.onJointChanged(nowMs),
      (nowMs) => this.heartbeat.unconfirmedMs(nowMs),
    );
    this.expiry = new Expiry(config, this.roles, this.log, executor, this.runner, this.table);
    this.heartbeat = new HeartbeatSource(
      config,
      ports,
      store,
      this.roles,
      this.log,
      this.commit,
      this.session,
      this.peer,
      this.controller,
      this.rejoin,
      this.bootNonce,
      this.startMs,
    );
  }

  start(nowMs: number): void {
    this.nowMs = nowMs;
    this.startMs.value = nowMs;
    const { durable } = this.commit;
    this.log.load(durable.base, durable.logBytes, durable.timeMs);
    this.roles.load(this.store);
    this.target.load();
    this.keyspace.reset(durable.applied);
    this.checkpoint.load(this.log.end);
    replayLog(
      this.log,
      {
        keyspace: this.keyspace,
        table: this.table,
        applied: durable.applied,
        sessionsAt: this.commit.tableAt,
      },
      nowMs,
    );
    this.table.touchAll(nowMs);
    // Only a new pair looks at the wall: every other goes on from the log's last stamp.
    this.clock.observe(this.log.timeMs > 0 ? this.log.timeMs : this.ports.wallClockMs(), nowMs);
    this.keyspace.setEpoch(this.roles.epoch());
    this.dirty.markAll(this.log.end);
    this.heartbeat.unconfirmed.restart(this.log.flushed, nowMs);
    this.started = true;
    this.ports.note("info", "agent-start", {
      identity: formatHex(this.config.identity),
      epoch: this.roles.epoch(),
      role: this.roles.state(),
      logEnd: this.log.end,
      applied: durable.applied,
    });
    this.tick(nowMs);
  }

  // --- what may be told ---------------------------------------------------------------------------

  /** Replies may tell of the log up to here (rules 11 to 14). */
  private watermark(): number {
    const { roles, commit, log } = this;
    if (roles.stopped !== "") return 0;
    if (roles.leads() && roles.joint()) {
      // Heard confirmed, and that is on disk here as well (rule 8).
      return Math.min(roles.confirmed, commit.durable.confirmedHigh);
    }
    return log.flushed;
  }

  /** Standby in an open session of mode both: it may answer reads, and send commands to the primary. */
  private inStep(): boolean {
    return this.session.open() && this.roles.state() === "standby" && !this.roles.copying;
  }

  private releaseReplies(nowMs: number): void {
    const watermark = this.watermark();
    if (watermark > 0) this.dirty.reached(watermark);
    this.controller.release.advance(watermark);
    this.local.advance(watermark, nowMs);
  }

  /** Which entries can still be taken back decides what stays out of the tables. */
  private aimWriteBehind(): void {
    const { roles, commit } = this;
    // What a copy has still to send is kept, but not for a standby that never gets there.
    const pinned = this.source.active && this.log.bytes < 4 * this.config.limits.logBytesMax;
    commit.pin = pinned ? this.stream.sent : Infinity;
    commit.eager = this.source.active;
    const inStep = this.session.open() && roles.state() === "standby";
    commit.catchingUp =
      roles.duties.session === "follows" && this.peer.connected() && !roles.copying && !inStep;
    commit.upTo =
      roles.soloForGood() || this.source.active || roles.copying ? Infinity : commit.confirmedHigh;
  }

  private onJointChanged(nowMs: number): void {
    // What was told by the disk alone up to now must be dirty until it is confirmed.
    this.dirty.markAll(this.log.end);
    this.heartbeat.unconfirmed.restart(this.log.flushed, nowMs);
    this.heartbeat.unconfirmed.confirmed(this.roles.confirmed);
    this.releaseReplies(nowMs);
  }

  // --- records ------------------------------------------------------------------------------------

  private onRecord(message: RecordMessage, nowMs: number): void {
    const { record } = message;
    if (message.forced) this.forcedRecord = Math.max(this.forcedRecord, record.epoch);
    this.onHeardRecord(record, "controller", nowMs);
    if (message.forced && record.epoch === this.roles.epoch()) {
      this.roles.forcedEpoch = record.epoch;
    }
  }

  private onHeardRecord(record: RoleRecord, from: "controller" | "peer", nowMs: number): void {
    const verdict = this.roles.judge(record);
    if (verdict === "conflict") {
      this.stop("the " + from + " holds another record of epoch " + record.epoch);
    } else if (verdict === "foreign") {
      this.ports.note("error", "foreign-pair", { from, pair: formatHex(record.pairId) });
      this.session.problem = "the " + from + " belongs to another pair";
      if (from === "peer") this.peer.fault("a foreign pair");
    } else if (verdict === "adopt") {
      this.adopt(record, nowMs);
    } else if (verdict === "apart") {
      this.onApart(record, from, nowMs);
    }
  }

  /**
   * Two that were forced, each without the other (force). Which order was the later one no epoch tells; the controller whose
   * flash holds it does, by sending its record as a forced one. Until then this server keeps its own.
   */
  private onApart(record: RoleRecord, from: "controller" | "peer", nowMs: number): void {
    if (from === "controller" && this.forcedRecord === record.epoch) {
      if (record.epoch > this.roles.epoch()) this.adopt(record, nowMs);
      return;
    }
    this.session.problem = "this server and the other were each forced without the other";
    if (record.epoch === this.apartEpoch) return;
    this.apartEpoch = record.epoch;
    this.ports.note("error", "forced-apart", { from, epoch: record.epoch });
    // It may be the one that no longer counts. The controller tells the one that does on a new connection.
    this.roles.passedEpoch = 0;
    if (from === "controller") return;
    this.endSession();
    this.rejoin.onSessionEnded(nowMs);
    this.controller.renew("the two servers were forced apart", nowMs);
  }

  /** Rule 3: one durable step; everything that comes in meanwhile waits. */
  private adopt(record: RoleRecord, nowMs: number): void {
    const { roles } = this;
    if (roles.adopting !== undefined) {
      if (record.epoch > roles.adopting.epoch) {
        this.nextRecord = { kind: 7, record, fresh: false, forced: false };
      }
      return;
    }
    roles.adopting = record;
    this.controller.park();
    this.peer.park();
    this.local.park();
    const forcedHere = this.forcedRecord === record.epoch && record.primary === roles.me;
    this.commit.add({
      name: "record",
      urgent: true,
      // Nothing of what came with a copy stays in its log.
      data: forcedHere && roles.copying ? DATA_ALL : DATA_FREE,
      fill: (writer) => {
        roles.write(writer, record, undefined);
        // Also when the copy began in this very commit.
        if (forcedHere) this.target.take(writer, record);
      },
      onFlushed: (flushedMs) => {
        if (forcedHere && this.target.taken()) {
          // The copy may have begun after the console said what would be lost.
          this.ports.note("warn", "forced-in-a-copy", { epoch: record.epoch });
        }
        this.adopted(record, flushedMs);
      },
    });
    void nowMs;
  }

  private adopted(record: RoleRecord, nowMs: number): void {
    const { roles } = this;
    const led = roles.leads();
    roles.adopted(record);
    if (this.forcedRecord === record.epoch) roles.forcedEpoch = record.epoch;
    this.ports.note("info", "record-adopted", {
      epoch: record.epoch,
      primary: record.primary,
      mode: record.mode,
      role: roles.state(),
    });
    this.endSession();
    this.rejoin.onAdopted();
    const leads = roles.leads();
    if (leads) this.keyspace.setEpoch(record.epoch);
    if (!led || !leads) this.jobs.cancelAll();
    // Until the first confirm of the epoch every key is dirty (rule 13).
    this.dirty.markAll(this.log.end);
    this.heartbeat.unconfirmed.restart(this.log.flushed, nowMs);
    this.forwarder.dropAll("the servers' roles have changed");
    this.local.adopted(nowMs);
    const next = this.nextRecord;
    this.nextRecord = undefined;
    this.controller.release.watermark = 0;
    this.controller.adopted(led && leads, nowMs);
    if (next !== undefined) this.onHeardRecord(next.record, "controller", nowMs);
    this.session.tellState();
    this.peer.resume(nowMs);
    this.releaseReplies(nowMs);
  }

  private onPassed(epoch: number, nowMs: number): void {
    if (epoch !== this.roles.epoch()) return;
    this.roles.passedEpoch = epoch;
    this.releaseReplies(nowMs);
  }

  /** Equal epoch, other content (rule 19): this server answers nothing any more until people have looked. */
  private stop(why: string): void {
    this.roles.stop(why);
    this.ports.note("error", "stopped", { why });
    this.jobs.cancelAll();
    this.controller.dropReplies();
    this.forwarder.dropAll("this server has stopped");
    this.endSession();
    this.local.adopted(this.nowMs);
    this.peer.fault("stopped: " + why);
  }

  // --- the peer -----------------------------------------------------------------------------------

  private onPeerUp(nowMs: number): void {
    this.endSession();
    this.session.peerEpoch = 0;
    this.session.tellState();
    void nowMs;
  }

  private onPeerDown(nowMs: number): void {
    this.endSession();
    this.session.onPeerDown();
    this.rejoin.onSessionEnded(nowMs);
  }

  private endSession(): void {
    this.session.reset();
    this.stream.end();
    this.source.end();
    this.receiver.end();
    this.target.end();
    this.forwards.reset();
  }

  private onPeerMessage(message: ControlMessage, more: boolean, nowMs: number): void {
    switch (message.kind) {
      case KIND_STATE:
        this.onPeerState(message, nowMs);
        break;
      case KIND_SESSION_OPEN:
        this.stream.end();
        this.source.end();
        this.session.onOpen(message, nowMs);
        break;
      case KIND_SESSION_PLAN:
        this.session.onPlan(message, nowMs);
        break;
      case KIND_SESSION_READY:
        this.session.onReady(message, nowMs);
        break;
      case KIND_FORWARD:
        this.forwards.onForward(message, more, nowMs);
        break;
      case KIND_FORWARD_FAILED:
        if (message.epoch === this.roles.epoch()) this.forwarder.onFailed(message);
        break;
      case KIND_PEER_HEARTBEAT:
        // An epoch told here that differs means one of the two has not heard the other's record.
        if (message.epoch !== this.roles.epoch() && message.epoch !== this.session.peerEpoch) {
          this.session.tellState();
          this.session.peerEpoch = message.epoch;
        }
        break;
      case KIND_GOODBYE:
        break;
      default:
        this.peer.fault("unexpected message on the peer link");
    }
  }

  private onPeerState(state: PeerState, nowMs: number): void {
    const former = this.session.peerIdentity;
    this.session.onState(state);
    if (former !== undefined && !bytesEqual(former, state.identity)) {
      // Another disk: nothing it has not confirmed itself counts.
      this.roles.confirmed = 0;
      this.rejoin.onSessionEnded(nowMs);
    }
    if (state.record !== undefined) this.onHeardRecord(state.record, "peer", nowMs);
  }

  private onConfirm(epoch: number, index: number, nowMs: number): void {
    const { roles, session, commit } = this;
    if (epoch !== roles.epoch() || !roles.leads() || !session.open()) return;
    if (index > this.stream.sent) {
      this.peer.fault("confirm of entry " + index + ", sent were " + this.stream.sent);
      return;
    }
    this.stream.onArrived(index);
    if (index <= roles.confirmed) return;
    roles.confirmed = index;
    commit.confirmedHigh = Math.max(commit.confirmedHigh, index);
    this.heartbeat.unconfirmed.confirmed(index);
    void nowMs;
  }

  private onCopyAck(bytes: Uint8Array, start: number, end: number): void {
    const whole = this.source.onAck(bytes, start, end);
    if (whole === undefined) {
      this.peer.fault("malformed copy acknowledgement");
    } else if (whole) {
      this.source.end();
      this.session.copyDone();
      this.ports.note("info", "copy-done", { index: this.stream.arrived });
    }
  }

  /** Standby: the log was cut; the tables are as of `applied`, and what is left of the log goes on top. */
  private onCut(nowMs: number): void {
    const { durable } = this.commit;
    this.keyspace.reset(durable.applied);
    this.checkpoint.load(this.log.end);
    replayLog(
      this.log,
      {
        keyspace: this.keyspace,
        table: this.table,
        applied: durable.applied,
        sessionsAt: this.commit.tableAt,
      },
      nowMs,
    );
    this.table.touchAll(nowMs);
    if (this.log.timeMs > 0) this.clock.observe(this.log.timeMs, nowMs);
    // A read that waited for an entry that was set aside would wait until the log is that long again.
    this.dirty.cutTo(this.log.end);
  }

  private onFollowing(copy: boolean, nowMs: number): void {
    this.receiver.begin();
    this.target.beginSession();
    if (!copy) {
      this.commit.confirmedHigh = Math.max(this.commit.confirmedHigh, this.log.end);
      this.forwarder.onSessionOpen();
    }
    void nowMs;
  }

  /** Standby: the copy is whole and marked so on disk. */
  private onCopyWhole(): void {
    // The log is another one, and may be shorter. A read that waited for an entry of the former one would wait until this one
    // is as long, so this holds as well when an adoption has ended the session meanwhile.
    this.dirty.cutTo(this.log.end);
    if (!this.session.ready()) return;
    this.session.copyDone();
    // What it confirmed before the copy was of another log.
    this.commit.confirmedHigh = this.log.end;
    this.ports.note("info", "copy-whole", { index: this.log.end });
  }

  // --- the shell ----------------------------------------------------------------------------------

  onOpen(connection: number, kind: LinkKind, accepted: boolean, nowMs: number): void {
    if (this.dead) return;
    this.nowMs = nowMs;
    if (kind === "controller") this.controller.onOpen(connection, nowMs);
    else if (kind === "peer") this.peer.onOpen(connection, accepted, nowMs);
    else this.local.onOpen(connection);
  }

  onDialFailed(kind: "controller" | "peer", nowMs: number): void {
    if (this.dead) return;
    this.nowMs = nowMs;
    if (kind === "controller") this.controller.onDialFailed(nowMs);
    else this.peer.onDialFailed(nowMs);
  }

  onBytes(connection: number, bytes: Uint8Array, start: number, end: number, nowMs: number): void {
    if (this.dead) return;
    this.nowMs = nowMs;
    if (this.controller.owns(connection)) this.controller.onBytes(bytes, start, end, nowMs);
    else if (this.peer.owns(connection)) this.peer.onBytes(connection, bytes, start, end, nowMs);
    else if (this.local.owns(connection)) this.local.onBytes(connection, bytes, start, end, nowMs);
  }

  onDrained(connection: number, nowMs: number): void {
    this.nowMs = nowMs;
    if (this.local.owns(connection)) this.local.advance(this.watermark(), nowMs);
  }

  onClosed(connection: number, nowMs: number): void {
    if (this.dead) return;
    this.nowMs = nowMs;
    if (this.controller.owns(connection)) this.controller.onClosed(nowMs);
    else if (this.peer.owns(connection)) this.peer.onClosed(connection, nowMs);
    else this.local.onClosed(connection);
  }

  onPoll(from: unknown, bytes: Uint8Array, nowMs: number): void {
    if (this.dead) return;
    this.nowMs = nowMs;
    const poll = decodePoll(bytes, 0, bytes.length);
    if (isMalformed(poll)) return;
    if (!this.controller.onPoll(poll.sessionId, poll.linkNonce, nowMs)) return;
    this.ports.datagram(from, encodeHeartbeat(this.heartbeat.build(poll.counter, nowMs)));
  }

  onSealed(payload: Uint8Array, nowMs: number): void {
    if (this.dead) return;
    this.nowMs = nowMs;
    const { key, id } = this.config;
    const nonce = this.heartbeat.bootNonce;
    const told = unsealed(this.ports.hmac, key, nonce, id, payload, 0, payload.length);
    if (told === undefined) {
      this.ports.note("debug", "bad-seal");
      return;
    }
    const message = decodeControl(told, 0, told.length);
    // Nothing but a record has business on this path.
    if (isMalformed(message) || message.kind !== KIND_RECORD) return;
    this.ports.note("info", "record-by-serial", { epoch: message.record.epoch });
    this.onRecord(message, nowMs);
  }

  endTurn(nowMs: number): void {
    if (this.dead || !this.started) return;
    this.nowMs = nowMs;
    const settled = this.commit.settle(nowMs);
    if (settled !== undefined && settled !== "") {
      // Never retried: what the disk holds now is not known.
      this.dead = true;
      this.ports.fatal(settled);
      return;
    }
    if (settled === "") this.afterFlush(nowMs);
    this.jobs.step();
    this.session.tick(nowMs);
    this.rejoin.tick(nowMs);
    this.confirm();
    this.sendOn(nowMs);
    this.controller.runPostponed(nowMs);
    this.releaseReplies(nowMs);
    this.checkpoint.tick();
    this.aimWriteBehind();
    this.commit.begin(nowMs);
    this.controller.release.flush();
    this.controller.endTurn();
  }

  private afterFlush(nowMs: number): void {
    const { roles } = this;
    if (roles.leads()) {
      if (roles.joint()) {
        this.heartbeat.unconfirmed.flushed(this.log.flushed, nowMs);
        this.heartbeat.unconfirmed.confirmed(roles.confirmed);
      }
    }
  }

  /** The standby's side: what is on disk is confirmed, or acknowledged to the copy. */
  private confirm(): void {
    const { roles, session } = this;
    if (roles.duties.session !== "follows" || !session.ready()) return;
    if (session.copy) this.target.advance();
    else this.receiver.confirm();
  }

  /** The primary's side of a session: what the window allows goes out. */
  private sendOn(nowMs: number): void {
    this.stream.beginTurn(nowMs);
    if (!this.stream.active) return;
    const { log, commit } = this;
    const limit = this.source.active ? Math.min(log.flushed, commit.durable.applied) : log.flushed;
    if (!this.stream.pump(limit)) {
      this.peer.fault("the log no longer reaches back to what the peer needs");
      return;
    }
    this.source.pump();
  }

  tick(nowMs: number): number {
    if (this.dead || !this.started) return nowMs + 1000;
    this.nowMs = nowMs;
    let next = this.controller.tick(nowMs);
    next = Math.min(next, this.peer.tick(nowMs));
    next = Math.min(next, this.session.tick(nowMs));
    next = Math.min(next, this.rejoin.tick(nowMs));
    next = Math.min(next, this.expiry.tick(nowMs));
    next = Math.min(next, this.forwarder.tick(nowMs));
    // What one turn has left over is for the next, after the input that came meanwhile.
    next = Math.min(next, this.stream.dueMs());
    if (this.jobs.count() > 0) next = nowMs;
    else if (this.keyspace.overlaySize() > 0) next = Math.min(next, nowMs + 100);
    return next;
  }

  status(nowMs: number): object {
    const { roles, log, commit, session } = this;
    const heartbeat = this.heartbeat.build(0, nowMs);
    return {
      id: this.config.id,
      role: roles.state(),
      epoch: roles.epoch(),
      mode: roles.record === undefined ? "none" : roles.modeBoth() ? "both" : "solo",
      identity: formatHex(roles.identity),
      pair: roles.record === undefined ? "" : formatHex(roles.record.pairId),
      controllerLink: this.controller.isUp(),
      peerLink: this.peer.isUp(nowMs),
      session: session.phase + (session.copy ? " (copy)" : ""),
      joining: roles.joining,
      asked: roles.asked !== undefined,
      copying: roles.copying,
      log: {
        base: log.base,
        end: log.end,
        flushed: log.flushed,
        confirmed: roles.confirmed,
        confirmedHigh: commit.durable.confirmedHigh,
        applied: commit.durable.applied,
        bytes: log.bytes,
        sent: this.stream.sent,
      },
      overlayKeys: this.keyspace.overlaySize(),
      sessions: this.table.count(),
      commits: commit.commits,
      commands: this.controller.commands,
      waiting: heartbeat.inFlight,
      localClients: this.local.count(),
      forwards: this.forwarder.count(),
      uptimeMs: heartbeat.uptimeMs,
      loadPermille: heartbeat.loadPermille,
      problem: heartbeat.problem,
      store: this.store.usage(),
    };
  }
}
