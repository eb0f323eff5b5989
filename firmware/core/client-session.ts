/**
 * What the controller remembers of one client connection: its queue of unanswered commands, where they
 * are, and what the connection commands have set.
 *
 *     head ─> open at `server` ... ─> firstWaiting ─> ... ─> tail
 *
 * All open commands of a connection are at one server and were sent in one epoch: a change of either waits until
 * none is open, because the two servers (and two epochs) promise no order between them.
 */
import type { FrameDecoder } from "../../protocol/frame-decoder.js";
import type { RespParser } from "../../protocol/resp.js";
import { NO_ROW } from "./in-flight.js";
import type { NativeFront } from "./native-front.js";
import type { Transaction } from "./transaction.js";

export interface ClientSession {
  connection: number;
  /** Serial number since the controller's start, as CLIENT ID gives it. */
  serial: number;
  openedAt: number;
  native: boolean;
  parser: RespParser | undefined;
  decoder: FrameDecoder | undefined;
  front: NativeFront | undefined;

  /** Rows in order of request; NO_ROW when there is none. */
  head: number;
  tail: number;
  /** First row to be sent (again); rows behind it wait too, or are DONE. */
  firstWaiting: number;
  rows: number;
  waitingBytes: number;
  /** Sent and not answered, all at `server`, all in `epoch`. */
  open: number;
  server: number;
  epoch: number;
  /** Reads that were sent and whose answers have not left. */
  openReads: number;
  /** The last one sent is not whole at the server yet. */
  sending: boolean;
  /** One was refused while later ones were open: nothing more is sent until those are known. */
  retreating: boolean;
  /** Length of its last replies, a moving average. @unit bytes */
  replyBytes: number;

  held: boolean;
  heldBefore: ClientSession | undefined;
  heldAfter: ClientSession | undefined;

  /** Commands it has sent are left unread until its queue is shorter. */
  paused: boolean;
  /** It has nothing under way, and waits in line for room. */
  inLine: boolean;
  /** Since when its next command waits there; negative: it does not. */
  waitsSince: number;
  /** It does not read its replies. */
  choked: boolean;
  reading: boolean;
  /** To be closed when its queue is empty, with this reason ("": not). */
  ending: string;
  closed: boolean;
  /** Reply bytes since the backlog was last looked at, and what it was then. */
  outSince: number;
  outKnown: number;
  /** Bytes held for commands that are not whole. */
  intakeBytes: number;
  intakeAt: number;

  authenticated: boolean;
  name: string;
  libName: string;
  libVersion: string;
  transaction: Transaction | undefined;
}

export function createClientSession(
  connection: number,
  serial: number,
  native: boolean,
  now: number,
): ClientSession {
  return {
    // In the order of use: the engine of a chip looks through a list.
    connection: connection,
    closed: false,
    head: NO_ROW,
    tail: NO_ROW,
    firstWaiting: NO_ROW,
    native: native,
    open: 0,
    rows: 0,
    server: 0,
    epoch: 0,
    ending: "",
    choked: false,
    paused: false,
    front: undefined,
    decoder: undefined,
    openReads: 0,
    sending: false,
    retreating: false,
    replyBytes: 0,
    held: false,
    waitsSince: -1,
    waitingBytes: 0,
    intakeBytes: 0,
    intakeAt: now,
    outSince: 0,
    reading: true,
    serial: serial,
    openedAt: now,
    parser: undefined,
    heldBefore: undefined,
    heldAfter: undefined,
    inLine: false,
    outKnown: 0,
    authenticated: false,
    name: "",
    libName: "",
    libVersion: "",
    transaction: undefined,
  };
}
