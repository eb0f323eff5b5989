/**
 * A whole pair with a real engine as its controller: the interpreter runs the board's bundle, two real agents dial
 * in. Everything is on the loopback, in a directory of its own.
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess, ChildProcessWithoutNullStreams } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseBoard } from "../../bin/board/board-config.mjs";
import { bundleBoard } from "../../bin/board/bundle.mjs";
import { bundleIotjs } from "../../bin/board/bundle-iotjs.mjs";
import { guarded, isOnPath, onOneProcessor, releaseGuard } from "../../hal/node/interpreter.mjs";
import { BOOT_FILE, storageImage } from "../../bin/board/storage-image.mjs";
import { endWithUs } from "../../bench/processes.js";
import { RespClient } from "../../bench/resp-client.js";
import { freePorts } from "../free-ports.js";

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const AGENT = join(ROOT, "dist", "agent.js");
const BOARDS = {
  espruino: "espruino-linux",
  "espruino-16383": "espruino-linux",
  iotjs: "iotjs-linux",
};
const SERVERS = ["a", "b"] as const;
/** The interpreter reads its flash through files, and tests share their machine: slow is not failed. */
const PATIENT = {
  // Only an answer that comes before the next poll counts.
  pollMs: 500,
  failureMs: 6000,
  serialFailureMs: 6000,
  probeMs: 3000,
  serialProbeMs: 3000,
  linkDownMs: 15_000,
  stallMs: 15_000,
  stallPeerDownMs: 6000,
  diskStallMs: 20_000,
  handshakeMs: 45_000,
  holdMs: 30_000,
};
const PATIENT_AGENTS = {
  controllerSilentMs: 20_000,
  controllerStrangeMs: 5000,
  handshakeMs: 45_000,
};
/** Flash of the interpreter's Linux builds, the larger of them. @unit bytes */
const FLASH_BYTES = 512 * 1024;
/** Storage of the plain interpreter: a larger file is read no further. @unit bytes */
const STORAGE_BYTES = 256 * 1024;
/** What the interpreter puts before a file's content. */
const FILE_HEAD_BYTES = 32;

/** Lines that change nothing, so that they can be typed twice. */
const QUESTION = /^(status|servers|events|log|explain|config|memory|flash|help)( |$)/;
const TRIES = 3;
/** For all of them, and again for the last. @unit ms */
const TRIES_MS = 60_000;

export type Engine = keyof typeof BOARDS;
export type ServerId = (typeof SERVERS)[number];

const made = new Set<string>();

/** A run that is cut short leaves no directory behind either. */
function removeWithUs(dir: string): void {
  if (made.size === 0)
    process.once("exit", () =>
      made.forEach((one) => rmSync(one, { recursive: true, force: true, maxRetries: 3 })),
    );
  made.add(dir);
}

/** Whether an engine's interpreter can be run here. */
export function isThere(engine: Engine): boolean {
  return isOnPath(engine);
}

/** A signal that a process ignores, so do those it becomes; IoT.js cannot do it by itself. */
export function iotjsCommand(script: string): string[] {
  return ["sh", "-c", `trap '' PIPE; exec iotjs ${script}`];
}

export const sleep = (ms: number): Promise<void> => new Promise((wake) => setTimeout(wake, ms));

/** Asks until the answer is true. @throws with `what` when it is not within the time */
export async function until(
  what: string,
  ask: () => boolean | Promise<boolean>,
  timeoutMs = 20_000,
): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!(await ask())) {
    if (performance.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await sleep(25);
  }
}

/** The interpreter with the firmware: a chip that can be plugged in and out. Its flash stays. */
export class Chip {
  /** Everything it has said at its console since it was made. */
  said = "";
  private child: ChildProcess | undefined;
  /** Where its console is a port: the connection to it, and what has come on it. */
  private line: Socket | undefined;
  private heard = "";

  constructor(
    private readonly command: string[],
    readonly dir: string,
    private readonly consolePort?: number,
  ) {}

