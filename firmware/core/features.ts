/**
 * Which parts of the controller this build carries. All, on Node; a board's build (bin/board/bundle.mjs) puts the values
 * of its board configuration here, and what is switched off is not in the bundle at all.
 */

/** Plain Redis clients: the RESP parser, the connection commands, MULTI. */
export const WITH_REDIS_PORT: boolean = true;
/** Clients that speak frames. */
export const WITH_NATIVE_PORT: boolean = true;
/** Commands at all: without them the controller only chooses and changes roles. */
export const WITH_CLIENTS: boolean = true;
/** Polls and records on serial lines to the servers. */
export const WITH_SERIAL_LINES: boolean = true;
/** Outputs that switch a failed server off. */
export const WITH_FENCING: boolean = true;
/** A client that speaks frames on a serial line. */
export const WITH_CLIENT_LINE: boolean = true;
/** `status json`. Not on a board: its bundle has short names for all fields, which nobody could read. */
export const WITH_STATUS_JSON: boolean = true;
/** The console's longer answers: `explain`, `config`, and what each command means. */
export const WITH_FULL_CONSOLE: boolean = true;
/** Few bytes are copied one by one, which is quicker where code is compiled, and a hundred times slower where it is not. */
export const WITH_BYTE_LOOPS: boolean = true;
/** The fast path of an Espruino board (firmware/fast-path.ts). */
export const WITH_FAST_PATH: boolean = true;
/** Rounds of polls in which nothing happens are carried out by an Espruino board's loop itself (firmware/fast-poll.ts). */
export const WITH_FAST_POLL: boolean = true;
/** The fast path for plain Redis clients too, which takes memory for each. */
export const WITH_FAST_REDIS: boolean = true;
/** Limits are checked at boot. A board's are checked when its firmware is built, and cannot change after that. */
export const WITH_LIMITS_CHECK: boolean = true;
