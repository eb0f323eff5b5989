/**
 * The console on Espruino: the line on which the interpreter itself talks becomes the controller's.
 *
 * The interpreter's own prompt is moved aside. Ctrl-C brings it back, which is also how flashing tools begin.
 */
import type { Console, ConsoleOptions } from "../hal.js";
import type { EngineSerial } from "./engine.js";
import { createPacedLine } from "./paced-line.js";

declare const LoopbackA: EngineSerial;

/** Longer lines are nobody's typing. @unit characters */
const LINE_MAX = 200;
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
  let leftOut = 0;
  const out = createPacedLine(device, baud, WAITING_MAX, () => {
    if (leftOut === 0) return;
    const count = leftOut;
    leftOut = 0;
    say("\r\n(" + count + " characters left out)\r\n");
  });

  function say(text: string): void {
    if (open && !out.write(text)) leftOut += text.length;
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
