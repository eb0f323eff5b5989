/**
 * Scripts that strike at moments of the protocol: in the middle of a flash write, right after an adoption, before the
 * first confirm, between `asked` and both, while a record may still be taken back.
 *
 * Chance alone seldom finds such moments, and the rules are there for just these. A script only does what the
 * single faults do as well (kill, hang, cut, slow); it chooses when, and sees to it that clients look.
 */
import type { Fault } from "./faults.js";
import type { FaultKind } from "./options.js";
import type { PairWorld } from "./pair-world.js";
import { MODE_BOTH, MODE_SOLO } from "../protocol/record.js";
import type { RoleRecord } from "../protocol/record.js";

export type Script = (pair: PairWorld, fault: Fault) => void;

const CONTROLLER = 2;

function primaryOf(pair: PairWorld): number {
  return pair.flashRecord?.primary ?? 0;
}

/** Waits for the next record of one mode to begin being written. */
function onWriting(pair: PairWorld, wanted: number, action: (record: RoleRecord) => void): void {
  pair.onFlashWrite.push((record) => {
    if (record === undefined || record.mode !== wanted) return false;
    action(record);
    return true;
  });
}

export const SCRIPTS: Partial<Record<FaultKind, Script>> = {
  /**
   * Controller and primary stumble together and are back at once, with entries no one confirmed; then the primary
   * dies for good.
   */
  stumble(pair, fault) {
    pair.slowPeers(5 + fault.strength * 55, fault.forMs);
    pair.soon(5, 80, () => {
      if (fault.strength < 0.6) pair.strikeDown(CONTROLLER, 1, 20);
      pair.strikeDown(primaryOf(pair), 1, 20);
      if (fault.strength > 0.3) pair.burst("controller", 400);
      pair.soon(10, 150, () => pair.strikeDown(primaryOf(pair), 300, 2000));
    });
  },

  /** One goes on alone for long, the controller forgets what has passed, and the one dies. */
  soloReboot(pair, fault) {
    pair.blockPeers(1000 + fault.strength * 1500);
    pair.soon(300, 700, () => {
      pair.strikeDown(CONTROLLER, 5, 100);
      pair.soon(100, 500, () => pair.strikeDown(primaryOf(pair), 200, 1500));
    });
  },

  /** The primary restarts while the record that takes the other in is being written, and dies after it. */
  askedCrash(pair, fault) {
    pair.slowPeers(fault.strength * 80, fault.forMs + 500);
    pair.slowFlash(60, fault.forMs + 500);
    onWriting(pair, MODE_BOTH, (record) => {
      pair.strikeDown(record.primary, 1, 10);
      pair.soon(30, 160, () => pair.strikeDown(record.primary, 300, 2000));
    });
  },

  /** A primary that has just heard of its new epoch dies with entries that are late at the standby. */
  lateConfirm(pair, fault) {
    pair.slowPeers(10 + fault.strength * 80, fault.forMs);
    pair.onRoles.push(() => {
      pair.soon(1, 60, () => pair.strikeDown(primaryOf(pair), 200, 2000));
    });
  },

  /**
   * Between `asked` and both: the primary forgets its memory while the flash is being written for long, people at its
   * own port are at it all the while, and it is gone before the other has heard of what they wrote.
   */
  askedForgotten(pair, fault) {
    onWriting(pair, MODE_BOTH, (record) => {
      const primary = record.primary;
      pair.holdFlash(120 + fault.strength * 300);
      pair.blockPeers(700 + fault.forMs);
      pair.strikeDown(primary, 1, 8);
      pair.burst(primary === 0 ? "a" : "b", 900);
      pair.onRoles.push(() => {
        pair.soon(0, 40, () => pair.strikeDown(primary, 500, 2000));
      });
    });
  },

  /**
   * Right after an adoption that keeps the primary: what it had sent out last was of the epoch before and is not heard,
   * many read it, and it dies before the new session confirms anything.
   */
  freshReads(pair, fault) {
    pair.slowPeers(15 + fault.strength * 60, fault.forMs + 800);
    // What comes by the primary's own port is asked again by nobody.
    if (fault.strength < 0.5) pair.burst(primaryOf(pair) === 0 ? "a" : "b", fault.forMs + 800);
    else pair.burst("controller", fault.forMs + 800);
    pair.burst("controller", fault.forMs + 800);
    onWriting(pair, MODE_BOTH, (record) => {
      pair.onRoles.push(() => {
        pair.soon(2, 45, () => pair.strikeDown(record.primary, 300, 2000));
      });
    });
  },

  /**
   * A solo record that may still be taken back: nobody asks through the controller, people at the primary's own port
   * write, and it is silent before anything has passed.
   */
  freshLocal(pair, fault) {
    const primary = primaryOf(pair);
    const standby = 1 - primary;
    const via = primary === 0 ? "a" : "b";
    pair.hush(700);
    pair.burst(via, 600);
    pair.soon(60, 160, () => {
      pair.strikeDown(standby, 2, 60);
      onWriting(pair, MODE_SOLO, (record) => {
        pair.onRoles.push(() => {
          pair.soon(10, 40 + fault.strength * 250, () => {
            const index = record.primary;
            if (fault.strength < 0.5) pair.strikeDown(index, 500, 2500);
            else pair.hangFor(index, 400 + fault.forMs);
          });
        });
      });
    });
  },

  /** While one is alone on its side of a solo record, the other is emptied and wins a race to the controller. */
  joinCut(pair, fault) {
    onWriting(pair, MODE_BOTH, (record) => {
      pair.holdFlash(20 + fault.strength * 150);
      const joiner = 1 - record.primary;
      pair.soon(0, 60, () => {
        if (fault.strength < 0.4) pair.strikeDown(joiner, 5, 400);
        else if (fault.strength < 0.7) pair.blockPeers(200 + fault.forMs);
        else pair.hangFor(joiner, 100 + fault.forMs);
        pair.soon(20, 400, () => pair.strikeDown(record.primary, 200, 2000));
      });
    });
  },

  /** A primary that hangs, is replaced, and wakes up with all it had in hand, people at its own port included. */
  sleeper(pair, fault) {
    const primary = primaryOf(pair);
    pair.burst(primary === 0 ? "a" : "b", 1500);
    pair.burst("controller", 1500);
    pair.soon(10, 60, () => {
      pair.hangFor(primary, 220 + fault.strength * 900);
      if (fault.forMs > 300) pair.blockPeers(150 + fault.strength * 600);
    });
  },

  /** The roles are changed by the operator, back and forth, while messages of the epochs before are on their way. */
  switchBack(pair, fault) {
    pair.burst("controller", 1500);
    pair.lateWords(20 + fault.strength * 120, 1200);
    pair.command("switchover");
    pair.soon(40, 400, () => {
      pair.command("switchover");
      if (fault.forMs > 400) pair.soon(1, 120, () => pair.strikeDown(primaryOf(pair), 100, 1500));
    });
  },

  /** Only one of the two hears of a new record, and then the controller's flash is gone. */
  halfTold(pair, fault) {
    if (pair.taintedNow()) return;
    onWriting(pair, MODE_SOLO, (record) => {
      const unheard = fault.strength < 0.5 ? record.primary : 1 - record.primary;
      pair.blockPair(CONTROLLER, unheard, 150 + fault.forMs);
      pair.blockPeers(150 + fault.forMs);
      pair.onRoles.push(() => {
        pair.soon(1, 120, () => {
          if (pair.taintedNow() || pair.flashRecord === undefined) return;
          pair.wipeFlash("", 5 + fault.strength * 300);
        });
      });
    });
  },

  /** The standby loses what its disk had not taken yet, the primary goes at the same time, the standby is back first. */
  twoAtOnce(pair, fault) {
    const primary = primaryOf(pair);
    const disk = pair.disks[(1 - primary) as 0 | 1];
    const extra = 10 + fault.strength * 60;
    disk.flushMaxMs += extra;
    pair.lasting(600, () => {
      disk.flushMaxMs -= extra;
    });
    pair.burst("controller", 500);
    pair.soon(60, 300, () => {
      pair.strikeDown(1 - primary, 1, 8);
      pair.strikeDown(primary, 400, 2000);
    });
  },

  /** The primary's disk is slow, it dies with answers given and entries not flushed, and is back at once. */
  slowDisk(pair, fault) {
    const primary = primaryOf(pair) as 0 | 1;
    const disk = pair.disks[primary];
    const extra = 10 + fault.strength * 60;
    disk.flushMaxMs += extra;
    pair.lasting(900, () => {
      disk.flushMaxMs -= extra;
    });
    pair.burst("controller", 700);
    if (fault.forMs > 300) pair.blockPeers(200 + fault.forMs);
    pair.soon(60, 700, () => pair.strikeDown(primary, 1, 30));
  },

  /** Between `asked` and both the disk that joined is taken out. */
  joinerReplaced(pair, fault) {
    if (pair.flashRecord === undefined || pair.taintedNow()) return;
    pair.blockPair(CONTROLLER, 1 - pair.flashRecord.primary, 250);
    pair.soon(300, 1200, () => {
      const record = pair.flashRecord;
      if (record === undefined || record.mode === MODE_BOTH) return;
      pair.exchangeDisk((1 - record.primary) as 0 | 1, { ...fault, kind: "diskReplace", forMs: 5 });
      pair.soon(20, 500, () => pair.strikeDown(record.primary, 200, 1500));
    });
  },

  /** Power that comes and goes: the controller starts again and again before it can finish anything. */
  brownOut(pair, fault) {
    const times = 3 + Math.floor(fault.strength * 8);
    const again = (left: number): void => {
      if (left === 0) return;
      pair.strikeDown(CONTROLLER, 1, 25);
      pair.soon(2, 90, () => again(left - 1));
    };
    again(times);
  },

  /** The controller's own cable is out: the serial lines are all it has, then only one of them. */
  ownCable(pair, fault) {
    pair.blockPair(CONTROLLER, 0, fault.forMs);
    pair.soon(0, fault.strength * 100, () => pair.blockPair(CONTROLLER, 1, fault.forMs));
  },

  /** Only the primary is out of the controller's network: its line still answers, or it does not. */
  farPrimary(pair, fault) {
    const primary = primaryOf(pair);
    pair.burst("controller", 600);
    if (fault.strength < 0.3) pair.command("switchover");
    pair.blockPair(CONTROLLER, primary, 250 + fault.forMs);
    if (fault.strength > 0.7) pair.soon(20, 400, () => pair.blockPeers(100 + fault.forMs));
    else if (fault.strength > 0.5) pair.soon(150, 400, () => pair.hangFor(1 - primary, 300));
  },

  /** A switchover is ordered while nothing passes between the servers: what is open cannot end. */
  stalledDrain(pair, fault) {
    pair.burst("controller", 500);
    pair.soon(20, 60, () => {
      pair.blockPeers(300 + fault.forMs);
      pair.soon(1, 40, () => pair.command("switchover"));
      if (fault.strength < 0.3) pair.soon(20, 200, () => pair.strikeDown(primaryOf(pair), 50, 900));
    });
  },

  /** Between `asked` and both the servers lose each other; the primary hears of both late, or never. */
  askedCut(pair, fault) {
    pair.onAsked.push(() => {
      const primary = primaryOf(pair);
      pair.burst(primary === 0 ? "a" : "b", 800);
      pair.soon(0.5, 6, () => {
        pair.cutPeers();
        pair.blockPeers(900 + fault.forMs);
        pair.deafen(primary, 500 + fault.forMs);
      });
      pair.onRoles.push(() =>
        pair.soon(30, 60 + fault.strength * 150, () => pair.strikeDown(primary, 500, 2000)),
      );
    });
  },

  /** The disk that joined is exchanged right after both was asked for it, before the controller has seen it. */
  askedSwap(pair, fault) {
    pair.onAsked.push(() => {
      const primary = primaryOf(pair);
      pair.blockPair(CONTROLLER, 1 - primary, 60 + fault.strength * 100);
      const exchange = { ...fault, kind: "diskReplace", forMs: 1 } as const;
      if (!pair.exchangeDisk((1 - primary) as 0 | 1, exchange)) return;
      pair.blockPeers(150 + fault.forMs);
      onWriting(pair, MODE_BOTH, () => {
        pair.onRoles.push(() => pair.soon(0, 30, () => pair.strikeDown(primary, 500, 2000)));
      });
    });
    // Somebody has to join first.
    pair.strikeDown(1 - primaryOf(pair), 5, 60);
  },

  /** All is quiet, another disk is put into the standby, and the primary dies as soon as the two are one again. */
  otherDisk(pair, fault) {
    if (pair.flashRecord === undefined || pair.taintedNow()) return;
    const standby = (1 - primaryOf(pair)) as 0 | 1;
    pair.silence(1200);
    pair.soon(40, 120, () => {
      if (!pair.exchangeDisk(standby, { ...fault, kind: "diskReplace", forMs: 5 })) return;
      pair.slowPeers(fault.strength * 30, 1500);
      onWriting(pair, MODE_BOTH, (record) => {
        pair.onRoles.push(() => pair.soon(0, 60, () => pair.strikeDown(record.primary, 500, 2000)));
      });
    });
  },

  /**
   * Between `asked` and both the servers lose each other, the primary never hears of both, and goes on alone at its own port until
   * it is gone: whoever took its request back would acknowledge what the other does not have.
   */
  askedAlone(pair, fault) {
    pair.onAsked.push(() => {
      const primary = primaryOf(pair);
      pair.burst(primary === 0 ? "a" : "b", 700, { readShare: 0.2 });
      pair.cutPeers();
      // Both must see the link go: a silence would be noticed much later.
      const seenMs = 2.1 * pair.options.peerLatencyMs;
      pair.soon(seenMs, seenMs + 1, () => pair.blockPeers(900 + fault.forMs));
      onWriting(pair, MODE_BOTH, () => {
        // From this moment on, so that the request and the polls before it have come through.
        pair.deafen(primary, 500 + fault.forMs);
        pair.onRoles.push(() =>
          pair.soon(40, 80 + fault.strength * 100, () => pair.strikeDown(primary, 500, 2000)),
        );
      });
    });
    // Somebody has to join first.
    pair.strikeDown(1 - primaryOf(pair), 5, 60);
  },

  /**
   * A primary adopts both with entries on its disk that the other has not heard, and never hears: what it shows of them to
   * readers before the first confirm of the epoch is gone with it.
   */
  freshUnheard(pair, fault) {
    onWriting(pair, MODE_BOTH, (record) => {
      const { primary } = record;
      pair.holdFlash(20 + fault.strength * 40);
      // What comes by the primary's own port is asked again by nobody.
      pair.burst(primary === 0 ? "a" : "b", 600, { readShare: 0.1 });
      pair.burst("controller", 600, { readShare: 0.9 });
      pair.soon(0, 15, () => pair.blockPeers(250));
      pair.onRoles.push(() => {
        pair.soon(8, 80, () => pair.strikeDown(primary, 300, 2000));
      });
    });
    pair.strikeDown(1 - primaryOf(pair), 5, 60);
  },

  /** The standby's clock runs ahead, and little else happens but values that are to expire, and reads of them, many at a time. */
  fastClock(pair, fault) {
    if (!pair.keys.includes("m0")) return;
    const standby = pair.machines[1 - primaryOf(pair)]!;
    const primary = pair.machines[primaryOf(pair)]!;
    standby.setClockRate(1.2);
    primary.setClockRate(0.85);
    const forMs = 600 + fault.forMs;
    pair.lasting(forMs, () => {
      standby.setClockRate(1);
      primary.setClockRate(1);
    });
    pair.silence(forMs);
    const style = { keys: ["m0"], open: false };
    pair.burst("controller", forMs, { ...style, pauseMs: 25, readShare: 0.6, batchMax: 1 });
    pair.burst("controller", forMs, { ...style, pauseMs: 10, readShare: 0.95, batchMax: 8 });
    // So many at once that both servers get some.
    pair.burst("controller", forMs, { keys: ["m0"], pauseMs: 1.5, readShare: 1 });
  },

  /** The lights go out, for everyone; they come back in any order. */
  blackOut(pair, fault) {
    for (const index of [0, 1, 2]) {
      pair.soon(0, fault.strength * 30, () => {
        if (!pair.losePower(index, "the lights go out")) return;
        pair.startAgain(index, pair.faultRandom.spread(5, 200 + fault.forMs));
      });
    }
  },
};

