/**
 * The role record K: who is primary, in which epoch, and which disks hold the data.
 *
 * `both(X)` says both servers hold every acknowledged write; `solo(X)` says only X is known to.
 */

export const MODE_BOTH = 0;
export const MODE_SOLO = 1;

export const PAIR_ID_BYTES = 8;
export const IDENTITY_BYTES = 16;

/** Index of a server: its place in the configuration's list of two. */
export type ServerIndex = 0 | 1;
export type Mode = typeof MODE_BOTH | typeof MODE_SOLO;

export interface RoleRecord {
  /** @unit count, 1..2^32-1; 0 only in the blank record. */
  epoch: number;
  primary: ServerIndex;
  mode: Mode;
  pairId: Uint8Array;
  /** The disk each server must have; all zero where none is named yet. */
  identityA: Uint8Array;
  identityB: Uint8Array;
}
