/** `dyad flash` end to end: the real interpreter behind a TCP bridge, its Storage kept through every restart. */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parseBoard } from "../../bin/board/board-config.mjs";
import { flashFacts } from "../../bin/board/build-board.mjs";
import { bundleBoard } from "../../bin/board/bundle.mjs";
import { imageName } from "../../client/cli/flash-plan.js";
import { isThere, ROOT, until } from "./chip-pair.js";
import { DeskBoard } from "./desk-board.js";

const here = isThere("espruino");
if (!here) console.log("test/engine: skipped, no `espruino` on PATH");

/** What the interpreter's own file holds, of which its Storage has the first 256 KB. @unit bytes */
const FLASH_BYTES = 512 * 1024;
const SLOW = 400_000;

const undo: (() => Promise<void> | void)[] = [];
let board: DeskBoard;
let name: string;

beforeEach(async () => {
  if (!here) return;
  expect(spawnSync(process.execPath, [join(ROOT, "bin", "prepare.mjs")]).status).toBe(0);
  const dir = mkdtempSync(join(tmpdir(), "dyad-flash-"));
  undo.push(() => rmSync(dir, { recursive: true, force: true }));
  writeFileSync(join(dir, "espruino.flash"), Buffer.alloc(FLASH_BYTES, 0xff));
  board = await DeskBoard.open("espruino", dir);
  undo.push(() => board.close());
  name = `flash-test-${process.pid}`;
});
afterEach(async (context) => {
  if (context.task.result?.state === "fail") console.log(board.said.slice(-2000));
  for (const one of undo.splice(0).reverse()) await one();
});

/** Puts a firmware into dist/, as a build does. */
function built(content: Buffer, changes: Record<string, unknown> = {}): Buffer {
  const raw = JSON.parse(
    readFileSync(join(ROOT, "board-configs", "espruino-linux.json"), "utf8"),
  ) as Record<string, unknown>;
  delete raw.keyFile;
  const config = parseBoard({ ...raw, key: "5a".repeat(32) }, name);
  const facts = { ...flashFacts(name, config, content.length, 8192), ...changes };
  const base = join(ROOT, "dist", name);
  mkdirSync(dirname(base), { recursive: true });
  writeFileSync(`${base}.json`, JSON.stringify(facts));
  writeFileSync(`${base}.bootcde`, content);
  undo.push(() => {
    for (const end of ["json", "bootcde"]) rmSync(`${base}.${end}`, { force: true });
  });
  return content;
}

/** A firmware that says what the real one says, and no more. */
function tiny(mark: string, bytes = 3000): Buffer {
  const text = `setTimeout(function(){print("dyad on ${name}: ${mark}, "+(typeof fw=="string"?fw:""))},50);`;
  return Buffer.from(text.padEnd(bytes, " "), "latin1");
}

function flash(...more: string[]): Promise<{ code: number; out: string }> {
  const child = spawn(process.execPath, [
    join(ROOT, "bin", "dyad.mjs"),
    ...["flash", "--board", name, "--built", "--port", board.place],
    ...more,
  ]);
  undo.push(() => void child.kill("SIGKILL"));
  let out = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (out += data));
  child.stdin.end();
  return new Promise((ended) => child.once("exit", (code) => ended({ code: code ?? -1, out })));
}

const nameOf = (number: number, content: Buffer): string => imageName(number, crc32(content));

