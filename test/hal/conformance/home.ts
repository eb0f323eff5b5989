/** One home's hardware as the conformance suite sees it: what hal/hal.ts promises, and how a test reaches it. */
import type {
  Console,
  ConsoleOptions,
  Digital,
  DigitalOptions,
  Flash,
  Hardware,
  Listener,
  ListenerOptions,
  Serial,
  SerialOptions,
  Watchdog,
} from "../../../hal/hal.js";

/** What a puppet needs of its home. Where a part is undefined the home has none. */
export interface Home {
  hardware: Hardware;
  /** Calls one of the two, now or later. */
  listen(
    options: ListenerOptions,
    done: (listener: Listener) => void,
    failed: (reason: string) => void,
  ): void;
  crc32(bytes: Uint8Array, start: number, end: number): number;
  openFlash: () => Flash;
  openSerial: ((options: SerialOptions) => Serial) | undefined;
  openConsole: ((options: ConsoleOptions) => Console) | undefined;
  startWatchdog: (() => Watchdog) | undefined;
  openDigital: ((options: DigitalOptions) => Digital) | undefined;
}
