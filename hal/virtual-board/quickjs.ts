/**
 * A thin binding to QuickJS in WebAssembly (the `quickjs.wasm` of the npm package quickjs-wasi): one instance, one
 * program, strings of bytes in and out.
 *
 *     guest calls  host.send(4, "...")  ->  host_call("F")  ->  operations[name](arguments)  ->  a value
 *
 * The package's own wrapper makes an instance only asynchronously and an object for every value that crosses. A board
 * must reset within an event of a virtual world, and a controller's values cross thousands of times a second; so this
 * talks to the module's exports itself. They are pinned with the package's version.
 *
 * Texts that cross are byte strings, as Espruino has them: each character is one byte.
 */

/** The exports that are used here. Values are pointers to boxes that their taker frees. */
interface Exports {
  memory: WebAssembly.Memory;
  _initialize(): void;
  qjs_init(): number;
  qjs_set_memory_limit(bytes: number): void;
  qjs_set_max_stack_size(bytes: number): void;
  qjs_set_interrupt_handler(on: number): void;
  qjs_compile(
    code: number,
    length: number,
    file: number,
    evalFlags: number,
    writeFlags: number,
    outLength: number,
  ): number;
  qjs_eval_bytecode(code: number, length: number): number;
  qjs_call(callee: number, self: number, count: number, list: number): number;
  qjs_new_string(text: number, length: number): number;
  qjs_new_number(value: number): number;
  qjs_new_object(): number;
  qjs_new_array_buffer(data: number, length: number): number;
  qjs_new_host_function(name: number, length: number, count: number): number;
  qjs_new_error(): number;
  qjs_get_undefined(): number;
  qjs_get_true(): number;
  qjs_get_false(): number;
  qjs_get_float64(value: number): number;
  qjs_get_bool(value: number): number;
  qjs_get_string_len(value: number, outLength: number): number;
  qjs_free_cstring(text: number): void;
  qjs_get_prop_string(object: number, name: number): number;
  qjs_set_prop_string(object: number, name: number, value: number): number;
  qjs_get_typed_array_buffer(
    value: number,
    outOffset: number,
    outLength: number,
    outElement: number,
  ): number;
  qjs_get_array_buffer(value: number, outLength: number): number;
  qjs_is_exception(value: number): number;
  qjs_is_undefined(value: number): number;
  qjs_get_exception(): number;
  qjs_throw(value: number): number;
  qjs_free_value(value: number): void;
  qjs_is_job_pending(): number;
  qjs_execute_pending_job(): number;
  qjs_compute_memory_usage(out: number): void;
  qjs_run_gc(): void;
  wasm_malloc(bytes: number): number;
  wasm_free(at: number): void;
}

/** Why a call into the program did not come back as it should. */
export class GuestFault extends Error {
  constructor(
    /** `memory`: out of it; `interrupted`: stopped from outside; `thrown`: an error nobody caught; `broken`: the engine itself. */
    readonly kind: "memory" | "interrupted" | "thrown" | "broken",
    message: string,
    readonly where: string,
  ) {
    super(message);
  }
}

/** An operation of the host, by reading its arguments from the call and making its result there. */
export type Operation = (call: HostCall) => number;

const STRIP_SOURCE = 16;
const MEMORY_FIELDS = 26;
const SCRATCH_BYTES = 4096;
const ARGUMENTS_MAX = 8;
/** Where the list of a call's arguments is put in the scratch bytes, behind all other uses of them. */
const LIST_AT = 1024;
const FIRST_NAME = 65;
const OUT_OF_MEMORY = "out of memory";
/** What the engine says when it has no memory left for that. */
const NO_MESSAGE = "Invalid error message";
const INTERRUPTED = "interrupted";

/** One call of the guest's to the host. Lent for as long as the operation runs. */
export interface HostCall {
  count(): number;
  number(index: number): number;
  flag(index: number): boolean;
  /** A byte string. */
  text(index: number): string;
  /** The bytes of a byte string: a copy. */
  textBytes(index: number): Uint8Array<ArrayBuffer>;
  /** The bytes of a typed array or buffer: a copy. */
  bytes(index: number): Uint8Array<ArrayBuffer>;
  nothing(): number;
  fromNumber(value: number): number;
  fromFlag(value: boolean): number;
  fromText(value: string): number;
  /** A byte string of these bytes. */
  fromTextBytes(bytes: Uint8Array): number;
  /** An ArrayBuffer of these bytes. */
  fromBytes(bytes: Uint8Array): number;
}

export interface QuickJsOptions {
  module: WebAssembly.Module;
  /** What the program may allocate, its code included. @unit bytes */
  memoryBytes: number;
  /** @unit bytes */
  stackBytes: number;
  /** Asked every some thousand steps of the program: true stops it. */
  isTooLong(): boolean;
}

