/**
 * A controller that carries no commands, for a board too small for them: it watches, chooses and changes roles, and
 * programs on the two servers use those servers' local ports (rule 10), which need its word and none of its memory.
 */
import type { CoreConfig } from "./config.js";
import type { Forwarder } from "./forward.js";
import { zeroCounters } from "./forward-counters.js";
import type { ControllerPorts } from "./ports.js";

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
    isIdle: () => true,
    inFlight: none,
    serviceUs: none,
    openCount: none,
    counters: zeroCounters,
  };
}
