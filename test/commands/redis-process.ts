/** A real Redis on a port of its own, to compare with. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { REPLY_UNFINISHED, ReplyScanner } from "../../protocol/resp-reply.js";
import type { Argument } from "./harness.js";
import { freePort } from "../free-ports.js";

export const REDIS_PATH = "/usr/bin/redis-server";

export function redisIsThere(): boolean {
  return existsSync(REDIS_PATH);
}

export class RedisProcess {
  private waiting: ((reply: string) => void)[] = [];
  private held: Buffer = Buffer.alloc(0);

  private constructor(
    private readonly child: ChildProcess,
    private readonly socket: Socket,
    private readonly directory: string,
  ) {
    socket.on("data", (chunk) => this.onData(chunk));
  }

  static async start(): Promise<RedisProcess> {
    const directory = mkdtempSync(join(tmpdir(), "dyad-redis-"));
    const port = await freePort();
    const settings = [
      "--port",
      String(port),
      "--bind",
      "127.0.0.1",
      "--save",
      "",
      "--appendonly",
      "no",
    ];
    const child = spawn(REDIS_PATH, [...settings, "--dir", directory, "--hz", "100"], {
      stdio: "ignore",
    });
    for (let attempt = 0; ; attempt++) {
      const socket = await new Promise<Socket | undefined>((resolve) => {
        const made = connect(port, "127.0.0.1", () => resolve(made));
        made.once("error", () => resolve(undefined));
      });
      if (socket !== undefined) {
        socket.setNoDelay(true);
        return new RedisProcess(child, socket, directory);
      }
      if (attempt > 100) throw new Error("redis-server did not start");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  do(...args: Argument[]): Promise<string> {
    const parts: Buffer[] = [Buffer.from(`*${args.length}\r\n`)];
    for (const arg of args) {
      const bytes = typeof arg === "string" ? Buffer.from(arg, "latin1") : Buffer.from(arg);
      parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from("\r\n"));
    }
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.socket.write(Buffer.concat(parts));
    });
  }

  private onData(chunk: Buffer): void {
    this.held = this.held.length > 0 ? Buffer.concat([this.held, chunk]) : chunk;
    while (this.waiting.length > 0 && this.held.length > 0) {
      const scanner = new ReplyScanner();
      const end = scanner.scan(this.held, 0, this.held.length);
      if (end === REPLY_UNFINISHED) return;
      const reply = this.held.subarray(0, end).toString("latin1");
      this.held = this.held.subarray(end);
      this.waiting.shift()!(reply);
    }
  }

  async stop(): Promise<void> {
    this.socket.destroy();
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill("SIGKILL");
    await ended;
    rmSync(this.directory, { recursive: true, force: true });
  }
}
