/**
 * The controller's loop: what the hardware brings goes to the core, what the core wants goes to the hardware.
 *
 *     sockets, datagrams, flash ──> core ──> gather buffers, polls, flash
 *                    └────── end of turn ──────> one write a connection; tick when due
 *
 * The core says when it wants to be called; one timer is set for that. A core that was called late asks to be
 * handed first what lies unread (it returns the time it was given), and is then called at the end of the next
 * turn.
 */
import type {
  DatagramSocket,
  Flash,
  Hardware,
  PendingConnection,
  Serial,
  SerialOptions,
  Turns,
} from "../hal/hal.js";
import type { Crc32 } from "../protocol/serial.js";
import type { ServerIndex } from "../protocol/record.js";
import { Connections } from "./connections.js";
import type { ConnectionEvents } from "./connections.js";
import type { ConnectionKind, ControllerCore } from "./core/core.js";
import type { ControllerPorts } from "./core/ports.js";

/** Between two calls of the core's tick in a busy loop. @unit ms */
const TICK_LEAST_MS = 1;

export type Level = "debug" | "info" | "warn" | "error";

export interface LoopOptions {
  hardware: Hardware;
  flash: Flash;
  servers: {
    host: string;
    udpPort: number;
    serial?: { path: string; baud: number } | undefined;
  }[];
  openSerial(options: SerialOptions): Serial;
  crc32: Crc32;
  createCore(ports: ControllerPorts): ControllerCore;
  note(level: Level, event: string, details: object | undefined): void;
  /** An invariant is broken. Nothing is called any more. */
  onReset(reason: string): void;
  /** Something may have changed that is worth a line. */
  onChange(): void;
}

export interface Loop {
  start(): void;
  accept(kind: ConnectionKind, pending: PendingConnection): void;
  console(line: string): string;
  status(): object;
  /** Numbers for whoever measures: plain data. */
  metrics(): object;
  stop(): void;
}

export function createLoop(options: LoopOptions): Loop {
  const { hardware, flash } = options;
  const datagrams: DatagramSocket[] = [];
  const lines: (Serial | undefined)[] = [];
  let stopped = false;
  let tickedAt = -Infinity;
  /** Something other than clients' bytes has come: deadlines may have moved. */
  let tickWanted = false;
  let changed = false;
  let turnCount = 0;
  let tickCount = 0;
  let worstTurnMs = 0;

  const turns: Turns = hardware.createTurns({
    wake() {
      if (!stopped) tick();
    },
    endOfTurn() {
      if (stopped) return;
      turnCount += 1;
      const now = turns.now();
      if (connections.takeDeferred()) turns.requestEndOfTurn();
      connections.flush();
      if (tickWanted || now - tickedAt >= TICK_LEAST_MS) tick();
      const tookMs = turns.now() - now;
      if (tookMs > worstTurnMs) worstTurnMs = tookMs;
    },
  });

  const events: ConnectionEvents = {
    onOpen(connection, kind) {
      core.onOpen(connection, kind, turns.now());
      control();
    },
    onBytes(connection, bytes, start, end, now) {
      core.onBytes(connection, bytes, start, end, now);
      turns.requestEndOfTurn();
    },
    onDrained(connection) {
      core.onDrained(connection, turns.now());
      turns.requestEndOfTurn();
    },
    onClosed(connection) {
      core.onClosed(connection, turns.now());
      control();
    },
  };
  const connections = new Connections(hardware, events, () => turns.now());

  const ports: ControllerPorts = {
    send: (connection, bytes, start, end) => connections.send(connection, bytes, start, end),
    backlog: (connection) => connections.backlog(connection),
    close(connection, reason, abort) {
      options.note("debug", "close", { connection, from: connections.from(connection), reason });
      connections.close(connection, abort);
    },
    setReading(connection, on) {
      connections.setReading(connection, on);
      // What was put off for it may go on at the end of the turn.
      if (on) turns.requestEndOfTurn();
    },
    poll: (server, bytes) => datagrams[server]?.write(bytes),
    serial: (server, bytes) => lines[server]?.write(bytes) ?? false,
    crc32: options.crc32,
    persist(record) {
      flash.write(record, (failure) => {
        if (stopped) return;
        if (failure === "") core.onPersisted(turns.now());
        else core.onPersistFailed(failure, turns.now());
        control();
      });
    },
    hmac: (key, data) => hardware.hmac(key, data),
    note(level, event, details) {
      changed = true;
      options.note(level, event, details);
    },
    reset(reason) {
      stop();
      options.onReset(reason);
    },
  };
  const core = options.createCore(ports);

  function control(): void {
    tickWanted = true;
    turns.requestEndOfTurn();
  }

  function tick(): void {
    tickCount += 1;
    tickWanted = false;
    const now = turns.now();
    tickedAt = now;
    const next = core.tick(now);
    if (stopped) return;
    connections.flush();
    if (next <= now) control();
    else turns.wakeIn(next - now);
    if (changed) {
      changed = false;
      options.onChange();
    }
  }

  function openLine(
    number: ServerIndex,
    server: { serial?: { path: string; baud: number } | undefined },
  ): Serial {
    const { path, baud } = server.serial!;
    return options.openSerial({
      device: path,
      baud,
      onReadable(count) {
        const bytes = lines[number]?.read();
        if (stopped || bytes === undefined) return;
        core.onSerial(number, bytes, 0, count, turns.now());
        control();
      },
      onError: (reason) => options.note("warn", "serial-line", { reason }),
    });
  }

  function start(): void {
    for (const [index, server] of options.servers.entries()) {
      const number = index as ServerIndex;
      datagrams.push(
        hardware.createDatagram({
          host: server.host,
          port: server.udpPort,
          onReadable(bytes) {
            if (stopped) return;
            core.onHeartbeat(number, bytes, turns.now());
            control();
          },
          onRefused() {
            if (stopped) return;
            core.onPollRefused(number, turns.now());
            control();
          },
        }),
      );
    }
    for (const [index, server] of options.servers.entries()) {
      lines.push(server.serial === undefined ? undefined : openLine(index as ServerIndex, server));
    }
    core.start(flash.content, turns.now());
    control();
  }

  function stop(): void {
    if (stopped) return;
    stopped = true;
    turns.close();
    connections.stop();
    for (const datagram of datagrams) datagram.close();
    for (const line of lines) line?.close();
  }

  return {
    start,
    accept(kind, pending) {
      if (!stopped) connections.adopt(kind, pending);
    },
    console(line) {
      const answer = core.console(line, turns.now());
      control();
      return answer;
    },
    status: () => core.status(turns.now()),
    metrics: () => ({ ...connections.traffic, turns: turnCount, ticks: tickCount, worstTurnMs }),
    stop,
  };
}
