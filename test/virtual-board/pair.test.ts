/** A pair whose controller is the virtual board, as `dyad up --controller board` runs it: real sockets, real agents. */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { RespClient } from "../../bench/resp-client.js";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const DYAD = join(ROOT, "bin", "dyad.mjs");

interface Line {
  controller: { pid: number; redis: number; command: string };
  servers: { id: string; pid: number; command: string }[];
}

const sleep = (ms: number): Promise<void> => new Promise((wake) => setTimeout(wake, ms));

async function until(what: string, ask: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 1200; i++) {
    if (await ask()) return;
    await sleep(25);
  }
  throw new Error(`did not come: ${what}`);
}

class Pair {
  readonly dir = mkdtempSync(join(tmpdir(), "dyad-board-"));
  line!: Line;
  /** What the board's serial console has said since `listen`. */
  said = "";
  private up!: ChildProcess;
  private serial: Socket | undefined;
  private readonly more: ChildProcess[] = [];
  private readonly clients: RespClient[] = [];

  async start(home = "board"): Promise<void> {
    const args = [DYAD, "up", "--dir", this.dir, "--port", "0", "--json", "--controller", home];
    this.up = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    let out = "";
    this.up.stdout!.on("data", (data) => (out += String(data)));
    await until("the pair", () => out.includes("\n") || this.up.exitCode !== null);
    this.line = JSON.parse(out) as Line;
    if (home === "board") await this.listen();
  }

