/**
 * How long writes stand still after a fault, as a client sees it: open loop, 500 writes/s on 10
 * connections. pause = longest time between two acknowledgements after the fault, minus the longest in a
 * window of the same length without one, in the same run.
 */
import type { BenchArgs } from "./args.js";
import { Load } from "./load.js";
import type { NodeName, PairStatus } from "./pair.js";
import { Pair, otherOf } from "./pair.js";
import { nowMs, sleep, startFlood } from "./processes.js";
import { Relay } from "./relay.js";
import type { Reply } from "./resp-client.js";
import { ReplyError, RespClient } from "./resp-client.js";
import { median, printTable, quantile, show } from "./table.js";

const WINDOW_MS = 2000;
const WARM_MS = 700;

interface Fault {
  /** @unit ms: what the pause is compared with */
  mark: number;
  /** Clients must connect again: their connection ends with the controller. */
  reconnect?: boolean;
  /** Others ask the controller for as much as it can do, all the time. */
  saturated?: boolean;
  strike(bench: PauseRun): Promise<void>;
  /** Brings back what the fault took, while the load goes on. */
  mend(bench: PauseRun): Promise<void>;
}

interface PauseRun {
  pair: Pair;
  relay: Relay | undefined;
  load: Load;
  before: PairStatus;
  primary: "a" | "b";
  standby: "a" | "b";
  problems: string[];
  local: LocalProbe | undefined;
}

/** A connection to a server's own port, with commands sent while that server is stopped. */
interface LocalProbe {
  client: RespClient;
  key: string;
  setReply: Reply | undefined;
  getReply: Reply | undefined;
  current: number;
}

const kill = (name: (run: PauseRun) => NodeName): Fault["strike"] => {
  return (run) => run.pair.kill(name(run));
};
const restart = (name: (run: PauseRun) => NodeName): Fault["mend"] => {
  return async (run) => void (await run.pair.restart(name(run)));
};

const FAULTS: Record<string, Fault> = {
  "kill9-primary": {
    mark: 150,
    strike: kill((run) => run.primary),
    mend: restart((run) => run.primary),
  },
  "kill9-saturated": {
    mark: 150,
    saturated: true,
    strike: kill((run) => run.primary),
    mend: restart((run) => run.primary),
  },
  "stop-primary": {
    mark: 250,
    strike: async (run) => {
      const key = `local:${run.load.ackTimes.length}:${nowMs()}`;
      const client = await RespClient.open(run.pair.localPort(run.primary));
      run.local = { client, key, setReply: undefined, getReply: undefined, current: 0 };
      await put(run.pair.redis, key, 1);
      run.pair.send(run.primary, "SIGSTOP");
    },
    mend: async (run) => {
      const probe = run.local!;
      // The new primary's word is 2; the stopped one still holds 1 and is asked the moment it wakes.
      await put(run.pair.redis, probe.key, 2);
      probe.current = 2;
      probe.client.send(["GET", probe.key], (reply) => (probe.getReply = reply));
      probe.client.send(["SET", probe.key, "3"], (reply) => (probe.setReply = reply));
      await sleep(20);
      run.pair.send(run.primary, "SIGCONT");
      await sleep(1000);
      if (probe.getReply === "1")
        run.problems.push("the old primary's local port answered a stale read");
      const now = await get(run.pair.redis, probe.key);
      if (probe.setReply === "OK" && now !== "3") {
        run.problems.push("the old primary's local port acknowledged a write that is not there");
      }
      probe.client.close();
    },
  },
  "kill9-standby": {
    mark: 250,
    strike: kill((run) => run.standby),
    mend: restart((run) => run.standby),
  },
  "stop-standby": {
    mark: 250,
    strike: async (run) => run.pair.send(run.standby, "SIGSTOP"),
    mend: async (run) => run.pair.send(run.standby, "SIGCONT"),
  },
  "peer-cut": {
    mark: 500,
    strike: async (run) => run.relay!.cut(),
    mend: async (run) => run.relay!.mend(),
  },
  "controller-restart": {
    mark: Infinity,
    reconnect: true,
    strike: async (run) => {
      await run.pair.kill("controller");
      await run.pair.restart("controller");
    },
    mend: async (run) => {
      const after = await run.pair.redundant();
      if (after.primary !== run.before.primary) run.problems.push("the roles changed");
      if (after.epoch !== run.before.epoch) {
        run.problems.push(`the epoch went from ${run.before.epoch} to ${after.epoch}`);
      }
    },
  },
};

export async function run(args: BenchArgs): Promise<void> {
  const runs = args.runs ?? 50;
  const durability = args.durability ?? "disk";
  const names = args.fault === undefined ? Object.keys(FAULTS) : args.fault.split(",");
  const rows: (string | number)[][] = [];
  for (const name of names) {
    if (!(name in FAULTS)) {
      throw new Error(`no fault ${name}; there are ${Object.keys(FAULTS).join(", ")}`);
    }
    rows.push(await measure(name, FAULTS[name], runs, durability));
  }
  console.log(
    `\nopen loop, 500 writes/s on 10 connections, 200 reads/s on 4; durability ${durability}`,
  );
  printTable(
    [
      "fault",
      "runs",
      "median ms",
      "p95",
      "max",
      "whole gap, median",
      "mark",
      "above",
      "closed",
      "errors",
      "lost",
      "stale",
      "problems",
    ],
    rows,
  );
}

