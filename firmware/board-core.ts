/** What a board's baked-in constants say to the core; the same for every engine. */
import type { Board } from "dyad:board";
import { DEFAULT_ID_MAX } from "./core/config.js";
import type { CoreConfig } from "./core/config.js";
import { WITH_FENCING } from "./core/features.js";

/** @param seed random bytes; none where the engine has none worth the name */
export function coreConfigOf(board: Board, seed: Uint8Array): CoreConfig {
  const servers = board.servers;
  const fencing = board.fencing;
  return {
    servers: [servers[0]!, servers[1]!],
    key: new Uint8Array(board.key),
    clientKey: board.clientKey === undefined ? undefined : new Uint8Array(board.clientKey),
    clientPassword: board.clientPassword,
    balancing: board.balancing,
    frameMax: board.frameMax,
    idMax: DEFAULT_ID_MAX,
    seed: seed,
    fencing:
      !WITH_FENCING || fencing === undefined
        ? undefined
        : {
            policy: fencing.policy,
            lines: [servers[0]!.fence !== undefined, servers[1]!.fence !== undefined],
            offMs: fencing.offMs,
            readBackMs: fencing.readBackMs,
          },
    timings: board.timings,
    limits: board.limits,
  };
}
