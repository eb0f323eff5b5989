/**
 * A client of the native port with an exactly-once session: the very core of the client library, fed by the virtual
 * network. It asks again what a lost connection left unanswered, under the same number, so the history sees one
 * operation, however often it was sent.
 */
import type { Outcome } from "../client/core.js";
import { ClientCore } from "../client/core.js";
import { DEFAULT_LIMITS } from "../client/limits.js";
import { SessionNumbers } from "../client/session.js";
import { CLASS_QUERY, CLASS_WRITE } from "../protocol/frame.js";
import type { ReplyValue } from "../protocol/resp-reply.js";
import { isReplyError } from "../protocol/resp-reply.js";
import type { ClientsProgram, ClientWorld } from "./clients.js";
import { CLIENT_PATIENCE_MS } from "./clients.js";
import { drawHashCommand, wholeHash } from "./hash-commands.js";
import type { Operation, OperationKind } from "./history.js";
import { encodeCommand, latin1 } from "./resp-tap.js";
import type { End } from "./world/network.js";
import type { Random } from "./world/random.js";

/** Promises that nothing was done. */
const SURELY_NOT = /^(CLUSTERDOWN|BUSY|NOAUTH)\b/;
const NO_KEY = new Uint8Array(0);
const WAITING_MAX = 12;

type Token = Operation | "open";

export class SessionClient {
  running = true;
  private readonly core: ClientCore<Token>;
  private readonly numbers: SessionNumbers;
  private readonly session: number;
  private end: End | undefined;
  private generation = 0;
  private opened = false;
  private waiting = 0;
  private wakeAt = Infinity;
  private draining = false;
  /** Open reads, and the connection each was sent over first. */
  private readonly readsOf = new Map<Operation, number>();
  private readonly nonces: Random;

  constructor(
    private readonly world: ClientWorld,
    private readonly name: string,
    private readonly pauseMs: number,
    private readonly readShare: number,
    /** Keys it may use. */
    private readonly keys: readonly string[],
    private readonly random: Random,
  ) {
    this.nonces = random.fork("nonces");
    this.core = new ClientCore<Token>({
      key: NO_KEY,
      hmac: world.machine.world.hmac,
      name,
      limits: { ...DEFAULT_LIMITS, commandMs: 3 * CLIENT_PATIENCE_MS },
      spread: random.float(),
    });
    this.numbers = new SessionNumbers(random.bytes(8), DEFAULT_LIMITS.sessionWindow);
    this.session = world.nextSession();
    this.submit(["DYAD.SESSION", "OPEN", hex(this.numbers.id)], CLASS_WRITE, "open");
    this.next();
  }

  private get now(): number {
    return this.world.machine.world.now;
  }

  private submit(words: string[], kind: number, token: Token): void {
    this.core.submit(
      {
        payload: latin1(encodeCommand(words)),
        flags: kind,
        session: token === "open" ? undefined : this.numbers,
        repeatable: token === "open",
      },
      token,
      this.now,
    );
    this.drain();
  }

  private next(): void {
    const pauseMs = this.pauseMs * this.world.pace();
    this.world.machine.world.after(this.random.exponential(pauseMs) + 0.05, () => {
      if (!this.running) return;
      if (this.opened && this.waiting < WAITING_MAX) this.command();
      this.next();
    });
  }

  private command(): void {
    const { random } = this;
    const count = random.pick([1, 1, 1, 4]);
    for (let i = 0; i < count; i++) {
      const name = random.pick(this.keys);
      const key = name === "l" ? this.world.appendKey() : this.world.current(name);
      const reads = random.chance(this.readShare);
      if (name[0] === "h") {
        const command = drawHashCommand(key, reads, random, () => this.world.nextValue());
        const cls = reads ? CLASS_QUERY : CLASS_WRITE;
        this.ask(command.kind, key, command.value, command.words, cls);
      } else if (reads) this.ask("get", key, "", ["GET", key], CLASS_QUERY);
      else if (name[0] === "c") this.ask("incr", key, "+1", ["INCR", key], CLASS_WRITE);
      else {
        const value = this.world.nextValue();
        if (name === "l") {
          this.world.appended();
          this.ask("append", key, value, ["APPEND", key, value], CLASS_WRITE);
        } else if (random.chance(0.2)) {
          this.ask("getset", key, value, ["GETSET", key, value], CLASS_WRITE);
        } else {
          this.ask("set", key, value, ["SET", key, value], CLASS_WRITE);
        }
      }
    }
  }

