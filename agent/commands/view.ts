/**
 * The keyspace at one moment, for commands that go through many keys or fields in steps: a snapshot of
 * the store, and a copy of what lies over it.
 */
import type { Snapshot } from "../core/store.js";
import type { Context } from "./context.js";
import type { HashId } from "./effects.js";
import { hashOf } from "./key-hash.js";
import { follow } from "./keyspace.js";
import type { FieldValue } from "./keyspace.js";
import {
  decodeRow,
  fieldEnd,
  fieldKey,
  fieldOfFieldKey,
  fieldPrefix,
  idName,
  keyOfDataKey,
  KIND_NONE,
} from "./rows.js";
import type { KeyState } from "./rows.js";

const ROWS_AT_ONCE = 200;
const NO_VALUE: FieldValue = { bytes: new Uint8Array(0), start: 0, end: 0, gone: false };

export interface NamedKey {
  name: string;
  hash: number;
  state: KeyState;
}

export class KeysView {
  /** Undefined when the store's rows count for nothing. */
  readonly snapshot: Snapshot | undefined;
  /** States over the store's rows, missing keys included. */
  readonly over = new Map<string, KeyState>();

  constructor(c: Context) {
    const { keyspace } = c;
    this.snapshot = keyspace.masks > 0 || c.localFlushed ? undefined : keyspace.store.snapshot();
    if (!c.localFlushed) for (const [name, item] of keyspace.items) this.over.set(name, item.state);
    for (const [name, state] of c.localKeys) this.over.set(name, state);
  }

  /** Keys over the store that exist. */
  live(): NamedKey[] {
    const keys: NamedKey[] = [];
    for (const [name, state] of this.over) {
      if (state.kind !== KIND_NONE) keys.push({ name, hash: hashOf(name), state });
    }
    return keys;
  }

  /** Up to `limit` of the store's data keys from a key on, and how many of them are not changed above. */
  storeKeys(from: Uint8Array, limit: number): Uint8Array[] {
    return this.snapshot === undefined ? [] : this.snapshot.keys("data", from, undefined, limit);
  }

  stateOfRow(dataKey: Uint8Array): KeyState | undefined {
    const row = this.snapshot?.get("data", dataKey);
    return row === undefined ? undefined : decodeRow(row);
  }

  isOver(dataKey: Uint8Array): boolean {
    return this.over.size > 0 && this.over.has(keyOfDataKey(dataKey));
  }

  close(): void {
    this.snapshot?.close();
  }
}

export class FieldsView {
  readonly id: HashId;
  readonly snapshot: Snapshot | undefined;
  readonly over = new Map<string, FieldValue>();

  constructor(c: Context, id: HashId) {
    const { keyspace } = c;
    this.id = id;
    this.snapshot = keyspace.masks > 0 || c.localFlushed ? undefined : keyspace.store.snapshot();
    const name = idName(id);
    const overlay = keyspace.hashes.get(name);
    if (overlay !== undefined && !c.localFlushed) {
      for (const [field, item] of overlay.items) this.over.set(field, item.value);
    }
    const local = c.localFields.get(name);
    if (local !== undefined) for (const [field, value] of local) this.over.set(field, value);
  }

  get(field: string): FieldValue | undefined {
    const over = this.over.get(field);
    if (over !== undefined) return over.gone ? undefined : over;
    const bytes = this.snapshot?.get("field", fieldKey(this.id, field));
    return bytes === undefined ? undefined : { bytes, start: 0, end: bytes.length, gone: false };
  }

  close(): void {
    this.snapshot?.close();
  }
}

/** Goes through the fields of a hash as they are now: first the store's, then those changed above. */
export class FieldWalk {
  field = "";
  value: FieldValue = NO_VALUE;
  private readonly view: FieldsView;
  private readonly values: boolean;
  private from: Uint8Array;
  private readonly to: Uint8Array;
  private names: string[] = [];
  private rowValues: Uint8Array[] = [];
  private at = 0;
  private more: boolean;
  private over: string[] | undefined = undefined;

  constructor(c: Context, state: KeyState, values: boolean) {
    const id = state.id!;
    this.view = new FieldsView(c, id);
    this.values = values;
    this.from = fieldPrefix(id, 0);
    this.to = fieldEnd(id);
    this.more = this.view.snapshot !== undefined;
  }

  /** @returns false at the end */
  next(): boolean {
    for (;;) {
      if (this.over !== undefined) {
        if (this.at >= this.over.length) return false;
        this.field = this.over[this.at++]!;
        this.value = this.view.over.get(this.field)!;
        if (this.value.gone) continue;
        return true;
      }
      if (this.at < this.names.length) {
        const at = this.at++;
        this.field = this.names[at]!;
        if (this.view.over.has(this.field)) continue;
        if (this.values) {
          const bytes = this.rowValues[at]!;
          this.value = { bytes, start: 0, end: bytes.length, gone: false };
        }
        return true;
      }
      this.at = 0;
      if (this.more) this.load();
      else this.over = [...this.view.over.keys()];
    }
  }

  private load(): void {
    const snapshot = this.view.snapshot!;
    let last: Uint8Array | undefined;
    let count: number;
    if (this.values) {
      const rows = snapshot.range("field", this.from, this.to, ROWS_AT_ONCE);
      this.names = rows.map((row) => fieldOfFieldKey(row.key));
      this.rowValues = rows.map((row) => row.value);
      count = rows.length;
      last = rows[count - 1]?.key;
    } else {
      const keys = snapshot.keys("field", this.from, this.to, ROWS_AT_ONCE);
      this.names = keys.map(fieldOfFieldKey);
      count = keys.length;
      last = keys[count - 1];
    }
    this.more = count === ROWS_AT_ONCE;
    if (this.more) this.from = follow(last!);
  }

  close(): void {
    this.view.close();
  }
}
