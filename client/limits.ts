/** Every bound of the client library, and how they must stand to each other. */

export interface ClientLimits {
  /** How long a command may take, from the call to its answer. @unit ms */
  commandMs: number;
  /** With commands unanswered and not a byte heard for so long, the connection is given up. @unit ms */
  silenceMs: number;
  /** From dialing to the end of the handshake. @unit ms */
  handshakeMs: number;
  /** First and longest pause between two attempts to connect; it doubles in between. @unit ms */
  backoffFirstMs: number;
  backoffMaxMs: number;
  /** Most commands that wait to be sent, and their bytes. */
  queuedMax: number;
  queuedBytesMax: number;
  /** Most commands sent and unanswered. */
  inFlightMax: number;
  /** Longest reply. @unit bytes */
  replyBytesMax: number;
  /** Unanswered writes of one session; the server keeps the replies of no more. */
  sessionWindow: number;
  /** Largest frame. @unit bytes */
  frameBytesMax: number;
}

export const DEFAULT_LIMITS: ClientLimits = {
  commandMs: 15_000,
  silenceMs: 5_000,
  handshakeMs: 3_000,
  backoffFirstMs: 20,
  backoffMaxMs: 1_000,
  queuedMax: 65_536,
  queuedBytesMax: 16 * 1024 * 1024,
  inFlightMax: 1_024,
  replyBytesMax: 64 * 1024 * 1024,
  sessionWindow: 64,
  frameBytesMax: 65_536,
};

/** How long the controller holds a command while there is no primary. @source firmware/core/limits.ts */
const CONTROLLER_HOLD_MS = 2_000;

/** @throws RangeError that names the relation that does not hold */
export function checkLimits(limits: ClientLimits): ClientLimits {
  const must = (holds: boolean, what: string): void => {
    if (!holds) throw new RangeError("client limits: " + what);
  };
  must(limits.silenceMs > CONTROLLER_HOLD_MS, "silenceMs must be longer than the controller holds");
  must(limits.commandMs > limits.silenceMs, "commandMs must leave time to connect again");
  must(limits.backoffFirstMs > 0, "backoffFirstMs must be positive");
  must(limits.backoffMaxMs >= limits.backoffFirstMs, "backoffMaxMs must not be the shorter one");
  must(limits.sessionWindow >= 1 && limits.sessionWindow <= 64, "sessionWindow must be 1..64");
  must(limits.inFlightMax >= 1 && limits.queuedMax >= 1, "counts must be at least 1");
  must(limits.frameBytesMax >= 536 && limits.frameBytesMax <= 65_536, "frameBytesMax 536..65536");
  return limits;
}
