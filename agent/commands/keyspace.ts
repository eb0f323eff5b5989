/**
 * The keyspace: what the store's tables hold, and over it what entries have changed since.
 *
 *     effects ──apply──> items (newest state, serves reads) ──versions, oldest first──> writeBehind
 *
 * A version is a state an item had when it was last changed within the time it waited. Write-behind
 * may store only what is confirmed (`upTo`); a version that is newer is frozen where it stands and the next
 * change of that item begins another one, so that a key written all the time is stored all the same.
 * `appliedIndex` is just before the first change of the oldest version not yet handed to a transaction.
 *
 * Write-behind goes in laps: all that waits when a lap begins is stored in the order of the tables' rows, over as
 * many transactions as it takes, and what could not be stored then in order of age (see sweep.ts).
 *
 * FLUSHDB is a version too: from the moment it is applied the store's rows are masked, until the
 * transaction that clears the tables is done. The rows of dropped hashes are removed a few at a time.
 */
import { assert } from "../../protocol/malformed.js";
import type { Keyspace } from "../core/execution.js";
import type { Store, StoreWriter } from "../core/store.js";
import {
  EffectReader,
  MalformedEffects,
  OP_DEL,
  OP_EXPIRE,
  OP_FLUSH,
  OP_HASH,
  OP_HDEL,
  OP_HDROP,
  OP_HPUT,
  OP_PUT,
} from "./effects.js";
import type { HashId } from "./effects.js";
import { getU48, hashOf, latin1, putU48 } from "./key-hash.js";
import {
  dataKey,
  decodeRow,
  DROP_FROM,
  DROP_TO,
  dropKey,
  encodeRow,
  expiryKey,
  fieldEnd,
  fieldKey,
  fieldPrefix,
  hashState,
  idAt,
  idName,
  idOfDropKey,
  keyOfDataKey,
  KIND_NONE,
  MISSING,
  NEXT_KEY,
  rowBytes,
  stringState,
} from "./rows.js";
import type { KeyState } from "./rows.js";
import { Sweep } from "./sweep.js";

/** Values up to this long are copied into a shared slab, longer ones get an array of their own. @unit bytes */
const SLAB_VALUE_MAX = 4096;
const SLAB_BYTES = 65536;
/** The first slab is small: most of what a store is opened for is over soon, or needs many. */
const FIRST_SLAB_BYTES = 4096;
/** Keys of each of two generations whose rows, as read, are kept in memory. */
const CACHED_KEYS = 4096;
/** Longer values are not kept. @unit bytes */
const CACHED_VALUE_MAX = 512;
/** Rows of dropped hashes removed in one transaction. */
const DROP_ROWS_MAX = 500;
const NO_BYTES = new Uint8Array(0);

/** A field's value in the overlay: bytes[start..end), or gone. */
export interface FieldValue {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
  readonly gone: boolean;
}

/** The row has not been read yet. */
const UNSEEN = -2;

const GONE: FieldValue = { bytes: NO_BYTES, start: 0, end: 0, gone: true };

/** A key or a field with changes that are not all in the store. */
export class Item {
  readonly name: string;
  readonly hash: number;
  /** Of a field: the hash it belongs to. */
  readonly owner: HashOverlay | undefined;
  state: KeyState = MISSING;
  value: FieldValue = GONE;
  /** The version that takes the next change; undefined when it must begin one. */
  open: Version | undefined = undefined;
  /** Versions not yet handed to a transaction, and those handed to one that is not done. */
  waiting = 0;
  inFlight = 0;
  /** Of a key: expiry time its row in the store has, counting transactions under way; -1: no row; UNSEEN: not known. */
  stored = -1;

  constructor(name: string, hash: number, owner: HashOverlay | undefined) {
    this.name = name;
    this.hash = hash;
    this.owner = owner;
  }
}

/** Changed fields of one hash. */
export class HashOverlay {
  readonly id: HashId;
  readonly name: string;
  readonly items = new Map<string, Item>();

