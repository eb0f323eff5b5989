/**
 * Faults inside the firmware on the real interpreter: the board resets, and the pair goes on under the same record.
 *
 * The interpreter's Linux build has no watchdog: here the firmware's kicks touch a file, and the test is the hardware that cuts
 * the power when none has come for the board's time. Its `E.reboot` ends the process, which is then powered on again.
 */
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { ChipPair, isThere, sleep, until } from "./chip-pair.js";

const here = isThere("espruino");
if (!here) console.log("test/engine: skipped, no `espruino` on PATH");

const WATCHDOG_SECONDS = 5;

/** Runs before the firmware: the watchdog's stand-in, and a way in for faults. */
const STAND_IN = `
E.enableWatchdog=function(s,auto){print("<watchdog "+s+" "+auto+">");};
E.kickWatchdog=function(){require("fs").writeFileSync("kicked","k");};
setInterval(function(){
  var f=require("fs").readFileSync("fault");
  if(f&&f.length>1){require("fs").writeFileSync("fault","-");eval(f);}
},200);
`;

const FAULTS: [string, string, RegExp][] = [
  ["an endless loop", "while(true);", /<watchdog bites>/],
];

let pair: ChipPair | undefined;
afterEach(async (context) => {
  if (context.task.result?.state === "fail") console.log(pair?.chip.said.slice(-4000));
  await pair?.end();
  pair = undefined;
});

describe.runIf(here)("a fault inside the firmware", () => {
  test.each(FAULTS)(
    "%s: the board resets and the pair goes on",
    async (_name, fault, says) => {
      const hardware = {
        name: "with a watchdog",
        variables: 0,
        variableBytes: 0,
        storageBytes: 262144,
        sockets: 0,
        consoleDevice: "USB",
        watchdogSeconds: WATCHDOG_SECONDS,
      };
      pair = await ChipPair.make("espruino", { hardware }, undefined, STAND_IN);
      const { chip, dir } = pair;
      const file = (name: string): string => join(dir, "chip", name);
      writeFileSync(file("fault"), "-");
      chip.powerOn();
      pair.servers.a.start();
      pair.servers.b.start();
      await pair.reaches(/both\([ab]\)/);
      expect(chip.said).toContain(`<watchdog ${WATCHDOG_SECONDS} false>`);
      const epoch = /epoch (\d+)/.exec(await pair.status())![1];
      expect(await (await pair.client()).call(["SET", "x", "1"], 20_000)).toBe("OK");

      const from = chip.said.length;
      writeFileSync(file("fault"), fault);
      // The firmware has the console to itself by now: the stand-in says by its file that it took the fault.
      await until("the fault", () => readFileSync(file("fault"), "latin1") === "-");
      await until(
        "the reset",
        () =>
          !chip.isOn() || Date.now() - statSync(file("kicked")).mtimeMs > WATCHDOG_SECONDS * 1000,
        60_000,
      );
      if (chip.isOn()) chip.said += "<watchdog bites>";
      expect(chip.said.slice(from)).toMatch(says);
      await chip.powerOff();
      await sleep(200);

      chip.powerOn();
      await pair.reaches(new RegExp(`both\\([ab]\\) epoch ${epoch}\\b`));
      expect(await (await pair.client()).call(["INCR", "x"], 20_000)).toBe(2);
    },
    180_000,
  );
});
