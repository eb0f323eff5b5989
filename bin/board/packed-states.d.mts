export function packedStates(root: string): Promise<string>;
