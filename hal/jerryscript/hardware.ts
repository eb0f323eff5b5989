/** IoT.js' hardware, put together for the firmware's loop. */
import type { Hardware } from "../hal.js";
import { hmacSha256 } from "./hmac.js";
import { adoptTcp } from "./tcp.js";
import { createTurns } from "./turns.js";
import { datagramFactory } from "./udp.js";

/** @param udpPort port the polls leave from; 0: any */
export function jerryHardware(udpPort: number): Hardware {
  return {
    createTurns: createTurns,
    adopt: adoptTcp,
    createDatagram: datagramFactory(udpPort),
    hmac: hmacSha256,
  };
}
