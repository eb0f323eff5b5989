/**
 * The commands the controller holds: one row each, in parallel arrays, and the ids under which they
 * are outstanding at a server.
 *
 *     client's queue:  head ─> OPEN ─> OPEN ─> LOCAL ─> WAITING ─> tail      (next)
 *     id & mask ─────> row                                                 (byId)
 *
 * A row outlives its client when it has been sent: the id stays outstanding until it is answered, so that
 * it is never given out again while a reply may come. Nothing here allocates after the start.
 */
import type { CommandChunk } from "./command-bytes.js";

/** Not in use. */
export const ROW_FREE = 0;
/** To be sent, for the first time or again. */
export const ROW_WAITING = 1;
/** Some fragments are sent. */
export const ROW_SENDING = 2;
/** Sent whole, not answered. */
export const ROW_OPEN = 3;
/** Part of the reply has come. */
export const ROW_REPLYING = 4;
/** Its reply is held here, whole, until all before it are answered. */
export const ROW_DONE = 5;

export const NO_ROW = -1;
/** Connection of a row whose client is gone. */
export const CLIENT_GONE = -1;

export interface InFlight {
  capacity: number;
  used: number;
  state: Uint8Array;
  /** Id under which it is outstanding; 0: it is not. */
  id: Uint32Array;
  /** The id of its first asking: its number in the controller's session. */
  number: Uint32Array;
  /** Its payload begins with a session prefix that the controller wrote. */
  named: Uint8Array;
  server: Uint8Array;
  /** COMMAND flags without MORE and ORDERED. */
  flags: Uint8Array;
  /** Must be read at the primary, whatever its class. */
  primaryOnly: Uint8Array;
  /** It has been sent once at least. */
  asked: Uint8Array;
  /** It may have been done: it was lost with a server that may have run it. */
  mayBeDone: Uint8Array;
  /** A read that was sent and whose answer has not left: later writes of its keys wait for it. */
  readOpen: Uint8Array;
  /** Hash of the key it reads (pipeline-order.ts), once a write had to know. */
  readKey: Int32Array;
  /** The client's own id (native clients). */
  clientId: Uint32Array;
  /** Client's connection, or CLIENT_GONE. */
  client: Int32Array;
  next: Int32Array;
  /** Payload is chunk.bytes[start..end); 8 bytes before start are room for the header. */
  chunk: (CommandChunk | undefined)[];
  start: Int32Array;
  end: Int32Array;
  /** Fragments: first byte not yet sent. */
  sentTo: Int32Array;
  /** Fragments: FLAG_ORDERED, or 0. */
  ordered: Uint8Array;
  /** When it was sent; while it waits: since when. */
  sentAt: Float64Array;
  /** In flight at that server when it was sent, without this one. */
  ahead: Int32Array;
  /** When a server first refused it; negative: none has. */
  heldSince: Float64Array;
  /** A reply that was made here, or held back. */
  reply: (Uint8Array | undefined)[];
  replyLength: Int32Array;
  /** Reply bytes for which the server has not been given credit again. */
  creditOwed: Int32Array;
  /** Outcome of a held reply (native clients). */
  outcome: Uint8Array;
  /** Part of the reply has reached the client: it cannot be asked again. */
  streaming: Uint8Array;
  /** @returns a row, or NO_ROW when all are in use */
  take(): number;
  give(row: number): void;
  /** Makes the row outstanding under an id. @returns false when that slot is taken: try the next id */
  bind(row: number, id: number): boolean;
  /** The same for an id that is at a server already, whoever has that slot. */
  bindAnyhow(row: number, id: number): void;
  unbind(row: number): void;
  /** @returns the row outstanding under exactly this id, or NO_ROW */
  find(id: number): number;
}

