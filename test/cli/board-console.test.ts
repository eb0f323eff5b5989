/** `dyad console --port`: a board's console over TCP and a pseudo terminal, with boards of all manners. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { BoardConsole } from "../../client/cli/board-console.js";
import { parsePlace } from "../../client/cli/board-port.js";
import { Failure } from "../../client/cli/failure.js";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const hasSocat = spawnSync("socat", ["-V"]).status === 0;
if (!hasSocat)
  console.log("test/cli/board-console: pseudo terminals skipped, socat is not installed");

const undo: (() => void)[] = [];
afterEach(() => {
  for (const one of undo.splice(0).reverse()) one();
});

const STATUS = "both(a) epoch 5, serving\nwhy: power-on\na: primary\nb: standby, in sync";

/** How a board behaves at its line. */
interface Manners {
  echo: boolean;
  /** Said in the middle of every answer. */
  note?: string;
  answer(line: string): string;
}

/** A board at the end of a TCP bridge. Bytes leave in pieces, as they do from a UART. */
async function board(manners: Manners): Promise<{ port: number; heard: string[] }> {
  const heard: string[] = [];
  const server = createServer((socket: Socket) => {
    let pending = "";
    let out = Promise.resolve();
    const say = (text: string): void => {
      for (let at = 0; at < text.length; at += 7) {
        out = out.then(
          () => new Promise<void>((next) => socket.write(text.slice(at, at + 7), () => next())),
        );
      }
    };
    socket.on("error", () => undefined);
    undo.push(() => socket.destroy());
    socket.on("data", (data) => {
      for (const character of data.toString("latin1")) {
        if (character !== "\n") {
          pending += character;
          if (manners.echo) say(character);
          continue;
        }
        if (manners.echo) say("\r\n");
        const line = pending;
        pending = "";
        heard.push(line);
        const text = line.startsWith("//") ? "" : manners.answer(line);
        if (text === "") continue;
        const lines = text.split("\n");
        if (manners.note !== undefined) lines.splice(1, 0, manners.note);
        say(`${lines.join("\r\n")}\r\n`);
      }
    });
  });
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  undo.push(() => server.close());
  return { port: (server.address() as AddressInfo).port, heard };
}

const proper: Manners = {
  echo: true,
  answer: (line) => (line === "status" ? STATUS : line === "nothing" ? "" : `no ${line}`),
};

async function talk(
  place: string,
  answerMs?: number,
): Promise<{ to: BoardConsole; notes: string[] }> {
  const notes: string[] = [];
  const events = { onNote: (line: string) => notes.push(line), onClosed: () => undefined };
  const to = await BoardConsole.open(parsePlace(place), 9600, events, answerMs);
  undo.push(() => to.close());
  return { to, notes };
}

describe("where a board's console is", () => {
  test("devices and TCP bridges", () => {
    expect(parsePlace("/dev/ttyUSB0")).toEqual({ kind: "device", path: "/dev/ttyUSB0" });
    expect(parsePlace("pty/board")).toEqual({ kind: "device", path: "pty/board" });
    for (const text of ["10.0.0.7:23", "tcp:10.0.0.7:23", "tcp://10.0.0.7:23"]) {
      expect(parsePlace(text)).toEqual({ kind: "tcp", host: "10.0.0.7", port: 23 });
    }
    expect(parsePlace("[::1]:7000")).toEqual({ kind: "tcp", host: "::1", port: 7000 });
    for (const text of ["", "tcp:here", "here:0", "here:70000"]) {
      expect(() => parsePlace(text), text).toThrow(Failure);
    }
  });

  test("what is not there, or no serial device, is said so", async () => {
    await expect(talk("/dev/no-such-board")).rejects.toThrow(
      /There is no port \/dev\/no-such-board/,
    );
    const file = join(mkdtempSync(join(tmpdir(), "dyad-port-")), "file");
    undo.push(() => rmSync(dirname(file), { recursive: true }));
    writeFileSync(file, "");
    await expect(talk(file)).rejects.toThrow(/is no serial device/);
    const { port } = await board(proper);
    for (const one of undo.splice(0)) one();
    await expect(talk(`127.0.0.1:${port}`)).rejects.toThrow(/refuses connections/);
  });
});

