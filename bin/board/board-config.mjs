/**
 * A board's configuration: one JSON file in board-configs/, its presence defines the board. Checked field by field;
 * a complaint names the field, what was found and what is allowed.
 */
import { readFileSync } from "node:fs";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { z } from "zod";

/** A configuration that cannot be used; the message is for a person. */
export class BoardError extends Error {}

const hexKey = z.string().regex(/^([0-9a-fA-F]{2}){16,64}$/, "16 to 64 bytes in hex digits");
const address = z
  .string()
  .regex(/^(\d{1,3}\.){3}\d{1,3}$/, "an IPv4 address in digits: a chip asks no name server");
const port = z.number().int().min(1).max(65535);
const offPort = z.number().int().min(0).max(65535);
const pin = z.string().regex(/^[A-Z]{0,2}[0-9]{1,3}$/, "a pin as the board names it, such as B3");
const ms = z.number().positive().max(3600000);
const count = z.number().int().positive();

const TIMINGS = [
  "pollMs",
  "failureMs",
  "probeMs",
  "linkDownMs",
  "stallMs",
  "stallPeerDownMs",
  "diskStallMs",
  "holdMs",
  "handshakeMs",
  "drainMs",
  "peerSeenMs",
  "announceMs",
  "repeatMs",
  "refusalQuietMs",
  "serialPollMs",
  "serialFailureMs",
  "serialProbeMs",
];
const LIMITS = [
  "pendingLinksMax",
  "linkBacklogMax",
  "traceEntries",
  "heldBytesMax",
  "inFlightMax",
  "replyWindowBytes",
  "clientOutHighBytes",
  "clientOutTotalBytes",
  "valueBytesMax",
  "commandRowsMin",
  "commandOverheadBytes",
  "commandChunkBytes",
  "clientWaitingBytesMax",
  "clientOutCheckBytes",
  "clientReplyBytesMax",
  "linkLowBytes",
  "clientsMax",
];

const shapeOf = (names, field) => Object.fromEntries(names.map((name) => [name, field]));

const network = z.discriminatedUnion("chip", [
  z.strictObject({
    chip: z.enum(["w5500", "w5100"]),
    spi: z.strictObject({ bus: z.string(), sck: pin, miso: pin, mosi: pin, cs: pin }),
    reset: pin.optional(),
    mac: z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/, "six bytes in lower-case hex with :"),
    address: z.strictObject({ ip: address, subnet: address, gateway: address }),
    /** With nothing heard for so long the board is reset, and the chip with it. @unit s */
    silenceSeconds: z.number().int().min(10).max(3600).default(60),
  }),
  z.strictObject({ chip: z.literal("wifi"), ssid: z.string().min(1), password: z.string() }),
  z.strictObject({ chip: z.literal("host") }),
]);

