/** A client on a serial line: through a line that loses, damages and doubles, each write is done once. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { askNode } from "../../client/cli/ask-node.js";
import { NotDoneError } from "../../client/errors.js";
import { LineClient } from "../../client/line-client.js";
import { createLineClient } from "../../firmware/line-client.js";
import type { Serial, SerialOptions, TcpOptions, TcpSocket } from "../../hal/hal.js";
import { FRAME_COMMAND, FRAME_REPLY, frameOf } from "../../protocol/frame.js";
import { FORM_BINARY, FORM_TEXT, SIDE_OTHER, encodeSerial } from "../../protocol/serial.js";
import { freePorts } from "../free-ports.js";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const hasSocat = spawnSync("socat", ["-V"]).status === 0;
if (!hasSocat) console.log("test/serial/line-client: part skipped, socat is not installed");

const crc = (bytes: Uint8Array, start: number, end: number): number =>
  crc32(bytes.subarray(start, end));

/** A line whose other end is this test. */
class Wire {
  sent: Uint8Array[] = [];
  full = false;
  private options: SerialOptions | undefined;
  private chunk: Uint8Array | undefined;

  open(options: SerialOptions): Serial {
    this.options = options;
    return {
      read: () => this.chunk,
      write: (bytes) => {
        if (!this.full) this.sent.push(bytes.slice());
        return !this.full;
      },
      close: () => undefined,
    };
  }

  bring(bytes: Uint8Array): void {
    this.chunk = bytes;
    this.options!.onReadable(bytes.length);
    this.chunk = undefined;
  }
}

const GET_X = new TextEncoder().encode("*2\r\n$3\r\nGET\r\n$1\r\nx\r\n");

describe("the controller's end", () => {
  function opened(): {
    wire: Wire;
    heard: Uint8Array[];
    ends: string[];
    later: (() => void)[];
    socket: () => TcpSocket;
    client: ReturnType<typeof createLineClient>;
  } {
    const wire = new Wire();
    const heard: Uint8Array[] = [];
    const ends: string[] = [];
    const later: (() => void)[] = [];
    let socket: TcpSocket | undefined;
    const client = createLineClient({
      line: { device: "Serial1", baud: 9600 },
      openSerial: (options) => wire.open(options),
      crc32: crc,
      onClient: (from) => {
        const options: TcpOptions = {
          from,
          readBytes: 1024,
          onReadable: () => heard.push(socket!.read()!.slice()),
          onWritable: () => undefined,
          onError: (reason) => ends.push(reason),
        };
        socket = client.adopt(options);
      },
      onError: () => undefined,
      later: (call) => later.push(call),
    });
    client.start();
    return { wire, heard, ends, later, socket: () => socket!, client };
  }

  test("packets become frames and frames packets, in the form the client speaks; noise is counted", () => {
    const { wire, heard, socket, client } = opened();
    const command = frameOf(FRAME_COMMAND, 0, 7, GET_X);
    const packet = encodeSerial(FORM_TEXT, SIDE_OTHER, 0, command, 0, command.length, crc);
    wire.bring(packet.subarray(0, 9));
    wire.bring(packet.subarray(9));
    wire.bring(packet);
    wire.bring(new Uint8Array([0x7e, 1, 2, 3, 0x7e]));
    expect(heard).toEqual([command]);
    expect(client.counts()).toMatchObject({ packets: 1, doubled: 1, damaged: 1 });

    // Two replies in one write, cut anywhere.
    const reply = frameOf(FRAME_REPLY, 0, 7, new TextEncoder().encode("$1\r\n1\r\n"));
    const two = new Uint8Array([...reply, ...reply]);
    expect(socket().write(two.subarray(0, 11))).toBe(0);
    socket().write(two.subarray(11));
    expect(wire.sent).toHaveLength(2);
    for (const bytes of wire.sent) for (const byte of bytes) expect(byte).toBeLessThan(0x80);
    wire.full = true;
    socket().write(reply);
    expect(client.unsent()).toBe(1);
  });

  test("a connection that ends is there again, later and not from inside", () => {
    const { wire, heard, ends, later, socket } = opened();
    const first = socket();
    first.end();
    first.close();
    expect([ends, later.length]).toEqual([[], 1]);
    later[0]!();
    expect(ends).toEqual([""]);
    expect(socket()).not.toBe(first);
    const command = frameOf(FRAME_COMMAND, 0, 8, GET_X);
    wire.bring(encodeSerial(FORM_TEXT, SIDE_OTHER, 0, command, 0, command.length, crc));
    expect(heard).toEqual([command]);
  });
});

test("the packet that docs/PLC.md spells out is the packet", () => {
  const text = readFileSync(join(root, "docs", "PLC.md"), "utf8");
  const spelled = /^ +((?:[0-9a-f]{2} ){20,}[0-9a-f]{2})$/m.exec(text)![1]!;
  const payload = new TextEncoder().encode("*2\r\n$3\r\nGET\r\n$5\r\nlevel\r\n");
  const frame = frameOf(FRAME_COMMAND, 0, 1, payload);
  const packet = encodeSerial(FORM_BINARY, SIDE_OTHER, 0, frame, 0, frame.length, crc);
  expect(Buffer.from(packet.subarray(1, packet.length - 1)).toString("hex")).toBe(
    spelled.replaceAll(" ", ""),
  );
});

const undo: (() => void)[] = [];
afterEach(() => {
  for (const one of undo.splice(0).reverse()) one();
});

async function until(what: string, look: () => boolean): Promise<void> {
  for (let count = 0; count < 1200; count++) {
    if (look()) return;
    await new Promise((wake) => setTimeout(wake, 50));
  }
  throw new Error(`it never came: ${what}`);
}

