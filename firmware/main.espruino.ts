/**
 * The controller as the firmware of an Espruino board. What is baked in comes from board-configs/<board>.json.
 *
 * A broken invariant, an error nobody caught, or memory that ran out end in a reboot: the record in flash is
 * all that a boot needs.
 */
import { board } from "dyad:board";
import { startNetwork } from "dyad:network";
import type { EngineMemory, EngineSerial, EngineUtilities } from "../hal/espruino/engine.js";
import { openConsole } from "../hal/espruino/console.js";
import { openDigital } from "../hal/espruino/digital.js";
import { openFlash } from "../hal/espruino/flash.js";
import { espruinoHardware } from "../hal/espruino/hardware.js";
import { openSerial } from "../hal/espruino/serial.js";
import { listenTcp } from "../hal/espruino/tcp.js";
import { mendTypedArraySlice } from "../hal/espruino/typed-array-slice.js";
import { halfDone, startWatchdog } from "../hal/espruino/watchdog.js";
import type { Console, Listener } from "../hal/hal.js";
import { RECORD_BYTES } from "../protocol/record.js";
import type { Crc32 } from "../protocol/serial.js";
import { BLACK_BOX_BYTES, createBlackBox } from "./black-box.js";
import { coreConfigOf } from "./board-core.js";
import { createChipLoop } from "./chip-loop.js";
import type { ChipLoop } from "./chip-loop.js";
import { createController } from "./core/controller.js";
import type { ConnectionKind } from "./core/core.js";
import {
  WITH_CLIENT_LINE,
  WITH_CLIENTS,
  WITH_FAST_PATH,
  WITH_FAST_POLL,
  WITH_FENCING,
  WITH_SERIAL_LINES,
} from "./core/features.js";
import { createForwarder } from "./core/forward.js";
import { createNoClients } from "./core/no-clients.js";
import { createFastPath } from "./fast-path.js";
import { createFastPoll } from "./fast-poll.js";
import { openFenceLines } from "./fence-lines.js";
import { createLineClient, withLineClient } from "./line-client.js";
import type { LineClient } from "./line-client.js";

declare const E: EngineUtilities;
declare const getTime: () => number;
declare const global: { [name: string]: unknown };
declare const process: {
  memory(): EngineMemory;
  on(event: string, f: (error: unknown) => void): void;
};

/** Time for the last words to leave before a reboot, two lines at 9600 baud. @unit ms */
const LAST_WORDS_MS = 200;

const startedAt = getTime();
let terminal: Console | undefined = undefined;
let rebooting = false;

function say(text: string): void {
  if (terminal !== undefined) terminal.write(text + "\n");
}

function reboot(reason: string): void {
  if (rebooting) return;
  rebooting = true;
  // In this order, since any of it may fail where memory has run out: then the watchdog, kicked no more, does it.
  loop.stop();
  setTimeout(E.reboot, LAST_WORDS_MS);
  say("reset: " + reason);
}

/** What the engine has noticed: work left half done is no ground to go on from, lost input is for whoever sent it to say again. */
function onErrorFlag(flags: string[]): void {
  const why = halfDone(flags);
  if (why === "") say("the engine reports " + flags.join(" "));
  else reboot(why);
}

/** Used and free variables: the memory of this engine; and which image of the firmware it runs, where there are two. */
function memoryText(): string {
  const memory = process.memory();
  return (
    memory.usage +
    " of " +
    memory.total +
    " variables of " +
    memory.blocksize +
    " bytes used, " +
    memory.free +
    " free" +
    (global["fw"] === undefined ? "" : ", " + global["fw"])
  );
}

mendTypedArraySlice();
// First of all: whatever level a reset has left there, no server may be held off.
const fenceLines = WITH_FENCING
  ? openFenceLines([board.servers[0]!.fence, board.servers[1]!.fence], openDigital)
  : undefined;
