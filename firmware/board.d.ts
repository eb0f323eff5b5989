/** What the build bakes into a board's bundle from board-configs/<board>.json; see bin/board/board-config.mjs. */
declare module "dyad:board" {
  import type { Timings } from "./core/config.js";
  import type { Limits } from "./core/limits.js";
  import type { BoardNetwork } from "../hal/espruino/engine.js";
  import type { SerialForm } from "../protocol/serial.js";
  import type { BoardLine } from "./chip-loop.js";
  import type { FencePins } from "./fence-lines.js";

  export interface Board {
    readonly network: BoardNetwork;
    readonly name: string;
    /** Name of the serial device that carries the console. */
    readonly consoleDevice: string;
    /** Its speed; 0: no UART, it takes what it is given. @unit bits a second */
    readonly consoleBaud: number;
    readonly servers: {
      id: string;
      host: string;
      udpPort: number;
      preset: boolean;
      /** Form of the packets on its serial line; missing without one, as `line` is. */
      serial?: SerialForm;
      line?: BoardLine;
      fence?: FencePins;
    }[];
    /** The UART of a client that speaks frames; undefined without one. */
    readonly clientLine: BoardLine | undefined;
    /** Undefined: no server has a fencing line. */
    readonly fencing:
      { policy: "failover" | "operator"; offMs: number; readBackMs: number } | undefined;
    readonly key: number[];
    readonly clientKey: number[] | undefined;
    readonly clientPassword: string | undefined;
    readonly balancing: "expected-delay" | "reported-load";
    /** 0: this front is not offered. */
    readonly redisPort: number;
    readonly nativePort: number;
    readonly linkPort: number;
    readonly udpPort: number;
    /** Listeners on each port, where one serves one client. */
    readonly redisSlots: number;
    readonly nativeSlots: number;
    readonly linkSlots: number;
    readonly frameMax: number;
    readonly journalSlots: number;
    readonly watchdogSeconds: number;
    /** Variables of the engine; 0: as many as the machine has memory for. */
    readonly variables: number;
    /** Silence after which the network chip is started anew; 0: there is none. @unit ms */
    readonly silenceMs: number;
    readonly timings: Timings;
    readonly limits: Limits;
  }

  export const board: Board;
}

/** The one of hal/espruino/network-*.ts that the board's configuration asks for. */
declare module "dyad:network" {
  import type { StartNetwork } from "../hal/espruino/engine.js";

  export const startNetwork: StartNetwork;
}
