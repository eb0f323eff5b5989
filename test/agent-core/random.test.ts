/**
 * Random faults against two cores: crashes, cut links, hanging disks, wrong suspicions, role changes by
 * a controller that keeps rules 15 to 17. Checked: no acknowledged write is lost, no read is stale (each key has
 * one writer, so a read must give at least what was acknowledged or read before it began), counters are
 * exactly once, and after the faults the pair comes together with equal data.
 *
 * With packs, what is asked for the first time goes in them; what is asked again goes as a command, under
 * its number if it is a write.
 */
import { describe, expect, test } from "vitest";
import {
  CHANNEL_BYTES,
  CLASS_QUERY,
  CLASS_WRITE,
  FRAME_COMMAND,
  FRAME_PACK,
  HEADER_BYTES,
  PACK_COMMANDS_MAX,
  frameOf,
  readU16,
  readU32,
} from "../../protocol/frame.js";
import { MODE_BOTH, MODE_SOLO, World, resp } from "./world.js";
import type { RoleRecord } from "../../protocol/record.js";
import type { TestServer } from "./world.js";

const SEEDS = Number(process.env["SEEDS"] ?? 30);
const FIRST_SEED = Number(process.env["SEED"] ?? 1);
const STEPS = 300;
const KEYS = 4;

