import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CLASS_WRITE,
  FLAG_MORE,
  FRAME_COMMAND,
  FRAME_REPLY,
  frameOf,
  OUTCOME_ANSWER,
  OUTCOME_MASK,
  OUTCOME_REFUSED,
} from "../../protocol/frame.js";
import type { ServerIndex } from "../../protocol/record.js";
import { NativeClient } from "./native-client.js";
import { configOf, resp, World, type ModelClient } from "./world.js";

const COMMAND_OVERHEAD_BYTES = 64 * 1024;

/** A client that numbers its commands; each reply must be its number. Sends only while it is read from. */
class Sender {
  readonly model: ModelClient;
  sent = 0;
  private at = 0;
  private seen = 0;

  constructor(
    readonly world: World,
    readonly key: string,
    readonly valueBytes = 1,
  ) {
    this.model = world.open();
  }

  /** What the network would bring in one piece. */
  send(count: number): void {
    if (!this.model.reading) return;
    const chunks: Uint8Array[] = [];
    for (let i = 0; i < count; i++) {
      chunks.push(resp("SET", this.key, `${this.sent++}/`.padEnd(this.valueBytes, "v")));
    }
    this.world.send(this.model, Buffer.concat(chunks));
  }

  /** Replies so far; @throws when one is not the next number, so an error too */
  answered(): number {
    const received = this.model.received;
    for (;;) {
      const end = received.indexOf("\r\n", this.at);
      if (end < 0) return this.seen;
      const reply = received.slice(this.at, end);
      if (reply !== `:${this.seen}`) throw new Error(`${this.key}: ${reply}, not :${this.seen}`);
      this.at = end + 2;
      this.seen += 1;
    }
  }

  errors(): number {
    return this.model.received.split("\r\n").filter((line) => line.startsWith("-")).length;
  }
}

function world(changes: Parameters<typeof configOf>[0] = {}): World {
  return new World(configOf(changes)).begin();
}

/** A server runs up to `most` of the commands that have arrived. */
function serve(w: World, server: ServerIndex, most = Infinity): number {
  let served = 0;
  while (served < most) {
    const arrived = w.links[server]?.arrived.shift();
    if (arrived === undefined) break;
    w.reply(server, arrived.id, `:${arrived.args[2]!.split("/")[0]!}\r\n`);
    served += 1;
  }
  return served;
}

/** The primary refuses the oldest command and, as servers do, those of the same connection behind it. */
function refuseOldest(w: World): void {
  const { arrived } = w.link(w.route.primary);
  const key = arrived[0]?.args[1];
  for (const one of arrived.splice(0)) {
    if (one.args[1] === key) w.refuse(w.route.primary, one.id);
    else arrived.push(one);
  }
}

/** A retried write that was lost with its server is simply run at the other here: the model keeps no data. */
function failover(w: World, to: ServerIndex, heldFor: () => void): void {
  w.linkDown(to === 0 ? 1 : 0);
  w.setRoute({ open: false });
  heldFor();
  w.setRoute({
    epoch: w.route.epoch + 1,
    open: true,
    primary: to,
    readable: [to === 0, to === 1],
  });
}

/** The most memory that the commands of all clients may take together. */
function memoryBound(w: World, clients: number, windowBytes: number): number {
  const l = w.config.limits;
  const command = l.valueBytesMax + COMMAND_OVERHEAD_BYTES;
  const ownBytes = (2 * l.clientOutTotalBytes) / l.clientsMax;
  // Chunks of 16 KB that are in use in part: one open for reads, one for writes, and one beside each of them.
  return l.heldBytesMax + command + 2 * windowBytes + clients * ownBytes + 4 * 16384;
}

