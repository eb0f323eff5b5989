import { describe, expect, test } from "vitest";
import {
  FLAG_MORE,
  FLAG_ORDERED,
  FLAG_TXN,
  OUTCOME_ANSWER,
  OUTCOME_UNKNOWN,
} from "../../protocol/frame.js";
import {
  bytesOf,
  configOf,
  isOrdered,
  isTransaction,
  resp,
  World,
  type ModelClient,
} from "./world.js";

function world(changes: Parameters<typeof configOf>[0] = {}): World {
  return new World(configOf(changes)).begin();
}

function names(link: { arrived: { args: string[] }[] }): string[] {
  return link.arrived.map((one) => one.args.join(" "));
}

describe("P5: queries go to the target server and the answer comes back", () => {
  test("a read goes to one server, and its answer to the client that asked", () => {
    const w = world();
    const one = w.open();
    const two = w.open();
    w.send(one, resp("GET", "x"));
    w.send(two, resp("GET", "y"));
    const arrived = [...w.link(0).arrived, ...w.link(1).arrived];
    expect(arrived.map((a) => a.args.join(" ")).sort()).toEqual(["GET x", "GET y"]);
    for (const server of [0, 1] as const) {
      for (const a of w.link(server).arrived) w.reply(server, a.id, `$1\r\n${a.args[1]}\r\n`);
    }
    expect(one.received).toBe("$1\r\nx\r\n");
    expect(two.received).toBe("$1\r\ny\r\n");
    expect(w.passed).toEqual([1]);
  });

  test("reads are spread over both servers in sync, and all go to the primary when not", () => {
    const w = world();
    for (let i = 0; i < 10; i++) w.send(w.open(), resp("GET", "x"));
    expect(w.link(0).arrived.length).toBe(5);
    expect(w.link(1).arrived.length).toBe(5);
    w.setRoute({ readable: [true, false] });
    for (let i = 0; i < 10; i++) w.send(w.open(), resp("GET", "x"));
    // The five that were pending at the standby were asked again at the primary, too.
    expect(w.link(1).arrived.length).toBe(5);
    expect(w.link(0).arrived.length).toBe(20);
  });

  test("a read whose answer depends on the time goes to the primary", () => {
    const w = world();
    for (let i = 0; i < 6; i++) w.send(w.open(), resp("TTL", "x"));
    expect(w.link(0).arrived.length).toBe(6);
  });

  test("nothing is sent while the route is closed", () => {
    const w = world();
    w.setRoute({ open: false });
    const c = w.open();
    w.send(c, resp("GET", "x"), resp("SET", "x", "1"));
    expect(w.link(0).arrived.length + w.link(1).arrived.length).toBe(0);
    w.setRoute({ open: true });
    const read = w.link(0).arrived.length > 0 ? 0 : 1;
    w.reply(read, w.link(read).arrived[0]!.id, "$-1\r\n");
    expect(names(w.link(0)).at(-1)).toBe("SET x 1");
  });
});

describe("P6: modify and write commands go to the current primary", () => {
  test("writes go to the primary and to the new one after a change", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"));
    expect(names(w.link(0))).toEqual(["SET x 1"]);
    w.reply(0, 1, "+OK\r\n");
    w.setRoute({ epoch: 2, primary: 1 });
    w.send(c, resp("DEL", "x"));
    expect(names(w.link(1))).toEqual(["DEL x"]);
  });

  test("a write in flight is asked again at the new primary under the same number, in order", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"), resp("INCR", "y"), resp("SET", "z", "3"));
    const numbers = w.link(0).arrived.map((a) => a.number);
    w.linkDown(0);
    expect(w.link(1).arrived.length).toBe(0);
    w.setRoute({ epoch: 2, primary: 1, readable: [false, true] });
    expect(names(w.link(1))).toEqual(["SET x 1", "INCR y", "SET z 3"]);
    expect(w.link(1).arrived.map((a) => a.number)).toEqual(numbers);
    expect(w.link(1).arrived.map(isOrdered)).toEqual([false, true, true]);
    // What was asked first is not answered any more by what was asked then.
    for (const id of numbers) w.reply(1, id, "+OLD\r\n");
    for (const a of w.link(1).arrived) w.reply(1, a.id, "+OK\r\n");
    expect(c.received).toBe("+OK\r\n+OK\r\n+OK\r\n");
    expect(c.closed).toBeUndefined();
  });

  test("a read asked again gets a new id, so an old answer is never taken for it", () => {
    const w = world();
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp("GET", "x"));
    const first = w.link(0).arrived[0]!.id;
    w.setRoute({ epoch: 2, primary: 1, readable: [false, true] });
    const second = w.link(1).arrived[0]!.id;
    expect(second).not.toBe(first);
    w.reply(0, first, "$3\r\nold\r\n");
    w.reply(1, first, "$3\r\nold\r\n");
    expect(c.received).toBe("");
    w.reply(1, second, "$3\r\nnew\r\n");
    expect(c.received).toBe("$3\r\nnew\r\n");
  });
});

