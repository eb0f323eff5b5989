/**
 * What the forward path knows: the commands it holds, their clients, the links, the route, and its counters.
 *
 * One object, made once and handed to every part of the path; it has no behaviour of its own. The parts:
 *
 *     forward.ts         the surface: route, links, clients' connections, time
 *     client-intake.ts   how much of what a client sends is taken
 *     client-commands.ts one command: sent, queued, gathered, answered here or refused
 *     dispatch.ts        which server gets it, and the sending
 *     server-replies.ts  which reply may pass, and what it makes possible
 *     retreat.ts         what is asked again, and in which order
 *     local-answers.ts   what the controller answers itself
 *     client-output.ts   what goes to a client; the end of its connection
 *     client-queue.ts    the chain of a client's rows
 */
import { makeSink } from "../../protocol/resp.js";
import type { ByteSink, RespLimits } from "../../protocol/resp.js";
import type { ServerIndex } from "../../protocol/record.js";
import type { ClientSession } from "./client-session.js";
import { createCommandBytes } from "./command-bytes.js";
import type { CommandBytes } from "./command-bytes.js";
import type { CoreConfig } from "./config.js";
import type { ConnectionHost } from "./connection-commands.js";
import { createHoldQueue } from "./hold-queue.js";
import type { HoldQueue } from "./hold-queue.js";
import { zeroCounters } from "./forward-counters.js";
import type { ForwardCounters } from "./forward-counters.js";
import { createInFlight } from "./in-flight.js";
import type { InFlight } from "./in-flight.js";
import type { Limits } from "./limits.js";
import { createPipelineOrder } from "./pipeline-order.js";
import type { PipelineOrder } from "./pipeline-order.js";
import type { ControllerPorts, ForwardEvents } from "./ports.js";
import { createTargetServer } from "./target-server.js";
import type { TargetServer } from "./target-server.js";

const SPARE_CHUNKS_MAX = 64;
const ARGS_MAX = 1024 * 1024;
const INLINE_BYTES_MAX = 64 * 1024;
/** A command's memory in the parser that is kept for the next one. @unit bytes */
const KEPT_BYTES_MAX = 256 * 1024;

/** A reply that came while a record was written to flash. */
export interface StashedReply {
  server: ServerIndex;
  flags: number;
  id: number;
  bytes: Uint8Array;
  epoch: number;
}

export interface Traffic {
  // What never changes.
  config: CoreConfig;
  ports: ControllerPorts;
  events: ForwardEvents;
  limits: Limits;
  holdMs: number;
  idMax: number;
  inFlightMax: number;
  replyWindow: number;
  commandBytesMax: number;
  /** A reply up to this is made whole here, so that a lost link does not cut it; a longer one is streamed. */
  replyKeptMax: number;
  /** Half-sent commands, of all clients together, without what each has of its own. @unit bytes */
  intakeMax: number;
  /** What each client may leave half sent in any case. @unit bytes */
  intakeOwn: number;
  /** Rows for clients that have nothing under way (client-intake.ts). */
  rowsKept: number;
  /** Rows kept for commands that the fast path has sent and may have to hand over; 0 where there is none. */
  rowsLent: number;
  /** Waiting commands of clients that have several; the rest of heldBytesMax is for the others. @unit bytes */
  floodBytesMax: number;
  respLimits: RespLimits;
  connectionHost: ConnectionHost;

  table: InFlight;
  hold: HoldQueue;
  readBytes: CommandBytes;
  writeBytes: CommandBytes;
  target: TargetServer;
  order: PipelineOrder;
  /** By connection. */
  clients: (ClientSession | undefined)[];
  /** Room for frame headers made here. */
  scratch: Uint8Array;
  localSink: ByteSink;
  /** Time of the event that is being handled, for what native clients cause. */
  currentTime: number;

  // The route, copied: the control path may change its own object.
  routeOpen: boolean;
  epoch: number;
  primary: number;
  readable: [boolean, boolean];
  why: string;
  hasRoute: boolean;
  /** Epoch since which the primary has been primary without a break. */
  reign: number;
  /** The last epoch of which a reply has passed (G5). */
  passedEpoch: number;
  /** Since when no server takes writes, reads; negative: one does. */
  writesDownSince: number;
  readsDownSince: number;

  // The links, by server.
  /** Connection; negative: none. */
  linkOf: Int32Array;
  linkPayloadMax: Int32Array;
  windowBytes: Float64Array;
  windowUsed: Float64Array;
  inFlightAt: Int32Array;
  /** Epoch in which the replies on this link are decided. */
  replyEpoch: Float64Array;
  refusedUntil: Float64Array;
  reportedUs: Float64Array;
  /** Commands of which some fragments are sent, in turn. */
  sendingRows: number[][];

