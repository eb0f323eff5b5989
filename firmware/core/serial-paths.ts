/**
 * The serial lines to the servers: a second path for polls, and for the record when the network is gone.
 *
 *     poll      about every serialPollMs ──> DATAGRAM ──line──> server ──> DATAGRAM: a heartbeat
 *     record    while a server out of the network's reach is behind ──> SEALED
 *
 * Framing and counting only; what a heartbeat means is information.ts' business. Nothing is queued here:
 * what the line does not take at once is left out, and the next poll follows soon.
 */
import { assert } from "./assert.js";
import type { CoreConfig } from "./config.js";
import { WITH_SERIAL_LINES } from "./features.js";
import type { ServerView } from "./information.js";
import type { ControllerPorts } from "./ports.js";
import { FRAME_DATAGRAM, HEADER_BYTES, frameOf } from "../../protocol/frame.js";
import { KIND_RECORD, encodeControl, encodePoll } from "../../protocol/messages.js";
import { epochOf } from "../../protocol/record.js";
import type { RoleRecord, ServerIndex } from "../../protocol/record.js";
import {
  FORM_BINARY,
  SIDE_CONTROLLER,
  SIDE_OTHER,
  SerialDecoder,
  encodeSerial,
  serialPacket,
} from "../../protocol/serial.js";
import type { Crc32, SerialCounts } from "../../protocol/serial.js";
import { sealedFrame } from "../../protocol/serial-seal.js";

export interface SerialPaths {
  /** Bytes that have come on a server's line. */
  feed(server: ServerIndex, bytes: Uint8Array, start: number, end: number, now: number): void;
  /** Sends the poll that was just counted. */
  poll(view: ServerView, session: Uint8Array, record: RoleRecord | undefined): void;
  /** For whoever carries out ordinary rounds; undefined in a build without lines. */
  past: LinesPast | undefined;
  /** Tells a server of a record; it must have been heard on the line in this boot of its own. */
  tell(view: ServerView, record: RoleRecord, fresh: boolean, forced: boolean): void;
  /** @returns undefined when this server has no line */
  counts(server: ServerIndex): SerialCounts | undefined;
  /** Packets the line had no room for. */
  unsent(server: ServerIndex): number;
}

/** What packets are that go past this file, and what they leave behind. */
export interface LinesPast {
  /** A poll as a packet, under the next packet's number; undefined where the line's form is not the binary one. */
  packetOf(
    view: ServerView,
    session: Uint8Array,
    record: RoleRecord | undefined,
  ): Uint8Array | undefined;
  /** Number of the last packet heard, -1 before the first. */
  lastNumber(server: ServerIndex): number;
  /** Packets that were sent, not sent for want of room, and heard, one after the other. */
  count(server: ServerIndex, sent: number, unsent: number, heard: number): void;
}

/** @param onDatagram one datagram of a server; the bytes are the receiver's */
export function createSerialPaths(
  config: CoreConfig,
  ports: ControllerPorts,
  onDatagram: (server: ServerIndex, bytes: Uint8Array, now: number) => void,
): SerialPaths {
  const decoders: (SerialDecoder | undefined)[] = [undefined, undefined];
  const seqs = [0, 0];
  const unsentCounts = [0, 0];
  let currentTime = 0;
  const crc32: Crc32 | undefined = ports.crc32;

  function onFrame(server: ServerIndex, bytes: Uint8Array, start: number, end: number): void {
    // A server has nothing else to say on a line.
    if ((bytes[start] & 15) !== FRAME_DATAGRAM) return;
    onDatagram(server, bytes.slice(start + HEADER_BYTES, end), currentTime);
  }

  function open(server: ServerIndex): void {
    if (config.servers[server].serial === undefined) return;
    assert(crc32 !== undefined && ports.serial !== undefined, "a home with lines can drive them");
    decoders[server] = new SerialDecoder(SIDE_OTHER, crc32!, function (bytes, start, end): void {
      onFrame(server, bytes, start, end);
    });
  }

  function feed(
    server: ServerIndex,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void {
    const decoder = decoders[server];
    if (decoder === undefined) return;
    currentTime = now;
    decoder.feed(bytes, start, end);
  }

  function send(server: ServerIndex, frame: Uint8Array): void {
    const form = config.servers[server].serial;
    if (form === undefined) return;
    const bytes = encodeSerial(form, SIDE_CONTROLLER, seqs[server], frame, 0, frame.length, crc32!);
    if (!ports.serial!(server, bytes)) {
      unsentCounts[server]++;
      return;
    }
    // What never went out is not missed by the other end.
    seqs[server] = (seqs[server] + 1) & 255;
  }

  function pollFrame(
    view: ServerView,
    session: Uint8Array,
    record: RoleRecord | undefined,
  ): Uint8Array {
    const datagram = encodePoll({
      counter: view.line!.polls.counter,
      linkNonce: view.linkNonce,
      sessionId: session,
      epoch: epochOf(record),
    });
    return frameOf(FRAME_DATAGRAM, 0, 0, datagram);
  }

  function poll(view: ServerView, session: Uint8Array, record: RoleRecord | undefined): void {
    send(view.index, pollFrame(view, session, record));
  }

  function packetOf(
    view: ServerView,
    session: Uint8Array,
    record: RoleRecord | undefined,
  ): Uint8Array | undefined {
    const server = view.index;
    if (config.servers[server].serial !== FORM_BINARY) return undefined;
    const frame = pollFrame(view, session, record);
    return serialPacket(SIDE_CONTROLLER, seqs[server], frame, 0, frame.length, crc32!);
  }

  function lastNumber(server: ServerIndex): number {
    return decoders[server]!.lastNumber();
  }

  function count(server: ServerIndex, sent: number, unsent: number, heard: number): void {
    seqs[server] = (seqs[server] + sent) & 255;
    unsentCounts[server] += unsent;
    if (heard > 0) decoders[server]!.passed(heard);
  }

  function tell(view: ServerView, record: RoleRecord, fresh: boolean, forced: boolean): void {
    const said = view.line === undefined ? undefined : view.line.said;
    if (said === undefined) return;
    const message = encodeControl({
      kind: KIND_RECORD,
      record: record,
      fresh: fresh,
      forced: forced,
    });
    send(view.index, sealedFrame(ports.hmac, config.key, said.bootNonce, view.id, message));
  }

  function counts(server: ServerIndex): SerialCounts | undefined {
    const decoder = decoders[server];
    return decoder === undefined ? undefined : decoder.counts;
  }

  function unsent(server: ServerIndex): number {
    return unsentCounts[server];
  }

  open(0);
  open(1);
  return {
    feed: feed,
    poll: poll,
    past: { packetOf: packetOf, lastNumber: lastNumber, count: count },
    tell: tell,
    counts: counts,
    unsent: unsent,
  };
}

function nothing(): void {}

function noCounts(): undefined {
  return undefined;
}

/** The serial lines, or, in a build without them, lines that bring nothing. */
export function pathsOf(
  config: CoreConfig,
  ports: ControllerPorts,
  onDatagram: (server: ServerIndex, bytes: Uint8Array, now: number) => void,
): SerialPaths {
  if (WITH_SERIAL_LINES) return createSerialPaths(config, ports, onDatagram);
  return {
    feed: nothing,
    poll: nothing,
    past: undefined,
    tell: nothing,
    counts: noCounts,
    unsent: () => 0,
  };
}
