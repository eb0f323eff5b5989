import { connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import type { LinkKind } from "../../agent/core/ports.js";
import { Sockets, type SocketEvents } from "../../agent/sockets.js";

const HOST = "127.0.0.1";

class Recorder implements SocketEvents {
  readonly opened: { connection: number; kind: LinkKind; accepted: boolean }[] = [];
  readonly failed: string[] = [];
  readonly closed: number[] = [];
  readonly drained: number[] = [];
  readonly bytes = new Map<number, Buffer>();
  chunks = 0;

  onOpen(connection: number, kind: LinkKind, accepted: boolean): void {
    this.opened.push({ connection, kind, accepted });
  }
  onDialFailed(kind: "controller" | "peer", reason: string): void {
    this.failed.push(`${kind} ${reason}`);
  }
  onBytes(connection: number, bytes: Uint8Array, start: number, end: number): void {
    this.chunks += 1;
    const before = this.bytes.get(connection) ?? Buffer.alloc(0);
    this.bytes.set(connection, Buffer.concat([before, bytes.subarray(start, end)]));
  }
  onDrained(connection: number): void {
    this.drained.push(connection);
  }
  onClosed(connection: number): void {
    this.closed.push(connection);
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let count = 0; count < 2000; count++) {
    if (condition()) return;
    await new Promise((wake) => setTimeout(wake, 5));
  }
  throw new Error("what was waited for did not come");
}

const toClose: (() => void)[] = [];
afterEach(() => {
  for (const close of toClose.splice(0)) close();
});

async function listening(): Promise<{ sockets: Sockets; events: Recorder; port: number }> {
  const events = new Recorder();
  const sockets = new Sockets(events);
  toClose.push(() => sockets.stop());
  const port = await sockets.listen("local", HOST, 0);
  return { sockets, events, port };
}

function client(port: number): Socket {
  const socket = connect(port, HOST);
  socket.on("error", () => undefined);
  toClose.push(() => socket.destroy());
  return socket;
}

describe("the agent's sockets", () => {
  test("what is sent in a turn waits for its end and leaves in order; the caller's buffer is free at once", async () => {
    const { sockets, events, port } = await listening();
    const socket = client(port);
    let received = "";
    socket.on("data", (bytes) => (received += bytes.toString()));
    await until(() => events.opened.length === 1);
    const { connection } = events.opened[0]!;
    const reused = Buffer.from("one ");
    sockets.send(connection, reused, 0, 4);
    reused.write("two ");
    sockets.send(connection, reused, 0, 3);
    reused.fill(0);
    await new Promise((wake) => setTimeout(wake, 30));
    expect(received).toBe("");
    sockets.flush();
    await until(() => received.length === 7);
    expect(received).toBe("one two");
  });

  test("a dialed and an accepted connection carry bytes both ways, and report their close", async () => {
    const { events, port, sockets } = await listening();
    const dialing = new Recorder();
    const dialer = new Sockets(dialing);
    toClose.push(() => dialer.stop());
    dialer.dial("peer", HOST, port);
    await until(() => dialing.opened.length === 1 && events.opened.length === 1);
    expect(dialing.opened[0]).toMatchObject({ kind: "peer", accepted: false });
    expect(events.opened[0]).toMatchObject({ kind: "local", accepted: true });
    const out = dialing.opened[0]!.connection;
    const back = events.opened[0]!.connection;
    const large = Buffer.alloc(300_000, "x");
    dialer.send(out, large, 0, large.length);
    dialer.flush();
    sockets.send(back, Buffer.from("hello"), 1, 3);
    sockets.flush();
    await until(() => events.bytes.get(back)?.length === 300_000);
    await until(() => dialing.bytes.get(out)?.toString() === "el");
    dialer.close(out);
    await until(() => events.closed.length === 1 && dialing.closed.length === 1);
  });

  test("a refused dial is told once, and is no connection", async () => {
    const server: Server = createServer().listen(0, HOST);
    await new Promise((ready) => server.once("listening", ready));
    const { port } = server.address() as { port: number };
    await new Promise((done) => server.close(done));
    const events = new Recorder();
    const sockets = new Sockets(events);
    sockets.dial("controller", HOST, port);
    await until(() => events.failed.length > 0);
    await new Promise((wake) => setTimeout(wake, 20));
    expect(events.failed).toEqual(["controller ECONNREFUSED"]);
    expect(events.opened).toEqual([]);
    expect(events.closed).toEqual([]);
  });

  test("what was sent before a close goes out first", async () => {
    const { sockets, events, port } = await listening();
    const socket = client(port);
    let received = "";
    let ended = false;
    socket.on("data", (bytes) => (received += bytes.toString()));
    socket.on("end", () => (ended = true));
    await until(() => events.opened.length === 1);
    const { connection } = events.opened[0]!;
    sockets.send(connection, Buffer.from("refused: key"), 0, 12);
    sockets.close(connection);
    sockets.send(connection, Buffer.from("late"), 0, 4);
    sockets.flush();
    await until(() => ended);
    expect(received).toBe("refused: key");
    await until(() => events.closed.includes(connection));
  });

  test("a connection that is not read sends nothing on until it is read again", async () => {
    const { sockets, events, port } = await listening();
    const socket = client(port);
    await until(() => events.opened.length === 1);
    const { connection } = events.opened[0]!;
    sockets.setReading(connection, false);
    socket.write("later");
    await new Promise((wake) => setTimeout(wake, 30));
    expect(events.bytes.get(connection)).toBeUndefined();
    sockets.setReading(connection, true);
    await until(() => events.bytes.get(connection)?.toString() === "later");
  });

  test("a reader that was behind is told of as drained once it has caught up, with every byte in order", async () => {
    const { sockets, events, port } = await listening();
    const socket = client(port);
    socket.pause();
    await until(() => events.opened.length === 1);
    const { connection } = events.opened[0]!;
    const part = Buffer.alloc(1_000_000);
    for (let count = 0; count < 16; count++) {
      part.fill(count);
      sockets.send(connection, part, 0, part.length);
      sockets.flush();
    }
    expect(events.drained).toEqual([]);
    let received = 0;
    let wrong = 0;
    socket.on("data", (bytes: Buffer) => {
      for (const byte of bytes) if (byte !== Math.floor(received++ / 1_000_000)) wrong += 1;
    });
    socket.resume();
    await until(() => received === 16_000_000);
    expect(wrong).toBe(0);
    await until(() => events.drained.includes(connection));
  });
});
