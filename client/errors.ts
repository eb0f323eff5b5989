/** What can become of a command other than an answer. Whoever catches one knows whether it may try again. */

export class DyadError extends Error {
  override name = "DyadError";
}

/** The servers answered with an error, e.g. WRONGTYPE: it had no effect, and asking again gives the same. */
export class CommandError extends DyadError {
  override name = "CommandError";
  /** Its first word. */
  readonly code: string;

  constructor(text: string) {
    super(text);
    this.code = text.split(" ", 1)[0]!;
  }
}

/** Surely not done (no primary, queue full, never sent): it is safe to try again. */
export class NotDoneError extends DyadError {
  override name = "NotDoneError";
}

/** A write that may have been done or not. Look before trying again, or use a session. */
export class OutcomeUnknownError extends DyadError {
  override name = "OutcomeUnknownError";
}

/** A read that got no answer in time; asking again is safe. */
export class NoAnswerError extends DyadError {
  override name = "NoAnswerError";
}

/** The controller and this client do not trust or understand each other; the client has given up. */
export class HandshakeError extends DyadError {
  override name = "HandshakeError";
}
