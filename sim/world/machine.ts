/**
 * One machine: power, a kernel that goes on while the process hangs, and one process whose program
 * is fed in turns, as an event loop feeds it.
 *
 *     off --powerOn--> down --start--> up <--hang/resume--> hung
 *                        ^---- kill ----+
 *
 * What arrives waits in the inbox; a turn hands all of it in, then the program ends its turn. A slow
 * machine takes long over a turn, so more waits for the next one. A hung one takes no turn at all until
 * it is resumed, and then gets everything at once.
 */
import type { End } from "./network.js";
import { flushEnds } from "./network.js";
import type { World } from "./world.js";

/** What runs on a machine: a wrapper that turns these calls into those of a core. */
export interface Program {
  onOpen(handle: number, port: string, accepted: boolean): void;
  onDialFailed(port: string): void;
  onBytes(handle: number, bytes: Uint8Array, start: number, end: number): void;
  onDrained(handle: number): void;
  onClosed(handle: number): void;
  onDatagram(from: Machine, bytes: Uint8Array): void;
  onDatagramRefused(by: Machine): void;
  /** All input of a turn has been handed in. @returns the local time of the next turn it wants. */
  endTurn(): number;
  /** The process is gone (killed or power lost): release what outlives it. */
  onGone(): void;
}

export type MachineState = "off" | "down" | "up" | "hung";

/** @unit ms of work for one event and for one turn on a machine of normal speed */
const EVENT_MS = 0.01;
const TURN_MS = 0.02;

export class Machine {
  state: MachineState = "down";
  program: Program | undefined;
  /** Counts processes started here, so that what was meant for an earlier one is dropped. */
  incarnation = 0;
  /** How many times slower than normal a turn is. */
  slowness = 1;
  /** Ends of connections by handle; a handle is free again after onClosed. */
  readonly ends: (End | undefined)[] = [];
  /** Ends with output of this turn: the first `dirtyCount`. An array that is emptied gives its memory back, and asks for it again. */
  readonly dirtyEnds: End[] = [];
  dirtyCount = 0;
  /** Directions whose next segment waits for this machine's power. */
  readonly waitingForPower: End[] = [];
  turns = 0;

  /** What waits for the next turn: the first `waiting`. */
  private inbox: (() => void)[] = [];
  private waiting = 0;
  private spare: (() => void)[] = [];
  private runScheduled = false;
  private busyUntil = 0;
  private wakeAt = Infinity;
  /** When its timer fires, and the one event that stands for that; an early event looks again. World time. */
  private wakeDue = Infinity;
  private wakePlanned = Infinity;
  /** World time of the turn that hands in the inbox, -1 for none. */
  private runPlanned = -1;
  private clockWorld = 0;
  private clockLocal = 0;
  private clockRate = 1;

  constructor(
    readonly world: World,
    readonly index: number,
    readonly name: string,
    /** Makes the program of a new process. */
    readonly boot: (machine: Machine) => Program,
    /** Called when a program threw: its own broken invariant. */
    readonly onThrow: (machine: Machine, error: unknown) => void,
  ) {}

  get alive(): boolean {
    return this.state === "up" || this.state === "hung";
  }

  get powered(): boolean {
    return this.state !== "off";
  }

  /** This machine's monotonic clock. @unit ms */
  localNow(): number {
    return this.clockLocal + (this.world.now - this.clockWorld) * this.clockRate;
  }

  /** Sets how fast the clock runs; it goes on from where it is. */
  setClockRate(rate: number): void {
    this.clockLocal = this.localNow();
    this.clockWorld = this.world.now;
    this.clockRate = rate;
    if (this.wakeAt !== Infinity) this.schedule();
  }

  start(): void {
    if (this.state === "off") this.powerOn();
    if (this.state !== "down") return;
    this.incarnation++;
    this.state = "up";
    this.clockWorld = this.world.now;
    this.clockLocal = this.world.random.between(20, 60);
    this.busyUntil = this.world.now;
    this.wakeAt = 0;
    this.runScheduled = false;
    this.world.trace.line(this.world.now, this.name, "starts");
    const incarnation = this.incarnation;
    try {
      const program = this.boot(this);
      if (this.incarnation !== incarnation) return;
      this.program = program;
    } catch (error) {
      this.onThrow(this, error);
      return;
    }
    this.schedule();
  }

