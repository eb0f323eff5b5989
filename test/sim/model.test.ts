/** The formal model's words are the code's: a rule or event that is renamed or added on one side alone fails here. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { TRANSITIONS } from "../../firmware/core/role-table.js";
import { check, missingTools, MODEL } from "../../sim/model/check.js";
import { BROKEN, SOUND } from "../../sim/model/runs.js";

const model = readFileSync(MODEL, "utf8");
const rules = readFileSync(new URL("../../docs/ROLE-PROTOCOL.md", import.meta.url), "utf8");

function all(text: string, pattern: RegExp): string[] {
  return [...new Set([...text.matchAll(pattern)].map((match) => match[1]!))].sort();
}

describe("the formal model", () => {
  test("carries out each event of the state table, or says that it leaves it out", () => {
    const inCode = [...new Set(TRANSITIONS.map((one) => one.event as string))].sort();
    const headerEnd = model.indexOf("*/");
    const header = model.slice(0, headerEnd);
    const modelled = all(model.slice(headerEnd), /\bevent (\w+)/g);
    const leftOut = all(/Events left out:([^.]*)\./.exec(header)![1]!, /(\w+)/g);
    expect(modelled.filter((name) => leftOut.includes(name))).toEqual([]);
    expect([...modelled, ...leftOut].sort()).toEqual(inCode);
  });

  test("cites rules that docs/ROLE-PROTOCOL.md has", () => {
    const known = all(rules, /^\| (G?\d+) +\|/gm);
    expect(known.length).toBeGreaterThanOrEqual(25);
    const cited = [
      ...all(model, /\b(G\d)\b/g),
      ...[...model.matchAll(/\b[Rr]ules? ([0-9, and]+)/g)].flatMap((one) => all(one[1]!, /(\d+)/g)),
      ...BROKEN.flatMap((one) => all(/\(([^()]*)\)$/.exec(one.about)![1]!, /\b(G?\d+)\b/g)),
    ];
    expect(cited.length).toBeGreaterThan(20);
    expect(cited.filter((rule) => !known.includes(rule))).toEqual([]);
  });

  test("breaks what the list of runs says, and has the bounds that it sets", () => {
    expect(all(model, /\bBREAK_(\w+)/g)).toEqual(
      [...new Set(BROKEN.flatMap((one) => one.breaks))].sort(),
    );
    const bounds = new Set([...SOUND, ...BROKEN].flatMap((one) => Object.keys(one.bounds)));
    expect(all(model, /^#ifndef ([A-Z]+)$/gm)).toEqual([...bounds].sort());
  });

  const missing = missingTools();
  if (missing.length > 0) console.log(`skipping the model's own runs: no ${missing.join(", ")}`);
  test.skipIf(missing.length > 0)(
    "a small run of it holds, and with identities ignored loses a write",
    async () => {
      const bounds = { EPOCHS: 2, DISKS: 1 };
      expect(await check(bounds, [], 500)).toMatchObject({ violated: "", complete: true });
      const broken = await check(bounds, ["identity"], 500);
      expect(broken.violated).toContain("acked");
    },
    120_000,
  );
});