describe.runIf(here)("dyad flash on the real interpreter", () => {
  test(
    "the firmware itself: onto a blank board, and a new one beside the one that runs",
    async () => {
      const raw = JSON.parse(
        readFileSync(join(ROOT, "board-configs", "espruino-linux.json"), "utf8"),
      ) as { keyFile?: string } & Record<string, unknown>;
      delete raw.keyFile;
      const ports = { redis: 0, native: 26381, link: 26382, udp: 0 };
      const config = parseBoard({ ...raw, key: "11".repeat(32), ports }, name);
      const first = built((await bundleBoard(ROOT, name, config)).stored);
      const one = await flash();
      expect(one.out).toContain("boots nothing");
      expect(one.out).toMatch(new RegExp(`dyad on ${name}: .* free, ${nameOf(1, first)}`));
      expect(one.code).toBe(0);

      // It runs, gives its console away, and has it back with the restart.
      const again = await flash();
      expect(again.out).toContain("running now:");
      expect(again.out).toContain("is there already");
      expect(again.out).toMatch(new RegExp(`dyad on ${name}: .* free, ${nameOf(1, first)}`));
      expect(again.code).toBe(0);

      const second = built(tiny("second"));
      const two = await flash();
      expect(two.out).toContain("running now:");
      expect(two.out).toContain(`${nameOf(1, first)} stays`);
      expect(two.out).toContain(`second, ${nameOf(2, second)}`);
      expect(two.code).toBe(0);
    },
    SLOW,
  );

  test(
    "power cut in the middle, and bytes changed on the line: the old firmware boots",
    async () => {
      const first = built(tiny("first"));
      expect((await flash()).out).toContain(`first, ${nameOf(1, first)}`);

      built(tiny("cut", 9000));
      board.cutAfterBytes = board.heardBytes + 6000;
      const cut = await flash();
      expect(cut.code).toBe(2);
      expect(cut.out).toContain("closed the connection");
      board.cutAfterBytes = 0;
      let from = board.said.length;
      board.powerOn();
      await until(
        "the old firmware",
        () => board.said.slice(from).includes(nameOf(1, first)),
        SLOW,
      );

      const third = built(tiny("third"));
      const change = (text: string): string => text.replace(/(atob\(".{100})./, "$1A");
      board.tamper = change;
      const damaged = await flash();
      expect(damaged.out).toMatch(/Piece 1 of fw\d+-[0-9a-f]+ has arrived damaged 3 times/);
      expect(damaged.code).toBe(1);
      // A change that a piece's own check sum does not show.
      board.tamper = (text) => change(text.replace(/==\d+\?/, "?"));
      const changed = await flash();
      expect(changed.out).toMatch(/Verification of fw\d+-[0-9a-f]+ failed/);
      expect(changed.code).toBe(1);
      board.tamper = undefined;
      from = board.said.length;
      await board.powerOff();
      board.powerOn();
      await until(
        "the old firmware",
        () => board.said.slice(from).includes(nameOf(1, first)),
        SLOW,
      );

      // One piece is changed, and one does not arrive: they are sent again.
      let pieces = 0;
      board.tamper = (text) => {
        if (!text.includes("atob(")) return text;
        pieces++;
        return pieces === 2 ? change(text) : pieces === 4 ? "" : text;
      };
      const done = await flash();
      board.tamper = undefined;
      expect(done.out).toMatch(new RegExp(`third, fw\\d+-${nameOf(1, third).slice(7)}`));
      expect(done.code).toBe(0);
    },
    SLOW,
  );

  test(
    "wrong board, no room, and one image only: said before anything is written",
    async () => {
      built(tiny("first"), { images: 1 });
      expect((await flash()).code).toBe(0);
      const before = (): Buffer => readFileSync(join(board.dir, "espruino.flash"));
      const flashThen = before();

      built(tiny("second"), { images: 1, board: "ESP32" });
      const wrong = await flash("--yes");
      expect(wrong.out).toMatch(
        /wrong board: it says that it is LINUX.*ESP32.*Nothing was written/,
      );
      expect(wrong.code).toBe(1);

      built(Buffer.alloc(300_000, "x"), { images: 1 });
      const tooLarge = await flash("--yes");
      expect(tooLarge.out).toMatch(/No room: \d+ bytes.*Nothing was written/);
      expect(tooLarge.code).toBe(1);

      built(tiny("second"), { images: 1 });
      const asked = await flash();
      expect(asked.out).toContain("the old firmware is erased before the new one is written");
      expect(asked.out).toContain("Nothing was written. --yes does it.");
      expect(asked.code).toBe(1);
      expect(before().equals(flashThen)).toBe(true);

      const done = await flash("--yes");
      expect(done.out).toContain("second, ");
      expect(done.code).toBe(0);

      await board.powerOff();
      const silent = await flash();
      expect(silent.out).toContain("Nothing answers");
      expect(silent.code).toBe(2);
    },
    SLOW,
  );
});
