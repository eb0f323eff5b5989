/**
 * Information acquisition, load unit (P1): what each server says of its own load.
 *
 * The report decides whether a server is eligible for reads at all (braking), and the first estimate of
 * its speed; how reads are shared is the target server's business, which knows more and sooner.
 */
import type { ServerView } from "./information.js";

/** @unit permille, 0..1000. @returns undefined until the server has reported on its present link */
export function loadPermille(view: ServerView): number | undefined {
  const said = view.said;
  if (said === undefined) return undefined;
  return said.loadPermille > 1000 ? 1000 : said.loadPermille;
}

/** The server asks to be spared reads: saturated, disk nearly full, backup running. */
export function isBraking(view: ServerView): boolean {
  return view.said !== undefined && view.said.braking;
}

/** The server's own measure of a command's time. @unit us, 0 when it has none */
export function reportedServiceUs(view: ServerView): number {
  return view.said === undefined ? 0 : view.said.serviceUs;
}
