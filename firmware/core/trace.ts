/**
 * The black box: the last events of the controller in a typed ring, oldest overwritten first.
 *
 * An entry is a time, a code, a server (or none) and a short text, in parallel arrays, so that the ring
 * takes a fixed amount of memory and can be read after anything that went wrong.
 */

export const LEVEL_DEBUG = 0;
export const LEVEL_INFO = 1;
export const LEVEL_WARN = 2;
export const LEVEL_ERROR = 3;

export const LEVEL_NAMES: ("debug" | "info" | "warn" | "error")[] = [
  "debug",
  "info",
  "warn",
  "error",
];

/** Texts are cut to this, so that one peer's words cannot fill the ring. @unit characters */
const TEXT_MAX = 160;

export interface Trace {
  add(now: number, level: number, event: string, text: string): void;
  /** Entries added since the start; the ring holds the last of them. */
  count(): number;
  /** @param back 0 is the newest. @returns one line for people, "" when there is no such entry */
  line(back: number, minLevel: number): string;
  size(): number;
}

/** `12.345` for 12345 ms. */
export function seconds(ms: number): string {
  const whole = Math.floor(ms / 1000);
  const rest = Math.floor(ms) - whole * 1000;
  return whole + "." + (rest < 10 ? "00" : rest < 100 ? "0" : "") + rest;
}

export function createTrace(entries: number): Trace {
  const at = new Float64Array(entries);
  const levels = new Uint8Array(entries);
  const events: string[] = [];
  const texts: string[] = [];
  let added = 0;
  for (let i = 0; i < entries; i++) {
    events.push("");
    texts.push("");
  }

  function add(now: number, level: number, event: string, text: string): void {
    const slot = added % entries;
    at[slot] = now;
    levels[slot] = level;
    events[slot] = event;
    texts[slot] = text.length > TEXT_MAX ? text.substring(0, TEXT_MAX) : text;
    added++;
  }

  function count(): number {
    return added;
  }

  function line(back: number, minLevel: number): string {
    if (back < 0 || back >= entries || back >= added) return "";
    const slot = (added - 1 - back) % entries;
    if (levels[slot]! < minLevel) return "";
    const text = texts[slot]!;
    const level = levels[slot]!;
    const mark = level >= LEVEL_ERROR ? "!! " : level === LEVEL_WARN ? "! " : "";
    return seconds(at[slot]!) + " " + mark + events[slot]! + (text === "" ? "" : ": " + text);
  }

  function size(): number {
    return entries;
  }

  return { add: add, count: count, line: line, size: size };
}
