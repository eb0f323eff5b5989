/**
 * Ordinary rounds of polls, carried out by the loop itself, beside a controller that takes every heartbeat and every tick in full:
 * the same events must lead to the same polls at the same times, the same words to the servers, the same records and the
 * same status.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeHeartbeat, encodeHeartbeat, gaugesAt, takeGauges } from "../../protocol/messages.js";
import type { Heartbeat } from "../../protocol/messages.js";
import { FakePair, filled } from "./fake-pair.js";
import type { FakeServer } from "./fake-pair.js";

const RUNS = Number(process.env["FAST_POLL_RUNS"] ?? 100);

/** One world: a pair, and what was heard of its servers. */
class World {
  readonly pair: FakePair;
  readonly heard: Uint8Array[][] = [[], []];
  readonly heardByLine: Uint8Array[][] = [[], []];
  private disks = 0;

  constructor(mode: "both" | "solo", withLines: boolean, fast: boolean, forwards: boolean) {
    const pair = withLines ? FakePair.wired(0, mode) : FakePair.serving(0, mode, forwards);
    this.pair = pair;
    // A verdict has its moment too.
    pair.notes.push = (...notes) => {
      for (const note of notes)
        pair.notes[pair.notes.length] = { ...note, text: `${pair.now} ${note.text}` };
      return pair.notes.length;
    };
    // From a boot of its own, so that all of it is the same but for this.
    pair.crashController();
    pair.fast = fast;
    pair.bootController();
    pair.run(300);
    const hear = pair.hear.bind(pair);
    pair.hear = (server, answer) => {
      this.heard[server]!.push(answer);
      hear(server, answer);
    };
    for (const server of pair.servers) {
      server.garble = (bytes) => {
        const heard = this.heardByLine[server.index]!;
        heard.push(bytes);
        return this.damage(bytes);
      };
    }
  }

  /** What the next answers by lines become. */
  damage: (bytes: Uint8Array) => Uint8Array = (bytes) => bytes;

  inject(server: number, bytes: Uint8Array): void {
    this.pair.later(0, () => this.pair.hear(server === 0 ? 0 : 1, bytes));
  }

  injectByLine(server: number, bytes: Uint8Array): void {
    this.pair.later(0, () => this.pair.hearLine(server === 0 ? 0 : 1, bytes));
  }

  replaceDisk(server: FakeServer): void {
    server.identity = filled(16, 0x10 + ++this.disks);
    server.record = undefined;
  }

  seen(): object {
    const { pair } = this;
    return {
      now: pair.now,
      polls: pair.pollLog.splice(0),
      log: pair.log.splice(0),
      notes: pair.notes.splice(0),
      written: pair.written.length,
      resets: pair.resets,
      calls: pair.forward.calls.splice(0),
      status: pair.core === undefined ? undefined : pair.core.status(pair.now),
      servers: pair.core === undefined ? undefined : pair.core.console("servers", pair.now),
      // Whoever asked has made the books complete.
      views: pair.core === undefined ? undefined : structuredClone(pair.core.rounds.servers),
    };
  }
}

interface Step {
  kind: number;
  server: number;
  a: number;
  b: number;
  before: number;
  ms: number;
}

