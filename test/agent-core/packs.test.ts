/** Packs: a client's chunk as it came is the same as its commands one by one, and answered the same. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Packs } from "../../agent/core/packs.js";
import type { AgentLimits } from "../../agent/core/limits.js";
import {
  CHANNEL_BYTES,
  CLASS_MODIFY,
  CLASS_QUERY,
  CLASS_WRITE,
  FLAG_MORE,
  FLAG_PLAIN,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_CONTROL,
  FRAME_CREDIT,
  FRAME_EPOCH,
  FRAME_PACK,
  FRAME_PACK_REPLY,
  FRAME_REPLY,
  HEADER_BYTES,
  ID_MAX,
  OUTCOME_REFUSED,
  OUTCOME_UNKNOWN,
  PACK_COMMANDS_MAX,
  PACK_COUNT_SHIFT,
  frameOf,
  readU16,
  readU32,
  writeU32,
} from "../../protocol/frame.js";
import { MODE_BOTH, MODE_SOLO, World, resp } from "./world.js";

const NONE = new Uint8Array(0);
/** Commands of tests are numbered from here on. */
const FIRST_NUMBER = 100;
const Q = CLASS_QUERY;
const W = CLASS_WRITE;

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
const bytesOf = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "latin1"));

/** A client's own frame. */
function native(kind: number, id: number, payload: Uint8Array): Uint8Array {
  return frameOf(FRAME_COMMAND, kind, id, payload);
}

function packOf(flags: number, first: number, channel: number, pieces: Uint8Array[]): Uint8Array {
  const word = new Uint8Array(CHANNEL_BYTES);
  writeU32(word, 0, channel);
  const count = Math.min(Math.max(pieces.length, 1), PACK_COMMANDS_MAX);
  const said = (count - 1) << PACK_COUNT_SHIFT;
  return frameOf(FRAME_PACK, flags | said, first, Buffer.concat([word, ...pieces]));
}

/** Cuts RESP replies, none of them an array, where they end. */
function repliesIn(text: string): string[] {
  const replies: string[] = [];
  for (let at = 0; at < text.length;) {
    let end = text.indexOf("\r\n", at) + 2;
    if (text[at] === "$" && text[at + 1] !== "-") end += Number.parseInt(text.slice(at + 1)) + 2;
    replies.push(text.slice(at, end));
    at = end;
  }
  return replies;
}

interface Answer {
  number: number;
  channel: number;
  /** "pack" or the outcome of a REPLY. */
  how: "pack" | number;
  text: string;
}

/** What a controller knows of the packs it has sent on one link. */
class PackSender {
  readonly plainOf = new Map<number, boolean>();
  /** Unanswered numbers of each channel, in order, with the client's own ids. */
  readonly asked = new Map<number, { number: number; clientId: number }[]>();
  private seen = 0;
  private packsSeen = 0;
  private clientId = 500;

  constructor(
    readonly world: World,
    readonly server: 0 | 1 = 0,
  ) {}

  pack(kind: number, first: number, channel: number, commands: (string[] | Uint8Array)[]): void {
    const plain = channel % 2 === 1;
    const asked = this.asked.get(channel) ?? [];
    this.asked.set(channel, asked);
    const pieces = commands.map((command, i) => {
      const bytes = Array.isArray(command) ? resp(...command) : command;
      const clientId = plain ? 0 : this.clientId++;
      asked.push({ number: first + i, clientId });
      return plain ? bytes : native(kind, clientId, bytes);
    });
    this.raw(packOf(kind | (plain ? FLAG_PLAIN : 0), first, channel, pieces));
  }

  raw(bytes: Uint8Array): void {
    this.world.links[this.server]!.pipe.send(1, bytes);
  }

  /** What has come since the last time, in order, checked against what was asked. */
  take(): Answer[] {
    const link = this.world.links[this.server]!;
    const answers: Answer[] = [];
    for (; this.seen < link.order.length; this.seen++) {
      const id = link.order[this.seen]!;
      const reply = link.replies.get(id);
      if (reply !== undefined) {
        let channel = -1;
        for (const [one, asked] of this.asked) {
          const at = asked.findIndex(({ number }) => number === id);
          if (at < 0) continue;
          // An answer that overtakes an earlier one of its channel would be found here.
          expect(at).toBe(0);
          asked.splice(at, 1);
          channel = one;
        }
        // What the test itself asked of the data is not looked at.
        if (channel < 0 && id < FIRST_NUMBER) continue;
        answers.push({ number: id, channel, how: reply.outcome, text: reply.text });
        continue;
      }
      const { payload, count } = link.packs[this.packsSeen++]!;
      const channel = readU32(payload, 0);
      const asked = this.asked.get(channel)!.splice(0, count);
      expect(asked.length).toBe(count);
      expect(asked.at(-1)!.number).toBe(id);
      const rest = payload.subarray(CHANNEL_BYTES);
      const texts = channel % 2 === 1 ? repliesIn(textOf(rest)) : [];
      if (channel % 2 === 0) {
        for (let at = 0; at < rest.length;) {
          const next = at + HEADER_BYTES + readU16(rest, at + 2);
          expect([rest[at]! & 15, rest[at + 1]]).toEqual([FRAME_REPLY, 0]);
          expect(readU32(rest, at + 4)).toBe(asked[texts.length]!.clientId);
          texts.push(textOf(rest.subarray(at + HEADER_BYTES, next)));
          at = next;
        }
      }
      expect(texts.length).toBe(count);
      for (const [i, { number }] of asked.entries()) {
        answers.push({ number, channel, how: "pack", text: texts[i]! });
      }
    }
    return answers;
  }
}

