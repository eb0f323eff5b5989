/**
 * How much of what a client sends is taken: commands as long as its queue is short, bytes as long as there is memory.
 *
 * A paused client's input stays in the network (the engines give no other backpressure); it is resumed when its queue is
 * half empty, when it reads its replies again, or, having found the table full, in its turn.
 */
import { PARSED_COMMAND, PARSED_NOTHING, PARSED_REFUSED } from "../../protocol/resp.js";
import { takeRespCommand } from "./client-commands.js";
import { closeClient, drainHead, endClient, grantOwed, setReading } from "./client-output.js";
import { isQuery, unwait } from "./client-queue.js";
import type { ClientSession } from "./client-session.js";
import { dispatch } from "./dispatch.js";
import { NO_ROW, ROW_REPLYING } from "./in-flight.js";
import { answerError, giveUp } from "./local-answers.js";
import type { Traffic } from "./traffic.js";

/** Unanswered commands of one client, beyond which its input is left in the network. */
const CLIENT_ROWS_MAX = 1024;
/** Bytes of one client's waiting commands, beyond which its input is left in the network. */
const CLIENT_WAITING_BYTES_MAX = 256 * 1024;

export function mustPause(traffic: Traffic, client: ClientSession): boolean {
  return (
    client.choked ||
    client.rows >= CLIENT_ROWS_MAX ||
    client.waitingBytes > CLIENT_WAITING_BYTES_MAX ||
    isThirsty(traffic, client)
  );
}

/** While nobody can serve there is no point in waiting for room: whoever has nothing open hears BUSY. */
function isThirsty(traffic: Traffic, client: ClientSession): boolean {
  return (
    !hasRows(traffic, traffic.rowsReserved) && (client.rows > 0 || traffic.writesDownSince < 0)
  );
}

export function pause(traffic: Traffic, client: ClientSession): void {
  client.paused = true;
  setReading(traffic, client, false);
  if (!client.thirsty && isThirsty(traffic, client)) {
    client.thirsty = true;
    traffic.thirstyClients.push(client);
  }
}

/** Takes commands from what a RESP client has sent, as long as its queue allows. */
export function takeIntake(traffic: Traffic, client: ClientSession, now: number): void {
  const parser = client.parser!;
  while (!client.closed && client.ending === "") {
    if (mustPause(traffic, client)) {
      parser.keep();
      pause(traffic, client);
      break;
    }
    const parsed = parser.next();
    if (parsed === PARSED_COMMAND) {
      takeRespCommand(traffic, client, parser, now);
    } else if (parsed === PARSED_NOTHING) {
      if (client.paused) client.paused = false;
      setReading(traffic, client, true);
      break;
    } else {
      answerError(traffic, client, parser.problem);
      if (client.transaction !== undefined) client.transaction.dirty = true;
      if (parsed !== PARSED_REFUSED) endClient(traffic, client, parser.problem);
    }
  }
  if (client.closed) return;
  const transaction = client.transaction;
  const held = parser.heldBytes() + (transaction === undefined ? 0 : transaction.sink.bytes.length);
  if (held !== client.intakeBytes) lookAtIntake(traffic, client, held);
}

export function resumeIntake(traffic: Traffic, client: ClientSession, now: number): void {
  if (client.closed || client.ending !== "") return;
  if (
    client.choked ||
    client.rows > CLIENT_ROWS_MAX >> 1 ||
    client.waitingBytes > CLIENT_WAITING_BYTES_MAX >> 1
  ) {
    return;
  }
  if (isThirsty(traffic, client)) {
    pause(traffic, client);
    return;
  }
  client.paused = false;
  if (client.native) setReading(traffic, client, true);
  else takeIntake(traffic, client, now);
}

/** Keeps count of memory for commands that are not whole; the one half sent for longest goes first. */
export function lookAtIntake(traffic: Traffic, client: ClientSession, held: number): void {
  traffic.intakeTotal += held - client.intakeBytes;
  client.intakeBytes = held;
  while (traffic.intakeTotal > traffic.intakeMax) {
    let oldest: ClientSession | undefined = undefined;
    for (let i = 0; i < traffic.clients.length; i++) {
      const one = traffic.clients[i];
      // Whoever was paused here has done nothing wrong.
      if (one === undefined || one.closed || one.paused || one.intakeBytes === 0) continue;
      if (oldest === undefined || one.intakeAt < (oldest as ClientSession).intakeAt) oldest = one;
    }
    if (oldest === undefined) return;
    closeClient(
      traffic,
      oldest,
      "its half-sent command has waited longest, and memory for them is used up",
      true,
    );
  }
}

/** The table has room again: those who waited for it go on, in turn. */
export function quench(traffic: Traffic, now: number): void {
  let tries = traffic.thirstyClients.length;
  while (tries > 0 && hasRows(traffic, 2 * traffic.rowsReserved)) {
    const client = traffic.thirstyClients.shift()!;
    client.thirsty = false;
    resumeIntake(traffic, client, now);
    tries--;
  }
}

function hasRows(traffic: Traffic, spare: number): boolean {
  const table = traffic.table;
  return table.capacity - table.used > spare;
}

export function lookAtChoked(traffic: Traffic, client: ClientSession, now: number): void {
  const state = traffic.table.state;
  if (client.closed || !client.choked) return;
  const backlog = traffic.ports.backlog(client.connection);
  traffic.outTotal += backlog - client.outKnown;
  client.outKnown = backlog;
  client.outSince = 0;
  if (backlog > traffic.limits.clientOutHighBytes >> 2) return;
  client.choked = false;
  for (let i = 0; i < traffic.chokedClients.length; i++) {
    if (traffic.chokedClients[i] === client) {
      traffic.chokedClients.splice(i, 1);
      break;
    }
  }
  if (client.head !== NO_ROW && state[client.head] === ROW_REPLYING) {
    grantOwed(traffic, client, client.head);
  }
  dispatch(traffic, client, now);
  resumeIntake(traffic, client, now);
}

export function expire(traffic: Traffic, client: ClientSession, now: number): void {
  let ended = false;
  while (client.firstWaiting !== NO_ROW && heldTooLong(traffic, client.firstWaiting, now)) {
    const row = client.firstWaiting;
    unwait(traffic, client, row);
    giveUp(traffic, client, row, traffic.why === "" ? "its link is down" : traffic.why);
    ended = true;
  }
  if (!ended) return;
  drainHead(traffic, client);
  if (client.closed) return;
  dispatch(traffic, client, now);
  if (client.paused) resumeIntake(traffic, client, now);
}

function heldTooLong(traffic: Traffic, row: number, now: number): boolean {
  const table = traffic.table;
  const refusedFor = table.heldSince[row] < 0 ? 0 : now - table.heldSince[row];
  if (refusedFor >= traffic.holdMs) return true;
  const down = isQuery(traffic, row) ? traffic.readsDownSince : traffic.writesDownSince;
  if (down < 0) return false;
  const since = table.sentAt[row] > down ? table.sentAt[row] : down;
  return now - since >= traffic.holdMs;
}
