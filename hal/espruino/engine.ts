/** The parts of Espruino's API that the HAL uses, as types. Sources: espruino.com/Reference, and its libs/network. */

/** A TCP connection. */
export interface EngineSocket {
  /** Adds to what waits to be sent, without limit; text characters are bytes. */
  write(data: string): boolean;
  end(): void;
  on(event: string, listener: (data: string) => void): void;
  removeAllListeners(event: string): void;
  /** The engine's own store of what waits to be sent; empty or undefined: nothing does. */
  dSnd?: string;
  /** The engine's own mark to close at the next turn, whatever waits to be sent; there is no method for it. */
  clsNow?: boolean;
}

export interface EngineServer {
  listen(port: number): void;
  close(): void;
}

export interface EngineNet {
  createServer(onConnection: (socket: EngineSocket) => void): EngineServer;
}

export interface EngineDatagramFrom {
  address: string;
  port: number;
}

export interface EngineDatagram {
  bind(port: number): void;
  send(data: string, port: number, address: string): void;
  on(event: string, listener: (data: string, from: EngineDatagramFrom) => void): void;
  close(): void;
}

export interface EngineDgram {
  createSocket(type: string): EngineDatagram;
}

export interface EngineStorage {
  read(name: string): string | undefined;
  /** Writes into erased bytes at an offset; offset 0 with a size makes the file, or makes it anew when it is not blank. */
  write(name: string, data: string, offset: number, size: number): boolean;
  erase(name: string): void;
  /** Bytes behind the last file, erased files included: what the largest new file and its head may take. */
  getFree(): number;
  /** Moves files into the room of erased ones. A power cut meanwhile can lose any of them. */
  compact(): void;
}

export interface EngineCrypto {
  SHA256(data: Uint8Array): ArrayBuffer;
}

/** A serial device, or the console's. */
export interface EngineSerial {
  on(event: string, listener: (data: string) => void): void;
  write(data: string): void;
  setConsole(force: boolean): void;
  setup(baud: number, options: EngineSerialSetup): void;
}

/** Pins, where the port can be on several; on a desktop the path of a device. */
export interface EngineSerialSetup {
  tx?: EnginePin;
  rx?: EnginePin;
  path?: string;
}

export interface EngineMemory {
  free: number;
  usage: number;
  total: number;
  blocksize: number;
}

/** What hangs on `E`. */
export interface EngineUtilities {
  /** Bytes as a string of characters 0..255. */
  toString(bytes: Uint8Array): string;
  /** The string's own bytes: no copy. */
  toArrayBuffer(text: string): ArrayBuffer;
  CRC32(data: Uint8Array | string): number;
  enableWatchdog(seconds: number, isAuto: boolean): void;
  kickWatchdog(): void;
  reboot(): void;
  getErrorFlags(): string[];
  on(event: string, listener: (data: string[]) => void): void;
}

export interface EnginePin {
  write(value: boolean): void;
  read(): boolean;
}

export interface EngineSpi {
  setup(options: { sck: EnginePin; miso: EnginePin; mosi: EnginePin; baud: number }): void;
}

export interface EngineEthernet {
  /** @returns true on success */
  setIP(address: { ip: string; subnet: string; gateway: string; mac: string }): boolean;
}

export interface EngineWiznet {
  connect(spi: EngineSpi, cs: EnginePin): EngineEthernet;
}

export interface EngineWifi {
  /** The callback gets null or undefined on success. */
  connect(ssid: string, options: { password: string }, done: (error: unknown) => void): void;
  on(event: string, listener: () => void): void;
}

/** A board's network, as its configuration names it. */
export type BoardNetwork =
  | { readonly chip: "host" }
  | { readonly chip: "wifi"; readonly ssid: string; readonly password: string }
  | {
      readonly chip: "w5500" | "w5100";
      readonly spi: { bus: string; sck: string; miso: string; mosi: string; cs: string };
      readonly reset?: string | undefined;
      readonly mac: string;
      readonly address: { ip: string; subnet: string; gateway: string };
    };

export interface NetworkOptions {
  /** Called once, when listeners can be opened. */
  onReady(): void;
  /** It is gone, and comes back by itself. */
  onLost(reason: string): void;
  /** It cannot be had without a restart. */
  onError(reason: string): void;
}

export type StartNetwork = (network: BoardNetwork, options: NetworkOptions) => void;
