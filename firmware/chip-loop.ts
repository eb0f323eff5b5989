/**
 * The controller's loop on a board: what the engine brings goes to the core at once, and the core's tick follows
 * when a deadline may have moved.
 *
 *     data, datagram, flash ──> core ──> engine's own send strings, polls, flash
 *            └── control? ──> tick ──> one timer for the next one
 *
 * Unlike the loop on Node nothing is gathered (the engine does that) and nothing is deferred: one event of a
 * board is at most one chunk. The watchdog is kicked by a tick that has come back, and by nothing else; a board that is
 * not well is reset there. A network chip that died can look like two dead servers, so where there is one a long silence
 * ends in a reset too, which starts the chip anew; a much longer one where serial lines show that the servers live.
 */
import type {
  DatagramSocket,
  Flash,
  Hardware,
  Serial,
  SerialOptions,
  Turns,
  Watchdog,
} from "../hal/hal.js";
import type { ServerIndex } from "../protocol/record.js";
import type { Crc32 } from "../protocol/serial.js";
import { createChipConnections } from "./chip-connections.js";
import type { ChipConnections } from "./chip-connections.js";
import type { ControllerCore } from "./core/core.js";
import { WITH_SERIAL_LINES } from "./core/features.js";
import type { ControllerPorts } from "./core/ports.js";
import type { FastPath } from "./fast-path.js";
import type { FastPoll } from "./fast-poll.js";
import type { FenceLines } from "./fence-lines.js";

/** A serial line as a board's configuration has it. */
export interface BoardLine {
  device: string;
  baud: number;
  tx?: string;
  rx?: string;
  path?: string;
}

const NOTHING = new Uint8Array(0);
/** So many times longer is the network's silence borne while a server is heard on its serial line: it lives, and roles are safe. */
const LINE_PATIENCE = 10;

export interface ChipLoopOptions {
  hardware: Hardware;
  flash: Flash;
  watchdog: Watchdog;
  servers: { host: string; udpPort: number; line?: BoardLine }[];
  /** Missing in a build without serial lines. */
  openSerial?: ((options: SerialOptions) => Serial) | undefined;
  /** Needed where there are serial lines. */
  crc32?: Crc32 | undefined;
  /** Undefined: no server has a fencing line. */
  fenceLines: FenceLines | undefined;
  /** What is ordinary goes this way, where the engine brings texts. */
  fast?: FastPath | undefined;
  /** Carries out ordinary rounds of polls, where the engine brings texts. */
  polls?: FastPoll | undefined;
  /** Bytes of one connection kept while the core does not take them. */
  readBytes: number;
  createCore(ports: ControllerPorts): ControllerCore;
  note(level: "debug" | "info" | "warn" | "error", event: string, text: string): void;
  /** With nothing heard for so long the board is reset; 0: never. @unit ms */
  silenceMs: number;
  onReset(reason: string): void;
}

export interface ChipLoop {
  connections: ChipConnections;
  start(): void;
  console(line: string): string;
  /** Both servers hold the record that the flash holds: it may be rewritten. */
  mayLoseFlash(): boolean;
  /** Nothing reaches the core any more, and the watchdog is not kicked: the board is about to be reset. */
  stop(): void;
}

