/**
 * What the pair does with what it should never get. Each case runs while a small load goes on; printed is
 * what was seen: the words it answered with, whether the load noticed, and memory.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";
import { join } from "node:path";
import type { BenchArgs } from "./args.js";
import { Load } from "./load.js";
import type { NodeName } from "./pair.js";
import { Pair } from "./pair.js";
import { isAlive, memoryMb, nowMs, sleep } from "./processes.js";
import { RespClient } from "./resp-client.js";
import { freePort } from "./rival.js";
import { printTable, show } from "./table.js";
import { commandFrame, handshake, openingHello } from "./wire-by-hand.js";

const ALL: NodeName[] = ["controller", "a", "b"];

type Case = (pair: Pair) => Promise<string>;

const CASES: Record<string, Case> = {
  "malformed RESP": async (pair) => {
    const seen: string[] = [];
    for (const bytes of [
      "*1\r\n$abc\r\n",
      "*-5\r\n$3\r\nGET\r\n",
      "*2\r\n$3\r\nGET\r\n:5\r\n",
      "*1\r\n$4\r\nPINGxx",
      "*99999999\r\n",
      Buffer.from([0, 255, 1, 254, 13, 10]),
    ]) {
      seen.push(await words(pair.redis, bytes, 800));
    }
    return seen.join("; ");
  },
  "512 MB bulk announced": async (pair) =>
    words(pair.redis, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n", 1000),
  "a value above the limit": async (pair) => {
    const client = await RespClient.open(pair.redis);
    const reply = await client
      .call(["SET", "big", "x".repeat(3 << 20)])
      .catch((error: Error) => error.message);
    client.close();
    return JSON.stringify(reply).slice(0, 120);
  },
  "10,000 connections opened and left": async (pair) => {
    const sockets: Socket[] = [];
    let refused = 0;
    for (let i = 0; i < 10_000; i++) {
      const socket = connect(pair.redis, "127.0.0.1");
      socket.on("error", () => (refused += 1));
      sockets.push(socket);
      if (i % 250 === 0) await sleep(20);
    }
    await sleep(1500);
    const open = sockets.filter((socket) => socket.readyState === "open").length;
    const memory = show(memoryMb(pair.pid("controller"), "VmRSS"));
    let first = "";
    sockets.at(-1)!.on("data", (data) => (first += data.toString()));
    const answer = await words(pair.redis, "PING\r\n", 1000);
    for (const socket of sockets) socket.destroy();
    await sleep(500);
    return `${open} open, ${refused} refused, one more says ${answer || "nothing"}${first}, RSS ${memory} MB`;
  },
  "a frame with a lying class": async (pair) => {
    const honest = await withFrames(pair.native, [commandFrame(0, 6, ["GET", "lie"])]);
    const lie = await withFrames(pair.native, [commandFrame(0, 7, ["SET", "lie", "1"])]);
    const seen = `an honest query: ${honest}; a SET called a query: ${lie}`;
    const client = await RespClient.open(pair.redis);
    const value = await client.call(["GET", "lie"]);
    client.close();
    return `${seen}; GET lie: ${JSON.stringify(value)}`;
  },
  "a peer of another wire version": async (pair) =>
    `native: ${await rawWords(pair.native, openingHello({ wireMin: 9, wireMax: 9, role: 3, id: "" }))}; ` +
    `link: ${await rawWords(pair.linkPort(), openingHello({ wireMin: 9, wireMax: 9, role: 1, id: "a" }))}`,
  "rubbish on the native, link and peer ports": async (pair) => {
    const rubbish = Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167) % 256));
    const seen: string[] = [];
    for (const port of [pair.native, pair.linkPort(), pair.peerPort("a"), pair.peerPort("b")]) {
      seen.push(await rawWords(port, rubbish));
    }
    return seen.join("; ");
  },
  "a server with the wrong pair key": async (pair) => {
    const key = join(pair.dir, "wrong.key");
    writeFileSync(key, `${"ab".repeat(32)}\n`);
    return strangeServer(pair, "wrong-key", (config) => (config.keyFile = key));
  },
  "a second server with a live id": async (pair) => strangeServer(pair, "second", () => undefined),
  "a port in use": async (pair) => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as { port: number };
    const seen = await program([
      "up",
      "--dir",
      join(pair.dir, "other"),
      "--port",
      String(port),
      "--json",
    ]);
    server.close();
    return seen;
  },
  "a config with a misspelled field": async (pair) => {
    const config = JSON.parse(readFileSync(join(pair.dir, "a.json"), "utf8")) as Record<
      string,
      unknown
    >;
    config.durabilty = "disk";
    const path = join(pair.dir, "misspelled.json");
    writeFileSync(path, JSON.stringify(config));
    return program(["agent", "--config", path]);
  },
  "a slow reader of 100 MB of replies": async (pair) => {
    const writer = await RespClient.open(pair.redis);
    await writer.call(["SET", "mega", "m".repeat(1_000_000)]);
    const before = memoryMb(pair.pid("controller"), "VmRSS");
    const socket = connect(pair.redis, "127.0.0.1");
    socket.on("error", () => undefined);
    await new Promise((resolve) => socket.once("connect", resolve));
    socket.pause();
    socket.write("*2\r\n$3\r\nGET\r\n$4\r\nmega\r\n".repeat(100));
    let most = before;
    let slowest = 0;
    for (let i = 0; i < 60; i++) {
      const at = nowMs();
      await writer.call(["PING"]);
      await writer.call(["GET", "nothing"]);
      slowest = Math.max(slowest, nowMs() - at);
      most = Math.max(most, memoryMb(pair.pid("controller"), "VmRSS"));
      await sleep(50);
    }
    let got = 0;
    socket.on("data", (data) => (got += data.length));
    socket.resume();
    const until = nowMs() + 10_000;
    while (got < 100_000_000 && nowMs() < until && !socket.destroyed) await sleep(50);
    socket.destroy();
    writer.close();
    return `controller RSS ${show(before)} -> ${show(most)} MB, others wait at most ${show(slowest)} ms; then it read ${show(got / 1e6)} MB`;
  },
  "a SET half sent and left": async (pair) => {
    const sockets: Socket[] = [];
    for (let i = 0; i < 50; i++) {
      const socket = connect(pair.redis, "127.0.0.1");
      socket.on("error", () => undefined);
      socket.write("*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$900000\r\nabc");
      sockets.push(socket);
    }
    await sleep(1000);
    for (const socket of sockets) socket.destroy();
    await sleep(300);
    const client = await RespClient.open(pair.redis);
    const value = await client.call(["GET", "half"]);
    client.close();
    return `GET half: ${JSON.stringify(value)}`;
  },
};

export async function run(args: BenchArgs): Promise<void> {
  const durability = args.durability ?? "disk";
  const rows: (string | number)[][] = [];
  let pair = await Pair.start({ durability });
  try {
    for (const [name, one] of Object.entries(CASES)) {
      if (args.only !== undefined && !name.includes(args.only)) continue;
      rows.push(await underLoad(name, pair, one));
      console.log(rows.at(-1)!.join(" | "));
      if (!ALL.every((node) => isAlive(pair.pid(node)))) {
        console.log(`dead after it: ${ALL.filter((node) => !isAlive(pair.pid(node))).join(", ")}`);
        await pair.stop();
        pair = await Pair.start({ durability });
      }
    }
  } finally {
    await pair.stop();
  }
  const full = "a full disk";
  if (args.only === undefined || full.includes(args.only)) rows.push(await fullDisk(durability));
  console.log("");
  printTable(
    [
      "case",
      "seen",
      "load: acknowledged",
      "closed",
      "errors",
      "lost",
      "stale",
      "role changes",
      "RSS MB c/a/b",
    ],
    rows,
  );
}

async function underLoad(name: string, pair: Pair, one: Case): Promise<(string | number)[]> {
  const load = new Load({ port: pair.redis, name: `bad${nowMs()}` });
  try {
    const before = await pair.redundant(30_000);
    await load.start();
    await sleep(300);
    let seen: string;
    try {
      seen = await one(pair);
    } catch (error) {
      seen = `FAILED: ${(error as Error).message}`;
    }
    await sleep(300);
    await load.stop();
    const lost = await load.lost();
    const after = await pair.redundant(30_000);
    for (const [text, count] of Object.entries(load.counts.errors))
      console.log(`    ${count} x ${text}`);
    return [
      name,
      seen.replaceAll("\r\n", " ").replaceAll("|", "/").trim(),
      load.counts.acknowledged,
      load.counts.closed,
      load.counts.errorCount,
      lost.length,
      load.counts.stale,
      after.primary === before.primary && after.epoch === before.epoch
        ? 0
        : `epoch ${before.epoch}->${after.epoch}`,
      ALL.map((node) => show(memoryMb(pair.pid(node), "VmRSS"))).join(" / "),
    ];
  } catch (error) {
    await load.stop(100);
    return [name, `FAILED: ${(error as Error).message.slice(0, 200)}`, "", "", "", "", "", "", ""];
  }
}

/** One server's data on a small tmpfs that fills up. Needs root. */
async function fullDisk(durability: "disk" | "memory"): Promise<(string | number)[]> {
  const name = "a full disk";
  if (process.getuid?.() !== 0)
    return [name, "skipped: mounting a tmpfs needs root", "", "", "", "", "", "", ""];
  const pair = await Pair.start({ durability });
  const mounts: string[] = [];
  try {
    const { primary } = await pair.redundant();
    await pair.kill(primary!);
    const dir = pair.dataDir(primary!);
    rmSync(dir, { recursive: true, force: true });
    mkdirSync(dir, { recursive: true });
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", dir]);
    mounts.push(dir);
    await pair.restart(primary!);
    await pair.redundant(60_000);
    return await underLoad(`${name} (a standby on 24 MB)`, pair, async () => {
      const client = await RespClient.open(pair.redis);
      const errors = new Set<string>();
      let written = 0;
      for (let i = 0; i < 80; i++) {
        const reply = await client
          .call(["SET", `fill:${i}`, "f".repeat(500_000)], 20_000)
          .catch((e: Error) => e.message);
        if (reply === "OK") written += 1;
        else errors.add(JSON.stringify(reply));
      }
      client.close();
      const status = await pair.status();
      const alive = isAlive(pair.pid(primary!));
      const why = lastLines(join(pair.dir, "logs", `${primary}.log`));
      // Room again, so that the pair can become redundant.
      execFileSync("mount", ["-o", "remount,size=512m", dir]);
      if (!alive) await pair.restart(primary!);
      return `${written} of 80 written, ${[...errors].join(" ")} server ${alive ? "lives" : "ended"}; status: ${status?.why}; its log: ${why}`;
    });
  } finally {
    // First, because a directory that is mounted on cannot be removed.
    for (const dir of mounts) execFileSync("umount", ["-l", dir]);
    await pair.stop();
  }
}