  /** The process ends at once; the kernel closes what it had open. */
  kill(why: string): void {
    if (!this.alive) return;
    this.state = "down";
    this.world.trace.line(this.world.now, this.name, `process gone: ${why}`);
    this.forget();
    for (const end of this.ends) end?.kernelClose();
    this.ends.length = 0;
  }

  /** No one sends a farewell; the disk loses what was not flushed (the program's onGone says so). */
  powerOff(why: string): void {
    if (this.state === "off") return;
    this.world.trace.line(this.world.now, this.name, `power lost: ${why}`);
    const wasAlive = this.alive;
    this.state = "off";
    if (wasAlive) this.forget();
    for (const end of this.ends) end?.vanish();
    this.ends.length = 0;
  }

  powerOn(): void {
    if (this.state !== "off") return;
    this.state = "down";
    this.world.trace.line(this.world.now, this.name, "power on");
    const waiting = this.waitingForPower.splice(0);
    for (const end of waiting) {
      this.world.after(this.world.random.between(1, 200), () => end.pump());
    }
  }

  hang(): void {
    if (this.state !== "up") return;
    this.state = "hung";
    this.world.trace.line(this.world.now, this.name, "hangs");
  }

  resume(): void {
    if (this.state !== "hung") return;
    this.state = "up";
    this.world.trace.line(this.world.now, this.name, "resumes");
    this.schedule();
  }

  /** Hands an event to the process of now, in its next turn. */
  post(event: () => void): void {
    if (!this.alive) return;
    this.inbox[this.waiting++] = event;
    if (!this.runScheduled) this.schedule();
  }

  /** The lowest handle no one uses: cores must not mind that handles come again. */
  takeHandle(end: End): number {
    let handle = 1;
    while (this.ends[handle] !== undefined) handle++;
    this.ends[handle] = end;
    return handle;
  }

  private forget(): void {
    this.waiting = 0;
    this.dirtyCount = 0;
    this.incarnation++;
    this.runScheduled = false;
    this.runPlanned = -1;
    this.wakeAt = Infinity;
    this.wakeDue = Infinity;
    this.wakePlanned = Infinity;
    const program = this.program;
    this.program = undefined;
    program?.onGone();
  }

  private schedule(): void {
    if (this.state !== "up") return;
    const { world } = this;
    if (this.waiting > 0) {
      this.runScheduled = true;
      this.runPlanned = Math.max(world.now, this.busyUntil);
      world.at(this.runPlanned, this.onRun);
      return;
    }
    if (this.wakeAt === Infinity) {
      this.wakeDue = Infinity;
      return;
    }
    const wake = this.clockWorld + (this.wakeAt - this.clockLocal) / this.clockRate;
    // Timers are late by up to a millisecond, never early.
    this.wakeDue = Math.max(world.now, this.busyUntil, wake) + world.random.float();
    if (this.wakeDue < this.wakePlanned) this.planWake();
  }

  private planWake(): void {
    this.wakePlanned = this.wakeDue;
    this.world.at(this.wakePlanned, this.onWake);
  }

  private readonly onRun = (): void => {
    // A turn that began, or a process that ended, after this was planned has left another plan or none.
    if (this.world.now !== this.runPlanned || this.state !== "up") return;
    this.turn();
  };

  private readonly onWake = (): void => {
    if (this.world.now !== this.wakePlanned) return;
    this.wakePlanned = Infinity;
    // Whoever resumes it, and the turn that is about to run, plan again.
    if (this.state !== "up" || this.runScheduled || this.wakeDue === Infinity) return;
    if (this.world.now < this.wakeDue) this.planWake();
    else this.turn();
  };

  private turn(): void {
    this.turns++;
    this.runScheduled = true;
    this.runPlanned = -1;
    const events = this.inbox;
    const count = this.waiting;
    this.inbox = this.spare;
    this.waiting = 0;
    const incarnation = this.incarnation;
    let handed = 0;
    try {
      for (let i = 0; i < count; i++) {
        events[i]!();
        handed++;
        if (incarnation !== this.incarnation) break;
      }
      if (incarnation === this.incarnation && this.program !== undefined) {
        this.wakeAt = this.program.endTurn();
      }
    } catch (error) {
      this.onThrow(this, error);
    }
    this.spare = events;
    if (incarnation !== this.incarnation) return;
    this.runScheduled = false;
    flushEnds(this);
    const jitter = 0.5 + this.world.random.float();
    this.busyUntil = this.world.now + (TURN_MS + handed * EVENT_MS) * this.slowness * jitter;
    this.schedule();
  }
}
