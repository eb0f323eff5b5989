/** The controller's core in the virtual world: its ports are the virtual network, flash and console. */
import type { ConnectionKind, ControllerCore } from "../firmware/core/core.js";
import type { CoreConfig } from "../firmware/core/config.js";
import { createController } from "../firmware/core/controller.js";
import { createForwarder } from "../firmware/core/forward.js";
import type { ForwardCounters } from "../firmware/core/forward-counters.js";
import type { ControllerPorts } from "../firmware/core/ports.js";
import { ControllerEvents } from "./controller-events.js";
import { crc32 } from "./crc32.js";
import type { Flash } from "./world/flash.js";
import type { Machine, Program } from "./world/machine.js";
import type { Network } from "./world/network.js";
import type { SerialLine } from "./world/serial-line.js";

/** A controller in the world, whatever runs it. */
export interface Controller extends Program {
  /** A line typed at its console. */
  console(line: string): string;
  status(): object;
  /** Bytes of a server's serial line. */
  onSerial(server: 0 | 1, bytes: Uint8Array): void;
  /** What the process that ends has counted. */
  coverCounters(): void;
}

export class ControllerProgram implements Controller {
  private readonly core: ControllerCore;
  private readonly events: ControllerEvents;

  constructor(
    private readonly machine: Machine,
    network: Network,
    servers: Machine[],
    lines: readonly (SerialLine | undefined)[],
    private readonly flash: Flash,
    config: CoreConfig,
    onReset: (reason: string) => void,
    onEvent: (event: string) => void,
  ) {
    this.events = new ControllerEvents(machine, onEvent);
    const incarnation = machine.incarnation;
    const ports: ControllerPorts = {
      send: (connection, bytes, start, end) => machine.ends[connection]?.write(bytes, start, end),
      backlog: (connection) => machine.ends[connection]?.backlog ?? 0,
      close: (connection, _reason, abort) => machine.ends[connection]?.close(abort),
      setReading: (connection, on) => machine.ends[connection]?.setReading(on),
      poll: (server, bytes) => network.datagram(machine, servers[server]!, bytes),
      persist: (record) =>
        flash.persist(record, (error) =>
          machine.post(() => {
            if (error === undefined) this.core.onPersisted(machine.localNow());
            else this.core.onPersistFailed(error, machine.localNow());
          }),
        ),
      hmac: machine.world.hmac,
      serial: (server, bytes) => lines[server]?.send(0, bytes) ?? false,
      crc32,
      note: (level, event, details) => {
        machine.world.trace.line(machine.world.now, machine.name, `${level} ${event}`);
        if (details !== undefined && machine.world.trace.readable) {
          machine.world.trace.detail(
            machine.world.now,
            machine.name,
            () => `     ${show(details)}`,
          );
        }
        this.events.note(event, (details as { text?: string } | undefined)?.text ?? "");
      },
      reset: (reason) => {
        if (machine.incarnation === incarnation) onReset(reason);
      },
    };
    this.core = createController(config, ports, createForwarder);
    this.core.start(flash.boot(), machine.localNow());
  }

  onOpen(handle: number, port: string): void {
    this.core.onOpen(handle, port as ConnectionKind, this.machine.localNow());
  }

  onDialFailed(): void {}

  onBytes(handle: number, bytes: Uint8Array, start: number, end: number): void {
    this.core.onBytes(handle, bytes, start, end, this.machine.localNow());
  }

  onDrained(handle: number): void {
    this.core.onDrained(handle, this.machine.localNow());
  }

  onClosed(handle: number): void {
    this.core.onClosed(handle, this.machine.localNow());
  }

  onDatagram(from: Machine, bytes: Uint8Array): void {
    this.core.onHeartbeat(from.index as 0 | 1, bytes, this.machine.localNow());
  }

  onDatagramRefused(by: Machine): void {
    this.core.onPollRefused(by.index as 0 | 1, this.machine.localNow());
  }

  endTurn(): number {
    return this.core.tick(this.machine.localNow());
  }

  onSerial(server: 0 | 1, bytes: Uint8Array): void {
    this.core.onSerial(server, bytes, 0, bytes.length, this.machine.localNow());
  }

  console(line: string): string {
    return this.core.console(line, this.machine.localNow());
  }

  status(): object {
    return this.core.status(this.machine.localNow());
  }

  coverCounters(): void {
    const { world } = this.machine;
    const status = this.status() as {
      counters: ForwardCounters;
      servers: { inFlight: number }[];
    };
    world.cover("replies dropped", status.counters.dropped);
    world.cover("asked again", status.counters.askedAgain);
    world.cover("told outcome unknown", status.counters.outcomeUnknown);
    if (status.servers.some((server) => server.inFlight > 0)) {
      world.cover("gone with commands open");
    }
  }

  onGone(): void {
    this.coverCounters();
    this.flash.crash();
  }
}

/** Details of a note, in one line. */
export function show(details: object): string {
  return JSON.stringify(details, (_key, value: unknown) => {
    if (value instanceof Uint8Array) return Buffer.from(value.subarray(0, 8)).toString("hex");
    return value;
  });
}
