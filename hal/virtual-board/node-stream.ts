/** A board's serial console as a stream on a socket file: whoever connects sees what it says, and may type lines. */
import { chmodSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { basename, dirname } from "node:path";
import { closeSync, openSync } from "node:fs";

const LINE_MAX = 1000;
/** One that does not read is left behind, not waited for. @unit bytes */
const BEHIND_MAX = 1024 * 1024;
/** The kernel's bound on a socket's path, with room for the terminating zero. */
const PATH_BYTES_MAX = 100;
/** What was said before somebody connected is shown to them. @unit characters */
const KEPT = 4096;

export interface SerialStream {
  write(text: string): void;
  close(): void;
}

/** @param onLine a line that somebody typed, without its end */
export async function openSerialStream(
  path: string,
  onLine: (line: string) => void,
): Promise<SerialStream> {
  rmSync(path, { force: true });
  const folder = openSync(dirname(path), "r");
  const short =
    Buffer.byteLength(path) <= PATH_BYTES_MAX ? path : `/proc/self/fd/${folder}/${basename(path)}`;
  const sockets = new Set<Socket>();
  let kept = "";
  const server = createServer((socket) => {
    let pending = "";
    sockets.add(socket);
    socket.setEncoding("latin1");
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
    socket.on("data", (text: string) => {
      pending += text;
      const lines = pending.split(/\r\n|\r|\n/);
      pending = lines.pop()!;
      for (const line of lines) if (line !== "") onLine(line);
      if (pending.length > LINE_MAX) socket.destroy();
    });
    socket.write(kept, "latin1");
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(short, () => {
      server.off("error", reject);
      server.on("error", () => undefined);
      resolve();
    });
  });
  chmodSync(path, 0o600);
  return {
    write(text) {
      kept = (kept + text).slice(-KEPT);
      for (const socket of sockets) {
        if (socket.writableLength < BEHIND_MAX) socket.write(text, "latin1");
      }
    },
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
      closeSync(folder);
    },
  };
}
