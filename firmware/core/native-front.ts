/**
 * The native port's side of a connection: handshake, then COMMAND frames made whole.
 *
 *     hello ─> challenge ─> proof ─> COMMAND* ─────────────> forwarder
 *                                    COMMAND+MORE ─ gathered ─┘
 *
 * A command is gathered before it is forwarded, so that it can be asked again; several may be half sent at
 * once, each bounded. What a client may not say is its mistake: the connection is dropped with the reason.
 *
 * On a serial line there is no handshake, since there is no connection: who holds the cable is the client. A command must
 * fit one frame there, for a fragment that is lost and sent again could not be told from the next one.
 */
import {
  CHIP_FRAME_BYTES_MAX,
  CLASS_QUERY,
  CLASS_WRITE,
  FLAG_CLASS_MASK,
  FLAG_MORE,
  FLAG_SESSION,
  FLAG_TXN,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_CONTROL,
  FRAME_CREDIT,
  HEADER_BYTES,
  SESSION_PREFIX_BYTES,
  frameOf,
} from "../../protocol/frame.js";
import {
  acceptorProof,
  agreePayloadMax,
  chooseWire,
  dialerProof,
  proofsEqual,
} from "../../protocol/handshake.js";
import type { Hmac } from "../../protocol/handshake.js";
import { isMalformed } from "../../protocol/malformed.js";
import {
  decodeControl,
  encodeControl,
  KIND_CHALLENGE,
  KIND_GOODBYE,
  KIND_HELLO,
  KIND_PROOF,
  KIND_REFUSE,
  REFUSE_KEY,
  REFUSE_MALFORMED,
  REFUSE_VERSION,
  ROLE_CLIENT,
} from "../../protocol/messages.js";
import {
  findCommand,
  isBlocking,
  MARK_ADMIN,
  MARK_BLOCK_OPTION,
  MARK_PRIMARY_ONLY,
  MARK_PUBSUB,
  MARK_TRANSACTION,
  marksOf,
} from "../../protocol/command-class.js";
import type { ClientSession } from "./client-session.js";

const STATE_HELLO = 0;
const STATE_PROOF = 1;
const STATE_OPEN = 2;

/** The word BLOCK of an XREADGROUP with all its options stands before this argument. */
const LOOKED_AT_ARGS = 12;

/** What one packet of a serial line carries. @unit bytes */
export const LINE_PAYLOAD_BYTES_MAX = CHIP_FRAME_BYTES_MAX - HEADER_BYTES;

/** Half-sent commands of one connection. */
const PARTS_MAX = 16;

interface Part {
  id: number;
  flags: number;
  bytes: Uint8Array;
  used: number;
}

