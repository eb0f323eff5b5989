/**
 * The parts of IoT.js' API that the HAL uses, as types. Source: its docs/api and src/js. `tcp` and `udp` are the
 * modules under its `net` and `dgram`: a quarter of the cost, and none of the timers and streams on top.
 */

/** Bytes outside the engine's heap. Not an array: no index, and `slice` copies. */
export interface EngineBuffer {
  readonly length: number;
  readUInt8(offset: number, noAssert: boolean): number;
  toString(encoding?: "hex", start?: number, end?: number): string;
}

export interface EngineBuffers {
  new (size: number): EngineBuffer;
  /** A copy of a part of the memory. */
  from(memory: ArrayBufferLike, offset: number, length: number): EngineBuffer;
}

/** Errors of a handle are numbers below 0; 0 is none. */
export interface EngineTcp {
  owner: unknown;
  onread: (owner: unknown, count: number, isEnd: boolean, bytes: EngineBuffer) => void;
  onclose: () => void;
  onconnection: (status: number, client: EngineTcp) => void;
  createTCP: () => EngineTcp;
  bind(host: string, port: number): number;
  listen(backlog: number): number;
  readStart(): number;
  /** Reads from the buffer until `done`, and does not keep it alive. `done` is not called after an error. */
  write(bytes: EngineBuffer, done: (status: number) => void): number;
  shutdown(done: (status: number) => void): number;
  close(): void;
  getsockname(into: { port: number }): number;
}

export interface EngineTcpModule {
  new (): EngineTcp;
  errname(status: number): string;
}

export interface EngineUdpFrom {
  address: string;
  port: number;
}

export interface EngineUdp {
  onmessage: (count: number, handle: EngineUdp, bytes: EngineBuffer, from: EngineUdpFrom) => void;
  bind(host: string, port: number): number;
  recvStart(): number;
  recvStop(): number;
  send(bytes: EngineBuffer, port: number, host: string, done: () => void): number;
  close(): void;
}

export interface EngineUdpModule {
  new (): EngineUdp;
}

/** There is no flush: a file opened with an `s` in its flags is flushed by each write. */
export interface EngineFs {
  openSync(path: string, flags: string): number;
  closeSync(file: number): void;
  existsSync(path: string): boolean;
  readFileSync(path: string): EngineBuffer;
  /** `position` null: where the last one ended. */
  readSync(
    file: number,
    into: EngineBuffer,
    offset: number,
    length: number,
    position: number | null,
  ): number;
  writeSync(
    file: number,
    from: EngineBuffer,
    offset: number,
    length: number,
    position: number | null,
  ): number;
  /** In a thread of its own, of four. */
  read(
    file: number,
    into: EngineBuffer,
    offset: number,
    length: number,
    position: number | null,
    done: (error: unknown, count: number) => void,
  ): void;
  write(
    file: number,
    from: EngineBuffer,
    offset: number,
    length: number,
    position: number | null,
    done: (error: unknown, count: number) => void,
  ): void;
}

/** What hangs on `process`. */
export interface EngineProcess {
  exit(code: number): void;
  cwd(): string;
  on(event: string, listener: (error: unknown) => void): void;
}