describe("order on one connection", () => {
  test("a read behind a write goes to the write's server, a write behind a standby's read waits", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"), resp("GET", "x"), resp("GET", "x"));
    expect(names(w.link(0))).toEqual(["SET x 1", "GET x", "GET x"]);
    expect(w.link(1).arrived.length).toBe(0);

    const d = w.open();
    w.setRoute({ readable: [true, true] });
    // The primary has three in flight, so this read goes to the standby.
    w.send(d, resp("GET", "y"), resp("SET", "y", "2"), resp("GET", "y"));
    expect(names(w.link(1))).toEqual(["GET y"]);
    expect(w.link(0).arrived.length).toBe(3);
    w.reply(1, w.link(1).arrived[0]!.id, "$-1\r\n");
    expect(names(w.link(0)).slice(3)).toEqual(["SET y 2", "GET y"]);
  });

  test("a PING does not overtake what was asked before it", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("PING"), resp("SET", "x", "1"), resp("PING"), resp("ECHO", "hi"));
    expect(c.received).toBe("+PONG\r\n");
    w.reply(0, 1, "+OK\r\n");
    expect(c.received).toBe("+PONG\r\n+OK\r\n+PONG\r\n$2\r\nhi\r\n");
  });

  test("a reply out of order is the server's fault", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"), resp("SET", "y", "1"));
    w.reply(0, 2, "+OK\r\n");
    expect(w.faults).toEqual(["0: reply 2 came before the one to an earlier command"]);
    expect(c.received).toBe("");
  });

  test("commands sent in an older epoch are answered before one of the new epoch is sent", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"));
    w.setRoute({ epoch: 2, readable: [true, false] });
    w.send(c, resp("SET", "x", "2"));
    expect(names(w.link(0))).toEqual(["SET x 1"]);
    w.reply(0, 1, "+OK\r\n");
    expect(names(w.link(0))).toEqual(["SET x 1", "SET x 2"]);
  });

  test("a write waits for the reads before it that read its keys, and for no others", () => {
    const w = world();
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp("INCR", "x"), resp("GET", "x"), resp("SET", "y", "x"), resp("INCR", "x"));
    w.send(c, resp("GET", "z"));
    expect(names(w.link(0))).toEqual(["INCR x", "GET x", "SET y x"]);
    w.reply(0, 1, ":1\r\n");
    expect(w.link(0).arrived.length).toBe(3);
    w.reply(0, 2, "$1\r\n1\r\n");
    expect(names(w.link(0)).slice(3)).toEqual(["INCR x", "GET z"]);
    w.reply(0, 3, "+OK\r\n");
    w.reply(0, 4, ":2\r\n");
    w.reply(0, 5, "$-1\r\n");
    expect(c.received).toBe(":1\r\n$1\r\n1\r\n+OK\r\n:2\r\n$-1\r\n");
  });

  test("INCR k, GET k, INCR k with a failover inside: no error, each once, the read in its place", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("INCR", "k"), resp("GET", "k"), resp("INCR", "k"));
    w.linkDown(0);
    w.setRoute({ epoch: 2, primary: 1, readable: [false, true] });
    expect(names(w.link(1))).toEqual(["INCR k", "GET k"]);
    expect(w.link(1).arrived[0]!.number).toBe(1);
    const [incr, get] = w.link(1).arrived.map((one) => one.id);
    w.reply(1, incr!, ":1\r\n");
    w.reply(1, get!, "$1\r\n1\r\n");
    expect(names(w.link(1)).slice(2)).toEqual(["INCR k"]);
    w.reply(1, w.link(1).arrived[2]!.id, ":2\r\n");
    expect(c.received).toBe(":1\r\n$1\r\n1\r\n:2\r\n");
  });

  test("an answer that waits behind another holds its key's writes back, since it may be asked again", () => {
    const w = world();
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp("GET", "long"), resp("GET", "x"));
    w.reply(0, 1, "$5\r\nha", OUTCOME_ANSWER | FLAG_MORE);
    w.reply(0, 2, "$1\r\n1\r\n");
    w.send(c, resp("SET", "x", "2"), resp("SET", "y", "2"));
    expect(w.link(0).arrived.length).toBe(2);
    w.linkDown(0);
    w.setRoute({ epoch: 2, primary: 1, readable: [false, true] });
    expect(names(w.link(1))).toEqual(["GET long", "GET x"]);
    w.reply(1, 3, "$4\r\nhalf\r\n");
    w.reply(1, 4, "$1\r\n1\r\n");
    expect(c.received).toBe("$4\r\nhalf\r\n$1\r\n1\r\n");
    expect(names(w.link(1)).slice(2)).toEqual(["SET x 2", "SET y 2"]);
  });

  test.each([
    [["GET", "x"], ["SET", "y", "x"], false],
    [["GET", "x"], ["SET", "x", "1"], true],
    [["HGET", "h", "x"], ["DEL", "x"], false],
    [["GET", "c"], ["DEL", "a", "b", "c"], true],
    [["GET", "d"], ["DEL", "a", "b", "c"], false],
    [["GET", "b"], ["MSET", "a", "b", "c", "d"], false],
    [["GET", "c"], ["MSET", "a", "b", "c", "d"], true],
    [["GET", "b"], ["RENAME", "a", "b"], true],
    [["TTL", "a"], ["EXPIRE", "a", "10"], true],
    [["MGET", "a", "b"], ["SET", "c", "1"], true],
    [["KEYS", "*"], ["SET", "c", "1"], true],
    [["GET", "a"], ["FLUSHALL"], true],
    [["GET", "a"], ["NOSUCHCOMMAND", "b"], true],
    [["GET", "dst"], ["SORT", "a", "STORE", "dst"], true],
    [["GET", ""], ["SET", "", "1"], true],
  ])("%j, then %j: waits is %s", (read, write, waits) => {
    const w = world();
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp(...read), resp(...write));
    expect(names(w.link(0))).toEqual(waits ? [read.join(" ")] : [read.join(" "), write.join(" ")]);
  });

  test("a MULTI waits for the reads before it", () => {
    const w = world();
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    const inner = [resp("SET", "b", "1"), resp("SET", "c", "1")];
    w.send(c, resp("GET", "a"), resp("MULTI"), ...inner, resp("EXEC"));
    expect(w.link(0).arrived.length).toBe(1);
  });

  test("a long pipeline of writes is not walked for one read ahead of it", () => {
    const w = world();
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp("GET", "a"));
    for (let i = 0; i < 200; i++) w.send(c, resp("SET", `k${i}`, "1"));
    expect(w.link(0).arrived.length).toBe(129);
    w.reply(0, 1, "$-1\r\n");
    expect(w.link(0).arrived.length).toBe(201);
  });
});

