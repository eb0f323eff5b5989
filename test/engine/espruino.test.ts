import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { ChipPair, isThere, sleep, until } from "./chip-pair.js";
import type { ServerId } from "./chip-pair.js";

const here = isThere("espruino");
if (!here) console.log("test/engine: skipped, no `espruino` on PATH");

const READS = 40;

/** Stands between a server and the chip's link port, and counts one letter in what the server sends. */
class LetterRelay {
  letters = 0;
  private readonly sockets: Socket[] = [];

  private constructor(private readonly server: Server) {}

  static async open(linkPort: number, letter: string): Promise<LetterRelay> {
    const server = createServer((near) => {
      const far = connect(linkPort, "127.0.0.1");
      near.on("data", (data) => {
        for (const byte of data) if (byte === letter.charCodeAt(0)) relay.letters++;
      });
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        one.setNoDelay(true);
        one.pipe(other);
        one.on("error", () => other.destroy());
        one.on("close", () => other.destroy());
        relay.sockets.push(one);
      }
    });
    const relay = new LetterRelay(server);
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    return relay;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
  }
}

let pair: ChipPair | undefined;
const relays: LetterRelay[] = [];
afterEach(async (context) => {
  for (const relay of relays.splice(0)) relay.close();
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
    // So were the events that led to it.
    expect(await pair.chip.type("events")).toMatch(
      /in flash at boot[^\n]*:\n(\d+ [^\n]+\n|\(restart\)\n)*\d+ [^\n]*: [^\n]+\nsince:\n/,
    );
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
    pair = await ChipPair.make("espruino", {}, undefined, undefined, undefined, async (port) => {
      const relay = await LetterRelay.open(port, "v");
      relays.push(relay);
      return relay.port;
    });
    pair.chip.powerOn();
    pair.servers.a.start();
    pair.servers.b.start();
    await inMode(pair, "both");
    const value = "v".repeat(1000);
    const clients = [await pair.client(), await pair.client()];
    expect(await clients[0]!.call(["SET", "x", value], 60_000)).toBe("OK");
    await sleep(1000);

    await Promise.all(
      clients.map(async (client) => {
        for (let i = 0; i < READS; i++) expect(await client.call(["GET", "x"], 60_000)).toBe(value);
      }),
    );
    const answers = relays.map((relay) => Math.round(relay.letters / value.length));
    console.log(`reads answered by a and b: ${answers.join(", ")}`);
    expect(answers[0]! + answers[1]!).toBe(clients.length * READS);
    expect(Math.min(...answers)).toBeGreaterThan(0);
  }, 160_000);

  test("a board that carries no commands: it changes the roles, and programs use the servers' own ports", async () => {
    pair = await ChipPair.make("espruino", {}, undefined, undefined, undefined, undefined, {
      noClients: true,
    });
    pair.chip.powerOn();
    pair.servers.a.start();
    pair.servers.b.start();
    await inMode(pair, "both");
    const first = await primary(pair);
    const other = first === "a" ? "b" : "a";
    // The standby sends it to the primary, and answers.
    const client = await pair.localClient(other);
    expect(await client.call(["SET", "x", "1"], 60_000)).toBe("OK");
    expect(await client.call(["GET", "x"], 60_000)).toBe("1");

    await pair.servers[first].kill();
    await until(
      "writes at the other server",
      async () => (await client.call(["SET", "x", "2"], 60_000)) === "OK",
      60_000,
    );
    expect(await primary(pair)).toBe(other);

    pair.servers[first].start();
    await inMode(pair, "both");
    const back = await pair.localClient(first);
    expect(await back.call(["GET", "x"], 60_000)).toBe("2");
  }, 240_000);
});
