/**
 * Rejoin (rule 17): how a solo primary takes the other server back in.
 *
 *     alone ──in step, nearly caught up──> joining(j) ──confirmed >= j, asked on disk──> asked ──record──> alone
 *       ^──────── lost, or no progress ───────┘                                            │
 *                                                      lost: asks for solo, again and again ┘
 *
 * From `joining` on, acknowledgements and reads need the other's confirm. So it begins at a moment when all there is
 * is confirmed, and no read has to wait for anything; under a load that leaves no such moment it begins soon all the
 * same. Before `asked` it may be given up; after it this server stays joint, through restarts, until it adopts a higher epoch.
 */
import { MODE_BOTH, MODE_SOLO, bytesEqual } from "../../protocol/record.js";
import type { AgentConfig } from "./config.js";
import type { ControllerLink } from "./controller-link.js";
import { DATA_FREE } from "./group-commit.js";
import type { GroupCommit } from "./group-commit.js";
import type { PeerLink } from "./peer-link.js";
import type { AgentPorts } from "./ports.js";
import type { Roles } from "./roles.js";
import type { PeerSession } from "./session.js";
import type { SyncLog } from "./sync-log.js";

export class Rejoin {
  /** Log end when joining began. */
  private joinIndex = 0;
  private progress = 0;
  private progressMs = 0;
  private notBeforeMs = 0;
  /** When the other was first nearly caught up in this session, though a burst may put it back again; -1: not yet. */
  private nearSinceMs = -1;
  /** Log end at a moment, to see how long the other takes to get there, and that moment; -1: none in this session. */
  private markIndex = 0;
  private markMs = -1;
  private writing = false;
  private askedMs = -Infinity;
  private lostSinceMs = -1;

  constructor(
    private readonly config: AgentConfig,
    private readonly ports: AgentPorts,
    private readonly roles: Roles,
    private readonly log: SyncLog,
    private readonly commit: GroupCommit,
    private readonly session: PeerSession,
    private readonly peer: PeerLink,
    private readonly controller: ControllerLink,
    /** Joining has begun or ended: what may be told changes. */
    private readonly onJointChanged: (nowMs: number) => void,
    /** Age of the oldest entry that is not confirmed. */
    private readonly unconfirmedMs: (nowMs: number) => number,
  ) {}

  /** Rule 3: adoption clears all of it. */
  onAdopted(): void {
    this.writing = false;
    this.lostSinceMs = -1;
    this.notBeforeMs = 0;
    this.nearSinceMs = -1;
    this.markMs = -1;
    this.askedMs = -Infinity;
  }

  /** The session has ended, or the peer's disk is another: before `asked` the join is over. */
  onSessionEnded(nowMs: number): void {
    if (this.roles.joining && this.roles.asked === undefined && !this.writing) {
      this.giveUp("the session ended", nowMs, 0);
    }
  }

  private giveUp(why: string, nowMs: number, pauseMs: number): void {
    this.roles.joining = false;
    this.notBeforeMs = nowMs + pauseMs;
    this.ports.note("info", "join-given-up", { why });
    this.onJointChanged(nowMs);
  }

  /** The other was lost after `asked`: only the controller can end that, with a new epoch. */
  wantsSolo(nowMs: number): boolean {
    return this.lostSinceMs >= 0 && nowMs - this.lostSinceMs >= this.config.limits.peerSilentMs;
  }

