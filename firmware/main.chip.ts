/**
 * The controller as a chip on this machine: a real interpreter, found on PATH, that runs a board's firmware. The
 * configuration is that of the controller on Node: `chip --engine espruino --config FILE`.
 *
 *     FILE ──> flash, constants ──> interpreter on PATH ──> firmware ──> console: stdout, serial.sock, controller.sock
 *
 * Whatever ends the interpreter is a reset of the chip, is said so, and it is started again. Exit status: as main.board.ts.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { startInterpreter } from "../hal/node/chip.js";
import type { Interpreter } from "../hal/node/chip.js";
import { chipIdOf, machineId } from "../hal/node/chip-id.js";
import { openConsoleSocket, openConsoleTerminal } from "../hal/node/console-port.js";
import type { ConsolePort } from "../hal/node/console-port.js";
import { DirectoryInUse, lockDirectory } from "../hal/node/dir-lock.js";
import { onOneProcessor, pathOf } from "../hal/node/interpreter.mjs";
import { installFirmware } from "../hal/virtual-board/install.js";
import { openFlashFile } from "../hal/virtual-board/node-flash.js";
import { openSerialStream } from "../hal/virtual-board/node-stream.js";
import type { SerialStream } from "../hal/virtual-board/node-stream.js";
import { Storage } from "../hal/virtual-board/storage.js";
import { constantsOf, readBuilt, refuseLines } from "./node-board-constants.js";
import type { BoardFile } from "./node-board-constants.js";
import { createChipConsole } from "./node-chip-console.js";
import type { ChipConsole } from "./node-chip-console.js";
import type { ControllerSettings } from "./node-config.js";
import {
  EXIT_CONFIG,
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

/** The console of a chip without standard input is a port of the machine itself. */
const LOOPBACK = "127.0.0.1";
const RECONNECT_MS = 200;
const KICKS = "chip.kicked";
const FLASH_BYTES = 256 * 1024;

/** What is different from one interpreter to the other. */
interface Engine {
  /** The board whose firmware it runs, as dist/ has it. */
  built: string;
  /** Files that the build has left: the firmware. */
  firmware: string;
  /** Puts firmware and constants where the interpreter finds them. @returns its command and the file that its kicks touch */
  install(
    dir: string,
    firmware: string,
    constants: unknown[],
  ): { command: string[]; kicks: string };
}

/**
 * Run before the firmware: what a board has in hardware. On a desktop the interpreter's serial number is the same
 * everywhere, and it has no watchdog: kicks touch a file, and this program is the hardware that looks at it.
 */
function espruinoHardware(serialNumber: string): string {
  return (
    `global.getSerial=function(){return ${JSON.stringify(serialNumber)};};` +
    `E.kickWatchdog=function(){require("fs").writeFileSync(${JSON.stringify(KICKS)},"k");};` +
    `E.enableWatchdog=function(){E.kickWatchdog();};`
  );
}

const ENGINES: Record<string, Engine> = {
  espruino: {
    // The very bundle of the virtual board, whose engine this is a real one of.
    built: "virtual",
    firmware: "virtual.bootcde",
    install(dir, firmware, constants) {
      // In memory, as a board has it in its address space: this build reads its flash through a file, 16 bytes at a time.
      writeFileSync(join(dir, "chip.firmware"), firmware, "latin1");
      const file = openFlashFile(join(dir, "espruino.flash"), FLASH_BYTES);
      const serialNumber = Buffer.from(chipIdOf(dir, machineId())).toString("hex");
      installFirmware(
        new Storage(file),
        `eval(require("fs").readFileSync("chip.firmware"));`,
        constants,
        espruinoHardware(serialNumber),
      );
      file.close();
      return { command: onOneProcessor(["espruino"]), kicks: KICKS };
    },
  },
  iotjs: {
    built: "iotjs-desk",
    firmware: "iotjs-desk.js",
    install(dir, firmware, constants) {
      writeFileSync(join(dir, "chip.firmware.js"), firmware, "latin1");
      writeFileSync(join(dir, "chip.board.json"), JSON.stringify(constants), { mode: 0o600 });
      // It cannot ignore SIGPIPE by itself, and what a process ignores the one it becomes ignores too.
      const command = ["sh", "-c", `trap "" PIPE; exec iotjs chip.firmware.js`];
      return { command, kicks: "" };
    },
  },
};

const fail: Fail = failAs("chip");

/** Whether a port can be had, and which where any will do: the interpreters cannot say why not. */
async function freePort(field: string, port: number): Promise<number> {
  const server = createServer();
  return new Promise((done) => {
    server.once("error", (error) => fail(EXIT_PORT, portProblem(field, "0.0.0.0", port, error)));
    server.listen(port, "0.0.0.0", () => {
      const { port: found } = server.address() as AddressInfo;
      server.close(() => done(found));
    });
  });
}

