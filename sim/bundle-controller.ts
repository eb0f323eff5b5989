/**
 * The controller's bundle in the virtual world: the very text that a board runs, in a virtual board whose sockets,
 * datagrams, flash and clock are the world's.
 *
 * A turn of the machine hands events in one by one, as the engine's idle loop does; while a flash write lasts the board stands
 * still and what comes meanwhile waits. Its console is heard for what the controller says of itself.
 */
import { createHash } from "node:crypto";
import { crc32 as zlibCrc32 } from "node:zlib";
import type { ConnectionKind } from "../firmware/core/core.js";
import { CHUNK_BYTES, VirtualBoard } from "../hal/virtual-board/board.js";
import type { BoardHost, FaultKind } from "../hal/virtual-board/board.js";
import type { BoardFlash } from "./board-flash.js";
import { SERIAL_NUMBER } from "./board-flash.js";
import type { Controller } from "./controller-program.js";
import { ControllerEvents } from "./controller-events.js";
import type { Firmware } from "./firmware.js";
import type { Flash } from "./world/flash.js";
import type { Machine } from "./world/machine.js";
import type { End, Network } from "./world/network.js";

export const LINK_PORT = 6382;
export const REDIS_PORT = 6380;
export const NATIVE_PORT = 6381;
/** No client is on a serial line here. */
const PORTS: Record<Exclude<ConnectionKind, "line">, number> = {
  server: LINK_PORT,
  redis: REDIS_PORT,
  native: NATIVE_PORT,
};
const CONSOLE = "USB";
/** Timers of one turn that set each other at once. */
const TIMERS_MAX = 32;
/** The engine asks every ten thousand steps or so: an event that takes longer than this is endless. */
const ASKED_MAX = 3000;

/** Where a server answers polls, as the board's constants say. */
export function addressOf(server: number): { host: string; port: number } {
  return { host: `10.0.0.${server + 1}`, port: 6383 + server };
}

export class BundleController implements Controller, BoardHost {
  private readonly board: VirtualBoard;
  private readonly events: ControllerEvents;
  private readonly listeners = new Map<number, number>();
  /** The network's handles come again while events of an earlier connection may still wait: the firmware gets numbers. */
  private readonly ends = new Map<number, End>();
  private readonly numberOf: number[] = [];
  private numbers = 0;
  private readonly written = new Set<number>();
  private later: (() => void)[] = [];
  private asked = 0;
  private line = "";
  private heard: string[] | undefined;
  private lastWords = "";
  private gone = false;

  constructor(
    private readonly machine: Machine,
    private readonly network: Network,
    private readonly servers: Machine[],
    private readonly flash: Flash,
    private readonly boardFlash: BoardFlash,
    firmware: Firmware,
    private readonly onReset: (reason: string) => void,
    private readonly onBroken: (reason: string) => void,
    onEvent: (event: string) => void,
  ) {
    this.events = new ControllerEvents(machine, onEvent);
    const storage = boardFlash.boot();
    boardFlash.onDone = () => this.machine.post(() => this.goOn());
    this.board = new VirtualBoard({
      module: firmware.engine,
      memoryBytes: firmware.memoryBytes,
      serialNumber: SERIAL_NUMBER,
      storage,
      host: this,
      compiled: firmware.compiled,
    });
    this.board.boot();
  }

  // --- Program ---

  onOpen(handle: number, port: string): void {
    const number = ++this.numbers;
    this.numberOf[handle] = number;
    this.ends.set(number, this.machine.ends[handle]!);
    this.hand(() => {
      const listener = this.listeners.get(PORTS[port as keyof typeof PORTS]);
      if (listener === undefined) this.abort(number);
      else this.board.connection(listener, number);
    });
  }

  onDialFailed(): void {}

  onBytes(handle: number, bytes: Uint8Array, start: number, end: number): void {
    const number = this.numberOf[handle]!;
    // The world hands out its buffer again at once, and this may have to wait.
    const copy = bytes.slice(start, end);
    this.hand(() => this.data(number, copy));
  }