describe("fair share: one client that floods and 49 small ones", () => {
  const limits = { inFlightMax: 32, clientsMax: 64 };

  function pair(changes: object = {}): { w: World; flood: Sender; small: Sender[]; all: Sender[] } {
    const w = world({ limits: { ...limits, ...changes } });
    const flood = new Sender(w, "flood", 100);
    const small: Sender[] = [];
    for (let i = 0; i < 49; i++) small.push(new Sender(w, `small${i}`));
    return { w, flood, small, all: [flood, ...small] };
  }

  /** Each small one asks again when it is answered, the other sends whatever is taken. */
  function turn(flood: Sender, small: Sender[]): void {
    for (let i = 0; i < 10; i++) flood.send(50);
    for (const one of small) if (one.answered() === one.sent) one.send(1);
  }

  test("through a failover: no error for anyone, nobody's connection ends", () => {
    const { w, flood, small, all } = pair();
    for (let round = 0; round < 20; round++) {
      turn(flood, small);
      serve(w, w.route.primary, 60);
      w.tick(1);
    }
    const to = w.route.primary === 0 ? 1 : 0;
    failover(w, to, () => {
      for (let ms = 0; ms < 1900; ms += 100) {
        turn(flood, small);
        w.tick(100);
      }
      // The flood is not read from; each small one has its command taken.
      expect(flood.model.reading).toBe(false);
      expect(small.every((one) => one.sent === one.answered() + 1)).toBe(true);
      expect(w.forwarder.counters().held).toBeGreaterThan(49);
    });
    for (let round = 0; round < 20; round++) {
      turn(flood, small);
      serve(w, to);
    }
    while (serve(w, to) > 0) w.tick(1);
    for (const one of all) {
      expect(one.answered()).toBe(one.sent);
      expect(one.model.closed).toBeUndefined();
    }
    expect(flood.model.reading).toBe(true);
  });

  test("through a standby given up and taken back: no error for anyone", () => {
    const { w, flood, small, all } = pair();
    for (let epoch = 2; epoch < 12; epoch++) {
      for (let i = 0; i < 3; i++) turn(flood, small);
      // The record is being written: nothing may be sent.
      w.setRoute({ open: false });
      for (let ms = 0; ms < 300; ms += 20) {
        turn(flood, small);
        w.tick(20);
      }
      w.setRoute({ epoch, open: true, readable: [true, epoch % 2 === 1] });
      serve(w, 0, 100);
    }
    while (serve(w, 0) > 0) w.tick(1);
    for (const one of all) expect(one.answered()).toBe(one.sent);
  });

  test("a window that one could fill alone is shared in turns", () => {
    const { w, flood, small } = pair({ inFlightMax: 4, clientsMax: 50 });
    for (let i = 0; i < 10; i++) flood.send(50);
    for (const one of small) one.send(1);
    // Four at the server, and between two turns of the flood a turn for each of the others.
    let served = 0;
    for (let i = 0; i < 49 * 2 + 30; i++) {
      for (let k = 0; k < 10; k++) flood.send(50);
      served += serve(w, 0, 1);
    }
    expect(served).toBe(49 * 2 + 30);
    expect(small.filter((one) => one.answered() === 0).length).toBe(0);
    expect(flood.answered()).toBeGreaterThan(10);
  });

  test("one that always has more to say does not keep the first place", () => {
    const w = world({ limits: { inFlightMax: 4, clientsMax: 8 } });
    const flood = new Sender(w, "flood");
    for (let i = 0; i < 5; i++) flood.send(50);
    const small: Sender[] = [];
    for (let i = 0; i < 5; i++) small.push(new Sender(w, `small${i}`));
    for (const one of small) one.send(1);
    // Four are at the server already; then every other client has a turn between two of the flood's.
    for (let i = 0; i < 14; i++) {
      flood.send(50);
      serve(w, 0, 1);
    }
    expect(small.map((one) => one.answered())).toEqual([1, 1, 1, 1, 1]);
  });

  test("after an outage too: a few commands of each in turn", () => {
    const w = world();
    w.linkDown(0);
    const flood = new Sender(w, "flood");
    for (let i = 0; i < 10; i++) flood.send(50);
    const small = new Sender(w, "small");
    small.send(1);
    w.linkUp(0);
    expect(w.link(0).arrived.findIndex((one) => one.args[1] === "small")).toBe(16);
    expect(w.link(0).arrived.length).toBe(501);
  });

  test("many that flood leave a row for each that has nothing under way", () => {
    const w = world({ limits: { inFlightMax: 8, clientsMax: 16 } });
    w.linkDown(0);
    const floods: Sender[] = [];
    for (let i = 0; i < 10; i++) floods.push(new Sender(w, `flood${i}`));
    for (let i = 0; i < 5; i++) for (const one of floods) one.send(50);
    const small: Sender[] = [];
    for (let i = 0; i < 6; i++) small.push(new Sender(w, `small${i}`));
    const before = w.forwarder.counters().held;
    for (const one of small) one.send(1);
    expect(w.forwarder.counters().held).toBe(before + 6);
  });

  test("native clients too: what one sends in a piece waits in front of the table, in order", () => {
    const w = world({ limits });
    const flood = new NativeClient(w).enter();
    const small = new Sender(w, "small");
    w.linkDown(0);
    const frames: Uint8Array[] = [];
    for (let i = 1; i <= 700; i++) {
      const command = resp("SET", "flood", `${i}/`);
      // Each third in two parts.
      if (i % 3 > 0) {
        frames.push(frameOf(FRAME_COMMAND, CLASS_WRITE, i, command));
      } else {
        frames.push(frameOf(FRAME_COMMAND, CLASS_WRITE | FLAG_MORE, i, command.subarray(0, 9)));
        frames.push(frameOf(FRAME_COMMAND, CLASS_WRITE, i, command.subarray(9)));
      }
    }
    w.send(flood.model, Buffer.concat(frames));
    expect(flood.model.reading).toBe(false);
    small.send(1);
    expect(w.forwarder.counters().held).toBeLessThan(128);
    w.linkUp(0);
    while (serve(w, 0) > 0) w.tick(1);
    const replies = flood.take();
    expect(replies.map((frame) => frame.id)).toEqual(replies.map((_, i) => i + 1));
    expect(replies.length).toBe(700);
    expect(
      replies.every((r) => r.type === FRAME_REPLY && (r.flags & OUTCOME_MASK) === OUTCOME_ANSWER),
    );
    expect(replies.every((r) => r.text === `:${r.id}\r\n`)).toBe(true);
    expect(small.answered()).toBe(1);
    expect(flood.model.reading).toBe(true);
    expect(flood.model.closed).toBeUndefined();
  });

  test("one that does not read its replies keeps no other waiting", () => {
    const { w, flood, small } = pair({ clientOutHighBytes: 2000 });
    flood.model.reads = false;
    for (let round = 0; round < 60; round++) {
      turn(flood, small);
      for (const server of [0, 1] as const) {
        for (const arrived of w.link(server).arrived.splice(0)) {
          const number = arrived.args[2]!.split("/")[0]!;
          const words = arrived.args[1] === "flood" ? "v".repeat(20000) : number;
          w.reply(server, arrived.id, `:${words}\r\n`);
        }
      }
      w.tick(1);
    }
    expect(flood.model.reading).toBe(false);
    for (const one of small) expect(one.answered()).toBeGreaterThan(20);
  });
});

