/** The `dyad` command: its words, options and exit statuses. */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Command, InvalidArgumentError, Option } from "commander";
import { askController, askNode } from "./ask-node.js";
import { backup, restore } from "./backup.js";
import { runBoardConsole, runConsole } from "./console.js";
import { Failure } from "./failure.js";
import { flash } from "./flash.js";
import { addKeyCommands } from "./keys.js";
import { type Durability, type Home, HOMES, homeProgram, programPath } from "./pair-dir.js";
import { formatStatus, parseStatus, statusExit } from "./status.js";
import { up } from "./up.js";

const DIR_DEFAULT = ".dyad";
const EXIT_WRONG_USE = 2;
/** What Espruino's serial console has on most boards. @unit bits a second */
const BAUD_DEFAULT = 9600;

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65535) {
    throw new InvalidArgumentError("a port is a whole number, 0 to 65535.");
  }
  return port;
}

function parseBaud(text: string): number {
  const baud = Number(text);
  if (!/^\d+$/.test(text) || baud < 300 || baud > 4_000_000) {
    throw new InvalidArgumentError("a speed is a whole number of bits a second, 300 to 4000000.");
  }
  return baud;
}

function baudOption(): Option {
  return new Option("--baud <speed>", "speed of a serial device, in bits a second").argParser(
    parseBaud,
  );
}

function dirOption(): Option {
  return new Option("--dir <dir>", "directory of the pair, or of one controller").default(
    DIR_DEFAULT,
  );
}

function version(): string {
  const file = new URL("../package.json", pathToFileURL(programPath("dyad.js")));
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}

/** Runs another program of this package in this process. @param argv its path and arguments */
async function runProgram(argv: string[]): Promise<void> {
  process.argv = [process.execPath, ...argv];
  await import(pathToFileURL(argv[0]!).href);
}

/** Sends an operator's line and prints the answer; a refusal is exit status 1. */
async function operate(dir: string, line: string): Promise<string> {
  const answer = await askController(resolve(dir), line);
  process.stdout.write(`${answer}\n`);
  if (/^(error|refused|not |cannot|unknown)/i.test(answer)) process.exitCode = 1;
  return answer;
}

const program = new Command("dyad")
  .description(
    "Two data servers and a small controller: one address for clients, no acknowledged write lost, " +
      "no stale read, a pause of milliseconds when a server fails.",
  )
  .version(version())
  .showHelpAfterError("(dyad --help lists the commands)")
  // Commander has printed what is wrong; wrong use is status 2, help and version are 0.
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : EXIT_WRONG_USE))
  .addHelpText(
    "after",
    `
Examples:
  dyad up                        the whole pair on this machine, Redis clients on port 6380
  dyad status                    who is primary, what is in sync, and why
  dyad switchover                let the standby take over, nobody notices
  dyad set greeting hello        write without a Redis client

Exit status: 0 done; 1 it failed or was refused; 2 wrong use, or nobody to ask;
3 the directory is in use; 4 a port is in use; 5 the disk failed or is full; 6 a write's outcome is unknown.
"dyad status" has its own: 0 redundant, 1 serving but not redundant, 2 cannot serve.`,
  );

program
  .command("up")
  .description("start the pair on this machine: two servers and their controller")
  .addOption(new Option("--dir <dir>", "where everything is kept").default(DIR_DEFAULT))
  .addOption(
    new Option(
      "--port <port>",
      "port for Redis clients; 0 takes any free one (default: that of last time, else 6380)",
    ).argParser(parsePort),
  )
  .option("--json", "print one line of JSON once the pair is ready, and no other word on stdout")
  .addOption(
    new Option(
      "--durability <kind>",
      "disk: a write is on both disks before OK; memory: in both servers' memory " +
        "(default: that of last time, else disk)",
    ).choices(["disk", "memory"]),
  )
  .addOption(
    new Option(
      "--controller <home>",
      "node: as a Node process, the fastest; board: its firmware in the virtual board, with a serial console; " +
        "espruino, iotjs: its firmware in that real interpreter, found on PATH",
    )
      .choices(HOMES)
      .default("node"),
  )
  .option("--console", "also tell, line by line, what changes (this is what npm start does)")
  .addHelpText(
    "after",
    `
Runs until Ctrl-C, then stops all three. It restarts nothing by itself: what ends or is killed stays
down until its command is run, which is printed (and is in the JSON line).`,
  )
  .action(
    async (options: {
      dir: string;
      port?: number;
      json?: boolean;
      durability?: Durability;
      controller: Home;
      console?: boolean;
    }) => {
      process.exitCode = await up({
        dir: options.dir,
        port: options.port,
        json: options.json === true,
        durability: options.durability,
        controller: options.controller,
        console: options.console === true,
      });
    },
  );

program
  .command("status")
  .description(
    "who is primary, what is in sync, and why; exit status 0, 1 or 2 says it to a program",
  )
  .addOption(dirOption())
  .option("--json", "one line of JSON")
  .action(async (options: { dir: string; json?: boolean }) => {
    const status = parseStatus(await askController(resolve(options.dir), "status json"));
    process.stdout.write(
      options.json === true ? `${JSON.stringify(status)}\n` : `${formatStatus(status)}\n`,
    );
    process.exitCode = statusExit(status);
  });

