/**
 * The gate: when clients' next commands may pass without the forwarder, and how many.
 *
 *     command, no number left ─> open: everything as usual? room, numbers ─> the next few, seen by the handlers alone
 *                                          └ no ──> the forwarder's way
 *
 * It is open when the forwarder's own rules say that each of the next commands would be sent at once: route open, both
 * directions of the link in the record's epoch, nothing held, numbers and windows free, nobody in line. Every call into
 * the forwarder shuts it.
 */
import { CHIP_FRAME_BYTES_MAX, HEADER_BYTES } from "../protocol/frame.js";
import { lookAtBacklog } from "./core/client-output.js";
import { NO_ROW } from "./core/in-flight.js";
import { AGE_MAX, PACK_HEAD_BYTES, ROUND, swapped } from "./fast-path-books.js";
import type { Traffic } from "./core/traffic.js";
import type { FastBooks, FastClient, FastLink } from "./fast-path-books.js";
import { settle } from "./fast-path-settle.js";

/** One read in so many openings is timed. */
const TIMED_OPENINGS = 4;

/** Whether the link's server takes commands of this epoch, and its replies may pass (G3). */
function isOrdinary(books: FastBooks, link: FastLink | undefined, now: number): boolean {
  return (
    link !== undefined &&
    !link.strange &&
    now >= books.traffic.refusedUntil[link.server] &&
    books.traffic.replyEpoch[link.server] === books.traffic.epoch
  );
}

/** Whether all that the forwarder looks at is as usual. */
function isUsual(books: FastBooks, now: number): boolean {
  const traffic = books.traffic;
  if (
    !traffic.routeOpen ||
    traffic.draining ||
    traffic.hold.count > 0 ||
    traffic.line.length > 0 ||
    traffic.stash.length > 0 ||
    traffic.sendingRows[0].length > 0 ||
    traffic.sendingRows[1].length > 0 ||
    traffic.passedEpoch !== traffic.epoch ||
    !isOrdinary(books, books.at[traffic.primary], now)
  ) {
    return false;
  }
  const standby = 1 - traffic.primary;
  const other = traffic.readable[standby] ? books.at[standby] : undefined;
  books.writeLink = books.at[traffic.primary];
  books.other = now >= traffic.refusedUntil[standby] ? other : undefined;
  books.isOtherOrdinary = isOrdinary(books, other, now);
  // Reads are aimed anew, whoever has something outstanding.
  books.readLink = undefined;
  books.isOpen = true;
  return true;
}

/** Whether a client has nothing in the forwarder's hands, so that its next command may take this way. */
export function isIdle(books: FastBooks, one: FastClient): boolean {
  const client = books.traffic.clients[one.connection];
  if (
    client === undefined ||
    client.closed ||
    client.ending !== "" ||
    client.head !== NO_ROW ||
    client.open !== 0 ||
    client.choked ||
    client.paused ||
    client.inLine ||
    client.held ||
    !client.reading ||
    one.rest === undefined ||
    !one.raw.isIdle()
  ) {
    return false;
  }
  if (!one.native) {
    const parser = client.parser!;
    return (
      client.authenticated &&
      client.transaction === undefined &&
      !parser.hasMore() &&
      parser.heldBytes() === 0
    );
  }
  const decoder = client.decoder!;
  const front = client.front!;
  return (
    front.isIdle() &&
    !decoder.parked &&
    decoder.fault === "" &&
    decoder.heldBytes() === 0 &&
    front.payloadMax() >= CHIP_FRAME_BYTES_MAX - HEADER_BYTES
  );
}

/** A client takes this way from now on, under a channel of its own. */
function wake(books: FastBooks, one: FastClient): void {
  const channel = ++books.channelsGiven;
  const head = new Uint8Array(PACK_HEAD_BYTES);
  for (let i = 0; i < 4; i++) head[HEADER_BYTES + i] = channel >> (8 * i);
  one.ready = true;
  one.channel = channel;
  one.room = books.engine.toText(head);
  one.answered = 0;
  one.heard = 0;
  books.channels[channel] = one;
  books.live.push(one);
}

export interface Gate {
  /** Fills the pool, if all that the forwarder looks at is as usual. @returns whether it has numbers now */
  open(now: number): boolean;
  /**
   * New numbers for a client that goes on as before.
   * @returns whether its handlers may send, as far as they have a shape
   */
  refill(one: FastClient): boolean;
  /**
   * Whether the forwarder would send a client's next command at once.
   * @param kind the class, as a head has it
   */
  admit(one: FastClient, kind: number): boolean;
}

