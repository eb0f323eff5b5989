export interface BuiltBundle {
  text: string;
  /** The same with its names kept, for the lint. */
  named: string;
  parts: { path: string; bytes: number }[];
}
export function bundleFor(options: {
  root: string;
  entry: string;
  constants: string;
}): Promise<BuiltBundle>;
export function bundleBoard(root: string, name: string, config: object): Promise<BuiltBundle>;
