/**
 * The agent's own small console: a socket file in its directory. A line in, answer lines out, then a
 * line with a single "." — the same form as the controller's console.
 */
import { closeSync, openSync, unlinkSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";

const LINE_BYTES_MAX = 4096;
/** The kernel's bound on a socket's path, with room for the terminating zero. */
const PATH_BYTES_MAX = 100;

export type Answer = (line: string) => string | Promise<string>;

export class LocalControl {
  private constructor(
    private readonly server: Server,
    private readonly folder: number,
  ) {}

  /** @param answer gives the answer to a line; what it throws is shown as an error line */
  static async open(dir: string, name: string, answer: Answer): Promise<LocalControl> {
    const path = join(dir, name);
    try {
      // Only a dead agent's socket can be here: the directory's lock is ours.
      unlinkSync(path);
    } catch {
      // There was none.
    }
    const folder = openSync(dir, "r");
    const short =
      Buffer.byteLength(path) <= PATH_BYTES_MAX ? path : `/proc/self/fd/${folder}/${name}`;
    const server = createServer((socket) => {
      let pending = "";
      let queue = Promise.resolve();
      socket.setEncoding("utf8");
      socket.on("error", () => undefined);
      socket.on("data", (text: string) => {
        pending += text;
        if (pending.length > LINE_BYTES_MAX) {
          socket.destroy();
          return;
        }
        const lines = pending.split("\n");
        pending = lines.pop()!;
        for (const line of lines) {
          queue = queue.then(async () => {
            let reply: string;
            try {
              reply = await answer(line.trim());
            } catch (error) {
              reply = `error: ${(error as Error).message}`;
            }
            socket.write(`${reply.trimEnd()}\n.\n`);
          });
        }
      });
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(short, () => {
        server.off("error", reject);
        server.on("error", () => undefined);
        resolve();
      });
    });
    return new LocalControl(server, folder);
  }

  close(): void {
    this.server.close();
    closeSync(this.folder);
  }
}
