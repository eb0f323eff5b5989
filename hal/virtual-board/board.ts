/**
 * The virtual board: firmware in an engine of its own with a bound on its memory, behind Espruino's interface.
 *
 *     what happens outside ──> event ──> firmware ──> BoardHost: sockets, datagrams, serial lines, pins
 *                                 └── out of memory, endless loop, trap, reboot ──> onFault: power it off
 *
 * One VirtualBoard is one power cycle. Nothing of it outlives it but its Storage. What hosts it (real sockets, or a
 * virtual world's) brings events one at a time and calls `timers` when the next one is due.
 */
import {
  espruinoApi,
  EVENT_BOOT,
  EVENT_CLOSE,
  EVENT_CONNECTION,
  EVENT_DATA,
  EVENT_DATAGRAM,
  EVENT_DRAIN,
  EVENT_ERROR_FLAG,
  EVENT_PIN,
  EVENT_SERIAL,
  EVENT_TIMERS,
} from "./espruino-api.js";
import type { HostCalls } from "./espruino-api.js";
import { GuestFault, latin1, QuickJs } from "./quickjs.js";
import type { Operation } from "./quickjs.js";
import type { Storage } from "./storage.js";

/** The engine's own size of a read. @unit bytes */
export const CHUNK_BYTES = 536;
/** Deeper calls are an error in the program, as on a chip. @unit bytes */
const STACK_BYTES = 128 * 1024;
/** @unit bytes */
const COMPILER_BYTES = 64 * 1024 * 1024;
const BOOT_CODE = ".bootcde";
const NO_BYTES = new Uint8Array(0);

/** What ended a power cycle. */
export type FaultKind = "memory" | "hang" | "broken" | "reboot";

/** What is around the board. Numbers of listeners, sockets and datagram sockets are the host's. */
export interface BoardHost {
  /** @unit ms of a clock that only goes forward */
  now(): number;
  listen(port: number): number;
  unlisten(listener: number): void;
  send(socket: number, bytes: Uint8Array<ArrayBuffer>): void;
  end(socket: number): void;
  abort(socket: number): void;
  openDatagram(port: number): number;
  sendDatagram(datagram: number, bytes: Uint8Array<ArrayBuffer>, port: number, host: string): void;
  closeDatagram(datagram: number): void;
  serialSetup(device: string, baud: number, path: string): void;
  serialWrite(device: string, bytes: Uint8Array<ArrayBuffer>): void;
  pinWrite(pin: string, value: boolean): void;
  pinRead(pin: string): boolean;
  crc32(bytes: Uint8Array): number;
  sha256(bytes: Uint8Array): Uint8Array;
  /** Asked now and then while the firmware runs: true when this event has taken too long. */
  isTooLong(): boolean;
  /** The power cycle is over; nothing more comes from this board. Called last in an event, never inside one. */
  onFault(kind: FaultKind, reason: string): void;
}

export interface BoardOptions {
  module: WebAssembly.Module;
  /** What firmware and its state may take. @unit bytes */
  memoryBytes: number;
  serialNumber: string;
  storage: Storage;
  host: BoardHost;
  /** What has been compiled, shared by boards of one engine. */
  compiled: Map<string, Uint8Array>;
}

const API_TEXT = `(host) => (${espruinoApi.toString()})(host, globalThis, eval)`;

export class VirtualBoard {
  private readonly engine: QuickJs;
  private readonly host: BoardHost;
  private readonly storage: Storage;
  private entry = 0;
  private due = -1;
  private ended = false;
  private rebooting = false;
  private flagged = false;
  private inEvent = false;
  /** @unit ms, 0: none */
  watchdogMs = 0;
  private kickedAt = 0;
  private eventAt = 0;

  constructor(private readonly options: BoardOptions) {
    this.host = options.host;
    this.storage = options.storage;
    this.engine = new QuickJs({
      module: options.module,
      memoryBytes: options.memoryBytes,
      stackBytes: STACK_BYTES,
      isTooLong: () => this.rebooting || this.host.isTooLong(),
    });
  }

