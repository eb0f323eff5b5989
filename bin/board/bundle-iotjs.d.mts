export function bundleForIotjs(
  root: string,
  entry: string,
  constants: string,
  features: Record<string, boolean>,
): Promise<string>;
export function bundleIotjs(root: string, name: string, config: object): Promise<string>;
