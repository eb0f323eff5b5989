export interface BuiltBundle {
  text: string;
  /** As it stands in the engine's Storage: reserved words as single bytes. */
  stored: Buffer;
  /** What a broken assertion means, by its number. */
  assertions: string[];
  /** The same with its names kept, for the lint. */
  named: string;
  parts: { path: string; bytes: number }[];
}
export function bundleFor(options: {
  root: string;
  entry: string;
  constants: string;
  features: Record<string, boolean>;
  network: string;
}): Promise<BuiltBundle>;
export function bundleBoard(root: string, name: string, config: object): Promise<BuiltBundle>;
