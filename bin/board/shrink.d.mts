export function inlineConstants(text: string): string;
export function makeLazy(text: string, modules: string[]): string;
export function makeLazyWithin(text: string, entry: string): string;
export function numberAssertions(text: string, list: string[]): string;
export function hotFirst(text: string, lists: string[]): string;
export function shrink(
  named: string,
  lazyModules: string[],
  lazyWithin: string[],
): { text: string; assertions: string[] };
