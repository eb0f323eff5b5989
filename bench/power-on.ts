/**
 * Power-on: everything is killed at once under load and started in every order; then with one server's
 * directory deleted, in the worst order; then with a controller whose flash is empty or another's.
 * Seen each time: who is primary and why, and that no acknowledged write is missing.
 */
import { cpSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { BenchArgs } from "./args.js";
import { Load } from "./load.js";
import type { NodeName, PairStatus } from "./pair.js";
import { Pair, otherOf } from "./pair.js";
import { sleep } from "./processes.js";
import { printTable } from "./table.js";

const ORDERS: NodeName[][] = [
  ["controller", "a", "b"],
  ["controller", "b", "a"],
  ["a", "controller", "b"],
  ["b", "controller", "a"],
  ["a", "b", "controller"],
  ["b", "a", "controller"],
];
const STEP_MS = 400;
const ALL: NodeName[] = ["controller", "a", "b"];

export async function run(args: BenchArgs): Promise<void> {
  const durability = args.durability ?? "disk";
  const rounds = args.runs === undefined ? 1 : Math.max(1, Math.floor(args.runs / 3));
  const rows: (string | number)[][] = [];
  const pair = await Pair.start({ durability });
  let serial = 0;

  /** Load, then all three killed at once; `act` starts them again. */
  const scenario = async (
    name: string,
    act: (before: PairStatus) => Promise<string>,
  ): Promise<void> => {
    if (args.only !== undefined && !name.includes(args.only)) return;
    try {
      const before = await pair.redundant(60_000);
      const load = new Load({ port: pair.redis, name: `p${serial++}` });
      await load.start();
      await sleep(1200);
      for (const node of ALL) pair.send(node, "SIGKILL");
      for (const node of ALL) await pair.kill(node);
      await load.stop(500);
      const seen = await act(before);
      const after = await pair.waitFor(
        "serving",
        (status) => status.exit <= 1 && status.primary !== undefined,
        60_000,
      );
      const missing = await load.lost();
      rows.push([
        name,
        `${before.primary} (${before.mode})`,
        `${after.primary} (${after.mode})`,
        `${before.epoch} -> ${after.epoch}`,
        load.counts.acknowledged,
        missing.length,
        seen,
      ]);
      console.log(`${name}: ${after.why}`);
      await pair.redundant(60_000);
    } catch (error) {
      rows.push([name, "", "", "", "", "", `FAILED: ${(error as Error).message.slice(0, 200)}`]);
      for (const node of ALL) await pair.kill(node).catch(() => undefined);
      for (const node of ALL) await pair.restart(node).catch(() => undefined);
    }
  };

  /** While not everything is there: does the pair serve, and what does it say? */
  const waits = async (): Promise<string> => {
    await sleep(3000);
    const status = await pair.status();
    return status === undefined
      ? "no status"
      : `${status.exit === 2 ? "waits" : "SERVES"}: ${status.why}`;
  };

  try {
    for (let round = 0; round < rounds; round++) {
      for (const order of ORDERS) {
        await scenario(`order ${order.join(", ")}`, async () => {
          for (const node of order) {
            await pair.restart(node);
            await sleep(STEP_MS);
          }
          return "";
        });
      }
    }
    for (const which of ["primary", "standby"] as const) {
      await scenario(`directory of the ${which} deleted, it starts first`, async (before) => {
        const empty = which === "primary" ? before.primary! : otherOf(before.primary!);
        clear(pair.dataDir(empty));
        await pair.restart(empty);
        await pair.restart("controller");
        const seen = await waits();
        await pair.restart(otherOf(empty));
        return seen;
      });
    }
    await scenario("flash wiped, the primary is away", async (before) => {
      clear(pair.dataDir("controller"));
      await pair.restart("controller");
      await pair.restart(otherOf(before.primary!));
      const seen = await waits();
      await pair.restart(before.primary!);
      return seen;
    });
    await scenario("flash of another pair", async () => {
      const other = await Pair.start({ durability: "memory" });
      await other.redundant();
      await other.kill("controller");
      clear(pair.dataDir("controller"));
      cpSync(other.dataDir("controller"), pair.dataDir("controller"), {
        recursive: true,
        filter: (path) => !path.endsWith(".sock"),
      });
      await other.stop();
      for (const node of ALL) await pair.restart(node);
      await sleep(3000);
      return (await pair.status())?.why ?? "no status";
    });
  } finally {
    await pair.stop();
  }
  console.log(
    `\nkill -9 of all three under 500 writes/s, started ${STEP_MS} ms apart; durability ${durability}`,
  );
  printTable(
    ["start", "primary before", "after", "epoch", "acknowledged", "lost", "seen meanwhile"],
    rows,
  );
}

/** Empties a directory and keeps it. */
export function clear(dir: string): void {
  for (const name of readdirSync(dir)) rmSync(join(dir, name), { recursive: true, force: true });
}
