/**
 * Pipelines that mix reads and writes, over several clients, with link losses, refusals, role changes and failovers
 * inside. The model servers keep the rules of the real ones as far as the forward path can see them; what
 * the clients receive is checked against what may be: replies in the order of requests, no stale read, each write
 * run once, nothing lost, nothing answered twice.
 */
import { describe, expect, test } from "vitest";
import { OUTCOME_ANSWER, OUTCOME_REFUSED } from "../../protocol/frame.js";
import type { ServerIndex } from "../../protocol/record.js";
import {
  configOf,
  isOrdered,
  isQueryFrame,
  resp,
  World,
  type Arrived,
  type ModelClient,
} from "./world.js";

const KEYS = ["k0", "k1", "k2"];

const TRACE = process.env["FORWARD_TRACE"] !== undefined;
/** With FORWARD_TRACE=1 FORWARD_FIRST=SEED FORWARD_SEEDS=1 a run is told line by line. */
function trace(...words: unknown[]): void {
  if (TRACE) process.stderr.write(`${words.join(" ")}\n`);
}

function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

interface Value {
  version: number;
  token: string;
}

interface Pending {
  arrived: Arrived;
  reply: string | undefined;
  /** Log length at which the reply may be released. */
  needs: number;
}

type Inbound = { record: Route } | { arrived: Arrived };
interface Route {
  epoch: number;
  primary: ServerIndex;
  both: boolean;
}

/** One server: what it holds, what it has been told, and what it has yet to answer. */
class ModelServer {
  store = new Map<string, Value>();
  numbers = new Map<number, string>();
  tokens = new Set<string>();
  /** Entries of writes run here, and how many of them the other holds too. */
  entries: { number: number; reply: string; values: [string, Value][] }[] = [];
  confirmed = 0;
  record: Route = { epoch: 1, primary: 0, both: true };
  inbound: Inbound[] = [];
  pending: Pending[] = [];
  outbound: { epoch: number; id: number; reply: string; flags: number }[] = [];
  /** Refuses everything: it is ahead of its stream, or not ready. Ends only when no refusal is under way. */
  refusing = false;
  alive = true;
  /** As standby: brought in line with the primary in this epoch (rule 8), so that it may be read. */
  inSession = true;

  constructor(readonly index: ServerIndex) {}

  get isPrimary(): boolean {
    return this.record.primary === this.index;
  }

  get log(): number {
    return this.entries.length;
  }

  /** Applies what the other has beyond this one's own end. */
  follow(other: ModelServer): void {
    for (const entry of other.entries.slice(this.log)) {
      for (const [key, value] of entry.values) {
        this.store.set(key, value);
        this.tokens.add(value.token);
      }
      this.numbers.set(entry.number, entry.reply);
      this.entries.push(entry);
    }
    this.confirmed = this.log;
  }

  copyOf(other: ModelServer): void {
    this.store = new Map(other.store);
    this.numbers = new Map(other.numbers);
    this.tokens = new Set(other.tokens);
    this.entries = other.entries.slice();
    this.confirmed = this.log;
  }

  adopt(record: Route): void {
    if (record.epoch <= this.record.epoch) return;
    const stays = this.isPrimary && record.primary === this.index;
    this.record = record;
    this.inSession = false;
    // Whoever is not the primary before and after drops what it has not answered.
    if (!stays) this.pending = [];
  }

  dropLink(): void {
    this.inbound = [];
    this.pending = [];
    this.outbound = [];
    this.refusing = false;
  }
}

class Model {
  readonly servers = [new ModelServer(0), new ModelServer(1)] as const;
  /** The two reach each other. */
  peers = true;
  inSync = true;
  route: Route = { epoch: 1, primary: 0, both: true };

  constructor(
    readonly world: World,
    readonly random: (below: number) => number,
  ) {
    world.onArrival = (link, arrived) => {
      this.servers[link.server].inbound.push({ arrived });
      const what = arrived.commands.map((args) => args.join(" ")).join("; ");
      trace(`  to ${link.server} in epoch ${arrived.epoch}: ${arrived.id} ${what}`);
    };
  }

