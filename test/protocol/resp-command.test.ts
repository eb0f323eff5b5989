import { expect, test } from "vitest";
import {
  PARSED_COMMAND,
  PARSED_FAULT,
  PARSED_NOTHING,
  PARSED_REFUSED,
  RespParser,
} from "../../protocol/resp.js";
import type { RespLimits } from "../../protocol/resp.js";

const LIMITS: RespLimits = {
  argsMax: 64,
  bulkBytesMax: 100,
  commandBytesMax: 200,
  inlineBytesMax: 80,
  keptBytesMax: 1000,
};

const latin1 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "latin1"));

/** Every outcome of a stream fed in the given chunks, as text. */
function outcomes(chunks: Uint8Array[], limits: RespLimits = LIMITS): string[] {
  const parser = new RespParser(limits);
  const seen: string[] = [];
  for (const chunk of chunks) {
    // The caller's buffer is used again after each call, as a socket's may be.
    const reused = chunk.slice();
    parser.feed(reused, 0, reused.length);
    for (;;) {
      const parsed = parser.next();
      if (parsed === PARSED_NOTHING) break;
      if (parsed === PARSED_COMMAND) {
        const args: string[] = [];
        for (let i = 0; i < parser.count; i++) {
          const arg = parser.bytes.subarray(parser.starts[i], parser.ends[i]);
          args.push(Buffer.from(arg).toString("latin1"));
        }
        const range = parser.bytes.subarray(parser.rangeStart, parser.rangeEnd);
        seen.push(JSON.stringify([args, Buffer.from(range).toString("latin1")]));
      } else {
        seen.push((parsed === PARSED_REFUSED ? "refused " : "fault ") + parser.problem);
        if (parsed === PARSED_FAULT) return seen;
      }
    }
    reused.fill(255);
  }
  return seen;
}

test("quick", () => {
  const wire = "*2\r\n$3\r\nGET\r\n$1\r\na\r\nset a 'b c'\r\n*0\r\n*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nSET\r\n$101\r\n" + "x".repeat(101) + "\r\n*12\r\n" + "$2\r\nab\r\n".repeat(12);
  const whole = outcomes([latin1(wire)]);
  console.log(whole);
  for (let size = 1; size < 90; size++) {
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < wire.length; at += size) chunks.push(latin1(wire.slice(at, at + size)));
    expect(outcomes(chunks)).toEqual(whole);
  }
});
