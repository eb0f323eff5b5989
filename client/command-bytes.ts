/** Commands as the bytes of a COMMAND frame, and their class. */
import { classOf, resolveCommand } from "../protocol/command-class.js";
import { CLASS_WRITE } from "../protocol/frame.js";
import { makeSink, writeArray, writeBulk } from "../protocol/resp.js";
import type { ByteSink } from "../protocol/resp.js";

/** Text is sent as UTF-8, a number in decimal. */
export type Argument = string | number | Uint8Array;

function bytesOf(argument: Argument): Uint8Array {
  return typeof argument === "string" || typeof argument === "number"
    ? Buffer.from(String(argument))
    : argument;
}

/** Commands one after the other as RESP arrays, and the class of the first. */
export function encodeCommands(commands: Argument[][]): {
  payload: Uint8Array;
  commandClass: number;
} {
  const sink: ByteSink = makeSink(128);
  let commandClass = CLASS_WRITE;
  if (commands.length === 0) throw new RangeError("no command");
  for (const [index, args] of commands.entries()) {
    if (args.length === 0) throw new RangeError("a command without a name");
    writeArray(sink, args.length);
    const starts: number[] = [];
    const ends: number[] = [];
    for (const argument of args) {
      const bytes = bytesOf(argument);
      writeBulk(sink, bytes, 0, bytes.length);
      starts.push(sink.length - 2 - bytes.length);
      ends.push(sink.length - 2);
    }
    if (index === 0) commandClass = classOf(resolveCommand(sink.bytes, args.length, starts, ends));
  }
  return { payload: sink.bytes.slice(0, sink.length), commandClass };
}
