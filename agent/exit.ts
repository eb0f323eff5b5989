/** How an agent ends, as its exit status says it. */
export const EXIT_STOPPED = 0;
/** A broken invariant or an unforeseen error. */
export const EXIT_FAULT = 1;
/** The configuration or the command line cannot be used. */
export const EXIT_CONFIG = 2;
/** Another agent uses the directory. */
export const EXIT_IN_USE = 3;
/** A port cannot be had. */
export const EXIT_PORT = 4;
/** The disk is full or failed. */
export const EXIT_DISK = 5;

const DISK_ERRORS =
  /ENOSPC|EDQUOT|EROFS|EIO|No space left|MDB_MAP_FULL|(store|disk) is full|the disk failed:|Input\/output error|[Ff]lush failed/;

/** The exit status for a reason the core or the store gives. */
export function exitForReason(reason: string): number {
  return DISK_ERRORS.test(reason) ? EXIT_DISK : EXIT_FAULT;
}

/** A failure to start, in words for a person. */
export class StartFailure extends Error {
  constructor(
    message: string,
    readonly exitCode: number,
  ) {
    super(message);
  }
}

/** What a failed listen means and what to do, for a person. */
export function portFailure(
  what: string,
  field: string,
  host: string,
  port: number,
  error: unknown,
  hostField = "host",
) {
  const code = (error as NodeJS.ErrnoException).code ?? "";
  const why =
    code === "EADDRINUSE"
      ? `port ${port} on ${host} is in use by another program: stop it, or change "${field}"`
      : code === "EADDRNOTAVAIL"
        ? `this machine has no address ${host}: change "${hostField}"`
        : code === "EACCES"
          ? `port ${port} needs more rights than this user has: change "${field}" to one above 1023`
          : (error as Error).message;
  return new StartFailure(`cannot listen ${what}: ${why}`, EXIT_PORT);
}