function begin(limits: Partial<AgentLimits> = {}, payloadMax?: number): [World, PackSender] {
  const world = new World(limits);
  if (payloadMax !== undefined) world.payloadMax = payloadMax;
  world.begin();
  return [world, new PackSender(world)];
}

/** How many each PACK_REPLY so far has answered. */
const counts = (world: World): number[] => world.links[0]!.packs.map(({ count }) => count);
const NATIVE = 2;
const PLAIN = 3;

describe("a pack is its commands", () => {
  for (const [name, channel] of [
    ["native", NATIVE],
    ["plain", PLAIN],
  ] as const) {
    test(`${name}: one command, and eight, writes and reads`, () => {
      const [world, sender] = begin();
      sender.pack(W, 100, channel, [["SET", "k0", "v0"]]);
      world.settle();
      expect(sender.take()).toEqual([{ number: 100, channel, how: "pack", text: "+OK\r\n" }]);
      sender.pack(Q, 101, channel, [["GET", "k0"]]);
      world.settle();
      expect(sender.take()).toEqual([{ number: 101, channel, how: "pack", text: "$2\r\nv0\r\n" }]);
      expect(counts(world)).toEqual([1, 1]);
      const eight = Array.from({ length: 8 }, (_, i) => ["APPEND", "list", String(i)]);
      sender.pack(CLASS_MODIFY, 102, channel, eight);
      world.settle();
      expect(sender.take().map(({ text }) => text)).toEqual(eight.map((_, i) => `:${i + 1}\r\n`));
      sender.pack(
        Q,
        110,
        channel,
        eight.map((_, i) => ["GETRANGE", "list", "0", String(i)]),
      );
      world.settle();
      expect(sender.take().map(({ text }) => text)).toEqual(
        eight.map((_, i) => `$${i + 1}\r\n${"01234567".slice(0, i + 1)}\r\n`),
      );
      expect(counts(world)).toEqual([1, 1, 8, 8]);
      expect(world.links[0]!.packs.at(-1)!.id).toBe(117);
      expect(world.ask(0, "GET", "list")).toBe("$8\r\n01234567\r\n");
    });
  }

  test("the standby answers reads of a pack as well", () => {
    const [world] = begin();
    world.ask(0, "SET", "k", "v");
    world.pass(100);
    const sender = new PackSender(world, 1);
    sender.pack(Q, 100, PLAIN, [
      ["GET", "k"],
      ["EXISTS", "k"],
    ]);
    world.settle();
    expect(sender.take().map(({ text }) => text)).toEqual(["$1\r\nv\r\n", ":1\r\n"]);
  });

  test("exactly once: a number of a pack that is asked again as a command has the same reply, and is not run twice", () => {
    const [world, sender] = begin();
    world.b.holdFlush = true;
    sender.pack(W, 100, NATIVE, [
      ["INCR", "n"],
      ["INCR", "n"],
      ["INCR", "n"],
    ]);
    world.settle();
    expect(sender.take()).toEqual([]);
    world.links[0]!.pipe.close();
    world.until(() => world.links[0]!.up && world.links[0]!.report !== undefined);
    world.b.holdFlush = false;
    world.until(() => world.a.heartbeat().sessionOpen);
    for (const number of [101, 100, 102]) world.send(0, ["INCR", "n"], { number });
    world.settle();
    expect([100, 101, 102].map((id) => world.reply(0, id)?.text)).toEqual([
      ":1\r\n",
      ":2\r\n",
      ":3\r\n",
    ]);
    expect(world.ask(0, "GET", "n")).toBe("$1\r\n3\r\n");
  });

  test("and after a failover the other server knows it", () => {
    const [world, sender] = begin();
    sender.pack(W, 100, PLAIN, [
      ["INCR", "n"],
      ["INCR", "n"],
    ]);
    world.settle();
    world.a.crash();
    world.solo(1, 2);
    world.send(1, ["INCR", "n"], { number: 101 });
    world.settle();
    expect(world.reply(1, 101)?.text).toBe(":2\r\n");
  });
});

