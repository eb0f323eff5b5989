/** The wire judge looks into packs: each command, and each answer, as if it had come alone. */
import { beforeEach, describe, expect, test } from "vitest";
import {
  CHANNEL_BYTES,
  CLASS_QUERY,
  CLASS_WRITE,
  FLAG_MORE,
  FLAG_PLAIN,
  FRAME_ABORT,
  FRAME_COMMAND,
  FRAME_EPOCH,
  FRAME_PACK,
  FRAME_PACK_REPLY,
  FRAME_REPLY,
  frameOf,
  writeU32,
} from "../../protocol/frame.js";
import { MODE_BOTH, MODE_SOLO } from "../../protocol/record.js";
import type { Mode, RoleRecord } from "../../protocol/record.js";
import { LinkTap } from "../../sim/link-tap.js";
import type { End } from "../../sim/world/network.js";

const CONTROLLER = 2;
const NONE = new Uint8Array(0);
const resp = (text: string): Uint8Array =>
  Uint8Array.from(
    Buffer.from(
      text
        .split(" ")
        .reduce(
          (out, arg) => out + `$${arg.length}\r\n${arg}\r\n`,
          `*${text.split(" ").length}\r\n`,
        ),
    ),
  );

interface FakeEnd {
  machine: { index: number };
  peer: FakeEnd;
}

/** A connection of a server with the controller: [the server's end, the controller's]. */
function connection(server: number): [End, End] {
  const near = { machine: { index: server } } as FakeEnd;
  const far = { machine: { index: CONTROLLER }, peer: near };
  near.peer = far;
  return [near as unknown as End, far as unknown as End];
}

let violations: string[];
let record: RoleRecord | undefined;
let held: (RoleRecord | undefined)[];
let tap: LinkTap;
let ends: [End, End][];

function recordOf(epoch: number, primary: 0 | 1, mode: Mode): RoleRecord {
  const bytes = new Uint8Array(16);
  return { epoch, primary, mode, pairId: new Uint8Array(8), identityA: bytes, identityB: bytes };
}

beforeEach(() => {
  violations = [];
  record = recordOf(3, 0, MODE_BOTH);
  held = [record, record];
  ends = [connection(0), connection(1)];
  tap = new LinkTap({
    controllerIndex: CONTROLLER,
    flashRecord: () => record,
    heldRecord: (server) => held[server],
    violate: (promise, what) => violations.push(`${promise}: ${what}`),
  });
  for (const server of [0, 1]) from(server, frameOf(FRAME_EPOCH, 0, 3, NONE));
});

/** The server says it, in odd chunks. */
function from(server: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += 5) {
    tap.onBytes(ends[server]![0], bytes.subarray(at, at + 5), true);
  }
}

function to(server: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += 7) {
    tap.onBytes(ends[server]![1], bytes.subarray(at, at + 7), false);
  }
}

function withChannel(channel: number, ...rest: Uint8Array[]): Uint8Array {
  const word = new Uint8Array(CHANNEL_BYTES);
  writeU32(word, 0, channel);
  return Buffer.concat([word, ...rest]);
}

function pack(server: number, kind: number, first: number, channel: number, count: number): void {
  // Odd channels are plain clients. What an argument holds looks like more commands.
  const plain = channel % 2 === 1;
  const text = kind === CLASS_QUERY ? "GET *1\r\n$4\r\nPING\r\n" : "SET k *1\r\n$4\r\nPING\r\n";
  const pieces = Array.from({ length: count }, (_, i) =>
    plain ? resp(text) : frameOf(FRAME_COMMAND, kind, 70 + i, resp(text)),
  );
  to(
    server,
    frameOf(FRAME_PACK, kind | (plain ? FLAG_PLAIN : 0), first, withChannel(channel, ...pieces)),
  );
}

function answer(server: number, count: number, last: number, channel: number): void {
  from(server, frameOf(FRAME_PACK_REPLY, count, last, withChannel(channel, resp("+OK"))));
}

const reply = (server: number, id: number, flags = 0): void =>
  from(server, frameOf(FRAME_REPLY, flags, id, resp("+OK")));

