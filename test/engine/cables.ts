/** Cables between a chip and its servers that a test can cut, and change what goes through. */
import { spawn, spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { existsSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { until } from "./chip-pair.js";

/** What an engine that reads the device's file needs of it (hal/jerryscript/serial.ts). */
const READY = ["115200", "raw", "-echo", "clocal", "-crtscts", "min", "0", "time", "1"];

/** What is to be undone at a test's end. */
export type Undo = (() => Promise<void> | void)[];

/** A serial cable: two pseudo terminals, and between them a hand that may change what goes to the chip, or cut it. */
export class SerialCable {
  readonly chip: string;
  readonly server: string;
  /** Bytes that the chip has been sent. */
  toChip = 0;
  cut = false;
  change: (bytes: Buffer) => Buffer = (bytes) => bytes;
  private readonly ends: (Socket | undefined)[] = [undefined, undefined];

  private constructor(dir: string, name: string) {
    this.chip = join(dir, `${name}.chip`);
    this.server = join(dir, `${name}.server`);
  }

  static async lay(dir: string, name: string, undo: Undo): Promise<SerialCable> {
    const cable = new SerialCable(dir, name);
    for (const [end, path] of [cable.chip, cable.server].entries()) {
      const listener = createServer((socket) => {
        cable.ends[end] = socket;
        socket.on("error", () => undefined);
        socket.on("data", (bytes) => cable.carry(1 - end, bytes));
      });
      await new Promise<void>((ready) => listener.listen(0, "127.0.0.1", ready));
      const { port } = listener.address() as AddressInfo;
      const socat = spawn("socat", [`pty,raw,echo=0,link=${path}`, `tcp:127.0.0.1:${port}`]);
      undo.push(() => {
        socat.kill("SIGKILL");
        cable.ends[end]?.destroy();
        listener.close();
      });
      await until(path, () => existsSync(path) && cable.ends[end] !== undefined);
    }
    const ready = spawnSync("stty", ["-F", cable.chip, ...READY], { encoding: "utf8" });
    if (ready.status !== 0) throw new Error(ready.stderr);
    return cable;
  }

  /** Sends from the end that is not the chip's, in place of a server. */
  write(bytes: Uint8Array): void {
    this.carry(0, Buffer.from(bytes));
  }

  /** Hears what the chip sends; nobody else does then. */
  onBytes: ((bytes: Buffer) => void) | undefined;

  private carry(to: number, bytes: Buffer): void {
    if (this.cut) return;
    const out = to === 0 ? this.change(bytes) : bytes;
    if (to === 0) this.toChip += out.length;
    else if (this.onBytes !== undefined) {
      this.onBytes(out);
      return;
    }
    this.ends[to]?.write(out);
  }
}

/** A network cable: TCP to the chip, UDP to the server. Cut, it carries nothing and closes nothing. */
export class NetworkCable {
  cut = false;
  linkPort = 0;
  udpPort = 0;
  private readonly sockets: Socket[] = [];

  static async lay(linkPort: number, pollPort: number, undo: Undo): Promise<NetworkCable> {
    const cable = new NetworkCable();
    const server = createServer((near) => cable.join(near, linkPort));
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    const front = createSocket("udp4");
    await new Promise<void>((ready) => front.bind(0, "127.0.0.1", ready));
    const back = createSocket("udp4");
    let asker = 0;
    front.on("message", (bytes, from) => {
      asker = from.port;
      if (!cable.cut) back.send(bytes, pollPort, "127.0.0.1");
    });
    back.on("message", (bytes) => {
      if (!cable.cut) front.send(bytes, asker, "127.0.0.1");
    });
    for (const one of [front, back]) one.on("error", () => undefined);
    cable.linkPort = (server.address() as AddressInfo).port;
    cable.udpPort = front.address().port;
    undo.push(() => {
      server.close();
      front.close();
      back.close();
      for (const one of cable.sockets) one.destroy();
    });
    return cable;
  }

  /** Plugs it in again; what was cut off in mid-stream is closed. */
  mend(): void {
    this.cut = false;
    for (const one of this.sockets.splice(0)) one.destroy();
  }

  private join(near: Socket, linkPort: number): void {
    const far = connect(linkPort, "127.0.0.1");
    this.sockets.push(near, far);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.setNoDelay(true);
      from.on("data", (bytes) => {
        if (!this.cut) to.write(bytes);
      });
      from.on("error", () => undefined);
      from.on("close", () => {
        if (!this.cut) to.destroy();
      });
    }
  }
}
