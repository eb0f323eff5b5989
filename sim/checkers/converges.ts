/** converges: once all is well and quiet, both disks hold the same data, byte for byte. */
import type { Store, Table } from "../../agent/core/store.js";
import type { Finding } from "./checker.js";

const TABLES: readonly Table[] = ["data", "field", "expiry"];
const FIRST = new Uint8Array(0);

export function checkConverged(a: Store, b: Store): Finding | undefined {
  for (const table of TABLES) {
    const x = a.range(table, FIRST, undefined, 1e9);
    const y = b.range(table, FIRST, undefined, 1e9);
    for (let i = 0; i < Math.max(x.length, y.length); i++) {
      const left = x[i];
      const right = y[i];
      if (
        left !== undefined &&
        right !== undefined &&
        same(left.key, right.key) &&
        same(left.value, right.value)
      ) {
        continue;
      }
      return {
        promise: "converges",
        what: `table ${table} differs at row ${i}: a has ${show(left)}, b has ${show(right)}`,
      };
    }
  }
  return undefined;
}

function same(x: Uint8Array, y: Uint8Array): boolean {
  if (x.length !== y.length) return false;
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  return true;
}

function show(entry: { key: Uint8Array; value: Uint8Array } | undefined): string {
  if (entry === undefined) return "nothing";
  const text = (bytes: Uint8Array): string => {
    let out = "";
    for (const byte of bytes) {
      out +=
        byte >= 32 && byte < 127
          ? String.fromCharCode(byte)
          : `\\x${byte.toString(16).padStart(2, "0")}`;
    }
    return out.length > 80 ? `${out.slice(0, 30)}..(${bytes.length})..${out.slice(-40)}` : out;
  };
  return `"${text(entry.key)}" = "${text(entry.value)}"`;
}
