/** Lines for people: every frame on the links between controller and servers, as it is sent. */
import { HEADER_BYTES, readU32 } from "../protocol/frame.js";
import type { End } from "./world/network.js";

const TYPES = [
  "?",
  "COMMAND",
  "REPLY",
  "EPOCH",
  "CREDIT",
  "ABORT",
  "CONTROL",
  "APPEND",
  "CONFIRM",
  "COPY",
];
const SHOWN_BYTES = 90;

export class LinkLog {
  private readonly rest = new Map<End, Uint8Array>();

  constructor(
    private readonly line: (who: string, text: string) => void,
    private readonly arrow: (from: End, text: string) => void,
  ) {}

  onBytes(from: End, bytes: Uint8Array): void {
    const before = this.rest.get(from);
    let all = bytes;
    if (before !== undefined) {
      all = new Uint8Array(before.length + bytes.length);
      all.set(before, 0);
      all.set(bytes, before.length);
    }
    let at = 0;
    while (at + HEADER_BYTES <= all.length) {
      const length = all[at + 2]! * 256 + all[at + 3]!;
      if (at + HEADER_BYTES + length > all.length) break;
      this.show(from, all.subarray(at, at + HEADER_BYTES + length));
      at += HEADER_BYTES + length;
    }
    this.rest.set(from, all.slice(at));
  }

  private show(from: End, frame: Uint8Array): void {
    const type = frame[0]! & 15;
    const id = readU32(frame, 4);
    let text = "";
    const to = Math.min(frame.length, HEADER_BYTES + SHOWN_BYTES);
    for (let i = HEADER_BYTES; i < to; i++) {
      const byte = frame[i]!;
      text +=
        byte >= 32 && byte < 127
          ? String.fromCharCode(byte)
          : byte === 10
            ? " "
            : byte === 13
              ? ""
              : ".";
    }
    const flags = frame[1]!.toString(16).padStart(2, "0");
    const name = TYPES[type] ?? String(type);
    this.arrow(from, `${name} #${id} ${wordsOf(frame)}`);
    this.line(
      from.machine.name,
      `    ${name} #${id} flags ${flags} to ${from.peer.machine.name}, ${frame.length - HEADER_BYTES} bytes: ${text}`,
    );
  }
}

/** The printable words of a frame, for a narrow place. */
function wordsOf(frame: Uint8Array): string {
  let text = "";
  for (let i = HEADER_BYTES; i < Math.min(frame.length, HEADER_BYTES + SHOWN_BYTES); i++) {
    const byte = frame[i]!;
    text += byte >= 48 && byte < 127 ? String.fromCharCode(byte) : " ";
  }
  return text
    .split(/\s+/)
    .filter((word) => word.length > 1 && !/^\d+$/.test(word))
    .join(" ");
}