  constructor(id: HashId, name: string) {
    this.id = id;
    this.name = name;
  }
}

const VERSION_KEY = 0;
const VERSION_FIELD = 1;
const VERSION_DROP = 2;
const VERSION_FLUSH = 3;

export class Version {
  readonly kind: number;
  readonly item: Item | undefined;
  readonly id: HashId | undefined;
  readonly first: number;
  last: number;
  state: KeyState = MISSING;
  value: FieldValue = GONE;
  /** Of its value. @unit bytes */
  size = 0;
  handed = false;

  constructor(kind: number, item: Item | undefined, id: HashId | undefined, index: number) {
    this.kind = kind;
    this.item = item;
    this.id = id;
    this.first = index;
    this.last = index;
  }
}

interface Drop {
  id: HashId;
  from: Uint8Array;
  /** Its rows can be read once this token is done. */
  after: number;
}

export function createKeyspace(store: Store): KeyspaceState {
  return new KeyspaceState(store);
}

export class KeyspaceState implements Keyspace {
  readonly store: Store;
  /** Changed keys by name. */
  items = new Map<string, Item>();
  /** Changed fields by the name of their hash's id. */
  hashes = new Map<string, HashOverlay>();
  /** Changed keys that expire, or did. */
  readonly expiring = new Set<Item>();
  /** Flushes of the keyspace whose clearing is not done: the store's rows count for nothing. */
  masks = 0;

  private readonly reader = new EffectReader();
  private versions: Version[] = [];
  private versionsHead = 0;
  /** Versions not handed to a transaction, and those in one that is not done. */
  private waiting = 0;
  private inFlight = 0;
  /** Bytes of their values. */
  private bytes = 0;
  private sweep: Sweep | undefined = undefined;
  /** As if no key that is UNSEEN had a row. */
  private keys = 0;
  /** Keys in `items` whose rows are UNSEEN. */
  private unseen = 0;
  private lastIndex = 0;
  private lastToken = 0;
  private doneToken = 0;
  private readonly tokens = new Map<number, Version[]>();
  private drops: Drop[] = [];
  /** Names of the ids in `drops` from `dropsHead` on. */
  private readonly dropped = new Set<string>();
  private dropsHead = 0;
  private epoch = 0;
  private nextCounter = 1;
  private storedCounter = 1;
  private slab = new Uint8Array(FIRST_SLAB_BYTES);
  private slabUsed = 0;
  private row = new Uint8Array(256);
  /** What the store was found to hold, two generations of it; never of keys in `items`. */
  private recent = new Map<string, KeyState>();
  private older = new Map<string, KeyState>();

  constructor(store: Store) {
    this.store = store;
    this.reset(0);
  }

  reset(appliedIndex: number): void {
    assert(this.tokens.size === 0, "no write-behind is under way at a reset");
    this.items = new Map();
    this.hashes = new Map();
    this.expiring.clear();
    this.masks = 0;
    this.versions = [];
    this.versionsHead = 0;
    this.waiting = 0;
    this.inFlight = 0;
    this.bytes = 0;
    this.sweep = undefined;
    this.lastIndex = appliedIndex;
    this.forgetCached();
    this.keys = this.store.count("data");
    this.unseen = 0;
    const next = this.store.get("meta", NEXT_KEY);
    this.nextCounter = next === undefined ? 1 : getU48(next, 0);
    this.storedCounter = this.nextCounter;
    this.drops = [];
    this.dropsHead = 0;
    this.dropped.clear();
    let from = DROP_FROM;
    for (;;) {
      const rows = this.store.range("meta", from, DROP_TO, 1000);
      for (const { key } of rows) {
        const id = idOfDropKey(key);
        this.addDrop(id, 0);
      }
      if (rows.length < 1000) break;
      from = follow(rows[rows.length - 1]!.key);
    }
  }

  /** Hash ids made from here on belong to this epoch; called when the server becomes its primary. */
  setEpoch(epoch: number): void {
    this.epoch = epoch;
  }

