/**
 * What a command costs the firmware on IoT.js, in instructions, beside a bare forwarder on the same interpreter (chip.ts
 * has the same for Espruino). IoT.js sleeps until something happens, so all that the process does is counted, loop and
 * network included, less what it does in the same time when nobody sends a command. The kernel's share is not counted.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CLASS_QUERY,
  CLASS_WRITE,
  FRAME_COMMAND,
  FRAME_REPLY,
  HEADER_BYTES,
  frameOf,
} from "../protocol/frame.js";
import { Chip, ChipPair, iotjsCommand, isThere, sleep, until } from "../test/engine/chip-pair.js";
import type { BenchArgs } from "./args.js";
import { hasCallgrind, startCounting, takeCounts, underCallgrind } from "./callgrind.js";
import { Cutter, FRAME, Gate, SLOW, SLOW_AGENTS, open, sized } from "./chip.js";
import { printTable } from "./table.js";
import { commandFrame, handshake } from "./wire-by-hand.js";

const ENGINE = "iotjs";
const COMMANDS = 256;
const UNDER_WAY = 32;
const CLIENTS = 8;
const CHUNKS = [1, 8];
const IDLE_MS = 3 * SLOW.pollMs;

/** The shell, which has SIGPIPE ignored, becomes the interpreter. */
const under = (chip: Chip): string[] => [...underCallgrind(chip.dir), "--trace-children=yes"];

/** @returns instructions of the whole process a ms, while nobody sends a command */
async function countIdle(chip: Chip): Promise<number> {
  await startCounting(chip.pid);
  const since = performance.now();
  await sleep(IDLE_MS);
  const { total } = await takeCounts(chip.pid, chip.dir, []);
  return total / (performance.now() - since);
}

/**
 * @param commands one or several, all of the same length, as a chunk @param bytes of a reply at the gate,
 * and of that at the client @param idle instructions a ms that are not the commands'
 * @returns instructions a command, there and back
 */
async function count(
  chip: Chip,
  clients: Socket[],
  gate: Gate,
  command: Buffer,
  chunk: number,
  bytes: { reply: number; client: number },
  idle: number,
): Promise<number> {
  let received = 0;
  const hear = (data: Buffer): void => void (received += data.length);
  for (const client of clients) client.on("data", hear);
  const group = Buffer.concat(Array.from({ length: chunk }, () => command));
  const atOnce = clients.length > 1 ? clients.length : UNDER_WAY;
  const round = async (): Promise<void> => {
    gate.holding = true;
    gate.passed = 0;
    received = 0;
    for (let n = 0; n < atOnce; n += chunk) {
      clients[(n / chunk) % clients.length]!.write(group);
      await until("the request", () => gate.passed >= n + chunk, 60_000);
    }
    await until("the servers' replies", () => gate.answers() >= atOnce, 60_000);
    const odd = gate.held.find(({ frame }) => frame.length !== bytes.reply);
    if (odd !== undefined) throw new Error(`a reply of ${odd.frame.length} bytes`);
    for (let n = 0; n < atOnce; n += chunk) {
      gate.release(chunk);
      await until("the reply", () => received >= (n + chunk) * bytes.client, 60_000);
    }
    gate.holding = false;
  };
  await round();
  await startCounting(chip.pid);
  const since = performance.now();
  for (let n = 0; n < COMMANDS; n += atOnce) await round();
  const { total } = await takeCounts(chip.pid, chip.dir, []);
  for (const client of clients) client.off("data", hear);
  return (total - idle * (performance.now() - since)) / COMMANDS;
}

