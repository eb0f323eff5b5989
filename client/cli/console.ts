/** `dyad console`: the controller's console in a terminal, with line editing and history. */
import { createInterface } from "node:readline";
import { askController } from "./ask-node.js";
import { Failure } from "./failure.js";

/** Reads lines until the input ends or "exit". */
export async function runConsole(dir: string): Promise<void> {
  const terminal = process.stdin.isTTY === true;
  // Fails at once when there is no controller to talk to.
  const greeting = await askController(dir, "help");
  if (terminal) process.stdout.write(`${greeting}\n("exit" or Ctrl-D leaves this console)\n`);
  const lines = createInterface({
    input: process.stdin,
    output: terminal ? process.stdout : undefined,
    prompt: "dyad> ",
    historySize: 200,
  });
  if (terminal) lines.prompt();
  for await (const line of lines) {
    const text = line.trim();
    if (text === "exit" || text === "quit") break;
    if (text !== "") {
      try {
        process.stdout.write(`${await askController(dir, text)}\n`);
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        process.stdout.write(`${error.message}\n`);
      }
    }
    if (terminal) lines.prompt();
  }
  lines.close();
}
