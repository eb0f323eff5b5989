/**
 * What happened, twice: a hash of everything (two runs of a seed must agree on it) and, when asked
 * for, lines that a person can read.
 */
import { Picture } from "./picture.js";

const scratch = new Float64Array(1);
const words = new Uint32Array(scratch.buffer);

export class Trace {
  private h1 = 0x811c9dc5;
  private h2 = 0x1b873593;
  readonly lines: string[] = [];
  eventCount = 0;
  /** Kept when the trace is readable. */
  readonly picture = new Picture();

  constructor(readonly readable: boolean) {}

  /** Folds one event into the hash. */
  fold(timeMs: number, code: number, a: number, b: number): void {
    this.eventCount++;
    scratch[0] = timeMs;
    let h1 = this.h1;
    h1 = Math.imul(h1 ^ words[0]!, 0x01000193);
    h1 = Math.imul(h1 ^ words[1]!, 0x01000193);
    h1 = Math.imul(h1 ^ code, 0x01000193);
    h1 = Math.imul(h1 ^ a, 0x01000193);
    h1 = Math.imul(h1 ^ b, 0x01000193);
    h1 ^= h1 >>> 15;
    this.h1 = h1;
    this.h2 = Math.imul(this.h2 ^ h1, 0x5bd1e995) ^ (this.h2 >>> 13);
  }

  /** Folds the bytes of a message, the first and last few of a long one. */
  foldBytes(timeMs: number, code: number, where: number, bytes: Uint8Array): void {
    let h = bytes.length;
    const head = Math.min(bytes.length, 48);
    for (let i = 0; i < head; i++) h = Math.imul(h ^ bytes[i]!, 0x01000193);
    for (let i = Math.max(head, bytes.length - 16); i < bytes.length; i++) {
      h = Math.imul(h ^ bytes[i]!, 0x01000193);
    }
    this.fold(timeMs, code, where, h);
  }

  /** Adds a line for people; the hash gets it too, so `text` must not depend on `readable`. */
  line(timeMs: number, who: string, text: string): void {
    let h = text.length;
    for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
    this.fold(timeMs, 1, who.charCodeAt(0), h);
    if (this.readable) {
      this.draw(timeMs, who, text);
      this.lines.push(`${timeMs.toFixed(3).padStart(12)}  ${who.padEnd(10)} ${text}`);
    }
  }

  private draw(timeMs: number, who: string, text: string): void {
    const { picture } = this;
    if (who === "FAULT" || who === "OPERATOR" || who === "HEAL") {
      picture.say(timeMs, "fault", "clients", `${who} ${text}`);
    } else if (who === "VIOLATION") {
      picture.say(timeMs, "violation", who, text.split("\n")[0]!);
    } else if (who === "FLASH") {
      picture.say(timeMs, "text", "controller", `flash: ${text}`);
    } else {
      picture.say(timeMs, "text", who, text);
      if (/^(process gone|power lost)/.test(text)) picture.state(timeMs, who, "gone");
      else if (text === "hangs") picture.state(timeMs, who, "hung");
      else if (text === "starts") picture.state(timeMs, who, "up");
    }
  }

  /** A line that costs too much to make unless someone reads it; not part of the hash. */
  detail(timeMs: number, who: string, text: () => string): void {
    if (this.readable) {
      this.lines.push(`${timeMs.toFixed(3).padStart(12)}  ${who.padEnd(10)} ${text()}`);
    }
  }

  hash(): string {
    const hex = (n: number): string => (n >>> 0).toString(16).padStart(8, "0");
    return hex(this.h1) + hex(this.h2);
  }
}