  /** An id no hash of the pair has had. `ahead`: ids taken by effects that are not applied yet. */
  nextHashId(ahead: number): HashId {
    return { epoch: this.epoch, counter: this.nextCounter + ahead };
  }

  /** Number of keys, past-due ones included, as Redis counts them; too many by some of `unseenKeys`. */
  sizeAtMost(): number {
    return this.keys;
  }

  /** Keys of which it is not known yet whether they were there before they were set. */
  unseenKeys(): string[] {
    const unseen: string[] = [];
    if (this.unseen === 0) return unseen;
    for (const item of this.items.values()) if (item.stored === UNSEEN) unseen.push(item.name);
    return unseen;
  }

  /**
   * Reads rows of `unseenKeys`, for good: whoever is told "not yet" and comes again finds fewer.
   * @returns how many of `max` were not needed
   */
  seeUnseen(max: number): number {
    let left = max;
    for (const item of this.items.values()) {
      if (this.unseen === 0 || left === 0) break;
      if (item.stored !== UNSEEN) continue;
      this.see(item);
      left--;
    }
    return left;
  }

  /** Reads the row of an item, unless that was done; to be called before a row in its place is handed over. */
  private see(item: Item): void {
    if (item.stored !== UNSEEN) return;
    const row = this.store.get("data", dataKey(item.name));
    item.stored = row === undefined ? -1 : decodeRow(row).expireAt;
    // One that a flush of the keyspace has passed over counts no more.
    if (this.items.get(item.name) !== item) return;
    this.unseen--;
    if (row !== undefined) this.keys--;
  }

  /** The key's newest state, MISSING when there is none. Expiry is the caller's matter. */
  lookup(key: string): KeyState {
    const item = this.items.get(key);
    if (item !== undefined) return item.state;
    if (this.masks > 0) return MISSING;
    let state = this.recent.get(key);
    if (state !== undefined) return state;
    state = this.older.get(key);
    if (state === undefined) {
      const row = this.store.get("data", dataKey(key));
      state = row === undefined ? MISSING : decodeRow(row);
      if (state.end - state.start > CACHED_VALUE_MAX) return state;
    }
    if (this.recent.size >= CACHED_KEYS) {
      this.older = this.recent;
      this.recent = new Map();
    }
    this.recent.set(key, state);
    return state;
  }

  private forgetCached(): void {
    if (this.recent.size > 0) this.recent = new Map();
    if (this.older.size > 0) this.older = new Map();
  }

  /** A field's value, undefined when there is none. */
  field(id: HashId, field: string): FieldValue | undefined {
    if (this.hashes.size > 0) {
      const item = this.hashes.get(idName(id))?.items.get(field);
      if (item !== undefined) return item.value.gone ? undefined : item.value;
    }
    if (this.masks > 0) return undefined;
    const bytes = this.store.get("field", fieldKey(id, field));
    return bytes === undefined ? undefined : { bytes, start: 0, end: bytes.length, gone: false };
  }

