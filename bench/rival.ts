/** What we compare with: Redis, and HAProxy in front of it, started for one run. */
import { execFile, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nowMs, sleep } from "./processes.js";
import { RespClient } from "./resp-client.js";

export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

export async function waitForPort(port: number, timeoutMs = 10_000): Promise<void> {
  const until = nowMs() + timeoutMs;
  for (;;) {
    try {
      const client = await RespClient.open(port, 500);
      const reply = await client.call(["PING"], 500);
      client.close();
      if (reply === "PONG") return;
    } catch (error) {
      if (nowMs() > until) throw error;
    }
    await sleep(50);
  }
}

export interface Rival {
  port: number;
  haproxy: ChildProcess;
  version: string;
  redisVersion: string;
  stop(): void;
}

/** HAProxy in TCP mode in front of one Redis without persistence, on a free port. */
export async function startRival(): Promise<Rival> {
  const dir = mkdtempSync(join(tmpdir(), "dyad-rival-"));
  const redisPort = await freePort();
  const port = await freePort();
  const redis = spawn(
    "redis-server",
    ["--port", String(redisPort), "--save", "", "--appendonly", "no", "--dir", dir],
    { stdio: "ignore" },
  );
  const config = join(dir, "haproxy.cfg");
  writeFileSync(
    config,
    `global
  maxconn 1000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen redis
  bind 127.0.0.1:${port}
  server one 127.0.0.1:${redisPort}
`,
  );
  // -db: stay in the foreground, one process, so that its pid is the one that works.
  const haproxy = spawn("haproxy", ["-db", "-f", config], { stdio: "ignore" });
  const stop = (): void => {
    redis.kill("SIGKILL");
    haproxy.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  };
  process.once("exit", stop);
  await waitForPort(port);
  return {
    port,
    haproxy,
    version: (await firstLine("haproxy", ["-v"])).split(" ")[2] ?? "",
    redisVersion: /v=(\S+)/.exec(await firstLine("redis-server", ["--version"]))?.[1] ?? "",
    stop,
  };
}

function firstLine(program: string, argv: string[]): Promise<string> {
  return new Promise((resolve) =>
    execFile(program, argv, (_error, stdout) => resolve(stdout.split("\n")[0])),
  );
}
