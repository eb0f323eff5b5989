/**
 * The console of a board, through whatever its line is: one line out, the answer's lines back.
 *
 * A line has no end of an answer. So every question is followed by a remark (`//7`), which the firmware answers with
 * nothing but its echo (and the interpreter itself, should it be there, with no error): what comes between the two echoes is the answer. Where nothing is echoed an answer ends
 * when the line has been quiet for a while. Words that nobody asked for come in between as they come on the line.
 */
import { Failure } from "./failure.js";
import { openBoardPort, placeText } from "./board-port.js";
import type { BoardPort, PortPlace } from "./board-port.js";

/** Until the first byte of an answer. @unit ms */
const ANSWER_MS = 10_000;
/** A line that has said something and is quiet for so long has ended its answer. @unit ms */
const QUIET_MS = 1500;
/** Of a line that never ends. @unit characters */
const LINE_CHARS_MAX = 4096;
/** Colours and cursor movements of a terminal program at the other end. */
const ESCAPES = /\u001b\[[0-9;?]*[A-Za-z]/g;
/** What stands before an echo: the prompt of this program's own console, if that is what is at the other end. */
const PROMPT = "dyad> ";
const EXIT_NOBODY = 2;

interface Question {
  readonly line: string;
  readonly mark: string;
  readonly answer: string[];
  heard: boolean;
  echoed: boolean;
  readonly done: (failure: Failure | undefined) => void;
  timer: NodeJS.Timeout;
}

export interface BoardConsoleEvents {
  /** A line that answers nothing: what the board says by itself. */
  onNote(line: string): void;
  onClosed(reason: string): void;
}

/** The other end is the engine's own prompt. */
export class AtInterpreter extends Failure {}

const INTERPRETER_PROMPT = /^(>|=undefined|Uncaught )/;

/** One conversation with a board's console. */
export class BoardConsole {
  private port: BoardPort | undefined;
  private rest = "";
  private marks = 0;
  private question: Question | undefined;

  private constructor(
    private readonly name: string,
    private readonly events: BoardConsoleEvents,
    private readonly answerMs: number,
  ) {}

  /**
   * @param answerMs how long to wait for an answer's first byte
   * @throws Failure when the port cannot be had
   */
  static async open(
    place: PortPlace,
    baud: number,
    events: BoardConsoleEvents,
    answerMs = ANSWER_MS,
  ): Promise<BoardConsole> {
    const console = new BoardConsole(placeText(place), events, answerMs);
    console.port = await openBoardPort(place, baud, {
      onText: (text) => console.onText(text),
      onClosed: (reason) => console.onClosed(reason),
    });
    return console;
  }

  /**
   * Asks one line; one at a time.
   * @returns the answer's lines, "" for none
   * @throws Failure when nothing answers, or the other end is the interpreter itself
   */
  async ask(line: string): Promise<string> {
    if (this.question !== undefined) throw new Error("assertion failed: one question at a time");
    this.marks++;
    const mark = `//${this.marks}`;
    const answer: string[] = [];
    await new Promise<void>((resolve, reject) => {
      const done = (failure: Failure | undefined): void => {
        clearTimeout(this.question!.timer);
        this.question = undefined;
        if (failure === undefined) resolve();
        else reject(failure);
      };
      const timer = setTimeout(() => done(this.nobody()), this.answerMs);
      this.question = { line, mark, answer, heard: false, echoed: false, done, timer };
      this.port!.write(`${line}\n${mark}\n`);
    });
    if (answer.some((row) => INTERPRETER_PROMPT.test(row))) {
      throw new AtInterpreter(
        `At ${this.name} is the interpreter's own prompt, not Dyad's console: the board has no Dyad firmware ` +
          `(dyad flash), or Ctrl-C was typed there: E.reboot() starts the firmware again.\n${answer.join("\n")}`,
      );
    }
    return answer.join("\n");
  }

  /** Sends characters that are no line, such as Ctrl-C. */
  send(text: string): void {
    this.port?.write(text);
  }

  close(): void {
    this.question?.done(new Failure("closed", EXIT_NOBODY));
    this.port?.close();
    this.port = undefined;
  }

  private nobody(): Failure {
    return new Failure(
      `Nothing answers at ${this.name}. Is it the line of the board's console, and is the speed right (--baud)?`,
      EXIT_NOBODY,
    );
  }

  private onClosed(reason: string): void {
    this.port = undefined;
    this.question?.done(new Failure(reason, EXIT_NOBODY));
    this.events.onClosed(reason);
  }

  private onText(text: string): void {
    const { question } = this;
    if (question !== undefined) {
      question.heard = true;
      clearTimeout(question.timer);
      question.timer = setTimeout(() => question.done(undefined), QUIET_MS);
    }
    const lines = (this.rest + text).split(/\r\n|\n|\r/);
    this.rest = lines.pop()!;
    if (this.rest.length > LINE_CHARS_MAX) {
      lines.push(this.rest);
      this.rest = "";
    }
    for (const line of lines) this.onLine(line.replace(ESCAPES, ""));
  }

  private onLine(whole: string): void {
    let line = whole.trimEnd();
    while (line.startsWith(PROMPT)) line = line.slice(PROMPT.length);
    const { question } = this;
    if (question === undefined) {
      if (line !== "" && line !== "." && !/^>?\/\/\d*$/.test(line)) this.events.onNote(line);
    } else if (line === question.mark || line === `>${question.mark}`) {
      question.done(undefined);
    } else if (!question.echoed && line === question.line) {
      // What came before the echo was no answer.
      question.echoed = true;
      for (const row of question.answer.splice(0)) this.events.onNote(row);
    } else if (line !== "" && line !== ".") {
      question.answer.push(line);
    }
  }
}
