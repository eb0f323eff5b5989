import fc from "fast-check";
import { expect, test } from "vitest";
import { ClientCore } from "../../client/core.js";
import type { Action, Outcome, Request } from "../../client/core.js";
import { checkLimits, DEFAULT_LIMITS } from "../../client/limits.js";
import type { ClientLimits } from "../../client/limits.js";
import { SessionNumbers } from "../../client/session.js";
import * as frame from "../../protocol/frame.js";
import * as m from "../../protocol/messages.js";
import { FakeController, hmac } from "./fake-controller.js";
import type { FakeConnection } from "./fake-controller.js";

const LIMITS: ClientLimits = { ...DEFAULT_LIMITS, silenceMs: 3_000, commandMs: 10_000 };

function request(text: string, flags: number, session?: SessionNumbers): Request {
  const args = text.split(" ");
  const wire = `*${args.length}\r\n` + args.map((a) => `$${a.length}\r\n${a}\r\n`).join("");
  return { payload: Buffer.from(wire), flags, repeatable: false, session };
}

/** A core, a controller and a wire between them in one thread; time moves when told. */
class World {
  readonly controller = new FakeController();
  readonly core: ClientCore<string>;
  readonly settled = new Map<string, string>();
  readonly events: string[] = [];
  nowMs = 1_000;
  /** Bytes are lost on a dead wire. */
  wireDead = false;
  /** Whether dialing succeeds. */
  reachable = true;
  connection: FakeConnection | undefined;
  private toClient: Uint8Array[] = [];
  private closedByController = false;

  constructor(limits: Partial<ClientLimits> = {}, key = new Uint8Array(0)) {
    this.core = new ClientCore({
      key,
      hmac,
      name: "t",
      limits: checkLimits({ ...LIMITS, ...limits }),
      spread: 1,
    });
  }

  ask(text: string, flags: number, session?: SessionNumbers): void {
    this.core.submit(request(text, flags, session), text, this.nowMs);
  }

  /** Everything that follows from what was done, without time moving. @returns when the core wants a tick */
  settle(): number {
    for (;;) {
      const next = this.core.tick(this.nowMs);
      let moved = false;
      for (let a = this.core.poll(); a !== undefined; a = this.core.poll()) {
        moved = true;
        this.act(a);
      }
      const chunk = this.toClient.shift();
      if (chunk !== undefined) this.core.onBytes(chunk, 0, chunk.length, this.nowMs);
      else if (this.closedByController) {
        this.closedByController = false;
        this.connection = undefined;
        this.core.onClosed("reset", this.nowMs);
      } else if (!moved) return next;
    }
  }

  /** Lets time pass, with ticks when the core wants them. */
  pass(ms: number): void {
    const until = this.nowMs + ms;
    for (let next = this.settle(); next <= until; next = this.settle()) {
      this.nowMs = Math.max(next, this.nowMs);
    }
    this.nowMs = until;
    this.settle();
  }

  private act(action: Action<string>): void {
    switch (action.kind) {
      case "connect":
        this.toClient = [];
        this.closedByController = false;
        if (!this.reachable) {
          this.core.onClosed("unreachable", this.nowMs);
          break;
        }
        this.connection = this.controller.open(
          (bytes) => {
            if (!this.wireDead) this.toClient.push(bytes.slice());
          },
          () => (this.closedByController = true),
        );
        this.core.onConnected(new Uint8Array(16).fill(this.controller.connections), this.nowMs);
        break;
      case "send":
        if (!this.wireDead) this.connection?.receive(action.bytes);
        break;
      case "close":
        this.connection = undefined;
        this.toClient = [];
        this.closedByController = false;
        this.events.push("close: " + action.reason);
        break;
      case "settle":
        if (this.settled.has(action.token)) throw new Error(action.token + " settled twice");
        this.settled.set(action.token, told(action.outcome));
        break;
      case "down":
      case "refused":
        this.events.push(action.kind + ": " + action.reason);
        break;
      case "up":
        this.events.push("up");
        break;
    }
  }
}

