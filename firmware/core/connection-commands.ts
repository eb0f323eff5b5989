/**
 * The commands that concern a client's own connection, answered by the controller as Redis 7 would:
 * many clients share one link to each server, so no server knows them.
 *
 * The answers are honest: RESP3 is refused with -NOPROTO (client libraries then speak RESP2), COMMAND
 * gives well-formed empty lists, and what cannot work through a shared link is refused with the reason.
 */
import type { ByteSink } from "../../protocol/resp.js";
import {
  putText,
  writeArray,
  writeBulk,
  writeBulkText,
  writeError,
  writeInteger,
  writeNull,
  writeNullArray,
  writeSimple,
} from "../../protocol/resp.js";
import type { ClientSession } from "./client-session.js";

/** What else the caller must do. */
export const LOCAL_ANSWERED = 0;
/** Close the connection once the answer has gone out. */
export const LOCAL_QUIT = 1;
/** Not a connection command after all: forward it. */
export const LOCAL_FORWARD = 2;

/** As HELLO gives it: the version whose replies and errors the servers follow. */
const REDIS_VERSION = "7.2.0";

export interface ConnectionHost {
  /** AUTH's password; undefined: none is asked. */
  password: string | undefined;
  valueBytesMax: number;
  clients(): ClientSession[];
}

/** Arguments as latin1 texts; an argument is cut at 1 KB, which no option reaches. */
function textOf(bytes: Uint8Array, start: number, end: number): string {
  const to = end - start > 1024 ? start + 1024 : end;
  let text = "";
  for (let i = start; i < to; i++) text += String.fromCharCode(bytes[i]);
  return text;
}

/** Compares without telling by its time where two passwords differ. */
export function samePassword(a: string, b: string): boolean {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) {
    difference |= a.charCodeAt(i) ^ b.charCodeAt(b.length === 0 ? 0 : i % b.length);
  }
  return difference === 0;
}

function plainWord(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c < 33 || c > 126) return false;
  }
  return true;
}

function wrongCount(sink: ByteSink, name: string): void {
  writeError(sink, "ERR wrong number of arguments for '" + name + "' command");
}

/** An error quotes at most this much of what a client sent, as Redis does. */
function quoted(text: string): string {
  return text.length > 128 ? text.substring(0, 128) : text;
}

function clientLine(client: ClientSession, now: number): string {
  return (
    "id=" +
    client.serial +
    " addr=? laddr=? fd=-1 name=" +
    client.name +
    " age=" +
    Math.floor((now - client.openedAt) / 1000) +
    " flags=" +
    (client.transaction === undefined ? "N" : "x") +
    " db=0 sub=0 psub=0 ssub=0 multi=" +
    (client.transaction === undefined ? -1 : client.transaction.commands) +
    " user=default lib-name=" +
    client.libName +
    " lib-ver=" +
    client.libVersion +
    " resp=2\n"
  );
}

function hello(host: ConnectionHost, client: ClientSession, sink: ByteSink, args: string[]): void {
  let at = 1;
  if (args.length > 1) {
    const version = args[1];
    if (version !== "2" && version !== "3") {
      let digits = version.length > 0 && version.length < 10;
      for (let i = 0; i < version.length; i++) {
        const c = version.charCodeAt(i);
        if ((c < 48 || c > 57) && !(i === 0 && c === 45)) digits = false;
      }
      if (!digits) {
        writeError(sink, "ERR Protocol version is not an integer or out of range");
        return;
      }
    }
    if (version !== "2") {
      writeError(sink, "NOPROTO unsupported protocol version");
      return;
    }
    at = 2;
  }
  let name: string | undefined = undefined;
  let authenticated = client.authenticated;
  while (at < args.length) {
    const option = args[at].toLowerCase();
    if (option === "auth" && at + 2 < args.length) {
      if (!mayEnter(host, args[at + 1], args[at + 2])) {
        writeError(sink, "WRONGPASS invalid username-password pair or user is disabled.");
        return;
      }
      authenticated = true;
      at += 3;
    } else if (option === "setname" && at + 1 < args.length) {
      name = args[at + 1];
      if (!plainWord(name)) {
        writeError(sink, "ERR Client names cannot contain spaces, newlines or special characters.");
        return;
      }
      at += 2;
    } else {
      writeError(sink, "ERR Syntax error in HELLO option '" + quoted(args[at]) + "'");
      return;
    }
  }
  if (!authenticated) {
    writeError(
      sink,
      "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
    );
    return;
  }
  client.authenticated = true;
  if (name !== undefined) client.name = name;
  writeArray(sink, 14);
  writeBulkText(sink, "server");
  writeBulkText(sink, "redis");
  writeBulkText(sink, "version");
  writeBulkText(sink, REDIS_VERSION);
  writeBulkText(sink, "proto");
  writeInteger(sink, 2);
  writeBulkText(sink, "id");
  writeInteger(sink, client.serial);
  writeBulkText(sink, "mode");
  writeBulkText(sink, "standalone");
  writeBulkText(sink, "role");
  writeBulkText(sink, "master");
  writeBulkText(sink, "modules");
  writeArray(sink, 0);
}