// Before anything that may hang: the network chip's driver waits for ever when the chip does not answer.
const watchdog = startWatchdog(board.watchdogSeconds, board.variables);
const blackBox = createBlackBox(
  openFlash(board.journalSlots, RECORD_BYTES + BLACK_BOX_BYTES),
  RECORD_BYTES,
);
const flash = blackBox.flash;
const crc32: Crc32 = (bytes, start, end) => E.CRC32(bytes.subarray(start, end)) >>> 0;
const lineClient: LineClient | undefined =
  WITH_CLIENT_LINE && board.clientLine !== undefined
    ? createLineClient({
        line: board.clientLine,
        openSerial: openSerial,
        crc32: crc32,
        onClient: (pending) => loop.connections.adopt("line", pending),
        onError: () => undefined,
        later: (call) => setTimeout(call, 0),
      })
    : undefined;
const hardware = espruinoHardware(board.udpPort);
const fast = WITH_FAST_PATH
  ? createFastPath({
      toBuffer: E.toArrayBuffer,
      Words: Int32Array,
      toText: (bytes) => E.toString(bytes),
      now: () => getTime() * 1000,
    })
  : undefined;
const loop: ChipLoop = createChipLoop({
  hardware: lineClient === undefined ? hardware : withLineClient(hardware, lineClient),
  flash: flash,
  watchdog: watchdog,
  servers: board.servers,
  openSerial: WITH_SERIAL_LINES ? openSerial : undefined,
  crc32: crc32,
  fenceLines: fenceLines,
  fast: fast,
  polls: WITH_FAST_POLL
    ? createFastPoll({
        toText: E.toString,
        toBuffer: E.toArrayBuffer,
        crc32: E.CRC32,
        now: () => getTime() * 1000,
      })
    : undefined,
  readBytes: board.limits.clientOutHighBytes,
  createCore: (ports) =>
    createController(
      coreConfigOf(board, new Uint8Array(0)),
      ports,
      fast !== undefined ? fast.createForwarder : WITH_CLIENTS ? createForwarder : createNoClients,
    ),
  note: (level, event, text) => {
    if (level === "debug") return;
    const line = event + (text === "" ? "" : ": " + text);
    blackBox.add(Math.round(getTime() - startedAt) + " " + line);
    say(line);
  },
  silenceMs: board.silenceMs,
  onReset: reboot,
});

function listen(kind: ConnectionKind, port: number, slots: number): void {
  if (port === 0) return;
  const listener: Listener = listenTcp({
    host: "0.0.0.0",
    port: port,
    slots: slots,
    onReadable: () => {
      let pending = listener.read();
      while (pending !== undefined) {
        loop.connections.adopt(kind, pending);
        pending = listener.read();
      }
    },
    onError: () => undefined,
  });
}

/** The operator's way out where a record waits for a server that will not come back. */
function compact(sure: boolean): void {
  const compaction = flash.compaction!;
  if (!compaction.writeWaits()) say("refused: no record waits for room in the flash");
  else if (sure) compaction.carryOut();
  else {
    say(
      "a power cut meanwhile can lose the record and the firmware; then both servers must report",
    );
    say("say: compact now");
  }
}

function onLine(line: string): void {
  if (line === "memory") say(memoryText());
  else if (line === "reboot") reboot("asked for at the console");
  else if (line === "flash") {
    say(loop.mayLoseFlash() ? "yes, both servers hold what the flash holds" : "no, not now");
  } else if (line === "compact" || line === "compact now") compact(line !== "compact");
  else {
    if (blackBox.before !== "" && (line === "events" || line === "log"))
      say(
        "with the record in flash at boot, in s since the boot before:\n" +
          blackBox.before +
          "since:",
      );
    const answer = loop.console(line);
    if (answer !== "") say(answer);
  }
}

process.on("uncaughtException", (error) => reboot("error nobody caught: " + error));
E.on("errorFlag", onErrorFlag);
terminal = openConsole(global[board.consoleDevice] as EngineSerial, board.consoleBaud, {
  onLine: onLine,
});

function begin(): void {
  loop.start();
  listen("server", board.linkPort, board.linkSlots);
  listen("redis", board.redisPort, board.redisSlots);
  listen("native", board.nativePort, board.nativeSlots);
  if (lineClient !== undefined) lineClient.start();
  say("the network is up: listening");
}

startNetwork(board.network, { onReady: begin, onLost: say, onError: reboot });
say("dyad on " + board.name + ": " + memoryText());
