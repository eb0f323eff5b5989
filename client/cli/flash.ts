/**
 * `dyad flash`: from a board's configuration to a board that reports itself.
 *
 *     build ── budget ──> port ── which board? ── room? ──> upload ── read back ──> reboot ──> "dyad on NAME ..."
 *
 * The firmware that runs is stopped before the first byte is written: clients wait until the new one is up, and the
 * servers keep their roles meanwhile.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline/promises";
import { crc32 } from "node:zlib";
import { AtInterpreter, BoardConsole } from "./board-console.js";
import { openBoardPort, parsePlace, placeText } from "./board-port.js";
import type { BoardPort, PortPlace } from "./board-port.js";
import { EspruinoTool } from "./espruino-tool.js";
import { Failure } from "./failure.js";
import {
  BOOT_FILE,
  isImage,
  JOURNAL_FILES,
  mismatch,
  planFlash,
  promisedCrc,
} from "./flash-plan.js";
import type { BoardFacts, BuiltFirmware, FlashPlan } from "./flash-plan.js";
import { programPath } from "./pair-dir.js";

/** Until the board has reported itself: Wi-Fi and a compaction at boot are slow. @unit ms */
const REPORT_MS = 90_000;
const REOPEN_MS = 500;
/** Read back in pieces, so that a difference is found early and its place is known. @unit bytes */
const VERIFY_BYTES = 4096;
/** For a compaction, or a check sum over a whole image. @unit ms */
const SLOW_MS = 60_000;
/** Time for the engine to come back from reset(). @unit ms */
const RESET_MS = 1500;
/** A controller's watchdog is handed to the engine while its firmware is stopped. @unit s */
const WATCHDOG_S = 30;
const EXIT_NOBODY = 2;
const CTRL_C = "\x03";

export interface FlashOptions {
  board: string;
  port: string;
  /** Default: the board's own. */
  baud: number | undefined;
  /** Do what was asked about. */
  yes: boolean;
  /** Take what is in dist/. */
  built: boolean;
}

const pause = (ms: number): Promise<void> => new Promise((wake) => setTimeout(wake, ms));
const say = (text: string): void => void process.stdout.write(`${text}\n`);

