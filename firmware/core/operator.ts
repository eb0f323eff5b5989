/**
 * What an operator may order that no rule would do: force, and a pair from one blank server.
 *
 * Both can throw data away, so each says first, in plain words, what would be lost.
 */
import { EPOCH_GAP, EPOCH_MAX } from "./limits.js";
import {
  aboveHeard,
  hasOtherDisk,
  idOf,
  nextRecord,
  otherOf,
  recordText,
  withEpoch,
  withIdentity,
} from "./pair.js";
import type { Pair, Proposal } from "./pair.js";
import { primaryFailed } from "./failover.js";
import { IDENTITY_BYTES, MODE_SOLO, bytesEqual, isBlankIdentity } from "../../protocol/record.js";
import type { RoleRecord, ServerIndex } from "../../protocol/record.js";

/** Either why it is refused, or what it would do and cost. */
export interface Order {
  refused: string;
  proposal: Proposal | undefined;
  /** What would be lost, one statement a line. */
  losses: string[];
}

/** What the operator was told and then confirmed. An order is carried out as this or not at all. */
export interface Confirmed {
  server: ServerIndex;
  /** The epoch the record would have. */
  epoch: number;
  losses: string[];
}

/** An order as it was announced. Only one that may be given can be. */
export function confirmedOf(order: Order): Confirmed {
  const record = order.proposal!.record;
  return { server: record.primary, epoch: record.epoch, losses: order.losses };
}

/** Why an order is not the one that was confirmed, for people; "" when it is. */
export function whyChanged(pair: Pair, order: Order, confirmed: Confirmed): string {
  const record = pair.record;
  const proposal = order.proposal!;
  if (proposal.record.epoch !== confirmed.epoch) {
    return (
      (record === undefined
        ? "what the servers report has changed"
        : "the record has changed to " + recordText(pair, record)) +
      " since it was confirmed: nothing was done; say force again to hear what would be lost now"
    );
  }
  if (!sameLines(order.losses, confirmed.losses)) {
    return "what would be lost has changed since it was confirmed: nothing was done; say force again to hear it";
  }
  return "";
}

function sameLines(one: string[], other: string[]): boolean {
  if (one.length !== other.length) return false;
  for (let i = 0; i < one.length; i++) if (one[i] !== other[i]) return false;
  return true;
}

function refused(why: string): Order {
  return { refused: why, proposal: undefined, losses: [] };
}

/** The server is connected and answers polls; whether it has answered the latest is asked when it is named. */
function isHere(pair: Pair, server: ServerIndex, now: number): boolean {
  const view = pair.servers[server];
  const t = pair.config.timings;
  return view.linked && view.fault === 0 && now - view.lastSaidAt <= 3 * t.pollMs;
}

/** The server an order names has just answered the latest poll, so the order may be carried out. */
export function mayCarryOut(pair: Pair, server: ServerIndex, now: number): boolean {
  return pair.servers[server].answered && isHere(pair, server, now);
}

/** `force`: solo(target), whatever the rules know of the other (ROLES "force"). */
export function orderForce(pair: Pair, target: ServerIndex, now: number): Order {
  const id = idOf(pair, target);
  const record = pair.record;
  if (pair.writing !== undefined) return refused("a record is being written; try again");
  if (record !== undefined) {
    if (!primaryFailed(pair, record) && record.primary !== target && pair.state !== "waiting") {
      return refused(
        idOf(pair, record.primary) +
          " is up and has every acknowledged write: use switchover, or stop it first",
      );
    }
    if (pair.state === "both" || pair.state === "draining") {
      return refused("the pair serves from both servers: there is nothing to force");
    }
  }
  if (!isHere(pair, target, now)) return refused(id + " is not connected, or answers no poll");
  const identity = pair.servers[target].said!.identity;
  if (record === undefined && pair.servers[target].said!.record === undefined) {
    // A force would found another pair, and the other server may hold this one's record.
    return refused(id + " is blank: only newPair, naming its disk, makes a pair of it");
  }
  if (pair.epochHeard > EPOCH_MAX - 2 * EPOCH_GAP) return refused("the epochs are used up");
  const next =
    record !== undefined
      ? withIdentity(aboveHeard(pair, nextRecord(record, target, MODE_SOLO)), target, identity)
      : forcedWithoutRecord(pair, target);
  return {
    refused: "",
    proposal: {
      event: "forced",
      record: next,
      because: "the operator forced " + id + " to be primary",
    },
    losses: lossesOf(pair, target),
  };
}

