/**
 * Clients whose next command cannot be sent now, in turn, and how much they hold in all.
 *
 * A command is held while there is no primary, while a server's window is full, or while ids run out. Nothing is refused
 * for want of room: whoever has its share is not read from (client-intake.ts), so what more it has to say waits in
 * the network. When servers take commands again each client has a few sent and goes to the end (dispatch.ts), so
 * one with a thousand delays one with a single command by a few and no more.
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
}

export function createHoldQueue(): HoldQueue {
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

  queue = {
    count: 0,
    commands: 0,
    bytes: 0,
    first: undefined,
    add: add,
    remove: remove,
  };
  return queue;
}
