/**
 * What a command costs the firmware on the real Espruino interpreter, in instructions, beside a bare forwarder that only
 * hands each chunk on: the same interpreter, the same bytes, in one run.
 *
 *     client ─64 bytes─> interpreter ─> gate ─> server          request: counted until the gate has it
 *            <─64 bytes─             <─ gate <─                 reply:   held at the gate, then counted
 *
 * Counted is what the engine runs in events (handlers of data, of `drain`, and timers), with all natives they call. Not
 * counted is the engine's own idle loop and its network driver, which cost both the same.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CLASS_QUERY,
  CLASS_WRITE,
  FRAME_COMMAND,
  FRAME_PACK,
  FRAME_PACK_REPLY,
  FRAME_REPLY,
  HEADER_BYTES,
  PACK_COUNT_MASK,
  PACK_COUNT_SHIFT,
  frameOf,
  readU16,
} from "../protocol/frame.js";
import { Chip, ChipPair, sleep, until } from "../test/engine/chip-pair.js";
import type { BenchArgs } from "./args.js";
import { hasCallgrind, startCounting, takeCounts, underCallgrind } from "./callgrind.js";
import { printIdle } from "./chip-idle.js";
import { printTable } from "./table.js";
import { commandFrame, handshake } from "./wire-by-hand.js";

/** The engine runs handlers of bytes that came by the one, timers and events it has queued (`drain`, datagrams) by the other. */
const FUNCTIONS = ["jsiExecuteEventCallback", "jsiExecuteEventCallbackArgsArray"];
const DATA = "jswrap_stream_pushData>jsiExecuteEventCallback";
const QUEUED = "jsiExecuteEvents>jsiExecuteEventCallbackArgsArray";
const TIMER = "jsiIdle>jsiExecuteEventCallbackArgsArray";
export const FRAME = 64;
const COMMANDS = 256;
const WARM_UP = 64;
/** Commands of one connection before the first is answered. */
const UNDER_WAY = 32;
const ENGINE = "espruino";
/** Connections of clients that each wait for their answer: the board's native slots. */
const CLIENTS = 8;

/** Nothing but commands is to happen while they are counted, and callgrind is slow. */
export const SLOW = {
  pollMs: 4000,
  failureMs: 60_000,
  probeMs: 20_000,
  linkDownMs: 90_000,
  stallMs: 60_000,
  stallPeerDownMs: 60_000,
  diskStallMs: 90_000,
  holdMs: 120_000,
  handshakeMs: 120_000,
  drainMs: 10_000,
  peerSeenMs: 5000,
  announceMs: 600,
  repeatMs: 30_000,
  refusalQuietMs: 5000,
  serialPollMs: 150,
  serialFailureMs: 60_000,
  serialProbeMs: 20_000,
};
export const SLOW_AGENTS = {
  controllerSilentMs: 60_000,
  controllerStrangeMs: 30_000,
  handshakeMs: 60_000,
};

/** Cuts a stream into frames. */
export class Cutter {
  private input = Buffer.alloc(0);

  *feed(data: Buffer): Generator<Buffer> {
    this.input = Buffer.concat([this.input, data]);
    while (this.input.length >= HEADER_BYTES) {
      const length = HEADER_BYTES + readU16(this.input, 2);
      if (this.input.length < length) return;
      const frame = this.input.subarray(0, length);
      this.input = this.input.subarray(length);
      yield frame;
    }
  }
}

const typeOf = (frame: Buffer): number => frame[0]! & 15;

/** Stands where the servers dial: what comes back from them is held until it is let through, in chunks of a given size. */
export class Gate {
  /** Commands that went to the servers since the last look. */
  passed = 0;
  /** Answers that are held, how many commands each is for, and the link it belongs to. */
  readonly held: { far: Socket; frame: Buffer; commands: number }[] = [];
  holding = false;

