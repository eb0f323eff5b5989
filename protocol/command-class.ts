/**
 * What kind of command a client sent, looked up in the packed table straight from its bytes.
 *
 * Three classes, from the flags Redis publishes for each command (MISSION P5, P6):
 *
 *   query   flag readonly (and a few without flags that change nothing, as TIME)
 *   write   flags write and denyoom: it may bring data in (SET, HSET, LPUSH, INCR …)
 *   modify  flag write without denyoom: it only changes or removes what is there (DEL, EXPIRE, LPOP …)
 *
 * Queries may go to either server, modify and write go to the primary alike. A command that is not in the
 * table, or carries none of these flags, or runs a script, is a write: that is always safe.
 *
 * The table: for each bucket two digits that say where its entries begin, then the entries.
 *
 *     length · name in lower case · arity+45 · (marks*3+class) in two digits · key spec
 *     [count of subcommands · their entries]  only with MARK_CONTAINER
 *
 * A digit d is the character 35+d, base 90.
 */
import {
  BUCKETS,
  FIRST_WEIGHT,
  KEY_SPECS,
  LAST_WEIGHT,
  MIDDLE_WEIGHT,
  packedCommands,
} from "./command-table.js";
import { CLASS_WRITE } from "./frame.js";
import { textBytes } from "./text-bytes.js";

/** The reply depends on the time or on the server that gives it (TTL, OBJECT IDLETIME, INFO): only the primary. */
export const MARK_PRIMARY_ONLY = 1;
/** Concerns the client's connection (HELLO, SELECT, PING …): the controller answers it. */
export const MARK_CONNECTION = 2;
/** MULTI, EXEC, DISCARD, WATCH, UNWATCH. */
export const MARK_TRANSACTION = 4;
/** May wait for ever: refused. */
export const MARK_BLOCKING = 8;
/** Waits only when the word BLOCK is among its arguments (XREAD, XREADGROUP). */
export const MARK_BLOCK_OPTION = 16;
export const MARK_PUBSUB = 32;
/** For the operators of a Redis server: refused. */
export const MARK_ADMIN = 64;
export const MARK_SCRIPT = 128;
/** Where its keys stand depends on its arguments. */
export const MARK_MOVABLE_KEYS = 256;
/** Its class is that of its subcommand. */
export const MARK_CONTAINER = 512;
/** A line of an HTTP request: somebody's browser is being made to talk to us. Close, as Redis does. */
export const MARK_CROSS_PROTOCOL = 1024;

/** As bytes it is read twice as fast as the string it comes from. */
const TABLE = textBytes(packedCommands());

/** A command's place in the table. */
export type CommandEntry = number;
/** What find gives for a name that is not in the table. */
export const UNKNOWN_COMMAND: CommandEntry = -1;

const ZERO = 35;
const BASE = 90;

function twoDigits(at: number): number {
  return (TABLE[at]! - ZERO) * BASE + TABLE[at + 1]! - ZERO;
}

function lower(byte: number): number {
  return byte >= 65 && byte <= 90 ? byte + 32 : byte;
}

/** Whether the entry's name is bytes[start..start+length) in any case. */
function isNamed(entry: number, bytes: Uint8Array, start: number, length: number): boolean {
  if (TABLE[entry]! - ZERO !== length) return false;
  for (let i = 0; i < length; i++) {
    const byte = bytes[start + i]!;
    if (TABLE[entry + 1 + i]! !== (byte >= 65 && byte <= 90 ? byte + 32 : byte)) {
      return false;
    }
  }
  return true;
}

/** Where the fields behind the name begin. */
function fields(entry: number): number {
  return entry + 1 + TABLE[entry]! - ZERO;
}

/** Where the entry's own text ends (its subcommands follow, where it has some). */
function ownEnd(entry: number): number {
  return fields(entry) + 4;
}

function nextEntry(entry: number): number {
  let at = ownEnd(entry);
  if ((marksOf(entry) & MARK_CONTAINER) === 0) return at;
  let subs = TABLE[at]! - ZERO;
  at++;
  while (subs > 0) {
    at = ownEnd(at);
    subs--;
  }
  return at;
}

/**
 * Looks a command's name up, in any case.
 * @returns UNKNOWN_COMMAND when it is not in the table
 */
export function findCommand(bytes: Uint8Array, start: number, end: number): CommandEntry {
  const length = end - start;
  if (length < 1 || length > 32) return UNKNOWN_COMMAND;
  const bucket =
    (lower(bytes[start]!) * FIRST_WEIGHT +
      lower(bytes[start + (length >> 1)]!) * MIDDLE_WEIGHT +
      lower(bytes[end - 1]!) * LAST_WEIGHT +
      length) &
    (BUCKETS - 1);
  let entry = twoDigits(bucket * 2);
  const last = twoDigits(bucket * 2 + 2);
  while (entry < last) {
    if (isNamed(entry, bytes, start, length)) return entry;
    entry = nextEntry(entry);
  }
  return UNKNOWN_COMMAND;
}