  apply(
    effects: Uint8Array,
    start: number,
    end: number,
    index: number,
    touched: string[] | undefined,
  ): boolean {
    const reader = this.reader;
    reader.open(effects, start, end);
    let inHash = false;
    while (reader.next()) {
      if (reader.op === OP_HASH) inHash = true;
      else if (reader.op === OP_FLUSH) inHash = false;
      else if (reader.op === OP_HPUT || reader.op === OP_HDEL) {
        if (!inHash) throw new MalformedEffects("a field without its hash");
      }
    }
    if (index > this.lastIndex) this.lastIndex = index;
    let id: HashId | undefined;
    let flushed = false;
    reader.open(effects, start, end);
    while (reader.next()) {
      switch (reader.op) {
        case OP_HPUT:
        case OP_HDEL: {
          const field = latin1(effects, reader.nameStart, reader.nameEnd);
          const gone = reader.op === OP_HDEL;
          const value = gone ? GONE : this.kept(reader.valueStart, reader.valueEnd);
          this.changeField(id!, field, value, index);
          continue;
        }
        case OP_HDROP:
          this.dropHash({ epoch: reader.idEpoch, counter: reader.idCounter }, index);
          continue;
        case OP_FLUSH:
          this.flushAll(index);
          flushed = true;
          continue;
        default:
      }
      const key = latin1(effects, reader.nameStart, reader.nameEnd);
      if (touched !== undefined) touched.push(key);
      if (reader.op === OP_PUT) {
        const value = this.kept(reader.valueStart, reader.valueEnd);
        const state = stringState(reader.expireAt, value.bytes, value.start, value.end);
        this.changeKey(this.itemToPut(key), state, index);
      } else if (reader.op === OP_DEL) {
        this.changeKey(this.itemOf(key), MISSING, index);
      } else if (reader.op === OP_EXPIRE) {
        const item = this.itemOf(key);
        // On replay from an older state the key may be gone again already.
        if (item.state.kind !== KIND_NONE) {
          this.changeKey(item, { ...item.state, expireAt: reader.expireAt }, index);
        }
      } else {
        id = { epoch: reader.idEpoch, counter: reader.idCounter };
        if (id.counter >= this.nextCounter) this.nextCounter = id.counter + 1;
        this.changeKey(this.itemOf(key), hashState(reader.expireAt, id, reader.count), index);
      }
    }
    return flushed;
  }

  putRow(writer: StoreWriter, key: Uint8Array, row: Uint8Array): void {
    const { expireAt } = decodeRow(row);
    const item = this.items.get(keyOfDataKey(key));
    let stored: number;
    if (item !== undefined) {
      this.see(item);
      stored = item.stored;
      item.stored = expireAt;
    } else {
      const before = this.masks > 0 ? undefined : this.store.get("data", key);
      stored = before === undefined ? -1 : decodeRow(before).expireAt;
    }
    if (stored > 0 && stored !== expireAt) writer.del("expiry", expiryKey(stored, key));
    if (expireAt > 0) writer.put("expiry", expiryKey(expireAt, key), NO_BYTES);
    writer.put("data", key, row);
  }

  isDropped(fieldKey: Uint8Array): boolean {
    return this.dropped.size > 0 && this.dropped.has(idName(idAt(fieldKey, 0)));
  }

  /** Index the next entry will have, as far as this keyspace knows. */
  nextIndex(): number {
    return this.lastIndex + 1;
  }

  writeBehind(
    writer: StoreWriter,
    max: number,
    upTo: number = Infinity,
    maxBytes: number = Infinity,
  ): number {
    const token = this.lastToken + 1;
    const handed: Version[] = [];
    let left = max;
    // A flush of the keyspace has its place among the others: until it is stored all go in order of age.
    if (this.masks > 0) {
      this.skipSuperseded(upTo);
      this.sweep = undefined;
      this.handOldest(writer, token, left, upTo, this.lastIndex, maxBytes, handed);
    } else if (this.waiting > 0) {
      // The end of one lap and the beginning of the next may share a transaction, two laps never do.
      for (let laps = 0; laps < 2 && handed.length < max && this.waiting > 0; laps++) {
        if (this.sweep === undefined) {
          this.sweep = new Sweep(this.versions, this.versionsHead, this.lastIndex);
        }
        if (!this.handLap(this.sweep, writer, token, max, upTo, maxBytes, handed)) break;
        this.sweep = undefined;
      }
    }
    left -= handed.length;
    let wrote = handed.length > 0;
    this.trimVersions();
    const rows = left < DROP_ROWS_MAX ? left : DROP_ROWS_MAX;
    if (rows > 0 && this.dropsHead < this.drops.length && this.removeDropped(writer, rows, token))
      wrote = true;
    if (this.nextCounter !== this.storedCounter && wrote) {
      const bytes = new Uint8Array(6);
      putU48(bytes, 0, this.nextCounter);
      writer.put("meta", NEXT_KEY, bytes);
      this.storedCounter = this.nextCounter;
    }
    if (!wrote) return 0;
    this.lastToken = token;
    this.tokens.set(token, handed);
    return token;
  }

