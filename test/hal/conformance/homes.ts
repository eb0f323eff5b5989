/**
 * The homes on which the suite is run: Node and the virtual board in this process, and the real engines where they are on
 * PATH. What a home cannot do is named here with its reason, which the suite prints instead of the test.
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import { build } from "esbuild";
import { onOneProcessor } from "../../../hal/node/interpreter.mjs";
import { bundleForIotjs } from "../../../bin/board/bundle-iotjs.mjs";
import { BOOT_FILE } from "../../../bin/board/storage-image.mjs";
import { lintIotjs } from "../../../bin/board/iotjs-lint.mjs";
import { chipIdOf } from "../../../hal/node/chip-id.js";
import { openFlash } from "../../../hal/node/flash.js";
import { nodeHardware } from "../../../hal/node/hardware.js";
import { openSerial } from "../../../hal/node/serial.js";
import { listenTcp } from "../../../hal/node/tcp.js";
import { openFlashFile } from "../../../hal/virtual-board/node-flash.js";
import { NodeBoard } from "../../../hal/virtual-board/node-host.js";
import { loadEngine } from "../../../hal/virtual-board/node-module.js";
import { Storage } from "../../../hal/virtual-board/storage.js";
import { startPuppet } from "./puppet.js";
import { freePort } from "../../free-ports.js";

const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const HERE = "test/hal/conformance";
const HOST = "127.0.0.1";
/** Connections that a test may have open on a home that has a listener for each. */
const SLOTS = 4;
const ESPRUINO_FLASH_BYTES = 256 * 1024;
const VIRTUAL_FLASH_BYTES = 128 * 1024;
/** A slot of the journals on Node. */
const NODE_SLOT_BYTES = 192;
const VIRTUAL_MEMORY_BYTES = 16 << 20;

/** The parts of the interface that not every home has. */
export type Part =
  | "backlog"
  | "backpressure"
  | "many connections"
  | "port in use"
  | "refused datagrams"
  | "serial"
  | "console"
  | "watchdog"
  | "digital"
  | "flash: a board of its own"
  | "flash: damage";

/** A home that runs. */
export interface Running {
  readonly dir: string;
  readonly port: number;
  readonly consolePort: number;
  /** What it has printed. */
  said(): string;
  /** Types at its console. */
  type(text: string): void;
  isOn(): boolean;
  /** What was put on its pins, in order, and putting a level on one from outside; where its pins can be reached. */
  readonly pins?: { written: string[]; set(pin: string, level: boolean): void };
  /** What its flash holds, and putting something else there, as an earlier power cut would have. */
  readFlash(): FlashImage;
  writeFlash(image: FlashImage): void;
  stop(): Promise<void>;
}

export interface HomeEntry {
  readonly name: string;
  /** "" when it can be run here. */
  readonly absent: string;
  readonly cannot: Partial<Record<Part, string>>;
  /** Listeners that a port needs for as many connections. */
  readonly slots: number;
  /** Backlog that no buffer of the system's takes away. @unit bytes */
  readonly floodBytes: number;
  /** What blank flash is full of; undefined: there are no files. */
  readonly blankByte: number | undefined;
  readonly recordBytes: number;
  /** Records after which both journals have been used, and the first again. */
  readonly flashRound: number;
  /**
   * What the flash's files can be, were the power cut in the middle of a write that made `after` of `before`; before and
   * after themselves left out.
   */
  cuts(before: FlashImage, after: FlashImage): Generator<FlashImage>;
  start(dir: string): Promise<Running>;
}

/** Contents of the flash's files; undefined: not there. */
export type FlashImage = (Buffer | undefined)[];

const isOnPath = (command: string): boolean =>
  spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;

/** A flash that is files of a directory. */
function flashFiles(dir: string, files: string[]): Pick<Running, "readFlash" | "writeFlash"> {
  return {
    readFlash: () => readImage(dir, files),
    writeFlash: (image) => writeImage(dir, files, image),
  };
}

function readImage(dir: string, files: string[]): FlashImage {
  return files.map((name) => {
    const path = join(dir, name);
    return existsSync(path) ? readFileSync(path) : undefined;
  });
}

function writeImage(dir: string, files: string[], image: FlashImage): void {
  for (const [i, name] of files.entries()) {
    const path = join(dir, name);
    const bytes = image[i];
    if (bytes === undefined) rmSync(path, { force: true });
    else if (!existsSync(path) || !readFileSync(path).equals(bytes)) writeFileSync(path, bytes);
  }
}

