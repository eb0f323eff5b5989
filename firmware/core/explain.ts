/**
 * Explanations for people: why the pair is in its state, what it waits for, what would change it.
 * Texts only; the rules themselves are in election, failover and rejoin.
 */
import { FAULT_SILENT, networkOnly, pathsText } from "./fault-monitor.js";
import { goneText, primaryFailedText } from "./failover.js";
import { hasOtherDisk, idOf, otherOf, recordText, whyNotCompacted } from "./pair.js";
import type { Pair } from "./pair.js";
import { whyNotJoined } from "./rejoin.js";
import { meaningOf } from "./role-table.js";
import { outOfSync } from "./sync-state.js";
import { MODE_BOTH, MODE_SOLO, formatHex } from "../../protocol/record.js";
import type { RoleRecord, ServerIndex } from "../../protocol/record.js";

/** One sentence for `status`: why things are as they are. */
export function whyText(pair: Pair): string {
  let text = pair.because;
  const record = pair.record;
  if (record === undefined || pair.state === "waiting") {
    if (pair.waits !== "") text += "; waits: " + pair.waits;
    if (record !== undefined && record.mode === MODE_SOLO)
      text += " (" + forceText(pair, record) + ")";
  } else if (pair.state === "stranded") {
    text += "; " + strandedText(pair, record);
  } else if (pair.state === "dark") {
    text += ", and " + notNamedText(pair, record);
    const cable = ownCableText(pair);
    if (cable !== "") text += "; " + cable;
  } else if (pair.flashFull) {
    text += "; waits: " + flashFullText(pair, record);
  } else if (pair.state === "both") {
    const apart = outOfSync(record, pair.servers[otherOf(record.primary)]);
    if (apart !== "") text += "; not in sync: " + apart;
  }
  return pair.alarm === "" ? text : "ALARM: " + pair.alarm + "; " + text;
}

/** A record waits for room in the flash: for what, and what may be lost. */
function flashFullText(pair: Pair, record: RoleRecord): string {
  return (
    "the flash is full, and put in order only while both servers hold epoch " +
    record.epoch +
    ", since a power cut then can lose the record (" +
    whyNotCompacted(pair) +
    ")"
  );
}

/** Both networks are silent and a serial line answers: what everybody should look at first; "" otherwise. */
export function ownCableText(pair: Pair): string {
  let silent = 0;
  let byLine = 0;
  for (let i = 0; i < 2; i++) {
    if (pair.servers[i].fault === FAULT_SILENT || networkOnly(pair.servers[i])) silent++;
    if (networkOnly(pair.servers[i])) byLine++;
  }
  if (silent < 2 || byLine === 0) return "";
  return "both networks are silent and serial answers: look at this controller's own network cable";
}

/** Record solo(X) without X: what is known, and what `force` would lose. */
function strandedText(pair: Pair, record: RoleRecord): string {
  const id = idOf(pair, record.primary);
  return (
    "only " +
    id +
    " is known to hold every acknowledged write, so nobody else is named (" +
    forceText(pair, record) +
    ")"
  );
}

function forceText(pair: Pair, record: RoleRecord): string {
  return (
    "force " +
    idOf(pair, otherOf(record.primary)) +
    " would lose what " +
    idOf(pair, record.primary) +
    " acknowledged alone"
  );
}

/** Why the standby does not take over in record both. */
function notNamedText(pair: Pair, record: RoleRecord): string {
  const view = pair.servers[otherOf(record.primary)];
  const gone = goneText(pair, record, view.index);
  if (gone !== "") return gone;
  if (!view.linked) return view.id + " is not connected";
  if (view.said !== undefined && view.said.copying) return view.id + " holds only part of a copy";
  return view.id + " answers no poll";
}

/** What clients are told when there is no primary to ask. */
export function clientText(pair: Pair): string {
  if (pair.state === "writing") return "roles are changing";
  if (pair.state === "draining") return "a planned switchover is under way";
  const record = pair.record;
  if (record !== undefined && pair.state === "dark") {
    return pair.because + ", and " + notNamedText(pair, record);
  }
  if (record !== undefined && pair.state === "stranded") {
    return "only " + idOf(pair, record.primary) + " has every write, and " + pair.because;
  }
  return pair.waits !== "" ? pair.waits : pair.because;
}

export function explainPair(pair: Pair): string[] {
  const lines: string[] = [];
  const record = pair.record;
  lines.push("State: " + pair.state + " - " + meaningOf(pair.state));
  lines.push("Record: " + (record === undefined ? "none" : recordText(pair, record)));
  if (pair.alarm !== "") lines.push("ALARM: " + pair.alarm);
  lines.push("Why: " + pair.because);
  const waits = waitingText(pair);
  if (waits !== "") lines.push("Waits for: " + waits);
  const cable = ownCableText(pair);
  if (cable !== "") lines.push("Paths: " + cable);
  const change = changeText(pair);
  for (let i = 0; i < change.length; i++) lines.push("Would change it: " + change[i]);
  for (let i = 0; i < 2; i++) lines.push(serverText(pair, i === 0 ? 0 : 1));
  return lines;
}

