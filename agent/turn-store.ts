/** The store as the core gets it: every finished commit is input, so it ends in a turn like all input. */
import type { RangeEntry, Snapshot, Store, StoreWriter, Table } from "./core/store.js";

export class TurnStore implements Store {
  /** @param onDone called after each finished commit has been told to the core */
  constructor(
    private readonly store: Store,
    private readonly onDone: () => void,
  ) {}

  get(table: Table, key: Uint8Array): Uint8Array | undefined {
    return this.store.get(table, key);
  }

  range(
    table: Table,
    from: Uint8Array,
    to: Uint8Array | undefined,
    limit: number,
    reverse?: boolean,
  ): RangeEntry[] {
    return this.store.range(table, from, to, limit, reverse);
  }

  count(table: Table): number {
    return this.store.count(table);
  }

  commit(
    fill: (writer: StoreWriter) => void,
    done: (error: Error | undefined) => void,
    urgent: boolean,
  ): void {
    this.store.commit(
      fill,
      (error) => {
        done(error);
        this.onDone();
      },
      urgent,
    );
  }

  snapshot(): Snapshot {
    return this.store.snapshot();
  }

  usage(): { usedBytes: number; limitBytes: number } {
    return this.store.usage();
  }

  backup(directory: string): Promise<void> {
    return this.store.backup(directory);
  }

  close(): Promise<void> {
    return this.store.close();
  }
}
