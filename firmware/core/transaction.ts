/**
 * MULTI gathers a client's commands here; EXEC sends them as one write and one log entry.
 *
 * Nothing is checked here but what Redis checks when it queues (known to the table, number of arguments):
 * such an error makes EXEC answer -EXECABORT and nothing is sent.
 */
import type { ByteSink } from "../../protocol/resp.js";
import { makeSink, putBytes } from "../../protocol/resp.js";

export interface Transaction {
  commands: number;
  /** A command could not be queued: EXEC will refuse. */
  dirty: boolean;
  sink: ByteSink;
}

export function createTransaction(): Transaction {
  return { commands: 0, dirty: false, sink: makeSink(256) };
}

/** @returns "" or why it does not fit, as an error text (the transaction is dirty then) */
export function queueCommand(
  transaction: Transaction,
  bytes: Uint8Array,
  start: number,
  end: number,
  bytesMax: number,
): string {
  if (transaction.sink.length + end - start > bytesMax) {
    transaction.dirty = true;
    return "ERR transaction too large (limit " + bytesMax + " bytes)";
  }
  // A dirty transaction is never sent, so its commands need not be kept.
  if (!transaction.dirty) putBytes(transaction.sink, bytes, start, end);
  transaction.commands++;
  return "";
}