/**
 * A record that only the flash ever held, told by a serial line whose wiring kept it, comes after all: the board of before has
 * been put back meanwhile, both servers follow it, and it is in the middle of a planned switchover. The one way there is to
 * hear of a later record while draining: a drain begins with both servers in its own epoch.
 */
export function lateLine(pair: PairWorld, fault: Fault): boolean {
  const record = pair.flashRecord;
  if (record === undefined || record.mode !== MODE_BOTH || pair.taintedNow()) return false;
  const { primary } = record;
  const line = pair.lines[primary];
  const old = pair.flash.record!;
  if (line === undefined || pair.newestRecord()!.epoch !== record.epoch) return false;
  const ends = [pair.blockPair(CONTROLLER, primary, 2500)];
  const held: Uint8Array[] = [];
  const stop = (): void => {
    for (const other of pair.lines) if (other !== undefined) other.held = undefined;
    for (const end of ends) end();
  };
  pair.lasting(3000, stop);
  pair.onFlashWrite.push((next) => {
    if (next?.epoch !== record.epoch + 1) return false;
    ends.push(pair.deafen(1 - primary, 2500));
    for (const other of pair.lines) if (other !== undefined) other.held = [];
    line.held = held;
    pair.onRoles.push(() => pair.soon(200, 300, () => putBack(next)));
    return true;
  });
  const putBack = (next: RoleRecord): void => {
    const servers = [pair.heldRecord(0), pair.heldRecord(1)];
    const told = held.reduce((x, y) => (y.length >= x.length ? y : x), held[0] ?? old);
    const isNow = pair.flashRecord?.epoch === next.epoch;
    stop();
    if (!isNow || servers.some((one) => one?.epoch !== record.epoch) || pair.taintedNow()) return;
    pair.putBack(old, 5);
    pair.onEvents.push({
      event: "keptBoth",
      action: () => {
        pair.burst("controller", 500);
        pair.soon(100, 200 + fault.strength * 200, () => {
          pair.blockPeers(300 + fault.forMs);
          pair.soon(1, 40, () => pair.command("switchover"));
        });
      },
    });
    pair.onEvents.push({ event: "drain", action: () => line.say(0, told) });
  };
  return true;
}
