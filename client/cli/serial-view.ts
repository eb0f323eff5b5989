/**
 * The serial console of a virtual board in the terminal of `dyad up`: what the board says is printed line by line, and
 * lines typed here go to it.
 */
import { connect } from "node:net";
import { basename, dirname } from "node:path";
import { closeSync, openSync } from "node:fs";
import { createInterface } from "node:readline";

/** Before each line, so that it is told from what `dyad up` itself says. */
const MARK = "chip | ";

export interface SerialView {
  close(): void;
}

/** @param path the stream's socket file (hal/virtual-board/node-stream.ts) */
export function attachSerial(path: string): SerialView {
  // A socket's path has a bound that a directory deep down may pass.
  const folder = openSync(dirname(path), "r");
  const socket = connect(`/proc/self/fd/${folder}/${basename(path)}`);
  let pending = "";
  socket.setEncoding("latin1");
  socket.on("error", () => undefined);
  socket.on("data", (text: string) => {
    const lines = (pending + text).split("\n");
    pending = lines.pop()!;
    for (const line of lines) process.stdout.write(`${MARK}${line}\n`);
  });
  const input =
    process.stdin.isTTY === true ? createInterface({ input: process.stdin }) : undefined;
  input?.on("line", (line) => {
    if (line.trim() !== "") socket.write(`${line.trim()}\n`);
  });
  return {
    close() {
      input?.close();
      socket.destroy();
      closeSync(folder);
    },
  };
}
