/**
 * A control message on a serial line that changes something: sealed with the pair's key.
 *
 *     frame SEALED = seal (16) | control message
 *     seal = the first 16 bytes of HMAC-SHA256(key, "dyad-S" | server's boot nonce | server's id | message)
 *
 * A line has no handshake. The seal stands for it: the words are the controller's, meant for this server in
 * this boot (the nonce is in its heartbeats), and no noise that slips through a CRC is taken for a record.
 */
import { FRAME_SEALED, HEADER_BYTES, writeHeader } from "./frame.js";
import { proofsEqual } from "./handshake.js";
import type { Hmac } from "./handshake.js";

/** What stands before the message. @unit bytes */
export const SEAL_BYTES = 16;

const LABEL = "dyad-S";

function sealOf(
  hmac: Hmac,
  key: Uint8Array,
  bootNonce: Uint8Array,
  id: string,
  message: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(LABEL.length + bootNonce.length + 1 + id.length + message.length);
  let at = 0;
  for (let i = 0; i < LABEL.length; i++) bytes[at++] = LABEL.charCodeAt(i);
  bytes.set(bootNonce, at);
  at += bootNonce.length;
  bytes[at++] = id.length;
  for (let i = 0; i < id.length; i++) bytes[at++] = id.charCodeAt(i);
  bytes.set(message, at);
  return hmac(key, bytes).slice(0, SEAL_BYTES);
}

/**
 * A SEALED frame for one server.
 * @param bootNonce as that server's newest heartbeat gave it
 * @param message an encoded control message
 */
export function sealedFrame(
  hmac: Hmac,
  key: Uint8Array,
  bootNonce: Uint8Array,
  id: string,
  message: Uint8Array,
): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + SEAL_BYTES + message.length);
  writeHeader(frame, 0, FRAME_SEALED, 0, SEAL_BYTES + message.length, 0);
  frame.set(sealOf(hmac, key, bootNonce, id, message), HEADER_BYTES);
  frame.set(message, HEADER_BYTES + SEAL_BYTES);
  return frame;
}

/**
 * The message of a SEALED frame's payload bytes[start..end).
 * @returns a copy, undefined when the seal is not this pair's, server's and boot's
 */
export function unsealed(
  hmac: Hmac,
  key: Uint8Array,
  bootNonce: Uint8Array,
  id: string,
  bytes: Uint8Array,
  start: number,
  end: number,
): Uint8Array | undefined {
  if (end - start <= SEAL_BYTES) return undefined;
  const message = bytes.slice(start + SEAL_BYTES, end);
  const seal = sealOf(hmac, key, bootNonce, id, message);
  return proofsEqual(seal, bytes.slice(start, start + SEAL_BYTES)) ? message : undefined;
}
