import { createSocket } from "node:dgram";
import { mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { AgentCore } from "../../agent/core/ports.js";
import { exitForReason, EXIT_DISK, EXIT_FAULT, EXIT_PORT, portFailure } from "../../agent/exit.js";
import { LoadProbe, parseCpuList, parseCpuTimes } from "../../agent/load-probe.js";
import { LocalControl } from "../../agent/local-control.js";
import { PollPort } from "../../agent/poll-port.js";
import { writeSetAside } from "../../agent/set-aside.js";
import { Turn } from "../../agent/turn.js";
import { askNode, NotReachable } from "../../client/cli/ask-node.js";

function freshDir(): string {
  return mkdtempSync(join(tmpdir(), "dyad-shell-"));
}

describe("P1: the load probe", () => {
  test("counts only the CPUs the process may run on", () => {
    const text = [
      "cpu  100 0 100 800 0 0 0 0 0 0",
      "cpu0 90 0 0 10 0 0 0 0 0 0",
      "cpu1 10 0 20 60 10 0 0 0 0 0",
      "cpu10 1 1 1 1 1 1 1 1 0 0",
      "procs_running 7",
    ].join("\n");
    expect(parseCpuTimes(text, [0])).toEqual({ busy: 90, total: 100, runQueue: 7 });
    expect(parseCpuTimes(text, [1])).toEqual({ busy: 30, total: 100, runQueue: 7 });
    expect(parseCpuTimes(text, [0, 1])).toEqual({ busy: 120, total: 200, runQueue: 7 });
  });

  test("reads a list of CPUs", () => {
    expect(parseCpuList("0-2,5")).toEqual([0, 1, 2, 5]);
    expect(parseCpuList("3\n")).toEqual([3]);
    expect(parseCpuList("")).toEqual([]);
  });

  test("a busy loop is seen, within its range", () => {
    const probe = new LoadProbe();
    probe.read(0);
    const until = Date.now() + 60;
    while (Date.now() < until);
    const sample = probe.read(1000);
    probe.close();
    for (const value of [sample.loadPermille, sample.cpuPermille]) {
      expect(value).toBeGreaterThanOrEqual(0);
      expect(value).toBeLessThanOrEqual(1000);
    }
    expect(sample.loadPermille).toBeGreaterThanOrEqual(sample.cpuPermille);
    expect(sample.loadPermille).toBeGreaterThan(0);
  });
});

describe("the agent's own console", () => {
  test("answers lines in order, errors too, over a path longer than a socket address holds", async () => {
    const dir = join(freshDir(), "d".repeat(100));
    mkdirSync(dir);
    const control = await LocalControl.open(dir, "agent.sock", async (line) => {
      if (line === "fail") throw new Error("no space");
      return `you said ${line}`;
    });
    const path = join(dir, "agent.sock");
    expect(await askNode(path, "hello")).toBe("you said hello");
    expect(await askNode(path, "fail")).toBe("error: no space");
    control.close();
    await expect(askNode(path, "hello")).rejects.toThrow(NotReachable);
  });

  test("what a killed agent left behind is taken over", async () => {
    const dir = freshDir();
    const first = await LocalControl.open(dir, "agent.sock", () => "first");
    const second = await LocalControl.open(dir, "agent.sock", () => "second");
    expect(await askNode(join(dir, "agent.sock"), "who")).toBe("second");
    first.close();
    second.close();
  });
});

describe("set-aside files", () => {
  test("are kept under their names and never overwritten", () => {
    const dir = freshDir();
    const first = writeSetAside(dir, "epoch-3/../x.txt", Buffer.from("one"));
    const second = writeSetAside(dir, "epoch-3/../x.txt", Buffer.from("two"));
    expect(first.startsWith(join(dir, "set-aside"))).toBe(true);
    expect(second).not.toBe(first);
    expect(readFileSync(first, "utf8")).toBe("one");
    expect(readFileSync(second, "utf8")).toBe("two");
  });
});

describe("the poll port", () => {
  test("answers the sender, with bytes the caller may reuse at once", async () => {
    const port = 20000 + (process.pid % 10000);
    const heard: string[] = [];
    const reply = Buffer.from("beat");
    const pollPort = await PollPort.open("127.0.0.1", port, (from, bytes) => {
      heard.push(Buffer.from(bytes).toString());
      pollPort.send(from, reply);
      reply.fill(0);
    });
    const socket = createSocket("udp4");
    const answer = await new Promise<string>((resolve) => {
      socket.on("message", (bytes) => resolve(bytes.toString()));
      socket.send("poll", port, "127.0.0.1");
    });
    expect(heard).toEqual(["poll"]);
    expect(answer).toBe("beat");
    await expect(PollPort.open("127.0.0.1", port, () => undefined)).rejects.toThrow(/EADDRINUSE/);
    socket.close();
    pollPort.close();
  });
});

describe("a turn of the loop", () => {
  function record(nextMs: (nowMs: number) => number): { core: AgentCore; calls: string[] } {
    const calls: string[] = [];
    const core = {
      tick(nowMs: number) {
        calls.push("tick");
        return nextMs(nowMs);
      },
      endTurn() {
        calls.push("end");
      },
    };
    return { core: core as unknown as AgentCore, calls };
  }
  const pause = (ms: number): Promise<void> => new Promise((wake) => setTimeout(wake, ms));

  test("many inputs end in one turn, and its output leaves last", async () => {
    const { core, calls } = record(() => Infinity);
    const turn = new Turn(() => calls.push("flush"));
    turn.begin(core);
    turn.input();
    turn.input();
    await pause(20);
    expect(calls).toEqual(["tick", "end", "flush"]);
    turn.input();
    await pause(20);
    expect(calls.length).toBe(6);
    turn.stop();
  });

  test("the core is called again when it asked to be, and sooner when it changed its mind", async () => {
    let wantedMs = 60_000;
    const { core, calls } = record((nowMs) => nowMs + wantedMs);
    const turn = new Turn(() => undefined);
    turn.begin(core);
    await pause(20);
    wantedMs = 5;
    turn.input();
    await pause(100);
    turn.stop();
    expect(calls.filter((call) => call === "tick").length).toBeGreaterThan(3);
    const count = calls.length;
    await pause(30);
    expect(calls.length).toBe(count);
  });
});

describe("how an agent ends", () => {
  test("a full disk has an exit status of its own", () => {
    expect(exitForReason("commit failed: ENOSPC: no space left on device")).toBe(EXIT_DISK);
    const worded = "the store failed: writing to /data/store failed: the disk is full";
    expect(exitForReason(worded)).toBe(EXIT_DISK);
    expect(exitForReason("MDB_MAP_FULL: Environment mapsize limit reached")).toBe(EXIT_DISK);
    expect(exitForReason("assertion: window holds a frame")).toBe(EXIT_FAULT);
  });

  test("a port in use says which field to change", () => {
    const error = Object.assign(new Error("listen"), { code: "EADDRINUSE" });
    const failure = portFailure("for the peer", "peerPort", "127.0.0.1", 7001, error);
    expect(failure.exitCode).toBe(EXIT_PORT);
    expect(failure.message).toContain("port 7001 on 127.0.0.1 is in use");
    expect(failure.message).toContain('"peerPort"');
  });
});
