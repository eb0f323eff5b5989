/**
 * The mutual proof that opens every link: both ends show that they hold the pair's key.
 *
 *     dialer D                                acceptor L
 *     hello {versions, role, id, nonceD} ───>
 *                                        <─── challenge {version, nonceL, proofL}
 *     proof {proofD}                     ───>
 *
 * proofL = HMAC("dyad-L" | role | id | nonceD | nonceL), proofD the same with "dyad-D": neither can be
 * played back at the other end, nor on another connection. Pure functions; HMAC-SHA256 is handed in.
 */
import { HEADER_BYTES, PAYLOAD_BYTES_MAX, WIRE_VERSION, WIRE_VERSION_MIN } from "./frame.js";
import { assert } from "./malformed.js";
import { LINK_NONCE_BYTES, NONCE_BYTES } from "./messages.js";

/** HMAC-SHA256: 32 bytes. */
export type Hmac = (key: Uint8Array, data: Uint8Array) => Uint8Array;

const LABEL = "dyad-";

/** No link can agree on less: the longest word of the control plane but SESSION_OPEN and FORWARD fits. @unit bytes */
export const FRAME_BYTES_LEAST = 536;

function proofInput(
  side: string,
  role: number,
  id: string,
  nonceD: Uint8Array,
  nonceL: Uint8Array,
): Uint8Array {
  assert(nonceD.length === NONCE_BYTES && nonceL.length === NONCE_BYTES, "nonces of a proof");
  const text = LABEL + side;
  const bytes = new Uint8Array(text.length + 1 + id.length + 2 * NONCE_BYTES);
  let at = 0;
  for (let i = 0; i < text.length; i++) bytes[at++] = text.charCodeAt(i);
  bytes[at++] = role;
  for (let i = 0; i < id.length; i++) bytes[at++] = id.charCodeAt(i);
  bytes.set(nonceD, at);
  bytes.set(nonceL, at + NONCE_BYTES);
  return bytes;
}

/** What the accepting end shows in its challenge. `id` is the dialer's, as its hello gave it. */
export function acceptorProof(
  hmac: Hmac,
  key: Uint8Array,
  role: number,
  id: string,
  nonceD: Uint8Array,
  nonceL: Uint8Array,
): Uint8Array {
  return hmac(key, proofInput("L", role, id, nonceD, nonceL));
}

/** What the dialing end answers. */
export function dialerProof(
  hmac: Hmac,
  key: Uint8Array,
  role: number,
  id: string,
  nonceD: Uint8Array,
  nonceL: Uint8Array,
): Uint8Array {
  return hmac(key, proofInput("D", role, id, nonceD, nonceL));
}

/** Compares two proofs in a time that does not depend on where they differ. */
export function proofsEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let at = 0; at < a.length; at++) difference |= a[at]! ^ b[at]!;
  return difference === 0;
}

/**
 * The newest wire version both ends speak. A build speaks its own (N) and the one before (N-1).
 * @returns 0 when there is none
 */
export function chooseWire(peerMin: number, peerMax: number): number {
  return commonVersion(WIRE_VERSION_MIN, WIRE_VERSION, peerMin, peerMax);
}

/** The newest version in both ranges. @returns 0 when there is none */
export function commonVersion(
  ownMin: number,
  ownMax: number,
  peerMin: number,
  peerMax: number,
): number {
  const newest = ownMax < peerMax ? ownMax : peerMax;
  const oldest = ownMin > peerMin ? ownMin : peerMin;
  return newest >= oldest ? newest : 0;
}

/** The dialer's check of the version a challenge names. */
export function speaksWire(wire: number): boolean {
  return wire >= WIRE_VERSION_MIN && wire <= WIRE_VERSION;
}

/**
 * The largest payload on a link: what the end with less room can take.
 * @returns bytes; 0 when the peer's limit is too small to carry the handshake itself
 */
export function agreePayloadMax(ownFrameMax: number, peerFrameMax: number): number {
  let frameMax = ownFrameMax < peerFrameMax ? ownFrameMax : peerFrameMax;
  if (frameMax > HEADER_BYTES + PAYLOAD_BYTES_MAX) frameMax = HEADER_BYTES + PAYLOAD_BYTES_MAX;
  return frameMax < FRAME_BYTES_LEAST ? 0 : frameMax - HEADER_BYTES;
}

/** Names a connection in polls: the first 8 bytes of the dialer's nonce. */
export function linkNonceOf(nonceD: Uint8Array): Uint8Array {
  return nonceD.slice(0, LINK_NONCE_BYTES);
}