describe("order", () => {
  test("a channel's ready answer waits for the one before it; another channel's does not", () => {
    const [world, sender] = begin();
    world.ask(0, "SET", "other", "o");
    world.b.holdFlush = true;
    sender.pack(W, 100, NATIVE, [["SET", "k", "v"]]);
    sender.pack(Q, 101, NATIVE, [["GET", "other"]]);
    sender.pack(Q, 102, PLAIN, [
      ["GET", "other"],
      ["GET", "none"],
    ]);
    world.settle();
    expect(sender.take().map(({ number }) => number)).toEqual([102, 103]);
    world.b.holdFlush = false;
    world.settle();
    expect(sender.take().map(({ number }) => number)).toEqual([100, 101]);
    expect(counts(world)).toEqual([2, 2]);
    // Nothing is left of it: the channel's next read waits for nobody's write.
    world.b.holdFlush = true;
    sender.pack(W, 104, PLAIN, [["SET", "k", "w"]]);
    sender.pack(Q, 105, NATIVE, [["GET", "other"]]);
    world.settle();
    expect(sender.take().map(({ number }) => number)).toEqual([105]);
  });

  test("two channels in turn: each has its own answers, in order", () => {
    const [world, sender] = begin();
    for (let i = 0; i < 6; i++) {
      sender.pack(W, 100 + 2 * i, i % 2 === 0 ? NATIVE : PLAIN, [
        ["APPEND", "k", "x"],
        ["APPEND", "k", "x"],
      ]);
    }
    world.settle();
    const answers = sender.take();
    expect(answers.map(({ text }) => text)).toEqual(answers.map((_, i) => `:${i + 1}\r\n`));
    expect(answers.map(({ channel }) => channel)).toEqual([2, 2, 3, 3, 2, 2, 3, 3, 2, 2, 3, 3]);
    expect(counts(world)).toEqual([2, 2, 2, 2, 2, 2]);
  });

  test("epochs, words and others' replies keep their place between answers", () => {
    const world = new World();
    world.begin();
    world.b.holdFlush = true;
    const sender = new PackSender(world);
    sender.pack(W, 100, NATIVE, [["SET", "a", "1"]]);
    world.send(0, ["SET", "b", "1"], { number: 101 });
    sender.pack(W, 102, NATIVE, [["SET", "c", "1"]]);
    world.settle();
    world.b.holdFlush = false;
    world.settle();
    expect(sender.take().map(({ number, how }) => [number, how])).toEqual([
      [100, "pack"],
      [101, 0],
      [102, "pack"],
    ]);
    sender.pack(Q, 103, NATIVE, [["GET", "a"]]);
    world.write(2, 0, MODE_BOTH);
    world.until(() => world.a.heartbeat().sessionOpen);
    sender.pack(Q, 104, NATIVE, [["GET", "a"]]);
    world.settle();
    expect(world.links[0]!.packs.slice(-2).map(({ epoch }) => epoch)).toEqual([1, 2]);
  });
});

describe("what does not go in a PACK_REPLY", () => {
  test("a reply that is exactly as long as fits goes in, a longer one as a REPLY in its place", () => {
    for (const channel of [NATIVE, PLAIN]) {
      const [world, sender] = begin({}, 528);
      const room = 528 - CHANNEL_BYTES - (channel === NATIVE ? HEADER_BYTES : 0);
      const fits = "v".repeat(room - "$500\r\n\r\n".length);
      world.ask(0, "SET", "fits", fits);
      world.ask(0, "SET", "longer", fits + "v");
      world.ask(0, "SET", "long", "v".repeat(5000));
      const order = ["none", "fits", "none", "longer", "none", "long", "none"];
      sender.pack(
        Q,
        100,
        channel,
        order.map((key) => ["GET", key]),
      );
      world.settle();
      const answers = sender.take();
      expect(answers.map(({ how }) => how)).toEqual(["pack", "pack", "pack", 0, "pack", 0, "pack"]);
      const lengths = [5, room, 5, room + 1, 5, "$5000\r\n\r\n".length + 5000, 5];
      expect(answers.map(({ text }) => text.length)).toEqual(lengths);
      expect(counts(world)).toEqual([1, 1, 1, 1, 1]);
    }
  });

  test("while a reply longer than its window waits for credit, its channel's next answer waits", () => {
    const [world, sender] = begin({}, 528);
    world.ask(0, "SET", "long", "v".repeat(40_000));
    world.creditAtOnce = false;
    sender.pack(Q, 100, PLAIN, [["GET", "long"]]);
    world.settle();
    sender.pack(Q, 101, PLAIN, [["GET", "none"]]);
    sender.pack(Q, 102, NATIVE, [["GET", "none"]]);
    world.settle();
    expect(sender.take().map(({ number }) => number)).toEqual([102]);
    world.links[0]!.credit(100, 100_000);
    world.settle();
    const answers = sender.take();
    expect(answers.map(({ number, how }) => [number, how])).toEqual([
      [100, 0],
      [101, "pack"],
    ]);
    expect(answers[0]!.text.length).toBe(40_010);
  });

  test("refused: a wrong epoch, a wrong role", () => {
    const [world, sender] = begin();
    const standby = new PackSender(world, 1);
    standby.pack(W, 100, NATIVE, [
      ["SET", "k", "v"],
      ["SET", "k", "w"],
    ]);
    world.settle();
    const refused = standby.take();
    expect(refused.map(({ number, how }) => [number, how])).toEqual([
      [100, OUTCOME_REFUSED],
      [101, OUTCOME_REFUSED],
    ]);
    expect(refused[0]!.text).toContain("this server is");
    sender.raw(frameOf(FRAME_EPOCH, 0, 9, NONE));
    sender.pack(W, 102, PLAIN, [["SET", "k", "v"]]);
    world.settle();
    expect(sender.take()[0]!.how).toBe(OUTCOME_REFUSED);
    sender.raw(frameOf(FRAME_EPOCH, 0, 1, NONE));
    expect(world.ask(0, "GET", "k")).toBe("$-1\r\n");
  });

  test("a lie about the class is refused, and costs those beside it nothing", () => {
    const [world, sender] = begin();
    for (const channel of [NATIVE, PLAIN]) {
      sender.pack(Q, 100 * channel, channel, [
        ["GET", "k"],
        ["SET", "k", "lie"],
        ["GET", "k"],
      ]);
      world.settle();
      const answers = sender.take();
      expect(answers.map(({ how }) => how)).toEqual(["pack", OUTCOME_REFUSED, "pack"]);
      expect(answers[1]!.text).toContain("no query");
    }
    expect(world.ask(0, "GET", "k")).toBe("$-1\r\n");
  });

  test("an unknown outcome", () => {
    const [world, sender] = begin({ controllerWindow: 64 });
    for (let i = 0; i < 100; i++) world.send(0, ["INCR", "n"], { number: 10 + i });
    world.settle();
    sender.take();
    sender.pack(W, 11, NATIVE, [["INCR", "n"]]);
    world.settle();
    expect(sender.take()[0]!.how).toBe(OUTCOME_UNKNOWN);
    expect(world.ask(0, "GET", "n")).toBe("$3\r\n100\r\n");
  });

  test("a native frame that holds no whole command is its client's affair", () => {
    const [world, sender] = begin();
    const wrong = ["", "*1\r\n$3\r\nGE", "GET k\r\n", "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n"];
    sender.pack(W, 100, NATIVE, [
      ["SET", "k", "v"],
      ...wrong.map((text) => bytesOf(text)),
      ["APPEND", "k", "w"],
    ]);
    world.settle();
    const answers = sender.take();
    expect(answers.map(({ how }) => how)).toEqual(answers.map(() => "pack"));
    const texts = answers.map(({ text }) => text);
    expect([texts[0], texts.at(-1)]).toEqual(["+OK\r\n", ":2\r\n"]);
    for (const i of [1, 2, 4]) expect(texts[i]).toMatch(/^-ERR Protocol error/);
    // An inline command is none of an array; the parser of frames takes no other.
    expect(texts[3]).toMatch(/^-ERR|^\$/);
    expect(world.links[0]!.up).toBe(true);
  });
});