  get primary(): ModelServer {
    return this.servers[this.route.primary];
  }
  get other(): ModelServer {
    return this.servers[1 - this.route.primary]!;
  }

  execute(server: ModelServer, args: string[]): string {
    const [name, key, token] = args as [string, string, string];
    if (name.startsWith("GET")) {
      const value = server.store.get(key);
      const text = `${token}|${value?.version ?? 0}|${value?.token ?? ""}`;
      return `$${text.length}\r\n${text}\r\n`;
    }
    if (server.tokens.has(token)) throw new Error(`${token} was run twice`);
    server.tokens.add(token);
    const version = (server.store.get(key)?.version ?? 0) + 1;
    trace(
      `  run at ${server.index} of epoch ${server.record.epoch}: ${token} is ${key} ${version}`,
    );
    server.store.set(key, { version, token });
    return `+${token}|${version}\r\n`;
  }

  /** A server takes the next thing from its link. */
  process(server: ModelServer): void {
    const next = server.inbound.shift();
    if (next === undefined || !server.alive) return;
    if ("record" in next) {
      server.adopt(next.record);
      return;
    }
    const { arrived } = next;
    const refuse =
      arrived.epoch !== server.record.epoch ||
      (!server.isPrimary && !(isQueryFrame(arrived) && server.inSession)) ||
      server.refusing;
    if (refuse) {
      server.pending.push({ arrived, reply: undefined, needs: -1 });
      return;
    }
    if (isQueryFrame(arrived)) {
      const reply = this.execute(server, arrived.args);
      server.pending.push({ arrived, reply, needs: server.log });
      return;
    }
    let reply = server.numbers.get(arrived.number);
    if (reply === undefined) {
      const parts = arrived.commands.map((args) => this.execute(server, args));
      reply =
        arrived.commands.length > 1 || (arrived.flags & 0x20) !== 0
          ? `*${parts.length}\r\n${parts.join("")}`
          : parts[0]!;
      const values: [string, Value][] = [];
      for (const [name, key] of arrived.commands) {
        if (name === "SET") values.push([key!, server.store.get(key!)!]);
      }
      server.numbers.set(arrived.number, reply);
      server.entries.push({ number: arrived.number, reply, values });
    }
    server.pending.push({ arrived, reply, needs: server.log });
    this.replicate();
  }

  replicate(): void {
    const { primary, other } = this;
    const bound =
      primary.record.epoch === this.route.epoch && other.record.epoch === this.route.epoch;
    const behind = !other.inSession || other.log !== primary.log;
    if (behind && this.peers && this.inSync && bound && primary.alive && other.alive) {
      if (other.inSession) other.follow(primary);
      else other.copyOf(primary);
      other.inSession = true;
      primary.confirmed = primary.log;
    }
    for (const server of this.servers) {
      if (server.isPrimary && !server.record.both) server.confirmed = server.log;
    }
  }

  /** A server answers one command that may be answered. */
  answer(server: ModelServer): void {
    if (!server.alive || this.world.links[server.index] === undefined) return;
    const may = server.pending.filter((one, at) => {
      if (isOrdered(one.arrived) && at > 0) return false;
      return one.needs <= server.confirmed || !server.isPrimary || one.reply === undefined;
    });
    if (may.length === 0) return;
    const one = may[this.random(may.length)]!;
    server.pending.splice(server.pending.indexOf(one), 1);
    server.outbound.push({
      epoch: server.record.epoch,
      id: one.arrived.id,
      reply: one.reply ?? "\u0001refused",
      flags: one.reply === undefined ? OUTCOME_REFUSED : OUTCOME_ANSWER,
    });
  }