/** The engine finds a name sooner where it is used than at the file's top: so functions are in here, and some by a second name. */
export function createGate(books: FastBooks): Gate {
  const live = books.live;
  const pool = books.pool;
  const countOne = books.countOne;
  const time = books.engine.now;
  const numberOf = swapped;

  /** Commands that a link takes at once, whatever their length. */
  function roomAt(traffic: Traffic, server: number): number {
    const room = traffic.inFlightMax - traffic.inFlightAt[server];
    const window =
      (traffic.windowBytes[server] - traffic.windowUsed[server]) / CHIP_FRAME_BYTES_MAX;
    return window < room ? window | 0 : room;
  }

  /** A client that does not read must be choked, and what is too old must be rows. */
  function lookAt(one: FastClient): void {
    const traffic = books.traffic;
    const unread = one.socket.dSnd;
    countOne(one);
    if (unread !== undefined && unread.length > traffic.limits.clientOutHighBytes) {
      settle(books, one);
      lookAtBacklog(traffic, traffic.clients[one.connection]!);
    } else if (one.open > 0 && traffic.nextId - numberOf(one.sent[0][1]) > AGE_MAX) {
      settle(books, one);
    }
  }

  /** Reads of clients that have nothing outstanding go there from now on. */
  function aim(to: FastLink): void {
    const isOrdinary = to !== books.other || books.isOtherOrdinary;
    books.readLink = to;
    for (let i = 0; i < live.length; i++) {
      const one = live[i];
      if (one.kind !== 0 || one.link === to) continue;
      if (one.open === 0 && isOrdinary) {
        one.link = to;
        one.aim();
      } else if (!isOrdinary || (one.link !== books.writeLink && one.link !== books.other)) {
        one.halt();
      }
    }
  }

  function open(now: number): boolean {
    const traffic = books.traffic;
    if (books.pooled) {
      books.pooled = false;
      traffic.nextId = pool.take();
    }
    if (!books.isOpen && !isUsual(books, now)) return false;
    for (let i = live.length - 1; i >= 0; i--) if (live[i].sent.length > 0) lookAt(live[i]);
    const other = books.other;
    const from = traffic.nextId;
    const round = ROUND - (from & (ROUND - 1));
    let room = roomAt(traffic, traffic.primary);
    let rows = traffic.table.capacity - traffic.table.used - traffic.rowsKept;
    let to = books.writeLink!;
    if (traffic.rowsLent < rows) rows = traffic.rowsLent;
    rows -= to.open;
    if (other !== undefined) {
      const there = roomAt(traffic, other.server);
      const at = traffic.inFlightAt;
      rows -= other.open;
      // Asked for once a tick, and every few openings.
      if (!books.isTargetOld && books.readLink !== undefined && (books.untimed & 3) !== 0) {
        if (there > 0) to = books.readLink;
      } else if (
        there > 0 &&
        traffic.target.choose(true, true, at[0], at[1], now) !== traffic.primary
      ) {
        to = other;
      }
      // Whoever has something outstanding there goes on there.
      if (there < room && (to === other || other.open > 0)) room = there;
    }
    if (rows < room) room = rows;
    if (round < room) room = round;
    if (room < 1 || from + room >= traffic.idMax) return false;
    books.isTargetOld = false;
    if (to !== books.readLink) aim(to);
    traffic.nextId = from + room;
    books.pooled = true;
    books.untimed++;
    pool.fill(from, room);
    return true;
  }

  /** Times the next command of this client, if it is a read that waits for no other. */
  function timeNext(one: FastClient, now: number): void {
    if (one.kind !== 0 || one.open !== 0 || books.timed !== undefined) return;
    books.untimed = 0;
    books.timed = one;
    books.timedAt = now;
    books.timedAhead = books.traffic.inFlightAt[one.link.server];
    // Its answer is not to be passed on without a look.
    delete books.channels[one.channel];
  }

  function refill(one: FastClient): boolean {
    const now = time();
    if (!open(now) || !one.ready) return false;
    if (books.untimed > TIMED_OPENINGS) timeNext(one, now);
    return true;
  }

  function admit(one: FastClient, kind: number): boolean {
    const now = time();
    const isRead = kind === 0;
    if (pool.left() < 1 && !open(now)) return false;
    if (!one.ready) {
      if (!isIdle(books, one)) return false;
      wake(books, one);
    } else countOne(one);
    if (one.open === 0) {
      if (isRead && books.readLink === books.other && !books.isOtherOrdinary) return false;
      one.link = isRead ? books.readLink! : books.writeLink!;
      one.reads = isRead;
      one.kind = kind;
      if (books.untimed > TIMED_OPENINGS) timeNext(one, now);
      return true;
    }
    // Behind a read no write goes here: it may have to wait for the read's answer (core/pipeline-order.ts).
    if (
      isRead
        ? one.link !== books.writeLink && one.link !== books.other
        : one.link !== books.writeLink || one.reads
    ) {
      return false;
    }
    if (isRead) one.reads = true;
    one.kind = kind;
    return true;
  }

  return { open: open, refill: refill, admit: admit };
}
