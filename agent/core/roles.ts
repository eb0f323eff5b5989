/**
 * The role of this server: what its durable record K lets it do, and how K changes (rules 3, 4, 11-14).
 *
 * On disk: K, and `asked` (rule 17: which disk reached which index when both was asked for). All else
 * is volatile: confirmed, joining, what the controller told of the epoch.
 *
 *     blank ──record──> primary | solo | standby | joiner | stranger ──record of a higher epoch──> …
 *                       any of them ──equal epoch, other content──> stopped (for good)
 */
import { readU48, writeU48 } from "../../protocol/frame.js";
import { assert } from "../../protocol/malformed.js";
import {
  IDENTITY_BYTES,
  MODE_BOTH,
  RECORD_BYTES,
  areApart,
  bytesEqual,
  decodeRecord,
  encodeRecord,
  epochOf,
  identityOf,
  recordsEqual,
} from "../../protocol/record.js";
import type { RoleRecord, ServerIndex } from "../../protocol/record.js";
import { isMalformed } from "../../protocol/malformed.js";
import type { Store, StoreWriter } from "./store.js";

export const META_ROLES = Uint8Array.of(114);
const ROW_BYTES = RECORD_BYTES + 1 + IDENTITY_BYTES + 6;

export type RoleState =
  "blank" | "primary" | "solo" | "standby" | "joiner" | "stranger" | "stopped";

/** Which side of a session a role takes. */
export type SessionSide = "none" | "leads" | "follows";

export interface Duties {
  /** Runs commands that change data. */
  writes: boolean;
  /** Reads of the controller: always, only in an open session, or never. */
  reads: "always" | "in session" | "never";
  session: SessionSide;
  /** Local port: logs and answers itself, sends to the primary, or refuses. */
  local: "logs" | "forwards" | "refuses";
  /** Local reads are answered too (mode both). */
  localReads: boolean;
}

/** What each role may do: the one place that says so. */
export const DUTIES: Readonly<Record<RoleState, Duties>> = {
  blank: {
    writes: false,
    reads: "never",
    session: "none",
    local: "refuses",
    localReads: false,
  },
  primary: {
    writes: true,
    reads: "always",
    session: "leads",
    local: "logs",
    localReads: true,
  },
  solo: {
    writes: true,
    reads: "always",
    session: "leads",
    local: "logs",
    localReads: false,
  },
  standby: {
    writes: false,
    reads: "in session",
    session: "follows",
    local: "forwards",
    localReads: true,
  },
  joiner: {
    writes: false,
    reads: "never",
    session: "follows",
    local: "refuses",
    localReads: false,
  },
  // K names this server, but another disk (rule 1): it counts as absent until it has joined.
  stranger: {
    writes: false,
    reads: "never",
    session: "none",
    local: "refuses",
    localReads: false,
  },
  stopped: {
    writes: false,
    reads: "never",
    session: "none",
    local: "refuses",
    localReads: false,
  },
};

/** What to do with a record that was heard. */
export type Verdict = "same" | "adopt" | "lower" | "conflict" | "foreign" | "apart";

export interface Asked {
  /** The disk whose confirms reached `index`. */
  identity: Uint8Array;
  index: number;
}

/**
 * What entries of a record's epoch are stamped with: the epoch and its primary, as one number that grows with the epoch. An
 * epoch has one primary, but for a pair split by an old controller board (rule 19): its entries must not look alike.
 */
export function stampOf(record: RoleRecord): number {
  const stamp = record.epoch * 2 + record.primary;
  assert(stamp <= 0xffffffff, "an epoch that fits a stamp");
  return stamp;
}

export class Roles {
  record: RoleRecord | undefined;
  asked: Asked | undefined;
  readonly me: ServerIndex;
  readonly identity: Uint8Array;

  /** The standby's log equals ours up to here, in this epoch (rule 9). */
  confirmed = 0;
  /** Acknowledgements already need the joining disk's confirm (rule 17). */
  joining = false;
  /** The epoch whose first reply has passed the controller (G5); only told, never kept. */
  passedEpoch = 0;
  /** The epoch in which the operator lets this server set aside confirmed entries. */
  forcedEpoch = 0;
  /** Why this server stopped for good; "" while it has not. */
  stopped = "";
  /** The data is in the middle of a range copy: bars confirm, reads, both and election. */
  copying = false;
  /** What the role allows now. */
  duties: Duties = DUTIES.blank;
  /** Being put on disk; nothing else is decided meanwhile. */
  adopting: RoleRecord | undefined;