describe("G3: which replies pass", () => {
  test("a reply decided in another epoch than the record's is dropped", () => {
    const w = world();
    const c = w.open();
    w.setRoute({ epoch: 2, primary: 1 }, false);
    w.forwarder.onReplyEpoch(0, 1, w.now);
    w.send(c, resp("SET", "x", "1"));
    w.reply(1, 1, "+OK\r\n");
    expect(c.received).toBe("");
    w.forwarder.onReplyEpoch(1, 2, w.now);
    w.reply(1, 1, "+OK\r\n");
    expect(c.received).toBe("+OK\r\n");
  });

  test("a primary that stays primary answers what it holds, also in the epoch it was asked in", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"));
    w.setRoute({ epoch: 2, readable: [true, false] }, false);
    w.reply(0, 1, "+OK\r\n");
    expect(c.received).toBe("+OK\r\n");
    // For G5 it counts as passed in the record's epoch.
    expect(w.passed).toEqual([2]);
    expect(w.link(0).arrived.length).toBe(1);
  });

  test("a former primary's late reply never passes, even when it is primary again", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"));
    w.setRoute({ epoch: 2, primary: 1 }, false);
    w.setRoute({ epoch: 3, primary: 0 }, false);
    w.reply(0, 1, "+OLD\r\n");
    expect(c.received).toBe("");
    w.forwarder.onReplyEpoch(0, 3, w.now);
    w.reply(0, 1, "+OLD\r\n");
    expect(c.received).toBe("");
    w.reply(0, w.link(0).arrived.at(-1)!.id, "+NEW\r\n");
    expect(c.received).toBe("+NEW\r\n");
  });

  test("while a record is written nothing passes of an epoch of which nothing has passed (G5)", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"));
    w.setRoute({ open: false });
    w.reply(0, 1, "+OK\r\n");
    expect(c.received).toBe("");
    expect(w.passed).toEqual([]);
    w.setRoute({ open: true, epoch: 2, primary: 1 });
    expect(c.received).toBe("");
    expect(names(w.link(1))).toEqual(["SET x 1"]);
    w.reply(1, w.link(1).arrived[0]!.id, "+OK\r\n");
    expect(c.received).toBe("+OK\r\n");
  });

  test("what was kept back passes when the primary stays", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"));
    w.setRoute({ open: false });
    w.reply(0, 1, "+OK\r\n");
    w.setRoute({ open: true, epoch: 2 });
    expect(c.received).toBe("+OK\r\n");
    expect(w.passed).toEqual([2]);
  });

  test("an epoch of which a reply has passed goes on passing while the next is written", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"), resp("SET", "x", "2"));
    w.reply(0, 1, "+OK\r\n");
    w.setRoute({ open: false });
    w.reply(0, 2, "+OK\r\n");
    expect(c.received).toBe("+OK\r\n+OK\r\n");
  });
});

