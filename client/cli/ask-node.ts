/** Asks a running node one line over the socket file in its directory. */
import { closeSync, existsSync, openSync } from "node:fs";
import { connect } from "node:net";
import { basename, dirname, join } from "node:path";
import { Failure } from "./failure.js";

const ANSWER_MS = 5000;
/** The kernel's bound on a socket's path, with room for the terminating zero. */
const PATH_BYTES_MAX = 100;

/** Nobody answers at that socket: the node is not running, hangs, or was never started there. */
export class NotReachable extends Error {}

/**
 * @param timeoutMs how long to wait for the whole answer
 * @returns the answer's lines, joined by newlines, without the "." that ends them
 * @throws NotReachable
 */
export function askNode(path: string, line: string, timeoutMs = ANSWER_MS): Promise<string> {
  return new Promise((resolve, reject) => {
    if (!existsSync(path)) {
      reject(new NotReachable(`nobody waits at ${path}`));
      return;
    }
    let folder: number | undefined;
    let short = path;
    if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
      folder = openSync(dirname(path), "r");
      short = `/proc/self/fd/${folder}/${basename(path)}`;
    }
    const socket = connect(short);
    let text = "";
    const done = (error: Error | undefined): void => {
      clearTimeout(timer);
      socket.destroy();
      if (folder !== undefined) closeSync(folder);
      folder = undefined;
      if (error === undefined) resolve(text);
      else reject(error);
    };
    const timer = setTimeout(
      () => done(new NotReachable(`no answer from ${path} within ${timeoutMs} ms`)),
      timeoutMs,
    );
    socket.setEncoding("utf8");
    socket.on("connect", () => socket.write(`${line}\n`));
    socket.on("data", (part: string) => {
      text += part;
      if (text === ".\n" || text.endsWith("\n.\n")) {
        text = text.slice(0, -2).trimEnd();
        done(undefined);
      }
    });
    socket.on("error", (error) => done(new NotReachable(`${path}: ${error.message}`)));
    socket.on("close", () => done(new NotReachable(`${path} closed before it answered`)));
  });
}

/**
 * The controller's socket of a directory: that of a pair started by `dyad up`, or a controller's own.
 * @throws Failure when neither is there
 */
export function controllerSocket(dir: string): string {
  for (const path of [join(dir, "controller", "controller.sock"), join(dir, "controller.sock")]) {
    if (existsSync(path)) return path;
  }
  throw new Failure(
    `No controller runs in ${dir} (there is no controller.sock). ` +
      `Start the pair with "dyad up --dir ${dir}", or name its directory with --dir.`,
    2,
  );
}

/** As askNode, for the controller of a directory; what went wrong is said for a person. */
export async function askController(dir: string, line: string): Promise<string> {
  const path = controllerSocket(dir);
  try {
    return await askNode(path, line);
  } catch (error) {
    if (!(error instanceof NotReachable)) throw error;
    throw new Failure(
      `The controller in ${dir} does not answer (${error.message}). ` +
        `Start it again with its command, or start the pair with "dyad up --dir ${dir}".`,
      2,
    );
  }
}
