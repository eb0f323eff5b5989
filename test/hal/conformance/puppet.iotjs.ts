/** The puppet on IoT.js; the build of the test puts the ports in. */
import { openConsole } from "../../../hal/jerryscript/console.js";
import { crc32 } from "../../../hal/jerryscript/crc32.js";
import type { EngineProcess } from "../../../hal/jerryscript/engine.js";
import { openFlash } from "../../../hal/jerryscript/flash.js";
import { jerryHardware } from "../../../hal/jerryscript/hardware.js";
import { openSerial } from "../../../hal/jerryscript/serial.js";
import { listenTcp } from "../../../hal/jerryscript/tcp.js";
import { startWatchdog } from "../../../hal/jerryscript/watchdog.js";
import type { Listener } from "../../../hal/hal.js";
import { startPuppet } from "./puppet.js";

declare const CONTROL_PORT: number;
declare const CONSOLE_PORT: number;
declare const process: EngineProcess;

const SLOTS = 4;

startPuppet(
  {
    hardware: jerryHardware(0),
    listen: (options, done, failed) => {
      let listener: Listener | undefined = undefined;
      try {
        listener = listenTcp(options);
      } catch (error) {
        failed("" + error);
        return;
      }
      done(listener);
    },
    crc32: crc32,
    openFlash: () => openFlash(process.cwd(), SLOTS),
    openSerial: openSerial,
    openConsole: (options) => openConsole("tcp:" + CONSOLE_PORT, options, () => undefined),
    startWatchdog: () => startWatchdog("watchdog"),
    openDigital: undefined,
  },
  CONTROL_PORT,
  1,
  () => console.log("UP"),
);