export interface NativeFront {
  /** Largest payload of a frame to the client. @unit bytes */
  payloadMax(): number;
  onFrame(
    type: number,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void;
  heldBytes(): number;
  /** Past the handshake, and no command is half sent or half refused. */
  isIdle(): boolean;
}

/** What the forwarder does for native connections. */
export interface NativeHost {
  key: Uint8Array;
  hmac: Hmac;
  frameMax: number;
  windowBytes: number;
  commandBytesMax: number;
  valueBytesMax: number;
  sessionId(): Uint8Array;
  /** 16 bytes never used before. */
  nonce(nonceD: Uint8Array): Uint8Array;
  send(client: ClientSession, frame: Uint8Array): void;
  setPayloadMax(client: ClientSession, payloadMax: number): void;
  /** Drops the connection for the client's mistake. */
  fault(client: ClientSession, reason: string): void;
  submit(
    client: ClientSession,
    flags: number,
    primaryOnly: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
    clientId: number,
  ): void;
  /** Answers one command with an error of its own. */
  error(client: ClientSession, clientId: number, text: string): void;
  abort(client: ClientSession, clientId: number): void;
}

/** @param onLine it is on a serial line of its own */
export function createNativeFront(
  host: NativeHost,
  client: ClientSession,
  onLine: boolean,
): NativeFront {
  let state = onLine ? STATE_OPEN : STATE_HELLO;
  let nonceD = new Uint8Array(0);
  let nonceL = new Uint8Array(0);
  let name = "";
  const parts: Part[] = [];
  let held = 0;
  /** The id whose remaining fragments are passed over: it was refused at its first bytes too many. */
  let skippedId = 0;
  const argStarts = new Int32Array(LOOKED_AT_ARGS);
  const argEnds = new Int32Array(LOOKED_AT_ARGS);
  let payloadMax = onLine ? LINE_PAYLOAD_BYTES_MAX : 0;
  /** The name of the last command whose marks were looked up, packed, and its marks; 0: none. */
  let knownName = 0;
  let knownMarks = 0;

  function agreedPayloadMax(): number {
    return payloadMax;
  }

  function heldBytes(): number {
    return held;
  }

  function refuse(code: number, text: string): void {
    host.send(
      client,
      frameOf(FRAME_CONTROL, 0, 0, encodeControl({ kind: KIND_REFUSE, code: code, text: text })),
    );
    host.fault(client, text);
  }

  function onControl(bytes: Uint8Array, start: number, end: number): void {
    const message = decodeControl(bytes, start, end);
    if (isMalformed(message)) {
      refuse(REFUSE_MALFORMED, message.malformed);
      return;
    }
    if (state === STATE_HELLO && message.kind === KIND_HELLO) {
      const wire = chooseWire(message.wireMin, message.wireMax);
      if (wire === 0) {
        refuse(
          REFUSE_VERSION,
          "wire versions " + message.wireMin + " to " + message.wireMax + " are not spoken here",
        );
        return;
      }
      payloadMax = agreePayloadMax(host.frameMax, message.frameMax);
      if (message.role !== ROLE_CLIENT || payloadMax === 0) {
        refuse(REFUSE_MALFORMED, "this port is for clients");
        return;
      }
      nonceD = message.nonce.slice(0);
      nonceL = host.nonce(nonceD).slice(0);
      name = message.id;
      state = STATE_PROOF;
      host.send(
        client,
        frameOf(
          FRAME_CONTROL,
          0,
          0,
          encodeControl({
            kind: KIND_CHALLENGE,
            wire: wire,
            nonce: nonceL,
            proof: acceptorProof(host.hmac, host.key, ROLE_CLIENT, name, nonceD, nonceL),
            frameMax: host.frameMax,
            windowBytes: host.windowBytes,
            sessionId: host.sessionId(),
          }),
        ),
      );
      return;
    }
    if (state === STATE_PROOF && message.kind === KIND_PROOF) {
      const expected = dialerProof(host.hmac, host.key, ROLE_CLIENT, name, nonceD, nonceL);
      if (!proofsEqual(expected, message.proof)) {
        refuse(REFUSE_KEY, "the client's key is not this pair's client key");
        return;
      }
      state = STATE_OPEN;
      host.setPayloadMax(client, payloadMax);
      return;
    }
    if (message.kind === KIND_GOODBYE) return;
    refuse(REFUSE_MALFORMED, "unexpected control message");
  }

  function partOf(id: number): number {
    for (let i = 0; i < parts.length; i++) if (parts[i].id === id) return i;
    return -1;
  }

  function removePart(at: number): void {
    held -= parts[at].bytes.length;
    parts.splice(at, 1);
  }

  function onCommand(
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    if (id === 0) {
      host.fault(client, "command without an id");
      return;
    }
    const more = (flags & FLAG_MORE) !== 0;
    if (onLine && more) {
      host.error(client, id, "ERR value too large (limit " + payloadMax + " bytes a command)");
      return;
    }
    if (skippedId === id) {
      if (!more) skippedId = 0;
      return;
    }
    const at = partOf(id);
    if (at < 0 && !more) {
      command(flags, id, bytes, start, end);
      return;
    }
    if (at < 0 && parts.length === PARTS_MAX) {
      host.fault(client, "more than " + PARTS_MAX + " half-sent commands");
      return;
    }
    let part = at < 0 ? undefined : parts[at];
    if (part === undefined) {
      part = { id: id, flags: flags & ~FLAG_MORE, bytes: new Uint8Array(4096), used: 0 };
      held += part.bytes.length;
      parts.push(part);
    }
    const length = part.used + end - start;
    if (length > host.commandBytesMax) {
      removePart(partOf(id));
      if (more) skippedId = id;
      host.error(client, id, "ERR value too large (limit " + host.valueBytesMax + " bytes)");
      return;
    }
    if (length > part.bytes.length) {
      let size = part.bytes.length * 2;
      while (size < length) size *= 2;
      const grown = new Uint8Array(size);
      grown.set(part.bytes.subarray(0, part.used), 0);
      held += size - part.bytes.length;
      part.bytes = grown;
    }
    part.bytes.set(bytes.subarray(start, end), part.used);
    part.used = length;
    if (more) return;
    removePart(partOf(id));
    command(part.flags, id, part.bytes, 0, part.used);
  }

  function command(flags: number, id: number, bytes: Uint8Array, start: number, end: number): void {
    const kept = flags & (FLAG_CLASS_MASK | FLAG_SESSION | FLAG_TXN);
    const from = (flags & FLAG_SESSION) !== 0 ? start + SESSION_PREFIX_BYTES : start;
    if ((flags & FLAG_CLASS_MASK) > CLASS_WRITE || from >= end) {
      host.fault(client, "malformed command frame");
      return;
    }
    if (end - start > host.commandBytesMax) {
      host.error(client, id, "ERR value too large (limit " + host.valueBytesMax + " bytes)");
      return;
    }
    let primaryOnly = (flags & FLAG_TXN) !== 0;
    const packed = primaryOnly ? 0 : packedName(bytes, from, end);
    if (packed !== 0 && packed === knownName) {
      primaryOnly = (flags & FLAG_CLASS_MASK) === CLASS_QUERY && knownMarks !== 0;
      host.submit(client, kept, primaryOnly, bytes, start, end, id);
      return;
    }
    const found = primaryOnly ? 0 : findArguments(bytes, from, end);
    if (found > 0) {
      // The header's class decides where it goes, and the server checks it. What would wait for ever on a
      // link that others share is refused here.
      const entry = findCommand(bytes, argStarts[0], argEnds[0]);
      const marks = marksOf(entry);
      if (
        (marks & (MARK_ADMIN | MARK_PUBSUB | MARK_TRANSACTION)) !== 0 ||
        isBlocking(entry, bytes, found, argStarts, argEnds)
      ) {
        host.error(client, id, "ERR this command is not supported through the controller");
        return;
      }
      primaryOnly = (flags & FLAG_CLASS_MASK) === CLASS_QUERY && (marks & MARK_PRIMARY_ONLY) !== 0;
      if ((marks & MARK_BLOCK_OPTION) === 0) {
        knownName = packed;
        knownMarks = marks & MARK_PRIMARY_ONLY;
      }
    }
    host.submit(client, kept, primaryOnly, bytes, start, end, id);
  }

  /** A name of up to four bytes in a RESP array of the usual form, as one number; 0 when it is anything else. */
  function packedName(bytes: Uint8Array, start: number, end: number): number {
    if (end - start < 14 || bytes[start + 2] !== 13 || bytes[start + 6] !== 13) return 0;
    if (bytes[start] !== 42 || bytes[start + 4] !== 36) return 0;
    const length = bytes[start + 5];
    if (length === 51) {
      return (bytes[start + 8] << 16) | (bytes[start + 9] << 8) | bytes[start + 10];
    }
    // Nothing that a name of three could be taken for.
    if (length !== 52 || bytes[start + 8] < 32) return 0;
    return (
      (bytes[start + 8] << 24) |
      (bytes[start + 9] << 16) |
      (bytes[start + 10] << 8) |
      bytes[start + 11]
    );
  }

  /** The first arguments of a RESP array, into argStarts and argEnds. @returns how many; 0 when it is not one */
  function findArguments(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    let found = 0;
    if (bytes[at] !== 42) return 0;
    while (at < end && bytes[at] !== 10) at++;
    at++;
    while (found < LOOKED_AT_ARGS && at < end && bytes[at] === 36) {
      let length = 0;
      at++;
      while (at < end && bytes[at] >= 48 && bytes[at] <= 57 && length < 100000000) {
        length = length * 10 + bytes[at] - 48;
        at++;
      }
      at += 2;
      if (at + length > end) return found;
      argStarts[found] = at;
      argEnds[found] = at + length;
      found++;
      at += length + 2;
    }
    return found;
  }

  function onFrame(
    type: number,
    flags: number,
    id: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    if (client.closed || client.ending !== "") return;
    if (state !== STATE_OPEN) {
      if (type === FRAME_CONTROL) onControl(bytes, start, end);
      else refuse(REFUSE_MALFORMED, "a frame before the handshake");
      return;
    }
    switch (type) {
      case FRAME_COMMAND:
        onCommand(flags, id, bytes, start, end);
        break;
      case FRAME_ABORT: {
        const at = partOf(id);
        if (at >= 0) removePart(at);
        else host.abort(client, id);
        break;
      }
      case FRAME_CREDIT:
        // Replies are bounded by what the client's connection takes, so its credit adds nothing.
        break;
      case FRAME_CONTROL:
        onControl(bytes, start, end);
        break;
      default:
        host.fault(client, "unexpected frame of type " + type);
        break;
    }
  }

  function isIdle(): boolean {
    return state === STATE_OPEN && !onLine && parts.length === 0 && skippedId === 0;
  }

  return {
    payloadMax: agreedPayloadMax,
    onFrame: onFrame,
    heldBytes: heldBytes,
    isIdle: isIdle,
  };
}
