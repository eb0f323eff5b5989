/**
 * The official Espruino tool (npm package `espruino`), as a library, on a port of ours.
 *
 * Of it the code that writes a file into Storage is used, and its connection, which heeds XON and XOFF. Each line waits
 * for its own answer, so nothing is sent that the board has no room for, at any speed; a piece brings its check sum, so
 * what a line has lost or damaged is not written, and sent again. (The tool's packets do the same
 * with a time limit in the board's own timers; with a firmware running they were refused after a while.) Its
 * serial and Bluetooth parts are neither installed nor loaded (docs/adr/0010-espruino-tool.md).
 */
import { createRequire } from "node:module";
import { crc32 } from "node:zlib";
import { openBoardPort, placeText } from "./board-port.js";
import type { BoardPort, PortPlace } from "./board-port.js";
import { Failure } from "./failure.js";

/** The parts of the tool that are used; it has no types for them. */
interface ToolConnection {
  /** Characters handed over at a time. */
  chunkSize: number;
  write(text: string): Promise<void>;
}

interface ToolDevice {
  name: string;
  getPorts(done: (ports: { path: string }[], instant: boolean) => void): void;
  open(
    path: string,
    onOpen: (info: object | undefined) => void,
    onData: (bytes: ArrayBuffer) => void,
    onClosed: () => void,
  ): void;
  write(data: string, done: () => void): void;
  close(): void;
}

interface Tool {
  Config: Record<string, unknown>;
  Core: {
    Serial: {
      devices: ToolDevice[];
      connection: ToolConnection;
      open(path: string, onOpen: (info: unknown) => void, onClosed: () => void): void;
      startListening(listener: (bytes: ArrayBuffer) => void): void;
      setSlowWrite(on: boolean, force: boolean): void;
      close(): void;
    };
    Utils: {
      /** One line of code for each piece of the file. */
      getUploadFileCode(name: string, content: string): string;
    };
  };
}

