/**
 * The console where there is no serial line: a socket file in the controller's directory, and standard input.
 * A line in, the answer's lines out; on the socket a line with a single "." ends an answer.
 */
import { chmodSync, closeSync, openSync, unlinkSync } from "node:fs";
import { createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";

const LINE_BYTES_MAX = 4096;
/** The kernel's bound on a socket's path, with room for the terminating zero. */
const PATH_BYTES_MAX = 100;

/** What is said to a line. A controller in a process of its own has to be asked first. */
export type Answer = (line: string) => string | Promise<string>;

export interface ConsolePort {
  close(): void;
}

/** Waits at `dir`/`name`. Whoever may write to the directory's owner's files may use it. */
export async function openConsoleSocket(
  dir: string,
  name: string,
  answer: Answer,
): Promise<ConsolePort> {
  const path = join(dir, name);
  try {
    // Only a dead controller's socket can be here: the directory's lock is ours.
    unlinkSync(path);
  } catch {
    // There was none.
  }
  const folder = openSync(dir, "r");
  const short =
    Buffer.byteLength(path) <= PATH_BYTES_MAX ? path : `/proc/self/fd/${folder}/${name}`;
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    let pending = "";
    const tell = (said: string): void => void socket.write(`${said.trimEnd()}\n.\n`);
    sockets.add(socket);
    socket.setEncoding("utf8");
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
    socket.on("data", (text: string) => {
      pending += text;
      if (pending.length > LINE_BYTES_MAX) {
        socket.destroy();
        return;
      }
      const lines = pending.split("\n");
      pending = lines.pop()!;
      for (const line of lines) {
        const said = answer(line.trim());
        // One at a time: whoever asks waits for each answer, or cannot tell them apart.
        if (typeof said === "string") tell(said);
        else void said.then(tell, (error: Error) => tell(`error: ${error.message}`));
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
  chmodSync(path, 0o600);
  return {
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
      closeSync(folder);
    },
  };
}

/** The console on standard input and output, for a person. */
export function openConsoleTerminal(answer: Answer): ConsolePort {
  const terminal = process.stdin.isTTY === true;
  const lines = createInterface({
    input: process.stdin,
    output: terminal ? process.stdout : undefined,
    prompt: "dyad> ",
    historySize: 200,
  });
  lines.on("line", (line) => {
    const text = line.trim();
    const tell = (said: string): void => {
      if (text !== "") process.stdout.write(`${said.trimEnd()}\n`);
      if (terminal) lines.prompt();
    };
    const said = text === "" ? "" : answer(text);
    if (typeof said === "string") tell(said);
    else void said.then(tell, (error: Error) => tell(`error: ${error.message}`));
  });
  // Ctrl-C at the prompt means the program, not the line.
  lines.on("SIGINT", () => process.kill(process.pid, "SIGINT"));
  return { close: () => lines.close() };
}
