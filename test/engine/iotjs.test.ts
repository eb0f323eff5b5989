/** A whole pair with the real IoT.js (JerryScript) as its controller. */
import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { ChipPair, isThere, sleep, until } from "./chip-pair.js";
import type { ServerId } from "./chip-pair.js";

const here = isThere("iotjs");
if (!here) console.log("test/engine: skipped, no `iotjs` on PATH");

let pair: ChipPair | undefined;
afterEach(async (context) => {
  if (context.task.result?.state === "fail") console.log(pair?.chip.said.slice(-4000));
  await pair?.end();
  pair = undefined;
});

async function primary(of: ChipPair): Promise<ServerId> {
  const status = await of.status();
  const found = /(?:both|solo)\(([ab])\)/.exec(status);
  if (found === null) throw new Error(`no primary in:\n${status}`);
  return found[1] as ServerId;
}

async function epoch(of: ChipPair): Promise<string> {
  return /epoch (\d+)/.exec(await of.status())![1]!;
}

async function inMode(of: ChipPair, mode: "both" | "solo"): Promise<void> {
  await of.reaches(new RegExp(`${mode}\\([ab]\\)`));
}

async function serving(): Promise<ChipPair> {
  const made = await ChipPair.make("iotjs");
  pair = made;
  made.chip.powerOn();
  made.servers.a.start();
  made.servers.b.start();
  await inMode(made, "both");
  return made;
}

