/** Worlds whose controller is the very bundle of a board, on a virtual board. */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import type { Firmware } from "../../sim/firmware.js";
import { buildFirmware, loadFirmware } from "../../sim/firmware.js";
import { FAULT_KINDS, drawOptions } from "../../sim/options.js";
import type { FaultKind } from "../../sim/options.js";
import { PairWorld } from "../../sim/pair-world.js";
import { runSeed } from "../../sim/run.js";
import { World } from "../../sim/world/world.js";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** What happens to the flash: the bundle has the board's own journals under it. */
const IN_FLASH: FaultKind[] = ["flashTear", "flashFail", "switchover"];
const BOARDS: FaultKind[] = [
  "flashSlow",
  "flashWipe",
  "flashForeign",
  "flashOld",
  "foreignBoard",
  "switchover",
];

let firmware: Firmware;

beforeAll(() => {
  buildFirmware(ROOT);
  firmware = loadFirmware(ROOT);
}, 240_000);

/** Every field's path in plain data; of a list its first element's. */
function fieldsOf(value: unknown, path = ""): string[] {
  if (Array.isArray(value)) return fieldsOf(value[0], `${path}[]`);
  if (typeof value !== "object" || value === null) return [path];
  return Object.entries(value).flatMap(([name, inner]) => fieldsOf(inner, `${path}.${name}`));
}

describe("status json of the bundle", { timeout: 240_000 }, () => {
  it("has the names that the core's has, in all its parts", () => {
    const fields = [undefined, firmware].map((one) => {
      const world = new World(1, false, false);
      const options = drawOptions(world.random.fork("options"), {});
      const pair = new PairWorld(world, { ...options, serial: [false, false] }, one);
      world.runTo(2000);
      return fieldsOf(pair.controller()!.status()).sort();
    });
    expect(fields[0]).toContain(".counters.outcomeUnknown");
    expect(fields[0]).toContain(".controller.worstLateMs");
    expect(fields[1]).toEqual(fields[0]);
  });
});

describe("a world with the bundle as controller", { timeout: 240_000 }, () => {
  it("gives the same trace for the same seed", () => {
    for (const seed of [3, 11]) {
      const first = runSeed(seed, { firmware });
      expect(first.violation).toBeUndefined();
      expect(runSeed(seed, { firmware }).hash).toBe(first.hash);
    }
  });

  it("keeps every promise in a handful of worlds", () => {
    let writes = 0;
    let failovers = 0;
    for (let seed = 1; seed <= 12; seed++) {
      const result = runSeed(seed, { firmware });
      expect(result.violation, `seed ${seed}`).toBeUndefined();
      writes += result.acknowledgedWrites;
      failovers += result.failovers;
    }
    expect(writes).toBeGreaterThan(1000);
    expect(failovers).toBeGreaterThan(3);
  });

  it("keeps every promise in worlds with a random subset of all faults", () => {
    const faults = new Set<string>();
    // 88: a client was once given another one's answer, of the same bytes, under a number of its own.
    for (const seed of [88, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210]) {
      const result = runSeed(seed, { firmware, swarm: true });
      expect(result.violation, `seed ${seed}`).toBeUndefined();
      for (const kind of Object.keys(result.faults)) faults.add(kind);
    }
    // Nearly every kind there is, but for those of serial lines, which the bundle has not got yet.
    expect(faults.size).toBeGreaterThan(FAULT_KINDS.length * 0.6);
  });

  it.each([
    ["torn in the middle of a write, or takes none", IN_FLASH, ["flash written", "flash torn"]],
    [
      "wiped, old, or another board's",
      BOARDS,
      ["flash written", "foreign board", "controller ALARM"],
    ],
  ])("keeps every promise when its flash is %s", (_what, only, reached) => {
    const covered: Record<string, number> = {};
    for (let seed = 101; seed <= 112; seed++) {
      const result = runSeed(seed, { firmware, only });
      expect(result.violation, `seed ${seed}`).toBeUndefined();
      for (const [key, count] of Object.entries(result.covered))
        covered[key] = (covered[key] ?? 0) + count;
    }
    for (const key of reached) expect(covered[key] ?? 0, key).toBeGreaterThan(0);
  });

  it("finds what is wrong with a bundle: an endless loop, a reset without cause, a leak", () => {
    const broken = (change: (text: string) => string): string => {
      const text = change(firmware.text);
      expect(text).not.toBe(firmware.text);
      const found = runSeed(2, { firmware: { ...firmware, text, compiled: new Map() } }).violation;
      return `${found?.promise}: ${found?.what}`;
    };
    const begin = '"use strict";';
    const with_ = (code: string) => (text: string) => text.replace(begin, begin + code);
    expect(broken(with_("setTimeout(function(){for(;;);},500);"))).toMatch(
      /^assertion: controller: hang: an endless loop/,
    );
    expect(broken(with_("setTimeout(function(){E.reboot()},500);"))).toMatch(
      /^assertion: controller: reset/,
    );
    expect(broken(with_("setTimeout(function(){var a=[];for(;;)a.push([1])},500);"))).toMatch(
      /^assertion: controller: memory: out of its/,
    );
  });
});
