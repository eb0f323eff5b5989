/**
 * How busy this server is (P1): the CPUs it may run on, its own event loop, and what waits to run.
 *
 * Figures are taken at most every SAMPLE_MS, however often they are asked for, because reading
 * /proc costs more than a heartbeat.
 */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { availableParallelism } from "node:os";
import { type IntervalHistogram, monitorEventLoopDelay, performance } from "node:perf_hooks";
import type { LoadSample } from "./core/ports.js";

const SAMPLE_MS = 200;
/** The worst loop delay is that of the last one to two of these. */
const DELAY_WINDOW_MS = 1000;
const DELAY_RESOLUTION_MS = 10;

export interface CpuTimes {
  busy: number;
  total: number;
  runQueue: number;
}

/** Numbers of a list such as "0-2,5" (the form of Cpus_allowed_list). */
export function parseCpuList(text: string): number[] {
  const cpus: number[] = [];
  for (const part of text.trim().split(",")) {
    const [from, to] = part.split("-");
    const first = Number(from);
    const last = to === undefined ? first : Number(to);
    if (from === "" || !Number.isInteger(first) || !Number.isInteger(last)) continue;
    for (let cpu = first; cpu <= last && cpus.length < 4096; cpu++) cpus.push(cpu);
  }
  return cpus;
}

/** Ticks spent by the given CPUs, from the text of /proc/stat. */
export function parseCpuTimes(text: string, cpus: number[]): CpuTimes {
  const wanted = new Set(cpus.map((cpu) => `cpu${cpu}`));
  const times: CpuTimes = { busy: 0, total: 0, runQueue: 0 };
  for (const line of text.split("\n")) {
    const fields = line.split(" ");
    if (wanted.has(fields[0]!)) {
      let total = 0;
      // user nice system idle iowait irq softirq steal; guest time is already in user.
      for (let i = 1; i <= 8; i++) total += Number(fields[i] ?? 0);
      const idle = Number(fields[4]) + Number(fields[5]);
      times.total += total;
      times.busy += total - idle;
    } else if (fields[0] === "procs_running") {
      times.runQueue = Number(fields[1]);
    }
  }
  return times;
}

function permille(share: number): number {
  return Math.round(Math.min(1, Math.max(0, share)) * 1000);
}

/** The CPUs this process may run on; the machine's figure over all of them says little to a pinned one. */
function allowedCpus(): number[] {
  try {
    const status = readFileSync("/proc/self/status", "latin1");
    const list = /^Cpus_allowed_list:\s*(.+)$/m.exec(status);
    if (list !== null) return parseCpuList(list[1]!);
  } catch {
    // Not Linux: the caller falls back to the process's own share.
  }
  return [];
}

export class LoadProbe {
  private readonly delay: IntervalHistogram;
  private readonly statFile: number | undefined;
  private readonly statBuffer = Buffer.alloc(64 * 1024);
  private cpus = allowedCpus();
  private cpusAtMs = 0;
  private before: CpuTimes | undefined;
  private loop = performance.eventLoopUtilization();
  private usage = process.cpuUsage();
  private sampledAtMs = -Infinity;
  private delayWindowAtMs = 0;
  private delayBeforeUs = 0;
  private sample: LoadSample = { loadPermille: 0, cpuPermille: 0, runQueue: 0, loopDelayUs: 0 };

  constructor() {
    this.delay = monitorEventLoopDelay({ resolution: DELAY_RESOLUTION_MS });
    this.delay.enable();
    try {
      this.statFile = openSync("/proc/stat", "r");
    } catch {
      this.statFile = undefined;
    }
  }

  read(nowMs: number): LoadSample {
    const elapsedMs = nowMs - this.sampledAtMs;
    if (elapsedMs < SAMPLE_MS) return this.sample;
    this.sampledAtMs = nowMs;
    if (nowMs - this.cpusAtMs > 5000) {
      this.cpusAtMs = nowMs;
      this.cpus = allowedCpus();
    }
    const usage = process.cpuUsage();
    const usedMs = (usage.user - this.usage.user + usage.system - this.usage.system) / 1000;
    this.usage = usage;
    const own = elapsedMs === Infinity ? 0 : usedMs / elapsedMs / availableParallelism();
    let cpu = own;
    let runQueue = 0;
    const times = this.cpuTimes();
    if (times !== undefined) {
      runQueue = times.runQueue;
      if (this.before !== undefined && times.total > this.before.total) {
        cpu = Math.max(own, (times.busy - this.before.busy) / (times.total - this.before.total));
      }
      this.before = times;
    }
    const loop = performance.eventLoopUtilization();
    const loopShare = performance.eventLoopUtilization(loop, this.loop).utilization;
    this.loop = loop;
    const cpuPermille = permille(cpu);
    this.sample = {
      cpuPermille,
      loadPermille: Math.max(cpuPermille, permille(loopShare)),
      runQueue,
      loopDelayUs: this.worstDelayUs(nowMs),
    };
    return this.sample;
  }

  close(): void {
    this.delay.disable();
    if (this.statFile !== undefined) closeSync(this.statFile);
  }

  private cpuTimes(): CpuTimes | undefined {
    if (this.statFile === undefined || this.cpus.length === 0) return undefined;
    try {
      const count = readSync(this.statFile, this.statBuffer, 0, this.statBuffer.length, 0);
      return parseCpuTimes(this.statBuffer.toString("latin1", 0, count), this.cpus);
    } catch {
      return undefined;
    }
  }

  private worstDelayUs(nowMs: number): number {
    // The histogram counts from one timer to the next, so an idle loop shows its resolution.
    const worstUs = this.delay.count === 0 ? 0 : this.delay.max / 1000 - DELAY_RESOLUTION_MS * 1000;
    const nowUs = Math.max(0, Math.round(worstUs));
    const shownUs = Math.max(nowUs, this.delayBeforeUs);
    if (nowMs - this.delayWindowAtMs >= DELAY_WINDOW_MS) {
      this.delayWindowAtMs = nowMs;
      this.delayBeforeUs = nowUs;
      this.delay.reset();
    }
    return shownUs;
  }
}
