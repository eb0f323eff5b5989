import { connect, type Socket } from "node:net";
import { createSocket } from "node:dgram";
import { afterEach, describe, expect, test } from "vitest";
import { Connections, type ConnectionEvents } from "../../firmware/connections.js";
import type { Listener } from "../../hal/hal.js";
import { nodeHardware } from "../../hal/node/hardware.js";
import { listenTcp } from "../../hal/node/tcp.js";
import { createTurns } from "../../hal/node/turns.js";
import { createDatagram } from "../../hal/node/udp.js";

const HOST = "127.0.0.1";
const toClose: (() => void)[] = [];
afterEach(() => {
  for (const close of toClose.splice(0)) close();
});

async function until(condition: () => boolean): Promise<void> {
  for (let count = 0; count < 2000; count++) {
    if (condition()) return;
    await new Promise((wake) => setTimeout(wake, 5));
  }
  throw new Error("what was waited for did not come");
}

class Recorder implements ConnectionEvents {
  opened: number[] = [];
  closed: number[] = [];
  drained: number[] = [];
  total = 0;
  private readonly pieces = new Map<number, Uint8Array[]>();
  chunks = 0;
  kinds = new Set<string>();
  onBytesToo: (connection: number) => void = () => undefined;

  onOpen(connection: number): void {
    this.opened.push(connection);
  }
  onBytes(connection: number, bytes: Uint8Array, start: number, end: number): void {
    this.chunks += 1;
    // A Buffer's slice would be a view of a buffer that is used again.
    this.kinds.add(bytes.constructor.name);
    this.total += end - start;
    if (!this.pieces.has(connection)) this.pieces.set(connection, []);
    this.pieces.get(connection)!.push(bytes.slice(start, end));
    this.onBytesToo(connection);
  }
  received(connection: number): string {
    return Buffer.concat(this.pieces.get(connection) ?? []).toString("latin1");
  }
  onDrained(connection: number): void {
    this.drained.push(connection);
  }
  onClosed(connection: number): void {
    this.closed.push(connection);
  }
}

interface House {
  connections: Connections;
  events: Recorder;
  port: number;
  clock: { ms: number };
}

async function house(kind: "redis" | "server" = "redis"): Promise<House> {
  const events = new Recorder();
  const clock = { ms: 0 };
  const connections = new Connections(nodeHardware(), events, () => clock.ms);
  const listener: Listener = await listenTcp({
    host: HOST,
    port: 0,
    onReadable() {
      for (let one = listener.read(); one !== undefined; one = listener.read()) {
        connections.adopt(kind, one);
      }
    },
    onError: () => undefined,
  });
  toClose.push(() => {
    listener.close();
    connections.stop();
  });
  return { connections, events, port: listener.port, clock };
}

function client(port: number): { socket: Socket; received: () => string; ended: () => boolean } {
  const socket = connect(port, HOST);
  let text = "";
  let ended = false;
  socket.on("data", (bytes) => (text += bytes.toString("latin1")));
  socket.on("error", () => undefined);
  socket.on("close", () => (ended = true));
  toClose.push(() => socket.destroy());
  return { socket, received: () => text, ended: () => ended };
}

const text = (words: string): Uint8Array => new Uint8Array(Buffer.from(words, "latin1"));

