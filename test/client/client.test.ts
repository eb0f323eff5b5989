/** The client over real sockets, against a controller in this process. */
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { connectClient } from "../../client/client.js";
import type { Client, ClientOptions } from "../../client/client.js";
import {
  CommandError,
  HandshakeError,
  NotDoneError,
  OutcomeUnknownError,
} from "../../client/errors.js";
import { FakeController } from "./fake-controller.js";

let server: Server | undefined;
let client: Client | undefined;
const sockets = new Set<Socket>();

async function listen(controller: FakeController, port = 0): Promise<number> {
  server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    const connection = controller.open(
      (bytes) => void socket.write(bytes.slice()),
      () => socket.destroy(),
    );
    socket.on("data", (chunk) => connection.receive(chunk));
    socket.on("close", () => sockets.delete(socket));
  }).listen(port, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

async function hangUp(): Promise<void> {
  const closing = server;
  server = undefined;
  if (closing === undefined) return;
  const closed = once(closing, "close");
  closing.close();
  for (const socket of sockets) socket.destroy();
  await closed;
}

async function start(
  controller: FakeController,
  options: Partial<ClientOptions> = {},
): Promise<Client> {
  const port = await listen(controller);
  client = await connectClient({ host: "127.0.0.1", port, ...options });
  return client;
}

afterEach(async () => {
  await client?.close();
  client = undefined;
  await hangUp();
});

const text = (value: unknown): string => Buffer.from(value as Uint8Array).toString();

test("commands, in a pipeline, with text, numbers and bytes", async () => {
  const controller = new FakeController();
  const dyad = await start(controller, { name: "test", key: Buffer.from(""), limits: {} });
  const replies = await Promise.all([
    dyad.command("INCR", "a"),
    dyad.command("INCR", "a"),
    dyad.command("GET", "a"),
    dyad.command("ECHO", 12.5),
    dyad.command("ECHO", Buffer.from("bytes")),
    dyad.command("ECHO", "h\u00e9"),
    dyad.transaction([["INCR", "a"], ["NOSUCH"]]),
  ]);
  expect(replies.slice(0, 2)).toEqual([1, 2]);
  expect(replies.slice(2, 6).map(text)).toEqual(["2", "12.5", "bytes", "h\u00e9"]);
  expect(replies[6]).toEqual([3, { error: "ERR unknown command" }]);
  expect(controller.connections).toBe(1);
  expect(dyad.pending).toBe(0);
});

test("what went wrong has a type", async () => {
  const controller = new FakeController();
  const dyad = await start(controller);
  const failed = await dyad.command("NOSUCH").catch((error: unknown) => error);
  expect(failed).toBeInstanceOf(CommandError);
  expect((failed as CommandError).code).toBe("ERR");
  controller.decide = () => "refuse";
  await expect(dyad.command("INCR", "a")).rejects.toBeInstanceOf(NotDoneError);
  controller.decide = () => "unknown";
  await expect(dyad.command("INCR", "a")).rejects.toBeInstanceOf(OutcomeUnknownError);
  await expect(dyad.command()).rejects.toBeInstanceOf(RangeError);
  await expect(dyad.transaction([])).rejects.toBeInstanceOf(RangeError);
});

test("the client goes on when the controller comes back", async () => {
  const controller = new FakeController();
  const states: string[] = [];
  const dyad = await start(controller, { onState: (up) => states.push(up ? "up" : "down") });
  expect(await dyad.command("INCR", "a")).toBe(1);
  const { port } = server!.address() as AddressInfo;
  await hangUp();
  const asked = dyad.command("GET", "a");
  await listen(controller, port);
  expect(text(await asked)).toBe("1");
  expect(states).toEqual(["up", "down", "up"]);
});

test("a session's writes are done once, though connections are lost under them", async () => {
  const controller = new FakeController();
  const dyad = await start(controller, { limits: { backoffFirstMs: 1, backoffMaxMs: 5 } });
  const session = await dyad.openSession();
  expect(session.id).toMatch(/^[0-9a-f]{16}$/);
  let turn = 0;
  controller.decide = () => (["answer", "done", "answer", "lost"] as const)[turn++ % 4]!;
  const replies = await Promise.all(Array.from({ length: 20 }, () => session.command("INCR", "n")));
  expect(replies).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
  expect(controller.counter("n")).toBe(20);
  expect(controller.connections).toBeGreaterThan(3);
  controller.decide = () => "answer";
  expect(text(((await session.transaction([["ECHO", "x"]])) as unknown[])[0])).toBe("x");
  await session.close();
  await expect(session.command("INCR", "n")).rejects.toBeInstanceOf(OutcomeUnknownError);
});

test("a wrong key is an error at once", async () => {
  const controller = new FakeController();
  controller.key = Buffer.from("right");
  const port = await listen(controller);
  const options = { host: "127.0.0.1", port, key: Buffer.from("wrong") };
  await expect(connectClient(options)).rejects.toBeInstanceOf(HandshakeError);
});

test("closing fails what is unanswered, and lets the process end", async () => {
  const controller = new FakeController();
  controller.decide = () => "hold";
  const dyad = await start(controller);
  const failures = ["INCR", "GET"].map((name) =>
    dyad.command(name, "a").catch((error: Error) => error.name),
  );
  // Sent, so that the write is in doubt.
  while (controller.asked.length < 2) await new Promise((resolve) => setImmediate(resolve));
  await dyad.close();
  expect(await Promise.all(failures)).toEqual(["OutcomeUnknownError", "NoAnswerError"]);
  await expect(dyad.command("GET", "a")).rejects.toBeInstanceOf(NotDoneError);
  expect(sockets.size).toBeLessThanOrEqual(1);
});
