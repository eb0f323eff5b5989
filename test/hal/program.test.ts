/** The controller as a program: what it says when it starts, cannot start, and stops. */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { ConfigError, parseConfig } from "../../firmware/node-config.js";

const KEY = "00112233445566778899aabbccddeeff";
let home = "";
let program = "";

beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), "dyad-controller-"));
  program = join(home, "controller.mjs");
  await build({
    entryPoints: ["firmware/main.node.ts"],
    outfile: program,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    logLevel: "error",
    banner: {
      js: 'import { createRequire as testRequire } from "node:module";\nconst require = testRequire(import.meta.url);',
    },
  });
}, 60000);
afterAll(() => rmSync(home, { recursive: true, force: true }));

const running: ChildProcess[] = [];
afterEach(() => {
  for (const child of running.splice(0)) child.kill("SIGKILL");
});

async function until(condition: () => boolean): Promise<void> {
  for (let count = 0; count < 4000; count++) {
    if (condition()) return;
    await new Promise((wake) => setTimeout(wake, 5));
  }
  throw new Error("what was waited for did not come");
}

interface Started {
  child: ChildProcess;
  out: () => string;
  err: () => string;
  exit: () => number | null;
}

function start(config: object, name: string, ...args: string[]): Started {
  return startProgram(program, config, name, ...args);
}

function startProgram(path: string, config: object, name: string, ...args: string[]): Started {
  const file = join(home, `${name}.json`);
  writeFileSync(file, JSON.stringify(config));
  const child = spawn(process.execPath, [path, "--config", file, ...args], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  running.push(child);
  let out = "";
  let err = "";
  child.stdout.on("data", (bytes: Buffer) => (out += bytes.toString()));
  child.stderr.on("data", (bytes: Buffer) => (err += bytes.toString()));
  return { child, out: () => out, err: () => err, exit: () => child.exitCode };
}

function configOf(name: string, changes: object = {}): object {
  return {
    dir: join(home, name),
    redisPort: 0,
    nativePort: 0,
    linkPort: 0,
    servers: [
      { id: "a", host: "127.0.0.1", udpPort: 1, preset: true },
      { id: "b", host: "127.0.0.1", udpPort: 2 },
    ],
    key: KEY,
    ...changes,
  };
}

function portsOf(name: string): { redis: number; native: number; link: number; pid: number } {
  return JSON.parse(readFileSync(join(home, name, "controller.ports.json"), "utf8"));
}

function talk(
  where: number | string,
  words: string,
  whole: (text: string) => boolean,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = typeof where === "number" ? connect(where, "127.0.0.1") : connect(where);
    let text = "";
    socket.on("error", reject);
    socket.on("connect", () => socket.write(words));
    socket.on("data", (bytes) => {
      text += bytes.toString();
      if (!whole(text)) return;
      socket.destroy();
      resolve(text);
    });
  });
}

describe("the controller's program", () => {
  test("starts on ports of its own choosing, answers, and stops cleanly", async () => {
    const one = start(configOf("free"), "free");
    await until(() => one.out().includes("the controller is up"));
    const ports = portsOf("free");
    expect(ports.pid).toBe(one.child.pid);
    expect(await talk(ports.redis, "PING\r\n", (text) => text.endsWith("\n"))).toBe("+PONG\r\n");
    expect(one.out()).toContain("nobody is primary");
    const socket = join(home, "free", "controller.sock");
    const dotted = (text: string): boolean => text.endsWith("\n.\n");
    expect(await talk(socket, "pid\n", dotted)).toBe(`${one.child.pid}\n.\n`);
    const status = (await talk(socket, "status --json\n", dotted)).slice(0, -3);
    expect(status.includes("\n")).toBe(false);
    expect(JSON.parse(status)).toMatchObject({ epoch: 0, primary: null });
    const metrics = JSON.parse((await talk(socket, "metrics\n", dotted)).slice(0, -3));
    expect(metrics.cpuUserUs).toBeGreaterThan(0);
    expect(await talk(socket, "help\n", dotted)).toContain("switchover");
    one.child.kill("SIGTERM");
    await until(() => one.exit() !== null);
    expect(one.exit()).toBe(0);
    expect(existsSync(join(home, "free", "controller.ports.json"))).toBe(false);
    expect(existsSync(socket)).toBe(false);
    expect(readFileSync(join(home, "free", "controller.log"), "utf8")).toContain('"event":"up"');
  });

  test("a port in use is a clear error", async () => {
    const rival = createServer();
    await new Promise<void>((done) => rival.listen(0, "127.0.0.1", done));
    const { port } = rival.address() as { port: number };
    const one = start(configOf("used", { redisPort: port }), "used");
    await until(() => one.exit() !== null);
    rival.close();
    expect(one.exit()).toBe(4);
    expect(one.err()).toContain(
      `port ${port} on 127.0.0.1 is in use by another program: stop it, or change "redisPort"`,
    );
  });

  test("two controllers on one directory are refused, a killed one's directory is taken over", async () => {
    const one = start(configOf("dir"), "dir");
    await until(() => one.out().includes("the controller is up"));
    const two = start(configOf("dir"), "dir2");
    await until(() => two.exit() !== null);
    expect(two.exit()).toBe(3);
    expect(two.err()).toContain(`in use by another controller (pid ${one.child.pid})`);
    one.child.kill("SIGKILL");
    await until(() => one.child.signalCode !== null);
    const three = start(configOf("dir"), "dir");
    await until(() => three.out().includes("the controller is up"));
  });

  test("with --with-parent it ends when the process that started it ends", async () => {
    const one = start(configOf("parent"), "parent", "--with-parent");
    await until(() => one.out().includes("the controller is up"));
    one.child.stdin!.end();
    await until(() => one.exit() !== null);
    expect(one.exit()).toBe(0);
  });

  test("the console on standard input answers when it is asked for", async () => {
    const one = start(configOf("console"), "console", "--console");
    await until(() => one.out().includes("the controller is up"));
    one.child.stdin!.write("servers\n");
    await until(() => one.out().includes("never been heard") || /\ba\b.*\n.*\bb\b/.test(one.out()));
  });

  test("a wrong configuration says file, field, value and what is allowed", async () => {
    const one = start({ ...configOf("bad"), redisPrt: 1 }, "bad");
    await until(() => one.exit() !== null);
    expect(one.exit()).toBe(2);
    expect(one.err()).toContain('unknown field "redisPrt"; did you mean "redisPort"?');
    expect(one.err()).toContain("bad.json");
  });
});

