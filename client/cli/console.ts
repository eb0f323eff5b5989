/** `dyad console`: the controller's console in a terminal, with line editing and history. */
import { createInterface } from "node:readline";
import { askController } from "./ask-node.js";
import { BoardConsole } from "./board-console.js";
import { parsePlace, placeText } from "./board-port.js";
import { Failure } from "./failure.js";

/** One console, wherever the controller is. */
interface Console {
  ask(line: string): Promise<string>;
  close(): void;
}

/**
 * Reads lines until the input ends or "exit".
 * @param open given a way to print what comes unasked, and one to end the console
 */
async function converse(
  open: (print: (text: string) => void, leave: (reason: string) => void) => Promise<Console>,
): Promise<void> {
  const terminal = process.stdin.isTTY === true;
  let failure: Failure | undefined;
  let prompted = false;
  const print = (text: string): void => {
    // The line that is being typed is written again below what came in between.
    process.stdout.write(prompted ? `\r\u001b[K${text}\n` : `${text}\n`);
    if (prompted) lines.prompt(true);
  };
  const leave = (reason: string): void => {
    failure ??= new Failure(reason, 2);
    lines.close();
  };
  const lines = createInterface({
    input: process.stdin,
    output: terminal ? process.stdout : undefined,
    prompt: "dyad> ",
    historySize: 200,
  });
  // What is typed before the greeting is there waits for its turn.
  const typed: string[] = [];
  let ended = false;
  let wake: (() => void) | undefined;
  lines.on("line", (line) => {
    typed.push(line.trim());
    wake?.();
  });
  lines.on("close", () => {
    ended = true;
    wake?.();
  });
  let console: Console | undefined;
  try {
    console = await open(print, leave);
    // Fails at once when there is no controller to talk to. A word that means nothing there, said to an interpreter
    // with the firmware behind it, would be an error that nobody catches, and the firmware restarts on those.
    await console.ask("//");
    const greeting = await console.ask("help");
    if (terminal) process.stdout.write(`${greeting}\n("exit" or Ctrl-D leaves this console)\n`);
    for (;;) {
      if (typed.length === 0 && !ended) {
        if (terminal) lines.prompt();
        prompted = terminal;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
        prompted = false;
      }
      const text = typed.shift();
      if (text === "exit" || text === "quit" || (text === undefined && ended)) break;
      if (text === undefined || text === "") continue;
      try {
        const answer = await console.ask(text);
        if (answer !== "") process.stdout.write(`${answer}\n`);
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        process.stdout.write(`${error.message}\n`);
        process.exitCode = error.exitCode;
      }
    }
    if (failure !== undefined) throw failure;
  } finally {
    lines.close();
    console?.close();
  }
}

/** The console of the controller whose directory this is. */
export function runConsole(dir: string): Promise<void> {
  return converse(() =>
    Promise.resolve({ ask: (line) => askController(dir, line), close: () => undefined }),
  );
}

/** The console of a board, on a serial device, a pseudo terminal or a TCP bridge. */
export function runBoardConsole(port: string, baud: number): Promise<void> {
  const place = parsePlace(port);
  return converse(async (print, leave) => {
    const console = await BoardConsole.open(place, baud, { onNote: print, onClosed: leave });
    if (process.stdin.isTTY === true) process.stdout.write(`connected to ${placeText(place)}\n`);
    return console;
  });
}
