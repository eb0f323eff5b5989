/** The puppet on Espruino; the build of the test puts the port in. */
import { openConsole } from "../../../hal/espruino/console.js";
import { openDigital } from "../../../hal/espruino/digital.js";
import type { EngineSerial, EngineUtilities } from "../../../hal/espruino/engine.js";
import { openFlash } from "../../../hal/espruino/flash.js";
import { espruinoHardware } from "../../../hal/espruino/hardware.js";
import { listenTcp } from "../../../hal/espruino/tcp.js";
import { mendTypedArraySlice } from "../../../hal/espruino/typed-array-slice.js";
import { startWatchdog } from "../../../hal/espruino/watchdog.js";
import { startPuppet } from "./puppet.js";

declare const CONTROL_PORT: number;
declare const E: EngineUtilities;
declare const USB: EngineSerial;
declare const print: (text: string) => void;

const SLOTS = 4;
const RECORD_BYTES = 40;
const WATCHDOG_SECONDS = 5;

mendTypedArraySlice();
// The Linux build has no such hardware: what the HAL asks of it is counted where the test sees it.
E.enableWatchdog = (seconds, isAuto) => print("<watchdog " + seconds + " " + isAuto + ">");
E.kickWatchdog = () => print("<kick>");
startPuppet(
  {
    hardware: espruinoHardware(0),
    listen: (options, done) => done(listenTcp(options)),
    crc32: (bytes, start, end) => E.CRC32(bytes.subarray(start, end)) >>> 0,
    openFlash: () => openFlash(SLOTS, RECORD_BYTES),
    openSerial: undefined,
    openConsole: (options) => openConsole(USB, 0, options),
    startWatchdog: () => startWatchdog(WATCHDOG_SECONDS, 0),
    openDigital: openDigital,
  },
  CONTROL_PORT,
  1,
  () => print("UP"),
);