function told(outcome: Outcome): string {
  if (outcome.kind !== "reply") return `${outcome.kind}: ${outcome.reason}`;
  const { value } = outcome;
  return value instanceof Uint8Array ? Buffer.from(value).toString() : JSON.stringify(value);
}

const Q = frame.CLASS_QUERY;
const W = frame.CLASS_WRITE;
const openSession = (world: World, window = 64): SessionNumbers => {
  const session = new SessionNumbers(new Uint8Array(8).fill(5), window);
  world.core.submit(
    { ...request("DYAD.SESSION OPEN 0505050505050505", W), repeatable: true },
    "session",
    world.nowMs,
  );
  return session;
};

test("commands wait for the handshake, then go out in order and are answered", () => {
  const world = new World();
  world.ask("INCR a", W);
  world.ask("GET a", Q);
  world.ask("NOSUCH", W);
  world.settle();
  expect(world.controller.done).toEqual(["INCR a", "GET a", "NOSUCH"]);
  expect([...world.settled.values()]).toEqual(["1", "1", '{"error":"ERR unknown command"}']);
  expect(world.events).toEqual(["up"]);
  expect(world.core.pending()).toBe(0);
  expect(world.controller.asked.map((a) => a.flags & frame.FLAG_CLASS_MASK)).toEqual([W, Q, W]);
});

test("the same key at both ends is wanted", () => {
  const world = new World({}, Buffer.from("ours"));
  world.controller.key = Buffer.from("theirs");
  world.ask("GET a", Q);
  world.settle();
  expect(world.events).toEqual([
    "refused: the controller does not hold this client's key",
    "close: the controller does not hold this client's key",
  ]);
  expect(world.settled.get("GET a")).toMatch(/^notDone: the controller does not hold/);
  world.ask("INCR late", W);
  world.pass(60_000);
  expect(world.settled.get("INCR late")).toMatch(/^notDone/);
  expect(world.controller.connections).toBe(1);
  const good = new World({}, Buffer.from("ours"));
  good.controller.key = Buffer.from("ours");
  good.settle();
  expect(good.events).toEqual(["up"]);
});

test("a refusal of key or version ends it, a passing one does not", () => {
  for (const [code, lasting] of [
    [m.REFUSE_KEY, true],
    [m.REFUSE_VERSION, true],
    [m.REFUSE_FULL, false],
    [m.REFUSE_STOPPED, false],
  ] as const) {
    const world = new World();
    world.settle();
    world.controller.decide = () => "hold";
    world.ask("INCR a", W);
    world.settle();
    world.connection!.control({ kind: m.KIND_REFUSE, code, text: "because" });
    world.settle();
    expect(world.settled.get("INCR a")).toMatch(lasting ? /^notDone: .*because/ : /^unknown/);
    world.pass(5_000);
    expect(world.controller.connections).toBe(lasting ? 1 : 2);
  }
});

test("another wire version is refused", () => {
  const world = new World();
  world.controller.wire = 9;
  world.settle();
  expect(world.events[0]).toBe("refused: the controller speaks wire version 9");
});

test("a lost connection: reads are asked again, plain writes are unknown, the unsent just wait", () => {
  const world = new World({ inFlightMax: 3 });
  world.settle();
  world.controller.decide = () => "hold";
  for (const text of ["GET a", "INCR a", "GET b"]) world.ask(text, text.startsWith("G") ? Q : W);
  world.ask("INCR unsent", W);
  world.settle();
  expect(world.controller.asked.length).toBe(3);
  world.controller.decide = () => "answer";
  world.core.onClosed("cable", world.nowMs);
  world.pass(2_000);
  expect(Object.fromEntries(world.settled)).toEqual({
    "GET a": "0",
    "INCR a": "unknown: cable",
    "GET b": "0",
    "INCR unsent": "1",
  });
  expect(world.controller.done).toEqual(["GET a", "GET b", "INCR unsent"]);
  expect(world.events).toEqual(["up", "down: cable", "up"]);
});

