/** Progress bars in the terminal; now and then a line of text where there is no terminal. */

import { Presets, SingleBar } from "cli-progress";
import { estimator } from "./remaining.js";

export interface Progress {
  /** @param note what stands behind the bar, a few words */
  update(done: number, note: string): void;
  stop(): void;
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
  const left = estimator(total);
  return {
    update: (done, note) => {
      bar.update(done, { note, left: left(done, (performance.now() - started) / 1000) });
    },
    stop: () => bar.stop(),
  };
}
