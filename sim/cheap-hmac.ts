/** Stands in for HMAC-SHA256: depends on every byte of key and data, and costs next to nothing. */
export function cheapHmac(key: Uint8Array, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(32);
  let h = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) h = Math.imul(h ^ key[i]!, 0x01000193);
  let g = h ^ 0x5bd1e995;
  for (let i = 0; i < data.length; i++) {
    h = Math.imul(h ^ data[i]!, 0x01000193);
    g = Math.imul(g + data[i]!, 0x85ebca6b) ^ (g >>> 15);
  }
  for (let i = 0; i < 32; i++) {
    h = Math.imul(h ^ i, 0x01000193);
    g = Math.imul(g + h, 0x85ebca6b) ^ (g >>> 13);
    out[i] = (h ^ g) >>> 24;
  }
  return out;
}
