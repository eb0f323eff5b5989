/** The command parser against the real thing: the same bytes, the same answers. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { makeSink, writeBulkText, writeError, writeSimple } from "../../protocol/resp.js";
import { latin1, outcomesOf, wireOf } from "./resp-outcomes.js";
import { freePort } from "../free-ports.js";

const SEED = 20_261;
const RANDOM_CASES = 400;
const LIMITS = {
  argsMax: 1024 * 1024,
  bulkBytesMax: 536_870_912,
  commandBytesMax: 1_000_000_000,
  inlineBytesMax: 65_536,
  keptBytesMax: 1_000_000,
};

let redis: ChildProcess | undefined;
let port = 0;
let directory = "";
let absent = "";

beforeAll(async () => {
  port = await freePort();
  directory = mkdtempSync(join(tmpdir(), "dyad-redis-"));
  const options = ["--port", String(port), "--bind", "127.0.0.1", "--save", ""];
  redis = spawn("redis-server", [...options, "--appendonly", "no", "--dir", directory], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  await new Promise<void>((resolve) => {
    redis!.on("error", (error) => {
      absent = `no redis-server to compare with (${error.message})`;
      redis = undefined;
      resolve();
    });
    redis!.on("exit", (code) => {
      if (absent === "") absent = `redis-server ended with ${code}`;
      resolve();
    });
    redis!.stdout!.on("data", (text: Buffer) => {
      if (text.includes("Ready to accept connections")) resolve();
    });
  });
  if (absent !== "") console.log("skipped: " + absent);
});

afterAll(async () => {
  if (redis !== undefined && redis.exitCode === null) {
    redis.removeAllListeners("exit");
    redis.kill("SIGKILL");
    await once(redis, "exit");
  }
  if (directory !== "") rmSync(directory, { recursive: true, force: true });
});

/** What Redis answers to these bytes before it or we close. */
function asked(wire: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => socket.end(latin1(wire)));
    socket.setTimeout(10_000, () => reject(new Error("no answer to " + JSON.stringify(wire))));
    socket.on("data", (data) => (answer += data.toString("latin1")));
    // A protocol error makes Redis close on bytes it has not read: that comes as a reset.
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(answer));
  });
}

/** What a server on our parser would answer that knows ECHO and PING, and "?" for all else. */
function ours(wire: string): string {
  const sink = makeSink(64);
  for (const outcome of outcomesOf([latin1(wire)], LIMITS)) {
    if ("fault" in outcome) writeError(sink, outcome.fault);
    else if ("refused" in outcome) writeError(sink, outcome.refused);
    else {
      const [name, text] = outcome.command as [string, string];
      const count = outcome.command.length;
      if (name.toLowerCase() === "ping" && count === 1) writeSimple(sink, "PONG");
      else if (name.toLowerCase() === "ping" && count === 2) writeBulkText(sink, text);
      else if (name.toLowerCase() === "echo" && count === 2) writeBulkText(sink, text);
      else writeSimple(sink, "?");
    }
  }
  return Buffer.from(sink.bytes.subarray(0, sink.length)).toString("latin1");
}

const OTHER_ERRORS = /-ERR (unknown command|wrong number)[^\r]*\r\n/g;
async function same(wire: string): Promise<void> {
  const theirs = (await asked(wire)).replace(OTHER_ERRORS, "+?\r\n");
  expect(ours(wire), JSON.stringify(wire)).toBe(theirs);
}

test("chosen malformed input gets the same answers", async (context) => {
  if (absent !== "") context.skip(absent);
  const good = wireOf(["ECHO", "hi"]);
  for (const wire of [
    good,
    good + good,
    "*-1\r\n*0\r\n" + good,
    "*x\r\n",
    "*\r\n",
    "* 1\r\n",
    "*+1\r\n",
    "*01\r\n",
    "*-0\r\n",
    "*2147483648\r\n",
    "*99999999999999999999\r\n",
    "*1\r\nfoo\r\n",
    "*1\r\n:4\r\n",
    "*1\r\n$\r\n",
    "*1\r\n$-1\r\n",
    "*1\r\n$x\r\n",
    "*1\r\n$04\r\nPING\r\n",
    "*1\r\n$536870913\r\n",
    "*1\r\n$4\r\nPINGxx" + good,
    "*1\rx$4\ryPING\r\n" + good,
    "PING\r\n",
    "ping\n",
    "\r\n\n   \r\nping\r\n",
    'echo "a\\x41\\n\\t\\\\"\r\n',
    "echo 'a\\'b\\n'\r\n",
    'echo a"b c"\r\n',
    'echo ""\r\n',
    'echo "x\r\n',
    'echo "x"y\r\n',
    "echo 'x\r\n",
    good + "echo 'x'y\r\n" + good,
    good + "*1\r\n?\r\n" + good,
  ]) {
    await same(wire);
  }
});

test("random mixtures of good and broken pieces get the same answers", async (context) => {
  if (absent !== "") context.skip(absent);
  let state = SEED;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 4_294_967_296) * below);
  };
  const pieces =
    "*|$|1|2|4|\r\n|\r\n|\r|\n| |\"|'|\\|x|PING|ECHO|-|0|a|*1\r\n$4\r\nPING\r\n|*2\r\n$4\r\nECHO\r\n$1\r\nz\r\n|*2\r\n|$4\r\n|$1\r\n|ping\r\n|echo hi\r\n".split(
      "|",
    );
  console.log(`seed ${SEED}`);
  for (let i = 0; i < RANDOM_CASES; i++) {
    let wire = "";
    for (let n = random(10); n >= 0; n--) wire += pieces[random(pieces.length)]!;
    // The line end lets Redis see what we already refuse at its first byte.
    await same(wire + "\r\n");
  }
});
