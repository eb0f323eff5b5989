/**
 * Writing to a UART of Espruino without waiting for it.
 *
 * The engine's write stops the whole loop once its small buffer is full: four lines at 9600 baud would stop the
 * controller for a third of a second. So text is handed over in pieces, each when the one before has left.
 */
import type { EngineSerial } from "./engine.js";

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
 * @param onDrained everything has left, after something had to wait
 */
export function createPacedLine(
  device: EngineSerial,
  baud: number,
  waitingMax: number,
  onDrained: () => void,
): PacedLine {
  let waiting = "";
  let busy = false;

  function next(): void {
    busy = false;
    if (waiting === "") onDrained();
    if (waiting === "") return;
    const piece = waiting.substring(0, PIECE);
    waiting = waiting.substring(PIECE);
    busy = true;
    device.write(piece);
    setTimeout(next, (piece.length * BITS * 1000) / baud);
  }

  return {
    write: (text) => {
      if (baud === 0) {
        device.write(text);
        return true;
      }
      if (waiting.length + text.length > waitingMax) return false;
      waiting += text;
      if (!busy) next();
      return true;
    },
  };
}
