/**
 * The whole pair as processes, with pseudo terminals as serial cables and relays as network cables, so that each
 * can be cut alone.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { createSocket, type Socket as Datagram } from "node:dgram";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { askNode } from "../../client/cli/ask-node.js";
import { freePort } from "../free-ports.js";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const KEY = "00112233445566778899aabbccddeeff";
const hasSocat = spawnSync("socat", ["-V"]).status === 0;
if (!hasSocat) console.log("test/serial/pty: skipped, socat is not installed");

const undo: (() => void)[] = [];
afterEach(() => {
  for (const one of undo.splice(0).reverse()) one();
});

beforeAll(() => {
  const built = spawnSync(process.execPath, [join(root, "bin/prepare.mjs")], { encoding: "utf8" });
  expect(built.status, built.stderr).toBe(0);
}, 120_000);

async function until<T>(what: string, look: () => T | Promise<T>): Promise<NonNullable<T>> {
  for (let count = 0; count < 600; count++) {
    const found = await look();
    if (found) return found;
    await new Promise((wake) => setTimeout(wake, 25));
  }
  throw new Error(`it never came: ${what}`);
}

function run(program: string, args: string[]): ChildProcess {
  const child = spawn(program, args, { stdio: ["pipe", "ignore", "inherit"] });
  undo.push(() => child.kill("SIGKILL"));
  return child;
}

/** A network cable: TCP to the controller, UDP to the server. Cut, it carries nothing and closes nothing. */
class Cable {
  cut = false;
  private sockets: Socket[] = [];

  private constructor(
    readonly tcpPort: number,
    readonly udpPort: number,
    server: Server,
    front: Datagram,
    private readonly linkPort: number,
    pollPort: number,
  ) {
    server.on("connection", (near: Socket) => this.join(near));
    const back = createSocket("udp4");
    let asker = 0;
    front.on("message", (bytes, from) => {
      asker = from.port;
      if (!this.cut) back.send(bytes, pollPort, "127.0.0.1");
    });
    back.on("message", (bytes) => {
      if (!this.cut) front.send(bytes, asker, "127.0.0.1");
    });
    for (const one of [front, back]) one.on("error", () => undefined);
    undo.push(() => {
      server.close();
      front.close();
      back.close();
      for (const one of this.sockets) one.destroy();
    });
  }

  private join(near: Socket): void {
    const far = connect(this.linkPort, "127.0.0.1");
    this.sockets.push(near, far);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.setNoDelay(true);
      from.on("data", (bytes) => {
        if (!this.cut) to.write(bytes);
      });
      from.on("error", () => undefined);
      from.on("close", () => {
        if (!this.cut) to.destroy();
      });
    }
  }

  /** Plugs it in again; what was cut off in mid-stream is closed. */
  mend(): void {
    this.cut = false;
    for (const one of this.sockets.splice(0)) one.destroy();
  }

  static async lay(linkPort: number, pollPort: number): Promise<Cable> {
    const server = createServer();
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    const front = createSocket("udp4");
    await new Promise<void>((ready) => front.bind(0, "127.0.0.1", ready));
    const { port } = server.address() as AddressInfo;
    return new Cable(port, front.address().port, server, front, linkPort, pollPort);
  }
}

interface Status {
  primary: string | null;
  mode: string | null;
  epoch: number;
  state: string;
  why: string;
  servers: { id: string; inSync: boolean; paths: string }[];
  controller: { serial: { up: boolean; damaged: number; packets: number }[] };
}

interface World {
  cables: Cable[];
  peerCable: Cable;
  lines: ChildProcess[];
  agents: ChildProcess[];
  status(): Promise<Status>;
  console(line: string): Promise<string>;
  agent(id: string, line: string): Promise<string>;
  log(id: string): string;
}

