/**
 * The serial console of a chip that is a process of this machine, shared by people and programs.
 *
 *     person types ───────────────┐                    ┌──> shown to everybody, line by line
 *     program asks ─> its turn ───┴─> chip ─> lines ───┤
 *                                                      └──> what lies between a question's echo and its mark: its answer
 *
 * A line has no end of an answer. So a program's question is followed by a remark (`//7`), which the firmware answers with
 * nothing but its echo. A question may be lost, and only asks: then it is asked again.
 */

/** @unit ms */
const ANSWER_MS = 2000;
const TRIES = 2;
/** Programs that wait for an answer. */
const WAITING_MAX = 32;
/** Of a line that never ends. @unit characters */
const LINE_CHARS_MAX = 16384;
const CTRL_C = "\x03";
/** Cursor movements of the interpreter's own prompt. */
const ESCAPES = /\u001b\[[0-9;?]*[A-Za-z]|\r/g;
/** Lines that change nothing, so that they can be asked twice. */
const ASKS = /^(status|servers|events|log|explain|config|memory|flash|help)( |$)/;

interface Question {
  line: string;
  mark: string;
  answer: string[];
  echoed: boolean;
  triesLeft: number;
  done(answer: string): void;
  failed(error: Error): void;
}

export interface ChipConsole {
  /** What has come from the chip. */
  hear(text: string): void;
  /** A person's line; its answer is shown like all that the chip says. */
  type(line: string): void;
  /**
   * A program's line, which is not shown.
   * @returns the answer's lines @throws when the chip does not answer
   */
  ask(line: string): Promise<string>;
  /** The chip begins anew: what it was asked is forgotten there. */
  restart(): void;
}

/**
 * @param send puts characters on the chip's line
 * @param show hears each whole line that answers no program
 */
export function createChipConsole(
  send: (text: string) => void,
  show: (line: string) => void,
): ChipConsole {
  let rest = "";
  let marks = 0;
  /** A person has the engine's own prompt: a question would be run there. */
  let atPrompt = false;
  let open: Question | undefined;
  let timer: NodeJS.Timeout | undefined;
  let lastAsked = "";
  const waiting: Question[] = [];

  function end(act: (question: Question) => void): void {
    const question = open!;
    open = undefined;
    clearTimeout(timer);
    act(question);
    next();
  }

  function next(): void {
    if (open !== undefined) return;
    open = waiting.shift();
    if (open !== undefined) put(open);
  }

  function put(question: Question): void {
    marks++;
    question.mark = `//${marks}`;
    question.triesLeft--;
    lastAsked = question.line;
    timer = setTimeout(() => {
      if (question.triesLeft > 0) put(question);
      else end(({ failed }) => failed(new Error("the chip does not answer")));
    }, ANSWER_MS);
    send(`${question.line}\n${question.mark}\n`);
  }

  /** Whether it belongs to a question that was given up, or is a mark. */
  function isLate(line: string): boolean {
    return /^\/\/\d+$/.test(line) || line === lastAsked || line.startsWith('{"');
  }

  function onLine(line: string): void {
    if (open === undefined) {
      if (line !== "" && !isLate(line)) show(line);
    } else if (line === open.mark) {
      end(({ answer, done }) => done(answer.join("\n")));
    } else if (line === open.line) {
      // Of a question that was asked twice both answers come.
      open.echoed = true;
      open.answer = [];
    } else if (open.echoed && (!open.line.endsWith(" json") || line.startsWith("{"))) {
      if (!/^\/\/\d+$/.test(line)) open.answer.push(line);
    } else if (line !== "" && !isLate(line)) {
      // Said by itself, in between.
      show(line);
    }
  }

  return {
    hear(text) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      if (rest.length > LINE_CHARS_MAX) {
        lines.push(rest);
        rest = "";
      }
      // Whole lines: a movement may come in two pieces.
      for (const line of lines) onLine(line.replace(ESCAPES, ""));
    },
    type(line) {
      if (line.includes(CTRL_C)) atPrompt = true;
      send(`${line}\n`);
    },
    ask: (line) =>
      new Promise((done, failed) => {
        if (atPrompt) {
          failed(new Error("somebody is at the interpreter's own prompt (E.reboot() ends that)"));
          return;
        }
        if (waiting.length === WAITING_MAX) {
          failed(new Error("too many questions wait for the chip"));
          return;
        }
        const triesLeft = ASKS.test(line) ? TRIES : 1;
        waiting.push({ line, mark: "", answer: [], echoed: false, triesLeft, done, failed });
        next();
      }),
    restart() {
      rest = "";
      atPrompt = false;
      if (open !== undefined) end(({ failed }) => failed(new Error("the chip is restarting")));
    },
  };
}
