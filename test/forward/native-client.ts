/** A native client by hand, for tests of the forward path: what it is sent, cut into frames. */
import { createHmac } from "node:crypto";
import { FrameDecoder } from "../../protocol/frame-decoder.js";
import { FRAME_CONTROL, frameOf } from "../../protocol/frame.js";
import { acceptorProof, dialerProof, proofsEqual } from "../../protocol/handshake.js";
import { isMalformed } from "../../protocol/malformed.js";
import {
  decodeControl,
  encodeControl,
  KIND_CHALLENGE,
  KIND_HELLO,
  KIND_PROOF,
  ROLE_CLIENT,
  type ControlMessage,
} from "../../protocol/messages.js";
import { bytesOf, type ModelClient, type World } from "./world.js";

export const NO_KEY = new Uint8Array(0);
const NONCE = new Uint8Array(16).fill(9);
const hmac = (key: Uint8Array, data: Uint8Array): Uint8Array =>
  new Uint8Array(createHmac("sha256", key).update(data).digest());

export interface Frame {
  type: number;
  flags: number;
  id: number;
  payload: Uint8Array;
  text: string;
}

/** A native client by hand: what it is sent, cut into frames. */
export class NativeClient {
  readonly frames: Frame[] = [];
  readonly model: ModelClient;
  private at = 0;
  private readonly decoder = new FrameDecoder(
    (type, flags, id, bytes, start, end) => {
      const payload = bytes.slice(start, end);
      this.frames.push({ type, flags, id, payload, text: Buffer.from(payload).toString("latin1") });
    },
    65528,
    65536,
  );

  constructor(readonly world: World) {
    this.model = world.open("native");
  }

  send(type: number, flags: number, id: number, payload: Uint8Array): void {
    this.world.send(this.model, frameOf(type, flags, id, payload));
  }

  take(): Frame[] {
    const bytes = bytesOf(this.model.received.slice(this.at));
    this.at = this.model.received.length;
    this.decoder.feed(bytes, 0, bytes.length);
    return this.frames.splice(0);
  }

  control(): ControlMessage {
    const frame = this.take()[0]!;
    if (frame.type !== FRAME_CONTROL) throw new Error(`a frame of type ${frame.type}`);
    const message = decodeControl(frame.payload, 0, frame.payload.length);
    if (isMalformed(message)) throw new Error(message.malformed);
    return message;
  }

  hello(changes: object = {}): void {
    this.send(
      FRAME_CONTROL,
      0,
      0,
      encodeControl({
        kind: KIND_HELLO,
        wireMin: 1,
        wireMax: 1,
        role: ROLE_CLIENT,
        id: "",
        nonce: NONCE,
        frameMax: 65536,
        windowBytes: 1 << 20,
        ...changes,
      }),
    );
  }

  /** The whole handshake. */
  enter(key: Uint8Array = NO_KEY, frameMax = 65536): this {
    this.hello({ frameMax });
    const challenge = this.control();
    if (challenge.kind !== KIND_CHALLENGE) throw new Error(`refused: ${JSON.stringify(challenge)}`);
    const expected = acceptorProof(hmac, key, ROLE_CLIENT, "", NONCE, challenge.nonce);
    if (!proofsEqual(expected, challenge.proof)) throw new Error("the controller's proof is wrong");
    const proof = dialerProof(hmac, key, ROLE_CLIENT, "", NONCE, challenge.nonce);
    this.send(FRAME_CONTROL, 0, 0, encodeControl({ kind: KIND_PROOF, proof }));
    return this;
  }
}
