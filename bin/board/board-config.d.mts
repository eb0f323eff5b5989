export class BoardError extends Error {}
export interface BoardConfig {
  engine: "espruino" | "iotjs";
  hardware: { variables: number; storageBytes: number };
  [field: string]: unknown;
}
export function parseBoard(raw: unknown, file: string): BoardConfig;
export function readBoard(root: string, name: string, known: string[]): BoardConfig;
export function boardModule(name: string, config: BoardConfig): string;
export function socketsOf(config: BoardConfig): number;
export function carriesCommands(config: BoardConfig): boolean;
