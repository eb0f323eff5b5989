/**
 * Clients whose next command cannot be sent now, in the order in which they began to wait, and how much
 * they hold in all.
 *
 * A command is held while there is no primary, while a server's window is full, or while ids run out. The queue is
 * bounded: what does not fit is answered -BUSY at once, because a client that knows can back off.
 */
import type { ClientSession } from "./client-session.js";

export interface HoldQueue {
  count: number;
  /** Commands waiting, of all clients. */
  commands: number;
  /** Payload bytes of those. */
  bytes: number;
  first: ClientSession | undefined;
  /** Takes its place at the end; a client that already waits keeps its place. */
  add(client: ClientSession): void;
  remove(client: ClientSession): void;
  /** @returns whether another command of that many bytes may wait */
  fits(length: number): boolean;
}

export function createHoldQueue(commandsMax: number, bytesMax: number): HoldQueue {
  let queue: HoldQueue;
  let last: ClientSession | undefined = undefined;

  function add(client: ClientSession): void {
    if (client.held) return;
    client.held = true;
    client.heldBefore = last;
    client.heldAfter = undefined;
    if (last === undefined) queue.first = client;
    else last.heldAfter = client;
    last = client;
    queue.count++;
  }

  function remove(client: ClientSession): void {
    if (!client.held) return;
    client.held = false;
    if (client.heldBefore === undefined) queue.first = client.heldAfter;
    else client.heldBefore.heldAfter = client.heldAfter;
    if (client.heldAfter === undefined) last = client.heldBefore;
    else client.heldAfter.heldBefore = client.heldBefore;
    client.heldBefore = undefined;
    client.heldAfter = undefined;
    queue.count--;
  }

  function fits(length: number): boolean {
    return queue.commands < commandsMax && queue.bytes + length <= bytesMax;
  }

  queue = {
    count: 0,
    commands: 0,
    bytes: 0,
    first: undefined,
    add: add,
    remove: remove,
    fits: fits,
  };
  return queue;
}