class Random {
  constructor(private state: number) {}
  next(): number {
    this.state = (Math.imul(this.state ^ (this.state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    let x = this.state;
    x = Math.imul(x ^ (x >>> 12), 0x297a2d39) >>> 0;
    return ((x ^ (x >>> 15)) >>> 0) / 4294967296;
  }
  below(n: number): number {
    return Math.floor(this.next() * n);
  }
}

interface Open {
  id: number;
  key: number;
  kind: "set" | "incr" | "get";
  value: number;
  /** Reads: what it must give at least. */
  floor: number;
  server: 0 | 1 | -1;
  link: object | undefined;
}

/** Commands that will go in one pack. */
interface Batch {
  server: 0 | 1;
  kind: number;
  channel: number;
  first: number;
  frames: Uint8Array[];
}

class Pair {
  readonly world: World;
  readonly open: Open[] = [];
  /** By key: last value asked for, acknowledged, and seen by anyone. */
  readonly asked = new Array<number>(KEYS).fill(0);
  readonly seen = new Array<number>(KEYS).fill(0);
  readonly counted = new Array<number>(KEYS).fill(0);
  acknowledged = 0;
  reads = 0;
  failovers = 0;
  private number = 100;
  private askedMs = 0;
  private routed: RoleRecord;
  private batch: Batch | undefined;
  /** Answers that came in a PACK_REPLY, and PACK_REPLY frames. */
  packed = 0;
  packReplies = 0;

  constructor(
    readonly random: Random,
    limits = {},
    readonly packs = false,
  ) {
    this.world = new World(limits);
    this.world.begin();
    this.routed = this.world.record!;
  }

  private newest(key: number): number {
    return this.asked[key]!;
  }

  write(key: number): void {
    if (this.open.some((one) => one.key === key && one.kind !== "get")) return;
    const incr = key % 2 === 1;
    this.asked[key]!++;
    this.open.push({
      id: this.number++,
      key,
      kind: incr ? "incr" : "set",
      value: this.asked[key]!,
      floor: 0,
      server: -1,
      link: undefined,
    });
  }

  read(key: number): void {
    if (this.open.length > 20) return;
    this.open.push({
      id: this.number++,
      key,
      kind: "get",
      value: 0,
      floor: this.seen[key]!,
      server: -1,
      link: undefined,
    });
  }

  /** The client's own id of each command is its number. */
  private pack(server: 0 | 1, kind: number, key: number, number: number, args: string[]): void {
    const channel = key % 2;
    let { batch } = this;
    if (
      batch === undefined ||
      batch.server !== server ||
      batch.kind !== kind ||
      batch.channel !== channel ||
      batch.first + batch.frames.length !== number ||
      batch.frames.length === PACK_COMMANDS_MAX
    ) {
      this.sendPack();
      batch = { server, kind, channel, first: number, frames: [] };
      this.batch = batch;
    }
    batch.frames.push(frameOf(FRAME_COMMAND, kind, number, resp(...args)));
  }

  private sendPack(): void {
    const { batch } = this;
    this.batch = undefined;
    if (batch === undefined) return;
    const payload = Buffer.concat([Uint8Array.of(0, 0, 0, batch.channel), ...batch.frames]);
    const frame = frameOf(FRAME_PACK, batch.kind, batch.first, payload);
    this.world.links[batch.server]!.pipe.send(1, frame);
  }

  /** What came in packs becomes replies like all others. */
  private unpack(): void {
    for (const link of this.world.links) {
      for (const { payload, count, id, epoch } of link?.packs.splice(0) ?? []) {
        let number = 0;
        let found = 0;
        for (let at = CHANNEL_BYTES; at < payload.length; found++) {
          const next = at + HEADER_BYTES + readU16(payload, at + 2);
          number = readU32(payload, at + 4);
          const text = Buffer.from(payload.subarray(at + HEADER_BYTES, next)).toString("latin1");
          link!.replies.set(number, { outcome: 0, text, epoch });
          at = next;
        }
        expect([found, number]).toEqual([count, id]);
        this.packed += count;
        this.packReplies++;
      }
    }
  }

  /** The forward path: sends what is not under way, takes answers, as G1 to G3 say. */
  forward(): void {
    const { world } = this;
    const record = world.record!;
    if (record.epoch !== this.routed.epoch) {
      // A primary that stays answers what it holds in the new epoch; all else is asked again.
      const stays = record.primary === this.routed.primary;
      for (const one of this.open) {
        if (!(stays && one.server === record.primary)) one.server = -1;
      }
      this.routed = record;
    }
    const below = Math.min(
      ...this.open.filter((one) => one.kind !== "get").map((one) => one.id),
      this.number,
    );
    this.unpack();
    for (const one of this.open.slice()) {
      const link = one.server < 0 ? undefined : world.links[one.server as 0 | 1];
      if (link !== undefined && link === one.link) {
        const reply = link.replies.get(one.id);
        if (reply !== undefined) {
          link.replies.delete(one.id);
          const passes = link.up && (reply.outcome !== 0 || reply.epoch === record.epoch);
          if (passes && reply.outcome === 0) {
            this.answered(one, reply.text);
            continue;
          }
          expect(reply.outcome).not.toBe(2);
          one.server = -1;
        } else if (!link.up || link.sentEpoch !== record.epoch) {
          one.server = -1;
        } else if (one.kind === "get" && one.server !== record.primary) {
          if (!this.standbyReadable() || one.floor < 0) one.server = -1;
        } else if (one.kind !== "get" && one.server !== record.primary) {
          one.server = -1;
        }
      } else {
        one.server = -1;
      }
      if (one.server >= 0) continue;
      let to: 0 | 1 = record.primary;
      if (one.kind === "get" && this.standbyReadable() && this.random.below(2) === 0) {
        to = to === 0 ? 1 : 0;
      }
      const target = world.links[to];
      if (target === undefined || !target.up || target.sentEpoch !== record.epoch) continue;
      const again = one.link !== undefined;
      one.server = to;
      one.link = target;
      // Every asking of a read has an id of its own; a write keeps its number.
      if (one.kind === "get") one.id = this.number++;
      const key = "k" + one.key;
      if (this.packs && !again) {
        const word = {
          get: ["GET", key],
          set: ["SET", key, String(one.value)],
          incr: ["INCR", key],
        };
        const kind = one.kind === "get" ? CLASS_QUERY : CLASS_WRITE;
        this.pack(to, kind, one.key, one.id, word[one.kind]);
        continue;
      }
      this.sendPack();
      if (one.kind === "get") world.send(to, ["GET", key], { query: true, number: one.id });
      else if (one.kind === "set") {
        world.send(to, ["SET", key, String(one.value)], { number: one.id, below });
      } else world.send(to, ["INCR", key], { number: one.id, below });
    }
    this.sendPack();
  }

  private standbyReadable(): boolean {
    const record = this.world.record!;
    const standby = record.primary === 0 ? 1 : 0;
    const link = this.world.links[standby];
    return record.mode === MODE_BOTH && link !== undefined && link.up;
  }

  private answered(one: Open, text: string): void {
    this.open.splice(this.open.indexOf(one), 1);
    if (one.kind === "get") {
      this.reads++;
      const value = text === "$-1\r\n" ? 0 : Number(text.split("\r\n")[1]);
      if (value < one.floor || value > this.newest(one.key)) {
        throw new Error(
          `stale or unheard-of read of k${one.key}: ${value}, at least ${one.floor}, at most ${this.newest(one.key)}`,
        );
      }
      this.seen[one.key] = Math.max(this.seen[one.key]!, value);
      return;
    }
    this.acknowledged++;
    if (one.kind === "incr") expect(text).toBe(`:${one.value}\r\n`);
    else expect(text).toBe("+OK\r\n");
    this.seen[one.key] = Math.max(this.seen[one.key]!, one.value);
  }

  /** Rules 15 to 17. @param wrong it may also suspect without reason */
  control(wrong: boolean): void {
    const { world, random } = this;
    const record = world.record!;
    const other = record.primary === 0 ? 1 : 0;
    const alive = (index: 0 | 1): boolean =>
      world.servers[index].agent !== undefined && world.links[index]?.up === true;
    const heartbeat = (index: 0 | 1) => {
      try {
        return alive(index) ? world.servers[index].heartbeat() : undefined;
      } catch {
        return undefined;
      }
    };
    const mine = heartbeat(record.primary);
    const theirs = heartbeat(other);
    if (record.mode === MODE_BOTH) {
      const named = other === 0 ? record.identityA : record.identityB;
      const fit =
        theirs !== undefined &&
        !theirs.copying &&
        Buffer.compare(Buffer.from(theirs.identity), Buffer.from(named)) === 0;
      const primaryFails = mine === undefined || mine.oldestUncommittedMs > 300;
      if (fit && (primaryFails ? random.below(3) === 0 : wrong && random.below(60) === 0)) {
        this.failovers++;
        const both = random.below(4) === 0;
        world.write(record.epoch + 1, other, both ? MODE_BOTH : MODE_SOLO);
        return;
      }
      if (mine !== undefined) {
        const stalled = mine.oldestUnconfirmedMs > 200 || theirs === undefined;
        if (stalled ? random.below(3) === 0 : wrong && random.below(60) === 0) {
          world.write(record.epoch + 1, record.primary, MODE_SOLO);
        }
      }
      return;
    }
    if (mine === undefined || world.nowMs - this.askedMs < 20) return;
    this.askedMs = world.nowMs;
    if (mine.record?.epoch !== record.epoch || !mine.asked) return;
    if (mine.wantsSolo) {
      world.write(record.epoch + 1, record.primary, MODE_SOLO);
    } else if (theirs !== undefined && random.below(2) === 0) {
      world.record = world.makeRecord(record.epoch + 1, record.primary, MODE_BOTH);
      if (other === 0) world.record.identityA = mine.askIdentity;
      else world.record.identityB = mine.askIdentity;
      for (const index of [0, 1] as const) {
        if (world.links[index]?.up) world.links[index]!.tellRecord();
      }
    }
  }

  fault(): void {
    const { world, random } = this;
    const server: TestServer = world.servers[random.below(2)]!;
    switch (random.below(12)) {
      case 0:
        if (server.agent !== undefined) server.crash(random.below(2) === 0 ? "power" : "kill");
        break;
      case 1:
      case 2:
      case 3:
        if (server.agent === undefined) {
          server.start();
          world.cutPeer(false);
        }
        break;
      case 4:
        world.cutPeer(true);
        break;
      case 5:
        world.closePeer();
        world.cutPeer(false);
        break;
      case 6:
        server.holdFlush = true;
        break;
      case 7:
      case 8:
        for (const one of world.servers) one.holdFlush = false;
        break;
      case 9:
        world.links[server.index]?.pipe.close();
        break;
      default:
    }
  }

  step(faults: boolean): void {
    const { world, random } = this;
    if (faults && random.below(4) === 0) this.fault();
    this.control(faults);
    for (let i = random.below(4); i > 0; i--) {
      if (random.below(2) === 0) this.write(random.below(KEYS));
      else this.read(random.below(KEYS));
    }
    for (let i = random.below(12); i >= 0; i--) {
      this.forward();
      world.round();
    }
    world.nowMs += random.below(30);
    for (const server of world.servers) expect(server.fatalReason).toBe("");
  }

  /** The faults end: the pair must come together again, and every command get its answer. */
  heal(): void {
    const { world } = this;
    for (const server of world.servers) {
      server.holdFlush = false;
      if (server.agent === undefined) server.start();
    }
    world.closePeer();
    world.cutPeer(false);
    for (let i = 0; i < 3000; i++) {
      this.control(false);
      this.forward();
      world.round();
      world.nowMs += 2;
      const together =
        world.record!.mode === MODE_BOTH &&
        world.servers.every(
          (server) => server.agent !== undefined && server.status()["session"] === "ready",
        );
      if (together && this.open.length === 0) break;
    }
    this.expectAnswered();
    expect(world.record!.mode).toBe(MODE_BOTH);
    for (let i = 0; i < 20; i++) world.pass(100, 100);
    const rows = world.servers.map((server) =>
      server.store
        .range("data", new Uint8Array(0), undefined, 1000)
        .map(({ key, value }) => [
          Buffer.from(key).toString("hex"),
          Buffer.from(value).toString("hex"),
        ]),
    );
    expect(rows[0]).toEqual(rows[1]);
    for (let key = 0; key < KEYS; key++) this.read(key);
    // The quiet time above had no polls, so the links are opened anew.
    for (let i = 0; i < 500 && this.open.length > 0; i++) {
      this.forward();
      world.round();
      world.nowMs += 2;
    }
    this.expectAnswered();
  }

  private expectAnswered(): void {
    if (this.open.length === 0) return;
    const open = this.open.map(({ id, kind, key, server }) => `${id} ${kind} k${key} at ${server}`);
    const status = this.world.servers.map((one) => JSON.stringify(one.status()));
    throw new Error([...open, ...status].join("\n"));
  }
}

const VARIANTS: [string, object, boolean?][] = [
  ["plain", {}],
  [
    "small log, small overlay, copies in small ranges",
    {
      logBytesMax: 2048,
      chunkBytesMax: 256,
      checkpointBytes: 512,
      overlayKeysMax: 2,
      sliceKeysMax: 1,
      copyRowsMax: 1,
      streamWindowBytes: 256,
      boundariesMax: 64,
    },
  ],
  ["packs", {}, true],
  ["packs, cut by short turns", { turnCommandsMax: 2, replyWindowBytes: 1024 }, true],
];

for (const [name, limits, packs] of VARIANTS) {
  describe(`random faults: ${name}`, () => {
    let packed = 0;
    let packReplies = 0;
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
      test(`seed ${seed}`, () => {
        const pair = new Pair(new Random(seed * 7919), limits, packs);
        for (let i = 0; i < STEPS; i++) pair.step(true);
        pair.heal();
        expect(pair.acknowledged).toBeGreaterThan(5);
        packed += pair.packed;
        packReplies += pair.packReplies;
      });
    }
    if (packs !== true) return;
    test("answers came in packs, and some of them together", () => {
      expect(packed).toBeGreaterThan(SEEDS);
      expect(packed).toBeGreaterThan(packReplies);
    });
  });
}
