/** Something a person can act on: said in one or two sentences, without a stack trace. */
export class Failure extends Error {
  /** @param exitCode of the command, 1..255 */
  constructor(
    message: string,
    readonly exitCode: number = 1,
  ) {
    super(message);
  }
}
