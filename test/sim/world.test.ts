/** The virtual world keeps its own promises: order, silence, resets, durability. */
import { describe, expect, it } from "vitest";
import type { StoreWriter } from "../../agent/core/store.js";
import { DamagedRow } from "../../agent/store/checked-row.js";
import { drawOptions } from "../../sim/options.js";
import { PairWorld } from "../../sim/pair-world.js";
import { Disk } from "../../sim/world/disk.js";
import { EventQueue } from "../../sim/world/event-queue.js";
import { Machine } from "../../sim/world/machine.js";
import type { Program } from "../../sim/world/machine.js";
import { Network } from "../../sim/world/network.js";
import type { End } from "../../sim/world/network.js";
import { Random } from "../../sim/world/random.js";
import { SerialLine } from "../../sim/world/serial-line.js";
import { World } from "../../sim/world/world.js";

/** A program that only keeps what it is told. */
class Recorder implements Program {
  readonly events: string[] = [];
  text = "";

  onOpen(handle: number, port: string, accepted: boolean): void {
    this.events.push(`open ${handle} ${port} ${accepted}`);
  }
  onDialFailed(port: string): void {
    this.events.push(`failed ${port}`);
  }
  onBytes(_handle: number, bytes: Uint8Array, start: number, end: number): void {
    this.text += Buffer.from(bytes.subarray(start, end)).toString("latin1");
  }
  onDrained(): void {
    this.events.push("drained");
  }
  onClosed(handle: number): void {
    this.events.push(`closed ${handle}`);
  }
  onDatagram(_from: Machine, bytes: Uint8Array): void {
    this.events.push(`datagram ${bytes[0]}`);
  }
  onDatagramRefused(): void {
    this.events.push("refused");
  }
  endTurn(): number {
    return Infinity;
  }
  onGone(): void {}
}

function twoMachines(seed: number): {
  world: World;
  network: Network;
  x: Machine;
  y: Machine;
  px: Recorder;
  py: Recorder;
} {
  const world = new World(seed, false);
  const network = new Network(world, 2);
  const programs: Recorder[] = [];
  const boot = (): Program => {
    const program = new Recorder();
    programs.push(program);
    return program;
  };
  const fail = (_machine: Machine, error: unknown): void => {
    throw error;
  };
  const x = new Machine(world, 0, "x", boot, fail);
  const y = new Machine(world, 1, "y", boot, fail);
  x.start();
  y.start();
  return { world, network, x, y, px: programs[0]!, py: programs[1]! };
}

function bytesOf(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "latin1"));
}

function open(w: ReturnType<typeof twoMachines>): End {
  let end: End | undefined;
  w.network.dial(w.x, w.y, "port", { made: (e) => (end = e), failed: () => {} });
  w.world.runTo(w.world.now + 10);
  expect(end).toBeDefined();
  return end!;
}