export function createChipLoop(options: ChipLoopOptions): ChipLoop {
  const hardware = options.hardware;
  const datagrams: DatagramSocket[] = [];
  const lines: (Serial | undefined)[] = [];
  let stopped = false;
  let tickWanted = false;
  let heardAt = 0;
  let lineHeardAt = -Infinity;
  let lookedAt = 0;
  let core: ControllerCore | undefined = undefined;
  const polls = options.polls;

  function wake(): void {
    if (stopped) return;
    if (polls === undefined || tickWanted || !polls.round()) {
      if (!stopped) tick();
      return;
    }
    if (options.fast !== undefined && !options.fast.isQuiet()) lookAtFast();
    const ill = options.watchdog.kick();
    if (ill !== "") reset(ill);
  }

  const turns: Turns = hardware.createTurns({
    wake: wake,
    endOfTurn: () => {
      if (!stopped && tickWanted) tick();
    },
  });

  function theCore(): ControllerCore {
    return core!;
  }

  function control(): void {
    if (tickWanted) return;
    tickWanted = true;
    turns.requestEndOfTurn();
  }

  function stop(): void {
    stopped = true;
    if (polls !== undefined) polls.stop();
    connections.halt();
  }

  function reset(reason: string): void {
    stop();
    options.onReset(reason);
  }

  /** Replies that went the fast way came after the last look, at the earliest. */
  function lookAtFast(): void {
    const now = turns.now();
    const alive = options.fast!.look();
    for (let i = 0; i < alive.length; i++) {
      core!.onBytes(alive[i]!, NOTHING, 0, 0, lookedAt);
      heardAt = now;
    }
    lookedAt = now;
  }

  function tick(): void {
    tickWanted = false;
    if (options.fast !== undefined) lookAtFast();
    const now = turns.now();
    const next = core!.tick(now);
    if (stopped) return;
    const ill = options.watchdog.kick();
    if (ill !== "") {
      reset(ill);
      return;
    }
    if (polls !== undefined) {
      if (polls.heardAt() > heardAt) heardAt = polls.heardAt();
      if (WITH_SERIAL_LINES && polls.lineHeardAt() > lineHeardAt) lineHeardAt = polls.lineHeardAt();
    }
    if (options.silenceMs > 0 && now - heardAt > options.silenceMs) {
      const onLine = now - lineHeardAt <= options.silenceMs;
      if (!onLine || now - heardAt > LINE_PATIENCE * options.silenceMs) {
        reset(
          "nobody was heard " +
            (onLine ? "on the network " : "") +
            "for " +
            Math.round((now - heardAt) / 1000) +
            " s",
        );
        return;
      }
    }
    const compaction = options.flash.compaction;
    if (compaction !== undefined && compaction.wanted()) {
      if (theCore().mayCompact(compaction.writeWaits(), now)) {
        options.note("info", "flash", "put in order: both servers hold the record");
        compaction.carryOut();
      }
    }
    if (next <= now) control();
    else wakeAt(next);
    if (polls !== undefined) polls.ticked();
  }

  /** What is done until then takes a slow engine its time too. */
  function wakeAt(at: number): void {
    const delayMs = at - turns.now();
    turns.wakeIn(delayMs > 0 ? delayMs : 0);
  }

  const connections = createChipConnections(
    hardware,
    {
      now: () => turns.now(),
      onControl: control,
      onHeard: () => {
        heardAt = turns.now();
        if (core!.wantsTick()) control();
      },
    },
    options.readBytes,
    options.fast,
  );

  const ports: ControllerPorts = {
    send: connections.send,
    backlog: connections.backlog,
    close: (connection, reason, abort) => {
      options.note("debug", "close", connection + " " + reason);
      connections.close(connection, abort);
    },
    setReading: connections.setReading,
    poll: (server, bytes) => datagrams[server]!.write(bytes),
    persist: (record) => {
      options.flash.write(record, (failure) => {
        if (stopped) return;
        if (failure === "") core!.onPersisted(turns.now());
        else core!.onPersistFailed(failure, turns.now());
        control();
      });
    },
    serial: (server, bytes) => {
      const line = lines[server];
      return line !== undefined && line.write(bytes);
    },
    crc32: options.crc32,
    fence: (server, on) => options.fenceLines!.fence(server, on),
    powered: (server) => options.fenceLines!.powered(server),
    hmac: hardware.hmac,
    note: (level, event, details) => {
      const text = details === undefined ? "" : (details as { text: string }).text;
      options.note(level, event, text);
    },
    reset: reset,
  };
  core = options.createCore(ports);
  connections.serve(core);
  if (polls !== undefined) polls.serve(core.rounds, turns.wakeIn);

  function listen(server: ServerIndex): void {
    datagrams.push(
      hardware.createDatagram({
        host: options.servers[server]!.host,
        port: options.servers[server]!.udpPort,
        onReadable: (bytes) => {
          if (stopped) return;
          heardAt = turns.now();
          core!.onHeartbeat(server, bytes, heardAt);
          control();
        },
        onRefused: () => {
          if (stopped) return;
          core!.onPollRefused(server, turns.now());
          control();
        },
        tap: polls === undefined ? undefined : (raw) => polls.server(server, raw),
      }),
    );
  }

  function openLine(server: ServerIndex): Serial | undefined {
    const place = options.servers[server]!.line;
    if (place === undefined || options.openSerial === undefined) return undefined;
    const line: Serial = options.openSerial({
      device: place.device,
      baud: place.baud,
      tx: place.tx,
      rx: place.rx,
      path: place.path,
      onReadable: (count) => {
        if (stopped) return;
        lineHeardAt = turns.now();
        core!.onSerial(server, line.read()!, 0, count, lineHeardAt);
        if (core!.wantsTick()) control();
      },
      onError: () => undefined,
      tap: polls === undefined ? undefined : (raw) => polls.line(server, raw),
    });
    return line;
  }

  return {
    connections: connections,
    start: () => {
      listen(0);
      listen(1);
      lines.push(openLine(0));
      lines.push(openLine(1));
      heardAt = turns.now();
      core!.start(options.flash.content, heardAt);
      control();
    },
    mayLoseFlash: () => core!.mayCompact(false, turns.now()),
    console: (line) => {
      const answer = core!.console(line, turns.now());
      control();
      return answer;
    },
    stop: stop,
  };
}
