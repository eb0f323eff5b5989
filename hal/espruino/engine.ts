/** The parts of Espruino's API that the HAL uses, as types. Sources: espruino.com/Reference, and its libs/network. */

/** A TCP connection. */
export interface EngineSocket {
  /** Adds to what waits to be sent, without limit; text characters are bytes. */
  write(data: string): boolean;
  end(): void;
  on(event: string, listener: (data: string) => void): void;
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
  getFree(): number;
}

export interface EngineCrypto {
  SHA256(data: Uint8Array): ArrayBuffer;
}

/** A serial device, or the console's. */
export interface EngineSerial {
  on(event: string, listener: (data: string) => void): void;
  write(data: string): void;
  setConsole(force: boolean): void;
  setup(baud: number, options: object): void;
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
  CRC32(data: Uint8Array): number;
  enableWatchdog(seconds: number, isAuto: boolean): void;
  kickWatchdog(): void;
  reboot(): void;
  getErrorFlags(): string[];
  on(event: string, listener: (data: string[]) => void): void;
}
