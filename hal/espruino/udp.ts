/**
 * Datagrams on Espruino: one socket of the network chip for all addresses, because it has eight at most.
 *
 * A refusal by the other side is not heard: the engine does not report it.
 */
import type { DatagramOptions, DatagramSocket } from "../hal.js";
import type { EngineDatagram, EngineDgram, EngineUtilities } from "./engine.js";

declare const E: EngineUtilities;
declare const engineRequire: (name: string) => unknown;

class EspruinoDatagram implements DatagramSocket {
  readonly options: DatagramOptions;
  private readonly socket: EngineDatagram;
  private open: boolean;

  constructor(socket: EngineDatagram, options: DatagramOptions) {
    this.socket = socket;
    this.options = options;
    this.open = true;
  }

  write(bytes: Uint8Array): void {
    if (this.open) this.socket.send(E.toString(bytes), this.options.port, this.options.host);
  }

  hear(data: string): void {
    if (this.open) this.options.onReadable(new Uint8Array(E.toArrayBuffer(data)));
  }

  close(): void {
    this.open = false;
  }
}

/** @param localPort port the datagrams leave from; 0: any free one, where the network can choose */
export function datagramFactory(localPort: number): (options: DatagramOptions) => DatagramSocket {
  const peers: EspruinoDatagram[] = [];
  let socket: EngineDatagram | undefined = undefined;

  function open(): EngineDatagram {
    const opened = (engineRequire("dgram") as EngineDgram).createSocket("udp4");
    opened.bind(localPort);
    opened.on("message", (data, from) => {
      for (let i = 0; i < peers.length; i++) {
        const options = peers[i]!.options;
        if (options.port === from.port && options.host === from.address) {
          peers[i]!.hear(data);
          return;
        }
      }
    });
    return opened;
  }

  return (options) => {
    if (socket === undefined) socket = open();
    const peer = new EspruinoDatagram(socket, options);
    peers.push(peer);
    return peer;
  };
}
