/** A log that was cut and tables that were replaced are not judged by what had been there before. */
import { expect, it } from "vitest";
import { createExecutor } from "../../agent/commands/executor.js";
import { createKeyspace } from "../../agent/commands/keyspace.js";
import { DATA_FREE, GroupCommit, readStateRow } from "../../agent/core/group-commit.js";
import type { CommitStep } from "../../agent/core/group-commit.js";
import { agentLimits } from "../../agent/core/limits.js";
import { SyncLog } from "../../agent/core/sync-log.js";
import { createMemoryStore } from "../../agent/store/memory.js";
import { makeSink } from "../../protocol/resp.js";
import { viewOf } from "../commands/harness.js";

function disk() {
  const limits = agentLimits({});
  const store = createMemoryStore({ durability: "disk" });
  const keyspace = createKeyspace(store);
  const executor = createExecutor(keyspace, limits);
  const log = new SyncLog(store, limits);
  log.load(0, 0, 0);
  const commit = new GroupCommit(store, log, keyspace, limits, readStateRow(store));
  const effectsOf = (key: string) => {
    const effects = makeSink(64);
    executor.run(viewOf(["SET", key, "v"]), makeSink(64), effects, 1, true);
    return effects;
  };
  const apply = (key: string, index: number): void => {
    const effects = effectsOf(key);
    keyspace.apply(effects.bytes, 0, effects.length, index, undefined);
  };
  const append = (key: string, stampMs: number): void => {
    const index = log.append(1, stampMs, 1, {
      flags: 0,
      slot: 0,
      number: 0,
      reply: makeSink(8),
      replyStart: 0,
      replyEnd: 0,
      ops: makeSink(8),
      effects: effectsOf(key),
    });
    apply(key, index);
  };
  const turns = (count: number): void => {
    for (let i = 0; i < count; i++) {
      commit.begin(1);
      store.flush();
      expect(commit.settle(1) ?? "").toBe("");
    }
  };
  const step = (what: Partial<CommitStep>): void =>
    commit.add({
      name: "step",
      urgent: true,
      data: DATA_FREE,
      fill: () => undefined,
      onFlushed: () => undefined,
      ...what,
    });
  return { limits, store, keyspace, log, commit, append, apply, turns, step };
}

it("the newest stamp of a log that is cut is that of what is left (simulator, seed 70799)", () => {
  const { limits, store, log, commit, append, turns, step } = disk();
  const restarted = (): SyncLog => {
    const again = new SyncLog(store, limits);
    const row = readStateRow(store);
    again.load(row.base, row.logBytes, row.timeMs);
    return again;
  };
  commit.upTo = 0;
  append("kept", 1000);
  turns(1);
  append("set aside", 900_000);
  turns(1);
  expect(restarted().timeMs).toBe(900_000);
  step({ fill: (writer) => log.cut(writer, 1) });
  turns(1);
  expect(log.timeMs).toBe(1000);
  expect(restarted().timeMs).toBe(1000);
  step({ fill: (writer) => log.cut(writer, 0) });
  turns(1);
  expect(restarted().timeMs).toBe(0);
});

it("what could not be put behind is tried again when a step has replaced it (simulator, seed 36474)", () => {
  const { store, keyspace, commit, append, apply, turns, step } = disk();
  commit.eager = true;
  commit.upTo = 1;
  append("first", 1);
  turns(3);
  append("not yet", 2);
  turns(3);
  expect([store.count("data"), keyspace.overlaySize()]).toEqual([1, 1]);
  step({
    onFlushed: () => {
      keyspace.reset(0);
      apply("instead", 1);
    },
  });
  turns(4);
  expect([store.count("data"), keyspace.overlaySize()]).toEqual([2, 0]);
});
