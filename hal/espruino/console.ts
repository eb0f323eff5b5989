/**
 * The console on Espruino: the line on which the interpreter itself talks becomes the controller's.
 *
 * The interpreter's own prompt is moved aside. Ctrl-C brings it back, which is also how flashing tools begin.
 *
 * The engine's write to a UART waits, and the whole loop with it, once its small buffer is full: an answer of four
 * lines at 9600 baud would stop the controller for a third of a second. So text is handed over in pieces, each when
 * the one before has left.
 */
import type { Console, ConsoleOptions } from "../hal.js";
import type { EngineSerial } from "./engine.js";

declare const LoopbackA: EngineSerial;

/** Longer lines are nobody's typing. @unit characters */
const LINE_MAX = 200;
/** What a board's buffer surely takes; the smallest has 128, shared with the echo. @unit characters */
const PIECE = 64;
/** Start bit, eight, stop bit. */
const BITS = 10;
/** Text that may wait for the line; an answer has at most 64 lines. @unit characters */
const WAITING_MAX = 4096;
const CTRL_C = "\x03";
const BACKSPACE = "\x08";
const DELETE = "\x7f";

/**
 * @param device the serial device that carries the console (`USB`, `Serial1`)
 * @param baud its speed; 0: no UART, it takes whatever it is given
 */
export function openConsole(device: EngineSerial, baud: number, options: ConsoleOptions): Console {
  let line = "";
  let open = true;
  let waiting = "";
  let leftOut = 0;
  let busy = false;

  function next(): void {
    busy = false;
    if (waiting === "" && leftOut > 0) {
      waiting = "\r\n(" + leftOut + " characters left out)\r\n";
      leftOut = 0;
    }
    if (waiting === "" || !open) return;
    const piece = waiting.substring(0, PIECE);
    waiting = waiting.substring(PIECE);
    busy = true;
    device.write(piece);
    setTimeout(next, (piece.length * BITS * 1000) / baud);
  }

  function say(text: string): void {
    if (!open) return;
    if (baud === 0) device.write(text);
    else if (waiting.length + text.length > WAITING_MAX) leftOut += text.length;
    else waiting += text;
    if (!busy) next();
  }

  function close(): void {
    if (!open) return;
    open = false;
    device.setConsole(true);
  }

  device.on("data", (data) => {
    for (let i = 0; i < data.length && open; i++) {
      const character = data[i]!;
      if (character === CTRL_C) {
        close();
      } else if (character === "\r" || character === "\n") {
        const whole = line;
        line = "";
        say("\r\n");
        if (whole !== "") options.onLine(whole);
      } else if (character === BACKSPACE || character === DELETE) {
        line = line.substring(0, line.length - 1);
        say("\b \b");
      } else if (line.length < LINE_MAX) {
        line += character;
        say(character);
      }
    }
  });
  LoopbackA.setConsole(true);
  return {
    write: (text) => say(text.split("\n").join("\r\n")),
    close: close,
  };
}