async function bare(chunk: number): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), "dyad-bare-"));
  mkdirSync(join(dir, "chip"));
  const chip = new Chip(iotjsCommand("bare.js"), join(dir, "chip"));
  const spare = await Promise.all(
    [0, 1].map(async () => {
      const server = createServer();
      await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
      return server;
    }),
  );
  const ports = spare.map((server) => (server.address() as { port: number }).port);
  for (const server of spare) await new Promise((closed) => server.close(closed));
  writeFileSync(
    join(chip.dir, "bare.js"),
    `var net=require("net"),a,b;
net.createServer(function(s){a=s;s.on("data",function(d){b.write(d);});}).listen(${ports[0]});
net.createServer(function(s){b=s;s.on("data",function(d){a.write(d);});}).listen(${ports[1]});`,
  );
  try {
    chip.powerOn(under(chip));
    await sleep(3000);
    const gate = new Gate();
    const inner = await open(await gate.listen(ports[1]!));
    const client = await open(ports[0]!);
    await sleep(1000);
    // The server: it answers every request with as many bytes.
    const requests = new Cutter();
    const payload = new Uint8Array(FRAME - HEADER_BYTES).fill(114);
    const reply = frameOf(FRAME_REPLY, 0, 1, payload);
    inner.on("data", (data) => {
      for (const _ of requests.feed(data)) inner.write(reply);
    });
    const request = Buffer.from(frameOf(FRAME_COMMAND, 0, 1, payload));
    const bytes = { reply: FRAME, client: FRAME };
    return await count(chip, [client], gate, request, chunk, bytes, await countIdle(chip));
  } finally {
    await chip.powerOff();
    rmSync(dir, { recursive: true, force: true });
  }
}

export async function run(args: BenchArgs): Promise<void> {
  if (!hasCallgrind() || !isThere(ENGINE)) {
    console.log(`needs valgrind and \`${ENGINE}\` on PATH: skipped`);
    return;
  }
  const rows: string[][] = [];
  const show = (what: string, counted: number, floor: number): void => {
    rows.push([what, (counted / 1000).toFixed(1), (counted / floor).toFixed(1)]);
    console.log(rows.at(-1)!.join("  "));
  };
  const floors: number[] = [];
  for (const chunk of CHUNKS) {
    floors.push(await bare(chunk));
    show(`bare forwarder, ${chunk} a chunk`, floors.at(-1)!, floors.at(-1)!);
  }
  const gate = new Gate();
  const pair = await ChipPair.make(
    ENGINE,
    { timings: SLOW },
    undefined,
    undefined,
    undefined,
    (port) => gate.listen(port),
    { agents: SLOW_AGENTS },
  );
  const { chip } = pair;
  try {
    chip.powerOn(under(chip));
    pair.servers.a.start();
    pair.servers.b.start();
    await pair.reaches(/both\([ab]\)/, 240_000);
    // Until a poll has told that the two are in sync.
    await sleep(3 * SLOW.pollMs);
    const waiting: Socket[] = [];
    while (waiting.length < CLIENTS)
      waiting.push((await handshake(pair.nativePort, 60_000)).socket);
    const plain = await open(pair.redisPort);
    const key = sized(HEADER_BYTES + 20);
    const longKey = sized(20);
    const writer = await pair.client();
    await writer.call(["SET", key, sized(HEADER_BYTES + 7)], 60_000);
    await writer.call(["SET", longKey, sized(7)], 60_000);
    await sleep(3000);
    const idle = await countIdle(chip);
    console.log(
      `idle, both servers polled every ${SLOW.pollMs} ms: ${Math.round((idle * SLOW.pollMs) / 1000)} thousand instructions a poll`,
    );
    const framed = { reply: FRAME, client: FRAME };
    const written = { reply: 13, client: 13 };
    const longer = { reply: FRAME + HEADER_BYTES, client: FRAME };
    const get = commandFrame(CLASS_QUERY, 7, ["GET", key]);
    const set = commandFrame(CLASS_WRITE, 7, ["SET", "k", sized(HEADER_BYTES + 27)]);
    const text = Buffer.from(`*2\r\n$3\r\nGET\r\n$${longKey.length}\r\n${longKey}\r\n`);
    for (const [name, command, clients, bytes] of [
      ["native GET", get, waiting, framed],
      ["native SET", set, waiting, written],
      ["RESP GET", text, [plain], longer],
    ] as const) {
      if (args.only !== undefined && !name.toLowerCase().includes(args.only)) continue;
      if (clients.length > 1)
        show(
          `${name}, ${CLIENTS} clients that wait`,
          await count(chip, clients.slice(), gate, command, 1, bytes, idle),
          floors[0]!,
        );
      for (const [i, chunk] of CHUNKS.entries())
        show(
          `${name}, ${chunk} a chunk, ${UNDER_WAY} under way`,
          await count(chip, [clients[0]!], gate, command, chunk, bytes, idle),
          floors[i]!,
        );
    }
  } catch (error) {
    console.log(chip.said.slice(-2000));
    throw error;
  } finally {
    await pair.end();
  }
  printTable(["1000 instructions a command, there and back", "all", "x bare"], rows);
}
