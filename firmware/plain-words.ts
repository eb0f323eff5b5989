/** What the pair is doing, in words for whoever looks at the terminal. */

/** The part of the core's status that is told in words. */
export interface StatusWords {
  epoch: number;
  primary: string | null;
  mode: "both" | "solo" | null;
  servers: { id: string; role: string; up: boolean; inSync: boolean }[];
  why: string;
  alarm: string;
}

/** What a change of it is worth a line. */
export function summaryOf(status: StatusWords): string {
  if (status.alarm !== "") return `ALARM: ${status.alarm}`;
  if (status.primary === null) return "nobody is primary";
  const primary = status.servers.find((server) => server.id === status.primary);
  const standby = status.servers.find((server) => server.id !== status.primary);
  const rest =
    standby === undefined || !standby.up
      ? `${standby?.id ?? "the other"} is away`
      : standby.inSync
        ? `${standby.id} is standby, in sync`
        : `${standby.id} is not in sync`;
  const can = primary?.up === true ? "" : ` (${status.primary} is not connected: nobody can write)`;
  return `epoch ${status.epoch}: ${status.primary} is primary${can}, ${rest}`;
}

/** A whole line: what is the case, and why (which says also what it waits for). */
export function sentenceOf(status: StatusWords): string {
  const why = status.why === "" ? "" : ` - ${status.why}`;
  return `${summaryOf(status)}${why}`;
}
