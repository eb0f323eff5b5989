/**
 * The controller's flash: one record in two journals, so that a cut in the middle of a write leaves
 * either the old record or the new one, never neither.
 */
import type { FlashState } from "../../firmware/core/core.js";
import type { Random } from "./random.js";
import type { World } from "./world.js";

export class Flash {
  record: Uint8Array | undefined;
  damage = "";
  /** @unit ms, a write takes between these */
  writeMinMs = 0.1;
  writeMaxMs = 1;
  failNext = false;
  /** A write has failed, and nobody has looked yet. */
  failed = false;
  writes = 0;
  /** Told when a write begins: faults aim at it. */
  onWrite: (() => void) | undefined;
  private writing: Uint8Array | undefined;
  private boots = 0;
  private heldUntil = 0;
  private readonly random: Random;

  constructor(private readonly world: World) {
    this.random = world.random.fork("flash");
  }

  boot(): FlashState {
    this.boots++;
    this.writing = undefined;
    return { record: this.record?.slice(), damage: this.damage };
  }

  persist(record: Uint8Array, done: (error: string | undefined) => void): void {
    if (this.writing !== undefined) {
      this.world.violate("contract", "the controller asked for two flash writes at once");
      return;
    }
    const bytes = record.slice();
    this.writing = bytes;
    const boot = this.boots;
    this.heldUntil = 0;
    const finish = (): void => {
      if (boot !== this.boots || this.writing !== bytes) return;
      if (this.world.now < this.heldUntil) {
        this.world.at(this.heldUntil, finish);
        return;
      }
      this.writing = undefined;
      if (this.failNext) {
        this.failNext = false;
        this.failed = true;
        done("the flash did not take it");
        return;
      }
      this.record = bytes;
      this.damage = "";
      this.writes++;
      this.world.cover("flash written");
      done(undefined);
    };
    this.world.after(this.random.between(this.writeMinMs, this.writeMaxMs), finish);
    this.onWrite?.();
  }

  /** The write under way takes this much longer. */
  hold(forMs: number): void {
    this.heldUntil = this.world.now + forMs;
  }

  /** The controller stops: a write under way ends as the new record or as a torn slot, which is void. */
  crash(): void {
    this.boots++;
    if (this.writing !== undefined) this.world.cover("flash torn");
    if (this.writing !== undefined && this.random.chance(0.5)) {
      this.record = this.writing;
      this.damage = "";
    }
    this.writing = undefined;
  }

  wipe(): void {
    this.record = undefined;
    this.damage = "";
  }

  /** Another board's flash, or one with a damaged slot: there is something, and it cannot be believed. */
  spoil(why: string): void {
    this.record = undefined;
    this.damage = why;
  }
}