  async listen(target: number): Promise<number> {
    const server = createServer((near) => {
      const far = connect(target, "127.0.0.1");
      near.setNoDelay(true);
      far.setNoDelay(true);
      const requests = new Cutter();
      far.on("data", (data) => {
        for (const frame of requests.feed(data)) {
          if (typeOf(frame) === FRAME_COMMAND) this.passed++;
          if (typeOf(frame) === FRAME_PACK)
            this.passed += ((frame[1]! >> PACK_COUNT_SHIFT) & PACK_COUNT_MASK) + 1;
        }
        near.write(data);
      });
      const replies = new Cutter();
      near.on("data", (data) => {
        for (const frame of replies.feed(data)) {
          const isPack = typeOf(frame) === FRAME_PACK_REPLY;
          if (this.holding && (isPack || typeOf(frame) === FRAME_REPLY))
            this.held.push({ far, frame, commands: isPack ? frame[1]! : 1 });
          else far.write(frame);
        }
      });
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        one.on("error", () => undefined);
        one.on("close", () => other.destroy());
      }
    });
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    return (server.address() as { port: number }).port;
  }

  /** Commands whose answers are held. */
  answers(): number {
    return this.held.reduce((sum, { commands }) => sum + commands, 0);
  }

  /** Lets the next answers through, as one chunk. @returns to how many commands */
  release(count: number): number {
    const frames: Buffer[] = [];
    const { far } = this.held[0]!;
    let commands = 0;
    while (commands < count) {
      const one = this.held.shift()!;
      if (one.far !== far) throw new Error("replies of two servers");
      frames.push(one.frame);
      commands += one.commands;
    }
    far.write(Buffer.concat(frames));
    return commands;
  }
}

/** Instructions a command. */
interface Counted {
  /** Handlers of bytes, client to server and back. */
  request: number;
  reply: number;
  /** Events the engine has queued, on both ways: what was written has gone. */
  queued: number;
}

/** Of timers, which run whether there are commands or not: all calls, and instructions of all. */
let timerCalls = 0;
let timerCost = 0;
/** Of events that the engine queues while nobody sends a command: heartbeats. @unit instructions a ms */
let idlePerMs = 0;

/**
 * Sends COMMANDS commands, `chunk` in each chunk, and counts both ways apart. With several clients each asks and waits for
 * its answer; a single one has as many commands under way as are sent at once.
 * @param clientBytes of a reply at the client
 */
async function count(
  chip: Chip,
  clients: Socket[],
  gate: Gate,
  request: Buffer,
  chunk: number,
  clientBytes: number,
  numbered: boolean,
): Promise<Counted> {
  let received = 0;
  const hear = (data: Buffer): void => void (received += data.length);
  for (const client of clients) client.on("data", hear);
  /** Commands each client has sent: a native one numbers them one by one, as client/core.ts does. */
  const numbers = clients.map(() => 0);
  const group = (client: number): Buffer =>
    Buffer.concat(
      Array.from({ length: chunk }, () => {
        const frame = Buffer.from(request);
        numbers[client] = numbers[client]! + 1;
        if (numbered) frame.writeUInt32BE(numbers[client], 4);
        return frame;
      }),
    );
  const counted: Counted = { request: 0, reply: 0, queued: 0 };
  // Those that wait are counted both ways at once: the chip has other things to do in a longer time.
  const waits = clients.length > 1;
  const per = COMMANDS;
  let since = performance.now();
  const take = async (): Promise<number> => {
    const { costs } = await takeCounts(chip.pid, chip.dir, FUNCTIONS);
    const cost = (edge: string): number => (costs.get(edge)?.cost ?? 0) / per;
    const now = performance.now();
    counted.queued += Math.max(0, cost(QUEUED) - (idlePerMs * (now - since)) / per);
    since = now;
    timerCalls += costs.get(TIMER)?.calls ?? 0;
    timerCost += costs.get(TIMER)?.cost ?? 0;
    return cost(DATA);
  };
  const pass = async (commands: number): Promise<void> => {
    gate.holding = true;
    gate.passed = 0;
    for (let n = 0; n < commands; n += chunk) {
      clients[n % clients.length]!.write(group(n % clients.length));
      await until("the request", () => gate.passed >= n + chunk, 60_000);
    }
    await until("the servers' replies", () => gate.answers() >= commands, 60_000);
  };
  const answer = async (commands: number): Promise<void> => {
    received = 0;
    for (let n = 0; n < commands;) {
      n += gate.release(chunk);
      await until("the reply", () => received >= n * clientBytes, 60_000);
    }
    gate.holding = false;
  };
  const round = waits ? clients.length : UNDER_WAY;
  for (let n = 0; n < WARM_UP; n += round) {
    await pass(round);
    await answer(round);
  }
  await startCounting(chip.pid);
  since = performance.now();
  for (let n = 0; n < per; n += round) {
    await pass(round);
    if (!waits) counted.request += await take();
    await answer(round);
    if (!waits && n + round < per) counted.reply += await take();
  }
  // What the engine has queued belongs to it.
  await sleep(500);
  counted.reply += await take();
  for (const client of clients) client.off("data", hear);
  return counted;
}