  /** Power on: runs what Storage holds for the boot. */
  boot(): void {
    this.guarded(() => {
      const make = this.engine.run(this.compiled("api", () => API_TEXT));
      this.entry = this.engine.call(make, [this.engine.hostObject(this.operations())]);
      this.engine.free(make);
    });
    this.event(EVENT_BOOT, 0, NO_BYTES, 0, "");
    if (!this.storage.has(BOOT_CODE)) return;
    this.guarded(() => {
      const stored = this.storage.read(BOOT_CODE);
      const key = `bootcde ${stored.length} ${this.host.crc32(stored)}`;
      const code = this.compiled(key, () => latin1(stored));
      this.engine.free(this.engine.run(code));
      this.engine.runJobs();
    });
    // What the firmware has put in its timers is asked for by an event.
    this.timers();
  }

  /** @param key tells one text from another @param text made only when it has not been compiled yet */
  private compiled(key: string, text: () => string): Uint8Array {
    let compiled = this.options.compiled.get(key);
    if (compiled === undefined) {
      // In an engine of its own: a chip runs the text where it lies, and needs no memory to compile it.
      const compiler = new QuickJs({
        module: this.options.module,
        memoryBytes: COMPILER_BYTES,
        stackBytes: STACK_BYTES,
        isTooLong: () => false,
      });
      compiled = compiler.compile(text(), key);
      this.options.compiled.set(key, compiled);
    }
    return compiled;
  }

  // --- events ---

  /** When `timers` is to be called, as the host's clock counts; -1: there is nothing to wait for. */
  get dueAt(): number {
    const bite = this.watchdogMs === 0 ? -1 : this.kickedAt + this.watchdogMs;
    if (this.ended) return -1;
    return this.due < 0 ? bite : bite < 0 ? this.due : Math.min(this.due, bite);
  }

  /** When the event under way began, or the watchdog was last kicked, whichever is later. @unit ms */
  get sinceAt(): number {
    return Math.max(this.eventAt, this.kickedAt);
  }

  timers(): void {
    this.event(EVENT_TIMERS, 0, NO_BYTES, 0, "");
    if (this.ended || this.watchdogMs === 0) return;
    if (this.host.now() - this.kickedAt >= this.watchdogMs) {
      this.fault("hang", `the watchdog was not kicked for ${this.watchdogMs / 1000} s`);
    }
  }

  connection(listener: number, socket: number): void {
    this.event(EVENT_CONNECTION, socket, NO_BYTES, listener, "");
  }

  /** @param bytes at most CHUNK_BYTES */
  data(socket: number, bytes: Uint8Array): void {
    this.event(EVENT_DATA, socket, bytes, 0, "");
  }

  drain(socket: number): void {
    this.event(EVENT_DRAIN, socket, NO_BYTES, 0, "");
  }

  /** @param reason "" when it was closed in order */
  closed(socket: number, reason: string): void {
    this.event(EVENT_CLOSE, socket, new TextEncoder().encode(reason), 0, "");
  }

  datagram(datagram: number, bytes: Uint8Array, port: number, host: string): void {
    this.event(EVENT_DATAGRAM, datagram, bytes, port, host);
  }

  serial(device: string, bytes: Uint8Array): void {
    this.event(EVENT_SERIAL, 0, bytes, 0, device);
  }

  pin(name: string, state: boolean): void {
    this.event(EVENT_PIN, state ? 1 : 0, new TextEncoder().encode(name), 0, "");
  }

  /** Nothing is heard of it any more. */
  powerOff(): void {
    this.ended = true;
  }

  /** @unit bytes */
  memoryUsed(): number {
    return this.engine.usedBytes();
  }

  private event(kind: number, number: number, text: Uint8Array, port: number, host: string): void {
    this.guarded(() => {
      const { engine } = this;
      const values = [
        engine.fromNumber(kind),
        engine.fromNumber(number),
        engine.fromTextBytes(text),
        engine.fromNumber(port),
        engine.fromText(host),
      ];
      this.due = engine.callForNumber(this.entry, values);
      engine.runJobs();
    });
  }

  private guarded(act: () => void): void {
    if (this.ended) return;
    if (this.inEvent) throw new Error("assertion failed: an event inside an event");
    this.eventAt = this.host.now();
    this.inEvent = true;
    let fault: GuestFault | undefined;
    try {
      act();
    } catch (error) {
      fault = error instanceof GuestFault ? error : new GuestFault("broken", String(error), "");
    }
    this.inEvent = false;
    if (this.rebooting && this.flagged) this.fault("memory", this.outOfMemory());
    else if (this.rebooting) this.fault("reboot", "the firmware asked for it");
    else if (fault !== undefined) this.onGuestFault(fault);
  }