/** A container's subcommand. @returns UNKNOWN_COMMAND when the table does not list it apart */
export function findSubcommand(
  container: CommandEntry,
  bytes: Uint8Array,
  start: number,
  end: number,
): CommandEntry {
  if (container < 0 || (marksOf(container) & MARK_CONTAINER) === 0) return UNKNOWN_COMMAND;
  let at = ownEnd(container);
  let subs = TABLE[at]! - ZERO;
  at++;
  while (subs > 0) {
    if (isNamed(at, bytes, start, end - start)) return at;
    at = ownEnd(at);
    subs--;
  }
  return UNKNOWN_COMMAND;
}

/**
 * Looks up the command that stands in a parser's view, down to its subcommand.
 * @returns the container's own entry (a write) when the subcommand is not listed apart
 */
export function resolveCommand(
  bytes: Uint8Array,
  count: number,
  starts: Int32Array | number[],
  ends: Int32Array | number[],
): CommandEntry {
  const entry = findCommand(bytes, starts[0]!, ends[0]!);
  if (entry < 0 || count < 2 || (marksOf(entry) & MARK_CONTAINER) === 0) return entry;
  const sub = findSubcommand(entry, bytes, starts[1]!, ends[1]!);
  return sub < 0 ? entry : sub;
}

/** CLASS_QUERY, CLASS_MODIFY or CLASS_WRITE; an unknown command writes. */
export function classOf(entry: CommandEntry): number {
  return entry < 0 ? CLASS_WRITE : twoDigits(fields(entry) + 1) % 3;
}

/** The MARK_ bits; none for an unknown command. */
export function marksOf(entry: CommandEntry): number {
  return entry < 0 ? 0 : Math.floor(twoDigits(fields(entry) + 1) / 3);
}

/** As Redis gives it: exact count with the name, or at least that many when negative; 0 for an unknown one. */
export function arityOf(entry: CommandEntry): number {
  return entry < 0 ? 0 : TABLE[fields(entry)]! - ZERO - 45;
}

/** Whether a command may have this many arguments, its name included; any number for an unknown one. */
export function arityFits(entry: CommandEntry, count: number): boolean {
  const arity = arityOf(entry);
  return arity === 0 || (arity > 0 ? count === arity : count >= -arity);
}

/** Index of the first key among the arguments, 0 when there is none (or only with MARK_MOVABLE_KEYS). */
export function firstKeyOf(entry: CommandEntry): number {
  return entry < 0 ? 0 : KEY_SPECS[3 * (TABLE[fields(entry) + 3]! - ZERO)]!;
}

/** Index of the last key in a command of `count` arguments. */
export function lastKeyOf(entry: CommandEntry, count: number): number {
  if (entry < 0) return 0;
  const last = KEY_SPECS[3 * (TABLE[fields(entry) + 3]! - ZERO) + 1]!;
  return last < 0 ? count + last : last;
}

/** From one key to the next, 0 when there is none. */
export function keyStepOf(entry: CommandEntry): number {
  return entry < 0 ? 0 : KEY_SPECS[3 * (TABLE[fields(entry) + 3]! - ZERO) + 2]!;
}

function textOf(start: number, end: number): string {
  let text = "";
  for (let at = start; at < end; at++) text += String.fromCharCode(TABLE[at]!);
  return text;
}

/** The name in lower case (a subcommand's without its container's), "" for an unknown command. */
export function nameOf(entry: CommandEntry): string {
  return entry < 0 ? "" : textOf(entry + 1, fields(entry));
}

/** Whether this command would wait: by its nature, or by the word BLOCK. */
export function isBlocking(
  entry: CommandEntry,
  bytes: Uint8Array,
  count: number,
  starts: Int32Array | number[],
  ends: Int32Array | number[],
): boolean {
  const marks = marksOf(entry);
  if ((marks & MARK_BLOCKING) !== 0) return true;
  if ((marks & MARK_BLOCK_OPTION) === 0) return false;
  for (let i = 1; i < count; i++) {
    if (ends[i]! - starts[i]! === 5 && isBlockWord(bytes, starts[i]!)) return true;
    // Behind STREAMS come keys, which may be called anything.
    if (ends[i]! - starts[i]! === 7 && isStreamsWord(bytes, starts[i]!)) return false;
  }
  return false;
}

function isWord(bytes: Uint8Array, start: number, word: string): boolean {
  for (let i = 0; i < word.length; i++) {
    if (lower(bytes[start + i]!) !== word.charCodeAt(i)) return false;
  }
  return true;
}

function isBlockWord(bytes: Uint8Array, start: number): boolean {
  return isWord(bytes, start, "block");
}

function isStreamsWord(bytes: Uint8Array, start: number): boolean {
  return isWord(bytes, start, "streams");
}