describe("merging", () => {
  test("answers of one turn join, 255 at most", () => {
    const [world, sender] = begin();
    for (let i = 0; i < 8; i++) {
      const gets = Array.from({ length: PACK_COMMANDS_MAX }, () => ["GET", "none"]);
      sender.pack(Q, 100 + i * PACK_COMMANDS_MAX, i === 7 ? PLAIN : NATIVE, gets);
    }
    sender.pack(
      Q,
      800,
      PLAIN,
      Array.from({ length: PACK_COMMANDS_MAX }, () => ["GET", "none"]),
    );
    world.settle();
    expect(sender.take().length).toBe(144);
    expect(counts(world)).toEqual([112, 32]);
    for (let i = 0; i < 16; i++) {
      const gets = Array.from({ length: PACK_COMMANDS_MAX }, () => ["GET", "none"]);
      sender.pack(Q, 1000 + i * PACK_COMMANDS_MAX, PLAIN, gets);
    }
    world.settle();
    expect(sender.take().length).toBe(256);
    expect(counts(world).slice(2)).toEqual([255, 1]);
  });

  test("and as many as fit in a frame of the link", () => {
    for (const channel of [NATIVE, PLAIN]) {
      const [world, sender] = begin({}, 528);
      const gets = Array.from({ length: 15 }, () => ["GET", "n"]);
      for (let i = 0; i < 10; i++) sender.pack(Q, 100 + 15 * i, channel, gets);
      world.settle();
      expect(sender.take().length).toBe(150);
      const most = Math.floor((528 - CHANNEL_BYTES) / (channel === NATIVE ? 13 : 5));
      expect(counts(world)).toEqual(channel === NATIVE ? [40, 40, 40, 30] : [104, 46]);
      expect(counts(world)[0]).toBe(most);
    }
  });
});

