/**
 * The configuration file of a controller on Node: one JSON object, checked field by field before anything starts.
 *
 * An error names the file, the field, what was found and what is allowed; a misspelled field is an error with
 * the nearest name there is.
 */
import { readFileSync } from "node:fs";
import { dirname, isAbsolute, resolve } from "node:path";
import { z } from "zod";
import { defaultTimings, DEFAULT_ID_MAX } from "./core/config.js";
import type { Timings } from "./core/config.js";
import { checkLimits, defaultLimits } from "./core/limits.js";
import type { Limits } from "./core/limits.js";

const hostField = z.string().min(1).max(253);
const portField = z
  .number()
  .int()
  .min(0)
  .max(65535, "a port from 1 to 65535, or 0 for any free one");
const hexKey = z.string().regex(/^([0-9a-fA-F]{2}){16,64}$/, "16 to 64 bytes in hex digits");

function times() {
  const shape: Record<string, z.ZodOptional<z.ZodNumber>> = {};
  for (const name of Object.keys(defaultTimings())) {
    shape[name] = z.number().positive().max(3600000).optional();
  }
  return z.strictObject(shape).default({});
}

function bounds() {
  const shape: Record<string, z.ZodOptional<z.ZodNumber>> = {};
  for (const name of Object.keys(defaultLimits())) {
    shape[name] = z.number().int().positive().max(Number.MAX_SAFE_INTEGER).optional();
  }
  return z.strictObject(shape).default({});
}

