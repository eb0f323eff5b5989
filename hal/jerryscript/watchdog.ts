/**
 * The kernel's watchdog device: once it is open the machine restarts when nobody writes to it in time. How long that is
 * the driver knows (15 s on a Raspberry Pi); IoT.js cannot set it.
 */
import type { Watchdog } from "../hal.js";
import { bufferOf } from "./bytes.js";
import type { EngineFs } from "./engine.js";

declare const engineRequire: (name: string) => unknown;

/** @param device "": none @throws when the device cannot be opened */
export function startWatchdog(device: string): Watchdog {
  if (device === "") return { kick: () => "" };
  const fs = engineRequire("fs") as EngineFs;
  const file = fs.openSync(device, "r+");
  // Anything but a "V", which would say goodbye.
  const kick = bufferOf(new Uint8Array(1), 1);
  return {
    kick: () => {
      fs.writeSync(file, kick, 0, 1, null);
      return "";
    },
  };
}
