/**
 * What a board's bundle takes of the engine's variables, measured: the very bundle boots from flash in the interpreter's
 * build with as many variables as the board has (`espruino-8190` on PATH), two agents dial in, every client slot is
 * taken, and all clients write and read at once. Only the network is the machine's instead of the board's chip.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { bundleBoard } from "./bundle.mjs";
import { isOnPath, onOneProcessor } from "../../hal/node/interpreter.mjs";
import { BOOT_FILE, storageImage } from "./storage-image.mjs";

/** Flash of the interpreter's fixed builds. @unit bytes */
const FLASH_BYTES = 512 * 1024;
const START_MS = 60_000;
const LOAD_MS = 6_000;
const SAMPLE_MS = 150;
/** More than the board may have in flight, so that commands wait in its queue too. */
const COMMANDS_AT_A_TIME = 8;

const sleep = (ms) => new Promise((wake) => setTimeout(wake, ms));

/** @returns the interpreter with that many variables, undefined when it is not on PATH */
export function interpreterFor(variables) {
  const name = `espruino-${variables}`;
  return isOnPath(name) ? name : undefined;
}

async function freePorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, "127.0.0.1");
      await new Promise((ready) => server.once("listening", ready));
      return server;
    }),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}

/** The client library, for the clients of the native port. */
async function clientLibrary(root, dir) {
  const outfile = join(dir, "client.mjs");
  await build({
    absWorkingDir: root,
    entryPoints: ["client/client.ts"],
    bundle: true,
    platform: "node",
    format: "esm",
    outfile,
    logLevel: "warning",
  });
  return import(outfile);
}

