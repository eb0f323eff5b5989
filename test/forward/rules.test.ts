/** G1, G3 and G4 in the forward path: what no other test would miss, and each rule under its name. */
import { describe, expect, test } from "vitest";
import { configOf, resp, World } from "./world.js";

function world(changes: Parameters<typeof configOf>[0] = {}): World {
  return new World(configOf(changes)).begin();
}

describe("G1: commands go where the record says, under an id never used again", () => {
  test("G1: nothing is sent before there is a record", () => {
    const w = new World(configOf({}));
    w.forwarder.setSession(new Uint8Array(8));
    w.linkUp(0);
    w.linkUp(1);
    const c = w.open();
    w.send(c, resp("SET", "x", "1"), resp("GET", "x"));
    w.tick(100);
    expect(w.link(0).frames.length + w.link(1).frames.length).toBe(0);
  });

  test("G1: writes go to the primary, reads nowhere but there and to a readable standby", () => {
    for (const primary of [0, 1] as const) {
      const w = world();
      const standby = primary === 0 ? 1 : 0;
      w.setRoute({ epoch: 2, primary, readable: [primary === 0, primary === 1] });
      for (let i = 0; i < 20; i++) w.send(w.open(), resp("GET", "x"));
      for (let i = 0; i < 20; i++) w.send(w.open(), resp("SET", "x", "1"));
      expect(w.link(primary).arrived.length).toBe(40);
      w.setRoute({ readable: [true, true] });
      for (let i = 0; i < 20; i++) w.send(w.open(), resp("GET", "x"));
      for (let i = 0; i < 20; i++) w.send(w.open(), resp("SET", "x", "1"));
      expect(w.link(standby).arrived.length).toBeGreaterThan(0);
      expect(w.link(standby).arrived.every((one) => one.args[0] === "GET")).toBe(true);
    }
  });

  test("G1: no two askings have one id, whatever comes in between", () => {
    const w = world();
    const ids = new Set<number>();
    let asked = 0;
    for (let epoch = 2; epoch < 12; epoch++) {
      for (let i = 0; i < 10; i++) w.send(w.open(), resp(i % 2 ? "SET" : "GET", "x", "1"));
      w.setRoute({ epoch, primary: epoch % 2 === 0 ? 1 : 0 });
      for (const server of [0, 1] as const) {
        for (const one of w.link(server).arrived.splice(0)) {
          ids.add(one.id);
          asked += 1;
        }
      }
    }
    expect(asked).toBeGreaterThan(500);
    expect(ids.size).toBe(asked);
  });
});

describe("G1: an id that is outstanding is not given again", () => {
  test("G1: though numbers have gone round the table many times meanwhile", () => {
    const w = world({ limits: { inFlightMax: 8 } });
    const [slow, busy] = [w.open(), w.open()];
    w.send(slow, resp("SET", "x", "1"));
    const first = w.link(0).arrived.shift()!;
    for (let i = 0; i < 400; i++) {
      w.send(busy, resp("SET", "y", `${i}`));
      w.reply(0, w.link(0).arrived.shift()!.id, "+OK\r\n");
    }
    w.reply(0, first.id, "+FIRST\r\n");
    expect(slow.received).toBe("+FIRST\r\n");
    expect(busy.received).toBe("+OK\r\n".repeat(400));
  });
});

