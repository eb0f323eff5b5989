/**
 * Serial lines between real interpreters and two real agents: polls and the record go over them, what a bad line adds is
 * counted, and a client on one reads and writes.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { askNode } from "../../client/cli/ask-node.js";
import { LineClient } from "../../client/line-client.js";
import { NetworkCable, SerialCable, type Undo } from "./cables.js";
import { ChipPair, isThere, sleep, until } from "./chip-pair.js";
import type { ServerId } from "./chip-pair.js";

const ENGINES = ["espruino", "iotjs"] as const;
const hasSocat = spawnSync("socat", ["-V"]).status === 0;
const undo: Undo = [];
let pair: ChipPair | undefined;
afterEach(async (context) => {
  if (context.task.result?.state === "fail") console.log(pair?.chip.said.slice(-4000));
  await pair?.end();
  pair = undefined;
  for (const one of undo.splice(0).reverse()) await one();
});

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

/** A board whose network chip is the machine's own network, and is started anew after a silence. */
const SILENCE_SECONDS = 10;
const W5500 = {
  chip: "w5500",
  spi: { bus: "SPI1", sck: "A5", miso: "A6", mosi: "A7", cs: "B1" },
  mac: "02:64:79:61:64:01",
  address: { ip: "127.0.0.1", subnet: "255.0.0.0", gateway: "127.0.0.1" },
  silenceSeconds: SILENCE_SECONDS,
};
const NETWORK_CHIP = `
SPI1={setup:function(){}};
Modules.addCached("WIZnet","exports.connect=function(){return{setIP:function(){return true;}};};");
`;

interface World {
  pair: ChipPair;
  network: Record<ServerId, NetworkCable>;
  lines: Record<ServerId, SerialCable>;
}

/** Both servers on two paths each, in sync. @param changes to the board's configuration */
async function start(
  engine: (typeof ENGINES)[number],
  changes: Record<string, unknown> = {},
  bootFirst?: string,
): Promise<World> {
  const dir = mkdtempSync(join(tmpdir(), "dyad-lines-"));
  undo.push(() => rmSync(dir, { recursive: true, force: true }));
  const lines = {
    a: await SerialCable.lay(dir, "a", undo),
    b: await SerialCable.lay(dir, "b", undo),
  };
  const network: Partial<World["network"]> = {};
  const made = await ChipPair.make(
    engine,
    changes,
    undefined,
    bootFirst,
    lines,
    async (...ports) => {
      const [linkPort, id, udpPort] = ports;
      const cable = await NetworkCable.lay(linkPort, udpPort, undo);
      network[id] = cable;
      return cable;
    },
  );
  pair = made;
  made.chip.powerOn();
  made.servers.a.start();
  made.servers.b.start();
  await made.reaches(/both\([ab]\)/);
  await until(
    "packets on both lines",
    async () => {
      const both = [await counts(made, 0), await counts(made, 1)];
      return both.every(({ packets }) => packets > 5);
    },
    60_000,
  );
  return { pair: made, network: network as World["network"], lines };
}

async function roles(of: ChipPair): Promise<{ epoch: string; mode: string; primary: ServerId }> {
  const said = await of.status();
  const found = /(both|solo)\(([ab])\)/.exec(said);
  return {
    epoch: /epoch (\d+)/.exec(said)![1]!,
    mode: found![1]!,
    primary: found![2] as ServerId,
  };
}

const BOTH_UP = "network up, serial up";

/** What the console says of each server's paths: nothing where both are up. */
async function paths(of: ChipPair): Promise<string[]> {
  const said = (await of.chip.type("servers")).replaceAll("\n  ", " ");
  return [...said.matchAll(/Server .*/g)].map(
    ([all]) => /network \w+, serial \w+/.exec(all)?.[0] ?? BOTH_UP,
  );
}

async function saysOfPaths(of: ChipPair, both: string): Promise<void> {
  let last: string[] = [];
  await until(
    `both ${both}`,
    async () => {
      last = await paths(of);
      return last.length === 2 && last.every((one) => one === both);
    },
    90_000,
  ).catch((error: Error) => {
    throw new Error(`${error.message}; at the end: ${last.join("; ")}`);
  });
}

