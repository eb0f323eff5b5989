import { readFileSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { ChipPair, isThere, sleep, until } from "./chip-pair.js";
import type { ServerId } from "./chip-pair.js";

const here = isThere("espruino");
if (!here) console.log("test/engine: skipped, no `espruino` on PATH");

let pair: ChipPair | undefined;
afterEach(async (context) => {
  if (context.task.result?.state === "fail") console.log(pair?.chip.said.slice(-4000));
  await pair?.end();
  pair = undefined;
});

/** Who is primary, as the chip's console says. */
async function primary(of: ChipPair): Promise<ServerId> {
  const found = /primary:? +"?([ab])\b|(?:both|solo)\(([ab])\)/.exec(await of.status());
  if (found === null) throw new Error(`no primary in:\n${await of.status()}`);
  return (found[1] ?? found[2]) as ServerId;
}

async function inMode(of: ChipPair, mode: "both" | "solo"): Promise<void> {
  await of.reaches(new RegExp(`${mode}\\([ab]\\)`));
}

describe.runIf(here)("a pair with the real Espruino interpreter as controller", () => {
  test("power-on, reads and writes, kill -9, failover, return, reboot of the chip", async () => {
    pair = await ChipPair.make("espruino");
    pair.chip.powerOn();
    pair.servers.b.start();
    pair.servers.a.start();
    await inMode(pair, "both");

    const client = await pair.client();
    expect(await client.call(["SET", "x", "1"])).toBe("OK");
    expect(await client.call(["INCR", "x"])).toBe(2);
    for (let i = 0; i < 20; i++) expect(await client.call(["GET", "x"])).toBe("2");

    const first = await primary(pair);
    const other = first === "a" ? "b" : "a";
    await pair.servers[first].kill();
    // The connection stays, and the command is answered by the other server.
    expect(await client.call(["INCR", "x"], 60_000)).toBe(3);
    expect(await primary(pair)).toBe(other);

    pair.servers[first].start();
    await inMode(pair, "both");
    await pair.servers[other].kill();
    // The one that came back holds what was written meanwhile.
    expect(await client.call(["GET", "x"], 60_000)).toBe("3");
    pair.servers[other].start();
    await inMode(pair, "both");

    const before = /epoch (\d+)/.exec(await pair.status())?.[1];
    await pair.chip.powerOff();
    const heard = pair.chip.said.length;
    pair.chip.powerOn();
    await inMode(pair, "both");
    // The record was kept in flash: no role changed and no epoch was spent.
    expect(pair.chip.said.slice(heard)).not.toContain("blank");
    expect(/epoch (\d+)/.exec(await pair.status())?.[1]).toBe(before);
    const again = await pair.client();
    expect(await again.call(["GET", "x"], 60_000)).toBe("3");
  }, 400_000);

  test("P13: both were up before the chip: the preset server is primary, though the other was first", async () => {
    pair = await ChipPair.make("espruino");
    pair.servers.b.start();
    await sleep(1500);
    pair.servers.a.start();
    await sleep(4000);
    pair.chip.powerOn();
    await inMode(pair, "both");
    expect(await primary(pair)).toBe("a");
    expect(pair.chip.said).toContain("announced: a is the preset server");
  }, 160_000);

  test("P14: not both were up: the first to come online is primary, preset or not", async () => {
    pair = await ChipPair.make("espruino");
    pair.chip.powerOn();
    await sleep(3000);
    pair.servers.b.start();
    await until("b online", () => pair!.chip.said.includes("connected: b"));
    await sleep(500);
    pair.servers.a.start();
    await inMode(pair, "both");
    expect(await primary(pair)).toBe("b");
  }, 160_000);

  test("reads go to both servers", async () => {
    pair = await ChipPair.make("espruino");
    pair.chip.powerOn();
    pair.servers.a.start();
    pair.servers.b.start();
    await inMode(pair, "both");
    const value = "v".repeat(1000);
    const clients = [await pair.client(), await pair.client()];
    expect(await clients[0]!.call(["SET", "x", value], 60_000)).toBe("OK");
    await sleep(1000);

    // Seen from outside: what the two processes write, beyond what they write in as long a time without reads.
    const written = (): number[] =>
      [pair!.servers.a, pair!.servers.b].map((server) =>
        Number(/wchar: (\d+)/.exec(readFileSync(`/proc/${server.child!.pid}/io`, "utf8"))![1]),
      );
    const start = written();
    const began = performance.now();
    await Promise.all(
      clients.map(async (client) => {
        for (let i = 0; i < 40; i++) expect(await client.call(["GET", "x"], 60_000)).toBe(value);
      }),
    );
    const busy = written();
    await sleep(performance.now() - began);
    const quiet = written();
    const answers = busy.map(
      (bytes, i) => (bytes - start[i]! - (quiet[i]! - bytes)) / value.length,
    );
    console.log(
      `reads answered by a and b, by bytes: ${answers.map((n) => n.toFixed(1)).join(", ")}`,
    );
    expect(answers[0]! + answers[1]!).toBeGreaterThan(70);
    expect(Math.min(answers[0]!, answers[1]!)).toBeGreaterThan(5);
  }, 160_000);
});