describe("connections on Node", () => {
  test("bytes go both ways, gathered into one write a turn", async () => {
    const { connections, events, port } = await house();
    const one = client(port);
    one.socket.write("hello");
    await until(() => events.received(0) === "hello");
    expect([...events.kinds]).toEqual(["Uint8Array"]);
    const bytes = text("abc");
    connections.send(0, bytes, 0, 3);
    bytes.fill(0);
    connections.send(0, text("xdefx"), 1, 4);
    expect(connections.backlog(0)).toBe(6);
    connections.flush();
    await until(() => one.received() === "abcdef");
    expect(connections.traffic.writes).toBe(1);
    expect(connections.backlog(0)).toBe(0);
  });

  test("a number is used again only after it was reported closed", async () => {
    const { events, port } = await house();
    const one = client(port);
    await until(() => events.opened.length === 1);
    one.socket.destroy();
    await until(() => events.closed.length === 1);
    client(port);
    await until(() => events.opened.length === 2);
    expect(events.opened).toEqual([0, 0]);
  });

  test("close lets what was sent go out; abort does not wait", async () => {
    const { connections, events, port } = await house();
    const one = client(port);
    await until(() => events.opened.length === 1);
    connections.send(0, text("last words"), 0, 10);
    connections.close(0, false);
    await until(() => one.ended());
    expect(one.received()).toBe("last words");
    await until(() => events.closed.length === 1);
    const two = client(port);
    await until(() => events.opened.length === 2);
    connections.close(0, true);
    await until(() => two.ended() && events.closed.length === 2);
    // Closing what is closed is no error.
    connections.close(0, true);
    connections.send(0, text("x"), 0, 1);
  });

  test("a slow reader's backlog is known, and its drain is told", async () => {
    const { connections, events, port } = await house();
    const one = client(port);
    await until(() => events.opened.length === 1);
    one.socket.pause();
    const big = new Uint8Array(1 << 20).fill(120);
    for (let i = 0; i < 20; i++) {
      connections.send(0, big, 0, big.length);
      connections.flush();
    }
    expect(connections.backlog(0)).toBeGreaterThan(1 << 20);
    one.socket.resume();
    await until(() => one.received().length === 20 << 20);
    await until(() => events.drained.length > 0);
    expect(connections.backlog(0)).toBe(0);
  });

  test("a connection that is not read from makes its sender wait", async () => {
    const { connections, events, port } = await house();
    const one = client(port);
    await until(() => events.opened.length === 1);
    connections.setReading(0, false);
    const chunk = Buffer.alloc(1 << 20, 1);
    for (let i = 0; i < 30; i++) one.socket.write(chunk);
    await new Promise((wake) => setTimeout(wake, 50));
    expect(events.total).toBeLessThan(1 << 20);
    connections.setReading(0, true);
    await until(() => events.total === 30 << 20);
  });

  test("clients' bytes beyond a turn's time wait for the next turn, in order", async () => {
    const { connections, events, port, clock } = await house();
    const all = [client(port), client(port), client(port)];
    await until(() => events.opened.length === 3);
    // Every chunk takes 3 ms of 4.
    events.onBytesToo = () => (clock.ms += 3);
    for (const one of all) one.socket.write("first ");
    await until(() => connections.traffic.deferred === 1);
    expect(events.chunks).toBe(2);
    for (const one of all) one.socket.write("second");
    await until(() => connections.traffic.deferred === 3);
    // The one put off first is not read from meanwhile.
    expect(events.chunks).toBe(2);
    while (connections.takeDeferred()) expect(events.chunks).toBeLessThan(10);
    await until(() => {
      connections.takeDeferred();
      return [0, 1, 2].every((one) => events.received(one) === "first second");
    });
  });

  test("a server's link is never put off", async () => {
    const { connections, events, port, clock } = await house("server");
    events.onBytesToo = () => (clock.ms += 100);
    for (let i = 0; i < 3; i++) client(port).socket.write("x");
    await until(() => events.chunks === 3);
    expect(connections.traffic.deferred).toBe(0);
  });

  test("thousands of quiet connections hold no buffers, and come and go", async () => {
    const { connections, events, port } = await house();
    for (let round = 0; round < 4; round++) {
      const some = Array.from({ length: 250 }, () => client(port));
      await until(() => connections.traffic.open === 250);
      for (const one of some) one.socket.destroy();
      await until(() => connections.traffic.open === 0);
    }
    expect(events.closed.length).toBe(1000);
    expect(Math.max(...events.opened)).toBeLessThan(600);
  });

  test("a port in use is said with its code", async () => {
    const { port } = await house();
    await expect(
      listenTcp({ host: HOST, port, onReadable: () => undefined, onError: () => undefined }),
    ).rejects.toMatchObject({ code: "EADDRINUSE" });
  });
});

describe("datagrams on Node", () => {
  test("go to one address and come from it, and a refusal is told", async () => {
    const server = createSocket("udp4");
    await new Promise<void>((done) => server.bind(0, HOST, done));
    const { port } = server.address();
    const heard: string[] = [];
    server.on("message", (bytes, from) => {
      heard.push(bytes.toString());
      server.send(`answer to ${bytes}`, from.port, from.address);
    });
    const got: string[] = [];
    let refused = 0;
    const kinds = new Set<string>();
    const socket = createDatagram({
      host: HOST,
      port,
      onReadable: (bytes) => {
        kinds.add(bytes.constructor.name);
        got.push(Buffer.from(bytes).toString());
      },
      onRefused: () => (refused += 1),
    });
    toClose.push(() => socket.close());
    const bytes = text("poll");
    await until(() => {
      const fresh = bytes.slice();
      socket.write(fresh);
      fresh.fill(0);
      return heard.length > 0;
    });
    await until(() => got.includes("answer to poll"));
    expect([...kinds]).toEqual(["Uint8Array"]);
    expect(refused).toBe(0);
    await new Promise<void>((done) => server.close(done));
    await until(() => {
      socket.write(bytes);
      return refused > 0;
    });
  });
});

describe("turns on Node", () => {
  test("the end of a turn is called once, after what came in; the timer is replaced", async () => {
    let ends = 0;
    let wakes = 0;
    const turns = createTurns({ wake: () => (wakes += 1), endOfTurn: () => (ends += 1) });
    toClose.push(() => turns.close());
    turns.requestEndOfTurn();
    turns.requestEndOfTurn();
    expect(ends).toBe(0);
    await until(() => ends > 0);
    expect(ends).toBe(1);
    turns.wakeIn(5000);
    turns.wakeIn(5);
    await until(() => wakes === 1);
    turns.wakeIn(5);
    turns.close();
    await new Promise((wake) => setTimeout(wake, 30));
    expect(wakes).toBe(1);
  });
});