export class QuickJs implements HostCall {
  private readonly wasm: Exports;
  private readonly operations: Operation[] = [];
  private readonly scratch: number;
  private bytes8: Uint8Array<ArrayBuffer>;
  private words: DataView;
  /** Room for texts on their way in. */
  private inAt: number;
  private inBytes: number;
  private argAt = 0;
  private argCount = 0;

  constructor(options: QuickJsOptions) {
    const instance = new WebAssembly.Instance(options.module, {
      env: {
        host_call: (name: number, _length: number, _self: number, count: number, list: number) =>
          this.onCall(this.memory8()[name]! - FIRST_NAME, count, list),
        host_interrupt: () => (options.isTooLong() ? 1 : 0),
        host_promise_rejection: (promise: number, reason: number) => {
          this.wasm.qjs_free_value(promise);
          this.wasm.qjs_free_value(reason);
        },
        host_module_normalize: () => 0,
        host_module_load: () => 0,
        host_get_timezone_offset: () => 0,
      },
      wasi_snapshot_preview1: {
        // A board has no calendar. The program's clock is the host's `now`, and chance it must not have.
        clock_time_get: (_id: number, _precision: bigint, at: number) => {
          this.view().setBigUint64(at, 0n, true);
          return 0;
        },
        random_get: () => 0,
        fd_write: () => 8,
        fd_close: () => 8,
        fd_fdstat_get: () => 8,
        fd_seek: () => 8,
      },
    });
    this.wasm = instance.exports as unknown as Exports;
    this.bytes8 = new Uint8Array(this.wasm.memory.buffer as ArrayBuffer);
    this.words = new DataView(this.wasm.memory.buffer);
    this.wasm._initialize();
    if (this.wasm.qjs_init() !== 0) throw new Error("the engine does not start");
    this.scratch = this.wasm.wasm_malloc(SCRATCH_BYTES);
    this.inBytes = SCRATCH_BYTES;
    this.inAt = this.wasm.wasm_malloc(this.inBytes);
    this.wasm.qjs_set_memory_limit(options.memoryBytes);
    this.wasm.qjs_set_max_stack_size(options.stackBytes);
    this.wasm.qjs_set_interrupt_handler(1);
  }

  // --- memory ---

  private memory8(): Uint8Array<ArrayBuffer> {
    // A memory that has grown is another buffer.
    if (this.bytes8.buffer !== this.wasm.memory.buffer) {
      this.bytes8 = new Uint8Array(this.wasm.memory.buffer as ArrayBuffer);
      this.words = new DataView(this.wasm.memory.buffer);
    }
    return this.bytes8;
  }

  private view(): DataView {
    this.memory8();
    return this.words;
  }

  /** Bytes that the program has allocated. Looks through the whole heap: not for every event. */
  usedBytes(): number {
    this.wasm.qjs_run_gc();
    const at = this.scratch;
    this.memory8().fill(0, at, at + MEMORY_FIELDS * 8);
    this.wasm.qjs_compute_memory_usage(at);
    return Number(this.view().getBigInt64(at, true));
  }

  // --- values into the guest ---

  private room(bytes: number): number {
    if (bytes > this.inBytes) {
      this.wasm.wasm_free(this.inAt);
      this.inBytes = bytes * 2;
      this.inAt = this.wasm.wasm_malloc(this.inBytes);
      if (this.inAt === 0) throw new Error("the engine's host memory is full");
    }
    return this.inAt;
  }