describe.each(ENGINES)("serial lines of the real %s", (engine) => {
  const here = isThere(engine) && hasSocat;
  if (!here) console.log(`test/engine/serial: skipped, no \`${engine}\` or no socat on PATH`);

  test.runIf(here)(
    "both servers answer on them; garbage, a lost and a doubled packet are counted, and believed by nobody",
    async () => {
      const { pair: it, lines } = await start(engine);
      // A packet is between two flags: one is doubled, one swallowed, and noise comes before a third.
      const acts = [
        (bytes: Buffer) => Buffer.concat([bytes, bytes]),
        () => Buffer.alloc(0),
        (bytes: Buffer) => Buffer.concat([Buffer.from([0x7e, 0xd9, 1, 2, 3, 0x41]), bytes]),
      ];
      const { a } = lines;
      const plain = a.change;
      a.change = (bytes) => {
        const act = acts.shift();
        return act === undefined ? bytes : act(bytes);
      };
      await until(
        "the counts",
        async () => {
          const now = await counts(it, 0);
          return now.damaged > 0 && now.lost > 0 && now.doubled > 0;
        },
        60_000,
      );
      a.change = plain;
      const before = (await counts(it, 0)).packets;
      await until("more packets", async () => (await counts(it, 0)).packets > before, 60_000);
      expect(await counts(it, 1)).toMatchObject({ damaged: 0, doubled: 0 });
      expect(it.chip.said).not.toMatch(/reset:|ALARM/);
    },
    400_000,
  );

  test.runIf(here)(
    "both networks cut: no role changes, also not by a restart of the chip; then the primary's alone: the other takes over; then all: failover",
    async () => {
      const hasChip = engine === "espruino";
      const {
        pair: it,
        network,
        lines,
      } = hasChip ? await start(engine, { network: W5500 }, NETWORK_CHIP) : await start(engine);
      const before = await roles(it);
      expect(before.mode).toBe("both");

      for (const cable of Object.values(network)) cable.cut = true;
      await saysOfPaths(it, "network silent, serial up");
      expect((await it.chip.type("explain")).replace(/\s+/g, " ")).toContain(
        "look at this controller's own network cable",
      );
      // What a board does whose network chip has been silent for long.
      await it.chip.powerOff();
      it.chip.powerOn();
      await saysOfPaths(it, "network silent, serial up");
      await sleep(2.5 * SILENCE_SECONDS * 1000);
      // It does not restart by itself for what only its network does not bring.
      expect(it.chip.said).not.toContain("reset:");
      expect((await it.status()).match(/epoch (\d+)/)![1]).toBe(before.epoch);
      for (const cable of Object.values(network)) cable.mend();
      await saysOfPaths(it, BOTH_UP);
      await it.reaches(/both\([ab]\)/);
      expect(await roles(it)).toEqual(before);

      network[before.primary].cut = true;
      const other = before.primary === "a" ? "b" : "a";
      await it.reaches(new RegExp(`both\\(${other}\\)`));
      // The old one hears it by its line: it stands by under the new record, with its network still cut.
      const { epoch } = await roles(it);
      const agent = join(it.dir, `data-${before.primary}`, "agent.sock");
      await until(
        "the old primary under the new record",
        async () => {
          const heard = JSON.parse(await askNode(agent, "status")) as { epoch: number };
          return heard.epoch === Number(epoch);
        },
        60_000,
      );
      network[before.primary].mend();
      await saysOfPaths(it, BOTH_UP);
      await it.reaches(new RegExp(`both\\(${other}\\)`));

      network[other].cut = true;
      lines[other].cut = true;
      await it.reaches(new RegExp(`(both|solo)\\(${before.primary}\\)`));
    },
    600_000,
  );

  test.runIf(here)(
    "a client on a line reads and writes; what the line spoils is asked again, and done once",
    async () => {
      const dir = mkdtempSync(join(tmpdir(), "dyad-plc-"));
      undo.push(() => rmSync(dir, { recursive: true, force: true }));
      const line = await SerialCable.lay(dir, "plc", undo);
      const made = await ChipPair.make(engine, {
        clientLine: { device: "Serial3", path: line.chip },
      });
      pair = made;
      made.chip.powerOn();
      made.servers.a.start();
      made.servers.b.start();
      await made.reaches(/both\([ab]\)/);
      const client = new LineClient(
        { write: (bytes) => line.write(bytes) },
        { retryMs: 2000, commandMs: 120_000 },
      );
      line.onBytes = (bytes) => client.feed(bytes);
      expect(await client.command("SET", "count", "0")).toBe("OK");
      let turn = 0;
      line.change = (bytes) => {
        turn++;
        if (turn % 5 === 0) return Buffer.alloc(0);
        if (turn % 7 === 0) return Buffer.concat([bytes, bytes]);
        if (turn % 4 !== 0) return bytes;
        const bad = Buffer.from(bytes);
        bad[Math.floor(bad.length / 2)]! ^= 0x10;
        return bad;
      };
      for (let i = 1; i <= 10; i++) expect(await client.command("INCR", "count")).toBe(i);
      expect(client.repeats).toBeGreaterThan(1);
      line.change = (bytes) => bytes;
      const value = (await client.command("GET", "count")) as Uint8Array;
      expect(Buffer.from(value).toString()).toBe("10");
    },
    400_000,
  );
});
