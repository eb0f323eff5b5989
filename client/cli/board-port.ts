/**
 * The way to a board's console: a serial device, a pseudo terminal, or a bridge on TCP. Bytes only.
 *
 * A device is opened as a terminal in raw mode, its speed set by `stty` (docs/adr/0007-serial-by-tty.md).
 */
import { execFile } from "node:child_process";
import { closeSync, constants, existsSync, openSync, readdirSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { isatty, ReadStream } from "node:tty";
import { Failure } from "./failure.js";

const OPEN_MS = 5000;
/** Without O_NONBLOCK the open would wait for a modem's carrier. */
const FLAGS = constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK;
const DEV = "/dev";
/** Names of what is plugged into USB or soldered on; Linux lists 32 of ttyS whether they are there or not. */
const DEVICE_NAMES = /^tty(USB|ACM|AMA)\d+$/;
/** Nobody to talk to. */
const EXIT_NOBODY = 2;

/** Where a board's console is. */
export type PortPlace =
  | { readonly kind: "device"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** An open port. */
export interface BoardPort {
  /** Text characters are bytes. */
  write(text: string): void;
  /** Does not call onClosed. */
  close(): void;
}

export interface BoardPortEvents {
  /** Text characters are bytes. */
  onText(text: string): void;
  /** The other side has gone; called once. */
  onClosed(reason: string): void;
}

/**
 * Reads what a person wrote: `/dev/ttyUSB0`, `host:port`, `tcp:host:port`, `tcp://host:port`.
 * @throws Failure when it is none of them
 */
export function parsePlace(text: string): PortPlace {
  const tcp = /^(?:tcp:(?:\/\/)?)?(\[[0-9a-fA-F:]+\]|[^/:[\]]+):(\d{1,5})$/.exec(text);
  if (tcp !== null) {
    const port = Number(tcp[2]);
    if (port < 1 || port > 65535) throw new Failure(`"${text}": a TCP port is 1 to 65535.`, 2);
    return { kind: "tcp", host: tcp[1]!.replace(/^\[|\]$/g, ""), port };
  }
  if (text === "" || text.startsWith("tcp:")) {
    throw new Failure(
      `"${text}" is no port: a serial device (/dev/ttyUSB0), or a TCP bridge (tcp:HOST:PORT).`,
      2,
    );
  }
  return { kind: "device", path: text };
}

/** What a person may have meant. */
function devicesHere(): string {
  let names: string[] = [];
  try {
    names = readdirSync(DEV).filter((name) => DEVICE_NAMES.test(name));
  } catch {
    // No /dev, no devices.
  }
  if (names.length === 0) return "No serial device is plugged in here.";
  return `Serial devices here: ${names.map((name) => join(DEV, name)).join(", ")}.`;
}

function reasonOf(path: string, error: NodeJS.ErrnoException): Failure {
  if (error.code === "EACCES" || error.code === "EPERM") {
    return new Failure(
      `${path} may not be opened by this user: join the group that owns it (dialout, as a rule) and log in again.`,
      EXIT_NOBODY,
    );
  }
  if (error.code === "EBUSY") return new Failure(`${path} is in use.`, EXIT_NOBODY);
  return new Failure(`${path} cannot be opened: ${error.message}`, EXIT_NOBODY);
}

function setSpeed(path: string, baud: number): Promise<void> {
  const settings = [String(baud), "raw", "-echo", "clocal", "-crtscts", "-hupcl"];
  return new Promise((resolve, reject) => {
    execFile("stty", ["-F", path, ...settings], { timeout: OPEN_MS }, (error, _out, said) => {
      if (error === null) resolve();
      else {
        const why = said.trim().split("\n").pop() || error.message.trim();
        reject(
          /permission denied/i.test(why)
            ? reasonOf(path, Object.assign(new Error(why), { code: "EACCES" }))
            : new Failure(`${path} is no serial device that can be set up (${why}).`, EXIT_NOBODY),
        );
      }
    });
  });
}

async function openDevice(path: string, baud: number, events: BoardPortEvents): Promise<BoardPort> {
  if (!existsSync(path)) {
    throw new Failure(`There is no port ${path}. ${devicesHere()}`, EXIT_NOBODY);
  }
  await setSpeed(path, baud);
  let fd: number;
  try {
    fd = openSync(path, FLAGS);
  } catch (error) {
    throw reasonOf(path, error as NodeJS.ErrnoException);
  }
  if (!isatty(fd)) {
    closeSync(fd);
    throw new Failure(`${path} is not a serial device.`, EXIT_NOBODY);
  }
  const stream = new ReadStream(fd);
  stream.setRawMode(true);
  let open = true;
  const ended = (reason: string): void => {
    if (!open) return;
    open = false;
    stream.destroy();
    events.onClosed(reason);
  };
  stream.on("data", (bytes: Buffer) => {
    if (open) events.onText(bytes.toString("latin1"));
  });
  stream.on("error", (error) => ended(`${path}: ${error.message}`));
  stream.on("close", () => ended(`${path} has gone`));
  return {
    write: (text) => {
      if (open) stream.write(Buffer.from(text, "latin1"));
    },
    close: () => {
      open = false;
      stream.destroy();
    },
  };
}

function openTcp(host: string, port: number, events: BoardPortEvents): Promise<BoardPort> {
  const name = `${host}:${port}`;
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port });
    let state: "opening" | "open" | "closed" = "opening";
    const timer = setTimeout(() => ended(`no connection to ${name} within ${OPEN_MS} ms`), OPEN_MS);
    function ended(reason: string): void {
      const before = state;
      state = "closed";
      clearTimeout(timer);
      socket.destroy();
      if (before === "opening")
        reject(new Failure(`Nothing answers there: ${reason}.`, EXIT_NOBODY));
      else if (before === "open") events.onClosed(reason);
    }
    socket.setNoDelay(true);
    socket.on("connect", () => {
      clearTimeout(timer);
      state = "open";
      resolve({
        write: (text) => {
          if (state === "open") socket.write(Buffer.from(text, "latin1"));
        },
        close: () => {
          state = "closed";
          socket.destroy();
        },
      });
    });
    socket.on("data", (bytes: Buffer) => {
      if (state === "open") events.onText(bytes.toString("latin1"));
    });
    socket.on("error", (error: NodeJS.ErrnoException) =>
      ended(error.code === "ECONNREFUSED" ? `${name} refuses connections` : error.message),
    );
    socket.on("close", () => ended(`${name} has closed the connection`));
  });
}

/**
 * Opens a port.
 * @param baud speed of a serial device; a pseudo terminal or a TCP bridge ignores it
 * @throws Failure saying what to do
 */
export function openBoardPort(
  place: PortPlace,
  baud: number,
  events: BoardPortEvents,
): Promise<BoardPort> {
  return place.kind === "tcp"
    ? openTcp(place.host, place.port, events)
    : openDevice(place.path, baud, events);
}

/** How a person writes this place. */
export function placeText(place: PortPlace): string {
  return place.kind === "tcp" ? `${place.host}:${place.port}` : place.path;
}