  /** A reply reaches the controller. */
  deliver(server: ModelServer): void {
    if (server.inbound.length + server.pending.length + server.outbound.length === 0) {
      server.refusing = false;
    }
    const next = server.outbound.shift();
    if (next === undefined || this.world.links[server.index] === undefined) return;
    this.world.forwarder.onReplyEpoch(server.index, next.epoch, this.world.now);
    trace(`  from ${server.index} of epoch ${next.epoch}: ${next.id}`, JSON.stringify(next.reply));
    this.world.reply(server.index, next.id, next.reply, next.flags);
  }

  linkDown(index: ServerIndex): void {
    trace("== link down", index);
    this.world.linkDown(index);
    this.servers[index].dropLink();
  }

  linkUp(index: ServerIndex): void {
    if (this.world.links[index] !== undefined || !this.servers[index].alive) return;
    // The handshake carries the record before any command.
    this.servers[index].inbound.push({ record: this.route });
    this.world.linkUp(index);
  }

  /** The control path writes a record: closed for a while, then told, then open. */
  writeRecord(
    primary: ServerIndex,
    both: boolean,
    readable: [boolean, boolean],
    between: () => void,
  ): void {
    this.world.setRoute({ open: false }, false);
    between();
    const epoch = this.route.epoch + 1;
    this.route = { epoch, primary, both };
    for (const server of this.servers) {
      if (this.world.links[server.index] !== undefined) server.inbound.push({ record: this.route });
    }
    trace("== record", epoch, "primary", primary, both ? "both" : "solo", readable);
    this.world.setRoute({ epoch, primary, readable, open: true }, false);
  }
}

interface Asked {
  kind: "GET" | "SET" | "PING" | "EXEC";
  key: string;
  token: string;
  /** The key's newest version anyone had seen when this was asked. */
  floor: number;
  inner: Asked[];
}

class Client {
  readonly asked: Asked[] = [];
  /** Bytes received and not yet understood begin here. */
  at = 0;
  /** Newest version this connection has read or written, by key, in the order of its requests. */
  readonly seen = new Map<string, number>();

  constructor(readonly model: ModelClient) {}
}

class Checker {
  readonly clients: Client[] = [];
  readonly floor = new Map<string, number>();
  readonly tokenOf = new Map<string, string>();
  readonly acknowledged = new Map<string, Value>();
  readonly surelyNot = new Set<string>();
  answered = 0;
  errors = 0;
  unknown = 0;

  take(client: Client): void {
    const text = client.model.received;
    while (client.at < text.length) {
      const end = this.replyEnd(text, client.at);
      const reply = text.slice(client.at, end);
      client.at = end;
      const asked = client.asked.shift();
      if (asked === undefined) throw new Error(`answered twice: ${reply}`);
      this.answered += 1;
      const number = client.model.connection;
      trace(`client ${number}`, asked.kind, asked.key, asked.token, "->", JSON.stringify(reply));
      this.check(client, asked, reply);
    }
  }

  private replyEnd(text: string, at: number): number {
    const lineEnd = text.indexOf("\r\n", at);
    if (lineEnd < 0) throw new Error("half a reply");
    const count = Number(text.slice(at + 1, lineEnd));
    if (text[at] === "$") return count < 0 ? lineEnd + 2 : lineEnd + 2 + count + 2;
    if (text[at] !== "*") return lineEnd + 2;
    let end = lineEnd + 2;
    for (let i = 0; i < count; i++) end = this.replyEnd(text, end);
    return end;
  }