/** @param capacity rows, a power of two (the id slots are twice as many) */
export function createInFlight(capacity: number): InFlight {
  const slots = capacity * 2;
  const mask = slots - 1;
  if ((capacity & (capacity - 1)) !== 0) throw new Error("assertion failed: in-flight capacity");
  const byId = new Int32Array(slots);
  const free = new Int32Array(capacity);
  /** Rows whose slot another one has: few, and only what the fast path has handed over. */
  const strays: number[] = [];
  let table: InFlight;
  function take(): number {
    if (table.used === capacity) return NO_ROW;
    const row = free[capacity - 1 - table.used];
    table.used++;
    table.id[row] = 0;
    table.asked[row] = 0;
    table.named[row] = 0;
    table.mayBeDone[row] = 0;
    table.readOpen[row] = 0;
    table.readKey[row] = 0;
    table.next[row] = NO_ROW;
    table.heldSince[row] = -1;
    table.creditOwed[row] = 0;
    table.streaming[row] = 0;
    table.replyLength[row] = 0;
    return row;
  }

  function give(row: number): void {
    if (table.state[row] === ROW_FREE) throw new Error("assertion failed: row freed twice");
    if (table.id[row] !== 0) unbind(row);
    table.state[row] = ROW_FREE;
    table.chunk[row] = undefined;
    if (table.reply[row] !== undefined) table.reply[row] = undefined;
    table.used--;
    free[capacity - 1 - table.used] = row;
  }

  function bind(row: number, id: number): boolean {
    const slot = (id & mask) >>> 0;
    if (byId[slot] !== NO_ROW) return false;
    byId[slot] = row;
    table.id[row] = id;
    return true;
  }

  function bindAnyhow(row: number, id: number): void {
    if (bind(row, id)) return;
    table.id[row] = id;
    strays.push(row);
  }

  function unbind(row: number): void {
    const slot = (table.id[row] & mask) >>> 0;
    if (byId[slot] === row) byId[slot] = NO_ROW;
    else strays.splice(strays.indexOf(row), 1);
    table.id[row] = 0;
  }

  function find(id: number): number {
    const row = byId[(id & mask) >>> 0];
    if (row !== NO_ROW && table.id[row] === id) return row;
    for (let i = 0; i < strays.length; i++) if (table.id[strays[i]] === id) return strays[i];
    return NO_ROW;
  }

  table = {
    // In the order of use: the engine of a chip looks through a list.
    state: new Uint8Array(capacity),
    client: new Int32Array(capacity),
    next: new Int32Array(capacity),
    flags: new Uint8Array(capacity),
    start: new Int32Array(capacity),
    end: new Int32Array(capacity),
    chunk: [],
    server: new Uint8Array(capacity),
    id: new Uint32Array(capacity),
    take: take,
    find: find,
    bind: bind,
    give: give,
    unbind: unbind,
    bindAnyhow: bindAnyhow,
    used: 0,
    capacity: capacity,
    primaryOnly: new Uint8Array(capacity),
    reply: [],
    sentAt: new Float64Array(capacity),
    ahead: new Int32Array(capacity),
    readOpen: new Uint8Array(capacity),
    asked: new Uint8Array(capacity),
    clientId: new Uint32Array(capacity),
    number: new Uint32Array(capacity),
    heldSince: new Float64Array(capacity),
    named: new Uint8Array(capacity),
    mayBeDone: new Uint8Array(capacity),
    readKey: new Int32Array(capacity),
    sentTo: new Int32Array(capacity),
    ordered: new Uint8Array(capacity),
    replyLength: new Int32Array(capacity),
    creditOwed: new Int32Array(capacity),
    outcome: new Uint8Array(capacity),
    streaming: new Uint8Array(capacity),
  };
  for (let i = 0; i < slots; i++) byId[i] = NO_ROW;
  for (let i = 0; i < capacity; i++) {
    // The lowest rows are used first, so a quiet controller touches few cache lines.
    free[i] = capacity - 1 - i;
    table.chunk.push(undefined);
    table.reply.push(undefined);
  }

  return table;
}
