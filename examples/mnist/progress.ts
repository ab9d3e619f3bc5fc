/** Progress bars in the terminal; now and then a line of text where there is no terminal. */

import { Presets, SingleBar } from "cli-progress";

export interface Progress {
  /** @param note what stands behind the bar, a few words */
  update(done: number, note: string): void;
  stop(): void;
}

/** Seconds as people write them: `1m05s`, `42s`. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  const rest = whole % 60;
  return minutes > 0 ? `${minutes}m${String(rest).padStart(2, "0")}s` : `${rest}s`;
}

export function startProgress(title: string, total: number): Progress {
  const bar = new SingleBar(
    {
      format: `${title}  {bar} {percentage} % · {note} · {left} left`,
      barsize: 16,
      fps: 5,
      etaBuffer: 500,
      noTTYOutput: true,
      notTTYSchedule: 5000,
      // Ctrl-C ends the program at once; so the terminal's state is left alone.
      gracefulExit: false,
      hideCursor: false,
      linewrap: true,
    },
    Presets.shades_grey,
  );
  bar.start(total, 0, { note: "starting", left: "?" });
  const started = performance.now();
  return {
    update: (done, note) => {
      const spent = (performance.now() - started) / 1000;
      bar.update(done, { note, left: done > 0 ? duration((spent / done) * (total - done)) : "?" });
    },
    stop: () => bar.stop(),
  };
}