/** Bytes that a write has changed, one after the other; `marks` says which come first. */
function* byteByByte(
  before: FlashImage,
  after: FlashImage,
  isMark: (old: number) => boolean,
): Generator<FlashImage> {
  const now = before.map((bytes) => (bytes === undefined ? undefined : Buffer.from(bytes)));
  const marks: [number, number][] = [];
  const rest: [number, number][] = [];
  for (const [file, bytes] of after.entries()) {
    if (bytes === undefined || now[file] === undefined) continue;
    for (let at = 0; at < bytes.length; at++) {
      const old = now[file].at(at)!;
      if (old !== bytes[at]) (isMark(old) ? marks : rest).push([file, at]);
    }
  }
  for (const [file, at] of [...marks, ...rest].slice(0, -1)) {
    now[file]![at] = after[file]![at]!;
    yield now.map((bytes) => (bytes === undefined ? undefined : Buffer.from(bytes)));
  }
}

/** The puppet as a script for Espruino. */
async function espruinoBundle(port: number): Promise<string> {
  const result = await build({
    absWorkingDir: ROOT,
    entryPoints: [`${HERE}/puppet.espruino.ts`],
    bundle: true,
    write: false,
    platform: "node",
    format: "iife",
    target: "es2015",
    charset: "ascii",
    logLevel: "warning",
    define: { CONTROL_PORT: String(port) },
  });
  return result.outputFiles[0]!.text.replace(/\bengineRequire\(/g, "require(");
}

function processHome(
  child: ChildProcess,
  dir: string,
  files: string[],
  port: number,
  consolePort: number,
): Running {
  let said = "";
  const hear = (data: Buffer): void => {
    said += data.toString("latin1");
  };
  child.stdout!.on("data", hear);
  child.stderr!.on("data", hear);
  child.stdin!.on("error", () => undefined);
  return {
    dir,
    port,
    consolePort,
    said: () => said,
    type: (text) => void child.stdin!.write(text),
    isOn: () => child.exitCode === null && child.signalCode === null,
    ...flashFiles(dir, files),
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await new Promise((ended) => child.once("exit", ended));
    },
  };
}

const NO_SOCAT: Partial<Record<Part, string>> = isOnPath("socat")
  ? {}
  : { serial: "no `socat` on PATH", backlog: "no `socat` on PATH" };
const NO_DIGITAL = "its home has no pins yet";
const NO_BACKPRESSURE = "the engine goes on reading a connection that is not read from";

