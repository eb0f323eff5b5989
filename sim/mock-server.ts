/**
 * A server to play with while developing the controller's firmware: the real server core on real sockets,
 * over a store in memory, that can be told to misbehave. It keeps nothing when it ends.
 *
 *     node --import ./sim/ts-node.mjs sim/mock-server.ts --config server-a.json
 *
 * The configuration is an agent's. Lines typed at it:
 *
 *     hang MS     no event is taken for that long, then all at once
 *     slow MS     every turn of its loop takes this much longer (0: as fast as it can)
 *     disk MS     every flush takes this long; `disk stop` never ends one; `disk fail` fails the next
 *     load N      reports N permille of load instead of its own (-1: its own)
 *     deaf on|off answers no poll
 *     cut         resets every connection
 *     crash       ends at once, without a word to anyone
 *     status      what the server says of itself
 */
import { createHmac, randomBytes } from "node:crypto";
import type { RemoteInfo } from "node:dgram";
import { performance } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { createExecutor } from "../agent/commands/executor.js";
import { createKeyspace } from "../agent/commands/keyspace.js";
import { readConfig } from "../agent/config.js";
import { createAgent } from "../agent/core/agent.js";
import type { AgentCore, AgentPorts, LoadSample } from "../agent/core/ports.js";
import { LoadProbe } from "../agent/load-probe.js";
import { PollPort } from "../agent/poll-port.js";
import { Sockets } from "../agent/sockets.js";
import { createMemoryStore } from "../agent/store/memory.js";
import { TurnStore } from "../agent/turn-store.js";
import { Turn } from "../agent/turn.js";

const { values } = parseArgs({ options: { config: { type: "string" } } });
if (values.config === undefined) {
  process.stderr.write("mock server: which server? Give --config FILE.\n");
  process.exit(2);
}
const settings = readConfig(values.config);

let core: AgentCore;
let slowMs = 0;
let diskMs = 0;
let diskStopped = false;
let load = -1;
let deaf = false;
const open = new Set<number>();

const now = (): number => performance.now();

/** Burns time as a slow machine would: nothing else happens meanwhile. */
function block(ms: number): void {
  const until = now() + ms;
  while (now() < until);
}

const turn = new Turn(() => {
  if (slowMs > 0) block(slowMs);
  sockets.flush();
});
const sockets = new Sockets({
  onOpen(connection, kind, accepted) {
    open.add(connection);
    core.onOpen(connection, kind, accepted, now());
    turn.input();
  },
  onDialFailed(kind) {
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
    open.delete(connection);
    core.onClosed(connection, now());
    turn.input();
  },
});

/** Flushes asked for while the disk stands still. */
const stopped: (() => void)[] = [];
const memory = createMemoryStore({
  schedule: (flush) => {
    if (diskStopped) stopped.push(flush);
    else if (diskMs > 0) setTimeout(flush, diskMs);
    else setImmediate(flush);
  },
});

let pollPort: PollPort | undefined;
const probe = new LoadProbe();
const ports: AgentPorts = {
  backlog: () => 0,
  send: (connection, bytes, start, end) => sockets.send(connection, bytes, start, end),
  close: (connection) => sockets.close(connection),
  setReading: (connection, on) => sockets.setReading(connection, on),
  dial(kind) {
    if (kind === "controller")
      sockets.dial(kind, settings.controller.host, settings.controller.linkPort);
    else sockets.dial(kind, settings.peer.host, settings.peer.port);
  },
  datagram: (from, bytes) => {
    if (!deaf) pollPort?.send(from as RemoteInfo, bytes);
  },
  hmac: (key, data) => createHmac("sha256", key).update(data).digest(),
  random: (count) => randomBytes(count),
  setAside: (name, bytes) => say(`set aside ${name}: ${bytes.length} bytes, kept nowhere`),
  load(): LoadSample {
    const sample = probe.read(now());
    return load < 0 ? sample : { ...sample, loadPermille: load };
  },
  note: (level, event, details) => {
    if (level !== "debug")
      say(`${level} ${event} ${details === undefined ? "" : JSON.stringify(details)}`);
  },
  fatal: (reason) => {
    say(`ends: ${reason}`);
    process.exit(1);
  },
  wallClockMs: () => Date.now(),
};

function say(text: string): void {
  process.stdout.write(`${settings.id}: ${text}\n`);
}

const store = new TurnStore(memory, () => turn.input());
const keyspace = createKeyspace(store);
core = createAgent(
  {
    id: settings.id,
    index: settings.index,
    peerId: settings.peerId,
    key: settings.pairKey,
    identity: randomBytes(16),
    emptied: true,
    preset: settings.preset,
    controllerAddress: `${settings.controller.host}:${settings.controller.clientPort}`,
    localPassword: settings.localPassword,
    limits: settings.bounds,
  },
  store,
  keyspace,
  createExecutor(keyspace, settings.bounds),
  ports,
);
await sockets.listen("peer", settings.host, settings.peerPort);
if (settings.localPort !== 0) await sockets.listen("local", settings.localHost, settings.localPort);
core.start(now());
pollPort = await PollPort.open(settings.host, settings.udpPort, (from, bytes) => {
  core.onPoll(from, bytes, now());
  turn.input();
});
turn.begin(core);
say("a mock server: empty, and forgets everything when it ends");

/** Carries out one line. @returns what to say to it */
function obey(line: string): string {
  const [word, argument = ""] = line.trim().split(/\s+/);
  const number = Number(argument);
  switch (word) {
    case "":
      return "";
    case "hang":
      block(number);
      return `hung for ${number} ms`;
    case "slow":
      slowMs = number;
      return `every turn takes ${number} ms longer`;
    case "disk":
      if (argument === "fail") {
        memory.failNext(new Error("told to fail"));
        return "the next flush fails";
      }
      diskStopped = argument === "stop";
      if (!diskStopped) {
        diskMs = number;
        for (const flush of stopped.splice(0)) flush();
      }
      return diskStopped ? "no flush ends any more" : `every flush takes ${number} ms`;
    case "load":
      load = number;
      return number < 0 ? "reports its own load" : `reports ${number} permille`;
    case "deaf":
      deaf = argument !== "off";
      return deaf ? "answers no poll" : "answers polls";
    case "cut":
      for (const connection of open) sockets.close(connection);
      return `${open.size} connections closed`;
    case "crash":
      process.kill(process.pid, "SIGKILL");
      return "";
    case "status":
      return JSON.stringify(core.status(now()), null, 1);
    default:
      return `unknown: ${word}; known: hang, slow, disk, load, deaf, cut, crash, status`;
  }
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const answer = obey(line);
  if (answer !== "") say(answer);
  turn.input();
});
