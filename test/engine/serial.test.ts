/** Serial lines between the real interpreter and two real agents: polls go over them, and what a bad line adds is counted. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { ChipPair, isThere, until } from "./chip-pair.js";

const here = isThere("espruino") && spawnSync("socat", ["-V"]).status === 0;
if (!here) console.log("test/engine/serial: skipped, no `espruino` or no socat on PATH");

const undo: (() => Promise<void> | void)[] = [];
let pair: ChipPair | undefined;
afterEach(async (context) => {
  if (context.task.result?.state === "fail") console.log(pair?.chip.said.slice(-4000));
  await pair?.end();
  pair = undefined;
  for (const one of undo.splice(0).reverse()) await one();
});

/** A cable: two pseudo terminals, and between them a hand that may change what goes to the chip. */
class SerialCable {
  readonly chip: string;
  readonly server: string;
  /** Bytes that the chip has been sent. */
  toChip = 0;
  change: (bytes: Buffer) => Buffer = (bytes) => bytes;
  private readonly ends: (Socket | undefined)[] = [undefined, undefined];

  private constructor(dir: string, name: string) {
    this.chip = join(dir, `${name}.chip`);
    this.server = join(dir, `${name}.server`);
  }

  static async lay(dir: string, name: string): Promise<SerialCable> {
    const cable = new SerialCable(dir, name);
    for (const [end, path] of [cable.chip, cable.server].entries()) {
      const listener = createServer((socket) => {
        cable.ends[end] = socket;
        socket.on("error", () => undefined);
        socket.on("data", (bytes) => cable.carry(1 - end, bytes));
      });
      await new Promise<void>((ready) => listener.listen(0, "127.0.0.1", ready));
      const { port } = listener.address() as AddressInfo;
      const socat = spawn("socat", [`pty,raw,echo=0,link=${path}`, `tcp:127.0.0.1:${port}`]);
      undo.push(() => {
        socat.kill("SIGKILL");
        cable.ends[end]?.destroy();
        listener.close();
      });
      await until(path, () => existsSync(path) && cable.ends[end] !== undefined);
    }
    return cable;
  }

  private carry(to: number, bytes: Buffer): void {
    const out = to === 0 ? this.change(bytes) : bytes;
    if (to === 0) this.toChip += out.length;
    this.ends[to]?.write(out);
  }
}

interface Counts {
  packets: number;
  damaged: number;
  lost: number;
  doubled: number;
}

/** What the console says of a server's line; a slow answer that comes in pieces is asked for again. */
async function counts(of: ChipPair, index: number): Promise<Counts> {
  let found: RegExpMatchArray | undefined;
  await until(
    "the counts of both lines",
    async () => {
      const said = (await of.chip.type("servers")).replaceAll("\n  ", " ");
      const all = [
        ...said.matchAll(/serial: (\d+) packets, damaged (\d+), lost (\d+), doubled (\d+)/g),
      ];
      found = all.length === 2 ? all[index] : undefined;
      return found !== undefined;
    },
    60_000,
  );
  const [packets, damaged, lost, doubled] = found!.slice(1).map(Number);
  return { packets: packets!, damaged: damaged!, lost: lost!, doubled: doubled! };
}

describe.runIf(here)("serial lines of the real interpreter", () => {
  test("both servers answer on them; garbage, a lost and a doubled packet are counted, and believed by nobody", async () => {
    const dir = mkdtempSync(join(tmpdir(), "dyad-lines-"));
    undo.push(() => rmSync(dir, { recursive: true, force: true }));
    const a = await SerialCable.lay(dir, "a");
    const b = await SerialCable.lay(dir, "b");
    expect(spawnSync("test", ["-e", a.chip]).status).toBe(0);
    pair = await ChipPair.make("espruino", {}, undefined, undefined, { a, b });
    pair.chip.powerOn();
    pair.servers.a.start();
    pair.servers.b.start();
    await until(
      "packets on both lines",
      async () => {
        const both = [await counts(pair!, 0), await counts(pair!, 1)];
        return both.every(({ packets }) => packets > 5);
      },
      60_000,
    );

    // A packet is between two flags: one is doubled, one swallowed, and noise comes before a third.
    const acts = [
      (bytes: Buffer) => Buffer.concat([bytes, bytes]),
      () => Buffer.alloc(0),
      (bytes: Buffer) => Buffer.concat([Buffer.from([0x7e, 0xd9, 1, 2, 3, 0x41]), bytes]),
    ];
    const plain = a.change;
    a.change = (bytes) => {
      const act = acts.shift();
      return act === undefined ? bytes : act(bytes);
    };
    await until(
      "the counts",
      async () => {
        const now = await counts(pair!, 0);
        return now.damaged > 0 && now.lost > 0 && now.doubled > 0;
      },
      60_000,
    );
    a.change = plain;
    const before = (await counts(pair, 0)).packets;
    await until("more packets", async () => (await counts(pair!, 0)).packets > before, 60_000);

    expect(await counts(pair, 1)).toMatchObject({ damaged: 0, doubled: 0 });
    expect(pair.chip.said).not.toMatch(/reset:|ALARM/);
  }, 400_000);
});