describe.runIf(here)("a pair with the real IoT.js as controller", () => {
  test("reads and writes, kill -9, failover, return with all that was missed, reboot with its flash", async () => {
    const it = await serving();
    const client = await it.client();
    expect(await client.call(["SET", "x", "1"])).toBe("OK");
    expect(await client.call(["INCR", "x"])).toBe(2);
    for (let i = 0; i < 20; i++) expect(await client.call(["GET", "x"])).toBe("2");

    const first = await primary(it);
    const other = first === "a" ? "b" : "a";
    await it.servers[first].kill();
    // The connection stays, and the command is answered by the other server.
    expect(await client.call(["INCR", "x"], 20_000)).toBe(3);
    expect(await primary(it)).toBe(other);
    for (let i = 0; i < 200; i++) expect(await client.call(["SET", `k${i}`, `v${i}`])).toBe("OK");

    it.servers[first].start();
    await inMode(it, "both");
    await it.servers[other].kill();
    // The one that came back holds what was written meanwhile.
    expect(await client.call(["GET", "x"], 20_000)).toBe("3");
    for (let i = 0; i < 200; i++) expect(await client.call(["GET", `k${i}`])).toBe(`v${i}`);
    it.servers[other].start();
    await inMode(it, "both");

    const before = await epoch(it);
    await it.chip.powerOff();
    const heard = it.chip.said.length;
    it.chip.powerOn();
    await inMode(it, "both");
    // The record was kept in flash: no role changed and no epoch was spent.
    expect(it.chip.said.slice(heard)).not.toContain("blank");
    expect(await epoch(it)).toBe(before);
    expect(await (await it.client()).call(["GET", "x"], 20_000)).toBe("3");
  }, 180_000);

  test("P13: both were up before it: the preset server is primary, though the other was first", async () => {
    pair = await ChipPair.make("iotjs");
    pair.servers.b.start();
    await sleep(1500);
    pair.servers.a.start();
    await sleep(4000);
    pair.chip.powerOn();
    await inMode(pair, "both");
    expect(await primary(pair)).toBe("a");
    expect(pair.chip.said).toContain("announced: a is the preset server");
  }, 120_000);

  test("P14: not both were up: the first to come online is primary, preset or not", async () => {
    pair = await ChipPair.make("iotjs");
    pair.chip.powerOn();
    await sleep(3000);
    pair.servers.b.start();
    await until("b online", () => pair!.chip.said.includes("connected: b"));
    await sleep(500);
    pair.servers.a.start();
    await inMode(pair, "both");
    expect(await primary(pair)).toBe("b");
  }, 120_000);

  test("reads go to both servers; values as large as the board allows, whole in both directions", async () => {
    const it = await serving();
    const value = "v".repeat(1000);
    const clients = [await it.client(), await it.client()];
    expect(await clients[0]!.call(["SET", "x", value], 20_000)).toBe("OK");
    await sleep(1000);
    // Seen from outside: what the two processes write, beyond what they write in as long a time without reads.
    const written = (): number[] =>
      [it.servers.a, it.servers.b].map((server) =>
        Number(/wchar: (\d+)/.exec(readFileSync(`/proc/${server.child!.pid}/io`, "utf8"))![1]),
      );
    const start = written();
    const began = performance.now();
    await Promise.all(
      clients.map(async (client) => {
        for (let i = 0; i < 40; i++) expect(await client.call(["GET", "x"], 20_000)).toBe(value);
      }),
    );
    const busy = written();
    await sleep(performance.now() - began);
    const quiet = written();
    const answers = busy.map(
      (bytes, i) => (bytes - start[i]! - (quiet[i]! - bytes)) / value.length,
    );
    console.log(`reads answered by a and b, by bytes: ${answers.map((n) => n.toFixed(1)).join()}`);
    expect(answers[0]! + answers[1]!).toBeGreaterThan(70);
    expect(Math.min(answers[0]!, answers[1]!)).toBeGreaterThan(5);

    const large = Array.from({ length: 65536 }, (_, i) =>
      String.fromCharCode(33 + ((i * 7) % 90)),
    ).join("");
    expect(await clients[0]!.call(["SET", "large", large], 20_000)).toBe("OK");
    expect(await clients[1]!.call(["GET", "large"], 20_000)).toBe(large);
  }, 120_000);

  test("the power of the controller is cut again and again under writes: none that was acknowledged is lost", async () => {
    const it = await serving();
    let acknowledged = 0;
    for (let round = 0; round < 5; round++) {
      const client = await it.client();
      let on = true;
      const writer = (async () => {
        while (on) {
          const next = acknowledged + 1;
          try {
            if ((await client.call(["SET", "n", String(next)], 5000)) !== "OK") return;
          } catch {
            return;
          }
          acknowledged = next;
        }
      })();
      await sleep(150 + 190 * round);
      // Role changes make it write its flash while it is cut off.
      const lost = round % 2 === 1 ? await primary(it) : undefined;
      if (lost !== undefined) void it.servers[lost].kill();
      await sleep(lost === undefined ? 0 : 40 * round);
      await it.chip.powerOff();
      on = false;
      await writer;
      it.chip.powerOn();
      if (lost !== undefined) it.servers[lost].start();
      await inMode(it, "both");
      const seen = Number(await (await it.client()).call(["GET", "n"], 20_000));
      expect(seen).toBeGreaterThanOrEqual(acknowledged);
      // The one write under way may have been done.
      expect(seen).toBeLessThanOrEqual(acknowledged + 1);
      acknowledged = seen;
    }
    expect(acknowledged).toBeGreaterThan(4);
  }, 240_000);

  test("a client that resets its connection while it is answered ends nothing", async () => {
    const it = await serving();
    const client = await it.client();
    expect(await client.call(["SET", "x", "y".repeat(20_000)], 20_000)).toBe("OK");
    const get = "*2\r\n$3\r\nGET\r\n$1\r\nx\r\n";
    for (let round = 0; round < 20; round++) {
      const rude = connect(it.redisPort, "127.0.0.1");
      await new Promise((done) => rude.once("connect", done));
      rude.on("error", () => undefined);
      rude.write(get.repeat(30));
      await new Promise((done) => rude.once("data", done));
      rude.resetAndDestroy();
    }
    expect(it.chip.isOn()).toBe(true);
    expect(await client.call(["GET", "x"], 20_000)).toBe("y".repeat(20_000));
    expect(it.chip.said).not.toContain("SIGPIPE");
  }, 120_000);

  test("`reboot` at its console ends the process, a damaged flash is found, a second one is refused", async () => {
    const it = await serving();
    await it.chip.type("reboot");
    await until("the end of the process", () => !it.chip.isOn());
    expect(it.chip.said).toContain("reset: asked for at the console");
    await it.chip.powerOff();
    const file = join(it.dir, "chip", "dyad.0");
    const bytes = readFileSync(file);
    // A bit of the first record, which is not the one that was written last.
    bytes[40]! ^= 1;
    writeFileSync(file, bytes);
    it.chip.powerOn();
    await until("the damage", () => it.chip.said.includes("damaged"));
    // It asks both servers, and goes on far above what it may have said before (rule 19).
    await inMode(it, "both");
    expect(Number(await epoch(it))).toBeGreaterThan(1 << 20);
    const { pid } = it.chip;
    const second = it.chip.sibling();
    const heard = second.said.length;
    second.powerOn();
    await until("the end of the second", () => !second.isOn());
    expect(second.said.slice(heard)).toContain("EADDRINUSE");
    expect(it.chip.pid).toBe(pid);
    expect(it.chip.isOn()).toBe(true);
  }, 120_000);
});