async function run(settings: ControllerSettings, manners: Manners): Promise<void> {
  const { dir } = settings;
  const { engine: name } = manners;
  const engine = ENGINES[name]!;
  const startedAt = performance.now();
  const path = pathOf(name);
  if (path === "")
    fail(EXIT_CONFIG, `${name} is not on PATH: docs/HACKING.md says how it is built`);
  mkdirSync(dir, { recursive: true });
  const lock = lockDirectory(dir);
  outliveTerminal();
  refuseLines(settings, fail);
  const built = JSON.parse(readBuilt(`${engine.built}.board.json`, fail)) as BoardFile;
  const firmware = readBuilt(engine.firmware, fail);
  const ports: Ports = {
    link: await freePort("linkPort", settings.linkPort),
    redis: await freePort("redisPort", settings.redisPort),
    native: await freePort("nativePort", settings.nativePort),
  };
  const typed = name === "iotjs" ? await freePort("the console", 0) : 0;
  voidOtherFlash(dir, name as "espruino" | "iotjs");
  const constants = await constantsOf(built, settings, ports, fail, [
    ["name", `${name} (${path})`],
    ...(typed > 0 ? ([["consoleDevice", `tcp:${typed}`]] as [string, unknown][]) : []),
  ]);
  let installed: { command: string[]; kicks: string };
  try {
    installed = engine.install(dir, firmware, constants);
  } catch (error) {
    fail(EXIT_FLASH, `the chip's flash in ${dir} cannot be written: ${(error as Error).message}`);
  }

  const streams: SerialStream[] = [];
  const show = (line: string): void => {
    process.stdout.write(`${line}\n`);
    for (const stream of streams) stream.write(`${line}\n`);
  };
  const portsPath = writePortsFile(dir, settings.host, ports);
  let chip: Interpreter | undefined;
  let line: Socket | undefined;
  const terminal: ChipConsole = createChipConsole(
    (text) => {
      if (typed === 0) chip?.write(text);
      else line?.write(text, "latin1");
    },
    // Where the console is a port, all that is said comes on standard output as well.
    typed === 0 ? show : () => undefined,
  );
  const openLine = (): void => {
    if (typed === 0 || stopping) return;
    const one = connect(typed, LOOPBACK);
    one.setEncoding("latin1");
    one.on("connect", () => (line = one));
    one.on("data", (text: string) => terminal.hear(text));
    one.on("error", () => undefined);
    one.on("close", () => {
      line = undefined;
      setTimeout(openLine, RECONNECT_MS);
    });
  };
  const shown = createChipConsole(
    () => undefined,
    // Answers to programs, which nobody wants to see four times a second.
    (text) => (text.startsWith("{") ? undefined : show(text)),
  );

  const ask = async (text: string): Promise<string> =>
    chip === undefined || chip.pid === 0 || (typed > 0 && line === undefined)
      ? "error: the chip is restarting"
      : terminal.ask(text);
  const answer = (text: string): string | Promise<string> => {
    switch (text) {
      case "pid":
        return String(process.pid);
      case "ports":
        return describePorts(settings.host, ports);
      case "metrics":
        return JSON.stringify(metrics(chip!));
      case "status --json":
        return ask("status json");
      default:
        return ask(text);
    }
  };
  const type = (text: string): void => {
    if (typed > 0) show(`> ${text}`);
    terminal.type(text);
  };
  const consoles: ConsolePort[] = [];
  let stopping = false;
  if (settings.consoleSocket) streams.push(await openSerialStream(join(dir, "serial.sock"), type));
  chip = startInterpreter({
    command: installed.command,
    dir,
    kicks: installed.kicks,
    onOutput: (text) => (typed === 0 ? terminal : shown).hear(text),
    onPowerOn: (pid) => show(`[chip: power on, ${path} as pid ${pid}]`),
    onReset(reason) {
      terminal.restart();
      show(`[chip: RESET, ${reason}]`);
    },
  });
  openLine();
  if (settings.consoleSocket) {
    consoles.push(await openConsoleSocket(dir, "controller.sock", answer));
  }
  if (manners.console || (!manners.withParent && process.stdin.isTTY === true)) {
    consoles.push(openConsoleTerminal(ask));
  }

  const stop = async (): Promise<void> => {
    if (stopping) return;
    stopping = true;
    await chip.powerOff();
    for (const one of [...consoles, ...streams]) one.close();
    for (const file of [portsPath, join(dir, "controller.sock"), join(dir, "serial.sock")]) {
      rmSync(file, { force: true });
    }
    lock.release();
    process.exit(EXIT_STOPPED);
  };
  stopInOrder(manners, () => void stop());
  show(
    `[chip: up after ${Math.round(performance.now() - startedAt)} ms (pid ${process.pid}): Redis clients at ` +
      `port ${ports.redis}, native at ${ports.native}, servers at ${ports.link}, on every address of this machine]`,
  );
}

function metrics(chip: Interpreter): object {
  return { resets: chip.resets, chipPid: chip.pid, upMs: Math.round(performance.now()) };
}

await runProgram({
  name: "chip",
  engines: Object.keys(ENGINES),
  run,
  isInUse: (error) => error instanceof DirectoryInUse,
});
