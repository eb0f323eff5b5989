/** The agent's log: JSON lines, written before the call returns so that a crash's last words are there. */
import { mkdirSync, renameSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { destination, pino } from "pino";

const LOG_BYTES_KEPT = 16 * 1024 * 1024;
/** A fault that repeats must not fill the disk: the same line is written once in a window, and few at all. */
const EVENTS_PER_WINDOW = 200;
const WINDOW_MS = 10000;

export type Level = "debug" | "info" | "warn" | "error";

export interface Log {
  note(level: Level, event: string, details?: object): void;
}

/** Standard error may be a pipe that nobody reads, and a full one would stop the server. */
const SHOWN_MAX = 100;

/**
 * @param path undefined: standard error
 * @param show says warnings and errors on standard error too, for whoever started this program
 */
export function openLog(
  id: string,
  path: string | undefined,
  clockMs: () => number,
  show: boolean,
): Log {
  let shown = 0;
  if (path !== undefined) {
    mkdirSync(dirname(path), { recursive: true });
    try {
      if (statSync(path).size > LOG_BYTES_KEPT) renameSync(path, `${path}.1`);
    } catch {
      // There is no log yet.
    }
  }
  const logger = pino(
    { base: { server: id, pid: process.pid }, level: "info" },
    destination({ dest: path ?? 2, sync: true }),
  );
  let windowAtMs = -Infinity;
  let written = 0;
  let skipped = 0;
  let repeats = new Map<string, number>();
  return {
    note(level, event, details) {
      const nowMs = clockMs();
      if (nowMs - windowAtMs >= WINDOW_MS) {
        for (const [text, count] of repeats) {
          if (count > 0) logger.info({ event: "repeated", text, count });
        }
        if (skipped > 0) logger.warn({ event: "log-skipped", count: skipped });
        windowAtMs = nowMs;
        written = 0;
        skipped = 0;
        repeats = new Map();
      }
      const text = describe(event, details);
      const repeated = repeats.get(text);
      if (repeated !== undefined) {
        repeats.set(text, repeated + 1);
        return;
      }
      if (written >= EVENTS_PER_WINDOW && level !== "error") {
        skipped += 1;
        return;
      }
      written += 1;
      repeats.set(text, 0);
      logger[level]({ event, ...details });
      const forPeople = level === "error" || level === "warn";
      if (show && path !== undefined && forPeople && shown < SHOWN_MAX) {
        shown += 1;
        process.stderr.write(`dyad agent: ${text}\n`);
      }
    },
  };
}

/** An event as one line for a person. */
function describe(event: string, details: object | undefined): string {
  const words = Object.entries(details ?? {}).map(([name, value]) =>
    name === "text" || name === "reason" || name === "why"
      ? String(value)
      : `${name} ${JSON.stringify(value)}`,
  );
  return words.length === 0 ? event : `${event}: ${words.join(", ")}`;
}
