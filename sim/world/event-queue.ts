/**
 * Virtual time: a binary heap of events, first by time, then by the order in which they were asked for.
 *
 * The heap moves numbers alone; an action lies still in its slot until it is due, since each move of one would have to be
 * told to the garbage collector.
 */
export class EventQueue {
  size = 0;
  private times = new Float64Array(256);
  /** Doubles as well: a world may ask for more than 2^32. */
  private orders = new Float64Array(256);
  private slots = new Int32Array(256);
  private readonly actions: ((() => void) | undefined)[] = [];
  /** Slots without an action: the first `freeCount`. */
  private readonly free: number[] = [];
  private freeCount = 0;
  private nextOrder = 0;

  /** @returns the time of the earliest event, Infinity when there is none. */
  get headTime(): number {
    return this.size > 0 ? this.times[0]! : Infinity;
  }

  push(time: number, action: () => void): void {
    if (this.size === this.times.length) this.grow();
    const { times, orders, slots } = this;
    const order = this.nextOrder++;
    let i = this.size++;
    const slot = this.freeCount > 0 ? this.free[--this.freeCount]! : i;
    this.actions[slot] = action;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      // An equal time keeps the older event above, since its order is smaller.
      if (times[parent]! <= time) break;
      times[i] = times[parent]!;
      orders[i] = orders[parent]!;
      slots[i] = slots[parent]!;
      i = parent;
    }
    times[i] = time;
    orders[i] = order;
    slots[i] = slot;
  }

  pop(): () => void {
    const { times, orders, slots } = this;
    const headSlot = slots[0]!;
    const head = this.actions[headSlot]!;
    this.actions[headSlot] = undefined;
    this.free[this.freeCount++] = headSlot;
    const length = --this.size;
    if (length > 0) {
      const time = times[length]!;
      const order = orders[length]!;
      const slot = slots[length]!;
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= length) break;
        const right = child + 1;
        if (
          right < length &&
          (times[right]! < times[child]! ||
            (times[right] === times[child] && orders[right]! < orders[child]!))
        ) {
          child = right;
        }
        if (times[child]! > time || (times[child] === time && orders[child]! > order)) break;
        times[i] = times[child]!;
        orders[i] = orders[child]!;
        slots[i] = slots[child]!;
        i = child;
      }
      times[i] = time;
      orders[i] = order;
      slots[i] = slot;
    }
    return head;
  }

  private grow(): void {
    const { times, orders, slots } = this;
    this.times = new Float64Array(2 * times.length);
    this.orders = new Float64Array(2 * orders.length);
    this.slots = new Int32Array(2 * slots.length);
    this.times.set(times);
    this.orders.set(orders);
    this.slots.set(slots);
  }
}
