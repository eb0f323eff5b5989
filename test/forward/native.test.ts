import { describe, expect, test } from "vitest";
import {
  CLASS_QUERY,
  CLASS_WRITE,
  FLAG_MORE,
  FLAG_SESSION,
  FLAG_TXN,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_CONTROL,
  FRAME_CREDIT,
  FRAME_PACK,
  FRAME_PACK_REPLY,
  FRAME_REPLY,
  OUTCOME_ANSWER,
  OUTCOME_MASK,
  OUTCOME_REFUSED,
  OUTCOME_UNKNOWN,
} from "../../protocol/frame.js";
import {
  encodeControl,
  KIND_CHALLENGE,
  KIND_PROOF,
  KIND_REFUSE,
  REFUSE_KEY,
  REFUSE_VERSION,
  ROLE_SERVER,
} from "../../protocol/messages.js";
import { NativeClient, NO_KEY } from "./native-client.js";
import { configOf, resp, World } from "./world.js";

function world(changes: Parameters<typeof configOf>[0] = {}): World {
  return new World(configOf(changes)).begin();
}

/** session id 8, number, answeredBelow */
function named(number: number, command: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16 + command.length);
  bytes.fill(0xcc, 0, 8);
  bytes[11] = number;
  bytes.set(command, 16);
  return bytes;
}

describe("the native port's handshake", () => {
  test("both sides prove the key, then commands are taken", () => {
    const w = world({ clientKey: new Uint8Array(16).fill(3) });
    const c = new NativeClient(w).enter(new Uint8Array(16).fill(3));
    c.send(FRAME_COMMAND, CLASS_WRITE, 77, resp("SET", "x", "1"));
    w.reply(0, w.link(0).arrived[0]!.id, "+OK\r\n");
    const [frame] = c.take();
    expect(frame).toMatchObject({
      type: FRAME_REPLY,
      flags: OUTCOME_ANSWER,
      id: 77,
      text: "+OK\r\n",
    });
  });

  test("a wrong key, a wrong version, a wrong role and a command before it are refused and closed", () => {
    const wrongKey = new NativeClient(world({ clientKey: new Uint8Array(16).fill(3) }));
    wrongKey.hello();
    wrongKey.take();
    const proof = new Uint8Array(32);
    wrongKey.send(FRAME_CONTROL, 0, 0, encodeControl({ kind: KIND_PROOF, proof }));
    expect(wrongKey.control()).toMatchObject({ kind: KIND_REFUSE, code: REFUSE_KEY });
    expect(wrongKey.model.closed).toBeDefined();

    const wrongVersion = new NativeClient(world());
    wrongVersion.hello({ wireMin: 7, wireMax: 9 });
    expect(wrongVersion.control()).toMatchObject({ kind: KIND_REFUSE, code: REFUSE_VERSION });
    expect(wrongVersion.model.closed).toBeDefined();

    const server = new NativeClient(world());
    server.hello({ role: ROLE_SERVER, id: "a" });
    expect(server.control().kind).toBe(KIND_REFUSE);

    const hasty = new NativeClient(world());
    hasty.send(FRAME_COMMAND, CLASS_WRITE, 1, resp("SET", "x", "1"));
    expect(hasty.control().kind).toBe(KIND_REFUSE);
    expect(hasty.model.closed).toBeDefined();
    expect(hasty.world.link(0).arrived.length).toBe(0);
  });

  test("no nonce is given twice", () => {
    const w = world();
    const nonces = [0, 1, 2].map(() => {
      const c = new NativeClient(w);
      c.hello();
      const challenge = c.control();
      return challenge.kind === KIND_CHALLENGE ? Buffer.from(challenge.nonce).toString("hex") : "";
    });
    expect(new Set(nonces).size).toBe(3);
  });
});

