/**
 * A board on the desk: the real interpreter with its flash kept between runs, started again whenever it ends (its
 * E.reboot() on Linux ends the process), and a TCP bridge to its console that outlives it, as a USB adapter does.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { onOneProcessor } from "../../hal/node/interpreter.mjs";

const RESTART_MS = 100;

export class DeskBoard {
  /** Everything said at the console. */
  said = "";
  /** How often the power has come on. */
  boots = 0;
  /** What people on the bridge have sent. @unit bytes */
  heardBytes = 0;
  /** Cuts the power once so many bytes have been heard; 0: never. */
  cutAfterBytes = 0;
  /** What the line makes of what people send. */
  tamper: ((text: string) => string) | undefined;
  private child: ChildProcess | undefined;
  private server: Server | undefined;
  private readonly sockets = new Set<Socket>();
  private on = false;

  private constructor(
    private readonly command: string,
    readonly dir: string,
  ) {}

  /** @param dir where `espruino.flash` is */
  static async open(command: string, dir: string): Promise<DeskBoard> {
    const board = new DeskBoard(command, dir);
    const server = createServer((socket) => board.join(socket));
    board.server = server;
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    board.powerOn();
    return board;
  }

  /** Where the bridge is. */
  get place(): string {
    return `tcp:127.0.0.1:${(this.server!.address() as AddressInfo).port}`;
  }

  powerOn(): void {
    this.on = true;
    this.boots++;
    const [program, ...args] = onOneProcessor([this.command]) as [string, ...string[]];
    const child = spawn(program, args, { cwd: this.dir, stdio: ["pipe", "pipe", "ignore"] });
    this.child = child;
    child.stdin.on("error", () => undefined);
    child.stdout.on("data", (data: Buffer) => {
      this.said += data.toString("latin1");
      for (const socket of this.sockets) socket.write(data);
    });
    child.once("exit", () => {
      if (this.child !== child) return;
      this.child = undefined;
      if (this.on)
        setTimeout(() => this.on && this.child === undefined && this.powerOn(), RESTART_MS);
    });
  }

  async powerOff(): Promise<void> {
    this.on = false;
    const { child } = this;
    if (child === undefined) return;
    this.child = undefined;
    const ended = new Promise((done) => child.once("exit", done));
    child.kill("SIGKILL");
    await ended;
  }

  async close(): Promise<void> {
    await this.powerOff();
    for (const socket of this.sockets) socket.destroy();
    this.server?.close();
  }

  private join(socket: Socket): void {
    this.sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => undefined);
    socket.on("close", () => this.sockets.delete(socket));
    socket.on("data", (data) => {
      this.heardBytes += data.length;
      if (this.cutAfterBytes > 0 && this.heardBytes >= this.cutAfterBytes) {
        void this.powerOff();
        for (const one of this.sockets) one.destroy();
        return;
      }
      const { tamper } = this;
      this.child?.stdin?.write(
        tamper === undefined ? data : Buffer.from(tamper(data.toString("latin1")), "latin1"),
      );
    });
  }
}
