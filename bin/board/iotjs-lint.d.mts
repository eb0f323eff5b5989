/** @returns complaints; none means that nothing known to fail on the engine was found */
export function lintIotjs(text: string): string[];
