/** Virtual time: a binary heap of events, first by time, then by the order in which they were asked for. */
export class EventQueue {
  private times: number[] = [];
  private orders: number[] = [];
  private actions: (() => void)[] = [];
  private nextOrder = 0;

  get size(): number {
    return this.times.length;
  }

  /** @returns the time of the earliest event, Infinity when there is none. */
  get headTime(): number {
    return this.times.length > 0 ? this.times[0]! : Infinity;
  }

  push(time: number, action: () => void): void {
    const { times, orders, actions } = this;
    const order = this.nextOrder++;
    let i = times.length;
    times.push(time);
    orders.push(order);
    actions.push(action);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      // An equal time keeps the older event above, since its order is smaller.
      if (times[parent]! <= time) break;
      times[i] = times[parent]!;
      orders[i] = orders[parent]!;
      actions[i] = actions[parent]!;
      i = parent;
    }
    times[i] = time;
    orders[i] = order;
    actions[i] = action;
  }

  pop(): () => void {
    const { times, orders, actions } = this;
    const head = actions[0]!;
    const time = times.pop()!;
    const order = orders.pop()!;
    const action = actions.pop()!;
    const length = times.length;
    if (length > 0) {
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
        actions[i] = actions[child]!;
        i = child;
      }
      times[i] = time;
      orders[i] = order;
      actions[i] = action;
    }
    return head;
  }
}
