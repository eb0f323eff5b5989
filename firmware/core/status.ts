/**
 * What `dyad status --json` prints: plain data, made on demand.
 *
 * Its field names, those of the interfaces here and of forward-counters.ts, are what a board's build keeps where `status json`
 * is asked for (bin/board/bundle.mjs); what is printed under a name from elsewhere would come out mangled there.
 */
import { roleOf, waitingText, whyText } from "./explain.js";
import { pathsText } from "./fault-monitor.js";
import type { ForwardCounters } from "./forward-counters.js";
import { isGone } from "./pair.js";
import type { Pair } from "./pair.js";
import { loadPermille } from "./load.js";
import { inSync, lagEntries } from "./sync-state.js";
import { MODE_BOTH, formatHex } from "../../protocol/record.js";
import type { ServerIndex } from "../../protocol/record.js";

/** The part of the forward path that status reads. */
export interface Traffic {
  inFlight(server: ServerIndex): number;
  serviceUs(server: ServerIndex): number;
  counters(): ForwardCounters;
}

/** What a server's serial line has brought. */
export interface LineStatus {
  up: boolean;
  /** The server that answered on this line though it is another's; "" when none did. */
  strangerId: string;
  packets: number;
  damaged: number;
  garbageBytes: number;
  lost: number;
  doubled: number;
  echoes: number;
  tooLong: number;
  unsent: number;
}

/** What the controller says of itself. */
export interface OwnStatus {
  lateTurns: number;
  /** @unit ms */
  worstLateMs: number;
  roleChanges: number;
  lastAlarm: string;
  traceCount: number;
  /** null: there is no line to that server. */
  serial: (LineStatus | null)[];
  fences: string[];
}

function serverStatus(pair: Pair, traffic: Traffic, server: ServerIndex, now: number): object {
  const view = pair.servers[server];
  const record = pair.record;
  const said = view.said;
  const isPrimary = record !== undefined && record.primary === server;
  const load = loadPermille(view);
  const lag = lagEntries(record, pair.servers, server);
  return {
    id: view.id,
    role: roleOf(pair, server),
    up: view.linked && view.fault === 0,
    inSync: record !== undefined && !isGone(record, view) && (isPrimary || inSync(record, view)),
    lagEntries: lag === undefined ? null : lag,
    loadPermille: load === undefined ? null : load,
    serviceUs: Math.round(traffic.serviceUs(server)),
    inFlight: traffic.inFlight(server),
    connected: view.linked,
    fault: view.fault,
    identity: said === undefined ? "" : formatHex(said.identity),
    epoch: said === undefined || said.record === undefined ? 0 : said.record.epoch,
    logEnd: said === undefined ? null : said.logEnd,
    confirmed: said === undefined ? null : said.confirmed,
    joining: said !== undefined && said.joining,
    asked: said !== undefined && said.asked,
    sessionOpen: said !== undefined && said.sessionOpen,
    copying: said !== undefined && said.copying,
    braking: said !== undefined && said.braking,
    peerUp: said !== undefined && said.peerUp,
    cpuPermille: said === undefined ? null : said.cpuPermille,
    loopDelayUs: said === undefined ? null : said.loopDelayUs,
    paths: pathsText(view),
    heardMsAgo: view.aliveAt < 0 ? null : Math.round(now - view.aliveAt),
    uptimeMs: said === undefined ? null : said.uptimeMs,
    problem: said === undefined ? "" : said.problem,
  };
}

export function statusOf(
  pair: Pair,
  traffic: Traffic,
  session: Uint8Array,
  now: number,
  own: OwnStatus,
): object {
  const record = pair.record;
  return {
    epoch: record === undefined ? 0 : record.epoch,
    primary: record === undefined ? null : pair.servers[record.primary].id,
    mode: record === undefined ? null : record.mode === MODE_BOTH ? "both" : "solo",
    servers: [serverStatus(pair, traffic, 0, now), serverStatus(pair, traffic, 1, now)],
    why: whyText(pair),
    state: pair.state,
    waitsFor: waitingText(pair),
    alarm: pair.alarm,
    fresh: pair.fresh,
    forced: pair.forced,
    pairId: record === undefined ? "" : formatHex(record.pairId),
    session: formatHex(session),
    uptimeMs: Math.round(now - pair.startedAt),
    controller: own,
    counters: traffic.counters(),
  };
}
