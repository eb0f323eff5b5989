/**
 * The server screening units (P3, P4): which of the two gets a read.
 *
 * In sync, the server with the smaller load is the target; out of sync, the primary is (its row of
 * `readable` is then the only one set). "Load" is what the controller knows exactly and without delay:
 *
 *     cost(server) = (inFlight(server) + 1) * estimate(server)
 *     estimate     = moving average of responseTime / (inFlight at dispatch + 1)
 *
 * A load report is old when it arrives, and sending every read to the server that reported less sends
 * the whole herd to one of them until the next report. So a report decides only whether a server is
 * eligible (not braking) and the first estimate. `reported-load` keeps the literal rule for comparison.
 */

export type Balancing = "expected-delay" | "reported-load";

/** Weight of one completed read in the moving average. */
const SAMPLE_WEIGHT = 0.05;
/** A sample counts at most this many times the estimate, or one stall would starve a server. */
const SAMPLE_CLAMP = 8;
/** An estimate without a sample for this long moves halfway towards the other's. @unit ms */
const STALE_MS = 100;
/** An idle server gets every so many-th read, so that its recovery is seen. @unit reads */
const PROBE_EVERY = 64;
/** Costs closer than this count as equal. */
const NEARLY_EQUAL = 0.1;
/** Estimate before anything is known. @unit ms */
const FIRST_ESTIMATE_MS = 0.1;
/** Below this a clock's grain, not the server, is measured. @unit ms */
const ESTIMATE_MIN_MS = 0.001;

export interface TargetServer {
  /** The server's first estimate after a (re)connect or role change, from its report; 0: not known. @unit us */
  first(server: number, serviceUs: number, now: number): void;
  setReported(server: number, loadPermille: number, braking: boolean): void;
  /**
   * The target of one read.
   * @param may0 @param may1 whether the server is readable, connected and has room
   * @returns 0 or 1, or -1 when neither may
   */
  choose(may0: boolean, may1: boolean, inFlight0: number, inFlight1: number, now: number): number;
  /** A read has been answered. @param ahead in flight at dispatch, without this one */
  completed(server: number, responseMs: number, ahead: number, now: number): void;
  /** @unit us, of one read on a server with nothing else to do */
  serviceUs(server: number): number;
  loadPermille(server: number): number;
  braking(server: number): boolean;
}

export function createTargetServer(balancing: Balancing): TargetServer {
  const estimate = new Float64Array(2);
  const refreshedAt = new Float64Array(2);
  /** Reads since this server last got one. */
  const passedOver = new Int32Array(2);
  const load = new Int32Array(2);
  const brakes = [false, false];
  const byReport = balancing === "reported-load";
  let last = 1;

  estimate[0] = FIRST_ESTIMATE_MS;
  estimate[1] = FIRST_ESTIMATE_MS;

  function first(server: number, serviceUs: number, now: number): void {
    estimate[server] = serviceUs > 0 ? serviceUs / 1000 : FIRST_ESTIMATE_MS;
    if (estimate[server] < ESTIMATE_MIN_MS) estimate[server] = ESTIMATE_MIN_MS;
    refreshedAt[server] = now;
    passedOver[server] = 0;
  }

  function setReported(server: number, loadPermille: number, braking: boolean): void {
    load[server] = loadPermille;
    brakes[server] = braking;
  }

  function took(server: number): number {
    passedOver[server] = 0;
    passedOver[1 - server]++;
    last = server;
    return server;
  }

  function decay(now: number): void {
    const stale0 = now - refreshedAt[0] > STALE_MS;
    const stale1 = now - refreshedAt[1] > STALE_MS;
    const e0 = estimate[0];
    const e1 = estimate[1];
    if (stale0) {
      estimate[0] = e0 + (e1 - e0) / 2;
      refreshedAt[0] = now;
    }
    if (stale1) {
      estimate[1] = e1 + (e0 - e1) / 2;
      refreshedAt[1] = now;
    }
  }

  function choose(
    may0: boolean,
    may1: boolean,
    inFlight0: number,
    inFlight1: number,
    now: number,
  ): number {
    if (!may0 || !may1) return may0 ? 0 : may1 ? 1 : -1;
    // A server that asks to be spared is spared while the other can serve; when both ask, neither is.
    if (brakes[0] !== brakes[1]) return brakes[0] ? 1 : 0;
    if (byReport) {
      if (load[0] === load[1]) return took(1 - last);
      return took(load[0] < load[1] ? 0 : 1);
    }
    decay(now);
    if (passedOver[0] >= PROBE_EVERY - 1 && inFlight0 === 0) return took(0);
    if (passedOver[1] >= PROBE_EVERY - 1 && inFlight1 === 0) return took(1);
    const cost0 = (inFlight0 + 1) * estimate[0];
    const cost1 = (inFlight1 + 1) * estimate[1];
    const smaller = cost0 < cost1 ? cost0 : cost1;
    const apart = cost0 < cost1 ? cost1 - cost0 : cost0 - cost1;
    if (apart > smaller * NEARLY_EQUAL) return took(cost0 < cost1 ? 0 : 1);
    if (inFlight0 !== inFlight1) return took(inFlight0 < inFlight1 ? 0 : 1);
    return took(1 - last);
  }

  function completed(server: number, responseMs: number, ahead: number, now: number): void {
    const known = estimate[server];
    let sample = responseMs / (ahead + 1);
    if (sample > known * SAMPLE_CLAMP) sample = known * SAMPLE_CLAMP;
    const next = known + (sample - known) * SAMPLE_WEIGHT;
    estimate[server] = next < ESTIMATE_MIN_MS ? ESTIMATE_MIN_MS : next;
    refreshedAt[server] = now;
  }

  function serviceUs(server: number): number {
    return estimate[server] * 1000;
  }
  function loadPermille(server: number): number {
    return load[server];
  }
  function braking(server: number): boolean {
    return brakes[server];
  }

  return {
    first: first,
    setReported: setReported,
    choose: choose,
    completed: completed,
    serviceUs: serviceUs,
    loadPermille: loadPermille,
    braking: braking,
  };
}