function lastLines(path: string): string {
  try {
    return readFileSync(path, "utf8").trim().split("\n").slice(-2).join(" ").slice(-300);
  } catch {
    return "none";
  }
}

/** Starts another agent from a changed copy of server a's configuration and returns what it says. */
async function strangeServer(
  pair: Pair,
  name: string,
  change: (config: Record<string, unknown>) => void,
): Promise<string> {
  const config = JSON.parse(readFileSync(join(pair.dir, "a.json"), "utf8")) as Record<
    string,
    unknown
  >;
  config.dir = join(pair.dir, name);
  delete config.log; // Its words come to us.
  mkdirSync(config.dir as string, { recursive: true });
  for (const field of ["peerPort", "udpPort", "localPort"]) config[field] = await freePort();
  change(config);
  const path = join(pair.dir, `${name}.json`);
  writeFileSync(path, JSON.stringify(config));
  return program(["agent", "--config", path]);
}

/** Runs the `dyad` command for at most 4 s. @returns its exit status and last words */
async function program(argv: string[]): Promise<string> {
  const child = spawn(process.execPath, ["bin/dyad.mjs", ...argv], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  child.stdout.on("data", (data: Buffer) => (text += data.toString()));
  child.stderr.on("data", (data: Buffer) => (text += data.toString()));
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  await Promise.race([ended, sleep(4000)]);
  const how = child.exitCode === null ? "still running" : `exit ${child.exitCode}`;
  child.kill("SIGTERM");
  await Promise.race([ended, sleep(2000)]);
  child.kill("SIGKILL");
  return `${how}: ${text.trim().split("\n").slice(-3).join(" ").slice(-300)}`;
}

/** Sends bytes to a Redis port and gathers what comes back until it closes or falls silent. */
function words(port: number, bytes: string | Buffer, waitMs: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    let text = "";
    let ended = "left open";
    socket.on("connect", () => socket.write(bytes));
    socket.on("data", (data) => (text += data.toString("latin1")));
    socket.on("error", (error) => (ended = error.message));
    socket.on("close", () => {
      if (ended === "left open") ended = "closed";
      finish();
    });
    const timer = setTimeout(() => finish(), waitMs);
    const finish = (): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(`${text.trim()} (${ended})`);
    };
  });
}

/** As words, for framed ports: only what can be read by a person is kept. */
async function rawWords(port: number, bytes: Buffer): Promise<string> {
  const text = await words(port, bytes, 1000);
  return text.replace(/[^\x20-\x7e]+/g, " ").trim();
}

async function withFrames(port: number, frames: Buffer[]): Promise<string> {
  const link = await handshake(port);
  for (const frame of frames) link.socket.write(frame);
  await sleep(800);
  const text = link
    .received()
    .replace(/[^\x20-\x7e]+/g, " ")
    .trim();
  link.socket.destroy();
  return text === "" ? "no words" : text;
}
