/**
 * The controller as a program on Node: `controller --config FILE`. It puts the core, the loop and Node's
 * hardware together; what each does is said there.
 *
 * Exit status: 0 stopped by a signal, 1 a broken invariant, 2 configuration, 3 directory in use, 4 a port
 * cannot be had, 5 the flash cannot be read. SIGTERM and SIGINT stop it in order.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { crc32 } from "node:zlib";
import type { Flash, Listener } from "../hal/hal.js";
import { chipIdOf, machineId } from "../hal/node/chip-id.js";
import { openConsoleSocket, openConsoleTerminal } from "../hal/node/console-port.js";
import type { ConsolePort } from "../hal/node/console-port.js";
import { DirectoryInUse, lockDirectory } from "../hal/node/dir-lock.js";
import { openFlash } from "../hal/node/flash.js";
import { nodeHardware } from "../hal/node/hardware.js";
import { openLog } from "../hal/node/log.js";
import { openSerial } from "../hal/node/serial.js";
import { listenTcp } from "../hal/node/tcp.js";
import { FORM_BINARY, FORM_TEXT } from "../protocol/serial.js";
import type { Crc32 } from "../protocol/serial.js";
import { createLineClient, withLineClient } from "./line-client.js";
import { createController } from "./core/controller.js";
import type { ServerConfig } from "./core/config.js";
import type { ConnectionKind } from "./core/core.js";
import { createForwarder } from "./core/forward.js";
import { createLoop } from "./loop.js";
import type { Loop } from "./loop.js";
import type { ControllerSettings } from "./node-config.js";
import {
  EXIT_FAULT,
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
import type { Fail, Manners } from "./node-program.js";
import { sentenceOf, summaryOf } from "./plain-words.js";
import type { StatusWords } from "./plain-words.js";

const SEED_BYTES = 32;

const fail: Fail = failAs("controller");

function coreServer(settings: ControllerSettings, index: 0 | 1): ServerConfig {
  const { id, preset, serial } = settings.servers[index]!;
  const form = serial?.form === "text" ? FORM_TEXT : FORM_BINARY;
  return { id, preset, serial: serial === undefined ? undefined : form };
}

async function run(settings: ControllerSettings, manners: Manners): Promise<void> {
  const { dir, host } = settings;
  mkdirSync(dir, { recursive: true });
  const lock = lockDirectory(dir);
  const logPath = settings.log ?? (manners.withParent ? undefined : join(dir, "controller.log"));
  const log = openLog(logPath, () => performance.now());
  const say = (text: string): void => {
    process.stdout.write(`${new Date().toTimeString().slice(0, 8)}  ${text}\n`);
  };
  outliveTerminal();

  voidOtherFlash(dir, "node");
  let flash: Flash;
  try {
    flash = openFlash(dir, chipIdOf(dir, machineId()));
  } catch (error) {
    fail(EXIT_FLASH, `the flash files in ${dir} cannot be read: ${(error as Error).message}`);
  }

  let said = "";
  const crc: Crc32 = (bytes, start, end) => crc32(bytes.subarray(start, end));
  const place = settings.clientLine;
  const lineClient =
    place === undefined
      ? undefined
      : createLineClient({
          line: { device: place.path, baud: place.baud },
          openSerial,
          crc32: crc,
          onClient: (pending) => loop.accept("line", pending),
          onError: (reason) => log.note("warn", "client-line", { reason }),
          later: (call) => setImmediate(call),
        });
  const loop: Loop = createLoop({
    hardware:
      lineClient === undefined ? nodeHardware() : withLineClient(nodeHardware(), lineClient),
    flash,
    servers: settings.servers,
    openSerial,
    crc32: crc,
    createCore: (ports) =>
      createController(
        {
          servers: [coreServer(settings, 0), coreServer(settings, 1)],
          key: settings.key,
          clientKey: settings.clientKey,
          clientPassword: settings.clientPassword,
          balancing: settings.balancing,
          frameMax: settings.frameMax,
          idMax: settings.idMax,
          seed: new Uint8Array(randomBytes(SEED_BYTES)),
          timings: settings.timings,
          limits: settings.limits,
        },
        ports,
        createForwarder,
      ),
    note: (level, event, details) => log.note(level, event, details),
    onReset(reason) {
      log.note("error", "reset", { reason });
      fail(EXIT_FAULT, `ended by a broken invariant: ${reason}`);
    },
    onChange() {
      const status = loop.status() as StatusWords;
      const summary = summaryOf(status);
      if (summary === said) return;
      said = summary;
      say(sentenceOf(status));
    },
  });

  const listeners: Listener[] = [];
  const listen = async (kind: ConnectionKind, field: string, port: number): Promise<number> => {
    let listener: Listener | undefined;
    try {
      listener = await listenTcp({
        host,
        port,
        onReadable() {
          for (;;) {
            const pending = listener?.read();
            if (pending === undefined) return;
            loop.accept(kind, pending);
          }
        },
        onError: (reason) => log.note("warn", "accept-failed", { kind, reason }),
      });
    } catch (error) {
      fail(EXIT_PORT, portProblem(field, host, port, error));
    }
    listeners.push(listener);
    return listener.port;
  };

  loop.start();
  const ports = {
    link: await listen("server", "linkPort", settings.linkPort),
    redis: await listen("redis", "redisPort", settings.redisPort),
    native: await listen("native", "nativePort", settings.nativePort),
  };
  lineClient?.start();
  const portsPath = writePortsFile(dir, host, ports);

  const answer = (line: string): string => {
    try {
      if (line === "pid") return String(process.pid);
      if (line === "ports") return describePorts(host, ports);
      if (line === "status --json") return JSON.stringify(loop.status());
      if (line === "metrics") return JSON.stringify(metrics(loop));
      return loop.console(line);
    } catch (error) {
      log.note("error", "console", { line, reason: (error as Error).message });
      return `error: ${(error as Error).message}`;
    }
  };
  const consoles: ConsolePort[] = [];
  if (settings.consoleSocket) {
    consoles.push(await openConsoleSocket(dir, "controller.sock", answer));
  }
  if (manners.console || (!manners.withParent && process.stdin.isTTY === true)) {
    consoles.push(openConsoleTerminal(answer));
  }

  let stopping = false;
  const stop = (why: string): void => {
    if (stopping) return;
    stopping = true;
    log.note("info", "stop", { why });
    for (const listener of listeners) listener.close();
    for (const one of consoles) one.close();
    loop.stop();
    flash.close();
    rmSync(portsPath, { force: true });
    rmSync(join(dir, "controller.sock"), { force: true });
    lock.release();
    process.exit(EXIT_STOPPED);
  };
  stopInOrder(manners, stop);
  log.note("info", "up", { pid: process.pid, dir, host, ...ports, node: process.version });
  say(
    `the controller is up (pid ${process.pid}): Redis clients at ${host}:${ports.redis}, ` +
      `native at ${ports.native}, servers at ${ports.link}`,
  );
  said = summaryOf(loop.status() as StatusWords);
  say(sentenceOf(loop.status() as StatusWords));
}

function metrics(loop: Loop): object {
  const cpu = process.cpuUsage();
  const memory = process.memoryUsage();
  return {
    ...loop.metrics(),
    cpuUserUs: cpu.user,
    cpuSystemUs: cpu.system,
    rssBytes: memory.rss,
    heapUsedBytes: memory.heapUsed,
    externalBytes: memory.external,
    upMs: Math.round(performance.now()),
  };
}

await runProgram({ name: "controller", run, isInUse: (error) => error instanceof DirectoryInUse });
