/**
 * The client library for Node: one connection to the controller's native port, any number of
 * commands at once, kept up for ever.
 *
 *     const client = await connectClient({ host: "192.168.1.10", port: 7410 });
 *     await client.command("SET", "a", "1");
 *     const session = await client.openSession();       // exactly once, whatever happens
 *     await session.command("INCR", "visits");
 *     await client.close();
 *
 * All decisions are in core.ts; here are the socket, the timer, the clock and the promises.
 */
import { createHmac, randomBytes } from "node:crypto";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { CLASS_WRITE, FLAG_TXN } from "../protocol/frame.js";
import { formatHex } from "../protocol/record.js";
import { isReplyError } from "../protocol/resp-reply.js";
import type { ReplyValue } from "../protocol/resp-reply.js";
import { encodeCommands } from "./command-bytes.js";
import type { Argument } from "./command-bytes.js";
import { ClientCore } from "./core.js";
import type { Action, Outcome } from "./core.js";
import {
  CommandError,
  HandshakeError,
  NoAnswerError,
  NotDoneError,
  OutcomeUnknownError,
} from "./errors.js";
import { checkLimits, DEFAULT_LIMITS } from "./limits.js";
import type { ClientLimits } from "./limits.js";
import { SessionNumbers } from "./session.js";

export type { Argument };

export interface ClientOptions {
  host: string;
  /** The controller's native port. */
  port: number;
  /** The pair's client key; default: none, as in a pair without one. */
  key?: Uint8Array;
  /** Shown on the controller's console. */
  name?: string;
  limits?: Partial<ClientLimits>;
  /** Told when the connection comes up or goes down. */
  onState?: (up: boolean, reason: string) => void;
}

interface Waiter {
  resolve: (value: ReplyValue) => void;
  reject: (error: Error) => void;
}

/** What can be done with a client, and with a session. */
export interface Commands {
  /**
   * Runs one Redis command.
   * @returns bulk strings as bytes, simple ones as text, integers as numbers (beyond 2^53 as bigints)
   * @throws CommandError, NotDoneError, OutcomeUnknownError (writes only), NoAnswerError (reads only)
   */
  command(...args: Argument[]): Promise<ReplyValue>;
  /** Runs commands as one, all or nothing. @returns their replies; one that failed is a value {error} */
  transaction(commands: Argument[][]): Promise<ReplyValue>;
}

/**
 * Connects to a controller. From then on the client keeps the connection up by itself.
 * @throws HandshakeError when the controller is not the right one or refuses this client
 * @throws NotDoneError when there is no connection within limits.commandMs
 * @throws RangeError for limits that do not fit each other
 */
export async function connectClient(options: ClientOptions): Promise<Client> {
  const client = new Client(options);
  await client.connected();
  return client;
}

export class Client implements Commands {
  private readonly options: ClientOptions;
  private readonly limits: ClientLimits;
  private readonly core: ClientCore<Waiter>;
  private socket: Socket | undefined;
  private timer: NodeJS.Timeout | undefined;
  private timerAtMs = Infinity;
  private draining = false;
  private drainPlanned = false;
  private refusal: HandshakeError | undefined;
  private isUp = false;
  private upWaiters: { resolve: () => void; reject: (error: Error) => void }[] = [];

  /** Use connectClient, which waits for the connection. */
  constructor(options: ClientOptions) {
    this.options = options;
    this.limits = checkLimits({ ...DEFAULT_LIMITS, ...options.limits });
    this.core = new ClientCore<Waiter>({
      key: options.key ?? new Uint8Array(0),
      hmac: (key, data) => createHmac("sha256", key).update(data).digest(),
      name: options.name ?? "",
      limits: this.limits,
      spread: Math.random(),
    });
    this.planDrain();
  }

  /** Commands waiting for an answer. */
  get pending(): number {
    return this.core.pending();
  }