/** A cable from one of the board's UARTs: a second path for polls. */
const serialLine = z.strictObject({
  device: z.string().regex(/^Serial[1-6]$/, "a UART as the engine names it: Serial1 to Serial6"),
  baud: z.number().int().min(1200).max(4000000).default(115200),
  /** Where the engine has no pins of its own for it. */
  tx: pin.optional(),
  rx: pin.optional(),
  /** The device, where the engine runs on Linux. */
  path: z.string().regex(/^\//, "the path of a device, from /").optional(),
  form: z.enum(["binary", "text"]).default("binary"),
});

const boardSchema = z.strictObject({
  engine: z.enum(["espruino", "iotjs"]),
  hardware: z.strictObject({
    name: z.string().min(1),
    /** What the engine says it is (`process.env.BOARD`); flashing refuses another. */
    board: z.string().min(1).optional(),
    /** Variables of the engine; 0: as many as the machine has memory for. */
    variables: z.number().int().min(0).max(65535),
    /** @unit bytes */
    variableBytes: z.number().int().min(0).max(32),
    /** Memory of the virtual board, which counts bytes instead of variables. @unit bytes */
    memoryBytes: count.optional(),
    /** Room for bundle and journals. @unit bytes */
    storageBytes: count,
    /** Sockets of the network chip; 0: no such bound. */
    sockets: z.number().int().min(0).max(64),
    consoleDevice: z.string().min(1),
    /** 0: no UART, it takes what it is given. @unit bits a second */
    consoleBaud: z.number().int().min(0).max(4000000).default(0),
    /** 0: none. @unit s */
    watchdogSeconds: z.number().min(0).max(30),
  }),
  network,
  servers: z
    .array(
      z.strictObject({
        id: z.string().regex(/^[A-Za-z0-9_-]{1,16}$/, "1 to 16 letters, digits, - or _"),
        host: address,
        udpPort: port,
        preset: z.boolean().default(false),
        serial: serialLine.optional(),
        /** Its fencing line: an output that switches it off, an input that says whether it runs. */
        fence: z
          .strictObject({
            output: pin,
            active: z.enum(["high", "low"]).default("high"),
            input: pin,
            running: z.enum(["high", "low"]).default("high"),
          })
          .optional(),
      }),
    )
    .length(2, "exactly two servers"),
  /** When a failed server is switched off by its fencing line. */
  fencing: z
    .strictObject({
      policy: z.enum(["never", "failover", "operator"]),
      /** Held off for so long; 0: until the operator releases it. */
      offMs: z.number().min(0).max(600000),
      readBackMs: ms,
    })
    .optional(),
  ports: z.strictObject({
    redis: offPort,
    native: offPort,
    link: port,
    /** The polls leave from here; 0: any free one. */
    udp: offPort,
  }),
  /** How many clients may be connected at a time by each front. */
  slots: z.strictObject({
    redis: z.number().int().min(0).max(64),
    native: z.number().int().min(0).max(64),
  }),
  /** A client on a UART, which speaks frames without a handshake. */
  clientLine: serialLine.omit({ form: true }).optional(),
  key: hexKey.optional(),
  keyFile: z.string().min(1).optional(),
  clientKey: hexKey.optional(),
  clientPassword: z.string().min(1).max(512).optional(),
  balancing: z.enum(["expected-delay", "reported-load"]),
  /** Largest frame on a link. @unit bytes */
  frameMax: z.number().int().min(536).max(65536),
  /** `short` leaves out `explain`, `config` and the long help. */
  console: z.enum(["full", "short"]),
  /** `status json` at the console, for programs; its fields' long names stay in the bundle. */
  statusJson: z.boolean().default(false),
  /** `baked`: all of this is in the bundle. `storage`: the bundle reads it from the file `board` of its Storage. */
  constants: z.enum(["baked", "storage"]).default("baked"),
  /** Records in one of the two journals. */
  journalSlots: z.number().int().min(4).max(256),
  timings: z.strictObject(shapeOf(TIMINGS, ms)),
  limits: z.strictObject(shapeOf(LIMITS, count)),
});

const SECRETS = new Set(["key", "clientKey", "clientPassword"]);

function allowedAt(path) {
  let schema = boardSchema;
  for (const step of path) {
    while (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional)
      schema = schema.unwrap();
    if (schema instanceof z.ZodArray) schema = schema.element;
    else if (schema instanceof z.ZodObject) schema = schema.shape[String(step)];
    else return [];
  }
  while (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional)
    schema = schema.unwrap();
  return schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
}

function describe(issue, raw) {
  const field = issue.path.map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    const known = allowedAt(issue.path);
    return issue.keys
      .map((key) => {
        const place = field === "" ? key : `${field}.${key}`;
        return `unknown field "${place}"${known.length > 0 ? `; allowed here: ${known.join(", ")}` : ""}`;
      })
      .join("\n  ");
  }
  let found = raw;
  for (const step of issue.path) found = found?.[step];
  if (found === undefined) return `field "${field}" is missing (${issue.message})`;
  return `field "${field}" is ${SECRETS.has(field) ? "(not shown)" : JSON.stringify(found)}: ${issue.message}`;
}

/** Whether clients can reach the servers through this board; without, it only chooses and changes roles. */
export function carriesCommands(config) {
  return config.ports.redis > 0 || config.ports.native > 0 || config.clientLine !== undefined;
}

/** Sockets of the network chip that this board's fronts take: links, listeners and the datagrams. */
export function socketsOf(config) {
  const fronts =
    (config.ports.redis > 0 ? config.slots.redis : 0) +
    (config.ports.native > 0 ? config.slots.native : 0);
  return 2 + 1 + fronts;
}

