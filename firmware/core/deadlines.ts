/**
 * The controller's timers, by name. A deadline is a time or "never"; the home is told the nearest one.
 *
 *     set(POLL, now + pollMs)   due(POLL, now)?   next() -> when to call tick
 */

/** When to poll both servers next. */
export const POLL = 0;
/** When to look again whether a server has failed: the nearest limit of either. */
export const JUDGE = 1;
/** When to refuse servers' connections that have not proven themselves. */
export const HANDSHAKE = 2;
/** When to stop draining and switch over with commands open. */
export const DRAIN = 3;
/** When to decide a power-on without what was waited for (rule 18, P13). */
export const POWER_ON = 4;
/** When to give up the right to take a solo record back, because its primary has shown that it lives. */
export const SETTLE = 5;
/** When to forget that the operator has asked for something dangerous once. */
export const REPEAT = 6;
/** When to drop an operator's order whose server has not answered a poll. */
export const ORDER = 7;
/** When to fire a fence, or to look at the input of one that is on. */
export const FENCE = 8;
/** When to poll both servers on their serial lines next: together with the nearest poll, so it calls for no tick of its own. */
export const SERIAL_POLL = 9;

export const DEADLINE_NAMES = [
  "poll",
  "judge",
  "handshake",
  "drain",
  "power-on",
  "settle",
  "repeat",
  "order",
  "fence",
  "serial poll",
];

export interface Deadlines {
  set(name: number, at: number): void;
  clear(name: number): void;
  isSet(name: number): boolean;
  /** Whether it is set and has come. It stays set until cleared or set anew. */
  due(name: number, now: number): boolean;
  at(name: number): number;
  /** @returns the nearest deadline that calls for a tick, Infinity when none is set */
  next(): number;
  /** The same of all but the next poll and the verdicts. */
  nextButPolls(): number;
}

export function createDeadlines(): Deadlines {
  const count = DEADLINE_NAMES.length;
  const times = new Float64Array(count);
  times.fill(Infinity);
  const calling = times.subarray(0, SERIAL_POLL);
  const others = calling.subarray(JUDGE + 1);

  function set(name: number, at: number): void {
    times[name] = at;
  }
  function clear(name: number): void {
    times[name] = Infinity;
  }
  function isSet(name: number): boolean {
    return times[name] !== Infinity;
  }
  function due(name: number, now: number): boolean {
    return now >= times[name];
  }
  function at(name: number): number {
    return times[name];
  }
  function next(): number {
    // One call of a native, where a loop costs a chip three times as much.
    return Math.min.apply(null, calling as unknown as number[]);
  }
  function nextButPolls(): number {
    return Math.min.apply(null, others as unknown as number[]);
  }

  return {
    set: set,
    clear: clear,
    isSet: isSet,
    due: due,
    at: at,
    next: next,
    nextButPolls: nextButPolls,
  };
}
