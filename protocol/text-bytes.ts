/**
 * The bytes of a text of characters 0..255. A board's build has another form of it, which takes no memory of its own
 * (bin/board/bundle.mjs).
 */
export function textBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}
