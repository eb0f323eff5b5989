/**
 * one-primary, judged on the wire: listens to the links between servers and controller and knows of
 * each reply which server decided it in which epoch.
 *
 * - in one epoch only one server answers changes;
 * - it is the one the controller's flash names for that epoch;
 * - in a solo epoch the other server answers nothing at all.
 *
 * reads-target, judged as each command is sent: changes go to the primary that the flash names (P6); reads go there as
 * well, or, in mode both alone, to a standby whose own disk has that very epoch (P3, P4); nothing goes anywhere while
 * the flash is blank (G1).
 *
 * order, of packs: each PACK_REPLY answers the oldest commands of its channel that are unanswered on that link, and a
 * reply to a command of a pack comes when all before it in its channel have theirs. Each command of a pack, and each
 * answer in a PACK_REPLY, is judged as if it had come alone.
 */
import {
  CHANNEL_BYTES,
  CLASS_QUERY,
  FLAG_CLASS_MASK,
  FLAG_MORE,
  FLAG_PLAIN,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_EPOCH,
  FRAME_PACK,
  FRAME_PACK_REPLY,
  FRAME_REPLY,
  HEADER_BYTES,
  OUTCOME_ANSWER,
  OUTCOME_REFUSED,
  OUTCOME_MASK,
  readU16,
  readU32,
} from "../protocol/frame.js";
import { MODE_BOTH, MODE_SOLO } from "../protocol/record.js";
import type { RoleRecord } from "../protocol/record.js";
import type { End } from "./world/network.js";

const PROMISE = "one-primary";

const NO_BYTES = new Uint8Array(0);

/** Finds frames in a stream of bytes, whatever the chunks; of packs and their answers the payload as well. */
class FrameScanner {
  private readonly header = new Uint8Array(HEADER_BYTES);
  private have = 0;
  private skip = 0;
  /** The payload that is being gathered, and how much of it there is. */
  private payload = NO_BYTES;
  private gathered = 0;

  scan(
    bytes: Uint8Array,
    onFrame: (type: number, flags: number, id: number, payload: Uint8Array) => void,
  ): void {
    let at = 0;
    const h = this.header;
    while (at < bytes.length) {
      if (this.skip > 0) {
        const step = Math.min(this.skip, bytes.length - at);
        if (this.payload.length > 0) {
          this.payload.set(bytes.subarray(at, at + step), this.gathered);
          this.gathered += step;
        }
        this.skip -= step;
        at += step;
        if (this.skip === 0 && this.payload.length > 0) {
          onFrame(h[0]! & 15, h[1]!, readU32(h, 4), this.payload);
          this.payload = NO_BYTES;
        }
        continue;
      }
      h[this.have++] = bytes[at++]!;
      if (this.have < HEADER_BYTES) continue;
      this.have = 0;
      this.skip = readU16(h, 2);
      const type = h[0]! & 15;
      if ((type === FRAME_PACK || type === FRAME_PACK_REPLY) && this.skip > 0) {
        this.payload = new Uint8Array(this.skip);
        this.gathered = 0;
      } else onFrame(type, h[1]!, readU32(h, 4), NO_BYTES);
    }
  }
}

/** How many commands a pack holds. */
function commandsOf(payload: Uint8Array, plain: boolean): number {
  let count = 0;
  for (let at = CHANNEL_BYTES; at < payload.length; count++) {
    if (!plain) {
      at += HEADER_BYTES + readU16(payload, at + 2);
      continue;
    }
    // "*2 $3 GET $1 k", each word on a line of its own.
    let [args, next] = numberAt(payload, at + 1);
    for (; args > 0 && next < payload.length; args--) {
      const [length, begin] = numberAt(payload, next + 1);
      next = begin + length + 2;
    }
    at = next;
  }
  return count;
}

/** @returns the number on the line, and where the next one begins */
function numberAt(bytes: Uint8Array, start: number): [number, number] {
  let at = start;
  let value = 0;
  while (at < bytes.length && bytes[at] !== 13) value = value * 10 + bytes[at++]! - 48;
  return [value, at + 2];
}

/** A number of a pack that is not answered. */
interface Asked {
  number: number;
  /** Its client has gone, or the server's role may have: it may be answered in its place, or alone, or not at all. */
  excused: boolean;
}

