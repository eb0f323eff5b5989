/** The servers' links: handshake, refusals, one live link a server, bounds. */
import { describe, expect, test } from "vitest";
import { FRAME_APPEND, FRAME_COMMAND, FRAME_PACK } from "../../protocol/frame.js";
import {
  KIND_CHALLENGE,
  REFUSE_DUPLICATE,
  REFUSE_FULL,
  REFUSE_KEY,
  REFUSE_MALFORMED,
  REFUSE_UNKNOWN_ID,
  REFUSE_VERSION,
} from "../../protocol/messages.js";
import { FakePair, FakeServer, filled, record } from "./fake-pair.js";

function waitingPair(): FakePair {
  const pair = FakePair.intact(record(5, 0, "both"));
  pair.bootController();
  pair.a.alive = true;
  pair.a.startedAt = pair.now;
  return pair;
}

describe("a server that does not belong here is refused, with the reason", () => {
  test("a wrong key", () => {
    const pair = waitingPair();
    pair.a.key = filled(16, 8);
    pair.a.dial();
    pair.run(300);
    expect(pair.a.refusals[0]).toMatchObject({ code: REFUSE_KEY });
    expect(pair.status.state).toBe("waiting");
    // It dials on and on; the console hears of it once in a while.
    expect(pair.a.dials).toBeGreaterThan(10);
    expect(pair.notes.filter((note) => note.event === "refused")).toHaveLength(1);
  });

  test("no common wire version", () => {
    const pair = waitingPair();
    pair.a.wireMin = 7;
    pair.a.wireMax = 9;
    pair.a.dial();
    pair.run(10);
    expect(pair.a.refusals[0]).toMatchObject({ code: REFUSE_VERSION });
    expect(pair.a.refusals[0]!.text).toContain("7-9");
  });

  test("an id nobody configured", () => {
    const pair = waitingPair();
    Object.defineProperty(pair.a, "id", { value: "c" });
    pair.a.dial();
    pair.run(10);
    expect(pair.a.refusals[0]).toMatchObject({ code: REFUSE_UNKNOWN_ID });
  });

  test("bytes that are no frames", () => {
    const pair = waitingPair();
    const connection = pair.connect(pair.a);
    pair.deliver(connection, new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
    pair.run(5);
    expect(pair.notes.some((note) => note.event === "refused")).toBe(true);
  });

  test("frames out of turn", () => {
    for (const type of [FRAME_COMMAND, FRAME_APPEND, FRAME_PACK]) {
      const pair = FakePair.serving();
      pair.b.sendFrame(type, 0, 1, filled(3, 1));
      pair.run(5);
      expect(pair.b.refusals[0]).toMatchObject({ code: REFUSE_MALFORMED });
    }
  });

  test("a report before the proof", () => {
    const pair = waitingPair();
    pair.a.onBytes = () => {};
    pair.a.dial();
    pair.run(1);
    pair.a.send({ kind: 5, heartbeat: pair.a.heartbeat(0) });
    pair.run(5);
    expect(pair.notes.some((note) => note.text.includes("out of turn"))).toBe(true);
    expect(pair.status.servers[0]!.up).toBe(false);
  });

  test("a handshake that never ends", () => {
    const pair = waitingPair();
    pair.connect(pair.a);
    pair.run(2100);
    expect(pair.notes.some((note) => note.text.includes("took too long"))).toBe(true);
  });

  test("a flood of connections keeps no server out", () => {
    const pair = waitingPair();
    const stranger = new FakeServer(pair, 0, "x");
    for (let i = 0; i < 500; i++) pair.connect(stranger);
    pair.a.dial();
    pair.run(20);
    expect(pair.status.servers[0]!.up).toBe(true);
    expect(pair.notes.some((note) => note.text.includes("too many connections"))).toBe(true);
    expect(REFUSE_FULL).toBeGreaterThan(0);
  });
});

describe("one live link a server", () => {
  test("a second server with a live id is refused, and the first is not disturbed", () => {
    const pair = FakePair.serving();
    const twin = new FakeServer(pair, 0, "a");
    twin.record = pair.a.record;
    twin.identity = pair.a.identity;
    twin.dials = 50;
    twin.dial();
    pair.run(200);
    expect(twin.refusals[0]).toMatchObject({ code: REFUSE_DUPLICATE });
    expect(pair.a.dials).toBe(1);
    expect(pair.roles).toBe("both(a) 5 both");
  });

  test("a newer connection takes the place of one that is dead without a word", () => {
    const pair = FakePair.serving();
    // a's machine loses power and is back within the failure limit.
    pair.a.powerOff();
    pair.run(100);
    pair.a.connection = -1;
    pair.a.start();
    pair.run(500);
    expect(pair.status.servers[0]!.up).toBe(true);
    expect(pair.roles).toBe("both(a) 5 both");
    expect(pair.forward.calls.filter((call) => call.endsWith(" 0"))).toEqual([
      "up 0",
      "down 0",
      "up 0",
    ]);
  });
});

describe("the session of plain clients", () => {
  test("is named by the first server's nonce of this boot, and both servers are told the same", () => {
    const pair = FakePair.serving();
    const offers = pair.servers.map((server) => {
      const challenge = server.heard.find((one) => one.kind === KIND_CHALLENGE);
      return challenge?.kind === KIND_CHALLENGE
        ? Buffer.from(challenge.sessionId).toString("hex")
        : "";
    });
    expect(offers[0]).toBe(Buffer.from(pair.a.nonce.slice(0, 8)).toString("hex"));
    expect(pair.forward.session).toBe(offers[0]);
    // b dialled at the same moment, was offered its own nonce, and had to dial again.
    const last = pair.b.heard.filter((one) => one.kind === KIND_CHALLENGE).at(-1);
    expect(last).toMatchObject({ sessionId: pair.a.nonce.slice(0, 8) });
  });

  test("is renewed when the ids are used up, with new connections", () => {
    const pair = FakePair.serving();
    const before = pair.forward.session;
    pair.forward.events.onIdsUsedUp();
    pair.run(60);
    expect(pair.forward.session).not.toBe(before);
    expect(pair.forward.session.slice(0, 8)).toBe(before.slice(0, 8));
    expect(pair.status.servers.every((server) => server.up)).toBe(true);
    expect(pair.roles).toBe("both(a) 5 both");
    const calls = pair.forward.calls;
    expect(calls.lastIndexOf("session")).toBeGreaterThan(calls.lastIndexOf("down 1"));
    expect(pair.written).toEqual([]);
  });
});

describe("a server that breaks the protocol of replies", () => {
  test("loses its link, with the reason, and is no failure if it answers", () => {
    const pair = FakePair.serving();
    pair.forward.events.onPeerFault(0, "reply 7 came before the one to an earlier command");
    pair.run(100);
    expect(pair.notes.find((note) => note.event === "peer fault")!.text).toContain("reply 7");
    expect(pair.a.dials).toBe(2);
    expect(pair.written).toEqual([]);
  });
});
