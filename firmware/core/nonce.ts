/**
 * The controller's own nonces.
 *
 * A chip's random sources give the same values on every start, so nothing here relies on them: a nonce
 * is an HMAC over the peer's nonce (which comes from a secure source), everything the peers have sent
 * before, the clock and a count. What must be unique for good (sessions, connections, pair ids) is taken
 * from the servers' nonces; these only keep a recorded handshake from being played back.
 */
import type { Hmac } from "../../protocol/handshake.js";
import { writeU32 } from "../../protocol/frame.js";
import { NONCE_BYTES, SESSION_ID_BYTES } from "../../protocol/messages.js";
import { PAIR_ID_BYTES } from "../../protocol/record.js";

export interface NonceSource {
  /** 16 bytes, in answer to the dialer's 16. */
  answerTo(nonce: Uint8Array, now: number): Uint8Array;
  /** Where the counters of polls begin in this boot. */
  firstCounter(now: number): number;
  /** Names a pair for ever: 8 bytes from both servers' disks and nonces. */
  pairId(parts: Uint8Array[]): Uint8Array;
}

export function createNonceSource(hmac: Hmac, key: Uint8Array, seed: Uint8Array): NonceSource {
  let pool = hmac(key, seed);
  let count = 0;

  /** Microseconds in two halves: a clock's low digits are all the chance a chip has. */
  function stir(extra: Uint8Array, now: number): void {
    const bytes = new Uint8Array(pool.length + extra.length + 12);
    bytes.set(pool, 0);
    bytes.set(extra, pool.length);
    const at = pool.length + extra.length;
    const micros = Math.floor((now < 0 ? -now : now) * 1000);
    const high = Math.floor(micros / 4294967296);
    writeU32(bytes, at, high);
    writeU32(bytes, at + 4, micros - high * 4294967296);
    writeU32(bytes, at + 8, count);
    count++;
    pool = hmac(key, bytes);
  }

  function answerTo(nonce: Uint8Array, now: number): Uint8Array {
    stir(nonce, now);
    return pool.slice(0, NONCE_BYTES);
  }

  function firstCounter(now: number): number {
    stir(seed, now);
    return (pool[0] * 65536 + pool[1] * 256 + pool[2]) >>> 0;
  }

  function pairId(parts: Uint8Array[]): Uint8Array {
    let size = 0;
    for (let i = 0; i < parts.length; i++) size += parts[i].length;
    const bytes = new Uint8Array(size);
    let at = 0;
    for (let i = 0; i < parts.length; i++) {
      bytes.set(parts[i], at);
      at += parts[i].length;
    }
    return hmac(key, bytes).slice(0, PAIR_ID_BYTES);
  }

  return { answerTo: answerTo, firstCounter: firstCounter, pairId: pairId };
}

/** The session under which this boot's clients act: the first server nonce heard, and a generation. */
export function sessionOf(firstNonce: Uint8Array, generation: number): Uint8Array {
  const id = firstNonce.slice(0, SESSION_ID_BYTES);
  const at = SESSION_ID_BYTES - 4;
  id[at] ^= (generation >>> 24) & 255;
  id[at + 1] ^= (generation >>> 16) & 255;
  id[at + 2] ^= (generation >>> 8) & 255;
  id[at + 3] ^= generation & 255;
  return id;
}
