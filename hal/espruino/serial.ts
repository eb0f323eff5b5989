/**
 * A serial line on Espruino: one of the engine's UARTs.
 *
 * What does not fit into the room for what waits is refused, since an old poll is worth nothing.
 */
import type { Serial, SerialOptions } from "../hal.js";
import type { EnginePin, EngineSerial, EngineSerialSetup, EngineUtilities } from "./engine.js";
import { createPacedLine } from "./paced-line.js";

declare const E: EngineUtilities;
declare const global: { [name: string]: unknown };

/** Two of the largest frames, every byte of them escaped. @unit characters */
const WAITING_MAX = 2400;

/** @throws Error of the engine when the board has no such port, or it cannot be on these pins */
export function openSerial(options: SerialOptions): Serial {
  const device = global[options.device] as EngineSerial;
  const setup: EngineSerialSetup = {};
  if (options.tx !== undefined) setup.tx = global[options.tx] as EnginePin;
  if (options.rx !== undefined) setup.rx = global[options.rx] as EnginePin;
  if (options.path !== undefined) setup.path = options.path;
  let chunk: Uint8Array | undefined = undefined;
  let open = true;
  device.setup(options.baud, setup);
  const line = createPacedLine(device, options.baud, WAITING_MAX, undefined);
  const ordinary = (data: string): void => {
    if (!open) return;
    chunk = new Uint8Array(E.toArrayBuffer(data));
    options.onReadable(chunk.length);
    chunk = undefined;
  };
  // Whoever taps a line never closes it.
  device.on(
    "data",
    options.tap === undefined ? ordinary : options.tap({ write: line.write, ordinary: ordinary }),
  );
  return {
    read: () => chunk,
    write: (bytes) => open && line.write(E.toString(bytes)),
    close: () => {
      open = false;
    },
  };
}
