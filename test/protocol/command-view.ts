/** Arguments as a parser would show them. */
export interface View {
  bytes: Uint8Array;
  count: number;
  starts: number[];
  ends: number[];
}

/** A view over the given latin1 arguments, standing apart from each other in the buffer. */
export function viewOf(args: string[]): View {
  const starts: number[] = [];
  const ends: number[] = [];
  let text = "";
  for (const arg of args) {
    text += "\r\n";
    starts.push(text.length);
    text += arg;
    ends.push(text.length);
  }
  return { bytes: Buffer.from(text, "latin1"), count: args.length, starts, ends };
}
