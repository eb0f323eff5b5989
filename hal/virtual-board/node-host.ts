/**
 * A virtual board on a desktop: real sockets, datagrams, serial devices and clock around it, and power that comes back after
 * a reset.
 *
 *     on ──fault──> off ──RESET_MS──> on        what was connected is closed, as by a chip that resets
 *
 * Listeners are opened before the board is on and stay when it resets: a port that others took meanwhile would be a
 * fault that no chip has.
 */
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import type { Socket as DatagramSocket } from "node:dgram";
import { createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { crc32 } from "node:zlib";
import { openSerial } from "../node/serial.js";
import type { Serial } from "../hal.js";
import { CHUNK_BYTES, VirtualBoard } from "./board.js";
import type { BoardHost, FaultKind } from "./board.js";
import type { Storage } from "./storage.js";

/** A board is on again after this. @unit ms */
const RESET_MS = 100;
/** The same for one that did not last: a firmware that cannot boot must not take the whole machine. @unit ms */
const AGAIN_MS = 1000;
const LASTED_MS = 5000;
/** An event of a board without a watchdog may take so long; then it hangs for good. @unit ms */
const HANG_MS = 20000;
/** How long a connection that ends may take to send what it holds. @unit ms */
const LINGER_MS = 2000;
const ACCEPT_BACKLOG = 128;

export interface NodeBoardOptions {
  module: WebAssembly.Module;
  memoryBytes: number;
  serialNumber: string;
  storage: Storage;
  /** Address to listen at. */
  host: string;
  /** The device that carries the console. */
  consoleDevice: string;
  /** The firmware talks at its console. */
  onConsole(text: string): void;
  onPowerOn(): void;
  /** The firmware sets an output, in the middle of an event: nothing may be handed to the board from in here. */
  onPin?(pin: string, value: boolean): void;
  /** The board resets: why. */
  onReset(kind: FaultKind, reason: string): void;
}

interface Connection {
  socket: Socket;
  /** What the firmware has written in this event. */
  out: Uint8Array[];
  /** Bytes the network has not taken yet. */
  pending: number;
  reason: string;
}

export class NodeBoard implements BoardHost {
  private board: VirtualBoard | undefined;
  private readonly compiled = new Map<string, Uint8Array>();
  private readonly servers = new Map<number, Server>();
  /** The firmware's listener on each port. */
  private listening = new Map<number, number>();
  private readonly connections = new Map<number, Connection>();
  private readonly dirty = new Set<number>();
  private readonly datagrams = new Map<number, DatagramSocket>();
  private readonly lines = new Map<string, Serial>();
  /** What is put on pins from outside stays when the power goes; what the firmware puts there does not. */
  private readonly inputs = new Map<string, boolean>();
  private readonly outputs = new Map<string, boolean>();
  private numbers = 0;
  private timer: NodeJS.Timeout | undefined;
  private again: NodeJS.Timeout | undefined;
  private onAt = 0;
  private heard: string[] | undefined;
  private closed = false;

  constructor(private readonly options: NodeBoardOptions) {}

  /** Takes a port before the board is on. @returns the port it really has @throws when it cannot be had */
  openPort(port: number): Promise<number> {
    const server = createServer({ noDelay: true }, (socket) => this.onConnection(server, socket));
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: this.options.host, port, backlog: ACCEPT_BACKLOG }, () => {
        server.off("error", reject);
        server.on("error", () => undefined);
        const real = (server.address() as { port: number }).port;
        this.servers.set(real, server);
        resolve(real);
      });
    });
  }

  get isOn(): boolean {
    return this.board !== undefined;
  }

  powerOn(): void {
    if (this.board !== undefined || this.closed) return;
    const { module, memoryBytes, serialNumber, storage } = this.options;
    this.onAt = performance.now();
    this.options.onPowerOn();
    const board = new VirtualBoard({
      module,
      memoryBytes,
      serialNumber,
      storage,
      host: this,
      compiled: this.compiled,
    });
    this.board = board;
    board.boot();
    this.afterEvent();
  }

  /** Cuts the power, and gives it back. */
  reset(reason: string): void {
    if (this.board === undefined) return;
    this.board.powerOff();
    this.onFault("reboot", reason);
  }

  close(): void {
    this.closed = true;
    this.board?.powerOff();
    this.powerGone();
    clearTimeout(this.again);
    for (const server of this.servers.values()) server.close();
  }

  // --- the console ---

  /** Types at the console; what the firmware says comes to `onConsole`. */
  type(text: string): void {
    this.board?.serial(this.options.consoleDevice, Buffer.from(text, "latin1"));
    this.afterEvent();
  }

  /** Types at the console. @returns what the firmware says to it at once, which nobody else hears */
  ask(text: string): string {
    const heard: string[] = [];
    this.heard = heard;
    this.board?.serial(this.options.consoleDevice, Buffer.from(text, "latin1"));
    this.heard = undefined;
    this.afterEvent();
    return heard.join("");
  }

  memoryUsed(): number {
    return this.board?.memoryUsed() ?? 0;
  }

  /** Sets an input pin from outside. */
  setPin(pin: string, value: boolean): void {
    if (this.inputs.get(pin) === value) return;
    this.inputs.set(pin, value);
    this.board?.pin(pin, value);
    this.afterEvent();
  }

  // --- what happens outside ---

  private onConnection(server: Server, socket: Socket): void {
    const port = (server.address() as { port: number } | null)?.port ?? 0;
    const listener = this.listening.get(port);
    if (this.board === undefined || listener === undefined) {
      socket.on("error", () => undefined);
      socket.resetAndDestroy();
      return;
    }
    const number = ++this.numbers;
    const connection: Connection = { socket, out: [], pending: 0, reason: "" };
    this.connections.set(number, connection);
    const { board } = this;
    socket.on("data", (bytes: Buffer) => {
      // The engine reads so much at a time, and goes on whether it is wanted or not.
      for (let at = 0; at < bytes.length && this.connections.has(number); at += CHUNK_BYTES) {
        board.data(number, bytes.subarray(at, at + CHUNK_BYTES));
        this.catchUp();
      }
      this.afterEvent();
    });
    socket.on("error", (error) => {
      connection.reason = error.message;
    });
    socket.on("close", () => {
      if (this.connections.get(number) !== connection) return;
      this.connections.delete(number);
      board.closed(number, connection.reason);
      this.afterEvent();
    });
    // The firmware's own end follows the other side's.
    board.connection(listener, number);
    this.afterEvent();
  }

  /** Timers that came due while events were handed in. */
  private catchUp(): void {
    const { board } = this;
    if (board !== undefined && board.dueAt >= 0 && board.dueAt <= this.now()) board.timers();
  }

  /** Everything of this turn has been handed in: what was written goes out, and the next timer is set. */
  private afterEvent(): void {
    for (const number of this.dirty) {
      const connection = this.connections.get(number);
      if (connection !== undefined) this.flush(number, connection);
    }
    this.dirty.clear();
    clearTimeout(this.timer);
    const due = this.board === undefined ? -1 : this.board.dueAt;
    if (due < 0) return;
    this.timer = setTimeout(this.onTimer, Math.max(0, due - this.now()));
  }

  private readonly onTimer = (): void => {
    this.catchUp();
    this.afterEvent();
  };

  private flush(number: number, connection: Connection): void {
    const bytes = connection.out.length === 1 ? connection.out[0]! : Buffer.concat(connection.out);
    connection.out = [];
    if (connection.socket.destroyed) return;
    const { board } = this;
    connection.socket.write(bytes, () => {
      connection.pending -= bytes.length;
      if (connection.pending > 0 || this.connections.get(number) !== connection) return;
      board?.drain(number);
      this.afterEvent();
    });
  }

  // --- BoardHost: what the firmware does ---

  now(): number {
    return performance.now();
  }

  listen(port: number): number {
    const number = ++this.numbers;
    if (!this.servers.has(port)) {
      this.openPort(port).catch((error: Error) => {
        this.options.onConsole(`\r\n[port ${port} cannot be had: ${error.message}]\r\n`);
      });
    }
    this.listening.set(port, number);
    return number;
  }

  unlisten(listener: number): void {
    for (const [port, number] of this.listening) {
      if (number === listener) this.listening.delete(port);
    }
  }

  send(socket: number, bytes: Uint8Array): void {
    const connection = this.connections.get(socket);
    if (connection === undefined) return;
    connection.out.push(bytes);
    connection.pending += bytes.length;
    this.dirty.add(socket);
  }

  end(socket: number): void {
    const connection = this.connections.get(socket);
    if (connection === undefined) return;
    if (connection.out.length > 0) this.flush(socket, connection);
    this.dirty.delete(socket);
    connection.socket.end();
    setTimeout(() => connection.socket.destroy(), LINGER_MS).unref();
  }

  abort(socket: number): void {
    this.connections.get(socket)?.socket.resetAndDestroy();
  }

  openDatagram(port: number): number {
    const number = ++this.numbers;
    const socket = createSocket("udp4");
    this.datagrams.set(number, socket);
    socket.on("error", () => undefined);
    const { board } = this;
    socket.on("message", (bytes, from) => {
      if (this.datagrams.get(number) !== socket) return;
      board?.datagram(number, bytes, from.port, from.address);
      this.afterEvent();
    });
    socket.bind(port);
    return number;
  }

  sendDatagram(datagram: number, bytes: Uint8Array, port: number, host: string): void {
    this.datagrams.get(datagram)?.send(bytes, port, host);
  }

  closeDatagram(datagram: number): void {
    this.datagrams.get(datagram)?.close();
    this.datagrams.delete(datagram);
  }

  serialSetup(device: string, baud: number, path: string): void {
    this.lines.get(device)?.close();
    this.lines.delete(device);
    if (path === "") return;
    const line: Serial = openSerial({
      device: path,
      baud,
      onReadable: () => {
        const bytes = line.read();
        if (bytes === undefined || this.lines.get(device) !== line) return;
        this.board?.serial(device, bytes);
        this.afterEvent();
      },
      onError: () => undefined,
    });
    this.lines.set(device, line);
  }

  serialWrite(device: string, bytes: Uint8Array): void {
    const line = this.lines.get(device);
    if (line !== undefined) line.write(bytes);
    else if (device === this.options.consoleDevice || device === "") {
      const text = Buffer.from(bytes).toString("latin1");
      if (this.heard !== undefined) this.heard.push(text);
      else this.options.onConsole(text);
    }
  }

  pinWrite(pin: string, value: boolean): void {
    this.outputs.set(pin, value);
    this.options.onPin?.(pin, value);
  }

  pinRead(pin: string): boolean {
    return (this.inputs.get(pin) ?? this.outputs.get(pin)) === true;
  }

  crc32(bytes: Uint8Array): number {
    return crc32(bytes);
  }

  sha256(bytes: Uint8Array): Uint8Array {
    return createHash("sha256").update(bytes).digest();
  }

  isTooLong(): boolean {
    const { board } = this;
    // Before the boot has begun there is nothing to compare with.
    if (board === undefined) return performance.now() - this.onAt > HANG_MS;
    const limit = board.watchdogMs === 0 ? HANG_MS : board.watchdogMs;
    // A process that was stopped or starved is not the firmware's fault: an event counts from its own beginning.
    return performance.now() - board.sinceAt > limit;
  }

  onFault(kind: FaultKind, reason: string): void {
    this.board = undefined;
    this.powerGone();
    if (this.closed) return;
    this.options.onReset(kind, reason);
    const lasted = performance.now() - this.onAt > LASTED_MS;
    this.again = setTimeout(() => this.powerOn(), lasted ? RESET_MS : AGAIN_MS);
  }

  private powerGone(): void {
    clearTimeout(this.timer);
    this.dirty.clear();
    this.listening = new Map();
    for (const connection of this.connections.values()) connection.socket.resetAndDestroy();
    this.connections.clear();
    for (const socket of this.datagrams.values()) socket.close();
    this.datagrams.clear();
    for (const line of this.lines.values()) line.close();
    this.lines.clear();
    this.outputs.clear();
  }
}