describe("holding and giving up", () => {
  test("what was surely not done is answered CLUSTERDOWN with the reason after holdMs", () => {
    const w = world();
    const c = w.open();
    w.linkDown(0);
    w.setRoute({ why: "a is away" });
    w.send(c, resp("SET", "x", "1"));
    w.tick(1999);
    expect(c.received).toBe("");
    w.tick(1);
    expect(c.received).toBe("-CLUSTERDOWN no primary: a is away\r\n");
    expect(c.closed).toBeUndefined();
  });

  test("a write that was sent and lost is answered OUTCOMEUNKNOWN, a read CLUSTERDOWN", () => {
    const w = world();
    const c = w.open();
    const d = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp("SET", "x", "1"));
    w.send(d, resp("GET", "x"));
    w.setRoute({ why: "a is away" });
    w.linkDown(0);
    w.tick(2001);
    expect(c.received).toBe("-OUTCOMEUNKNOWN a is away\r\n");
    expect(d.received).toBe("-CLUSTERDOWN no primary: a is away\r\n");
  });

  test("a pipeline ends as a whole, not one command each two seconds", () => {
    const w = world();
    const c = w.open();
    w.linkDown(0);
    w.send(c, resp("SET", "x", "1"), resp("SET", "x", "2"), resp("SET", "x", "3"));
    w.tick(2001);
    expect(c.received.match(/-CLUSTERDOWN/g)?.length).toBe(3);
  });

  test("a full hold queue refuses nobody: who comes then waits in line, unread", () => {
    const w = world({ limits: { heldBytesMax: 1000 } });
    w.linkDown(0);
    const clients: ModelClient[] = [];
    for (let i = 0; i < 20; i++) {
      const c = w.open();
      w.send(c, resp("SET", `k${i}`, "v".repeat(60)));
      clients.push(c);
    }
    expect(clients.filter((c) => !c.reading).length).toBeGreaterThan(5);
    expect(w.forwarder.counters().heldBytes).toBeLessThan(1100);
    w.linkUp(0);
    for (let i = 0; i < 20; i++) w.reply(0, w.link(0).arrived[i]!.id, "+OK\r\n");
    expect(clients.every((c) => c.received === "+OK\r\n" && c.reading)).toBe(true);
    expect(names(w.link(0)).map((name) => name.split(" ")[1])).toEqual(
      clients.map((_, i) => `k${i}`),
    );
  });

  test("a refused command is asked again, in its place", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"), resp("SET", "x", "2"));
    w.refuse(0, 1);
    w.refuse(0, 2);
    expect(w.link(0).arrived.length).toBe(2);
    w.tick(3);
    expect(names(w.link(0))).toEqual(["SET x 1", "SET x 2", "SET x 1", "SET x 2"]);
    expect(w.link(0).arrived.map((a) => a.number)).toEqual([1, 2, 1, 2]);
    expect(w.link(0).arrived.map((a) => a.id)).toEqual([1, 2, 3, 4]);
    w.reply(0, 3, "+1\r\n");
    w.reply(0, 4, "+2\r\n");
    expect(c.received).toBe("+1\r\n+2\r\n");
  });

  test("a refused write is not asked again behind a later one that was run", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"), resp("SET", "x", "2"));
    w.refuse(0, 1);
    w.reply(0, 2, "+OK\r\n");
    expect(c.received).toMatch(/^-CLUSTERDOWN no primary: .*\r\n\+OK\r\n$/);
    w.tick(3);
    expect(w.link(0).arrived.length).toBe(2);
  });

  test("a read that was run behind a refused one is asked again behind it, without an error", () => {
    const w = world();
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp("GET", "x"), resp("GET", "x"), resp("GET", "y"));
    w.refuse(0, 1, "too many replies wait");
    w.reply(0, 2, "$1\r\n1\r\n");
    w.reply(0, 3, "$100\r\n1", OUTCOME_ANSWER | FLAG_MORE);
    expect(w.link(0).aborted).toEqual([3]);
    expect(c.received).toBe("");
    w.tick(3);
    expect(names(w.link(0)).slice(3)).toEqual(["GET x", "GET x", "GET y"]);
    for (const a of w.link(0).arrived.slice(3)) w.reply(0, a.id, `$1\r\n${a.id}\r\n`);
    expect(c.received).toBe("$1\r\n4\r\n$1\r\n5\r\n$1\r\n6\r\n");
  });

  test("a refused read is asked again though a write behind it was run, which it cannot see", () => {
    const w = world();
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp("GET", "x"), resp("SET", "y", "2"));
    w.refuse(0, 1);
    w.reply(0, 2, "+OK\r\n");
    expect(c.received).toBe("");
    w.tick(3);
    expect(names(w.link(0)).slice(2)).toEqual(["GET x"]);
    w.reply(0, 3, "$1\r\nx\r\n");
    expect(c.received).toBe("$1\r\nx\r\n+OK\r\n");
  });

  test("a server that goes on refusing is given up with its words", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"));
    for (let i = 0; i < 3000 && c.received === ""; i++) {
      const last = w.link(0).arrived.at(-1)!;
      w.refuse(0, last.id, "not in this epoch");
      w.tick(3);
    }
    expect(c.received).toBe("-CLUSTERDOWN no primary: server refuses: not in this epoch\r\n");
    expect(w.now).toBeGreaterThanOrEqual(3000);
    expect(w.now).toBeLessThan(3100);
  });

  test("an unknown outcome is said as such", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("INCR", "x"));
    w.reply(0, 1, "its reply is no longer kept", OUTCOME_UNKNOWN);
    expect(c.received).toBe("-OUTCOMEUNKNOWN its reply is no longer kept\r\n");
  });
});

