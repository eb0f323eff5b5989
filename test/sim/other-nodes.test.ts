/**
 * Same seed, same trace, whichever Node runs it: a seed that was found on one machine has to fail on another.
 *
 * Other Nodes are looked for as `node20`, `node22` and `node24` on PATH; DYAD_NODES names more of them, paths separated by
 * colons. Where there is none, that is said.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildBundle, ROOT } from "../../sim/bundle.js";
import type { Bundle } from "../../sim/bundle.js";
import { buildFirmware, loadFirmware } from "../../sim/firmware.js";
import { runSeed } from "../../sim/run.js";

const SEEDS = Number(process.env["DYAD_NODE_SEEDS"] ?? 60);
const BOARD_SEEDS = Math.ceil(SEEDS / 15);
const FIRST = 500;
const NAMES = ["node20", "node22", "node24"];

/** Prints the trace hashes of some seeds; what it is told stands behind it. */
const PROGRAM = `
const [worker, root, first, cores, boards] = process.argv.slice(1);
const { loadFirmware, runSeed } = await import(worker);
const hashes = [];
for (let i = 0; i < cores; i++) hashes.push(runSeed(+first + i, { swarm: i % 2 === 1 }).hash);
const firmware = loadFirmware(root);
for (let i = 0; i < boards; i++) hashes.push(runSeed(+first + i, { firmware }).hash);
console.log(JSON.stringify({ version: process.version, hashes }));
`;

function otherNodes(): string[] {
  const named = (process.env["DYAD_NODES"] ?? "").split(delimiter).filter((path) => path !== "");
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  const onPath = NAMES.flatMap((name) => {
    const folder = folders.find((one) => existsSync(join(one, name)));
    return folder === undefined ? [] : [join(folder, name)];
  });
  return [...named, ...onPath];
}

const nodes = otherNodes();
if (nodes.length === 0)
  console.log(`skipping the trace on other Nodes: no ${NAMES.join(", ")} on PATH, nor DYAD_NODES`);

describe.skipIf(nodes.length === 0)("the trace of a seed, on another Node", () => {
  let bundle: Bundle;
  const here: string[] = [];

  beforeAll(async () => {
    bundle = await buildBundle();
    for (let i = 0; i < SEEDS; i++) here.push(runSeed(FIRST + i, { swarm: i % 2 === 1 }).hash);
    buildFirmware(ROOT);
    const firmware = loadFirmware(ROOT);
    for (let i = 0; i < BOARD_SEEDS; i++) here.push(runSeed(FIRST + i, { firmware }).hash);
  }, 600_000);

  afterAll(() => bundle.remove());

  it.each(nodes)(
    "%s: to the bit, with the cores and with the bundle",
    async (node) => {
      const told = [pathToFileURL(bundle.path).href, ROOT, FIRST, SEEDS, BOARD_SEEDS].map(String);
      const { stdout } = await promisify(execFile)(node, [
        "--input-type=module",
        "-e",
        PROGRAM,
        ...told,
      ]);
      const there = JSON.parse(stdout) as { version: string; hashes: string[] };
      expect(there.hashes, there.version).toEqual(here);
      expect(new Set(here).size).toBe(here.length);
    },
    600_000,
  );
});
