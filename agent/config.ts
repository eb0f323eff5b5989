/**
 * The agent's configuration file: one JSON object, checked field by field before anything starts.
 *
 * An error names the file, the field, what was found and what is allowed; a misspelled field is an
 * error with the nearest name there is, because a setting that is silently ignored is worse than
 * a program that does not start.
 */
import { readFileSync } from "node:fs";
import { dirname, isAbsolute, resolve } from "node:path";
import { z } from "zod";
import { type AgentLimits, agentLimits, DEFAULT_LIMITS } from "./core/limits.js";

/** An hour: whoever waits longer has stopped working. */
const MS_MAX = 3600_000;
const COUNT_MAX = 2 ** 40;

const hostField = z.string().min(1).max(253);
const portField = z.number().int().min(1).max(65535);
/** A port to listen on; 0 takes any free one, which only fits a server nobody has to find. */
const listenField = z.number().int().min(0).max(65535);
const idField = z.string().regex(/^[A-Za-z0-9_-]{1,16}$/, "1 to 16 letters, digits, - or _");

/** Bounds of the core as one object of the file: those in ms under `timings`, the others under `limits`. */
function boundFields(inMilliseconds: boolean) {
  const fields: Record<string, z.ZodOptional<z.ZodNumber>> = {};
  for (const name of Object.keys(DEFAULT_LIMITS)) {
    if (name.endsWith("Ms") !== inMilliseconds) continue;
    const low = z
      .number()
      .int()
      .min(inMilliseconds ? 1 : 0);
    fields[name] = low.max(inMilliseconds ? MS_MAX : COUNT_MAX).optional();
  }
  return fields;
}