async function start(form: "binary" | "text"): Promise<World> {
  const dir = mkdtempSync(join(tmpdir(), "dyad-serial-"));
  undo.push(() => rmSync(dir, { recursive: true, force: true }));
  const linkPort = await freePort();
  const clientPort = await freePort();
  const ids = ["a", "b"];
  const pollPorts = [await freePort(), await freePort()];
  const peerPorts = [await freePort(), await freePort()];
  const cables: Cable[] = [];
  const lines: ChildProcess[] = [];
  for (const [i, id] of ids.entries()) {
    cables.push(await Cable.lay(linkPort, pollPorts[i]!));
    const ends = [join(dir, `c-${id}`), join(dir, `s-${id}`)];
    lines.push(
      run(
        "socat",
        ends.map((end) => `pty,raw,echo=0,link=${end}`),
      ),
    );
    await until("a pty pair", () => ends.every((end) => existsSync(end)));
  }
  // The server with the greater id dials the other.
  const peerCable = await Cable.lay(peerPorts[0]!, 1);
  const controllerDir = join(dir, "controller");
  mkdirSync(controllerDir);
  writeFileSync(
    join(dir, "controller.json"),
    JSON.stringify({
      dir: controllerDir,
      linkPort,
      redisPort: clientPort,
      key: KEY,
      servers: ids.map((id, i) => ({
        id,
        host: "127.0.0.1",
        udpPort: cables[i]!.udpPort,
        serial: { path: join(dir, `c-${id}`), form },
      })),
    }),
  );
  const agents = ids.map((id, i) => {
    const file = join(dir, `${id}.json`);
    writeFileSync(
      file,
      JSON.stringify({
        id,
        servers: ids,
        dir: join(dir, id),
        controller: { host: "127.0.0.1", linkPort: cables[i]!.tcpPort, clientPort },
        peer: { host: "127.0.0.1", port: i === 0 ? peerPorts[1] : peerCable.tcpPort },
        peerPort: peerPorts[i],
        udpPort: pollPorts[i],
        serial: { path: join(dir, `s-${id}`) },
        durability: "memory",
        key: KEY,
        log: join(dir, `${id}.log`),
      }),
    );
    return run(process.execPath, [join(root, "dist/agent.js"), "--config", file]);
  });
  run(process.execPath, [
    join(root, "dist/controller.js"),
    "--config",
    join(dir, "controller.json"),
  ]);
  const ask = (line: string): Promise<string> =>
    askNode(join(controllerDir, "controller.sock"), line);
  const world: World = {
    cables,
    peerCable,
    lines,
    agents,
    status: async () => JSON.parse(await ask("status --json")) as Status,
    console: ask,
    log: (id) => readFileSync(join(dir, `${id}.log`), "utf8"),
    agent: (id, line) => askNode(join(dir, id, "agent.sock"), line),
  };
  await until("the controller", () => ask("pid").catch(() => ""));
  await until("a pair in sync, on both paths", async () => {
    const status = await world.status();
    return (
      status.mode === "both" &&
      status.servers.every((one) => one.inSync && one.paths === "network up, serial up")
    );
  });
  return world;
}

describe.skipIf(!hasSocat)("serial lines between real processes", () => {
  test.each(["binary", "text"] as const)(
    "only the primary's network cut (%s): the standby takes over, the old one hears it by serial",
    async (form) => {
      const world = await start(form);
      const before = await world.status();
      const old = before.servers.findIndex((one) => one.id === before.primary);
      const oldId = before.servers[old]!.id;
      world.cables[old]!.cut = true;
      const after = await until("the other as primary", async () => {
        const status = await world.status();
        return status.primary !== oldId && status.state !== "writing" ? status : undefined;
      });
      expect([after.mode, after.epoch]).toEqual(["both", before.epoch + 1]);
      // Its peer tells it too; the line has done so all the same.
      await until("the record by serial", () =>
        world.log(oldId).includes(`"event":"record-by-serial","epoch":${after.epoch}`),
      );
      await until("the old primary to adopt it", async () => {
        const heard = JSON.parse(await world.agent(oldId, "status")) as { epoch: number };
        return heard.epoch === after.epoch;
      });
      world.cables[old]!.mend();
      await until("a pair in sync again", async () =>
        (await world.status()).servers.every((one) => one.inSync),
      );
      await until("both lines in use", async () =>
        (await world.status()).controller.serial.every((one) => one.up && one.packets > 3),
      );
    },
    60_000,
  );

  test("the primary's whole network cut, peer link too: only serial can tell it, and does", async () => {
    const world = await start("binary");
    const before = await world.status();
    const old = before.servers.findIndex((one) => one.id === before.primary);
    world.peerCable.cut = true;
    world.cables[old]!.cut = true;
    const after = await until("the other alone", async () => {
      const status = await world.status();
      return status.primary !== before.primary && status.state === "solo" ? status : undefined;
    });
    await until("the old primary to adopt it", async () => {
      const heard = JSON.parse(await world.agent(before.primary!, "status")) as { epoch: number };
      return heard.epoch === after.epoch;
    });
  }, 60_000);

  test("both networks cut, serial alive: no role change; a line alone: said, and no more", async () => {
    const world = await start("binary");
    const before = await world.status();
    for (const cable of world.cables) cable.cut = true;
    await until("both networks silent", async () =>
      (await world.status()).servers.every((one) => one.paths === "network silent, serial up"),
    );
    expect((await world.console("explain")).replace(/\s+/g, " ")).toContain(
      "look at this controller's own network cable",
    );
    await new Promise((wake) => setTimeout(wake, 1500));
    for (const cable of world.cables) cable.mend();
    await until("a pair in sync again", async () =>
      (await world.status()).servers.every((one) => one.inSync),
    );
    expect((await world.status()).epoch).toBe(before.epoch);
    world.lines[0]!.kill("SIGKILL");
    await until("a silent line", async () =>
      (await world.status()).servers.some((one) => one.paths === "network up, serial silent"),
    );
    expect((await world.status()).epoch).toBe(before.epoch);
  }, 60_000);

  test("all paths silent: failover", async () => {
    const world = await start("binary");
    const before = await world.status();
    const old = before.servers.findIndex((one) => one.id === before.primary);
    world.agents[old]!.kill("SIGSTOP");
    const after = await until("the other as primary", async () => {
      const status = await world.status();
      return status.primary !== before.primary && status.state !== "writing" ? status : undefined;
    });
    expect(after.mode).toBe("solo");
  }, 60_000);
});