  /** @returns true when the lap is over */
  private handLap(
    sweep: Sweep,
    writer: StoreWriter,
    token: number,
    max: number,
    upTo: number,
    maxBytes: number,
    handed: Version[],
  ): boolean {
    let bytes = 0;
    for (const version of handed) bytes += version.size;
    while (handed.length < max && bytes < maxBytes) {
      const version = sweep.next();
      if (version === undefined) {
        const all = this.handOldest(
          writer,
          token,
          max - handed.length,
          upTo,
          sweep.lastIndex,
          maxBytes - bytes,
          handed,
        );
        if (!all) return false;
        this.trimVersions();
        const oldest = this.versions[this.versionsHead];
        // What is left waits for its confirm; when those are far behind, the others do not wait with it.
        return oldest === undefined || oldest.first > sweep.lastIndex || upTo < sweep.lastIndex;
      }
      if (version.handed) continue;
      // A newer one of the same item comes next, in the same call, and is passed over as well.
      if (version.last > upTo) {
        this.freeze(version);
        continue;
      }
      this.hand(version, writer, token);
      handed.push(version);
      bytes += version.size;
    }
    return false;
  }

  /** @returns true when it came to the end of those that began at or before `lastFirst` */
  private handOldest(
    writer: StoreWriter,
    token: number,
    max: number,
    upTo: number,
    lastFirst: number,
    maxBytes: number,
    handed: Version[],
  ): boolean {
    const versions = this.versions;
    let left = max;
    let bytes = 0;
    for (let i = this.versionsHead; i < versions.length; i++) {
      const version = versions[i]!;
      if (version.first > upTo || version.first > lastFirst) return true;
      if (version.handed) continue;
      if (left <= 0 || bytes >= maxBytes) return false;
      if (version.last > upTo) {
        this.freeze(version);
        continue;
      }
      this.hand(version, writer, token);
      handed.push(version);
      left--;
      bytes += version.size;
    }
    return true;
  }

  /** Changed since what may be stored: it stays as it is now until that may be stored. */
  private freeze(version: Version): void {
    if (version.item!.open === version) version.item!.open = undefined;
  }

  writtenBehind(token: number): void {
    const handed = this.tokens.get(token);
    assert(handed !== undefined, "a write-behind token is told once");
    this.tokens.delete(token);
    this.doneToken = token;
    this.inFlight -= handed!.length;
    for (const version of handed!) {
      this.bytes -= version.size;
      if (version.kind === VERSION_FLUSH) this.masks--;
      const item = version.item;
      if (item === undefined) continue;
      item.inFlight--;
      if (item.inFlight === 0 && item.waiting === 0) this.forget(item);
    }
  }

  appliedIndex(): number {
    if (this.versionsHead < this.versions.length)
      return this.versions[this.versionsHead]!.first - 1;
    return this.lastIndex;
  }

  overlaySize(): number {
    return this.waiting + this.inFlight + this.drops.length - this.dropsHead;
  }

  overlayBytes(): number {
    return this.bytes;
  }

  dropping(): number {
    return this.drops.length - this.dropsHead;
  }

  private forget(item: Item): void {
    const owner = item.owner;
    if (owner === undefined) {
      if (this.items.get(item.name) === item) this.items.delete(item.name);
      // What was read before it changed.
      this.recent.delete(item.name);
      this.older.delete(item.name);
      this.expiring.delete(item);
      return;
    }
    if (owner.items.get(item.name) !== item) return;
    owner.items.delete(item.name);
    if (this.hashes.get(owner.name) !== owner) return;
    if (owner.items.size === 0) this.hashes.delete(owner.name);
  }

