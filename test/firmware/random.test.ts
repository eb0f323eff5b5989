/**
 * Seeded chaos against the control path: kills, hangs, cut links and polls, replaced disks, late loops and
 * crashes between flash and wire. Whatever happens, no invariant breaks and no record breaks a rule; and when
 * it is over, the pair serves again unless a rule says that it must not.
 */
import { describe, expect, test } from "vitest";
import { EPOCH_GAP } from "../../firmware/core/limits.js";
import { MODE_BOTH, MODE_SOLO, bytesEqual, identityOf } from "../../protocol/record.js";
import type { RoleRecord } from "../../protocol/record.js";
import { FakePair, filled } from "./fake-pair.js";
import type { FakeServer } from "./fake-pair.js";

function generator(seed: number): () => number {
  let state = seed * 2654435761 + 1;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 374761393) | 0;
    let mixed = state ^ (state >>> 13);
    mixed = Math.imul(mixed, 3266489917);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 4294967296;
  };
}

/** Rules 15, 16, G5 and the guard of naming, checked from outside when a record is begun. */
class RecordChecker {
  /** The record the controller acts under. */
  current: RoleRecord | undefined;
  private readonly passed = new Set<number>();

  constructor(private readonly pair: FakePair) {
    this.current = pair.a.record;
    pair.onPersist = (begun) => this.check(begun);
  }

  /** Started anew: whatever the flash holds may have been heard, so it is passed (G5). */
  onBoot(): void {
    this.current = this.pair.written.at(-1) ?? this.current;
    if (this.current !== undefined) this.passed.add(this.current.epoch);
  }

  onPassed(epoch: number): void {
    this.passed.add(epoch);
  }

  private check(next: RoleRecord): void {
    const when = `at ${this.pair.now}`;
    const before = this.pair.written.at(-1) ?? this.current!;
    const server = this.pair.servers[next.primary];
    const { failureMs, pollMs } = this.pair.config.timings;
    expect(this.pair.now - server.answeredAt, when).toBeLessThanOrEqual(failureMs + pollMs);
    expect(server.answeredDisk, when).toEqual(identityOf(next, next.primary));
    expect(next.epoch, when).toBeGreaterThan(before.epoch);
    // A controller that had stopped adopts what the servers hold.
    if (next.epoch - before.epoch > EPOCH_GAP / 2 || before.mode === MODE_BOTH) return;
    if (next.primary !== before.primary) {
      expect(next.mode, when).toBe(MODE_SOLO);
      expect(this.passed.has(before.epoch), `${when}: took back a passed epoch`).toBe(false);
    }
  }
}

function play(seed: number): FakePair {
  const random = generator(seed);
  const primary = random() < 0.5 ? 0 : 1;
  const pair = FakePair.serving(primary, random() < 0.7 ? "both" : "solo", seed % 2 === 0);
  const checker = new RecordChecker(pair);
  let disks = 0;
  const pick = (): FakeServer => pair.servers[random() < 0.5 ? 0 : 1];
  checker.onBoot();
  for (let turn = 0; turn < 60; turn++) {
    const server = pick();
    const current = pair.written.at(-1) ?? checker.current;
    const kind = Math.floor(random() * 13);
    if (kind === 0) server.kill();
    else if (kind === 1) server.hang();
    else if (kind === 2) server.udp = !server.udp;
    else if (kind === 3) server.dropLink();
    else if (kind === 4 && !server.alive) server.start();
    else if (kind === 5) server.wake();
    else if (kind === 6 && pair.core !== undefined) pair.blockController(random() * 300);
    else if (kind === 7) {
      pair.crashController();
      pair.run(random() * 100);
      pair.bootController();
      // Whatever the flash holds now may have been heard.
      checker.onBoot();
    } else if (kind === 8 && !server.alive) {
      server.identity = filled(16, 0x10 + ++disks);
      server.record = undefined;
    } else if (kind === 9) {
      pair.persistMs = random() < 0.5 ? 0.2 : 40;
    } else if (kind === 10) {
      pair.core?.console("switchover", pair.now);
    } else if (kind === 11 && current !== undefined && current.mode === MODE_SOLO) {
      // A reply passes, if the primary is in this epoch.
      if (pair.forward.links[current.primary] && pair.forward.route.open) {
        if (pair.forward.route.epoch === current.epoch) {
          checker.onPassed(current.epoch);
          pair.forward.events.onFirstPassed(current.epoch);
        }
      }
    } else if (kind === 12 && current !== undefined) {
      // The primary's own requests.
      const primary = pair.servers[current.primary];
      const other = pair.servers[1 - current.primary]!;
      if (primary.record !== undefined && primary.record.mode === MODE_SOLO) {
        primary.says = { asked: true, askIdentity: other.identity, wantsSolo: random() < 0.3 };
        pair.run(45);
        primary.says = {};
      }
    }
    pair.run(random() < 0.5 ? random() * 30 : random() * 400);
    expect(pair.resets, `seed ${seed}`).toEqual([]);
  }
  // The faults end.
  pair.persistMs = 0.2;
  for (const server of pair.servers) {
    server.says = {};
    server.udp = true;
    if (!server.alive) server.start();
    server.wake();
    server.dial();
  }
  pair.run(3000);
  expect(pair.resets, `seed ${seed}`).toEqual([]);
  return pair;
}

describe("chaos", () => {
  test("80 seeds: no invariant breaks, no record breaks a rule, and the pair serves at the end", () => {
    let waiting = 0;
    let changes = 0;
    for (let seed = 1; seed <= 80; seed++) {
      const pair = play(seed);
      changes += pair.written.length;
      const state = pair.status.state;
      if (state === "both" || state === "solo") {
        const record = pair.servers[pair.status.primary === "a" ? 0 : 1].record!;
        expect(pair.forward.route, `seed ${seed}`).toMatchObject({
          open: true,
          epoch: record.epoch,
        });
        continue;
      }
      // Only a lost disk may keep it from serving: what it held is nowhere else.
      waiting++;
      const kept = pair.written.at(-1);
      const held = kept ?? pair.a.record ?? pair.b.record!;
      const disk = pair.servers[held.primary].identity;
      expect(bytesEqual(disk, identityOf(held, held.primary)), `seed ${seed}: ${pair.roles}`).toBe(
        false,
      );
    }
    expect(changes).toBeGreaterThan(160);
    expect(waiting).toBeGreaterThan(0);
    expect(waiting).toBeLessThan(60);
  }, 120_000);
});
