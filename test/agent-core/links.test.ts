/** Opening links: proofs, refusals, backoff, silence; and bounds of what a link may hold. */
import { describe, expect, test } from "vitest";
import { FRAME_COMMAND, FRAME_CONTROL, FRAME_PACK, frameOf } from "../../protocol/frame.js";
import {
  KIND_CHALLENGE,
  KIND_HELLO,
  KIND_PROOF,
  KIND_REFUSE,
  ROLE_PEER,
  encodeControl,
} from "../../protocol/messages.js";
import type { ControlMessage, Hello } from "../../protocol/messages.js";
import { World } from "./world.js";

const control = (message: ControlMessage): Uint8Array =>
  frameOf(FRAME_CONTROL, 0, 0, encodeControl(message));

const hello: Hello = {
  kind: KIND_HELLO,
  wireMin: 1,
  wireMax: 1,
  role: ROLE_PEER,
  id: "b",
  nonce: new Uint8Array(16).fill(3),
  frameMax: 65536,
  windowBytes: 0,
};

/** A stranger at a's peer port. */
function stranger(world: World): {
  send(bytes: Uint8Array): void;
  got: () => number[];
  open: () => boolean;
} {
  const client = world.peerStranger(world.a);
  return {
    send: (bytes) => client.pipe.send(1, bytes),
    // The kind of each control frame that came.
    got: () => {
      const kinds: number[] = [];
      const bytes = Buffer.from(client.received, "latin1");
      for (let at = 0; at + 8 <= bytes.length;) {
        kinds.push(bytes[at + 8]!);
        at += 8 + bytes.readUInt16BE(at + 2);
      }
      return kinds;
    },
    open: () => !client.closed,
  };
}

describe("the peer port", () => {
  test("a wrong proof is refused, loudly, and the real peer keeps its link", () => {
    const world = new World();
    world.begin();
    const one = stranger(world);
    one.send(control(hello));
    world.settle();
    expect(one.got()).toEqual([KIND_CHALLENGE]);
    one.send(control({ kind: KIND_PROOF, proof: new Uint8Array(32) }));
    world.settle();
    expect(one.got()).toEqual([KIND_CHALLENGE, KIND_REFUSE]);
    expect(one.open()).toBe(false);
    expect(world.a.noted("peer-refused")?.level).toBe("error");
    expect(world.a.heartbeat().sessionOpen).toBe(true);
  });

  test("an unknown id, a foreign wire version and frames too small are refused", () => {
    for (const wrong of [{ id: "c" }, { wireMin: 7, wireMax: 9 }, { frameMax: 536 }]) {
      const world = new World();
      world.begin();
      const one = stranger(world);
      one.send(control({ ...hello, ...wrong }));
      world.settle();
      expect(one.got()).toEqual([KIND_REFUSE]);
      expect(one.open()).toBe(false);
      expect(world.a.heartbeat().sessionOpen).toBe(true);
    }
  });

  test("anything but a handshake closes it, and so does saying nothing", () => {
    const world = new World();
    world.begin();
    const one = stranger(world);
    one.send(frameOf(FRAME_COMMAND, 0, 1, new Uint8Array(3)));
    const junk = stranger(world);
    junk.send(Uint8Array.from(Buffer.from("GET / HTTP/1.1\r\n\r\n")));
    const silent = stranger(world);
    world.settle();
    expect(one.open()).toBe(false);
    expect(junk.open()).toBe(false);
    expect(silent.open()).toBe(true);
    world.pass(1100);
    expect(silent.open()).toBe(false);
    expect(world.a.heartbeat().sessionOpen).toBe(true);
  });

  test("a frame of the controller's link from the peer itself drops the link", () => {
    const world = new World();
    world.begin();
    for (const pipe of world["peerPipes"])
      pipe.send(0, frameOf(FRAME_PACK, 0, 1, new Uint8Array(9)));
    world.settle();
    const dropped = [world.a, world.b].map((server) => server.noted("peer-link-dropped")?.details);
    expect(dropped).toContainEqual({ reason: "frame of type 12" });
    world.until(() => world.a.heartbeat().sessionOpen, 3000);
  });

  test("many strangers at once do not keep the peer out", () => {
    const world = new World();
    world.begin();
    for (let i = 0; i < 10; i++) stranger(world);
    world.closePeer();
    world.until(() => world.a.heartbeat().sessionOpen, 3000);
  });
});

