/**
 * Writing to a UART of Espruino without waiting for it.
 *
 * The engine's write stops the whole loop once its small buffer is full: four lines at 9600 baud would stop the
 * controller for a third of a second. So text is handed over in pieces, each when the one before has left.
 */
import type { EngineSerial } from "./engine.js";

declare const getTime: () => number;

/** What a board's buffer surely takes; the smallest has 128. @unit characters */
const PIECE = 64;
/** Start bit, eight, stop bit. */
const BITS = 10;

export interface PacedLine {
  /** Takes all of it or nothing. @returns false when there is no room */
  write(text: string): boolean;
}

/**
 * @param baud the line's speed; 0: no UART, it takes whatever it is given
 * @param waitingMax text that may wait @unit characters
 * @param onDrained everything has left, after something had to wait; undefined: nobody asks, which saves a timer a write
 */
export function createPacedLine(
  device: EngineSerial,
  baud: number,
  waitingMax: number,
  onDrained: (() => void) | undefined,
): PacedLine {
  let waiting = "";
  let busy = false;
  /** When what no timer waits for has left. @unit s */
  let leftAt = 0;

  function later(ms: number): void {
    busy = true;
    setTimeout(next, ms);
  }

  function next(): void {
    busy = false;
    if (waiting === "" && onDrained !== undefined) onDrained();
    if (waiting === "") return;
    const piece = waiting.substring(0, PIECE);
    waiting = waiting.substring(PIECE);
    device.write(piece);
    const ms = (piece.length * BITS * 1000) / baud;
    if (waiting === "" && onDrained === undefined) leftAt = getTime() + ms / 1000;
    else later(ms);
  }

  return {
    write: (text) => {
      if (baud === 0) {
        device.write(text);
        return true;
      }
      if (waiting.length + text.length > waitingMax) return false;
      waiting += text;
      if (busy) return true;
      const ms = onDrained === undefined ? (leftAt - getTime()) * 1000 : 0;
      if (ms > 0) later(ms);
      else next();
      return true;
    },
  };
}