  private data(number: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length && !this.gone; at += CHUNK_BYTES) {
      if (this.boardFlash.isBusy) {
        // A flash write began in the middle of it.
        const rest = bytes.subarray(at);
        this.later.unshift(() => this.data(number, rest));
        return;
      }
      this.board.data(number, bytes.subarray(at, at + CHUNK_BYTES));
    }
  }

  onDrained(handle: number): void {
    const number = this.numberOf[handle]!;
    this.hand(() => this.board.drain(number));
  }

  onClosed(handle: number): void {
    const number = this.numberOf[handle]!;
    this.hand(() => {
      this.ends.delete(number);
      this.board.closed(number, "");
    });
  }

  onDatagram(from: Machine, bytes: Uint8Array): void {
    const { host, port } = addressOf(from.index);
    const copy = bytes.slice();
    this.hand(() => this.board.datagram(1, copy, port, host));
  }

  /** The engine does not report it. */
  onDatagramRefused(): void {}

  /** The bundle has no serial lines yet. */
  onSerial(): void {}

  endTurn(): number {
    if (this.boardFlash.isBusy || this.gone) return Infinity;
    const now = this.machine.localNow();
    for (let i = 0; i < TIMERS_MAX; i++) {
      if (this.board.dueAt < 0 || this.board.dueAt > now || this.boardFlash.isBusy) break;
      this.asked = 0;
      this.board.timers();
      if (this.gone) return Infinity;
    }
    if (this.written.size > 0) {
      // What was written leaves with this turn.
      this.machine.post(() => this.drains());
    }
    return this.board.dueAt < 0 || this.boardFlash.isBusy ? Infinity : this.board.dueAt;
  }

  onGone(): void {
    this.gone = true;
    this.board.powerOff();
    this.boardFlash.onDone = undefined;
    this.flash.crash();
  }

  /** The bundle's names for its counters are its own. */
  coverCounters(): void {}

  // --- the console ---

  console(line: string): string {
    if (this.boardFlash.isBusy || this.gone) return "";
    const heard: string[] = [];
    this.heard = heard;
    this.asked = 0;
    this.board.serial(
      CONSOLE,
      Uint8Array.from(`${line}\r`, (c) => c.charCodeAt(0)),
    );
    this.heard = undefined;
    // The line itself, character by character, and its end; notes that came meanwhile; the answer, each written at once.
    const notes = heard.slice(heard.indexOf("\r\n") + 1);
    const answer = notes.pop() ?? "";
    for (const note of notes) this.onText(note);
    return answer.replaceAll("\r", "").trimEnd();
  }

  status(): object {
    const said = this.console("status json");
    return said.startsWith("{") ? (JSON.parse(said) as object) : {};
  }

  /** Bytes of the board's memory in use. */
  memoryUsed(): number {
    return this.board.memoryUsed();
  }

  // --- turns ---

  private hand(event: () => void): void {
    if (this.gone) return;
    if (this.boardFlash.isBusy || this.later.length > 0) this.later.push(event);
    else {
      this.asked = 0;
      event();
    }
  }

  /** The flash write is done: what waited for it comes now, until the next one. */
  private goOn(): void {
    const waiting = this.later;
    this.later = [];
    while (waiting.length > 0 && !this.boardFlash.isBusy && !this.gone) {
      this.asked = 0;
      waiting.shift()!();
    }
    this.later = this.later.concat(waiting);
  }

  private drains(): void {
    const numbers = [...this.written];
    this.written.clear();
    for (const number of numbers) {
      // One that has a backlog is told of by the network.
      if (this.ends.get(number)?.backlog === 0) this.hand(() => this.board.drain(number));
    }
  }

  private onLine(line: string): void {
    const found = /^(\S+?)(?:: (.*))?$/.exec(line);
    if (found === null) return;
    const [, event, text] = found as unknown as [string, string, string | undefined];
    if (event === "reset") this.lastWords = text ?? "";
    const { world } = this.machine;
    world.trace.line(world.now, this.machine.name, line);
    this.events.note(event, text ?? "");
  }

  // --- BoardHost ---

  now(): number {
    return this.machine.localNow();
  }

  listen(port: number): number {
    const number = ++this.numbers;
    this.listeners.set(port, number);
    return number;
  }

  unlisten(): void {}

  send(socket: number, bytes: Uint8Array): void {
    this.ends.get(socket)?.write(bytes, 0, bytes.length);
    this.written.add(socket);
  }

  end(socket: number): void {
    this.ends.get(socket)?.close(false);
  }

  abort(socket: number): void {
    this.ends.get(socket)?.close(true);
  }

  openDatagram(): number {
    return 1;
  }

  sendDatagram(_datagram: number, bytes: Uint8Array, port: number): void {
    const server = this.servers[port - addressOf(0).port];
    if (server !== undefined) this.network.datagram(this.machine, server, bytes);
  }

  closeDatagram(): void {}

  serialSetup(): void {}

  serialWrite(device: string, bytes: Uint8Array): void {
    if (device !== CONSOLE && device !== "") return;
    const text = String.fromCharCode(...bytes);
    if (this.heard !== undefined) {
      this.heard.push(text);
      return;
    }
    this.onText(text);
  }

  private onText(text: string): void {
    const lines = (this.line + text.replaceAll("\r", "")).split("\n");
    this.line = lines.pop()!;
    for (const line of lines) if (line !== "") this.onLine(line);
  }

  pinWrite(): void {}

  pinRead(): boolean {
    return false;
  }

  crc32(bytes: Uint8Array): number {
    return zlibCrc32(bytes);
  }

  sha256(bytes: Uint8Array): Uint8Array {
    return createHash("sha256").update(bytes).digest();
  }

  isTooLong(): boolean {
    return ++this.asked > ASKED_MAX;
  }

  onFault(kind: FaultKind, reason: string): void {
    if (this.gone) return;
    if (kind === "reboot") this.onReset(this.lastWords);
    else this.onBroken(`${kind}: ${reason}`);
  }
}