describe("world", () => {
  it("event queue: by time, then by order of asking", () => {
    const queue = new EventQueue();
    const random = new Random(3);
    const out: string[] = [];
    const expected: { time: number; order: number }[] = [];
    for (let order = 0; order < 2000; order++) {
      const time = random.below(50);
      expected.push({ time, order });
      queue.push(time, () => out.push(`${time}:${order}`));
    }
    while (queue.size > 0) queue.pop()();
    expected.sort((a, b) => a.time - b.time || a.order - b.order);
    expect(out).toEqual(expected.map((e) => `${e.time}:${e.order}`));
  });

  it("network: bytes arrive whole and in order through odd chunks, clogs and one-way cuts", () => {
    for (let seed = 1; seed <= 30; seed++) {
      const w = twoMachines(seed);
      w.network.oddChunks = 0.7;
      const end = open(w);
      const random = new Random(seed, "test");
      let sent = "";
      for (let i = 0; i < 60; i++) {
        const text = `<${i}${"x".repeat(random.below(30))}>`;
        sent += text;
        const bytes = bytesOf(text);
        end.write(bytes, 0, bytes.length);
        end.flush();
        bytes.fill(0);
        if (random.chance(0.2)) {
          w.network.block(w.x, w.y);
          w.world.after(random.between(1, 50), () => w.network.unblock(w.x, w.y));
        }
        w.world.runTo(w.world.now + random.between(0, 3));
      }
      w.world.runTo(w.world.now + 2000);
      expect(w.py.text).toBe(sent);
      expect(end.pendingBytes).toBe(0);
    }
  });

  it("network: what was written before a close still arrives, then the close", () => {
    const w = twoMachines(5);
    const end = open(w);
    end.write(bytesOf("bye"), 0, 3);
    end.close(false);
    w.world.runTo(w.world.now + 50);
    expect(w.py.text).toBe("bye");
    expect(w.py.events).toContain("closed 1");
    expect(w.px.events).toContain("closed 1");
  });

  it("network: a killed process closes its connections, a machine without power says nothing until it is back", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const w = twoMachines(seed);
      open(w);
      w.y.kill("test");
      w.world.runTo(w.world.now + 50);
      expect(w.px.events).toContain("closed 1");
    }
    const w = twoMachines(7);
    const end = open(w);
    w.y.powerOff("test");
    end.write(bytesOf("?"), 0, 1);
    end.flush();
    w.world.runTo(w.world.now + 3000);
    expect(w.px.events).not.toContain("closed 1");
    w.y.start();
    w.world.runTo(w.world.now + 500);
    expect(w.px.events).toContain("closed 1");
  });

  it("network: a hung process gets everything at once when it is resumed", () => {
    const w = twoMachines(9);
    const end = open(w);
    w.y.hang();
    for (const text of ["a", "b", "c"]) {
      end.write(bytesOf(text), 0, 1);
      end.flush();
      w.world.runTo(w.world.now + 20);
    }
    w.network.datagram(w.x, w.y, bytesOf("\u0005"));
    w.world.runTo(w.world.now + 100);
    expect(w.py.text).toBe("");
    const turns = w.y.turns;
    w.y.resume();
    w.world.runTo(w.world.now + 1);
    expect(w.py.text).toBe("abc");
    expect(w.py.events).toContain("datagram 5");
    expect(w.y.turns).toBe(turns + 1);
  });

  it("network: connecting to nobody is refused at once, to a dead machine only after the limit", () => {
    const w = twoMachines(11);
    w.y.kill("test");
    w.network.dial(w.x, w.y, "port");
    w.world.runTo(w.world.now + 10);
    expect(w.px.events).toEqual(["failed port"]);
    w.network.datagram(w.x, w.y, bytesOf("p"));
    w.world.runTo(w.world.now + 10);
    expect(w.px.events).toContain("refused");
    w.y.powerOff("test");
    w.network.dial(w.x, w.y, "port");
    w.world.runTo(w.world.now + 1000);
    expect(w.px.events).toHaveLength(2);
    w.world.runTo(w.world.now + 2000);
    expect(w.px.events).toHaveLength(3);
  });

  it("disk: a crash keeps what was flushed and some first part of the rest", () => {
    const seen = new Set<number>();
    for (let seed = 1; seed <= 60; seed++) {
      const w = twoMachines(seed);
      const disk = new Disk(w.world, "x");
      const store = disk.mount(w.x);
      let flushed = 0;
      for (let i = 1; i <= 6; i++) {
        store.commit(
          (writer) => writer.put("meta", bytesOf(`k${i}`), bytesOf("v")),
          (error) => {
            expect(error).toBeUndefined();
            flushed = i;
          },
          false,
        );
        if (i === 2) w.world.runTo(w.world.now + 5);
      }
      expect(flushed).toBe(2);
      disk.crash();
      const found = disk.mount(w.x).count("meta");
      expect(found).toBeGreaterThanOrEqual(2);
      seen.add(found);
      for (let i = 1; i <= 6; i++) {
        expect(disk.content.get("meta", bytesOf(`k${i}`)) !== undefined).toBe(i <= found);
      }
    }
    expect(seen.size).toBe(5);
  });

  it("disk: a failed flush fails that commit and all after it", () => {
    const w = twoMachines(3);
    const disk = new Disk(w.world, "x");
    const store = disk.mount(w.x);
    const outcomes: boolean[] = [];
    disk.failNext = true;
    for (let i = 0; i < 3; i++) {
      store.commit(
        (writer) => writer.put("meta", bytesOf(`k${i}`), bytesOf("v")),
        (error) => outcomes.push(error === undefined),
        false,
      );
    }
    w.world.runTo(w.world.now + 50);
    expect(outcomes).toEqual([false, false, false]);
  });

  it("disk: a rotten row is not read, by any way, until it is written again; nothing else is harmed", () => {
    const w = twoMachines(5);
    const disk = new Disk(w.world, "x");
    const store = disk.mount(w.x);
    const put = (key: string): void => {
      const fill = (writer: StoreWriter): void => writer.put("data", bytesOf(key), bytesOf("v"));
      store.commit(fill, () => {}, false);
      w.world.runTo(w.world.now + 20);
    };
    expect(disk.rot("data", new Random(1))).toBe(false);
    put("k");
    put("log");
    expect(disk.rot("log", new Random(1))).toBe(false);
    expect(disk.rot("data", new Random(1))).toBe(true);
    const keys = ["k", "log"];
    const readable = keys.filter((key) => {
      try {
        return store.get("data", bytesOf(key)) !== undefined;
      } catch (error) {
        expect(error).toBeInstanceOf(DamagedRow);
        return false;
      }
    });
    expect(readable).toHaveLength(1);
    const from = new Uint8Array(0);
    expect(() => store.range("data", from, undefined, 9)).toThrow(DamagedRow);
    expect(() => store.snapshot().range("data", from, undefined, 9)).toThrow(DamagedRow);
    for (const key of keys) put(key);
    expect(store.range("data", from, undefined, 9)).toHaveLength(2);
  });

  it("network: a chip that lost its sockets is silent, and resets whoever sends", () => {
    const w = twoMachines(9);
    const near = open(w);
    near.lose();
    w.world.runTo(w.world.now + 50);
    expect(w.px.events.filter((event) => event.startsWith("closed"))).toHaveLength(1);
    expect(w.py.events.filter((event) => event.startsWith("closed"))).toHaveLength(0);
    near.peer.write(bytesOf("late"), 0, 4);
    near.peer.flush();
    w.world.runTo(w.world.now + 50);
    expect(w.px.text).toBe("");
    expect(w.py.events.filter((event) => event.startsWith("closed"))).toHaveLength(1);
  });

  it("serial line: what it carried comes once, and with ghosts what it once carried comes again", () => {
    const w = twoMachines(4);
    const came: string[] = [];
    const line = new SerialLine(
      w.world,
      [
        { machine: w.x, receive: () => {} },
        { machine: w.y, receive: (bytes) => came.push(Buffer.from(bytes).toString("latin1")) },
      ],
      "x",
    );
    const send = (text: string): void => {
      line.send(0, bytesOf(text));
      w.world.runTo(w.world.now + 20);
    };
    send("first");
    send("then");
    expect(came.join("")).toBe("firstthen");
    line.ghosts = 1;
    send("now");
    expect(came.join("")).toBe("firstthennowfirst");
    line.say(0, bytesOf("forged"));
    w.world.runTo(w.world.now + 20);
    expect(came.join("")).toBe("firstthennowfirstforged");
  });

  it("clock: a rate change bends the local clock without a jump", () => {
    const w = twoMachines(1);
    const before = w.x.localNow();
    w.x.setClockRate(0.5);
    expect(w.x.localNow()).toBeCloseTo(before, 9);
    w.world.runTo(w.world.now + 100);
    expect(w.x.localNow()).toBeCloseTo(before + 50, 6);
  });
});

describe("an old board that the servers find out, and not the controller", () => {
  it("is over when the operator has chosen: the pair may wait again (seed 197185)", () => {
    let chosen = 0;
    for (let seed = 1; seed <= 6; seed++) {
      const world = new World(seed, false);
      const pair = new PairWorld(world, drawOptions(world.random.fork("options")));
      world.runTo(2000);
      pair.oldBoardAlone = true;
      const inner = pair as unknown as {
        onAgentNote(index: 0 | 1, event: string, details: object): void;
        choosing: boolean;
        splitFound: boolean;
      };
      const why = "the peer holds another record of epoch 3";
      inner.onAgentNote(0, "stopped", { why });
      expect(inner.choosing).toBe(true);
      while (inner.choosing) world.runTo(world.now + 20);
      if (inner.splitFound) continue;
      chosen++;
      expect(pair.oldBoardAlone).toBe(false);
    }
    expect(chosen).toBeGreaterThan(0);
  });
});
