/**
 * Log time: the clock that expiries are judged by. It goes on with a server's monotonic clock from the
 * last stamp in the log and never goes backwards; only a new pair takes its first reading from the wall.
 */
export class LogClock {
  private stampMs = 0;
  private atMs = 0;
  private latestMs = 0;

  /** The log's newest stamp, read or received now. */
  observe(stampMs: number, nowMs: number): void {
    this.stampMs = stampMs;
    this.atMs = nowMs;
  }

  /** @returns whole milliseconds; what a new entry carries (leading), or an estimate of it (following) */
  timeMs(nowMs: number): number {
    const reading = Math.floor(this.stampMs + (nowMs > this.atMs ? nowMs - this.atMs : 0));
    if (reading > this.latestMs) this.latestMs = reading;
    return this.latestMs;
  }
}
