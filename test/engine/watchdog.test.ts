/**
 * Faults inside the firmware and around it, on the real interpreter: the board resets, and the pair goes on under the same
 * record.
 *
 * The interpreter's Linux build has no watchdog: here the firmware's kicks touch a file, and the test is the hardware that cuts
 * the power when none has come for the board's time. Its `E.reboot` ends the process, which is then powered on again. Memory
 * ends only in the build with as many variables as a board has: the plain one asks its machine for more.
 */
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { ChipPair, isThere, sleep, until } from "./chip-pair.js";
import type { Engine } from "./chip-pair.js";

const WATCHDOG_SECONDS = 5;
const SILENCE_SECONDS = 10;
const BITES = /<watchdog bites>/;

/** Runs before the firmware: the watchdog's stand-in, and a way in for faults. */
const STAND_IN = `
E.enableWatchdog=function(s,auto){print("<watchdog "+s+" "+auto+">");E.kickWatchdog();};
E.kickWatchdog=function(){require("fs").writeFileSync("kicked","k");};
setInterval(function(){
  var f=require("fs").readFileSync("fault");
  if(f&&f.length>1){require("fs").writeFileSync("fault","-");eval(f);}
},200);
`;

/** The driver of a network chip: as the real one it waits for the chip, and for its cable, in a loop of its own. */
const NETWORK_CHIP = `
SPI1={setup:function(){}};
Modules.addCached("WIZnet","exports.connect=function(){require('fs').writeFileSync('looked','y');while(require('fs').readFileSync('cable')!=='in');return{setIP:function(){return true;}};};");
`;

const W5500 = {
  chip: "w5500",
  spi: { bus: "SPI1", sck: "A5", miso: "A6", mosi: "A7", cs: "B1" },
  mac: "02:64:79:61:64:01",
  address: { ip: "127.0.0.1", subnet: "255.0.0.0", gateway: "127.0.0.1" },
  silenceSeconds: SILENCE_SECONDS,
};

interface Fault {
  what: string;
  engine: Engine;
  /** Run in the interpreter. */
  fault: string;
  /** What is seen before the board starts anew. */
  says: RegExp;
}

const FAULTS: Fault[] = [
  { what: "an endless loop", engine: "espruino", fault: "while(true);", says: BITES },
  {
    what: "an error in the firmware's own handlers",
    engine: "espruino",
    fault: "E.toString=function(){return nothing.at.all;}",
    says: /reset: .*nothing" is not defined/,
  },
  {
    what: "out of memory for good, where the engine goes on without its program or dies of it",
    engine: "espruino-16383",
    fault: "global.a=[];while(1)a.push('xxxxxxxxxxxx');",
    says: /<watchdog bites>|<SIGSEGV>/,
  },
  {
    what: "out of memory in one event, which gives it back when it is abandoned",
    engine: "espruino-16383",
    fault: "(function(){var a=[];while(1)a.push('xxxxxxxxxxxx');})()",
    says: /reset: the engine reports .*MEMORY/,
  },
  {
    what: "a leak",
    engine: "espruino-16383",
    fault:
      "global.a=[];while(process.memory().free>1500)a.push('xxxxxxxxxxxxxxxxxxxx');setInterval(function(){a.push('xxxxxxxxxxxxxxxxxxxx');},50);",
    says: /reset: hardly a variable is free/,
  },
];

let pair: ChipPair | undefined;
afterEach(async (context) => {
  if (context.task.result?.state === "fail") console.log(pair?.chip.said.slice(-4000));
  for (const id of ["a", "b"] as const) pair?.servers[id].child?.kill("SIGCONT");
  await pair?.end();
  pair = undefined;
});

/** @param changes to the board's configuration */
async function makePair(
  engine: Engine,
  changes: Record<string, unknown>,
  bootFirst: string,
): Promise<ChipPair> {
  const hardware = {
    name: "with a watchdog",
    variables: engine === "espruino" ? 0 : Number(engine.split("-")[1]),
    variableBytes: 0,
    storageBytes: 262144,
    sockets: 0,
    consoleDevice: "USB",
    watchdogSeconds: WATCHDOG_SECONDS,
  };
  return ChipPair.make(engine, { hardware, ...changes }, undefined, bootFirst);
}

const file = (name: string): string => join(pair!.dir, "chip", name);