describe("a conversation", () => {
  test("answers are told from echoes, empty answers and what the board says by itself", async () => {
    const { port } = await board(proper);
    const { to, notes } = await talk(`127.0.0.1:${port}`);
    expect(await to.ask("status")).toBe(STATUS);
    expect(await to.ask("nothing")).toBe("");
    expect(await to.ask("dance")).toBe("no dance");
    expect(await to.ask("status")).toBe(STATUS);
    expect(notes).toEqual([]);
  });

  test("a home that echoes nothing, and ends its answers with a dot", async () => {
    const { port } = await board({ echo: false, answer: (line) => `${proper.answer(line)}\n.` });
    const { to } = await talk(`127.0.0.1:${port}`);
    expect(await to.ask("status")).toBe(STATUS);
  });

  test("nobody at the other end", async () => {
    const server = createServer(() => undefined).listen(0, "127.0.0.1");
    await new Promise((ready) => server.once("listening", ready));
    undo.push(() => server.close());
    const { to } = await talk(`127.0.0.1:${(server.address() as AddressInfo).port}`, 300);
    await expect(to.ask("status")).rejects.toThrow(/Nothing answers.*--baud/);
  });

  test("the interpreter's own prompt is told from the firmware's console", async () => {
    const { port } = await board({
      echo: false,
      answer: (line) =>
        line === "//"
          ? ">//\n=undefined"
          : `>${line}\nUncaught ReferenceError: "${line}" is not defined`,
    });
    const { to } = await talk(`127.0.0.1:${port}`);
    await expect(to.ask("status")).rejects.toThrow(/interpreter's own prompt/);
  });
});

describe("dyad console --port", () => {
  beforeAll(() => {
    const built = spawnSync(process.execPath, [join(root, "bin/prepare.mjs")], {
      encoding: "utf8",
    });
    expect(built.status, built.stderr).toBe(0);
  }, 120_000);

  function dyadConsole(
    port: string,
    typed: string,
  ): Promise<{ code: number; out: string; err: string }> {
    const child: ChildProcess = spawn(
      process.execPath,
      [join(root, "bin", "dyad.mjs"), "console", "--port", port],
      { stdio: ["pipe", "pipe", "pipe"] },
    );
    undo.push(() => child.kill("SIGKILL"));
    let out = "";
    let err = "";
    child.stdout!.on("data", (data) => (out += String(data)));
    child.stderr!.on("data", (data) => (err += String(data)));
    child.stdin!.end(typed);
    return new Promise((ended) =>
      child.once("exit", (code) => ended({ code: code ?? -1, out, err })),
    );
  }

  test("lines in, answers out, over a TCP bridge", async () => {
    const { port, heard } = await board(proper);
    const result = await dyadConsole(`tcp:127.0.0.1:${port}`, "status\n\nnothing\nexit\nstatus\n");
    expect(result).toEqual({ code: 0, out: `${STATUS}\n`, err: "" });
    expect(heard.filter((line) => !line.startsWith("//"))).toEqual(["help", "status", "nothing"]);
  });

  test.runIf(hasSocat)("the same over a pseudo terminal", async () => {
    const { port } = await board(proper);
    const dir = mkdtempSync(join(tmpdir(), "dyad-pty-"));
    undo.push(() => rmSync(dir, { recursive: true, force: true }));
    const path = join(dir, "tty");
    const cable = spawn("socat", [`pty,raw,echo=0,link=${path}`, `tcp:127.0.0.1:${port}`]);
    undo.push(() => cable.kill("SIGKILL"));
    for (let count = 0; !existsSync(path) && count < 200; count++) {
      await new Promise((wake) => setTimeout(wake, 25));
    }
    const result = await dyadConsole(path, "status\n");
    expect(result).toEqual({ code: 0, out: `${STATUS}\n`, err: "" });
  });

  test("a board that goes away in the middle", async () => {
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => socket.destroy());
    }).listen(0, "127.0.0.1");
    await new Promise((ready) => server.once("listening", ready));
    undo.push(() => server.close());
    const port = (server.address() as AddressInfo).port;
    const result = await dyadConsole(`127.0.0.1:${port}`, "status\n");
    expect(result.code).toBe(2);
    expect(result.err).toContain("closed the connection");
  });
});
