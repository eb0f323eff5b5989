/**
 * The explanations, word for word: what an operator reads in each state. The texts lie in testdata/ and are
 * rewritten with `UPDATE=1 npx vitest run test/firmware/explain`, to be read in review.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { FakePair, filled, record } from "./fake-pair.js";

const GOLDEN = fileURLToPath(new URL("testdata/explain.txt", import.meta.url));

const SCENES: [string, () => FakePair][] = [
  ["serving from both", () => FakePair.serving()],
  [
    "serving from both, the standby has not compared logs",
    () => {
      const pair = FakePair.serving();
      pair.b.says = { sessionOpen: false, problem: "peer port refused" };
      pair.run(30);
      return pair;
    },
  ],
  [
    "the primary was killed, the standby took over",
    () => {
      const pair = FakePair.serving();
      pair.a.kill();
      pair.run(700);
      return pair;
    },
  ],
  [
    "the old primary is back and joins",
    () => {
      const pair = FakePair.serving();
      pair.a.kill();
      pair.run(700);
      pair.a.start();
      pair.run(100);
      return pair;
    },
  ],
  [
    "the standby came back with another disk",
    () => {
      const pair = FakePair.serving();
      pair.b.identity = filled(16, 0xcc);
      pair.b.dropLink();
      pair.run(100);
      return pair;
    },
  ],
  [
    "solo, and the one that has the data died",
    () => {
      const pair = FakePair.serving(0, "solo");
      pair.a.kill();
      pair.run(100);
      return pair;
    },
  ],
  [
    "both servers silent",
    () => {
      const pair = FakePair.serving();
      pair.a.udp = pair.b.udp = false;
      pair.run(500);
      return pair;
    },
  ],
  [
    "the primary died, and the standby answers no poll",
    () => {
      const pair = FakePair.serving();
      pair.b.udp = false;
      pair.a.kill();
      for (let i = 0; i < 40; i++) {
        pair.b.sendFrame(3, 0, 5, new Uint8Array(0));
        pair.run(20);
      }
      return pair;
    },
  ],
  [
    "power-on, record solo: waits for the one",
    () => {
      const pair = FakePair.intact(record(5, 0, "solo"));
      pair.bootController();
      pair.b.start();
      pair.run(1000);
      return pair;
    },
  ],
  [
    "power-on, record both: nobody is there",
    () => {
      const pair = FakePair.intact(record(5, 0, "both"));
      pair.bootController();
      pair.run(1000);
      return pair;
    },
  ],
  [
    "power-on, flash blank: one server with data",
    () => {
      const pair = new FakePair();
      pair.b.alive = false;
      pair.a.record = record(5, 0, "both");
      pair.bootController();
      pair.a.start();
      pair.run(100);
      return pair;
    },
  ],
  [
    "power-on, flash blank: one blank server",
    () => {
      const pair = new FakePair();
      pair.b.alive = false;
      pair.bootController();
      pair.a.start();
      pair.run(100);
      return pair;
    },
  ],
  [
    "power-on, flash of another board",
    () => {
      const pair = new FakePair();
      pair.a.alive = pair.b.alive = false;
      pair.damage = "the record belongs to another board";
      pair.bootController();
      pair.run(100);
      return pair;
    },
  ],
  [
    "a higher epoch was heard: stopped",
    () => {
      const pair = FakePair.intact(record(5, 0, "both"));
      pair.a.record = record(9, 1, "solo");
      pair.bootController();
      pair.a.start();
      pair.run(500);
      return pair;
    },
  ],
  [
    "a planned switchover drains",
    () => {
      const pair = FakePair.serving();
      pair.forward.open = 2;
      pair.core!.console("switchover", pair.now);
      pair.run(20);
      return pair;
    },
  ],
  [
    "a record is being written",
    () => {
      const pair = FakePair.serving();
      pair.persistMs = Infinity;
      pair.a.kill();
      pair.run(50);
      return pair;
    },
  ],
];

function transcript(): string {
  let text = "";
  for (const [name, play] of SCENES) {
    const pair = play();
    text += `# ${name}\n> explain\n${pair.core!.console("explain", pair.now)}\n`;
    text += `status why: ${pair.status.why}\n`;
    const route = pair.forward.routes.at(-1);
    if (route !== undefined && !route.open) text += `clients are told: ${route.why}\n`;
    text += "\n";
  }
  return text;
}

test("explanations are as in testdata/explain.txt", () => {
  const text = transcript();
  if (process.env.UPDATE !== undefined) writeFileSync(GOLDEN, text);
  expect(existsSync(GOLDEN), "run with UPDATE=1 to write it").toBe(true);
  expect(text).toBe(readFileSync(GOLDEN, "utf8"));
});

test("no line is wider than a console", () => {
  for (const [, play] of SCENES) {
    const pair = play();
    for (const line of pair.core!.console("explain", pair.now).split("\n")) {
      expect(line.length).toBeLessThanOrEqual(80);
    }
  }
});