const KINDS: ((world: World, server: FakeServer, step: Step) => void)[] = [
  // Most of the time only the measurements change.
  (_, server, { a, b }) => {
    server.says = { ...server.says, logEnd: a * 7, confirmed: b, lagEntries: a, loadPermille: b };
  },
  (_, server, { a, b }) => {
    server.says = { ...server.says, oldestUnconfirmedMs: a % 90, oldestUncommittedMs: b % 60 };
  },
  () => undefined,
  () => undefined,
  (_, server, { a }) => {
    server.says = { ...server.says, oldestUnconfirmedMs: a * 3, oldestUncommittedMs: 0 };
  },
  (_, server, { b }) => {
    server.says = { ...server.says, oldestUnconfirmedMs: 0, oldestUncommittedMs: b * 4 };
  },
  (_, server, { a }) => {
    server.slowMs = a % 3 === 0 ? 0 : a % 45;
  },
  (_, server) => {
    server.says = {};
  },
  (_, server, { a }) => {
    server.says = { ...server.says, braking: a % 2 === 0 };
  },
  (_, server, { a }) => {
    server.says = { ...server.says, problem: a % 3 === 0 ? "" : "disk nearly full" };
  },
  (_, server, { a }) => {
    server.says = { ...server.says, sessionOpen: a % 2 === 0, peerUp: a % 3 !== 0 };
  },
  (world, server, { a }) => {
    const other = world.pair.servers[1 - server.index]!;
    server.says = { ...server.says, asked: a % 3 !== 0, askIdentity: other.identity };
  },
  (_, server) => server.kill(),
  (_, server) => server.hang(),
  (_, server) => server.wake(),
  (_, server) => {
    server.udp = false;
  },
  (_, server) => {
    server.udp = true;
  },
  (_, server) => server.dropLink(),
  (_, server) => {
    if (!server.alive) server.start();
  },
  (world, server) => {
    if (!server.alive) world.replaceDisk(server);
  },
  (_, server, { a }) => {
    server.wired = a % 2 === 0;
  },
  (world, _, { a }) => {
    if (world.pair.core !== undefined) world.pair.blockController(a % 400);
  },
  (world, _, { a }) => {
    world.pair.crashController();
    world.pair.run(a % 100);
    world.pair.bootController();
  },
  (world) => {
    world.pair.core?.console("switchover", world.pair.now);
  },
  (world, _, { a }) => {
    world.pair.persistMs = a % 2 === 0 ? 0.2 : 40;
  },
  // Datagrams that no server sends: again, older, cut, changed, empty.
  (world, server, { a }) => {
    const all = world.heard[server.index]!;
    const again = all[all.length - 1 - (a % 4)];
    if (again !== undefined) world.inject(server.index, again);
  },
  (world, server, { a, b }) => {
    const last = world.heard[server.index]!.at(-1);
    if (last === undefined) return;
    const cut = last.slice(0, a % last.length);
    if (cut.length > 8 && b % 2 === 0) cut[b % cut.length]! ^= 1 << (b % 8);
    world.inject(server.index, cut);
  },
  (world, server, { a, b }) => {
    const last = world.heard[server.index]!.at(-1);
    if (last === undefined) return;
    const changed = last.slice();
    changed[a % changed.length]! ^= 1 << (b % 8);
    world.inject(server.index, changed);
  },
  // And the same on lines: what a server said there again, older, cut, changed; noise; our own echo, another's answer.
  (world, server, { a }) => {
    const all = world.heardByLine[server.index]!;
    const again = all[all.length - 1 - (a % 3)];
    if (again !== undefined) world.injectByLine(server.index, again);
  },
  (world, server, { a, b }) => {
    const last = world.heardByLine[server.index]!.at(-1);
    if (last === undefined) return;
    world.injectByLine(server.index, last.slice(a % last.length, b % 2 === 0 ? last.length : b));
  },
  (world, server, { a, b }) => {
    const last = world.heardByLine[server.index]!.at(-1);
    if (last === undefined) return;
    const changed = last.slice();
    changed[a % changed.length]! ^= 1 << (b % 8);
    world.injectByLine(server.index, changed);
  },
  (world, server, { a, b }) => {
    const noise = [0x7e, 0x7d, b & 255, 0x0a, 0x5e, a & 255];
    const bytes = Array.from({ length: a % 40 }, (_, at) => noise[(at * (1 + (b % 5))) % 6]!);
    world.injectByLine(server.index, new Uint8Array(bytes));
  },
  (world, server, { a }) => world.injectByLine(server.index, filled(a * 2, 0x41)),
  (world, server) => {
    const last = world.heardByLine[1 - server.index]!.at(-1);
    if (last !== undefined) world.injectByLine(server.index, last);
  },
  (world, _, { a, b }) => {
    let left = a % 4;
    world.damage = (bytes) => {
      if (left-- <= 0) return bytes;
      const changed = bytes.slice(b % 3 === 0 ? a % bytes.length : 0);
      changed[(a * 7 + b) % changed.length]! ^= 1 << (b % 8);
      return b % 5 === 0 ? new Uint8Array([...changed, ...changed]) : changed;
    };
  },
  (_, server, { a }) => {
    server.pieceBytes = a % 3 === 0 ? Infinity : 1 + (a % 90);
  },
  (world, server, { a }) => {
    world.pair.lineFull[server.index] = a % 2 === 0;
  },
  // The answer to the latest poll, of another server.
  (world, server) => {
    const last = world.heard[1 - server.index]!.at(-1);
    if (last !== undefined) world.inject(server.index, last);
  },
];

