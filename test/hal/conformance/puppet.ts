/**
 * A program that does with its home's hardware what it is told, and says what the hardware does. It runs on every
 * home, engines included, and is written in the language that all of them have.
 *
 *     test ── "7 write 3 1000 5" ──> puppet ──> home's hardware
 *     test <── "= 7 1000" (answer), "! data 3 536 12345" (what a callback said)
 *
 * Its strings are TCP connections through the very HAL that is tried: a home on which bytes do not pass fails at once.
 */
import type {
  Console,
  Digital,
  DatagramSocket,
  Flash,
  Listener,
  PendingConnection,
  Serial,
  TcpSocket,
  Turns,
  Watchdog,
} from "../../../hal/hal.js";
import type { Home } from "./home.js";

/** Bytes that a socket which is not read from may hand over later; small, so that a bound is met soon. */
const READ_BYTES = 4096;
/** A flood stops when so much is pending. @unit bytes */
const FLOOD_PIECE = 8192;
const FLOOD_MS = 2;
/** Turns for which a backlog must have stood before it is called one. */
const FLOOD_TURNS = 25;
const PUMP_MS = 5;
const PUMP_TIMES = 40;

interface Line {
  socket: TcpSocket | undefined;
  echo: boolean;
  ended: boolean;
  seed: number;
}