  /** @param under a program, with its arguments, that runs the interpreter @param own the interpreter's arguments */
  powerOn(under: string[] = [], own: string[] = []): void {
    // The interpreter must not see the end of its input: the pipe stays open.
    const command = guarded([...under, ...this.command, ...own]);
    const [program, ...rest] = command as [string, ...string[]];
    const child = endWithUs(
      spawn(program, rest, { cwd: this.dir, stdio: ["pipe", "pipe", "pipe", "pipe"] }),
    ) as ChildProcessWithoutNullStreams;
    releaseGuard(child);
    this.child = child;
    const hear = (data: Buffer): void => {
      this.said += data.toString("latin1").replaceAll("\r", "");
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    child.stdin.on("error", () => undefined);
  }

  /** Another one that was given the same firmware and flash. */
  sibling(): Chip {
    return new Chip(this.command, this.dir, this.consolePort);
  }

  get pid(): number {
    return this.child!.pid!;
  }

  /** What the interpreter died of, where it died: a board has a hard fault there. */
  get signal(): string {
    return this.child?.signalCode ?? "none";
  }

  isOn(): boolean {
    const { child } = this;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  /** Cuts the power. */
  async powerOff(): Promise<void> {
    const { child } = this;
    this.line?.destroy();
    this.line = undefined;
    if (child === undefined) return;
    if (this.isOn()) {
      child.kill("SIGKILL");
      await new Promise((ended) => child.once("exit", ended));
    }
    this.child = undefined;
  }

  /** The connection to a console that is a port, made when it is first needed. */
  private async connected(): Promise<Socket> {
    if (this.line !== undefined && !this.line.destroyed) return this.line;
    let found: Socket | undefined;
    await until("the console's port", async () => {
      const socket = connect(this.consolePort!, "127.0.0.1");
      const open = await new Promise<boolean>((done) => {
        socket.once("connect", () => done(true));
        socket.once("error", () => done(false));
      });
      if (open) found = socket;
      return open;
    });
    this.heard = "";
    found!.on("data", (data: Buffer) => {
      this.heard += data.toString("latin1").replaceAll("\r", "");
    });
    found!.on("error", () => undefined);
    this.line = found;
    return found!;
  }

  /**
   * Types a line at the console. One that only asks is typed again where nothing was heard of it: the line may lose it.
   * @returns what it says from then on, when it has been quiet for a while
   */
  async type(line: string): Promise<string> {
    const isPort = this.consolePort !== undefined;
    const all = (): string => (isPort ? this.heard : this.said);
    const prompt = `${line}\n`;
    let from = 0;
    for (let left = QUESTION.test(line) ? TRIES : 1; ; left--) {
      const input = isPort ? await this.connected() : this.child!.stdin!;
      from = all().length;
      input.write(`${line}\n`);
      const answered = (): boolean => {
        const at = all().indexOf(prompt, from);
        return at >= 0 && all().length > at + prompt.length;
      };
      try {
        await until(`an answer to ${line}`, answered, TRIES_MS / (left > 1 ? TRIES : 1));
        break;
      } catch (error) {
        if (left === 1 || !this.isOn()) throw error;
      }
    }
    let length = 0;
    while (length !== all().length) {
      length = all().length;
      await sleep(60);
    }
    return all().slice(all().indexOf(prompt, from) + prompt.length);
  }
}

/** One data server: its process and its disk. */
class Server {
  child: ChildProcess | undefined;

  constructor(
    readonly id: ServerId,
    private readonly config: string,
  ) {}

  start(): void {
    // It ends with this process, in whatever way that does: its input ends then.
    this.child = endWithUs(
      spawn(process.execPath, [AGENT, "--config", this.config, "--with-parent"], {
        stdio: ["pipe", "ignore", "inherit"],
      }),
    );
  }

  /** kill -9 */
  async kill(): Promise<void> {
    const { child } = this;
    if (child === undefined) return;
    this.child = undefined;
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await new Promise((ended) => child.once("exit", ended));
  }
}

export class ChipPair {
  readonly chip: Chip;
  readonly servers: Record<ServerId, Server>;
  private readonly clients: RespClient[] = [];

  private constructor(
    readonly dir: string,
    readonly redisPort: number,
    readonly nativePort: number,
    readonly localPorts: Record<ServerId, number>,
    command: string[],
    consolePort: number | undefined,
  ) {
    this.chip = new Chip(command, join(dir, "chip"), consolePort);
    this.servers = {
      a: new Server("a", join(dir, "a.json")),
      b: new Server("b", join(dir, "b.json")),
    };
  }

  /**
   * Builds the firmware for free ports and writes all configurations; nothing is started.
   * @param changes to the board's configuration @param roomBytes left in its Storage; the rest is filled
   * @param bootFirst a script that the interpreter runs before the firmware
   * @param lines a serial cable to each server: the devices of its two ends
   * @param via port that a server dials instead of the board's own, and one that the board polls instead of the
   * server's; it gets those two
   * @param special `inMemory`: the firmware's text lies in memory, since the interpreter on a desktop reads its flash
   * through files, which no board does; `agents`: their timings; `noClients`: a board that carries no commands
   */
  static async make(
    engine: Engine,
    changes: Record<string, unknown> = {},
    roomBytes?: number,
    bootFirst?: string,
    lines?: Record<ServerId, { chip: string; server: string }>,
    via?: (
      linkPort: number,
      id: ServerId,
      udpPort: number,
    ) => Promise<number | { linkPort: number; udpPort: number }>,
    special: { inMemory?: boolean; agents?: Record<string, number>; noClients?: boolean } = {},
  ): Promise<ChipPair> {
    const prepared = spawnSync(process.execPath, [join(ROOT, "bin", "prepare.mjs")], {
      encoding: "utf8",
    });
    if (prepared.status !== 0) throw new Error(prepared.stderr);
    const dir = mkdtempSync(join(tmpdir(), "dyad-chip-"));
    removeWithUs(dir);
    mkdirSync(join(dir, "chip"));
    const [redis, native, link, peerA, peerB, udpA, udpB, localA, localB, typed] = (await freePorts(
      10,
    )) as [number, number, number, number, number, number, number, number, number, number];
    const key = randomBytes(32).toString("hex");
    const name = BOARDS[engine];
    const raw = JSON.parse(readFileSync(join(ROOT, "board-configs", `${name}.json`), "utf8")) as {
      keyFile?: string;
      servers: { udpPort: number; serial?: object }[];
      ports: Record<string, number>;
      hardware: { consoleDevice: string };
      timings: Record<string, number>;
    } & Record<string, unknown>;
    delete raw.keyFile;
    raw.key = key;
    const dialled = { a: link, b: link };
    const polled = { a: udpA, b: udpB };
    for (const [i, id] of SERVERS.entries()) {
      const place = via === undefined ? link : await via(link, id, polled[id]);
      dialled[id] = typeof place === "number" ? place : place.linkPort;
      raw.servers[i]!.udpPort = typeof place === "number" ? polled[id] : place.udpPort;
    }
    if (lines !== undefined) {
      raw.servers[0]!.serial = { device: "Serial1", path: lines.a.chip };
      raw.servers[1]!.serial = { device: "Serial2", path: lines.b.chip };
    }
    const carries = special.noClients !== true;
    raw.ports = { redis: carries ? redis : 0, native: carries ? native : 0, link, udp: 0 };
    Object.assign(raw.timings, PATIENT);
    Object.assign(raw, changes);
    let command = onOneProcessor([engine]);
    if (engine === "iotjs") {
      raw.hardware.consoleDevice = `tcp:${typed}`;
      writeFileSync(
        join(dir, "chip", "firmware.js"),
        await bundleIotjs(ROOT, name, parseBoard(raw, name)),
      );
      command = iotjsCommand("firmware.js");
    } else {
      const { stored } = await bundleBoard(ROOT, name, parseBoard(raw, name));
      // The firmware boots from flash, as on a board.
      const files: Record<string, Buffer> = { [BOOT_FILE]: stored };
      if (special.inMemory === true) {
        writeFileSync(join(dir, "chip", "bundle"), stored);
        files[BOOT_FILE] = Buffer.from('eval(require("fs").readFileSync("bundle"));');
      }
      if (bootFirst !== undefined) files[".boot0"] = Buffer.from(bootFirst);
      if (roomBytes !== undefined) {
        const taken = 2 * FILE_HEAD_BYTES + ((stored.length + 7) & ~7);
        files["filler"] = Buffer.alloc((STORAGE_BYTES - taken - roomBytes) & ~7, "x");
      }
      writeFileSync(join(dir, "chip", "espruino.flash"), storageImage(files, FLASH_BYTES));
    }
    const write = (id: ServerId, peerPort: number, peer: number, udp: number, local: number) =>
      writeFileSync(
        join(dir, `${id}.json`),
        JSON.stringify({
          id,
          servers: ["a", "b"],
          dir: `data-${id}`,
          controller: { host: "127.0.0.1", linkPort: dialled[id], clientPort: redis },
          peer: { host: "127.0.0.1", port: peer },
          peerPort,
          udpPort: udp,
          localPort: local,
          key,
          preset: id === "a",
          timings: special.agents ?? PATIENT_AGENTS,
          log: `${id}.log`,
          serial: lines === undefined ? undefined : { path: lines[id].server },
        }),
      );
    write("a", peerA, peerB, udpA, localA);
    write("b", peerB, peerA, udpB, localB);
    const consolePort = engine === "iotjs" ? typed : undefined;
    return new ChipPair(dir, redis, native, { a: localA, b: localB }, command, consolePort);
  }

  /** A client of the chip's Redis port. */
  async client(): Promise<RespClient> {
    const client = await RespClient.open(this.redisPort);
    this.clients.push(client);
    return client;
  }

  /** A program on a server, at that server's own port. */
  async localClient(id: ServerId): Promise<RespClient> {
    const client = await RespClient.open(this.localPorts[id]);
    this.clients.push(client);
    return client;
  }

  /** What the chip's console says to `status`, its lines joined. */
  status(): Promise<string> {
    return this.chip.type("status");
  }

  /** Waits until the console's status shows what is asked for. */
  async reaches(pattern: RegExp, timeoutMs = 120_000): Promise<void> {
    let last = "";
    try {
      await until(
        `status ${pattern.source}`,
        async () => {
          // An answer at the console keeps the chip from its other work for a while.
          await sleep(400);
          last = await this.status();
          return pattern.test(last);
        },
        timeoutMs,
      );
    } catch (error) {
      throw new Error(
        `${(error as Error).message}; it last said:\n${last}\nall:\n${this.chip.said.slice(-3000)}`,
      );
    }
  }

  async end(): Promise<void> {
    for (const client of this.clients) client.socket.destroy();
    await this.chip.powerOff();
    for (const id of SERVERS) await this.servers[id].kill();
    rmSync(this.dir, { recursive: true, force: true });
    made.delete(this.dir);
  }
}