interface Link {
  server: number;
  toServer: FrameScanner;
  fromServer: FrameScanner;
  classes: Map<number, number>;
  /** What is unanswered of each channel, oldest first, and the channel of each of those numbers. */
  channels: Map<number, Asked[]>;
  channelOf: Map<number, number>;
  epoch: number;
}

export interface LinkTapWorld {
  controllerIndex: number;
  flashRecord(): RoleRecord | undefined;
  /** The record on a server's disk. */
  heldRecord(server: number): RoleRecord | undefined;
  violate(promise: string, what: string): void;
}

/** What went by, for the table of what was reached. */
export interface LinkCounts {
  refused: number;
  changesInBoth: number;
  changesInSolo: number;
  primaryReadsInBoth: number;
}

export class LinkTap {
  /** Replies to reads by server, in epochs of mode both and solo: reads really go to both. */
  readonly readsBy = [0, 0];
  readonly standbyReads = [0, 0];
  changes = 0;
  /** Answers of each server that came to the controller. */
  readonly answersBy = [0, 0];
  readonly counts: LinkCounts = {
    refused: 0,
    changesInBoth: 0,
    changesInSolo: 0,
    primaryReadsInBoth: 0,
  };
  /** Commands sent to each side, as the flash names them at that moment. */
  toPrimary = 0;
  toStandby = 0;
  private readonly links = new Map<End, Link>();
  private readonly changesBy = new Map<number, number>();

  constructor(private readonly world: LinkTapWorld) {}

  /** Given to Network.tap. */
  onBytes(from: End, bytes: Uint8Array, arrived: boolean): void {
    const controller = this.world.controllerIndex;
    const sender = from.machine.index;
    const receiver = from.peer.machine.index;
    if (sender === controller && receiver < 2 && !arrived) {
      const link = this.link(from.peer, receiver);
      link.toServer.scan(bytes, (type, flags, id, payload) => {
        if (type === FRAME_PACK) this.onPack(link, flags, id, payload);
        if (type === FRAME_ABORT) this.onAbort(link, id);
        if (type !== FRAME_COMMAND) return;
        link.classes.set(id, flags & FLAG_CLASS_MASK);
        this.onDispatch(receiver, flags);
      });
    } else if (sender < 2 && receiver === controller && arrived) {
      const link = this.link(from, sender);
      link.fromServer.scan(bytes, (type, flags, id, payload) => {
        if (type === FRAME_EPOCH) this.onEpoch(link, id);
        else if (type === FRAME_PACK_REPLY) this.onPackReply(link, flags, id, payload);
        else if (type === FRAME_REPLY) {
          if (link.channelOf.size > 0 && (flags & FLAG_MORE) === 0) this.onReplyOfPack(link, id);
          this.onReply(link, flags, id);
        }
      });
    }
  }

  /** Epochs from before a loss that was accepted may come again. */
  closeBooks(): void {
    this.changesBy.clear();
  }

  private link(serverEnd: End, server: number): Link {
    let link = this.links.get(serverEnd);
    if (link === undefined) {
      link = {
        server,
        toServer: new FrameScanner(),
        fromServer: new FrameScanner(),
        classes: new Map(),
        channels: new Map(),
        channelOf: new Map(),
        epoch: 0,
      };
      this.links.set(serverEnd, link);
    }
    return link;
  }

  private onEpoch(link: Link, epoch: number): void {
    link.epoch = epoch;
    // A server that leads no more answers nothing of what came before.
    for (const asked of link.channels.values()) for (const one of asked) one.excused = true;
  }

  private onPack(link: Link, flags: number, first: number, payload: Uint8Array): void {
    const channel = readU32(payload, 0);
    const asked = link.channels.get(channel) ?? [];
    link.channels.set(channel, asked);
    const end = first + commandsOf(payload, (flags & FLAG_PLAIN) !== 0);
    for (let number = first; number < end; number++) {
      asked.push({ number, excused: false });
      link.channelOf.set(number, channel);
      link.classes.set(number, flags & FLAG_CLASS_MASK);
      this.onDispatch(link.server, flags);
    }
  }

  private onAbort(link: Link, number: number): void {
    const channel = link.channelOf.get(number);
    if (channel === undefined) return;
    for (const one of link.channels.get(channel)!) if (one.number === number) one.excused = true;
  }