/** A cable between the controller's pseudo terminal and this test, with a hand in it. */
class Cable {
  onBytes: (bytes: Buffer) => void = () => undefined;
  /** What becomes of a chunk; to the controller, and from it. */
  there: (bytes: Buffer) => Buffer = (bytes) => bytes;
  back: (bytes: Buffer) => Buffer = (bytes) => bytes;
  private socket: Socket | undefined;

  static async lay(path: string): Promise<Cable> {
    const cable = new Cable();
    const server = createServer((socket) => {
      cable.socket = socket;
      socket.on("error", () => undefined);
      socket.on("data", (bytes) => cable.onBytes(cable.back(bytes)));
    });
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    const { port } = server.address() as AddressInfo;
    const socat = spawn("socat", [`pty,raw,echo=0,link=${path}`, `tcp:127.0.0.1:${port}`]);
    undo.push(() => {
      socat.kill("SIGKILL");
      cable.socket?.destroy();
      server.close();
    });
    await until(path, () => existsSync(path) && cable.socket !== undefined);
    return cable;
  }

  write(bytes: Uint8Array): void {
    this.socket!.write(this.there(Buffer.from(bytes)));
  }
}

describe.skipIf(!hasSocat)("a pair with a client on its line", () => {
  beforeAll(() => {
    const built = spawnSync(process.execPath, [join(root, "bin/prepare.mjs")], {
      encoding: "utf8",
    });
    expect(built.status, built.stderr).toBe(0);
  }, 300_000);

  test("each write is done once over a line that loses, damages and doubles; a long value comes whole; the 7-bit form", async () => {
    const dir = mkdtempSync(join(tmpdir(), "dyad-line-"));
    undo.push(() => rmSync(dir, { recursive: true, force: true }));
    const path = join(dir, "tty");
    const cable = await Cable.lay(path);
    await startPair(dir, path);

    const options = { retryMs: 400, commandMs: 60_000 };
    const client = new LineClient({ write: (bytes) => cable.write(bytes) }, options);
    cable.onBytes = (bytes) => client.feed(bytes);
    expect(await client.command("SET", "count", "0")).toBe("OK");

    let turn = 0;
    const spoil = (bytes: Buffer): Buffer => {
      turn++;
      if (turn % 5 === 0) return Buffer.alloc(0);
      if (turn % 7 === 0) return Buffer.concat([bytes, bytes]);
      if (turn % 4 !== 0) return bytes;
      const bad = Buffer.from(bytes);
      bad[Math.floor(bad.length / 2)]! ^= 0x10;
      return bad;
    };
    cable.there = spoil;
    cable.back = spoil;
    for (let i = 1; i <= 20; i++) expect(await client.command("INCR", "count")).toBe(i);
    expect(client.repeats).toBeGreaterThan(3);
    cable.there = (bytes) => bytes;
    cable.back = (bytes) => bytes;
    expect(Buffer.from((await client.command("GET", "count")) as Uint8Array).toString()).toBe("20");

    // Longer than a packet: a command is refused, a reply comes in parts.
    await expect(client.command("SET", "long", "v".repeat(600))).rejects.toThrow(NotDoneError);
    for (let i = 0; i < 4; i++) await client.command("APPEND", "long", "v".repeat(400));
    expect(((await client.command("GET", "long")) as Uint8Array).length).toBe(1600);

    const text = new LineClient(
      { write: (bytes) => cable.write(bytes) },
      { ...options, text: true },
    );
    const seen: number[] = [];
    cable.back = (bytes) => {
      seen.push(...bytes);
      return bytes;
    };
    cable.onBytes = (bytes) => text.feed(bytes);
    expect(await text.command("INCR", "count")).toBe(21);
    expect(Math.max(...seen)).toBeLessThan(0x80);
  }, 240_000);
});

/** A pair as processes; the controller has a line at `path`. */
async function startPair(dir: string, path: string): Promise<void> {
  const [link, redis, native, ...rest] = await freePorts(7);
  const key = "00112233445566778899aabbccddeeff";
  const host = "127.0.0.1";
  const ids = ["a", "b"];
  const run = (program: string, name: string, config: object): void => {
    const file = join(dir, `${name}.json`);
    writeFileSync(file, JSON.stringify(config));
    const argv = [join(root, "dist", program), "--config", file];
    const child = spawn(process.execPath, argv, { stdio: ["pipe", "ignore", "inherit"] });
    undo.push(() => child.kill("SIGKILL"));
  };
  run("controller.js", "controller", {
    dir: join(dir, "controller"),
    linkPort: link,
    redisPort: redis,
    nativePort: native,
    key,
    clientLine: { path },
    servers: ids.map((id, i) => ({ id, host, udpPort: rest[i] })),
  });
  for (const [i, id] of ids.entries()) {
    run("agent.js", id, {
      id,
      servers: ids,
      dir: join(dir, id),
      controller: { host, linkPort: link, clientPort: redis },
      peer: { host, port: rest[3 - i] },
      peerPort: rest[2 + i],
      udpPort: rest[i],
      durability: "memory",
      key,
      log: join(dir, `${id}.log`),
    });
  }
  const socket = join(dir, "controller", "controller.sock");
  for (let count = 0; ; count++) {
    const status = await askNode(socket, "status").catch(() => "");
    if (/both\([ab]\)/.test(status)) return;
    if (count > 1200) throw new Error(`no pair: ${status}`);
    await new Promise((wake) => setTimeout(wake, 50));
  }
}
