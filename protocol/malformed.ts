/**
 * What a decoder gives for bytes it cannot accept. It is the sender's fault, so it is a value and
 * never an exception; the link that carried the bytes is dropped with this text.
 */
export interface Malformed {
  malformed: string;
}

/** True for a refusal, false for what a decoder made of good bytes. */
export function isMalformed(value: object | undefined): value is Malformed {
  return value !== undefined && (value as Malformed).malformed !== undefined;
}

/** Our own mistake, never the peer's: stops the program (on a board it resets the chip). */
export function assert(ok: boolean, what: string): void {
  if (!ok) throw new Error("assertion failed: " + what);
}
