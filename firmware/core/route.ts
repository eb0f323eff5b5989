/**
 * Where commands may go, as the forward path is told: a view of the pair, never a decision.
 *
 * Closed unless the state serves (role-table.ts) and no record is being written. The primary is always
 * readable, the standby while the two are in sync (P2).
 */
import { clientText } from "./explain.js";
import { idOf, otherOf } from "./pair.js";
import type { Pair } from "./pair.js";
import type { Route } from "./ports.js";
import { isOpen } from "./role-table.js";
import { inSync } from "./sync-state.js";
import { MODE_BOTH } from "../../protocol/record.js";
import type { ServerIndex } from "../../protocol/record.js";

export function closedRoute(): Route {
  return { epoch: 0, open: false, primary: 0, readable: [false, false], why: "" };
}

function routeIsOpen(pair: Pair): boolean {
  return pair.record !== undefined && pair.writing === undefined && isOpen(pair.state);
}

function primaryOf(pair: Pair): ServerIndex {
  return pair.record === undefined ? 0 : pair.record.primary;
}

function readsAt(pair: Pair, server: ServerIndex): boolean {
  const record = pair.record;
  if (record === undefined || !routeIsOpen(pair)) return false;
  return (
    record.primary === server || (record.mode === MODE_BOTH && inSync(record, pair.servers[server]))
  );
}

/** What clients hear while there is no server to ask; "" when there is. */
function whyOf(pair: Pair): string {
  if (!routeIsOpen(pair)) return clientText(pair);
  const primary = primaryOf(pair);
  return pair.servers[primary].linked ? "" : idOf(pair, primary) + " is not connected";
}

/** @param lastEpoch a stopped controller has no epoch: it keeps the last, so that epochs only grow */
export function routeOf(pair: Pair, lastEpoch: number): Route {
  return {
    epoch: pair.record === undefined ? lastEpoch : pair.record.epoch,
    open: routeIsOpen(pair),
    primary: primaryOf(pair),
    readable: [readsAt(pair, 0), readsAt(pair, 1)],
    why: whyOf(pair),
  };
}

/** Asked after every event, so it makes no object while nothing has changed. */
export function sameRoute(pair: Pair, route: Route): boolean {
  const primary = primaryOf(pair);
  const standby = otherOf(primary);
  return (
    route.open === routeIsOpen(pair) &&
    route.epoch === (pair.record === undefined ? route.epoch : pair.record.epoch) &&
    route.primary === primary &&
    route.readable[standby] === readsAt(pair, standby) &&
    route.readable[primary] === readsAt(pair, primary) &&
    route.why === whyOf(pair)
  );
}
