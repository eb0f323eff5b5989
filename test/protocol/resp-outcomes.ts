/** Runs the command parser over chunks and writes down everything it says, for comparison. */
import {
  PARSED_COMMAND,
  PARSED_FAULT,
  PARSED_NOTHING,
  PARSED_REFUSED,
  RespParser,
} from "../../protocol/resp.js";
import type { RespLimits } from "../../protocol/resp.js";

export type Outcome = { command: string[]; wire: string } | { refused: string } | { fault: string };

export const LIMITS: RespLimits = {
  argsMax: 64,
  bulkBytesMax: 100,
  commandBytesMax: 200,
  inlineBytesMax: 80,
  keptBytesMax: 1000,
};

export const latin1 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "latin1"));
const textOf = (bytes: Uint8Array, start: number, end: number): string =>
  Buffer.from(bytes.subarray(start, end)).toString("latin1");

/** What the parser shows after PARSED_COMMAND, as text. */
export function shown(parser: RespParser): Outcome {
  const command: string[] = [];
  for (let i = 0; i < parser.count; i++) {
    command.push(textOf(parser.bytes, parser.starts[i]!, parser.ends[i]!));
  }
  return { command, wire: textOf(parser.bytes, parser.rangeStart, parser.rangeEnd) };
}

/** One step of the parser. @returns undefined when it wants more bytes */
export function step(parser: RespParser): Outcome | undefined {
  const parsed = parser.next();
  if (parsed === PARSED_NOTHING) return undefined;
  if (parsed === PARSED_COMMAND) return shown(parser);
  if (parsed === PARSED_REFUSED) return { refused: parser.problem };
  if (parsed !== PARSED_FAULT) throw new Error(`next gave ${parsed}`);
  return { fault: parser.problem };
}

/** Every outcome of a stream fed in the given chunks, up to the first fault. */
export function outcomesOf(
  chunks: Uint8Array[],
  limits: RespLimits = LIMITS,
  prepare?: (parser: RespParser) => void,
): Outcome[] {
  const parser = new RespParser(limits);
  prepare?.(parser);
  const seen: Outcome[] = [];
  for (const chunk of chunks) {
    // The caller's buffer is used again after each call, as a socket's may be.
    const lent = new Uint8Array(chunk.length + 4).fill(0x2a);
    lent.set(chunk, 2);
    if (!parser.feed(lent, 2, 2 + chunk.length)) throw new Error("feed refused");
    for (let one = step(parser); one !== undefined; one = step(parser)) {
      seen.push(one);
      if ("fault" in one) return seen;
    }
    lent.fill(0x2a);
  }
  return seen;
}

/** A command as clients send it. */
export const wireOf = (args: string[]): string =>
  `*${args.length}\r\n` + args.map((arg) => `$${arg.length}\r\n${arg}\r\n`).join("");
