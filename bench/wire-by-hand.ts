/** Frames put together by hand, so that they may lie. */
import { createHmac, randomBytes } from "node:crypto";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { FRAME_COMMAND, FRAME_CONTROL, HEADER_BYTES, frameOf } from "../protocol/frame.js";
import { dialerProof } from "../protocol/handshake.js";
import {
  KIND_HELLO,
  KIND_PROOF,
  ROLE_CLIENT,
  decodeControl,
  encodeControl,
} from "../protocol/messages.js";
import type { Challenge } from "../protocol/messages.js";

export interface HelloWords {
  wireMin: number;
  wireMax: number;
  role: number;
  id: string;
}

/** A hello as a whole frame. */
export function openingHello(words: HelloWords, nonce = randomBytes(16)): Buffer {
  const hello = encodeControl({
    kind: KIND_HELLO,
    ...words,
    nonce,
    frameMax: 65536,
    windowBytes: 1 << 20,
  });
  return Buffer.from(frameOf(FRAME_CONTROL, 0, 0, hello));
}

export function commandFrame(commandClass: number, id: number, words: string[]): Buffer {
  const text = `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;
  return Buffer.from(frameOf(FRAME_COMMAND, commandClass, id, Buffer.from(text)));
}

export interface NativeLink {
  socket: Socket;
  /** All that came after the handshake, as latin1. */
  received(): string;
}

/** Opens a native connection with the empty client key. @throws when the controller refuses */
export async function handshake(port: number, timeoutMs = 2000): Promise<NativeLink> {
  const socket = connect(port, "127.0.0.1");
  let input = Buffer.alloc(0);
  socket.on("error", () => undefined);
  const nonce = randomBytes(16);
  const challenge = await new Promise<Challenge>((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`no challenge within ${timeoutMs} ms`)),
      timeoutMs,
    );
    socket.on("connect", () =>
      socket.write(openingHello({ wireMin: 1, wireMax: 1, role: ROLE_CLIENT, id: "" }, nonce)),
    );
    socket.on("data", (data) => {
      input = Buffer.concat([input, data]);
      if (input.length < HEADER_BYTES) return;
      const end = HEADER_BYTES + input.readUInt16BE(2);
      if (input.length < end) return;
      const message = decodeControl(input, HEADER_BYTES, end);
      clearTimeout(timer);
      socket.removeAllListeners("data");
      input = input.subarray(end);
      if ("proof" in message && "sessionId" in message) resolve(message as Challenge);
      else reject(new Error(`not a challenge: ${JSON.stringify(message)}`));
    });
  });
  socket.on("data", (data) => (input = Buffer.concat([input, data])));
  const hmac = (key: Uint8Array, data: Uint8Array): Uint8Array =>
    createHmac("sha256", key).update(data).digest();
  const proof = dialerProof(hmac, new Uint8Array(0), ROLE_CLIENT, "", nonce, challenge.nonce);
  const words = encodeControl({ kind: KIND_PROOF, proof });
  socket.write(frameOf(FRAME_CONTROL, 0, 0, words));
  return { socket, received: () => input.toString("latin1") };
}
