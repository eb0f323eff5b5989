/**
 * The order in which a lap of write-behind stores what waits: that of the tables' rows.
 *
 * A page of the store holds the rows of neighbours. Stored in order of age, each key touches a page of its own, and
 * a page costs much more than a row (it is copied, and written whole); in order of the rows a page is touched
 * once for all that wait for it. The more waits, the more neighbours there are: so a lap is begun late, and
 * taken in parts, none of which is long.
 */
import type { HashOverlay, Version } from "./keyspace.js";

/** As many parts as the hash has values in its highest bits; each is sorted when its turn comes. */
const PARTS = 1024;
const PART_SHIFT = 2 ** 38;
/** Changed fields of one hash beyond this are parted, too. */
const FIELDS_SORTED_MAX = 2048;

export class Sweep {
  /** The newest entry when the lap began. Later ones have changed what waited then, or wait for the next lap. */
  readonly lastIndex: number;
  private readonly parts: Version[][] = [];
  private part = -1;
  private at = 0;
  private current: Version[] = [];

  /** @param versions from `head` on, in order of age; keys and fields are taken, the others have an order of their own */
  constructor(versions: readonly Version[], head: number, lastIndex: number) {
    this.lastIndex = lastIndex;
    const keys: Version[] = [];
    const owners = new Map<HashOverlay, Version[]>();
    for (let i = head; i < versions.length; i++) {
      const version = versions[i]!;
      const { item } = version;
      if (item === undefined || version.handed) continue;
      const { owner } = item;
      if (owner === undefined) {
        keys.push(version);
        continue;
      }
      const fields = owners.get(owner);
      if (fields === undefined) owners.set(owner, [version]);
      else fields.push(version);
    }
    this.add(keys);
    if (owners.size === 0) return;
    const ordered = [...owners.keys()].sort(
      (a, b) => a.id.epoch - b.id.epoch || a.id.counter - b.id.counter,
    );
    for (const owner of ordered) this.add(owners.get(owner)!);
  }

  private add(versions: Version[]): void {
    if (versions.length <= FIELDS_SORTED_MAX) {
      this.parts.push(versions);
      return;
    }
    const parts: Version[][] = [];
    for (let i = 0; i < PARTS; i++) parts.push([]);
    for (const version of versions)
      parts[Math.floor(version.item!.hash / PART_SHIFT)]!.push(version);
    for (const part of parts) if (part.length > 0) this.parts.push(part);
  }

  /** The next one in row order, of two of one key the older first; undefined: there is no more. */
  next(): Version | undefined {
    while (this.at === this.current.length) {
      this.part++;
      if (this.part >= this.parts.length) return undefined;
      this.current = this.parts[this.part]!;
      // What was stored needs no memory for the rest of the lap.
      this.parts[this.part] = [];
      this.at = 0;
      this.current.sort(byRow);
    }
    return this.current[this.at++];
  }
}

/** Sorting is stable, so the versions of one item are neighbours in order of age. */
function byRow(a: Version, b: Version): number {
  const order = a.item!.hash - b.item!.hash;
  if (order !== 0) return order;
  return a.item!.name < b.item!.name ? -1 : a.item!.name > b.item!.name ? 1 : 0;
}
