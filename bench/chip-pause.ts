/**
 * How long writes stand still after kill -9 of the primary when the controller is the real Espruino interpreter, with the
 * timings of its board configuration. Once with little else to do, once with its input saturated: connections that have
 * always several reads under way, so that bytes wait for the interpreter all the time.
 *
 * One writer in a closed loop; the pause is the longest time between two acknowledgements after the kill, minus the
 * longest in a window of the same length before it.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ChipPair, ROOT, isThere, sleep } from "../test/engine/chip-pair.js";
import type { ServerId } from "../test/engine/chip-pair.js";
import type { BenchArgs } from "./args.js";
import type { RespClient } from "./resp-client.js";
import { median, printTable, quantile, show } from "./table.js";

const ENGINE = "espruino";
const WINDOW_MS = 3000;
const FLOODS = 4;
const DEEP = 8;

/** Keeps reads under way on a connection until it is told to stop. */
function flood(client: RespClient, stopped: () => boolean, count: () => void): void {
  const ask = (): void =>
    client.send(["GET", "x"], () => {
      count();
      if (!stopped()) ask();
    });
  for (let i = 0; i < DEEP; i++) ask();
}

function longestGap(times: number[], from: number, to: number): number {
  let last = from;
  let longest = 0;
  for (const at of times) {
    if (at < from || at > to) continue;
    longest = Math.max(longest, at - last);
    last = at;
  }
  return Math.max(longest, to - last);
}

async function measure(
  what: string,
  runs: number,
  saturated: boolean,
): Promise<(string | number)[]> {
  const board = JSON.parse(
    readFileSync(join(ROOT, "board-configs", "espruino-linux.json"), "utf8"),
  ) as { timings: Record<string, number> };
  const pair = await ChipPair.make(
    ENGINE,
    { timings: board.timings },
    undefined,
    undefined,
    undefined,
    undefined,
    { inMemory: true, agents: {} },
  );
  const pauses: number[] = [];
  let errors = 0;
  let reads = 0;
  let stopped = false;
  try {
    pair.chip.powerOn();
    pair.servers.a.start();
    pair.servers.b.start();
    await pair.reaches(/both\([ab]\)/);
    const writer = await pair.client();
    const acknowledged: number[] = [];
    let value = 0;
    const work = (async () => {
      while (!stopped) {
        const reply = await writer.call(["SET", "w", String(value++)], 20_000);
        if (reply === "OK") acknowledged.push(performance.now());
        else errors++;
      }
    })();
    if (saturated) {
      for (let i = 0; i < FLOODS; i++)
        flood(
          await pair.client(),
          () => stopped,
          () => reads++,
        );
    }
    for (let run = 0; run < runs; run++) {
      const quietFrom = performance.now();
      await sleep(WINDOW_MS);
      const quiet = longestGap(acknowledged, quietFrom, performance.now());
      const [, primary] = /(?:both|solo)\(([ab])\)/.exec(await pair.status())! as unknown as [
        string,
        ServerId,
      ];
      await sleep(300 + Math.random() * 50);
      const struckAt = performance.now();
      await pair.servers[primary].kill();
      await sleep(WINDOW_MS);
      const gap = longestGap(acknowledged, struckAt, struckAt + WINDOW_MS);
      pauses.push(Math.max(0, gap - quiet));
      console.log(
        `${what} ${run + 1}/${runs}: pause ${show(pauses.at(-1)!)} ms (quiet ${show(quiet)}), ` +
          `${acknowledged.length} writes, ${reads} reads, ${errors} errors`,
      );
      pair.servers[primary].start();
      await pair.reaches(/both\([ab]\)/);
    }
    stopped = true;
    await work;
  } finally {
    stopped = true;
    await pair.end();
  }
  return [
    what,
    pauses.length,
    show(median(pauses)),
    show(quantile(pauses, 0.95)),
    show(Math.max(...pauses)),
    errors,
  ];
}

export async function run(args: BenchArgs): Promise<void> {
  if (!isThere(ENGINE)) {
    console.log(`needs \`${ENGINE}\` on PATH: skipped`);
    return;
  }
  const runs = args.runs ?? 50;
  // One of the two alone: --only idle, --only saturated.
  const rows: (string | number)[][] = [];
  if (args.only !== "saturated") rows.push(await measure("one writer", runs, false));
  if (args.only !== "idle")
    rows.push(await measure(`and ${FLOODS} connections with ${DEEP} reads each`, runs, true));
  printTable(["kill -9 of the primary", "runs", "median ms", "p95", "max", "errors"], rows);
}