describe("a pack that is not sound is the controller's fault", () => {
  const get = resp("GET", "k");
  const one = native(Q, 7, get);
  const many = Array.from({ length: PACK_COMMANDS_MAX + 1 }, () => get);
  const withByte = (bytes: Uint8Array, at: number, value: number): Uint8Array => {
    const changed = bytes.slice();
    changed[at] = value;
    return changed;
  };
  const rows: [string, RegExp, Uint8Array][] = [
    ["class 3", /flags 3/, packOf(3, 900, 1, [native(3, 7, get)])],
    ["an unknown flag", /flags 128/, packOf(128, 900, 1, [one])],
    ["fewer than it says", /says 3 commands and has 1/, packOf(8, 900, 1, [one])],
    [
      "more than it says",
      /says 1 commands and has 2/,
      withByte(packOf(Q, 900, 1, [one, one]), 1, Q),
    ],
    ["no payload", /of 0 bytes/, frameOf(FRAME_PACK, Q, 900, NONE)],
    ["no command", /of 4 bytes/, packOf(Q, 900, 1, [])],
    ["half a header", /inside a frame/, packOf(Q, 900, 1, [one, one.subarray(0, 7)])],
    ["half a frame", /inside a frame/, packOf(Q, 900, 1, [one, one.subarray(0, one.length - 1)])],
    ["a frame of another type", /of type 5/, packOf(Q, 900, 1, [frameOf(FRAME_ABORT, 0, 7, NONE)])],
    ["a pack in a pack", /of type 12/, packOf(Q, 900, 1, [packOf(Q, 1, 1, [one])])],
    ["another wire version", /version 2/, packOf(Q, 900, 1, [withByte(one, 0, 0x21)])],
    ["another class", /flags 2/, packOf(Q, 900, 1, [one, native(W, 8, get)])],
    ["id 0", /under id 0/, packOf(Q, 900, 1, [one, native(Q, 0, get)])],
    ["a frame with flags", /flags 8/, packOf(Q, 900, 1, [withByte(one, 1, 8)])],
    [
      "17 native",
      /more than 16/,
      packOf(
        Q,
        900,
        1,
        many.map((c, i) => native(Q, i + 1, c)),
      ),
    ],
    ["17 plain", /more than 16/, packOf(Q | FLAG_PLAIN, 900, 1, many)],
    ["half a plain one", /one whole/, packOf(Q | FLAG_PLAIN, 900, 1, [get, get.subarray(0, 9)])],
    ["plain, body cut", /one whole/, packOf(Q | FLAG_PLAIN, 900, 1, [get.slice(0, -1)])],
    ["plain, inline", /one whole/, packOf(Q | FLAG_PLAIN, 900, 1, [bytesOf("GET k\r\n")])],
    ["plain, empty", /one whole/, packOf(Q | FLAG_PLAIN, 900, 1, [bytesOf("*0\r\n")])],
    ["plain, null", /one whole/, packOf(Q | FLAG_PLAIN, 900, 1, [bytesOf("*1\r\n$-1\r\n")])],
    ["plain, no $", /one whole/, packOf(Q | FLAG_PLAIN, 900, 1, [bytesOf("*1\r\n:12\r\n")])],
    ["plain, a count only", /one whole/, packOf(Q | FLAG_PLAIN, 900, 1, [bytesOf("*1")])],
    [
      "plain, a vast length",
      /one whole/,
      packOf(Q | FLAG_PLAIN, 900, 1, [bytesOf("*1\r\n$99999999999\r\nx\r\n")]),
    ],
    ["numbers end", /numbered from/, packOf(Q, ID_MAX, 1, [one, one])],
  ];
  for (const [name, reason, bytes] of rows) {
    test(name, () => {
      const [world, sender] = begin();
      sender.raw(bytes);
      // What stands before the fault in the same pack has not been run either.
      world.settle();
      expect(String(JSON.stringify(world.a.noted("controller-link-dropped")?.details))).toMatch(
        reason,
      );
      expect(world.links[0]!.packs).toEqual([]);
      world.until(() => world.links[0]!.up);
    });
  }

  test("a number that is still unanswered", () => {
    const [world, sender] = begin();
    world.b.holdFlush = true;
    sender.pack(W, 900, 1, [
      ["SET", "k", "v"],
      ["SET", "k", "w"],
    ]);
    sender.raw(packOf(W, 899, 2, [native(W, 1, get), native(W, 2, get), native(W, 3, get)]));
    world.settle();
    expect(JSON.stringify(world.a.noted("controller-link-dropped"))).toContain("900 is unanswered");
  });

  test("none of a pack is run when its end is wrong", () => {
    const [world, sender] = begin();
    sender.raw(packOf(W, 900, 2, [native(W, 1, resp("SET", "k", "v")), one]));
    world.settle();
    world.until(() => world.links[0]!.up && world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "EXISTS", "k")).toBe(":0\r\n");
  });

  test("a PACK_REPLY from the controller", () => {
    const [world, sender] = begin();
    sender.raw(frameOf(FRAME_PACK_REPLY, 1, 900, new Uint8Array(12)));
    world.settle();
    expect(JSON.stringify(world.a.noted("controller-link-dropped"))).toContain("frame of type 13");
  });

  test("any bytes: answered or refused, never a crash", () => {
    const [world, sender] = begin();
    const sound = [
      textOf(one),
      textOf(native(W, 3, resp("SET", "k", "v"))),
      textOf(get),
      "*1\r\n$4\r\nPING\r\n",
    ];
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.constantFrom(...sound), fc.string({ maxLength: 12 }))),
        fc.constantFrom(0, 1, 2, FLAG_PLAIN, FLAG_PLAIN | 2, 77),
        fc.nat(1_000_000),
        (pieces, flags, first) => {
          sender.raw(packOf(flags, first, 4, pieces.map(bytesOf)));
          world.settle();
          world.until(() => world.links[0]!.up && world.a.heartbeat().sessionOpen);
          expect(world.a.fatalReason).toBe("");
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe("what ends before its answer", () => {
  test("an aborted number is answered as a REPLY, those beside it as before", () => {
    const [world, sender] = begin();
    world.b.holdFlush = true;
    sender.pack(W, 100, NATIVE, [
      ["INCR", "n"],
      ["INCR", "n"],
      ["INCR", "n"],
    ]);
    world.settle();
    sender.raw(frameOf(FRAME_ABORT, 0, 101, NONE));
    world.settle();
    world.b.holdFlush = false;
    world.settle();
    const how = sender.take().map(({ number, how }) => [number, how]);
    expect(how).toEqual([
      [100, "pack"],
      [101, 0],
      [102, "pack"],
    ]);
  });

  test("all of a channel aborted: its next read waits for nothing", () => {
    const [world, sender] = begin();
    world.b.holdFlush = true;
    sender.pack(W, 100, NATIVE, [
      ["INCR", "n"],
      ["INCR", "n"],
    ]);
    for (const id of [100, 101]) sender.raw(frameOf(FRAME_ABORT, 0, id, NONE));
    world.settle();
    sender.asked.clear();
    sender.pack(Q, 102, NATIVE, [["GET", "none"]]);
    world.settle();
    expect(sender.take().map(({ number }) => number)).toEqual([102]);
  });

  test("a link that is dropped in the middle of a pack: the rest is not run", () => {
    const [world, sender] = begin({ heldRepliesMax: 4 });
    world.b.holdFlush = true;
    const sets = Array.from({ length: 16 }, (_, i) => ["SET", "k" + i, "v"]);
    sender.pack(W, 100, NATIVE, sets);
    world.settle();
    expect(JSON.stringify(world.a.noted("controller-link-dropped"))).toContain("replies of writes");
    expect(world.a.log()["end"]).toBe(8);
    world.b.holdFlush = false;
    world.until(() => world.links[0]!.up && world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "DBSIZE")).toBe(":8\r\n");
  });

  test("a link that closes while a rest waits for its turn", () => {
    const [world, sender] = begin({ turnCommandsMax: 4 });
    sender.pack(
      W,
      100,
      PLAIN,
      Array.from({ length: 16 }, (_, i) => ["SET", "k" + i, "v"]),
    );
    world.round();
    const end = world.a.log()["end"]!;
    expect(end).toBe(4);
    world.links[0]!.pipe.close();
    world.until(() => world.links[0]!.up && world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "DBSIZE")).toBe(":4\r\n");
    // And the number is free again.
    const again = new PackSender(world);
    again.pack(W, 100, PLAIN, [["SET", "k0", "v"]]);
    world.settle();
    again.take();
    expect(world.links[0]!.packs.at(-1)!.id).toBe(100);
  });

  test("the role is lost: what waited is answered no more, and the books begin anew", () => {
    const [world, sender] = begin();
    world.b.holdFlush = true;
    sender.pack(W, 100, NATIVE, [["SET", "k", "v"]]);
    world.settle();
    world.b.holdFlush = false;
    world.write(2, 1, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    sender.take();
    world.write(3, 0, MODE_BOTH);
    world.until(() => world.servers.every((server) => server.heartbeat().sessionOpen));
    // The number is unanswered no more, so it may be asked again.
    const again = new PackSender(world);
    again.take();
    again.pack(W, 100, NATIVE, [["SET", "k", "v"]]);
    again.pack(Q, 101, NATIVE, [["GET", "k"]]);
    world.settle();
    expect(again.take().map(({ number, how }) => [number, how])).toEqual([
      [100, "pack"],
      [101, "pack"],
    ]);
    expect(world.a.noted("controller-link-dropped")).toBeUndefined();
  });

  test("a link that is dropped while the rest of a pack is run", () => {
    const [world, sender] = begin({ heldRepliesMax: 4, turnCommandsMax: 3 });
    world.b.holdFlush = true;
    const sets = Array.from({ length: 16 }, (_, i) => ["SET", "k" + i, "v"]);
    sender.pack(W, 100, NATIVE, sets);
    sender.pack(W, 120, NATIVE, [["SET", "later", "v"]]);
    world.settle();
    expect(JSON.stringify(world.a.noted("controller-link-dropped"))).toContain("replies of writes");
    expect(world.a.log()["end"]).toBe(8);
    world.b.holdFlush = false;
    world.until(() => world.links[0]!.up && world.a.heartbeat().sessionOpen);
    expect(world.ask(0, "DBSIZE")).toBe(":8\r\n");
  });
});

describe("turns", () => {
  test("a pack is cut where a turn ends, and goes on in order; what came behind it waits", () => {
    const [world, sender] = begin({ turnCommandsMax: 4 });
    const commands = (): number => Number(world.a.status()["commands"]);
    const before = commands();
    sender.pack(
      W,
      100,
      NATIVE,
      Array.from({ length: 15 }, (_, i) => ["APPEND", "k", String(i % 10)]),
    );
    sender.pack(Q, 115, NATIVE, [["GET", "k"]]);
    let most = 0;
    let last = before;
    for (let round = 0; round < 60; round++) {
      world.round();
      most = Math.max(most, commands() - last);
      last = commands();
    }
    expect(most).toBe(4);
    expect(last).toBe(before + 16);
    world.settle();
    const answers = sender.take();
    expect(answers.map(({ number }) => number)).toEqual(answers.map((_, i) => 100 + i));
    expect(answers.at(-1)!.text).toContain("012345678901234");
  });

  test("a record that comes while a rest waits: the rest is refused, none is left without an answer", () => {
    const [world, sender] = begin({ turnCommandsMax: 2 });
    sender.pack(
      W,
      100,
      PLAIN,
      Array.from({ length: 9 }, (_, i) => ["SET", "k" + i, "1"]),
    );
    world.write(2, 0, MODE_SOLO);
    sender.pack(W, 109, PLAIN, [["SET", "later", "1"]]);
    world.settle();
    const answers = sender.take();
    expect(answers.map(({ number }) => number)).toEqual(answers.map((_, i) => 100 + i));
    expect(answers.length).toBe(10);
    for (const { how, text } of answers) {
      if (how === OUTCOME_REFUSED) expect(text).toContain("is in epoch 2");
      else expect(text).toBe("+OK\r\n");
    }
  });
});

describe("the stream, byte by byte", () => {
  const sent: Uint8Array[] = [];
  const given: Uint8Array[] = [];
  function make(): Packs {
    sent.length = 0;
    given.length = 0;
    const packs = new Packs((bytes, start, end) => {
      given.push(bytes);
      sent.push(bytes.slice(start, end));
    });
    packs.payloadMax = 528;
    return packs;
  }
  const ask = (packs: Packs, bytes: Uint8Array): void => {
    const flags = bytes[1]!;
    expect(packs.take(flags, readU32(bytes, 4), bytes, HEADER_BYTES, bytes.length)).toBe("");
    while (packs.next()) packs.ran(false);
  };
  const reply = (id: number, text: string, flags = 0): Uint8Array =>
    frameOf(FRAME_REPLY, flags, id, bytesOf(text));

  test("with nothing of packs outstanding, or nothing of them in it, it is handed on as it is", () => {
    const packs = make();
    const stream = Buffer.concat([frameOf(FRAME_EPOCH, 0, 4, NONE), reply(1, "+OK\r\n")]);
    packs.send(stream, 0, stream.length);
    expect(given[0]).toBe(stream);
    ask(packs, packOf(Q | FLAG_PLAIN, 10, 77, [resp("PING")]));
    packs.send(stream, 0, stream.length);
    expect(given[1]).toBe(stream);
    expect(packs.outstanding()).toBe(1);
  });

  test("a plain and a native answer, with others' frames around them", () => {
    const packs = make();
    ask(packs, packOf(Q | FLAG_PLAIN, 10, 0xfedcba98, [resp("PING"), resp("PING")]));
    ask(packs, packOf(W, 12, 5, [native(W, 0xffffffff, resp("INCR", "n"))]));
    const epoch = frameOf(FRAME_EPOCH, 0, 4, NONE);
    const word = frameOf(FRAME_CONTROL, 0, 0, new Uint8Array(600));
    const credit = frameOf(FRAME_CREDIT, 0, 12, new Uint8Array(4));
    const stream = Buffer.concat([
      NONE,
      new Uint8Array(3),
      reply(1, "+A\r\n"),
      reply(10, "+PONG\r\n"),
      reply(11, "+PONG\r\n"),
      epoch,
      word,
      credit,
      reply(12, ":1\r\n"),
      reply(2, "+B\r\n"),
      new Uint8Array(2),
    ]);
    packs.send(stream, 3, stream.length - 2);
    const channel = Uint8Array.of(0xfe, 0xdc, 0xba, 0x98);
    expect(textOf(sent[0]!)).toBe(
      textOf(
        Buffer.concat([
          reply(1, "+A\r\n"),
          frameOf(FRAME_PACK_REPLY, 2, 11, Buffer.concat([channel, bytesOf("+PONG\r\n+PONG\r\n")])),
          epoch,
          word,
          credit,
          frameOf(
            FRAME_PACK_REPLY,
            1,
            12,
            Buffer.concat([Uint8Array.of(0, 0, 0, 5), reply(0xffffffff, ":1\r\n")]),
          ),
          reply(2, "+B\r\n"),
        ]),
      ),
    );
    expect(packs.outstanding()).toBe(0);
  });

  test("an answer once: a second reply of the number is not believed to be one of a pack", () => {
    const packs = make();
    ask(packs, packOf(Q | FLAG_PLAIN, 10, 1, [resp("PING"), resp("PING")]));
    const twice = Buffer.concat([reply(10, "+A\r\n"), reply(10, "+B\r\n")]);
    packs.send(twice, 0, twice.length);
    expect(sent[0]![0]! & 15).toBe(FRAME_PACK_REPLY);
    expect(textOf(sent[0]!)).toContain(textOf(reply(10, "+B\r\n")));
    packs.forgetAll();
    packs.send(twice, 0, twice.length);
    expect(given[1]).toBe(twice);
  });

  test("after a reply in fragments its last one is no answer of a pack, and then the next is ORDERED no more", () => {
    const packs = make();
    ask(packs, packOf(Q | FLAG_PLAIN, 10, 1, [resp("PING")]));
    const begin = reply(10, "$1000", FLAG_MORE);
    packs.send(begin, 0, begin.length);
    expect(given[0]).toBe(begin);
    const flagsNow = (id: number): number => {
      const bytes = packOf(Q | FLAG_PLAIN, id, 1, [resp("PING")]);
      packs.take(Q | FLAG_PLAIN, id, bytes, HEADER_BYTES, bytes.length);
      packs.next();
      packs.ran(true);
      return packs.flags;
    };
    expect(flagsNow(11)).toBe(8);
    const end = reply(10, "x\r\n");
    packs.send(end, 0, end.length);
    expect(given[1]).toBe(end);
    expect(flagsNow(12)).toBe(0);
  });
});

// --- as packs, and as commands ------------------------------------------------------------------------

type Step =
  | { kind: "pack"; channel: number; write: boolean; commands: number[] }
  | { kind: "round" }
  | { kind: "settle" }
  | { kind: "hold"; on: boolean }
  | { kind: "pass" };

const key = (n: number): string => "k" + (n % 5);
const WRITES = [
  (n: number) => ["SET", key(n), "v" + n],
  (n: number) => ["INCR", "n" + (n % 3)],
  (n: number) => ["APPEND", key(n), "+" + n],
  (n: number) => ["DEL", key(n)],
  (n: number) => ["GETSET", key(n), "w".repeat(n * 7)],
  (n: number) => ["SETEX", key(n), "1", "short"],
  (n: number) => ["NOSUCH", key(n)],
];
const READS = [
  (n: number) => ["GET", key(n)],
  (n: number) => ["GET", "n" + (n % 3)],
  (n: number) => ["STRLEN", key(n)],
  (n: number) => ["EXISTS", key(n), key(n + 1)],
  (n: number) => ["SET", key(n), "a lie"],
  () => ["GET"],
];

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("pack" as const),
      channel: fc.integer({ min: 2, max: 5 }),
      write: fc.boolean(),
      commands: fc.array(fc.nat(500), { minLength: 1, maxLength: 8 }),
    }),
  },
  { weight: 3, arbitrary: fc.constant({ kind: "round" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "settle" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "pass" as const }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("hold" as const), on: fc.boolean() }),
  },
);

