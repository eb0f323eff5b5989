/** What is around a virtual board in these tests: a clock that only the test moves, and everything the board does as a list. */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { VirtualBoard } from "../../hal/virtual-board/board.js";
import type { BoardHost, FaultKind } from "../../hal/virtual-board/board.js";
import { loadEngine } from "../../hal/virtual-board/node-module.js";
import { Storage } from "../../hal/virtual-board/storage.js";

const STORAGE_BYTES = 64 * 1024;
const MEMORY_BYTES = 1024 * 1024;
/** Questions whether an event takes too long that a sound one is asked at most. */
const STEPS_MAX = 100;

const engine = loadEngine();
const compiled = new Map<string, Uint8Array>();

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

export class FakeHost implements BoardHost {
  readonly did: string[] = [];
  readonly sent: Uint8Array[] = [];
  said = "";
  fault: { kind: FaultKind; reason: string } | undefined;
  nowMs = 1000;
  /** How often the firmware was asked about in the event under way. */
  steps = 0;
  readonly bytes = new Uint8Array(STORAGE_BYTES).fill(0xff);
  readonly storage = new Storage({ bytes: this.bytes, keep: () => undefined });
  board: VirtualBoard;
  private numbers = 0;

  /** Powers on a board with this as its firmware. */
  constructor(firmware: string, memoryBytes = MEMORY_BYTES) {
    this.storage.write(".bootcde", Buffer.from(firmware, "latin1"), 0, 0);
    this.board = this.powerOn(memoryBytes);
  }

  powerOn(memoryBytes = MEMORY_BYTES): VirtualBoard {
    this.fault = undefined;
    this.board = new VirtualBoard({
      module: engine,
      memoryBytes,
      serialNumber: "0123-4567",
      storage: this.storage,
      host: this,
      compiled,
    });
    this.board.boot();
    return this.board;
  }

  /** Lets time pass, calling timers as they become due. */
  pass(ms: number): void {
    const end = this.nowMs + ms;
    for (;;) {
      const due = this.board.dueAt;
      if (due < 0 || due > end) break;
      this.nowMs = Math.max(this.nowMs, due);
      this.steps = 0;
      this.board.timers();
    }
    this.nowMs = end;
  }

  now(): number {
    return this.nowMs;
  }
  listen(port: number): number {
    this.did.push(`listen ${port}`);
    return ++this.numbers;
  }
  unlisten(listener: number): void {
    this.did.push(`unlisten ${listener}`);
  }
  send(socket: number, bytes: Uint8Array): void {
    this.sent.push(bytes);
    this.did.push(`send ${socket} ${text(bytes)}`);
  }
  end(socket: number): void {
    this.did.push(`end ${socket}`);
  }
  abort(socket: number): void {
    this.did.push(`abort ${socket}`);
  }
  openDatagram(port: number): number {
    this.did.push(`bind ${port}`);
    return ++this.numbers;
  }
  sendDatagram(datagram: number, bytes: Uint8Array, port: number, host: string): void {
    this.did.push(`datagram ${datagram} ${text(bytes)} to ${host}:${port}`);
  }
  closeDatagram(datagram: number): void {
    this.did.push(`close ${datagram}`);
  }
  serialSetup(device: string, baud: number, path: string): void {
    this.did.push(`setup ${device} ${baud} ${path}`);
  }
  serialWrite(device: string, bytes: Uint8Array): void {
    if (device === "USB" || device === "") this.said += text(bytes);
    else this.did.push(`${device} ${text(bytes)}`);
  }
  pinWrite(pin: string, value: boolean): void {
    this.did.push(`pin ${pin} ${value}`);
  }
  pinRead(pin: string): boolean {
    return pin === "B3";
  }
  crc32(bytes: Uint8Array): number {
    return crc32(bytes);
  }
  sha256(bytes: Uint8Array): Uint8Array {
    return createHash("sha256").update(bytes).digest();
  }
  isTooLong(): boolean {
    return ++this.steps > STEPS_MAX;
  }
  onFault(kind: FaultKind, reason: string): void {
    this.fault = { kind, reason };
  }
}
