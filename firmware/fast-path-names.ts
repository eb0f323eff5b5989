/**
 * Names of commands that the forwarder lets pass without a second look.
 *
 * One is looked up in the table of commands when it comes first, and that time goes the forwarder's way. What has any mark
 * (it blocks, subscribes, must be read at the primary, ...) never comes in here.
 */
import { classOf, findCommand, marksOf } from "../protocol/command-class.js";
import { KNOWN_MAX } from "./fast-path-books.js";
import type { FastBooks } from "./fast-path-books.js";

/** What is added for a known command is not 0, so that 0 can mean "unknown". */
export const KNOWN = 4;

/** Remembers the class of a command under a key, as a head has it. */
export function learnName(books: FastBooks, key: string, name: string): void {
  const bytes = new Uint8Array(name.length);
  for (let i = 0; i < name.length; i++) bytes[i] = name.charCodeAt(i);
  const entry = findCommand(bytes, 0, name.length);
  if (entry < 0 || marksOf(entry) !== 0) return;
  if (books.knownCount === KNOWN_MAX) {
    books.knownCount = 0;
    books.known = {};
  }
  books.knownCount++;
  books.known[key] = KNOWN + (classOf(entry) << 8);
}
