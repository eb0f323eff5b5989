/** Lines for people: every frame on the links between controller and servers, as it is sent. */
import { FRAME_CONTROL, HEADER_BYTES, readU32 } from "../protocol/frame.js";
import { isMalformed } from "../protocol/malformed.js";
import {
  decodeControl,
  KIND_PEER_HEARTBEAT,
  KIND_RECORD,
  KIND_REPORT,
  KIND_STATE,
  kindName,
} from "../protocol/messages.js";
import { formatRecord } from "../protocol/record.js";
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
  "DATAGRAM",
  "SEALED",
  "PACK",
  "PACK_REPLY",
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
    const words = type === FRAME_CONTROL ? controlOf(frame) : `${name} #${id} ${wordsOf(frame)}`;
    if (words !== "") this.arrow(from, words);
    this.line(
      from.machine.name,
      `    ${name} #${id} flags ${flags} to ${from.peer.machine.name}, ${frame.length - HEADER_BYTES} bytes: ${text}`,
    );
  }
}

/** What a control message says, in few words; "" for the servers' heartbeats, which would hide all else. */
function controlOf(frame: Uint8Array): string {
  const message = decodeControl(frame, HEADER_BYTES, frame.length);
  if (isMalformed(message)) return `malformed: ${message.malformed}`;
  switch (message.kind) {
    case KIND_PEER_HEARTBEAT:
      return "";
    case KIND_RECORD:
      return `record ${formatRecord(message.record)}${message.forced ? ", forced" : ""}`;
    case KIND_REPORT:
      return `report: ${formatRecord(message.heartbeat.record)}`;
    case KIND_STATE:
      return `I hold ${formatRecord(message.record)}`;
    default:
      return kindName(message.kind);
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
