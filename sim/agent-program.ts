/** A server agent's core in the virtual world: its ports are the virtual network, disk and load. */
import { createExecutor } from "../agent/commands/executor.js";
import { createKeyspace } from "../agent/commands/keyspace.js";
import { createAgent } from "../agent/core/agent.js";
import type { AgentConfig } from "../agent/core/config.js";
import type { AgentCore, AgentPorts, LinkKind } from "../agent/core/ports.js";
import { FRAME_DATAGRAM, FRAME_SEALED, HEADER_BYTES, frameOf } from "../protocol/frame.js";
import { SIDE_CONTROLLER, SIDE_OTHER, SerialDecoder, encodeSerial } from "../protocol/serial.js";
import { crc32 } from "./crc32.js";
import { show } from "./controller-program.js";
import type { Disk } from "./world/disk.js";
import type { Machine, Program } from "./world/machine.js";
import type { Network } from "./world/network.js";
import type { Random } from "./world/random.js";
import type { SerialLine } from "./world/serial-line.js";

export class AgentProgram implements Program {
  readonly core: AgentCore;
  private readonly decoder: SerialDecoder;
  private seq = 0;

  constructor(
    private readonly machine: Machine,
    network: Network,
    targets: { controller: Machine; peer: Machine },
    private readonly disk: Disk,
    config: AgentConfig,
    random: Random,
    onFatal: (reason: string) => void,
    wallClockMs: () => number,
    private readonly line: SerialLine | undefined,
    onNote: (event: string, details: object | undefined) => void,
  ) {
    this.decoder = new SerialDecoder(SIDE_CONTROLLER, crc32, (bytes, start, end) => {
      const payload = bytes.slice(start + HEADER_BYTES, end);
      const type = bytes[start]! & 15;
      if (type === FRAME_DATAGRAM) this.core.onPoll(this.line, payload, machine.localNow());
      else if (type === FRAME_SEALED) this.core.onSealed(payload, machine.localNow());
    });
    const incarnation = machine.incarnation;
    const world = machine.world;
    const store = disk.mount(machine);
    const ports: AgentPorts = {
      backlog: () => 0,
      send: (connection, bytes, start, end) => machine.ends[connection]?.write(bytes, start, end),
      close: (connection) => machine.ends[connection]?.close(false),
      setReading: (connection, on) => machine.ends[connection]?.setReading(on),
      dial: (kind) =>
        network.dial(
          machine,
          kind === "controller" ? targets.controller : targets.peer,
          kind === "controller" ? "server" : "peer",
        ),
      datagram: (from, bytes) => {
        if (from === this.line && this.line !== undefined) this.answerByLine(bytes);
        else network.datagram(machine, from as Machine, bytes);
      },
      hmac: world.hmac,
      random: (count) => random.bytes(count),
      setAside: (name, bytes) => {
        disk.setAside.push({ name, bytes: bytes.slice() });
        world.trace.line(world.now, machine.name, `set aside ${name}, ${bytes.length} bytes`);
      },
      load: () => ({
        loadPermille: random.below(600),
        cpuPermille: random.below(600),
        runQueue: random.below(4),
        loopDelayUs: random.below(3000),
      }),
      note: (level, event, details) => {
        world.trace.line(world.now, machine.name, `${level} ${event}`);
        if (details !== undefined && world.trace.readable) {
          world.trace.detail(world.now, machine.name, () => `     ${show(details)}`);
        }
        world.cover(`server ${event}`);
        if (world.trace.readable && event === "record-adopted") {
          world.trace.picture.state(world.now, machine.name, (details as { role: string }).role);
        }
        onNote(event, details);
      },
      fatal: (reason) => {
        if (machine.incarnation === incarnation) onFatal(reason);
      },
      wallClockMs,
    };
    const keyspace = createKeyspace(store);
    this.core = createAgent(
      config,
      store,
      keyspace,
      createExecutor(keyspace, config.limits),
      ports,
    );
    this.core.start(machine.localNow());
  }

  /** Bytes of the serial line. */
  onSerial(bytes: Uint8Array): void {
    this.decoder.feed(bytes, 0, bytes.length);
  }

  private answerByLine(datagram: Uint8Array): void {
    const frame = frameOf(FRAME_DATAGRAM, 0, 0, datagram);
    const { form } = this.decoder;
    const bytes = encodeSerial(form, SIDE_OTHER, this.seq, frame, 0, frame.length, crc32);
    if (this.line!.send(1, bytes)) this.seq = (this.seq + 1) & 255;
  }

  onOpen(handle: number, port: string, accepted: boolean): void {
    const kind: LinkKind = port === "peer" ? "peer" : port === "local" ? "local" : "controller";
    this.core.onOpen(handle, kind, accepted, this.machine.localNow());
  }

  onDialFailed(port: string): void {
    this.core.onDialFailed(port === "peer" ? "peer" : "controller", this.machine.localNow());
  }

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
    this.core.onPoll(from, bytes, this.machine.localNow());
  }

  onDatagramRefused(): void {}

  endTurn(): number {
    const now = this.machine.localNow();
    const wake = this.core.tick(now);
    this.core.endTurn(now);
    return wake;
  }

  onGone(): void {
    this.disk.crash();
  }
}
