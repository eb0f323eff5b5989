import { describe, expect, test } from "vitest";
import { createTargetServer, type TargetServer } from "../../firmware/core/target-server.js";

/** Two first-come-first-served servers of given speed; reads arrive one every `everyMs`. */
function simulate(
  target: TargetServer,
  serviceMs: (server: number, now: number) => number,
  everyMs: number,
  untilMs: number,
  from = 0,
): { counts: [number, number]; byPeriod: [number, number][]; meanMs: number } {
  const free = [from, from];
  const open: { server: number; sent: number; done: number; ahead: number }[] = [];
  const counts: [number, number] = [0, 0];
  const byPeriod: [number, number][] = [];
  let total = 0;
  let reads = 0;
  for (let now = from; now < untilMs; now += everyMs) {
    open.sort((a, b) => a.done - b.done);
    while (open.length > 0 && open[0]!.done <= now) {
      const one = open.shift()!;
      target.completed(one.server, one.done - one.sent, one.ahead, one.done);
    }
    const inFlight = [0, 0];
    for (const one of open) inFlight[one.server]! += 1;
    const server = target.choose(true, true, inFlight[0]!, inFlight[1]!, now);
    const begin = Math.max(free[server]!, now);
    const done = begin + serviceMs(server, begin);
    free[server] = done;
    open.push({ server, sent: now, done, ahead: inFlight[server]! });
    counts[server as 0 | 1] += 1;
    total += done - now;
    reads += 1;
    const period = Math.floor((now - from) / 100);
    while (byPeriod.length <= period) byPeriod.push([0, 0]);
    byPeriod[period]![server as 0 | 1] += 1;
  }
  return { counts, byPeriod, meanMs: total / reads };
}

describe("P3: in sync, the server with the smaller load is the target", () => {
  test.each([
    // in flight a, in flight b, chosen
    [0, 3, 0],
    [3, 0, 1],
    [7, 5, 1],
    [20, 21, 0],
  ])("equal servers: %i and %i in flight -> %i", (a, b, chosen) => {
    const target = createTargetServer("expected-delay");
    expect(target.choose(true, true, a, b, 0)).toBe(chosen);
  });

  test("equal loads alternate", () => {
    const target = createTargetServer("expected-delay");
    const chosen = [0, 1, 2, 3].map(() => target.choose(true, true, 0, 0, 0));
    expect(chosen).toEqual([0, 1, 0, 1]);
  });

  test("a server of half the speed gets the lesser part of the reads, and nobody waits long", () => {
    const target = createTargetServer("expected-delay");
    target.first(0, 1000, 0);
    target.first(1, 1000, 0);
    const { counts, meanMs } = simulate(target, (server) => (server === 0 ? 1 : 2), 0.8, 5000);
    const share = counts[1] / (counts[0] + counts[1]);
    // The faster one cannot do more than 0.8 of them.
    expect(share).toBeGreaterThanOrEqual(0.2);
    expect(share).toBeLessThan(0.42);
    expect(meanMs).toBeLessThan(3);
  });

  test("reads move away from a server that becomes slow, and come back when it is well", () => {
    const target = createTargetServer("expected-delay");
    const serviceMs = (server: number, now: number): number =>
      server === 1 && now >= 1000 && now < 2000 ? 10 : 1;
    const { byPeriod } = simulate(target, serviceMs, 0.7, 4000);
    const share = (from: number, to: number): number => {
      let mine = 0;
      let all = 0;
      for (const [a, b] of byPeriod.slice(from, to)) {
        mine += b;
        all += a + b;
      }
      return mine / all;
    };
    expect(share(0, 10)).toBeGreaterThan(0.4);
    expect(share(12, 20)).toBeLessThan(0.2);
    expect(share(25, 40)).toBeGreaterThan(0.4);
  });

  test("a stall of 300 ms does not starve a server", () => {
    const target = createTargetServer("expected-delay");
    const serviceMs = (server: number, now: number): number =>
      server === 1 && now >= 1000 && now < 1300 ? 1300 - now + 0.2 : 0.2;
    const { byPeriod } = simulate(target, serviceMs, 0.25, 3000);
    // While it stalls it gets nothing more than what it had; soon after it has its share again.
    expect(byPeriod[11]![1]).toBeLessThan(5);
    const [, after] = byPeriod[19]!;
    expect(after).toBeGreaterThan(120);
  });

  test("a sample counts at most eight times the estimate", () => {
    const target = createTargetServer("expected-delay");
    target.first(0, 1000, 0);
    target.completed(0, 300, 0, 1);
    expect(target.serviceUs(0)).toBeCloseTo(1000 * (1 + 0.05 * 7), 5);
  });

  test("an estimate without samples for 100 ms moves halfway to the other's", () => {
    const target = createTargetServer("expected-delay");
    target.first(0, 1000, 0);
    target.first(1, 3000, 0);
    target.completed(0, 1, 0, 150);
    target.choose(true, true, 0, 0, 200);
    expect(target.serviceUs(0)).toBeCloseTo(1000, 5);
    expect(target.serviceUs(1)).toBeCloseTo(2000, 5);
  });

  test("every 64th read probes the idle server", () => {
    const target = createTargetServer("expected-delay");
    target.first(0, 100, 0);
    target.first(1, 10000, 0);
    let last = -1;
    const gaps: number[] = [];
    for (let i = 0; i < 400; i++) {
      if (target.choose(true, true, 0, 0, 1) !== 1) continue;
      if (last >= 0) gaps.push(i - last);
      last = i;
    }
    expect(gaps.length).toBeGreaterThan(3);
    expect(new Set(gaps)).toEqual(new Set([64]));
    // One that is not idle but stuck is not fed.
    for (let i = 0; i < 400; i++) expect(target.choose(true, true, 0, 5, 1)).toBe(0);
  });

  test("a braking server is spared while the other can serve", () => {
    const target = createTargetServer("expected-delay");
    target.setReported(0, 0, true);
    expect(target.choose(true, true, 0, 50, 0)).toBe(1);
    expect(target.choose(true, false, 0, 50, 0)).toBe(0);
    target.setReported(1, 0, true);
    expect(target.choose(true, true, 0, 50, 0)).toBe(0);
  });

  test("reported-load is the literal rule: the smaller report, whatever is in flight", () => {
    const target = createTargetServer("reported-load");
    target.setReported(0, 300, false);
    target.setReported(1, 200, false);
    for (let i = 0; i < 10; i++) expect(target.choose(true, true, 0, 100 + i, 0)).toBe(1);
    target.setReported(0, 200, false);
    expect([0, 1].map(() => target.choose(true, true, 0, 0, 0)).sort()).toEqual([0, 1]);
  });
});

describe("P4: out of sync, the primary is the target", () => {
  test.each([
    [true, false, 0],
    [false, true, 1],
    [false, false, -1],
  ])("readable %s, %s -> %i", (a, b, chosen) => {
    for (const rule of ["expected-delay", "reported-load"] as const) {
      const target = createTargetServer(rule);
      target.setReported(0, 1000, false);
      target.setReported(1, 1000, false);
      for (let i = 0; i < 100; i++) expect(target.choose(a, b, 900, 900, i)).toBe(chosen);
    }
  });
});
