/**
 * Expiry: a key is there until its expiry ENTRY. The primary writes such entries for keys past due in
 * bounded slices, so that a million keys due at once delay nobody; reads that find one first write its
 * entry themselves (the executor does). Idle client sessions end the same way.
 */
import type { AgentConfig } from "./config.js";
import type { Executor } from "./execution.js";
import type { Roles } from "./roles.js";
import type { CommandRunner } from "./run-command.js";
import type { SessionTable } from "./session-table.js";
import type { SyncLog } from "./sync-log.js";

/** Client sessions are looked through this often. */
const SWEEP_MS = 1000;
/** Entries on their way to the standby above which expiry can wait. */
const BACKLOG_ENTRIES_MAX = 4096;

export class Expiry {
  private nextMs = 0;
  private sweepMs = 0;

  constructor(
    private readonly config: AgentConfig,
    private readonly roles: Roles,
    private readonly log: SyncLog,
    private readonly executor: Executor,
    private readonly runner: CommandRunner,
    private readonly table: SessionTable,
  ) {}

  tick(nowMs: number): number {
    const { limits } = this.config;
    if (!this.roles.leads() || this.roles.adopting !== undefined) return Infinity;
    if (nowMs >= this.sweepMs) {
      this.sweepMs = nowMs + SWEEP_MS;
      this.sweep(nowMs);
    }
    if (nowMs < this.nextMs) return this.nextMs;
    this.nextMs = nowMs + limits.expireEveryMs;
    if (this.log.unflushed() > BACKLOG_ENTRIES_MAX) return this.nextMs;
    if (this.roles.joint() && this.log.end - this.roles.confirmed > BACKLOG_ENTRIES_MAX) {
      return this.nextMs;
    }
    for (let i = 0; i < limits.expireEntriesMax; i++) {
      const index = this.runner.appendEffects(
        (effects, timeMs) => this.executor.expireDue(timeMs, effects, limits.expireKeysMax),
        nowMs,
      );
      if (index === 0) return this.nextMs;
    }
    // More is due than one tick may take.
    this.nextMs = nowMs + 1;
    return this.nextMs;
  }

  private sweep(nowMs: number): void {
    const { limits } = this.config;
    const idle = this.table.idle(nowMs - limits.sessionIdleMs, limits.sessionSweepMax);
    if (idle.length === 0) return;
    this.runner.appendOps((ops) => {
      for (const session of idle) this.table.writeClose(ops, session.slot);
    }, nowMs);
  }
}
