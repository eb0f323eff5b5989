/**
 * The numbers of an exactly-once session.
 *
 * Each write gets the next number when it is asked for, and keeps it when it is asked again on another
 * connection; the servers' log remembers what they answered to it. `answeredBelow` tells them what they may
 * forget. At most `window` numbers are open, because the servers remember no more.
 *
 *     1 2 3 4 5 6 7 8
 *     answered│open  │next
 *             └ answeredBelow
 */
import { ID_MAX, SESSION_PREFIX_BYTES, writeU32 } from "../protocol/frame.js";

export class SessionNumbers {
  /** 8 bytes, chosen by the client. */
  readonly id: Uint8Array;
  private readonly window: number;
  private next = 1;
  /** Numbers given out whose outcome is not known to the caller yet, ascending. */
  private readonly open = new Set<number>();

  constructor(id: Uint8Array, window: number) {
    this.id = id;
    this.window = window;
  }

  /** The next number. @returns 0 when all are used up: a new session is needed */
  take(): number {
    if (this.next > ID_MAX) return 0;
    const number = this.next++;
    this.open.add(number);
    return number;
  }

  /** The caller knows what became of it; it is never asked again. */
  answered(number: number): void {
    this.open.delete(number);
  }

  /** Every number below is answered. */
  answeredBelow(): number {
    for (const number of this.open) return number;
    return this.next;
  }

  /** Whether the servers still keep room for this number's reply. */
  mayAsk(number: number): boolean {
    return number < this.answeredBelow() + this.window;
  }

  /** The 16 bytes that go before the command. */
  writePrefix(bytes: Uint8Array, at: number, number: number): void {
    bytes.set(this.id, at);
    writeU32(bytes, at + 8, number);
    writeU32(bytes, at + SESSION_PREFIX_BYTES - 4, this.answeredBelow());
  }
}