  /**
   * What it held makes no difference to the change: a row that is not at hand is read when the new one is stored,
   * among its neighbours, and not here, where a standby that is brought up to date would read one after the other.
   */
  private itemToPut(key: string): Item {
    const item = this.items.get(key);
    if (item !== undefined) return item;
    if (this.masks > 0 || this.recent.has(key) || this.older.has(key)) return this.itemOf(key);
    const blind = new Item(key, hashOf(key), undefined);
    blind.stored = UNSEEN;
    this.unseen++;
    this.items.set(key, blind);
    return blind;
  }

  private itemOf(key: string): Item {
    let item = this.items.get(key);
    if (item === undefined) {
      const state = this.lookup(key);
      item = new Item(key, hashOf(key), undefined);
      item.state = state;
      item.stored = state.kind === KIND_NONE ? -1 : state.expireAt;
      this.items.set(key, item);
    }
    return item;
  }

  private changeKey(item: Item, state: KeyState, index: number): void {
    if (item.state.kind !== KIND_NONE) this.keys--;
    if (state.kind !== KIND_NONE) this.keys++;
    if (state.expireAt > 0) this.expiring.add(item);
    item.state = state;
    const version = this.versionOf(item, VERSION_KEY, index);
    version.state = state;
    this.resize(version, state.end - state.start);
  }

  private changeField(id: HashId, field: string, value: FieldValue, index: number): void {
    const name = idName(id);
    let owner = this.hashes.get(name);
    if (owner === undefined) {
      owner = new HashOverlay(id, name);
      this.hashes.set(name, owner);
    }
    let item = owner.items.get(field);
    if (item === undefined) {
      item = new Item(field, hashOf(field), owner);
      owner.items.set(field, item);
    }
    item.value = value;
    const version = this.versionOf(item, VERSION_FIELD, index);
    version.value = value;
    this.resize(version, value.end - value.start);
  }

  private versionOf(item: Item, kind: number, index: number): Version {
    let version = item.open;
    if (version === undefined) {
      version = new Version(kind, item, undefined, index);
      item.open = version;
      item.waiting++;
      this.push(version);
    }
    version.last = index;
    return version;
  }

  private resize(version: Version, size: number): void {
    this.bytes += size - version.size;
    version.size = size;
  }

  private push(version: Version): void {
    this.versions.push(version);
    this.waiting++;
  }

  private dropHash(id: HashId, index: number): void {
    const overlay = this.hashes.get(idName(id));
    if (overlay !== undefined) this.hashes.delete(overlay.name);
    this.push(new Version(VERSION_DROP, undefined, id, index));
  }

  private flushAll(index: number): void {
    this.items = new Map();
    this.hashes = new Map();
    this.expiring.clear();
    this.keys = 0;
    this.unseen = 0;
    this.masks++;
    this.forgetCached();
    this.push(new Version(VERSION_FLUSH, undefined, undefined, index));
  }

  /** What a flush that may be stored wipes out anyway need not be stored first. */
  private skipSuperseded(upTo: number): void {
    if (this.masks === 0) return;
    let flush = -1;
    for (let i = this.versionsHead; i < this.versions.length; i++) {
      const version = this.versions[i]!;
      if (version.first > upTo) break;
      if (version.kind === VERSION_FLUSH && !version.handed) flush = i;
    }
    for (let i = this.versionsHead; i < flush; i++) {
      const version = this.versions[i]!;
      if (version.handed) continue;
      version.handed = true;
      this.waiting--;
      this.bytes -= version.size;
      if (version.kind === VERSION_FLUSH) this.masks--;
      if (version.item !== undefined) version.item.waiting--;
    }
  }