test("a session's write is asked again under its number, and done once", () => {
  for (const decision of ["lost", "done"] as const) {
    const world = new World();
    const session = openSession(world);
    world.settle();
    let first = true;
    world.controller.decide = (asked) => {
      if (asked.number !== 2 || !first) return "answer";
      first = false;
      return decision;
    };
    for (const key of ["a", "b", "c"]) world.ask("INCR " + key, W, session);
    world.pass(2_000);
    expect([...world.settled.values()].slice(1)).toEqual(["1", "1", "1"]);
    expect(["a", "b", "c"].map((key) => world.controller.counter(key))).toEqual([1, 1, 1]);
    const again = world.controller.asked.filter((asked) => asked.number > 0);
    expect(again.map((asked) => [asked.connection, asked.number, asked.below])).toEqual([
      [1, 1, 1],
      [1, 2, 1],
      [2, 2, 2],
      [2, 3, 2],
    ]);
    expect(world.controller.connections).toBe(2);
  }
});

test("no more writes of a session are open than the servers remember", () => {
  const world = new World();
  const session = openSession(world, 4);
  world.settle();
  world.controller.decide = () => "hold";
  for (let i = 0; i < 9; i++) world.ask("INCR k" + i, W, session);
  world.settle();
  const numbered = (): number[] => world.controller.asked.map((a) => a.number).filter((n) => n > 0);
  expect(numbered()).toEqual([1, 2, 3, 4]);
  const third = world.controller.asked.at(-2)!;
  world.connection!.reply(third.id, 0, ":1\r\n");
  world.settle();
  expect(numbered()).toEqual([1, 2, 3, 4]);
  world.connection!.reply(third.id - 2, 0, ":1\r\n");
  world.settle();
  expect(numbered()).toEqual([1, 2, 3, 4, 5]);
});

test("a query of a session has no number", () => {
  const world = new World();
  const session = openSession(world);
  world.ask("GET a", Q, session);
  world.settle();
  expect(world.controller.asked.at(-1)).toMatchObject({ session: "", number: 0 });
});

test("refused: surely not done the first time, unknown when it was asked before", () => {
  const world = new World();
  const session = openSession(world);
  world.settle();
  world.controller.decide = () => "refuse";
  world.ask("INCR plain", W);
  world.ask("INCR numbered", W, session);
  world.ask("GET a", Q);
  world.settle();
  const refusal = "notDone: CLUSTERDOWN no primary: test";
  expect(world.settled.get("INCR plain")).toBe(refusal);
  expect(world.settled.get("INCR numbered")).toBe(refusal);
  expect(world.settled.get("GET a")).toBe(refusal);

  world.controller.decide = (asked) => (asked.connection === 1 ? "done" : "refuse");
  world.ask("INCR again", W, session);
  world.pass(1_000);
  expect(world.settled.get("INCR again")).toMatch(/^unknown: asked again .* CLUSTERDOWN/);
});

test("an unknown outcome is told as one, whichever way it comes", () => {
  const world = new World();
  world.controller.decide = () => "unknown";
  world.ask("INCR a", W);
  world.ask("GET a", Q);
  world.settle();
  expect(world.settled.get("INCR a")).toBe("unknown: OUTCOMEUNKNOWN test");
  expect(world.settled.get("GET a")).toBe("noAnswer: OUTCOMEUNKNOWN test");
  world.controller.decide = () => "hold";
  const errors = { x: "OUTCOMEUNKNOWN y", y: "CLUSTERDOWN z", z: "BUSY dyad: w", w: "BUSY other" };
  for (const key of Object.keys(errors)) world.ask("INCR " + key, W);
  world.settle();
  for (const [i, error] of Object.values(errors).entries()) {
    world.connection!.reply(world.controller.asked[2 + i]!.id, 0, `-${error}\r\n`);
  }
  world.settle();
  expect(world.settled.get("INCR x")).toBe("unknown: OUTCOMEUNKNOWN y");
  expect(world.settled.get("INCR y")).toBe("notDone: CLUSTERDOWN z");
  expect(world.settled.get("INCR z")).toBe("notDone: BUSY dyad: w");
  expect(world.settled.get("INCR w")).toBe('{"error":"BUSY other"}');
});