const configSchema = z.strictObject({
  /** Where the flash files and the console's socket are. */
  dir: z.string().min(1),
  /** Address the controller listens on. */
  host: hostField.default("127.0.0.1"),
  /** Redis clients. */
  redisPort: portField,
  /** Native clients. */
  nativePort: portField.default(0),
  /** The two servers dial in here. */
  linkPort: portField,
  servers: z
    .array(
      z.strictObject({
        id: z.string().regex(/^[A-Za-z0-9_-]{1,16}$/, "1 to 16 letters, digits, - or _"),
        /** Where this server answers polls. */
        host: hostField,
        udpPort: z.number().int().min(1).max(65535),
        preset: z.boolean().optional(),
        /** Serial cable to this server: a second path for polls. */
        serial: z
          .strictObject({
            path: z.string().regex(/^\//, "the path of a device, from /"),
            baud: z.number().int().min(1200).max(4000000).default(115200),
            /** "text": the 7-bit form, for an end that can only handle text. */
            form: z.enum(["binary", "text"]).default("binary"),
          })
          .optional(),
      }),
    )
    .length(2, "exactly two servers"),
  /** A client on a serial line, which speaks frames without a handshake (docs/PLC.md). */
  clientLine: z
    .strictObject({
      path: z.string().regex(/^\//, "the path of a device, from /"),
      baud: z.number().int().min(1200).max(4000000).default(115200),
    })
    .optional(),
  /** The pair's key in hex, or a file that holds it. */
  key: hexKey.optional(),
  keyFile: z.string().min(1).optional(),
  /** Native clients prove that they hold this key; without it any may come in. */
  clientKey: hexKey.optional(),
  /** AUTH of Redis clients; without it none is asked for. */
  clientPassword: z.string().min(1).max(512).optional(),
  balancing: z.enum(["expected-delay", "reported-load"]).default("expected-delay"),
  /** Largest frame on a link. @unit bytes */
  frameMax: z.number().int().min(536).max(65536).default(65536),
  timings: times(),
  limits: bounds(),
  console: z
    .strictObject({
      /** False: no console socket in `dir`. */
      socket: z.boolean().default(true),
    })
    .default({ socket: true }),
  /** Log file; without it `dir`/controller.log, or standard error under `dyad up`. */
  log: z.string().min(1).optional(),
});

export interface ControllerSettings {
  file: string;
  dir: string;
  host: string;
  redisPort: number;
  nativePort: number;
  linkPort: number;
  servers: {
    id: string;
    host: string;
    udpPort: number;
    preset: boolean;
    serial: { path: string; baud: number; form: "binary" | "text" } | undefined;
  }[];
  clientLine: { path: string; baud: number } | undefined;
  key: Uint8Array;
  clientKey: Uint8Array | undefined;
  clientPassword: string | undefined;
  balancing: "expected-delay" | "reported-load";
  frameMax: number;
  idMax: number;
  timings: Timings;
  limits: Limits;
  consoleSocket: boolean;
  log: string | undefined;
}

/** A configuration that cannot be used; the message is for a person. */
export class ConfigError extends Error {}

/** How many single-letter edits lead from one name to the other. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const change = from[i - 1] === to[j - 1] ? 0 : 1;
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + change));
    }
    row = next;
  }
  return row[to.length]!;
}

function nearest(name: string, known: string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** The field names an object of the schema may have, at a path from its root. */
function fieldsAt(path: PropertyKey[]): string[] {
  let schema: unknown = configSchema;
  const unwrap = (): void => {
    while (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) {
      schema = schema.unwrap();
    }
  };
  for (const step of path) {
    unwrap();
    if (schema instanceof z.ZodArray) schema = schema.element;
    else if (schema instanceof z.ZodObject) {
      schema = (schema.shape as Record<string, unknown>)[String(step)];
    } else return [];
  }
  unwrap();
  return schema instanceof z.ZodObject ? Object.keys(schema.shape as object) : [];
}

const SECRETS = new Set(["key", "clientKey", "clientPassword"]);

function describeIssue(issue: z.core.$ZodIssue, raw: unknown): string {
  const field = issue.path.map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    const known = fieldsAt(issue.path);
    return issue.keys
      .map((key) => {
        const near = nearest(key, known);
        const place = field === "" ? key : `${field}.${key}`;
        return (
          `unknown field "${place}"` +
          (near === undefined ? `; allowed here: ${known.join(", ")}` : `; did you mean "${near}"?`)
        );
      })
      .join("\n  ");
  }
  let found = raw;
  for (const step of issue.path) {
    found =
      found !== null && typeof found === "object"
        ? (found as Record<PropertyKey, unknown>)[step]
        : undefined;
  }
  if (found === undefined) return `field "${field}" is missing (${issue.message})`;
  const shown = SECRETS.has(field) ? "(not shown)" : JSON.stringify(found);
  return `field "${field}" is ${shown}: ${issue.message}`;
}

/**
 * Checks a parsed configuration.
 * @throws ConfigError naming the file and every wrong field
 */
export function parseConfig(raw: unknown, file: string): ControllerSettings {
  const fail = (text: string): never => {
    throw new ConfigError(`${file} cannot be used:\n  ${text}`);
  };
  const result = configSchema.safeParse(raw);
  if (!result.success) {
    return fail(result.error.issues.map((issue) => describeIssue(issue, raw)).join("\n  "));
  }
  const config = result.data;
  const [a, b] = config.servers as [(typeof config.servers)[0], (typeof config.servers)[0]];
  if (a.id === b.id) fail(`field "servers.1.id" is "${b.id}", as servers.0.id is`);
  if (a.preset === true && b.preset === true) {
    fail('field "servers.1.preset" is true, as servers.0.preset is: one at most may be preset');
  }
  const ports = [
    ["redisPort", config.redisPort],
    ["nativePort", config.nativePort],
    ["linkPort", config.linkPort],
  ] as const;
  for (const [i, one] of ports.entries()) {
    for (const other of ports.slice(0, i)) {
      if (one[1] !== 0 && one[1] === other[1]) {
        fail(`field "${one[0]}" is ${one[1]}, as ${other[0]} is: each needs a port of its own`);
      }
    }
  }
  const base = dirname(resolve(file));
  const place = (path: string): string => (isAbsolute(path) ? path : resolve(base, path));
  let keyText = config.key;
  if ((keyText === undefined) === (config.keyFile === undefined)) {
    fail('exactly one of "key" and "keyFile" is needed');
  }
  if (config.keyFile !== undefined) {
    const keyFile = place(config.keyFile);
    try {
      keyText = readFileSync(keyFile, "utf8").trim();
    } catch (error) {
      fail(`field "keyFile": ${keyFile} cannot be read (${(error as Error).message})`);
    }
    if (!hexKey.safeParse(keyText).success) {
      fail(`field "keyFile": ${keyFile} must hold 16 to 64 bytes in hex digits`);
    }
  }
  const timings = { ...defaultTimings(), ...config.timings } as Timings;
  const limits = { ...defaultLimits(), ...config.limits } as Limits;
  try {
    checkLimits(timings, limits);
  } catch (error) {
    fail(`"timings" and "limits" do not fit together: ${(error as Error).message}`);
  }
  return {
    file,
    dir: place(config.dir),
    host: config.host,
    redisPort: config.redisPort,
    nativePort: config.nativePort,
    linkPort: config.linkPort,
    servers: config.servers.map((server) => ({
      ...server,
      preset: server.preset === true,
      serial: server.serial,
    })),
    clientLine: config.clientLine,
    key: new Uint8Array(Buffer.from(keyText!, "hex")),
    clientKey:
      config.clientKey === undefined
        ? undefined
        : new Uint8Array(Buffer.from(config.clientKey, "hex")),
    clientPassword: config.clientPassword,
    balancing: config.balancing,
    frameMax: config.frameMax,
    idMax: DEFAULT_ID_MAX,
    timings,
    limits,
    consoleSocket: config.console.socket,
    log: config.log === undefined ? undefined : place(config.log),
  };
}

/**
 * Reads and checks a configuration file; relative paths in it are relative to the file.
 * @throws ConfigError when it cannot be read, is not JSON, or a field is wrong
 */
export function readConfig(file: string): ControllerSettings {
  const path = resolve(file);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new ConfigError(`${path} cannot be read: ${(error as Error).message}`);
  }
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new ConfigError(`${path} is not JSON: ${(error as Error).message}`);
  }
  return parseConfig(raw, path);
}