/** What an engine asks of fields that by themselves are well: field, what was found, whether that is well, what is. */
function engineRules(config) {
  const { hardware, network } = config;
  const { consoleDevice } = hardware;
  if (config.engine !== "iotjs") {
    return [
      [
        "hardware.consoleDevice",
        consoleDevice,
        /^[A-Za-z][A-Za-z0-9]*$/.test(consoleDevice),
        "a serial device as the interpreter names it, such as USB or Serial1",
      ],
    ];
  }
  const port = /^tcp:([0-9]{1,5})$/.exec(consoleDevice)?.[1];
  return [
    [
      "fencing",
      config.fencing,
      config.fencing === undefined,
      "none: its home has no pins yet (an espruino board has)",
    ],
    ["network.chip", network.chip, network.chip === "host", "the machine's own: host"],
    [
      "hardware.variables",
      hardware.variables,
      hardware.variables === 0,
      "0: its heap is not counted so",
    ],
    [
      "hardware.sockets",
      hardware.sockets,
      hardware.sockets === 0,
      "0: the machine has no such bound",
    ],
    [
      "hardware.consoleDevice",
      consoleDevice,
      port === undefined
        ? consoleDevice.startsWith("/")
        : Number(port) >= 1 && Number(port) <= 65535,
      "tcp:PORT (1 to 65535, of the machine itself) or a serial device's path",
    ],
  ];
}

/**
 * Checks a parsed board configuration.
 * @throws BoardError naming every wrong field
 */
export function parseBoard(raw, file) {
  const fail = (text) => {
    throw new BoardError(`${file} cannot be used:\n  ${text}`);
  };
  const result = boardSchema.safeParse(raw);
  if (!result.success) {
    return fail(result.error.issues.map((issue) => describe(issue, raw)).join("\n  "));
  }
  const config = result.data;
  const [a, b] = config.servers;
  if (a.id === b.id)
    fail(`field "servers.1.id" is "${b.id}", as servers.0.id is: two names are needed`);
  if (a.preset && b.preset)
    fail('field "servers.1.preset" is true, as servers.0.preset is: one at most');
  const uarts = [["hardware.consoleDevice", config.hardware.consoleDevice]];
  for (const [field, line] of [
    ["servers.0.serial.device", a.serial],
    ["servers.1.serial.device", b.serial],
    ["clientLine.device", config.clientLine],
  ]) {
    if (line === undefined) continue;
    if (config.engine === "iotjs" && line.path === undefined) {
      fail(
        `field "${field.replace(/device$/, "path")}" is missing: with engine iotjs a line is a device's file, from /`,
      );
    }
    const taken = uarts.find(([, device]) => device === line.device);
    if (taken !== undefined) fail(`field "${field}" is "${line.device}", as ${taken[0]} is`);
    uarts.push([field, line.device]);
  }
  for (const front of ["redis", "native"]) {
    if (config.ports[front] > 0 && config.slots[front] === 0) {
      fail(`field "slots.${front}" is 0: with ports.${front} ${config.ports[front]} at least 1`);
    }
  }
  for (const [field, found, isAllowed, allowed] of engineRules(config)) {
    if (!isAllowed)
      fail(`field "${field}" is ${JSON.stringify(found)}: with engine ${config.engine} ${allowed}`);
  }
  const lines = config.servers.filter((server) => server.fence !== undefined).length;
  if (lines > 0 !== (config.fencing !== undefined)) {
    fail(
      lines > 0
        ? 'field "fencing" is missing: with servers.N.fence it says when a line is used (policy, offMs, readBackMs)'
        : 'field "fencing" is there, and no server has a line: servers.N.fence names its pins',
    );
  }
  const sockets = socketsOf(config);
  if (config.hardware.sockets > 0 && sockets > config.hardware.sockets) {
    fail(
      `field "slots" asks for ${sockets} sockets (two links, the polls, one each client): ` +
        `the network chip has ${config.hardware.sockets}`,
    );
  }
  const keyed = config.constants === "baked";
  if (keyed && (config.key === undefined) === (config.keyFile === undefined)) {
    fail('exactly one of "key" and "keyFile" is needed');
  }
  if (config.keyFile !== undefined) {
    const path = isAbsolute(config.keyFile)
      ? config.keyFile
      : resolve(dirname(resolve(file)), config.keyFile);
    let text;
    try {
      text = readFileSync(path, "utf8").trim();
    } catch (error) {
      fail(
        `field "keyFile": ${path} cannot be read (${error.message}); make one: openssl rand -hex 32`,
      );
    }
    if (!hexKey.safeParse(text).success)
      fail(`field "keyFile": ${path} must hold 16 to 64 bytes in hex`);
    config.key = text;
  }
  return config;
}

/** @throws BoardError when there is no such board, or its file cannot be used */
export function readBoard(root, name, known) {
  if (!known.includes(name)) {
    throw new BoardError(`there is no board "${name}"; boards: ${known.join(", ")}`);
  }
  const file = join(root, "board-configs", `${name}.json`);
  let raw;
  try {
    raw = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new BoardError(`${file} is not JSON: ${error.message}`);
  }
  return parseBoard(raw, file);
}

