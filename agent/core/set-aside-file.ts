/**
 * What a standby had to give up (rule 8), as files a person can read: one JSON object a line, the
 * first line saying what the file is.
 */
import {
  CHUNK_HEADER_BYTES,
  ENTRY_RESULT,
  chunkCount,
  chunkEpoch,
  chunkFirst,
  chunkTimeMs,
  makeEntryView,
  readEntry,
} from "./chunk.js";
import {
  EffectReader,
  OP_DEL,
  OP_EXPIRE,
  OP_FLUSH,
  OP_HASH,
  OP_HDEL,
  OP_HDROP,
  OP_HPUT,
  OP_PUT,
} from "../commands/effects.js";
import type { AgentLimits } from "./limits.js";
import type { SyncLog } from "./sync-log.js";

export interface SetAsideFile {
  name: string;
  bytes: Uint8Array;
}

/** Printable ASCII as it is, every other byte as \xNN: any effect can be read and rebuilt. */
export function readableBytes(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    if (byte === 92) text += "\\\\";
    else if (byte >= 32 && byte < 127) text += String.fromCharCode(byte);
    else text += "\\x" + (byte < 16 ? "0" : "") + byte.toString(16);
  }
  return text;
}

/** An entry's effects as facts a person can read, each as [what, key or field, more …]. */
function changesOf(bytes: Uint8Array, start: number, end: number): unknown[] {
  const changes: unknown[] = [];
  const reader = new EffectReader();
  const name = (): string => readableBytes(bytes, reader.nameStart, reader.nameEnd);
  const value = (): string => readableBytes(bytes, reader.valueStart, reader.valueEnd);
  try {
    reader.open(bytes, start, end);
    while (reader.next()) {
      const expires = reader.expireAt > 0 ? [{ expireAtMs: reader.expireAt }] : [];
      if (reader.op === OP_PUT) changes.push(["put", name(), value(), ...expires]);
      else if (reader.op === OP_DEL) changes.push(["del", name()]);
      else if (reader.op === OP_EXPIRE) changes.push(["expire", name(), reader.expireAt]);
      else if (reader.op === OP_HASH) changes.push(["hash", name(), reader.count, ...expires]);
      else if (reader.op === OP_HPUT) changes.push(["field", name(), value()]);
      else if (reader.op === OP_HDEL) changes.push(["field gone", name()]);
      else if (reader.op === OP_FLUSH) changes.push(["flush"]);
      else if (reader.op !== OP_HDROP) changes.push(["op " + reader.op]);
    }
  } catch {
    // Of another version: the bytes are kept all the same.
    changes.push(["bytes", readableBytes(bytes, start, end)]);
  }
  return changes;
}

function asciiBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i) & 127;
  return bytes;
}

/** JSON in ASCII, so that no encoding is needed to write or read it. */
function jsonLine(value: object): string {
  return (
    JSON.stringify(value).replace(
      /[\u007f-\uffff]/g,
      (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"),
    ) + "\n"
  );
}

/** The entries above `keepTo` that the log still has, oldest first; each file at most about `setAsideBytesMax` long. */
export function setAsideFiles(
  log: SyncLog,
  keepTo: number,
  epoch: number,
  limits: AgentLimits,
): SetAsideFile[] {
  const files: SetAsideFile[] = [];
  const view = makeEntryView();
  let lines = "";
  const from = Math.max(keepTo, log.base);
  let firstIndex = from + 1;
  const close = (lastIndex: number): void => {
    const lacks = files.length === 0 && from > keepTo;
    if (lastIndex < firstIndex && !lacks) return;
    const missing = lacks
      ? { missing: `entries ${keepTo + 1} to ${from} went too, but were no longer in the log` }
      : {};
    const head = jsonLine({
      what: "entries this server held and the primary did not; they were removed here",
      ...missing,
      epoch,
      firstIndex,
      lastIndex,
    });
    files.push({
      name: `set-aside-epoch-${epoch}-entries-${lacks ? keepTo + 1 : firstIndex}-${lastIndex}.jsonl`,
      bytes: asciiBytes(head + lines),
    });
    lines = "";
    firstIndex = lastIndex + 1;
  };
  log.visit(from, (chunk) => {
    let at = CHUNK_HEADER_BYTES;
    const first = chunkFirst(chunk);
    for (let i = 0; i < chunkCount(chunk); i++) {
      at = readEntry(chunk, at, chunk.length, view);
      const line: Record<string, unknown> = {
        index: first + i,
        // The stamp holds the primary as well (Roles.logEpoch).
        epoch: Math.floor(chunkEpoch(chunk) / 2),
        timeMs: chunkTimeMs(chunk),
      };
      const { effectsStart, effectsEnd } = view;
      if (effectsEnd > effectsStart) line["changes"] = changesOf(chunk, effectsStart, effectsEnd);
      if ((view.flags & ENTRY_RESULT) !== 0) {
        line["session"] = view.slot;
        line["number"] = view.number;
      }
      lines += jsonLine(line);
      if (lines.length >= limits.setAsideBytesMax) close(first + i);
    }
  });
  close(log.end);
  return files;
}
