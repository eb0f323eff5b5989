/** The console on Espruino: what a slow line cannot take at once waits outside the engine, which would block. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { openConsole } from "../../hal/espruino/console.js";
import type { EngineSerial } from "../../hal/espruino/engine.js";

const BAUD = 9600;
const BYTES_A_MS = BAUD / 10_000;

/** A UART with the engine's buffer: what goes in beyond it would stop the loop. */
class Uart implements EngineSerial {
  sent = "";
  mostHeld = 0;
  private held = 0;
  private at = 0;
  private listener: (data: string) => void = () => undefined;

  on(_event: string, listener: (data: string) => void): void {
    this.listener = listener;
  }

  write(data: string): void {
    const now = Date.now();
    this.held = Math.max(0, this.held - (now - this.at) * BYTES_A_MS) + data.length;
    this.at = now;
    this.mostHeld = Math.max(this.mostHeld, this.held);
    this.sent += data;
  }

  setConsole(): void {}
  setup(): void {}

  type(text: string): void {
    this.listener(text);
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("LoopbackA", { setConsole: () => undefined });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const ANSWER = `${Array.from({ length: 12 }, (_, i) => `${i} ${"x".repeat(70)}`).join("\n")}\n`;

test("an answer of 900 characters at 9600 baud never fills the engine's buffer, and comes whole", () => {
  const uart = new Uart();
  const terminal = openConsole(uart, BAUD, { onLine: () => terminal.write(ANSWER) });
  uart.type("status\n");
  vi.advanceTimersByTime(2000);
  expect(uart.sent).toBe(`status\r\n${ANSWER.replaceAll("\n", "\r\n")}`);
  expect(uart.mostHeld).toBeLessThan(128);
});

test("without a UART it is written at once", () => {
  const uart = new Uart();
  const terminal = openConsole(uart, 0, { onLine: () => terminal.write(ANSWER) });
  uart.type("status\n");
  expect(uart.sent).toContain("11 xxx");
});

test("what the line cannot take in time is left out and counted, and the rest goes on", () => {
  const uart = new Uart();
  const terminal = openConsole(uart, BAUD, { onLine: () => undefined });
  for (let i = 0; i < 20; i++) terminal.write(ANSWER);
  vi.advanceTimersByTime(20_000);
  expect(uart.sent.length).toBeLessThan(5000);
  expect(uart.sent).toMatch(/\r\n\(\d{4,} characters left out\)\r\n$/);
  terminal.write("later\n");
  vi.advanceTimersByTime(1000);
  expect(uart.sent.endsWith("later\r\n")).toBe(true);
});

test("a line is edited with backspace; Ctrl-C gives the console back and nothing more is said", () => {
  const uart = new Uart();
  const lines: string[] = [];
  const terminal = openConsole(uart, BAUD, { onLine: (line) => lines.push(line) });
  uart.type("statis\b\bus\r\n//remark\n");
  expect(lines).toEqual(["status", "//remark"]);
  vi.advanceTimersByTime(1000);
  const before = uart.sent;
  uart.type("\x03");
  terminal.write("too late\n");
  vi.advanceTimersByTime(1000);
  expect(uart.sent).toBe(before);
});