describe("MULTI", () => {
  test("is gathered and sent as one write", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("MULTI"), resp("SET", "x", "1"), resp("GET", "x"), resp("EXEC"));
    expect(c.received).toBe("+OK\r\n+QUEUED\r\n+QUEUED\r\n");
    const arrived = w.link(0).arrived[0]!;
    expect(isTransaction(arrived)).toBe(true);
    expect(arrived.flags & FLAG_TXN).toBe(FLAG_TXN);
    expect(arrived.commands).toEqual([
      ["SET", "x", "1"],
      ["GET", "x"],
    ]);
    w.reply(0, 1, "*2\r\n+OK\r\n$1\r\n1\r\n");
    expect(c.received).toBe("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\n1\r\n");
  });

  test("errors are those of Redis", () => {
    const w = world();
    const c = w.open();
    const said = (...args: string[]): string => {
      const before = c.received.length;
      w.send(c, resp(...args));
      return c.received.slice(before);
    };
    expect(said("EXEC")).toBe("-ERR EXEC without MULTI\r\n");
    expect(said("DISCARD")).toBe("-ERR DISCARD without MULTI\r\n");
    expect(said("MULTI")).toBe("+OK\r\n");
    expect(said("MULTI")).toBe("-ERR MULTI calls can not be nested\r\n");
    expect(said("EXEC")).toBe("*0\r\n");
    expect(said("MULTI")).toBe("+OK\r\n");
    expect(said("GET")).toBe("-ERR wrong number of arguments for 'get' command\r\n");
    expect(said("SET", "a", "1")).toBe("+QUEUED\r\n");
    expect(said("EXEC")).toBe("-EXECABORT Transaction discarded because of previous errors.\r\n");
    expect(said("MULTI")).toBe("+OK\r\n");
    expect(said("WATCH", "a")).toBe("-ERR WATCH inside MULTI is not allowed\r\n");
    expect(said("SET", "a", "1")).toBe("+QUEUED\r\n");
    expect(said("DISCARD")).toBe("+OK\r\n");
    expect(said("WATCH", "a")).toMatch(/^-ERR WATCH is not supported/);
    expect(said("UNWATCH")).toBe("+OK\r\n");
    expect(w.link(0).arrived.length).toBe(0);
  });

  test("is bounded", () => {
    const w = world({ limits: { valueBytesMax: 1024 } });
    const c = w.open();
    w.send(c, resp("MULTI"));
    for (let i = 0; i < 100; i++) w.send(c, resp("SET", `k${i}`, "v".repeat(1000)));
    expect(c.received).toContain("-ERR transaction too large");
    w.send(c, resp("EXEC"));
    expect(c.received).toMatch(/-EXECABORT .*\r\n$/);
    expect(w.link(0).arrived.length).toBe(0);
    expect(w.forwarder.counters().memoryBytes).toBeLessThan(300 * 1024);
  });
});