  /** Bytes as UTF-8 of characters 0..255. @returns how many bytes it took at `inAt` */
  private putLatin1(bytes: Uint8Array): number {
    const start = this.room(2 * bytes.length + 1);
    const memory = this.memory8();
    let at = start;
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i]!;
      if (byte < 128) memory[at++] = byte;
      else {
        memory[at++] = 0xc0 | (byte >> 6);
        memory[at++] = 0x80 | (byte & 63);
      }
    }
    return at - start;
  }

  private putText(text: string): number {
    const start = this.room(2 * text.length + 1);
    const memory = this.memory8();
    let at = start;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i) & 255;
      if (code < 128) memory[at++] = code;
      else {
        memory[at++] = 0xc0 | (code >> 6);
        memory[at++] = 0x80 | (code & 63);
      }
    }
    memory[at] = 0;
    return at - start;
  }

  nothing(): number {
    return this.wasm.qjs_get_undefined();
  }

  fromNumber(value: number): number {
    return this.wasm.qjs_new_number(value);
  }

  fromFlag(value: boolean): number {
    return value ? this.wasm.qjs_get_true() : this.wasm.qjs_get_false();
  }

  fromText(value: string): number {
    const length = this.putText(value);
    return this.wasm.qjs_new_string(this.inAt, length);
  }

  fromTextBytes(bytes: Uint8Array): number {
    const length = this.putLatin1(bytes);
    return this.wasm.qjs_new_string(this.inAt, length);
  }

  fromBytes(bytes: Uint8Array): number {
    const at = this.room(bytes.length + 1);
    this.memory8().set(bytes, at);
    return this.wasm.qjs_new_array_buffer(at, bytes.length);
  }

  // --- values out of the guest ---

  count(): number {
    return this.argCount;
  }

  private argument(index: number): number {
    return this.view().getUint32(this.argAt + index * 4, true);
  }

  number(index: number): number {
    return this.wasm.qjs_get_float64(this.argument(index));
  }

  flag(index: number): boolean {
    return this.wasm.qjs_get_bool(this.argument(index)) !== 0;
  }

  text(index: number): string {
    const bytes = this.textBytes(index);
    return latin1(bytes);
  }

  textBytes(index: number): Uint8Array<ArrayBuffer> {
    return this.bytesOfText(this.argument(index));
  }

  private bytesOfText(value: number): Uint8Array<ArrayBuffer> {
    const at = this.wasm.qjs_get_string_len(value, this.scratch);
    if (at === 0) throw new Error(OUT_OF_MEMORY);
    const length = this.view().getUint32(this.scratch, true);
    const bytes = fromUtf8(this.memory8(), at, at + length);
    this.wasm.qjs_free_cstring(at);
    return bytes;
  }

  bytes(index: number): Uint8Array<ArrayBuffer> {
    const at = this.scratch;
    const buffer = this.wasm.qjs_get_typed_array_buffer(this.argument(index), at, at + 4, at + 8);
    if (this.wasm.qjs_is_exception(buffer) !== 0) {
      this.wasm.qjs_free_value(buffer);
      throw new Error("a typed array is wanted here");
    }
    const offset = this.view().getUint32(at, true);
    const length = this.view().getUint32(at + 4, true);
    const data = this.wasm.qjs_get_array_buffer(buffer, at);
    const copy = this.memory8().slice(data + offset, data + offset + length);
    this.wasm.qjs_free_value(buffer);
    return copy;
  }

  // --- calls out of the guest ---

  private onCall(operation: number, count: number, list: number): number {
    const before = this.argAt;
    const countBefore = this.argCount;
    this.argAt = list;
    this.argCount = count;
    try {
      return this.operations[operation]!(this);
    } catch (error) {
      this.throwIntoGuest((error as Error).message);
      return 0;
    } finally {
      this.argAt = before;
      this.argCount = countBefore;
    }
  }

  private throwIntoGuest(message: string): void {
    const error = this.wasm.qjs_new_error();
    const text = this.fromText(message);
    this.setProperty(error, "message", text);
    this.wasm.qjs_throw(error);
    this.wasm.qjs_free_value(error);
  }

  /** Takes the value. */
  private setProperty(object: number, name: string, value: number): void {
    const at = this.wasm.wasm_malloc(name.length + 1);
    const memory = this.memory8();
    for (let i = 0; i < name.length; i++) memory[at + i] = name.charCodeAt(i);
    memory[at + name.length] = 0;
    this.wasm.qjs_set_prop_string(object, at, value);
    this.wasm.qjs_free_value(value);
    this.wasm.wasm_free(at);
  }

  private propertyText(object: number, name: string): string {
    const at = this.wasm.wasm_malloc(name.length + 1);
    const memory = this.memory8();
    for (let i = 0; i < name.length; i++) memory[at + i] = name.charCodeAt(i);
    memory[at + name.length] = 0;
    const value = this.wasm.qjs_get_prop_string(object, at);
    this.wasm.wasm_free(at);
    const text = this.wasm.qjs_is_exception(value) !== 0 ? "" : this.textOf(value);
    this.wasm.qjs_free_value(value);
    return text;
  }

  private textOf(value: number): string {
    if (this.wasm.qjs_is_undefined(value) !== 0) return "";
    try {
      return latin1(this.bytesOfText(value));
    } catch {
      return "";
    }
  }

  // --- calls into the guest ---

  /** An object with one function a name, each an operation of the host. */
  hostObject(operations: Record<string, Operation>): number {
    const object = this.wasm.qjs_new_object();
    for (const [name, operation] of Object.entries(operations)) {
      const number = this.operations.push(operation) - 1;
      const length = this.putText(String.fromCharCode(FIRST_NAME + number));
      const made = this.wasm.qjs_new_host_function(this.inAt, length, 0);
      this.setProperty(object, name, made);
    }
    return object;
  }

  /** Compiles a text for `run`; an instance of the same module takes what another has compiled. */
  compile(code: string, file: string): Uint8Array<ArrayBuffer> {
    const codeLength = this.putText(code);
    const codeAt = this.wasm.wasm_malloc(codeLength + 1);
    this.memory8().copyWithin(codeAt, this.inAt, this.inAt + codeLength + 1);
    this.putText(file);
    const at = this.guarded(
      () =>
        this.wasm.qjs_compile(codeAt, codeLength, this.inAt, 0, STRIP_SOURCE, this.scratch) || -1,
    );
    this.wasm.wasm_free(codeAt);
    if (at === -1) throw this.takeException();
    const length = this.view().getUint32(this.scratch, true);
    const code8 = this.memory8().slice(at, at + length);
    this.wasm.wasm_free(at);
    return code8;
  }

  /** Runs a compiled text. @returns its value, the caller's to free @throws GuestFault */
  run(compiled: Uint8Array): number {
    const at = this.wasm.wasm_malloc(compiled.length);
    if (at === 0) throw new GuestFault("memory", OUT_OF_MEMORY, "");
    this.memory8().set(compiled, at);
    try {
      return this.checked(() => this.wasm.qjs_eval_bytecode(at, compiled.length));
    } finally {
      this.wasm.wasm_free(at);
    }
  }

  /** Calls a function with values, which it takes. @returns its value, the caller's to free @throws GuestFault */
  call(callee: number, values: readonly number[]): number {
    if (values.length > ARGUMENTS_MAX) throw new Error("too many arguments");
    const list = this.scratch + LIST_AT;
    const view = this.view();
    for (let i = 0; i < values.length; i++) view.setUint32(list + i * 4, values[i]!, true);
    const self = this.wasm.qjs_get_undefined();
    try {
      return this.checked(() => this.wasm.qjs_call(callee, self, values.length, list));
    } finally {
      for (let i = 0; i < values.length; i++) this.wasm.qjs_free_value(values[i]!);
      this.wasm.qjs_free_value(self);
    }
  }

  /** Calls a function and takes its value as a number. */
  callForNumber(callee: number, values: readonly number[]): number {
    const result = this.call(callee, values);
    const value = this.wasm.qjs_get_float64(result);
    this.wasm.qjs_free_value(result);
    return value;
  }

  free(value: number): void {
    this.wasm.qjs_free_value(value);
  }

  /** Runs what promises have put off. */
  runJobs(): void {
    while (this.wasm.qjs_is_job_pending() !== 0) {
      if (this.guarded(() => this.wasm.qjs_execute_pending_job()) < 0) throw this.takeException();
    }
  }

  private guarded(act: () => number): number {
    try {
      return act();
    } catch (error) {
      // A trap: the instance is not to be used any more.
      throw new GuestFault("broken", (error as Error).message, "");
    }
  }

  private checked(act: () => number): number {
    const result = this.guarded(act);
    if (this.wasm.qjs_is_exception(result) === 0) return result;
    this.wasm.qjs_free_value(result);
    throw this.takeException();
  }

  private takeException(): GuestFault {
    const error = this.wasm.qjs_get_exception();
    const text = this.textOf(error);
    const where = this.propertyText(error, "stack");
    const message = this.propertyText(error, "message");
    this.wasm.qjs_free_value(error);
    if (message === INTERRUPTED) return new GuestFault("interrupted", message, where);
    // With nothing left for an error the engine throws null.
    if ([OUT_OF_MEMORY, NO_MESSAGE].includes(message) || text === "null" || text === "") {
      return new GuestFault("memory", OUT_OF_MEMORY, where);
    }
    return new GuestFault("thrown", text, where);
  }
}

/** Characters 0..255 from UTF-8; of what is beyond, the low byte, as an engine of 8-bit characters has it. */
function fromUtf8(memory: Uint8Array, start: number, end: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(end - start);
  let to = 0;
  let at = start;
  while (at < end) {
    const byte = memory[at++]!;
    if (byte < 0x80) out[to++] = byte;
    else if (byte < 0xe0) out[to++] = ((byte & 3) << 6) | (memory[at++]! & 63);
    else {
      const more = byte < 0xf0 ? 2 : 3;
      at += more;
      out[to++] = ((memory[at - 2]! & 3) << 6) | (memory[at - 1]! & 63);
    }
  }
  return to === out.length ? out : out.slice(0, to);
}

/** Bytes as characters 0..255. */
export function latin1(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) {
    text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  }
  return text;
}