test("long commands go in fragments, long replies come in them and are credited", () => {
  const world = new World();
  world.controller.frameMax = 536;
  const session = openSession(world);
  const long = "x".repeat(3_000);
  world.ask("SET j " + long, Q);
  world.ask("SET k " + long, W, session);
  world.settle();
  expect(world.controller.done).toEqual([
    expect.stringMatching(/^DYAD/),
    "SET j " + long,
    "SET k " + long,
  ]);

  world.controller.decide = () => "hold";
  world.ask("GET long", Q);
  world.settle();
  const { id } = world.controller.asked.at(-1)!;
  world.connection!.reply(id, frame.FLAG_MORE, "$10\r\nabc");
  world.connection!.reply(id, frame.FLAG_MORE, "defg");
  world.connection!.reply(id, 0, "hij\r\n");
  world.settle();
  expect(world.settled.get("GET long")).toBe("abcdefghij");
  expect(world.controller.credits).toEqual([
    [id, 8],
    [id, 4],
  ]);
});

test("a reply that is too long fails alone", () => {
  const world = new World({ replyBytesMax: 20 });
  world.settle();
  world.controller.decide = () => "hold";
  world.ask("GET long", Q);
  world.ask("GET next", Q);
  world.settle();
  const [first, second] = world.controller.asked.map((asked) => asked.id) as [number, number];
  world.connection!.reply(first, frame.FLAG_MORE, "$30\r\n" + "x".repeat(14));
  world.connection!.reply(first, frame.FLAG_MORE, "x".repeat(10));
  world.connection!.reply(first, 0, "xxxxxx\r\n");
  world.connection!.reply(second, 0, ":7\r\n");
  world.settle();
  expect(world.settled.get("GET long")).toBe("noAnswer: reply longer than 20 bytes");
  expect(world.settled.get("GET next")).toBe("7");
  expect(world.controller.aborts).toEqual([first]);
  expect(world.events).toEqual(["up"]);
});

test("at most the controller's window of bytes is open", () => {
  const world = new World();
  world.controller.windowBytes = 100;
  world.controller.decide = () => "hold";
  for (let i = 0; i < 9; i++) world.ask(`SET k${i} ${"v".repeat(20)}`, W);
  world.settle();
  expect(world.controller.asked.length).toBe(2);
  world.connection!.reply(world.controller.asked[0]!.id, 0, "+OK\r\n");
  world.settle();
  expect(world.controller.asked.length).toBe(3);
  world.ask("SET big " + "v".repeat(500), W);
});

test("a command larger than the window still goes, alone", () => {
  const world = new World();
  world.controller.windowBytes = 100;
  world.ask("SET big " + "v".repeat(500), W);
  world.ask("GET a", Q);
  world.settle();
  expect([...world.settled.values()]).toEqual(['"OK"', "0"]);
});

test("the queue is bounded, by number and by bytes", () => {
  const byNumber = new World({ queuedMax: 2 });
  for (const key of "abc") byNumber.ask("INCR " + key, W);
  byNumber.settle();
  expect(byNumber.settled.get("INCR c")).toBe(
    "notDone: BUSY client: too many commands are waiting",
  );
  expect(byNumber.controller.done).toEqual(["INCR a", "INCR b"]);
  const byBytes = new World({ queuedBytesMax: 100 });
  byBytes.ask("SET a " + "v".repeat(60), W);
  byBytes.ask("SET b " + "v".repeat(60), W);
  byBytes.settle();
  expect([...byBytes.settled.values()].sort()).toEqual(['"OK"', expect.stringMatching(/^notDone/)]);
});

