/**
 * The fast poll of a chip's engine: a round of polls in which nothing happens is carried out here, in a few flat statements.
 *
 *     timer ─> both have answered, nothing else is due ─> counter patched ─> both servers     books: here
 *     server's heartbeat ─> the same as last time? ─> kept as it came
 *                                └ no ──> catch up: the books go into the views ─> core, as without this file
 *
 * The engine reads the source of every statement anew whenever it runs it, so a heartbeat taken apart by many small
 * functions costs millions of instructions, and so do the ticks between. Here an answer is compared as a text, by the
 * engine's own natives, with what the core took in full the last time: kind, the latest poll's counter, nonces, id, record, disk and flags
 * before its measurements, and all that comes after them. What it measures no rule reads while no write has waited for
 * long; it lies in the text until somebody asks, or until the fourth poll from the last: reads go by the load it tells.
 *
 * Nothing is decided here. Rounds begin after a tick, when the core says that no rule waits for anything
 * (core/rounds.ts), and end as soon as the core is to read or change anything of a server: it asks first, and is told what
 * went by. A server that has not answered when the next poll is due, an answer to an older poll, another word of
 * any kind: all of it goes the long way, so every verdict is the core's own.
 *
 * Looked at less often than otherwise, every sixteenth poll: whether a server's link takes what it is sent.
 */
import type { RawDatagram, RawSerial } from "../hal/hal.js";
import { writeU32 } from "../protocol/frame.js";
import {
  GAUGES_BYTES,
  LOAD_AT,
  SAYS_AT,
  SERVICE_AT,
  STALLS_AT,
  gaugesAt,
} from "../protocol/messages.js";
import type { Heartbeat } from "../protocol/messages.js";
import type { ServerIndex } from "../protocol/record.js";
import { POLL, SERIAL_POLL } from "./core/deadlines.js";
import { WITH_CLIENTS, WITH_SERIAL_LINES } from "./core/features.js";
import { POLLS_KEPT } from "./core/information.js";
import { isOut, quietStallMs, roundsPassed } from "./core/rounds.js";
import type { Rounds } from "./core/rounds.js";
import { createFastSerial } from "./fast-serial.js";
import type { SerialEngine } from "./fast-serial.js";

/** What the engine offers. */
export interface PollEngine extends SerialEngine {
  /** @unit ms */
  now(): number;
}

/** Where an answer's counter begins: behind what kind of datagram it is. */
const COUNTER_AT = 4;
/** The lowest byte of a poll's counter, the only one that is patched. */
const LOW_AT = 7;
/** Stands for an answer's head while none is ordinary: it is longer than one. */
const NEVER = "not ordinary";
/** What both stalls are, while no write waits. */
const NO_STALLS = "\0\0\0\0\0\0\0\0";

/** A timer's time is rounded down, to a microsecond or so. @unit ms */
const EARLY_MS = 0.05;

/** Rounds from one time to the next that the target of reads is told the servers' load. */
const MEASURE_EVERY = 4;
/** Rounds from one look at the servers' links to the next. */
const LOOK_EVERY = 16;

/** What a server's part is told to do: a number, since a function of its own for each would take a chip's memory. */
const BEGIN = 0;
/** The core is told of what has gone by. */
const END = 1;
/** And of what the newest answer measured. */
const MEASURED = 2;
/** No answer is ordinary. */
const FORGET = 3;
/** The target of reads is told the load, if that is another than it was told before. */
const LOADED = 4;

/** One server's part. */
interface Asked {
  /** Sends the next poll. */
  poll(): void;
  /** @returns for BEGIN rounds that may follow, -1 when what the server says is not known here */
  tell(what: number): number;
}

export interface FastPoll {
  /** Told once, before servers are asked for. @param wakeIn sets the loop's timer */
  serve(rounds: Rounds, wakeIn: (delayMs: number) => void): void;
  /** @returns the handler of a server's datagrams */
  server(server: ServerIndex, raw: RawDatagram): (text: string) => void;
  /** @returns the handler of what a server's serial line brings */
  line(server: ServerIndex, raw: RawSerial): (text: string) => void;
  /** The loop's timer. @returns whether all is done, the timer set; if not, a tick is due */
  round(): boolean;
  /** A tick has gone by. */
  ticked(): void;
  /** When a server was last heard in an ordinary round. @unit ms */
  heardAt(): number;
  /** When a poll of a serial line went out that had an ordinary answer. @unit ms */
  lineHeardAt(): number;
  /** Nothing more is carried out here. */
  stop(): void;
}