/** What the chip does while nobody sends a command: none of that is a command's. */
async function countIdle(chip: Chip): Promise<void> {
  await startCounting(chip.pid);
  const since = performance.now();
  await sleep(4 * SLOW.pollMs);
  const { costs } = await takeCounts(chip.pid, chip.dir, FUNCTIONS);
  idlePerMs = (costs.get(QUEUED)?.cost ?? 0) / (performance.now() - since);
}

export async function open(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  await new Promise((ready) => socket.once("connect", ready));
  // At the end the interpreter is killed under it.
  socket.on("error", () => undefined);
  socket.setNoDelay(true);
  return socket;
}

/** A key and a value that make command and reply of FRAME bytes. */
export function sized(fixed: number): string {
  return "x".repeat(FRAME - fixed);
}

async function bare(chunk: number): Promise<Counted> {
  const dir = mkdtempSync(join(tmpdir(), "dyad-bare-"));
  mkdirSync(join(dir, "chip"));
  const chip = new Chip([ENGINE], join(dir, "chip"));
  const server = createServer();
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  const ports = [0, 0].map((_, i) => 20_000 + ((process.pid + 7919 * (i + 1)) % 20_000));
  // One client's chunks go to the server as they are, and back.
  writeFileSync(
    join(chip.dir, "bare.js"),
    `var a,b;
require("net").createServer(function(s){a=s;s.on("data",function(d){b.write(d);});}).listen(${ports[0]});
require("net").createServer(function(s){b=s;s.on("data",function(d){a.write(d);});}).listen(${ports[1]});`,
  );
  try {
    chip.powerOn(underCallgrind(chip.dir), ["bare.js"]);
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
    return await count(chip, [client], gate, request, chunk, FRAME, false);
  } finally {
    await chip.powerOff();
    server.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function firmware(measure: (pair: ChipPair, gate: Gate) => Promise<void>): Promise<void> {
  const gate = new Gate();
  const pair = await ChipPair.make(
    ENGINE,
    { timings: SLOW },
    undefined,
    undefined,
    undefined,
    (port) => gate.listen(port),
    { inMemory: true, agents: SLOW_AGENTS },
  );
  try {
    pair.chip.powerOn(underCallgrind(pair.chip.dir));
    pair.servers.a.start();
    pair.servers.b.start();
    await pair.reaches(/both\([ab]\)[^]*in sync|both\([ab]\)/, 240_000);
    // Until a poll has told that the two are in sync.
    await sleep(3 * SLOW.pollMs);
    await measure(pair, gate);
  } catch (error) {
    console.log(pair.chip.said.slice(-2000));
    throw error;
  } finally {
    await pair.end();
  }
}

export async function run(args: BenchArgs): Promise<void> {
  if (!hasCallgrind() || spawnSync("sh", ["-c", `command -v ${ENGINE}`]).status !== 0) {
    console.log(`needs valgrind and \`${ENGINE}\` on PATH: skipped`);
    return;
  }
  if (args.only === undefined || args.only === "idle") await printIdle();
  if (args.only === "idle") return;
  const rows: string[][] = [];
  const show = (what: string, counted: Counted, floor: number): void => {
    const all = counted.request + counted.reply + counted.queued;
    const k = (n: number): string => (n / 1000).toFixed(1);
    rows.push([
      what,
      k(counted.request),
      k(counted.reply),
      k(counted.queued),
      k(all),
      (all / floor).toFixed(1),
    ]);
    console.log(rows.at(-1)!.join("  "));
  };
  const chunks = [1, 8];
  const floors: number[] = [];
  for (const chunk of chunks) {
    const counted = await bare(chunk);
    floors.push(counted.request + counted.reply + counted.queued);
    show(`bare, ${chunk} a chunk`, counted, floors.at(-1)!);
  }
  await firmware(async (pair, gate) => {
    await countIdle(pair.chip);
    const sockets: Socket[] = [];
    while (sockets.length < CLIENTS) {
      sockets.push((await handshake(pair.nativePort, 60_000)).socket);
    }
    const socket = sockets[0]!;
    const key = sized(HEADER_BYTES + 20);
    const value = sized(HEADER_BYTES + 7);
    const writer = await pair.client();
    await writer.call(["SET", key, value], 60_000);
    await sleep(3000);
    const get = commandFrame(CLASS_QUERY, 7, ["GET", key]);
    if (get.length !== FRAME) throw new Error(`a frame of ${get.length} bytes`);
    if (args.only === undefined || args.only.includes("get")) {
      show(
        `native GET, ${CLIENTS} clients that wait`,
        await count(pair.chip, sockets, gate, get, 1, FRAME, true),
        floors[0]!,
      );
      for (const [i, chunk] of chunks.entries())
        show(
          `native GET, ${chunk} a chunk, ${UNDER_WAY} under way`,
          await count(pair.chip, [socket], gate, get, chunk, FRAME, true),
          floors[i]!,
        );
    }
    const set = commandFrame(CLASS_WRITE, 7, ["SET", "k", sized(HEADER_BYTES + 27)]);
    if (args.only === undefined || args.only.includes("set")) {
      show(
        `native SET, ${CLIENTS} clients that wait`,
        await count(pair.chip, sockets, gate, set, 1, 13, true),
        floors[0]!,
      );
      for (const [i, chunk] of chunks.entries())
        show(
          `native SET, ${chunk} a chunk, ${UNDER_WAY} under way`,
          await count(pair.chip, [socket], gate, set, chunk, 13, true),
          floors[i]!,
        );
    }
    const longKey = sized(20);
    await writer.call(["SET", longKey, sized(7)], 60_000);
    await sleep(3000);
    const text = Buffer.from(`*2\r\n$3\r\nGET\r\n$${longKey.length}\r\n${longKey}\r\n`);
    const plain = await open(pair.redisPort);
    for (const [i, chunk] of chunks.entries())
      if (args.only === undefined || args.only.includes("resp"))
        show(
          `RESP GET, ${chunk} a chunk, ${UNDER_WAY} under way`,
          await count(pair.chip, [plain], gate, text, chunk, FRAME, false),
          floors[i]!,
        );
  });
  console.log();
  console.log(
    `timers beside them, not in the table: ${timerCalls} calls of ${Math.round(timerCost / Math.max(1, timerCalls) / 1000)} thousand instructions each`,
  );
  printTable(["1000 instructions a command", "request", "reply", "drains", "all", "x bare"], rows);
}
