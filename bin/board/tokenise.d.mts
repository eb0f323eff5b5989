export function tokenise(text: string): Buffer;
