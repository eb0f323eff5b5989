/**
 * Espruino's interface as far as firmware uses it, made of a few calls to the host. This function runs inside the
 * engine: its text is put there, so it uses nothing but its arguments and the language.
 *
 * Sources: espruino.com/Reference, and what the interpreter's Linux build does. Texts are byte strings.
 */

/** What the host offers to the inside. Texts are byte strings. */
export interface HostCalls {
  /** @unit s, from any start */
  now(): number;
  print(text: string): void;
  bytesToText(bytes: Uint8Array): string;
  textToBytes(text: string): ArrayBuffer;
  crc32(bytes: Uint8Array): number;
  sha256(bytes: Uint8Array): ArrayBuffer;
  serialNumber(): string;
  /** Bytes of memory in use. */
  memoryUsed(): number;
  memoryTotal(): number;
  watchdog(seconds: number): void;
  kick(): void;
  reboot(): void;
  /** @returns a number for the listener */
  listen(port: number): number;
  unlisten(listener: number): void;
  send(socket: number, text: string): void;
  /** Closes after what was sent has gone out. */
  end(socket: number): void;
  abort(socket: number): void;
  /** @returns a number for the datagram socket */
  openDatagram(port: number): number;
  sendDatagram(datagram: number, text: string, port: number, address: string): void;
  closeDatagram(datagram: number): void;
  serialSetup(device: string, baud: number, path: string): void;
  serialWrite(device: string, text: string): void;
  pinWrite(pin: string, value: boolean): void;
  pinRead(pin: string): boolean;
  storageHas(name: string): boolean;
  storageRead(name: string): string;
  storageWrite(name: string, text: string, offset: number, size: number): void;
  storageErase(name: string): void;
  storageFree(): number;
  storageCompact(): void;
  storageNames(): string;
}

/** What happened outside. Numbers, since they cross. */
export const EVENT_TIMERS = 0;
export const EVENT_CONNECTION = 1;
export const EVENT_DATA = 2;
export const EVENT_DRAIN = 3;
export const EVENT_CLOSE = 4;
export const EVENT_DATAGRAM = 5;
export const EVENT_SERIAL = 6;
export const EVENT_ERROR_FLAG = 7;
export const EVENT_BOOT = 8;
export const EVENT_PIN = 9;

/** @returns when the next timer is due, as `now` counts; -1: there is none */
export type EventEntry = (
  kind: number,
  number: number,
  text: string,
  port: number,
  address: string,
) => number;

