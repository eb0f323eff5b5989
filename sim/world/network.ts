/**
 * The network between machines: TCP-like connections and datagrams, with everything that goes wrong.
 *
 * Bytes of a connection arrive in order, in chunks that have nothing to do with how they were written.
 * A blocked path delivers nothing and says nothing; what was on its way arrives at once when it opens
 * (TCP sends it again). A killed process closes or resets; a machine without power is silent, and
 * once it is back its kernel resets what it does not know.
 */
import type { Machine } from "./machine.js";
import type { Random } from "./random.js";
import type { World } from "./world.js";

const SEGMENT_DATA = 0;
const SEGMENT_FIN = 1;
const SEGMENT_RESET = 2;

interface Segment {
  at: number;
  what: number;
  bytes: Uint8Array;
}

const NO_BYTES = new Uint8Array(0);
/** Bytes on their way are carved from a common block: a buffer for each small write costs more than the write. */
const BLOCK_BYTES = 1 << 17;
let block = new Uint8Array(BLOCK_BYTES);
let blockUsed = 0;

function carve(from: Uint8Array, count: number): Uint8Array {
  if (count > BLOCK_BYTES >> 3) return from.slice(0, count);
  if (blockUsed + count > BLOCK_BYTES) {
    block = new Uint8Array(BLOCK_BYTES);
    blockUsed = 0;
  }
  // `subarray` asks for the species first, at three times the price.
  const out = new Uint8Array(block.buffer, blockUsed, count);
  blockUsed += count;
  for (let i = 0; i < count; i++) out[i] = from[i]!;
  return out;
}

/** `fill` is a call into the engine: dearer than a loop for what is mostly a few dozen bytes. */
function spoil(bytes: Uint8Array): void {
  if (bytes.length > 256) bytes.fill(0xee);
  else for (let i = 0; i < bytes.length; i++) bytes[i] = 0xee;
}
/** Bytes the kernels of both ends take before a sender sees a backlog. */
const SOCKET_BUFFER_BYTES = 256 * 1024;
/** A connection attempt that no one answers is sent again this often, and given up after the limit. */
const SYN_AGAIN_MS = 300;
export const CONNECT_LIMIT_MS = 1000;
/** A closing end waits this long for the other's goodbye. */
const LINGER_MS = 2000;

/** One direction between two machines. */
export class Path {
  /** Faults that block this direction now. */
  blocks = 0;
  latencyMs = 0.05;
  jitterMs = 0.05;
  /** Extra latency by a fault. */
  extraMs = 0;
  loss = 0;
  doubling = 0;
  /** Share of datagrams that are held back long enough to be overtaken. */
  reordering = 0;
  readonly stalled: End[] = [];
  readonly waiting: (() => void)[] = [];
}

/** Sees the bytes of connections as they are handed to the network and as they arrive. */
export type NetworkTap = (from: End, bytes: Uint8Array, arrived: boolean) => void;

export class Network {
  readonly paths: Path[] = [];
  readonly random: Random;
  /** Share of writes that are cut into odd chunks. */
  oddChunks = 0;
  tap: NetworkTap | undefined;
  connectionCount = 0;
  /** Buffers in which nothing is gathered now. */
  readonly gathers: Uint8Array<ArrayBuffer>[] = [];

  constructor(
    readonly world: World,
    readonly machineCount: number,
  ) {
    this.random = world.random.fork("network");
    for (let i = 0; i < machineCount * machineCount; i++) this.paths.push(new Path());
  }

  path(from: Machine, to: Machine): Path {
    return this.paths[from.index * this.machineCount + to.index]!;
  }

  latency(path: Path): number {
    return path.latencyMs + path.extraMs + this.random.float() * path.jitterMs;
  }

  block(from: Machine, to: Machine): void {
    this.path(from, to).blocks++;
  }

  unblock(from: Machine, to: Machine): void {
    const path = this.path(from, to);
    path.blocks--;
    if (path.blocks > 0) return;
    for (const end of path.stalled.splice(0)) {
      // TCP sends again on its own clock, so each connection comes back at another time.
      this.world.after(this.random.float() < 0.5 ? 0.1 : this.random.between(0, 200), () =>
        end.pump(),
      );
    }
    for (const waiting of path.waiting.splice(0)) this.world.after(0.1, waiting);
  }

