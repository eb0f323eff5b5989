/**
 * The console on IoT.js, which has no standard input: a serial device, or a port of this machine alone that behaves
 * like one (it echoes, and knows backspace). What the controller says by itself goes to standard output as well.
 */
import type { Console, ConsoleOptions, Listener, TcpSocket } from "../hal.js";
import { bufferOf } from "./bytes.js";
import type { EngineFs } from "./engine.js";
import { openSerial } from "./serial.js";
import { adoptTcp, listenTcp } from "./tcp.js";

declare const engineRequire: (name: string) => unknown;

const LOOPBACK = "127.0.0.1";
const TCP_PREFIX = "tcp:";
const STDOUT = 1;
/** Longer lines are nobody's typing. @unit characters */
const LINE_MAX = 200;
/** Text that may wait for whoever reads it. @unit bytes */
const WAITING_BYTES_MAX = 32768;
const VISITORS_MAX = 4;
const CR = 13;
const LF = 10;
const BACKSPACE = 8;
const DELETE = 127;
const DROPPED = "... (more was said than this line could take)\r\n";

/** One end at which a person sits. */
interface Terminal {
  /** @returns false when there is no room */
  write(bytes: Uint8Array): boolean;
}

function textBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    bytes[i] = code < 128 ? code : 63;
  }
  return bytes;
}

/** Makes lines of what is typed at a terminal. */
function createTyping(terminal: Terminal, onLine: (line: string) => void) {
  let line = "";

  function onByte(byte: number): void {
    if (byte === CR || byte === LF) {
      const whole = line;
      line = "";
      terminal.write(textBytes("\r\n"));
      if (whole !== "") onLine(whole);
    } else if (byte === BACKSPACE || byte === DELETE) {
      line = line.substring(0, line.length - 1);
      terminal.write(textBytes("\b \b"));
    } else if (byte >= 32 && line.length < LINE_MAX) {
      const character = String.fromCharCode(byte);
      line += character;
      terminal.write(textBytes(character));
    }
  }

  return (bytes: Uint8Array): void => {
    // An answer may end what lends these bytes.
    const own = bytes.slice();
    for (let i = 0; i < own.length; i++) onByte(own[i]!);
  };
}

/** Standard output, in the engine's threads: a reader that does not read holds up nobody. */
function openOutput(): Terminal {
  const fs = engineRequire("fs") as EngineFs;
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  let sending = false;

  function send(): void {
    if (sending || waitingBytes === 0) return;
    const whole = new Uint8Array(waitingBytes);
    let at = 0;
    for (let i = 0; i < waiting.length; i++) {
      whole.set(waiting[i]!, at);
      at += waiting[i]!.length;
    }
    waiting = [];
    waitingBytes = 0;
    sending = true;
    fs.write(STDOUT, bufferOf(whole, whole.length), 0, whole.length, null, () => {
      sending = false;
      send();
    });
  }

  return {
    write: (bytes) => {
      if (bytes.length === 0) return true;
      if (waitingBytes + bytes.length > WAITING_BYTES_MAX) return false;
      waiting.push(bytes);
      waitingBytes += bytes.length;
      send();
      return true;
    },
  };
}

/**
 * Opens the console.
 * @param device "tcp:PORT", or a serial device's path (serial.ts says how it must be made ready)
 * @param onNoPort called later, when the port cannot be had: what is said then goes to standard output alone
 */
export function openConsole(
  device: string,
  options: ConsoleOptions,
  onNoPort: (reason: string) => void,
): Console {
  const terminals: Terminal[] = [openOutput()];
  /** Of each terminal: it has missed something. */
  const behind: boolean[] = [false];
  let visitors = 0;
  let close = (): void => undefined;

  function tell(i: number, bytes: Uint8Array): void {
    if (behind[i]) behind[i] = !terminals[i]!.write(textBytes(DROPPED));
    if (!behind[i]) behind[i] = !terminals[i]!.write(bytes);
  }

  function leave(terminal: Terminal): void {
    const i = terminals.indexOf(terminal);
    if (i < 0) return;
    terminals.splice(i, 1);
    behind.splice(i, 1);
    visitors--;
  }

  function enter(listener: Listener): void {
    const from = listener.read()!;
    let hear: (bytes: Uint8Array) => void = () => undefined;
    const socket: TcpSocket = adoptTcp({
      from: from,
      readBytes: LINE_MAX,
      onReadable: () => hear(socket.read()!),
      onWritable: () => undefined,
      onError: () => leave(terminal),
    });
    const terminal: Terminal = {
      write: (bytes) => {
        if (socket.pending() + bytes.length > WAITING_BYTES_MAX) return false;
        socket.write(bytes);
        return true;
      },
    };
    if (visitors === VISITORS_MAX) {
      terminal.write(textBytes("too many are here already\r\n"));
      socket.end();
      return;
    }
    visitors++;
    terminals.push(terminal);
    behind.push(false);
    hear = createTyping(terminal, options.onLine);
  }

  if (device.substring(0, TCP_PREFIX.length) === TCP_PREFIX) {
    try {
      const listener: Listener = listenTcp({
        host: LOOPBACK,
        port: parseInt(device.substring(TCP_PREFIX.length), 10),
        onReadable: () => enter(listener),
        onError: () => undefined,
      });
      close = () => listener.close();
    } catch (error) {
      const reason = "" + error;
      setTimeout(() => onNoPort(reason), 0);
    }
  } else {
    let hear: (bytes: Uint8Array) => void = () => undefined;
    const line = openSerial({
      device: device,
      baud: 0,
      onReadable: () => hear(line.read()!),
      onError: (reason) => tell(0, textBytes("console " + reason + "\r\n")),
    });
    const terminal: Terminal = { write: (bytes) => line.write(bytes) };
    hear = createTyping(terminal, options.onLine);
    terminals.push(terminal);
    behind.push(false);
    close = () => line.close();
  }
  return {
    write: (text) => {
      const bytes = textBytes(text.split("\n").join("\r\n"));
      for (let i = 0; i < terminals.length; i++) tell(i, bytes);
    },
    close: () => close(),
  };
}