function mayEnter(host: ConnectionHost, user: string, password: string): boolean {
  if (user !== "default") return false;
  // As Redis: without a configured password the default user may come in with any.
  if (host.password === undefined) return true;
  return samePassword(password, host.password);
}

function auth(host: ConnectionHost, client: ClientSession, sink: ByteSink, args: string[]): void {
  if (args.length > 3) {
    writeError(sink, "ERR syntax error");
    return;
  }
  if (args.length === 2 && host.password === undefined) {
    writeError(
      sink,
      "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
    );
    return;
  }
  const user = args.length === 3 ? args[1] : "default";
  if (!mayEnter(host, user, args[args.length - 1])) {
    writeError(sink, "WRONGPASS invalid username-password pair or user is disabled.");
    return;
  }
  client.authenticated = true;
  writeSimple(sink, "OK");
}

function clientCommand(
  host: ConnectionHost,
  client: ClientSession,
  sink: ByteSink,
  args: string[],
  now: number,
): void {
  if (args.length < 2) {
    wrongCount(sink, "client");
    return;
  }
  const sub = args[1].toLowerCase();
  const n = args.length;
  if (sub === "id" && n === 2) {
    writeInteger(sink, client.serial);
  } else if (sub === "getname" && n === 2) {
    if (client.name === "") writeNull(sink);
    else writeBulkText(sink, client.name);
  } else if (sub === "setname" && n === 3) {
    if (plainWord(args[2])) {
      client.name = args[2];
      writeSimple(sink, "OK");
    } else {
      writeError(sink, "ERR Client names cannot contain spaces, newlines or special characters.");
    }
  } else if (sub === "setinfo" && n === 4) {
    const option = args[2].toLowerCase();
    if (option !== "lib-name" && option !== "lib-ver") {
      writeError(sink, "ERR Unrecognized option '" + quoted(args[2]) + "'");
    } else if (!plainWord(args[3])) {
      writeError(sink, "ERR " + option + " cannot contain spaces, newlines or special characters.");
    } else {
      if (option === "lib-name") client.libName = args[3];
      else client.libVersion = args[3];
      writeSimple(sink, "OK");
    }
  } else if (sub === "info" && n === 2) {
    writeBulkText(sink, clientLine(client, now));
  } else if (sub === "list") {
    const all = host.clients();
    let text = "";
    for (let i = 0; i < all.length; i++) text += clientLine(all[i], now);
    writeBulkText(sink, text);
  } else if ((sub === "no-evict" || sub === "no-touch") && n === 3) {
    const on = args[2].toLowerCase();
    // Nothing is evicted and no access times are kept, so both settings are already the case.
    if (on === "on" || on === "off") writeSimple(sink, "OK");
    else writeError(sink, "ERR syntax error");
  } else if (sub === "reply" && n === 3) {
    if (args[2].toLowerCase() === "on") writeSimple(sink, "OK");
    else writeError(sink, "ERR CLIENT REPLY OFF and SKIP are not supported through the controller");
  } else if (sub === "getredir" && n === 2) {
    writeInteger(sink, -1);
  } else if (sub === "unblock" && n >= 3) {
    writeInteger(sink, 0);
  } else if (sub === "tracking" && n >= 3 && args[2].toLowerCase() === "off") {
    writeSimple(sink, "OK");
  } else if (
    sub === "tracking" ||
    sub === "caching" ||
    sub === "trackinginfo" ||
    sub === "kill" ||
    sub === "pause" ||
    sub === "unpause"
  ) {
    writeError(sink, "ERR CLIENT " + sub.toUpperCase() + " is not supported by the controller");
  } else if (
    sub === "id" ||
    sub === "getname" ||
    sub === "setname" ||
    sub === "setinfo" ||
    sub === "info" ||
    sub === "no-evict" ||
    sub === "no-touch" ||
    sub === "reply" ||
    sub === "getredir" ||
    sub === "unblock"
  ) {
    wrongCount(sink, "client|" + sub);
  } else {
    writeError(sink, "ERR unknown subcommand '" + quoted(args[1]) + "'. Try CLIENT HELP.");
  }
}

