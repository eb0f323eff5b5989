/**
 * The session table on disk, so that the log behind it may be trimmed. Two checkpoints are kept: when
 * entries are set aside that the newer one already counts, the older one is gone back to.
 */
import { readU48, writeU48 } from "../../protocol/frame.js";
import { makeSink } from "../../protocol/resp.js";
import { DATA_FREE } from "./group-commit.js";
import type { CommitStep, GroupCommit } from "./group-commit.js";
import type { SessionTable } from "./session-table.js";
import type { Store, StoreWriter } from "./store.js";
import type { SyncLog } from "./sync-log.js";

const META_CHECKPOINTS = [Uint8Array.of(110, 0), Uint8Array.of(110, 1)] as const;

export class SessionCheckpoint {
  /** Log index each checkpoint is as of. */
  private readonly ats: [number, number] = [0, 0];
  private under = false;
  /** Log bytes ever written when the newest one was made. */
  private bytesThen = 0;

  constructor(
    private readonly store: Store,
    private readonly table: SessionTable,
    private readonly log: SyncLog,
    private readonly commit: GroupCommit,
    private readonly checkpointBytes: number,
  ) {}

  /** Reads the newest checkpoint that is not above `upTo` into the table. */
  load(upTo: number): void {
    let best: Uint8Array | undefined;
    let bestAt = 0;
    for (const place of [0, 1] as const) {
      const row = this.store.get("meta", META_CHECKPOINTS[place]);
      this.ats[place] = row === undefined ? 0 : readU48(row, 0);
      if (row !== undefined && this.ats[place] <= upTo && this.ats[place] >= bestAt) {
        best = row;
        bestAt = this.ats[place];
      }
    }
    this.table.clear();
    if (best !== undefined && !this.table.read(best, 6, best.length)) {
      throw new Error("the stored session table is damaged");
    }
    this.commit.tableAt = bestAt;
    this.commit.sessionsAt = Math.min(this.ats[0], this.ats[1]);
    this.bytesThen = this.log.bytesEver;
  }

  /** Adds a checkpoint to the next commit when the log has grown enough. */
  tick(): void {
    if (this.under || this.log.bytesEver - this.bytesThen < this.checkpointBytes) return;
    // Entries are being set aside: the table still counts them.
    if (this.commit.holding()) return;
    this.under = true;
    this.bytesThen = this.log.bytesEver;
    const place = this.ats[0] <= this.ats[1] ? 0 : 1;
    const step: CommitStep = {
      name: "session checkpoint",
      urgent: false,
      data: DATA_FREE,
      fill: (writer) => this.write(writer, place),
      onFlushed: () => {
        this.under = false;
      },
    };
    this.commit.add(step);
  }

  /** The commit has sealed the log, so the table is as of its end. */
  private write(writer: StoreWriter, place: 0 | 1): void {
    writer.put("meta", META_CHECKPOINTS[place], this.row(this.log.end));
    this.ats[place] = this.log.end;
    this.commit.sessionsAt = Math.min(this.ats[0], this.ats[1]);
  }

  private row(at: number): Uint8Array {
    const sink = makeSink(4096);
    writeU48(sink.bytes, 0, at);
    sink.length = 6;
    this.table.write(sink);
    return sink.bytes.slice(0, sink.length);
  }

  /** The table as bytes, preceded by the index it is as of. */
  image(): Uint8Array {
    return this.row(this.log.end);
  }

  /** Takes a copied table for both checkpoints; inside a commit. */
  replace(writer: StoreWriter, image: Uint8Array): void {
    const at = readU48(image, 0);
    for (const place of [0, 1] as const) {
      writer.put("meta", META_CHECKPOINTS[place], image);
      this.ats[place] = at;
    }
    this.commit.sessionsAt = at;
    this.bytesThen = this.log.bytesEver;
  }

  /**
   * Entries above `keepTo` are removed; inside that commit. A checkpoint that counts some of them would be taken
   * for one of the entries that come in their place, so the other one is put there.
   */
  cut(writer: StoreWriter, keepTo: number): void {
    for (const place of [0, 1] as const) {
      if (this.ats[place] <= keepTo) continue;
      const other = place === 0 ? 1 : 0;
      const row =
        this.ats[other] > 0 && this.ats[other] <= keepTo
          ? this.store.get("meta", META_CHECKPOINTS[other])
          : undefined;
      if (row === undefined) writer.del("meta", META_CHECKPOINTS[place]);
      else writer.put("meta", META_CHECKPOINTS[place], row);
      this.ats[place] = row === undefined ? 0 : this.ats[other];
    }
    this.commit.sessionsAt = Math.min(this.ats[0], this.ats[1]);
  }

  /** No checkpoint is valid any more (a copy begins); inside a commit. */
  remove(writer: StoreWriter): void {
    for (const place of [0, 1] as const) {
      writer.del("meta", META_CHECKPOINTS[place]);
      this.ats[place] = 0;
    }
    this.commit.sessionsAt = 0;
  }
}