describe("fair share: what is held is bounded", () => {
  test("10,000 connections while nobody is primary: all are served in the end, within the bound", () => {
    const w = world();
    w.linkDown(0);
    const senders: Sender[] = [];
    for (let i = 0; i < 10000; i++) senders.push(new Sender(w, `k${i}`, 3000));
    let most = 0;
    for (const one of senders) {
      one.send(2);
      most = Math.max(most, w.forwarder.counters().memoryBytes);
    }
    const l = w.config.limits;
    expect(w.forwarder.counters().heldBytes).toBeLessThanOrEqual(
      l.heldBytesMax + l.valueBytesMax + COMMAND_OVERHEAD_BYTES,
    );
    expect(most).toBeLessThan(memoryBound(w, 10000, 8 << 20));
    w.tick(1500);
    w.linkUp(0);
    while (serve(w, 0) > 0) w.tick(1);
    for (const one of senders) expect(one.answered()).toBe(2);
  }, 60_000);

  test("held past the limit everyone hears why, those in line no later than those before them", () => {
    const w = world({ limits: { inFlightMax: 8, clientsMax: 400 } });
    w.setRoute({ why: "a is away" });
    w.linkDown(0);
    const senders: Sender[] = [];
    for (let i = 0; i < 300; i++) senders.push(new Sender(w, `k${i}`));
    for (const one of senders) one.send(1);
    // The table has 64 rows: most wait in line.
    expect(w.forwarder.counters().held).toBe(64);
    for (let i = 0; i < 99; i++) w.tick(20);
    expect(senders.filter((one) => one.errors() > 0).length).toBe(0);
    for (let i = 0; i < 10; i++) w.tick(20);
    for (const one of senders) {
      expect(one.model.received).toBe("-CLUSTERDOWN no primary: a is away\r\n");
    }
    // The next outage is a new one: time in an old line does not count.
    w.linkUp(0);
    w.tick(5000);
    w.linkDown(0);
    senders[299]!.send(1);
    w.tick(1990);
    expect(senders[299]!.errors()).toBe(1);
  });

  test("time in line that ended without a command counts for nothing", () => {
    const w = world({ limits: { inFlightMax: 8, clientsMax: 400 } });
    w.linkDown(0);
    const senders: Sender[] = [];
    for (let i = 0; i < 64; i++) senders.push(new Sender(w, `k${i}`));
    for (const one of senders) one.send(1);
    const half = new Sender(w, "half");
    const command = resp("SET", "half", "0/");
    w.send(half.model, command.subarray(0, 10));
    expect(half.model.reading).toBe(false);
    // Those before it are given up, so it is read from again.
    w.tick(2000);
    w.tick(20);
    expect(half.model.reading).toBe(true);
    w.send(half.model, command.subarray(10));
    w.tick(1000);
    expect(half.errors()).toBe(0);
    w.linkUp(0);
    serve(w, 0);
    expect(half.answered()).toBe(1);
  });

  test("a native client waits in line as well, and no longer", () => {
    const w = world({ limits: { inFlightMax: 8, clientsMax: 400 } });
    const natives = [new NativeClient(w).enter(), new NativeClient(w).enter()];
    w.setRoute({ why: "a is away" });
    w.linkDown(0);
    for (let i = 0; i < 64; i++) new Sender(w, `k${i}`).send(1);
    w.tick(500);
    for (const one of natives) one.send(FRAME_COMMAND, CLASS_WRITE, 1, resp("SET", "n", "0/"));
    expect(natives.map((one) => one.model.reading)).toEqual([false, false]);
    expect(w.forwarder.counters().held).toBe(64);
    for (let i = 0; i < 80; i++) w.tick(20);
    for (const one of natives) expect(one.take()).toEqual([]);
    for (let i = 0; i < 25; i++) w.tick(20);
    for (const one of natives) {
      expect(one.take().map((f) => [f.id, f.flags & OUTCOME_MASK])).toEqual([[1, OUTCOME_REFUSED]]);
      expect(one.model.reading).toBe(true);
    }
  });

  test("many that flood with large values leave bytes for others", () => {
    const w = world({ limits: { heldBytesMax: 40000 } });
    w.linkDown(0);
    const floods: Sender[] = [];
    for (let i = 0; i < 4; i++) floods.push(new Sender(w, `flood${i}`, 2000));
    for (let i = 0; i < 5; i++) for (const one of floods) one.send(8);
    expect(w.forwarder.counters().heldBytes).toBeGreaterThan(25000);
    const before = w.forwarder.counters().held;
    for (let i = 0; i < 6; i++) new Sender(w, `small${i}`).send(1);
    expect(w.forwarder.counters().held).toBe(before + 6);
  });

  test("a half-sent small command is not closed for what others have sent", () => {
    const w = world({ limits: { clientOutTotalBytes: 1 << 20, clientsMax: 200 } });
    const half = new Sender(w, "half");
    w.send(half.model, resp("SET", "half", "0/").subarray(0, 10));
    w.linkDown(0);
    const others: Sender[] = [];
    for (let i = 0; i < 150; i++) {
      const one = new Sender(w, `k${i}`, 20);
      w.now += 1;
      for (let k = 0; k < 10; k++) one.send(300);
      others.push(one);
    }
    expect(w.forwarder.counters().memoryBytes).toBeGreaterThan(1 << 20);
    expect(half.model.closed).toBeUndefined();
    expect(others.every((one) => one.model.closed === undefined)).toBe(true);
  });

  test("any clients, any limits, any outages within holdMs: all answered in order, within the bound", () => {
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ send: fc.nat(29), count: fc.integer({ min: 1, max: 80 }) }),
      },
      { weight: 4, arbitrary: fc.record({ serve: fc.integer({ min: 1, max: 60 }) }) },
      { weight: 1, arbitrary: fc.record({ outageMs: fc.integer({ min: 1, max: 900 }) }) },
      { weight: 1, arbitrary: fc.record({ ms: fc.integer({ min: 0, max: 20 }) }) },
      { weight: 1, arbitrary: fc.record({ refuse: fc.constant(true) }) },
    );
    fc.assert(
      fc.property(
        fc.constantFrom(4, 8, 64),
        fc.constantFrom(2000, 20000, 1 << 20),
        fc.array(step, { minLength: 5, maxLength: 120 }),
        (inFlightMax, heldBytesMax, steps) => {
          const w = world({
            limits: {
              inFlightMax,
              heldBytesMax,
              clientsMax: 30,
              valueBytesMax: 4096,
              clientOutTotalBytes: 1 << 20,
            },
          });
          const senders: Sender[] = [];
          for (let i = 0; i < 30; i++) senders.push(new Sender(w, `k${i}`, 1 + ((i * 37) % 700)));
          const inFlightBytes = 2 * inFlightMax * 1000;
          const check = (): void => {
            const count = w.forwarder.counters();
            expect(count.heldBytes).toBeLessThanOrEqual(
              heldBytesMax + 4096 + COMMAND_OVERHEAD_BYTES + inFlightBytes,
            );
            expect(count.memoryBytes).toBeLessThan(memoryBound(w, 30, inFlightBytes) + (1 << 20));
          };
          // A command may be held in each of several outages, and those that were refused count from the first.
          const endAt = w.now + 1900;
          for (const one of steps) {
            const ms = "ms" in one ? one.ms : "outageMs" in one ? one.outageMs : 0;
            if (w.now + ms > endAt) continue;
            if ("send" in one) senders[one.send]!.send(one.count);
            else if ("serve" in one) serve(w, w.route.primary, one.serve);
            else if ("ms" in one) w.tick(one.ms);
            else if ("refuse" in one) refuseOldest(w);
            else {
              const old = w.route.primary;
              failover(w, old === 0 ? 1 : 0, () => {
                for (const each of senders) each.send(30);
                check();
                w.tick(one.outageMs);
              });
              w.linkUp(old);
            }
            check();
          }
          expect(w.faults).toEqual([]);
          do w.tick(3);
          while (serve(w, w.route.primary) > 0);
          for (const each of senders) {
            expect(each.answered()).toBe(each.sent);
            expect(each.model.reading).toBe(true);
            expect(each.model.closed).toBeUndefined();
          }
        },
      ),
      { numRuns: 100 },
    );
  }, 120_000);
});
