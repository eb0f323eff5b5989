import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import { afterEach, beforeAll, describe, expect, test } from "vitest";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const dyad = join(root, "bin", "dyad.mjs");

interface UpLine {
  controller: { pid: number; redis: number; native: number; command: string };
  servers: { id: string; pid: number; dir: string; command: string }[];
}

interface RunningUp {
  process: ChildProcess;
  line: UpLine;
  dir: string;
}

const children: ChildProcess[] = [];
const clients: Redis[] = [];

function pause(ms: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, ms));
}

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let count = 0; count < 600; count++) {
    if (await condition()) return;
    await pause(50);
  }
  throw new Error(`did not come: ${what}`);
}

async function startUp(dir: string, ...more: string[]): Promise<RunningUp> {
  const child = spawn(
    process.execPath,
    [dyad, "up", "--dir", dir, "--port", "0", "--json", ...more],
    {
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  children.push(child);
  let out = "";
  let err = "";
  child.stdout!.on("data", (bytes) => (out += String(bytes)));
  child.stderr!.on("data", (bytes) => (err += String(bytes)));
  await until("the JSON line", () => out.includes("\n") || child.exitCode !== null);
  if (child.exitCode !== null) throw new Error(`dyad up ended with ${child.exitCode}: ${err}`);
  expect(out.trimEnd().split("\n").length).toBe(1);
  return { process: child, line: JSON.parse(out) as UpLine, dir };
}

function connect(port: number): Redis {
  const client = new Redis({
    port,
    host: "127.0.0.1",
    lazyConnect: false,
    maxRetriesPerRequest: 0,
  });
  // A client that outlives its pair in a test has nobody to tell.
  client.on("error", () => undefined);
  clients.push(client);
  return client;
}

function status(dir: string): { code: number; status: Record<string, unknown> } {
  const result = spawnSync(process.execPath, [dyad, "status", "--dir", dir, "--json"], {
    encoding: "utf8",
  });
  const text = result.stdout.trim();
  return {
    code: result.status ?? -1,
    status: text === "" ? {} : (JSON.parse(text) as Record<string, unknown>),
  };
}

function run(...args: string[]): { code: number; text: string } {
  const result = spawnSync(process.execPath, [dyad, ...args], { encoding: "utf8" });
  return { code: result.status ?? -1, text: `${result.stdout}${result.stderr}`.trim() };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A killed child whose parent has not asked for it yet still has its pid.
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await new Promise((done) => child.once("exit", done));
}

function pidsOf(line: UpLine): number[] {
  return [line.controller.pid, ...line.servers.map((server) => server.pid)];
}

beforeAll(() => {
  // What is tested is what a stranger runs: the compiled programs, as new as their sources.
  const result = spawnSync(process.execPath, [join(root, "bin", "prepare.mjs")], {
    encoding: "utf8",
  });
  if (result.status !== 0) throw new Error(result.stderr);
}, 120_000);

afterEach(async () => {
  for (const client of clients.splice(0)) client.disconnect();
  for (const child of children.splice(0)) {
    child.kill("SIGTERM");
    await ended(child);
  }
});

describe("dyad up", { timeout: 60_000 }, () => {
  test("serves redis clients, survives a kill of the primary, takes it back, and leaves no process", async () => {
    const dir = mkdtempSync(join(tmpdir(), "dyad-up-"));
    const { process: child, line } = await startUp(dir);
    expect(line.servers.map((server) => server.id)).toEqual(["a", "b"]);
    for (const pid of pidsOf(line)) expect(isAlive(pid)).toBe(true);
    for (const server of line.servers) expect(statSync(server.dir).isDirectory()).toBe(true);

    const client = connect(line.controller.redis);
    expect(await client.set("greeting", "hello")).toBe("OK");
    expect(await client.get("greeting")).toBe("hello");
    const first = status(dir);
    expect(first.code).toBe(0);
    expect(first.status).toMatchObject({ primary: "a", mode: "both" });

    const a = line.servers[0]!;
    process.kill(a.pid, "SIGKILL");
    // The same connection, no error: the write waits for the other server.
    expect(await client.set("after", "kill")).toBe("OK");
    expect(await client.get("greeting")).toBe("hello");
    const second = status(dir);
    expect(second.code).toBe(1);
    expect(second.status).toMatchObject({ primary: "b", mode: "solo" });

    const again = spawn(a.command, { shell: true, cwd: "/", stdio: "ignore" });
    children.push(again);
    await until("a to be back in sync", () => status(dir).code === 0);
    expect(status(dir).status).toMatchObject({ primary: "b", mode: "both" });
    expect(await client.get("after")).toBe("kill");

    child.kill("SIGINT");
    await ended(child);
    expect(child.exitCode).toBe(0);
    await ended(again);
    for (const pid of pidsOf(line)) expect(isAlive(pid)).toBe(false);
    expect(status(dir).code).toBe(2);

    const next = await startUp(dir);
    expect(next.line.controller.redis).toBe(line.controller.redis);
    expect(await connect(next.line.controller.redis).get("after")).toBe("kill");
  });

  test("a second pair on the same directory is refused and the first goes on", async () => {
    const dir = mkdtempSync(join(tmpdir(), "dyad-up-"));
    const { line } = await startUp(dir, "--durability", "memory");
    const before = readFileSync(join(dir, "a.json"), "utf8");
    const second = spawnSync(process.execPath, [dyad, "up", "--dir", dir, "--port", "0"], {
      encoding: "utf8",
    });
    expect(second.status).toBe(3);
    expect(second.stderr).toContain("A pair already runs in");
    expect(readFileSync(join(dir, "a.json"), "utf8")).toBe(before);
    const clash = spawnSync(
      process.execPath,
      [dyad, "up", "--dir", `${dir}-other`, "--port", String(line.controller.redis)],
      { encoding: "utf8" },
    );
    expect(clash.status).toBe(4);
    expect(clash.stderr).toContain(`Port ${line.controller.redis}`);
    // A second process for a server that runs would be two writers of one disk.
    const twin = spawnSync(line.servers[0]!.command, { shell: true, encoding: "utf8" });
    expect(twin.status).toBe(3);
    expect(twin.stderr).toContain("in use by another agent");
    expect(await connect(line.controller.redis).set("still", "here")).toBe("OK");
  });

  test("when it is itself killed, what it started ends too", async () => {
    const dir = mkdtempSync(join(tmpdir(), "dyad-up-"));
    const { process: child, line } = await startUp(dir, "--durability", "memory");
    child.kill("SIGKILL");
    await until("all three to end", () => pidsOf(line).every((pid) => !isAlive(pid)));
  });

  test("a server whose directory was deleted comes back as a new disk and is filled again", async () => {
    const dir = mkdtempSync(join(tmpdir(), "dyad-up-"));
    const { line } = await startUp(dir);
    const client = connect(line.controller.redis);
    await client.set("kept", "1");
    const b = line.servers[1]!;
    process.kill(b.pid, "SIGKILL");
    await until("b to be gone", () => !isAlive(b.pid));
    rmSync(b.dir, { recursive: true });
    await client.set("meanwhile", "2");
    children.push(spawn(b.command, { shell: true, stdio: "ignore" }));
    await until("b to be back in sync", () => status(dir).code === 0);
    process.kill(line.servers[0]!.pid, "SIGKILL");
    expect(await client.get("kept")).toBe("1");
    expect(await client.get("meanwhile")).toBe("2");
    expect(existsSync(b.dir)).toBe(true);
  });
});

describe("dyad backup and restore", { timeout: 60_000 }, () => {
  test("a backup is taken while the pair serves; restored, it is a new disk that joins and catches up", async () => {
    const dir = mkdtempSync(join(tmpdir(), "dyad-up-"));
    const { line } = await startUp(dir);
    const client = connect(line.controller.redis);
    await client.set("in-backup", "old");
    const to = join(dir, "backup");
    const made = run("backup", "--dir", dir, "--server", "b", "--to", to);
    expect(made).toMatchObject({ code: 0 });
    expect(run("backup", "--dir", dir, "--to", to).text).toContain("exists already");
    await client.set("in-backup", "new");
    await client.set("after-backup", "1");
    const identity = run("identity", "b", "--dir", dir).text;

    const b = line.servers[1]!;
    expect(run("restore", "--dir", dir, "--server", "b", "--from", to).text).toContain(
      "is running",
    );
    process.kill(b.pid, "SIGKILL");
    await until("b to be gone", () => !isAlive(b.pid));
    expect(run("restore", "--dir", dir, "--server", "b", "--from", to).text).toContain("--replace");
    const restored = run("restore", "--dir", dir, "--server", "b", "--from", to, "--replace");
    expect(restored).toMatchObject({ code: 0 });
    children.push(spawn(b.command, { shell: true, stdio: "ignore" }));
    await until("b to be back in sync", () => status(dir).code === 0);
    expect(run("identity", "b", "--dir", dir).text).not.toBe(identity);

    process.kill(line.servers[0]!.pid, "SIGKILL");
    expect(await client.get("in-backup")).toBe("new");
    expect(await client.get("after-backup")).toBe("1");
  });
});

describe("wrong use", () => {
  test("is said with the place to look, and exit status 2", () => {
    const wrong = spawnSync(process.execPath, [dyad, "upp"], { encoding: "utf8" });
    expect(wrong.status).toBe(2);
    expect(wrong.stderr).toMatch(/Did you mean up\?/);
    const port = spawnSync(process.execPath, [dyad, "up", "--port", "x"], { encoding: "utf8" });
    expect(port.status).toBe(2);
    expect(port.stderr).toContain("0 to 65535");
    const nobody = spawnSync(process.execPath, [dyad, "status", "--dir", "/nonexistent"], {
      encoding: "utf8",
    });
    expect(nobody.status).toBe(2);
    expect(nobody.stderr).toContain("No controller runs in /nonexistent");
  });
});
