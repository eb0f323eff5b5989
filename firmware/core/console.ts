/**
 * The operator's console, the same on every home: one line in, some lines out, of at most 80 columns.
 *
 * What can lose data says what it would lose and must be said twice.
 */
import type { Deadlines } from "./deadlines.js";
import { DEADLINE_NAMES, REPEAT } from "./deadlines.js";
import { explainPair, serverText, whyText } from "./explain.js";
import { WITH_FENCING, WITH_FULL_CONSOLE, WITH_STATUS_JSON } from "./features.js";
import type { Fencing } from "./fencing.js";
import { CONSOLE_COLUMNS, CONSOLE_LINES_MAX } from "./limits.js";
import { loadPermille } from "./load.js";
import { confirmedOf, whyChanged } from "./operator.js";
import type { Confirmed, Order } from "./operator.js";
import { idOf, otherOf, recordText } from "./pair.js";
import type { Pair } from "./pair.js";
import { LEVEL_DEBUG } from "./trace.js";
import type { Trace } from "./trace.js";
import { IDENTITY_BYTES, formatHex, parseHex } from "../../protocol/record.js";
import type { ServerIndex } from "../../protocol/record.js";
import type { SerialCounts } from "../../protocol/serial.js";

export interface ConsoleHost {
  pair: Pair;
  /** What `force` has announced: another record, or other losses, make the answer stale. */
  announced: Confirmed | undefined;
  trace: Trace;
  deadlines: Deadlines;
  status(now: number): object;
  /** What the serial line of a server has brought; undefined where there is none. */
  lineCounts(server: ServerIndex): SerialCounts | undefined;
  /** @returns why not, "" when it has begun */
  switchover(now: number): string;
  force(server: ServerIndex, now: number): Order;
  carryOut(confirmed: Confirmed, now: number): void;
  newPair(identity: Uint8Array, now: number): string;
  fencing: Fencing;
  setTrace(on: boolean): void;
}

function helpLines(): string[] {
  if (!WITH_FULL_CONSOLE) {
    return [
      "help, status, servers, events [COUNT], switchover, force ID, newPair IDENTITY,",
      WITH_FENCING
        ? "fence [ID [release]], trace on|off, memory, reboot. See docs/BOARDS.md"
        : "trace on|off, memory, reboot. What they mean: docs/BOARDS.md",
    ];
  }
  return [
    "help                this text",
    "status              roles, mode and why, in a few lines; status json: all of it",
    "explain             why it is so, what it waits for, what would change it",
    "servers             both servers: link, load, sync",
    "events [COUNT]      the newest events of the black box (also: log)",
    "switchover          drain, then make the standby primary; loses nothing",
    "force ID            make ID primary although it may lack writes; asks twice",
    "newPair IDENTITY    found a new pair on one blank disk",
    "fence ID [release]  the fencing lines; a failed server off (asks twice), or on",
    "config              what this controller was told at its making",
    "trace on|off        put more into the black box",
    "memory              what the tables hold and may hold",
  ];
}

/** Cuts a text into lines at spaces; what follows the first line is indented. */
export function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  let rest = text;
  let indent = "";
  while (indent.length + rest.length > columns) {
    let at = columns - indent.length;
    while (at > 0 && rest.charAt(at) !== " ") at--;
    if (at === 0) at = columns - indent.length;
    lines.push(indent + rest.substring(0, at));
    while (rest.charAt(at) === " ") at++;
    rest = rest.substring(at);
    indent = "  ";
  }
  lines.push(indent + rest);
  return lines;
}

/** Lines cut to the console's width; of too many, the first ones, or with `newest` the last ones, are kept. */
function joined(lines: string[], newest: boolean): string {
  const rows: string[] = [];
  for (let i = 0; i < lines.length; i++) {
    const cut = wrap(lines[i], CONSOLE_COLUMNS);
    for (let j = 0; j < cut.length; j++) rows.push(cut[j]);
  }
  const excess = rows.length - CONSOLE_LINES_MAX;
  if (excess <= 0) return rows.join("\n");
  return (newest ? rows.slice(excess) : rows.slice(0, CONSOLE_LINES_MAX)).join("\n");
}

/** The words of a line, split at spaces. */
function wordsOf(line: string): string[] {
  const words: string[] = [];
  let word = "";
  for (let i = 0; i <= line.length; i++) {
    const c = i < line.length ? line.charAt(i) : " ";
    if (c === " " || c === "\t" || c === "\r" || c === "\n") {
      if (word !== "") words.push(word);
      word = "";
    } else if (word.length < 256) {
      word += c;
    }
  }
  return words;
}

