/** The release queue against a model: nothing too early, nothing out of order, nothing lost. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { agentLimits } from "../../agent/core/limits.js";
import { DirtyKeys, ReleaseQueue } from "../../agent/core/release.js";
import type { OpenReply } from "../../agent/core/release.js";
import { FLAG_MORE, FRAME_REPLY } from "../../protocol/frame.js";
import { FrameDecoder } from "../../protocol/frame-decoder.js";

interface Sent {
  ordered: boolean;
  need: number;
  open: OpenReply | undefined;
  long: boolean;
  answered: boolean;
}

type Step =
  | { kind: "write"; ordered: boolean; size: number }
  | { kind: "read"; ordered: boolean; back: number; size: number }
  | { kind: "hold"; ordered: boolean }
  | { kind: "resolve"; which: number; size: number }
  | { kind: "advance"; by: number }
  | { kind: "credit" };

const size = fc.oneof(fc.nat(40), fc.nat(400), fc.constant(3000));
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant("write" as const), ordered: fc.boolean(), size }),
  fc.record({ kind: fc.constant("read" as const), ordered: fc.boolean(), back: fc.nat(5), size }),
  fc.record({ kind: fc.constant("hold" as const), ordered: fc.boolean() }),
  fc.record({ kind: fc.constant("resolve" as const), which: fc.nat(10), size }),
  fc.record({ kind: fc.constant("advance" as const), by: fc.nat(4) }),
  fc.record({ kind: fc.constant("credit" as const) }),
);

describe("release queue", () => {
  test("every reply once, none before its index, no ORDERED one before an earlier one", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), fc.constantFrom(64, 528), (steps, max) => {
        const sent = new Map<number, Sent>();
        let watermark = 0;
        let end = 0;
        let id = 0;
        const partial = new Map<number, number>();
        const decoder = new FrameDecoder(
          (type, flags, frameId, _bytes, start, to) => {
            expect(type).toBe(FRAME_REPLY);
            const one = sent.get(frameId)!;
            expect(one.answered).toBe(false);
            expect(one.need).toBeLessThanOrEqual(watermark);
            if (one.ordered) {
              for (const [earlier, other] of sent) {
                if (earlier < frameId) expect(other.answered).toBe(true);
              }
            }
            partial.set(frameId, (partial.get(frameId) ?? 0) + to - start);
            if ((flags & FLAG_MORE) === 0) one.answered = true;
          },
          65528,
          0,
        );
        const queue = new ReleaseQueue(
          agentLimits({ replyWindowBytes: 1000 }),
          (bytes, from, to) => {
            expect(decoder.feed(bytes, from, to)).toBe("");
          },
        );
        queue.payloadMax = max;
        const open = new Map<number, OpenReply>();
        const creditAll = (): void => {
          for (const [one] of sent) queue.credit(one, 100_000);
        };
        for (const one of steps) {
          if (one.kind === "write" || one.kind === "read") {
            id++;
            const need = one.kind === "write" ? ++end : Math.max(0, end - one.back);
            const ordered = one.ordered;
            sent.set(id, {
              ordered,
              need,
              open: undefined,
              long: one.size > 1000,
              answered: false,
            });
            queue.reply(id, ordered, need, 0, new Uint8Array(one.size), 0, one.size);
          } else if (one.kind === "hold") {
            id++;
            const held = queue.hold(id, one.ordered);
            sent.set(id, {
              ordered: one.ordered,
              need: 0,
              open: held,
              long: false,
              answered: false,
            });
            open.set(id, held);
          } else if (one.kind === "resolve") {
            const [first] = [...open.keys()].slice(one.which % Math.max(1, open.size));
            if (first === undefined) continue;
            const held = open.get(first)!;
            open.delete(first);
            sent.get(first)!.need = end;
            queue.resolve(held, end, 0, new Uint8Array(one.size));
          } else if (one.kind === "advance") {
            watermark = Math.min(end, watermark + one.by);
            queue.advance(watermark);
          } else {
            creditAll();
          }
          queue.flush();
        }
        for (const [held, reply] of open) {
          sent.get(held)!.need = end;
          queue.resolve(reply, end, 0, new Uint8Array(3));
        }
        watermark = end;
        for (let i = 0; i < 100; i++) {
          queue.advance(watermark);
          creditAll();
          queue.flush();
        }
        for (const one of sent.values()) expect(one.answered).toBe(true);
        expect(queue.waiting()).toBe(0);
        expect(queue.heldBytes).toBe(0);
      }),
      { numRuns: 300 },
    );
  });

  test("a key nobody is writing is answered at once, beside writes that wait", () => {
    const out: number[] = [];
    const decoder = new FrameDecoder((_type, _flags, id) => out.push(id), 65528, 0);
    const queue = new ReleaseQueue(agentLimits({}), (bytes, from, to) => {
      decoder.feed(bytes, from, to);
    });
    queue.payloadMax = 1000;
    queue.reply(1, false, 5, 0, new Uint8Array(3), 0, 3);
    queue.reply(2, false, 0, 0, new Uint8Array(3), 0, 3);
    queue.flush();
    expect(out).toEqual([2]);
  });
});

describe("dirty keys", () => {
  test("never forgets a key the watermark has not reached, and forgets the others", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ key: fc.nat(5), advance: fc.nat(4) }), { maxLength: 200 }),
        (steps) => {
          const dirty = new DirtyKeys();
          const last = new Map<string, number>();
          let end = 0;
          let watermark = 0;
          for (const { key, advance } of steps) {
            end++;
            dirty.mark(["k" + key], end);
            last.set("k" + key, end);
            watermark = Math.min(end, watermark + advance);
            dirty.reached(watermark);
            for (const [name, index] of last) {
              const found = dirty.lastOf(name);
              if (index > watermark) expect(found).toBe(index);
              else expect(found).toBeLessThanOrEqual(watermark);
            }
          }
          dirty.reached(end);
          dirty.reached(end);
          expect(dirty.size()).toBe(0);
        },
      ),
    );
  });
});