  private ask(kind: OperationKind, key: string, value: string, words: string[], cls: number): void {
    const { history } = this.world;
    const operation = history.invoke(this.session, kind, key, value, "controller", this.now);
    operation.numbered = true;
    if (cls === CLASS_QUERY) this.readsOf.set(operation, this.generation);
    this.waiting++;
    this.submit(words, cls, operation);
  }

  // --- the connection ---

  onOpen(): void {
    this.core.onConnected(this.nonces.bytes(16), this.now);
    this.drain();
  }

  onBytes(bytes: Uint8Array, start: number, end: number): void {
    this.core.onBytes(bytes, start, end, this.now);
    this.drain();
  }

  onClosed(): void {
    if (this.end === undefined) return;
    this.end = undefined;
    this.core.onClosed("closed", this.now);
    this.drain();
  }

  private dial(): void {
    const generation = ++this.generation;
    const { world } = this;
    world.network.dial(world.machine, world.target("controller"), "native", {
      made: (end) => {
        if (generation !== this.generation) {
          end.close(true);
          return;
        }
        this.end = end;
        (world.machine.program as ClientsProgram).bind(end.handle, this);
      },
      failed: () => {
        if (generation !== this.generation) return;
        this.core.onClosed("refused", this.now);
        this.drain();
      },
    });
  }

  private drain(): void {
    if (this.draining) return;
    this.draining = true;
    const wakeAt = this.core.tick(this.now);
    for (let action = this.core.poll(); action !== undefined; action = this.core.poll()) {
      switch (action.kind) {
        case "connect":
          this.dial();
          break;
        case "close": {
          this.generation++;
          const { end } = this;
          this.end = undefined;
          if (end !== undefined) {
            (this.world.machine.program as ClientsProgram).unbind(end.handle);
            end.close(false);
          }
          break;
        }
        case "send":
          this.end?.write(action.bytes, 0, action.bytes.length);
          break;
        case "settle":
          this.settle(action.token, action.outcome);
          break;
        case "refused":
          this.world.anomaly("replies", `${this.name} was refused: ${action.reason}`);
          break;
        default:
          break;
      }
    }
    this.end?.flush();
    this.world.machine.dirtyCount = 0;
    this.draining = false;
    if (wakeAt < this.wakeAt) {
      this.wakeAt = wakeAt;
      this.world.machine.world.at(wakeAt + 0.01, () => {
        this.wakeAt = Infinity;
        this.drain();
      });
    }
  }

  private settle(token: Token, outcome: Outcome): void {
    if (token === "open") {
      if (outcome.kind === "reply" && !isReplyError(outcome.value)) this.opened = true;
      else if (this.running) {
        this.world.machine.world.after(50, () =>
          this.submit(["DYAD.SESSION", "OPEN", hex(this.numbers.id)], CLASS_WRITE, "open"),
        );
      }
      return;
    }
    this.waiting--;
    const { history } = this.world;
    const sentIn = this.readsOf.get(token);
    this.readsOf.delete(token);
    // A read that was asked again over another connection may see a write that was sent after it; all else keeps the order.
    if (sentIn !== undefined && sentIn !== this.generation) {
      token.session = this.world.nextSession();
    }
    if (outcome.kind === "notDone") history.fail(token, this.now);
    else if (outcome.kind !== "reply") history.loseTrack(token);
    else if (isReplyError(outcome.value)) this.failed(token, outcome.value.error);
    else this.succeeded(token, outcome.value);
  }

  private failed(operation: Operation, error: string): void {
    const { history } = this.world;
    if (error.startsWith("OUTCOMEUNKNOWN")) history.loseTrack(operation);
    else if (SURELY_NOT.test(error)) history.fail(operation, this.now);
    else {
      this.world.anomaly(
        "replies",
        `${this.name}: ${operation.kind} ${operation.key} was answered -${error}`,
      );
    }
  }

  private succeeded(operation: Operation, value: ReplyValue): void {
    let text: string | undefined;
    if (value === null) text = undefined;
    else if (value instanceof Uint8Array) text = latin1Of(value);
    else if (Array.isArray(value)) text = wholeHash(value.map((part) => latin1Of(part)));
    else text = String(value as string | number | bigint);
    if (operation.kind === "set") text = undefined;
    this.world.history.succeed(operation, text, this.now);
  }
}

function latin1Of(value: ReplyValue): string {
  return value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : "?";
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
