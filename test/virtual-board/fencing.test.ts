/**
 * Fencing lines end to end: the firmware on a virtual board, whose pins switch real agents off and on. The relay is
 * this test: an output that is high kills the agent, as a cut supply would, and starts it again when it falls.
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, expect, test } from "vitest";
import { parseBoard } from "../../bin/board/board-config.mjs";
import { bundleBoard } from "../../bin/board/bundle.mjs";
import { RespClient } from "../../bench/resp-client.js";
import { NodeBoard } from "../../hal/virtual-board/node-host.js";
import { loadEngine } from "../../hal/virtual-board/node-module.js";
import { Storage } from "../../hal/virtual-board/storage.js";
import { ROOT, until } from "../engine/chip-pair.js";
import { freePorts } from "../free-ports.js";

const AGENT = join(ROOT, "dist", "agent.js");
const KEY = "00112233445566778899aabbccddeeff";
const STORAGE_BYTES = 256 * 1024;
const OUTPUT = "B1";
const INPUT = "B2";

const dir = mkdtempSync(join(tmpdir(), "dyad-fence-"));
const agents = new Map<string, ChildProcess>();
let board: NodeBoard | undefined;
let said = "";

function startAgent(id: string): void {
  const path = join(dir, `${id}.json`);
  agents.set(
    id,
    spawn(process.execPath, [AGENT, "--config", path], { stdio: ["pipe", "ignore", "inherit"] }),
  );
}

async function killAgent(id: string): Promise<void> {
  const child = agents.get(id);
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await new Promise((ended) => child.once("exit", ended));
}

beforeAll(() => {
  const result = spawnSync(process.execPath, [join(ROOT, "bin", "prepare.mjs")], {
    encoding: "utf8",
  });
  if (result.status !== 0) throw new Error(result.stderr);
}, 240_000);

afterEach(async (context) => {
  if (context.task.result?.state === "fail") console.log(said.slice(-3000));
  board?.close();
  for (const id of agents.keys()) await killAgent(id);
  rmSync(dir, { recursive: true, force: true });
});

test(
  "a primary that hangs is switched off by its pin, read back by the other, switched on again, and comes back",
  { timeout: 120_000 },
  async () => {
    const [redis, native, link, peerA, peerB, udpA, udpB] = (await freePorts(7)) as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const raw = JSON.parse(
      readFileSync(join(ROOT, "board-configs", "virtual.json"), "utf8"),
    ) as Record<string, unknown> & {
      servers: Record<string, unknown>[];
      timings: Record<string, number>;
    };
    Object.assign(raw.servers[0]!, { udpPort: udpA, fence: { output: OUTPUT, input: INPUT } });
    Object.assign(raw.servers[1]!, { udpPort: udpB });
    raw["fencing"] = { policy: "failover", offMs: 400, readBackMs: 2000 };
    raw["ports"] = { redis, native, link, udp: 0 };
    raw["key"] = KEY;
    raw["constants"] = "baked";
    // This test shares its machine: slow is not failed.
    Object.assign(raw.timings, { failureMs: 1200, probeMs: 500, linkDownMs: 4000, holdMs: 8000 });
    const { text } = await bundleBoard(ROOT, "fenced", parseBoard(raw, "fenced"));

    for (const [id, peerPort, peer, udpPort] of [
      ["a", peerA, peerB, udpA],
      ["b", peerB, peerA, udpB],
    ] as const) {
      mkdirSync(join(dir, `data-${id}`));
      writeFileSync(
        join(dir, `${id}.json`),
        JSON.stringify({
          id,
          servers: ["a", "b"],
          dir: `data-${id}`,
          controller: { host: "127.0.0.1", linkPort: link, clientPort: redis },
          peer: { host: "127.0.0.1", port: peer },
          peerPort,
          udpPort,
          key: KEY,
          preset: id === "a",
          log: `${id}.log`,
        }),
      );
    }

    const pin: boolean[] = [];
    const relay = (on: boolean): void => {
      if (on === (pin.at(-1) ?? false)) {
        pin.push(on);
        return;
      }
      pin.push(on);
      if (on) void killAgent("a").then(() => board!.setPin(INPUT, false));
      else {
        startAgent("a");
        setImmediate(() => board!.setPin(INPUT, true));
      }
    };
    const storage = new Storage({
      bytes: new Uint8Array(STORAGE_BYTES).fill(0xff),
      keep: () => undefined,
    });
    storage.write(".bootcde", Buffer.from(text, "latin1"), 0, 0);
    board = new NodeBoard({
      module: loadEngine(),
      memoryBytes: 8 * 1024 * 1024,
      serialNumber: "fence-1",
      storage,
      host: "127.0.0.1",
      consoleDevice: "USB",
      onConsole: (more) => (said += more),
      onPin: (name, value) => {
        if (name === OUTPUT) relay(value);
      },
      onPowerOn: () => undefined,
      onReset: (_, reason) => (said += `[reset: ${reason}]`),
    });
    for (const port of [redis, native, link]) await board.openPort(port);
    board.setPin(INPUT, true);
    board.powerOn();
    // Safe before anything else: nothing has been heard of any server yet.
    expect(pin.length).toBeGreaterThan(0);
    expect(pin).not.toContain(true);
    startAgent("a");
    await until("a, first online", () => said.includes("connected: a"));
    startAgent("b");
    await until("a pair", () => said.includes("record: both(a)"));

    const client = await RespClient.open(redis);
    expect(await client.call(["SET", "k", "1"], 10_000)).toBe("OK");
    agents.get("a")!.kill("SIGSTOP");
    await until("the fence", () => said.includes("fence fired"));
    expect(said.indexOf("record: solo(b)")).toBeLessThan(said.indexOf("fence fired"));
    await until("read back", () => /fenced: a is off, read back after \d+ ms/.test(said));
    expect(agents.get("a")!.signalCode).toBe("SIGKILL");
    expect(await client.call(["GET", "k"], 10_000)).toBe("1");
    await until("released", () => said.includes("fence released: a may start again"));
    expect(pin.at(-1)).toBe(false);
    await until("both again", () => said.includes("record: both(b)"));
    expect(said).not.toContain("[reset");
    client.close();
  },
);