async function measure(
  name: string,
  fault: Fault,
  runs: number,
  durability: "disk" | "memory",
): Promise<(string | number)[]> {
  const pair = await Pair.start({ durability });
  const pauses: number[] = [];
  const gaps: number[] = [];
  let closed = 0;
  let errors = 0;
  let lost = 0;
  let stale = 0;
  let problems = 0;
  let relay: Relay | undefined;
  const flood = fault.saturated === true ? startFlood(pair.redis) : [];
  try {
    if (name === "peer-cut") relay = await relayPeerLink(pair);
    for (let i = 0; i < runs; i++) {
      const before = await pair.redundant(60_000);
      const primary = before.primary!;
      const load = new Load({ port: pair.redis, name: `${name}${i}`, reconnect: fault.reconnect });
      const one: PauseRun = {
        pair,
        relay,
        load,
        before,
        primary,
        standby: otherOf(primary),
        problems: [],
        local: undefined,
      };
      await load.start();
      await sleep(WARM_MS);
      const quietFrom = nowMs();
      await sleep(WINDOW_MS);
      const quiet = load.longestGap(quietFrom, nowMs());
      // The fault falls anywhere between two polls.
      await sleep(Math.random() * 50);
      const struckAt = nowMs();
      await fault.strike(one);
      await sleep(WINDOW_MS - (nowMs() - struckAt));
      const gap = load.longestGap(struckAt, struckAt + WINDOW_MS);
      await fault.mend(one);
      await sleep(500);
      await load.stop();
      const pause = Math.max(0, gap.ms - quiet.ms);
      pauses.push(pause);
      gaps.push(gap.ms);
      const missing = await load.lost();
      const after = await pair.redundant(60_000).catch((error: Error) => {
        one.problems.push(`not redundant again: ${error.message}`);
        return undefined;
      });
      lost += missing.length;
      // A connection that a killed controller took along is no failure; that it came back is measured.
      closed += fault.reconnect ? 0 : load.counts.closed;
      errors += load.counts.errorCount;
      stale += load.counts.stale;
      problems += one.problems.length;
      console.log(
        `${name} ${i + 1}/${runs}: pause ${show(pause)} ms (quiet ${show(quiet.ms)}), ` +
          `${load.counts.acknowledged} of ${load.counts.sent} acknowledged, closed ${load.counts.closed}, ` +
          `errors ${load.counts.errorCount}, lost ${missing.length}, stale ${load.counts.stale}, ` +
          `primary ${primary} -> ${after?.primary ?? "?"}, epoch ${before.epoch} -> ${after?.epoch ?? "?"}`,
      );
      for (const [text, count] of Object.entries(load.counts.errors))
        console.log(`    ${count} x ${text}`);
      for (const text of load.counts.staleExamples) console.log(`    stale: ${text}`);
      for (const text of missing.slice(0, 5)) console.log(`    lost: ${text}`);
      for (const text of one.problems) console.log(`    problem: ${text}`);
      if (after === undefined) break;
    }
  } finally {
    for (const one of flood) one.kill("SIGKILL");
    relay?.close();
    await pair.stop();
  }
  return [
    name,
    pauses.length,
    show(median(pauses)),
    show(quantile(pauses, 0.95)),
    show(Math.max(...pauses)),
    show(median(gaps)),
    Number.isFinite(fault.mark) ? fault.mark : "-",
    Number.isFinite(fault.mark) ? pauses.filter((pause) => pause > fault.mark).length : "-",
    closed,
    errors,
    lost,
    stale,
    problems,
  ];
}

/** Puts a relay into the peer link: the server that dials the other is told the relay's port instead. */
export async function relayPeerLink(pair: Pair): Promise<Relay> {
  const ports = pair.peerPort("a");
  const relay = new Relay(ports);
  await relay.listen();
  await pair.redundant();
  await pair.kill("b");
  pair.editConfig("b", (config) => {
    const peer = config.peer as Record<string, unknown>;
    peer.port = relay.port;
  });
  await pair.restart("b");
  await pair.redundant();
  return relay;
}

async function put(port: number, key: string, value: number): Promise<void> {
  const client = await RespClient.open(port);
  const reply = await client.call(["SET", key, value]);
  client.close();
  if (reply !== "OK")
    throw new Error(`SET ${key}: ${reply instanceof ReplyError ? reply.text : String(reply)}`);
}

async function get(port: number, key: string): Promise<Reply> {
  const client = await RespClient.open(port);
  const reply = await client.call(["GET", key]);
  client.close();
  return reply;
}
