/**
 * The controller as a virtual board on this machine: `board --config FILE`. The configuration is that of the
 * controller on Node; the firmware is the bundle that `npm run build` makes of board-configs/virtual.json.
 *
 *     FILE ──> flash: .bootcde, board ──> power on ──> firmware ──> console: stdout, serial.sock, controller.sock
 *
 * A fault inside the firmware (out of memory, an endless loop, a broken invariant) resets the board and is said so; the
 * process goes on. Exit status: 0 stopped by a signal, 1 cannot start, 2 configuration, 3 directory in use, 4 a port
 * cannot be had, 5 the flash cannot be read.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { chipIdOf, machineId } from "../hal/node/chip-id.js";
import { openConsoleSocket, openConsoleTerminal } from "../hal/node/console-port.js";
import type { ConsolePort } from "../hal/node/console-port.js";
import { DirectoryInUse, lockDirectory } from "../hal/node/dir-lock.js";
import { openFlashFile } from "../hal/virtual-board/node-flash.js";
import type { FlashFile } from "../hal/virtual-board/node-flash.js";
import { NodeBoard } from "../hal/virtual-board/node-host.js";
import { loadEngine } from "../hal/virtual-board/node-module.js";
import { openSerialStream } from "../hal/virtual-board/node-stream.js";
import type { SerialStream } from "../hal/virtual-board/node-stream.js";
import { installFirmware } from "../hal/virtual-board/install.js";
import { Storage } from "../hal/virtual-board/storage.js";
import { constantsOf, readBuilt, refuseLines } from "./node-board-constants.js";
import type { BoardFile } from "./node-board-constants.js";
import type { ControllerSettings } from "./node-config.js";
import {
  EXIT_FLASH,
  EXIT_PORT,
  EXIT_STOPPED,
  describePorts,
  failAs,
  outliveTerminal,
  portProblem,
  runProgram,
  stopInOrder,
  voidOtherFlash,
  writePortsFile,
} from "./node-program.js";
import type { Fail, Manners, Ports } from "./node-program.js";

/** Name of the board whose firmware this runs, as board-configs/ has it. */
const BOARD = "virtual";
const FLASH_FILE = "board.flash";

const fail: Fail = failAs("board");

async function run(settings: ControllerSettings, manners: Manners): Promise<void> {
  const { dir, host } = settings;
  const startedAt = performance.now();
  refuseLines(settings, fail);
  mkdirSync(dir, { recursive: true });
  const lock = lockDirectory(dir);
  outliveTerminal();
  const built = JSON.parse(readBuilt(`${BOARD}.board.json`, fail)) as BoardFile;
  const firmware = readBuilt(`${BOARD}.js`, fail);

  let flash: FlashFile;
  try {
    flash = openFlashFile(join(dir, FLASH_FILE), built.hardware.storageBytes);
  } catch (error) {
    fail(EXIT_FLASH, `the flash file in ${dir} cannot be read: ${(error as Error).message}`);
  }
  const storage = new Storage(flash);
  const streams: SerialStream[] = [];
  const say = (text: string): void => {
    process.stdout.write(text);
    for (const stream of streams) stream.write(text);
  };
  let resets = 0;
  const board = new NodeBoard({
    module: loadEngine(),
    memoryBytes: built.hardware.memoryBytes,
    serialNumber: Buffer.from(chipIdOf(dir, machineId())).toString("hex"),
    storage,
    host,
    consoleDevice: built.hardware.consoleDevice,
    onConsole: (text) => say(text.replaceAll("\r", "")),
    onPowerOn: () => say(`[board: power on]\n`),
    onReset: (kind, reason) => {
      resets++;
      say(`[board: RESET, ${kind}: ${reason}]\n`);
    },
  });
  const open = async (field: string, port: number): Promise<number> => {
    try {
      return await board.openPort(port);
    } catch (error) {
      return fail(EXIT_PORT, portProblem(field, host, port, error));
    }
  };
  const ports: Ports = {
    link: await open("linkPort", settings.linkPort),
    redis: await open("redisPort", settings.redisPort),
    native: await open("nativePort", settings.nativePort),
  };
  voidOtherFlash(dir, "board");
  const constants = await constantsOf(built, settings, ports, fail);

  const portsPath = writePortsFile(dir, host, ports);
  const ask = (line: string): string => {
    if (!board.isOn) return "error: the board is restarting";
    return answerOf(board.ask(`${line}\r`), line);
  };
  const answer = (line: string): string => {
    switch (line) {
      case "pid":
        return String(process.pid);
      case "ports":
        return describePorts(host, ports);
      case "metrics":
        return JSON.stringify(metrics(board, resets));
      case "status --json":
        return ask("status json");
      default:
        return ask(line);
    }
  };
  const consoles: ConsolePort[] = [];
  if (settings.consoleSocket) {
    streams.push(
      await openSerialStream(join(dir, "serial.sock"), (line) => board.type(`${line}\r`)),
    );
  }
  if (installFirmware(storage, firmware, constants)) say("[board: firmware stored]\n");
  board.powerOn();
  // Whoever waits for the controller looks for this one.
  if (settings.consoleSocket) {
    consoles.push(await openConsoleSocket(dir, "controller.sock", answer));
  }
  if (manners.console || (!manners.withParent && process.stdin.isTTY === true)) {
    consoles.push(openConsoleTerminal(ask));
  }

  let stopping = false;
  const stop = (): void => {
    if (stopping) return;
    stopping = true;
    board.close();
    for (const one of [...consoles, ...streams]) one.close();
    flash.close();
    for (const path of [portsPath, join(dir, "controller.sock"), join(dir, "serial.sock")]) {
      rmSync(path, { force: true });
    }
    lock.release();
    process.exit(EXIT_STOPPED);
  };
  stopInOrder(manners, stop);
  say(
    `[board: up after ${Math.round(performance.now() - startedAt)} ms (pid ${process.pid}): Redis clients at ` +
      `${host}:${ports.redis}, native at ${ports.native}, servers at ${ports.link}]\n`,
  );
}

/** What the firmware said to a line, without the line itself, which it repeats. */
function answerOf(said: string, line: string): string {
  const text = said.replaceAll("\r", "");
  return (text.startsWith(`${line}\n`) ? text.slice(line.length + 1) : text).trimEnd();
}

function metrics(board: NodeBoard, resets: number): object {
  const cpu = process.cpuUsage();
  const memory = process.memoryUsage();
  return {
    resets,
    boardMemoryBytes: board.memoryUsed(),
    cpuUserUs: cpu.user,
    cpuSystemUs: cpu.system,
    rssBytes: memory.rss,
    upMs: Math.round(performance.now()),
  };
}

await runProgram({ name: "board", run, isInUse: (error) => error instanceof DirectoryInUse });
