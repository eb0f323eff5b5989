/** One turn does a bounded share of what the controller sent; heartbeats and the peer have theirs between. */
import { describe, expect, test } from "vitest";
import { OUTCOME_REFUSED } from "../../protocol/frame.js";
import { MODE_SOLO, World } from "./world.js";

function commandsOf(world: World): number {
  return Number(world.a.status()["commands"]);
}

describe("a turn is bounded", () => {
  test("by commands: the rest goes on in the next turns, in order, and nothing is left behind", () => {
    const world = new World({ turnCommandsMax: 4 });
    world.begin();
    const before = commandsOf(world);
    const ids: number[] = [];
    for (let i = 0; i < 30; i++) ids.push(world.send(0, ["APPEND", "k", String(i % 10)]));
    let most = 0;
    let last = before;
    for (let round = 0; round < 60; round++) {
      world.round();
      most = Math.max(most, commandsOf(world) - last);
      last = commandsOf(world);
    }
    expect(most).toBe(4);
    expect(last).toBe(before + 30);
    world.settle();
    for (const [i, id] of ids.entries()) expect(world.reply(0, id)?.text).toBe(`:${i + 1}\r\n`);
    expect(world.ask(0, "GET", "k")).toContain("012345678901234567890123456789");
  });

  test("by reply bytes", () => {
    const world = new World({ turnReplyBytesMax: 10000 });
    world.begin();
    world.ask(0, "SET", "k", "v".repeat(4000));
    const before = commandsOf(world);
    for (let i = 0; i < 12; i++) world.get(0, "k");
    let most = 0;
    let last = before;
    for (let round = 0; round < 40; round++) {
      world.round();
      most = Math.max(most, commandsOf(world) - last);
      last = commandsOf(world);
    }
    expect(most).toBe(3);
    expect(last).toBe(before + 12);
  });

  test("a record that comes while input waits is adopted, and no waiting command is left without an answer", () => {
    const world = new World({ turnCommandsMax: 2 });
    world.begin();
    const ids: number[] = [];
    for (let i = 0; i < 9; i++) ids.push(world.set(0, `k${i}`, "1"));
    world.write(2, 0, MODE_SOLO);
    const later = world.set(0, "later", "1");
    world.settle();
    // The peer may tell of the record first: what had not had its turn by then is surely not done.
    for (const id of ids) {
      const reply = world.reply(0, id);
      if (reply?.outcome === OUTCOME_REFUSED) expect(reply.text).toContain("is in epoch 2");
      else expect(reply?.text).toBe("+OK\r\n");
    }
    expect(world.reply(0, later)).toBeDefined();
    expect(world.a.status()["epoch"]).toBe(2);
  });

  test("a link that closes while input waits leaves nothing of it to the next one", () => {
    const world = new World({ turnCommandsMax: 1 });
    world.begin();
    for (let i = 0; i < 20; i++) world.set(0, `k${i}`, "1");
    world.round();
    world.a.crash("kill");
    world.a.restart();
    world.settle();
    expect(world.a.status()["role"]).toBe("primary");
    world.pass(200);
    expect(world.a.status()["controllerLink"]).toBe(true);
  });
});