/** Starts a puppet whose strings are on a port. `onUp` is called when they can be taken. */
export function startPuppet(home: Home, port: number, slots: number, onUp: () => void): void {
  const lines: Line[] = [];
  const datagrams: DatagramSocket[] = [];
  let control: TcpSocket | undefined = undefined;
  let flash: Flash | undefined = undefined;
  let serial: Serial | undefined = undefined;
  let terminal: Console | undefined = undefined;
  let watchdog: Watchdog | undefined = undefined;
  const pins: { [name: string]: Digital } = {};
  let turnsCalled = 0;
  /** Above 0 while a method of the hardware runs: a callback then is one from inside. */
  let inside = 0;

  function tell(text: string): void {
    const bytes = new Uint8Array(text.length + 1);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    bytes[text.length] = 10;
    if (control !== undefined) control.write(bytes);
  }

  function event(text: string): void {
    if (inside > 0) tell("! inside " + text);
    tell("! " + text);
  }

  const turns: Turns = home.hardware.createTurns({
    wake: () => event("woke " + Math.floor(turns.now())),
    endOfTurn: () => {
      turnsCalled++;
      event("turn " + turnsCalled);
    },
  });

  /** `count` bytes that go up by one from `seed`. */
  function pattern(seed: number, count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    const first = count < 256 ? count : 256;
    for (let i = 0; i < first; i++) bytes[i] = (seed + i) & 255;
    for (let at = 256; at < count; at *= 2) {
      const length = at < count - at ? at : count - at;
      bytes.set(bytes.subarray(0, length), at);
    }
    return bytes;
  }

  function hexOf(bytes: Uint8Array): string {
    let text = "";
    for (let i = 0; i < bytes.length; i++) {
      text += (bytes[i]! < 16 ? "0" : "") + bytes[i]!.toString(16);
    }
    return text === "" ? "-" : text;
  }

  function bytesOf(hex: string): Uint8Array {
    const text = hex === "-" ? "" : hex;
    const bytes = new Uint8Array(text.length >> 1);
    for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(text.substr(2 * i, 2), 16);
    return bytes;
  }

  function put(line: Line, bytes: Uint8Array): number {
    inside++;
    const pending = line.socket!.write(bytes);
    inside--;
    return pending;
  }

  function adopt(from: PendingConnection): void {
    const number = lines.length;
    const line: Line = { socket: undefined, echo: false, ended: false, seed: 0 };
    lines.push(line);
    line.socket = home.hardware.adopt({
      from: from,
      readBytes: READ_BYTES,
      onReadable: (count) => {
        const bytes = line.socket!.read();
        if (line.ended) event("late data " + number);
        if (bytes === undefined) {
          event("nothing " + number);
          return;
        }
        event("data " + number + " " + count + " " + home.crc32(bytes, 0, count));
        // Bytes of its own: those are lent.
        if (line.echo) put(line, bytes.slice(0, count));
      },
      onWritable: () => {
        if (line.ended) event("late writable " + number);
        event("writable " + number + " " + line.socket!.pending());
      },
      onError: (reason) => {
        if (line.ended) event("late error " + number);
        line.ended = true;
        event("error " + number + " " + (reason === "" ? "-" : reason));
      },
    });
    event("open " + number);
  }

  function listen(at: number, many: number, done: (text: string) => void): void {
    let listener: Listener | undefined = undefined;
    home.listen(
      {
        host: "127.0.0.1",
        port: at,
        slots: many,
        onReadable: () => {
          let from = listener!.read();
          while (from !== undefined) {
            adopt(from);
            from = listener!.read();
          }
        },
        onError: (reason) => event("accept " + reason),
      },
      (opened) => {
        listener = opened;
        done("" + opened.port);
      },
      (reason) => done("failed " + reason),
    );
  }

  /** Writes until a backlog stands, which is when the other side does not read. */
  function flood(line: Line, high: number, done: (text: string) => void): void {
    let written = 0;
    let stood = 0;
    function step(): void {
      if (line.ended) {
        done("" + written);
        return;
      }
      const pending = line.socket!.pending();
      stood = pending > high ? stood + 1 : 0;
      if (stood === FLOOD_TURNS) {
        done("" + written);
        return;
      }
      if (pending <= high) {
        const bytes = pattern(line.seed, FLOOD_PIECE);
        line.seed = (line.seed + FLOOD_PIECE) & 255;
        put(line, bytes);
        written += bytes.length;
      }
      setTimeout(step, FLOOD_MS);
    }
    step();
  }

  /** Writes for a while, whatever becomes of the connection. */
  function pump(line: Line, done: (text: string) => void): void {
    let times = 0;
    function step(): void {
      put(line, pattern(0, 100));
      times++;
      if (times < PUMP_TIMES) setTimeout(step, PUMP_MS);
      else done("pumped");
    }
    step();
  }

  function flashText(): string {
    const content = flash!.content;
    if (content.damage !== "") return "damage " + content.damage;
    return content.record === undefined ? "none" : hexOf(content.record);
  }

  function openSerial(device: string, baud: number): void {
    serial = home.openSerial!({
      device: device,
      baud: baud,
      onReadable: (count) => {
        const bytes = serial!.read();
        event("serial " + (bytes === undefined ? "nothing" : hexOf(bytes.subarray(0, count))));
      },
      onError: (reason) => event("serial-error " + reason),
    });
  }

  function onCommand(words: string[], done: (text: string) => void): void {
    const name = words[1]!;
    const first = words[2]!;
    const n = parseInt(first, 10);
    const m = parseInt(words[3]!, 10);
    const line = lines[n];
    if (name === "listen") listen(n, m, done);
    else if (name === "write") {
      const bytes = pattern(parseInt(words[4]!, 10), m);
      const pending = put(line!, bytes);
      done(pending + " " + line!.socket!.pending());
    } else if (name === "pending") done("" + line!.socket!.pending());
    else if (name === "flood") flood(line!, m, done);
    else if (name === "pump") pump(line!, done);
    else if (name === "echo") {
      line!.echo = true;
      done("ok");
    } else if (name === "reading" || name === "end" || name === "close") {
      inside++;
      if (name === "reading") line!.socket!.setReading(words[3] === "on");
      else if (name === "end") line!.socket!.end();
      else line!.socket!.close();
      inside--;
      done("ok");
    } else if (name === "write-close") {
      put(line!, pattern(0, m));
      inside++;
      line!.socket!.close();
      line!.socket!.close();
      inside--;
      done("ok");
    } else if (name === "udp") {
      const number = datagrams.length;
      datagrams.push(
        home.hardware.createDatagram({
          host: first,
          port: m,
          onReadable: (bytes) => event("datagram " + number + " " + hexOf(bytes)),
          onRefused: () => event("refused " + number),
        }),
      );
      done("" + number);
    } else if (name === "send") {
      inside++;
      datagrams[n]!.write(bytesOf(words[3]!));
      inside--;
      done("ok");
    } else if (name === "udp-close") {
      datagrams[n]!.close();
      datagrams[n]!.close();
      done("ok");
    } else if (name === "now") done("" + turns.now());
    else if (name === "wake") {
      for (let i = 2; i < words.length; i++) turns.wakeIn(parseInt(words[i]!, 10));
      done("" + Math.floor(turns.now()));
    } else if (name === "long-turn-wake") {
      const until = turns.now() + n;
      while (turns.now() < until);
      turns.wakeIn(m);
      done("" + Math.floor(turns.now()));
    } else if (name === "turn") {
      const before = turnsCalled;
      for (let i = 0; i < n; i++) turns.requestEndOfTurn();
      done("" + (turnsCalled - before));
    } else if (name === "hmac") {
      done(hexOf(home.hardware.hmac(bytesOf(first), bytesOf(words[3]!))));
    } else if (name === "crc32") {
      const bytes = bytesOf(first);
      done("" + home.crc32(bytes, 0, bytes.length));
    } else if (name === "flash-open") {
      if (flash !== undefined) flash.close();
      flash = home.openFlash();
      done(flashText());
    } else if (name === "flash-write") {
      let failure: string | undefined = undefined;
      let returned = false;
      flash!.write(bytesOf(first), (text) => {
        failure = text;
        if (!returned) event("inside flash");
        done(text === "" ? "written" : "failed " + text);
      });
      returned = true;
      if (words[3] === "twice") {
        try {
          flash!.write(bytesOf(first), () => undefined);
          event("flash took two");
        } catch (error) {
          event("flash " + (failure === undefined ? "one at a time" : "too late"));
        }
      }
    } else if (name === "serial-open") {
      openSerial(first, m);
      done("ok");
    } else if (name === "serial-write") {
      done(serial!.write(bytesOf(first)) ? "taken" : "full");
    } else if (name === "serial-close") {
      serial!.close();
      serial!.close();
      done("ok");
    } else if (name === "console-open") {
      terminal = home.openConsole!({ onLine: (text) => event("line " + text) });
      done("ok");
    } else if (name === "console-write") {
      let text = "";
      for (let i = 0; i < n; i++) text += "line " + i + " of the console\n";
      terminal!.write(text);
      done("ok");
    } else if (name === "watchdog") {
      watchdog = home.startWatchdog!();
      done("ok");
    } else if (name === "pin-open") {
      pins[first] = home.openDigital!({
        pin: first,
        mode: words[3] === "output" ? "output" : "input",
        initialValue: words[4] === "1" ? 1 : 0,
      });
      done("ok");
    } else if (name === "pin-write") {
      pins[first]!.write(words[3] === "1" ? 1 : 0);
      done("ok");
    } else if (name === "pin-read") {
      done("" + pins[first]!.read());
    } else if (name === "kick") {
      for (let i = 0; i < n; i++) watchdog!.kick();
      done("ok");
    } else done("unknown");
  }

  function obey(text: string): void {
    const words = text.split(" ");
    try {
      onCommand(words, (answer) => tell("= " + words[0]! + " " + answer));
    } catch (error) {
      tell("= " + words[0]! + " threw " + error);
    }
  }

  function takeControl(from: PendingConnection): void {
    let typed = "";
    const socket: TcpSocket = home.hardware.adopt({
      from: from,
      readBytes: 65536,
      onReadable: (count) => {
        const bytes = socket.read()!;
        for (let i = 0; i < count; i++) {
          if (bytes[i] === 10) {
            const whole = typed;
            typed = "";
            obey(whole);
          } else typed += String.fromCharCode(bytes[i]!);
        }
      },
      onWritable: () => undefined,
      onError: () => {
        if (control === socket) control = undefined;
      },
    });
    control = socket;
    tell("! up");
  }

  let strings: Listener | undefined = undefined;
  home.listen(
    {
      host: "127.0.0.1",
      port: port,
      slots: slots,
      onReadable: () => takeControl(strings!.read()!),
      onError: () => undefined,
    },
    (opened) => {
      strings = opened;
      onUp();
    },
    (reason) => {
      throw new Error(reason);
    },
  );
}