  /** Sends one datagram. */
  datagram(from: Machine, to: Machine, bytes: Uint8Array): void {
    const path = this.path(from, to);
    const random = this.random;
    const copies = path.doubling > 0 && random.chance(path.doubling) ? 2 : 1;
    const sent = carve(bytes, bytes.length);
    for (let copy = 0; copy < copies; copy++) {
      if (path.loss > 0 && random.chance(path.loss)) continue;
      let delay = this.latency(path);
      if (path.reordering > 0 && random.chance(path.reordering)) delay += random.between(1, 60);
      this.world.after(delay, () => {
        if (path.blocks > 0 || !to.powered) return;
        if (!to.alive) {
          const back = this.path(to, from);
          if (back.blocks > 0) return;
          this.world.after(this.latency(back), () => {
            from.post(() => from.program?.onDatagramRefused(to));
          });
          return;
        }
        to.post(() => to.program?.onDatagram(from, sent));
      });
    }
  }

  /**
   * One attempt to connect; answered in the dialer's inbox by onOpen or onDialFailed.
   * @param told hears of it at once, before the program does; `failed` then stands in for onDialFailed
   */
  dial(
    from: Machine,
    to: Machine,
    port: string,
    told?: { made(end: End): void; failed(): void },
  ): void {
    const incarnation = from.incarnation;
    const began = this.world.now;
    const there = this.path(from, to);
    const back = this.path(to, from);
    const failed = (): void => {
      if (from.incarnation !== incarnation) return;
      if (told !== undefined) told.failed();
      else from.post(() => from.program?.onDialFailed(port));
    };
    const arrive = (): void => {
      if (from.incarnation !== incarnation) return;
      if (there.blocks > 0 || !to.powered) {
        if (this.world.now - began > CONNECT_LIMIT_MS) failed();
        else this.world.after(SYN_AGAIN_MS, arrive);
        return;
      }
      if (!to.alive) {
        if (back.blocks > 0) this.world.after(CONNECT_LIMIT_MS, failed);
        else this.world.after(this.latency(back), failed);
        return;
      }
      const near = new End(this, from);
      const far = new End(this, to);
      near.peer = far;
      far.peer = near;
      far.handle = to.takeHandle(far);
      this.connectionCount++;
      to.post(() => {
        if (!far.gone) to.program?.onOpen(far.handle, port, true);
      });
      const answered = (): void => {
        if (from.incarnation !== incarnation || this.world.now - began > CONNECT_LIMIT_MS) {
          // The dialer no longer waits; the acceptor may never learn of it (half-open).
          near.gone = true;
          if (from.powered) near.sendReset();
          failed();
          return;
        }
        if (back.blocks > 0) {
          this.world.after(SYN_AGAIN_MS, answered);
          return;
        }
        near.handle = from.takeHandle(near);
        told?.made(near);
        from.post(() => {
          if (!near.gone) from.program?.onOpen(near.handle, port, false);
        });
        near.established = true;
        far.pump();
      };
      this.world.after(this.latency(back), answered);
      far.established = true;
    };
    this.world.after(this.latency(there), arrive);
  }
}

/** One end of a connection, and the direction that leads away from it. */
export class End {
  handle = 0;
  peer!: End;
  /** The handshake is over at this end: bytes may be handed to its program. */
  established = false;
  /** The kernel here knows this connection no more: what arrives is answered with a reset. */
  gone = false;
  /** The program asked to close it. */
  closing = false;
  /** Bytes sent from here that the other program has not been given. */
  unread = 0;
  private gather = NO_BYTES;
  private gathered = 0;
  private queue: Segment[] = [];
  private lastArrival = 0;
  private finished = false;
  private stalled = false;
  private planned = false;
  private reading = true;
  private held: Segment[] = [];
  private wasBacklogged = false;

  constructor(
    private readonly network: Network,
    readonly machine: Machine,
  ) {}

  get backlog(): number {
    const over = this.unread + this.gathered - SOCKET_BUFFER_BYTES;
    if (over > 0) this.wasBacklogged = true;
    return over > 0 ? over : 0;
  }

