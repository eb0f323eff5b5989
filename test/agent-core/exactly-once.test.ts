/** Sessions: a retry is answered, not done twice; what is no longer known is never run. */
import { describe, expect, test } from "vitest";
import { makeEntryView } from "../../agent/core/chunk.js";
import { agentLimits } from "../../agent/core/limits.js";
import { SessionTable } from "../../agent/core/session-table.js";
import { makeSink } from "../../protocol/resp.js";
import { MODE_BOTH, World } from "./world.js";

const UNKNOWN = 2;
const CLIENT = Uint8Array.of(0xca, 0xfe, 0, 0, 0, 0, 0, 1);

describe("the controller's session", () => {
  test("exactly once across a failover: the new primary answers the retry with the old reply", () => {
    const world = new World();
    world.begin();
    world.ask(0, "SET", "n", "5");
    const id = world.send(0, ["INCR", "n"]);
    world.settle();
    expect(world.reply(0, id)?.text).toBe(":6\r\n");
    world.a.crash();
    world.solo(1, 2);
    // The controller never saw that reply, so it asks again under the same number.
    world.send(1, ["INCR", "n"], { number: id });
    world.settle();
    expect(world.reply(1, id)?.text).toBe(":6\r\n");
    expect(world.ask(1, "GET", "n")).toBe("$1\r\n6\r\n");
  });

  test("a retry at the same primary, before the first was confirmed, waits for it", () => {
    const world = new World();
    world.begin();
    world.b.holdFlush = true;
    const id = world.send(0, ["INCR", "n"]);
    world.settle();
    world.links[0]!.pipe.close();
    world.settle();
    world.until(() => world.links[0]!.up && world.links[0]!.report !== undefined);
    world.send(0, ["INCR", "n"], { number: id });
    world.pass(20);
    expect(world.reply(0, id)).toBeUndefined();
    world.b.holdFlush = false;
    world.settle();
    expect(world.reply(0, id)?.text).toBe(":1\r\n");
    expect(world.ask(0, "GET", "n")).toBe("$1\r\n1\r\n");
  });

  test("after a restart the table comes back from the log", () => {
    const world = new World();
    world.begin();
    const id = world.send(0, ["INCR", "n"]);
    world.settle();
    world.a.restart();
    world.until(() => world.links[0]!.up && world.a.heartbeat().sessionOpen);
    world.send(0, ["INCR", "n"], { number: id });
    world.settle();
    expect(world.reply(0, id)?.text).toBe(":1\r\n");
    expect(world.ask(0, "GET", "n")).toBe("$1\r\n1\r\n");
  });

  test("and from its checkpoint, when the log was trimmed", () => {
    const world = new World({
      logBytesMax: 4096,
      chunkBytesMax: 512,
      checkpointBytes: 512,
    });
    world.begin();
    const id = world.send(0, ["INCR", "n"]);
    for (let i = 0; i < 300; i++) {
      world.set(0, "k" + (i % 10), "v".repeat(20));
      if (i % 10 === 9) world.settle();
    }
    world.pass(500);
    expect(world.a.log()["base"]).toBeGreaterThan(1);
    expect(world.b.log()["base"]).toBeGreaterThan(1);
    world.b.restart();
    world.until(() => world.b.heartbeat().sessionOpen);
    world.a.crash();
    world.solo(1, 2);
    world.send(1, ["INCR", "n"], { number: id });
    world.settle();
    expect(world.reply(1, id)?.text).toBe(":1\r\n");
  });

  test("and with a range copy", () => {
    const world = new World({
      logBytesMax: 4096,
      chunkBytesMax: 512,
      checkpointBytes: 512,
      copyRowsMax: 4,
    });
    world.begin();
    world.b.replaceDisk();
    world.solo(0, 2);
    world.passed(0);
    const id = world.send(0, ["INCR", "n"]);
    for (let i = 0; i < 300; i++) {
      world.set(0, "k" + (i % 30), "v".repeat(20));
      if (i % 10 === 9) world.settle();
    }
    world.pass(500);
    world.b.start();
    world.until(() => world.a.heartbeat().asked);
    expect(world.a.noted("copy-done")).toBeDefined();
    world.write(3, 0, MODE_BOTH);
    world.until(() => world.a.heartbeat().sessionOpen);
    world.a.crash();
    world.solo(1, 4);
    world.send(1, ["INCR", "n"], { number: id });
    world.settle();
    expect(world.reply(1, id)?.text).toBe(":1\r\n");
    // Also after it has been restarted from its own disk.
    world.b.restart();
    world.until(() => world.links[1]!.up);
    world.send(1, ["INCR", "n"], { number: id });
    world.settle();
    expect(world.reply(1, id)?.text).toBe(":1\r\n");
  });

  test("a number outside the window is never run", () => {
    const world = new World({ controllerWindow: 64 });
    world.begin();
    for (let i = 0; i < 100; i++) world.send(0, ["INCR", "n"], { number: 10 + i });
    world.settle();
    world.send(0, ["INCR", "n"], { number: 11 });
    world.settle();
    expect(world.reply(0, 11)?.outcome).toBe(UNKNOWN);
    expect(world.ask(0, "GET", "n")).toBe("$3\r\n100\r\n");
  });

  test("acknowledged numbers are forgotten, the later ones kept", () => {
    const world = new World({ controllerWindow: 64 });
    world.begin();
    for (let i = 0; i < 40; i++) world.send(0, ["INCR", "n"], { number: 10 + i, below: 10 + i });
    world.settle();
    world.send(0, ["INCR", "n"], { number: 12 });
    world.send(0, ["INCR", "n"], { number: 49 });
    world.settle();
    expect(world.reply(0, 12)?.outcome).toBe(UNKNOWN);
    expect(world.reply(0, 49)?.text).toBe(":40\r\n");
  });

  test("a reply too long to keep: the retry hears outcome unknown", () => {
    const world = new World();
    world.begin();
    world.ask(0, "SET", "k", "x".repeat(3000));
    const id = world.send(0, ["GETSET", "k", "new"]);
    world.settle();
    expect(world.reply(0, id)?.text.length).toBeGreaterThan(3000);
    world.send(0, ["GETSET", "k", "newer"], { number: id });
    world.settle();
    expect(world.reply(0, id)?.outcome).toBe(UNKNOWN);
    expect(world.ask(0, "GET", "k")).toBe("$3\r\nnew\r\n");
  });

  test("another boot of the controller opens its own session and closes the former", () => {
    const world = new World();
    world.begin();
    world.ask(0, "SET", "k", "1");
    expect(world.a.status()["sessions"]).toBe(1);
    world.sessionId = Uint8Array.of(8, 8, 8, 8, 8, 8, 8, 8);
    world.links[0]!.pipe.close();
    world.links[1]!.pipe.close();
    world.until(() => world.links.every((link) => link!.up));
    world.settle();
    expect(world.ask(0, "SET", "k", "2")).toBe("+OK\r\n");
    expect(world.a.status()["sessions"]).toBe(1);
    expect(world.b.status()["sessions"]).toBe(1);
    // Numbers of the former one mean nothing any more.
    const old = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    const id = world.send(0, ["INCR", "n"], { sessionId: old });
    world.settle();
    expect(world.reply(0, id)?.outcome).toBe(UNKNOWN);
  });
});

