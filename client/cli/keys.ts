/** `dyad get`, `dyad set` and the rest: one Redis command each, over the controller's native port. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { ReplyValue } from "../../protocol/resp-reply.js";
import { connectClient } from "../client.js";
import { LineClient } from "../line-client.js";
import {
  CommandError,
  DyadError,
  HandshakeError,
  NotDoneError,
  OutcomeUnknownError,
} from "../errors.js";
import { openBoardPort, parsePlace, placeText } from "./board-port.js";
import type { PortPlace } from "./board-port.js";
import { Failure } from "./failure.js";

const EXIT_NOTHING = 1;
const EXIT_NOT_DONE = 2;
const EXIT_UNKNOWN = 6;

/** Words a person types most; any other command goes through `dyad do`. */
const KEY_COMMANDS: { name: string; args: string; about: string }[] = [
  { name: "get", args: "<key>", about: "the value of a key; exit status 1 when there is none" },
  {
    name: "set",
    args: "<key> <value> [options...]",
    about: "set a key (EX, PX, NX, XX, GET ... as Redis)",
  },
  { name: "del", args: "<keys...>", about: "delete keys; prints how many there were" },
  { name: "exists", args: "<keys...>", about: "how many of the keys exist" },
  { name: "incr", args: "<key>", about: "add one" },
  { name: "expire", args: "<key> <seconds>", about: "let a key expire" },
  { name: "ttl", args: "<key>", about: "seconds a key has left; -1 for ever, -2 no such key" },
  { name: "keys", args: "<pattern>", about: "names of keys, by pattern" },
  { name: "do", args: "<words...>", about: "any command, e.g. dyad do HSET user:1 name Ann" },
];

/** @unit bits a second */
const LINE_BAUD = 115200;

interface KeyOptions {
  dir: string;
  at?: Address;
  line?: string;
  baud: number;
  text?: boolean;
}

interface Address {
  host: string;
  port: number;
}

function parseAddress(text: string): Address {
  const at = text.lastIndexOf(":");
  const port = Number(text.slice(at + 1));
  if (at < 1 || !Number.isInteger(port) || port < 1 || port > 65535) {
    throw new InvalidArgumentError("an address is HOST:PORT, the controller's native port.");
  }
  return { host: text.slice(0, at).replace(/^\[(.*)\]$/, "$1"), port };
}

/** The native port of the controller that runs in a directory. */
function addressOf(dir: string): Address {
  for (const path of [
    join(dir, "controller", "controller.ports.json"),
    join(dir, "controller.ports.json"),
  ]) {
    if (!existsSync(path)) continue;
    const ports = JSON.parse(readFileSync(path, "utf8")) as { host?: string; native?: number };
    if (typeof ports.native === "number") {
      return { host: ports.host ?? "127.0.0.1", port: ports.native };
    }
  }
  throw new Failure(
    `No controller has run in ${dir}. Start the pair with "dyad up --dir ${dir}", or name a controller ` +
      `with --at HOST:PORT.`,
    EXIT_NOT_DONE,
  );
}

/** A reply as lines of text. */
export function replyText(reply: ReplyValue): string {
  if (reply === null) return "(nil)";
  if (Array.isArray(reply)) return reply.map(replyText).join("\n");
  if (reply instanceof Uint8Array) return Buffer.from(reply).toString("utf8");
  if (typeof reply === "object" && "error" in reply) return `(error) ${reply.error}`;
  return String(reply);
}

/** Where a command goes, and who answered it. */
interface Way {
  where: string;
  ask(words: string[]): Promise<ReplyValue>;
}

function byNetwork(address: Address): Way {
  return {
    where: `${address.host}:${address.port}`,
    ask: async (words) => {
      const client = await connectClient({ ...address, name: "dyad" });
      const reply = await client.command(...words);
      await client.close();
      return reply;
    },
  };
}

function byLine(place: PortPlace, baud: number, text: boolean): Way {
  return {
    where: placeText(place),
    ask: async (words) => {
      const port = await openBoardPort(place, baud, {
        onText: (bytes) => client.feed(Buffer.from(bytes, "latin1")),
        onClosed: () => undefined,
      });
      const client = new LineClient(
        { write: (bytes) => port.write(Buffer.from(bytes).toString("latin1")) },
        { text },
      );
      try {
        const reply = await client.command(...words);
        await client.close();
        return reply;
      } finally {
        port.close();
      }
    },
  };
}

async function run(words: string[], way: Way): Promise<void> {
  const { where } = way;
  try {
    const reply = await way.ask(words);
    process.stdout.write(`${replyText(reply)}\n`);
    if (reply === null) process.exitCode = EXIT_NOTHING;
  } catch (error) {
    if (error instanceof CommandError) throw new Failure(error.message, 1);
    if (error instanceof OutcomeUnknownError) {
      throw new Failure(
        `It may have been done or not (${error.message}): look before you try again.`,
        EXIT_UNKNOWN,
      );
    }
    if (error instanceof HandshakeError) {
      throw new Failure(`${where} refused this client: ${error.message}`, EXIT_NOT_DONE);
    }
    if (error instanceof NotDoneError) {
      throw new Failure(`Not done: ${error.message} (asked ${where}).`, EXIT_NOT_DONE);
    }
    if (error instanceof DyadError) throw new Failure(error.message, EXIT_NOT_DONE);
    throw error;
  }
}

/** Adds them all to the `dyad` command. */
export function addKeyCommands(program: Command, dirDefault: string): void {
  for (const { name, args, about } of KEY_COMMANDS) {
    program
      .command(name)
      .description(about)
      .usage(`[--dir DIR | --at HOST:PORT | --line PORT] ${args}`)
      .argument("<words...>", args)
      .option("--dir <dir>", "directory of the pair", dirDefault)
      .option("--at <host:port>", "a controller's native port", parseAddress)
      .option("--line <port>", "a serial line to the controller instead (its clientLine)")
      .addOption(
        new Option("--baud <speed>", "speed of that line").argParser(Number).default(LINE_BAUD),
      )
      .option("--text", "7-bit packets on that line")
      .addHelpText(
        "after",
        "\nA word that begins with a dash goes after a lone --: dyad set x -- -5",
      )
      .action(async (words: string[], options: KeyOptions) => {
        const way =
          options.line === undefined
            ? byNetwork(options.at ?? addressOf(resolve(options.dir)))
            : byLine(parsePlace(options.line), options.baud, options.text === true);
        await run(name === "do" ? words : [name, ...words], way);
      });
  }
}
