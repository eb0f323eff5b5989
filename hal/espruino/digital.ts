/** A pin of an Espruino board. */
import type { Digital, DigitalOptions } from "../hal.js";

declare const global: { [name: string]: unknown };
declare function digitalWrite(pin: unknown, value: number): void;
declare function digitalRead(pin: unknown): number;
declare function pinMode(pin: unknown, mode: string): void;

/** @throws when the board has no such pin */
export function openDigital(options: DigitalOptions): Digital {
  const pin = global[options.pin];
  if (pin === undefined) throw new Error("this board has no pin " + options.pin);
  // The level comes first: a pin made an output shows at once what it was last told.
  if (options.mode === "output") digitalWrite(pin, options.initialValue === 1 ? 1 : 0);
  pinMode(pin, options.mode);
  return {
    read: () => (digitalRead(pin) ? 1 : 0),
    write: (value) => digitalWrite(pin, value),
  };
}
