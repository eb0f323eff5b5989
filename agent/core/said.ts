/** What people were told lately: a link that fails twice a second says why once, then now and then. */
const AGAIN_MS = 30000;
const TEXTS_MAX = 16;

export class Said {
  private readonly atMs = new Map<string, number>();

  /** @returns whether this is to be said now */
  now(text: string, nowMs: number): boolean {
    const before = this.atMs.get(text);
    if (before !== undefined && nowMs - before < AGAIN_MS) return false;
    if (this.atMs.size >= TEXTS_MAX) this.atMs.clear();
    this.atMs.set(text, nowMs);
    return true;
  }
}
