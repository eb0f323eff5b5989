/**
 * A load in a process of its own. One that shares its loop with other work (sampling with ss forks every few
 * milliseconds) measures that work too.
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { LoadCounts, LoadOptions } from "./load.js";
import { Load } from "./load.js";

/**
 * Eight seconds after a start that has left much behind (the compiler of this very file), V8 tidies up for up to
 * 40 ms. Whoever measures latencies must not do that while it measures: it would count as the server's.
 */
const STEADY = ["--no-memory-reducer"];

/** What such a load has seen. */
export interface LoadBook {
  counts: LoadCounts;
  /** When each write was acknowledged, wall clock. @unit ms */
  ackAt: number[];
  /** From its intended time to its reply, each read. @unit ms */
  readMs: number[];
  /** When each of those was answered, wall clock. @unit ms */
  readAt: number[];
  /** Acknowledged writes that were not there afterwards. */
  missing: string[];
}

export class LoadProcess {
  private constructor(private readonly child: ChildProcess) {}

  /** @returns when its connections are open and the load has begun */
  static async start(options: LoadOptions): Promise<LoadProcess> {
    const child = fork(fileURLToPath(import.meta.url), [JSON.stringify(options)], {
      serialization: "advanced",
      execArgv: [...process.execArgv, ...STEADY],
    });
    const one = new LoadProcess(child);
    await one.message();
    return one;
  }

  /**
   * Ends the load, and its process.
   * @param verify read everything acknowledged before that
   */
  async stop(verify = true): Promise<LoadBook> {
    const book = this.message();
    this.child.send(verify);
    return (await book) as LoadBook;
  }

  kill(): void {
    this.child.kill("SIGKILL");
  }

  private async message(): Promise<unknown> {
    const told = once(this.child, "message");
    const ended = once(this.child, "exit").then(([status]) => {
      throw new Error(`the load's process ended with status ${String(status)}`);
    });
    const [message] = (await Promise.race([told, ended])) as unknown[];
    ended.catch(() => undefined);
    return message;
  }
}

async function child(options: LoadOptions): Promise<void> {
  const load = new Load(options);
  await load.start();
  process.send!("begun");
  const [verify] = (await once(process, "message")) as [boolean];
  await load.stop();
  const { counts, readMs, readAt } = load;
  const ackAt = load.ackTimes.map((ms) => performance.timeOrigin + ms);
  const missing = verify ? await load.lost() : [];
  const book: LoadBook = { counts, ackAt, readMs, readAt, missing };
  process.send!(book, () => process.disconnect());
}

if (process.send !== undefined && process.argv[1] === fileURLToPath(import.meta.url)) {
  await child(JSON.parse(process.argv[2]) as LoadOptions);
}