  tick(nowMs: number): number {
    const { roles, session, config } = this;
    const { limits } = config;
    if (roles.state() !== "solo" || roles.adopting !== undefined) return Infinity;
    if (roles.asked !== undefined) return this.tickAsked(nowMs);
    if (this.writing) return Infinity;
    if (roles.joining) {
      if (roles.confirmed >= this.joinIndex) {
        this.writeAsked();
        return Infinity;
      }
      if (roles.confirmed > this.progress) {
        this.progress = roles.confirmed;
        this.progressMs = nowMs;
      }
      const bound = Math.min(limits.stallMs, limits.joinGiveUpMs);
      if (!this.peer.isUp(nowMs)) this.giveUp("the peer is silent", nowMs, 0);
      else if (nowMs - this.progressMs >= bound) {
        this.giveUp("no progress within " + bound + " ms", nowMs, limits.joinGiveUpMs);
      }
      return nowMs + limits.peerHeartbeatMs;
    }
    if (!session.open() || nowMs < this.notBeforeMs) {
      this.nearSinceMs = -1;
      this.markMs = -1;
      return Math.max(this.notBeforeMs, nowMs + 50);
    }
    const keptUp = this.keptUp(nowMs);
    if (this.log.end - roles.confirmed > limits.joinLagEntries && !keptUp) return nowMs + 50;
    if (this.nearSinceMs < 0) this.nearSinceMs = nowMs;
    // As a joint primary it would be told only up to here (rule 13).
    const told = Math.min(roles.confirmed, this.commit.durable.confirmedHigh);
    const patienceEndsMs = this.nearSinceMs + limits.joinPatienceMs;
    if (this.log.end > told && nowMs < patienceEndsMs) return patienceEndsMs;
    this.nearSinceMs = -1;
    roles.joining = true;
    this.joinIndex = this.log.end;
    this.progress = roles.confirmed;
    this.progressMs = nowMs;
    this.ports.note("info", "joining", { index: this.joinIndex });
    this.onJointChanged(nowMs);
    return this.tick(nowMs);
  }

  /**
   * Whether the other has just confirmed all that there was up to `joinPatienceMs` ago. With many writes and a long way to it, it
   * is behind by many entries for ever, and yet by no more time than a client can be let wait.
   */
  private keptUp(nowMs: number): boolean {
    if (this.markMs >= 0 && this.roles.confirmed < this.markIndex) return false;
    const kept = this.markMs >= 0 && nowMs - this.markMs <= this.config.limits.joinPatienceMs;
    this.markIndex = this.log.end;
    this.markMs = nowMs;
    return kept;
  }

  private writeAsked(): void {
    const { roles } = this;
    this.writing = true;
    const asked = { identity: this.session.peerIdentity!.slice(), index: this.joinIndex };
    const { record } = roles;
    this.commit.add({
      name: "asked",
      urgent: true,
      data: DATA_FREE,
      fill: (writer) => {
        // A record adopted meanwhile has cleared all of this.
        if (roles.record === record) roles.write(writer, record, asked);
      },
      onFlushed: (nowMs) => {
        this.writing = false;
        if (roles.record !== record) return;
        roles.asked = asked;
        this.ports.note("info", "asked-for-both", { index: asked.index });
        this.tickAsked(nowMs);
      },
    });
  }

  private tickAsked(nowMs: number): number {
    const { roles, session, config, controller } = this;
    const { limits } = config;
    const asked = roles.asked!;
    const here =
      this.peer.isUp(nowMs) &&
      session.open() &&
      this.unconfirmedMs(nowMs) < limits.stallMs &&
      bytesEqual(session.peerIdentity!, asked.identity);
    if (here) {
      this.lostSinceMs = -1;
    } else if (this.lostSinceMs < 0) {
      // A silence has lasted that long already; a link that closed may be open again at once.
      const silent = this.peer.connected() && !this.peer.isUp(nowMs);
      this.lostSinceMs = silent ? nowMs - limits.peerSilentMs : nowMs;
    }
    if (nowMs - this.askedMs < limits.askEveryMs) return this.askedMs + limits.askEveryMs;
    this.askedMs = nowMs;
    if (!here && !this.wantsSolo(nowMs)) return nowMs + limits.askEveryMs;
    const mode = here ? MODE_BOTH : MODE_SOLO;
    controller.ask(mode, roles.epoch(), asked.identity, asked.index);
    return nowMs + limits.askEveryMs;
  }
}
