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

function textOf(bytes: Uint8Array, start: number, end: number): string {
  let out = "";
  for (let i = start; i < end; i++) out += String.fromCharCode(bytes[i]!);
  return out;
}

/** Takes bytes, gives whole replies. Throws when the bytes are no RESP2. */
export class ReplyReader {
  private text = "";
  private at = 0;

  push(bytes: Uint8Array, start: number, end: number): void {
    if (this.at > 0) {
      this.text = this.text.slice(this.at);
      this.at = 0;
    }
    this.text += textOf(bytes, start, end);
  }

  /** @returns undefined until a reply is whole. */
  next(): Reply | undefined {
    const from = this.at;
    const reply = this.read();
    if (reply === undefined) this.at = from;
    return reply;
  }

  private line(): string | undefined {
    const end = this.text.indexOf("\r\n", this.at);
    if (end < 0) return undefined;
    const line = this.text.slice(this.at, end);
    this.at = end + 2;
    return line;
  }

  private read(): Reply | undefined {
    const line = this.line();
    if (line === undefined) return undefined;
    const rest = line.slice(1);
    switch (line[0]) {
      case "+":
        return { type: "simple", text: rest };
      case "-":
        return { type: "error", text: rest };
      case ":":
        return { type: "integer", value: Number(rest) };
      case "$": {
        const length = Number(rest);
        if (length === -1) return { type: "bulk", text: undefined };
        if (!Number.isInteger(length) || length < 0) throw new Error(`bad bulk length ${line}`);
        if (this.text.length < this.at + length + 2) return undefined;
        const text = this.text.slice(this.at, this.at + length);
        if (this.text.slice(this.at + length, this.at + length + 2) !== "\r\n") {
          throw new Error("a bulk string does not end where it says");
        }
        this.at += length + 2;
        return { type: "bulk", text };
      }
      case "*": {
        const count = Number(rest);
        if (count === -1) return { type: "array", items: undefined };
        if (!Number.isInteger(count) || count < 0) throw new Error(`bad array length ${line}`);
        const items: Reply[] = [];
        for (let i = 0; i < count; i++) {
          const item = this.read();
          if (item === undefined) return undefined;
          items.push(item);
        }
        return { type: "array", items };
      }
      default:
        throw new Error(`not a reply: ${JSON.stringify(line.slice(0, 40))}`);
    }
  }
}