describe("connection commands", () => {
  const cases: [string[], string | RegExp][] = [
    [["PING"], "+PONG\r\n"],
    [["ping", "x"], "$1\r\nx\r\n"],
    [["PING", "x", "y"], "-ERR wrong number of arguments for 'ping' command\r\n"],
    [["ECHO", "hi"], "$2\r\nhi\r\n"],
    [["SELECT", "0"], "+OK\r\n"],
    [["SELECT", "1"], "-ERR DB index is out of range\r\n"],
    [["SELECT", "x"], "-ERR value is not an integer or out of range\r\n"],
    [["HELLO", "3"], "-NOPROTO unsupported protocol version\r\n"],
    [["HELLO", "x"], "-ERR Protocol version is not an integer or out of range\r\n"],
    [["HELLO", "2"], /^\*14\r\n\$6\r\nserver\r\n\$5\r\nredis\r\n/],
    [["HELLO", "2", "SETNAME"], "-ERR Syntax error in HELLO option 'SETNAME'\r\n"],
    [["CLIENT", "ID"], ":1\r\n"],
    [["CLIENT", "GETNAME"], "$-1\r\n"],
    [["CLIENT", "SETNAME", "a b"], /^-ERR Client names cannot contain spaces/],
    [["CLIENT", "SETINFO", "LIB-NAME", "ioredis"], "+OK\r\n"],
    [["CLIENT", "NO-EVICT", "ON"], "+OK\r\n"],
    [["CLIENT", "NOSUCH"], "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n"],
    [["CLIENT", "LIST"], /^\$\d+\r\nid=1 /],
    [["COMMAND"], "*0\r\n"],
    [["COMMAND", "DOCS"], "*0\r\n"],
    [["COMMAND", "COUNT"], ":0\r\n"],
    [["AUTH", "pw"], /^-ERR AUTH <password> called without any password/],
    [["AUTH", "default", "pw"], "+OK\r\n"],
    [["SUBSCRIBE", "x"], /^-ERR SUBSCRIBE is not supported/],
    [["BLPOP", "x", "0"], /^-ERR BLPOP is not supported/],
    [["XREAD", "BLOCK", "0", "STREAMS", "s", "$"], /^-ERR XREAD is not supported/],
    [["SHUTDOWN"], /^-ERR SHUTDOWN is not supported/],
    [["CONFIG", "GET", "save"], "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"],
    [["RESET"], "+RESET\r\n"],
  ];
  test.each(cases)("%j", (args, expected) => {
    const w = world();
    const c = w.open();
    w.send(c, resp(...args));
    if (typeof expected === "string") expect(c.received).toBe(expected);
    else expect(c.received).toMatch(expected);
    expect(w.link(0).arrived.length + w.link(1).arrived.length).toBe(0);
  });

  test("a password is asked for, and nothing else is done before", () => {
    const w = world({ clientPassword: "secret" });
    const c = w.open();
    w.send(c, resp("GET", "x"), resp("PING"));
    expect(c.received).toBe(
      "-NOAUTH Authentication required.\r\n-NOAUTH Authentication required.\r\n",
    );
    w.send(c, resp("AUTH", "wrong"));
    expect(c.received).toMatch(/-WRONGPASS .*\r\n$/);
    w.send(c, resp("AUTH", "secret"));
    expect(c.received).toMatch(/\+OK\r\n$/);
    w.send(c, resp("GET", "x"));
    expect(w.link(0).arrived.length + w.link(1).arrived.length).toBe(1);
    const d = w.open();
    w.send(d, resp("HELLO", "2", "AUTH", "default", "secret", "SETNAME", "me"));
    expect(d.received).toMatch(/^\*14/);
    w.send(d, resp("CLIENT", "GETNAME"));
    expect(d.received).toMatch(/\$2\r\nme\r\n$/);
  });

  test("QUIT is answered after what was asked before it, then the connection closes", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"), resp("QUIT"), resp("SET", "x", "2"));
    expect(c.closed).toBeUndefined();
    w.reply(0, 1, "+OK\r\n");
    expect(c.received).toBe("+OK\r\n+OK\r\n");
    expect(c.closed).toBe("the client said QUIT");
    expect(w.link(0).arrived.length).toBe(1);
  });

  test("inline commands are forwarded as arrays", () => {
    const w = world();
    const c = w.open();
    w.send(c, bytesOf('set x "a b"\r\n'));
    expect(w.link(0).arrived[0]!.args).toEqual(["set", "x", "a b"]);
  });
});

