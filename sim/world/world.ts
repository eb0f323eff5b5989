/**
 * The virtual world's clock: nothing in it happens but through `at`, in order of virtual time.
 *
 * One seed decides everything: latencies, chunking, faults, what clients do.
 */
import { cheapHmac } from "../cheap-hmac.js";
import { EventQueue } from "./event-queue.js";
import { Random } from "./random.js";
import { Trace } from "./trace.js";

/**
 * Promises about what clients see and disks hold. The others (progress, assertion, bounded ...) are promises too, but a
 * broken rule must be caught by one of these: that a run stopped says nothing about data.
 */
export const SAFETY: ReadonlySet<string> = new Set([
  "no-lost-write",
  "one-primary",
  "linearizable",
  "exactly-once",
  "converges",
  "order",
  "reads-target",
]);

export interface Violation {
  /** Name of the checker or promise that failed. */
  promise: string;
  what: string;
  atMs: number;
}

export class World {
  /** @unit ms of virtual time since the run began */
  now = 0;
  readonly queue = new EventQueue();
  readonly random: Random;
  readonly trace: Trace;
  readonly violations: Violation[] = [];
  /** Faults that took effect, by kind. */
  readonly faults = new Map<string, number>();
  /** What was reached, by the keys of coverage.ts. */
  readonly covered = new Map<string, number>();
  /** How machines prove that they hold the pair's key. */
  hmac: (key: Uint8Array, data: Uint8Array) => Uint8Array = cheapHmac;

  constructor(
    readonly seed: number,
    readable: boolean,
    /** Only what is in SAFETY ends the run; a process that breaks an invariant of its own is started again. */
    readonly safetyOnly = false,
    /** Beside those. */
    private readonly counts: readonly string[] = [],
  ) {
    this.random = new Random(seed, "world");
    this.trace = new Trace(readable);
  }

  at(timeMs: number, action: () => void): void {
    this.queue.push(timeMs < this.now ? this.now : timeMs, action);
  }

  after(delayMs: number, action: () => void): void {
    this.queue.push(this.now + (delayMs > 0 ? delayMs : 0), action);
  }

  /** Runs until virtual time reaches `timeMs`, or a promise is broken, or `until` holds (asked after each event). */
  runTo(timeMs: number, until?: () => boolean): void {
    while (this.queue.headTime <= timeMs && this.violations.length === 0) {
      this.now = this.queue.headTime;
      this.queue.pop()();
      if (until !== undefined && until()) return;
    }
    if (this.violations.length === 0) this.now = timeMs;
  }

  violate(promise: string, what: string): void {
    if (this.safetyOnly && !SAFETY.has(promise) && !this.counts.includes(promise)) {
      this.trace.line(this.now, "PASSED BY", `${promise}: ${what}`);
      return;
    }
    this.violations.push({ promise, what, atMs: this.now });
    this.trace.line(this.now, "VIOLATION", `${promise}: ${what}`);
  }

  cover(key: string, count = 1): void {
    this.covered.set(key, (this.covered.get(key) ?? 0) + count);
  }

  countFault(kind: string): void {
    this.faults.set(kind, (this.faults.get(kind) ?? 0) + 1);
  }
}