function build(root: string, board: string): void {
  const result = spawnSync(process.execPath, [join(root, "bin", "build.mjs"), "--board", board], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (result.status !== 0) throw new Failure(`Nothing was flashed: ${board} is not built (above).`);
}

function readBuilt(root: string, board: string): { firmware: BuiltFirmware; content: Buffer } {
  try {
    return {
      firmware: JSON.parse(
        readFileSync(join(root, "dist", `${board}.json`), "utf8"),
      ) as BuiltFirmware,
      content: readFileSync(join(root, "dist", `${board}.bootcde`)),
    };
  } catch (error) {
    throw new Failure(
      `There is no firmware of ${board} in dist/ (${(error as Error).message}). npm run build -- --board ${board} makes it.`,
    );
  }
}

/** What is at the port. */
interface Found {
  firmware: boolean;
  /** The firmware says that both servers hold its record. */
  mayLoseRecord: boolean;
}

/** Asks the firmware that runs, if one does, and makes it give the console to the interpreter. */
async function takeConsole(place: PortPlace, baud: number): Promise<Found> {
  const console = await BoardConsole.open(place, baud, {
    onNote: () => undefined,
    onClosed: () => undefined,
  });
  try {
    await console.ask("//");
    const status = await console.ask("status");
    say(`running now:\n  ${status.replaceAll("\n", "\n  ")}`);
    const mayLoseRecord = (await console.ask("flash")).startsWith("yes");
    console.send(CTRL_C);
    await pause(RESET_MS / 3);
    return { firmware: true, mayLoseRecord };
  } catch (error) {
    if (!(error instanceof AtInterpreter)) throw error;
    return { firmware: false, mayLoseRecord: false };
  } finally {
    console.close();
  }
}

const STORAGE = 'require("Storage")';
/** After its answer has left. */
const REBOOT = "setTimeout(function(){E.reboot()},200),1";

async function lengthAndCrc(tool: EspruinoTool, name: string): Promise<[number, number]> {
  const text = await tool.evaluate(
    `(function(t){return t===undefined?"":[t.length,E.CRC32(t)>>>0].join()})(${STORAGE}.read(${JSON.stringify(name)}))`,
    SLOW_MS,
  );
  const [length, crc] = text.split(",").map(Number);
  return [length ?? 0, crc ?? 0];
}

async function factsOf(tool: EspruinoTool): Promise<BoardFacts> {
  const list = async (expression: string): Promise<string[]> =>
    (await tool.evaluate(`[${expression}].join()`)).split(",");
  const [board, version] = await list("process.env.BOARD,process.env.VERSION");
  const memory = await list("process.memory().total,process.memory().blocksize");
  const room = await list(`${STORAGE}.getStats().freeBytes,${STORAGE}.getStats().trashBytes`);
  const names = [BOOT_FILE, ...JOURNAL_FILES];
  const images = await tool.evaluate(`${STORAGE}.list(/^fw\\d/).join()`);
  names.push(...images.split(",").filter(isImage));
  const files: BoardFacts["files"] = [];
  for (const name of names) {
    const bytes = await tool.evaluate(
      `(function(t){return t===undefined?-1:t.length})(${STORAGE}.read(${JSON.stringify(name)}))`,
    );
    if (Number(bytes) >= 0) files.push({ name, bytes: Number(bytes) });
  }
  // As the loader does it: the newest whole one.
  let boots = "";
  for (const { name } of files.filter((file) => isImage(file.name)).sort(newestFirst)) {
    if ((await lengthAndCrc(tool, name))[1] !== promisedCrc(name)) continue;
    boots = name;
    break;
  }
  if (boots === "" && files.some((file) => file.name === BOOT_FILE)) boots = BOOT_FILE;
  return {
    board: board!,
    version: version!,
    variables: Number(memory[0]),
    variableBytes: Number(memory[1]),
    freeBytes: Number(room[0]),
    trashBytes: Number(room[1]),
    files,
    boots: boots === "" ? undefined : boots,
  };
}

const newestFirst = (a: { name: string }, b: { name: string }): number =>
  a.name < b.name ? 1 : a.name > b.name ? -1 : 0;

/** What a power cut, or a pulled cable, can cost with this plan; "" when nothing. */
function riskOf(plan: FlashPlan, found: Found): string {
  if (!plan.loses) return "";
  const cost = plan.keepsOld
    ? "Its Storage has to be put in order first. A power cut during that can lose the firmware"
    : "There is no room for two images: the old firmware is erased before the new one is written.\n" +
      "A power cut, or a pulled cable, in between leaves the board without one, to be flashed again";
  if (!plan.compact) return `${cost}.`;
  return (
    `${cost}, and the record too; it is then asked of both servers` +
    (found.mayLoseRecord
      ? ", which hold it now."
      : ".\nNow they do not both hold it (or cannot say so).")
  );
}

async function confirm(question: string, yes: boolean): Promise<void> {
  say(question);
  if (yes) return;
  if (process.stdin.isTTY !== true) throw new Failure("Nothing was written. --yes does it.");
  const lines = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await lines.question("Do it? (yes/no) ");
  lines.close();
  if (answer.trim().toLowerCase() !== "yes") throw new Failure("Nothing was written.");
}

function progress(name: string, total: number): (bytes: number) => void {
  const terminal = process.stdout.isTTY === true;
  let said = 0;
  return (bytes) => {
    const percent = Math.floor((100 * bytes) / total);
    if (terminal)
      process.stdout.write(`\rwriting ${name}: ${percent} %${bytes === total ? "\n" : ""}`);
    else if (percent >= said + 25 || bytes === total) {
      said = percent;
      say(`writing ${name}: ${percent} %`);
    }
  };
}

/** Compares what the board reads back with what was sent. */
async function verify(tool: EspruinoTool, name: string, content: Buffer): Promise<string> {
  const length = await tool.evaluate(
    `(function(t){return t===undefined?-1:t.length})(${STORAGE}.read(${JSON.stringify(name)}))`,
  );
  if (Number(length) !== content.length) return `it has ${length} bytes there`;
  for (let at = 0; at < content.length; at += VERIFY_BYTES) {
    const part = content.subarray(at, at + VERIFY_BYTES);
    const there = await tool.evaluate(
      `E.CRC32(${STORAGE}.read(${JSON.stringify(name)},${at},${part.length}))>>>0`,
    );
    if (Number(there) !== crc32(part))
      return `bytes ${at} to ${at + part.length} read back otherwise`;
  }
  return "";
}

async function write(tool: EspruinoTool, name: string, content: Buffer): Promise<void> {
  const erase = `${STORAGE}.erase(${JSON.stringify(name)})`;
  try {
    await tool.upload(name, content, progress(name, content.length));
  } catch (error) {
    if (error instanceof Failure && error.exitCode !== EXIT_NOBODY)
      await tool.evaluate(erase).catch(() => undefined);
    throw error;
  }
  const wrong = await verify(tool, name, content);
  if (wrong === "") return;
  await tool.evaluate(erase);
  throw new Failure(`Verification of ${name} failed: ${wrong}.`);
}

/**
 * Stops whatever runs, behind the interpreter's prompt too; its watchdog would bite if nobody took it over.
 *
 * With the very first words, since a desktop's interpreter loses input while its loop is busy: its line and its
 * loop are two threads at one event queue, without a lock (hal/node/interpreter.mjs).
 */
async function stopFirmware(tool: EspruinoTool, firmware: BuiltFirmware): Promise<void> {
  // An interpreter on a desktop has no watchdog, and hangs when it is asked for one.
  if (firmware.watchdogSeconds > 0) await tool.evaluate(`E.enableWatchdog(${WATCHDOG_S},true)`);
  await tool.evaluate("reset()");
  await pause(RESET_MS);
}

async function carryOut(
  tool: EspruinoTool,
  plan: FlashPlan,
  firmware: BuiltFirmware,
  content: Buffer,
): Promise<void> {
  if (plan.isThere) {
    say(`${plan.image} is there already; it is verified.`);
    const wrong = await verify(tool, plan.image, content);
    if (wrong !== "") throw new Failure(`Verification of ${plan.image} failed: ${wrong}.`);
  } else {
    for (const name of plan.erase) await tool.evaluate(`${STORAGE}.erase(${JSON.stringify(name)})`);
    if (plan.compact) await tool.evaluate(`${STORAGE}.compact()`, SLOW_MS, 1);
    await write(tool, plan.image, content);
  }
  if (plan.loader) await write(tool, BOOT_FILE, Buffer.from(firmware.loader, "latin1"));
  say("verified: what the board reads back is what was built");
}

/** Opens the port again and again: a board on USB goes away while it restarts. */
async function reopen(
  place: PortPlace,
  baud: number,
  onText: (text: string) => void,
  end: number,
): Promise<BoardPort> {
  for (;;) {
    try {
      return await openBoardPort(place, baud, { onText, onClosed: () => undefined });
    } catch (error) {
      if (!(error instanceof Failure) || performance.now() > end) throw error;
      await pause(REOPEN_MS);
    }
  }
}

/** Restarts the board and waits for its first line. */
async function restart(
  tool: EspruinoTool,
  said: () => string,
  place: PortPlace,
  baud: number,
  plan: FlashPlan,
  firmware: BuiltFirmware,
): Promise<void> {
  const from = said().length;
  let heard = "";
  // Said once: a second one could reach the firmware. Whether it was heard is seen soon.
  await tool.evaluate(REBOOT, undefined, 1).catch(() => undefined);
  const end = performance.now() + REPORT_MS;
  const report = new RegExp(`dyad on ${firmware.name}: [^\\r\\n]*`);
  await pause(RESET_MS);
  // What has come since belongs to the same conversation; after it the port is opened anew.
  heard += said().slice(from);
  tool.close();
  const port = await reopen(place, baud, (text) => (heard += text), end);
  let asked = performance.now();
  try {
    for (;;) {
      const found = report.exec(heard)?.[0];
      if (found !== undefined) {
        say(found);
        if (isImage(plan.image) && !found.endsWith(plan.image)) {
          throw new Failure(`The board has started another image than ${plan.image}.`);
        }
        return;
      }
      if (performance.now() > end) {
        throw new Failure(
          `The firmware is stored and verified, the board was restarted, and it has not reported itself. It said:\n${heard.slice(-500)}`,
        );
      }
      if (performance.now() - asked > REPORT_MS / 10) {
        // Its first line may have come while nobody listened; `memory` says the same.
        port.write("memory\n");
        asked = performance.now();
      }
      await pause(100);
    }
  } finally {
    port.close();
  }
}

/** @throws Failure saying what is wrong and what state the board is in */
export async function flash(options: FlashOptions): Promise<void> {
  const place = parsePlace(options.port);
  const root = dirname(dirname(programPath("dyad.js")));
  if (!options.built) build(root, options.board);
  const { firmware, content } = readBuilt(root, options.board);
  const baud = options.baud ?? (firmware.consoleBaud > 0 ? firmware.consoleBaud : 9600);
  const found = await takeConsole(place, baud);

  let said = "";
  const tool = await EspruinoTool.open(place, baud, (text) => (said += text));
  let stopped = false;
  try {
    await stopFirmware(tool, firmware);
    stopped = true;
    const facts = await factsOf(tool);
    say(
      `${placeText(place)}: ${facts.board}, Espruino ${facts.version}, ${facts.variables} variables, ` +
        `${facts.freeBytes} bytes of Storage free, ${facts.trashBytes} of erased files; boots ${facts.boots ?? "nothing"}`,
    );
    const wrong = mismatch(firmware, facts);
    if (wrong !== "") throw new Failure(`This is the wrong board: ${wrong}. Nothing was written.`);
    const plan = planFlash(firmware, { bytes: content.length, crc: crc32(content) }, facts);
    if (typeof plan === "string") throw new Failure(`No room: ${plan}. Nothing was written.`);
    const risk = riskOf(plan, found);
    if (risk !== "") await confirm(risk, options.yes);
    else if (facts.boots !== undefined && !plan.isThere) {
      say(
        `${facts.boots} stays until the next flashing: it boots again if this one does not arrive whole`,
      );
    }
    await carryOut(tool, plan, firmware, content);
    await restart(tool, () => said, place, baud, plan, firmware);
  } catch (error) {
    // What was stopped starts again with the board only.
    if (stopped && error instanceof Failure && error.exitCode !== EXIT_NOBODY) {
      await tool.evaluate(REBOOT, undefined, 1).catch(() => undefined);
      say("The board was restarted.");
    }
    throw error;
  } finally {
    tool.close();
  }
}