  private onGuestFault(fault: GuestFault): void {
    switch (fault.kind) {
      case "interrupted":
        this.fault("hang", `an endless loop${fault.where === "" ? "" : ` ${fault.where.trim()}`}`);
        return;
      case "memory":
        // The event is abandoned, as the engine of a chip does, and the firmware hears of it; once.
        if (!this.flagged) {
          this.flagged = true;
          this.event(EVENT_ERROR_FLAG, 0, new TextEncoder().encode("MEMORY"), 0, "");
        } else this.fault("memory", this.outOfMemory());
        return;
      case "thrown":
        // Where memory has run out nothing else needs to be looked for.
        if (this.flagged) this.fault("memory", this.outOfMemory());
        else
          this.fault("broken", `${fault.message}${fault.where === "" ? "" : `\n${fault.where}`}`);
        return;
      default:
        this.fault("broken", `the engine: ${fault.message}`);
    }
  }

  private outOfMemory(): string {
    return `out of its ${this.options.memoryBytes} bytes of memory`;
  }

  private fault(kind: FaultKind, reason: string): void {
    if (this.ended) return;
    this.ended = true;
    this.host.onFault(kind, reason);
  }

  // --- what the inside calls ---

  private operations(): Record<keyof HostCalls, Operation> {
    const { host, storage } = this;
    return {
      now: (call) => call.fromNumber(host.now() / 1000),
      print: (call) => {
        host.serialWrite("", call.textBytes(0));
        return call.nothing();
      },
      bytesToText: (call) => call.fromTextBytes(call.bytes(0)),
      textToBytes: (call) => call.fromBytes(call.textBytes(0)),
      crc32: (call) => call.fromNumber(host.crc32(call.bytes(0))),
      sha256: (call) => call.fromBytes(host.sha256(call.bytes(0))),
      serialNumber: (call) => call.fromText(this.options.serialNumber),
      memoryUsed: (call) => call.fromNumber(this.engine.usedBytes()),
      memoryTotal: (call) => call.fromNumber(this.options.memoryBytes),
      watchdog: (call) => {
        this.watchdogMs = call.number(0) * 1000;
        this.kickedAt = host.now();
        return call.nothing();
      },
      kick: (call) => {
        this.kickedAt = host.now();
        return call.nothing();
      },
      reboot: (call) => {
        this.rebooting = true;
        return call.nothing();
      },
      listen: (call) => call.fromNumber(host.listen(call.number(0))),
      unlisten: (call) => {
        host.unlisten(call.number(0));
        return call.nothing();
      },
      send: (call) => {
        if (!this.rebooting) host.send(call.number(0), call.textBytes(1));
        return call.nothing();
      },
      end: (call) => {
        host.end(call.number(0));
        return call.nothing();
      },
      abort: (call) => {
        host.abort(call.number(0));
        return call.nothing();
      },
      openDatagram: (call) => call.fromNumber(host.openDatagram(call.number(0))),
      sendDatagram: (call) => {
        if (!this.rebooting) {
          host.sendDatagram(call.number(0), call.textBytes(1), call.number(2), call.text(3));
        }
        return call.nothing();
      },
      closeDatagram: (call) => {
        host.closeDatagram(call.number(0));
        return call.nothing();
      },
      serialSetup: (call) => {
        host.serialSetup(call.text(0), call.number(1), call.text(2));
        return call.nothing();
      },
      serialWrite: (call) => {
        host.serialWrite(call.text(0), call.textBytes(1));
        return call.nothing();
      },
      pinWrite: (call) => {
        host.pinWrite(call.text(0), call.flag(1));
        return call.nothing();
      },
      pinRead: (call) => call.fromFlag(host.pinRead(call.text(0))),
      storageHas: (call) => call.fromFlag(storage.has(call.text(0))),
      storageRead: (call) => call.fromTextBytes(storage.read(call.text(0))),
      storageWrite: (call) => {
        storage.write(call.text(0), call.textBytes(1), call.number(2), call.number(3));
        return call.nothing();
      },
      storageErase: (call) => {
        storage.erase(call.text(0));
        return call.nothing();
      },
      storageFree: (call) => call.fromNumber(storage.free()),
      storageCompact: (call) => {
        storage.compact();
        return call.nothing();
      },
      storageNames: (call) => call.fromText(storage.names().join("\n")),
    };
  }
}