/** Whether the hardware would reset the board now: not before the firmware has started the watchdog. */
function starves(): boolean {
  if (!existsSync(file("kicked"))) return false;
  return Date.now() - statSync(file("kicked")).mtimeMs > WATCHDOG_SECONDS * 1000;
}

/** Waits until the board resets itself or its watchdog bites, and leaves it without power. */
async function untilReset(): Promise<void> {
  const { chip } = pair!;
  await until("the reset", () => !chip.isOn() || starves(), 120_000);
  chip.said += chip.isOn() ? "<watchdog bites>" : `<${chip.signal}>`;
  await chip.powerOff();
  rmSync(file("kicked"), { force: true });
  await sleep(200);
}

/** Powers a pair on, and sees a client's write done. @returns its epoch */
async function begin(): Promise<string> {
  writeFileSync(file("fault"), "-");
  pair!.chip.powerOn();
  pair!.servers.a.start();
  pair!.servers.b.start();
  await pair!.reaches(/both\([ab]\)/);
  expect(pair!.chip.said).toContain(`<watchdog ${WATCHDOG_SECONDS} false>`);
  const epoch = /epoch (\d+)/.exec(await pair!.status())![1]!;
  expect(await (await pair!.client()).call(["SET", "x", "1"], 60_000)).toBe("OK");
  return epoch;
}

/** Powers the board on again: the record is the one it had, and so is what the client wrote. */
async function goesOn(epoch: string): Promise<void> {
  pair!.chip.powerOn();
  await pair!.reaches(new RegExp(`both\\([ab]\\) epoch ${epoch}\\b`));
  expect(await (await pair!.client()).call(["INCR", "x"], 60_000)).toBe(2);
}

for (const { what, engine, fault, says } of FAULTS) {
  const here = isThere(engine);
  if (!here) console.log(`test/engine: skipped ${what}, no \`${engine}\` on PATH`);
  test.runIf(here)(
    `${what}: the board resets and the pair goes on`,
    async () => {
      pair = await makePair(engine, {}, STAND_IN);
      const epoch = await begin();
      const from = pair.chip.said.length;
      writeFileSync(file("fault"), fault);
      // The firmware has the console to itself by now: the stand-in says by its file that it took the fault.
      await until("the fault", () => readFileSync(file("fault"), "latin1") === "-");
      await untilReset();
      expect(pair.chip.said.slice(from)).toMatch(says);
      await goesOn(epoch);
    },
    400_000,
  );
}

describe.runIf(isThere("espruino"))("a network chip", () => {
  const make = (): Promise<ChipPair> =>
    makePair("espruino", { network: W5500 }, STAND_IN + NETWORK_CHIP);

  test("that does not answer, or has no cable at boot: the board starts again until it has it", async () => {
    pair = await make();
    writeFileSync(file("fault"), "-");
    writeFileSync(file("cable"), "out");
    pair.servers.a.start();
    pair.servers.b.start();
    for (let boot = 0; boot < 2; boot++) {
      const from = pair.chip.said.length;
      pair.chip.powerOn();
      await untilReset();
      // It had started the watchdog before it went to look for the chip.
      expect(pair.chip.said.slice(from)).toMatch(/<watchdog 5 false>[^]*<watchdog bites>/);
      expect(existsSync(file("looked"))).toBe(true);
      rmSync(file("looked"));
      expect(pair.chip.said.slice(from)).not.toContain("listening");
    }
    writeFileSync(file("cable"), "in");
    pair.chip.powerOn();
    await pair.reaches(/both\([ab]\)/);
    expect(await (await pair.client()).call(["SET", "x", "1"], 60_000)).toBe("OK");
  }, 400_000);

  test("that goes silent while it runs: the board starts it anew, and the pair goes on", async () => {
    pair = await make();
    writeFileSync(file("cable"), "in");
    const epoch = await begin();
    const from = pair.chip.said.length;
    // Seen from the board, a chip that brings nothing any more is two servers that say nothing.
    for (const id of ["a", "b"] as const) pair.servers[id].child!.kill("SIGSTOP");
    await untilReset();
    expect(pair.chip.said.slice(from)).toMatch(/reset: nobody was heard for 1\d s/);
    for (const id of ["a", "b"] as const) pair.servers[id].child!.kill("SIGCONT");
    await goesOn(epoch);
  }, 400_000);
});
