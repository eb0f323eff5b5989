/**
 * A controller that carries no commands, for a board too small for them: it watches, chooses and changes roles, and
 * programs on the two servers use those servers' local ports (rule 10), which need its word and none of its memory.
 */
import type { CoreConfig } from "./config.js";
import type { Forwarder } from "./forward.js";
import type { ControllerPorts } from "./ports.js";
import type { ForwardCounters } from "./traffic.js";

/** The place of createForwarder: nothing ever comes to it, and a connection that is no server's is closed. */
export function createNoClients(_config: CoreConfig, ports: ControllerPorts): Forwarder {
  function nothing(): void {}

  function none(): number {
    return 0;
  }

  function clientOpen(connection: number): void {
    ports.close(connection, "this controller carries no commands", false);
  }

  function never(): number {
    return Infinity;
  }

  function counters(): ForwardCounters {
    return {
      reads: 0,
      writes: 0,
      local: 0,
      dropped: 0,
      askedAgain: 0,
      gaveUp: 0,
      outcomeUnknown: 0,
      readsTo: [0, 0],
      clients: 0,
      clientsRefused: 0,
      clientsClosedSlow: 0,
      held: 0,
      heldBytes: 0,
      memoryBytes: 0,
    };
  }

  return {
    setRoute: nothing,
    setSession: nothing,
    linkUp: nothing,
    linkDown: nothing,
    linkDrained: nothing,
    onReply: nothing,
    onReplyEpoch: nothing,
    clientOpen: clientOpen,
    clientBytes: nothing,
    clientDrained: nothing,
    clientClosed: nothing,
    setReported: nothing,
    tick: never,
    inFlight: none,
    serviceUs: none,
    openCount: none,
    counters: counters,
  };
}
