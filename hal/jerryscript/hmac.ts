/**
 * HMAC-SHA256 (RFC 2104, FIPS 180-4) in the firmware's own words: IoT.js has a crypto module only where its build was
 * asked for one. It is wanted at handshakes, not for commands.
 */

const BLOCK_BYTES = 64;
const HASH_BYTES = 32;
const WORDS = 64;

/** First 32 bits of the fractional parts: of cube roots (K) and square roots (START) of the first primes. */
const K = new Uint32Array(WORDS);
const START = new Uint32Array(8);

function fractionBits(root: number): number {
  return Math.floor((root - Math.floor(root)) * 4294967296);
}

function isPrime(n: number): boolean {
  for (let i = 2; i * i <= n; i++) if (n % i === 0) return false;
  return true;
}

let primes = 0;
for (let n = 2; primes < WORDS; n++) {
  if (!isPrime(n)) continue;
  if (primes < 8) START[primes] = fractionBits(Math.sqrt(n));
  K[primes] = fractionBits(Math.cbrt(n));
  primes++;
}

const words = new Uint32Array(WORDS);

function rotated(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits));
}

function addBlock(state: Uint32Array, bytes: Uint8Array, at: number): void {
  for (let i = 0; i < 16; i++) {
    const from = at + 4 * i;
    words[i] =
      (bytes[from]! << 24) | (bytes[from + 1]! << 16) | (bytes[from + 2]! << 8) | bytes[from + 3]!;
  }
  for (let i = 16; i < WORDS; i++) {
    const x = words[i - 15]!;
    const y = words[i - 2]!;
    const s0 = rotated(x, 7) ^ rotated(x, 18) ^ (x >>> 3);
    const s1 = rotated(y, 17) ^ rotated(y, 19) ^ (y >>> 10);
    words[i] = words[i - 16]! + s0 + words[i - 7]! + s1;
  }
  let a = state[0]!;
  let b = state[1]!;
  let c = state[2]!;
  let d = state[3]!;
  let e = state[4]!;
  let f = state[5]!;
  let g = state[6]!;
  let h = state[7]!;
  for (let i = 0; i < WORDS; i++) {
    const s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
    const first = (h + s1 + ((e & f) ^ (~e & g)) + K[i]! + words[i]!) | 0;
    const s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22);
    const second = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + first) | 0;
    d = c;
    c = b;
    b = a;
    a = (first + second) | 0;
  }
  state[0] = state[0]! + a;
  state[1] = state[1]! + b;
  state[2] = state[2]! + c;
  state[3] = state[3]! + d;
  state[4] = state[4]! + e;
  state[5] = state[5]! + f;
  state[6] = state[6]! + g;
  state[7] = state[7]! + h;
}

/** SHA-256 of bytes, fewer than 2^29. */
export function sha256(bytes: Uint8Array): Uint8Array {
  const blocks = ((bytes.length + 8) >>> 6) + 1;
  const padded = new Uint8Array(blocks * BLOCK_BYTES);
  padded.set(bytes, 0);
  padded[bytes.length] = 0x80;
  const bits = bytes.length * 8;
  for (let i = 0; i < 4; i++) padded[padded.length - 1 - i] = bits >>> (8 * i);
  const state = new Uint32Array(8);
  state.set(START, 0);
  for (let i = 0; i < blocks; i++) addBlock(state, padded, i * BLOCK_BYTES);
  const hash = new Uint8Array(HASH_BYTES);
  for (let i = 0; i < HASH_BYTES; i++) hash[i] = state[i >> 2]! >>> (24 - 8 * (i & 3));
  return hash;
}

/** @param key at most 64 bytes */
export function hmacSha256(key: Uint8Array, data: Uint8Array): Uint8Array {
  const inner = new Uint8Array(BLOCK_BYTES + data.length);
  const outer = new Uint8Array(BLOCK_BYTES + HASH_BYTES);
  for (let i = 0; i < BLOCK_BYTES; i++) {
    const byte = i < key.length ? key[i]! : 0;
    inner[i] = byte ^ 0x36;
    outer[i] = byte ^ 0x5c;
  }
  inner.set(data, BLOCK_BYTES);
  outer.set(sha256(inner), BLOCK_BYTES);
  return sha256(outer);
}