/** What the pair waits for, "" when it waits for nothing. */
export function waitingText(pair: Pair): string {
  const record = pair.record;
  if (record === undefined) return pair.waits;
  const primary = idOf(pair, record.primary);
  const other = otherOf(record.primary);
  switch (pair.state) {
    case "writing":
      return pair.flashFull ? flashFullText(pair, record) : "the flash";
    case "draining":
      return "open commands to be answered";
    case "dark":
      return primary + " or " + idOf(pair, other) + " (" + notNamedText(pair, record) + ")";
    case "stranded":
      return primary + " to come back with its disk (" + primaryFailedText(pair, record) + ")";
    case "solo": {
      const away = goneText(pair, record, other);
      if (!pair.servers[other].linked) {
        return idOf(pair, other) + " to come back" + (away === "" ? "" : " (" + away + ")");
      }
      return idOf(pair, other) + " to be brought up to date (" + whyNotJoined(pair, record) + ")";
    }
    case "both": {
      const apart = outOfSync(record, pair.servers[other]);
      return apart === "" ? "" : "the two to be in sync (" + apart + ")";
    }
    default:
      return pair.waits;
  }
}

function changeText(pair: Pair): string[] {
  const record = pair.record;
  if (record === undefined) return blankChanges(pair);
  const primary = idOf(pair, record.primary);
  const other = idOf(pair, otherOf(record.primary));
  switch (pair.state) {
    case "both":
      return [
        "a failure of " + primary + " (" + other + " takes over), or of " + other,
        "the operator's switchover",
      ];
    case "solo": {
      const back = pair.servers[otherOf(record.primary)];
      const mayTakeBack = pair.fresh && back.linked && !hasOtherDisk(record, back);
      return [
        "only " + primary + "'s own request, once " + other + " holds everything",
        mayTakeBack
          ? "a failure of " + primary + " before its first answer: " + other + " takes over"
          : "a failure of " + primary + " leaves nobody: " + other + " may lack its writes",
      ];
    }
    case "writing":
      return pair.flashFull
        ? [
            "both servers connect and report epoch " + record.epoch,
            "compact now: a power cut meanwhile leaves a blank flash, and both must report",
          ]
        : [];
    case "dark":
      return [primary + " answers, or " + other + " answers with the disk of the record"];
    case "stranded":
      return [
        primary + " comes back with its disk",
        "force " + other + ": what " + primary + " acknowledged alone is lost",
      ];
    case "waiting":
      return record.mode === MODE_BOTH
        ? [primary + " connects, or stays away past the limit"]
        : [
            primary + " connects with its disk",
            "force " + other + ": what " + primary + " acknowledged alone is lost",
          ];
    default:
      return [];
  }
}

function blankChanges(pair: Pair): string[] {
  const lines: string[] = [];
  for (let i = 0; i < 2; i++) {
    const view = pair.servers[i];
    if (!view.linked) lines.push(view.id + " connects and reports");
  }
  for (let i = 0; i < 2; i++) {
    const view = pair.servers[i];
    if (!view.linked || view.said === undefined || pair.servers[1 - i].linked) continue;
    lines.push(
      view.said.blank
        ? "newPair " + formatHex(view.said.identity) + ": a new, empty pair on " + view.id
        : "force " + view.id + ": what the other acknowledged alone is lost",
    );
  }
  return lines;
}

/** One line on one server. */
export function serverText(pair: Pair, server: ServerIndex): string {
  const view = pair.servers[server];
  const record = pair.record;
  const said = view.said;
  let text = "Server " + view.id + ": " + roleOf(pair, server);
  if (!view.linked) text += ", not connected";
  if (view.fault !== 0 && record !== undefined) text += "; " + goneText(pair, record, server);
  if (view.linked && view.fault === 0 && view.polledAt > view.lastSaidAt + 500) {
    text += ", answers no poll (is its poll port reachable?)";
  }
  const line = view.line;
  // While all is well on both paths there is nothing to say about them.
  if (line !== undefined && (!line.up || view.fault !== 0)) text += ", " + pathsText(view);
  if (record !== undefined && hasOtherDisk(record, view)) text += ", another disk";
  if (said !== undefined && said.copying) text += ", copying";
  if (said !== undefined && said.problem !== "") text += ", says: " + said.problem;
  return text;
}

/** @returns primary, standby, joining or away */
export function roleOf(pair: Pair, server: ServerIndex): string {
  const record = pair.record;
  const view = pair.servers[server];
  if (record === undefined) return view.linked ? "connected" : "away";
  if (record.primary === server) return "primary";
  if (!view.linked) return "away";
  return record.mode === MODE_BOTH && !hasOtherDisk(record, view) ? "standby" : "joining";
}
