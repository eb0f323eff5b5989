/**
 * A serial cable between the controller and one server: bytes in order at some baud, beside the network and not
 * part of it. It can be cut and it can be noisy; what it carried while its end was off is gone. And it can bring what nobody
 * sends now: packets of long ago once more, or words of another device on the same cable.
 */
import type { Machine } from "./machine.js";
import type { Random } from "./random.js";
import type { World } from "./world.js";

/** 115200 baud, ten bits a byte. @unit ms */
const BYTE_MS = 10 / 115.2;
/** What a port's buffer takes. */
const WAITING_BYTES_MAX = 2048;
/** One packet in so many is kept, and so many of those, so that some are of an epoch or a boot long past. */
const KEPT_EVERY = 4;
const KEPT_MAX = 64;

export interface SerialEnd {
  machine: Machine;
  /** Hands bytes to the machine's program of now, in a turn of it. */
  receive(bytes: Uint8Array): void;
}

export class SerialLine {
  cut = false;
  /** Chance that a byte is changed, lost or doubled. */
  noise = 0;
  /** Chance that a packet of long ago comes again behind one. */
  ghosts = 0;
  /** What the controller sends stays in the wiring (a serial server's buffer) while this is a list. */
  held: Uint8Array[] | undefined;
  private readonly kept: [Uint8Array[], Uint8Array[]] = [[], []];
  private sent = 0;
  private readonly busyUntil: [number, number] = [0, 0];
  private readonly random: Random;

  constructor(
    private readonly world: World,
    private readonly ends: [SerialEnd, SerialEnd],
    name: string,
  ) {
    this.random = world.random.fork(`serial ${name}`);
  }

  /** @param from which end. @returns false when the port has no room */
  send(from: 0 | 1, bytes: Uint8Array): boolean {
    const { world } = this;
    if (from === 0 && this.held !== undefined) {
      this.held.push(bytes.slice());
      return true;
    }
    const begins = Math.max(world.now, this.busyUntil[from]);
    if ((begins - world.now) / BYTE_MS + bytes.length > WAITING_BYTES_MAX) return false;
    this.busyUntil[from] = begins + bytes.length * BYTE_MS;
    const sent = this.spoiled(bytes);
    // It comes in two pieces, as it does from a UART's buffer.
    const half = this.random.below(sent.length + 1);
    this.deliver(from, sent.subarray(0, half), begins + half * BYTE_MS);
    this.deliver(from, sent.subarray(half), this.busyUntil[from]);
    this.keep(from, bytes);
    if (this.ghosts > 0 && this.random.chance(this.ghosts)) {
      this.say(from, this.random.pick(this.kept[from]));
    }
    return true;
  }

  /** Bytes that come to the other end though nobody has sent them. */
  say(from: 0 | 1, bytes: Uint8Array): void {
    const begins = Math.max(this.world.now, this.busyUntil[from]);
    this.busyUntil[from] = begins + bytes.length * BYTE_MS;
    this.deliver(from, bytes.slice(), this.busyUntil[from]);
  }

  private keep(from: 0 | 1, bytes: Uint8Array): void {
    const kept = this.kept[from];
    if (this.sent++ % KEPT_EVERY !== 0 && kept.length > 0) return;
    if (kept.length < KEPT_MAX) kept.push(bytes.slice());
    else kept[this.random.below(KEPT_MAX)] = bytes.slice();
  }

  private deliver(from: 0 | 1, bytes: Uint8Array, at: number): void {
    if (bytes.length === 0) return;
    const to = this.ends[(1 - from) as 0 | 1];
    this.world.at(at, () => {
      if (this.cut || !to.machine.alive) return;
      to.machine.post(() => to.receive(bytes));
    });
  }

  private spoiled(bytes: Uint8Array): Uint8Array {
    if (this.noise === 0) return bytes.slice();
    const out: number[] = [];
    for (const byte of bytes) {
      if (!this.random.chance(this.noise)) out.push(byte);
      else if (this.random.chance(0.6)) out.push(byte ^ (1 << this.random.below(8)));
      else if (this.random.chance(0.5)) out.push(byte, byte);
    }
    return Uint8Array.from(out);
  }
}
