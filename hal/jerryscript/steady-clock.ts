/**
 * A clock that only goes forward, where the engine has none but the time of day: that is compared with the kernel's
 * uptime whenever it has moved by more than a loop's turn, or back, and a step of it is taken out.
 */

/** Turns are shorter than this where polls go out. @unit ms */
const TURN_MS = 50;
/** The kernel's uptime is told in hundredths of a second. @unit ms */
const STEP_MS = 25;
/** Smaller steps than a turn are looked for as often as this. @unit ms */
const CHECK_MS = 5000;

/**
 * @param wall time of day @param uptime a clock without steps, which may be coarse
 * @returns a clock @unit ms since it was made
 */
export function steadyClock(wall: () => number, uptime: () => number): () => number {
  let anchorWall = wall();
  let anchorUptime = uptime();
  let anchorMs = 0;
  let lastWall = anchorWall;
  let last = 0;
  let checkedWall = anchorWall;

  function check(at: number): void {
    checkedWall = at;
    const up = uptime();
    const steady = anchorMs + up - anchorUptime;
    const told = anchorMs + at - anchorWall;
    if (told - steady < STEP_MS && steady - told < STEP_MS) return;
    // Where it was ahead it stands still until it is not.
    anchorMs = steady;
    anchorWall = at;
    anchorUptime = up;
  }

  return () => {
    const at = wall();
    if (at < lastWall || at - lastWall > TURN_MS || at - checkedWall > CHECK_MS) check(at);
    lastWall = at;
    const ms = anchorMs + at - anchorWall;
    if (ms > last) last = ms;
    return last;
  };
}
