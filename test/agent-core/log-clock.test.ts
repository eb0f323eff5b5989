/** Log time: what a disk that joins thought before it heard of the log must not count. */
import { expect, it } from "vitest";
import { LogClock } from "../../agent/core/log-clock.js";

it("a disk that began with the wall goes on from the log's stamp once it has heard one (simulator, seed 439)", () => {
  const clock = new LogClock();
  clock.observe(1_700_000_005_000, 0);
  expect(clock.timeMs(10)).toBe(1_700_000_005_010);
  clock.observe(1_700_000_000_000, 20);
  expect(clock.timeMs(25)).toBe(1_700_000_000_005);
});

it("between two stamps it never goes back", () => {
  const clock = new LogClock();
  clock.observe(1000, 100);
  expect(clock.timeMs(150)).toBe(1050);
  expect(clock.timeMs(120)).toBe(1050);
});