  private hand(version: Version, writer: StoreWriter, token: number): void {
    version.handed = true;
    this.waiting--;
    this.inFlight++;
    switch (version.kind) {
      case VERSION_FLUSH:
        writer.clear("data");
        writer.clear("field");
        writer.clear("expiry");
        for (let i = this.dropsHead; i < this.drops.length; i++) {
          writer.del("meta", dropKey(this.drops[i]!.id));
        }
        this.drops = [];
        this.dropsHead = 0;
        this.dropped.clear();
        return;
      case VERSION_DROP:
        writer.put("meta", dropKey(version.id!), NO_BYTES);
        this.addDrop(version.id!, token);
        return;
      default:
    }
    const item = version.item!;
    item.waiting--;
    item.inFlight++;
    if (item.open === version) item.open = undefined;
    if (version.kind === VERSION_FIELD) {
      const key = fieldKey(item.owner!.id, item.name);
      const value = version.value;
      if (value.gone) writer.del("field", key);
      else writer.put("field", key, value.bytes.subarray(value.start, value.end));
      return;
    }
    const state = version.state;
    const key = dataKey(item.name);
    this.see(item);
    const expireAt = state.kind === KIND_NONE ? -1 : state.expireAt;
    if (item.stored > 0 && item.stored !== expireAt) {
      writer.del("expiry", expiryKey(item.stored, key));
    }
    if (expireAt > 0 && item.stored !== expireAt) {
      writer.put("expiry", expiryKey(expireAt, key), NO_BYTES);
    }
    item.stored = expireAt;
    if (state.kind === KIND_NONE) {
      writer.del("data", key);
      return;
    }
    const length = rowBytes(state);
    if (length > this.row.length) this.row = new Uint8Array(length * 2);
    encodeRow(state, this.row);
    writer.put("data", key, this.row.subarray(0, length));
    if (this.row.length > SLAB_BYTES) this.row = new Uint8Array(256);
  }

  private addDrop(id: HashId, after: number): void {
    this.drops.push({ id, from: fieldPrefix(id, 0), after });
    this.dropped.add(idName(id));
  }

  private trimVersions(): void {
    const versions = this.versions;
    let head = this.versionsHead;
    while (head < versions.length && versions[head]!.handed) head++;
    this.versionsHead = head;
    if (head > 1024 && head * 2 > versions.length) {
      this.versions = versions.slice(head);
      this.versionsHead = 0;
    }
  }

  /** Removes up to `budget` rows of dropped hashes whose own writes are all done. */
  private removeDropped(writer: StoreWriter, budget: number, token: number): boolean {
    let left = budget;
    let wrote = false;
    while (left > 0 && this.dropsHead < this.drops.length) {
      const drop = this.drops[this.dropsHead]!;
      if (drop.after > this.doneToken || drop.after === token) break;
      const rows = this.store.range("field", drop.from, fieldEnd(drop.id), left);
      for (const { key } of rows) writer.del("field", key);
      wrote = true;
      if (rows.length === left) {
        drop.from = follow(rows[rows.length - 1]!.key);
        break;
      }
      left -= rows.length + 1;
      writer.del("meta", dropKey(drop.id));
      this.dropped.delete(idName(drop.id));
      this.dropsHead++;
    }
    if (this.dropsHead > 1024 && this.dropsHead * 2 > this.drops.length) {
      this.drops = this.drops.slice(this.dropsHead);
      this.dropsHead = 0;
    }
    return wrote;
  }

  /** A copy of the reader's value that nobody writes to again. */
  private kept(start: number, end: number): FieldValue {
    const from = this.reader.bytes;
    const length = end - start;
    if (length > SLAB_VALUE_MAX) {
      return { bytes: from.slice(start, end), start: 0, end: length, gone: false };
    }
    if (this.slabUsed + length > this.slab.length) {
      this.slab = new Uint8Array(SLAB_BYTES);
      this.slabUsed = 0;
    }
    const slab = this.slab;
    const at = this.slabUsed;
    if (length < 32) for (let i = 0; i < length; i++) slab[at + i] = from[start + i]!;
    else slab.set(from.subarray(start, end), at);
    this.slabUsed = at + length;
    return { bytes: slab, start: at, end: at + length, gone: false };
  }
}

/** The least key that comes after this one. */
export function follow(key: Uint8Array): Uint8Array {
  const next = new Uint8Array(key.length + 1);
  next.set(key);
  return next;
}
