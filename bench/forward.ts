/**
 * What one forwarded command costs the controller's core: clients' bytes in, frames out, reply frames in, replies
 * out, without sockets. `node --import ./sim/ts-node.mjs bench/forward.ts`
 *
 * The servers are an echo: every turn they answer what was sent to them in the turn before.
 */
import { defaultTimings } from "../firmware/core/config.js";
import { createForwarder } from "../firmware/core/forward.js";
import { defaultLimits } from "../firmware/core/limits.js";
import { HEADER_BYTES, readU32 } from "../protocol/frame.js";
import type { ServerIndex } from "../protocol/record.js";

const LINKS = 1000;

function command(...args: string[]): Uint8Array {
  const text = `*${args.length}\r\n` + args.map((arg) => `$${arg.length}\r\n${arg}\r\n`).join("");
  return new Uint8Array(Buffer.from(text));
}

function measure(title: string, one: Uint8Array, pipeline: number, reply: string): void {
  const ids: [number[], number[]] = [[], []];
  let out = 0;
  const forwarder = createForwarder(
    {
      servers: [
        { id: "a", preset: true },
        { id: "b", preset: false },
      ],
      key: new Uint8Array(16),
      clientKey: undefined,
      clientPassword: undefined,
      balancing: "expected-delay",
      frameMax: 65536,
      idMax: 0xfff00000,
      seed: new Uint8Array(0),
      timings: defaultTimings(),
      limits: defaultLimits(),
    },
    {
      send(connection, bytes, start, end) {
        out += end - start;
        if (connection >= LINKS)
          ids[(connection - LINKS) as ServerIndex].push(readU32(bytes, start + 4));
      },
      backlog: () => 0,
      close: () => undefined,
      setReading: () => undefined,
      poll: () => undefined,
      persist: () => undefined,
      hmac: () => new Uint8Array(32),
      note: () => undefined,
      reset(reason) {
        throw new Error(reason);
      },
    },
    { onFirstPassed: () => undefined, onPeerFault: () => undefined, onIdsUsedUp: () => undefined },
  );
  forwarder.setSession(new Uint8Array(8));
  forwarder.setRoute({ epoch: 1, open: true, primary: 0, readable: [true, true], why: "" }, 0);
  for (const server of [0, 1] as const) {
    forwarder.linkUp(server, LINKS + server, 65536, 8 << 20, 0);
    forwarder.onReplyEpoch(server, 1, 0);
  }
  const clients = 50;
  for (let i = 0; i < clients; i++) forwarder.clientOpen(i, "redis", 0);
  const chunk = new Uint8Array(one.length * pipeline);
  for (let i = 0; i < pipeline; i++) chunk.set(one, i * one.length);
  const answer = new Uint8Array(HEADER_BYTES + reply.length);
  answer.set(Buffer.from(reply), HEADER_BYTES);
  let now = 0;
  const turn = (): void => {
    now += 0.1;
    for (let i = 0; i < clients; i++) forwarder.clientBytes(i, chunk, 0, chunk.length, now);
    for (const server of [0, 1] as const) {
      const mine = ids[server];
      for (let i = 0; i < mine.length; i++) {
        forwarder.onReply(server, 0, mine[i]!, answer, HEADER_BYTES, answer.length, now);
      }
      mine.length = 0;
    }
  };
  const turns = Math.ceil(400000 / (clients * pipeline));
  for (let i = 0; i < turns; i++) turn();
  let best = Infinity;
  for (let round = 0; round < 5; round++) {
    // CPU time, not the clock: the machine may be shared.
    const from = process.cpuUsage();
    for (let i = 0; i < turns; i++) turn();
    const spent = process.cpuUsage(from);
    best = Math.min(best, (spent.user + spent.system) / 1000 / (turns * clients * pipeline));
  }
  process.stdout.write(
    `${title.padEnd(28)} ${(best * 1e6).toFixed(0).padStart(5)} ns a command` +
      `   (${Math.round(out / 1e6)} MB sent, ${forwarder.counters().memoryBytes >> 10} KB held)\n`,
  );
}

const value = `$16\r\n${"v".repeat(16)}\r\n`;
measure("GET, one at a time", command("GET", "key:000000001234"), 1, value);
measure("GET, 16 in a pipeline", command("GET", "key:000000001234"), 16, value);
measure("SET, one at a time", command("SET", "key:000000001234", "v".repeat(16)), 1, "+OK\r\n");
measure("SET, 16 in a pipeline", command("SET", "key:000000001234", "v".repeat(16)), 16, "+OK\r\n");
measure("SET of 4 KB", command("SET", "key:000000001234", "v".repeat(4096)), 1, "+OK\r\n");
measure("PING, answered here", command("PING"), 1, "");
