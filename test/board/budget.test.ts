/** What a board has is enough, or the build fails with the reason. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { parseBoard } from "../../bin/board/board-config.mjs";
import { budgetOf } from "../../bin/board/build-board.mjs";
import { defaultTimings } from "../../firmware/core/config.js";
import type { Timings } from "../../firmware/core/config.js";
import { checkLimits, defaultLimits } from "../../firmware/core/limits.js";
import type { Limits } from "../../firmware/core/limits.js";

const BOARDS = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), "board-configs");
const hardware = { storageBytes: 65536, variables: 8190, variableBytes: 13 };
const measured = { command: "espruino-8190", boot: 4000, ready: 5000, full: 6100, clients: 3 };

describe("the budget", () => {
  test("with a quarter of the variables free and room in flash: nothing is wrong", () => {
    const { lines, wrong } = budgetOf({ stored: 60000, journals: 1088, hardware, measured });
    expect(wrong).toBe("");
    expect(lines.join("\n")).toMatch(/flash, bytes +61120 of +65536/);
    expect(lines.join("\n")).toMatch(/full load, the most +6100 of +8190 +74 % +measured on/);
  });

  test("less than a quarter free fails, with how much is", () => {
    const { wrong } = budgetOf({
      stored: 60000,
      journals: 1088,
      hardware,
      measured: { ...measured, full: 6150 },
    });
    expect(wrong).toMatch(/24\.9 % of its variables are free: at least 25 %/);
  });

  test("flash that is too small fails, with what is missing", () => {
    const { wrong } = budgetOf({ stored: 65000, journals: 1088, hardware, measured });
    expect(wrong).toMatch(/584 bytes of flash are missing/);
  });

  test("a bundle that does not run fails, with what the interpreter said", () => {
    const { wrong } = budgetOf({
      stored: 60000,
      journals: 1088,
      hardware,
      measured: { failed: "reset: MEMORY" },
    });
    expect(wrong).toMatch(/does not run in 8190 variables.*reset: MEMORY/s);
  });

  test("where it was not measured, it says so", () => {
    const { lines, wrong } = budgetOf({
      stored: 60000,
      journals: 1088,
      hardware,
      measured: undefined,
    });
    expect(wrong).toBe("");
    expect(lines.join("\n")).toMatch(/not measured.*espruino-8190/);
  });
});

describe.each(readdirSync(BOARDS).filter((file) => file !== "linux-node.json"))("%s", (file) => {
  test("is valid, has every timing and limit of the core, and they fit together", () => {
    const raw = JSON.parse(readFileSync(join(BOARDS, file), "utf8")) as {
      keyFile?: string;
      key?: string;
      timings: Timings;
      limits: Limits;
    };
    delete raw.keyFile;
    raw.key = "00".repeat(32);
    expect(() => parseBoard(raw, file)).not.toThrow();
    expect(Object.keys(raw.timings).sort()).toEqual(Object.keys(defaultTimings()).sort());
    expect(Object.keys(raw.limits).sort()).toEqual(Object.keys(defaultLimits()).sort());
    expect(() => checkLimits(raw.timings, raw.limits)).not.toThrow();
  });
});

test("docs/BOARDS.md and the drawings are made from the configurations, and current", () => {
  execFileSync(process.execPath, [join(dirname(BOARDS), "bin", "draw-boards.mjs"), "--check"], {
    stdio: "pipe",
  });
});
