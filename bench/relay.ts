/**
 * A TCP relay that stands in a link: it counts what passes, and can fall silent without a FIN or a
 * reset, as a pulled cable does.
 */
import { connect, createServer } from "node:net";
import type { Server, Socket } from "node:net";

export class Relay {
  /** @unit bytes, dialer to target and back, since the start */
  sentBytes = 0;
  returnedBytes = 0;
  /** When the first byte and the last one so far passed after resetCounters. @unit ms, this process's clock */
  firstAtMs = NaN;
  lastAtMs = NaN;
  port = 0;
  private silent = false;
  private readonly pairs = new Set<[Socket, Socket]>();
  private server: Server | undefined;

  constructor(private readonly targetPort: number) {}

  async listen(): Promise<void> {
    const server = createServer((near) => {
      const far = connect(this.targetPort, "127.0.0.1");
      const pair: [Socket, Socket] = [near, far];
      this.pairs.add(pair);
      near.setNoDelay(true);
      far.setNoDelay(true);
      this.pipe(near, far, true);
      this.pipe(far, near, false);
      if (this.silent) this.setPaused(pair, true);
    });
    this.server = server;
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    this.port = (server.address() as { port: number }).port;
  }

  /** Nothing passes any more; connections stay open, new ones are accepted and say nothing. */
  cut(): void {
    this.silent = true;
    for (const pair of this.pairs) this.setPaused(pair, true);
  }

  /** The cable is back. What was under way when it was cut is gone for good, as the connections are. */
  mend(): void {
    this.silent = false;
    for (const [near, far] of this.pairs) {
      near.destroy();
      far.destroy();
    }
  }

  resetCounters(): void {
    this.sentBytes = 0;
    this.returnedBytes = 0;
    this.firstAtMs = NaN;
    this.lastAtMs = NaN;
  }

  close(): void {
    this.mend();
    this.server?.close();
  }

  private setPaused(pair: [Socket, Socket], paused: boolean): void {
    for (const socket of pair) {
      if (paused) socket.pause();
      else socket.resume();
    }
  }

  private pipe(from: Socket, to: Socket, outward: boolean): void {
    from.on("data", (data: Buffer) => {
      const at = performance.now();
      if (Number.isNaN(this.firstAtMs)) this.firstAtMs = at;
      this.lastAtMs = at;
      if (outward) this.sentBytes += data.length;
      else this.returnedBytes += data.length;
      if (!to.write(data)) from.pause();
    });
    to.on("drain", () => {
      if (!this.silent) from.resume();
    });
    from.on("error", () => undefined);
    from.on("close", () => {
      if (!this.silent) to.destroy();
      for (const pair of this.pairs) if (pair.includes(from)) this.pairs.delete(pair);
    });
  }
}