const configSchema = z.strictObject({
  /** This server's name, one of `servers`. */
  id: idField,
  /** The two names of the pair, in the order the controller's configuration has them. */
  servers: z.tuple([idField, idField]),
  /** Where the data, the log, the identity and the set-aside files are kept. */
  dir: z.string().min(1),
  /** Address this server listens on. */
  host: hostField.default("127.0.0.1"),
  controller: z.strictObject({
    host: hostField,
    /** Where the controller waits for its servers. */
    linkPort: portField,
    /** Where clients should go; named in the errors of the local port. */
    clientPort: portField,
  }),
  peer: z.strictObject({ host: hostField, port: portField }),
  /** Where this server waits for its peer. */
  peerPort: listenField,
  /** Where this server answers the controller's polls. */
  udpPort: listenField,
  /** Serial line from the controller: a second path for its polls. */
  serial: z
    .strictObject({
      /** The device, as /dev/ttyS0, /dev/ttyUSB0 or a pseudo terminal. */
      path: z.string().regex(/^\//, "the path of a device, from /"),
      baud: z.number().int().min(1200).max(4000000).default(115200),
    })
    .optional(),
  /** RESP port of this server alone, for programs on the same machine; 0: none. */
  localPort: listenField.default(0),
  /** Address of that port. Whoever reaches it needs no controller, so it is this machine's own unless somebody says otherwise. */
  localHost: hostField.default("127.0.0.1"),
  /** The pair's key in hex, 16 to 64 bytes; or a file that holds it. */
  key: z
    .string()
    .regex(/^([0-9a-fA-F]{2}){16,64}$/, "16 to 64 bytes in hex digits")
    .optional(),
  keyFile: z.string().min(1).optional(),
  durability: z.enum(["disk", "memory"]).default("disk"),
  /** The preset server is primary when both servers were up before the controller. */
  preset: z.boolean().default(false),
  /** What AUTH must give at the local port; "" for none. */
  localPassword: z.string().max(512).default(""),
  /** Log file; without it the log goes to standard error. */
  log: z.string().min(1).optional(),
  /** Largest the store may grow; 0: as large as the disk. @unit bytes */
  storeBytesMax: z.number().int().min(0).max(COUNT_MAX).default(0),
  limits: z.strictObject(boundFields(false)).default({}),
  timings: z.strictObject(boundFields(true)).default({}),
});

export type AgentFile = z.infer<typeof configSchema>;

export interface AgentSettings extends AgentFile {
  /** Every bound of the core, with what the file sets. */
  bounds: AgentLimits;
  /** 0 or 1: place of `id` in `servers`. */
  index: 0 | 1;
  peerId: string;
  pairKey: Uint8Array;
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

/** The known name nearest to a misspelled one, or undefined when none is near. */
export function nearestName(name: string, known: string[]): string | undefined {
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
  for (const step of path) {
    while (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) {
      schema = schema.unwrap();
    }
    if (!(schema instanceof z.ZodObject)) return [];
    schema = (schema.shape as Record<string, unknown>)[String(step)];
  }
  while (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional)
    schema = schema.unwrap();
  return schema instanceof z.ZodObject ? Object.keys(schema.shape as object) : [];
}

function valueAt(raw: unknown, path: PropertyKey[]): unknown {
  let value = raw;
  for (const step of path) {
    if (value === null || typeof value !== "object") return undefined;
    value = (value as Record<PropertyKey, unknown>)[step];
  }
  return value;
}

function describeIssue(issue: z.core.$ZodIssue, raw: unknown): string {
  const field = issue.path.map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    const known = fieldsAt(issue.path);
    const lines = issue.keys.map((key) => {
      const place = field === "" ? key : `${field}.${key}`;
      const near = nearestName(key, known);
      return (
        `unknown field "${place}"` +
        (near === undefined ? `; allowed here: ${known.join(", ")}` : `; did you mean "${near}"?`)
      );
    });
    return lines.join("\n  ");
  }
  const found = valueAt(raw, issue.path);
  if (found === undefined) return `field "${field}" is missing (${issue.message})`;
  // A key is a secret even when it is wrong.
  const shown = field === "key" ? "(not shown)" : JSON.stringify(found);
  return `field "${field}" is ${shown}: ${issue.message}`;
}

/**
 * Checks a parsed configuration.
 * @throws ConfigError naming the file and every wrong field
 */
export function parseConfig(raw: unknown, file: string): AgentSettings {
  const result = configSchema.safeParse(raw);
  if (!result.success) {
    const lines = result.error.issues.map((issue) => describeIssue(issue, raw));
    throw new ConfigError(`${file} cannot be used:\n  ${lines.join("\n  ")}`);
  }
  const config = result.data;
  function fail(text: string): never {
    throw new ConfigError(`${file} cannot be used:\n  ${text}`);
  }
  if (config.servers[0] === config.servers[1]) {
    fail(`field "servers" names "${config.servers[0]}" twice; the two servers need two names`);
  }
  const index = config.servers.indexOf(config.id);
  if (index < 0) {
    fail(`field "id" is "${config.id}"; allowed: one of "servers" (${config.servers.join(", ")})`);
  }
  const base = dirname(file);
  const place = (path: string): string => (isAbsolute(path) ? path : resolve(base, path));
  config.dir = place(config.dir);
  if (config.log !== undefined) config.log = place(config.log);
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
    if (!/^([0-9a-fA-F]{2}){16,64}$/.test(keyText!)) {
      fail(`field "keyFile": ${keyFile} must hold 16 to 64 bytes in hex digits`);
    }
  }
  let bounds: AgentLimits;
  try {
    bounds = agentLimits({ ...config.limits, ...config.timings });
  } catch (error) {
    return fail(`"limits" and "timings" do not fit together: ${(error as Error).message}`);
  }
  return {
    ...config,
    bounds,
    index: index as 0 | 1,
    peerId: config.servers[1 - index]!,
    pairKey: new Uint8Array(Buffer.from(keyText!, "hex")),
  };
}

/**
 * Reads and checks a configuration file; relative paths in it are relative to the file.
 * @throws ConfigError when it cannot be read, is not JSON, or a field is wrong
 */
export function readConfig(file: string): AgentSettings {
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
