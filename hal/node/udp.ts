/**
 * Datagrams on Node. Each server has a connected socket of its own: only then does the system report
 * that nobody listens there (ECONNREFUSED), and only that server's datagrams are let in.
 */
import { createSocket } from "node:dgram";
import type { Socket } from "node:dgram";
import type { DatagramOptions, DatagramSocket } from "../hal.js";

/** A name that cannot be resolved, a network that is not there: tried again after this. */
const RETRY_MS = 500;

class NodeDatagram implements DatagramSocket {
  private socket: Socket | undefined;
  private connected = false;
  private closed = false;
  private retry: NodeJS.Timeout | undefined;

  constructor(private readonly options: DatagramOptions) {
    this.open();
  }

  private open(): void {
    const { options } = this;
    const socket = createSocket(options.host.includes(":") ? "udp6" : "udp4");
    this.socket = socket;
    this.connected = false;
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED") options.onRefused();
      else if (!this.connected) this.reopen();
    });
    socket.on("message", (bytes) =>
      options.onReadable(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)),
    );
    socket.connect(options.port, options.host, () => {
      this.connected = true;
    });
  }

  private reopen(): void {
    if (this.closed) return;
    this.socket?.close();
    this.socket = undefined;
    this.retry = setTimeout(() => this.open(), RETRY_MS);
    this.retry.unref();
  }

  write(bytes: Uint8Array): void {
    if (!this.connected || this.socket === undefined) return;
    // The datagram leaves later than this call returns, so it needs bytes of its own.
    this.socket.send(Buffer.from(bytes), (error) => {
      if ((error as NodeJS.ErrnoException | null)?.code === "ECONNREFUSED" && !this.closed) {
        this.options.onRefused();
      }
    });
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.retry);
    this.socket?.close();
    this.socket = undefined;
    this.connected = false;
  }
}

export function createDatagram(options: DatagramOptions): DatagramSocket {
  return new NodeDatagram(options);
}