describe("the configuration", () => {
  const cases: [string, object, RegExp][] = [
    ["a port out of range", { redisPort: 70000 }, /field "redisPort" is 70000: .*65535/],
    ["a port as text", { redisPort: "6380" }, /field "redisPort" is "6380"/],
    ["one server", { servers: [{ id: "a", host: "h", udpPort: 1 }] }, /exactly two servers/],
    [
      "a misspelled field of a server",
      {
        servers: [
          { id: "a", hots: "h", udpPort: 1 },
          { id: "b", host: "h", udpPort: 1 },
        ],
      },
      /unknown field "servers.0.hots"; did you mean "host"\?/,
    ],
    [
      "one id twice",
      {
        servers: [
          { id: "a", host: "h", udpPort: 1 },
          { id: "a", host: "h", udpPort: 2 },
        ],
      },
      /"servers.1.id" is "a"/,
    ],
    [
      "two preset servers",
      {
        servers: [
          { id: "a", host: "h", udpPort: 1, preset: true },
          { id: "b", host: "h", udpPort: 2, preset: true },
        ],
      },
      /one at most may be preset/,
    ],
    ["no key", { key: undefined }, /exactly one of "key" and "keyFile"/],
    ["a short key", { key: "0011" }, /field "key" is \(not shown\): 16 to 64 bytes/],
    ["a key file that is not there", { key: undefined, keyFile: "nowhere" }, /cannot be read/],
    ["an unknown balancing", { balancing: "random" }, /field "balancing" is "random"/],
    ["a misspelled timing", { timings: { failurMs: 100 } }, /did you mean "failureMs"\?/],
    [
      "timings that do not fit",
      { timings: { failureMs: 30 } },
      /do not fit together: .*at least three silent polls/,
    ],
    ["ports that are one", { redisPort: 7000, linkPort: 7000 }, /as redisPort is/],
  ];
  test.each(cases)("%s", (_name, changes, expected) => {
    const config = { ...configOf("x"), ...changes };
    expect(() => parseConfig(JSON.parse(JSON.stringify(config)), "/tmp/x.json")).toThrow(expected);
    expect(() => parseConfig(JSON.parse(JSON.stringify(config)), "/tmp/x.json")).toThrow(
      ConfigError,
    );
  });

  test("what is not said is the default, and relative paths are relative to the file", () => {
    const config = parseConfig({ ...configOf("x"), dir: "data" }, "/etc/dyad/controller.json");
    expect(config.dir).toBe("/etc/dyad/data");
    expect(config.timings.pollMs).toBe(20);
    expect(config.limits.inFlightMax).toBe(4096);
    expect(config.balancing).toBe("expected-delay");
    expect(config.servers[1]!.preset).toBe(false);
  });
});

describe("the virtual board's program", () => {
  const fields: [string, object][] = [
    [
      "serial",
      {
        servers: [
          { id: "a", host: "127.0.0.1", udpPort: 1, preset: true },
          { id: "b", host: "127.0.0.1", udpPort: 2, serial: { path: "/dev/ttyS9" } },
        ],
      },
    ],
    ["clientLine", { clientLine: { path: "/dev/ttyS9" } }],
  ];
  test.each(fields)(
    "has no serial lines, and says so where %s asks for one",
    async (field, changes) => {
      const file = join(home, "board.mjs");
      await build({
        entryPoints: ["firmware/main.board.ts"],
        outfile: file,
        bundle: true,
        platform: "node",
        format: "esm",
        target: "node20",
        logLevel: "error",
      });
      const one = startProgram(file, configOf(`board-${field}`, changes), `board-${field}`);
      await until(() => one.exit() !== null);
      expect(one.exit()).toBe(2);
      expect(one.err()).toContain(`"${field}": serial lines are not for this home`);
      expect(existsSync(join(home, `board-${field}`))).toBe(false);
    },
  );
});
