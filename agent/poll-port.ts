/** The datagram port the controller polls (P1, P2, P11): a poll in, a heartbeat out. */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";

export class PollPort {
  private constructor(private readonly socket: Socket) {}

  /** @throws when the port cannot be had */
  static open(
    host: string,
    port: number,
    onPoll: (from: RemoteInfo, bytes: Uint8Array) => void,
  ): Promise<PollPort> {
    return new Promise((resolve, reject) => {
      const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
      socket.once("error", reject);
      socket.bind({ address: host, port, exclusive: true }, () => {
        socket.off("error", reject);
        // A controller that is gone answers with "port unreachable": its polls will come again.
        socket.on("error", () => undefined);
        socket.on("message", (bytes, from) =>
          onPoll(from, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)),
        );
        resolve(new PollPort(socket));
      });
    });
  }

  /** Answers whoever sent the poll that `from` came with. */
  send(from: RemoteInfo, bytes: Uint8Array): void {
    // The datagram leaves later than this call returns, so it needs bytes of its own.
    this.socket.send(Buffer.from(bytes), from.port, from.address, () => undefined);
  }

  close(): void {
    this.socket.close();
  }
}