const PATH = "dyad";
const OPEN_MS = 10_000;
const ANSWER_MS = 10_000;
/** A line that is not answered, or arrives damaged, is sent so often. */
const TRIES = 3;
/** Between a Ctrl-C, which empties the line that the interpreter has so far, and what comes next. @unit ms */
const CTRL_C_MS = 500;
const CTRL_C = "\x03";
/** One line of the tool's code: the call up to its content, the content, and the rest. */
const PIECE = /^(require\("Storage"\)\.write\("[^"]*",)atob\("([^"]*)"\)(,\d+(?:,\d+)?\))$/;
/** What a piece answers that arrived otherwise than it was sent. */
const DAMAGED = "damaged";
/** The engine does not echo a line that begins with it. */
const NO_ECHO = "\x10";
/** A line is at most a little longer. @unit characters */
const CHUNK = 512;
/** What has come since the question, at most. @unit characters */
const HEARD_MAX = 8192;
/** Nobody to talk to. */
const EXIT_NOBODY = 2;

/** A question that was perhaps never heard, or not as it was asked. */
class Unheard extends Failure {}

let loaded: Promise<Tool> | undefined;

/** The tool prints much, at any time; what it prints is for its own users. */
function mute(): void {
  console.log = console.warn = console.error = () => undefined;
}

function load(): Promise<Tool> {
  loaded ??= (async () => {
    mute();
    let module: { init(done: () => void): void };
    try {
      module = createRequire(import.meta.url)("espruino") as typeof module;
    } catch (error) {
      throw new Failure(
        `The espruino package cannot be loaded (${(error as Error).message}). npm ci installs it.`,
      );
    }
    await new Promise<void>((done) => module.init(done));
    const tool = (globalThis as unknown as { Espruino: Tool }).Espruino;
    // What it would ask a board by itself on connecting is asked here, in packets.
    tool.Config["ENV_ON_CONNECT"] = false;
    return tool;
  })();
  return loaded;
}

function bytesOf(text: string): ArrayBuffer {
  return new Uint8Array(Buffer.from(text, "latin1")).buffer;
}

/** One open port, with the tool on it. One at a time, for the tool has but one connection. */
export class EspruinoTool {
  private isOpen = true;
  private waiting: { onText: () => void; reject: (error: Failure) => void } | undefined;
  private heard = "";
  private questions = 0;

  private constructor(
    private readonly name: string,
    private readonly tool: Tool,
  ) {}

  /**
   * @param onText all that comes
   * @throws Failure when the port cannot be had
   */
  static async open(
    place: PortPlace,
    baud: number,
    onText: (text: string) => void = () => undefined,
  ): Promise<EspruinoTool> {
    const tool = await load();
    const self = new EspruinoTool(placeText(place), tool);
    let port: BoardPort | undefined;
    let refused: unknown;
    const device: ToolDevice = {
      name: PATH,
      getPorts: (done) => done([{ path: PATH }], true),
      open: (_path, onOpen, onData, onClosed) => {
        openBoardPort(place, baud, {
          onText: (text) => onData(bytesOf(text)),
          onClosed: (reason) => {
            self.waiting?.reject(new Failure(reason, EXIT_NOBODY));
            onClosed();
          },
        }).then(
          (opened) => {
            port = opened;
            onOpen({});
          },
          (error: unknown) => {
            refused = error;
            onOpen(undefined);
          },
        );
      },
      write: (data, done) => {
        port?.write(data);
        done();
      },
      close: () => port?.close(),
    };
    const { Serial } = tool.Core;
    Serial.devices.splice(0, Serial.devices.length, device);
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Failure(`${self.name} could not be opened in time.`, EXIT_NOBODY)),
        OPEN_MS,
      );
      Serial.open(
        PATH,
        (info) => {
          clearTimeout(timer);
          if (info !== undefined) resolve();
          else reject(refused);
        },
        () => undefined,
      );
    });
    Serial.setSlowWrite(false, true);
    Serial.connection.chunkSize = CHUNK;
    Serial.startListening((bytes) => {
      const text = Buffer.from(bytes).toString("latin1");
      self.onText(text);
      onText(text);
    });
    // What somebody may have begun to type there.
    await Serial.connection.write("\n");
    return self;
  }

  private onText(text: string): void {
    this.heard = (this.heard + text).slice(-HEARD_MAX);
    this.waiting?.onText();
  }

  /**
   * The value of an expression as the engine prints it. The line may lose it: then it is sent again, so it may be
   * evaluated twice, unless `tries` is 1.
   * @param timeoutMs for each try
   * @throws Failure when the board does not answer in time, or the expression fails there
   */
  async evaluate(expression: string, timeoutMs = ANSWER_MS, tries = TRIES): Promise<string> {
    for (let left = tries - 1; ; left--) {
      try {
        return await this.ask(expression, timeoutMs);
      } catch (error) {
        if (!(error instanceof Unheard) || left === 0) throw error;
      }
      await this.tool.Core.Serial.connection.write(CTRL_C);
      await new Promise((wake) => setTimeout(wake, CTRL_C_MS));
    }
  }

  private ask(expression: string, timeoutMs: number): Promise<string> {
    this.questions++;
    const mark = `<${this.questions}:`;
    const { connection } = this.tool.Core.Serial;
    this.heard = "";
    return new Promise<string>((resolve, reject) => {
      const done = (): void => {
        clearTimeout(timer);
        this.waiting = undefined;
      };
      const fail = (error: Failure): void => {
        done();
        reject(error);
      };
      const timer = setTimeout(
        () => fail(new Unheard(`The interpreter at ${this.name} does not answer.`, EXIT_NOBODY)),
        timeoutMs,
      );
      const onText = (): void => {
        const from = this.heard.indexOf(mark);
        const to = from < 0 ? -1 : this.heard.indexOf(">>", from);
        if (to >= 0) {
          done();
          resolve(this.heard.slice(from + mark.length, to));
        } else if (/Uncaught [^\r\n]*[\r\n]/.test(this.heard)) {
          const why = /Uncaught ([^\r\n]*)/.exec(this.heard)![1];
          fail(new Unheard(`The board could not do it (${why}): ${expression.slice(0, 80)}`));
        }
      };
      this.waiting = { onText, reject: fail };
      // The mark is put together there, so that an echo is not taken for it.
      void connection.write(`${NO_ECHO}print("<"+"${this.questions}:"+(${expression})+">"+">")\n`);
    });
  }

  /**
   * Writes a file into the board's Storage, in place of one of that name; the whole is not verified here.
   * @param onProgress bytes written so far
   * @throws Failure when a piece does not arrive, or there is no room for it
   */
  async upload(name: string, content: Buffer, onProgress: (bytes: number) => void): Promise<void> {
    const code = this.tool.Core.Utils.getUploadFileCode(name, content.toString("latin1"));
    const lines = code.split("\n");
    for (const [i, line] of lines.entries()) {
      const [, before, text, after] = PIECE.exec(line) as unknown as [
        string,
        string,
        string,
        string,
      ];
      const sum = crc32(Buffer.from(text, "base64"));
      const checked = `(d=>(E.CRC32(d)>>>0)==${sum}?${before}d${after}:"${DAMAGED}")(atob("${text}"))`;
      let answer = DAMAGED;
      for (let left = TRIES; left > 0 && answer === DAMAGED; left--)
        answer = await this.evaluate(checked);
      if (answer === DAMAGED) {
        throw new Failure(
          `Piece ${i + 1} of ${name} has arrived damaged ${TRIES} times: a lower speed (--baud), or a shorter cable.`,
        );
      }
      if (answer !== "true") {
        throw new Failure(`The board's Storage refused piece ${i + 1} of ${name}: has it room?`);
      }
      onProgress(Math.floor((content.length * (i + 1)) / lines.length));
    }
  }

  close(): void {
    this.waiting?.reject(new Failure("closed", EXIT_NOBODY));
    if (!this.isOpen) return;
    this.isOpen = false;
    this.tool.Core.Serial.close();
  }
}
