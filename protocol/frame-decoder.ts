/**
 * Cuts a byte stream into frames, incrementally, with a bound on what it holds.
 *
 * A frame that lies whole in the chunk is handed out on the chunk itself; only a frame that straddles
 * two chunks is copied. A malformed header is the peer's mistake: `feed` returns the reason, the
 * decoder stays dead, and the link is to be dropped.
 *
 *     feed(chunk) ──> whole frame in the chunk ──> onFrame(…, chunk, …)
 *                └──> straddling frame ──> held ──> onFrame(…, held, …)
 *     park() ──> everything that is fed waits in held, up to parkedBytesMax ──> resume()
 */
import {
  FRAME_COMMAND,
  FRAME_COPY,
  FRAME_PACK,
  FRAME_PACK_REPLY,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
  WIRE_VERSION,
  WIRE_VERSION_MIN,
  readU32,
} from "./frame.js";

/**
 * One frame: header at bytes[payloadStart - 8], payload up to payloadEnd. The bytes are the
 * receiver's to patch, and valid only until it returns. It must not feed the decoder.
 */
export type OnFrame = (
  type: number,
  flags: number,
  id: number,
  bytes: Uint8Array,
  payloadStart: number,
  payloadEnd: number,
) => void;

/** What a decoder may be given before the handshake is done: no word of it is longer. @unit bytes */
export const HANDSHAKE_PAYLOAD_BYTES_MAX = 512;

/** Bit t is set when type t may come in a stream: COMMAND to COPY, PACK and PACK_REPLY; the others are a serial line's. */
const STREAM_TYPES =
  ((2 << FRAME_COPY) - (1 << FRAME_COMMAND)) | (1 << FRAME_PACK) | (1 << FRAME_PACK_REPLY);

const EMPTY = new Uint8Array(0);

/** Cuts a byte stream into frames; bounded, and refuses what is malformed for good. */
export class FrameDecoder {
  /** Why the stream was refused; "" while it is sound. */
  fault: string;
  parked: boolean;
  private readonly onFrame: OnFrame;
  private payloadMax: number;
  private readonly parkedBytesMax: number;
  private held: Uint8Array;
  private heldStart: number;
  private heldEnd: number;
  private closed: boolean;
  private busy: boolean;

  /**
   * @param payloadMax largest payload agreed for this link so far, 0..65528 bytes
   * @param parkedBytesMax most bytes to hold while parked (at least one frame is always allowed)
   */
  constructor(onFrame: OnFrame, payloadMax: number, parkedBytesMax: number) {
    this.fault = "";
    this.parked = false;
    this.onFrame = onFrame;
    this.payloadMax = payloadMax > PAYLOAD_BYTES_MAX ? PAYLOAD_BYTES_MAX : payloadMax;
    this.parkedBytesMax = parkedBytesMax;
    this.held = EMPTY;
    this.heldStart = 0;
    this.heldEnd = 0;
    this.closed = false;
    this.busy = false;
  }

  /** The handshake has agreed on another limit; holds for frames not yet begun. */
  setPayloadMax(payloadMax: number): void {
    this.payloadMax = payloadMax > PAYLOAD_BYTES_MAX ? PAYLOAD_BYTES_MAX : payloadMax;
  }

  /** @unit bytes held: the tail of an unfinished frame, or what came while parked */
  heldBytes(): number {
    return this.heldEnd - this.heldStart;
  }

  /** Stops after the frame that is being handed out; what follows is kept until `resume`. */
  park(): void {
    this.parked = true;
  }

  /** Hands out what was kept, unless it is parked again meanwhile. @returns "" or the fault */
  resume(): string {
    this.parked = false;
    // Called from inside onFrame: the loop further up goes on by itself.
    if (this.busy || this.fault !== "" || this.closed) return this.fault;
    const at = this.decode(this.held, this.heldStart, this.heldEnd);
    if (this.closed || this.fault !== "") return this.fault;
    this.heldStart = at;
    this.settle();
    return this.fault;
  }

  /** Nothing is handed out any more, not even the rest of the chunk being decoded. */
  close(): void {
    this.closed = true;
    if (!this.busy) this.held = EMPTY;
    this.heldStart = 0;
    this.heldEnd = 0;
  }

  /**
   * Takes bytes[start..end). The caller may use the buffer again when it returns.
   * @returns "" or, for ever after, the fault of the stream
   */
  feed(bytes: Uint8Array, start: number, end: number): string {
    if (this.busy) throw new Error("assertion failed: frame decoder fed from inside onFrame");
    if (this.fault !== "" || this.closed) return this.fault;
    let at = start;
    if (this.parked) {
      this.hold(bytes, at, end);
      return this.fault;
    }
    if (this.heldEnd > this.heldStart) {
      at = this.complete(bytes, at, end);
      if (this.fault !== "" || this.closed) return this.fault;
    }
    if (at < end && !this.parked) at = this.decode(bytes, at, end);
    if (at < end && this.fault === "" && !this.closed) this.hold(bytes, at, end);
    return this.fault;
  }

