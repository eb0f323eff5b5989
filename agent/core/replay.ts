/**
 * Applying entries: what the standby does with each chunk it receives, and what any server does with
 * the log behind its tables after a restart or a set-aside.
 */
import { MalformedEffects } from "../commands/effects.js";
import {
  CHUNK_HEADER_BYTES,
  ENTRY_RESULT,
  chunkCount,
  chunkFirst,
  makeEntryView,
  readEntry,
} from "./chunk.js";
import type { EntryView } from "./chunk.js";
import type { Keyspace } from "./execution.js";
import type { SessionTable } from "./session-table.js";
import type { SyncLog } from "./sync-log.js";

export interface ReplayTarget {
  keyspace: Keyspace;
  table: SessionTable;
  /** The tables hold all effects up to here, the session table all sessions up to there. */
  applied: number;
  sessionsAt: number;
}

/** What a chunk's entries do beside the data. */
export interface EntryWatcher {
  /** Keys the entry touched; `all` when it touched every key. */
  onTouched(keys: string[], all: boolean, index: number): void;
  /** The entry carries the outcome of a numbered command; the table knows it already. */
  onResult(entry: EntryView, index: number): void;
}

const view = makeEntryView();
const touched: string[] = [];

/**
 * Applies a sound chunk (chunkFault found nothing).
 * @returns index of the first entry whose content is malformed and was not applied, 0 when there is none
 */
export function applyChunk(
  chunk: Uint8Array,
  target: ReplayTarget,
  nowMs: number,
  watcher: EntryWatcher | undefined,
): number {
  const { keyspace, table } = target;
  let index = chunkFirst(chunk);
  let at = CHUNK_HEADER_BYTES;
  for (let left = chunkCount(chunk); left > 0; left--, index++) {
    at = readEntry(chunk, at, chunk.length, view);
    const { effectsStart, effectsEnd } = view;
    // Without effects too: the keyspace counts how far it has come.
    if (index > target.applied) {
      try {
        if (watcher === undefined) {
          keyspace.apply(chunk, effectsStart, effectsEnd, index, undefined);
        } else {
          touched.length = 0;
          const all = keyspace.apply(chunk, effectsStart, effectsEnd, index, touched);
          if (all || touched.length > 0) watcher.onTouched(touched, all, index);
        }
      } catch (error) {
        // A store that fails while a key is looked up says nothing against the entry, and ends the agent.
        if (!(error instanceof MalformedEffects)) throw error;
        return index;
      }
    }
    if (index <= target.sessionsAt) continue;
    if (view.opsEnd > view.opsStart && !table.apply(view, nowMs)) return index;
    if ((view.flags & ENTRY_RESULT) !== 0) {
      table.keep(view, index, nowMs);
      if (watcher !== undefined) watcher.onResult(view, index);
    }
  }
  return 0;
}

/** Brings overlay and session table up to the log's end. Throws when the stored log is damaged. */
export function replayLog(log: SyncLog, target: ReplayTarget, nowMs: number): void {
  const from = Math.min(target.applied, target.sessionsAt);
  log.visit(Math.max(from, log.base), (chunk) => {
    const bad = applyChunk(chunk, target, nowMs, undefined);
    if (bad > 0) throw new Error("the stored log is damaged at entry " + bad);
  });
}
