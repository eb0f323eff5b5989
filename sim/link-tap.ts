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
 */
import {
  CLASS_QUERY,
  FLAG_CLASS_MASK,
  FRAME_COMMAND,
  FRAME_EPOCH,
  FRAME_REPLY,
  HEADER_BYTES,
  OUTCOME_ANSWER,
  OUTCOME_REFUSED,
  OUTCOME_MASK,
} from "../protocol/frame.js";
import { MODE_BOTH, MODE_SOLO } from "../protocol/record.js";
import type { RoleRecord } from "../protocol/record.js";
import type { End } from "./world/network.js";

const PROMISE = "one-primary";

/** Finds frame headers in a stream of bytes, whatever the chunks. */
class HeaderScanner {
  private readonly header = new Uint8Array(HEADER_BYTES);
  private have = 0;
  private skip = 0;

  scan(bytes: Uint8Array, onFrame: (type: number, flags: number, id: number) => void): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.skip > 0) {
        const step = Math.min(this.skip, bytes.length - at);
        this.skip -= step;
        at += step;
        continue;
      }
      this.header[this.have++] = bytes[at++]!;
      if (this.have < HEADER_BYTES) continue;
      this.have = 0;
      const h = this.header;
      this.skip = h[2]! * 256 + h[3]!;
      const id = ((h[4]! << 24) | (h[5]! << 16) | (h[6]! << 8) | h[7]!) >>> 0;
      onFrame(h[0]! & 15, h[1]!, id);
    }
  }
}

interface Link {
  server: number;
  toServer: HeaderScanner;
  fromServer: HeaderScanner;
  classes: Map<number, number>;
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
      link.toServer.scan(bytes, (type, flags, id) => {
        if (type !== FRAME_COMMAND) return;
        link.classes.set(id, flags & FLAG_CLASS_MASK);
        this.onDispatch(receiver, flags);
      });
    } else if (sender < 2 && receiver === controller && arrived) {
      const link = this.link(from, sender);
      link.fromServer.scan(bytes, (type, flags, id) => {
        if (type === FRAME_EPOCH) link.epoch = id;
        else if (type === FRAME_REPLY) this.onReply(link, flags, id);
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
        toServer: new HeaderScanner(),
        fromServer: new HeaderScanner(),
        classes: new Map(),
        epoch: 0,
      };
      this.links.set(serverEnd, link);
    }
    return link;
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
