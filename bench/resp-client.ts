/**
 * The smallest Redis client that can measure: it never reconnects, never retries and never hides a
 * reply, so that what a run counts is what the server did.
 */
import { connect } from "node:net";
import type { Socket } from "node:net";

/** A reply as JavaScript: text, number, null, list, or an error reply as ReplyError. */
export type Reply = string | number | null | ReplyError | Reply[];

/** An error reply ("-ERR ..."): a value, not an exception. */
export class ReplyError {
  constructor(readonly text: string) {}
}

export type OnReply = (reply: Reply) => void;

export class RespClient {
  closed = false;
  /** Called once, when the connection ends however it ends. */
  onClose: ((unanswered: number) => void) | undefined;
  private readonly waiting: OnReply[] = [];
  private answered = 0;
  private input: Buffer = Buffer.alloc(0);
  private out: string[] = [];

  private constructor(readonly socket: Socket) {
    socket.setNoDelay(true);
    socket.on("data", (data: Buffer) => this.receive(data));
    socket.on("error", () => undefined);
    socket.on("close", () => {
      if (this.closed) return;
      this.closed = true;
      this.onClose?.(this.unanswered);
    });
  }

  /** @throws when nobody accepts within `timeoutMs` */
  static open(port: number, timeoutMs = 3000, host = "127.0.0.1"): Promise<RespClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, host);
      const timer = setTimeout(() => {
        socket.destroy();
        reject(new Error(`no connection to port ${port} within ${timeoutMs} ms`));
      }, timeoutMs);
      socket.once("connect", () => {
        clearTimeout(timer);
        socket.removeAllListeners("error");
        resolve(new RespClient(socket));
      });
      socket.once("error", (error) => {
        clearTimeout(timer);
        reject(error);
      });
    });
  }

  get unanswered(): number {
    return this.waiting.length - this.answered;
  }

  /** Sends a command in this loop turn's one write. `onReply` is not called when the connection closes first. */
  send(args: (string | number)[], onReply: OnReply): void {
    if (this.closed) return;
    let text = `*${args.length}\r\n`;
    for (const arg of args) {
      const word = String(arg);
      text += `$${Buffer.byteLength(word)}\r\n${word}\r\n`;
    }
    this.waiting.push(onReply);
    if (this.out.length === 0) queueMicrotask(() => this.flush());
    this.out.push(text);
  }

  /** As send, for code that waits. @throws when the connection closes before the reply or it takes too long. */
  call(args: (string | number)[], timeoutMs = 10_000): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (this.closed) {
        reject(new Error("connection closed"));
        return;
      }
      const fail = (why: string): void => {
        clearTimeout(timer);
        this.socket.off("close", onClose);
        reject(new Error(`${args[0]}: ${why}`));
      };
      const onClose = (): void => fail("connection closed before the reply");
      const timer = setTimeout(() => fail(`no reply within ${timeoutMs} ms`), timeoutMs);
      this.socket.once("close", onClose);
      this.send(args, (reply) => {
        clearTimeout(timer);
        this.socket.off("close", onClose);
        resolve(reply);
      });
    });
  }

  /** Bytes as they are; replies to them are not matched to commands unless `onReply`s are queued with expect(). */
  raw(bytes: string | Buffer): void {
    this.socket.write(bytes);
  }

  expect(onReply: OnReply): void {
    this.waiting.push(onReply);
  }

  close(): void {
    this.closed = true;
    this.socket.destroy();
  }

  private flush(): void {
    const text = this.out.join("");
    this.out = [];
    if (!this.closed) this.socket.write(text);
  }

  private receive(data: Buffer): void {
    this.input = this.input.length === 0 ? data : Buffer.concat([this.input, data]);
    let at = 0;
    for (;;) {
      const parsed = parseReply(this.input, at);
      if (parsed === undefined) break;
      at = parsed.end;
      const onReply = this.waiting[this.answered];
      if (onReply === undefined) throw new Error("a reply that nobody asked for");
      this.answered += 1;
      if (this.answered > 1024) {
        this.waiting.splice(0, this.answered);
        this.answered = 0;
      }
      onReply(parsed.reply);
    }
    this.input = at === this.input.length ? Buffer.alloc(0) : this.input.subarray(at);
  }
}

function parseReply(bytes: Buffer, start: number): { reply: Reply; end: number } | undefined {
  const lineEnd = bytes.indexOf("\r\n", start);
  if (lineEnd < 0) return undefined;
  const line = bytes.toString("latin1", start + 1, lineEnd);
  const after = lineEnd + 2;
  switch (String.fromCharCode(bytes[start])) {
    case "+":
      return { reply: line, end: after };
    case "-":
      return { reply: new ReplyError(line), end: after };
    case ":":
      return { reply: Number(line), end: after };
    case "$": {
      const size = Number(line);
      if (size < 0) return { reply: null, end: after };
      if (bytes.length < after + size + 2) return undefined;
      return { reply: bytes.toString("utf8", after, after + size), end: after + size + 2 };
    }
    case "*": {
      const count = Number(line);
      if (count < 0) return { reply: null, end: after };
      const list: Reply[] = [];
      let at = after;
      for (let i = 0; i < count; i++) {
        const one = parseReply(bytes, at);
        if (one === undefined) return undefined;
        list.push(one.reply);
        at = one.end;
      }
      return { reply: list, end: at };
    }
    default:
      throw new Error(`not a reply: ${bytes.toString("latin1", start, start + 40)}`);
  }
}