function status(host: ConsoleHost, now: number, words: string[]): string[] {
  const pair = host.pair;
  if (WITH_STATUS_JSON && words.length > 1 && words[1] === "json") {
    return [JSON.stringify(host.status(now))];
  }
  const record = pair.record;
  return [
    record === undefined ? "no record" : recordText(pair, record) + ", " + pair.state,
    "why: " + whyText(pair),
    serverText(pair, 0),
    serverText(pair, 1),
  ];
}

function servers(host: ConsoleHost, now: number): string[] {
  const pair = host.pair;
  const lines: string[] = [];
  for (let i = 0; i < 2; i++) {
    const view = pair.servers[i];
    const said = view.said;
    const load = loadPermille(view);
    lines.push(serverText(pair, i === 0 ? 0 : 1));
    const counts = host.lineCounts(i === 0 ? 0 : 1);
    if (counts !== undefined) {
      lines.push(
        "  serial: " +
          counts.packets +
          " packets, damaged " +
          counts.damaged +
          ", lost " +
          counts.lost +
          ", doubled " +
          counts.doubled +
          ", echoes " +
          counts.echoes,
      );
    }
    if (said === undefined) continue;
    lines.push(
      "  load " +
        load +
        " permille, cpu " +
        said.cpuPermille +
        ", in flight " +
        said.inFlight +
        ", service " +
        said.serviceUs +
        " us",
    );
    lines.push(
      "  log end " +
        said.logEnd +
        ", confirmed " +
        said.confirmed +
        ", lag " +
        said.lagEntries +
        ", heard " +
        Math.round(now - view.aliveAt) +
        " ms ago",
    );
    lines.push("  disk " + formatHex(said.identity));
  }
  return lines;
}

function events(host: ConsoleHost, words: string[]): string[] {
  const asked = words.length > 1 ? parseInt(words[1], 10) : 20;
  const most = asked > 0 && asked < CONSOLE_LINES_MAX ? asked : 20;
  const lines: string[] = [];
  for (let back = host.trace.size() - 1; back >= 0; back--) {
    const line = host.trace.line(back, LEVEL_DEBUG);
    if (line !== "" && back < most) lines.push(line);
  }
  return lines.length === 0 ? ["nothing has happened yet"] : lines;
}

function force(host: ConsoleHost, words: string[], now: number): string[] {
  const pair = host.pair;
  const server = serverCalled(host, words);
  if (server < 0) return ["force which server? force " + idOf(pair, 0) + ", or " + idOf(pair, 1)];
  const target: ServerIndex = server === 0 ? 0 : 1;
  const order = host.force(target, now);
  if (order.proposal === undefined) return ["refused: " + order.refused];
  const before = host.announced;
  if (
    before !== undefined &&
    before.server === target &&
    whyChanged(pair, order, before) === "" &&
    host.deadlines.isSet(REPEAT) &&
    !host.deadlines.due(REPEAT, now)
  ) {
    host.deadlines.clear(REPEAT);
    host.announced = undefined;
    host.carryOut(before, now);
    return ["forced: " + recordText(pair, order.proposal.record)];
  }
  host.announced = confirmedOf(order);
  host.deadlines.set(REPEAT, now + pair.config.timings.repeatMs);
  const lines = ["This would write " + recordText(pair, order.proposal.record) + "."];
  for (let i = 0; i < order.losses.length; i++) lines.push(order.losses[i]);
  lines.push(
    "Say the same again within " +
      Math.round(pair.config.timings.repeatMs / 1000) +
      " s to do it: force " +
      idOf(pair, target),
  );
  return lines;
}

function serverCalled(host: ConsoleHost, words: string[]): number {
  const pair = host.pair;
  if (words.length < 2) {
    return pair.record === undefined ? -1 : otherOf(pair.record.primary);
  }
  for (let i = 0; i < 2; i++) {
    if (pair.servers[i].id === words[1]) return i;
  }
  return -1;
}

function newPair(host: ConsoleHost, words: string[], now: number): string[] {
  const identity = words.length > 1 ? parseHex(words[1], IDENTITY_BYTES) : undefined;
  if (identity === undefined) return ["newPair needs the disk's identity, 32 hex digits"];
  const why = host.newPair(identity, now);
  return [why === "" ? "founding a new pair" : "refused: " + why];
}