test("nothing is waited for longer than commandMs, and what that means is said", () => {
  const world = new World({ silenceMs: 9_000 });
  world.settle();
  world.controller.decide = () => "hold";
  world.ask("INCR sent", W);
  world.ask("GET sent", Q);
  world.settle();
  // Something is heard now and then, so the connection stays.
  for (let i = 0; i < 4; i++) {
    world.pass(2_500);
    world.connection!.control({ kind: m.KIND_PASSED, epoch: 1 });
  }
  world.settle();
  expect(world.settled.get("INCR sent")).toBe("unknown: no answer within 10000 ms");
  expect(world.settled.get("GET sent")).toBe("noAnswer: no answer within 10000 ms");
  expect(world.controller.aborts).toEqual([world.controller.asked[1]!.id]);
  // Late replies find their place and nobody.
  for (const asked of world.controller.asked) world.connection!.reply(asked.id, 0, "+late\r\n");
  world.settle();
  expect(world.events).toEqual(["up"]);
  expect(world.core.pending()).toBe(0);

  const cut = new World();
  cut.reachable = false;
  cut.ask("INCR unsent", W);
  cut.pass(20_000);
  expect(cut.settled.get("INCR unsent")).toBe("notDone: no answer within 10000 ms");
});

test("a silent connection is given up, and its reads are asked on the next", () => {
  const world = new World();
  world.settle();
  world.wireDead = true;
  world.ask("GET a", Q);
  world.ask("INCR a", W);
  world.pass(2_999);
  expect(world.events).toEqual(["up"]);
  world.wireDead = false;
  world.pass(2_000);
  expect(world.events.slice(1)).toEqual([
    "close: nothing heard for 3000 ms",
    "down: nothing heard for 3000 ms",
    "up",
  ]);
  expect(world.settled.get("GET a")).toBe("0");
  expect(world.settled.get("INCR a")).toBe("unknown: nothing heard for 3000 ms");
});

test("an idle connection is not given up", () => {
  const world = new World();
  world.pass(100_000);
  expect(world.events).toEqual(["up"]);
});

test("pauses between attempts double up to their bound, and start anew after a success", () => {
  const world = new World({ backoffFirstMs: 10, backoffMaxMs: 100 });
  world.settle();
  world.reachable = false;
  world.core.onClosed("cable", world.nowMs);
  const at: number[] = [];
  let before = world.nowMs;
  for (let i = 0; i < 7; i++) {
    const next = world.settle();
    at.push(next - before);
    before = world.nowMs = next;
  }
  expect(at).toEqual([10, 20, 40, 80, 100, 100, 100]);
  world.reachable = true;
  world.pass(200);
  world.core.onClosed("cable", world.nowMs);
  expect(world.settle() - world.nowMs).toBe(10);
});

test("a handshake that does not end is given up", () => {
  const world = new World();
  world.wireDead = true;
  world.pass(DEFAULT_LIMITS.handshakeMs);
  expect(world.events).toEqual(["close: no handshake within 3000 ms"]);
  world.wireDead = false;
  world.pass(100);
  expect(world.events.at(-1)).toBe("up");
});