  private check(client: Client, asked: Asked, reply: string): void {
    if (reply[0] === "-") {
      this.errors += 1;
      const surelyNot = /^-(CLUSTERDOWN|BUSY) /.test(reply);
      if (!surelyNot && !reply.startsWith("-OUTCOMEUNKNOWN ")) throw new Error(reply);
      if (!surelyNot) this.unknown += 1;
      if (surelyNot) {
        for (const one of [asked, ...asked.inner]) {
          if (one.kind === "SET") this.surelyNot.add(one.token);
        }
      }
      return;
    }
    if (asked.kind === "PING") {
      expect(reply).toBe(`$${asked.token.length}\r\n${asked.token}\r\n`);
    } else if (asked.kind === "EXEC") {
      let at = reply.indexOf("\r\n") + 2;
      for (const one of asked.inner) {
        const end = this.replyEnd(reply, at);
        this.check(client, one, reply.slice(at, end));
        at = end;
      }
      expect(at).toBe(reply.length);
    } else {
      const body = asked.kind === "GET" ? reply.split("\r\n")[1]! : reply.slice(1, -2);
      const [token, versionText, valueToken] = body.split("|") as [string, string, string?];
      if (token !== asked.token)
        throw new Error(`${asked.kind} ${asked.token} was answered ${body}`);
      const version = Number(versionText);
      const value = asked.kind === "SET" ? token : valueToken!;
      if (version < asked.floor) {
        throw new Error(
          `stale: ${asked.kind} ${asked.key} gave ${body}, ${asked.floor} was known before`,
        );
      }
      const known = this.tokenOf.get(`${asked.key} ${version}`);
      if (version > 0 && known !== undefined && known !== value) {
        throw new Error(`version ${version} of ${asked.key} was ${known} and is ${value}`);
      }
      this.tokenOf.set(`${asked.key} ${version}`, value);
      const before = client.seen.get(asked.key) ?? 0;
      if (asked.kind === "SET" ? version <= before : version < before) {
        throw new Error(`out of order on one connection: ${body} after version ${before}`);
      }
      client.seen.set(asked.key, version);
      if (asked.kind === "SET") this.acknowledged.set(token, { version, token: asked.key });
      if (version > (this.floor.get(asked.key) ?? 0)) this.floor.set(asked.key, version);
    }
  }
}

interface Sum {
  answered: number;
  errors: number;
  unknown: number;
  failovers: number;
}