  /** Hands out whole frames. @returns where the first one that is not handed out begins */
  private decode(bytes: Uint8Array, start: number, end: number): number {
    const onFrame = this.onFrame;
    let at = start;
    this.busy = true;
    while (end - at >= HEADER_BYTES) {
      const first = bytes[at]!;
      const length = (bytes[at + 2]! << 8) | bytes[at + 3]!;
      const type = first & 15;
      const version = first >>> 4;
      if (
        ((STREAM_TYPES >>> type) & 1) === 0 ||
        length > this.payloadMax ||
        version > WIRE_VERSION ||
        version < WIRE_VERSION_MIN
      ) {
        this.busy = false;
        this.refuse(version, type, length);
        return end;
      }
      const next = at + HEADER_BYTES + length;
      if (next > end) break;
      onFrame(type, bytes[at + 1]!, readU32(bytes, at + 4), bytes, at + HEADER_BYTES, next);
      at = next;
      if (this.parked || this.closed) break;
    }
    this.busy = false;
    return at;
  }

  private refuse(version: number, type: number, length: number): void {
    if (version < WIRE_VERSION_MIN || version > WIRE_VERSION) {
      this.fault = "frame of wire version " + version;
    } else if (length > this.payloadMax && ((STREAM_TYPES >>> type) & 1) !== 0) {
      this.fault = "frame of " + length + " bytes, agreed are " + this.payloadMax;
    } else {
      this.fault = "frame of unknown type " + type;
    }
    this.held = EMPTY;
    this.heldStart = 0;
    this.heldEnd = 0;
  }

  /** Completes the frame whose beginning is held, and no more. @returns where the chunk goes on */
  private complete(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    let have = this.heldEnd - this.heldStart;
    if (have < HEADER_BYTES) {
      const wanted = HEADER_BYTES - have;
      const taken = end - at < wanted ? end - at : wanted;
      this.append(bytes, at, at + taken);
      at += taken;
      have += taken;
      if (have < HEADER_BYTES) return at;
    }
    const first = this.held[this.heldStart]!;
    const length = (this.held[this.heldStart + 2]! << 8) | this.held[this.heldStart + 3]!;
    // A bad header is met by decode below; nothing more is copied for it.
    const sound = length <= this.payloadMax && ((STREAM_TYPES >>> (first & 15)) & 1) !== 0;
    if (sound) {
      const wanted = HEADER_BYTES + length - have;
      const taken = end - at < wanted ? end - at : wanted;
      this.append(bytes, at, at + taken);
      at += taken;
      // A bad version must be refused at once, not after its payload has come.
      if (taken < wanted && first >>> 4 <= WIRE_VERSION && first >>> 4 >= WIRE_VERSION_MIN) {
        return at;
      }
    }
    const decoded = this.decode(this.held, this.heldStart, this.heldEnd);
    if (this.fault === "" && !this.closed) {
      this.heldStart = decoded;
      this.settle();
    }
    return at;
  }

  /** Keeps what could not be handed out: an unfinished frame, or everything while parked. */
  private hold(bytes: Uint8Array, start: number, end: number): void {
    if (this.parked) {
      const total = this.heldEnd - this.heldStart + end - start;
      if (total > this.parkedBytesMax && total > HEADER_BYTES + this.payloadMax) {
        this.fault = "more than " + this.parkedBytesMax + " bytes sent while parked";
        this.held = EMPTY;
        this.heldStart = 0;
        this.heldEnd = 0;
        return;
      }
    }
    this.append(bytes, start, end);
  }

  private append(bytes: Uint8Array, start: number, end: number): void {
    const have = this.heldEnd - this.heldStart;
    const total = have + end - start;
    if (this.heldStart + total > this.held.length) {
      if (total > this.held.length) {
        let size = this.held.length < 64 ? 64 : this.held.length;
        while (size < total) size *= 2;
        const grown = new Uint8Array(size);
        grown.set(this.held.subarray(this.heldStart, this.heldEnd), 0);
        this.held = grown;
      } else {
        this.held.set(this.held.subarray(this.heldStart, this.heldEnd), 0);
      }
      this.heldStart = 0;
      this.heldEnd = have;
    }
    this.held.set(bytes.subarray(start, end), this.heldEnd);
    this.heldEnd += end - start;
  }

  private settle(): void {
    if (this.heldStart < this.heldEnd) return;
    this.heldStart = 0;
    this.heldEnd = 0;
    // What a long park needed is given back.
    if (this.held.length > 4 * PAYLOAD_BYTES_MAX) this.held = EMPTY;
  }
}