describe("what is sent", () => {
  test("each command of a pack counts, native or plain", () => {
    pack(0, CLASS_WRITE, 10, 2, 3);
    pack(0, CLASS_QUERY, 13, 3, 32);
    pack(1, CLASS_QUERY, 45, 2, 2);
    expect([tap.toPrimary, tap.toStandby, violations]).toEqual([35, 2, []]);
  });

  test("a pack of changes to the standby, of reads there in solo, and with a blank flash", () => {
    pack(1, CLASS_WRITE, 10, 3, 2);
    expect(violations).toEqual(
      Array.from({ length: 2 }, () => "reads-target: a change went to b, which is not primary"),
    );
    record = recordOf(4, 0, MODE_SOLO);
    pack(1, CLASS_QUERY, 12, 3, 1);
    expect(violations.at(-1)).toBe("reads-target: a read went to b in solo epoch 4");
    record = undefined;
    pack(0, CLASS_QUERY, 13, 2, 1);
    expect(violations.at(-1)).toBe("reads-target: a command went to a while the flash is blank");
    expect(violations.length).toBe(4);
  });
});

describe("what is answered", () => {
  test("each answer of a PACK_REPLY counts as a reply, merged as it may be", () => {
    pack(0, CLASS_WRITE, 10, 2, 3);
    pack(0, CLASS_QUERY, 13, 3, 2);
    pack(0, CLASS_QUERY, 15, 2, 4);
    pack(1, CLASS_QUERY, 19, 5, 2);
    answer(0, 1, 10, 2);
    answer(0, 2, 14, 3);
    answer(0, 4, 16, 2);
    reply(0, 17, FLAG_MORE);
    reply(0, 17);
    answer(0, 1, 18, 2);
    answer(1, 2, 20, 5);
    expect(violations).toEqual([]);
    expect([tap.changes, tap.readsBy, tap.standbyReads]).toEqual([3, [7, 2], [0, 2]]);
  });

  test("one-primary: changes answered in packs by both, and by the other one", () => {
    pack(0, CLASS_WRITE, 10, 2, 1);
    pack(1, CLASS_WRITE, 11, 3, 2);
    violations = [];
    answer(0, 1, 10, 2);
    expect(violations).toEqual([]);
    answer(1, 2, 12, 3);
    expect(violations).toContain("one-primary: both servers answered changes in epoch 3");
    expect(violations).toContain(
      "one-primary: b answered a change in epoch 3, whose primary is the other",
    );
  });

  test("a read answered in a pack by the other one of a solo epoch", () => {
    pack(1, CLASS_QUERY, 10, 3, 1);
    record = recordOf(3, 0, MODE_SOLO);
    answer(1, 1, 10, 3);
    expect(violations).toEqual([
      "one-primary: b answered a read in epoch 3, which is solo for the other",
    ]);
  });
});

describe("order", () => {
  test("an answer that passes over an earlier one of its channel", () => {
    pack(0, CLASS_QUERY, 10, 2, 4);
    answer(0, 1, 11, 2);
    expect(violations).toEqual([
      "order: a answered 1 commands of channel 2 up to 11; unanswered were: 10 11",
    ]);
    reply(0, 13);
    expect(violations[1]).toBe("order: a answered command 13 of channel 2 before 12");
  });

  test("an answer between the fragments of the one before it", () => {
    pack(0, CLASS_QUERY, 10, 3, 2);
    reply(0, 10, FLAG_MORE);
    answer(0, 1, 11, 3);
    reply(0, 10);
    expect(violations.length).toBe(1);
    expect(violations[0]).toContain("up to 11; unanswered were: 10 11");
  });

  test("more answers than were asked, of another channel, or twice", () => {
    pack(0, CLASS_QUERY, 10, 2, 2);
    pack(0, CLASS_QUERY, 12, 4, 2);
    answer(0, 3, 11, 2);
    answer(0, 1, 12, 2);
    answer(0, 1, 12, 4);
    answer(0, 1, 12, 4);
    expect(violations.map((text) => text.replace(/;.*/, ""))).toEqual([
      "order: a answered 3 commands of channel 2 up to 11",
      "order: a answered 1 commands of channel 2 up to 12",
      "order: a answered 1 commands of channel 4 up to 12",
    ]);
  });

  test("what was aborted is answered in its place, alone, late, or not at all", () => {
    pack(0, CLASS_QUERY, 10, 2, 8);
    for (const id of [10, 12, 14, 16]) to(0, frameOf(FRAME_ABORT, 0, id, NONE));
    answer(0, 1, 11, 2);
    answer(0, 2, 13, 2);
    reply(0, 14);
    answer(0, 1, 15, 2);
    answer(0, 1, 17, 2);
    reply(0, 16);
    expect(violations).toEqual([]);
    expect(tap.readsBy[0]).toBe(7);
  });

  test("a server whose role is another may never answer what came before", () => {
    pack(0, CLASS_QUERY, 10, 2, 2);
    from(0, frameOf(FRAME_EPOCH, 0, 4, NONE));
    pack(0, CLASS_QUERY, 12, 2, 1);
    answer(0, 1, 12, 2);
    expect(violations).toEqual([]);
  });
});
