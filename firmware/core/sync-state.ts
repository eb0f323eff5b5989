/**
 * Information acquisition, sync unit (P2): are the two in sync?
 *
 * "In sync" is not a matter of how many entries the standby lags: in mode both nothing is acknowledged
 * before the standby has it on disk. It is in sync when the record says both, it has adopted that very
 * record with the disk the record names, and its session with the primary is open in this epoch. Then,
 * and only then, it may answer reads.
 */
import { MODE_BOTH, bytesEqual, identityOf, recordsEqual } from "../../protocol/record.js";
import type { RoleRecord, ServerIndex } from "../../protocol/record.js";
import type { ServerView } from "./information.js";

/**
 * @param record what the flash holds
 * @returns why the standby is out of sync, for people; "" when the two are in sync
 */
export function outOfSync(record: RoleRecord | undefined, standby: ServerView): string {
  if (record === undefined) return "there is no record yet";
  if (!standby.linked || standby.said === undefined) return standby.id + " is not connected";
  const said = standby.said;
  if (!bytesEqual(said.identity, identityOf(record, standby.index))) {
    return standby.id + " has another disk than the record names";
  }
  if (said.copying) return standby.id + " holds part of a copy";
  if (record.mode !== MODE_BOTH) return standby.id + " has not joined yet";
  if (!recordsEqual(said.record, record)) return standby.id + " has not adopted this epoch yet";
  if (!said.sessionOpen) return standby.id + " has not compared logs with the primary yet";
  return "";
}

/** The two are in sync, and the standby is alive: it may get reads. */
export function inSync(record: RoleRecord | undefined, standby: ServerView): boolean {
  return standby.fault === 0 && outOfSync(record, standby) === "";
}

/** Entries the other server lags, as the primary knows it. @returns undefined when it is not connected */
export function lagEntries(
  record: RoleRecord | undefined,
  servers: ServerView[],
  server: ServerIndex,
): number | undefined {
  if (record === undefined) return undefined;
  if (server === record.primary) return 0;
  const said = servers[record.primary].said;
  return said === undefined ? undefined : said.lagEntries;
}
