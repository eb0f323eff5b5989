/** A full Storage of the real interpreter is compacted when it is granted, and never before. */
import { afterEach, describe, expect, test } from "vitest";
import { BLACK_BOX_BYTES } from "../../firmware/black-box.js";
import { RECORD_BYTES } from "../../protocol/record.js";
import { ChipPair, isThere, sleep } from "./chip-pair.js";
import { runScript } from "./engine-script.js";

const here = isThere("espruino");
if (!here) console.log("test/engine: skipped, no `espruino` on PATH");

let pair: ChipPair | undefined;
afterEach(async (context) => {
  if (context.task.result?.state === "fail") console.log(pair?.chip.said.slice(-4000));
  await pair?.end();
  pair = undefined;
});

describe.runIf(here)("a full Storage", () => {
  test("asks for its compaction ahead, holds a write back without it, loses nothing by it", async () => {
    const said = await runScript("test/engine/compaction.espruino.ts", /END/);
    expect(said, said).not.toContain("WRONG");
    expect(said.match(/good: .*/g)).toHaveLength(12);
    // The engine names each compaction: one follows each grant, and there is no other.
    expect(said.match(/AHEAD|UNTIL FULL|LATE|Compacting|END/g)).toEqual([
      "AHEAD",
      "Compacting",
      "UNTIL FULL",
      "LATE",
      "Compacting",
      "END",
    ]);
  }, 60_000);

  test("of a serving pair is compacted only while both servers are there, and the pair goes on", async () => {
    const slots = 4;
    // Head of a file, and slots of sequence number, chip, record and CRC32.
    const journalBytes = 32 + slots * ((8 + RECORD_BYTES + BLACK_BOX_BYTES + 4 + 7) & ~7);
    pair = await ChipPair.make("espruino", { journalSlots: slots }, 2 * journalBytes + 64);
    const compacted = (): number => pair!.chip.said.split("flash: put in order").length - 1;
    pair.chip.powerOn();
    pair.servers.a.start();
    pair.servers.b.start();
    await pair.reaches(/both\([ab]\)/);
    const client = await pair.client();
    for (let round = 1; round <= 4; round++) {
      const before = compacted();
      await pair.servers.b.kill();
      await pair.reaches(/solo\(a\)/);
      expect(await client.call(["SET", "round", `${round}`], 20_000)).toBe("OK");
      await sleep(1000);
      expect(compacted()).toBe(before);
      pair.servers.b.start();
      await pair.reaches(/both\(a\)/);
    }
    expect(compacted()).toBeGreaterThanOrEqual(1);
    const epoch = /epoch (\d+)/.exec(await pair.status())?.[1];
    await pair.chip.powerOff();
    pair.chip.powerOn();
    await pair.reaches(new RegExp(`both\\([ab]\\) epoch ${epoch}`));
    expect(await (await pair.client()).call(["GET", "round"], 20_000)).toBe("4");
  }, 240_000);
});
