/**
 * The core's outer skin: a broken invariant resets the chip, and nothing is done after it.
 *
 * Every event is given to the root and then settled: the rules are asked before the event is over.
 */
import type { ConnectionKind, ControllerCore, FlashState } from "./core.js";
import type { Rounds } from "./rounds.js";
import type { ServerIndex } from "../../protocol/record.js";

/** The root's handlers, which may throw what assert throws. */
export interface Handlers {
  start(flash: FlashState, now: number): void;
  open(connection: number, kind: ConnectionKind, now: number): void;
  bytes(connection: number, bytes: Uint8Array, from: number, to: number, now: number): void;
  drained(connection: number, now: number): void;
  closed(connection: number, now: number): void;
  heartbeat(server: ServerIndex, bytes: Uint8Array, now: number): void;
  pollRefused(server: ServerIndex, now: number): void;
  serial(server: ServerIndex, bytes: Uint8Array, from: number, to: number, now: number): void;
  persisted(now: number): void;
  mayCompact(writeWaits: boolean, now: number): boolean;
  wantsTick(): boolean;
  tick(now: number): number;
  console(line: string, now: number): string;
  status(now: number): object;
  settle(now: number): void;
  rounds: Rounds;
}

const STOPPED = "this controller has stopped and must be reset";

export function guardCore(
  root: Handlers,
  onBroken: (reason: string, now: number) => void,
): ControllerCore {
  let broken = false;
  const look = root.rounds.look;
  root.rounds.look = function (now: number): void {
    try {
      look(now);
      root.settle(now);
    } catch (error) {
      broke(error, now);
    }
  };

  function broke(error: unknown, now: number): void {
    broken = true;
    onBroken(error instanceof Error ? error.message : "" + error, now);
  }

  return {
    start: function (flash: FlashState, nowMs: number): void {
      try {
        root.start(flash, nowMs);
        root.settle(nowMs);
      } catch (error) {
        broke(error, nowMs);
      }
    },
    onOpen: function (connection: number, kind: ConnectionKind, nowMs: number): void {
      if (broken) return;
      try {
        root.open(connection, kind, nowMs);
        root.settle(nowMs);
      } catch (error) {
        broke(error, nowMs);
      }
    },
    onBytes: function (
      connection: number,
      bytes: Uint8Array,
      start: number,
      end: number,
      nowMs: number,
    ): void {
      if (broken) return;
      try {
        root.bytes(connection, bytes, start, end, nowMs);
        root.settle(nowMs);
      } catch (error) {
        broke(error, nowMs);
      }
    },
    onDrained: function (connection: number, nowMs: number): void {
      if (broken) return;
      try {
        root.drained(connection, nowMs);
        root.settle(nowMs);
      } catch (error) {
        broke(error, nowMs);
      }
    },
    onClosed: function (connection: number, nowMs: number): void {
      if (broken) return;
      try {
        root.closed(connection, nowMs);
        root.settle(nowMs);
      } catch (error) {
        broke(error, nowMs);
      }
    },
    onHeartbeat: function (server: ServerIndex, bytes: Uint8Array, nowMs: number): void {
      if (broken) return;
      try {
        root.heartbeat(server, bytes, nowMs);
        root.settle(nowMs);
      } catch (error) {
        broke(error, nowMs);
      }
    },
    onPollRefused: function (server: ServerIndex, nowMs: number): void {
      if (broken) return;
      try {
        root.pollRefused(server, nowMs);
        root.settle(nowMs);
      } catch (error) {
        broke(error, nowMs);
      }
    },
    onSerial: function (
      server: ServerIndex,
      bytes: Uint8Array,
      start: number,
      end: number,
      nowMs: number,
    ): void {
      if (broken) return;
      try {
        root.serial(server, bytes, start, end, nowMs);
        root.settle(nowMs);
      } catch (error) {
        broke(error, nowMs);
      }
    },
    onPersisted: function (nowMs: number): void {
      if (broken) return;
      try {
        root.persisted(nowMs);
        root.settle(nowMs);
      } catch (error) {
        broke(error, nowMs);
      }
    },
    onPersistFailed: function (reason: string, nowMs: number): void {
      if (broken) return;
      // Whether the record is in flash is not known, and it may take back what the old one allows to
      // acknowledge: neither may be acted on, so this boot is over.
      broke("the flash could not be written: " + reason, nowMs);
    },
    mayCompact: function (writeWaits: boolean, nowMs: number): boolean {
      return !broken && root.mayCompact(writeWaits, nowMs);
    },
    wantsTick: root.wantsTick,
    tick: function (nowMs: number): number {
      if (broken) return Infinity;
      try {
        return root.tick(nowMs);
      } catch (error) {
        broke(error, nowMs);
        return Infinity;
      }
    },
    console: function (line: string, nowMs: number): string {
      if (broken) return STOPPED;
      try {
        const answer = root.console(line, nowMs);
        root.settle(nowMs);
        return answer;
      } catch (error) {
        broke(error, nowMs);
        return STOPPED;
      }
    },
    status: root.status,
    rounds: root.rounds,
  };
}
