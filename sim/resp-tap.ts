/**
 * RESP2 as a client speaks it, written here once more on purpose: a tap that shared the product's parser
 * would share its mistakes.
 */
export type Reply =
  | { type: "simple"; text: string }
  | { type: "error"; text: string }
  | { type: "integer"; value: number }
  | { type: "bulk"; text: string | undefined }
  | { type: "array"; items: Reply[] | undefined };

/** Bytes of one command. Arguments are latin1. */
export function encodeCommand(args: readonly string[]): string {
  let out = `*${args.length}\r\n`;
  for (const arg of args) out += `$${arg.length}\r\n${arg}\r\n`;
  return out;
}

export function latin1(text: string): Uint8Array {
  const out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  return out;
}

const CR = 13;
const LF = 10;
const MINUS = 45;
const DIGIT_0 = 48;

/** Takes bytes, gives whole replies. Throws when the bytes are no RESP2. */
export class ReplyReader {
  private bytes: Buffer = Buffer.alloc(512);
  private at = 0;
  private end = 0;

  push(bytes: Uint8Array, start: number, end: number): void {
    const count = end - start;
    if (this.at === this.end) {
      this.at = 0;
      this.end = 0;
    }
    if (this.end + count > this.bytes.length) {
      const left = this.end - this.at;
      const into = Buffer.alloc(Math.max(this.bytes.length, 2 * (left + count)));
      this.bytes.copy(into, 0, this.at, this.end);
      this.bytes = into;
      this.at = 0;
      this.end = left;
    }
    const into = this.bytes;
    for (let i = 0; i < count; i++) into[this.end + i] = bytes[start + i]!;
    this.end += count;
  }

  /** @returns undefined until a reply is whole. */
  next(): Reply | undefined {
    const from = this.at;
    const reply = this.read();
    if (reply === undefined) this.at = from;
    return reply;
  }

  private text(start: number, end: number): string {
    return this.bytes.toString("latin1", start, end);
  }

  /** @returns where the line that begins at `at` ends, -1 while it is not whole; `at` is then behind it. */
  private line(): number {
    const { bytes, end } = this;
    for (let i = this.at; i + 1 < end; i++) {
      if (bytes[i] !== CR || bytes[i + 1] !== LF) continue;
      this.at = i + 2;
      return i;
    }
    return -1;
  }

  private integer(start: number, end: number): number {
    const { bytes } = this;
    const negative = start < end && bytes[start] === MINUS;
    let value = 0;
    let i = negative ? start + 1 : start;
    if (i === end) throw new Error("a number without digits");
    for (; i < end; i++) {
      const digit = bytes[i]! - DIGIT_0;
      if (digit < 0 || digit > 9) throw new Error(`not a number: ${this.text(start, end)}`);
      value = value * 10 + digit;
    }
    return negative ? -value : value;
  }

  private read(): Reply | undefined {
    const start = this.at;
    const end = this.line();
    if (end < 0) return undefined;
    const { bytes } = this;
    switch (bytes[start]) {
      case 43: // "+"
        return { type: "simple", text: this.text(start + 1, end) };
      case 45: // "-"
        return { type: "error", text: this.text(start + 1, end) };
      case 58: // ":"
        return { type: "integer", value: this.integer(start + 1, end) };
      case 36: {
        // "$"
        const length = this.integer(start + 1, end);
        if (length === -1) return { type: "bulk", text: undefined };
        if (length < 0) throw new Error(`bad bulk length ${length}`);
        const from = this.at;
        if (this.end < from + length + 2) return undefined;
        if (bytes[from + length] !== CR || bytes[from + length + 1] !== LF) {
          throw new Error("a bulk string does not end where it says");
        }
        this.at = from + length + 2;
        return { type: "bulk", text: this.text(from, from + length) };
      }
      case 42: {
        // "*"
        const count = this.integer(start + 1, end);
        if (count === -1) return { type: "array", items: undefined };
        if (count < 0) throw new Error(`bad array length ${count}`);
        const items: Reply[] = [];
        for (let i = 0; i < count; i++) {
          const item = this.read();
          if (item === undefined) return undefined;
          items.push(item);
        }
        return { type: "array", items };
      }
      default:
        throw new Error(`not a reply: ${JSON.stringify(this.text(start, end).slice(0, 40))}`);
    }
  }
}