describe("a client's session", () => {
  test("DYAD.SESSION OPEN and CLOSE; numbered writes in between are done once", () => {
    const world = new World();
    world.begin();
    const hex = Buffer.from(CLIENT).toString("hex");
    const early = world.send(0, ["INCR", "n"], { sessionId: CLIENT, number: 500 });
    world.settle();
    expect(world.reply(0, early)?.outcome).toBe(UNKNOWN);
    expect(world.ask(0, "DYAD.SESSION", "OPEN", hex)).toBe(`$16\r\n${hex}\r\n`);
    expect(world.ask(0, "DYAD.SESSION", "OPEN", hex)).toBe(`$16\r\n${hex}\r\n`);
    expect(world.a.status()["sessions"]).toBe(2);
    for (let i = 0; i < 3; i++) {
      const id = world.send(0, ["INCR", "n"], { sessionId: CLIENT, number: 501 });
      world.settle();
      expect(world.reply(0, id)?.text).toBe(":1\r\n");
      world.links[0]!.replies.delete(id);
    }
    world.write(2, 1, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    const id = world.send(1, ["INCR", "n"], { sessionId: CLIENT, number: 501 });
    world.settle();
    expect(world.reply(1, id)?.text).toBe(":1\r\n");
    expect(world.ask(1, "DYAD.SESSION", "CLOSE", hex)).toBe("+OK\r\n");
    const late = world.send(1, ["INCR", "n"], { sessionId: CLIENT, number: 502 });
    world.settle();
    expect(world.reply(1, late)?.outcome).toBe(UNKNOWN);
    expect(world.ask(1, "GET", "n")).toBe("$1\r\n1\r\n");
  });

  test("without an id the server gives one; nonsense is an error", () => {
    const world = new World();
    world.begin();
    expect(world.ask(0, "DYAD.SESSION", "OPEN")).toMatch(/^\$16\r\n[0-9a-f]{16}\r\n$/);
    expect(world.ask(0, "DYAD.SESSION", "OPEN", "xyz")).toMatch(/^-ERR a session id/);
    expect(world.ask(0, "DYAD.SESSION", "WHAT")).toMatch(/^-ERR usage/);
  });

  test("expires by an entry when idle, on both servers", () => {
    const world = new World({ sessionIdleMs: 2000 });
    world.begin();
    world.ask(0, "DYAD.SESSION", "OPEN");
    expect(world.b.status()["sessions"]).toBe(2);
    const end = world.a.log()["end"]!;
    world.pass(5000, 50);
    expect(world.a.log()["end"]).toBe(end + 1);
    expect(world.a.status()["sessions"]).toBe(1);
    expect(world.b.status()["sessions"]).toBe(1);
  });

  test("the table is bounded: -BUSY when all slots are taken", () => {
    const world = new World({ sessionsMax: 3 });
    world.begin();
    world.ask(0, "SET", "k", "1");
    expect(world.ask(0, "DYAD.SESSION", "OPEN")).toMatch(/^\$16/);
    expect(world.ask(0, "DYAD.SESSION", "OPEN")).toMatch(/^\$16/);
    expect(world.ask(0, "DYAD.SESSION", "OPEN")).toMatch(/^-BUSY/);
  });
});

describe("the table", () => {
  test("is the same bytes on both servers at the same index", () => {
    const limits = agentLimits({});
    const first = new SessionTable(limits);
    const second = new SessionTable(limits);
    const ops = makeSink(64);
    first.writeOpen(ops, "12345678", 0);
    const view = makeEntryView();
    view.bytes = ops.bytes;
    view.opsEnd = ops.length;
    expect(first.apply(view, 1)).toBe(true);
    const result = makeEntryView();
    result.bytes = Uint8Array.from(Buffer.from(":42\r\n"));
    result.replyEnd = 5;
    for (let n = 1; n <= 200; n++) {
      result.number = n;
      first.keep(result, n, 1);
    }
    const image = makeSink(64);
    first.write(image);
    expect(second.read(image.bytes, 0, image.length)).toBe(true);
    const again = makeSink(64);
    second.write(again);
    expect(again.bytes.slice(0, again.length)).toEqual(image.bytes.slice(0, image.length));
    const session = second.get("12345678")!;
    expect(session.count).toBe(64);
    expect(session.floor).toBe(137);
    expect(session.find(136)).toBe(-1);
    expect(session.indexAt(session.find(150))).toBe(150);
  });

  test("malformed operations change nothing", () => {
    const table = new SessionTable(agentLimits({}));
    const view = makeEntryView();
    for (const bytes of [[9, 0], [1, 0, 0], [1, 0, 0, 5, 1, 2], [3], [2, 0]]) {
      view.bytes = Uint8Array.from(bytes);
      view.opsStart = 0;
      view.opsEnd = bytes.length;
      expect(table.apply(view, 1)).toBe(false);
    }
    expect(table.count()).toBe(0);
    expect(table.read(Uint8Array.of(1, 5, 0), 0, 3)).toBe(false);
    expect(table.read(Uint8Array.of(7), 0, 1)).toBe(false);
  });
});