/**
 * Flash blank or wiped: what the servers themselves report is all there is to go on.
 *
 * The other may have been forced as well, before, and hold any epoch. So the record names no disk for it: that is what
 * both servers and every later controller know such a record by (`areApart`), and only a join ends it.
 */
function forcedWithoutRecord(pair: Pair, target: ServerIndex): RoleRecord {
  const said = pair.servers[target].said!;
  const other = otherOf(target);
  const blank = new Uint8Array(IDENTITY_BYTES);
  const found = said.record;
  const next = withEpoch(nextRecord(found!, target, MODE_SOLO), pair.epochHeard + EPOCH_GAP);
  return withIdentity(withIdentity(next, target, said.identity), other, blank);
}

/** What people must read before they force. */
export function lossesOf(pair: Pair, target: ServerIndex): string[] {
  const lines: string[] = [];
  const id = idOf(pair, target);
  const otherId = idOf(pair, otherOf(target));
  const said = pair.servers[target].said;
  const gone = pair.servers[otherOf(target)].lastSaid;
  const record = pair.record;
  if (record !== undefined && record.primary === target) {
    lines.push(
      id + " stays primary; " + otherId + " may then discard entries that it alone has confirmed.",
    );
  } else if (record !== undefined) {
    lines.push(
      "LOST: every write that " +
        otherId +
        " acknowledged alone under " +
        recordText(pair, record) +
        ".",
    );
  } else {
    lines.push(
      "UNKNOWN: the flash holds no record, so " +
        otherId +
        " may have acknowledged writes that " +
        id +
        " never saw. They would be lost.",
    );
    if (!pair.servers[otherOf(target)].linked) {
      lines.push(
        otherId +
          " is away: back again it follows " +
          id +
          ", whatever it was told meanwhile, but only while this flash holds the record. Wiped once more before that, the pair may wait for another force.",
      );
    }
  }
  if (gone !== undefined && said !== undefined && gone.logEnd > said.logEnd) {
    lines.push(
      otherId +
        " was last heard with log end " +
        gone.logEnd +
        ", " +
        id +
        " has " +
        said.logEnd +
        ": at least " +
        (gone.logEnd - said.logEnd) +
        " entries would be gone.",
    );
  }
  const joins = record === undefined || (record.mode === MODE_SOLO && record.primary !== target);
  if (joins && pair.servers[otherOf(target)].linked) {
    lines.push(
      "Should " +
        otherId +
        " begin to copy its data to " +
        id +
        " before the order is there, " +
        id +
        " will hold only part of it, and of its own data NOTHING.",
    );
  }
  if (said !== undefined && said.copying) {
    lines.push(id + " holds only PART OF A COPY: keys of two times are mixed in it.");
  }
  if (record !== undefined && hasOtherDisk(record, pair.servers[target])) {
    lines.push(id + " has another disk than the record names.");
  }
  return lines;
}

/** `newPair IDENTITY`: one blank server alone founds a pair (rule 19). */
export function orderNewPair(
  pair: Pair,
  identity: Uint8Array,
  pairId: Uint8Array,
  now: number,
): Order {
  if (pair.record !== undefined || pair.writing !== undefined) {
    return refused("the flash holds a record: this controller has a pair");
  }
  for (let i = 0; i < 2; i++) {
    const server: ServerIndex = i === 0 ? 0 : 1;
    const said = pair.servers[server].said;
    if (said === undefined || !bytesEqual(said.identity, identity)) continue;
    if (isBlankIdentity(identity) || !said.blank || said.record !== undefined) {
      return refused(idOf(pair, server) + " has that disk, but it is not blank");
    }
    if (pair.servers[otherOf(server)].linked) {
      return refused("both servers are connected: the rules of power-on decide");
    }
    if (!isHere(pair, server, now)) return refused(idOf(pair, server) + " answers no poll");
    const none = new Uint8Array(IDENTITY_BYTES);
    return {
      refused: "",
      proposal: {
        event: "operatorPair",
        record: {
          epoch: pair.epochHeard + 1,
          primary: server,
          mode: MODE_SOLO,
          pairId: pairId,
          identityA: server === 0 ? identity : none,
          identityB: server === 1 ? identity : none,
        },
        because: "the operator founded a new pair on the disk of " + idOf(pair, server),
      },
      losses: [],
    };
  }
  return refused("no connected server has that disk");
}
