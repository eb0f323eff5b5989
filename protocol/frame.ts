/**
 * The one frame format of every link: an 8-byte header, then the payload.
 *
 *     byte 0      byte 1   bytes 2-3        bytes 4-7
 *     ver | type  flags    payload length   id
 *
 * All integers are big-endian. The header is patched in place when the controller rewrites an id,
 * so a forwarded command is never copied field by field.
 */

export const WIRE_VERSION = 1;
/** Oldest wire version this build still speaks. */
export const WIRE_VERSION_MIN = 1;

export const HEADER_BYTES = 8;
/** Largest payload a frame can carry on a link between full-size machines. @unit bytes */
export const PAYLOAD_BYTES_MAX = 65528;
/** Largest whole frame agreed with a chip: its engine hands out at most this much at once. @unit bytes */
export const CHIP_FRAME_BYTES_MAX = 536;

export const FRAME_COMMAND = 1;
export const FRAME_REPLY = 2;
export const FRAME_EPOCH = 3;
export const FRAME_CREDIT = 4;
export const FRAME_ABORT = 5;
export const FRAME_CONTROL = 6;
export const FRAME_APPEND = 7;
export const FRAME_CONFIRM = 8;
export const FRAME_COPY = 9;

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

/** REPLY outcomes (flags bits 0-1). */
export const OUTCOME_MASK = 0x03;
export const OUTCOME_ANSWER = 0;
export const OUTCOME_REFUSED = 1;
export const OUTCOME_UNKNOWN = 2;

export const SESSION_PREFIX_BYTES = 16;
