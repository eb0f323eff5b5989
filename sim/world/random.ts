/**
 * The one source of chance in the simulator: sfc32, seeded, forkable by name.
 *
 * Every concern (network, disk of a, workload of client 3 ...) draws from a fork of its own, so that
 * leaving one fault out of a plan does not reshuffle everything else, and a plan can be shrunk.
 */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private d: number;

  constructor(seed: number, name = "") {
    let h = 0x811c9dc5 ^ (seed >>> 0);
    h = Math.imul(h ^ Math.floor(seed / 4294967296), 0x01000193);
    for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 0x01000193);
    this.a = h | 0;
    this.b = (seed ^ 0x9e3779b9) | 0;
    this.c = Math.imul(h, 0x85ebca6b) | 0;
    this.d = 1;
    for (let i = 0; i < 15; i++) this.u32();
  }

  /** @returns an integer, 0..2^32-1. */
  u32(): number {
    const t = (((this.a + this.b) | 0) + this.d) | 0;
    this.d = (this.d + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = ((this.c << 21) | (this.c >>> 11)) + t;
    this.c |= 0;
    return t >>> 0;
  }

  /** A stream of its own, that depends on this one's seed state and the name. */
  fork(name: string): Random {
    return new Random(this.u32() + this.u32() * 1048576, name);
  }

  /** @returns 0 <= x < 1. */
  float(): number {
    return this.u32() / 4294967296;
  }

  /** @returns an integer, 0 <= x < bound. */
  below(bound: number): number {
    return Math.floor(this.float() * bound);
  }

  between(low: number, high: number): number {
    return low + this.float() * (high - low);
  }

  chance(probability: number): boolean {
    return this.float() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** Exponential with this mean, cut at 20 means. */
  exponential(mean: number): number {
    return Math.min(20, -Math.log(1 - this.float())) * mean;
  }

  /** Log-uniform: as likely in 1..10 as in 10..100. */
  spread(low: number, high: number): number {
    return low * Math.exp(this.float() * Math.log(high / low));
  }

  bytes(count: number): Uint8Array {
    const out = new Uint8Array(count);
    for (let i = 0; i < count; i++) out[i] = this.u32() >>> 24;
    return out;
  }
}