  /** Bytes this direction holds in all: for the checker of bounds. */
  get pendingBytes(): number {
    return this.unread + this.gathered;
  }

  write(bytes: Uint8Array, start: number, end: number): void {
    if (this.gone || this.closing || end <= start) return;
    const count = end - start;
    if (this.gathered === 0) this.machine.dirtyEnds[this.machine.dirtyCount++] = this;
    if (this.gather.length === 0) this.gather = this.network.gathers.pop() ?? NO_BYTES;
    if (this.gathered + count > this.gather.length) {
      const grown = new Uint8Array(Math.max(2048, 2 * this.gather.length, this.gathered + count));
      grown.set(this.gather.subarray(0, this.gathered));
      this.gather = grown;
    }
    if (count <= 48) {
      const { gather, gathered } = this;
      for (let i = 0; i < count; i++) gather[gathered + i] = bytes[start + i]!;
    } else if (count === bytes.length) this.gather.set(bytes, this.gathered);
    else this.gather.set(bytes.subarray(start, end), this.gathered);
    this.gathered += count;
  }

  /** Hands what this turn wrote to the network. */
  flush(): void {
    if (this.gathered === 0) return;
    const bytes = carve(this.gather, this.gathered);
    this.gathered = 0;
    const network = this.network;
    network.gathers.push(this.gather);
    this.gather = NO_BYTES;
    if (this.gone) return;
    network.tap?.(this, bytes, false);
    this.unread += bytes.length;
    if (network.oddChunks > 0 && network.random.chance(network.oddChunks)) {
      let from = 0;
      while (from < bytes.length) {
        const left = bytes.length - from;
        const take = network.random.chance(0.3) ? 1 : 1 + network.random.below(left);
        this.send(SEGMENT_DATA, bytes.subarray(from, from + take));
        from += take;
        if (network.random.chance(0.3)) {
          this.send(SEGMENT_DATA, bytes.subarray(from));
          from = bytes.length;
        }
      }
    } else {
      this.send(SEGMENT_DATA, bytes);
    }
  }

  /** The program closes: what it wrote goes out first, unless it aborts. */
  close(abort: boolean): void {
    if (this.gone || this.closing) return;
    this.closing = true;
    if (abort) {
      this.gathered = 0;
      this.queue.length = 0;
      this.sendReset();
    } else {
      this.flush();
      this.send(SEGMENT_FIN, NO_BYTES);
    }
    const incarnation = this.machine.incarnation;
    const linger = abort
      ? 0
      : this.network.random.chance(0.5)
        ? LINGER_MS
        : this.network.random.between(0, 2);
    this.network.world.after(linger, () => {
      if (this.machine.incarnation === incarnation) this.reportClosed();
    });
  }

  setReading(on: boolean): void {
    if (this.reading === on) return;
    this.reading = on;
    if (!on) return;
    const held = this.held;
    this.held = [];
    for (const segment of held) this.take(segment);
  }

  /** The process was killed: its kernel closes or resets. */
  kernelClose(): void {
    if (this.gone) return;
    this.gone = true;
    this.gathered = 0;
    const random = this.network.random;
    if (random.chance(0.5)) {
      this.send(SEGMENT_FIN, NO_BYTES);
    } else {
      // A reset may overtake what the other kernel has not handed up yet.
      if (random.chance(0.5)) this.queue.length = 0;
      this.sendReset();
    }
  }

  /** Power is lost: nothing more leaves here. */
  vanish(): void {
    this.gone = true;
    this.gathered = 0;
    if (this.stalled) this.queue.length = 0;
  }

  sendReset(): void {
    this.send(SEGMENT_RESET, NO_BYTES);
  }

  /** The kernel here has forgotten the connection and its program hears of it; the other end does when it sends. */
  lose(): void {
    if (this.gone) return;
    this.gathered = 0;
    this.queue.length = 0;
    this.finished = true;
    this.reportClosed();
  }

  /** A middle box resets the connection: both ends see it. */
  cut(): void {
    if (!this.gone) this.peer.sendReset();
    if (!this.peer.gone) this.sendReset();
  }

