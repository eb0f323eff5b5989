/**
 * One server of the pair as a program: `agent --config FILE`. It puts together the core, the store, the
 * commands and the sockets; what each does is said there.
 *
 * Exit status: see exit.ts. SIGTERM and SIGINT stop it in order.
 */
import { createHmac, randomBytes } from "node:crypto";
import type { RemoteInfo } from "node:dgram";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { type AgentSettings, ConfigError, readConfig } from "./config.js";
import { createAgent } from "./core/agent.js";
import { flushFound, forgetPair } from "./core/new-disk.js";
import type { AgentCore, AgentPorts } from "./core/ports.js";
import { createExecutor } from "./commands/executor.js";
import { createKeyspace } from "./commands/keyspace.js";
import { DirectoryInUse, lockDirectory } from "./dir-lock.js";
import {
  EXIT_CONFIG,
  EXIT_FAULT,
  EXIT_IN_USE,
  EXIT_STOPPED,
  exitForReason,
  portFailure,
  StartFailure,
} from "./exit.js";
import { discardLostMemory, markRun, readIdentity } from "./identity.js";
import { LoadProbe } from "./load-probe.js";
import { LocalControl } from "./local-control.js";
import { type Log, openLog } from "./log.js";
import { PollPort } from "./poll-port.js";
import { SerialLine } from "./serial-line.js";
import { writeSetAside } from "./set-aside.js";
import { Sockets } from "./sockets.js";
import { DamagedRow } from "./store/checked-row.js";
import { openLmdbStore } from "./store/lmdb.js";
import { Turn } from "./turn.js";
import { TurnStore } from "./turn-store.js";

/** How often the same dial failure is worth a line. */
const DIAL_QUIET_MS = 10000;

function fail(exitCode: number, message: string): never {
  process.stderr.write(`dyad agent: ${message}\n`);
  process.exit(exitCode);
}