const steps = fc.array(
  fc.record({
    kind: fc.nat(KINDS.length - 1),
    server: fc.nat(1),
    a: fc.nat(999),
    b: fc.nat(999),
    before: fc.nat(80),
    ms: fc.oneof(fc.nat(2), fc.nat(60), fc.nat(900)),
  }),
  { minLength: 1, maxLength: 25 },
);

let rounds = 0;
let heartbeats = 0;
let lineBytes = 0;

function compare(mode: "both" | "solo", withLines: boolean, forwards: boolean, all: Step[]): void {
  const plain = new World(mode, withLines, false, forwards);
  const fast = new World(mode, withLines, true, forwards);
  expect(fast.seen()).toEqual(plain.seen());
  for (const step of all) {
    for (const world of [plain, fast]) {
      const { pair } = world;
      // Whoever asks for the status ends the rounds: they are to be under way again.
      pair.run(step.before);
      KINDS[step.kind]!(world, pair.servers[step.server]!, step);
      pair.run(step.ms);
    }
    expect(fast.seen()).toEqual(plain.seen());
  }
  rounds += fast.pair.fastRounds;
  heartbeats += fast.pair.fastHeartbeats;
  lineBytes += fast.pair.fastLineBytes;
}

describe("ordinary rounds", () => {
  test("the same events lead to the same polls, words, records and status", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("both" as const, "solo" as const),
        fc.boolean(),
        fc.boolean(),
        steps,
        compare,
      ),
      { numRuns: RUNS },
    );
    // It was no comparison of a thing with itself.
    expect(rounds).toBeGreaterThan(10 * RUNS);
    expect(heartbeats).toBeGreaterThan(20 * RUNS);
    expect(lineBytes).toBeGreaterThan(500 * RUNS);
  }, 600_000);

  test("with nothing the matter every heartbeat and every tick but now and then one is taken so", () => {
    const pair = FakePair.intact(FakePair.serving().a.record!);
    pair.fast = true;
    pair.bootController();
    pair.a.start();
    pair.b.start();
    pair.run(500);
    const polls = pair.pollLog.length;
    pair.fastRounds = 0;
    pair.fastHeartbeats = 0;
    pair.run(10_000);
    const sent = (pair.pollLog.length - polls) / 2;
    expect(sent).toBe(500);
    expect(pair.fastRounds).toBeGreaterThan(sent - 5);
    expect(pair.fastHeartbeats).toBeGreaterThan(2 * sent - 10);
  });

  test("the target of reads hears of a changed load though nobody asks (P1, P3)", () => {
    const { pair } = new World("both", false, true, false);
    pair.run(1000);
    const before = pair.fastRounds;
    pair.a.says = { loadPermille: 870 };
    pair.b.says = { loadPermille: 20 };
    pair.run(6 * pair.config.timings.pollMs);
    expect(pair.forward.reported).toEqual([870, 20]);
    expect(pair.fastRounds).toBeGreaterThan(before + 4);
  });

  test("a server that falls silent is failed over from at the same moment", () => {
    for (const fast of [false, true]) {
      const world = new World("both", false, fast, false);
      world.pair.run(1000);
      world.pair.a.powerOff();
      const took = world.pair.until(() => world.pair.roles.startsWith("solo(b)"));
      expect(took).toBeLessThanOrEqual(world.pair.config.timings.failureMs + 2);
    }
  });
});

