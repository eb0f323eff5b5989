/**
 * Datagrams on Espruino: one socket of the network chip for all addresses, because it has eight at most.
 *
 * A refusal by the other side is not heard: the engine does not report it.
 */
import type { DatagramOptions, DatagramSocket } from "../hal.js";
import type { EngineDatagram, EngineDgram, EngineUtilities } from "./engine.js";

declare const E: EngineUtilities;
declare const engineRequire: (name: string) => unknown;

/** @param localPort port the datagrams leave from; 0: any free one, where the network can choose */
export function datagramFactory(localPort: number): (options: DatagramOptions) => DatagramSocket {
  /** Who takes what comes from an address. One look-up, since the engine reads every turn of a loop anew. */
  const handlers: { [from: string]: (data: string) => void } = {};
  let socket: EngineDatagram | undefined = undefined;

  function open(): EngineDatagram {
    const opened = (engineRequire("dgram") as EngineDgram).createSocket("udp4");
    opened.bind(localPort);
    opened.on("message", (data, from) => {
      const handler = handlers[from.address + " " + from.port];
      if (handler !== undefined) handler(data);
    });
    return opened;
  }

  return (options) => {
    if (socket === undefined) socket = open();
    const shared = socket;
    const port = options.port;
    const host = options.host;
    const from = host + " " + port;
    let isOpen = true;
    const ordinary = (data: string): void =>
      options.onReadable(new Uint8Array(E.toArrayBuffer(data)));
    handlers[from] =
      options.tap === undefined
        ? ordinary
        : options.tap({ socket: shared, host: host, port: port, ordinary: ordinary });
    return {
      write: (bytes) => {
        if (isOpen) shared.send(E.toString(bytes), port, host);
      },
      close: () => {
        isOpen = false;
        handlers[from] = () => undefined;
      },
    };
  };
}
