/** Information acquisition: load (P1) and sync state (P2), and what of a heartbeat counts. */
import { describe, expect, test } from "vitest";
import {
  HEARD_ALIVE,
  HEARD_ALL,
  HEARD_NOTHING,
  HEARD_OTHER_LINK,
  HEARD_UNLINKED,
  createServerView,
  heartbeatHeard,
  linkClosed,
  linkOpened,
  pollSent,
} from "../../firmware/core/information.js";
import type { ServerView } from "../../firmware/core/information.js";
import { inSync, lagEntries, outOfSync } from "../../firmware/core/sync-state.js";
import type { Heartbeat } from "../../protocol/messages.js";
import { DISK_B, FakePair, filled, record } from "./fake-pair.js";

const NONCE = filled(8, 5);

function heard(counter: number, says: Partial<Heartbeat> = {}): Heartbeat {
  const pair = new FakePair();
  return { ...pair.b.heartbeat(counter), linkNonce: NONCE, ...says };
}

function linked(): ServerView {
  const view = createServerView(1, "b", 100);
  linkOpened(view, NONCE, heard(0, { record: record(5, 0, "both"), sessionOpen: true }), 0);
  return view;
}

describe("P1 information acquisition, load unit", () => {
  test("both servers' loads are had continuously, with every poll", () => {
    const pair = FakePair.serving();
    for (const load of [10, 500, 1000]) {
      pair.a.says = { loadPermille: load };
      pair.b.says = { loadPermille: 1000 - load };
      pair.run(25);
      expect(pair.status.servers.map((server) => server.loadPermille)).toEqual([load, 1000 - load]);
    }
    expect(pair.a.polls).toBeGreaterThan(6);
    expect(pair.b.polls).toBe(pair.a.polls);
  });

  test("the load of a server without a link is not known", () => {
    const pair = FakePair.serving();
    pair.b.kill();
    pair.run(10);
    expect(pair.status.servers[1]!.loadPermille).toBe(null);
  });
});

describe("P2 information acquisition, sync unit", () => {
  const both = record(5, 0, "both");

  test("in sync: record both, adopted, its disk, its session open", () => {
    const view = linked();
    expect(outOfSync(both, view)).toBe("");
    expect(inSync(both, view)).toBe(true);
  });

  test.each([
    ["no session", { sessionOpen: false }, "has not compared logs"],
    ["another epoch", { record: record(4, 0, "both") }, "has not adopted this epoch"],
    ["another disk", { identity: filled(16, 1) }, "another disk"],
    ["a copy under way", { copying: true }, "part of a copy"],
  ])("out of sync: %s", (_name, says, why) => {
    const view = linked();
    Object.assign(view.said!, says);
    expect(outOfSync(both, view)).toContain(why);
  });

  test("out of sync: record solo, no link, no record, or failed", () => {
    expect(outOfSync(record(5, 0, "solo"), linked())).toContain("has not joined");
    expect(outOfSync(undefined, linked())).toContain("no record");
    const gone = linked();
    linkClosed(gone, true, 1);
    expect(outOfSync(both, gone)).toContain("not connected");
    const failed = linked();
    failed.fault = 1;
    expect(inSync(both, failed)).toBe(false);
  });

  test("the lag is the primary's word", () => {
    const a = createServerView(0, "a", 0);
    linkOpened(a, NONCE, heard(0, { serverId: "a", lagEntries: 12 }), 0);
    expect(lagEntries(both, [a, linked()], 1)).toBe(12);
    expect(lagEntries(both, [a, linked()], 0)).toBe(0);
    linkClosed(a, true, 1);
    expect(lagEntries(both, [a, linked()], 1)).toBe(undefined);
  });

  test("the standby gets reads exactly while the two are in sync", () => {
    const pair = FakePair.serving();
    expect(pair.forward.route.readable).toEqual([true, true]);
    pair.b.says = { sessionOpen: false };
    pair.run(25);
    expect(pair.forward.route.readable).toEqual([true, false]);
    pair.b.says = {};
    pair.run(25);
    expect(pair.forward.route.readable).toEqual([true, true]);
  });
});

describe("rule 6: only the answer to the latest poll, under the present link, counts", () => {
  test("the latest counts, an earlier one proves life when it was sent, and an unknown one nothing", () => {
    const view = linked();
    pollSent(view, 10);
    pollSent(view, 30);
    expect(heartbeatHeard(view, heard(101, { logEnd: 1 }), 31, 20)).toBe(HEARD_ALIVE);
    expect(view.said!.logEnd).toBe(0);
    expect(view.aliveAt).toBe(10);
    expect(view.answered).toBe(false);
    expect(heartbeatHeard(view, heard(102, { logEnd: 2 }), 32, 20)).toBe(HEARD_ALL);
    expect(view.said!.logEnd).toBe(2);
    expect(view.aliveAt).toBe(30);
    expect(view.answered).toBe(true);
    expect(heartbeatHeard(view, heard(100), 33, 20)).toBe(HEARD_NOTHING);
    expect(heartbeatHeard(view, heard(103), 33, 20)).toBe(HEARD_NOTHING);
    expect(heartbeatHeard(view, heard(102, { serverId: "a" }), 33, 20)).toBe(HEARD_NOTHING);
  });

  test("another nonce counts for life alone, and soon means that the server has lost the link", () => {
    const view = linked();
    pollSent(view, 10);
    const other = { linkNonce: filled(8, 6) };
    expect(heartbeatHeard(view, heard(101, other), 11, 20)).toBe(HEARD_ALIVE);
    pollSent(view, 30);
    expect(heartbeatHeard(view, heard(102, other), 31, 20)).toBe(HEARD_OTHER_LINK);
    expect(view.answered).toBe(false);
  });

  test("without a link at either end", () => {
    const view = createServerView(1, "b", 100);
    pollSent(view, 10);
    expect(heartbeatHeard(view, heard(101, { linkNonce: filled(8, 0) }), 11, 20)).toBe(
      HEARD_UNLINKED,
    );
    expect(heartbeatHeard(view, heard(101), 11, 20)).toBe(HEARD_ALIVE);
    expect(view.said).toBe(undefined);
  });

  test("a new link forgets what was answered under the old one", () => {
    const view = linked();
    pollSent(view, 10);
    heartbeatHeard(view, heard(101), 11, 20);
    linkOpened(view, filled(8, 7), heard(0, { identity: DISK_B }), 12);
    expect(view.answered).toBe(false);
  });

  test("counters wrap", () => {
    const view = createServerView(1, "b", 0xffffffff);
    linkOpened(view, NONCE, heard(0), 0);
    pollSent(view, 10);
    expect(heartbeatHeard(view, heard(0), 11, 20)).toBe(HEARD_ALL);
    pollSent(view, 30);
    expect(heartbeatHeard(view, heard(0), 31, 20)).toBe(HEARD_ALIVE);
  });
});