  /** Resolves when the connection is up. @throws as connectClient */
  connected(): Promise<void> {
    if (this.refusal !== undefined) return Promise.reject(this.refusal);
    if (this.isUp) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const { host, port } = this.options;
      const late = setTimeout(() => {
        this.upWaiters = this.upWaiters.filter((other) => other !== waiter);
        reject(new NotDoneError(`no controller at ${host}:${port}`));
      }, this.limits.commandMs);
      const waiter = {
        resolve: (): void => {
          clearTimeout(late);
          resolve();
        },
        reject: (error: Error): void => {
          clearTimeout(late);
          reject(error);
        },
      };
      this.upWaiters.push(waiter);
    });
  }

  command(...args: Argument[]): Promise<ReplyValue> {
    return this.run([args], 0, undefined, false);
  }

  transaction(commands: Argument[][]): Promise<ReplyValue> {
    return this.run(commands, FLAG_TXN, undefined, false);
  }

  /**
   * Opens an exactly-once session: its writes are asked again after any loss of connection, and each
   * is done once. The servers forget a session that is idle for long, and then answer "outcome unknown".
   */
  async openSession(): Promise<Session> {
    const id = new Uint8Array(randomBytes(8));
    // The id is ours, so that asking for it twice opens one session.
    await this.run([["DYAD.SESSION", "OPEN", formatHex(id)]], 0, undefined, true);
    return new Session(this, new SessionNumbers(id, this.limits.sessionWindow));
  }

  /** Ends the connection. What is unanswered fails: as never done, or as unknown. */
  async close(): Promise<void> {
    this.core.close("the client was closed", performance.now());
    this.drain();
    const { socket } = this;
    if (socket !== undefined && !socket.destroyed) {
      await new Promise<void>((resolve) => {
        socket.once("close", () => resolve());
        setTimeout(() => socket.destroy(), 1_000).unref();
      });
    }
  }

  /** For Session. */
  run(
    commands: Argument[][],
    flags: number,
    session: SessionNumbers | undefined,
    repeatable: boolean,
  ): Promise<ReplyValue> {
    return new Promise((resolve, reject) => {
      const { payload, commandClass } = encodeCommands(commands);
      const kind = (flags & FLAG_TXN) !== 0 ? CLASS_WRITE : commandClass;
      this.core.submit(
        { payload, flags: flags | kind, session, repeatable },
        { resolve, reject },
        performance.now(),
      );
      this.planDrain();
    });
  }

  /** All that is asked for in one turn goes out in one write. */
  private planDrain(): void {
    if (this.drainPlanned) return;
    this.drainPlanned = true;
    queueMicrotask(() => {
      this.drainPlanned = false;
      this.drain();
    });
  }

  private drain(): void {
    // An action may lead back here (a caller's onState asks for something): the outer loop goes on.
    if (this.draining) return;
    this.draining = true;
    try {
      const nextMs = this.core.tick(performance.now());
      for (let action = this.core.poll(); action !== undefined; action = this.core.poll()) {
        this.act(action);
      }
      this.setTimer(nextMs);
    } finally {
      this.draining = false;
    }
  }

  private setTimer(atMs: number): void {
    // One that is due earlier only looks again; moving it for every command would cost more.
    const wanted = atMs !== Infinity || this.core.isOpen();
    if (wanted && this.timer !== undefined && this.timerAtMs <= atMs) return;
    clearTimeout(this.timer);
    this.timer = undefined;
    this.timerAtMs = Infinity;
    if (atMs === Infinity) return;
    this.timerAtMs = atMs;
    this.timer = setTimeout(
      () => {
        this.timer = undefined;
        this.drain();
      },
      Math.max(1, Math.ceil(atMs - performance.now())),
    );
  }

  private act(action: Action<Waiter>): void {
    switch (action.kind) {
      case "connect":
        this.dial();
        break;
      case "close": {
        const { socket } = this;
        this.socket = undefined;
        if (socket === undefined) break;
        socket.removeAllListeners("data");
        socket.removeAllListeners("close");
        socket.on("close", () => undefined);
        socket.end();
        socket.destroySoon();
        break;
      }
      case "send":
        this.socket?.write(action.bytes);
        break;
      case "settle":
        settle(action.token, action.outcome);
        break;
      case "up":
        this.isUp = true;
        for (const waiter of this.upWaiters.splice(0)) waiter.resolve();
        this.options.onState?.(true, "");
        break;
      case "down":
        this.isUp = false;
        this.options.onState?.(false, action.reason);
        break;
      case "refused":
        this.isUp = false;
        this.refusal = new HandshakeError(action.reason);
        for (const waiter of this.upWaiters.splice(0)) waiter.reject(this.refusal);
        this.options.onState?.(false, action.reason);
        break;
    }
  }

  private dial(): void {
    const socket = connect({ host: this.options.host, port: this.options.port, noDelay: true });
    this.socket = socket;
    let why = "the controller closed the connection";
    socket.setKeepAlive(true, 1_000);
    socket.on("connect", () => {
      if (this.socket !== socket) return;
      this.core.onConnected(new Uint8Array(randomBytes(16)), performance.now());
      this.drain();
    });
    socket.on("data", (chunk) => {
      if (this.socket !== socket) return;
      this.core.onBytes(chunk, 0, chunk.length, performance.now());
      this.drain();
    });
    socket.on("error", (error) => (why = error.message));
    socket.on("close", () => {
      if (this.socket !== socket) return;
      this.socket = undefined;
      this.core.onClosed(why, performance.now());
      this.drain();
    });
  }
}

/** Writes of one session are done exactly once, in the order they were asked for. */
export class Session implements Commands {
  private readonly client: Client;
  private readonly numbers: SessionNumbers;

  constructor(client: Client, numbers: SessionNumbers) {
    this.client = client;
    this.numbers = numbers;
  }

  /** 16 hex digits, as the servers' consoles show it. */
  get id(): string {
    return formatHex(this.numbers.id);
  }

  command(...args: Argument[]): Promise<ReplyValue> {
    return this.client.run([args], 0, this.numbers, false);
  }

  transaction(commands: Argument[][]): Promise<ReplyValue> {
    return this.client.run(commands, FLAG_TXN, this.numbers, false);
  }

  /** Lets the servers forget it. */
  async close(): Promise<void> {
    await this.client.run([["DYAD.SESSION", "CLOSE", this.id]], 0, undefined, true);
  }
}

function settle(waiter: Waiter, outcome: Outcome): void {
  switch (outcome.kind) {
    case "reply":
      if (isReplyError(outcome.value)) waiter.reject(new CommandError(outcome.value.error));
      else waiter.resolve(outcome.value);
      break;
    case "notDone":
      waiter.reject(new NotDoneError(outcome.reason));
      break;
    case "unknown":
      waiter.reject(new OutcomeUnknownError(outcome.reason));
      break;
    case "noAnswer":
      waiter.reject(new NoAnswerError(outcome.reason));
      break;
  }
}