async function run(settings: AgentSettings, withParent: boolean): Promise<void> {
  mkdirSync(settings.dir, { recursive: true });
  const lock = lockDirectory(settings.dir);
  const now = (): number => performance.now();
  const log = openLog(settings.id, settings.log, now, !withParent);
  const storeDir = join(settings.dir, "store");
  const lost = discardLostMemory(settings.dir, storeDir);
  if (lost !== "") log.note("warn", "memory-lost", { why: lost });
  const store = openLmdbStore({
    directory: storeDir,
    durability: settings.durability,
    limitBytes: settings.storeBytesMax,
  });
  markRun(settings.dir, settings.durability, false);
  const disk = readIdentity(settings.dir, join(storeDir, "data.mdb"));
  const emptied = disk.fresh !== "";
  if (emptied) {
    log.note("info", "new-disk", {
      why: disk.fresh,
      identity: Buffer.from(disk.identity).toString("hex"),
    });
  }
  await new Promise<void>((resolve, reject) => {
    const prepare = emptied ? forgetPair : flushFound;
    prepare(store, (error) => (error === undefined ? resolve() : reject(error)));
  });
  disk.save();

  const turn = new Turn(() => sockets.flush());
  const saidMs = new Map<string, number>();
  const sockets = new Sockets({
    onOpen(connection, kind, accepted) {
      core.onOpen(connection, kind, accepted, now());
      turn.input();
    },
    onDialFailed(kind, reason) {
      const said = saidMs.get(kind) ?? -Infinity;
      if (now() - said > DIAL_QUIET_MS) {
        saidMs.set(kind, now());
        log.note("info", "dial-failed", { kind, reason });
      }
      core.onDialFailed(kind, now());
      turn.input();
    },
    onBytes(connection, bytes, start, end) {
      core.onBytes(connection, bytes, start, end, now());
      turn.input();
    },
    onDrained(connection) {
      core.onDrained(connection, now());
      turn.input();
    },
    onClosed(connection) {
      core.onClosed(connection, now());
      turn.input();
    },
  });
  const probe = new LoadProbe();
  const ports: AgentPorts = {
    send: (connection, bytes, start, end) => sockets.send(connection, bytes, start, end),
    backlog: (connection) => sockets.backlog(connection),
    close(connection, reason) {
      log.note("info", "close", { connection, reason });
      sockets.close(connection);
    },
    setReading: (connection, on) => sockets.setReading(connection, on),
    dial(kind) {
      if (kind === "controller") {
        sockets.dial(kind, settings.controller.host, settings.controller.linkPort);
      } else {
        sockets.dial(kind, settings.peer.host, settings.peer.port);
      }
    },
    datagram(from, bytes) {
      if (from instanceof SerialLine) from.send(bytes);
      else pollPort.send(from as RemoteInfo, bytes);
    },
    hmac: (key, data) => new Uint8Array(createHmac("sha256", key).update(data).digest()),
    random: (count) => new Uint8Array(randomBytes(count)),
    setAside(name, bytes) {
      const path = writeSetAside(settings.dir, name, bytes);
      log.note("warn", "set-aside", { path });
    },
    load: () => probe.read(now()),
    note: (level, event, details) => log.note(level, event, details),
    fatal: (reason) => die(log, reason),
    wallClockMs: () => Date.now(),
  };

  const turnStore = new TurnStore(store, () => turn.input());
  const keyspace = createKeyspace(turnStore);
  const executor = createExecutor(keyspace, settings.bounds);
  const core: AgentCore = createAgent(
    {
      id: settings.id,
      index: settings.index,
      peerId: settings.peerId,
      key: settings.pairKey,
      identity: disk.identity,
      emptied,
      preset: settings.preset,
      controllerAddress: `${settings.controller.host}:${settings.controller.clientPort}`,
      localPassword: settings.localPassword,
      limits: settings.bounds,
    },
    turnStore,
    keyspace,
    executor,
    ports,
  );

  const { host } = settings;
  await sockets.listen("peer", host, settings.peerPort).catch((error: unknown) => {
    throw portFailure("for the other server", "peerPort", host, settings.peerPort, error);
  });
  if (settings.localPort !== 0) {
    const { localHost, localPort } = settings;
    await sockets.listen("local", localHost, localPort).catch((error: unknown) => {
      throw portFailure("for local clients", "localPort", localHost, localPort, error, "localHost");
    });
  }
  core.start(now());
  const pollPort = await PollPort.open(host, settings.udpPort, (from, bytes) => {
    core.onPoll(from, bytes, now());
    turn.input();
  }).catch((error: unknown) => {
    throw portFailure("for the controller's polls", "udpPort", host, settings.udpPort, error);
  });
  const serial =
    settings.serial === undefined
      ? undefined
      : new SerialLine(settings.serial.path, settings.serial.baud, {
          onPoll(from, bytes) {
            core.onPoll(from, bytes, now());
            turn.input();
          },
          onSealed(payload) {
            core.onSealed(payload, now());
            turn.input();
          },
          onError: (reason) => log.note("warn", "serial-line", { reason }),
        });
  turn.begin(core);

  const control = await LocalControl.open(settings.dir, "agent.sock", async (line) => {
    const [word, ...rest] = line.split(" ");
    switch (word) {
      case "pid":
        return String(process.pid);
      case "identity":
        return Buffer.from(disk.identity).toString("hex");
      case "status":
        return JSON.stringify({ ...core.status(now()), serial: serial?.counts() });
      case "backup": {
        await store.backup(rest.join(" "));
        return "ok";
      }
      default:
        return `error: unknown line "${word}"; known: pid, identity, status, backup DIRECTORY`;
    }
  });

  let stopping = false;
  const stop = async (why: string): Promise<void> => {
    if (stopping) return;
    stopping = true;
    log.note("info", "stop", { why });
    turn.stop();
    sockets.stop();
    pollPort.close();
    serial?.close();
    control.close();
    probe.close();
    await store.close();
    markRun(settings.dir, settings.durability, true);
    lock.release();
    process.exit(EXIT_STOPPED);
  };
  process.on("uncaughtException", (error: Error) => {
    // Of a damaged row the message says all; of a fault of ours the stack says more.
    die(log, error instanceof DamagedRow ? error.message : (error.stack ?? String(error)));
  });
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    process.on(signal, () => void stop(signal).catch((error: Error) => die(log, error.message)));
  }
  if (withParent) {
    // The other end belongs to `dyad up`; it closes when that process ends, in whatever way.
    const gone = (): void => void stop("the process that started it has ended");
    process.stdin.on("end", gone).on("close", gone).on("error", gone).resume();
  }
  log.note("info", "up", {
    pid: process.pid,
    dir: settings.dir,
    durability: settings.durability,
    identity: Buffer.from(disk.identity).toString("hex"),
    version: process.version,
  });
  if (!withParent) {
    process.stdout.write(
      `server ${settings.id} is up (pid ${process.pid}, data in ${settings.dir}` +
        `${settings.log === undefined ? "" : `, log in ${settings.log}`})\n`,
    );
  }
}

/** Ends at once: what was not acknowledged is not acknowledged, and the pair goes on without this server. */
function die(log: Log, reason: string): never {
  const exitCode = exitForReason(reason);
  log.note("error", "fatal", { reason, exitCode });
  fail(exitCode, `ended: ${reason}`);
}

const { values } = parseArgs({
  options: { config: { type: "string" }, "with-parent": { type: "boolean", default: false } },
});
if (values.config === undefined) fail(EXIT_CONFIG, "which server? Give --config FILE.");
let settings: AgentSettings;
try {
  settings = readConfig(values.config);
} catch (error) {
  if (!(error instanceof ConfigError)) throw error;
  fail(EXIT_CONFIG, error.message);
}
try {
  await run(settings, values["with-parent"]);
} catch (error) {
  if (error instanceof DirectoryInUse) fail(EXIT_IN_USE, error.message);
  if (error instanceof StartFailure) fail(error.exitCode, error.message);
  const text = error instanceof Error ? error.message : String(error);
  fail(
    exitForReason(text) === EXIT_FAULT ? EXIT_FAULT : exitForReason(text),
    `cannot start: ${text}`,
  );
}