const bytesOf = (hex) => [...Buffer.from(hex, "hex")];

/** What firmware/main.<engine>.ts imports as "dyad:board", as a plain object. */
export function boardConstants(name, config) {
  const oneEach = config.network.chip === "w5500" || config.network.chip === "w5100";
  return {
    name,
    consoleDevice: config.hardware.consoleDevice,
    consoleBaud: config.hardware.consoleBaud,
    network: config.network,
    servers: config.servers.map(({ serial, ...server }) => {
      if (serial === undefined) return server;
      const { form, ...line } = serial;
      return { ...server, serial: form === "text" ? 1 : 0, line };
    }),
    clientLine: config.clientLine,
    fencing: config.fencing?.policy === "never" ? undefined : config.fencing,
    key: bytesOf(config.key ?? ""),
    clientKey: config.clientKey === undefined ? undefined : bytesOf(config.clientKey),
    clientPassword: config.clientPassword,
    balancing: config.balancing,
    redisPort: config.ports.redis,
    nativePort: config.ports.native,
    linkPort: config.ports.link,
    udpPort: config.ports.udp,
    redisSlots: oneEach ? config.slots.redis : 1,
    nativeSlots: oneEach ? config.slots.native : 1,
    linkSlots: oneEach ? 2 : 1,
    frameMax: config.frameMax,
    journalSlots: config.journalSlots,
    watchdogSeconds: config.hardware.watchdogSeconds,
    variables: config.hardware.variables,
    silenceMs: oneEach ? 1000 * config.network.silenceSeconds : 0,
    timings: config.timings,
    limits: {
      ...config.limits,
      clientsMax: Math.min(
        config.limits.clientsMax,
        config.slots.redis + config.slots.native + (config.clientLine === undefined ? 0 : 1),
      ),
    },
  };
}

const literal = (value) => JSON.stringify(value).replace(/"([A-Za-z_][A-Za-z0-9_]*)":/g, "$1:");

/** Where each constant that is no object itself stands: paths such as `timings.pollMs`, in a fixed order. */
function leavesOf(value, path) {
  const isBranch =
    typeof value === "object" &&
    value !== null &&
    !(Array.isArray(value) && value.every((one) => typeof one === "number"));
  if (!isBranch) return [path];
  return Object.keys(value).flatMap((key) =>
    leavesOf(value[key], path === "" ? key : `${path}.${key}`),
  );
}

const valueAt = (value, path) => path.split(".").reduce((at, step) => at[step], value);

/** The constants in the order in which a bundle reads them from its Storage, and what the configuration says of them. */
export function boardList(name, config) {
  const constants = boardConstants(name, config);
  const paths = leavesOf(constants, "");
  return { paths, values: paths.map((path) => valueAt(constants, path) ?? null) };
}

/** An object whose leaves are places of a list. Numbers are in the bundle, not names: those it has its own way with. */
function fromList(value, path, paths) {
  const at = paths.indexOf(path);
  if (at >= 0)
    return value === undefined
      ? `given[${at}] === null ? undefined : given[${at}]`
      : `given[${at}]`;
  const inner = Object.keys(value).map((key) => [
    key,
    fromList(value[key], path === "" ? key : `${path}.${key}`, paths),
  ]);
  if (Array.isArray(value)) return `[${inner.map(([, text]) => text).join(", ")}]`;
  return `{ ${inner.map(([key, text]) => `${key}: ${text}`).join(", ")} }`;
}

/** Where IoT.js, which has no Storage, finds them: in its working directory. */
const CONSTANTS_FILE = "chip.board.json";

/** The module that firmware/main.<engine>.ts imports as "dyad:board". */
export function boardModule(name, config) {
  const constants = boardConstants(name, config);
  if (config.constants === "storage") {
    const { paths } = boardList(name, config);
    const text =
      config.engine === "iotjs"
        ? `engineRequire("fs").readFileSync("${CONSTANTS_FILE}").toString()`
        : `engineRequire("Storage").read("board")`;
    return (
      `const given = JSON.parse(${text});\n` +
      `export const board = ${fromList(constants, "", paths)};`
    );
  }
  const fields = Object.entries(constants).map(
    ([key, value]) => `${key}: ${value === undefined ? "undefined" : literal(value)}`,
  );
  return `export const board = { ${fields.join(", ")} };`;
}
