/** A built board's constants with what a pair's own configuration says in their places. */
import { lookup } from "node:dns/promises";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { checkLimits } from "./core/limits.js";
import type { Limits } from "./core/limits.js";
import type { Timings } from "./core/config.js";
import type { ControllerSettings } from "./node-config.js";
import { EXIT_CONFIG, EXIT_FAULT } from "./node-program.js";
import type { Fail, Ports } from "./node-program.js";

/** What the build leaves beside the bundle of a board whose constants it has not baked in (bin/board/build-board.mjs). */
export interface BoardFile {
  /** Where each constant stands, in the order in which the firmware reads them. */
  paths: string[];
  values: unknown[];
  hardware: { memoryBytes: number; storageBytes: number; consoleDevice: string };
}

/**
 * Ends the program where the configuration asks for serial lines: a virtual board and an interpreter on the desk have none,
 * and a line that is only believed to be there is worse than none.
 */
export function refuseLines(settings: ControllerSettings, fail: Fail): void {
  const field = settings.servers.some(({ serial }) => serial !== undefined)
    ? "serial"
    : settings.clientLine !== undefined
      ? "clientLine"
      : "";
  if (field === "") return;
  fail(
    EXIT_CONFIG,
    `${settings.file}: "${field}": serial lines are not for this home; a Node controller has them (--controller node)`,
  );
}

/** A file of the build, beside the running program. Ends the program where there is none. */
export function readBuilt(name: string, fail: Fail): string {
  const path = fileURLToPath(new URL(name, import.meta.url));
  if (!existsSync(path)) fail(EXIT_FAULT, `${path} is missing: npm run build makes it`);
  return readFileSync(path, "latin1");
}

/** What the configuration file itself says: of what it leaves out, the board's own values hold. */
function given(file: string): { timings?: Partial<Timings>; limits?: Partial<Limits> } {
  return JSON.parse(readFileSync(file, "utf8")) as {
    timings?: Partial<Timings>;
    limits?: Partial<Limits>;
  };
}

/**
 * @param more constants of this home, by their place
 * @returns the values in the order of `built.paths`; a configuration that does not fit ends the program
 */
export async function constantsOf(
  built: BoardFile,
  settings: ControllerSettings,
  ports: Ports,
  fail: Fail,
  more: [string, unknown][] = [],
): Promise<unknown[]> {
  const own = new Map<string, unknown>([
    ["key", [...settings.key]],
    ["clientKey", settings.clientKey === undefined ? null : [...settings.clientKey]],
    ["clientPassword", settings.clientPassword ?? null],
    ["balancing", settings.balancing],
    ["redisPort", ports.redis],
    ["nativePort", ports.native],
    ["linkPort", ports.link],
    ...more,
  ]);
  for (const [i, server] of settings.servers.entries()) {
    own.set(`servers.${i}.id`, server.id);
    // A chip asks no name server.
    own.set(`servers.${i}.host`, (await lookup(server.host, 4)).address);
    own.set(`servers.${i}.udpPort`, server.udpPort);
    own.set(`servers.${i}.preset`, server.preset);
  }
  const { timings, limits } = given(settings.file);
  for (const [group, values] of Object.entries({ timings, limits })) {
    for (const [name, value] of Object.entries(values ?? {})) own.set(`${group}.${name}`, value);
  }
  const constants = built.paths.map((path, i) => (own.has(path) ? own.get(path) : built.values[i]));
  const group = (name: string): object =>
    Object.fromEntries(
      built.paths.flatMap((path, i) =>
        path.startsWith(`${name}.`) ? [[path.slice(name.length + 1), constants[i]]] : [],
      ),
    );
  try {
    checkLimits(group("timings") as Timings, group("limits") as Limits);
  } catch (error) {
    fail(
      EXIT_CONFIG,
      `${settings.file}: "timings" and "limits" do not fit together: ${(error as Error).message}`,
    );
  }
  return constants;
}
