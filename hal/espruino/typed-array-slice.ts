/**
 * The engine's `slice` of a typed array gives a plain array: no `subarray`, and two variables a byte. This puts the
 * language's own meaning in its place, for every bundle that is to run there.
 */
export function mendTypedArraySlice(): void {
  Uint8Array.prototype.slice = function (
    this: Uint8Array<ArrayBuffer>,
    start?: number,
    end?: number,
  ): Uint8Array<ArrayBuffer> {
    const view = this.subarray(
      start === undefined ? 0 : start,
      end === undefined ? this.length : end,
    );
    return new Uint8Array(view);
  };
}
