/** What clients ask of the server itself. Most of it the controller answers; these are for local ports. */
import {
  writeArray,
  writeBulk,
  writeBulkText,
  writeInteger,
  writeSimple,
} from "../../protocol/resp.js";
import type { CommandRun } from "./context.js";

const ping: CommandRun = (c) => {
  if (c.count > 2) return "ERR wrong number of arguments for 'ping' command";
  if (c.count === 1) writeSimple(c.reply, "PONG");
  else writeBulk(c.reply, c.bytes, c.starts[1]!, c.ends[1]!);
  return undefined;
};

const echo: CommandRun = (c) => {
  writeBulk(c.reply, c.bytes, c.starts[1]!, c.ends[1]!);
  return undefined;
};

const info: CommandRun = (c) => {
  c.wholeLog = true;
  const lines = [
    "# Server",
    "redis_version:7.0.0",
    "redis_mode:standalone",
    "dyad:1",
    "",
    "# Keyspace",
  ];
  const size = c.sizeAtMost();
  if (size > 0) lines.push(`db0:keys=${size},expires=0,avg_ttl=0`);
  writeBulkText(c.reply, lines.join("\r\n") + "\r\n");
  return undefined;
};

const time: CommandRun = (c) => {
  writeArray(c.reply, 2);
  writeBulkText(c.reply, String(Math.floor(c.now / 1000)));
  writeBulkText(c.reply, String((c.now % 1000) * 1000));
  return undefined;
};

/** Clients ask for the table of commands when they connect and do well without it. */
const command: CommandRun = (c) => {
  if (c.count > 1 && c.is(1, "count")) writeInteger(c.reply, 0);
  else writeArray(c.reply, 0);
  return undefined;
};

export const SERVER_COMMANDS: Record<string, CommandRun> = { ping, echo, info, time, command };