program
  .command("switchover")
  .description("make the standby primary, in order: no error, no lost write")
  .addOption(dirOption())
  .action(async (options: { dir: string }) => {
    await operate(options.dir, "switchover");
  });

program
  .command("console")
  .description("talk to the controller: states, reasons, traces (help lists its words)")
  .addOption(dirOption())
  .option(
    "--port <port>",
    "a board's console instead: a serial device (/dev/ttyUSB0), a pseudo terminal, or a bridge (tcp:HOST:PORT)",
  )
  .addOption(baudOption().default(BAUD_DEFAULT))
  .action(async (options: { dir: string; port?: string; baud: number }) =>
    options.port === undefined
      ? runConsole(resolve(options.dir))
      : runBoardConsole(options.port, options.baud),
  );

program
  .command("flash")
  .description("build a board's firmware and put it onto the board: verified, then restarted")
  .requiredOption("--board <name>", "which of board-configs/")
  .requiredOption(
    "--port <port>",
    "the board's console: a serial device (/dev/ttyUSB0), or a bridge (tcp:HOST:PORT)",
  )
  .addOption(baudOption())
  .option("--built", "take what is in dist/ instead of building")
  .option(
    "--yes",
    "also where the old firmware cannot be kept, or the Storage must be put in order",
  )
  .addHelpText(
    "after",
    `
The speed is the one in the board's configuration. Nothing is written before it is clear which board is there,
that the firmware has room, and what a power cut could cost. docs/BOARDS.md goes through it step by step.`,
  )
  .action(
    async (options: {
      board: string;
      port: string;
      baud?: number;
      built?: boolean;
      yes?: boolean;
    }) =>
      flash({
        board: options.board,
        port: options.port,
        baud: options.baud,
        built: options.built === true,
        yes: options.yes === true,
      }),
  );

program
  .command("force")
  .description(
    "make a server primary although the record forbids it, losing what only the other held",
  )
  .argument("<server>", "the server to make primary")
  .addOption(dirOption())
  .option("--yes", "do it; without this it only says what would be lost")
  .action(async (server: string, options: { dir: string; yes?: boolean }) => {
    const answer = await operate(options.dir, `force ${server}`);
    // The console does it when it is said twice.
    if (options.yes === true && answer.startsWith("This would")) {
      await operate(options.dir, `force ${server}`);
    }
  });

program
  .command("new-pair")
  .description("found a new pair on one blank disk, while the other server is away")
  .argument("<identity>", "the disk's identity (dyad identity shows it)")
  .addOption(dirOption())
  .action(async (identity: string, options: { dir: string }) => {
    await operate(options.dir, `newPair ${identity}`);
  });

program
  .command("identity")
  .description("the identity of a server's disk")
  .argument("[server]", "a server of the pair's directory; without it both")
  .addOption(new Option("--dir <dir>", "directory of the pair").default(DIR_DEFAULT))
  .action(async (server: string | undefined, options: { dir: string }) => {
    for (const id of server === undefined ? ["a", "b"] : [server]) {
      const socket = join(resolve(options.dir), id, "agent.sock");
      const answer = await askNode(socket, "identity").catch(
        (error: Error) => `not running (${error.message})`,
      );
      process.stdout.write(`${id} ${answer}\n`);
    }
  });

program
  .command("backup")
  .description("copy a running server's data into a new directory, while it goes on serving")
  .requiredOption("--to <dir>", "directory to create")
  .addOption(new Option("--dir <dir>", "directory of the pair").default(DIR_DEFAULT))
  .option("--server <id>", "which server (default: the standby if it is in sync, else the primary)")
  .action(async (options: { to: string; dir: string; server?: string }) => {
    process.stdout.write(`${await backup(resolve(options.dir), options.server, options.to)}\n`);
  });

program
  .command("restore")
  .description("put a backup into the place of a stopped server's data; the pair sees a new disk")
  .requiredOption("--from <dir>", "directory that backup created")
  .requiredOption("--server <id>", "which server")
  .addOption(new Option("--dir <dir>", "directory of the pair").default(DIR_DEFAULT))
  .option("--replace", "move aside what the server holds now")
  .action((options: { from: string; server: string; dir: string; replace?: boolean }) => {
    const done = restore(
      resolve(options.dir),
      options.server,
      options.from,
      options.replace === true,
    );
    process.stdout.write(`${done}\n`);
  });

program
  .command("controller")
  .description("run one controller in the foreground")
  .requiredOption("--config <file>", "its configuration (docs/DEPLOY.md)")
  .addOption(
    new Option(
      "--controller <home>",
      "where it runs: a Node process, the virtual board, or a real interpreter on PATH",
    )
      .choices(HOMES)
      .default("node"),
  )
  .action(async (options: { config: string; controller: Home }) =>
    runProgram([...homeProgram(options.controller), "--config", resolve(options.config)]),
  );

program
  .command("agent")
  .description("run one server in the foreground")
  .requiredOption("--config <file>", "its configuration (docs/DEPLOY.md)")
  .action(async (options: { config: string }) =>
    runProgram([programPath("agent.js"), "--config", resolve(options.config)]),
  );

addKeyCommands(program, DIR_DEFAULT);

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  process.stderr.write(`dyad: ${error.message}\n`);
  process.exitCode = error.exitCode;
}
