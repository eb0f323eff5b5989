/**
 * What hal/hal.ts promises, tried on every home: Node in this process, the real engines in theirs. What a home cannot do
 * is skipped with its reason (homes.ts).
 */
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { createSocket } from "node:dgram";
import { existsSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { crc32 } from "node:zlib";
import { copyDir, HOMES, makeDir, sizeOf } from "./homes.js";
import type { HomeEntry, Part, Running } from "./homes.js";
import { Puppeteer, sleep } from "./puppeteer.js";

const HOST = "127.0.0.1";
/** The engines' own sizes, and their neighbours. */
const SIZES = [1, 2, 255, 256, 535, 536, 537, 1500, 4096, 5000, 20_000];

/** `count` bytes that go up by one from `seed`. */
function pattern(seed: number, count: number): Buffer {
  return Buffer.from(Array.from({ length: count }, (_, i) => (seed + i) & 255));
}

/** One client of the puppet's port. */
class Client {
  readonly received: Buffer[] = [];
  ended = false;
  closed = false;

  constructor(readonly socket: Socket) {
    socket.on("data", (bytes: Buffer) => this.received.push(bytes));
    socket.on("error", () => undefined);
    socket.on("end", () => (this.ended = true));
    socket.on("close", () => (this.closed = true));
  }

  static async to(port: number, allowHalfOpen = false): Promise<Client> {
    const socket = connect({ port, host: HOST, allowHalfOpen });
    socket.setNoDelay(true);
    const client = new Client(socket);
    await new Promise<void>((done, fail) => {
      socket.once("connect", done);
      socket.once("error", fail);
    });
    return client;
  }

  bytes(): Buffer {
    return Buffer.concat(this.received);
  }

  count(): number {
    return this.received.reduce((sum, bytes) => sum + bytes.length, 0);
  }
}

function suite(home: HomeEntry): void {
  let dir = "";
  let running: Running;
  let puppet: Puppeteer;
  /** Where the clients of this home go. */
  let port = 0;
  let connections = 0;
  const clients: Client[] = [];

  async function begin(): Promise<void> {
    dir = makeDir();
    running = await home.start(dir);
    puppet = await Puppeteer.take(running.port);
    const server = createServer().listen(0, HOST);
    await new Promise((ready) => server.once("listening", ready));
    const free = (server.address() as { port: number }).port;
    await new Promise((closed) => server.close(closed));
    port = Number(await puppet.ask(`listen ${free} ${home.slots}`));
    expect(port).toBe(free);
  }

  async function finish(): Promise<void> {
    puppet.drop();
    await running.stop();
    rmSync(dir, { recursive: true, force: true });
  }

  beforeAll(begin);
  afterAll(finish);

  afterEach(async ({ task }) => {
    for (const client of clients.splice(0)) client.socket.destroy();
    if (task.result?.state === "fail") {
      // What it has become is unknown: the next test gets a new one, instead of failing for this one's reason.
      console.log(`${home.name}, "${task.name}": it printed\n${running.said().slice(-2000)}`);
      await finish();
      connections = 0;
      await begin();
      return;
    }
    await puppet.until(
      "the end of every connection",
      () => puppet.all("error").length === puppet.all("open").length,
    );
    // A callback from inside a call, one after the last, one that announced nothing.
    expect(puppet.events.filter((text) => /^(inside|late|nothing)\b/.test(text))).toEqual([]);
    expect(running.isOn(), running.said().slice(-1000)).toBe(true);
    puppet.events = [];
  });

  /** A client, and the number that the puppet has for it. */
  async function open(allowHalfOpen = false): Promise<[Client, number]> {
    const number = connections++;
    const client = await Client.to(port, allowHalfOpen);
    clients.push(client);
    await puppet.event(`open ${number}`);
    return [client, number];
  }

  /** What the puppet's callbacks have handed over: how much, and whether it was what was sent. */
  function heard(number: number, sent: Buffer): number {
    let at = 0;
    for (const text of puppet.all(`data ${number}`)) {
      const [count, sum] = text.split(" ").map(Number) as [number, number];
      expect(sum).toBe(crc32(sent.subarray(at, at + count)));
      at += count;
    }
    return at;
  }

  function has(part: Part, name: string, f: () => Promise<void>, timeoutMs = 120_000): void {
    const reason = home.cannot[part];
    if (reason !== undefined) console.log(`${home.name}, ${part}: skipped, ${reason}`);
    test.runIf(reason === undefined)(`${part}: ${name}`, f, timeoutMs);
  }

  describe("TCP", () => {
    test("bytes of every value pass both ways, in order, whatever their number", async () => {
      const [client, number] = await open();
      const sent: Buffer[] = [];
      const expected: Buffer[] = [];
      for (const [i, size] of SIZES.entries()) {
        const bytes = pattern(7 * i, size);
        client.socket.write(bytes);
        sent.push(bytes);
        const all = Buffer.concat(sent);
        await puppet.until("the bytes", () => heard(number, all) === all.length);
        expect(await puppet.ask(`write ${number} ${size} ${3 * i}`)).toMatch(/^\d+ \d+$/);
        expected.push(pattern(3 * i, size));
        const back = Buffer.concat(expected);
        await puppet.until("the bytes back", () => client.count() === back.length);
        expect(client.bytes().equals(back)).toBe(true);
      }
    });

    test("many writes of one turn arrive in order, and the drain is told when nothing is pending", async () => {
      const [client, number] = await open();
      const writes = Array.from({ length: 50 }, (_, i) => [100 + i, i] as const);
      await Promise.all(
        writes.map(([size, seed]) => puppet.ask(`write ${number} ${size} ${seed}`)),
      );
      const expected = Buffer.concat(writes.map(([size, seed]) => pattern(seed, size)));
      await puppet.until("the bytes", () => client.count() === expected.length);
      expect(client.bytes().equals(expected)).toBe(true);
      await puppet.until("the drain", () => true);
      expect(await puppet.ask(`pending ${number}`)).toBe("0");
      // Told only when it is so.
      expect(puppet.all(`writable ${number}`).filter((pending) => pending !== "0")).toEqual([]);
    });

    has(
      "backlog",
      "of a client that does not read: what is pending grows and is known; its drain is told",
      async () => {
        const number = connections++;
        // The system's own buffers hold megabytes, which an interpreter fills slowly; a small window keeps them small.
        const slow = spawn("socat", ["-u", `TCP:${HOST}:${port},rcvbuf=4096`, "-"], {
          stdio: ["ignore", "pipe", "ignore"],
        });
        const received: Buffer[] = [];
        const count = (): number => received.reduce((sum, bytes) => sum + bytes.length, 0);
        await puppet.event(`open ${number}`);
        const written = Number(await puppet.ask(`flood ${number} ${home.floodBytes}`));
        expect(Number(await puppet.ask(`pending ${number}`))).toBeGreaterThan(home.floodBytes);
        const before = puppet.all(`writable ${number}`).length;
        slow.stdout.on("data", (bytes: Buffer) => received.push(bytes));
        await puppet.until("all of it", () => count() === written);
        expect(Buffer.concat(received).equals(pattern(0, written))).toBe(true);
        await puppet.until("the drain", () => puppet.all(`writable ${number}`).length > before);
        expect(await puppet.ask(`pending ${number}`)).toBe("0");
        slow.kill("SIGKILL");
      },
      120_000,
    );

    test("reading off: nothing is handed over, and nothing of it is lost", async () => {
      const [client, number] = await open();
      await puppet.ask(`reading ${number} off`);
      const sent = pattern(1, 1000);
      client.socket.write(sent);
      await sleep(300);
      expect(puppet.all(`data ${number}`)).toEqual([]);
      await puppet.ask(`reading ${number} on`);
      await puppet.until("the bytes", () => heard(number, sent) === sent.length);
      // Off and on again, while it goes on.
      const more = Buffer.concat([sent, pattern(9, 3000)]);
      client.socket.write(more.subarray(1000));
      for (const how of ["off", "on", "off", "on"]) await puppet.ask(`reading ${number} ${how}`);
      await puppet.until("the rest", () => heard(number, more) === more.length);
    });

    has("backpressure", "a sender waits while it is not read from", async () => {
      const [client, number] = await open();
      await puppet.ask(`reading ${number} off`);
      const sent = pattern(0, 16 << 20);
      client.socket.write(sent);
      await sleep(500);
      expect(client.socket.writableLength).toBeGreaterThan(0);
      expect(puppet.all(`data ${number}`)).toEqual([]);
      await puppet.ask(`reading ${number} on`);
      await puppet.until("all of it", () => heard(number, sent) === sent.length);
    });

    test.runIf(home.cannot.backpressure !== undefined)(
      "without backpressure: whoever goes on sending is closed, with the reason",
      async () => {
        const [client, number] = await open();
        await puppet.ask(`reading ${number} off`);
        client.socket.write(pattern(0, 4 << 20));
        expect(await puppet.event(`error ${number}`)).toContain("went on sending");
        expect(puppet.all(`data ${number}`)).toEqual([]);
      },
    );

    test("a client that ends its half: all it sent is handed over, then the end, once, in order", async () => {
      const [client, number] = await open(true);
      const sent = pattern(5, 10_000);
      client.socket.end(sent);
      expect(await puppet.event(`error ${number}`)).toBe("-");
      expect(heard(number, sent)).toBe(sent.length);
      await puppet.until("the end of the other half", () => client.ended);
    });

    test("end: what was written goes out first, and the end is told once", async () => {
      const [client, number] = await open();
      await puppet.ask(`write ${number} 100000 2`);
      await puppet.ask(`end ${number}`);
      await puppet.ask(`end ${number}`);
      await puppet.until("the end", () => client.ended);
      expect(client.bytes().equals(pattern(2, 100_000))).toBe(true);
      expect(await puppet.event(`error ${number}`)).toBe("-");
      await sleep(100);
      expect(puppet.all(`error ${number}`)).toHaveLength(1);
    });

    test("end of a client that neither reads nor ends: it is over after a while", async () => {
      const [client, number] = await open(true);
      client.socket.pause();
      await puppet.ask(`write ${number} 10 0`);
      await puppet.ask(`end ${number}`);
      await puppet.event(`error ${number}`);
    });

    test("a reset is told once, and what is then done with it is no error", async () => {
      const [client, number] = await open();
      client.socket.write("x");
      await puppet.event(`data ${number}`);
      client.socket.resetAndDestroy();
      await puppet.event(`error ${number}`);
      for (const what of [`write ${number} 100 0`, `reading ${number} off`, `end ${number}`])
        expect(await puppet.ask(what)).not.toContain("threw");
      expect(await puppet.ask(`close ${number}`)).toBe("ok");
      await sleep(100);
      expect(puppet.all(`error ${number}`)).toHaveLength(1);
    });

    test("writing while the other side resets ends neither the program nor another connection", async () => {
      const [other, otherNumber] = await open();
      for (let round = 0; round < 5; round++) {
        const [client, number] = await open();
        const pumped = puppet.ask(`pump ${number}`);
        await puppet.until("a first byte", () => client.count() > 0);
        client.socket.resetAndDestroy();
        expect(await pumped).toBe("pumped");
        await puppet.event(`error ${number}`);
      }
      await puppet.ask(`write ${otherNumber} 10 0`);
      await puppet.until("the other's bytes", () => other.count() === 10);
    });

    test("close during a write is at once, twice is once", async () => {
      for (const bytes of [10, 50_000]) {
        const [client, number] = await open();
        client.socket.pause();
        expect(await puppet.ask(`write-close ${number} ${bytes}`)).toBe("ok");
        await puppet.event(`error ${number}`);
        client.socket.resume();
        await puppet.until("the end", () => client.closed);
        expect(client.count()).toBeLessThanOrEqual(bytes);
        expect(puppet.all(`error ${number}`)).toHaveLength(1);
      }
    });

    test("as many connections as there are slots, at once, each with its own bytes, round after round", async () => {
      const many = home.slots > 1 ? home.slots : 40;
      for (let round = 0; round < 3; round++) {
        const some: [Client, number][] = [];
        for (let i = 0; i < many; i++) some.push(await open());
        for (const [, number] of some) await puppet.ask(`echo ${number}`);
        for (const [client, number] of some) client.socket.write(pattern(number, 700));
        await puppet.until("all echoes", () => some.every(([client]) => client.count() === 700));
        for (const [client, number] of some)
          expect(client.bytes().equals(pattern(number, 700))).toBe(true);
        for (const [client] of some) client.socket.destroy();
        for (const [, number] of some) await puppet.event(`error ${number}`);
      }
    });

    has("many connections", "400 come and go, and the next is served", async () => {
      const some: Client[] = [];
      const first = connections;
      for (let i = 0; i < 400; i++) some.push(await Client.to(port));
      connections += 400;
      clients.push(...some);
      await puppet.event(`open ${first + 399}`);
      for (const [i, client] of some.entries()) {
        if (i % 2 === 0) client.socket.destroy();
        else client.socket.resetAndDestroy();
      }
      await puppet.until("all ends", () => puppet.all("error").length === 400);
      const [client, number] = await open();
      await puppet.ask(`echo ${number}`);
      client.socket.write("hello");
      await puppet.until("the echo", () => client.bytes().toString() === "hello");
    });

    has("port in use", "is said by its name, and any free port can be asked for", async () => {
      expect(await puppet.ask(`listen ${port} 1`)).toMatch(/^failed .*EADDRINUSE/);
      const free = Number(await puppet.ask("listen 0 1"));
      expect(free).toBeGreaterThan(1023);
      const client = await Client.to(free);
      clients.push(client);
      await puppet.event(`open ${connections++}`);
    });
  });

  describe("UDP", () => {
    test("datagrams of every byte go to one address and come from it alone, until it is closed", async () => {
      const server = createSocket("udp4");
      const stranger = createSocket("udp4");
      await new Promise<void>((done) => server.bind(0, HOST, done));
      const got: Buffer[] = [];
      let from = { address: "", port: 0 };
      server.on("message", (bytes, sender) => {
        got.push(bytes);
        from = sender;
      });
      const number = await puppet.ask(`udp ${HOST} ${server.address().port}`);
      const bytes = pattern(0, 500);
      await puppet.until("a datagram", () => {
        // One that is lost is not sent again by anybody else.
        if (got.length === 0) void puppet.ask(`send ${number} ${bytes.toString("hex")}`);
        return got.length > 0;
      });
      expect(got[0]!.equals(bytes)).toBe(true);
      stranger.send("of a stranger", from.port, from.address);
      for (const size of [1, 500]) server.send(pattern(3, size), from.port, from.address);
      await puppet.until("both", () => puppet.all(`datagram ${number}`).length === 2);
      expect(puppet.all(`datagram ${number}`).sort()).toEqual(
        [1, 500].map((size) => pattern(3, size).toString("hex")).sort(),
      );
      expect(await puppet.ask(`udp-close ${number}`)).toBe("ok");
      server.send("late", from.port, from.address);
      expect(await puppet.ask(`send ${number} 00`)).toBe("ok");
      await sleep(200);
      expect(puppet.all("datagram")).toHaveLength(2);
      server.close();
      stranger.close();
    });

    has("refused datagrams", "are told", async () => {
      const server = createSocket("udp4");
      await new Promise<void>((done) => server.bind(0, HOST, done));
      const { port: closed } = server.address();
      await new Promise<void>((done) => server.close(done));
      const number = await puppet.ask(`udp ${HOST} ${closed}`);
      await puppet.until("a refusal", () => {
        void puppet.ask(`send ${number} 00`);
        return puppet.all(`refused ${number}`).length > 0;
      });
      await puppet.ask(`udp-close ${number}`);
    });
  });

  describe("clock and turns", () => {
    test("the clock goes forward alone, as fast as this machine's", async () => {
      const times: number[] = [];
      const began = performance.now();
      for (let i = 0; i < 50; i++) times.push(Number(await puppet.ask("now")));
      await sleep(300);
      times.push(Number(await puppet.ask("now")));
      const took = performance.now() - began;
      for (const [i, time] of times.entries())
        if (i > 0) expect(time).toBeGreaterThanOrEqual(times[i - 1]!);
      const told = times.at(-1)! - times[0]!;
      // Nothing is asserted of how long it took, only that both clocks tell the same.
      expect(told).toBeLessThan(took + 20);
      expect(told).toBeGreaterThan(280);
    });

    test("a wake comes once and not too early; the last one asked for replaces the others", async () => {
      const asked = Number(await puppet.ask("wake 60000 1 150"));
      const woke = Number(await puppet.event("woke"));
      expect(woke - asked).toBeGreaterThanOrEqual(148);
      await sleep(100);
      expect(puppet.all("woke")).toHaveLength(1);
    });

    test("a wake asked for at the end of a long turn does not come too early either", async () => {
      const before = puppet.all("woke").length;
      const asked = Number(await puppet.ask("long-turn-wake 40 60"));
      await puppet.until("a wake", () => puppet.all("woke").length === before + 1);
      const woke = Number(puppet.all("woke").at(-1));
      expect(woke - asked).toBeGreaterThanOrEqual(58);
    });

    test("the end of a turn comes once, however often it is asked for, and later", async () => {
      expect(await puppet.ask("turn 5")).toBe("0");
      await puppet.event("turn");
      await sleep(50);
      expect(puppet.all("turn")).toHaveLength(1);
      expect(await puppet.ask("turn 1")).toBe("0");
      await puppet.until("the next", () => puppet.all("turn").length === 2);
    });
  });

  describe("digests", () => {
    test("HMAC-SHA256 and CRC32 are those of everybody else, at every length around a block", async () => {
      const hex = (bytes: Buffer): string => (bytes.length === 0 ? "-" : bytes.toString("hex"));
      for (const keyBytes of [1, 32, 64]) {
        const key = pattern(200, keyBytes);
        for (const size of [0, 1, 54, 55, 56, 63, 64, 65, 119, 120, 200]) {
          const data = pattern(size, size);
          expect(await puppet.ask(`hmac ${hex(key)} ${hex(data)}`)).toBe(
            createHmac("sha256", key).update(data).digest("hex"),
          );
          if (size > 0) expect(await puppet.ask(`crc32 ${hex(data)}`)).toBe(String(crc32(data)));
        }
      }
    });
  });

  describe("flash", () => {
    const recordOf = (n: number): string => pattern(n * 31, home.recordBytes).toString("hex");

    test("is blank at first, takes one record at a time, and holds the newest over round after round", async () => {
      expect(await puppet.ask("flash-open")).toBe("none");
      expect(await puppet.ask(`flash-write ${recordOf(1)} twice`)).toBe("written");
      expect(puppet.all("flash")).toEqual(["one at a time"]);
      for (let n = 2; n <= 2 * home.flashRound; n++) {
        expect(await puppet.ask(`flash-write ${recordOf(n)}`)).toBe("written");
        if (n % 7 === 0 || n < 12) expect(await puppet.ask("flash-open")).toBe(recordOf(n));
      }
    });

    test("a power cut at any byte of a write leaves the record or the one before it, and it goes on from there", async () => {
      const blank = running
        .readFlash()
        .map((bytes) =>
          home.blankByte === undefined ? undefined : Buffer.alloc(bytes!.length, home.blankByte),
        );
      running.writeFlash(blank);
      expect(await puppet.ask("flash-open")).toBe("none");
      const sample = new Set(
        [1, 2, 3, home.flashRound / 2 - 1, home.flashRound / 2, home.flashRound].flatMap((n) => [
          Math.floor(n) - 1,
          Math.floor(n),
        ]),
      );
      const isShort = home.flashRound < 20;
      let cuts = 0;
      for (let n = 1; n <= home.flashRound; n++) {
        const before = running.readFlash();
        expect(await puppet.ask(`flash-write ${recordOf(n)}`)).toBe("written");
        if (!isShort && !sample.has(n)) continue;
        const after = running.readFlash();
        const allowed = [n === 1 ? "none" : recordOf(n - 1), recordOf(n)];
        for (const cut of home.cuts(before, after)) {
          running.writeFlash(cut);
          expect(allowed, `write ${n}, cut ${cuts}`).toContain(await puppet.ask("flash-open"));
          if (cuts++ % 9 !== 4) continue;
          for (let more = 1; more < 4; more++)
            expect(await puppet.ask(`flash-write ${recordOf(100 + more)}`)).toBe("written");
          expect(await puppet.ask("flash-open")).toBe(recordOf(103));
        }
        running.writeFlash(after);
        expect(await puppet.ask("flash-open")).toBe(recordOf(n));
      }
      console.log(`${home.name}, flash: cut at ${cuts} bytes`);
      expect(cuts).toBeGreaterThan(150);
    }, 300_000);

    has(
      "flash: damage",
      "a bit lost in a record that is not the newest is damage, and a new record heals it",
      async () => {
        for (let n = 1; n <= 3; n++)
          expect(await puppet.ask(`flash-write ${recordOf(50 + n)}`)).toBe("written");
        const image = running.readFlash();
        const old = Buffer.from(recordOf(52), "hex");
        for (const bytes of image) {
          const at = bytes!.indexOf(old);
          if (at >= 0) bytes![at + 5]! &= ~bytes![at + 5]! >>> 1;
          if (at >= 0) bytes![at + 5]! = 0;
        }
        running.writeFlash(image);
        expect(await puppet.ask("flash-open")).toMatch(/^damage ./);
        expect(await puppet.ask(`flash-write ${recordOf(60)}`)).toBe("written");
        expect(await puppet.ask("flash-open")).toBe(recordOf(60));
      },
    );

    has("flash: a board of its own", "the files are void on another one", async () => {
      expect(await puppet.ask("flash-open")).toBe(recordOf(60));
      const elsewhere = copyDir(dir);
      const other = await home.start(elsewhere);
      const strings = await Puppeteer.take(other.port);
      expect(await strings.ask("flash-open")).toMatch(/^damage .*another/);
      strings.drop();
      await other.stop();
      rmSync(elsewhere, { recursive: true, force: true });
    });
  });

  describe("serial line", () => {
    has(
      "serial",
      "bytes of every value pass both ways; a line nobody reads refuses, it does not wait",
      async () => {
        const [ours, theirs] = [join(dir, "ours"), join(dir, "theirs")];
        const cable = spawn("socat", [
          `pty,raw,echo=0,b115200,link=${ours}`,
          `pty,raw,echo=0,b115200,link=${theirs}`,
        ]);
        await puppet.until("the cable", () => existsSync(ours) && existsSync(theirs));
        // What a person does before an engine starts that cannot do it (hal/jerryscript/serial.ts).
        await new Promise((done) =>
          spawn("stty", ["-F", ours, "115200", "raw", "-echo", "min", "0", "time", "1"]).once(
            "exit",
            done,
          ),
        );
        const peer = spawn("socat", ["-u", `${theirs},raw,echo=0`, "-"], {
          stdio: ["ignore", "pipe", "ignore"],
        });
        const got: Buffer[] = [];
        peer.stdout.on("data", (bytes: Buffer) => got.push(bytes));
        const write = (bytes: Buffer): Promise<unknown> =>
          new Promise((done) => {
            const one = spawn("socat", ["-u", "-", `${theirs},raw,echo=0`], {
              stdio: ["pipe", "ignore", "ignore"],
            });
            one.once("exit", done);
            one.stdin.end(bytes);
          });
        try {
          expect(await puppet.ask(`serial-open ${ours} 115200`)).toBe("ok");
          const bytes = pattern(0, 1000);
          // A home may open the line a little later.
          await puppet.until("the line", () => {
            if (got.length === 0)
              void puppet.ask(`serial-write ${Buffer.from("!").toString("hex")}`);
            return got.length > 0;
          });
          await sleep(300);
          got.splice(0);
          expect(await puppet.ask(`serial-write ${bytes.toString("hex")}`)).toBe("taken");
          await puppet.until("the bytes", () => Buffer.concat(got).length === bytes.length);
          expect(Buffer.concat(got).equals(bytes)).toBe(true);
          await write(bytes);
          await puppet.until(
            "the bytes back",
            () => puppet.all("serial").join("").length === 2 * bytes.length,
          );
          expect(puppet.all("serial").join("")).toBe(bytes.toString("hex"));
          peer.kill("SIGSTOP");
          let answer = "taken";
          for (let i = 0; i < 400 && answer === "taken"; i++)
            answer = await puppet.ask(`serial-write ${bytes.toString("hex")}`);
          expect(answer).toBe("full");
          // And the home is still there.
          expect(await puppet.ask("now")).toMatch(/^\d/);
          expect(await puppet.ask("serial-close")).toBe("ok");
          expect(await puppet.ask("serial-write 00")).toBe("full");
        } finally {
          peer.kill("SIGKILL");
          cable.kill("SIGKILL");
        }
      },
    );
  });

  // Before the console, which on Espruino takes what is printed.
  describe("watchdog", () => {
    has("watchdog", "each kick reaches the hardware", async () => {
      expect(await puppet.ask("watchdog")).toBe("ok");
      const kicks = (): number =>
        Math.max(sizeOf(join(dir, "watchdog")), running.said().split("<kick>").length - 1);
      await puppet.ask("kick 3");
      await puppet.until("three kicks", () => kicks() === 3);
      await sleep(100);
      expect(kicks()).toBe(3);
    });
  });

  describe("console", () => {
    has(
      "console",
      "a line comes as typed, backspace takes back, much text does not hold up",
      async () => {
        expect(await puppet.ask("console-open")).toBe("ok");
        let said = (): string => running.said();
        let type = (text: string): void => running.type(text);
        let socket: Socket | undefined;
        if (running.consolePort !== 0) {
          const client = await Client.to(running.consolePort);
          ({ socket } = client);
          said = () => client.bytes().toString("latin1");
          type = (text) => void client.socket.write(text);
        }
        type("statux\x08s\r");
        expect(await puppet.event("line")).toBe("status");
        await puppet.until("the echo", () => said().includes("\b \bs"));
        type("x".repeat(300) + "\n");
        await puppet.until("the second line", () => puppet.all("line").length === 2);
        expect(puppet.all("line")[1]).toBe("x".repeat(200));
        expect(await puppet.ask("console-write 100")).toBe("ok");
        await puppet.until("the text", () => said().includes("line 99 of the console\r\n"));
        socket?.destroy();
      },
    );
  });

  describe("digital lines", () => {
    has(
      "digital",
      "an output has its level from its first moment on, and what is written reads back",
      async () => {
        const pins = running.pins!;
        expect(await puppet.ask("pin-open B1 output 1")).toBe("ok");
        expect(pins.written).toEqual(["B1 1"]);
        expect(await puppet.ask("pin-read B1")).toBe("1");
        expect(await puppet.ask("pin-write B1 0")).toBe("ok");
        expect(pins.written).toEqual(["B1 1", "B1 0"]);
        expect(await puppet.ask("pin-read B1")).toBe("0");
      },
    );

    has("digital", "an input reads what is put there from outside", async () => {
      const pins = running.pins!;
      expect(await puppet.ask("pin-open B2 input 0")).toBe("ok");
      expect(await puppet.ask("pin-read B2")).toBe("0");
      pins.set("B2", true);
      expect(await puppet.ask("pin-read B2")).toBe("1");
      pins.set("B2", false);
      expect(await puppet.ask("pin-read B2")).toBe("0");
      // Nothing is put out on it.
      expect(pins.written.filter((one) => one.startsWith("B2"))).toEqual([]);
    });
  });
}

for (const home of HOMES) {
  if (home.absent !== "") console.log(`test/hal/conformance: ${home.name} skipped, ${home.absent}`);
  describe.runIf(home.absent === "")(`the hardware of ${home.name}`, () => suite(home));
}