const resp = (words) =>
  `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;

/** A plain Redis client as far as needed here: it has a number of commands under way, and counts its replies. */
class PlainClient {
  answered = 0;

  constructor(port) {
    this.socket = connect(port, "127.0.0.1");
    this.socket.on("error", () => undefined);
  }

  /** Asks for a short reply to every command, so that a line is a reply. */
  work(key, value) {
    const ask = () =>
      this.socket.write(resp(this.answered % 3 === 0 ? ["SET", key, value] : ["STRLEN", key]));
    this.socket.on("data", (data) => {
      for (const byte of data) {
        if (byte !== 10) continue;
        this.answered++;
        if (!this.socket.destroyed) ask();
      }
    });
    for (let i = 0; i < COMMANDS_AT_A_TIME; i++) ask();
  }

  close() {
    this.socket.destroy();
  }
}

/** The interpreter, its console, and the last word of its `memory`. */
class Chip {
  said = "";

  constructor(command, dir) {
    const [program, ...args] = onOneProcessor([command]);
    this.child = spawn(program, args, { cwd: dir, stdio: ["pipe", "pipe", "ignore"] });
    this.child.stdout.on("data", (data) => {
      this.said += data.toString("latin1").replaceAll("\r", "");
    });
    this.child.stdin.on("error", () => undefined);
  }

  /** Waits for its words, of those from now on; with `ask`, asks for them. */
  async says(pattern, ask) {
    const from = ask === undefined ? 0 : this.said.length;
    const end = performance.now() + START_MS;
    for (;;) {
      if (ask !== undefined) this.child.stdin.write(`${ask}\n`);
      await sleep(SAMPLE_MS);
      const found = pattern.exec(this.said.slice(from));
      if (found !== null) return found;
      const ended = this.child.exitCode !== null;
      if (ended || performance.now() > end)
        throw new Error(
          `the interpreter ${ended ? "ended" : "did not say"} ${pattern}; it said:\n${this.said.slice(-1500)}`,
        );
    }
  }

  /** Variables in use now, without garbage. */
  async used() {
    return Number((await this.says(/(\d+) of \d+ variables/, "memory"))[1]);
  }
}

/**
 * @param config a board's configuration, of the engine espruino
 * @returns variables at boot and the most at full load; undefined when the interpreter is not there
 */
export async function measureBoard(root, name, config) {
  const command = interpreterFor(config.hardware.variables);
  if (command === undefined) return undefined;
  const dir = mkdtempSync(join(tmpdir(), "dyad-budget-"));
  const agents = [];
  const clients = [];
  let chip;
  try {
    const [redis, native, link, ...rest] = await freePorts(9);
    const key = randomBytes(32).toString("hex");
    const desk = {
      ...config,
      hardware: { ...config.hardware, consoleDevice: "USB", consoleBaud: 0, watchdogSeconds: 0 },
      network: { chip: "host" },
      servers: config.servers.map((server, i) => ({
        ...server,
        // The interpreter on a desktop has other pins, with nothing on them.
        ...(server.fence === undefined
          ? {}
          : { fence: { ...server.fence, output: `D${2 * i}`, input: `D${2 * i + 1}` } }),
        host: "127.0.0.1",
        udpPort: rest[i],
      })),
      ports: {
        redis: config.ports.redis > 0 ? redis : 0,
        native: config.ports.native > 0 ? native : 0,
        link,
        udp: 0,
      },
      key,
      // The interpreter reads its flash through files, which is slow: a slow answer is no failure here.
      timings: {
        ...config.timings,
        failureMs: 2000,
        probeMs: 1000,
        linkDownMs: 6000,
        holdMs: 6000,
      },
    };
    const { stored } = await bundleBoard(root, name, desk);
    writeFileSync(join(dir, "espruino.flash"), storageImage({ [BOOT_FILE]: stored }, FLASH_BYTES));
    chip = new Chip(command, dir);
    const boot = Number((await chip.says(/dyad on [^\n]*?(\d+) of \d+ variables/))[1]);
    for (const [i, { id }] of config.servers.entries()) {
      const other = 1 - i;
      mkdirSync(join(dir, id));
      writeFileSync(
        join(dir, `${id}.json`),
        JSON.stringify({
          id,
          servers: config.servers.map((server) => server.id),
          dir: id,
          controller: { host: "127.0.0.1", linkPort: link, clientPort: redis },
          peer: { host: "127.0.0.1", port: rest[2 + other] },
          peerPort: rest[2 + i],
          udpPort: rest[i],
          localPort: rest[4 + i],
          key,
          preset: i === 0,
          log: `${id}.log`,
        }),
      );
      agents.push(
        spawn(
          process.execPath,
          [join(root, "dist", "agent.js"), "--config", join(dir, `${id}.json`)],
          {
            stdio: ["pipe", "ignore", "ignore"],
          },
        ),
      );
    }
    await chip.says(/both\(/, "status");
    const ready = await chip.used();
    if (config.ports.native > 0) {
      const { connectClient } = await clientLibrary(root, dir);
      for (let i = 0; i < config.slots.native; i++)
        clients.push(
          await connectClient({ host: "127.0.0.1", port: native, limits: { commandMs: 30_000 } }),
        );
    }
    // Reads and writes as large as the board takes, of every client at once.
    const value = "v".repeat(Math.floor(config.limits.valueBytesMax / 2));
    let stopped = false;
    let answered = 0;
    const plain = Array.from(
      { length: config.ports.redis > 0 ? config.slots.redis : 0 },
      () => new PlainClient(redis),
    );
    plain.forEach((client, i) => client.work(`r${i}`, value));
    const work = clients.flatMap((client, i) =>
      Array.from({ length: COMMANDS_AT_A_TIME }, async (_, n) => {
        for (let turn = 0; !stopped; turn++) {
          const key = `k${i}.${n}`;
          await client.command(...(turn % 3 === 0 ? ["SET", key, value] : ["GET", key])).then(
            () => answered++,
            () => sleep(20),
          );
        }
      }),
    );
    let full = ready;
    for (const end = performance.now() + LOAD_MS; performance.now() < end;) {
      full = Math.max(full, await chip.used());
    }
    stopped = true;
    clients.push(...plain);
    await Promise.race([Promise.all(work), sleep(3000)]);
    for (const client of plain) answered += client.answered;
    return { command, boot, ready, full, clients: clients.length, answered };
  } finally {
    for (const client of clients) client.close();
    for (const agent of agents) agent.kill("SIGKILL");
    chip?.child.kill("SIGKILL");
    await sleep(100);
    rmSync(dir, { recursive: true, force: true });
  }
}
