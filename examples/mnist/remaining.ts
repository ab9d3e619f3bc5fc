/** How long something still takes, as people write it. */

/** Seconds as people write them: `1m05s`, `42s`. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  const rest = whole % 60;
  return minutes > 0 ? `${minutes}m${String(rest).padStart(2, "0")}s` : `${rest}s`;
}

/** Seconds before the time left is said: the first steps also compile what they run, and tell little. */
const WARM = 1;
const SURE = 3;

/** Says how long it still takes, from what it took after the first second; `?` until that is worth something. */
export function estimator(total: number): (done: number, seconds: number) => string {
  let from: { done: number; seconds: number } | undefined;
  return (done, seconds) => {
    if (seconds >= WARM) from ??= { done, seconds };
    if (from === undefined || seconds < SURE || done <= from.done) return "?";
    return duration(((seconds - from.seconds) / (done - from.done)) * (total - done));
  };
}