describe("the controller link", () => {
  test("a controller without the pair's key is not believed, and dialled again with growing pauses", () => {
    const world = new World();
    world.wrongKey = true;
    world.start();
    world.pass(2000, 1);
    const dropped = world.a.notes.filter((note) => note.event === "controller-link-dropped");
    expect(JSON.stringify(dropped[0]!.details)).toMatch(/does not hold the pair's key/);
    // Said once, tried after 10, 20, 40 … 500 ms.
    expect(dropped.length).toBe(1);
    expect(world.a.dialed).toBeGreaterThan(4);
    expect(world.a.dialed).toBeLessThan(14);
    world.wrongKey = false;
    world.until(() => world.links[0]!.up, 1000);
  });

  test("polls that name another link end a link that was known soon, and a new one only after a handshake's time", () => {
    const another = new Uint8Array(8).fill(7);
    const world = new World({ controllerStrangeMs: 100, handshakeMs: 1000 });
    const pollFor = (ms: number): void => {
      for (let at = 0; at < ms; at += 50) {
        world.a.heartbeat(another);
        world.pass(50);
      }
    };
    const dropped = (): unknown => world.a.noted("controller-link-dropped")?.details;
    const reason = { reason: "the controller no longer knows this link" };
    world.start();
    world.until(() => world.links[0]!.up, 1000);
    // A slow board has taken the link, and polls that it sent before are still under way.
    pollFor(500);
    expect(dropped()).toBeUndefined();
    world.a.heartbeat();
    pollFor(50);
    expect(dropped()).toBeUndefined();
    pollFor(150);
    expect(dropped()).toEqual(reason);
  });

  test("a refusal is said once", () => {
    const world = new World();
    world.refuse = "unknown id";
    world.start();
    world.pass(3000);
    const said = world.a.notes.filter((note) => note.event === "refused-by-controller");
    expect(said.length).toBe(1);
    expect(world.a.heartbeat().problem).toMatch(/controller refuses: unknown id/);
  });

  test("an unreachable controller is dialled for ever, at most every half second", () => {
    const world = new World();
    world.begin();
    world.a.controllerReachable = false;
    world.links[0]!.pipe.close();
    world.pass(5000);
    world.a.controllerReachable = true;
    world.until(() => world.links[0]!.up, 600);
  });

  test("more than the window of half-sent commands drops the link", () => {
    const world = new World({ valueBytesMax: 1000, windowBytes: 200_000 });
    world.begin();
    const { pipe } = world.links[0]!;
    for (let i = 0; i < 10; i++) {
      pipe.send(1, frameOf(FRAME_COMMAND, 0x04 | 2, 7000 + i, new Uint8Array(30_000)));
    }
    world.settle();
    expect(pipe.open).toBe(false);
    expect(
      world.a.notes.at(-1)!.event === "" || world.a.noted("controller-link-dropped"),
    ).toBeTruthy();
  });

  test("a silent peer loses the connection", () => {
    const world = new World();
    world.begin();
    world.cutPeer(true);
    world.pass(250);
    expect(world.a.heartbeat().peerUp).toBe(false);
    expect(world.a.noted("peer-link-dropped")).toBeUndefined();
    world.pass(1000);
    expect(world.a.noted("peer-link-dropped")?.details).toEqual({ reason: "the peer is silent" });
  });
});

describe("bounds", () => {
  test("too many replies waiting: further reads are refused before they run", () => {
    const world = new World({ heldRepliesMax: 10 });
    world.begin();
    world.b.holdFlush = true;
    const writes = Array.from({ length: 10 }, (_, i) => world.set(0, "k" + i, "v"));
    const reads = Array.from({ length: 10 }, (_, i) =>
      world.send(0, ["GET", "k" + i], { query: true }),
    );
    world.settle();
    const refused = reads.filter((id) => world.reply(0, id)?.outcome === 1);
    expect(refused.length).toBe(10);
    world.b.holdFlush = false;
    world.settle();
    expect(writes.filter((id) => world.reply(0, id)?.text === "+OK\r\n").length).toBe(10);
  });

  test("a write is never refused for a moment, which would reorder it; far above the bound the link is dropped", () => {
    const world = new World({ heldRepliesMax: 10 });
    world.begin();
    world.b.holdFlush = true;
    const ids = Array.from({ length: 20 }, (_, i) => world.set(0, "k" + i, "v"));
    world.settle();
    expect(ids.filter((id) => world.reply(0, id) !== undefined)).toEqual([]);
    expect(world.a.log()["end"]).toBe(20);
    world.set(0, "k20", "v");
    world.settle();
    expect(world.a.log()["end"]).toBe(20);
    expect(JSON.stringify(world.a.noted("controller-link-dropped"))).toContain("replies of writes");
  });

  test("a command that changes too much at once is answered with an error and does nothing", () => {
    const world = new World({
      valueBytesMax: 1000,
      commandBytesMax: 70_000,
      entryBytesMax: 70_000,
    });
    world.begin();
    const many = Array.from({ length: 100 }, (_, i) => ["SETRANGE", "k" + i, "900", "x"]);
    const id = world.send(0, many, { txn: true });
    world.settle();
    expect(world.reply(0, id)?.text).toMatch(/^-ERR dyad: the command changes too much at once/);
    expect(world.ask(0, "DBSIZE")).toBe(":0\r\n");
  });

  test("a local client that does not read is read no further, and goes on when it does", () => {
    const world = new World();
    world.begin();
    const client = world.local(world.a);
    world.a.unread = 5 * 1024 * 1024;
    for (let i = 0; i < 5; i++) client.send("INCR", "n");
    world.settle();
    expect(client.take()).toBe("");
    expect(world.ask(0, "GET", "n")).toBe("$-1\r\n");
    world.a.drained();
    world.settle();
    expect(client.take()).toBe(":1\r\n:2\r\n:3\r\n:4\r\n:5\r\n");
  });

  test("too many local clients are told so", () => {
    const world = new World({ localClientsMax: 2 });
    world.begin();
    world.local(world.a);
    world.local(world.a);
    const third = world.local(world.a);
    world.settle();
    expect(third.take()).toMatch(/^-ERR max number of clients/);
    expect(third.closed).toBe(true);
  });
});
