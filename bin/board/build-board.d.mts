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
