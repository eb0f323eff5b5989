/**
 * The controller as the firmware of IoT.js (JerryScript) on Linux. What is baked in comes from board-configs/<board>.json.
 *
 * A broken invariant or an error nobody caught ends the process; whoever started it starts it again, and the record in
 * flash is all that a boot needs. Memory that runs out ends it too. The flash is two files in the working directory.
 */
import { board } from "dyad:board";
import type { EngineFs, EngineProcess } from "../hal/jerryscript/engine.js";
import { bytesOf, newBuffer } from "../hal/jerryscript/bytes.js";
import { openConsole } from "../hal/jerryscript/console.js";
import { crc32 } from "../hal/jerryscript/crc32.js";
import { openFlash } from "../hal/jerryscript/flash.js";
import { jerryHardware } from "../hal/jerryscript/hardware.js";
import { openSerial } from "../hal/jerryscript/serial.js";
import { listenTcp } from "../hal/jerryscript/tcp.js";
import { startWatchdog } from "../hal/jerryscript/watchdog.js";
import type { Console, Listener, PendingConnection, Serial, SerialOptions } from "../hal/hal.js";
import { coreConfigOf } from "./board-core.js";
import { createChipLoop } from "./chip-loop.js";
import type { ChipLoop } from "./chip-loop.js";
import { createController } from "./core/controller.js";
import type { ConnectionKind } from "./core/core.js";
import { WITH_CLIENT_LINE, WITH_SERIAL_LINES } from "./core/features.js";
import { createForwarder } from "./core/forward.js";
import { createLineClient, withLineClient } from "./line-client.js";
import type { LineClient } from "./line-client.js";

declare const engineRequire: (name: string) => unknown;
declare const process: EngineProcess;

/** Time for the last words to leave before the end. @unit ms */
const LAST_WORDS_MS = 100;
const SEED_BYTES = 32;
const WATCHDOG_DEVICE = "/dev/watchdog";
const STATUS_FILE = "/proc/self/status";
/** The bit of SIGPIPE in the mask of ignored signals. */
const SIGPIPE_BIT = 0x1000;

const fs = engineRequire("fs") as EngineFs;
let terminal: Console | undefined = undefined;
let ending = false;

function say(text: string): void {
  if (terminal !== undefined) terminal.write(text + "\n");
}

function reset(reason: string): void {
  if (ending) return;
  ending = true;
  say("reset: " + reason);
  setTimeout(() => process.exit(1), LAST_WORDS_MS);
}

/** One line of what the kernel tells of this process. @returns its value, "" when there is none */
function ofProcess(name: string): string {
  const text = fs.readFileSync(STATUS_FILE).toString();
  const at = text.indexOf("\n" + name + ":");
  if (at < 0) return "";
  const from = at + name.length + 2;
  return text.substring(from, text.indexOf("\n", from)).trim();
}

function randomSeed(): Uint8Array {
  const buffer = newBuffer(SEED_BYTES);
  const file = fs.openSync("/dev/urandom", "r");
  fs.readSync(file, buffer, 0, SEED_BYTES, null);
  fs.closeSync(file);
  return bytesOf(buffer);
}

function memoryText(): string {
  return ofProcess("VmRSS") + " resident, " + ofProcess("VmHWM") + " at the most";
}

/** A line is a device's file; what cannot be had is said, and tried again. */
function openLine(options: SerialOptions): Serial {
  return openSerial({
    device: options.path!,
    baud: options.baud,
    onReadable: options.onReadable,
    onError: (reason) => {
      say("serial line " + reason);
      options.onError(reason);
    },
  });
}

const lineClient: LineClient | undefined =
  WITH_CLIENT_LINE && board.clientLine !== undefined
    ? createLineClient({
        line: board.clientLine,
        openSerial: openLine,
        crc32: crc32,
        onClient: (pending) => loop!.connections.adopt("line", pending),
        onError: () => undefined,
        later: (call) => setTimeout(call, 0),
      })
    : undefined;

function openLoop(): ChipLoop {
  const hardware = jerryHardware(board.udpPort);
  return createChipLoop({
    hardware: lineClient === undefined ? hardware : withLineClient(hardware, lineClient),
    flash: openFlash(process.cwd(), board.journalSlots),
    watchdog: startWatchdog(board.watchdogSeconds > 0 ? WATCHDOG_DEVICE : ""),
    servers: board.servers,
    openSerial: WITH_SERIAL_LINES ? openLine : undefined,
    crc32: crc32,
    fenceLines: undefined,
    readBytes: board.limits.clientOutHighBytes,
    createCore: (ports) =>
      createController(coreConfigOf(board, randomSeed()), ports, createForwarder),
    note: (level, event, text) => {
      if (level !== "debug") say(event + (text === "" ? "" : ": " + text));
    },
    silenceMs: board.silenceMs,
    onReset: reset,
  });
}

let loop: ChipLoop | undefined = undefined;

function onLine(line: string): void {
  if (loop === undefined) return;
  if (line === "memory") say(memoryText());
  else if (line === "reboot") reset("asked for at the console");
  else say(loop.console(line));
}

function listen(kind: ConnectionKind, port: number): void {
  if (port === 0) return;
  const adoptAll = (): void => {
    let pending: PendingConnection | undefined = listener.read();
    while (pending !== undefined) {
      loop!.connections.adopt(kind, pending);
      pending = listener.read();
    }
  };
  const listener: Listener = listenTcp({
    host: "0.0.0.0",
    port: port,
    onReadable: adoptAll,
    onError: (reason) => say("accept: " + reason),
  });
}

/** What is done at boot, with a name for what fails. */
function step(what: string, f: () => void): boolean {
  if (ending) return false;
  try {
    f();
    return true;
  } catch (error) {
    reset(what + ": " + error);
    return false;
  }
}

process.on("uncaughtException", (error) => reset("error nobody caught: " + error));
terminal = openConsole(board.consoleDevice, { onLine: onLine }, (reason) =>
  reset("the console, " + board.consoleDevice + ": " + reason),
);
// The ports come before the flash: a second controller in this directory stops here.
step("the port for servers, " + board.linkPort, () => listen("server", board.linkPort));
step("the port for Redis clients, " + board.redisPort, () => listen("redis", board.redisPort));
step("the port for native clients, " + board.nativePort, () => listen("native", board.nativePort));
step("the flash in " + process.cwd(), () => {
  loop = openLoop();
});
step("the start", () => {
  loop!.start();
  if (lineClient !== undefined) lineClient.start();
});
if (!ending) {
  say("dyad on " + board.name + ": " + memoryText());
  if ((parseInt(ofProcess("SigIgn").slice(-4), 16) & SIGPIPE_BIT) === 0) {
    say(
      "warning: SIGPIPE is not ignored, so a client that resets its connection can end this process",
    );
  }
  say("the network is up: listening");
}