/** Puts Espruino's globals into the engine. @returns the entry by which events come in */
export function espruinoApi(
  host: HostCalls,
  world: Record<string, unknown>,
  /** Runs a text that sees the globals alone. */
  evaluate: (text: string) => unknown,
): EventEntry {
  type Listener = (...values: unknown[]) => void;
  interface Timer {
    id: number;
    due: number;
    intervalMs: number;
    run: Listener;
    values: unknown[];
  }

  /** What has `on`: Espruino gives it to every object, this to those that have events. */
  class Emitter {
    // Espruino keeps listeners under such names too.
    private "#on": Record<string, Listener[]> = {};

    on(event: string, listener: Listener): void {
      const all = this["#on"];
      const list = all[event];
      if (list === undefined) all[event] = [listener];
      else list.push(listener);
    }

    removeAllListeners(event: string): void {
      this["#on"][event] = [];
    }

    emit(event: string, a?: unknown, b?: unknown): boolean {
      const list = this["#on"][event];
      if (list === undefined || list.length === 0) return false;
      for (let i = 0; i < list.length; i++) list[i]!.call(this, a, b);
      return true;
    }
  }

  // --- timers ---

  const timers: Timer[] = [];
  let lastTimer = 0;

  function addTimer(run: Listener, ms: number, intervalMs: number, values: unknown[]): number {
    const wait = ms > 0 ? ms : 0;
    lastTimer++;
    timers.push({ id: lastTimer, due: host.now() * 1000 + wait, intervalMs, run, values });
    return lastTimer;
  }

  function dropTimer(id: unknown): void {
    if (id === undefined) throw new Error("clear(undefined) not allowed");
    for (let i = 0; i < timers.length; i++) {
      if (timers[i]!.id === id) {
        timers.splice(i, 1);
        return;
      }
    }
  }

  function nextDue(): number {
    let next = -1;
    for (let i = 0; i < timers.length; i++) {
      const { due } = timers[i]!;
      if (next < 0 || due < next) next = due;
    }
    return next;
  }

  /** Those that are due now; one that they add waits for the next turn. */
  function runTimers(): void {
    const now = host.now() * 1000;
    const due = timers.filter((timer) => timer.due <= now).sort((x, y) => x.due - y.due);
    for (let i = 0; i < due.length; i++) {
      const timer = due[i]!;
      const at = timers.indexOf(timer);
      if (at < 0) continue;
      // A missed interval is made up for, one call a turn.
      if (timer.intervalMs > 0) timer.due += timer.intervalMs;
      else timers.splice(at, 1);
      guarded(() => timer.run(...timer.values));
    }
  }

  // --- faults ---

  type Open = { [name: string]: unknown } & Pick<Emitter, "emit">;
  const processObject = new Emitter() as unknown as Open;
  const E = new Emitter() as unknown as Open;

  /** With too little left to say so the engine throws null, or an error that says only that. */
  function isOutOfMemory(error: unknown): boolean {
    if (error === null) return true;
    const message = (error as { message?: unknown } | undefined)?.message;
    return message === "out of memory" || message === "Invalid error message";
  }

  function uncaught(error: unknown): void {
    if (processObject.emit("uncaughtException", error)) return;
    const stack = (error as { stack?: string } | null)?.stack;
    host.print("Uncaught " + error + "\n" + (stack === undefined ? "" : stack));
  }

  /** An event's error ends the event alone; out of memory the host must hear of. */
  function guarded(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (isOutOfMemory(error)) throw error;
      uncaught(error);
    }
  }

  // --- network ---

  const BLOCK_BYTES = 16;

  /** Texts whose bytes were looked at in this event: there a text and its bytes are one, and here a copy may have been changed. */
  let views: { text: string; bytes: ArrayBuffer }[] = [];

  function viewOf(text: string): ArrayBuffer {
    const bytes = host.textToBytes(text);
    views.push({ text, bytes });
    return bytes;
  }

  /** What the engine would send of a text: its bytes as they are now. */
  function present(text: string): string {
    for (let i = views.length - 1; i >= 0; i--) {
      const view = views[i]!;
      if (view.text === text) return asText(new Uint8Array(view.bytes));
    }
    return text;
  }

  class Socket extends Emitter {
    clsNow = false;
    dSnd = "";
    private number: number;

    constructor(number: number) {
      super();
      this.number = number;
    }

    write(data: unknown): boolean {
      if (this.number < 0) throw new Error("This socket is closed.");
      const text = typeof data === "string" ? present(data) : asText(data);
      if (text.length > 0) {
        this.dSnd += text;
        host.send(this.number, text);
      }
      return false;
    }

    end(data?: unknown): void {
      if (this.number < 0) return;
      if (data !== undefined) this.write(data);
      if (this.clsNow) host.abort(this.number);
      else host.end(this.number);
    }

    closed(): void {
      this.number = -1;
    }
  }

  class Datagram extends Emitter {
    private number = -1;

    bind(port: number): Datagram {
      this.number = host.openDatagram(port);
      datagrams[this.number] = this;
      return this;
    }

    send(data: unknown, ...place: unknown[]): void {
      if (this.number < 0) this.bind(0);
      // send(data, offset, length, port, address) is the other form there is.
      const [port, address] = place.length > 2 ? [place[2], place[3]] : place;
      let text = asText(data);
      if (place.length > 2) text = text.substr(place[0] as number, place[1] as number);
      host.sendDatagram(this.number, text, port as number, address as string);
    }

    close(): void {
      if (this.number < 0) return;
      host.closeDatagram(this.number);
      delete datagrams[this.number];
      this.number = -1;
      this.emit("close", false);
    }
  }

  const acceptors: Record<number, (socket: Socket) => void> = {};
  const sockets: Record<number, Socket> = {};
  const datagrams: Record<number, Datagram> = {};

  function createServer(accept: (socket: Socket) => void): object {
    const numbers: number[] = [];
    return {
      listen: (port: number): void => {
        const number = host.listen(port);
        numbers.push(number);
        acceptors[number] = accept;
      },
      close: (): void => {
        for (let i = 0; i < numbers.length; i++) {
          host.unlisten(numbers[i]!);
          delete acceptors[numbers[i]!];
        }
        numbers.length = 0;
      },
    };
  }

  // --- texts and bytes ---

  /** As the engine makes text of whatever is written. */
  function asText(data: unknown): string {
    if (typeof data === "string") return data;
    if (data instanceof ArrayBuffer) return host.bytesToText(new Uint8Array(data));
    if (ArrayBuffer.isView(data)) {
      return host.bytesToText(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
    return String(data);
  }

  // --- storage ---

  const storage = {
    read: (name: string, offset?: number, length?: number): string | undefined => {
      if (!host.storageHas(name)) return undefined;
      const text = host.storageRead(name);
      if (offset === undefined) return text;
      return length === undefined ? text.substr(offset) : text.substr(offset, length);
    },
    readJSON: (name: string): unknown => {
      if (!host.storageHas(name)) return undefined;
      return JSON.parse(host.storageRead(name));
    },
    readArrayBuffer: (name: string): ArrayBuffer | undefined =>
      host.storageHas(name) ? host.textToBytes(host.storageRead(name)) : undefined,
    write: (name: string, data: unknown, offset?: number, size?: number): boolean => {
      const text = asText(data);
      const at = offset === undefined ? 0 : offset;
      host.storageWrite(name, text, at, size === undefined ? 0 : size);
      return true;
    },
    writeJSON: (name: string, data: unknown): boolean => storage.write(name, JSON.stringify(data)),
    erase: (name: string): void => host.storageErase(name),
    getFree: (): number => host.storageFree(),
    compact: (): void => host.storageCompact(),
    list: (): string[] => {
      const names = host.storageNames();
      return names === "" ? [] : names.split("\n");
    },
  };

  const modules: Record<string, unknown> = {
    net: { createServer },
    dgram: { createSocket: () => new Datagram() },
    Storage: storage,
    crypto: {
      SHA256: (data: unknown) => host.sha256(new Uint8Array(host.textToBytes(asText(data)))),
    },
  };

  // --- serial devices and the interpreter's console ---

  /** Longer lines are nobody's typing. @unit characters */
  const LINE_MAX = 1000;

  class Serial extends Emitter {
    readonly name: string;

    constructor(name: string) {
      super();
      this.name = name;
    }

    setup(baud: number, options?: { path?: string }): void {
      const path = options === undefined ? undefined : options.path;
      host.serialSetup(this.name, baud, path === undefined ? "" : path);
    }

    write(data: unknown): void {
      host.serialWrite(this.name, asText(data));
    }

    print(data: unknown): void {
      this.write(data);
    }

    println(data: unknown): void {
      this.write(asText(data) + "\r\n");
    }

    setConsole(_force?: boolean): void {
      takeConsole(this);
    }
  }

  const serials: Serial[] = [];
  for (const name of [
    "USB",
    "Serial1",
    "Serial2",
    "Serial3",
    "Serial4",
    "LoopbackA",
    "LoopbackB",
  ]) {
    const made = new Serial(name);
    serials.push(made);
    world[name] = made;
  }
  /** The device on which the interpreter itself talks. */
  let console: Serial = serials[0]!;
  let line = "";

  function takeConsole(device: Serial): void {
    console = device;
    line = "";
  }

  function show(value: unknown): string {
    if (typeof value === "object" && value !== null) return JSON.stringify(value);
    return String(value);
  }

  /** The interpreter's own prompt, as much of it as serves to look at a board from inside. */
  function onTyped(device: Serial, text: string): void {
    for (let i = 0; i < text.length; i++) {
      const character = text[i]!;
      if (character === "\x03") {
        line = "";
        device.write("\r\n>");
      } else if (character === "\r" || character === "\n") {
        const whole = line.trim();
        line = "";
        device.write("\r\n");
        if (whole !== "") {
          try {
            device.write("=" + show(evaluate(whole)) + "\r\n");
          } catch (error) {
            if (isOutOfMemory(error)) throw error;
            device.write("Uncaught " + error + "\r\n");
          }
        }
        device.write(">");
      } else if (line.length < LINE_MAX) {
        line += character;
        device.write(character);
      }
    }
  }

  // --- pins ---

  class Pin extends Emitter {
    readonly name: string;

    constructor(name: string) {
      super();
      this.name = name;
    }

    write(value: unknown): void {
      host.pinWrite(this.name, Boolean(value));
    }

    set(): void {
      this.write(true);
    }

    reset(): void {
      this.write(false);
    }

    read(): boolean {
      return host.pinRead(this.name);
    }

    mode(): void {}

    override toString(): string {
      return this.name;
    }
  }

  const watches: { pin: Pin; run: Listener; edge: string; repeat: boolean; id: number }[] = [];
  let lastWatch = 0;
  for (const bank of ["A", "B", "C", "D"]) {
    for (let i = 0; i < 32; i++) world[bank + i] = new Pin(bank + i);
  }

  world["digitalWrite"] = (pin: Pin, value: unknown) => pin.write(value);
  world["digitalRead"] = (pin: Pin) => (pin.read() ? 1 : 0);
  world["pinMode"] = (): void => undefined;
  world["setWatch"] = (
    run: Listener,
    pin: Pin,
    options?: { edge?: string; repeat?: boolean },
  ): number => {
    lastWatch++;
    watches.push({
      pin,
      run,
      edge: options?.edge ?? "both",
      repeat: options?.repeat === true,
      id: lastWatch,
    });
    return lastWatch;
  };
  world["clearWatch"] = (id: number): void => {
    const at = watches.findIndex((watch) => watch.id === id);
    if (at >= 0) watches.splice(at, 1);
  };

  function onPin(name: string, state: boolean): void {
    const edge = state ? "rising" : "falling";
    for (const watch of watches.slice()) {
      if (watch.pin.name !== name || (watch.edge !== "both" && watch.edge !== edge)) continue;
      if (!watch.repeat) watches.splice(watches.indexOf(watch), 1);
      guarded(() => watch.run({ state, time: host.now(), pin: watch.pin }));
    }
  }

  /** The engine's views begin at any byte; the language's own only where a word does. */
  class LooseInt32 {
    [index: number]: number;
    readonly buffer: ArrayBuffer;

    constructor(buffer: ArrayBuffer, at: number, length: number) {
      this.buffer = buffer;
      const view = new DataView(buffer);
      for (let i = 0; i < length; i++) {
        const place = at + 4 * i;
        Object.defineProperty(this, i, {
          get: () => (place + 4 > buffer.byteLength ? 0 : view.getInt32(place, true)),
          set: (word: number) => view.setInt32(place, word, true),
        });
      }
    }
  }

  const OwnInt32 = Int32Array;
  const Int32 = function (from: number | ArrayBuffer, at?: number, length?: number): unknown {
    if (typeof from === "number" || at === undefined || length === undefined) {
      return new OwnInt32(from as ArrayBuffer);
    }
    const isWhole = at % 4 === 0 && at + 4 * length <= from.byteLength;
    return isWhole ? new OwnInt32(from, at, length) : new LooseInt32(from, at, length);
  };

  // --- the globals ---

  world["Int32Array"] = Int32;

  world["global"] = world;
  world["E"] = E;
  world["process"] = processObject;
  world["require"] = (name: string): unknown => {
    const found = modules[name];
    if (found === undefined) throw new Error("Module " + name + " not found");
    return found;
  };
  world["getTime"] = () => host.now();
  world["getSerial"] = () => host.serialNumber();
  world["print"] = (...values: unknown[]) => host.print(values.map(show).join(" ") + "\n");
  world["console"] = { log: world["print"] };
  world["setTimeout"] = (run: Listener, ms: number, ...values: unknown[]) =>
    addTimer(run, ms, 0, values);
  world["setInterval"] = (run: Listener, ms: number, ...values: unknown[]) =>
    // The engine has no shorter one.
    addTimer(run, ms, ms > 1 ? ms : 1, values);
  world["clearTimeout"] = dropTimer;
  world["clearInterval"] = dropTimer;

  (E as Record<string, unknown>)["toString"] = (data: unknown): string => {
    const text = asText(data);
    // A text of its own, though one that was looked at and changed since may have begun with the same bytes.
    if (views.some((view) => view.text === text)) viewOf(text);
    return text;
  };
  E["toArrayBuffer"] = viewOf;
  E["toUint8Array"] = (data: unknown) => new Uint8Array(host.textToBytes(asText(data)));
  E["CRC32"] = (data: unknown) => host.crc32(new Uint8Array(host.textToBytes(asText(data))));
  let isKickedByItself = false;
  E["enableWatchdog"] = (seconds: number, isAuto?: boolean): void => {
    isKickedByItself = isAuto !== false;
    host.watchdog(seconds);
  };
  E["kickWatchdog"] = () => host.kick();
  E["reboot"] = () => host.reboot();
  E["getErrorFlags"] = () => [];
  E["hwRand"] = () => 0;
  processObject["memory"] = () => {
    const used = Math.ceil(host.memoryUsed() / BLOCK_BYTES);
    const total = Math.floor(host.memoryTotal() / BLOCK_BYTES);
    return { free: total - used, usage: used, total, history: 0, blocksize: BLOCK_BYTES };
  };
  processObject["env"] = { BOARD: "VIRTUAL", SERIAL: host.serialNumber() };

  /** Firmware is run as the engine does at boot: .boot0 to .boot3, then .bootcde. */
  function boot(): void {
    for (const name of [".boot0", ".boot1", ".boot2", ".boot3"]) {
      if (host.storageHas(name)) guarded(() => evaluate(host.storageRead(name)));
    }
  }

  return (kind, number, text, port, address) => {
    views = [];
    if (isKickedByItself) host.kick();
    // The numbers of EVENT_*, which this function cannot see where it runs.
    switch (kind) {
      case 0:
        runTimers();
        break;
      case 1: {
        const socket = new Socket(number);
        sockets[number] = socket;
        const accept = acceptors[port];
        if (accept === undefined) host.abort(number);
        else guarded(() => accept(socket));
        break;
      }
      case 2:
        guarded(() => sockets[number]?.emit("data", text));
        break;
      case 3:
        guarded(() => {
          const socket = sockets[number];
          if (socket === undefined) return;
          socket.dSnd = "";
          socket.emit("drain");
        });
        break;
      case 4: {
        const socket = sockets[number];
        if (socket === undefined) break;
        delete sockets[number];
        socket.closed();
        if (text !== "") guarded(() => socket.emit("error", { code: -1, message: text }));
        guarded(() => socket.emit("close", text !== ""));
        break;
      }
      case 5:
        guarded(() =>
          datagrams[number]?.emit("message", text, { address, port, size: text.length }),
        );
        break;
      case 6: {
        const device = serials.find((one) => one.name === address);
        if (device === undefined) break;
        if (device === console) onTyped(device, text);
        guarded(() => device.emit("data", text));
        break;
      }
      case 7:
        E.emit("errorFlag", text.split(" "));
        break;
      case 8:
        boot();
        break;
      case 9:
        onPin(text, number !== 0);
        break;
      default:
    }
    return nextDue();
  };
}