export const HOMES: HomeEntry[] = [
  {
    name: "node",
    absent: "",
    cannot: {
      console: "its console is a terminal or a socket file (test/hal/program.test.ts)",
      watchdog: "a process has none; what starts it watches it",
      digital: NO_DIGITAL,
      ...NO_SOCAT,
    },
    slots: 1,
    floodBytes: 1 << 20,
    blankByte: undefined,
    recordBytes: 40,
    flashRound: 132,
    *cuts(before, after) {
      // A journal's first slot comes with a whole new file, which takes the old one's place at once.
      const replaced = after.some(
        (bytes, i) =>
          before[i]?.subarray(0, NODE_SLOT_BYTES).equals(bytes!.subarray(0, NODE_SLOT_BYTES)) !==
          true,
      );
      if (!replaced) yield* byteByByte(before, after, () => false);
    },
    async start(dir) {
      const port = await freePort();
      await new Promise<void>((up) =>
        startPuppet(
          {
            hardware: nodeHardware(),
            listen: (options, done, failed) => {
              listenTcp(options).then(done, (error: Error) => failed(String(error)));
            },
            crc32: (bytes, start, end) => crc32(bytes.subarray(start, end)),
            openFlash: () => openFlash(dir, chipIdOf(dir, "a machine")),
            openSerial,
            openConsole: undefined,
            startWatchdog: undefined,
            openDigital: undefined,
          },
          port,
          1,
          up,
        ),
      );
      return {
        dir,
        port,
        consolePort: 0,
        said: () => "",
        type: () => undefined,
        isOn: () => true,
        ...flashFiles(dir, ["flash.0", "flash.1"]),
        stop: () => Promise.resolve(),
      };
    },
  },
  {
    name: "espruino",
    absent: isOnPath("espruino") ? "" : "no `espruino` on PATH",
    cannot: {
      backpressure: NO_BACKPRESSURE,
      "many connections": `a listener of its network chips serves one client: ${SLOTS} here`,
      "port in use": "the engine does not tell that a port cannot be had",
      "refused datagrams": "the engine does not tell them",
      ...NO_SOCAT,
      serial: "no home for serial lines on Espruino yet",
      digital: "the interpreter's Linux build has names of pins and no pins behind them",
      "flash: a board of its own": "the interpreter's chip id is the same everywhere on Linux",
    },
    slots: SLOTS,
    floodBytes: 1 << 14,
    blankByte: 255,
    recordBytes: 40,
    flashRound: 10,
    // The old file's head is overwritten before the new one's is programmed into blank flash.
    cuts: (before, after) => byteByByte(before, after, (old) => old !== 255),
    async start(dir) {
      const port = await freePort();
      const text = await espruinoBundle(port);
      writeFileSync(join(dir, "script.js"), text);
      if (!existsSync(join(dir, "espruino.flash"))) {
        writeFileSync(join(dir, "espruino.flash"), Buffer.alloc(ESPRUINO_FLASH_BYTES, 0xff));
      }
      const [program, ...args] = onOneProcessor(["espruino", "script.js"]) as [string, ...string[]];
      const child = spawn(program, args, { cwd: dir, stdio: ["pipe", "pipe", "pipe"] });
      return processHome(child, dir, ["espruino.flash"], port, 0);
    },
  },
  {
    name: "virtual board",
    absent: "",
    cannot: {
      backpressure: NO_BACKPRESSURE,
      "port in use": "the interface does not tell that a port cannot be had",
      "refused datagrams": "the interface does not tell them",
      ...NO_SOCAT,
      serial: "no home for serial lines on Espruino yet",
    },
    slots: 1,
    floodBytes: 1 << 18,
    blankByte: 255,
    recordBytes: 40,
    flashRound: 10,
    cuts: (before, after) => byteByByte(before, after, (old) => old !== 255),
    async start(dir) {
      const port = await freePort();
      const flash = openFlashFile(join(dir, "board.flash"), VIRTUAL_FLASH_BYTES);
      const storage = new Storage(flash);
      let said = "";
      let resets = 0;
      const written: string[] = [];
      const board = new NodeBoard({
        onPin: (pin, value) => written.push(`${pin} ${value ? 1 : 0}`),
        module: loadEngine(),
        memoryBytes: VIRTUAL_MEMORY_BYTES,
        serialNumber: Buffer.from(chipIdOf(dir, "a machine")).toString("hex"),
        storage,
        host: HOST,
        consoleDevice: "USB",
        onConsole: (text) => {
          said += text;
        },
        onPowerOn: () => undefined,
        onReset: (kind, reason) => {
          resets++;
          said += `RESET ${kind}: ${reason}`;
        },
      });
      const text = await espruinoBundle(port);
      storage.erase(BOOT_FILE);
      storage.write(BOOT_FILE, Buffer.from(text, "latin1"), 0, 0);
      await board.openPort(port);
      board.powerOn();
      return {
        dir,
        port,
        consolePort: 0,
        said: () => said,
        type: (line) => board.type(line),
        isOn: () => resets === 0,
        pins: { written, set: (pin, level) => board.setPin(pin, level) },
        readFlash: () => [Buffer.from(flash.bytes)],
        writeFlash: ([image]) => {
          flash.bytes.set(image!);
          flash.keep(0, image!.length);
        },
        stop() {
          board.close();
          flash.close();
          return Promise.resolve();
        },
      };
    },
  },
  {
    name: "iotjs",
    absent: isOnPath("iotjs") ? "" : "no `iotjs` on PATH",
    cannot: {
      backpressure: NO_BACKPRESSURE,
      "refused datagrams": "the engine cannot connect a datagram socket",
      digital: NO_DIGITAL,
      ...NO_SOCAT,
    },
    slots: 1,
    floodBytes: 1 << 18,
    blankByte: undefined,
    recordBytes: 40,
    flashRound: 10,
    cuts: (before, after) => byteByByte(before, after, () => false),
    async start(dir) {
      const [port, consolePort] = [await freePort(), await freePort()];
      const text = await bundleForIotjs(ROOT, `${HERE}/puppet.iotjs.ts`, "", {});
      const named = text
        .replace(/\bCONTROL_PORT\b/g, String(port))
        .replace(/\bCONSOLE_PORT\b/g, String(consolePort));
      const complaints = lintIotjs(named);
      if (complaints.length > 0) throw new Error(complaints.join("\n"));
      writeFileSync(join(dir, "script.js"), named);
      writeFileSync(join(dir, "watchdog"), "");
      const child = spawn("sh", ["-c", "trap '' PIPE; exec iotjs script.js"], {
        cwd: dir,
        stdio: ["pipe", "pipe", "pipe"],
      });
      return processHome(child, dir, ["dyad.0", "dyad.1"], port, consolePort);
    },
  },
];

/** A directory for a home's files. */
export function makeDir(): string {
  return mkdtempSync(join(tmpdir(), "dyad-home-"));
}

/** Puts a home's files elsewhere: another board, or another place. */
export function copyDir(from: string): string {
  const to = makeDir();
  cpSync(from, to, { recursive: true });
  return to;
}

export function sizeOf(path: string): number {
  return existsSync(path) ? statSync(path).size : 0;
}
