/** Rule 10: programs on the servers themselves, which do not go through the controller. */
import { describe, expect, test } from "vitest";
import { MODE_BOTH, MODE_SOLO, World } from "./world.js";

describe("rule 10: the local port", () => {
  test("mode both, on the primary: told when confirmed; a read is a no-op entry", () => {
    const world = new World();
    world.begin();
    const client = world.local(world.a);
    world.b.holdFlush = true;
    client.send("SET", "k", "1");
    client.send("GET", "k");
    client.send("GET", "quiet");
    world.pass(20);
    expect(client.take()).toBe("");
    expect(world.a.log()["end"]).toBe(3);
    world.b.holdFlush = false;
    world.settle();
    expect(client.take()).toBe("+OK\r\n$1\r\n1\r\n$-1\r\n");
  });

  test("in solo: a write is told only after PASSED of this epoch, a read is refused with the controller's address", () => {
    const world = new World();
    world.begin();
    world.b.crash();
    world.solo(0, 2);
    const client = world.local(world.a);
    client.send("SET", "k", "1");
    world.pass(50);
    expect(client.take()).toBe("");
    expect(world.a.log()["flushed"]).toBe(1);
    world.passed(0);
    expect(client.take()).toBe("+OK\r\n");
    client.send("GET", "k");
    world.settle();
    expect(client.take()).toBe(
      "-CLUSTERDOWN no primary: this server is solo; use the controller at 10.0.0.1:6379\r\n",
    );
    // It counts for exactly its epoch.
    world.solo(0, 3);
    client.send("SET", "k", "2");
    world.pass(50);
    expect(client.take()).toBe("");
  });

  test("adoption drops what is pending: its outcome is unknown", () => {
    for (const index of [0, 1] as const) {
      const world = new World();
      world.begin();
      const client = world.local(world.servers[index]);
      world.servers[1 - index]!.holdFlush = true;
      client.send("SET", "k", "1");
      world.pass(20);
      expect(client.take()).toBe("");
      world.write(2, 0, MODE_SOLO, [index]);
      world.settle();
      expect(client.take()).toMatch(/^-OUTCOMEUNKNOWN /);
    }
  });

  test("a command of the standby that cannot be sent is refused: surely not done", () => {
    const world = new World();
    world.begin();
    world.cutPeer(true);
    world.closePeer();
    world.settle();
    const client = world.local(world.b);
    client.send("SET", "k", "1");
    world.settle();
    expect(client.take()).toMatch(/^-CLUSTERDOWN no primary: this server is standby/);
  });

  test("a pending command is known by its entry: cut off and connected again it is done once", () => {
    const world = new World();
    world.begin();
    const client = world.local(world.b);
    world.cutPeer(true);
    client.send("INCR", "n");
    world.pass(20);
    world.closePeer();
    world.cutPeer(false);
    world.until(() => world.b.heartbeat().sessionOpen);
    world.settle();
    expect(client.take()).toBe(":1\r\n");
    expect(world.ask(0, "GET", "n")).toBe("$1\r\n1\r\n");
  });

  test("the entry came, the answer of the primary to a doubled forward does not matter", () => {
    const world = new World();
    world.begin();
    const client = world.local(world.b);
    world.a.holdFlush = true;
    client.send("INCR", "n");
    world.settle();
    // The primary has it in its log, unflushed; the link breaks.
    world.closePeer();
    world.a.holdFlush = false;
    world.until(() => world.b.heartbeat().sessionOpen);
    world.settle();
    expect(client.take()).toBe(":1\r\n");
    expect(world.ask(0, "GET", "n")).toBe("$1\r\n1\r\n");
  });

  test("MULTI and EXEC on either server, as one entry", () => {
    const world = new World();
    world.begin();
    for (const server of world.servers) {
      const client = world.local(server);
      const end = world.a.log()["end"]!;
      client.send("MULTI");
      client.send("INCR", "n");
      client.send("INCR", "n");
      client.send("EXEC");
      world.settle();
      expect(client.take()).toMatch(/^\+OK\r\n\+QUEUED\r\n\+QUEUED\r\n\*2\r\n:\d\r\n:\d\r\n$/);
      expect(world.a.log()["end"]).toBe(end + 1);
    }
    expect(world.ask(0, "GET", "n")).toBe("$1\r\n4\r\n");
  });

  test("a MULTI of one command on the standby answers an array", () => {
    const world = new World();
    world.begin();
    const client = world.local(world.b);
    for (const words of [["MULTI"], ["INCR", "n"], ["EXEC"]]) client.send(...words);
    world.settle();
    expect(client.take()).toBe("+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
  });

  test("a long value from the standby travels in pieces, and a long reply comes back", () => {
    const world = new World();
    world.begin();
    const client = world.local(world.b);
    const value = "x".repeat(200_000);
    client.send("SET", "k", value);
    client.send("GETSET", "k", "short");
    client.send("GET", "k");
    world.settle();
    expect(client.take()).toBe(`+OK\r\n$200000\r\n${value}\r\n$5\r\nshort\r\n`);
  });

  test("connection commands are answered in any role", () => {
    const world = new World();
    world.start();
    const client = world.local(world.a);
    client.send("PING");
    client.send("SELECT", "0");
    client.send("CLIENT", "SETNAME", "me");
    client.send("HELLO", "3");
    client.send("GET", "k");
    client.send("QUIT");
    world.settle();
    const out = client.take();
    expect(out.startsWith("+PONG\r\n+OK\r\n+OK\r\n-NOPROTO ")).toBe(true);
    expect(out).toMatch(/-CLUSTERDOWN no primary: this server is blank; use the controller/);
    expect(out.endsWith("+OK\r\n")).toBe(true);
    expect(client.closed).toBe(true);
  });

  test("garbage is answered and the connection closed", () => {
    const world = new World();
    world.begin();
    const client = world.local(world.a);
    client.pipe.send(1, Uint8Array.from(Buffer.from("*1\r\n:5\r\n")));
    world.settle();
    expect(client.take()).toMatch(/^-ERR Protocol error/);
    expect(client.closed).toBe(true);
  });

  test("many commands at once: bounded, in order, none lost", () => {
    const world = new World({ localWaitingMax: 16 });
    world.begin();
    const client = world.local(world.a);
    for (let i = 0; i < 200; i++) client.send("INCR", "n");
    world.settle();
    const expected = Array.from({ length: 200 }, (_, i) => `:${i + 1}\r\n`).join("");
    expect(client.take()).toBe(expected);
  });
});

describe("expiry", () => {
  test("a key is there until its expiry entry, which comes from the primary and reaches both", () => {
    const world = new World();
    world.begin();
    world.ask(0, "SET", "k", "1", "PX", "500");
    const end = world.a.log()["end"]!;
    world.pass(400);
    expect(world.ask(1, "GET", "k")).toBe("$1\r\n1\r\n");
    world.pass(400);
    expect(world.a.log()["end"]).toBe(end + 1);
    expect(world.ask(0, "EXISTS", "k")).toBe(":0\r\n");
    expect(world.ask(1, "GET", "k")).toBe("$-1\r\n");
    expect(world.b.log()["end"]).toBe(end + 1);
  });

  test("a standby's read that finds a key past due asks the primary, and answers when that entry has come", () => {
    const world = new World({ expireEveryMs: 100_000 });
    world.begin();
    world.pass(100);
    world.ask(0, "SET", "k", "1", "PX", "200");
    world.pass(300);
    const before = world.a.log()["end"]!;
    world.a.holdFlush = true;
    const id = world.get(1, "k");
    world.pass(20);
    expect(world.reply(1, id)).toBeUndefined();
    world.a.holdFlush = false;
    world.settle();
    expect(world.reply(1, id)?.text).toBe("$-1\r\n");
    expect(world.a.log()["end"]).toBe(before + 1);
  });

  test("a pipelined read behind such a one tells of nothing older than that place in the log", () => {
    const world = new World({ expireEveryMs: 100_000 });
    world.begin();
    world.pass(100);
    world.ask(0, "SET", "n", "old");
    world.ask(0, "SET", "k", "1", "PX", "200");
    world.pass(300);
    world.a.holdFlush = true;
    world.send(0, ["SET", "n", "new"]);
    const first = world.get(1, "k");
    const second = world.send(1, ["GET", "n"], { query: true, ordered: true });
    const other = world.send(1, ["GET", "n"], { query: true });
    world.pass(20);
    expect(world.reply(1, first)).toBeUndefined();
    expect(world.reply(1, second)).toBeUndefined();
    // Of another connection: it has seen nothing yet that is newer.
    expect(world.reply(1, other)?.text).toBe("$3\r\nold\r\n");
    world.a.holdFlush = false;
    world.settle();
    expect(world.reply(1, first)?.text).toBe("$-1\r\n");
    expect(world.reply(1, second)?.text).toBe("$3\r\nnew\r\n");
  });

  test("and when that read asks the primary itself, the one behind it waits again, whoever asked meanwhile", () => {
    const world = new World({ expireEveryMs: 100_000 });
    world.begin();
    world.pass(100);
    world.ask(0, "SET", "n", "old");
    for (const key of ["k1", "k2", "k3"]) world.ask(0, "SET", key, "1", "PX", "200");
    world.pass(300);
    const read = (key: string, ordered: boolean): number =>
      world.send(1, ["GET", key], { query: true, ordered });
    const first = read("k1", true);
    const second = read("k2", true);
    const third = read("n", true);
    world.round();
    // Another connection's: it asks after the first one, and before the second, which still waits.
    const other = read("k3", false);
    world.send(0, ["SET", "n", "new"]);
    while (world.reply(1, first) === undefined) world.round();
    for (const id of [second, third, other]) expect(world.reply(1, id)).toBeUndefined();
    world.settle();
    for (const id of [first, second, other]) expect(world.reply(1, id)?.text).toBe("$-1\r\n");
    expect(world.reply(1, third)?.text).toBe("$3\r\nnew\r\n");
  });

  test("many due keys go in bounded slices", () => {
    const world = new World({ expireKeysMax: 10, expireEntriesMax: 2 });
    world.begin();
    for (let i = 0; i < 100; i++) world.send(0, ["SET", "k" + i, "v", "PX", "100"]);
    world.settle();
    const end = world.a.log()["end"]!;
    world.pass(500, 50);
    expect(world.ask(0, "DBSIZE")).toBe(":0\r\n");
    expect(world.a.log()["end"]! - end).toBeGreaterThanOrEqual(10);
  });

  test("log time never goes backwards over restarts and role changes", () => {
    const world = new World();
    world.begin();
    world.pass(1000);
    world.ask(0, "SET", "k", "1", "PX", "1000");
    world.a.restart();
    world.until(() => world.a.heartbeat().sessionOpen);
    world.write(2, 1, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    expect(world.ask(1, "GET", "k")).toBe("$1\r\n1\r\n");
    const pttl = world.send(1, ["PTTL", "k"], { query: true });
    world.settle();
    const left = Number(world.reply(1, pttl)!.text.slice(1));
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(1000);
    world.pass(1200);
    expect(world.ask(1, "GET", "k")).toBe("$-1\r\n");
  });
});
