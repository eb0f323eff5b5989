/** @returns complaints; none means that nothing known to fail on the engine was found */
export function lintBundle(text: string): string[];
export function renameLexerWords(text: string): string;
export const LEXER_WORDS: Set<string>;
/** Assignments to an array's length, in a bundle whose names are kept. */
export function lintLengths(named: string): string[];
