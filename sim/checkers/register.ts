/**
 * Is the history of one key, written with unique values, that of an atomic register? Exact for reads
 * and writes, after Gibbons and Korach, "Testing shared memories" (1997), section 4.
 *
 *     cluster(v)   the write of v and all reads that returned v
 *     u -> v       some operation of u's cluster ended before some of v's began: u must come first
 *
 * The history is atomic iff no read ended before its write began, and no two clusters must each come
 * before the other. A write of unknown outcome belongs to the history only if someone read it.
 *
 * Two further orders are demanded where they contradict: that of one connection's commands (a pipeline's
 * intervals overlap), and that of what GETSET read and wrote. Nothing correct is ever refused.
 */
import type { Operation } from "../history.js";
import { OK } from "../history.js";
import type { Finding } from "./checker.js";
import { finding } from "./checker.js";

interface Cluster {
  value: string;
  write: Operation | undefined;
  minEnd: number;
  maxStart: number;
  /** The operations those two come from. */
  first: Operation | undefined;
  last: Operation | undefined;
}

/** Stands for "no value": written before time began. */
const NIL = "\u0000nil";

export function checkRegister(promise: string, operations: Operation[]): Finding | undefined {
  const clusters = new Map<string, Cluster>();
  clusters.set(NIL, {
    value: NIL,
    write: undefined,
    minEnd: -1,
    maxStart: -1,
    first: undefined,
    last: undefined,
  });
  for (const operation of operations) {
    if (!writes(operation)) continue;
    if (clusters.has(operation.value)) throw new Error(`value ${operation.value} is not unique`);
    clusters.set(operation.value, {
      value: operation.value,
      write: operation,
      minEnd: operation.returned,
      maxStart: operation.invoked,
      first: operation,
      last: operation,
    });
  }
  const seen = new Set<string>();
  const replacedBy = new Map<string, Operation>();
  for (const operation of operations) {
    if (operation.outcome === OK && writes(operation)) seen.add(operation.value);
    if (!reads(operation)) continue;
    const value = operation.result ?? NIL;
    const cluster = clusters.get(value);
    if (cluster === undefined) return finding(promise, "a value nobody wrote was read", operation);
    if (cluster.write !== undefined && operation.returned < cluster.write.invoked) {
      return finding(promise, "a value was read before it was written", operation, cluster.write);
    }
    seen.add(value);
    if (operation.returned < cluster.minEnd) {
      cluster.minEnd = operation.returned;
      cluster.first = operation;
    }
    if (operation.invoked > cluster.maxStart) {
      cluster.maxStart = operation.invoked;
      cluster.last = operation;
    }
    if (operation.kind === "getset") {
      const other = replacedBy.get(value);
      if (other !== undefined) {
        return finding(promise, "two GETSETs replaced the same value", other, operation);
      }
      replacedBy.set(value, operation);
    }
  }

  const forward: Cluster[] = [];
  const backward: Cluster[] = [];
  for (const cluster of clusters.values()) {
    if (!seen.has(cluster.value)) continue;
    (cluster.minEnd < cluster.maxStart ? forward : backward).push(cluster);
  }
  forward.sort((x, y) => x.minEnd - y.minEnd);
  let widest: Cluster | undefined;
  for (const cluster of forward) {
    if (widest !== undefined && cluster.minEnd < widest.maxStart)
      return stale(promise, widest, cluster);
    if (widest === undefined || cluster.maxStart > widest.maxStart) widest = cluster;
  }
  // No two forward zones overlap from here on, so the one that could hold a backward zone is the last to begin before it.
  for (const cluster of backward) {
    let low = 0;
    let high = forward.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (forward[middle]!.minEnd < cluster.maxStart) low = middle + 1;
      else high = middle;
    }
    const holder = forward[low - 1];
    if (holder !== undefined && cluster.minEnd < holder.maxStart)
      return stale(promise, holder, cluster);
  }
  return checkOrders(promise, operations, clusters);
}

function writes(operation: Operation): boolean {
  return operation.kind === "set" || operation.kind === "getset";
}

function reads(operation: Operation): boolean {
  return operation.outcome === OK && (operation.kind === "get" || operation.kind === "getset");
}

function stale(promise: string, x: Cluster, y: Cluster): Finding {
  const shown = [x.first, x.last, y.first, y.last].filter(
    (operation, i, all): operation is Operation =>
      operation !== undefined && all.indexOf(operation) === i,
  );
  return finding(
    promise,
    `values ${name(x)} and ${name(y)} were each current after the other`,
    ...shown,
  );
}

function name(cluster: Cluster): string {
  return cluster.value === NIL ? "nil" : cluster.value;
}

/** Orders demanded by one connection's pipeline, and by GETSET, must not contradict each other or real time. */
function checkOrders(
  promise: string,
  operations: Operation[],
  clusters: Map<string, Cluster>,
): Finding | undefined {
  const demanded = new Map<string, [Operation, Operation]>();
  const lastOf = new Map<number, { value: string; operation: Operation }>();
  const demand = (
    before: string,
    after: string,
    x: Operation,
    y: Operation,
  ): Finding | undefined => {
    if (before === after) return undefined;
    const u = clusters.get(before)!;
    const v = clusters.get(after)!;
    if (v.minEnd < u.maxStart) {
      return finding(
        promise,
        `${name(u)} came before ${name(v)} here, and must come after it`,
        x,
        y,
        ...[v.first, u.last].filter((o) => o !== undefined),
      );
    }
    const back = demanded.get(`${after}>${before}`);
    if (back !== undefined) {
      return finding(
        promise,
        `${name(u)} and ${name(v)} are seen in both orders`,
        x,
        y,
        back[0],
        back[1],
      );
    }
    demanded.set(`${before}>${after}`, [x, y]);
    return undefined;
  };
  for (const operation of operations) {
    if (operation.outcome !== OK) continue;
    const enters = reads(operation) ? (operation.result ?? NIL) : operation.value;
    const leaves = writes(operation) ? operation.value : enters;
    const before = lastOf.get(operation.session);
    if (before !== undefined) {
      if (operation.kind === "set" && before.value === operation.value) {
        return finding(
          promise,
          "a connection read a value before it sent its write",
          before.operation,
          operation,
        );
      }
      const found = demand(before.value, enters, before.operation, operation);
      if (found !== undefined) return found;
    }
    if (enters !== leaves) {
      const found = demand(enters, leaves, operation, operation);
      if (found !== undefined) return found;
    }
    lastOf.set(operation.session, { value: leaves, operation });
  }
  return undefined;
}