/** @param reachable a primary can be reached within holdMs, servers refuse nothing for long, and no queue is full */
function run(seed: number, steps: number, reachable: boolean): Sum {
  const random = randomFrom(seed);
  let failovers = 0;
  const config = reachable
    ? configOf({ limits: { inFlightMax: 256 } })
    : configOf({
        idMax: seed % 5 === 0 ? 400 : 0xfff00000,
        limits: {
          inFlightMax: seed % 3 === 0 ? 8 : 256,
          heldBytesMax: seed % 4 === 0 ? 2000 : 16 << 20,
        },
        balancing: seed % 2 === 0 ? "expected-delay" : "reported-load",
      });
  const world = new World(config).begin();
  const model = new Model(world, random);
  const checker = new Checker();
  let tokens = 0;
  let idsUsedUp = 0;

  const ask = (client: Client): void => {
    if (reachable && client.asked.length > 40) return;
    const chunks: Uint8Array[] = [];
    const count = 1 + random(random(4) === 0 ? 12 : 3);
    for (let i = 0; i < count; i++) {
      const key = KEYS[random(KEYS.length)]!;
      const token = `t${tokens++}`;
      const floor = checker.floor.get(key) ?? 0;
      const one = (kind: Asked["kind"], inner: Asked[] = []): Asked => ({
        kind,
        key,
        token,
        floor,
        inner,
      });
      const dice = random(20);
      if (dice < 9) {
        client.asked.push(one("GET"));
        chunks.push(resp("GET", key, token));
      } else if (dice < 17) {
        client.asked.push(one("SET"));
        chunks.push(resp("SET", key, token));
      } else if (dice < 19) {
        client.asked.push(one("PING"));
        chunks.push(resp("PING", token));
      } else {
        const get = { ...one("GET"), token: `${token}g` };
        // MULTI and its commands are answered at once, in their turn.
        const immediate = (text: string): Asked => ({ ...one("PING"), token: text });
        client.asked.push(immediate("OK"), immediate("QUEUED"), immediate("QUEUED"));
        client.asked.push(one("EXEC", [one("SET"), get]));
        chunks.push(
          resp("MULTI"),
          resp("SET", key, token),
          resp("GETRANGE", key, get.token, "0"),
          resp("EXEC"),
        );
      }
    }
    const all = Buffer.concat(chunks);
    for (let at = 0; at < all.length;) {
      const size = random(3) === 0 ? 1 + random(20) : all.length;
      world.send(client.model, all.subarray(at, at + size));
      at += size;
    }
  };

  const client = (): Client => {
    const open = checker.clients.filter((one) => one.model.closed === undefined);
    if (open.length === 0 || (open.length < 6 && random(10) === 0)) {
      const fresh = new Client(world.open());
      checker.clients.push(fresh);
      return fresh;
    }
    return open[random(open.length)]!;
  };

  const quiet = (turns: number): void => {
    for (let i = 0; i < turns; i++) {
      for (const server of model.servers) {
        model.process(server);
        model.replicate();
        model.answer(server);
        model.deliver(server);
      }
      world.tick(1);
    }
  };

  const change = (): void => {
    const few = (): void => {
      for (let i = random(8); i > 0; i--) {
        const server = model.servers[random(2)]!;
        const dice = random(4);
        if (dice === 0) model.process(server);
        else if (dice === 1) model.answer(server);
        else if (dice === 2) model.deliver(server);
        else ask(client());
      }
    };
    const { primary, other } = model;
    const both = model.route.both && model.inSync;
    switch (random(7)) {
      case 0: // The primary dies, or is cut off from everyone but a late reply.
        if (!both || !other.alive) return;
        failovers += 1;
        model.peers = false;
        if (random(2) === 0) model.linkDown(primary.index);
        model.inSync = false;
        model.writeRecord(
          other.index,
          false,
          other.index === 0 ? [true, false] : [false, true],
          few,
        );
        break;
      case 1: // The standby is lost.
        if (!both) return;
        model.peers = false;
        model.inSync = false;
        if (random(2) === 0) model.linkDown(other.index);
        model.writeRecord(
          primary.index,
          false,
          primary.index === 0 ? [true, false] : [false, true],
          few,
        );
        break;
      case 2: // It comes back and joins.
        if (model.inSync || primary.record.epoch !== model.route.epoch) return;
        model.peers = true;
        model.linkUp(other.index);
        other.pending = [];
        other.copyOf(primary);
        // From here on the primary is joint: nothing is acknowledged that the other lacks.
        model.inSync = true;
        model.writeRecord(primary.index, true, [true, true], () => undefined);
        for (const server of model.servers) server.adopt(model.route);
        other.copyOf(primary);
        primary.confirmed = primary.log;
        break;
      case 3: // A planned switchover.
        if (!both || !model.peers || primary.confirmed < primary.log) return;
        model.writeRecord(other.index, true, [true, true], few);
        break;
      case 4: // A link is lost and comes back.
        model.linkDown(random(2) as ServerIndex);
        few();
        model.linkUp(0);
        model.linkUp(1);
        break;
      case 5: // A server refuses a few, or adopts early by way of its peer.
        if (!reachable) model.servers[random(2)]!.refusing = true;
        if (model.peers) for (const server of model.servers) server.adopt(model.route);
        break;
      default: // Longer than anyone waits.
        if (!reachable && random(6) === 0) world.tick(2100);
        break;
    }
  };

  for (let step = 0; step < steps; step++) {
    const server = model.servers[random(2)]!;
    switch (random(12)) {
      case 0:
      case 1:
      case 2:
        ask(client());
        break;
      case 3:
      case 4:
        model.process(server);
        break;
      case 5:
      case 6:
        model.answer(server);
        break;
      case 7:
      case 8:
        model.deliver(server);
        break;
      case 9:
        world.tick(random(4));
        break;
      case 10:
        if (random(3) === 0) change();
        else if (reachable) model.linkUp(model.route.primary);
        break;
      default:
        model.replicate();
        if (random(40) === 0) {
          const gone = client();
          gone.model.closed = "left";
          world.close(gone.model);
        }
        break;
    }
    if (world.idsUsedUp > idsUsedUp) {
      idsUsedUp = world.idsUsedUp;
      model.linkDown(0);
      model.linkDown(1);
      for (const one of model.servers) one.numbers.clear();
      world.forwarder.setSession(Uint8Array.from([idsUsedUp, 2, 3, 4, 5, 6, 7, 8]));
      model.linkUp(0);
      model.linkUp(1);
    }
    for (const one of checker.clients) if (one.model.closed === undefined) checker.take(one);
    if (world.faults.length > 0) throw new Error(world.faults.join());
  }

  // Everything heals, and then everyone is answered.
  model.peers = true;
  for (let round = 0; round < 20; round++) {
    model.linkUp(0);
    model.linkUp(1);
    if (model.route.both && !model.inSync) throw new Error("the model is out of step");
    quiet(100);
    if (world.idsUsedUp > idsUsedUp) {
      idsUsedUp = world.idsUsedUp;
      model.linkDown(0);
      model.linkDown(1);
      for (const one of model.servers) one.numbers.clear();
      world.forwarder.setSession(Uint8Array.from([idsUsedUp, 2, 3, 4, 5, 6, 7, 8]));
    }
    for (const one of checker.clients) if (one.model.closed === undefined) checker.take(one);
    const left = checker.clients.filter((one) => one.model.closed === undefined);
    if (left.every((one) => one.asked.length === 0) && world.forwarder.openCount() === 0) break;
  }
  for (const one of checker.clients) {
    if (one.model.closed !== undefined) {
      expect(one.model.closed).toBe("left");
      continue;
    }
    if (one.asked.length > 0) {
      throw new Error(
        `${one.asked.length} commands were never answered, first ${one.asked[0]!.token}`,
      );
    }
  }
  expect(world.forwarder.openCount()).toBe(0);
  const last = model.primary;
  for (const token of checker.acknowledged.keys()) {
    if (!last.tokens.has(token)) throw new Error(`${token} was acknowledged and is lost`);
  }
  for (const token of checker.surelyNot) {
    if (last.tokens.has(token)) throw new Error(`${token} was "surely not done" and is done`);
  }
  const { answered, errors, unknown } = checker;
  return { answered, errors, unknown, failovers };
}

