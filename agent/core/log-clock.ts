/**
 * Log time: the clock that expiries are judged by. It goes on with a server's monotonic clock from the
 * last stamp in the log and never goes backwards; only a new pair takes its first reading from the wall.
 */
export class LogClock {
  private stampMs = 0;
  private atMs = 0;
  private latestMs = 0;

  /**
   * The log's newest stamp, read or received now. Whatever this clock showed before no longer counts: a disk without a log
   * began with the wall, which may be far ahead of the log it joins, and as primary it would end keys long before their time.
   * (That entries never go back in time is the log's own doing.)
   */
  observe(stampMs: number, nowMs: number): void {
    this.stampMs = stampMs;
    this.atMs = nowMs;
    this.latestMs = stampMs;
  }

  /** @returns whole milliseconds; what a new entry carries (leading), or an estimate of it (following) */
  timeMs(nowMs: number): number {
    const reading = Math.floor(this.stampMs + (nowMs > this.atMs ? nowMs - this.atMs : 0));
    if (reading > this.latestMs) this.latestMs = reading;
    return this.latestMs;
  }
}
