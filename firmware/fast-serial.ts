/**
 * The serial part of the fast poll (firmware/fast-poll.ts): polls of servers' serial lines and ordinary answers on
 * them, in a few flat statements.
 *
 *     round, a line's poll is due ─> number, counter, CRC patched ─> both lines
 *     pieces of a packet ─> whole, sound, the same as last time? ─> kept as it came
 *                                └ no ──> all that was held back ──> core, as without this file
 *
 * A line brings a packet in pieces. What has no end yet means nothing to the core either, so it is held back here, as text.
 * An ordinary packet has the next number, is the first to answer the latest poll, says what the core took in full the last
 * time but for its measurements, and its CRC is right. All else goes to the core byte for byte: garbage, what was lost or
 * doubled, and other words are counted there and nowhere else.
 *
 * A line that is silent, or that no cable was ever at, is polled here too; what it brings then is not ordinary.
 */
import type { RawSerial } from "../hal/hal.js";
import { HEADER_BYTES } from "../protocol/frame.js";
import { GAUGES_BYTES, SAYS_AT, gaugesAt } from "../protocol/messages.js";
import type { Heartbeat } from "../protocol/messages.js";
import type { ServerIndex } from "../protocol/record.js";
import { SERIAL_POLL } from "./core/deadlines.js";
import { POLLS_KEPT } from "./core/information.js";
import type { Rounds } from "./core/rounds.js";

/** What the engine offers. */
export interface SerialEngine {
  toText(bytes: Uint8Array): string;
  toBuffer(text: string): ArrayBuffer;
  /** @returns the CRC32 of all bytes, signed or not */
  crc32(bytes: Uint8Array | string): number;
}

const FLAG = "~";
const FLAG_BYTE = 0x7e;
const ESCAPE_BYTE = 0x7d;
const FLIP = 0x20;

// A packet as text: flag, head, number, frame, CRC, flag. Its bytes alone have no flags: all is one earlier there.
const NUMBER_AT = 2;
const FRAME_AT = 3;
const DATAGRAM_AT = FRAME_AT + HEADER_BYTES;
const COUNTER_AT = DATAGRAM_AT + 4;
const SAYS_FROM = DATAGRAM_AT + SAYS_AT;
/** CRC and flag. */
const END_CHARS = 5;
/** The lowest byte of a poll's counter, the only one that is patched. */
const LOW_AT = COUNTER_AT + 2;

/** Stands for an answer's head while none is ordinary: it is longer than one. */
const NEVER = "no packet is ordinary";
/** So much waits for its end at most; a core's decoder gives up much later. @unit characters */
const HELD_MAX = 600;
/** Beside the lines' bits: no poll of a line is ordinary. */
const NOT_READY = 4;
/** A poll's counter may go on for so long before another of its bytes changes. */
const ROUNDS_MAX = 255;

/** What a line's part is told to do: a number, since a function of its own for each would take a chip's memory. */
const BEGIN = 0;
/** The core is told of what has gone by, and nothing is ordinary. */
const END = 1;
/** The next poll goes out. */
const SEND = 2;

/** @returns for BEGIN rounds that may follow, -1 when what the line brings is not known here */
type Tell = (what: number) => number;

export interface FastSerial {
  /** Told once, before lines are asked for. */
  serve(rounds: Rounds): void;
  /** @returns the handler of what a server's line brings */
  line(server: ServerIndex, raw: RawSerial): (text: string) => void;
  /** @returns rounds that may follow */
  begin(): number;
  /** The core is told of what has gone by, and nothing is ordinary until the next `begin`. */
  end(): void;
  /** All that are up have answered the latest poll, and the next one is an ordinary one. */
  isReady(): boolean;
  /**
   * Polls both lines.
   * @param at when @returns when the polls went out that had been the latest @unit ms
   */
  poll(at: number): number;
  /** When the newest poll went out that had an ordinary answer on a line. @unit ms */
  heardAt(): number;
}