  // The controller's session at the servers.
  sessionId: Uint8Array;
  nextId: number;
  /** Ids are used up: nothing new is sent until they begin again. */
  draining: boolean;
  idsToldUsedUp: boolean;

  stash: StashedReply[];
  stashBytes: number;
  chokedClients: ClientSession[];
  /** Clients that have nothing under way and for whose next command there is no room, in turn. */
  line: ClientSession[];
  /** Reply bytes that clients have left unread, as far as looked at. */
  outTotal: number;
  keptReplyBytes: number;
  /** Bytes of half-sent commands and of input that is not taken yet; and of those beyond what each has of its own. */
  intakeTotal: number;
  intakeShared: number;
  count: ForwardCounters;
}

function rowsFor(inFlightMax: number, rowsMin: number): number {
  let rows = rowsMin;
  while (rows < inFlightMax * 4) rows *= 2;
  return rows;
}

export function createTraffic(
  config: CoreConfig,
  ports: ControllerPorts,
  events: ForwardEvents,
): Traffic {
  const limits = config.limits;
  const commandBytesMax = limits.valueBytesMax + limits.commandOverheadBytes;
  const table = createInFlight(rowsFor(limits.inFlightMax, limits.commandRowsMin));
  const clients: (ClientSession | undefined)[] = [];
  const respLimits: RespLimits = {
    argsMax: ARGS_MAX,
    bulkBytesMax: limits.valueBytesMax,
    commandBytesMax: commandBytesMax,
    inlineBytesMax: INLINE_BYTES_MAX,
    keptBytesMax: KEPT_BYTES_MAX,
  };
  const linkOf = new Int32Array(2);
  linkOf[0] = -1;
  linkOf[1] = -1;

  function allClients(): ClientSession[] {
    const all: ClientSession[] = [];
    for (let i = 0; i < clients.length; i++) {
      const client = clients[i];
      if (client !== undefined && !client.closed) all.push(client);
    }
    return all;
  }

  return {
    // In the order of use: the engine of a chip looks through a list.
    table: table,
    linkOf: linkOf,
    primary: 0,
    epoch: 0,
    routeOpen: false,
    inFlightAt: new Int32Array(2),
    clients: clients,
    ports: ports,
    currentTime: 0,
    hold: createHoldQueue(),
    limits: limits,
    readable: [false, false],
    windowUsed: new Float64Array(2),
    windowBytes: new Float64Array(2),
    inFlightMax: limits.inFlightMax,
    draining: false,
    refusedUntil: new Float64Array(2),
    target: createTargetServer(config.balancing),
    count: zeroCounters(),
    readBytes: createCommandBytes(limits.commandChunkBytes, SPARE_CHUNKS_MAX),
    writeBytes: createCommandBytes(limits.commandChunkBytes, SPARE_CHUNKS_MAX),
    linkPayloadMax: new Int32Array(2),
    nextId: 1,
    idMax: config.idMax,
    passedEpoch: 0,
    line: [],
    intakeTotal: 0,
    intakeShared: 0,
    intakeOwn: Math.floor((2 * limits.clientOutTotalBytes) / limits.clientsMax),
    intakeMax: limits.clientOutTotalBytes,
    replyEpoch: new Float64Array(2),
    rowsKept: limits.clientsMax < table.capacity >> 2 ? limits.clientsMax : table.capacity >> 2,
    rowsLent: 0,
    floodBytesMax: limits.heldBytesMax - (limits.heldBytesMax >> 2),
    reign: 0,
    outTotal: 0,
    keptReplyBytes: 0,
    config: config,
    events: events,
    holdMs: config.timings.holdMs,
    replyWindow: limits.replyWindowBytes,
    commandBytesMax: commandBytesMax,
    replyKeptMax: limits.valueBytesMax + limits.commandOverheadBytes,
    respLimits: respLimits,
    connectionHost: {
      password: config.clientPassword,
      valueBytesMax: limits.valueBytesMax,
      clients: allClients,
    },
    order: createPipelineOrder(),
    scratch: new Uint8Array(64),
    localSink: makeSink(1024),
    why: "the controller has just started",
    hasRoute: false,
    writesDownSince: 0,
    readsDownSince: 0,
    reportedUs: new Float64Array(2),
    sendingRows: [[], []],
    sessionId: new Uint8Array(8),
    idsToldUsedUp: false,
    stash: [],
    stashBytes: 0,
    chokedClients: [],
  };
}
