/**
 * The directory of a pair that `dyad up` runs on one machine.
 *
 *     DIR/pair.json        what was chosen: durability and ports
 *     DIR/pair.key         the key all three prove to each other
 *     DIR/controller.json  DIR/a.json  DIR/b.json   one configuration a node
 *     DIR/controller/      the controller's flash and console socket, a virtual board's serial line
 *     DIR/a/  DIR/b/       a server's data: deleting one is losing that disk
 *     DIR/logs/            one log a node
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import espruino from "../../board-configs/espruino-linux.json" with { type: "json" };
import iotjs from "../../board-configs/iotjs-linux.json" with { type: "json" };
import node from "../../board-configs/linux-node.json" with { type: "json" };
import { findInterpreter } from "./interpreter-path.js";
import { Failure } from "./failure.js";
import { freePort, isTcpFree, isUdpFree } from "./ports.js";

const FORMAT = 1;
const HOST = "127.0.0.1";
const KEY_BYTES = 32;

export const SERVER_IDS = ["a", "b"] as const;
export type ServerId = (typeof SERVER_IDS)[number];
export type Durability = "disk" | "memory";
/** Where the controller runs: a Node process, the virtual board (the very firmware in a small engine), or a real interpreter. */
export const HOMES = ["node", "board", "espruino", "iotjs"] as const;
export type Home = (typeof HOMES)[number];

interface Board {
  balancing: string;
  frameMax: number;
  timings: Record<string, number>;
  limits: object;
}

const PATIENCE = 2;

function patient(board: Board): Board {
  const timings = Object.entries(board.timings).map(([name, ms]) => [name, PATIENCE * ms] as const);
  return { ...board, timings: Object.fromEntries(timings) };
}

/**
 * The program of each home, with the arguments that choose it, and the board whose times and bounds hold. Times are longer
 * where a slow engine shares its machine with both servers and their clients, which no board does.
 */
const PROGRAMS: Record<Home, { program: string[]; board: Board }> = {
  node: { program: ["controller.js"], board: node },
  board: { program: ["board.js"], board: node },
  espruino: { program: ["chip.js", "--engine", "espruino"], board: patient(espruino) },
  iotjs: { program: ["chip.js", "--engine", "iotjs"], board: iotjs },
};

/** Homes that are a real interpreter, and what to do where it is missing. */
const INTERPRETERS: Partial<Record<Home, string>> = {
  espruino:
    'Build its Linux version as its README says (github.com/espruino/Espruino, "make BOARD=LINUX") and put the binary on PATH',
  iotjs:
    "Build it as docs/HACKING.md says (github.com/jerryscript-project/iotjs, es.next profile, with ENABLE_MODULE_DGRAM) and put the binary on PATH",
};

/** The command of a controller, without its configuration. @throws Failure when its interpreter is not there */
export function homeProgram(home: Home): string[] {
  const advice = INTERPRETERS[home];
  if (advice !== undefined) {
    const { path, isScript } = findInterpreter(home);
    if (path === "" || isScript) {
      throw new Failure(
        (path === ""
          ? `${home} is not on PATH: --controller ${home} runs the controller in that interpreter. `
          : `${path}, which is what PATH has for ${home}, is a script (the flashing tool has that name) and not the interpreter. `) +
          `${advice}; or take --controller board, the same firmware in an engine that Dyad brings along.`,
        2,
      );
    }
  }
  const [name, ...args] = PROGRAMS[home].program;
  return [programPath(name!), ...args];
}

interface ServerPorts {
  peer: number;
  udp: number;
  local: number;
}

export interface Pair {
  format: number;
  durability: Durability;
  redis: number;
  native: number;
  link: number;
  a: ServerPorts;
  b: ServerPorts;
}

/** One node as it is started: a program, its arguments, and where its words go. */
export interface NodePlan {
  name: string;
  config: string;
  dir: string;
  log: string;
  socket: string;
  lock: string;
  argv: string[];
}

export interface PairPlan {
  dir: string;
  pair: Pair;
  controller: NodePlan;
  servers: [NodePlan, NodePlan];
}

function writeWhole(path: string, text: string, mode = 0o644): void {
  const fresh = `${path}.new`;
  writeFileSync(fresh, text, { mode });
  renameSync(fresh, path);
}

function readPair(dir: string): Pair | undefined {
  const path = join(dir, "pair.json");
  if (!existsSync(path)) return undefined;
  let pair: Pair;
  try {
    pair = JSON.parse(readFileSync(path, "utf8")) as Pair;
  } catch (error) {
    throw new Failure(
      `${path} is damaged (${(error as Error).message}). It holds only ports and the durability: ` +
        `delete it and run the command again; the data is kept.`,
    );
  }
  if (pair.format !== FORMAT) {
    throw new Failure(
      `${path} was written by another version of dyad (format ${String(pair.format)}, this one ` +
        `knows ${FORMAT}). Use that version, or another --dir.`,
    );
  }
  return pair;
}

/** Keeps a port that is free, else takes another. */
async function keptPort(kept: number | undefined, taken: Set<number>): Promise<number> {
  if (
    kept !== undefined &&
    !taken.has(kept) &&
    (await isTcpFree(HOST, kept)) &&
    (await isUdpFree(HOST, kept))
  ) {
    taken.add(kept);
    return kept;
  }
  return freePort(HOST, taken);
}