// MULTI's own answers are simple strings where PING's are bulks.
const plain = Checker.prototype as unknown as {
  check(client: Client, asked: Asked, reply: string): void;
};
const checkReply = plain.check;
plain.check = function (client, asked, reply) {
  if (asked.kind === "PING" && (asked.token === "OK" || asked.token === "QUEUED")) {
    expect(reply).toBe(`+${asked.token}\r\n`);
    return;
  }
  checkReply.call(this, client, asked, reply);
};

const SEEDS = Number(process.env["FORWARD_SEEDS"] ?? 100);
const FIRST = Number(process.env["FORWARD_FIRST"] ?? 1);

function runSeeds(reachable: boolean): Sum {
  const sum = { answered: 0, errors: 0, unknown: 0, failovers: 0 };
  for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
    try {
      const one = run(seed, 1500, reachable);
      sum.answered += one.answered;
      sum.errors += one.errors;
      sum.unknown += one.unknown;
      sum.failovers += one.failovers;
      if (reachable && one.errors > 0) throw new Error("a client heard an error");
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
  // The runs must have been worth running.
  expect(sum.answered).toBeGreaterThan(100 * SEEDS);
  expect(sum.failovers).toBeGreaterThan(SEEDS);
  return sum;
}

describe("pipelines with failovers inside", () => {
  test(`${SEEDS} seeds`, { timeout: 600000 }, () => {
    const sum = runSeeds(false);
    expect(sum.errors).toBeLessThan(sum.answered / 5);
  });

  test(
    `${SEEDS} seeds in which a primary can be reached: not one error`,
    { timeout: 600000 },
    () => {
      expect(runSeeds(true).errors).toBe(0);
    },
  );
});