  /** Stops all three in order. */
  async stop(): Promise<void> {
    for (const child of [...this.more, this.up]) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill("SIGTERM");
      await new Promise((ended) => child.once("exit", ended));
    }
  }

  /** Attaches to the board's serial console. */
  async listen(): Promise<void> {
    this.serial?.destroy();
    const socket = connect(join(this.dir, "controller", "serial.sock"));
    this.serial = socket;
    socket.setEncoding("latin1");
    socket.on("error", () => undefined);
    socket.on("data", (text) => (this.said += String(text)));
    await new Promise((ready) => socket.once("connect", ready));
  }

  type(line: string): void {
    this.serial!.write(`${line}\n`, "latin1");
  }

  async client(): Promise<RespClient> {
    const client = await RespClient.open(this.line.controller.redis);
    this.clients.push(client);
    return client;
  }

  status(): { primary: string; mode: string; epoch: number } {
    const { stdout } = spawnSync(process.execPath, [DYAD, "status", "--dir", this.dir, "--json"], {
      encoding: "utf8",
    });
    return stdout.startsWith("{")
      ? (JSON.parse(stdout) as { primary: string; mode: string; epoch: number })
      : { primary: "", mode: "", epoch: -1 };
  }

  async reaches(mode: string): Promise<void> {
    await until(`mode ${mode}`, () => this.status().mode === mode);
  }

  run(command: string): void {
    // One that is started by hand must not wait for its end: it has none.
    this.more.push(spawn("sh", ["-c", `exec ${command}`], { stdio: "ignore" }));
  }

  async end(): Promise<void> {
    this.serial?.destroy();
    for (const client of this.clients) client.socket.destroy();
    await this.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

let pair: Pair;

beforeAll(() => {
  const result = spawnSync(process.execPath, [join(ROOT, "bin", "prepare.mjs")], {
    encoding: "utf8",
  });
  if (result.status !== 0) throw new Error(result.stderr);
}, 240_000);

afterEach(async (context) => {
  if (context.task.result?.state === "fail") console.log(pair.said.slice(-3000));
  await pair.end();
});

describe("a pair with the virtual board as controller", { timeout: 120_000 }, () => {
  test("serves, keeps connections through a kill of the primary, takes it back, and keeps its flash when killed itself", async () => {
    pair = new Pair();
    await pair.start();
    const client = await pair.client();
    expect(await client.call(["SET", "x", "1"])).toBe("OK");
    expect(await client.call(["GET", "x"])).toBe("1");
    expect(pair.status()).toMatchObject({ primary: "a", mode: "both", epoch: 1 });

    const a = pair.line.servers[0]!;
    process.kill(a.pid, "SIGKILL");
    expect(await client.call(["INCR", "x"], 20_000)).toBe(2);
    expect(pair.status()).toMatchObject({ primary: "b", mode: "solo" });
    pair.run(a.command);
    await pair.reaches("both");
    expect(await client.call(["GET", "x"])).toBe("2");

    const before = pair.status();
    process.kill(pair.line.controller.pid, "SIGKILL");
    await until("the client to be cut off", () => client.closed);
    pair.run(pair.line.controller.command);
    await until("the board", () => pair.status().epoch === before.epoch);
    expect(pair.status()).toMatchObject({ primary: before.primary, mode: "both" });
    expect(await (await pair.client()).call(["GET", "x"], 20_000)).toBe("2");
  });

  test("a reset of the chip at any moment keeps flash and data", async () => {
    pair = new Pair();
    await pair.start();
    const { epoch } = pair.status();
    let client = await pair.client();
    let acknowledged = 0;
    for (let round = 0; round < 4; round++) {
      // The reset comes between any two writes that are under way.
      const work = (async (): Promise<void> => {
        for (;;) {
          const reply = await client.call(["SET", "n", String(acknowledged + 1)], 20_000);
          if (reply !== "OK") return;
          acknowledged++;
        }
      })().catch(() => undefined);
      await sleep(50 + 130 * round);
      const from = pair.said.length;
      pair.type("reboot");
      await until("the reset", () =>
        /\[board: RESET, reboot.*[^]*power on/.test(pair.said.slice(from)),
      );
      await work;
      await until("the pair", () => pair.status().mode === "both");
      expect(pair.said.slice(from)).not.toContain("blank");
      client = await pair.client();
      const found = Number(await client.call(["GET", "n"], 20_000));
      // The one that was under way may have been done.
      expect([acknowledged, acknowledged + 1]).toContain(found);
      acknowledged = found;
    }
    expect(pair.status().epoch).toBe(epoch);
    expect(acknowledged).toBeGreaterThan(4);
  });

  test.each([
    [
      "out of memory",
      "var leak=[];while(true)leak.push([1,2,3])",
      /RESET, memory: out of its \d+ bytes/,
    ],
    [
      "a leak over many turns",
      "var leak=[];setInterval(function(){leak.push(new Uint8Array(200000))},10)",
      /RESET, memory/,
    ],
    ["an endless loop", "while(true);", /RESET, hang: an endless loop/],
    [
      "a firmware that kicks no more",
      "E.kickWatchdog=function(){}",
      /RESET, hang: the watchdog was not kicked for 5 s/,
    ],
    ["an error nobody caught", "setTimeout(function(){null.x},20)", /RESET, reboot/],
  ])("%s: the board resets, and says so, and the pair goes on", async (_name, fault, says) => {
    pair = new Pair();
    await pair.start();
    expect(await (await pair.client()).call(["SET", "x", "1"])).toBe("OK");
    const { epoch } = pair.status();
    const from = pair.said.length;
    // Ctrl-C gives the console to the engine itself.
    pair.type("\x03");
    pair.type(fault);
    await until("the reset", () => says.test(pair.said.slice(from)));
    await pair.reaches("both");
    await until("the boot", () => /power on[^]*dyad on virtual/.test(pair.said.slice(from)));
    expect(pair.status().epoch).toBe(epoch);
    expect(await (await pair.client()).call(["INCR", "x"], 20_000)).toBe(2);
    const metrics = spawnSync(process.execPath, [DYAD, "console", "--dir", pair.dir], {
      input: "metrics\n",
      encoding: "utf8",
    });
    expect(JSON.parse(metrics.stdout)).toMatchObject({ resets: 1 });
  });

  test("the other home's flash in the same directory is void", async () => {
    pair = new Pair();
    await pair.start("node");
    await pair.stop();
    await pair.start();
    const names = (): string[] =>
      ["flash.0", "board.flash"].filter((name) => {
        try {
          return readFileSync(join(pair.dir, "controller", name)).length > 0;
        } catch {
          return false;
        }
      });
    expect(names()).toEqual(["board.flash"]);
    // The servers know the record: a wiped controller takes it from both.
    expect(pair.status()).toMatchObject({ primary: "a", mode: "both" });
    await pair.stop();
    await pair.start("node");
    expect(names()).toEqual(["flash.0"]);
  });
});
