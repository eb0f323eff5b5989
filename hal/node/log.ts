/** The controller's log: JSON lines, written before the call returns so that a crash's last words are there. */
import { mkdirSync, renameSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { destination, pino } from "pino";

const LOG_BYTES_KEPT = 16 * 1024 * 1024;
/** A fault that repeats must not fill the disk: beyond this an event is counted, not written. */
const EVENTS_PER_WINDOW = 200;
const WINDOW_MS = 10000;

export interface Log {
  note(
    level: "debug" | "info" | "warn" | "error",
    event: string,
    details: object | undefined,
  ): void;
}

/** @param path undefined: standard error */
export function openLog(path: string | undefined, clockMs: () => number): Log {
  if (path !== undefined) {
    mkdirSync(dirname(path), { recursive: true });
    try {
      if (statSync(path).size > LOG_BYTES_KEPT) renameSync(path, `${path}.1`);
    } catch {
      // There is no log yet.
    }
  }
  const out = destination({ dest: path ?? 2, sync: true });
  // A full disk must not end the one that keeps the pair together.
  out.on("error", () => undefined);
  const logger = pino({ base: { node: "controller", pid: process.pid }, level: "info" }, out);
  let windowAtMs = -Infinity;
  let written = 0;
  let skipped = 0;
  return {
    note(level, event, details) {
      if (level === "debug") return;
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
    },
  };
}
