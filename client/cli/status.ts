/** What `dyad status` prints, and what its exit status says of the pair. */

export interface ServerStatus {
  id: string;
  role: string;
  up: boolean;
  inSync: boolean;
  /** null while it is not known. */
  lagEntries: number | null;
  loadPermille: number | null;
  serviceUs: number;
  inFlight: number;
}

export interface PairStatus {
  epoch: number;
  primary: string | null;
  /** null while there is no record. */
  mode: "both" | "solo" | null;
  servers: ServerStatus[];
  why: string;
  /** The controller's own word for what it is doing (docs/states.md). */
  state?: string;
}

/** States in which nobody may be sent a command; while a record is written or open commands drain it goes on at once. */
const STANDS_STILL = new Set(["off", "blank", "asking", "waiting", "dark", "stranded"]);

export const EXIT_REDUNDANT = 0;
export const EXIT_NOT_REDUNDANT = 1;
export const EXIT_CANNOT_SERVE = 2;

/** 0: any one server may fail now; 1: it serves, but not redundantly; 2: it cannot serve. */
export function statusExit(status: PairStatus): 0 | 1 | 2 {
  const primary = status.servers.find((server) => server.id === status.primary);
  if (primary === undefined || !primary.up) return EXIT_CANNOT_SERVE;
  if (status.state !== undefined && STANDS_STILL.has(status.state)) return EXIT_CANNOT_SERVE;
  const standby = status.servers.find((server) => server.id !== status.primary);
  if (status.mode !== "both" || standby === undefined) return EXIT_NOT_REDUNDANT;
  return standby.up && standby.inSync ? EXIT_REDUNDANT : EXIT_NOT_REDUNDANT;
}

/**
 * Reads the controller's answer to `status --json`.
 * @throws Error when it is none
 */
export function parseStatus(text: string): PairStatus {
  const value = JSON.parse(text) as PairStatus;
  if (typeof value.epoch !== "number" || !Array.isArray(value.servers)) {
    throw new Error(`not a status: ${text.slice(0, 80)}`);
  }
  return value;
}

/** The status as a person reads it. */
export function formatStatus(status: PairStatus): string {
  const lines: string[] = [];
  const words = ["redundant", "serving, but not redundant", "cannot serve"];
  lines.push(
    `${words[statusExit(status)]}: primary ${status.primary ?? "none"}, mode ${status.mode ?? "none"}, ` +
      `epoch ${status.epoch}`,
  );
  if (status.why !== "") lines.push(`why: ${status.why}`);
  lines.push("");
  lines.push("server  role     state        behind  load  service  in flight");
  for (const server of status.servers) {
    const state = !server.up ? "down" : server.inSync ? "in sync" : "out of sync";
    lines.push(
      [
        server.id.padEnd(6),
        server.role.padEnd(7),
        state.padEnd(11),
        String(server.lagEntries ?? "?").padStart(6),
        (server.loadPermille === null ? "?" : `${Math.round(server.loadPermille / 10)}%`).padStart(
          4,
        ),
        `${Math.round(server.serviceUs)} us`.padStart(7),
        String(server.inFlight).padStart(9),
      ].join("  "),
    );
  }
  return lines.join("\n");
}
