/** The agent's log: JSON lines, written before the call returns so that a crash's last words are there. */
import { mkdirSync, renameSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { destination, pino } from "pino";

const LOG_BYTES_KEPT = 16 * 1024 * 1024;
/** A fault that repeats must not fill the disk: beyond this an event is counted, not written. */
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
 * @param show says errors on standard error too, for whoever started this program
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
  return {
    note(level, event, details) {
      const nowMs = clockMs();
      if (nowMs - windowAtMs >= WINDOW_MS) {
        if (skipped > 0) logger.warn({ event: "log-skipped", count: skipped });
        windowAtMs = nowMs;
        written = 0;
        skipped = 0;
      }
      if (written >= EVENTS_PER_WINDOW && level !== "error") {
        skipped += 1;
        return;
      }
      written += 1;
      logger[level]({ event, ...details });
      if (show && path !== undefined && level === "error" && shown < SHOWN_MAX) {
        shown += 1;
        process.stderr.write(`dyad agent: ${event} ${JSON.stringify(details ?? {})}\n`);
      }
    },
  };
}
