/**
 * The one frame format of every link: an 8-byte header, then the payload.
 *
 *     byte 0      byte 1   bytes 2-3        bytes 4-7
 *     ver | type  flags    payload length   id
 *
 * All integers are big-endian. The header is patched in place when the controller rewrites an id,
 * so a forwarded command is never copied field by field.
 */

/** The wire version this build writes. */
export const WIRE_VERSION = 1;
/** Oldest wire version this build still speaks. */
export const WIRE_VERSION_MIN = 1;

/** Every frame begins with a header of this size. @unit bytes */
export const HEADER_BYTES = 8;
/** Largest payload a frame can carry on a link between full-size machines. @unit bytes */
export const PAYLOAD_BYTES_MAX = 65528;
/** Largest whole frame agreed with a chip: its engine hands out at most this much at once. @unit bytes */
export const CHIP_FRAME_BYTES_MAX = 536;

/** Frame types; what each carries is in docs/PROTOCOL.md. */
export const FRAME_COMMAND = 1;
export const FRAME_REPLY = 2;
export const FRAME_EPOCH = 3;
export const FRAME_CREDIT = 4;
export const FRAME_ABORT = 5;
export const FRAME_CONTROL = 6;
export const FRAME_APPEND = 7;
export const FRAME_CONFIRM = 8;
export const FRAME_COPY = 9;
/** Serial lines only: the payload is a poll or a heartbeat, as it would go by UDP. */
export const FRAME_DATAGRAM = 10;
/** Serial lines only: the payload is a seal of SEAL_BYTES, then one control message (see serial-seal.ts). */
export const FRAME_SEALED = 11;

/** Commands of one client connection as they came, from a controller to a server (see agent/core/packs.ts). */
export const FRAME_PACK = 12;
/** Answers to commands of packs, of one client connection, from a server to the controller. */
export const FRAME_PACK_REPLY = 13;

/** COMMAND flags. */
export const CLASS_QUERY = 0;
export const CLASS_MODIFY = 1;
export const CLASS_WRITE = 2;
export const FLAG_CLASS_MASK = 0x03;
/** More fragments of this command, reply or chunk follow (COMMAND, REPLY, APPEND, COPY). */
export const FLAG_MORE = 0x04;
/** The reply must not overtake the reply of any earlier unanswered command of this link. */
export const FLAG_ORDERED = 0x08;
/** The payload begins with a session prefix: session id (8), number (u32), answeredBelow (u32). */
export const FLAG_SESSION = 0x10;
/** The payload is the commands of one MULTI, one after the other. */
export const FLAG_TXN = 0x20;

/** PACK flags, beside FLAG_CLASS_MASK: the commands are bare RESP arrays, not frames. */
export const FLAG_PLAIN = 0x40;
/** PACK flags: how many commands it has, less one. */
export const PACK_COUNT_SHIFT = 2;
export const PACK_COUNT_MASK = 0x0f;

/** REPLY outcomes (flags bits 0-1). */
export const OUTCOME_MASK = 0x03;
export const OUTCOME_ANSWER = 0;
export const OUTCOME_REFUSED = 1;
export const OUTCOME_UNKNOWN = 2;

/** What FLAG_SESSION puts before the command. @unit bytes */
export const SESSION_PREFIX_BYTES = 16;

/** The client connection's number that begins the payload of PACK and PACK_REPLY. @unit bytes */
export const CHANNEL_BYTES = 4;
/** Most commands of one PACK. */
export const PACK_COMMANDS_MAX = PACK_COUNT_MASK + 1;
/** Most answers of one PACK_REPLY: its flags count them. */
export const PACK_ANSWERS_MAX = 255;

/** Greatest id of a frame. */
export const ID_MAX = 0xffffffff;
/** Greatest log index. */
export const U48_MAX = 0xffffffffffff;

/** Reads a big-endian u16; the caller has checked that it lies inside. */
export function readU16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

/** Reads a big-endian u32; the caller has checked that it lies inside. */
export function readU32(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
  );
}

/** Reads a big-endian u48; the caller has checked that it lies inside. */
export function readU48(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 8) | bytes[at + 1]!) * 4294967296 + readU32(bytes, at + 2);
}

/** Writes a big-endian u16. @param value 0..65535 */
export function writeU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

/** Writes a big-endian u32. @param value 0..2^32-1 */
export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** Writes a big-endian u48. @param value 0..2^48-1 */
export function writeU48(bytes: Uint8Array, at: number, value: number): void {
  const high = Math.floor(value / 4294967296);
  bytes[at] = high >>> 8;
  bytes[at + 1] = high;
  writeU32(bytes, at + 2, value - high * 4294967296);
}

/**
 * Writes a header for a payload that follows it.
 * @param payloadBytes 0..PAYLOAD_BYTES_MAX (asserted: a longer one would be read as a shorter one)
 */
export function writeHeader(
  bytes: Uint8Array,
  at: number,
  type: number,
  flags: number,
  payloadBytes: number,
  id: number,
): void {
  if (payloadBytes > PAYLOAD_BYTES_MAX) throw new Error("assertion failed: frame payload length");
  bytes[at] = (WIRE_VERSION << 4) | type;
  bytes[at + 1] = flags;
  bytes[at + 2] = payloadBytes >>> 8;
  bytes[at + 3] = payloadBytes;
  writeU32(bytes, at + 4, id);
}

/** Gives the frame that begins at `at` another id. */
export function patchId(bytes: Uint8Array, at: number, id: number): void {
  bytes[at + 4] = id >>> 24;
  bytes[at + 5] = id >>> 16;
  bytes[at + 6] = id >>> 8;
  bytes[at + 7] = id;
}

/** Gives the frame that begins at `at` other flags. */
export function patchFlags(bytes: Uint8Array, at: number, flags: number): void {
  bytes[at + 1] = flags;
}

/** A frame as bytes of its own; for the control path and tests, not for forwarding. */
export function frameOf(type: number, flags: number, id: number, payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + payload.length);
  writeHeader(frame, 0, type, flags, payload.length, id);
  frame.set(payload, HEADER_BYTES);
  return frame;
}