describe("native commands", () => {
  test("keep their flags, their prefix and their order; ids are rewritten", () => {
    const w = world();
    const c = new NativeClient(w).enter();
    const d = new NativeClient(w).enter();
    c.send(FRAME_COMMAND, CLASS_WRITE | FLAG_SESSION, 5, named(1, resp("SET", "x", "1")));
    d.send(FRAME_COMMAND, CLASS_WRITE | FLAG_TXN, 5, resp("SET", "y", "1"));
    const [first, second] = w.link(0).arrived;
    expect(first!.flags & FLAG_SESSION).toBe(FLAG_SESSION);
    expect([...first!.payload.subarray(0, 8)]).toEqual(new Array(8).fill(0xcc));
    expect(second!.flags & FLAG_TXN).toBe(FLAG_TXN);
    expect(first!.id).not.toBe(second!.id);
    w.reply(0, second!.id, "*1\r\n+OK\r\n");
    w.reply(0, first!.id, "+1\r\n");
    expect(c.take()).toMatchObject([{ id: 5, text: "+1\r\n" }]);
    expect(d.take()).toMatchObject([{ id: 5, text: "*1\r\n+OK\r\n" }]);
  });

  test("a session's command asked again keeps the client's own number", () => {
    const w = world();
    const c = new NativeClient(w).enter();
    c.send(FRAME_COMMAND, CLASS_WRITE | FLAG_SESSION, 5, named(42, resp("INCR", "x")));
    w.linkDown(0);
    w.setRoute({ epoch: 2, primary: 1, readable: [false, true] });
    const again = w.link(1).arrived[0]!;
    expect(again.number).toBe(42);
    expect([...again.payload.subarray(0, 8)]).toEqual(new Array(8).fill(0xcc));
  });

  test("the header's class decides, but what needs the primary goes there", () => {
    const w = world();
    for (let i = 0; i < 4; i++) {
      new NativeClient(w).enter().send(FRAME_COMMAND, CLASS_QUERY, 1, resp("TTL", "x"));
    }
    expect(w.link(0).arrived.length).toBe(4);
  });

  test("what would wait for ever on a shared link is refused", () => {
    const w = world();
    const c = new NativeClient(w).enter();
    c.send(FRAME_COMMAND, CLASS_WRITE, 1, resp("BLPOP", "x", "0"));
    c.send(FRAME_COMMAND, CLASS_WRITE, 2, resp("SUBSCRIBE", "x"));
    c.send(
      FRAME_COMMAND,
      CLASS_WRITE,
      3,
      resp("XREAD", "COUNT", "1", "block", "0", "STREAMS", "x", "$"),
    );
    expect(c.take().map((frame) => frame.text)).toEqual([
      "-ERR this command is not supported through the controller\r\n",
      "-ERR this command is not supported through the controller\r\n",
      "-ERR this command is not supported through the controller\r\n",
    ]);
    expect(w.link(0).arrived.length).toBe(0);
    // Behind STREAMS a key may be called anything.
    c.send(FRAME_COMMAND, CLASS_WRITE, 4, resp("XREAD", "STREAMS", "block", "0"));
    expect(w.link(0).arrived.length).toBe(1);
  });

  test("fragments of several commands are put together, each bounded", () => {
    const w = world({ limits: { valueBytesMax: 100000 } });
    const c = new NativeClient(w).enter();
    const big = resp("SET", "x", "v".repeat(50000));
    const other = resp("SET", "y", "1");
    c.send(FRAME_COMMAND, CLASS_WRITE | FLAG_MORE, 1, big.subarray(0, 20000));
    c.send(FRAME_COMMAND, CLASS_WRITE, 2, other);
    c.send(FRAME_COMMAND, CLASS_WRITE | FLAG_MORE, 1, big.subarray(20000, 40000));
    c.send(FRAME_COMMAND, CLASS_WRITE, 1, big.subarray(40000));
    expect(w.link(0).arrived.map((a) => a.args[1])).toEqual(["y", "x"]);
    expect(w.link(0).arrived[1]!.args[2]!.length).toBe(50000);
    for (let i = 0; i < 10; i++) {
      c.send(FRAME_COMMAND, CLASS_WRITE | FLAG_MORE, 3, new Uint8Array(60000));
    }
    c.send(FRAME_COMMAND, CLASS_WRITE, 3, new Uint8Array(10));
    const refused = c.take().filter((frame) => frame.id === 3);
    expect(refused.map((frame) => frame.text)).toEqual([
      "-ERR value too large (limit 100000 bytes)\r\n",
    ]);
    expect(c.model.closed).toBeUndefined();
    for (let id = 10; id < 40; id++) {
      c.send(FRAME_COMMAND, CLASS_WRITE | FLAG_MORE, id, new Uint8Array(10));
    }
    expect(c.model.closed).toMatch(/half-sent/);
  });

  test("a long reply comes in frames the client agreed to", () => {
    const w = world();
    const c = new NativeClient(w).enter(NO_KEY, 1024);
    w.setRoute({ readable: [true, false] });
    c.send(FRAME_COMMAND, CLASS_QUERY, 9, resp("GET", "x"));
    const reply = `$3000\r\n${"v".repeat(3000)}\r\n`;
    w.reply(0, w.link(0).arrived[0]!.id, reply);
    const frames = c.take();
    expect(frames.length).toBe(3);
    expect(frames.map((frame) => frame.flags & FLAG_MORE)).toEqual([FLAG_MORE, FLAG_MORE, 0]);
    expect(frames.map((frame) => frame.text).join("")).toBe(reply);
  });

  test("giving up has its own outcomes, so that a library knows what it may ask again", () => {
    const w = world();
    const c = new NativeClient(w).enter();
    c.send(FRAME_COMMAND, CLASS_WRITE, 1, resp("SET", "x", "1"));
    w.setRoute({ why: "a is away" });
    w.linkDown(0);
    c.send(FRAME_COMMAND, CLASS_WRITE, 2, resp("SET", "y", "1"));
    w.tick(2100);
    const frames = c.take();
    expect(frames.map((frame) => [frame.id, frame.flags & OUTCOME_MASK])).toEqual([
      [1, OUTCOME_UNKNOWN],
      [2, OUTCOME_REFUSED],
    ]);
    expect(frames[0]!.text).toBe("OUTCOMEUNKNOWN a is away");
    expect(frames[1]!.text).toBe("\u0000CLUSTERDOWN no primary: a is away");
  });

  test("a server's refusal of a lying class is answered at once", () => {
    const w = world();
    const c = new NativeClient(w).enter();
    w.setRoute({ readable: [true, false] });
    c.send(FRAME_COMMAND, CLASS_QUERY, 1, resp("SET", "x", "1"));
    w.reply(0, w.link(0).arrived[0]!.id, "\u0003the command is no query", OUTCOME_REFUSED);
    expect(c.take()).toMatchObject([
      { id: 1, flags: OUTCOME_ANSWER, text: "-ERR the command is no query\r\n" },
    ]);
    expect(w.forwarder.openCount()).toBe(0);
  });

  test("an aborted command's reply is swallowed", () => {
    const w = world();
    const c = new NativeClient(w).enter();
    c.send(FRAME_COMMAND, CLASS_WRITE, 1, resp("SET", "x", "1"));
    c.send(FRAME_COMMAND, CLASS_WRITE, 2, resp("SET", "y", "1"));
    c.send(FRAME_ABORT, 0, 1, new Uint8Array(0));
    c.send(FRAME_CREDIT, 0, 2, new Uint8Array(4));
    for (const a of w.link(0).arrived) w.reply(0, a.id, "+OK\r\n");
    expect(c.take().map((frame) => frame.id)).toEqual([2]);
  });

  test.each([
    ["a command without an id", FRAME_COMMAND, CLASS_WRITE, 0, resp("PING")],
    ["a server's frame", FRAME_PACK_REPLY, 1, 1, new Uint8Array(8)],
    ["a controller's frame", FRAME_PACK, CLASS_QUERY, 1, new Uint8Array(8)],
    ["a class that is none", FRAME_COMMAND, 3, 1, resp("PING")],
    ["a session prefix cut short", FRAME_COMMAND, CLASS_WRITE | FLAG_SESSION, 1, resp("X")],
    ["a reply", FRAME_REPLY, 0, 1, resp("PING")],
  ])("%s ends the connection", (_name, type, flags, id, payload) => {
    const w = world();
    const c = new NativeClient(w).enter();
    c.send(type, flags, id, payload);
    expect(c.model.closed).toBeDefined();
    expect(w.link(0).arrived.length).toBe(0);
  });
});
