/** Node's hardware, put together for the firmware's loop. */
import { createHmac } from "node:crypto";
import type { Hardware } from "../hal.js";
import { adoptTcp } from "./tcp.js";
import { createTurns } from "./turns.js";
import { createDatagram } from "./udp.js";

export function nodeHardware(): Hardware {
  return {
    createTurns,
    adopt: adoptTcp,
    createDatagram,
    hmac: (key, data) => new Uint8Array(createHmac("sha256", key).update(data).digest()),
  };
}