function fence(host: ConsoleHost, words: string[], now: number): string[] {
  const fencing = host.fencing;
  if (words.length < 2) {
    const lines: string[] = [];
    for (let i = 0; i < 2; i++) {
      const server: ServerIndex = i === 0 ? 0 : 1;
      const text = fencing.text(server, now);
      if (text !== "") lines.push(idOf(host.pair, server) + ": " + text);
    }
    return lines.length === 0 ? ["this controller has no fencing lines"] : lines;
  }
  const called = serverCalled(host, words);
  if (called < 0)
    return ["fence which server? " + idOf(host.pair, 0) + ", or " + idOf(host.pair, 1)];
  const server: ServerIndex = called === 0 ? 0 : 1;
  if (words.length > 2 && words[2] !== "release") return ["fence ID, or fence ID release"];
  return words.length > 2 ? [fencing.release(server, now)] : fencing.order(server, now);
}

function config(host: ConsoleHost): string[] {
  const c = host.pair.config;
  const t = c.timings;
  return [
    "servers: " +
      c.servers[0].id +
      (c.servers[0].preset ? " (preset), " : ", ") +
      c.servers[1].id +
      (c.servers[1].preset ? " (preset)" : ""),
    "poll every " +
      t.pollMs +
      " ms, failed after " +
      t.failureMs +
      " ms of silence, " +
      t.probeMs +
      " ms after a closed link, " +
      t.linkDownMs +
      " ms without a link",
    "stalled confirm " +
      t.stallMs +
      " ms (" +
      t.stallPeerDownMs +
      " ms with the peer link down), hanging disk " +
      t.diskStallMs +
      " ms",
    "commands wait at most " + t.holdMs + " ms; balancing: " + c.balancing,
    "largest frame " +
      c.frameMax +
      " bytes, largest value " +
      c.limits.valueBytesMax +
      " bytes, AUTH " +
      (c.clientPassword === undefined ? "off" : "on"),
  ];
}

function memory(host: ConsoleHost, now: number): string[] {
  const pair = host.pair;
  const l = pair.config.limits;
  const lines = [
    "black box: " + host.trace.count() + " events so far, " + host.trace.size() + " kept",
    "held commands: at most " + l.heldBytesMax + " bytes; in flight: at most " + l.inFlightMax,
    "replies waiting for clients: at most " + l.clientOutTotalBytes + " bytes",
  ];
  for (let i = 0; i < DEADLINE_NAMES.length; i++) {
    if (host.deadlines.isSet(i)) {
      lines.push(
        "timer " + DEADLINE_NAMES[i] + ": in " + Math.round(host.deadlines.at(i) - now) + " ms",
      );
    }
  }
  return lines;
}

function answer(host: ConsoleHost, words: string[], now: number): string[] {
  const pair = host.pair;
  switch (words[0]) {
    case "help":
    case "?":
      return helpLines();
    case "status":
      return status(host, now, words);
    case "explain":
    case "why":
      return WITH_FULL_CONSOLE ? explainPair(pair) : ["why: " + whyText(pair)];
    case "servers":
      return servers(host, now);
    case "events":
    case "log":
      return events(host, words);
    case "switchover": {
      const why = host.switchover(now);
      return [why === "" ? "switching over" : "refused: " + why];
    }
    case "force":
      return force(host, words, now);
    case "newPair":
    case "newpair":
      return newPair(host, words, now);
    case "fence":
      return fence(host, words, now);
    case "config":
      return WITH_FULL_CONSOLE ? config(host) : ["as board-configs/ had it when this was built"];
    case "trace":
      if (words[1] !== "on" && words[1] !== "off") return ["trace on, or trace off"];
      host.setTrace(words[1] === "on");
      return ["trace is " + words[1]];
    case "memory":
      return memory(host, now);
    default:
      return ['unknown command "' + words[0] + '"; help lists them'];
  }
}

/** @returns the answer to one line an operator typed; a remark, which begins with //, has none */
export function answerLine(host: ConsoleHost, line: string, now: number): string {
  const words = wordsOf(line);
  if (words.length === 0 || words[0].substring(0, 2) === "//") return "";
  const lines = answer(host, words, now);
  // One line of JSON is for programs: it is neither wrapped nor cut.
  return words[0] === "status" && words[1] === "json"
    ? lines[0]
    : joined(lines, words[0] === "events" || words[0] === "log");
}
