/**
 * The console on Espruino: the line on which the interpreter itself talks becomes the controller's.
 *
 * The interpreter's own prompt is moved aside. Ctrl-C brings it back, which is also how flashing tools begin.
 */
import type { Console, ConsoleOptions } from "../hal.js";
import type { EngineSerial } from "./engine.js";

declare const LoopbackA: EngineSerial;

/** Longer lines are nobody's typing. @unit characters */
const LINE_MAX = 200;
const CTRL_C = "\x03";
const BACKSPACE = "\x08";
const DELETE = "\x7f";

/** @param device the serial device that carries the console (`USB`, `Serial1`) */
export function openConsole(device: EngineSerial, options: ConsoleOptions): Console {
  let line = "";
  let open = true;

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
        device.write("\r\n");
        if (whole !== "") options.onLine(whole);
      } else if (character === BACKSPACE || character === DELETE) {
        line = line.substring(0, line.length - 1);
        device.write("\b \b");
      } else if (line.length < LINE_MAX) {
        line += character;
        device.write(character);
      }
    }
  });
  LoopbackA.setConsole(true);
  return {
    write: (text) => {
      if (open) device.write(text.split("\n").join("\r\n"));
    },
    close: close,
  };
}
