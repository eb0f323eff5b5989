/** Adds up what many runs did: for the live line, and for slices of seeds that are kept in files and summed. */
import { FAULT_KINDS } from "./options.js";
import type { RunResult } from "./run.js";

/** Kinds of faults in the line for people who watch. */
const FAULTS_TOLD = 4;
/** Failures that are kept in a file. */
const FAILURES_KEPT_MAX = 20;

/** What is added up as it stands. */
const SUMMED = [
  "seeds",
  "virtualMs",
  "events",
  "failovers",
  "records",
  "acknowledgedWrites",
  "reads",
  "standbyReads",
  "unknown",
  "failed",
  "waited",
] as const;

/** Totals as a file holds them. */
export interface TotalsRecord {
  numbers: Record<string, number>;
  faults: Record<string, number>;
  covered: Record<string, number>;
  failures: { seed: number; promise: string; what: string }[];
}

export class Totals {
  seeds = 0;
  virtualMs = 0;
  failovers = 0;
  records = 0;
  acknowledgedWrites = 0;
  reads = 0;
  standbyReads = 0;
  unknown = 0;
  failed = 0;
  events = 0;
  /** Runs that ended where the pair must wait for an operator. */
  waited = 0;
  readonly faults = new Map<string, number>();
  readonly covered = new Map<string, number>();
  readonly failures: RunResult[] = [];
  /** Failures read from files. */
  readonly failuresRead: TotalsRecord["failures"] = [];

  add(result: RunResult): void {
    this.seeds++;
    this.virtualMs += result.virtualMs;
    this.failovers += result.failovers;
    this.records += result.records;
    this.acknowledgedWrites += result.acknowledgedWrites;
    this.reads += result.reads;
    this.standbyReads += result.standbyReads;
    this.unknown += result.unknown;
    this.failed += result.failed;
    this.events += result.events;
    if (result.waited !== "") this.waited++;
    addAll(this.faults, result.faults);
    addAll(this.covered, result.covered);
    if (result.violation !== undefined) this.failures.push(result);
  }

  addRecord(record: TotalsRecord): void {
    for (const name of SUMMED) this[name] += record.numbers[name] ?? 0;
    addAll(this.faults, record.faults);
    addAll(this.covered, record.covered);
    this.failuresRead.push(...record.failures);
  }

  toRecord(): TotalsRecord {
    const numbers: Record<string, number> = {};
    for (const name of SUMMED) numbers[name] = Math.round(this[name]);
    return {
      numbers,
      faults: Object.fromEntries(this.faults),
      covered: Object.fromEntries(this.covered),
      failures: this.failures.slice(0, FAILURES_KEPT_MAX).map((failure) => ({
        seed: failure.seed,
        promise: failure.violation!.promise,
        what: failure.violation!.what,
      })),
    };
  }

  faultsInAll(): number {
    let sum = 0;
    for (const count of this.faults.values()) sum += count;
    return sum;
  }

  /** One line for people who watch. @param seconds since the first run began */
  progressLine(seconds: number): string {
    return (
      `${this.seeds} seeds (${(this.seeds / seconds).toFixed(1)} a second), ` +
      `${(this.virtualMs / 3.6e6).toFixed(2)} virtual hours (at ${(this.virtualMs / 1000 / seconds).toFixed(0)} virtual seconds a second), ` +
      `${this.faultsInAll()} faults (${this.mostFaults()}), ${this.failovers} failovers, ` +
      `${this.acknowledgedWrites} acknowledged writes and ${this.reads} reads checked ` +
      `(${this.standbyReads} from the standby), ${this.waited} waiting, ${this.failures.length} failures`
    );
  }

  private mostFaults(): string {
    const most = this.faultRows().filter(([, count]) => count > 0);
    const first = most.slice(0, FAULTS_TOLD).map(([kind, count]) => `${kind} ${count}`);
    return `of ${most.length} kinds: ${first.join(", ")}${most.length > FAULTS_TOLD ? " ..." : ""}`;
  }

  /** Each kind there is with its count, the most frequent first, zero included. */
  private faultRows(): [string, number][] {
    const counts = new Map<string, number>(FAULT_KINDS.map((kind) => [kind, 0]));
    addAll(counts, Object.fromEntries(this.faults));
    return [...counts].sort((x, y) => y[1] - x[1]);
  }

  /** One line for each kind of fault, as Markdown. */
  faultTable(): string {
    const rows = this.faultRows().map(([kind, count]) => `| ${kind} | ${count} |`);
    return ["| fault | times |", "| --- | ---: |", ...rows].join("\n");
  }
}

function addAll(into: Map<string, number>, from: Record<string, number>): void {
  for (const [key, count] of Object.entries(from)) into.set(key, (into.get(key) ?? 0) + count);
}