/** The words of a command as a shell reads them. */
export function shellCommand(argv: string[]): string {
  return argv
    .map((word) =>
      /^[A-Za-z0-9_/.:=@%+,-]+$/.test(word) ? word : `'${word.replace(/'/g, `'\\''`)}'`,
    )
    .join(" ");
}

/** Where the compiled programs are: beside this one. */
export function programPath(name: string): string {
  return join(dirname(fileURLToPath(import.meta.url)), name);
}

/** The nodes of a pair's directory and the file that says who runs them. */
export function nodeLocks(dir: string): { name: string; lock: string }[] {
  return [
    ...SERVER_IDS.map((id) => ({ name: id as string, lock: join(dir, id, "agent.lock") })),
    { name: "controller", lock: join(dir, "controller", "controller.lock") },
  ];
}

/**
 * Makes the directory ready: chooses what is not chosen yet and writes every node's configuration.
 * @param redisPort undefined: the kept one, or 6380; 0: the kept one, or any free one
 * @throws Failure when the wanted port is in use
 */
export async function preparePair(
  dir: string,
  redisPort: number | undefined,
  durability: Durability | undefined,
  home: Home = "node",
): Promise<PairPlan> {
  mkdirSync(join(dir, "logs"), { recursive: true });
  mkdirSync(join(dir, "controller"), { recursive: true });
  for (const id of SERVER_IDS) mkdirSync(join(dir, id), { recursive: true });
  const kept = readPair(dir);
  const taken = new Set<number>();
  let redis: number;
  if (redisPort === 0) {
    redis = await keptPort(kept?.redis, taken);
  } else {
    redis = redisPort ?? kept?.redis ?? 6380;
    if (!(await isTcpFree(HOST, redis))) {
      throw new Failure(
        `Port ${redis} on ${HOST} is in use by another program, so clients could not connect there. ` +
          `Stop that program, or choose another port: --port 7000 (or --port 0 for any free one).`,
        4,
      );
    }
    taken.add(redis);
  }
  const serverPorts = async (ports: ServerPorts | undefined): Promise<ServerPorts> => ({
    peer: await keptPort(ports?.peer, taken),
    udp: await keptPort(ports?.udp, taken),
    local: await keptPort(ports?.local, taken),
  });
  const pair: Pair = {
    format: FORMAT,
    durability: durability ?? kept?.durability ?? "disk",
    redis,
    native: await keptPort(kept?.native, taken),
    link: await keptPort(kept?.link, taken),
    a: await serverPorts(kept?.a),
    b: await serverPorts(kept?.b),
  };
  const keyFile = join(dir, "pair.key");
  if (!existsSync(keyFile)) {
    writeWhole(keyFile, `${randomBytes(KEY_BYTES).toString("hex")}\n`, 0o600);
  }
  writeWhole(join(dir, "pair.json"), `${JSON.stringify(pair, null, 2)}\n`);

  const planOf = (name: string, kind: string, program: string[]): NodePlan => {
    const config = join(dir, `${name}.json`);
    return {
      name,
      config,
      dir: join(dir, name),
      log: join(dir, "logs", `${name}.log`),
      socket: join(dir, name, `${kind}.sock`),
      lock: join(dir, name, `${kind}.lock`),
      argv: [process.execPath, ...program, "--config", config],
    };
  };
  const agent = [programPath("agent.js")];
  const plan: PairPlan = {
    dir,
    pair,
    controller: planOf("controller", "controller", homeProgram(home)),
    servers: [planOf("a", "agent", agent), planOf("b", "agent", agent)],
  };
  writeConfigs(plan, keyFile, home);
  return plan;
}

function writeConfigs(plan: PairPlan, keyFile: string, home: Home): void {
  const { pair, controller } = plan;
  const { board } = PROGRAMS[home];
  const controllerConfig = {
    dir: controller.dir,
    host: HOST,
    redisPort: pair.redis,
    nativePort: pair.native,
    linkPort: pair.link,
    servers: SERVER_IDS.map((id) => ({
      id,
      host: HOST,
      udpPort: pair[id].udp,
      ...(id === "a" ? { preset: true } : {}),
    })),
    keyFile,
    balancing: board.balancing,
    frameMax: board.frameMax,
    timings: board.timings,
    limits: board.limits,
  };
  writeWhole(controller.config, `${JSON.stringify(controllerConfig, null, 2)}\n`);
  for (const server of plan.servers) {
    const id = server.name as ServerId;
    const other: ServerId = id === "a" ? "b" : "a";
    const config = {
      id,
      servers: SERVER_IDS,
      dir: server.dir,
      host: HOST,
      controller: { host: HOST, linkPort: pair.link, clientPort: pair.redis },
      peer: { host: HOST, port: pair[other].peer },
      peerPort: pair[id].peer,
      udpPort: pair[id].udp,
      localPort: pair[id].local,
      keyFile,
      durability: pair.durability,
      preset: id === "a",
      // A handshake with a chip takes as long as the chip needs.
      ...(board.timings["handshakeMs"] === undefined
        ? {}
        : { timings: { handshakeMs: board.timings["handshakeMs"] } }),
      log: server.log,
    };
    writeWhole(server.config, `${JSON.stringify(config, null, 2)}\n`);
  }
}
