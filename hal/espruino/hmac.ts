/** HMAC-SHA256 over the engine's own SHA-256, for boards whose build has it. */
import type { EngineCrypto } from "./engine.js";

declare const engineRequire: (name: string) => unknown;

const BLOCK_BYTES = 64;
const HASH_BYTES = 32;

/** @param key at most 64 bytes */
export function hmacNative(key: Uint8Array, data: Uint8Array): Uint8Array {
  const crypto = engineRequire("crypto") as EngineCrypto;
  const inner = new Uint8Array(BLOCK_BYTES + data.length);
  const outer = new Uint8Array(BLOCK_BYTES + HASH_BYTES);
  for (let i = 0; i < BLOCK_BYTES; i++) {
    const byte = i < key.length ? key[i]! : 0;
    inner[i] = byte ^ 0x36;
    outer[i] = byte ^ 0x5c;
  }
  inner.set(data, BLOCK_BYTES);
  outer.set(new Uint8Array(crypto.SHA256(inner)), BLOCK_BYTES);
  return new Uint8Array(crypto.SHA256(outer));
}