export function createFastSerial(engine: SerialEngine): FastSerial {
  // In the order of use: the engine looks through a list.
  /** Lines whose latest poll has not been answered, a bit each, or NOT_READY. */
  let open = NOT_READY;
  /** All whose answers are waited for. */
  let awaited = 0;
  let sentAt = 0;
  const toBuffer = engine.toBuffer;
  const toText = engine.toText;
  const crc32 = engine.crc32;
  const character = String.fromCharCode;
  const Bytes = Uint8Array;
  const crcBytes = new Bytes(4);
  const crcView = new DataView(crcBytes.buffer);
  let tellFirst: Tell | undefined = undefined;
  let tellSecond: Tell | undefined = undefined;
  let isPolled = false;
  let heardAt = 0;
  let rounds: Rounds;

  /** What ends with a flag, without its escapes; "" when one of them stands for the first flag or before the last. */
  function unstuffed(text: string): string {
    const bytes = new Bytes(toBuffer(text));
    if (bytes[0] !== FLAG_BYTE) return "";
    let at = bytes.indexOf(ESCAPE_BYTE);
    if (at < 0) return text;
    let plain = "";
    let from = 0;
    while (at >= 0) {
      plain += text.substring(from, at) + character(bytes[at + 1] ^ FLIP);
      from = at + 2;
      at = from < bytes.length ? bytes.indexOf(ESCAPE_BYTE, from) : -1;
    }
    return from < bytes.length ? plain + text.substring(from) : "";
  }

  function crcOf(bytes: Uint8Array | string): Uint8Array {
    crcView.setUint32(0, crc32(bytes));
    return crcBytes;
  }

  function line(server: ServerIndex, raw: RawSerial): (text: string) => void {
    const bit = 1 << server;
    const others = ~bit;
    const view = rounds.servers[server];
    /** What has come since the core's decoder stood between two packets. */
    let held = "";
    /** So much may wait for its end; 0: the decoder stands within a packet. */
    let room = HELD_MAX;
    const flag = FLAG;
    // What an ordinary answer consists of; the head changes with every poll.
    let head = NEVER;
    let headLength = 0;
    let says = "";
    let saysLength = 0;
    let tail = "";
    let tailAt = 0;
    let crcAt = 0;
    /** Ordinary answers that the core has not been told of, and the newest. */
    let heard = 0;
    let last = "";
    /** The number of the packet that was heard last. */
    let number = 0;
    let packet: Uint8Array = new Uint8Array(0);
    let body = packet;
    let start = "";
    let kind = "";
    /** Polls that the core has not been told of, and those that the line had no room for. */
    let count = 0;
    let unsent = 0;
    /** What the core took in full, and the packet that said it. */
    let known: Heartbeat | undefined;
    let source = "";

    function take(text: string): void {
      raw.ordinary(text);
      const said = view.line!.said;
      if (said === undefined || said === known) return;
      known = undefined;
      source = unstuffed(text);
      // In the 7-bit form nothing is where it should be, nor where there is more than one packet.
      if (
        source.charCodeAt(1) > 127 &&
        source.charCodeAt(FRAME_AT + 2) * 256 + source.charCodeAt(FRAME_AT + 3) ===
          source.length - DATAGRAM_AT - END_CHARS
      ) {
        known = said;
      }
    }

    function learn(): void {
      const gauges = DATAGRAM_AT + gaugesAt(view.id.length);
      crcAt = source.length - END_CHARS;
      tailAt = gauges + GAUGES_BYTES;
      tail = source.substring(tailAt, crcAt);
      says = source.substring(SAYS_FROM, gauges);
      saysLength = says.length;
      kind = source.substring(FRAME_AT, COUNTER_AT);
      start = source.substr(0, NUMBER_AT);
      source = "";
    }

    /** How the answer to the latest poll begins. */
    function expect(): void {
      head =
        start + character((number + 1) & 255) + kind + toText(packet).substr(COUNTER_AT - 1, 4);
      headLength = head.length;
    }

    function begin(): number {
      const path = view.line!;
      const bytes = rounds.lines!.packetOf(view);
      if (bytes === undefined) return -1;
      packet = bytes;
      body = packet.subarray(0, packet.length - 4);
      if (path.up) {
        if (!view.linked || path.strangerId !== "") return -1;
        if (path.said === undefined || path.said !== known) return -1;
        if (source !== "") learn();
        number = rounds.lines!.lastNumber(server);
        awaited |= bit;
        if (!path.answered) {
          open |= bit;
          expect();
        }
      }
      if (path.polledAt < sentAt) sentAt = path.polledAt;
      return ROUNDS_MAX - packet[LOW_AT];
    }

    function send(): void {
      view.line!.polls.sentAt[++packet[LOW_AT] % POLLS_KEPT] = sentAt;
      count++;
      packet.set(crcOf(body), packet.length - 4);
      let text = toText(packet);
      if (packet.indexOf(ESCAPE_BYTE) >= 0 || packet.indexOf(FLAG_BYTE) >= 0) {
        text = text.split("}").join("}]").split(flag).join("}^");
      }
      // What never went out is not missed by the other end.
      if (raw.write(flag + text + flag)) packet[1]++;
      else unsent++;
      if (awaited & bit) expect();
    }

    function end(): void {
      head = NEVER;
      if (count + heard === 0) return;
      rounds.lines!.passed(
        view,
        { count: count, unsent: unsent, sentAt: sentAt, heard: heard, behind: open & bit ? 1 : 0 },
        heard > 0 ? new Uint8Array(toBuffer(last.substr(DATAGRAM_AT))) : undefined,
      );
      if (view.line!.aliveAt > heardAt && heard > 0) heardAt = view.line!.aliveAt;
      count = 0;
      unsent = 0;
      heard = 0;
      last = "";
    }

    /** What is held goes one way or the other, unless the packet has just begun. @param piece the last of it */
    function ended(piece: string): void {
      const at = held === piece ? piece.indexOf(flag, 1) : piece.indexOf(flag);
      if (at < 0 && room > 0 && held.length <= room) return;
      const text = held;
      held = "";
      if (room > 0 && head !== NEVER && at === piece.length - 1) {
        const plain = unstuffed(text);
        if (
          plain.length === crcAt + END_CHARS &&
          plain.substr(0, headLength) === head &&
          plain.substr(SAYS_FROM, saysLength) === says &&
          plain.substring(tailAt, crcAt) === tail &&
          toText(crcOf(plain.substring(1, crcAt))) === plain.substr(crcAt, 4)
        ) {
          open &= others;
          head = NEVER;
          number++;
          heard++;
          last = plain;
          return;
        }
      }
      room = text.charAt(text.length - 1) === flag ? HELD_MAX : 0;
      take(text);
    }

    function tell(what: number): number {
      if (what === BEGIN) return begin();
      if (what === SEND) send();
      else end();
      return 0;
    }
    if (server === 0) tellFirst = tell;
    else tellSecond = tell;

    /** Whatever has no end yet waits for it. */
    return function (text: string): void {
      held += text;
      if (text.indexOf(flag) >= 0 || held.length > room) ended(text);
    };
  }

  function tellBoth(what: number): number {
    const first = tellFirst === undefined ? ROUNDS_MAX : tellFirst(what);
    const second = tellSecond === undefined ? ROUNDS_MAX : tellSecond(what);
    return first < second ? first : second;
  }

  function end(): void {
    tellBoth(END);
    open = NOT_READY;
    if (!isPolled) return;
    isPolled = false;
    rounds.deadlines.set(SERIAL_POLL, sentAt + rounds.timings.serialPollMs);
  }

  return {
    serve: (served) => {
      rounds = served;
    },
    line: line,
    begin: () => {
      open = 0;
      awaited = 0;
      sentAt = Infinity;
      const may = tellBoth(BEGIN);
      if (may >= 0) return may;
      end();
      return ROUNDS_MAX;
    },
    end: end,
    isReady: () => open === 0,
    poll: (at) => {
      const before = sentAt;
      sentAt = at;
      open = awaited;
      isPolled = true;
      tellBoth(SEND);
      return before;
    },
    heardAt: () => heardAt,
  };
}
