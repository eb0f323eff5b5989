/**
 * What the firmware's idle loop costs the real Espruino interpreter, in instructions: both servers polled, nobody sends a
 * command.
 *
 *     poll timer ──> two polls ──> servers ──> two heartbeats ──> ...      counted: timers, heartbeats, serial bytes
 *
 * Counted is what the engine runs in events, with all natives they call, as in the table of commands; not its own idle loop and
 * its drivers. Polls are slower here than on a board, since callgrind is slow; nearly all that the firmware does in its idle loop
 * goes by polls, so a second at a board's own setting is that many polls.
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ChipPair, sleep, until } from "../test/engine/chip-pair.js";
import type { ServerId } from "../test/engine/chip-pair.js";
import { startCounting, takeCounts, underCallgrind } from "./callgrind.js";
import { printTable } from "./table.js";

const ENGINE = "espruino";
/** Who runs handlers: bytes that came, and timers and events that the engine has queued (`drain`, datagrams). */
const FUNCTIONS = ["jsiExecuteEventCallback", "jsiExecuteEventCallbackArgsArray"];
const QUEUED = "jsiExecuteEvents>jsiExecuteEventCallbackArgsArray";
const TIMER = "jsiIdle>jsiExecuteEventCallbackArgsArray";

/** Polls that are counted, at least. */
const POLLS = 16;
const BOARD_POLL_MS = 50;
/** Instructions a second of a 100 MHz Cortex-M4 with its flash waits: an estimate. */
const M4_PER_SECOND = [60e6, 100e6] as const;

const POLL_MS = 3000;
const TIMINGS = {
  pollMs: POLL_MS,
  serialPollMs: 3 * POLL_MS,
  failureMs: 60_000,
  serialFailureMs: 60_000,
  probeMs: 20_000,
  serialProbeMs: 20_000,
  linkDownMs: 90_000,
  stallMs: 60_000,
  stallPeerDownMs: 60_000,
  diskStallMs: 90_000,
  holdMs: 120_000,
  handshakeMs: 120_000,
  drainMs: 10_000,
  peerSeenMs: 5000,
  announceMs: 600,
  repeatMs: 30_000,
  refusalQuietMs: 5000,
};
const AGENTS = {
  controllerSilentMs: 60_000,
  controllerStrangeMs: 30_000,
  handshakeMs: 60_000,
};

interface Idle {
  /** Heartbeats by the network: how many a poll of both servers, and what each costs. */
  heartbeats: number;
  heartbeat: number;
  timers: number;
  timer: number;
  /** All that comes by serial lines. @unit instructions a poll */
  serial: number;
  /** @unit instructions a poll of both servers */
  poll: number;
}

async function countIdle(pair: ChipPair): Promise<Idle> {
  const heard = { calls: 0, cost: 0 };
  const timers = { calls: 0, cost: 0 };
  let all = 0;
  await startCounting(pair.chip.pid);
  // On a busy machine fewer polls go out than there was time for.
  while (heard.calls < 2 * POLLS) {
    await sleep(POLL_MS);
    const { costs } = await takeCounts(pair.chip.pid, pair.chip.dir, FUNCTIONS);
    for (const [edge, { calls, cost }] of costs) {
      // What one of these calls is another's already.
      if (FUNCTIONS.includes(edge.split(">")[0]!)) continue;
      all += cost;
      if (edge !== QUEUED && edge !== TIMER) continue;
      const one = edge === QUEUED ? heard : timers;
      one.calls += calls;
      one.cost += cost;
    }
  }
  const polls = heard.calls / 2;
  return {
    heartbeats: heard.calls / polls,
    heartbeat: heard.cost / heard.calls,
    timers: timers.calls / polls,
    timer: timers.cost / timers.calls,
    serial: (all - heard.cost - timers.cost) / polls,
    poll: all / polls,
  };
}

/** A serial cable between the interpreter and a server: two pseudo terminals. */
async function layCable(dir: string, id: ServerId, cables: ChildProcess[]) {
  const chip = join(dir, `${id}.chip`);
  const server = join(dir, `${id}.server`);
  cables.push(spawn("socat", [`pty,raw,echo=0,link=${chip}`, `pty,raw,echo=0,link=${server}`]));
  await until(chip, () => existsSync(chip) && existsSync(server));
  return { chip, server };
}

/** @param linesEvery a serial poll for so many polls; 0: no lines */
async function measure(linesEvery: number, noClients: boolean): Promise<Idle> {
  const dir = mkdtempSync(join(tmpdir(), "dyad-idle-"));
  const cables: ChildProcess[] = [];
  let pair: ChipPair | undefined;
  try {
    const lines = linesEvery
      ? { a: await layCable(dir, "a", cables), b: await layCable(dir, "b", cables) }
      : undefined;
    pair = await ChipPair.make(
      ENGINE,
      { timings: { ...TIMINGS, serialPollMs: linesEvery * POLL_MS || TIMINGS.serialPollMs } },
      undefined,
      undefined,
      lines,
      undefined,
      {
        inMemory: true,
        agents: AGENTS,
        noClients,
      },
    );
    pair.chip.powerOn(underCallgrind(pair.chip.dir));
    pair.servers.a.start();
    pair.servers.b.start();
    await pair.reaches(/both\([ab]\)/, 240_000);
    await sleep(5 * POLL_MS);
    return await countIdle(pair);
  } catch (error) {
    console.log(pair?.chip.said.slice(-2000));
    throw error;
  } finally {
    await pair?.end();
    for (const cable of cables) cable.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Prints what a poll of both servers costs, and what that makes of a board's processor. */
export async function printIdle(): Promise<void> {
  const rows: string[][] = [];
  const k = (instructions: number): string => Math.round(instructions / 1000).toLocaleString("en");
  const show = (what: string, idle: Idle): void => {
    const perSecond = (idle.poll * 1000) / BOARD_POLL_MS;
    rows.push([
      what,
      `${idle.heartbeats.toFixed(1)} x ${k(idle.heartbeat)}`,
      `${idle.timers.toFixed(1)} x ${k(idle.timer)}`,
      k(idle.serial),
      k(idle.poll),
      `${(perSecond / 1e6).toFixed(0)} M`,
      M4_PER_SECOND.map((all) => `${((100 * perSecond) / all).toFixed(0)} %`)
        .reverse()
        .join(" - "),
    ]);
    console.log(rows.at(-1)!.join("  "));
  };
  show("one path, no clients' ports", await measure(0, true));
  show("one path", await measure(0, false));
  if (spawnSync("socat", ["-V"]).status === 0) {
    show("two paths: serial lines too", await measure(3, false));
    show("two paths, serial at every poll", await measure(1, false));
  } else console.log("two paths: needs socat, skipped");
  console.log();
  printTable(
    [
      "idle, 1000 instructions",
      "heartbeats",
      "timers",
      "serial",
      "a poll",
      `a second (pollMs ${BOARD_POLL_MS})`,
      "of a 100 MHz M4, estimate",
    ],
    rows,
  );
}