describe("bad and slow clients", () => {
  test("a protocol error is answered with Redis' words, after what was asked, and closes", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"), bytesOf("*1\r\nGET\r\n"));
    expect(c.closed).toBeUndefined();
    w.reply(0, 1, "+OK\r\n");
    expect(c.received).toBe("+OK\r\n-ERR Protocol error: expected '$', got 'G'\r\n");
    expect(c.closed).toBeDefined();
  });

  test("512 MB are refused when they are announced, and the connection lives on", () => {
    const w = world();
    const c = w.open();
    w.send(c, bytesOf("*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$536870912\r\n"));
    expect(c.received).toBe("-ERR value too large (limit 1048576 bytes)\r\n");
    expect(w.forwarder.counters().memoryBytes).toBeLessThan(200 * 1024);
    const d = w.open();
    w.send(d, bytesOf("*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$2097152\r\n"));
    for (let i = 0; i < 32; i++) w.send(d, new Uint8Array(65536));
    w.send(d, bytesOf("\r\n"), resp("PING"));
    expect(d.received).toBe("-ERR value too large (limit 1048576 bytes)\r\n+PONG\r\n");
  });

  test("a half-sent command blocks nobody and is bounded in memory", () => {
    const w = world({ limits: { clientOutTotalBytes: 4 << 20 } });
    const half: ModelClient[] = [];
    for (let i = 0; i < 20; i++) {
      const c = w.open();
      w.now += 1;
      w.send(c, bytesOf("*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1000000\r\n"), new Uint8Array(500000));
      half.push(c);
    }
    const closed = half.filter((c) => c.closed !== undefined);
    expect(closed.length).toBeGreaterThan(0);
    // The longest idle were the ones to go.
    expect(closed).toEqual(half.slice(0, closed.length));
    expect(w.forwarder.counters().memoryBytes).toBeLessThan(5 << 20);
    const other = w.open();
    w.send(other, resp("SET", "y", "1"));
    w.reply(0, w.link(0).arrived[0]!.id, "+OK\r\n");
    expect(other.received).toBe("+OK\r\n");
    w.send(half.at(-1)!, new Uint8Array(500000), bytesOf("\r\n"));
    expect(w.link(0).arrived.at(-1)!.payload.length).toBeGreaterThan(1000000);
  });

  test("a slow reader of 100 MB of replies holds nobody up and is bounded", () => {
    const w = world({ limits: { clientOutTotalBytes: 8 << 20 } });
    const slow = w.open();
    slow.reads = false;
    const big = `$100000\r\n${"v".repeat(100000)}\r\n`;
    for (let i = 0; i < 1000; i++) w.send(slow, resp("GET", "big"));
    let answered = 0;
    const serve = (): void => {
      for (const server of [0, 1] as const) {
        for (const a of w.link(server).arrived.splice(0)) {
          w.reply(server, a.id, big);
          answered += 1;
        }
      }
    };
    serve();
    expect(slow.reading).toBe(false);
    const other = w.open();
    w.send(other, resp("GET", "small"));
    for (const server of [0, 1] as const) {
      for (const a of w.link(server).arrived.splice(0)) w.reply(server, a.id, "$1\r\nv\r\n");
    }
    expect(other.received).toBe("$1\r\nv\r\n");
    // Everything it had asked for before it fell behind may still come, and then it is too much.
    expect(slow.closed).toMatch(/left \d+ bytes of replies unread/);
    expect(slow.unread).toBeLessThan(9 << 20);
    expect(answered).toBe(1000);
  });

  test("a client that reads again goes on where it was", () => {
    const w = world();
    const slow = w.open();
    slow.reads = false;
    const big = `$40000\r\n${"v".repeat(40000)}\r\n`;
    w.setRoute({ readable: [true, false] });
    for (let i = 0; i < 3; i++) w.send(slow, resp("GET", "big"));
    for (const a of w.link(0).arrived.splice(0)) w.reply(0, a.id, big);
    expect(slow.reading).toBe(false);
    w.send(slow, resp("GET", "more"));
    expect(w.link(0).arrived.length).toBe(0);
    slow.reads = true;
    w.drain(slow);
    expect(slow.reading).toBe(true);
    expect(names(w.link(0))).toEqual(["GET more"]);
  });

  test("a long pipeline is taken no faster than it is answered", () => {
    const w = world();
    const c = w.open();
    const commands: Uint8Array[] = [];
    for (let i = 0; i < 5000; i++) commands.push(resp("SET", `k${i}`, "v"));
    w.send(c, Buffer.concat(commands));
    expect(w.link(0).arrived.length).toBe(1024);
    expect(c.reading).toBe(false);
    let replied = 0;
    while (replied < 5000) w.reply(0, w.link(0).arrived[replied]!.id, `:${replied++}\r\n`);
    expect(c.received.split("\r\n").length).toBe(5001);
    expect(c.received.startsWith(":0\r\n:1\r\n:2\r\n")).toBe(true);
    expect(c.reading).toBe(true);
  });

  test("a closed client's replies are swallowed and its ids stay outstanding until then", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("SET", "x", "1"), resp("SET", "x", "2"));
    w.close(c);
    expect(w.forwarder.openCount()).toBe(2);
    w.reply(0, 1, "+OK\r\n");
    w.reply(0, 2, "+OK\r\n");
    expect(w.forwarder.openCount()).toBe(0);
  });

  test("more clients than allowed are told so", () => {
    const w = world({ limits: { clientsMax: 2 } });
    w.open();
    w.open();
    const third = w.open();
    expect(third.received).toBe("-ERR max number of clients reached\r\n");
    expect(third.closed).toBeDefined();
  });
});