describe("G3: which replies pass", () => {
  test("G3: not one that a standby decided in an earlier epoch", () => {
    const w = world();
    w.setRoute({ epoch: 2 }, false);
    w.forwarder.onReplyEpoch(0, 2, w.now);
    const clients = Array.from({ length: 20 }, () => w.open());
    for (const one of clients) w.send(one, resp("GET", "x"));
    const asked = w.link(1).arrived.splice(0);
    expect(asked.length).toBeGreaterThan(0);
    for (const one of asked) w.reply(1, one.id, "$3\r\nold\r\n");
    expect(clients.every((one) => one.received === "")).toBe(true);
    w.forwarder.onReplyEpoch(1, 2, w.now);
    for (const one of asked) w.reply(1, one.id, "$3\r\nnew\r\n");
    expect(clients.filter((one) => one.received !== "").length).toBe(asked.length);
  });

  test("G3: not one from the other server, nor one under an id that is not outstanding", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"));
    const { id } = w.link(0).arrived[0]!;
    w.reply(1, id, "+OTHER\r\n");
    w.reply(0, id + 1, "+NEXT\r\n");
    // The same slot of the table, another id.
    w.reply(0, id + 32768, "+SLOT\r\n");
    expect(c.received).toBe("");
    w.reply(0, id, "+OK\r\n");
    w.reply(0, id, "+AGAIN\r\n");
    expect(c.received).toBe("+OK\r\n");
    expect(w.forwarder.counters().dropped).toBe(4);
  });

  test("G3: not one for a command that was taken back and waits", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"));
    const { id } = w.link(0).arrived[0]!;
    w.refuse(0, id);
    w.reply(0, id, "+LATE\r\n");
    expect(c.received).toBe("");
  });

  test("G3: a reply on a new connection passes only after that connection's epoch", () => {
    const w = world();
    const c = w.open();
    w.linkDown(0);
    w.linkUp(0);
    w.send(c, resp("SET", "x", "1"));
    // What was said of the epoch on the old connection does not count.
    w.forwarder.linkUp(0, w.linkOf[0]!, 65536, 1 << 20, w.now);
    const { id } = w.link(0).arrived.at(-1)!;
    w.reply(0, id, "+EARLY\r\n");
    expect(c.received).toBe("");
    w.forwarder.onReplyEpoch(0, 1, w.now);
    w.reply(0, id, "+OK\r\n");
    expect(c.received).toBe("+OK\r\n");
  });

  test("G3: what was kept of a server that is left is forgotten with it", () => {
    const w = world();
    const [c, d] = [w.open(), w.open()];
    w.send(c, resp("SET", "x", "1"));
    w.send(d, resp("SET", "y", "1"));
    const before = w.forwarder.counters().memoryBytes;
    w.setRoute({ open: false });
    w.reply(0, 1, `+${"o".repeat(100_000)}\r\n`);
    expect(w.forwarder.counters().memoryBytes).toBeGreaterThan(before + 100_000);
    w.linkDown(0);
    expect(w.forwarder.counters().memoryBytes).toBeLessThan(before + 10_000);
    w.setRoute({ open: true, epoch: 2, primary: 1 });
    expect(w.forwarder.counters().dropped).toBe(0);
    expect(c.received).toBe("");
  });

  test("G3: what is kept meanwhile is bounded, and the bound is whole again afterwards", () => {
    const w = world();
    w.setRoute({ readable: [true, false] });
    const big = `$1000000\r\n${"v".repeat(1_000_000)}\r\n`;
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 6; i++) w.send(w.open(), resp("GET", `${i}`));
      const before = w.forwarder.counters().memoryBytes;
      w.setRoute({ open: false });
      w.faults.length = 0;
      let kept = 0;
      for (const one of w.link(0).arrived.splice(0)) {
        if (w.faults.length > 0) break;
        w.reply(0, one.id, big);
        kept += 1;
      }
      expect(w.faults).toEqual(["0: too many replies while a record is written"]);
      expect(kept).toBe(5);
      w.linkDown(0);
      expect(w.forwarder.counters().memoryBytes).toBeLessThan(before + 100_000);
      w.linkUp(0);
      w.setRoute({ open: true, epoch: w.route.epoch + 1 });
    }
  });
});

describe("G4: after a restart nothing is outstanding", () => {
  test("G4: replies to what was asked before the restart mean nothing, whatever their ids", () => {
    const before = world();
    for (let i = 0; i < 5; i++) before.send(before.open(), resp("GET", "x"));
    // The controller starts again: the same servers, which still have answers under these ids.
    const after = world();
    for (let id = 1; id <= 5; id++) {
      for (const server of [0, 1] as const) after.reply(server, id, "$3\r\nold\r\n");
    }
    expect(after.forwarder.counters().dropped).toBe(10);
    expect(after.forwarder.openCount()).toBe(0);
    expect(after.passed).toEqual([]);
  });
});
