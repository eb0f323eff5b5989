/** `dyad get`, `dyad set` and the rest: single commands over the native port. */
import type { Command } from "commander";

export function addKeyCommands(_program: Command): void {
  // Filled once the client library is here.
}