describe("large commands and replies", () => {
  test("fragments of many clients go round robin, and a small command is not held up", () => {
    const w = world();
    w.linkDown(0);
    w.linkUp(0, 536, 8 << 20);
    w.linkBacklog[0] = 1 << 20;
    const one = w.open();
    const two = w.open();
    w.send(one, resp("SET", "x", "1".repeat(2000)));
    w.send(two, resp("SET", "y", "2".repeat(2000)));
    const three = w.open();
    w.send(three, resp("SET", "z", "3"));
    expect(names(w.link(0))).toEqual(["SET z 3"]);
    w.linkBacklog[0] = 0;
    w.tick(1);
    expect(w.link(0).frames).toEqual([3, 1, 2, 1, 2, 1, 2, 1, 2]);
    expect(w.link(0).arrived.map((a) => a.args[2]!.length)).toEqual([1, 2000, 2000]);
    expect(w.link(0).arrived[1]!.args[2]).toBe("1".repeat(2000));
  });

  test("a large command lost half sent is asked again whole", () => {
    const w = world();
    w.linkDown(0);
    w.linkUp(0, 536, 8 << 20);
    const c = w.open();
    w.linkBacklog[0] = 1 << 20;
    w.send(c, resp("SET", "x", "v".repeat(5000)), resp("GET", "x"));
    w.linkDown(0);
    w.linkUp(0, 65536, 8 << 20);
    expect(w.link(0).arrived.map((a) => a.args[0])).toEqual(["SET", "GET"]);
    expect(w.link(0).arrived[0]!.args[2]).toBe("v".repeat(5000));
  });

  test("no more is sent than the server's window takes", () => {
    const w = world();
    w.linkDown(0);
    w.linkUp(0, 65536, 10000);
    for (let i = 0; i < 5; i++) w.send(w.open(), resp("SET", "x", "v".repeat(4000)));
    expect(w.link(0).arrived.length).toBe(2);
    w.reply(0, w.link(0).arrived[0]!.id, "+OK\r\n");
    expect(w.link(0).arrived.length).toBe(3);
    // One that is larger than the window goes alone.
    w.send(w.open(), resp("SET", "x", "v".repeat(20000)));
    for (let i = 1; i < 5; i++) w.reply(0, w.link(0).arrived[i]!.id, "+OK\r\n");
    expect(w.link(0).arrived.length).toBe(6);
  });

  test("a long reply is put together, and each part granted again", () => {
    const w = world();
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp("GET", "x"), resp("GET", "y"));
    w.reply(0, 1, "$10\r\n01234", OUTCOME_ANSWER | FLAG_MORE);
    expect(c.received).toBe("");
    // What has come, and sixteen windows more because the reply is a long one.
    expect(w.link(0).credits).toEqual([{ id: 1, bytes: 10 + 16 * 16384 }]);
    // The next reply may come while this one waits for credit.
    w.reply(0, 2, "$1\r\ny\r\n");
    expect(c.received).toBe("");
    w.reply(0, 1, "56789\r\n");
    expect(c.received).toBe("$10\r\n0123456789\r\n$1\r\ny\r\n");
  });

  test("a reply lost half way is asked again and comes whole", () => {
    const w = world();
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp("GET", "x"));
    w.reply(0, 1, "$10\r\n01234", OUTCOME_ANSWER | FLAG_MORE);
    w.linkDown(0);
    w.setRoute({ epoch: 2, primary: 1, readable: [false, true] });
    w.reply(1, w.link(1).arrived[0]!.id, "$3\r\nnew\r\n");
    expect(c.received).toBe("$3\r\nnew\r\n");
  });

  test("a reply longer than may be kept is streamed; lost half way, the connection ends", () => {
    const w = world({ limits: { valueBytesMax: 1024 } });
    const c = w.open();
    w.setRoute({ readable: [true, false] });
    w.send(c, resp("KEYS", "*"));
    for (let i = 0; i < 10; i++) w.reply(0, 1, "k".repeat(16000), OUTCOME_ANSWER | FLAG_MORE);
    expect(c.received.length).toBe(160000);
    c.reads = false;
    const granted = w.link(0).credits.length;
    for (let i = 0; i < 10; i++) w.reply(0, 1, "k".repeat(16000), OUTCOME_ANSWER | FLAG_MORE);
    // It does not read: at some point nothing more is granted.
    expect(w.link(0).credits.length).toBeLessThan(granted + 10);
    const now = w.link(0).credits.length;
    c.reads = true;
    w.drain(c);
    expect(w.link(0).credits.length).toBe(now + 1);
    w.linkDown(0);
    expect(c.closed).toMatch(/long reply/);
    expect(c.aborted).toBe(true);
  });
});

describe("ids", () => {
  test("when they are used up, what is open is answered first, then new numbers begin at 1", () => {
    const w = world({ idMax: 10 });
    const c = w.open();
    for (let i = 0; i < 12; i++) w.send(c, resp("SET", "x", `${i}`));
    expect(w.link(0).arrived.length).toBe(9);
    expect(w.idsUsedUp).toBe(0);
    for (const a of [...w.link(0).arrived]) w.reply(0, a.id, "+OK\r\n");
    expect(w.idsUsedUp).toBe(1);
    w.linkDown(0);
    w.linkDown(1);
    w.forwarder.setSession(Uint8Array.from([9, 9, 9, 9, 9, 9, 9, 9]));
    w.linkUp(0);
    expect(w.link(0).arrived.map((a) => a.id)).toEqual([1, 2, 3]);
    for (const a of [...w.link(0).arrived]) w.reply(0, a.id, "+OK\r\n");
    expect(c.received).toBe("+OK\r\n".repeat(12));
  });

  test("what may be done under an old session is not asked under a new one", () => {
    const w = world();
    const c = w.open();
    w.send(c, resp("INCR", "x"));
    w.linkDown(0);
    w.linkDown(1);
    w.forwarder.setSession(Uint8Array.from([9, 9, 9, 9, 9, 9, 9, 9]));
    w.linkUp(0);
    expect(w.link(0).arrived.length).toBe(0);
    expect(c.received).toMatch(/^-OUTCOMEUNKNOWN /);
  });
});

test("FLAG_ORDERED is set exactly when others of the connection are open", () => {
  const w = world();
  const c = w.open();
  w.send(c, resp("SET", "x", "1"), resp("SET", "x", "2"));
  w.reply(0, 1, "+OK\r\n");
  w.reply(0, 2, "+OK\r\n");
  w.send(c, resp("SET", "x", "3"));
  expect(w.link(0).arrived.map((a) => a.flags & FLAG_ORDERED)).toEqual([0, FLAG_ORDERED, 0]);
});
