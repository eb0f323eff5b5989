/** What Linux says of a process, and doing things to it from outside. */
import { execFile, execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";

const TICKS_PER_SECOND = 100;

export const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/** Monotonic. @unit ms, a float */
export const nowMs = (): number => performance.now();

/** True while the process runs (a zombie does not). */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** Its words as started; "" when it has ended. */
export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "";
  }
}

/** User and system time of all its threads so far. @unit s */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** A line of /proc/PID/status such as RssAnon or VmHWM. @unit MB */
export function memoryMb(pid: number, field: "RssAnon" | "VmRSS" | "VmHWM"): number {
  const line = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(
    readFileSync(`/proc/${pid}/status`, "utf8"),
  );
  return line ? Number(line[1]) / 1024 : NaN;
}

export function childrenOf(pid: number): number[] {
  const found: number[] = [];
  try {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const text = readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim();
      if (text !== "") found.push(...text.split(/\s+/).map(Number));
    }
  } catch {
    // The process has ended: no children.
  }
  return found;
}

/** Binds all threads of a process to some cores, as taskset does. */
export function pin(pid: number, cores: string): void {
  execFileSync("taskset", ["-acp", cores, String(pid)], { stdio: "ignore" });
}

export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

export async function waitGone(pid: number, timeoutMs: number): Promise<boolean> {
  const until = nowMs() + timeoutMs;
  while (nowMs() < until) {
    if (!isAlive(pid)) return true;
    await sleep(5);
  }
  return !isAlive(pid);
}

const kept = new Set<ChildProcess>();
let keeps = false;

/** It ends when this process does, at the latest. @returns the child */
export function endWithUs(child: ChildProcess): ChildProcess {
  if (!keeps) process.once("exit", () => kept.forEach((one) => one.kill("SIGKILL")));
  keeps = true;
  kept.add(child);
  child.once("exit", () => kept.delete(child));
  return child;
}

/** A process that only burns one core. Ends when this one does. */
export function startHog(core: number | undefined): ChildProcess {
  const burn = "for(;;){}";
  const argv = ["-e", burn];
  const hog =
    core === undefined
      ? spawn(process.execPath, argv, { stdio: "ignore" })
      : spawn("taskset", ["-c", String(core), process.execPath, ...argv], { stdio: "ignore" });
  return endWithUs(hog);
}

/** Two clients that ask as fast as they can, 64 commands deep, until killed. */
export function startFlood(port: number): ChildProcess[] {
  if (!hasProgram("redis-benchmark")) return [];
  return [0, 1].map(() => {
    const argv = [
      "-p",
      String(port),
      "-c",
      "100",
      "-P",
      "64",
      "-t",
      "get",
      "-r",
      "100000",
      "-l",
      "-q",
    ];
    return endWithUs(spawn("redis-benchmark", argv, { stdio: "ignore" }));
  });
}

/** Bytes of every established TCP connection of a process, by its two ports. Needs `ss` (iproute2). */
export interface SocketBytes {
  localPort: number;
  remotePort: number;
  sent: number;
  received: number;
}

export async function socketsOf(pid: number): Promise<SocketBytes[]> {
  const text = await new Promise<string>((resolve, reject) => {
    // Not in this process's way: it measures others meanwhile.
    execFile(
      "ss",
      ["-tinHp", "state", "established"],
      { encoding: "utf8", maxBuffer: 64 << 20 },
      (error, stdout) => (error === null ? resolve(stdout) : reject(error)),
    );
  });
  const found: SocketBytes[] = [];
  const lines = text.split("\n");
  for (let i = 0; i + 1 < lines.length; i++) {
    if (!lines[i].includes(`pid=${pid},`)) continue;
    const ports = [...lines[i].matchAll(/:(\d+)\s/g)].map((match) => Number(match[1]));
    const detail = lines[i + 1];
    const count = (name: string): number =>
      Number(new RegExp(`${name}:(\\d+)`).exec(detail)?.[1] ?? 0);
    found.push({
      localPort: ports[0],
      remotePort: ports[1],
      sent: count("bytes_sent"),
      received: count("bytes_received"),
    });
  }
  return found;
}

/** Bytes a process has read so far, from sockets and files. Cheaper by far than asking ss for its sockets. */
export function bytesRead(pid: number): number {
  return Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))![1]);
}

/** True while a TCP connection to one of these ports stands on this machine. */
export function isConnected(ports: ReadonlySet<number>): boolean {
  return ["/proc/net/tcp", "/proc/net/tcp6"].some((path) =>
    readFileSync(path, "utf8")
      .split("\n")
      .some((line) => {
        const [, , remote, state] = line.trim().split(/\s+/);
        return state === "01" && ports.has(Number.parseInt(remote.split(":")[1], 16));
      }),
  );
}

/** One line that names the machine, to stand beside every table. */
export function machineLine(): string {
  const cpu = cpus();
  return (
    `${cpu.length} x ${cpu[0]?.model.trim() ?? "cpu"}, ${Math.round(totalmem() / 2 ** 30)} GB, ` +
    `Linux ${release()}, Node ${process.versions.node}`
  );
}

/** True when a program is on the PATH. */
export function hasProgram(name: string): boolean {
  try {
    execFileSync("sh", ["-c", `command -v ${name}`], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
