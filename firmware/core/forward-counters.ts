/** What the forward path has done since it was made; the console and the metrics tell it. */
export interface ForwardCounters {
  /** Commands of clients, by kind. */
  reads: number;
  writes: number;
  local: number;
  /** Replies not passed on (G3). */
  dropped: number;
  askedAgain: number;
  gaveUp: number;
  outcomeUnknown: number;
  /** Reads sent to each server. */
  readsTo: [number, number];
  clients: number;
  clientsRefused: number;
  clientsClosedSlow: number;
  held: number;
  heldBytes: number;
  memoryBytes: number;
}

/** None of anything yet. */
export function zeroCounters(): ForwardCounters {
  return {
    reads: 0,
    writes: 0,
    local: 0,
    dropped: 0,
    askedAgain: 0,
    gaveUp: 0,
    outcomeUnknown: 0,
    readsTo: [0, 0],
    clients: 0,
    clientsRefused: 0,
    clientsClosedSlow: 0,
    held: 0,
    heldBytes: 0,
    memoryBytes: 0,
  };
}
