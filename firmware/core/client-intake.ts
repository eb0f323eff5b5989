/**
 * How much of what a client sends is taken: each connection has a share, and what goes beyond it stays in the network.
 *
 *     rows   [ those of clients with several commands, each at most as many as are then left | one for a client that has none ]
 *     bytes  [ the same, of what waits: three quarters                                       | one quarter                    ]
 *
 * Whoever has its share is not read from until it has answers, so one that floods finds the room that the others leave, and
 * halves at most what is left. A client that has nothing under way has a row kept for it; when not even that is there it
 * waits in line, and is served before anybody gets a second one. So nobody is refused for what others send, and what is
 * held is bounded by the table and by `heldBytesMax` with one command beyond it, however many connect.
 *
 * A paused client is resumed by its own answers when its queue is half empty, when it reads its replies again, or in its turn.
 */
import { PARSED_COMMAND, PARSED_NOTHING, PARSED_REFUSED } from "../../protocol/resp.js";
import { takeRespCommand } from "./client-commands.js";
import { closeClient, drainHead, endClient, grantOwed, setReading } from "./client-output.js";
import { countIntake, isQuery, unwait } from "./client-queue.js";
import type { ClientSession } from "./client-session.js";
import { dispatch } from "./dispatch.js";
import { WITH_REDIS_PORT } from "./features.js";
import { NO_ROW, ROW_REPLYING } from "./in-flight.js";
import { answerError, giveUp } from "./local-answers.js";
import type { Traffic } from "./traffic.js";

/** Unanswered commands of one client, beyond which its input is left in the network. */
const CLIENT_ROWS_MAX = 1024;

export function mustPause(traffic: Traffic, client: ClientSession): boolean {
  return (
    client.choked ||
    client.rows >= CLIENT_ROWS_MAX ||
    client.waitingBytes > traffic.limits.clientWaitingBytesMax ||
    !hasShare(traffic, client)
  );
}

/** Whether another command of this client may be taken, as far as its neighbours go. */
function hasShare(traffic: Traffic, client: ClientSession): boolean {
  const free = traffic.table.capacity - traffic.rowsLent - traffic.table.used;
  const held = traffic.hold.bytes;
  if (client.rows === 0) return free > 0 && held < traffic.limits.heldBytesMax;
  return (
    client.rows < free - traffic.rowsKept && client.waitingBytes <= traffic.floodBytesMax - held
  );
}

/** Its input is left in the network; a client with nothing under way is given its turn when there is room. */
export function pause(traffic: Traffic, client: ClientSession, now: number): void {
  client.paused = true;
  setReading(traffic, client, false);
  if (client.rows > 0 || client.choked || client.inLine) return;
  client.inLine = true;
  if (client.waitsSince < 0) client.waitsSince = now;
  traffic.line.push(client);
}

/** Takes commands from what a RESP client has sent, as long as its queue allows. */
export function takeIntake(traffic: Traffic, client: ClientSession, now: number): void {
  const parser = client.parser!;
  while (!client.closed && client.ending === "") {
    if (mustPause(traffic, client)) {
      parser.keep();
      pause(traffic, client, now);
      break;
    }
    const parsed = parser.next();
    if (parsed === PARSED_COMMAND) {
      takeRespCommand(traffic, client, parser, now);
      if (client.waitsSince >= 0) leaveLine(traffic, client);
    } else if (parsed === PARSED_NOTHING) {
      if (client.paused) client.paused = false;
      client.waitsSince = -1;
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
    client.waitingBytes > traffic.limits.clientWaitingBytesMax >> 1
  ) {
    return;
  }
  if (!hasShare(traffic, client)) {
    pause(traffic, client, now);
    return;
  }
  client.paused = false;
  if (!WITH_REDIS_PORT || client.native) resumeFrames(traffic, client, now);
  else takeIntake(traffic, client, now);
}

function resumeFrames(traffic: Traffic, client: ClientSession, now: number): void {
  const decoder = client.decoder!;
  const fault = decoder.resume();
  if (client.closed) return;
  if (fault !== "") {
    closeClient(traffic, client, fault, false);
    return;
  }
  if (decoder.parked) {
    pause(traffic, client, now);
  } else {
    client.waitsSince = -1;
    setReading(traffic, client, true);
  }
  lookAtIntake(traffic, client, decoder.heldBytes() + client.front!.heldBytes());
}

/** Takes frames from what a native client has sent, as long as its queue allows. */
export function takeFrames(
  traffic: Traffic,
  client: ClientSession,
  bytes: Uint8Array,
  start: number,
  end: number,
  now: number,
): void {
  const decoder = client.decoder!;
  if (!decoder.parked && mustPause(traffic, client)) decoder.park();
  const fault = decoder.feed(bytes, start, end);
  if (fault !== "") {
    closeClient(traffic, client, fault, false);
    return;
  }
  if (client.closed) return;
  if (decoder.parked) pause(traffic, client, now);
  lookAtIntake(traffic, client, decoder.heldBytes() + client.front!.heldBytes());
}

/** A native client's command was taken: those behind it wait until its queue is shorter. */
export function afterFrame(traffic: Traffic, client: ClientSession): void {
  if (client.waitsSince >= 0) leaveLine(traffic, client);
  if (mustPause(traffic, client)) client.decoder!.park();
}

/** Its time in line counts as time held: nobody waits longer than `holdMs` for the reason. */
function leaveLine(traffic: Traffic, client: ClientSession): void {
  const row = client.firstWaiting;
  if (row !== NO_ROW) traffic.table.sentAt[row] = client.waitsSince;
  client.waitsSince = -1;
}

/**
 * Keeps count of memory for commands that are not whole. Each connection has a little of its own; of those that need
 * more, the one half sent for longest goes first when the memory they share is used up.
 */
export function lookAtIntake(traffic: Traffic, client: ClientSession, held: number): void {
  countIntake(traffic, client, held);
  while (traffic.intakeShared > traffic.intakeMax) {
    let oldest: ClientSession | undefined = undefined;
    for (let i = 0; i < traffic.clients.length; i++) {
      const one = traffic.clients[i];
      // Whoever was paused here has done nothing wrong.
      if (one === undefined || one.closed || one.paused) continue;
      if (one.intakeBytes <= traffic.intakeOwn) continue;
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

/** There is room again: those in line go on, in turn. */
export function callLine(traffic: Traffic, now: number): void {
  const table = traffic.table;
  let tries = traffic.line.length;
  while (
    tries > 0 &&
    table.used < table.capacity - traffic.rowsLent &&
    traffic.hold.bytes < traffic.limits.heldBytesMax
  ) {
    const client = traffic.line.shift()!;
    client.inLine = false;
    resumeIntake(traffic, client, now);
    tries--;
  }
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
