/** When a board with a network chip restarts because nobody is heard (firmware/chip-loop.ts). */
import { expect, test } from "vitest";
import { createChipLoop } from "../../firmware/chip-loop.js";
import type { ControllerCore } from "../../firmware/core/core.js";
import type { Hardware, Serial } from "../../hal/hal.js";

const SILENCE_MS = 60_000;

/** A board whose servers are as silent as the test wants. */
function board(silenceMs = SILENCE_MS) {
  let now = 1000;
  let wake = (): void => undefined;
  const resets: string[] = [];
  let heardBy: (bytes: Uint8Array) => void = () => undefined;
  let onLine: (count: number) => void = () => undefined;
  const line = { read: () => new Uint8Array(4), write: () => true, close: () => undefined };
  const core = {
    start: () => undefined,
    tick: (at: number) => at + 1000,
    wantsTick: () => false,
  } as object;
  for (const name of ["onHeartbeat", "onSerial"] as const) {
    Object.assign(core, { [name]: () => undefined });
  }
  const place = { device: "Serial1", baud: 9600 };
  const loop = createChipLoop({
    hardware: {
      createTurns: (options: { wake(): void }) => {
        wake = options.wake;
        return { now: () => now, wakeIn: () => undefined, requestEndOfTurn: () => undefined };
      },
      createDatagram: (options: { onReadable(bytes: Uint8Array): void }) => {
        heardBy = options.onReadable;
        return { write: () => undefined, close: () => undefined };
      },
    } as unknown as Hardware,
    flash: { content: { kind: "blank" }, write: () => undefined } as never,
    watchdog: { kick: () => "" },
    servers: [
      { host: "a", udpPort: 1, line: place },
      { host: "b", udpPort: 2, line: place },
    ],
    openSerial: (options) => {
      onLine = (count) => options.onReadable(count);
      return line as unknown as Serial;
    },
    fenceLines: undefined,
    readBytes: 1024,
    createCore: () => core as ControllerCore,
    note: () => undefined,
    silenceMs,
    onReset: (reason) => resets.push(reason),
  });
  loop.start();
  return {
    resets,
    /** @param each done every second */
    pass(seconds: number, each: () => void = () => undefined): void {
      for (let i = 0; i < seconds && resets.length === 0; i++) {
        now += 1000;
        each();
        wake();
      }
    },
    network: () => heardBy(new Uint8Array(4)),
    serial: () => onLine(4),
  };
}

test("nobody is heard on any path: after the configured time", () => {
  const it = board();
  it.pass(50);
  it.network();
  it.pass(60);
  expect(it.resets).toEqual([]);
  it.pass(5);
  expect(it.resets).toEqual(["nobody was heard for 61 s"]);
});

test("a serial line lives: ten times as long, and then once, since the network's chip may have died", () => {
  const it = board();
  it.pass(590, it.serial);
  expect(it.resets).toEqual([]);
  it.pass(20, it.serial);
  expect(it.resets).toEqual(["nobody was heard on the network for 601 s"]);
});

test("the lines fall silent too: at once, where the network has been silent for long", () => {
  const it = board();
  it.pass(300, it.serial);
  it.pass(59);
  expect(it.resets).toEqual([]);
  it.pass(5);
  expect(it.resets).toEqual(["nobody was heard for 361 s"]);
});

test("without a network chip never", () => {
  const it = board(0);
  it.pass(2000);
  expect(it.resets).toEqual([]);
});
