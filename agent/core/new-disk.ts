/**
 * Data under a new identity: a copied directory, a restored backup. What it holds stays, and is compared
 * and set aside like any log; but the record, `asked` and the confirms belong to the disk it was
 * copied from, so they are forgotten before the new identity is on disk.
 */
import { forgetConfirmed } from "./group-commit.js";
import { META_ROLES } from "./roles.js";
import type { Store } from "./store.js";

const META_START = Uint8Array.of(97);

/**
 * What a killed process left in the system's hands is found again, but a power cut would still take it: it is
 * flushed, by a commit on top of it, before the core tells or confirms any of it (rule 7).
 */
export function flushFound(store: Store, done: (error: Error | undefined) => void): void {
  store.commit((writer) => writer.put("meta", META_START, Uint8Array.of(1)), done, true);
}

/** @param done called once it is on disk, or with why it is not */
export function forgetPair(store: Store, done: (error: Error | undefined) => void): void {
  store.commit(
    (writer) => {
      writer.del("meta", META_ROLES);
      forgetConfirmed(store, writer);
    },
    done,
    true,
  );
}
