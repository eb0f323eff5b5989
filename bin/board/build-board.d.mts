export interface Measured {
  command: string;
  boot: number;
  ready: number;
  full: number;
  clients: number;
}
export function budgetOf(options: {
  stored: number;
  journals: number;
  hardware: { storageBytes: number; variables: number; variableBytes: number };
  measured: Measured | { failed: string } | undefined;
}): { lines: string[]; wrong: string };
export function buildBoard(root: string, name: string): Promise<number>;
/** What flashing needs to know of a firmware, as dist/NAME.json holds it. */
export function flashFacts(
  name: string,
  config: unknown,
  stored: number,
  journals: number,
): Record<string, unknown>;
