/** What the controller says of itself in a world: trace, coverage, and the states it goes through. */
import { nextState } from "../firmware/core/role-table.js";
import type { PairState, RoleEvent } from "../firmware/core/role-table.js";
import { transitionKey } from "./coverage.js";
import type { Machine } from "./world/machine.js";

export class ControllerEvents {
  private state = "off";

  constructor(
    private readonly machine: Machine,
    private readonly onEvent: (event: string) => void,
  ) {}

  /** A note of a change of state has the event's name and begins with the new state. */
  note(event: string, text: string): void {
    const { world } = this.machine;
    world.cover(`controller ${event}`);
    this.onEvent(event);
    const next = nextState(this.state as PairState, event as RoleEvent);
    if (next === undefined || !text.startsWith(`${next}: `)) return;
    world.cover(transitionKey(this.state, event));
    this.state = next;
    if (world.trace.readable) world.trace.picture.state(world.now, "controller", next);
  }
}