  private send(what: number, bytes: Uint8Array): void {
    if (this.finished) return;
    if (what === SEGMENT_DATA && bytes.length === 0) return;
    if (what !== SEGMENT_DATA) this.finished = true;
    const network = this.network;
    const path = network.path(this.machine, this.peer.machine);
    let at = network.world.now + network.latency(path);
    if (at < this.lastArrival) at = this.lastArrival;
    this.lastArrival = at;
    this.queue.push({ at, what, bytes });
    this.plan();
  }

  /** One event at a time stands for the whole queue. */
  private plan(): void {
    if (this.planned || this.stalled || this.queue.length === 0) return;
    this.planned = true;
    this.network.world.at(this.queue[0]!.at, this.due);
  }

  private readonly due = (): void => {
    this.planned = false;
    if (!this.stalled) this.pump();
  };

  /** Delivers what is due, unless the path is blocked or the other machine has no power. */
  pump(): void {
    const network = this.network;
    const world = network.world;
    const to = this.peer;
    this.stalled = false;
    while (this.queue.length > 0 && this.queue[0]!.at <= world.now) {
      const path = network.path(this.machine, to.machine);
      if (path.blocks > 0) {
        this.stalled = true;
        path.stalled.push(this);
        return;
      }
      if (!to.machine.powered) {
        this.stalled = true;
        to.machine.waitingForPower.push(this);
        return;
      }
      if (!to.established && !to.gone) return;
      const segment = this.queue.shift()!;
      this.arrive(segment, to);
    }
    this.plan();
  }

  private arrive(segment: Segment, to: End): void {
    const world = this.network.world;
    if (to.gone) {
      this.unread -= segment.bytes.length;
      if (segment.what !== SEGMENT_RESET && !this.gone) to.resetBack();
      return;
    }
    world.trace.foldBytes(
      world.now,
      2 + segment.what,
      to.machine.index * 1024 + to.handle,
      segment.bytes,
    );
    if (segment.what === SEGMENT_RESET) {
      to.held.length = 0;
      to.reportClosed();
      return;
    }
    if (to.reading) to.take(segment);
    else to.held.push(segment);
  }

  /** Posts an arrived segment to this end's program. */
  private take(segment: Segment): void {
    if (segment.what === SEGMENT_FIN) {
      this.reportClosed();
      return;
    }
    const incarnation = this.machine.incarnation;
    const sender = this.peer;
    this.machine.post(() => {
      if (this.gone || incarnation !== this.machine.incarnation) return;
      sender.unread -= segment.bytes.length;
      if (sender.wasBacklogged && sender.unread < SOCKET_BUFFER_BYTES / 2) {
        sender.wasBacklogged = false;
        sender.machine.post(() => {
          if (!sender.gone) sender.machine.program?.onDrained(sender.handle);
        });
      }
      this.network.tap?.(sender, segment.bytes, true);
      this.machine.program?.onBytes(this.handle, segment.bytes, 0, segment.bytes.length);
      // A home hands out its one read buffer again at once: whoever kept a view of it sees rubbish.
      spoil(segment.bytes);
    });
  }

  /** The kernel answers for a connection it does not know. */
  private resetBack(): void {
    this.finished = false;
    this.queue.length = 0;
    this.stalled = false;
    this.sendReset();
  }

  private reportClosed(): void {
    const incarnation = this.machine.incarnation;
    this.machine.post(() => {
      if (this.gone || incarnation !== this.machine.incarnation) return;
      const wasClosing = this.closing;
      this.gone = true;
      this.gathered = 0;
      // The other side closed first: this side's kernel says goodbye as well.
      if (!wasClosing) this.send(SEGMENT_FIN, NO_BYTES);
      this.machine.ends[this.handle] = undefined;
      this.machine.program?.onClosed(this.handle);
    });
  }
}

/** Sends what the machine's program wrote in the turn that ends. */
export function flushEnds(machine: Machine): void {
  const dirty = machine.dirtyEnds;
  for (let i = 0; i < machine.dirtyCount; i++) dirty[i]!.flush();
  machine.dirtyCount = 0;
}