  constructor(me: ServerIndex, identity: Uint8Array) {
    this.me = me;
    this.identity = identity;
  }

  load(store: Store): void {
    const row = store.get("meta", META_ROLES);
    if (row === undefined) return;
    assert(row.length === ROW_BYTES, "roles row");
    const record = decodeRecord(row, 0, RECORD_BYTES);
    assert(!isMalformed(record), "stored record is sound");
    this.record = record as RoleRecord | undefined;
    if (row[RECORD_BYTES] === 1) {
      this.asked = {
        identity: row.slice(RECORD_BYTES + 1, RECORD_BYTES + 1 + IDENTITY_BYTES),
        index: readU48(row, RECORD_BYTES + 1 + IDENTITY_BYTES),
      };
    }
    this.refresh();
  }

  /** Both are one row, so that adopting clears `asked` in the step that writes K. */
  write(writer: StoreWriter, record: RoleRecord | undefined, asked: Asked | undefined): void {
    const row = new Uint8Array(ROW_BYTES);
    row.set(encodeRecord(record), 0);
    if (asked !== undefined) {
      row[RECORD_BYTES] = 1;
      row.set(asked.identity, RECORD_BYTES + 1);
      writeU48(row, RECORD_BYTES + 1 + IDENTITY_BYTES, asked.index);
    }
    writer.put("meta", META_ROLES, row);
  }

  epoch(): number {
    return epochOf(this.record);
  }

  /** What entries of this epoch are stamped with. */
  logEpoch(): number {
    return this.record === undefined ? 0 : stampOf(this.record);
  }

  state(): RoleState {
    if (this.stopped !== "") return "stopped";
    const { record } = this;
    if (record === undefined) return "blank";
    const named = bytesEqual(identityOf(record, this.me), this.identity);
    if (record.primary === this.me) {
      // A copy that is not whole holds nobody's data. (An operator's force takes the mark off first.)
      if (!named || this.copying) return "stranger";
      return record.mode === MODE_BOTH ? "primary" : "solo";
    }
    if (record.mode === MODE_BOTH) return named ? "standby" : "stranger";
    return "joiner";
  }

  /** To be called after anything `state` looks at has changed. */
  private refresh(): void {
    this.duties = DUTIES[this.state()];
  }

  stop(why: string): void {
    this.stopped = why;
    this.refresh();
  }

  setCopying(copying: boolean): void {
    this.copying = copying;
    this.refresh();
  }

  /** Acts as primary: K says so, and names this disk. */
  leads(): boolean {
    return this.duties.writes;
  }

  modeBoth(): boolean {
    return this.record !== undefined && this.record.mode === MODE_BOTH;
  }

  /** Acknowledgements need the other server's confirm. */
  joint(): boolean {
    return this.modeBoth() || this.joining || this.asked !== undefined;
  }

  /** Commands that did not come through the controller may be acknowledged in this epoch (G5). */
  localAcknowledged(): boolean {
    return this.modeBoth() || this.passedEpoch === this.epoch();
  }

  /** A solo record that the controller can no longer take back (as far as this server was told). */
  soloForGood(): boolean {
    return !this.joint() && this.state() === "solo" && this.passedEpoch === this.epoch();
  }

  /** Rule 3, what rule 19 asks of servers, and force. Changes nothing. */
  judge(heard: RoleRecord): Verdict {
    const { record } = this;
    if (record === undefined) return "adopt";
    if (!bytesEqual(record.pairId, heard.pairId)) return "foreign";
    // Epochs say nothing of which of the two was forced last.
    if (record.primary === this.me && areApart(record, heard)) return "apart";
    if (heard.epoch > record.epoch) return "adopt";
    if (heard.epoch < record.epoch) return "lower";
    return recordsEqual(record, heard) ? "same" : "conflict";
  }

  /** The record is on disk, `asked` is cleared there: now it holds. */
  adopted(record: RoleRecord): void {
    assert(record.epoch > this.epoch(), "epochs only grow");
    this.record = record;
    this.asked = undefined;
    this.adopting = undefined;
    this.confirmed = 0;
    this.joining = false;
    this.refresh();
  }
}