describe("an ordinary packet on a serial line", () => {
  function counts(pair: FakePair): Record<string, number | string> {
    return { ...pair.status.controller.serial[0]! };
  }

  /** Lets one answer by line come, changed; then some whole ones. */
  function afterOne(world: World, change: (bytes: Uint8Array) => Uint8Array): object {
    const { pair } = world;
    let isDone = false;
    pair.run(600);
    pair.a.garble = (bytes) => {
      if (isDone) return bytes;
      isDone = true;
      return change(bytes);
    };
    pair.run(150);
    const seen = counts(pair);
    pair.run(300);
    return { seen, later: counts(pair) };
  }

  test("with any one byte changed, missing or doubled is counted, and not believed", () => {
    const changes: ((bytes: Uint8Array, at: number) => Uint8Array)[] = [
      (bytes, at) => bytes.map((byte, i) => (i === at ? byte ^ 0x20 : byte)),
      (bytes, at) => bytes.map((byte, i) => (i === at ? byte ^ 1 : byte)),
      (bytes, at) => new Uint8Array([...bytes.slice(0, at), ...bytes.slice(at + 1)]),
      (bytes, at) => new Uint8Array([...bytes.slice(0, at + 1), ...bytes.slice(at)]),
      // As if somebody had escaped it once more.
      (bytes, at) =>
        new Uint8Array([...bytes.slice(0, at), 0x7d, bytes[at]! ^ 0x20, ...bytes.slice(at + 1)]),
    ];
    const fast = new World("both", true, true, false);
    const plain = new World("both", true, false, false);
    const length = 190;
    for (let at = 0; at < length; at += 7) {
      for (const change of changes) {
        const one = afterOne(fast, (bytes) => change(bytes, at));
        expect(one, `byte ${at}`).toEqual(afterOne(plain, (bytes) => change(bytes, at)));
      }
    }
  });
});

test("a silent server's link closes: it has failed by that as soon as the probe ends", () => {
  const { pair } = new World("solo", false, true, false);
  pair.b.hang();
  pair.until(() => pair.core!.console("servers", pair.now).includes("silent"));
  pair.b.kill();
  const closed = (): number => pair.notes.findIndex(({ text }) => text.includes("link closed and"));
  const took = pair.until(() => closed() >= 0);
  expect(took).toBeLessThanOrEqual(pair.config.timings.probeMs + 1);
});

describe("a heartbeat's measurements", () => {
  test("are found where the encoder puts them, and nothing else is", () => {
    const one: Heartbeat = FakePair.serving().a.heartbeat(7);
    const other: Heartbeat = {
      ...one,
      counter: 0xfffffff0,
      uptimeMs: 0x81020304,
      logEnd: 0xa1b2c3d4e5f6,
      confirmed: 0x0102030405ff,
      lagEntries: 0x91020305,
      oldestUnconfirmedMs: 0xa1020306,
      oldestUncommittedMs: 0xb1020307,
      loadPermille: 0xc108,
      cpuPermille: 0xd109,
      runQueue: 0xe10a,
      loopDelayUs: 0xf102030b,
      inFlight: 0x8102030c,
      serviceUs: 0x9102030d,
    };
    const bytes = encodeHeartbeat(other);
    const taken = { ...one };
    takeGauges(taken, bytes);
    expect(taken).toEqual(other);
    const plain = encodeHeartbeat(one);
    const from = gaugesAt(one.serverId.length);
    const differs = [...bytes].flatMap((byte, at) => (byte === plain[at] ? [] : [at]));
    expect(differs.filter((at) => at >= 8).every((at) => at >= from && at < from + 46)).toBe(true);
    expect(decodeHeartbeat(bytes, 0, bytes.length)).toEqual(other);
  });
});
