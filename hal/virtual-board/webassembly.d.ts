/** The part of WebAssembly's interface that is used here; Node has it, its types have not. */
declare namespace WebAssembly {
  class Module {
    constructor(bytes: Uint8Array);
  }
  class Memory {
    readonly buffer: ArrayBufferLike;
  }
  class Instance {
    constructor(module: Module, imports: object);
    readonly exports: object;
  }
}
