/**
 * Batch sync, the controller's side (P9, P10): record solo(X) moves only on X's own request (rules 16, 17).
 *
 * X brings the other up to date in a batch, has it confirm everything, keeps `asked` on disk with the
 * identity of the disk that confirmed, and asks for both(X); or, when it lost that disk again, for another
 * solo(X). The request counts only when it carries exactly the record's epoch and stands in the answer to
 * the latest poll, so X has just answered with its own disk.
 */
import { idOf, mayBeNamed, nextRecord, otherOf, withIdentity } from "./pair.js";
import type { Pair, Proposal } from "./pair.js";
import {
  MODE_BOTH,
  MODE_SOLO,
  bytesEqual,
  isBlankIdentity,
  recordsEqual,
} from "../../protocol/record.js";
import type { RoleRecord } from "../../protocol/record.js";

/** @returns undefined while the primary asks for nothing that may be granted */
export function whenAsked(pair: Pair, record: RoleRecord, now: number): Proposal | undefined {
  const said = pair.servers[record.primary].said;
  if (said === undefined || !(said.asked || said.wantsSolo)) return undefined;
  if (!recordsEqual(said.record, record)) return undefined;
  if (!mayBeNamed(pair, record, record.primary, now)) return undefined;
  const id = idOf(pair, record.primary);
  const other = otherOf(record.primary);
  if (said.wantsSolo) {
    return {
      event: "askedSolo",
      record: nextRecord(record, record.primary, MODE_SOLO),
      because: id + " lost " + idOf(pair, other) + " while it joined, and goes on alone",
    };
  }
  if (whyNotJoined(pair, record) !== "") return undefined;
  const next = nextRecord(record, record.primary, MODE_BOTH);
  return {
    event: "askedBoth",
    record: withIdentity(next, other, said.askIdentity),
    because: idOf(pair, other) + " has joined: it holds everything " + id + " acknowledged",
  };
}

/**
 * Why a request for both is not granted yet, for people; "" when nothing speaks against it. It would be
 * pointless, and turn back at once, while this controller itself cannot see the disk that has joined.
 */
export function whyNotJoined(pair: Pair, record: RoleRecord): string {
  const said = pair.servers[record.primary].said;
  const joined = pair.servers[otherOf(record.primary)];
  if (said === undefined || !said.asked)
    return idOf(pair, record.primary) + " has not asked for it";
  if (isBlankIdentity(said.askIdentity)) return "the request names no disk";
  if (!joined.linked || joined.said === undefined || joined.fault !== 0) {
    return joined.id + " is not connected to the controller";
  }
  if (!bytesEqual(joined.said.identity, said.askIdentity)) {
    return joined.id + " has another disk than the one that joined";
  }
  if (joined.said.copying) return joined.id + " still holds only part of a copy";
  return "";
}