test("what a controller may not say costs it the connection, not the client", () => {
  const says: [string, (c: FakeConnection, id: number) => void][] = [
    ["a reply to a command that was not asked", (c) => c.reply(99, 0, "+OK\r\n")],
    ["reply of unknown type 63", (c, id) => c.reply(id, 0, "?\r\n")],
    ["not one whole reply", (c, id) => c.reply(id, 0, "+OK\r\n+OK\r\n")],
    ["not one whole reply", (c, id) => c.reply(id, 0, "$5\r\nab")],
    ["reply with outcome 3", (c, id) => c.reply(id, 3, "+OK\r\n")],
    [
      "a frame of type 13",
      (c) => c["send"](frame.frameOf(frame.FRAME_PACK_REPLY, 1, 1, new Uint8Array(8))),
    ],
    ["frame of wire version 0", (c) => c["send"](new Uint8Array(8))],
    ["the controller said goodbye: bye", (c) => c.control({ kind: m.KIND_GOODBYE, text: "bye" })],
  ];
  for (const [reason, say] of says) {
    const world = new World();
    world.settle();
    world.controller.decide = (asked) => (asked.connection === 1 ? "hold" : "answer");
    world.ask("INCR a", W);
    world.ask("GET b", Q);
    world.settle();
    say(world.connection!, world.controller.asked[0]!.id);
    world.pass(1_000);
    expect(world.events).toEqual(["up", "close: " + reason, "down: " + reason, "up"]);
    expect(world.settled.get("INCR a"), reason).toMatch(/^unknown/);
    expect(world.settled.get("GET b"), reason).toBe("0");
  }
});

test("closing says of each command what is known", () => {
  const world = new World({ inFlightMax: 2 });
  world.settle();
  world.controller.decide = () => "hold";
  world.ask("INCR sent", W);
  world.ask("GET sent", Q);
  world.ask("INCR unsent", W);
  world.settle();
  world.core.close("enough", world.nowMs);
  world.settle();
  expect(Object.fromEntries(world.settled)).toEqual({
    "INCR sent": "unknown: enough",
    "GET sent": "noAnswer: enough",
    "INCR unsent": "notDone: enough",
  });
  expect(world.events.at(-1)).toBe("close: enough");
  expect(world.core.tick(world.nowMs)).toBe(Infinity);
});

test("whatever is lost and whenever, session writes are done exactly once and in order", () => {
  const fates = fc.array(fc.constantFrom("answer", "answer", "answer", "lost", "done"), {
    minLength: 5,
    maxLength: 60,
  });
  fc.assert(
    fc.property(
      fates,
      fc.integer({ min: 1, max: 25 }),
      fc.integer({ min: 1, max: 8 }),
      (list, count, window) => {
        const world = new World({ backoffFirstMs: 1, backoffMaxMs: 2 });
        const session = openSession(world, window);
        let turn = 0;
        world.controller.decide = () => (list[turn++] as "answer" | "lost" | "done") ?? "answer";
        for (let i = 0; i < count; i++) world.ask(`INCR n write${i}`, W, session);
        world.pass(2_000);
        const writes = Array.from({ length: count }, (_, i) => `INCR n write${i}`);
        expect(world.controller.done.filter((text) => text.startsWith("INCR"))).toEqual(writes);
        expect(writes.map((text) => world.settled.get(text))).toEqual(
          writes.map((_, i) => String(i + 1)),
        );
      },
    ),
    { numRuns: 200 },
  );
});

test("arbitrary bytes from a controller never throw, and every command is settled in the end", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 10 }), (chunks) => {
      const world = new World();
      world.settle();
      world.controller.decide = () => "hold";
      world.ask("INCR a", W);
      world.ask("GET a", Q);
      world.settle();
      for (const chunk of chunks) {
        world.core.onBytes(chunk, 0, chunk.length, world.nowMs);
        world.settle();
      }
      world.pass(30_000);
      expect([...world.settled.keys()].sort()).toEqual(["GET a", "INCR a"]);
    }),
    { numRuns: 200 },
  );
});

test("limits that do not fit each other are refused by name", () => {
  const bad = (limits: Partial<ClientLimits>): (() => ClientLimits) => {
    return () => checkLimits({ ...DEFAULT_LIMITS, ...limits });
  };
  expect(bad({ silenceMs: 1_000 })).toThrow(/silenceMs/);
  expect(bad({ commandMs: 100 })).toThrow(/commandMs/);
  expect(bad({ sessionWindow: 65 })).toThrow(/sessionWindow/);
  expect(bad({ frameBytesMax: 100 })).toThrow(/frameBytesMax/);
  expect(bad({})()).toEqual(DEFAULT_LIMITS);
});
