/**
 * redis-benchmark through our controller (both agents running) and through HAProxy in TCP mode in front of
 * one Redis, turn about in one run, so that a slow minute of the machine hits both.
 */
import { execFile } from "node:child_process";
import type { BenchArgs } from "./args.js";
import { Pair } from "./pair.js";
import { cpuSeconds, hasProgram } from "./processes.js";
import { startRival } from "./rival.js";
import { median, printTable, show } from "./table.js";

/** redis-benchmark's own default is one key; as many as here is the harder case for a store. */
const KEYS = 100_000;

interface Case {
  name: string;
  argv: string[];
  requests: number;
  mark: number;
}

const CASES: Case[] = [
  { name: "GET", argv: ["-t", "get"], requests: 200_000, mark: 1.0 },
  { name: "SET", argv: ["-t", "set"], requests: 100_000, mark: 0.5 },
  { name: "GET -P 16", argv: ["-t", "get", "-P", "16"], requests: 600_000, mark: 0.4 },
];

export async function run(args: BenchArgs): Promise<void> {
  const needed = ["redis-server", "redis-benchmark", "haproxy"].filter((name) => !hasProgram(name));
  if (needed.length > 0) {
    console.log(`skipped: ${needed.join(", ")} not installed`);
    return;
  }
  const rounds = args.runs ?? 5;
  const durability = args.durability ?? "memory";
  const keys = args.keys ?? KEYS;
  const rival = await startRival();
  const pair = await Pair.start({ durability });
  try {
    await pair.redundant();
    const rates = new Map<
      string,
      { ours: number[]; theirs: number[]; oursCpu: number[]; theirsCpu: number[] }
    >();
    for (const one of CASES)
      rates.set(one.name, { ours: [], theirs: [], oursCpu: [], theirsCpu: [] });
    // The keys must be there, or GET answers a nil and measures something else.
    for (const port of [pair.redis, rival.port])
      await benchmark(port, ["-t", "set"], keys * 2, keys);
    for (let round = 0; round < rounds; round++) {
      for (const one of CASES) {
        const found = rates.get(one.name)!;
        const measure = async (port: number, pid: number): Promise<[number, number]> => {
          const before = cpuSeconds(pid);
          const rate = await benchmark(port, one.argv, one.requests, keys);
          return [rate, ((cpuSeconds(pid) - before) / one.requests) * 1e6];
        };
        const [ours, oursCpu] = await measure(pair.redis, pair.pid("controller"));
        const [theirs, theirsCpu] = await measure(rival.port, rival.haproxy.pid!);
        found.ours.push(ours);
        found.theirs.push(theirs);
        found.oursCpu.push(oursCpu);
        found.theirsCpu.push(theirsCpu);
        console.log(
          `round ${round + 1}/${rounds} ${one.name}: dyad ${show(ours)}/s, haproxy ${show(theirs)}/s, ` +
            `ratio ${show(ours / theirs)}, controller ${show(oursCpu)} CPU s a million`,
        );
      }
    }
    console.log(
      `\n16-byte values, 50 connections, ${keys} keys, dyad durability ${durability}, ` +
        `HAProxy ${rival.version} mode tcp + Redis ${rival.redisVersion} (no persistence), medians of ${rounds} rounds`,
    );
    printTable(
      ["", "dyad /s", "haproxy+redis /s", "ratio", "mark", "controller CPU s/M", "haproxy CPU s/M"],
      CASES.map((one) => {
        const found = rates.get(one.name)!;
        return [
          one.name,
          show(median(found.ours)),
          show(median(found.theirs)),
          show(median(found.ours.map((rate, i) => rate / found.theirs[i]))),
          show(one.mark),
          show(median(found.oursCpu)),
          show(median(found.theirsCpu)),
        ];
      }),
    );
  } finally {
    await pair.stop();
    rival.stop();
  }
}

/** @returns requests a second */
function benchmark(port: number, argv: string[], requests: number, keys: number): Promise<number> {
  const all = [
    "-p",
    String(port),
    "-c",
    "50",
    "-n",
    String(requests),
    "-d",
    "16",
    ...(keys > 1 ? ["-r", String(keys)] : []),
    "--csv",
    ...argv,
  ];
  return new Promise((resolve, reject) => {
    execFile("redis-benchmark", all, { timeout: 120_000 }, (error, stdout, stderr) => {
      const last = stdout.trim().split("\n").at(-1) ?? "";
      const rate = Number(last.split(",")[1]?.replaceAll('"', ""));
      if (Number.isFinite(rate) && rate > 0) resolve(rate);
      else reject(new Error(`redis-benchmark: ${error?.message ?? ""} ${stderr} ${stdout}`));
    });
  });
}
