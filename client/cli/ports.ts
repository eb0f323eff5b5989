/** Ports that are free now, and stay likely to be free while the node that owns one is down. */
import { createSocket } from "node:dgram";
import { createServer } from "node:net";

// Below the range the system takes for outgoing connections, so that none of those sits on the port
// of a node that is about to be started again.
const PORT_FIRST = 20000;
const PORT_COUNT = 12000;
const TRIES_MAX = 200;

export function isTcpFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

export function isUdpFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createSocket("udp4");
    socket.once("error", () => resolve(false));
    socket.bind({ address: host, port, exclusive: true }, () => socket.close(() => resolve(true)));
  });
}

/**
 * A port free for TCP and UDP that is not in `taken`, and adds it there.
 * @throws Error when many tries found none
 */
export async function freePort(host: string, taken: Set<number>): Promise<number> {
  for (let count = 0; count < TRIES_MAX; count++) {
    const port = PORT_FIRST + Math.floor(Math.random() * PORT_COUNT);
    if (taken.has(port)) continue;
    if ((await isTcpFree(host, port)) && (await isUdpFree(host, port))) {
      taken.add(port);
      return port;
    }
  }
  throw new Error(
    `no free port found on ${host} between ${PORT_FIRST} and ${PORT_FIRST + PORT_COUNT}`,
  );
}
