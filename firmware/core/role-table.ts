/**
 * The controller's states as one table: state x event -> state. docs/states.md is drawn from it by
 * bin/draw-states.mjs, a board's bundle holds it as bin/board/packed-states.mjs packs it, and the root asks nothing else
 * where an event leads.
 */
import { assert } from "./assert.js";

export type PairState =
  | "off"
  | "blank"
  | "asking"
  | "waiting"
  | "both"
  | "draining"
  | "solo"
  | "dark"
  | "stranded"
  | "writing";

export type RoleEvent =
  | "recordFound"
  | "nothingFound"
  | "bothReported"
  | "reportLost"
  | "saidOtherwise"
  | "keptBoth"
  | "keptSolo"
  | "adopted"
  | "newPair"
  | "operatorPair"
  | "announced"
  | "firstOnline"
  | "failover"
  | "rerouted"
  | "standbyLost"
  | "standbyStalled"
  | "drain"
  | "drainEnded"
  | "switchover"
  | "askedBoth"
  | "askedSolo"
  | "takenBack"
  | "forced"
  | "overruled"
  | "primaryGone"
  | "primaryBack"
  | "alarm"
  | "persistedBoth"
  | "persistedSolo"
  | "persistedStopped";

export interface StateRow {
  state: PairState;
  /** Whether clients' commands may be sent to servers. */
  open: boolean;
  means: string;
}

export const STATES: StateRow[] = [
  { state: "off", open: false, means: "not started" },
  { state: "blank", open: false, means: "no usable record: both servers must report (rule 19)" },
  { state: "asking", open: false, means: "both have reported: they are asked once more (rule 19)" },
  { state: "waiting", open: false, means: "record found: its primary must show itself (rule 18)" },
  { state: "both", open: true, means: "serving; both servers hold every acknowledged write" },
  { state: "draining", open: false, means: "serving what is open, before a planned switchover" },
  { state: "solo", open: true, means: "serving from one server; the other joins or is away" },
  {
    state: "dark",
    open: false,
    means: "record both: the primary failed, nobody else can be named",
  },
  { state: "stranded", open: false, means: "record solo: the one that has the data is away" },
  { state: "writing", open: false, means: "a new record is on its way into flash" },
];

export interface Transition {
  from: PairState;
  event: RoleEvent;
  to: PairState;
  /** The rule of the role protocol, or the row of the patent table, that this carries out. */
  rule: string;
}

export const TRANSITIONS: Transition[] = [
  { from: "off", event: "recordFound", to: "waiting", rule: "18" },
  { from: "off", event: "nothingFound", to: "blank", rule: "19" },

  { from: "blank", event: "bothReported", to: "asking", rule: "19" },
  { from: "asking", event: "reportLost", to: "blank", rule: "19" },
  { from: "asking", event: "saidOtherwise", to: "asking", rule: "19" },
  { from: "asking", event: "adopted", to: "writing", rule: "19" },
  { from: "asking", event: "newPair", to: "writing", rule: "19, P13, P14" },
  { from: "blank", event: "operatorPair", to: "writing", rule: "19" },

  { from: "waiting", event: "keptBoth", to: "both", rule: "18" },
  { from: "waiting", event: "keptSolo", to: "solo", rule: "18" },
  { from: "waiting", event: "announced", to: "writing", rule: "18, P13" },
  { from: "waiting", event: "firstOnline", to: "writing", rule: "18, P14" },

  { from: "both", event: "failover", to: "writing", rule: "15, P12" },
  { from: "draining", event: "failover", to: "writing", rule: "15, P12" },
  { from: "dark", event: "failover", to: "writing", rule: "15, P12" },
  { from: "both", event: "rerouted", to: "writing", rule: "15, P12" },
  { from: "draining", event: "rerouted", to: "writing", rule: "15, P12" },
  { from: "dark", event: "rerouted", to: "writing", rule: "15, P12" },
  { from: "both", event: "standbyLost", to: "writing", rule: "15" },
  { from: "draining", event: "standbyLost", to: "writing", rule: "15" },
  { from: "dark", event: "standbyLost", to: "writing", rule: "15" },
  { from: "both", event: "standbyStalled", to: "writing", rule: "15" },
  { from: "draining", event: "standbyStalled", to: "writing", rule: "15" },
  { from: "dark", event: "standbyStalled", to: "writing", rule: "15" },

  { from: "both", event: "drain", to: "draining", rule: "15" },
  { from: "draining", event: "drainEnded", to: "both", rule: "15" },
  { from: "draining", event: "switchover", to: "writing", rule: "15" },

  { from: "solo", event: "askedBoth", to: "writing", rule: "16, 17" },
  { from: "solo", event: "askedSolo", to: "writing", rule: "16, 17" },
  { from: "solo", event: "takenBack", to: "writing", rule: "G5" },
  { from: "stranded", event: "takenBack", to: "writing", rule: "G5" },

  { from: "both", event: "primaryGone", to: "dark", rule: "15" },
  { from: "draining", event: "primaryGone", to: "dark", rule: "15" },
  { from: "solo", event: "primaryGone", to: "stranded", rule: "16" },
  { from: "dark", event: "primaryBack", to: "both", rule: "15" },
  { from: "stranded", event: "primaryBack", to: "solo", rule: "16" },

  { from: "blank", event: "forced", to: "writing", rule: "force" },
  { from: "asking", event: "forced", to: "writing", rule: "force" },
  { from: "waiting", event: "forced", to: "writing", rule: "force" },
  { from: "dark", event: "forced", to: "writing", rule: "force" },
  { from: "stranded", event: "forced", to: "writing", rule: "force" },
  { from: "solo", event: "forced", to: "writing", rule: "force" },
  { from: "solo", event: "overruled", to: "writing", rule: "force" },

  { from: "waiting", event: "alarm", to: "blank", rule: "19" },
  { from: "both", event: "alarm", to: "blank", rule: "19" },
  { from: "draining", event: "alarm", to: "blank", rule: "19" },
  { from: "solo", event: "alarm", to: "blank", rule: "19" },
  { from: "dark", event: "alarm", to: "blank", rule: "19" },
  { from: "stranded", event: "alarm", to: "blank", rule: "19" },
  // A write to flash cannot be called back: the alarm is acted on when it has ended.
  { from: "writing", event: "alarm", to: "writing", rule: "19" },
  { from: "writing", event: "persistedStopped", to: "blank", rule: "19" },

  { from: "writing", event: "persistedBoth", to: "both", rule: "2" },
  { from: "writing", event: "persistedSolo", to: "solo", rule: "2" },
];

/** @returns where the event leads, undefined when it has no meaning in that state */
export function nextState(from: PairState, event: RoleEvent): PairState | undefined {
  for (let i = 0; i < TRANSITIONS.length; i++) {
    const row = TRANSITIONS[i];
    if (row.from === from && row.event === event) return row.to;
  }
  return undefined;
}

/** What a state means, for people. */
export function meaningOf(state: PairState): string {
  for (let i = 0; i < STATES.length; i++) {
    if (STATES[i].state === state) return STATES[i].means;
  }
  return "";
}

/** Whether clients' commands may be sent to servers in a state. */
export function isOpen(state: PairState): boolean {
  for (let i = 0; i < STATES.length; i++) {
    if (STATES[i].state === state) return STATES[i].open;
  }
  assert(false, "a state of the table: " + state);
  return false;
}
