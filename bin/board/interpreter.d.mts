export function isOnPath(name: string): boolean;
export function onOneProcessor(command: readonly string[]): string[];
