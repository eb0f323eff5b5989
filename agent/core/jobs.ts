/**
 * Long commands, advanced in steps: a turn of the loop gives all of them a bounded amount of work, so
 * that a KEYS over a million keys delays no heartbeat and no other client.
 */
import type { Job } from "./execution.js";

/** Gets the whole reply; the bytes are its own. */
export type JobDone = (reply: Uint8Array) => void;

interface Running {
  job: Job;
  done: JobDone;
}

export class Jobs {
  private readonly running: Running[] = [];
  private next = 0;

  constructor(
    private readonly max: number,
    private readonly workPerTurn: number,
  ) {}

  full(): boolean {
    return this.running.length >= this.max;
  }

  count(): number {
    return this.running.length;
  }

  add(job: Job, done: JobDone): void {
    this.running.push({ job, done });
  }

  /** One turn's work, shared fairly. @returns true when some are not finished */
  step(): boolean {
    const count = this.running.length;
    if (count === 0) return false;
    const share = Math.max(1, Math.floor(this.workPerTurn / count));
    for (let i = 0; i < count && this.running.length > 0; i++) {
      if (this.next >= this.running.length) this.next = 0;
      const { job, done } = this.running[this.next]!;
      if (!job.step(share)) {
        this.next++;
        continue;
      }
      this.running.splice(this.next, 1);
      done(job.reply.bytes.slice(0, job.reply.length));
    }
    return this.running.length > 0;
  }

  cancelAll(): void {
    for (const { job } of this.running) job.cancel();
    this.running.length = 0;
    this.next = 0;
  }
}