interface Outcome {
  replies: Map<number, string>;
  data: string[];
}

function run(steps: Step[], payloadMax: number, turn: number, asPacks: boolean): Outcome {
  const [world, sender] = begin({ turnCommandsMax: turn }, payloadMax);
  const standby = new PackSender(world, 1);
  const replies = new Map<number, string>();
  let number = FIRST_NUMBER;
  const take = (): void => {
    for (const one of [sender, standby]) {
      for (const answer of one.take()) {
        expect(replies.has(answer.number)).toBe(false);
        const outcome = answer.how === "pack" ? 0 : answer.how;
        replies.set(answer.number, `${outcome} ${answer.text}`);
      }
    }
  };
  for (const one of steps) {
    if (one.kind === "round") world.round();
    else if (one.kind === "settle") world.settle();
    else if (one.kind === "pass") {
      // A controller that does not poll would be taken for dead.
      for (const server of world.servers) server.heartbeat();
      world.pass(600, 100);
    } else if (one.kind === "hold") world.b.holdFlush = one.on;
    else {
      take();
      // One channel reads at the standby. Were there two, the reads of one that wait for the primary would hold up the
      // other's where they are ORDERED, and a COMMAND is that until its controller has heard the answer before it.
      const to = one.channel === 4 ? standby : sender;
      if (to === standby && one.write) continue;
      const table = one.write ? WRITES : READS;
      const kind = one.write ? W : Q;
      const commands = one.commands.map((n) => table[n % table.length]!(n));
      const bytes = commands.reduce((sum, command) => sum + resp(...command).length + 8, 12);
      if (bytes > payloadMax) continue;
      if (asPacks) to.pack(kind, number, one.channel, commands);
      else {
        const asked = to.asked.get(one.channel) ?? [];
        to.asked.set(one.channel, asked);
        for (const [i, command] of commands.entries()) {
          world.send(to.server, command, {
            query: !one.write,
            noSession: true,
            number: number + i,
            ordered: asked.length > 0,
          });
          asked.push({ number: number + i, clientId: 0 });
        }
      }
      number += commands.length;
    }
  }
  world.b.holdFlush = false;
  world.pass(100);
  take();
  expect(replies.size).toBe(number - FIRST_NUMBER);
  expect(world.links.every((link) => link!.up)).toBe(true);
  const keys = ["k0", "k1", "k2", "k3", "k4", "n0", "n1", "n2"];
  return { replies, data: keys.map((name) => world.ask(0, "GET", name)) };
}

describe("as packs, and as commands", () => {
  test("the same replies, and the same data", () => {
    let packed = 0;
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 1, maxLength: 40 }),
        fc.constantFrom(528, 65528),
        fc.constantFrom(3, 1024),
        (steps, payloadMax, turn) => {
          const packs = run(steps, payloadMax, turn, true);
          const commands = run(steps, payloadMax, turn, false);
          expect(packs).toEqual(commands);
          packed += packs.replies.size;
        },
      ),
      { numRuns: 120 },
    );
    expect(packed).toBeGreaterThan(1000);
  });
});
