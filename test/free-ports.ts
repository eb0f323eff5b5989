/** Ports for tests: all held at once while they are chosen, so that no two are the same. */
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";

/** @returns ports on loopback at which nobody listens now */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, "127.0.0.1");
      await new Promise((ready) => server.once("listening", ready));
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}

export async function freePort(): Promise<number> {
  return (await freePorts(1))[0]!;
}
