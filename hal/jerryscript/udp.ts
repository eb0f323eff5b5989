/**
 * Datagrams on IoT.js: one socket of the system for all addresses, so that they leave from one known port.
 *
 * It cannot be a connected one, so a refusal by the other side is not heard.
 */
import type { DatagramOptions, DatagramSocket } from "../hal.js";
import { bufferOf, bytesOf } from "./bytes.js";
import type { EngineBuffer, EngineUdp, EngineUdpModule } from "./engine.js";

declare const engineRequire: (name: string) => unknown;

class JerryDatagram implements DatagramSocket {
  readonly options: DatagramOptions;
  private readonly handle: EngineUdp;
  open: boolean;

  constructor(handle: EngineUdp, options: DatagramOptions) {
    this.handle = handle;
    this.options = options;
    this.open = true;
  }

  write(bytes: Uint8Array): void {
    if (!this.open) return;
    const buffer = bufferOf(bytes, bytes.length);
    // The engine does not keep the buffer alive until it is sent: the callback does.
    this.handle.send(buffer, this.options.port, this.options.host, () => buffer.length);
  }

  close(): void {
    this.open = false;
  }
}

/**
 * @param localPort port the datagrams leave from; 0: any free one
 * @throws by its first use, when the port cannot be had
 */
export function datagramFactory(localPort: number): (options: DatagramOptions) => DatagramSocket {
  const Udp = engineRequire("udp") as EngineUdpModule;
  const peers: JerryDatagram[] = [];
  let handle: EngineUdp | undefined = undefined;

  function hear(bytes: EngineBuffer, address: string, port: number): void {
    for (let i = 0; i < peers.length; i++) {
      const peer = peers[i]!;
      if (peer.open && peer.options.port === port && peer.options.host === address) {
        peer.options.onReadable(bytesOf(bytes));
        return;
      }
    }
  }

  function open(): EngineUdp {
    const opened = new Udp();
    opened.onmessage = (count, _handle, bytes, from) => {
      if (count > 0) hear(bytes, from.address, from.port);
    };
    if (opened.bind("0.0.0.0", localPort) !== 0) {
      opened.close();
      throw new Error("the port for datagrams, " + localPort + ", cannot be had");
    }
    opened.recvStart();
    return opened;
  }

  return (options) => {
    if (handle === undefined) handle = open();
    const peer = new JerryDatagram(handle, options);
    peers.push(peer);
    return peer;
  };
}
