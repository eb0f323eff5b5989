/** IoT.js has no clock without steps: the one made of the time of day and the kernel's uptime. */
import { describe, expect, test } from "vitest";
import { steadyClock } from "../../hal/jerryscript/steady-clock.js";

/** Time that passes, a time of day that somebody sets, and an uptime told in hundredths. */
class World {
  ms = 5000;
  setBy = 1_700_000_000_000;
  readonly clock = steadyClock(
    () => Math.floor(this.ms + this.setBy),
    () => Math.floor(this.ms / 10) * 10,
  );

  /** Lets time pass in turns of `turnMs`. @returns what the clock tells */
  pass(ms: number, turnMs = 20): number {
    for (const end = this.ms + ms; this.ms < end;) {
      this.ms += Math.min(turnMs, end - this.ms);
      this.clock();
    }
    return this.clock();
  }
}

describe("the clock of IoT.js", () => {
  test("goes as time does", () => {
    const world = new World();
    expect(world.clock()).toBe(0);
    expect(world.pass(12_345)).toBe(12_345);
    expect(world.pass(5000, 700)).toBe(17_345);
  });

  test.each([3_600_000, -3_600_000, 400, -400, -30])(
    "a step of the time of day by %i ms is taken out",
    (step) => {
      const world = new World();
      world.pass(1000);
      world.setBy += step;
      // The turn in which it is noticed is as long as the kernel's uptime tells it.
      expect(Math.abs(world.pass(1000) - 2000)).toBeLessThanOrEqual(25);
      const before = world.clock();
      expect(world.pass(500) - before).toBe(500);
    },
  );

  test("never goes back, however often the time of day is set", () => {
    const world = new World();
    let last = 0;
    for (let i = 0; i < 500; i++) {
      world.setBy += ((i * 7919) % 401) - 200;
      const now = world.pass(15);
      expect(now).toBeGreaterThanOrEqual(last);
      last = now;
    }
    // Steps smaller than a turn pass for time; they are not added up.
    expect(Math.abs(last - 500 * 15)).toBeLessThan(100);
    for (let i = 0; i < 1000; i++) {
      world.setBy += 30;
      world.pass(15);
    }
    world.pass(5000);
    expect(Math.abs(world.pass(5000) - 500 * 15 - 1000 * 15 - 10_000)).toBeLessThan(100);
  });
});
