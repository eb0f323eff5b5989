/** Holds a puppet's strings: asks it, and hears what its hardware does. */
import { connect } from "node:net";
import type { Socket } from "node:net";

const ANSWER_MS = 60_000;

export const sleep = (ms: number): Promise<void> => new Promise((wake) => setTimeout(wake, ms));

export class Puppeteer {
  /** What callbacks have said, oldest first. */
  events: string[] = [];
  private readonly answers = new Map<number, (text: string) => void>();
  private typed = "";
  private count = 0;

  private constructor(private readonly socket: Socket) {
    socket.setNoDelay(true);
    socket.on("error", () => undefined);
    socket.on("data", (data: Buffer) => {
      const lines = (this.typed + data.toString("latin1")).split("\n");
      this.typed = lines.pop()!;
      for (const line of lines) this.hear(line);
    });
  }

  private hear(line: string): void {
    if (line.startsWith("! ")) {
      this.events.push(line.slice(2));
      return;
    }
    const [, number, text] = /^= (\d+) (.*)$/.exec(line)!;
    this.answers.get(Number(number))?.(text!);
    this.answers.delete(Number(number));
  }

  /** Takes the strings of the puppet on a port, as soon as there is one. */
  static async take(port: number): Promise<Puppeteer> {
    for (let tries = 0; ; tries++) {
      const socket = connect(port, "127.0.0.1");
      const open = await new Promise<boolean>((done) => {
        socket.once("connect", () => done(true));
        socket.once("error", () => done(false));
      });
      if (open) {
        const one = new Puppeteer(socket);
        await one.until("the puppet", () => one.events.includes("up"));
        one.events = [];
        return one;
      }
      if (tries > 400) throw new Error("no puppet");
      await sleep(25);
    }
  }

  /** Has the puppet do something. @returns its answer */
  ask(command: string): Promise<string> {
    const number = ++this.count;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(
          new Error(`no answer to "${command}"; it said:\n${this.events.slice(-20).join("\n")}`),
        );
      }, ANSWER_MS);
      this.answers.set(number, (text) => {
        clearTimeout(timer);
        resolve(text);
      });
      this.socket.write(`${number} ${command}\n`, "latin1");
    });
  }

  async until(what: string, condition: () => boolean): Promise<void> {
    const end = performance.now() + ANSWER_MS;
    while (!condition()) {
      if (performance.now() > end) {
        throw new Error(`${what} did not come; it said:\n${this.events.slice(-20).join("\n")}`);
      }
      await sleep(5);
    }
  }

  /** Waits for an event that begins so. @returns the rest of it */
  async event(start: string): Promise<string> {
    let found: string | undefined;
    await this.until(`event "${start}"`, () => {
      found = this.events.find((text) => text === start || text.startsWith(`${start} `));
      return found !== undefined;
    });
    return found!.slice(start.length + 1);
  }

  /** All events that begin so. */
  all(start: string): string[] {
    return this.events
      .filter((text) => text === start || text.startsWith(`${start} `))
      .map((text) => text.slice(start.length + 1));
  }

  drop(): void {
    this.socket.destroy();
  }
}
