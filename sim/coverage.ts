/**
 * Which transitions of the controller's state table, and which rules, the seeds really reach: a world in which a
 * rule never mattered says nothing about it.
 *
 * A mark is counted where something happens that only that rule makes happen: a note of the code, a frame on a
 * wire, an answer to a client, a row on a disk.
 */
import { TRANSITIONS } from "../firmware/core/role-table.js";

export interface Mark {
  /** As docs/ROLE-PROTOCOL.md numbers it. */
  rule: string;
  what: string;
  /** What is counted under this name (World.cover). */
  key: string;
}

/** Every built rule, each by something it does. Rules that only forbid are met where their moment came. */
export const RULE_MARKS: readonly Mark[] = [
  { rule: "1", what: "a server whose disk the record does not name", key: "role stranger" },
  { rule: "2", what: "a record in flash", key: "flash written" },
  { rule: "2", what: "a flash write cut off by a restart", key: "flash torn" },
  { rule: "3", what: "a record adopted", key: "server record-adopted" },
  {
    rule: "4",
    what: "a record adopted from the peer alone",
    key: "adopted without the controller",
  },
  { rule: "5", what: "a session that ended by an adoption", key: "adopted with a session open" },
  { rule: "6", what: "a server connected", key: "controller connected" },
  { rule: "7, 9, 11", what: "a change answered in mode both", key: "change answered in both" },
  { rule: "8", what: "logs compared", key: "server session-planned" },
  { rule: "8", what: "entries set aside", key: "server set-aside" },
  { rule: "10", what: "a change at the primary's own port", key: "local change at primary" },
  { rule: "10", what: "a change at the standby's own port", key: "local change at standby" },
  { rule: "10", what: "a read at a server's own port", key: "local read" },
  { rule: "10", what: "a read at an own port refused in solo", key: "local read refused" },
  { rule: "12", what: "a change answered in solo", key: "change answered in solo" },
  { rule: "13", what: "a read answered by the primary in both", key: "read at primary in both" },
  { rule: "14", what: "a read answered by the standby", key: "read at standby" },
  { rule: "17", what: "joining", key: "server joining" },
  { rule: "17", what: "asked for both", key: "server asked-for-both" },
  { rule: "17", what: "a restart after asked", key: "restart after asked" },
  { rule: "17", what: "a join given up", key: "server join-given-up" },
  { rule: "17", what: "a range copy begun and whole", key: "server copy-whole" },
  { rule: "17", what: "a restart in the middle of a copy", key: "restart while copying" },
  { rule: "19", what: "an alarm", key: "controller ALARM" },
  { rule: "19", what: "a board of another pair put in", key: "foreign board" },
  { rule: "19", what: "an old board that served, found out", key: "old board found out" },
  {
    rule: "20",
    what: "a local change while the controller is down",
    key: "local change without controller",
  },
  { rule: "force", what: "a lossy force, judged", key: "force judged by what it said" },
  { rule: "failed", what: "a server judged failed", key: "controller failed" },
  { rule: "disks", what: "a damaged row that ended an agent", key: "damaged row" },
  { rule: "serial", what: "a record told by the line", key: "server record-by-serial" },
  { rule: "serial", what: "a record with a wrong seal", key: "server bad-seal" },
  { rule: "serial", what: "a line up or down", key: "controller serial line" },
  { rule: "G1", what: "a command sent to the primary", key: "sent to primary" },
  { rule: "G1", what: "a read sent to the standby", key: "sent to standby" },
  { rule: "G2", what: "a command refused by a server", key: "refused by server" },
  { rule: "G3", what: "a reply that was not passed on", key: "replies dropped" },
  { rule: "G4", what: "a controller gone with commands open", key: "gone with commands open" },
  { rule: "exactly once", what: "commands asked again", key: "asked again" },
  { rule: "exactly once", what: "outcome unknown", key: "told outcome unknown" },
  { rule: "time", what: "a value with a time to live found gone", key: "expired" },
  { rule: "disks", what: "a failed flush that ended an agent", key: "flush failed" },
];

/** Transitions met less than once in a thousand seeds: they are asked for only of very many. */
export const RARE: readonly string[] = [
  "waiting + announced -> writing",
  "draining + rerouted -> writing",
  "dark + rerouted -> writing",
  "draining + standbyLost -> writing",
  "dark + standbyLost -> writing",
  "dark + standbyStalled -> writing",
  "both + alarm -> blank",
  "draining + alarm -> blank",
  "dark + alarm -> blank",
  "stranded + alarm -> blank",
  "asking + saidOtherwise -> asking",
  "solo + overruled -> writing",
  "a restart in the middle of a copy",
];

export function transitionKey(from: string, event: string): string {
  return `table ${from} ${event}`;
}

export interface CoverageRow {
  rule: string;
  what: string;
  count: number;
}

/** One row for each transition and each mark, zero included. */
export function coverageRows(counts: ReadonlyMap<string, number>): CoverageRow[] {
  const rows: CoverageRow[] = TRANSITIONS.map((row) => ({
    rule: row.rule,
    what: `${row.from} + ${row.event} -> ${row.to}`,
    count: counts.get(transitionKey(row.from, row.event)) ?? 0,
  }));
  for (const mark of RULE_MARKS) {
    rows.push({ rule: mark.rule, what: mark.what, count: counts.get(mark.key) ?? 0 });
  }
  return rows;
}

export function coverageTable(counts: ReadonlyMap<string, number>): string {
  const lines = ["| rule | what | times |", "| --- | --- | ---: |"];
  for (const row of coverageRows(counts))
    lines.push(`| ${row.rule} | ${row.what} | ${row.count} |`);
  return lines.join("\n");
}