  private onPackReply(link: Link, count: number, last: number, payload: Uint8Array): void {
    const channel = readU32(payload, 0);
    const answered = this.takeUpTo(link, channel, last);
    // What is excused need not be among them.
    for (let i = answered.length - 1; i >= 0 && answered.length > count; i--) {
      if (answered[i]!.excused) answered.splice(i, 1);
    }
    if (answered.length !== count || answered.at(-1)?.number !== last) {
      const name = link.server === 0 ? "a" : "b";
      const known = answered.map(({ number }) => number).join(" ");
      this.world.violate(
        "order",
        `${name} answered ${count} commands of channel ${channel} up to ${last}; unanswered were: ${known}`,
      );
    }
    for (const { number } of answered) this.onReply(link, OUTCOME_ANSWER, number);
  }

  /** A reply of its own to a command of a pack; to no other command it says anything here. */
  private onReplyOfPack(link: Link, number: number): void {
    const channel = link.channelOf.get(number);
    if (channel === undefined) return;
    const answered = this.takeUpTo(link, channel, number);
    const passedOver = answered.filter((one) => one.number !== number && !one.excused);
    if (passedOver.length === 0) return;
    const name = link.server === 0 ? "a" : "b";
    this.world.violate(
      "order",
      `${name} answered command ${number} of channel ${channel} before ${passedOver[0]!.number}`,
    );
  }

  /** Takes what its channel has asked up to a number off the books; nothing when it has not asked that. */
  private takeUpTo(link: Link, channel: number, last: number): Asked[] {
    if (link.channelOf.get(last) !== channel) return [];
    const asked = link.channels.get(channel)!;
    const answered = asked.splice(0, asked.findIndex((one) => one.number === last) + 1);
    for (const { number } of answered) link.channelOf.delete(number);
    if (asked.length === 0) link.channels.delete(channel);
    return answered;
  }

  private onDispatch(server: number, flags: number): void {
    const record = this.world.flashRecord();
    const name = server === 0 ? "a" : "b";
    if (record === undefined) {
      this.world.violate("reads-target", `a command went to ${name} while the flash is blank`);
      return;
    }
    if (record.primary === server) {
      this.toPrimary++;
      return;
    }
    if ((flags & FLAG_CLASS_MASK) !== CLASS_QUERY) {
      this.world.violate("reads-target", `a change went to ${name}, which is not primary`);
      return;
    }
    this.toStandby++;
    const held = this.world.heldRecord(server);
    if (record.mode === MODE_SOLO) {
      this.world.violate("reads-target", `a read went to ${name} in solo epoch ${record.epoch}`);
    } else if (held === undefined || held.epoch !== record.epoch) {
      this.world.violate(
        "reads-target",
        `a read of epoch ${record.epoch} went to ${name}, whose disk has epoch ${held?.epoch ?? 0}`,
      );
    }
  }

  private onReply(link: Link, flags: number, id: number): void {
    if ((flags & OUTCOME_MASK) === OUTCOME_REFUSED) this.counts.refused++;
    if ((flags & OUTCOME_MASK) !== OUTCOME_ANSWER) return;
    const kind = link.classes.get(id);
    if (kind === undefined) return;
    this.answersBy[link.server]!++;
    const record = this.world.flashRecord();
    const current = record !== undefined && record.epoch === link.epoch ? record : undefined;
    const name = link.server === 0 ? "a" : "b";
    if (kind === CLASS_QUERY) {
      this.readsBy[link.server]!++;
      if (current?.mode === MODE_BOTH && current.primary === link.server) {
        this.counts.primaryReadsInBoth++;
      }
      if (current !== undefined && current.primary !== link.server) {
        this.standbyReads[link.server]!++;
        if (current.mode === MODE_SOLO) {
          this.world.violate(
            PROMISE,
            `${name} answered a read in epoch ${link.epoch}, which is solo for the other`,
          );
        }
      }
      return;
    }
    this.changes++;
    if (current?.mode === MODE_BOTH) this.counts.changesInBoth++;
    else if (current !== undefined) this.counts.changesInSolo++;
    const other = this.changesBy.get(link.epoch);
    if (other !== undefined && other !== link.server) {
      this.world.violate(PROMISE, `both servers answered changes in epoch ${link.epoch}`);
    }
    this.changesBy.set(link.epoch, link.server);
    if (current !== undefined && current.primary !== link.server) {
      this.world.violate(
        PROMISE,
        `${name} answered a change in epoch ${link.epoch}, whose primary is the other`,
      );
    }
  }
}
