import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { open } from "lmdb";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { askNode } from "../../client/cli/ask-node.js";
import { freePort } from "../free-ports.js";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const agent = join(root, "dist", "agent.js");
const children: ChildProcess[] = [];

function config(changes: Record<string, unknown> = {}): { dir: string; path: string } {
  const dir = mkdtempSync(join(tmpdir(), "dyad-agent-"));
  const path = join(dir, "a.json");
  const fields = {
    id: "a",
    servers: ["a", "b"],
    dir: "data",
    // Nobody listens there: this server is alone in the world.
    controller: { host: "127.0.0.1", linkPort: 1, clientPort: 2 },
    peer: { host: "127.0.0.1", port: 1 },
    peerPort: 0,
    udpPort: 0,
    key: "00112233445566778899aabbccddeeff",
    log: "a.log",
    ...changes,
  };
  writeFileSync(path, JSON.stringify(fields));
  return { dir, path };
}

function runToEnd(path: string): { code: number | null; text: string } {
  const result = spawnSync(process.execPath, [agent, "--config", path], {
    encoding: "utf8",
    timeout: 20_000,
  });
  return { code: result.status, text: result.stderr };
}

async function started(path: string, dir: string, ...more: string[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, [agent, "--config", path, ...more], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  children.push(child);
  const socket = join(dir, "data", "agent.sock");
  for (let count = 0; count < 400; count++) {
    if (await askNode(socket, "pid").catch(() => undefined)) return child;
    await new Promise((wake) => setTimeout(wake, 25));
  }
  throw new Error("the agent is not up");
}

function endOf(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode);
  return new Promise((done) => child.once("exit", (code) => done(code)));
}

beforeAll(() => {
  const result = spawnSync(process.execPath, [join(root, "bin", "prepare.mjs")], {
    encoding: "utf8",
  });
  if (result.status !== 0) throw new Error(result.stderr);
}, 120_000);

afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
    await endOf(child);
  }
});

describe("the agent as a program", { timeout: 60_000 }, () => {
  test("a misspelled field: exit status 2 and the field that was meant", () => {
    const { code, text } = runToEnd(config({ durabilty: "disk" }).path);
    expect(code).toBe(2);
    expect(text).toContain('did you mean "durability"?');
  });

  test("a port in use: exit status 4 and the field to change", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((ready) => server.once("listening", ready));
    const { port } = server.address() as { port: number };
    const { code, text } = runToEnd(config({ peerPort: port }).path);
    server.close();
    expect(code).toBe(4);
    expect(text).toContain(`port ${port} on 127.0.0.1 is in use`);
    expect(text).toContain('"peerPort"');
  });

  test("its own clients' port is this machine's alone, whatever address the others use", async () => {
    const localPort = await freePort();
    const { dir, path } = config({ host: "127.0.0.2", localPort });
    await started(path, dir);
    const reaches = (host: string): Promise<boolean> =>
      new Promise((told) => {
        const socket = connect(localPort, host);
        socket.once("error", () => told(false));
        socket.once("connect", () => {
          socket.destroy();
          told(true);
        });
      });
    expect(await reaches("127.0.0.1")).toBe(true);
    expect(await reaches("127.0.0.2")).toBe(false);
  });

  test("a directory that cannot be made: a clear end, no stack trace", () => {
    const { code, text } = runToEnd(config({ dir: "a.json/inside-a-file" }).path);
    expect(code).toBe(1);
    expect(text).toContain("a.json/inside-a-file");
    expect(text).not.toContain("    at ");
  });

  test("a damaged row: exit status 5, which row, and what to do; no stack trace", async () => {
    const { dir, path } = config();
    const first = await started(path, dir);
    first.kill("SIGTERM");
    expect(await endOf(first)).toBe(0);
    const store = join(dir, "data", "store");
    const binary = { encoding: "binary", keyEncoding: "binary" } as const;
    const root = open({ path: store, noSubdir: false, ...binary });
    const meta = root.openDB<Buffer, Uint8Array>({ name: "meta", ...binary });
    // What it reads at its start: where the log's epochs begin.
    await meta.put(Uint8Array.of(98), Buffer.from("as the disk gave it back"));
    await root.close();
    const { code, text } = runToEnd(path);
    expect(code).toBe(5);
    expect(text).toContain(`of table meta in ${store} is not what was written there`);
    expect(text).toContain(`move ${store} away`);
    expect(text).not.toContain("    at ");
  });

  test("SIGTERM ends it in order, and a restart is the same disk", async () => {
    const { dir, path } = config();
    const first = await started(path, dir);
    const socket = join(dir, "data", "agent.sock");
    const identity = await askNode(socket, "identity");
    expect(identity).toMatch(/^[0-9a-f]{32}$/);
    expect(JSON.parse(await askNode(socket, "status"))).toMatchObject({ id: "a", role: "blank" });
    expect(await askNode(socket, "dance")).toContain("unknown line");
    first.kill("SIGTERM");
    expect(await endOf(first)).toBe(0);
    expect(existsSync(join(dir, "data", "agent.lock"))).toBe(false);
    expect(JSON.parse(readFileSync(join(dir, "data", "boot.json"), "utf8"))).toMatchObject({
      clean: true,
    });
    await started(path, dir);
    expect(await askNode(socket, "identity")).toBe(identity);
  });

  test("a kill leaves nothing that holds up the next start", async () => {
    const { dir, path } = config({ durability: "memory" });
    const first = await started(path, dir);
    const socket = join(dir, "data", "agent.sock");
    const identity = await askNode(socket, "identity");
    first.kill("SIGKILL");
    await endOf(first);
    await started(path, dir);
    expect(await askNode(socket, "identity")).toBe(identity);
  });

  test("durability memory after another boot: a new, empty disk", async () => {
    const { dir, path } = config({ durability: "memory" });
    const first = await started(path, dir);
    const socket = join(dir, "data", "agent.sock");
    const identity = await askNode(socket, "identity");
    first.kill("SIGKILL");
    await endOf(first);
    const mark = join(dir, "data", "boot.json");
    const text = readFileSync(mark, "utf8");
    writeFileSync(mark, text.replace(/"boot":"[^"]*"/, '"boot":"another"'));
    await started(path, dir);
    expect(await askNode(socket, "identity")).not.toBe(identity);
    expect(existsSync(join(dir, "data", "store.before-restart"))).toBe(true);
  });

  test("started with a parent, it ends when the parent's pipe closes", async () => {
    const { dir, path } = config();
    const child = await started(path, dir, "--with-parent");
    child.stdin!.end();
    expect(await endOf(child)).toBe(0);
  });
});