/** Empty but well formed: what client libraries ask for on connecting, and can do without. */
function commandCommand(sink: ByteSink, args: string[]): void {
  const sub = args.length > 1 ? args[1].toLowerCase() : "";
  if (sub === "count" && args.length === 2) {
    writeInteger(sink, 0);
  } else if (sub === "info" && args.length > 2) {
    writeArray(sink, args.length - 2);
    for (let i = 2; i < args.length; i++) writeNullArray(sink);
  } else if (sub === "" || sub === "docs" || sub === "list" || sub === "info") {
    writeArray(sink, 0);
  } else {
    writeError(sink, "ERR COMMAND " + sub.toUpperCase() + " is not supported by the controller");
  }
}

function configCommand(host: ConnectionHost, sink: ByteSink, args: string[]): void {
  const sub = args.length > 1 ? args[1].toLowerCase() : "";
  if (sub === "get" && args.length > 2) {
    // The few that tools ask for before they begin.
    const names = ["save", "appendonly", "databases", "maxmemory", "proto-max-bulk-len"];
    const values = ["", "yes", "1", "0", "" + host.valueBytesMax];
    let found = 0;
    const wanted: boolean[] = [];
    for (let i = 0; i < names.length; i++) {
      let asked = false;
      for (let j = 2; j < args.length; j++) {
        const pattern = args[j].toLowerCase();
        if (pattern === names[i] || pattern === "*") asked = true;
      }
      wanted.push(asked);
      if (asked) found++;
    }
    writeArray(sink, found * 2);
    for (let i = 0; i < names.length; i++) {
      if (!wanted[i]) continue;
      writeBulkText(sink, names[i]);
      writeBulkText(sink, values[i]);
    }
    return;
  }
  writeError(sink, "ERR CONFIG is not supported: settings are in the configuration files");
}

/**
 * Answers a connection command into `sink`.
 * @param name the command's name in lower case
 * @returns LOCAL_ANSWERED, LOCAL_QUIT, or LOCAL_FORWARD (then nothing was written)
 */
export function answerConnectionCommand(
  host: ConnectionHost,
  client: ClientSession,
  sink: ByteSink,
  name: string,
  bytes: Uint8Array,
  count: number,
  starts: Int32Array | number[],
  ends: Int32Array | number[],
  now: number,
): number {
  if (name === "ping") {
    if (count > 2) wrongCount(sink, name);
    else if (count === 2) writeBulk(sink, bytes, starts[1], ends[1]);
    else writeSimple(sink, "PONG");
    return LOCAL_ANSWERED;
  }
  if (name === "echo") {
    if (count !== 2) wrongCount(sink, name);
    else writeBulk(sink, bytes, starts[1], ends[1]);
    return LOCAL_ANSWERED;
  }
  const args: string[] = [];
  const kept = count > 32 ? 32 : count;
  for (let i = 0; i < kept; i++) args.push(textOf(bytes, starts[i], ends[i]));
  if (name === "hello") {
    hello(host, client, sink, args);
  } else if (name === "auth") {
    if (count < 2) wrongCount(sink, name);
    else auth(host, client, sink, args);
  } else if (name === "client") {
    clientCommand(host, client, sink, args, now);
  } else if (name === "select") {
    if (count !== 2) wrongCount(sink, name);
    else if (args[1] === "0") writeSimple(sink, "OK");
    else if (isDecimal(args[1])) writeError(sink, "ERR DB index is out of range");
    else writeError(sink, "ERR value is not an integer or out of range");
  } else if (name === "quit") {
    writeSimple(sink, "OK");
    return LOCAL_QUIT;
  } else if (name === "reset") {
    client.transaction = undefined;
    client.name = "";
    client.authenticated = host.password === undefined;
    writeSimple(sink, "RESET");
  } else if (name === "command") {
    commandCommand(sink, args);
  } else if (name === "config") {
    configCommand(host, sink, args);
  } else if (name === "role") {
    writeArray(sink, 3);
    writeBulkText(sink, "master");
    writeInteger(sink, 0);
    writeArray(sink, 0);
  } else if (name === "readonly" || name === "readwrite" || name === "asking") {
    writeError(sink, "ERR This instance has cluster support disabled");
  } else if (name === "cluster") {
    writeError(sink, "ERR This instance has cluster support disabled");
  } else {
    return LOCAL_FORWARD;
  }
  return LOCAL_ANSWERED;
}

function isDecimal(text: string): boolean {
  if (text.length === 0 || text.length > 18) return false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if ((c < 48 || c > 57) && !(i === 0 && c === 45 && text.length > 1)) return false;
  }
  return true;
}

/** `text` as an error reply of its own. */
export function errorBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length + 3);
  bytes[0] = 45;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    bytes[i + 1] = c === 10 || c === 13 ? 32 : c < 256 ? c : 63;
  }
  bytes[text.length + 1] = 13;
  bytes[text.length + 2] = 10;
  return bytes;
}

/** Latin1 bytes of a text. */
export function textBytes(sink: ByteSink, text: string): void {
  putText(sink, text);
}