export function createFastPoll(engine: PollEngine): FastPoll {
  // In the order of use: the engine looks through a list.
  /** Servers that have not answered the latest poll, a bit each. */
  let open = 0;
  /** Rounds that may still follow before a tick; -1: none is ordinary. */
  let left = -1;
  /** Rounds since the core was told, and when the last one's polls went out. */
  let count = 0;
  let pollAt = 0;
  /** A tick is due before the poll that would follow one sent later. @unit ms */
  let lastStart = 0;
  let time = 0;
  let pollMs = 0;
  const now = engine.now;
  /** The first round at or after this polls the serial lines too. @unit ms */
  let linesFrom = Infinity;
  let sentAt = 0;
  /** All whose answers are waited for. */
  let awaited = 0;
  /** A poll that is sent later than this long after its time could see a verdict fall due before the next one. @unit ms */
  let lateMax = 0;
  let pollFirst = () => {};
  let pollSecond = () => {};
  let rounds: Rounds;
  let wakeIn: (delayMs: number) => void;
  const toText = engine.toText;
  let heardAt = 0;
  let lateTurns = 0;
  let worstLateMs = 0;
  const lines = WITH_SERIAL_LINES ? createFastSerial(engine) : undefined;
  /** As `lastStart`, for all but the lines' silence. */
  let lastButLines = 0;
  /** An age of a write from which on rules look at it, as a heartbeat has it. */
  let stallFrom = "";
  const asked: Asked[] = [];

  function server(index: ServerIndex, raw: RawDatagram): (text: string) => void {
    const bit = 1 << index;
    const view = rounds.servers[index];
    const sentAts = view.sentAt;
    const others = ~bit;
    // What an ordinary answer consists of; the head changes with every poll.
    let head = NEVER;
    let says = "";
    let saysLength = 0;
    let tail = "";
    let tailAt = 0;
    let stallsAt = 0;
    let loadAt = 0;
    let told = "";
    /** The newest ordinary answer whose measurements the core has not been told, and when it came. */
    let last = "";
    let lastAt = 0;
    /** It has come since the core was told of any. */
    let isNew = false;
    let poll: Uint8Array = new Uint8Array(0);
    let kind = "";
    const socket = raw.socket;
    const port = raw.port;
    const host = raw.host;
    /** What the core took in full, and the text that said it. */
    let known: Heartbeat | undefined;
    let source = "";

    function take(text: string): void {
      const before = view.said;
      raw.ordinary(text);
      if (view.said === undefined || view.said === before) return;
      known = view.said;
      source = text;
    }

    function learn(): void {
      const gauges = gaugesAt(view.id.length);
      saysLength = gauges - SAYS_AT;
      says = source.substr(SAYS_AT, saysLength);
      stallsAt = gauges + STALLS_AT;
      loadAt = gauges + LOAD_AT;
      tailAt = gauges + GAUGES_BYTES;
      tail = source.substr(tailAt);
      kind = source.substr(0, COUNTER_AT);
      source = "";
    }

    asked[index] = {
      poll: () => {
        sentAts[++poll[LOW_AT] % POLLS_KEPT] = sentAt;
        const text = toText(poll);
        socket.send(text, port, host);
        head = kind + text.substr(4, 4);
      },
      tell: (what) => {
        if (what === LOADED) {
          const load = last.substr(loadAt, 2) + last.substr(loadAt + SERVICE_AT - LOAD_AT, 4);
          if (load !== "" && load !== told) {
            told = load;
            rounds.loaded(index, new Uint8Array(engine.toBuffer(load)));
          }
          return 0;
        }
        if (what === MEASURED) {
          if (last !== "") rounds.measured(index, new Uint8Array(engine.toBuffer(last)));
          last = "";
          return 0;
        }
        head = NEVER;
        if (what === BEGIN) {
          told = "";
          if (isOut(view)) {
            kind = NEVER;
          } else {
            if (view.said === undefined || view.said !== known) return -1;
            if (source !== "") learn();
            awaited |= bit;
            if (!view.answered) open |= bit;
          }
          poll = rounds.pollOf(view);
          head = kind + toText(poll).substr(4, 4);
          // The counter's other bytes stay as they are.
          return 255 - poll[LOW_AT];
        }
        if (what === END) {
          roundsPassed(view, count, sentAt, isNew ? (open & bit ? 1 : 0) : -1, lastAt);
          isNew = false;
          if (lastAt > heardAt) heardAt = lastAt;
        }
        return 0;
      },
    };

    return function (text: string): void {
      if (
        text.substr(0, 8) === head &&
        text.substr(8, saysLength) === says &&
        text.substr(tailAt) === tail &&
        // Numbers of as many bytes, the highest first, are in the order of their texts.
        (text.substr(stallsAt, 8) === NO_STALLS ||
          (text.substr(stallsAt, 4) < stallFrom && text.substr(stallsAt + 4, 4) < stallFrom))
      ) {
        open &= others;
        lastAt = now();
        last = text;
        isNew = true;
      } else take(text);
    };
  }

  /** The core reads or changes what rounds change: it is told, and none is ordinary until a tick has gone by. */
  function catchUp(measured: boolean): void {
    if (left >= 0) {
      left = -1;
      asked[0].tell(END);
      asked[1].tell(END);
      if (WITH_SERIAL_LINES) lines!.end();
      if (count > 0) rounds.passed(pollAt, lateTurns, worstLateMs);
    }
    if (!measured) return;
    asked[0].tell(MEASURED);
    asked[1].tell(MEASURED);
  }

  function countLate(): void {
    lateTurns++;
    if (time - pollAt > worstLateMs) worstLateMs = time - pollAt;
  }

  /** All have answered by now. */
  function pollLines(): void {
    lastStart = lines!.poll(sentAt) + rounds.timings.serialFailureMs - pollMs;
    if (lastButLines < lastStart) lastStart = lastButLines;
    linesFrom = sentAt + rounds.timings.serialPollMs - pollMs / 2;
  }

  return {
    serve: (served, wake) => {
      rounds = served;
      if (WITH_SERIAL_LINES) lines!.serve(served);
      wakeIn = wake;
      pollMs = rounds.timings.pollMs;
      lateMax = rounds.timings.failureMs - 2 * pollMs;
      const bytes = new Uint8Array(4);
      writeU32(bytes, 0, quietStallMs(rounds.timings));
      stallFrom = toText(bytes);
      rounds.catchUp = catchUp;
    },
    server: server,
    line: (index, raw) => (WITH_SERIAL_LINES ? lines!.line(index, raw) : raw.ordinary),
    round: () => {
      time = now();
      if (
        open ||
        left <= 0 ||
        time < pollAt - EARLY_MS ||
        time > pollAt + lateMax ||
        time > lastStart ||
        (WITH_SERIAL_LINES && time >= linesFrom && !lines!.isReady()) ||
        !rounds.isIdle()
      ) {
        return false;
      }
      if (time - pollAt > pollMs / 2) countLate();
      left--;
      count++;
      sentAt = time;
      open = awaited;
      pollFirst();
      pollSecond();
      if (WITH_SERIAL_LINES && time >= linesFrom) pollLines();
      pollAt = sentAt + pollMs;
      time = pollAt - now();
      wakeIn(time > 0 ? time : 0);
      // Behind the polls, which go first.
      if (WITH_CLIENTS && left % MEASURE_EVERY === 0) {
        asked[0].tell(LOADED);
        asked[1].tell(LOADED);
      }
      if (left % LOOK_EVERY === 0) rounds.look(sentAt);
      // A link that was dropped there has ended the rounds.
      return left >= 0;
    },
    ticked: () => {
      if (left >= 0) return;
      const until = rounds.calmUntil();
      if (until < 0) return;
      open = 0;
      awaited = 0;
      const first = asked[0].tell(BEGIN);
      const second = first < 0 ? -1 : asked[1].tell(BEGIN);
      if (second < 0) {
        asked[0].tell(FORGET);
        return;
      }
      left = first < second ? first : second;
      if (WITH_SERIAL_LINES) {
        const may = lines!.begin();
        if (may < left) left = may;
        linesFrom = rounds.deadlines.at(SERIAL_POLL) - pollMs / 2;
        lastButLines = rounds.deadlines.nextButPolls() - pollMs;
      }
      count = 0;
      lateTurns = 0;
      worstLateMs = 0;
      pollAt = rounds.deadlines.at(POLL);
      lastStart = until - pollMs;
      pollFirst = asked[0].poll;
      pollSecond = asked[1].poll;
    },
    heardAt: () => heardAt,
    lineHeardAt: () => (WITH_SERIAL_LINES ? lines!.heardAt() : 0),
    stop: () => {
      left = -1;
      if (WITH_SERIAL_LINES) lines!.end();
      for (let i = 0; i < asked.length; i++) asked[i].tell(FORGET);
    },
  };
}
